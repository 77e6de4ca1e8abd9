//! What did jobs do, now and in the past?
//!
//! Live records and the history are joined; a job that is still in the cluster is told of from there
//! alone, since its record has all its runs. Lines come in the order of job ids.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use penstock_core::command::{Target, Unit};
use penstock_core::model::{Array, Job};
use penstock_core::refusal::Refusal;
use penstock_proto::v1;
use penstock_vocab::{IndexSet, JobFlags, JobId, JobState, PendingReason, Timestamp};

use super::View;
use super::filter::Filter;
use super::history::{JobLine, OldNodes, REST_ATTEMPT, cancelled_record};
use super::info::{Detail, describe, job_with_steps, rest_info};
use super::steps::steps_of;
use super::window::{Span, Window};
use crate::convert::array::{indices_from_wire, indices_to_wire};
use crate::convert::job::job_from_record;
use crate::convert::record::history_from_bytes;
use crate::convert::{ConvertError, RecordError};
use crate::store::{HistoryQuery, StoreError};

/// Reads the history: calls back with each line that a query finds.
pub type Scan<'a> =
    &'a mut dyn FnMut(&HistoryQuery, &mut dyn FnMut(Bytes)) -> Result<(), StoreError>;

/// Why accounting could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// The request can't be read.
    #[error("the request can't be read")]
    Refused(#[source] Refusal),
    /// The history could not be searched.
    #[error("the history can't be searched")]
    Store(#[source] StoreError),
    /// A line of the history can't be used.
    #[error("the history can't be listed")]
    Record(#[source] RecordError),
}

/// What stands in front among the lines of one id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum LineKind {
    Run,
    CancelledTasks,
    WaitingTasks,
}

/// Lines by job id, then by kind, then by attempt.
type Lines = BTreeMap<(u32, LineKind, u32), v1::JobInfo>;

/// Lists runs of jobs, jobs that did not run, and tasks of arrays that wait or were cancelled. A
/// line is selected if it was in one of the states within the window, or in any state. Of each job
/// the newest selected line is told, or all with `duplicates`. Costs what is looked at: the live
/// jobs, and the history behind the window's beginning.
///
/// # Errors
/// If a text of the request or a line of the history can't be read.
pub fn accounting(
    view: &View<'_>,
    request: &v1::ListAccountingRequest,
    scan: Scan<'_>,
) -> Result<Vec<v1::JobInfo>, ListError> {
    let filter = Filter::of_accounting(request).map_err(ListError::Refused)?;
    let mut lister = Lister {
        view: *view,
        window: Window::new(request.from_ms, request.to_ms),
        filter,
        lines: Lines::new(),
        more_steps: BTreeMap::new(),
        old_nodes: OldNodes::default(),
    };
    lister.take_live();
    lister.take_history(scan)?;
    for (key, steps) in std::mem::take(&mut lister.more_steps) {
        // A live job tells of its steps itself.
        let live = view.cluster.job(JobId(key.0));
        let past = live.is_none_or(|job| JobLine::of(job).iter().all(|l| l.attempt() != key.2));
        if let Some(line) = lister.lines.get_mut(&key).filter(|_| past) {
            line.steps.extend(steps);
            line.steps.sort_by_key(|step| step.step);
            line.steps.dedup_by_key(|step| step.step);
        }
    }
    Ok(finish(lister.lines, request.duplicates))
}

fn finish(lines: Lines, duplicates: bool) -> Vec<v1::JobInfo> {
    if duplicates {
        return lines.into_values().collect();
    }
    let mut newest: Vec<((u32, LineKind), v1::JobInfo)> = Vec::with_capacity(lines.len());
    for ((id, kind, _), line) in lines {
        match newest.last_mut() {
            Some((key, older)) if *key == (id, kind) => *older = line,
            Some(_) | None => newest.push(((id, kind), line)),
        }
    }
    newest.into_iter().map(|(_, line)| line).collect()
}

struct Lister<'a> {
    view: View<'a>,
    window: Window,
    filter: Filter,
    lines: Lines,
    /// Steps of old runs that stand in lines of their own.
    more_steps: BTreeMap<(u32, LineKind, u32), Vec<v1::Step>>,
    old_nodes: OldNodes,
}

