//! Does a class fit now, and if not, why?

use penstock_vocab::PendingReason;

use super::access::Access;
use super::classes::Class;
use super::demand::Demand;
use super::fit::place;
use super::free::Free;
use super::needs::{Need, Sum};
use super::pass::{Pass, Prepared};
use super::placing::{Exactly, STRANGER, Window};
use super::profile::{Amount, Fits as _, Peak, end_of};
use super::reasons::{Obstacle, behind, resources, set_aside, unavailable};
use crate::cluster::Waiting;
use crate::command::Unit;
use crate::model::{NodeIndex, NodeShare};

/// What keeps nodes from a class that are free now.
#[derive(Debug, Clone, Copy, Default)]
struct KeptBack {
    /// Something does that begins before the class would end.
    any: bool,
    /// The first advance reservation that does, by its place in [`super::pool::Pool::reservations`].
    reservation: Option<u32>,
}

impl<'a> Pass<'a> {
    /// Looks for nodes on which a class fits from now on for `length`. A unit whose promised time has
    /// come starts in its place if it can: another may be promised to somebody behind it.
    pub(super) fn fit_now(
        &mut self,
        class: &'a Class,
        prepared: &Prepared,
        at: usize,
        (length, unit): (i64, Unit),
    ) -> Result<Vec<NodeShare>, Obstacle> {
        self.plan.stats.tests += 1;
        let partition = class.partitions[at];
        let demand = self.demand(class, at);
        self.check_reservation(class, prepared)?;
        if let Some((name, asked, free, all)) =
            self.licences.missing(&class.shape, prepared.access, self.pool, self.now, length)
        {
            let detail = format!("needs {asked} of licence {name}; {free} of {all} are free");
            return Err(Obstacle::Resources(Waiting::new(PendingReason::Licenses, detail)));
        }
        if let Some(shares) = self.fit_as_promised(class, prepared, at, (length, unit)) {
            return Ok(shares);
        }
        let (found, kept_back) = {
            let mut window = Window::now(&self.free, self.cluster);
            let needs = &prepared.needs[at];
            let (nodes, sum, kept_back) =
                self.candidates(prepared.access, needs, &demand, length, &mut window);
            let found = if sum.serves(&demand) {
                let demand = demand.clone().packed_by(self.packer());
                place(&window, &nodes, &demand, |node| node.accepts_work())
                    .and_then(|shares| window.make_real(shares, &demand))
            } else {
                None
            };
            (found, kept_back)
        };
        if let Some(shares) = found {
            return Ok(shares);
        }
        if let Some(shares) = self.fit_sharing(class, prepared, at, length) {
            return Ok(shares);
        }
        let can_run = self.could_run(&demand, &prepared.needs[at], partition)
            || self.could_be_cut(class, prepared, at);
        if !can_run {
            let nodes = self.pool.partition(partition);
            return Err(Obstacle::Own(unavailable(self.cluster, nodes, &demand)));
        }
        if kept_back.any && self.fits_but_for_others(prepared, at, &demand) {
            let waiting = match kept_back.reservation {
                Some(place) => {
                    set_aside(&demand, &self.pool.reservations()[place as usize], self.now)
                }
                None => behind(&demand),
            };
            return Err(Obstacle::Behind(waiting));
        }
        Err(Obstacle::Resources(resources(&demand, &self.open, self.pool, partition)))
    }

