//! Who holds the script, and how is one question put to it?

use std::path::{Path, PathBuf};
use std::sync::mpsc::Receiver;
use std::time::Duration;

use mlua::{Function, Lua, Table, Value};
use penstock_core::Refusal;
use tokio::sync::oneshot;
use tracing::{info, warn};

use super::sandbox::{Sandbox, first_line};
use super::{Judged, PartitionFacts, Question, broken, codes, fields, values};

/// Largest script that is read.
const MAX_SCRIPT: u64 = 1 << 20;

/// One question and the way back.
pub(super) struct Work {
    pub(super) question: Question,
    pub(super) uid: u32,
    pub(super) partitions: Vec<PartitionFacts>,
    pub(super) begun: oneshot::Sender<()>,
    pub(super) reply: oneshot::Sender<Result<Judged, Refusal>>,
}

/// The thread's state.
pub(super) struct Worker {
    path: PathBuf,
    limit: Duration,
    memory_bytes: usize,
    /// Why there is none, where there is none.
    loaded: Option<Result<Sandbox, String>>,
}

impl Worker {
    pub(super) fn new(path: PathBuf, limit: Duration, memory_bytes: usize) -> Self {
        Self { path, limit, memory_bytes, loaded: None }
    }

    /// Answers until nobody can ask any more.
    pub(super) fn run(mut self, work: &Receiver<Work>) {
        while let Ok(Work { question, uid, partitions, begun, reply }) = work.recv() {
            // Who no longer waits needs no answer.
            let _gone = begun.send(());
            if !reply.is_closed() {
                let _gone = reply.send(self.judge(question, uid, &partitions));
            }
        }
    }

    fn judge(
        &mut self,
        question: Question,
        uid: u32,
        partitions: &[PartitionFacts],
    ) -> Result<Judged, Refusal> {
        let (path, limit, memory) = (&self.path, self.limit, self.memory_bytes);
        let loaded = self.loaded.get_or_insert_with(|| {
            let loaded = load(path, limit, memory);
            match &loaded {
                Ok(_) => {
                    info!(script = %path.display(), "the script that judges submissions is read")
                }
                Err(why) => warn!(script = %path.display(), %why, "no submission is taken"),
            }
            loaded
        });
        let sandbox = match loaded {
            Ok(sandbox) => sandbox,
            Err(why) => return Err(broken(why)),
        };
        let (done, said) = sandbox.within(limit, |lua| call(lua, question, uid, partitions));
        let outcome = done.map_err(|error| {
            let why = first_line(&error);
            warn!(script = %path.display(), %why, uid, "the script that judges submissions failed");
            with_lines(&broken(&why), &said)
        });
        // Memory that one question needed is not the next one's trouble.
        if outcome.is_err() {
            self.loaded = None;
        }
        let (code, question) = outcome?;
        if code == codes::SUCCESS {
            return Ok(Judged { question, said });
        }
        info!(uid, code, "the script refused a request");
        Err(refusal(code, &said))
    }
}

/// The refusal that a script meant.
fn refusal(code: i64, said: &[String]) -> Refusal {
    let text = codes::text(code);
    let detail = if said.is_empty() { text.clone() } else { said.join("\n") };
    Refusal::Remembered {
        kind: "SubmitScript".into(),
        slurm_text: text.into(),
        detail: detail.into(),
    }
}

/// The same with lines that the user should see before it.
fn with_lines(refusal: &Refusal, said: &[String]) -> Refusal {
    let mut lines = said.to_vec();
    lines.push(refusal.to_string());
    Refusal::Remembered {
        kind: refusal.kind().into(),
        slurm_text: refusal.slurm_text().into(),
        detail: lines.join("\n").into(),
    }
}

