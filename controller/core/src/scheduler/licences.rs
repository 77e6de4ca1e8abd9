//! How many of each licence are free, and when?

use std::collections::BTreeMap;

use penstock_vocab::{Timestamp, TresKind};

use super::access::Access;
use super::pool::Pool;
use super::profile::{Amount, Counts, FAR, Fits, Line, end_of, run_end};
use crate::cluster::Cluster;
use crate::model::Shape;

/// The cluster's licences over time.
#[derive(Debug, Clone, Default)]
pub(super) struct Licences {
    lines: BTreeMap<Box<str>, (u64, Line)>,
    /// What reservations hold: by licence, the reservation's place and how many.
    held: BTreeMap<Box<str>, Vec<(u32, u64)>>,
}

/// At most so many may be in use.
struct Most(u64);

impl Fits for Most {
    fn fits(&self, counts: &Counts, _gres: &[u32]) -> bool {
        counts.memory <= self.0
    }
}

impl Licences {
    /// What runs, and what reservations hold. Cost: nothing where the cluster has no licences, else
    /// a look at all that runs.
    pub(super) fn new(cluster: &Cluster, pool: &Pool, now: Timestamp) -> Self {
        let mut licences = Self::default();
        let config = cluster.config();
        for (name, count) in &config.scheduling.licenses {
            licences.lines.insert(name.clone(), (*count, Line::new(0)));
        }
        if licences.lines.is_empty() {
            return licences;
        }
        for (index, _, used) in cluster.nodes() {
            for job in used.jobs.iter().filter_map(|id| cluster.job(*id)) {
                // A job on several nodes counts on its first.
                let run = job.active_run().filter(|run| run.batch_node() == Some(index));
                let Some(run) = run.filter(|_| !job.spec.shape.licenses.is_empty()) else {
                    continue;
                };
                let end = run_end(job, run, now, config.policy.kill_wait_secs).0;
                licences.take(&job.spec.shape, i64::MIN, end);
            }
        }
        for (reservation, at) in pool.reservations().iter().zip(0u32..) {
            for (kind, count) in &reservation.licenses {
                if let TresKind::License(name) = kind {
                    licences.held.entry(name.clone()).or_default().push((at, *count));
                }
            }
        }
        licences
    }

    /// Gives a job's licences to it.
    pub(super) fn take(&mut self, shape: &Shape, from: i64, until: i64) {
        for (name, count) in &shape.licenses {
            if let Some((_, line)) = self.lines.get_mut(name) {
                let amount = Amount { memory: *count, ..Amount::default() };
                line.add(from, until, &amount);
            }
        }
    }

    /// The earliest instant from `from` on at which a job's licences are free for `length`; `None`:
    /// never.
    pub(super) fn next(
        &self,
        shape: &Shape,
        access: Access,
        pool: &Pool,
        from: i64,
        length: i64,
    ) -> Option<i64> {
        let mut start = from;
        loop {
            let mut next = start;
            for (name, count) in &shape.licenses {
                next = self.next_of(name, *count, access, pool, next, length)?;
            }
            if next == start {
                return Some(start);
            }
            start = next;
        }
    }

    fn next_of(
        &self,
        name: &str,
        count: u64,
        access: Access,
        pool: &Pool,
        from: i64,
        length: i64,
    ) -> Option<i64> {
        let (all, line) = self.lines.get(name)?;
        let held = self.held.get(name).map_or(&[][..], Vec::as_slice);
        let mut start = from;
        loop {
            let (kept, first_end) = kept(held, access, pool, start, length);
            let free = all.checked_sub(count).and_then(|free| free.checked_sub(kept));
            let found = free.and_then(|most| line.view().first_fit(&Most(most), start, length));
            match found {
                Some(found) if found == start => return Some(start),
                // Other reservations may stand in the way there.
                Some(found) => start = found,
                // Without what some reservation holds it may fit once that is over.
                None if kept > 0 && first_end > start && first_end < FAR => start = first_end,
                None => return None,
            }
        }
    }

    /// Instants after `from` at which the use of a shape's licences changes.
    pub(super) fn changes(&self, shape: &Shape, from: i64) -> Vec<i64> {
        let lines = shape.licenses.iter().filter_map(|(name, _)| self.lines.get(name));
        lines.flat_map(|(_, line)| line.view().changes(from)).collect()
    }

    /// The first licence of a shape that is not free from `from` on for `length`, with how many are
    /// asked for, how many are free for it then, and how many there are.
    pub(super) fn missing<'s>(
        &self,
        shape: &'s Shape,
        access: Access,
        pool: &Pool,
        from: i64,
        length: i64,
    ) -> Option<(&'s str, u64, u64, u64)> {
        for (name, count) in &shape.licenses {
            let next = self.next_of(name, *count, access, pool, from, length);
            if next != Some(from) {
                let (all, used) = self.lines.get(name).map_or((0, 0), |(all, line)| {
                    (*all, line.view().peak(from, end_of(from, length)).counts.memory)
                });
                let held = self.held.get(name).map_or(&[][..], Vec::as_slice);
                let (kept, _) = kept(held, access, pool, from, length);
                return Some((name, *count, all.saturating_sub(used.saturating_add(kept)), all));
            }
        }
        None
    }
}

/// How many licences reservations keep from a class in a window, and when the first of them ends.
fn kept(held: &[(u32, u64)], access: Access, pool: &Pool, from: i64, length: i64) -> (u64, i64) {
    let own = |reservation: u32| matches!(access, Access::Inside { reservation: own, .. } if own == reservation);
    let (mut kept, mut first_end) = (0u64, i64::MAX);
    for (reservation, count) in held.iter().filter(|(reservation, _)| !own(*reservation)) {
        let times = pool.calendar(*reservation).iter();
        let mut touching =
            times.filter(|time| time.from < end_of(from, length) && from < time.until);
        if let Some(time) = touching.next() {
            kept = kept.saturating_add(*count);
            first_end = first_end.min(time.until);
        }
    }
    (kept, first_end)
}
