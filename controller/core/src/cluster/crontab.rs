//! Which jobs come again and again?
//!
//! A job of a crontab keeps its number: when a run has ended it waits for its next time, which is kept like
//! the delay of a requeue. A new crontab of its owner takes the place of the old one as a whole: what waits
//! of that is cancelled, and what runs ends as any job does. The core knows no time zone: it is told the
//! times ahead.

use std::sync::Arc;

use penstock_vocab::{Attempt, JobId, JobState, Timestamp, UserId};

use super::Cluster;
use super::control::{MAX_CHANGES, allowed};
use crate::command::{Caller, CrontabRequest, RecordKey, Reply, Target};
use crate::model::{CronJob, Crontab, Job, MAX_CRON_JOBS, MAX_CRON_TIMES, MAX_CRONTAB_BYTES};
use crate::refusal::{Malformed, Refusal};

/// Where no further time is known yet, a job waits so long for whoever reckons them, seconds. The times
/// that are told then take its place.
const UNKNOWN_SECS: u64 = 366 * 86_400;

impl Cluster {
    pub(super) fn set_crontab(
        &mut self,
        caller: &Caller,
        request: CrontabRequest,
    ) -> Result<Reply, Refusal> {
        let CrontabRequest { owner, gid, text, jobs } = request;
        if owner != caller.uid && !caller.admin {
            let text = format!("only uid {owner} and admins may change the crontab of uid {owner}");
            return Err(Refusal::AccessDenied(text.into()));
        }
        if jobs.len() > MAX_CRON_JOBS {
            return Err(Refusal::TooManyItems { got: jobs.len(), limit: MAX_CRON_JOBS });
        }
        if text.len() > MAX_CRONTAB_BYTES {
            let (got, most) = (text.len(), MAX_CRONTAB_BYTES);
            let detail = format!("the crontab has {got} bytes, at most {most} are taken").into();
            return Err(Refusal::Malformed { what: Malformed::Other, detail });
        }
        let old = self.crons_of(owner);
        // An admin's rights are not those of the owner, as whom the jobs run.
        let owner_asks =
            Caller { uid: owner, gid, admin: caller.admin && owner == caller.uid, request: None };
        let mut made = Vec::with_capacity(jobs.len());
        for (submission, cron) in jobs {
            let lines = cron.lines;
            let line = |cause| Refusal::CrontabLine { lines, cause: Box::new(cause) };
            let job = self.make_cron_job(&owner_asks, submission, cron).map_err(line)?;
            made.push(Ok(job));
        }
        for id in old {
            self.end_coming(id);
        }
        self.changed.push(RecordKey::Crontab(owner));
        if text.is_empty() {
            self.crontabs.remove(&owner);
        } else {
            let crontab = Crontab { uid: owner, text, disabled: Box::default() };
            self.crontabs.insert(owner, Arc::new(crontab));
        }
        Ok(Reply::SubmittedMany(made))
    }

    fn make_cron_job(
        &mut self,
        owner: &Caller,
        submission: crate::command::Submission,
        cron: CronJob,
    ) -> Result<JobId, Refusal> {
        if submission.array.is_some() || submission.spec.allocation {
            let detail = "a job of a crontab is a batch job and no array".into();
            return Err(Refusal::Malformed { what: Malformed::Array, detail });
        }
        check_times(&cron.upcoming)?;
        let (id, _) = self.accept(owner, submission)?;
        let made = self.jobs.get(&id).cloned();
        if let Some(mut job) = made.map(Arc::unwrap_or_clone) {
            job.cron = Some(Arc::new(cron));
            self.wait_for_next_time(&mut job);
            self.put_job(job);
        }
        Ok(id)
    }

    /// Jobs of the crontab of a user.
    fn crons_of(&self, owner: UserId) -> Vec<JobId> {
        let own = |id: &&JobId| self.jobs.get(*id).is_some_and(|job| job.uid == owner);
        self.index.crons.iter().filter(own).copied().collect()
    }

    /// A job does not come again. What waits of it is cancelled; a run goes on to its end.
    fn end_coming(&mut self, id: JobId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let mut job = (**job).clone();
        job.cron = None;
        if job.active_run().is_none() {
            job.state = JobState::Cancelled;
            job.cancelled_by = Some(job.uid);
            job.end_time = Some(self.now);
            job.reason = None;
        }
        self.put_job(job);
    }

    pub(super) fn cancel_cron(
        &mut self,
        caller: &Caller,
        targets: Vec<Target>,
    ) -> Result<Reply, Refusal> {
        self.each(targets, |cluster, target| {
            let named = match target {
                Target::Id(id) | Target::Job(id) => cluster.jobs.get(id).cloned(),
                Target::Waiting(_) | Target::Tasks(..) | Target::Step(..) => None,
            };
            if let Some(job) = named
                && let Some(cron) = &job.cron
            {
                allowed(caller, job.uid.0, job.id)?;
                cluster.disable_lines(job.uid, cron.lines);
                let mut once = (*job).clone();
                once.cron = None;
                cluster.put_job(once);
            }
            cluster.cancel_one(caller, target)
        })
    }

