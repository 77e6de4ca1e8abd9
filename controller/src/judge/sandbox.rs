//! What can the script reach, and what stops it?
//!
//! It has Lua's base functions and the tables `string`, `table`, `math` and `utf8`, and nothing that
//! opens a file, starts a process, loads code or makes a coroutine (whose instructions no hook counts).
//! Every few thousand instructions it is asked whether its time is over. Then each further look
//! raises an error, and `pcall` and `xpcall` here pass that error on instead of catching it: a loop
//! round a `pcall` ends too. Finalizers, which Lua runs without hooks, cannot be set.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use mlua::{
    Error, Function, HookTriggers, Lua, LuaOptions, MultiValue, Result, StdLib, Table, Value,
    Variadic, VmState,
};
use tracing::{error, info, warn};

use super::codes;

/// Instructions from one look at the clock to the next; far below a millisecond.
const INSTRUCTIONS: u32 = 5_000;
/// Lines for the user that are kept of one question.
const MOST_LINES: usize = 64;
/// Longest text that is logged or told to the user, bytes.
const LONGEST: usize = 4_096;
/// Base functions that load code or reach out of the sandbox.
const FORBIDDEN: &[&str] =
    &["dofile", "loadfile", "load", "loadstring", "require", "collectgarbage"];

/// A state of Lua with its bounds.
pub(super) struct Sandbox {
    pub(super) lua: Lua,
    bounds: Rc<Bounds>,
}

#[derive(Default)]
struct Bounds {
    deadline: Cell<Option<Instant>>,
    said: RefCell<Vec<String>>,
}

impl Bounds {
    fn is_over(&self) -> bool {
        self.deadline.get().is_some_and(|at| Instant::now() >= at)
    }
}

fn out_of_time() -> Error {
    Error::runtime("the script took longer than it may (job_submit_ms)")
}

impl Sandbox {
    /// A fresh state that may use `memory_bytes`.
    ///
    /// # Errors
    /// If Lua has no memory for it.
    pub(super) fn new(memory_bytes: usize) -> Result<Self> {
        let libs = StdLib::STRING | StdLib::TABLE | StdLib::MATH | StdLib::UTF8;
        let lua = Lua::new_with(libs, LuaOptions::default())?;
        lua.set_memory_limit(memory_bytes)?;
        let bounds = Rc::new(Bounds::default());
        let watched = Rc::clone(&bounds);
        let triggers = HookTriggers::new().every_nth_instruction(INSTRUCTIONS);
        lua.set_global_hook(triggers, move |_, _| match watched.is_over() {
            true => Err(out_of_time()),
            false => Ok(VmState::Continue),
        })?;
        let sandbox = Self { lua, bounds };
        sandbox.restrict()?;
        sandbox.offer()?;
        Ok(sandbox)
    }

    /// Runs `act` with a deadline; what was said to the user meanwhile.
    pub(super) fn within<T>(
        &self,
        limit: Duration,
        act: impl FnOnce(&Lua) -> Result<T>,
    ) -> (Result<T>, Vec<String>) {
        self.bounds.said.borrow_mut().clear();
        self.bounds.deadline.set(Instant::now().checked_add(limit));
        let done = act(&self.lua);
        self.bounds.deadline.set(None);
        (done, self.bounds.said.take())
    }

    fn restrict(&self) -> Result<()> {
        let globals = self.lua.globals();
        for name in FORBIDDEN {
            globals.set(*name, Value::Nil)?;
        }
        let strings: Table = globals.get("string")?;
        strings.set("dump", Value::Nil)?;
        let bounds = Rc::clone(&self.bounds);
        let pcall = self.lua.create_function(move |lua, (f, args): (Function, MultiValue)| {
            caught(lua, &bounds, f.call::<MultiValue>(args), None)
        })?;
        globals.set("pcall", pcall)?;
        let bounds = Rc::clone(&self.bounds);
        let xpcall = self.lua.create_function(
            move |lua, (f, handler, args): (Function, Function, MultiValue)| {
                caught(lua, &bounds, f.call::<MultiValue>(args), Some(&handler))
            },
        )?;
        globals.set("xpcall", xpcall)?;
        let set: Function = globals.get("setmetatable")?;
        let guarded =
            self.lua.create_function(move |_, (table, meta): (Table, Option<Table>)| {
                let finalizer =
                    meta.as_ref().map(|meta| meta.raw_get::<Value>("__gc")).transpose()?;
                if finalizer.is_some_and(|value| !value.is_nil()) {
                    return Err(Error::runtime("a metatable may not have __gc here"));
                }
                set.call::<Table>((table, meta))
            })?;
        globals.set("setmetatable", guarded)
    }

