//! Who gets mail about which job, and what does it say?
//!
//! Letters follow from what a commit changed of a job (began, ended, runs again), and from the clock
//! (part of the time limit used, a dependency that can never be met). Subjects are Slurm's. Of an
//! array one letter is sent when its first task starts and one when all have ended, unless each task
//! was asked for (sbatch(1), `--mail-type`).

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use penstock_core::Cluster;
use penstock_core::cluster::DependencyState;
use penstock_core::command::Unit;
use penstock_core::model::Job;
use penstock_vocab::{ExitCode, JobId, JobState, MailTypes, Timestamp, is_mail_address};
use tracing::{debug, warn};

use crate::config::MailSection;
use crate::program;

/// How long the mail program may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Jobs of which the clock may bring a letter.
const MOST_TIMED: usize = 100_000;

/// The events that a request names; none where it cannot be read.
#[must_use]
pub(crate) fn types_of(text: &str) -> MailTypes {
    text.parse().unwrap_or_default()
}

/// One letter.
#[derive(Debug, Clone)]
pub(crate) struct Letter {
    job: Arc<Job>,
    event: MailTypes,
    at: Timestamp,
    /// Of a whole array: lowest and highest exit code of its tasks.
    array: Option<(ExitCode, ExitCode)>,
}

impl Letter {
    /// The letters that a change of a job calls for.
    #[must_use]
    pub(crate) fn of(
        before: &Cluster,
        after: &Cluster,
        old: Option<&Arc<Job>>,
        new: &Arc<Job>,
    ) -> Vec<Self> {
        let details = &new.spec.details;
        if details.mail_type.is_empty() {
            return Vec::new();
        }
        let types = types_of(&details.mail_type);
        let whole = new.array.filter(|_| !types.contains(MailTypes::ARRAY_TASKS));
        let letter = |event| Self { job: Arc::clone(new), event, at: after.now(), array: None };
        let mut letters = Vec::new();
        let attempts = |job: Option<&Arc<Job>>| job.map_or(0, |job| job.last_attempt.0);
        if attempts(Some(new)) > attempts(old) {
            let first = whole.is_none_or(|task| {
                let array = before.array(task.base);
                // Of several that started together the first speaks for all.
                let mut started = after.tasks_of(task.base).filter(|one| one.last_attempt.0 > 0);
                let speaks = started.next().is_some_and(|one| one.id == new.id);
                speaks
                    && array
                        .is_some_and(|array| array.pending.len() == u64::from(array.summary.count))
            });
            if types.contains(MailTypes::BEGIN) && first {
                letters.push(letter(MailTypes::BEGIN));
            } else if is_timed(types) {
                // Only so that it is known to the clock.
                letters.push(letter(MailTypes::default()));
            }
        } else if old.is_none() && types.contains(MailTypes::INVALID_DEPEND) {
            letters.push(letter(MailTypes::default()));
        }
        let restarts = old.map_or(0, |old| old.restarts);
        if new.restarts > restarts && new.is_pending() && types.contains(MailTypes::REQUEUE) {
            letters.push(letter(MailTypes::REQUEUE));
        }
        if new.is_over() && !old.is_some_and(|old| old.is_over()) {
            letters.extend(Self::of_end(after, new, types, whole.map(|task| task.base)));
        }
        letters
    }

    fn of_end(
        after: &Cluster,
        job: &Arc<Job>,
        types: MailTypes,
        array: Option<JobId>,
    ) -> Option<Self> {
        let mut exits = None;
        let mut well = matches!(job.state, JobState::Completed | JobState::Cancelled);
        if let Some(base) = array {
            let waits = after.array(base).is_some_and(|array| !array.pending.is_empty());
            if waits || after.running_tasks(base) > 0 {
                return None;
            }
            if !after.tasks_of(base).all(|task| task.is_over()) {
                return None;
            }
            let of = |job: &Arc<Job>| job.run.as_ref().map(|run| run.exit);
            let mut all: Vec<ExitCode> = after.tasks_of(base).filter_map(of).collect();
            all.sort_by_key(|exit| exit.to_wait_status());
            let none = ExitCode::default();
            let (low, high) = (all.first().copied(), all.last().copied());
            exits = Some((low.unwrap_or(none), high.unwrap_or(none)));
            well = all.iter().all(|exit| exit.is_success());
        }
        let event = match (well, types.contains(MailTypes::FAIL), types.contains(MailTypes::END)) {
            (true, _, true) => MailTypes::END,
            (false, true, _) => MailTypes::FAIL,
            (false, false, true) => MailTypes::END,
            (true, _, false) | (false, false, false) => return None,
        };
        Some(Self { job: Arc::clone(job), event, at: after.now(), array: exits })
    }