    fn disable_lines(&mut self, owner: UserId, lines: (u32, u32)) {
        let Some(crontab) = self.crontabs.get(&owner) else { return };
        let mut crontab = (**crontab).clone();
        let mut disabled = crontab.disabled.into_vec();
        disabled.push(lines);
        disabled.sort_unstable();
        disabled.dedup();
        crontab.disabled = disabled.into();
        self.crontabs.insert(owner, Arc::new(crontab));
        self.changed.push(RecordKey::Crontab(owner));
    }

    /// A run of a job of a crontab has ended: the job waits for its next time.
    pub(super) fn come_again(&mut self, mut job: Job) {
        job.earlier_runs.extend(job.run.take());
        job.state = JobState::Pending;
        // It is no restart of what has ended.
        job.restarts = 0;
        job.end_time = None;
        job.cancelled_by = None;
        job.eligible_time = None;
        job.reason = None;
        self.uncut_limit(&mut job);
        self.wait_for_next_time(&mut job);
        self.put_job(job);
    }

    /// Lets a job wait for the first of its times that lies ahead.
    fn wait_for_next_time(&self, job: &mut Job) {
        let Some(cron) = &job.cron else { return };
        let ahead: Box<[_]> = cron.upcoming.iter().copied().filter(|at| *at > self.now).collect();
        job.not_before = ahead.first().copied().unwrap_or_else(|| self.now.plus_secs(UNKNOWN_SECS));
        let rest = ahead.get(1..).unwrap_or_default();
        job.cron = Some(Arc::new(CronJob { upcoming: rest.into(), ..(**cron).clone() }));
    }

    pub(super) fn extend_cron(
        &mut self,
        id: JobId,
        times: Vec<Timestamp>,
    ) -> Result<Reply, Refusal> {
        check_times(&times)?;
        let job = self.jobs.get(&id).filter(|job| job.cron.is_some());
        let mut job = (**job.ok_or(Refusal::InvalidJobId(id))?).clone();
        let Some(cron) = job.cron.clone() else { return Err(Refusal::InvalidJobId(id)) };
        let lost = job.is_pending()
            && cron.upcoming.is_empty()
            && times.first().is_some_and(|first| *first < job.not_before);
        let known = cron.upcoming.last().copied();
        let awaited = || job.is_pending().then_some(job.not_before);
        let known = if lost { None } else { known.or_else(awaited) };
        let new = times.into_iter().filter(|at| known.is_none_or(|known| *at > known));
        let mut upcoming: Vec<_> = cron.upcoming.iter().copied().chain(new).collect();
        upcoming.truncate(MAX_CRON_TIMES);
        job.cron = Some(Arc::new(CronJob { upcoming: upcoming.into(), ..(*cron).clone() }));
        if lost {
            self.wait_for_next_time(&mut job);
        }
        self.put_job(job);
        Ok(Reply::Done)
    }

    /// Jobs of crontabs of which fewer than `few` times are known ahead.
    pub fn crons_to_extend(&self, few: usize) -> impl Iterator<Item = &Arc<Job>> {
        let jobs = self.index.crons.iter().filter_map(|id| self.jobs.get(id));
        jobs.filter(move |job| job.cron.as_ref().is_some_and(|cron| cron.upcoming.len() < few))
    }

    /// Jobs of crontabs with runs that have ended and may go to the history.
    pub fn crons_with_runs(&self) -> impl Iterator<Item = &Arc<Job>> {
        let jobs = self.index.crons.iter().filter_map(|id| self.jobs.get(id));
        jobs.filter(|job| !job.earlier_runs.is_empty())
    }

    /// Forgets earlier runs and their steps; of very many steps a part, with the runs kept until the rest.
    pub(super) fn forget_runs(&mut self, id: JobId, last: Attempt) -> Result<Reply, Refusal> {
        let job = self.jobs.get(&id).filter(|job| job.cron.is_some());
        let mut job = (**job.ok_or(Refusal::InvalidJobId(id))?).clone();
        let gone = |run: &Arc<crate::model::Run>| run.attempt <= last;
        let attempts: Vec<_> = job.earlier_runs.iter().filter(|run| gone(run)).collect();
        let of_those = |attempt| attempts.iter().any(|run| run.attempt == attempt);
        let steps = self.steps_of(id).map(|step| step.key).filter(|key| of_those(key.attempt));
        let steps: Vec<_> = steps.take(MAX_CHANGES - 1).collect();
        for key in &steps {
            self.steps.remove(key);
            self.changed.push(RecordKey::Step(*key));
        }
        if steps.len() < MAX_CHANGES - 1 {
            job.earlier_runs.retain(|run| !gone(run));
            self.put_job(job);
        }
        Ok(Reply::Done)
    }

    /// The crontab of a user.
    #[must_use]
    pub fn crontab(&self, owner: UserId) -> Option<&Arc<Crontab>> {
        self.crontabs.get(&owner)
    }
}

fn check_times(times: &[Timestamp]) -> Result<(), Refusal> {
    if times.len() > MAX_CRON_TIMES {
        return Err(Refusal::TooManyItems { got: times.len(), limit: MAX_CRON_TIMES });
    }
    if times.is_sorted_by(|a, b| a < b) {
        return Ok(());
    }
    let detail = "the times of a job of a crontab are not in order".into();
    Err(Refusal::Malformed { what: Malformed::Other, detail })
}