    /// Shares on the nodes that the plan before promised to a unit from now on or earlier.
    fn fit_as_promised(
        &self,
        class: &'a Class,
        prepared: &Prepared,
        at: usize,
        (length, unit): (i64, Unit),
    ) -> Option<Vec<NodeShare>> {
        let partition = class.partitions[at];
        let promised = self.searches.promised(unit, self.now)?;
        if promised.partition != self.partition(partition).name {
            return None;
        }
        let demand = self.demand(class, at);
        let mut window = Window::now(&self.free, self.cluster);
        let until = end_of(self.now, length);
        let mut nodes = Vec::new();
        for (node, _) in &promised.parts {
            let kind = self.pool.kind_of(*node)? as usize;
            let need = prepared.needs[at][kind].as_ref()?;
            let kind = &self.pool.kinds()[kind];
            let line = self.lines.line(*node);
            let free = line.fits(need, self.now, until);
            if !free || !prepared.access.allows(self.pool, kind, self.now, length) {
                return None;
            }
            if line.grows() {
                window.set(*node, &line.peak(self.now, until));
            }
            if let Some((record, _)) = self.cluster.node(*node) {
                window.block(*node, self.slots.blocked(record, *node, (self.now, until)));
            }
            nodes.push(*node);
        }
        place(&window, &nodes, &demand, |node| node.accepts_work())
            .and_then(|shares| window.make_real(shares, &demand))
    }

    /// Whether the reservation that a class names is there and has begun.
    fn check_reservation(&self, class: &Class, prepared: &Prepared) -> Result<(), Obstacle> {
        let name = &class.reservation;
        match prepared.access {
            Access::Outside | Access::Inside { flex: true, .. } => Ok(()),
            Access::Missing => {
                let detail = format!("reservation {name} does not exist any more");
                Err(Obstacle::Own(Waiting::new(PendingReason::ReservationDeleted, detail)))
            }
            Access::Inside { reservation, flex: false, .. } => {
                let times = self.pool.calendar(reservation);
                let runs = |from: i64, until: i64| from <= self.now && self.now < until;
                match times.iter().find(|held| held.until > self.now) {
                    Some(held) if runs(held.from, held.until) => Ok(()),
                    Some(held) => {
                        let secs =
                            held.from.saturating_sub(self.now).unsigned_abs().div_ceil(1_000);
                        let begins = penstock_vocab::elapsed_long(secs);
                        let detail = format!("reservation {name} begins in {begins}");
                        Err(Obstacle::Own(Waiting::new(PendingReason::Reservation, detail)))
                    }
                    None => {
                        let detail = format!("reservation {name} is over");
                        Err(Obstacle::Own(Waiting::new(PendingReason::Reservation, detail)))
                    }
                }
            }
        }
    }

    /// Nodes that could take part from now on for `length`, what they could take together, and
    /// what kept others back that are free now.
    fn candidates(
        &self,
        access: Access,
        needs: &[Option<Need>],
        demand: &Demand<'_>,
        length: i64,
        window: &mut Window<'_>,
    ) -> (Vec<NodeIndex>, Sum, KeptBack) {
        let (mut nodes, mut sum) = (Vec::new(), Sum::default());
        let mut kept_back = KeptBack::default();
        let most = self.enough_of_a_kind(demand);
        let kinds = self.pool.kinds();
        for (kind, peak, group) in self.open.groups() {
            let Some(need) = &needs[kind as usize] else { continue };
            if !fits(need, &peak) || access_is_inside(access) {
                continue;
            }
            for (_, node) in group.iter().take(most) {
                nodes.push(*node);
                need.add_to(&mut sum, demand, &kinds[kind as usize], &peak);
            }
        }
        let until = end_of(self.now, length);
        for node in self.open.alone() {
            let Some(kind) = self.pool.kind_of(node) else { continue };
            let Some(need) = &needs[kind as usize] else { continue };
            let kind = &kinds[kind as usize];
            let line = self.lines.line(node);
            if !line.fits(need, self.now, self.now.saturating_add(1)) {
                continue;
            }
            if !line.fits(need, self.now, until) {
                kept_back.any = true;
                continue;
            }
            if !access.allows(self.pool, kind, self.now, length) {
                let first = access.in_the_way(self.pool, kind, self.now, length);
                kept_back.any = true;
                kept_back.reservation = kept_back.reservation.or(first);
                continue;
            }
            let peak = line.peak(self.now, until);
            if line.grows() {
                window.set(node, &peak);
            }
            if let Some((record, _)) = self.cluster.node(node) {
                let blocked = self.slots.blocked(record, node, (self.now, until));
                kept_back.any |= !blocked.is_empty();
                window.block(node, blocked);
            }
            nodes.push(node);
            need.add_to(&mut sum, demand, kind, &peak);
        }
        (nodes, sum, kept_back)
    }