    /// The subject, as Slurm writes it.
    fn subject(&self) -> String {
        let job = &self.job;
        let types = types_of(&job.spec.details.mail_type);
        let (id, name) = (job.id, &job.spec.name);
        let what = event_text(self.event);
        let (time, end) = (self.time_text(), self.end_text());
        match job.array {
            Some(task) if !types.contains(MailTypes::ARRAY_TASKS) => {
                let base = task.base;
                format!("Slurm Array Summary Job_id={base}_* ({id}) Name={name} {what}{end}")
            }
            Some(task) => {
                let (base, index) = (task.base, task.index);
                format!(
                    "Slurm Array Task Job_id={base}_{index} ({id}) Name={name} {what}{time}{end}"
                )
            }
            None => format!("Slurm Job_id={id} Name={name} {what}{time}{end}"),
        }
    }

    fn queued_secs(&self) -> Option<u64> {
        let run = self.job.run.as_ref()?;
        Some(run.start_time.since(self.job.submit_time).as_secs())
    }

    fn run_secs(&self) -> Option<u64> {
        let newest = self.job.run.as_ref().or_else(|| self.job.earlier_runs.last())?;
        Some(newest.elapsed(self.at).as_secs())
    }

    fn time_text(&self) -> String {
        match self.event {
            MailTypes::BEGIN => {
                self.queued_secs().map(|secs| format!(", Queued time {}", clock(secs)))
            }
            MailTypes::INVALID_DEPEND => None,
            _ => self.run_secs().map(|secs| format!(", Run time {}", clock(secs))),
        }
        .unwrap_or_default()
    }

    fn end_text(&self) -> String {
        if !matches!(self.event, MailTypes::END | MailTypes::FAIL) {
            return String::new();
        }
        if let Some((low, high)) = self.array {
            let state = match (low.is_success(), high.is_success()) {
                _ if high.signal != 0 => return format!(", Failed, MaxSignal [{}]", high.signal),
                (true, false) => "Mixed",
                (false, _) => "Failed",
                (true, true) => "Completed",
            };
            return format!(", {state}, ExitCode [{}-{}]", low.status, high.status);
        }
        let state = self.job.state.name();
        match self.job.run.as_ref().map(|run| run.exit).unwrap_or_default() {
            ExitCode { status, signal: 0 } => format!(", {state}, ExitCode {status}"),
            _ => format!(", {state}"),
        }
    }

    /// Variables that the program finds, as newer Slurm gives them.
    fn variables(&self, cluster: &str) -> Vec<(OsString, OsString)> {
        let job = &self.job;
        let details = &job.spec.details;
        let newest = job.run.as_ref();
        let exit = newest.map(|run| run.exit).unwrap_or_default();
        let secs = |secs: Option<u64>| secs.map(|secs| secs.to_string()).unwrap_or_default();
        let mut all = vec![
            ("SLURM_CLUSTER_NAME", cluster.to_owned()),
            ("SLURM_JOB_ID", job.id.to_string()),
            ("SLURM_JOB_NAME", job.spec.name.to_string()),
            ("SLURM_JOB_USER", details.user_name.to_string()),
            ("SLURM_JOB_ACCOUNT", job.spec.account.to_string()),
            ("SLURM_JOB_WORK_DIR", details.work_dir.to_string()),
            ("SLURM_JOB_STDOUT", details.stdout.to_string()),
            ("SLURM_JOB_MAIL_TYPE", event_text(self.event).to_owned()),
            ("SLURM_JOB_STATE", job.state.name().to_owned()),
            ("SLURM_JOB_QUEUED_TIME", secs(self.queued_secs())),
            ("SLURM_JOB_RUN_TIME", secs(self.run_secs())),
            ("SLURM_JOB_EXIT_CODE_MAX", exit.status.to_string()),
            ("SLURM_JOB_TERM_SIGNAL_MAX", exit.signal.to_string()),
        ];
        if let Some(run) = newest {
            all.push(("SLURM_JOB_PARTITION", run.partition.to_string()));
        }
        if let Some(task) = job.array {
            all.push(("SLURM_ARRAY_JOB_ID", task.base.to_string()));
            all.push(("SLURM_ARRAY_TASK_ID", task.index.to_string()));
        }
        let usable = all.into_iter().filter(|(_, value)| !value.contains('\0'));
        usable.map(|(name, value)| (OsString::from(name), OsString::from(value))).collect()
    }
}

/// Whether the clock brings letters of these kinds.
fn is_timed(types: MailTypes) -> bool {
    TIMED.iter().any(|(event, _)| types.contains(*event))
        || types.contains(MailTypes::INVALID_DEPEND)
}

/// Parts of a time limit, in percent.
const TIMED: [(MailTypes, u64); 4] = [
    (MailTypes::TIME_LIMIT, 100),
    (MailTypes::TIME_LIMIT_90, 90),
    (MailTypes::TIME_LIMIT_80, 80),
    (MailTypes::TIME_LIMIT_50, 50),
];

