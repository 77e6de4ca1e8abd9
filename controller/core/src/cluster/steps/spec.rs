//! Which requests for steps make no sense, whatever their job has?

use crate::model::{Distribution, StepSpec};
use crate::refusal::{Malformed, Refusal};

/// Most tasks of one step: their numbers stand in its record.
pub(super) const MAX_TASKS: u32 = 65_536;
/// Most names of nodes in one list of a request.
const MAX_NODES: usize = 65_536;

/// Refuses counts of nothing and counts beyond reason.
pub(super) fn check(spec: &StepSpec) -> Result<(), Refusal> {
    let counts = [
        ("--ntasks", spec.ntasks, MAX_TASKS),
        ("--ntasks-per-node", spec.ntasks_per_node, MAX_TASKS),
        ("--cpus-per-task", spec.cpus_per_task, MAX_TASKS),
        ("--nodes", spec.nodes_min, u32::MAX),
        ("--nodes", spec.nodes_max, u32::MAX),
    ];
    for (option, count, most) in counts {
        if count.is_some_and(|count| count == 0 || count > most) {
            let count = count.unwrap_or(0);
            return Err(malformed(format!("{option} is {count}; give 1 to {most}")));
        }
    }
    if let (Some(least), Some(most)) = (spec.nodes_min, spec.nodes_max)
        && least > most
    {
        return Err(malformed(format!("--nodes is {least}-{most}, which runs backwards")));
    }
    if spec.task_nodes.len() > MAX_NODES || spec.required.len() > MAX_NODES {
        return Err(malformed(format!("more than {MAX_NODES} nodes are named")));
    }
    let named = u32::try_from(spec.task_nodes.len()).unwrap_or(u32::MAX);
    if spec.distribution == Distribution::Arbitrary && named < spec.ntasks.unwrap_or(1).max(1) {
        return Err(malformed(format!(
            "--distribution=arbitrary names {named} nodes for {} tasks; name one for each",
            spec.ntasks.unwrap_or(1)
        )));
    }
    Ok(())
}

fn malformed(detail: String) -> Refusal {
    Refusal::Malformed { what: Malformed::Count, detail: detail.into() }
}
