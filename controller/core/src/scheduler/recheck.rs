//! Do the shares of a plan still serve, when it is carried out?
//!
//! Plans are made from a snapshot; what has changed since must not let a job start where it does not
//! fit. Counted here from the shares alone, whatever way they were chosen.

use std::collections::BTreeSet;

use penstock_vocab::{GresName, GresRequest, gres_matches};

use super::choose::leaves_of;
use super::demand::{Asker, Demand};
use super::fit::allows;
use super::free::share_is_free;
use super::quota::Quota;
use crate::cluster::Cluster;
use crate::model::{JobSpec, Marks, Node, NodeShare, NodeUse, Partition, Shape};

/// Whether these shares serve the request as it is now, on nodes that accept work, and are free.
#[must_use]
pub fn shares_serve(
    cluster: &Cluster,
    partition: &Partition,
    spec: &JobSpec,
    asker: Asker,
    shares: &[NodeShare],
) -> bool {
    let ways = Shape::ways(&spec.shape);
    ways.iter().any(|shape| serve(cluster, partition, shape, asker, shares))
}

fn serve(
    cluster: &Cluster,
    partition: &Partition,
    shape: &Shape,
    asker: Asker,
    shares: &[NodeShare],
) -> bool {
    let demand = Demand::new(cluster, shape, partition, asker);
    let count = u32::try_from(shares.len()).unwrap_or(u32::MAX);
    let nodes: BTreeSet<_> = shares.iter().map(|share| share.node).collect();
    if nodes.len() != shares.len() || count < demand.nodes_min || count > demand.nodes_max {
        return false;
    }
    let own: Option<BTreeSet<_>> = partition.nodes.as_ref().map(|names| names.iter().collect());
    let mut whole = Whole::new(&demand);
    for share in shares {
        let Some((node, used)) = cluster.node(share.node) else { return false };
        let ours = own.as_ref().is_none_or(|names| names.contains(&node.name));
        let marks = allows(node, used, &demand).filter(|_| used.admits(demand.holder));
        let Some(marks) = marks.filter(|_| ours && node.accepts_work()) else { return false };
        let enough = share_is_enough(node, used, share, &demand);
        if !share_is_free(node, used, share) || !enough {
            return false;
        }
        whole.add(node, share, marks);
    }
    whole.serves()
}

/// What the shares come to together.
struct Whole<'d> {
    demand: &'d Demand<'d>,
    tasks: u64,
    gpus: u64,
    required: usize,
    /// Options of the matching set that all nodes have.
    options: u32,
    quota: Quota,
    leaves: Vec<u32>,
}

impl<'d> Whole<'d> {
    fn new(demand: &'d Demand<'d>) -> Self {
        let quota = Quota::new(&demand.shape.constraint);
        Self {
            demand,
            tasks: 0,
            gpus: 0,
            required: 0,
            options: u32::MAX,
            quota,
            leaves: Vec::new(),
        }
    }

    fn add(&mut self, node: &Node, share: &NodeShare, marks: Marks) {
        let shape = self.demand.shape;
        self.tasks += u64::from(share.tasks);
        if let Some(asked) = self.demand.gpus() {
            let kept = self.demand.kept_per_node(&asked.name);
            self.gpus += units_of(share, &asked.name).saturating_sub(kept);
        }
        self.required += usize::from(shape.required.contains(&node.name));
        self.options &= marks.options;
        self.quota.offer(marks.counts);
        self.leaves.push(self.demand.site.spot(share.node).leaf);
    }

    fn serves(&self) -> bool {
        let demand = self.demand;
        let near = demand.switch_limit.is_none_or(|most| {
            // One node is one switch, wherever it stands.
            let leaves = leaves_of(self.leaves.iter().copied());
            self.leaves.len() == 1 || leaves.is_some_and(|leaves| leaves <= most)
        });
        self.tasks == u64::from(demand.tasks)
            && self.gpus >= demand.gpu_count()
            && self.required == demand.shape.required.len()
            && (demand.shape.constraint.options() == 0 || self.options != 0)
            && self.quota.is_met()
            && near
    }
}

fn share_is_enough(node: &Node, used: &NodeUse, share: &NodeShare, demand: &Demand<'_>) -> bool {
    let inventory = &node.inventory;
    let of_total = demand.gpus().map_or(0, |asked| {
        units_of(share, &asked.name).saturating_sub(demand.kept_per_node(&asked.name))
    });
    let cpus = if demand.exclusive {
        inventory.cpus
    } else {
        demand.cpus_for(share.tasks, of_total, inventory)
    };
    let most = if demand.exclusive { u32::MAX } else { demand.max_cpus_per_node };
    let tasks_fit = if demand.exact_per_node {
        share.tasks == demand.tasks_per_node
    } else {
        share.tasks > 0 && share.tasks <= demand.tasks_per_node
    };
    tasks_fit
        && share.sharing == demand.sharing
        && share.cpu_count() >= cpus
        && used.cpus.union(&share.cpus).count() <= most as usize
        && share.memory >= demand.memory_for(share.tasks, of_total, inventory)
        && devices_are_enough(share, &demand.gres_with(share.tasks, 0))
}

/// Each type that is asked for, and of each name as many as all its types together.
fn devices_are_enough(share: &NodeShare, asked: &[GresRequest]) -> bool {
    asked.iter().all(|one| {
        let same = asked.iter().filter(|other| other.name.name() == one.name.name());
        let all = same.fold(0u64, |sum, other| sum.saturating_add(other.count));
        let own = asked.iter().filter(|other| other.name == one.name);
        let own = own.fold(0u64, |sum, other| sum.saturating_add(other.count));
        units_of(share, &one.name) >= own && units_of(share, &one.name.untyped()) >= all
    })
}

fn units_of(share: &NodeShare, name: &GresName) -> u64 {
    let matching = share.gres.iter().filter(|gres| gres_matches(name, &gres.name));
    matching.map(|gres| gres.ids.len() as u64).sum()
}