    /// The table `slurm`, and `print`, which writes to the log.
    fn offer(&self) -> Result<()> {
        let slurm = self.lua.create_table()?;
        for (name, value) in codes::NUMBERS {
            slurm.set(*name, *value)?;
        }
        for (name, value) in codes::LARGE {
            slurm.set(*name, *value)?;
        }
        for (name, value, _) in codes::ERRORS {
            slurm.set(*name, *value)?;
        }
        for name in
            ["log_info", "log_error", "log_verbose", "log_debug", "log_debug2", "log_debug3"]
        {
            let log = self.lua.create_function(move |lua, args: Variadic<Value>| {
                let text = formatted(lua, args)?;
                match name {
                    "log_error" => error!(target: "job_submit", "{text}"),
                    "log_info" => info!(target: "job_submit", "{text}"),
                    _ => tracing::debug!(target: "job_submit", "{text}"),
                }
                Ok(())
            })?;
            slurm.set(name, log)?;
        }
        for name in ["log_user", "user_msg"] {
            let bounds = Rc::clone(&self.bounds);
            let say = self.lua.create_function(move |lua, args: Variadic<Value>| {
                let text = formatted(lua, args)?;
                let mut said = bounds.said.borrow_mut();
                let room = MOST_LINES.saturating_sub(said.len());
                said.extend(text.lines().take(room).map(str::to_owned));
                Ok(())
            })?;
            slurm.set(name, say)?;
        }
        let globals = self.lua.globals();
        let print = self.lua.create_function(|lua, args: Variadic<Value>| {
            let texts: Result<Vec<String>> = args.iter().map(|value| shown(lua, value)).collect();
            info!(target: "job_submit", "{}", clean(&texts?.join("\t")));
            Ok(())
        })?;
        globals.set("print", print)?;
        globals.set("slurm", slurm)
    }
}

/// What a protected call gives back. The end of the script's time is not caught by any.
fn caught(
    lua: &Lua,
    bounds: &Bounds,
    done: Result<MultiValue>,
    handler: Option<&Function>,
) -> Result<MultiValue> {
    if bounds.is_over() {
        return Err(out_of_time());
    }
    let error = match done {
        Ok(mut values) => {
            values.push_front(Value::Boolean(true));
            return Ok(values);
        }
        Err(error) => error,
    };
    let text = Value::String(lua.create_string(first_line(&error))?);
    let told = match handler {
        Some(handler) => handler.call::<Value>(text)?,
        None => text,
    };
    Ok(MultiValue::from_vec(vec![Value::Boolean(false), told]))
}

/// What went wrong, without the way to it.
pub(super) fn first_line(error: &Error) -> String {
    let whole = match error {
        Error::CallbackError { cause, .. } => return first_line(cause),
        Error::RuntimeError(text) => text.clone(),
        other => other.to_string(),
    };
    let line = whole.lines().next().unwrap_or_default();
    clean(line.strip_prefix("runtime error: ").unwrap_or(line))
}

/// `string.format` of the arguments; one alone stands for itself, percent signs and all.
fn formatted(lua: &Lua, args: Variadic<Value>) -> Result<String> {
    if args.len() == 1 {
        return Ok(clean(&shown(lua, &args[0])?));
    }
    let strings: Table = lua.globals().get("string")?;
    let format: Function = strings.get("format")?;
    let text: Value = format.call(args)?;
    Ok(clean(&shown(lua, &text)?))
}

fn shown(lua: &Lua, value: &Value) -> Result<String> {
    match value {
        Value::String(text) => Ok(text.to_string_lossy()),
        other => {
            let text: Function = lua.globals().get("tostring")?;
            let text: Value = text.call(other.clone())?;
            Ok(text.as_string().map(mlua::LuaString::to_string_lossy).unwrap_or_default())
        }
    }
}

/// Without what would play with a terminal or a log, and not longer than is read.
fn clean(text: &str) -> String {
    let shown = |c: char| if c.is_control() && c != '\n' && c != '\t' { '?' } else { c };
    let mut text: String = text.chars().map(shown).collect();
    if text.len() > LONGEST {
        let end = (0..=LONGEST).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        warn!("a text of the script that judges submissions was cut");
    }
    text
}
