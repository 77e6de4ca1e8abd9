//! What has the controller to run and to say as jobs come and go?
//!
//! The writer's thread notes which jobs began and ended, by the records that a commit changed; a task
//! runs the controller's prologs and epilogs and has mail sent. Nothing here holds up a commit. What
//! waits for the controller's prolog is also found in the records, again and again, so that a full
//! queue or a restart loses none: after a restart a prolog may run once more.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_core::cluster::waits_for_controller;
use penstock_core::model::{Job, Run};
use penstock_core::{Cluster, Command, RecordKey};
use penstock_vocab::{Attempt, JobId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::convert::hooks::{controller_variables, exit_variables, hook_variables};
use crate::mail::{Letter, Post};
use crate::program;
use crate::rpc::Shared;
use crate::writer::Snapshot;

/// What may wait to be run or said.
const QUEUE: usize = 16_384;
/// Programs that run at the same time; what is more waits.
const AT_ONCE: usize = 64;
/// How often the records are looked at for what was missed.
const SWEEP: Duration = Duration::from_secs(5);

/// What happened.
#[derive(Debug)]
enum News {
    /// A run waits for the controller's prolog.
    Prolog(JobId, Attempt),
    /// A run has ended.
    Ended(Arc<Job>, Arc<Run>, Arc<Snapshot>),
    /// Somebody wants to read of it.
    Mail(Box<Letter>),
}

/// Where the writer's thread leaves what happened.
#[derive(Debug)]
pub struct SiteDesk {
    news: mpsc::Sender<News>,
    taken: Mutex<Option<mpsc::Receiver<News>>>,
    wants_ends: AtomicBool,
    full: AtomicBool,
}

impl Default for SiteDesk {
    fn default() -> Self {
        let (news, taken) = mpsc::channel(QUEUE);
        Self {
            news,
            taken: Mutex::new(Some(taken)),
            wants_ends: AtomicBool::new(false),
            full: AtomicBool::new(false),
        }
    }
}

impl SiteDesk {
    /// Whether ends of runs are to be told: the controller has an epilog.
    pub fn want_ends(&self, wanted: bool) {
        self.wants_ends.store(wanted, Ordering::Relaxed);
    }

    /// Notes what a commit changed. Never blocks.
    pub fn note(&self, before: &Cluster, after: &Arc<Snapshot>, changed: &[RecordKey]) {
        for key in changed {
            let RecordKey::Job(id) = key else { continue };
            let (old, new) = (before.job(*id), after.cluster.job(*id));
            let Some(new) = new else { continue };
            self.note_job(old, new, after);
            for letter in Letter::of(before, &after.cluster, old, new) {
                self.tell(News::Mail(Box::new(letter)));
            }
        }
    }

    fn note_job(&self, old: Option<&Arc<Job>>, new: &Arc<Job>, after: &Arc<Snapshot>) {
        if waits_for_controller(new) && !old.is_some_and(|old| waits_for_controller(old)) {
            self.tell(News::Prolog(new.id, new.last_attempt));
        }
        if !self.wants_ends.load(Ordering::Relaxed) {
            return;
        }
        let Some(run) = old.and_then(|old| old.active_run()) else { return };
        if new.active_run().is_some() {
            return;
        }
        let mut now = new.earlier_runs.iter().rev().chain(&new.run);
        let ended = now.find(|now| now.attempt == run.attempt).unwrap_or(run);
        self.tell(News::Ended(Arc::clone(new), Arc::clone(ended), Arc::clone(after)));
    }

    fn tell(&self, news: News) {
        if self.news.try_send(news).is_err() && !self.full.swap(true, Ordering::Relaxed) {
            warn!("too many epilogs and mails of the controller wait; some are left out");
        }
    }

    /// Runs and sends until the controller ends.
    pub async fn run(self: Arc<Self>, shared: Arc<Shared>, stop: CancellationToken) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(mut taken) = taken else { return };
        let mut work = Desk {
            shared: Arc::clone(&shared),
            tasks: JoinSet::new(),
            prologs: BTreeSet::new(),
            post: Arc::new(Post::default()),
        };
        work.post.learn_all(&shared.snapshot().cluster);
        loop {
            let room = work.tasks.len() < AT_ONCE;
            tokio::select! {
                () = stop.cancelled() => return,
                Some(done) = work.tasks.join_next() => {
                    if let Ok(Some(key)) = done {
                        work.prologs.remove(&key);
                    }
                }
                news = taken.recv(), if room => match news {
                    Some(news) => work.take(news),
                    None => return,
                },
                () = tokio::time::sleep(SWEEP) => {
                    self.full.store(false, Ordering::Relaxed);
                    work.sweep();
                }
            }
        }
    }
}

