//! Who would start when, before and after a change?
//!
//! The change is made to a copy of the cluster by the command that would make it; both are planned as
//! the real one is, with a place in time for everybody, and compared.

use std::collections::BTreeSet;
use std::sync::Arc;

use penstock_vocab::{NodeName, PartitionName, Timestamp, UserId};

use super::forecast::{Forecast, forecast};
use super::suggest::ADMIN;
use super::words::{between, count, hostlist};
use crate::accounts::AccountChange;
use crate::cluster::{Cluster, Waiting};
use crate::command::{
    Caller, Command, MAX_TARGETS, NodeAction, NodeUpdate, Reply, Submission, Unit,
};
use crate::model::{Config, Scheduling};
use crate::refusal::Refusal;
use crate::scheduler::{Limits, could_run_in_service};

/// Most notes of one kind; the rest is counted.
const MAX_NOTES: usize = 20;

/// What is to be tried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A job comes, from this caller.
    Submit(Caller, Box<Submission>),
    /// These nodes take no new job; what runs there goes on.
    Drain(Vec<NodeName>),
    /// Accounts, users or QOS change, by this caller.
    Accounts(Caller, Vec<AccountChange>),
    /// Jobs are ordered and planned otherwise.
    Scheduling(Box<Scheduling>),
}

/// A unit whose start changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub unit: Unit,
    /// Whose.
    pub uid: UserId,
    /// When it is expected to start without the change; `None`: unknown, or it is not there.
    pub before: Option<Timestamp>,
    /// And with it; `None`: unknown.
    pub after: Option<Timestamp>,
    /// Where, as a host list; empty: unknown.
    pub nodes_before: String,
    /// And with it.
    pub nodes_after: String,
    /// In which partition with the change, else without it.
    pub partition: Option<PartitionName>,
    /// Why it does not start at once with the change; `None`: it does.
    pub reason_after: Option<Waiting>,
}

/// What a change comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WhatIf {
    /// With a submission the new job first; then who waits already and starts at another time, in the
    /// order of the plan.
    pub rows: Vec<Row>,
    /// How many start when they would anyway, or are as unknown as before.
    pub unchanged: u32,
    /// Sentences on what rows don't tell.
    pub notes: Vec<String>,
    /// CPUs that the new job would get, or the fewest that it asks for if it has no place; 0 without a
    /// submission.
    pub cpus: u32,
    /// When this was true.
    pub now: Timestamp,
}

/// Tells what a change at `now` would come to. The cluster stays as it is. Whether the caller may make
/// the change is not asked, but of a submission.
///
/// Cost: two forecasts of all that waits.
///
/// # Errors
/// With the refusal that the change itself would meet.
pub fn what_if(cluster: &Cluster, now: Timestamp, change: Change) -> Result<WhatIf, Refusal> {
    let view = cluster.seen_at(now);
    let now = view.now();
    let mut changed = view.clone();
    let mut notes = Vec::new();
    let mut new = None;
    match change {
        Change::Submit(caller, submission) => {
            new = Some(submit(&mut changed, now, caller, submission, &mut notes)?);
        }
        Change::Drain(nodes) => {
            drain(&mut changed, now, &nodes)?;
            notes.extend(last_ends(&view, now, &nodes));
        }
        Change::Accounts(caller, changes) => {
            changed.execute(now, Command::Accounts(caller, changes))?;
        }
        Change::Scheduling(scheduling) => {
            let mut config = Config::clone(view.config());
            config.scheduling = *scheduling;
            changed.execute(now, Command::Configure(Arc::new(config)))?;
        }
    }
    let compared = Compared {
        before: forecast(&view, now, u32::MAX, Limits::default()),
        after: forecast(&changed, now, u32::MAX, Limits::default()),
        was: &view,
        is: &changed,
    };
    let (mut rows, unchanged) = compared.rows(new);
    notes.extend(compared.stranded(&rows));
    notes.extend(compared.preempted());
    if compared.before.is_cut() || compared.after.is_cut() {
        notes.push("too much waits to look at all of it: later jobs are left out".to_owned());
    }
    let mut cpus = 0;
    if let Some(unit) = new {
        rows.insert(0, compared.row(unit));
        cpus = match compared.after.place(unit) {
            Some(place) => place.cpus,
            None => spec_cpus(&changed, unit),
        };
    }
    Ok(WhatIf { rows, unchanged, notes, cpus, now })
}

/// Submits to a copy; the new unit.
fn submit(
    cluster: &mut Cluster,
    now: Timestamp,
    caller: Caller,
    submission: Box<Submission>,
    notes: &mut Vec<String>,
) -> Result<Unit, Refusal> {
    // Nothing is remembered of a question, and no earlier answer is an answer to it.
    let caller = Caller { request: None, ..caller };
    let reply = cluster.execute(now, Command::Submit(caller, submission))?.reply;
    let Reply::Submitted { job, warnings } = reply else { return Err(Refusal::NoChange) };
    notes.extend(warnings.iter().map(ToString::to_string));
    let array = cluster.array(job).is_some();
    Ok(if array { Unit::Array(job) } else { Unit::Job(job) })
}

fn drain(cluster: &mut Cluster, now: Timestamp, nodes: &[NodeName]) -> Result<(), Refusal> {
    if nodes.is_empty() {
        return Err(Refusal::NoChange);
    }
    for some in nodes.chunks(MAX_TARGETS) {
        let update = NodeUpdate {
            action: Some(NodeAction::Drain),
            reason: "what-if".into(),
            ..NodeUpdate::default()
        };
        let command = Command::UpdateNode(ADMIN, some.to_vec(), Box::new(update));
        cluster.execute(now, command)?;
    }
    Ok(())
}