impl Lister<'_> {
    fn take_live(&mut self) {
        let cluster = self.view.cluster;
        if self.filter.targets.is_empty() {
            cluster.jobs().for_each(|job| self.take_job(job));
            cluster.arrays().for_each(|array| self.take_array(array));
            return;
        }
        let mut jobs = BTreeSet::new();
        let mut bases = BTreeSet::new();
        for target in &self.filter.targets {
            let id = target.id();
            jobs.insert(id);
            jobs.extend(cluster.tasks_of(id).map(|job| job.id));
            bases.insert(id);
        }
        for job in jobs.into_iter().filter_map(|id| cluster.job(id)) {
            self.take_job(job);
        }
        for array in bases.into_iter().filter_map(|id| cluster.array(id)) {
            self.take_array(array);
        }
    }

    fn take_job(&mut self, job: &Job) {
        let (view, cluster) = (self.view, self.view.cluster);
        if !self.targets_job(job) || !self.filter.accepts_spec(job.uid, &job.spec) {
            return;
        }
        for line in JobLine::of(job) {
            let place = self.filter.accepts_place(cluster, cluster, &job.spec, line.run);
            if !place || !self.window.accepts(span_of(&line), &self.filter.states) {
                continue;
            }
            let info = if line.earlier {
                let mut info =
                    v1::JobInfo { job: Some(line.record(cluster)), ..Default::default() };
                info.reason = PendingReason::None.name().to_owned();
                info.priority = cluster.priority_of(Unit::Job(job.id));
                describe(&mut info, cluster, cluster, &job.spec, line.run, Detail::Full);
                info.steps = line.run.map_or_else(Vec::new, |run| steps_of(cluster, job, run));
                info
            } else {
                let mut info = job_with_steps(view, job);
                if let Some(record) = &mut info.job {
                    record.earlier_runs.clear();
                }
                info
            };
            self.lines.insert((job.id.0, LineKind::Run, line.attempt()), info);
        }
    }

    /// Tasks that never became jobs of their own: those that wait, and those cancelled before.
    fn take_array(&mut self, array: &Array) {
        let cluster = self.view.cluster;
        let spec = &array.spec;
        let wanted = self.filter.accepts_spec(array.uid, spec)
            && self.filter.accepts_place(cluster, cluster, spec, None);
        if !wanted {
            return;
        }
        let waiting = self.targeted_tasks(array.id, &array.pending);
        let waits = unstarted(JobState::Pending, array.submit_time, None);
        if !waiting.is_empty() && self.window.accepts(waits, &self.filter.states) {
            let info = rest_info(self.view, array, &waiting, Detail::Full);
            self.lines.insert((array.id.0, LineKind::WaitingTasks, REST_ATTEMPT), info);
        }
        if let Some((record, at)) = cancelled_record(array) {
            let gone = self.targeted_tasks(array.id, &array.cancelled);
            self.take_cancelled(record, at, &gone, array.submit_time, spec);
        }
    }

    fn take_cancelled(
        &mut self,
        record: v1::Job,
        at: Timestamp,
        tasks: &IndexSet,
        submit: Timestamp,
        spec: &penstock_core::model::JobSpec,
    ) {
        let span = unstarted(JobState::Cancelled, submit, Some(at));
        if tasks.is_empty() || !self.window.accepts(span, &self.filter.states) {
            return;
        }
        let key = (record.id, LineKind::CancelledTasks, REST_ATTEMPT);
        let mut info = v1::JobInfo {
            job: Some(record),
            pending_tasks: Some(indices_to_wire(tasks)),
            reason: PendingReason::None.name().to_owned(),
            ..Default::default()
        };
        describe(&mut info, self.view.cluster, &self.old_nodes, spec, None, Detail::Full);
        self.lines.entry(key).or_insert(info);
    }

    /// Whether the selectors, if any, mean this job.
    fn targets_job(&self, job: &Job) -> bool {
        let targets = &self.filter.targets;
        targets.is_empty()
            || targets.iter().any(|target| match target {
                Target::Id(id) => job.id == *id || job.array.is_some_and(|task| task.base == *id),
                Target::Job(id) | Target::Step(id, _) => job.id == *id,
                Target::Waiting(_) => false,
                Target::Tasks(base, tasks) => {
                    job.array.is_some_and(|task| task.base == *base && tasks.contains(task.index.0))
                }
            })
    }

    /// Those of an array's tasks that the selectors, if any, mean.
    fn targeted_tasks(&self, base: JobId, tasks: &IndexSet) -> IndexSet {
        let targets = &self.filter.targets;
        let whole = targets.contains(&Target::Id(base));
        if targets.is_empty() || whole {
            return tasks.clone();
        }
        let mut meant = IndexSet::new();
        for target in targets {
            if let Target::Tasks(of, named) = target
                && *of == base
            {
                meant = meant.union(&tasks.intersection(named));
            }
        }
        meant
    }

    fn take_history(&mut self, scan: Scan<'_>) -> Result<(), ListError> {
        let mut query = HistoryQuery {
            jobs: None,
            uid: self.filter.only_uid(),
            from_ms: self.window.from.0,
            to_ms: i64::MAX,
        };
        if self.filter.targets.is_empty() {
            return self.scan(&query, scan, &mut |_| ());
        }
        // Every job leaves a line under its own id, and every array one under its base id. Only
        // where an array is meant, its tasks have to be searched for.
        let ids = self.filter.targets.iter().map(|target| target.id().0);
        let by_id = HistoryQuery {
            jobs: Some(ids.collect::<BTreeSet<_>>().into_iter().collect()),
            uid: query.uid,
            from_ms: i64::MIN,
            to_ms: i64::MAX,
        };
        let cluster = self.view.cluster;
        let live = self.filter.targets.iter().filter_map(|target| match target {
            Target::Id(id) | Target::Waiting(id) | Target::Tasks(id, _) => {
                let task = cluster.job(*id).filter(|job| job.array.is_some());
                let array = cluster.array(*id).map(|array| array.submit_time);
                array.or_else(|| task.map(|job| job.submit_time))
            }
            Target::Job(_) | Target::Step(..) => None,
        });
        let mut oldest = live.min().map(|at| at.0);
        self.scan(&by_id, &mut *scan, &mut |job| {
            if job.array.is_some() {
                oldest = Some(oldest.unwrap_or(i64::MAX).min(job.submit_ms));
            }
        })?;
        if let Some(submitted) = oldest {
            query.from_ms = query.from_ms.max(submitted);
            self.scan(&query, scan, &mut |_| ())?;
        }
        Ok(())
    }

    fn scan(
        &mut self,
        query: &HistoryQuery,
        scan: Scan<'_>,
        seen: &mut dyn FnMut(&v1::Job),
    ) -> Result<(), ListError> {
        let mut failed = None;
        scan(query, &mut |line| {
            if failed.is_none() {
                failed = self.take_line(&line, seen).err();
            }
        })
        .map_err(ListError::Store)?;
        failed.map_or(Ok(()), |error| Err(ListError::Record(error)))
    }

    fn take_line(
        &mut self,
        line: &Bytes,
        seen: &mut dyn FnMut(&v1::Job),
    ) -> Result<(), RecordError> {
        let line = history_from_bytes(line)?;
        let Some(record) = line.job else { return Ok(()) };
        seen(&record);
        let id = record.id;
        let named = |source: ConvertError| RecordError::Invalid {
            record: format!("the history of job {id}"),
            source,
        };
        match line.cancelled_tasks {
            Some(tasks) => {
                let tasks = indices_from_wire(&tasks).map_err(named)?;
                self.take_old_rest(record, &tasks).map_err(named)
            }
            None if line.steps_of_attempt != 0 => {
                let key = (record.id, LineKind::Run, line.steps_of_attempt);
                self.more_steps.entry(key).or_default().extend(line.steps);
                Ok(())
            }
            None => self.take_old_run(record, line.steps).map_err(named),
        }
    }

    fn take_old_run(&mut self, record: v1::Job, steps: Vec<v1::Step>) -> Result<(), ConvertError> {
        let cluster = self.view.cluster;
        // Its record tells of the runs that it still has: all, but of a job of a crontab.
        let attempt = record.run.as_ref().map(|run| run.attempt);
        let told = |job: &std::sync::Arc<Job>| {
            JobLine::of(job).iter().any(|line| attempt.is_none_or(|known| line.attempt() == known))
        };
        if cluster.job(JobId(record.id)).is_some_and(told) {
            return Ok(());
        }
        let job = job_from_record(record.clone(), &mut self.old_nodes)?;
        let run = job.run.as_deref();
        let line = JobLine { job: &job, run, earlier: false };
        let span = Span { flags: JobFlags::from_bits(record.flags), ..span_of(&line) };
        let wanted = self.targets_job(&job)
            && self.filter.accepts_spec(job.uid, &job.spec)
            && self.filter.accepts_place(cluster, &self.old_nodes, &job.spec, run)
            && self.window.accepts(span, &self.filter.states);
        if !wanted {
            return Ok(());
        }
        let mut info = v1::JobInfo { job: Some(record), steps, ..Default::default() };
        info.reason = job.reason.unwrap_or(PendingReason::None).name().to_owned();
        info.priority = job.fixed_priority.unwrap_or(0);
        describe(&mut info, cluster, &self.old_nodes, &job.spec, run, Detail::Full);
        self.lines.entry((job.id.0, LineKind::Run, line.attempt())).or_insert(info);
        Ok(())
    }

    fn take_old_rest(&mut self, record: v1::Job, tasks: &IndexSet) -> Result<(), ConvertError> {
        let cluster = self.view.cluster;
        if cluster.array(JobId(record.id)).is_some() {
            return Ok(());
        }
        let job = job_from_record(record.clone(), &mut self.old_nodes)?;
        let wanted = self.filter.accepts_spec(job.uid, &job.spec)
            && self.filter.accepts_place(cluster, &self.old_nodes, &job.spec, None);
        if wanted {
            let tasks = self.targeted_tasks(job.id, tasks);
            let at = job.end_time.unwrap_or(job.submit_time);
            self.take_cancelled(record, at, &tasks, job.submit_time, &job.spec);
        }
        Ok(())
    }
}

fn span_of(line: &JobLine<'_>) -> Span {
    Span {
        state: line.state(),
        flags: line.flags(),
        eligible: line.eligible(),
        start: line.run.map(|run| run.start_time),
        end: line.end(),
    }
}

/// Of tasks that never started.
fn unstarted(state: JobState, submit: Timestamp, end: Option<Timestamp>) -> Span {
    Span { state, flags: JobFlags::EMPTY, eligible: submit, start: None, end }
}
