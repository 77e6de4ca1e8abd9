//! Which nodes does a reservation hold, and what replaces one that fails?

use std::collections::BTreeSet;
use std::sync::Arc;

use penstock_vocab::NodeName;

use super::Cluster;
use super::reservations::{clash, each_once, refuse};
use crate::command::NodeChoice;
use crate::model::{Job, Node, NodeIndex, Reservation, ReservationFlag};
use crate::refusal::{Refusal, ReservationFault};

impl Cluster {
    /// Gives a reservation the nodes that were asked for; `None`: nothing was said.
    pub(super) fn choose_nodes(
        &self,
        new: &mut Reservation,
        choice: Option<&NodeChoice>,
    ) -> Result<(), Refusal> {
        let all = new.has(ReservationFlag::PartNodes).then_some(NodeChoice::All);
        new.node_count = None;
        match all.as_ref().or(choice) {
            None if new.licenses.is_empty() => {
                let detail = "it reserves nothing; give Nodes=, NodeCnt= or Licenses=";
                Err(refuse(ReservationFault::Nodes, detail))
            }
            None => Ok(()),
            Some(NodeChoice::Named(names)) => {
                let pool: BTreeSet<_> = self.pool(new).into_iter().collect();
                for name in names {
                    let index = self.node_by_name(name)?.0;
                    if !pool.contains(&index) {
                        let detail = format!("node {name} is not in the reservation's partition");
                        return Err(refuse(ReservationFault::Nodes, detail));
                    }
                }
                new.nodes = each_once(names);
                self.check_nodes_free(new)
            }
            Some(NodeChoice::All) => {
                new.nodes = self.pool(new).into_iter().filter_map(|i| self.name_of(i)).collect();
                if new.nodes.is_empty() {
                    let detail = "there are no nodes to reserve yet";
                    return Err(refuse(ReservationFault::Nodes, detail));
                }
                self.check_nodes_free(new)
            }
            Some(NodeChoice::Count(count)) => {
                new.node_count = Some(*count);
                self.choose_count(new, *count as usize)
            }
        }
    }

    fn choose_count(&self, new: &mut Reservation, count: usize) -> Result<(), Refusal> {
        let mut pool = self.pool(new);
        pool.retain(|index| self.suits(*index, new));
        let there = pool.len();
        if count == 0 || there < count {
            let detail =
                format!("{count} nodes asked for, {there} have what it needs and are in service");
            return Err(refuse(ReservationFault::Nodes, detail));
        }
        // Those that it has stay, so that jobs in it are not disturbed.
        let kept = self.nodes_of(new);
        let mut free: Vec<_> = pool
            .iter()
            .copied()
            .filter(|index| self.clash_on(*index, new).is_none())
            .filter(|index| self.job_in_the_way(*index, new).is_none())
            .map(|index| (!kept.contains(&index), self.preference(index), index))
            .collect();
        if free.len() < count {
            let detail = format!(
                "{count} nodes asked for, {} of {there} are free of other reservations and of jobs \
                 that run longer; IGNORE_JOBS takes those that jobs run on",
                free.len()
            );
            return Err(refuse(ReservationFault::Busy, detail));
        }
        free.sort_unstable();
        free.truncate(count);
        free.sort_unstable_by_key(|(_, _, index)| *index);
        new.nodes = free.into_iter().filter_map(|(_, _, index)| self.name_of(index)).collect();
        Ok(())
    }

    /// Smaller is better: light nodes, then those with few jobs.
    fn preference(&self, index: NodeIndex) -> (u32, usize) {
        self.node(index).map_or((u32::MAX, usize::MAX), |(node, used)| {
            (node.effective_weight(), used.jobs.len())
        })
    }

    /// Nodes that a reservation may have.
    fn pool(&self, new: &Reservation) -> Vec<NodeIndex> {
        match new.partition.as_ref().and_then(|name| self.partition(name)) {
            Some(partition) => crate::scheduler::partition_nodes(self, partition),
            None => self.nodes().map(|(index, _, _)| index).collect(),
        }
    }