fn event_text(event: MailTypes) -> &'static str {
    match event {
        MailTypes::BEGIN => "Began",
        MailTypes::END => "Ended",
        MailTypes::FAIL => "Failed",
        MailTypes::REQUEUE => "Requeued",
        MailTypes::INVALID_DEPEND => "Invalid dependency",
        MailTypes::TIME_LIMIT => "Reached time limit",
        MailTypes::TIME_LIMIT_90 => "Reached 90% of time limit",
        MailTypes::TIME_LIMIT_80 => "Reached 80% of time limit",
        MailTypes::TIME_LIMIT_50 => "Reached 50% of time limit",
        _ => "unknown",
    }
}

/// `00:00:01`, `2-03:04:05`.
fn clock(secs: u64) -> String {
    let (days, hours) = (secs / 86_400, secs / 3_600 % 24);
    let rest = format!("{hours:02}:{:02}:{:02}", secs / 60 % 60, secs % 60);
    if days > 0 { format!("{days}-{rest}") } else { rest }
}

/// Sends letters, and knows of which jobs the clock may bring one.
#[derive(Debug, Default)]
pub(crate) struct Post {
    /// Jobs, and which events were told already.
    timed: Mutex<BTreeMap<JobId, u32>>,
    /// What went wrong and was said.
    said: Mutex<BTreeSet<String>>,
}

impl Post {
    /// Takes note of the jobs that there are, after a start. Events of before count as told.
    pub(crate) fn learn_all(&self, cluster: &Cluster) {
        for job in cluster.jobs().filter(|job| !job.spec.details.mail_type.is_empty()) {
            if !job.is_over() && is_timed(types_of(&job.spec.details.mail_type)) {
                let told = passed(job, cluster.now());
                self.remember(job.id, told);
            }
        }
    }

    /// Takes note of a job of which the clock may bring a letter.
    pub(crate) fn learn(&self, letter: &Letter) {
        if !letter.job.is_over() && is_timed(types_of(&letter.job.spec.details.mail_type)) {
            self.remember(letter.job.id, 0);
        }
    }

    fn remember(&self, job: JobId, told: u32) {
        let mut timed = self.timed.lock().unwrap_or_else(PoisonError::into_inner);
        if timed.len() < MOST_TIMED {
            timed.insert(job, told);
        }
    }

    /// What the clock brought by `now`.
    pub(crate) fn due(&self, cluster: &Cluster, now: Timestamp) -> Vec<Letter> {
        let mut letters = Vec::new();
        let mut timed = self.timed.lock().unwrap_or_else(PoisonError::into_inner);
        timed.retain(|id, told| {
            let Some(job) = cluster.job(*id).filter(|job| !job.is_over()) else { return false };
            let types = types_of(&job.spec.details.mail_type);
            let due = passed(job, now) & !*told;
            *told |= due;
            // Of several parts that passed together the greatest is told.
            let event = TIMED.map(|(event, _)| event);
            let event =
                event.into_iter().find(|event| types.contains(*event) && due & event.bits() != 0);
            let invalid = MailTypes::INVALID_DEPEND;
            let never = types.contains(invalid)
                && *told & invalid.bits() == 0
                && job.is_pending()
                && cluster.dependency_state(Unit::Job(job.id)) == DependencyState::Never;
            let event = if never {
                *told |= invalid.bits();
                Some(invalid)
            } else {
                event
            };
            if let Some(event) = event {
                letters.push(Letter { job: Arc::clone(job), event, at: now, array: None });
            }
            true
        });
        letters
    }

    /// Has the mail program send a letter. What fails is logged once for each text.
    pub(crate) async fn send(&self, mail: &MailSection, cluster: &str, letter: &Letter) {
        if letter.event.is_empty() {
            return;
        }
        let details = &letter.job.spec.details;
        let mut to = match details.mail_user.is_empty() {
            true => details.user_name.to_string(),
            false => details.mail_user.to_string(),
        };
        if !mail.domain.is_empty() && !to.contains('@') {
            to = format!("{to}@{}", mail.domain);
        }
        if !is_mail_address(&to) {
            return self.complain(format!("{to:?} is no address that mail is sent to"));
        }
        let shown = |c: char| if c.is_control() { '?' } else { c };
        let subject: String = letter.subject().chars().map(shown).collect();
        debug!(job = %letter.job.id, %to, %subject, "mail");
        let arguments = ["-s".to_owned(), subject, to];
        let variables = letter.variables(cluster);
        if let Err(why) = program::run(&mail.program, &arguments, variables, Some(PATIENCE)).await {
            self.complain(why);
        }
    }

    fn complain(&self, why: String) {
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.len() < 100 && said.insert(why.clone()) {
            warn!(%why, "mail could not be sent; the same is not said again");
        }
    }
}

/// Parts of the time limit that a running job has used, as bits.
fn passed(job: &Job, now: Timestamp) -> u32 {
    let (Some(run), Some(limit)) = (job.active_run(), job.time_limit.as_secs()) else { return 0 };
    let used = run.elapsed(now).as_secs().saturating_mul(100);
    let bits = TIMED.iter().filter(|(_, percent)| used >= limit.saturating_mul(*percent));
    bits.fold(0, |all, (event, _)| all | event.bits())
}
