//! What could a job do whom a limit keeps back?
//!
//! Run in another QOS or account that its owner may use, or ask for less of what is limited. Which of
//! them helps is told by trying each, as with every other suggestion.

use std::collections::BTreeSet;

use penstock_vocab::GresRequest;

use super::suggest::{Try, thousandths};
use crate::cluster::{Cluster, Queued};
use crate::command::JobUpdate;
use crate::model::{GPU, JobSpec};

/// Most other QOS, and most other accounts, that are tried.
const MOST_NAMES: usize = 2;

/// Changes of a waiting unit that take it out of a limit or below it, those that give up nothing first.
pub(super) fn tries(cluster: &Cluster, queued: &Queued) -> Vec<Try> {
    let mut tries = other_qos(cluster, queued);
    tries.extend(other_accounts(cluster, queued));
    tries.extend(fewer_gpus(&queued.spec));
    tries.extend(fewer_tasks(&queued.spec));
    tries
}

/// QOS that its association may use. Where no list is set any may be used, and none is suggested but
/// those that somebody thought of.
fn other_qos(cluster: &Cluster, queued: &Queued) -> Vec<Try> {
    let allowed = cluster.accounts().qos_allowed(queued.assoc).unwrap_or_default();
    let others = allowed.iter().map(|name| &**name).filter(|name| *name != &*queued.spec.qos);
    let to = |name: &str| Try {
        change: format!("--qos={name}"),
        update: JobUpdate { qos: Some(name.into()), ..JobUpdate::default() },
        loss: 0,
    };
    others.take(MOST_NAMES).map(to).collect()
}

/// Accounts that its owner is in and that were entered by somebody.
fn other_accounts(cluster: &Cluster, queued: &Queued) -> Vec<Try> {
    let accounts = cluster.accounts();
    let Some(user) = accounts.user_by_uid(queued.uid) else { return Vec::new() };
    let own = accounts.assocs_of(&user.name).filter(|assoc| !assoc.implicit);
    let others = own.map(|assoc| &*assoc.account).filter(|name| *name != &*queued.spec.account);
    let others: BTreeSet<_> = others.collect();
    let to = |name: &str| Try {
        change: format!("--account={name}"),
        update: JobUpdate { account: Some(name.into()), ..JobUpdate::default() },
        loss: 0,
    };
    others.into_iter().take(MOST_NAMES).map(to).collect()
}

/// Half of the GPUs that are asked for on each node.
fn fewer_gpus(spec: &JobSpec) -> Option<Try> {
    let asked = &spec.shape.gres_per_node;
    let is_gpu = |one: &&GresRequest| one.name.name() == GPU && one.count > 1;
    asked.iter().find(is_gpu)?;
    let mut gres = asked.to_vec();
    let (mut before, mut after) = (0u64, 0u64);
    for one in gres.iter_mut().filter(|one| one.name.name() == GPU) {
        before = before.saturating_add(one.count);
        one.count = one.count.div_ceil(2);
        after = after.saturating_add(one.count);
    }
    let text: Vec<_> = gres.iter().map(ToString::to_string).collect();
    Some(Try {
        change: format!("--gres={}", text.join(",")),
        loss: thousandths(before - after, before),
        update: JobUpdate { gres: Some(gres), ..JobUpdate::default() },
    })
}

/// Half of the tasks, where their number was given and no node is left without one.
fn fewer_tasks(spec: &JobSpec) -> Option<Try> {
    let tasks = spec.shape.ntasks.filter(|tasks| *tasks > 1)?;
    let fewer = tasks.div_ceil(2);
    (fewer >= spec.shape.least_nodes()).then(|| Try {
        change: format!("--ntasks={fewer}"),
        update: JobUpdate { ntasks: Some(fewer), ..JobUpdate::default() },
        loss: thousandths(u64::from(tasks - fewer), u64::from(tasks)),
    })
}