    /// Nodes that a reservation has now.
    fn nodes_of(&self, one: &Reservation) -> BTreeSet<NodeIndex> {
        one.nodes.iter().filter_map(|name| self.node_names.get(name).copied()).collect()
    }

    /// Whether a node is one to choose.
    fn suits(&self, index: NodeIndex, new: &Reservation) -> bool {
        let fits = |node: &Arc<Node>| {
            node.in_service() && (new.features.is_empty() || new.features.accepts(&node.features()))
        };
        self.node(index).is_some_and(|(node, _)| fits(node))
    }

    fn name_of(&self, index: NodeIndex) -> Option<NodeName> {
        self.node(index).map(|(node, _)| node.name.clone())
    }

    /// Another reservation that holds a node at the same time.
    fn clash_on(&self, index: NodeIndex, new: &Reservation) -> Option<&Arc<Reservation>> {
        self.reservations_on(index).find(|other| clash(new, other))
    }

    /// A job on a node that may still run when the reservation begins, and is not in it.
    fn job_in_the_way(&self, index: NodeIndex, new: &Reservation) -> Option<Arc<Job>> {
        if new.has(ReservationFlag::IgnoreJobs) || new.has(ReservationFlag::Maint) {
            return None;
        }
        self.jobs_on(index).into_iter().find(|job| {
            *job.spec.reservation != *new.name
                && self.ends_by(job).is_none_or(|end| end > new.start)
        })
    }

    fn check_nodes_free(&self, new: &Reservation) -> Result<(), Refusal> {
        for name in &new.nodes {
            let index = self.node_by_name(name)?.0;
            if let Some(other) = self.clash_on(index, new) {
                let detail = format!(
                    "node {name} is in reservation {} then; OVERLAP lets both have it",
                    other.name
                );
                return Err(refuse(ReservationFault::Overlap, detail));
            }
            if let Some(job) = self.job_in_the_way(index, new) {
                let detail = format!(
                    "job {} may run on node {name} until after the start; IGNORE_JOBS lets it",
                    job.id
                );
                return Err(refuse(ReservationFault::Busy, detail));
            }
        }
        Ok(())
    }

    /// Replaces nodes that went out of service by others, where nodes were asked for by count; gives
    /// one with PART_NODES what its partition has now. Whether that changed anything.
    pub(super) fn renew_nodes(&mut self, old: &Arc<Reservation>) -> bool {
        let mut new = (**old).clone();
        if new.has(ReservationFlag::PartNodes) {
            new.nodes = self.pool(&new).into_iter().filter_map(|i| self.name_of(i)).collect();
        } else if new.node_count.is_some() && !new.has(ReservationFlag::StaticAlloc) {
            self.replace_failed(&mut new);
        }
        let changed = new != **old;
        if changed {
            self.put_reservation(new);
        }
        changed
    }

    fn replace_failed(&self, new: &mut Reservation) {
        let failed = |name: &NodeName| {
            self.node_names.get(name).is_none_or(|index| !self.suits(*index, new))
        };
        let places: Vec<usize> =
            (0..).zip(&new.nodes).filter(|(_, name)| failed(name)).map(|(at, _)| at).collect();
        if places.is_empty() {
            return;
        }
        let held = self.nodes_of(new);
        let mut spare: Vec<_> = self
            .pool(new)
            .into_iter()
            .filter(|index| self.suits(*index, new))
            .filter(|index| !held.contains(index))
            .filter(|index| self.clash_on(*index, new).is_none())
            .filter(|index| self.job_in_the_way(*index, new).is_none())
            .map(|index| (self.preference(index), index))
            .collect();
        spare.sort_unstable();
        // A node that nothing can replace stays: it may come back in time.
        for (at, (_, index)) in places.into_iter().zip(spare) {
            if let (Some(place), Some(name)) = (new.nodes.get_mut(at), self.name_of(index)) {
                *place = name;
            }
        }
    }
}