    /// How many nodes of one group have to be looked at.
    fn enough_of_a_kind(&self, demand: &Demand<'_>) -> usize {
        let shape = demand.shape;
        let by_name =
            !shape.required.is_empty() || !shape.excluded.is_empty() || demand.asks_where();
        let by_user = demand.holder.uid != STRANGER;
        if by_name || by_user { usize::MAX } else { demand.nodes_max.min(demand.tasks) as usize }
    }

    /// Whether all nodes in service would do if they were idle.
    fn could_run(&self, demand: &Demand<'_>, needs: &[Option<Need>], partition: u32) -> bool {
        let most = self.enough_of_a_kind(demand);
        let mut seen = vec![0usize; self.pool.kinds().len()];
        let mut nodes = Vec::new();
        for node in self.pool.partition(partition) {
            let Some(kind) = self.pool.kind_of(*node) else { continue };
            if needs[kind as usize].is_some() && seen[kind as usize] < most {
                seen[kind as usize] += 1;
                nodes.push(*node);
            }
        }
        let idle = Free::idle(self.cluster);
        place(&idle, &nodes, demand, |node| node.accepts_work()).is_some()
    }

    /// Whether it would fit now if nothing were kept for later.
    fn fits_but_for_others(&self, prepared: &Prepared, at: usize, demand: &Demand<'_>) -> bool {
        let needs = &prepared.needs[at];
        let most = self.enough_of_a_kind(demand);
        let mut nodes = Vec::new();
        for (kind, peak, group) in self.open.groups() {
            if needs[kind as usize].as_ref().is_some_and(|need| fits(need, &peak)) {
                nodes.extend(group.iter().take(most).map(|(_, node)| *node));
            }
        }
        for node in self.open.alone() {
            let Some(kind) = self.pool.kind_of(node) else { continue };
            let need = needs[kind as usize].as_ref();
            let until = self.now.saturating_add(1);
            if need.is_some_and(|need| self.lines.line(node).fits(need, self.now, until)) {
                nodes.push(node);
            }
        }
        place(&self.free, &nodes, demand, |node| node.accepts_work()).is_some()
    }

    /// The longest limit with which shares that fit for the least one fit, milliseconds.
    pub(super) fn longest(
        &self,
        class: &'a Class,
        prepared: &Prepared,
        at: usize,
        shares: &[NodeShare],
    ) -> i64 {
        let demand = self.demand(class, at);
        let fits = |length: i64| {
            let (access, until) = (prepared.access, end_of(self.now, length));
            let free = self.licences.next(&class.shape, access, self.pool, self.now, length);
            free == Some(self.now)
                && shares.iter().all(|share| {
                    let Some((node, _)) = self.cluster.node(share.node) else { return false };
                    let Some(kind) = self.pool.kind_of(share.node) else { return false };
                    let kind = &self.pool.kinds()[kind as usize];
                    let amount = Amount::of(node, share, demand.holder.alone);
                    let need = Exactly::new(node, &amount, demand.exclusive);
                    self.lines.line(share.node).fits(&need, self.now, until)
                        && access.allows(self.pool, kind, self.now, length)
                        && self.slots.admits(node, share, (self.now, until))
                })
        };
        // The least fits and the whole does not; whole seconds between.
        let (mut least, mut most) = (class.least_length / 1_000, class.length / 1_000);
        while most - least > 1 {
            let middle = least + (most - least) / 2;
            if fits(middle.saturating_mul(1_000)) {
                least = middle;
            } else {
                most = middle;
            }
        }
        least.saturating_mul(1_000)
    }
}

fn access_is_inside(access: Access) -> bool {
    // Nodes in groups are held by no reservation.
    matches!(access, Access::Inside { flex: false, .. } | Access::Missing)
}

fn fits(need: &Need, peak: &Peak) -> bool {
    need.fits(&peak.counts, &peak.gres)
}