fn load(path: &Path, limit: Duration, memory_bytes: usize) -> Result<Sandbox, String> {
    let shown = path.display();
    let size = std::fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?.len();
    if size > MAX_SCRIPT {
        return Err(format!("{shown} has {size} bytes, at most {MAX_SCRIPT} are read"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))?;
    let sandbox = Sandbox::new(memory_bytes).map_err(|error| first_line(&error))?;
    let name = format!("@{}", path.file_name().unwrap_or_default().to_string_lossy());
    let (ran, _) = sandbox.within(limit, |lua| {
        lua.load(text).set_name(name).set_mode(mlua::chunk::ChunkMode::Text).exec()?;
        for function in ["slurm_job_submit", "slurm_job_modify"] {
            if !lua.globals().get::<Value>(function)?.is_function() {
                return Err(mlua::Error::runtime(format!("it has no function {function}")));
            }
        }
        Ok(())
    });
    ran.map_err(|error| format!("{shown} cannot be used: {}", first_line(&error)))?;
    Ok(sandbox)
}

/// Asks the script; its code, and the question as the script left it.
fn call(
    lua: &Lua,
    question: Question,
    uid: u32,
    partitions: &[PartitionFacts],
) -> mlua::Result<(i64, Question)> {
    let list = partition_list(lua, partitions)?;
    match question {
        Question::Submit { mut spec, mut script, mut environment } => {
            let submit: Function = lua.globals().get("slurm_job_submit")?;
            let desc = fields::submission_table(lua, &spec, (&script, &environment), uid)?;
            let before = fields::copy(lua, &desc)?;
            let code = submit.call::<Value>((desc.clone(), list, uid))?;
            let code = code_of(&code)?;
            if code == codes::SUCCESS {
                fields::read_submission(&before, &desc, &mut spec)?;
                fields::read_blobs(&before, &desc, (&mut script, &mut environment))?;
            }
            Ok((code, Question::Submit { spec, script, environment }))
        }
        Question::Modify { mut update, job } => {
            let modify: Function = lua.globals().get("slurm_job_modify")?;
            let desc = fields::change_table(lua, &update)?;
            let before = fields::copy(lua, &desc)?;
            let record = fields::job_table(lua, &job)?;
            let code = modify.call::<Value>((desc.clone(), record, list, uid))?;
            let code = code_of(&code)?;
            if code == codes::SUCCESS {
                fields::read_change(&before, &desc, &mut update)?;
            }
            Ok((code, Question::Modify { update, job }))
        }
    }
}

fn code_of(value: &Value) -> mlua::Result<i64> {
    values::whole(value).ok_or_else(|| {
        mlua::Error::runtime("it returned no number; return slurm.SUCCESS or slurm.ERROR")
    })
}

fn partition_list(lua: &Lua, partitions: &[PartitionFacts]) -> mlua::Result<Table> {
    let list = lua.create_table()?;
    for facts in partitions {
        let one = lua.create_table()?;
        let minutes = |minutes: Option<u64>| {
            minutes.and_then(|minutes| i64::try_from(minutes).ok()).unwrap_or(codes::INFINITE)
        };
        one.set("name", facts.name.as_str())?;
        one.set("flag_default", u32::from(facts.is_default))?;
        one.set("max_time", minutes(facts.max_minutes))?;
        one.set("default_time", facts.default_minutes.map_or(codes::NO_VAL, |m| minutes(Some(m))))?;
        one.set("min_nodes", facts.min_nodes.max(1))?;
        let most =
            Some(facts.max_nodes).filter(|&most| most > 0).map_or(codes::INFINITE, i64::from);
        one.set("max_nodes", most)?;
        one.set("priority_tier", facts.tier)?;
        one.set("state_up", if facts.is_up { 3 } else { 1 })?;
        for (name, text) in [
            ("allow_groups", &facts.allow_groups),
            ("allow_accounts", &facts.allow_accounts),
            ("deny_accounts", &facts.deny_accounts),
            ("allow_qos", &facts.allow_qos),
            ("qos", &facts.qos),
        ] {
            if !text.is_empty() {
                one.set(name, text.as_str())?;
            }
        }
        list.set(facts.name.as_str(), one)?;
    }
    Ok(list)
}
