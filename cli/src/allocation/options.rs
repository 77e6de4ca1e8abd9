//! What was asked of srun or salloc, beyond what sbatch knows too?

mod apply;
#[cfg(test)]
mod tests;
pub(crate) mod words;

use crate::errors::error;
use crate::options::{Given, Operands, Takes, UsageError, parse};
use crate::sbatch::request::{BadValue, Request, Source};
use crate::sbatch::table::Key as J;
use crate::sbatch::{is_flag, is_true};

pub(crate) use self::words::mpi_list;
use super::table::{Command, Key, SALLOC_ENVIRONMENT, SRUN_ENVIRONMENT, table};

/// Exit status of a bad option or a value of the wrong form.
const BAD_OPTION: i32 = 255;

/// Exit status of everything else that fails.
const FAILED: i32 = 1;

/// What only srun and salloc are asked for. `None` and empty: not given.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Extras {
    pub(crate) distribution: String,
    /// Seconds; 0: now or never.
    pub(crate) immediate: Option<u32>,
    pub(crate) no_kill: bool,
    pub(crate) overcommit: bool,

    pub(crate) cpu_bind: String,
    pub(crate) disable_status: bool,
    pub(crate) error: Option<String>,
    pub(crate) exact: bool,
    pub(crate) input: Option<String>,
    pub(crate) jobid: Option<u32>,
    pub(crate) kill_on_bad_exit: bool,
    pub(crate) label: bool,
    pub(crate) mpi: String,
    pub(crate) multi_prog: bool,
    pub(crate) output: Option<String>,
    pub(crate) overlap: bool,
    pub(crate) pty: bool,
    pub(crate) quit_on_interrupt: bool,
    pub(crate) relative: Option<u32>,
    /// Name of the step, where the command line gave one.
    pub(crate) step_name: Option<String>,
    pub(crate) task_epilog: String,
    pub(crate) task_prolog: String,
    pub(crate) unbuffered: bool,
    pub(crate) wait_secs: u64,
    pub(crate) whole: bool,

    pub(crate) bell: bool,
    /// The command is ended when the job is; the signal.
    pub(crate) kill_command: Option<i32>,
    pub(crate) no_shell: bool,
}

/// A command line, read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    pub(crate) request: Request,
    pub(crate) extras: Extras,
    /// The command and its arguments.
    pub(crate) operands: Vec<String>,
}

/// Why a command line cannot be read.
#[derive(Debug)]
pub(crate) enum Stop {
    Usage(UsageError),
    /// Lines to print behind `srun: error: `.
    Value(Vec<String>),
}

impl Stop {
    /// Prints the reason; returns the exit status.
    pub(crate) fn report(&self, program: &str) -> i32 {
        match self {
            Self::Usage(usage) => {
                usage.report(program);
                BAD_OPTION
            }
            Self::Value(lines) => {
                lines.iter().for_each(|line| error(program, line));
                exit_of(lines)
            }
        }
    }
}

impl From<BadValue> for Stop {
    fn from(BadValue(lines): BadValue) -> Self {
        Self::Value(lines)
    }
}

/// Slurm's commands end with 255 where a value has the wrong form, and with 1 where a number is wrong.
fn exit_of(lines: &[String]) -> i32 {
    let last = lines.last().map_or("", String::as_str);
    let begins = ["Invalid numeric value", "Invalid MPI type", "Failed to parse"];
    let milder = begins.iter().any(|text| last.starts_with(text));
    if milder || last.ends_with("is not built yet") { FAILED } else { BAD_OPTION }
}

/// Reads a command line over the environment.
///
/// # Errors
/// At the first option that is unknown, not built, or has a wrong value.
pub(crate) fn read(
    command: Command,
    args: &[String],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Order, Stop> {
    let table = table(command);
    let parsed = parse(&table, Operands::EndOptions, args).map_err(Stop::Usage)?;
    let mut order =
        Order { request: Request::default(), extras: Extras::default(), operands: parsed.operands };
    let variables = match command {
        Command::Srun => SRUN_ENVIRONMENT,
        Command::Salloc => SALLOC_ENVIRONMENT,
    };
    for (variable, key) in variables {
        let Some(text) = env(variable) else { continue };
        let takes = table.iter().find(|option| option.key == *key).map(|option| option.takes);
        order.apply_variable(*key, takes, text).map_err(|BadValue(mut lines)| {
            lines.insert(0, format!("in the environment variable {variable}:"));
            Stop::Value(lines)
        })?;
    }
    for given in &parsed.given {
        order.apply(given, Source::CommandLine)?;
    }
    Ok(order)
}

impl Order {
    fn apply_variable(
        &mut self,
        key: Key,
        takes: Option<Takes>,
        text: String,
    ) -> Result<(), BadValue> {
        let value = match takes {
            // As many as --debug levels.
            _ if key == Key::Job(J::Verbose) => {
                self.request.verbose += text.trim().parse::<u32>().unwrap_or(1);
                return Ok(());
            }
            Some(Takes::Nothing) if is_true(&text) => None,
            // What a number means where it is not a flag, as in SLURM_IMMEDIATE=30.
            Some(Takes::Maybe) if key == Key::Immediate => Some(text),
            Some(Takes::Maybe) if is_true(&text) => Some(text).filter(|text| !is_flag(text)),
            Some(Takes::Value) if !text.is_empty() => Some(text),
            _ => return Ok(()),
        };
        self.apply(&Given { key, value }, Source::Environment)
    }
}