/// When the last job ends on each of the nodes that are to be drained.
fn last_ends(cluster: &Cluster, now: Timestamp, nodes: &[NodeName]) -> Vec<String> {
    let nodes: BTreeSet<&NodeName> = nodes.iter().collect();
    let mut notes: Vec<String> = nodes
        .iter()
        .take(MAX_NOTES)
        .filter_map(|name| Some((name, cluster.node(cluster.node_index(name.as_str())?)?)))
        .map(|(name, (_, used))| {
            let jobs = used.jobs.iter().filter_map(|id| cluster.job(*id));
            // One without a limit comes last.
            let end = |job: &crate::model::Job| job.ends_by(now).unwrap_or(Timestamp::MAX);
            match jobs.map(|job| (end(job), job.id)).max() {
                None => format!("nothing runs on {name}: it is drained at once"),
                Some((Timestamp::MAX, id)) => {
                    format!("job {id} on {name} has no time limit: nobody knows when it ends")
                }
                Some((end, id)) => {
                    let wait = between(now, end);
                    format!("the last job on {name}, {id}, ends within {wait} at the latest")
                }
            }
        })
        .collect();
    if nodes.len() > MAX_NOTES {
        let more = count((nodes.len() - MAX_NOTES) as u64, "node");
        notes.push(format!("and so on for {more} more"));
    }
    notes
}

fn spec_cpus(cluster: &Cluster, unit: Unit) -> u32 {
    let spec = match unit {
        Unit::Job(id) => cluster.job(id).map(|job| &job.spec),
        Unit::Array(id) => cluster.array(id).map(|array| &array.spec),
    };
    spec.map_or(0, |spec| spec.shape.least_cpus())
}

/// Two forecasts of one cluster.
struct Compared<'a> {
    before: Forecast,
    after: Forecast,
    was: &'a Cluster,
    is: &'a Cluster,
}

impl Compared<'_> {
    /// Those whose start changes, and the number of the others; without `new`.
    fn rows(&self, new: Option<Unit>) -> (Vec<Row>, u32) {
        let (mut rows, mut unchanged) = (Vec::new(), 0u32);
        for unit in self.before.order().filter(|unit| Some(*unit) != new) {
            if self.changes(unit) {
                rows.push(self.row(unit));
            } else {
                unchanged = unchanged.saturating_add(1);
            }
        }
        (rows, unchanged)
    }

    fn changes(&self, unit: Unit) -> bool {
        let start = |forecast: &Forecast| forecast.place(unit).map(|place| place.start);
        match (start(&self.before), start(&self.after)) {
            (Some(before), Some(after)) => before != after,
            // What was not looked at is no news.
            (Some(_), None) => !self.after.is_cut(),
            (None, Some(_)) => !self.before.is_cut(),
            (None, None) => false,
        }
    }

    fn row(&self, unit: Unit) -> Row {
        let (before, after) = (self.before.place(unit), self.after.place(unit));
        let nodes = |cluster: &Cluster, place: Option<&super::forecast::Place>| {
            place.map_or_else(String::new, |place| hostlist(cluster, place.nodes.iter().copied()))
        };
        let starts = after.is_some_and(|place| place.start <= self.is.now());
        Row {
            unit,
            uid: owner(self.is, unit),
            before: before.map(|place| place.start),
            after: after.map(|place| place.start),
            nodes_before: nodes(self.was, before),
            nodes_after: nodes(self.is, after),
            partition: after.or(before).map(|place| place.partition.clone()),
            reason_after: if starts { None } else { self.is.waiting(unit, self.after.plan()) },
        }
    }

    /// Those that had a place and that nothing left in service can take.
    fn stranded(&self, rows: &[Row]) -> Vec<String> {
        let lost: Vec<_> = rows
            .iter()
            .filter(|row| row.before.is_some() && row.after.is_none())
            .map(|row| row.unit)
            .collect();
        // One that waits for a job without a time limit, or for a limit, may run some day.
        let never = |unit: &&Unit| {
            let spec = self.is.waiting_units().get(*unit).map(|queued| &queued.spec);
            spec.is_some_and(|spec| {
                let mut partitions = self.is.partitions_of(spec);
                !partitions.any(|of| could_run_in_service(self.is, of, &spec.shape))
            })
        };
        let mut notes: Vec<String> = lost
            .iter()
            .take(MAX_NOTES)
            .filter(never)
            .map(|unit| {
                format!("job {} can't run any more: no nodes in service could take it", unit.id())
            })
            .collect();
        if lost.len() > MAX_NOTES {
            let more = count((lost.len() - MAX_NOTES) as u64, "job");
            notes.push(format!("{more} more have no expected start any more"));
        }
        notes
    }

    /// Running jobs that would make room only because of the change.
    fn preempted(&self) -> Vec<String> {
        let before: BTreeSet<_> = self.before.preempted().iter().map(|line| line.victim).collect();
        let new = self.after.preempted().iter().filter(|line| !before.contains(&line.victim));
        let sentence = |line: &crate::command::PreemptLine| {
            format!("job {} would make room for job {}", line.victim, line.for_unit.id())
        };
        new.take(MAX_NOTES).map(sentence).collect()
    }
}

fn owner(cluster: &Cluster, unit: Unit) -> UserId {
    let uid = match unit {
        Unit::Job(id) => cluster.job(id).map(|job| job.uid),
        Unit::Array(id) => cluster.array(id).map(|array| array.uid),
    };
    uid.unwrap_or(UserId(u32::MAX))
}
