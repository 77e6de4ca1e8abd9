//! Why does this job wait, who is ahead of it, and when will it start?

use penstock_vocab::{JobId, JobState, PartitionName, Timestamp, UserId};

use super::gates::{Asked, Gate, gates};
use super::words::{between, count, hostlist};
use crate::cluster::Cluster;
use crate::command::Unit;
use crate::model::{Array, Job, Run};
use crate::refusal::Refusal;
use crate::scheduler::Plan;

/// Most of those ahead that are named; the rest is counted.
pub const MAX_AHEAD: usize = 10;

/// One that is looked at before, in a partition that both may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// Which.
    pub unit: Unit,
    /// Whose.
    pub uid: UserId,
    /// Its priority when the plan was made.
    pub priority: u32,
    /// Why it is there: what it waits for itself, or that it starts.
    pub why: String,
    /// When it is expected to start; `None`: unknown.
    pub start: Option<Timestamp>,
    /// Where, as a host list; empty: unknown.
    pub nodes: String,
}

/// All there is to say of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explanation {
    /// Which.
    pub unit: Unit,
    /// Its state; of an array with nothing left that waits: of its tasks.
    pub state: JobState,
    /// Of one that waits the first shut gate in one sentence; else what it does, or how it ended.
    pub summary: String,
    /// What it must pass, in order; empty for one that does not wait.
    pub gates: Vec<Gate>,
    /// The first [`MAX_AHEAD`] of those ahead, in the order of the plan.
    pub ahead: Vec<Ahead>,
    /// How many are ahead in all.
    pub ahead_count: u32,
    /// When it is expected to start; `None`: unknown.
    pub start: Option<Timestamp>,
    /// Where, as a host list; empty: unknown.
    pub nodes: String,
    /// In which partition.
    pub partition: Option<PartitionName>,
    /// What made the expected start later, when it last became so.
    pub moved_by: Option<Box<str>>,
    /// When this was true.
    pub now: Timestamp,
}

/// Explains a job, or the waiting tasks of an array, at `now` by the newest plan. Cost: a look at all
/// that waits, and a plan for this unit alone.
///
/// # Errors
/// [`Refusal::InvalidJobId`] if there is no such job.
pub fn explain(
    cluster: &Cluster,
    plan: &Plan,
    now: Timestamp,
    unit: Unit,
) -> Result<Explanation, Refusal> {
    let view = cluster.seen_at(now);
    let now = view.now();
    let unknown = || Refusal::InvalidJobId(unit.id());
    match unit {
        Unit::Job(id) => {
            let job = view.job(id).ok_or_else(unknown)?;
            if !job.is_pending() {
                return Ok(at_rest(unit, now, job.state, &of_job(&view, job, now)));
            }
            let (hold, lasting) = (job.hold, job.reason);
            Ok(explain_waiting(&Asked {
                cluster: &view,
                plan,
                now,
                unit,
                spec: &job.spec,
                uid: job.uid,
                assoc: job.assoc,
                hold,
                lasting,
                not_before: job.not_before,
                limit: job.time_limit,
                ahead: 0,
            }))
        }
        Unit::Array(id) => {
            let array = view.array(id).ok_or_else(unknown)?;
            if array.pending.is_empty() {
                let (state, sentence) = of_array(&view, array);
                return Ok(at_rest(unit, now, state, &sentence));
            }
            let (hold, lasting) = (array.hold_in_force(), array.reason);
            Ok(explain_waiting(&Asked {
                cluster: &view,
                plan,
                now,
                unit,
                spec: &array.spec,
                uid: array.uid,
                assoc: array.assoc,
                hold,
                lasting,
                not_before: array.not_before,
                limit: array.time_limit,
                ahead: 0,
            }))
        }
    }
}

fn explain_waiting(asked: &Asked<'_>) -> Explanation {
    let Asked { cluster, plan, now, unit, .. } = *asked;
    let (ahead, ahead_count) = who_is_ahead(asked);
    let gates = gates(&Asked { ahead: ahead_count, ..*asked });
    let summary = match gates.iter().find(|gate| !gate.open) {
        Some(gate) if gate.detail.is_empty() => gate.reason.to_string(),
        Some(gate) => format!("{}: {}", gate.reason, gate.detail),
        None => "every gate is open: it starts as soon as a plan is carried out".to_owned(),
    };
    let (start, nodes, partition) = place(cluster, plan, unit);
    let moved_by = plan.expected(unit).and_then(|expected| expected.moved_by.clone());
    Explanation {
        unit,
        state: JobState::Pending,
        summary,
        gates,
        ahead,
        ahead_count,
        start,
        nodes,
        partition,
        moved_by,
        now,
    }
}

