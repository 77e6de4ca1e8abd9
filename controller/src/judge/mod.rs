//! What does the site's own script say of a submission?
//!
//! `job_submit.lua` as Slurm has it (`job_submit_plugins(7)` there): a function `slurm_job_submit`
//! reads and changes a request and may refuse it, `slurm_job_modify` a change of a job. It runs on a
//! thread of its own, one request after the other, before the writer hears of anything; what it may
//! do is bounded in time and memory, and it reaches no file and no process (see [`sandbox`]).
//!
//! A script that does not load, fails, or takes too long refuses what it was asked about.

mod codes;
mod fields;
mod sandbox;
mod values;
mod worker;

use std::path::PathBuf;
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use penstock_core::Refusal;
use penstock_proto::v1;
use tokio::sync::oneshot;
use tracing::{error, warn};

use crate::config::HooksSection;
use worker::{Work, Worker};

/// Requests that may wait to be judged; one more is refused.
const QUEUE: usize = 1_024;
/// Longer than the script's own limit: what no instruction count can stop (a pattern that is matched
/// for ever) is left to its thread, and another takes its place.
const GRACE: Duration = Duration::from_secs(2);
/// Threads that may be lost so; then nothing is judged until a restart.
const MOST_LOST: u32 = 4;

/// What is judged.
#[derive(Debug, Clone)]
pub enum Question {
    /// A submission, with its script and environment.
    Submit {
        /// The request.
        spec: Box<v1::JobSpec>,
        /// The batch script; empty: there is none.
        script: Bytes,
        /// `NAME=VALUE`, each with a zero byte behind it.
        environment: Bytes,
    },
    /// A change of a job.
    Modify {
        /// What is to change.
        update: Box<v1::JobUpdate>,
        /// The job as it is.
        job: Box<v1::Job>,
    },
}

/// A partition as the script sees it.
#[derive(Debug, Clone, Default)]
pub struct PartitionFacts {
    /// Name.
    pub name: String,
    /// Used where a job names none.
    pub is_default: bool,
    /// Highest limit in minutes; `None`: none.
    pub max_minutes: Option<u64>,
    /// Limit of jobs that state none, in minutes.
    pub default_minutes: Option<u64>,
    /// Fewest nodes.
    pub min_nodes: u32,
    /// Most nodes; 0: no limit.
    pub max_nodes: u32,
    /// `priority_tier`.
    pub tier: u32,
    /// It takes and starts jobs.
    pub is_up: bool,
    /// Who may use it, joined by commas.
    pub allow_groups: String,
    /// The same of accounts.
    pub allow_accounts: String,
    /// Accounts that may not.
    pub deny_accounts: String,
    /// QOS that may be used.
    pub allow_qos: String,
    /// Its own QOS.
    pub qos: String,
}

/// What came of it.
#[derive(Debug)]
pub struct Judged {
    /// As the script left it.
    pub question: Question,
    /// Lines for the user.
    pub said: Vec<String>,
}

/// The way to the script's thread.
#[derive(Debug, Default)]
pub struct Judge(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Of which script, and the way to its thread.
    thread: Option<(Settings, SyncSender<Work>)>,
    lost: u32,
}

/// What a thread was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Settings {
    path: PathBuf,
    limit: Duration,
    memory_bytes: usize,
}

impl Judge {
    /// Has the script judge `question`; without a script it stays as it is. Each answer takes at most
    /// the time that the cluster file gives, for each question that waits before it.
    ///
    /// # Errors
    /// With the script's refusal, or why it could not judge.
    pub async fn ask(
        &self,
        hooks: &HooksSection,
        question: Question,
        uid: u32,
        partitions: impl FnOnce() -> Vec<PartitionFacts>,
    ) -> Result<Judged, Refusal> {
        let Some(path) = hooks.job_submit.clone() else {
            return Ok(Judged { question, said: Vec::new() });
        };
        let limit = Duration::from_millis(u64::from(hooks.job_submit_ms));
        let mib = usize::try_from(hooks.job_submit_mib).unwrap_or(64);
        let settings = Settings { path, limit, memory_bytes: mib.saturating_mul(1 << 20) };
        let (reply, answer) = oneshot::channel();
        let (begun, beginning) = oneshot::channel();
        let work = Work { question, uid, partitions: partitions(), begun, reply };
        self.send(&settings, work)?;
        // The wait for others does not count.
        if beginning.await.is_err() {
            return Err(broken("the script's thread ended"));
        }
        match tokio::time::timeout(limit + GRACE, answer).await {
            Ok(Ok(judged)) => judged,
            Ok(Err(_)) => Err(broken("the script's thread ended")),
            Err(_) => {
                self.lose(&settings);
                Err(broken("the script did not come to an end, and cannot be stopped"))
            }
        }
    }

    /// The script is read again before the next question.
    pub fn reload(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).thread = None;
    }

    fn send(&self, settings: &Settings, work: Work) -> Result<(), Refusal> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.lost >= MOST_LOST {
            return Err(broken(
                "the script had to be given up several times; restart the controller",
            ));
        }
        if state.thread.as_ref().is_none_or(|(of, _)| of != settings) {
            state.thread = Some((settings.clone(), spawn(settings)?));
        }
        let Some((_, way)) = &state.thread else { return Err(broken("there is no thread")) };
        match way.try_send(work) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(_)) => Err(broken("too many submissions wait to be judged")),
            Err(TrySendError::Disconnected(_)) => {
                state.thread = None;
                Err(broken("the script's thread ended; try again"))
            }
        }
    }

    fn lose(&self, settings: &Settings) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        error!(script = %settings.path.display(), "the script cannot be stopped; its thread is lost");
        state.lost += 1;
        state.thread = None;
    }
}

fn spawn(settings: &Settings) -> Result<SyncSender<Work>, Refusal> {
    let (way, work) = sync_channel(QUEUE);
    let (path, limit, memory) = (settings.path.clone(), settings.limit, settings.memory_bytes);
    std::thread::Builder::new()
        .name("job_submit".into())
        .spawn(move || Worker::new(path, limit, memory).run(&work))
        .map(|_ends_with_its_queue| way)
        .map_err(|error| {
            warn!(%error, "no thread for the script that judges submissions");
            broken("no thread can be made for it")
        })
}

/// A refusal that is nobody's decision: Slurm's `SLURM_ERROR`.
fn broken(why: &str) -> Refusal {
    Refusal::Remembered {
        kind: "SubmitScript".into(),
        slurm_text: codes::text(codes::ERROR).into(),
        detail: format!("job_submit: {why}").into(),
    }
}

#[cfg(test)]
mod tests;