/// The task's state.
struct Desk {
    shared: Arc<Shared>,
    /// Each gives back which prolog it ran, if one.
    tasks: JoinSet<Option<(JobId, Attempt)>>,
    prologs: BTreeSet<(JobId, Attempt)>,
    post: Arc<Post>,
}

impl Desk {
    fn take(&mut self, news: News) {
        match news {
            News::Prolog(job, attempt) => self.prolog(job, attempt),
            News::Ended(job, run, snapshot) => self.epilog(&job, &run, &snapshot),
            News::Mail(letter) => self.send(*letter),
        }
    }

    fn sweep(&mut self) {
        let snapshot = self.shared.snapshot();
        if snapshot.cluster.config().hooks.controller_prolog || !self.prologs.is_empty() {
            let waiting: Vec<_> = snapshot
                .cluster
                .runs_before_controller_prolog()
                .map(|job| (job.id, job.last_attempt))
                .collect();
            waiting.into_iter().for_each(|(job, attempt)| self.prolog(job, attempt));
        }
        for letter in self.post.due(&snapshot.cluster, self.shared.clock.now()) {
            self.send(letter);
        }
    }

    fn send(&mut self, letter: Letter) {
        self.post.learn(&letter);
        let (post, file) = (Arc::clone(&self.post), self.shared.file());
        let cluster = file.cluster.name.clone();
        self.tasks.spawn(async move {
            post.send(&file.mail, &cluster, &letter).await;
            None
        });
    }

    fn prolog(&mut self, id: JobId, attempt: Attempt) {
        let snapshot = self.shared.snapshot();
        let Some(job) = snapshot.cluster.job(id).filter(|job| waits_for_controller(job)) else {
            return;
        };
        let Some(run) = job.active_run().filter(|run| run.attempt == attempt) else { return };
        if !self.prologs.insert((id, attempt)) {
            return;
        }
        let mut variables = hook_variables(&snapshot.cluster, job, run, "prolog_slurmctld");
        variables.extend(controller_variables(job));
        let file = self.shared.file();
        let (path, limit) = (file.hooks.controller_prolog.clone(), limit(file.hooks.timeout_secs));
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let error = match run_hook(path, variables, limit).await {
                Ok(()) => String::new(),
                Err(why) => {
                    warn!(job = %id, %why, "the controller's prolog failed");
                    why
                }
            };
            let error = error.chars().take(500).collect::<String>().into();
            let command = Command::ControllerPrologDone { job: id, attempt, error };
            shared.writer.tell(command).await;
            Some((id, attempt))
        });
    }

    fn epilog(&mut self, job: &Arc<Job>, run: &Arc<Run>, snapshot: &Arc<Snapshot>) {
        let mut variables = hook_variables(&snapshot.cluster, job, run, "epilog_slurmctld");
        variables.extend(controller_variables(job));
        variables.extend(exit_variables(run));
        let file = self.shared.file();
        let (path, limit) = (file.hooks.controller_epilog.clone(), limit(file.hooks.timeout_secs));
        let id = job.id;
        self.tasks.spawn(async move {
            match run_hook(path, variables, limit).await {
                Ok(()) => info!(job = %id, "the controller's epilog has run"),
                Err(why) => warn!(job = %id, %why, "the controller's epilog failed"),
            }
            None
        });
    }
}

fn limit(secs: u32) -> Option<Duration> {
    (secs > 0).then(|| Duration::from_secs(u64::from(secs)))
}

/// Runs a hook of the controller; one that the file no longer names has nothing to do.
async fn run_hook(
    path: Option<PathBuf>,
    variables: Vec<(&'static str, String)>,
    limit: Option<Duration>,
) -> Result<(), String> {
    let Some(path) = path else { return Ok(()) };
    let variables = variables
        .into_iter()
        .filter(|(_, value)| !value.contains('\0'))
        .map(|(name, value)| (OsString::from(name), OsString::from(value)));
    program::run(&path, &[], variables, limit).await
}