fn place(
    cluster: &Cluster,
    plan: &Plan,
    unit: Unit,
) -> (Option<Timestamp>, String, Option<PartitionName>) {
    if let Some(line) = plan.starts.iter().find(|line| line.unit == unit) {
        let nodes = hostlist(cluster, line.shares.iter().map(|share| share.node));
        return (Some(plan.made_at), nodes, Some(line.partition.clone()));
    }
    match plan.expected(unit) {
        Some(expected) => {
            let nodes = hostlist(cluster, expected.nodes.iter().copied());
            (Some(expected.start), nodes, Some(expected.partition.clone()))
        }
        None => (None, String::new(), None),
    }
}

/// The units ahead in the plan's order that may use one of the same partitions and still wait.
fn who_is_ahead(asked: &Asked<'_>) -> (Vec<Ahead>, u32) {
    let Asked { cluster, plan, unit, .. } = *asked;
    let waiting = cluster.waiting_units();
    let (mut named, mut number) = (Vec::new(), 0u32);
    if plan.priority(unit).is_none() {
        return (named, number);
    }
    let partitions: Vec<_> = cluster.partitions_of(asked.spec).map(|p| &p.name).collect();
    for other in plan.order().take_while(|other| *other != unit) {
        let Some(queued) = waiting.get(&other) else { continue };
        if !cluster.partitions_of(&queued.spec).any(|p| partitions.contains(&&p.name)) {
            continue;
        }
        number = number.saturating_add(1);
        if named.len() < MAX_AHEAD {
            let (start, nodes, _) = place(cluster, plan, other);
            let why = match plan.reason(other) {
                Some(waiting) => format!("{}: {}", waiting.reason, waiting.detail),
                None if start.is_some() => "the newest plan starts it".to_owned(),
                None => "is looked at before".to_owned(),
            };
            let priority = plan.priority(other).unwrap_or(0);
            named.push(Ahead { unit: other, uid: queued.uid, priority, why, start, nodes });
        }
    }
    (named, number)
}

/// Of a job that does not wait.
fn at_rest(unit: Unit, now: Timestamp, state: JobState, sentence: &str) -> Explanation {
    Explanation {
        unit,
        state,
        summary: sentence.to_owned(),
        gates: Vec::new(),
        ahead: Vec::new(),
        ahead_count: 0,
        start: None,
        nodes: String::new(),
        partition: None,
        moved_by: None,
        now,
    }
}

fn of_job(cluster: &Cluster, job: &Job, now: Timestamp) -> String {
    match job.active_run() {
        Some(run) => of_run(cluster, job, run, now),
        None => {
            let ended =
                job.end_time.map_or_else(String::new, |end| format!(" {} ago", between(end, now)));
            let why = match (&job.run, job.reason) {
                (Some(run), _) if !run.end_reason.is_empty() => format!(": {}", run.end_reason),
                (_, Some(reason)) => format!(": {reason}"),
                (_, None) => String::new(),
            };
            format!("ended{ended} as {}{why}", job.state)
        }
    }
}

fn of_run(cluster: &Cluster, job: &Job, run: &Run, now: Timestamp) -> String {
    let nodes = hostlist(cluster, run.shares.iter().map(|share| share.node));
    let ran = between(Timestamp::EPOCH, Timestamp::EPOCH.plus(run.elapsed(now)));
    let until = match job.ends_by(now) {
        Some(end) => format!("it ends within {} at the latest", between(now, end)),
        None => "it has no time limit".to_owned(),
    };
    if run.is_ending() {
        format!("is ending on {nodes} after {ran}")
    } else if run.suspended_since.is_some() {
        format!("is suspended on {nodes} after {ran}; once it goes on {until}")
    } else {
        format!("runs on {nodes} for {ran}; {until}")
    }
}

/// Of an array of which nothing waits in its record.
fn of_array(cluster: &Cluster, array: &Array) -> (JobState, String) {
    let tasks = cluster.tasks_of(array.id);
    let live = tasks.filter(|task| !task.is_over()).map(|task| (task.id, task.is_pending()));
    let live: Vec<(JobId, bool)> = live.collect();
    let waiting = live.iter().filter(|(_, pending)| *pending).count();
    let cancelled = array.cancelled.len();
    let failed = array.failed.len();
    let state = match live.first() {
        Some((_, true)) if waiting == live.len() => JobState::Pending,
        Some(_) => JobState::Running,
        None if failed > 0 => JobState::Failed,
        None if cancelled > 0 => JobState::Cancelled,
        None => JobState::Completed,
    };
    let sentence = format!(
        "of {}: {} running or ending, {waiting} waiting by themselves, {} completed, {failed} \
         failed, {cancelled} cancelled before the start",
        count(u64::from(array.summary.count), "task"),
        live.len() - waiting,
        array.completed,
    );
    (state, sentence)
}
