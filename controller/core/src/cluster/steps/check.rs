//! Is everything true of steps that must always be true?

use std::collections::BTreeMap;

use fixedbitset::FixedBitSet;
use penstock_vocab::Mib;

use super::super::{Broken, Cluster};
use super::rooms::asks_memory;
use crate::model::{BatchPart, Job, NodeIndex, NodeShare, Run, Step};

/// What the steps of one run hold on one node.
#[derive(Default)]
struct Held {
    cpus: FixedBitSet,
    memory: Mib,
    units: Vec<(penstock_vocab::GresName, u32)>,
}

/// Looks at every step, and at every run that shall end.
pub(in super::super) fn check_steps(cluster: &Cluster, broken: &mut Vec<Broken>) {
    for step in cluster.steps() {
        let id = step.key.job;
        match cluster.job(id) {
            None => broken.push(Broken::Index("steps without a job")),
            Some(job) => {
                broken.extend(contradiction(job, step).map(|what| Broken::Job { job: id, what }));
            }
        }
    }
    for job in cluster.jobs() {
        let Some(run) = job.active_run() else { continue };
        let of_hooks = super::super::hooks::contradiction(run);
        let found = [shared_by_two(cluster, job, run), unfinished(cluster, job, run), of_hooks];
        broken.extend(found.into_iter().flatten().map(|what| Broken::Job { job: job.id, what }));
    }
}

fn unfinished(cluster: &Cluster, job: &Job, run: &Run) -> Option<&'static str> {
    if run.batch != BatchPart::Script
        && run.is_ending()
        && !cluster.has_live_steps(job.id)
        && !run.has_busy_hooks()
    {
        return Some("shall end, nothing of it is left, and it has not ended");
    }
    let ended = matches!(run.batch, BatchPart::Ended(_) | BatchPart::NeverStarted);
    (ended && !run.is_ending()).then_some("has a batch script that ended and goes on")
}

fn contradiction(job: &Job, step: &Step) -> Option<&'static str> {
    let live = step.live_shares().next().is_some();
    if live != step.is_live() {
        return Some("has a step that ended before its parts did, or after them");
    }
    if step.state.is_finished() == live {
        return Some("has a step in a state that its parts are not in");
    }
    if step.shares.is_empty() {
        return Some("has a step without a node");
    }
    if !live {
        return None;
    }
    let run = job.active_run().filter(|run| run.attempt == step.key.attempt);
    let Some(run) = run else { return Some("has a step that runs outside its run") };
    let within = |share: &NodeShare| {
        let all = run.shares.iter().find(|all| all.node == share.node);
        all.is_some_and(|all| {
            let owns = |gres: &crate::model::GresShare| {
                all.gres.iter().any(|have| {
                    have.name == gres.name && gres.ids.iter().all(|id| have.ids.contains(id))
                })
            };
            share.cpus.is_subset(&all.cpus)
                && share.memory <= all.memory
                && share.gres.iter().all(owns)
        })
    };
    if !step.shares.iter().all(|part| within(&part.share)) {
        return Some("has a step that holds what the job does not");
    }
    if step.shares.iter().any(|part| part.ranks.len() != part.share.tasks as usize) {
        return Some("has a step with tasks that have no number");
    }
    None
}

/// Steps that mind each other hold no CPU, no device and no memory twice.
fn shared_by_two(cluster: &Cluster, job: &Job, run: &Run) -> Option<&'static str> {
    let mut held: BTreeMap<NodeIndex, Held> = BTreeMap::new();
    for step in cluster.live_steps_of(job.id).filter(|step| step.holds()) {
        for part in step.live_shares() {
            let here = held.entry(part.share.node).or_default();
            if !here.cpus.is_disjoint(&part.share.cpus) {
                return Some("has two steps on one CPU");
            }
            here.cpus.union_with(&part.share.cpus);
            if asks_memory(step.spec.memory) {
                here.memory = Mib(here.memory.0.saturating_add(part.share.memory.0));
            }
            for gres in &part.share.gres {
                for id in &gres.ids {
                    let unit = (gres.name.clone(), *id);
                    if here.units.contains(&unit) {
                        return Some("has two steps on one device");
                    }
                    here.units.push(unit);
                }
            }
        }
    }
    let over =
        |share: &NodeShare| held.get(&share.node).is_some_and(|here| here.memory > share.memory);
    run.shares.iter().any(over).then_some("has steps with more memory than its own")
}
