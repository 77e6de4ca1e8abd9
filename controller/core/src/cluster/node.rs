//! How do nodes come, go, and come back?
//!
//! A silent node is down, and its jobs stay where they are: nobody knows whether they run. They end,
//! or run again elsewhere, only when it is proven that they have ended: the agent reports, its boot
//! id is new, a fence succeeded, its lease is over (see `lease`), or an admin sets the node POWER_DOWN.

use std::collections::BTreeSet;
use std::sync::Arc;

use penstock_vocab::{JobId, NodeName, SessionId, Timestamp, UserId};

use super::Cluster;
use super::steps::{part_order, standing_step_orders};
use crate::command::{
    AttemptReport, Caller, Effect, MAX_TARGETS, NodeAction, NodeUpdate, Order, OrderKind, Reply,
};
use crate::model::{
    Config, Down, EndCause, Inventory, Job, Node, NodeConfig, NodeIndex, NodeUse, Reservation, Run,
    RunResult, RunStage, StepKey, StepPhase,
};
use crate::refusal::{Malformed, Refusal};
use crate::scheduler::Site;

impl Cluster {
    /// Takes a new configuration: nodes it names appear, everything derived is derived anew.
    pub(super) fn configure(&mut self, config: Arc<Config>) -> Reply {
        self.config = config;
        self.known_fits.clear();
        self.resolved.clear();
        let config = Arc::clone(&self.config);
        for index in 0..self.nodes.len() {
            if let Some(place) = self.nodes.get_mut(index) {
                let mut node = (**place).clone();
                node.weight = 1;
                node.configured_features = Box::default();
                *place = Arc::new(node);
            }
        }
        for configured in &config.nodes {
            let index = self.ensure_node(&configured.name);
            let Some(node) = self.nodes.get(index.get()) else { continue };
            let mut node = (**node).clone();
            node.weight = configured.weight;
            node.configured_features = configured.features.clone().into_boxed_slice();
            if node.registered.is_none() {
                node.inventory = promised(configured);
            }
            self.set_node(index, node);
        }
        self.site = self.derived_site();
        self.reindex();
        Reply::Done
    }

    /// The place of a node, made if there is none.
    pub(super) fn ensure_node(&mut self, name: &NodeName) -> NodeIndex {
        if let Some(index) = self.node_names.get(name) {
            return *index;
        }
        let index = NodeIndex(u32::try_from(self.nodes.len()).unwrap_or(u32::MAX));
        self.nodes.push_back(Arc::new(Node::named(name.clone())));
        self.uses.push_back(Arc::default());
        self.node_names.insert(name.clone(), index);
        let nodes = &self.nodes;
        self.site.add(name, |other| nodes.get(other.get()).map(|node| &node.name));
        // One may be named that was not known when the records were read.
        let naming = |one: &&Arc<Reservation>| one.nodes.contains(name);
        let naming: Vec<_> = self.reservations.values().filter(naming).cloned().collect();
        naming.iter().for_each(|one| self.index_reservation(one));
        index
    }

    /// Where the nodes stand, from names and configuration.
    pub(super) fn derived_site(&self) -> Site {
        let names = self.nodes.iter().map(|node| &node.name);
        Site::new(&self.config.scheduling.topology, names)
    }

    /// The node whose current session this is.
    pub(super) fn session_of(
        &self,
        name: &NodeName,
        session: SessionId,
    ) -> Result<NodeIndex, Refusal> {
        let index = self.node_names.get(name).copied();
        let index = index.ok_or_else(|| Refusal::InvalidNode(name.as_str().into()))?;
        match self.nodes.get(index.get()).and_then(|node| node.session) {
            Some(current) if current == session => Ok(index),
            Some(_) | None => Err(Refusal::OldSession(name.clone())),
        }
    }

    pub(super) fn register(
        &mut self,
        name: NodeName,
        session: SessionId,
        inventory: Inventory,
        attempts: Vec<AttemptReport>,
    ) -> Result<Reply, Refusal> {
        let index = self.ensure_node(&name);
        let Some(old) = self.nodes.get(index.get()).cloned() else {
            return Err(Refusal::InvalidNode(name.as_str().into()));
        };
        if old.session.is_some_and(|newer| newer > session) {
            return Err(Refusal::OldSession(name));
        }
        let rebooted = old.registered.is_some() && old.inventory.boot_id != inventory.boot_id;
        let mut node = (*old).clone();
        node.session = Some(session);
        node.registered = old.registered.or(Some(self.now));
        node.inventory = inventory;
        if node.down.as_ref().is_some_and(|down| down.by_silence) {
            node.down = None;
        }
        self.settle_gpus(&mut node, rebooted);
        if let Some(shortfall) = self.shortfall(&node)
            && !node.admin.drain
        {
            node.admin.drain = true;
            node.admin.reason = shortfall.into();
            node.admin.reason_by = Some((UserId(0), self.now));
        }
        // What is not stored alone is no reason to write the record.
        let stored = Node { session: old.session, ..node.clone() };
        let told = node.clone();
        if stored == *old {
            self.set_node(index, node);
            self.recount(index);
        } else {
            self.replace_node(index, &old, node);
        }
        self.tell_reshapes(index, &told);
        self.settle(index, rebooted, attempts);
        Ok(Reply::Done)
    }

    /// Brings the records and what the node holds together.
    fn settle(&mut self, node: NodeIndex, rebooted: bool, attempts: Vec<AttemptReport>) {
        let told: BTreeSet<_> =
            attempts.iter().map(|report| (report.job, report.attempt, report.step)).collect();
        for report in attempts {
            self.take_report(node, report);
        }
        for job in self.jobs_on(node) {
            let Some(run) = job.active_run().cloned() else { continue };
            let holds = |key: StepKey| told.contains(&(key.job, key.attempt, Some(key.number)));
            self.settle_hook(node, &job, (rebooted, &holds));
            self.settle_steps(node, &job, &run, (rebooted, &holds));
            // What became of steps may have changed the job.
            let Some(job) = self.jobs.get(&job.id).cloned() else { continue };
            let Some(run) = job.active_run().cloned() else { continue };
            if run.script_node() != Some(node) {
                if rebooted {
                    self.lose_part(&job, &run, node);
                }
                continue;
            }
            let known = told.contains(&(job.id, run.attempt, None));
            if !known && (rebooted || was_launched(&run)) {
                let result = RunResult { lost: true, ..RunResult::default() };
                self.script_ended(&job, &result);
            } else {
                for kind in standing_orders(&job, &run, known) {
                    self.order(job.id, &run, kind);
                }
            }
        }
    }

    /// Launches and ends that connected nodes were told of more than `secs` ago at `now` and have not
    /// answered: to be said again, since a message may get lost where no stream breaks. Ends are
    /// counted from the start of their run. Cost: the runs.
    #[must_use]
    pub fn overdue_orders(&self, now: Timestamp, secs: u64) -> Vec<(NodeIndex, Order)> {
        let mut orders = Vec::new();
        for (node, place, used) in self.nodes() {
            if place.session.is_none() {
                continue;
            }
            for job in used.jobs.iter().filter_map(|id| self.jobs.get(id)) {
                let Some(run) = job.active_run() else { continue };
                let old = |start: Timestamp| now.since(start).as_secs() >= secs;
                let unanswered = run.stage != RunStage::Launched;
                if run.script_node() == Some(node) && old(run.start_time) && unanswered {
                    let kinds = standing_orders(job, run, false);
                    let order =
                        |kind| Order { job: job.id, attempt: run.attempt, step: None, kind };
                    orders.extend(kinds.map(|kind| (node, order(kind))));
                }
                orders.extend(Self::overdue_hook(job, run, node, old));
                for step in self.live_steps_of(job.id).filter(|step| old(step.start_time)) {
                    let part = step.share_on(node).filter(|part| part.is_live());
                    let Some(part) = part else { continue };
                    let runs = part.phase == StepPhase::Running;
                    if !runs || self.step_ending(step).is_some() {
                        let kinds = standing_step_orders(job, run, step, &part.phase, false);
                        orders.extend(kinds.map(|kind| (node, part_order(step.key, kind))));
                    }
                }
            }
        }
        orders
    }

    /// A node failed that is one of a run, and no batch script of it ended by that: the run ends where
    /// it goes on, or only its steps there do, if it said that it goes on.
    pub(super) fn lose_part(&mut self, job: &Arc<Job>, run: &Arc<Run>, node: NodeIndex) {
        if matches!(run.stage, RunStage::Ending(_)) {
            return;
        }
        let first = run.batch_node() == Some(node);
        if job.spec.no_kill && (!first || job.spec.allocation) {
            self.end_steps_of_node(job.id, node);
            return;
        }
        let mut job = (**job).clone();
        self.end_run_soon(&mut job, run, EndCause::NodeFail);
        self.put_job(job);
    }

    /// Jobs with a run on a node.
    pub fn jobs_on(&self, node: NodeIndex) -> Vec<Arc<Job>> {
        let jobs = self.uses.get(node.get()).map(|used| used.jobs.clone()).unwrap_or_default();
        jobs.iter().filter_map(|id| self.jobs.get(id).cloned()).collect()
    }

    /// Derives what is taken on one node anew, since its inventory may have changed.
    pub(super) fn recount(&mut self, node: NodeIndex) {
        let jobs = self.jobs_on(node);
        let Some(place) = self.nodes.get(node.get()) else { return };
        let mut fresh = NodeUse::default();
        for job in &jobs {
            let Some(run) = job.active_run() else { continue };
            for share in run.shares.iter().filter(|share| share.node == node) {
                fresh.add(&place.inventory, &super::index::held(run, share), self.holder(job, run));
                fresh.jobs.insert(job.id);
            }
        }
        if let Some(place) = self.uses.get_mut(node.get()) {
            *place = Arc::new(fresh);
        }
    }

    /// What the node has less than the cluster file promises.
    fn shortfall(&self, node: &Node) -> Option<String> {
        let promised = self.config.nodes.iter().find(|entry| entry.name == node.name)?;
        let found = &node.inventory;
        if let Some(cpus) = promised.cpus.filter(|cpus| found.cpus < *cpus) {
            return Some(format!(
                "Low socket*core*thread count, Low CPUs ({} found, {cpus} configured)",
                found.cpus
            ));
        }
        if let Some(memory) = promised.memory.filter(|memory| found.memory < *memory) {
            let (found, memory) = (found.memory.0, memory.0);
            return Some(format!("Low RealMemory ({found} MiB found, {memory} MiB configured)"));
        }
        for gres in &promised.gres {
            let have: u64 = found
                .gres
                .iter()
                .filter(|have| penstock_vocab::gres_matches(&gres.name, &have.name))
                .map(|have| have.count)
                .sum();
            if have < gres.count {
                let (name, want) = (gres.name.name(), gres.count);
                return Some(format!(
                    "gres/{name} count reported lower than configured ({have} < {want})"
                ));
            }
        }
        None
    }

    pub(super) fn disconnected(&mut self, name: &NodeName, session: SessionId) -> Reply {
        if let Ok(index) = self.session_of(name, session)
            && let Some(node) = self.nodes.get(index.get())
        {
            let mut node = (**node).clone();
            node.session = None;
            self.set_node(index, node);
        }
        Reply::Done
    }

    pub(super) fn silent(&mut self, name: &NodeName) -> Result<Reply, Refusal> {
        let (index, node) = self.node_by_name(name)?;
        if node.session.is_some() || node.down.is_some() || node.registered.is_none() {
            return Ok(Reply::Done);
        }
        let mut node = (*node).clone();
        let reason = "Not responding".into();
        node.down = Some(Down { reason, at: self.now, by: None, by_silence: true });
        self.put_node(index, node);
        self.lose_epilogs(index);
        Ok(Reply::Done)
    }

    /// Nothing of before runs on this node: every run there has ended.
    pub(super) fn fenced(&mut self, name: &NodeName) -> Result<Reply, Refusal> {
        let (index, _) = self.node_by_name(name)?;
        self.lose_runs(index);
        Ok(Reply::Done)
    }

    fn lose_runs(&mut self, node: NodeIndex) {
        for job in self.jobs_on(node) {
            let result = RunResult { lost: true, ..RunResult::default() };
            self.lose_on_node(job.id, node, &result);
        }
    }

    /// Nothing of a job is left on a node: what ran there ended so.
    pub(super) fn lose_on_node(&mut self, id: JobId, node: NodeIndex, result: &RunResult) {
        self.lose_step_parts(id, node, result);
        self.lose_hook(id, node);
        let Some(job) = self.jobs.get(&id).cloned() else { return };
        let Some(run) = job.active_run().cloned() else { return };
        if run.script_node() == Some(node) {
            self.script_ended(&job, result);
        } else {
            self.lose_part(&job, &run, node);
        }
    }

    pub(super) fn drain_requested(
        &mut self,
        name: &NodeName,
        session: SessionId,
        reason: Box<str>,
    ) -> Result<Reply, Refusal> {
        let index = self.session_of(name, session)?;
        let (_, node) = self.node_by_name(name)?;
        if node.admin.drain {
            return Ok(Reply::Done);
        }
        let mut node = (*node).clone();
        node.admin.drain = true;
        node.admin.reason = reason;
        node.admin.reason_by = Some((UserId(0), self.now));
        self.put_node(index, node);
        Ok(Reply::Done)
    }

    /// A node by its name.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn node_by_name(&self, name: &NodeName) -> Result<(NodeIndex, Arc<Node>), Refusal> {
        let index = self.node_names.get(name).copied();
        index
            .and_then(|index| Some((index, Arc::clone(self.nodes.get(index.get())?))))
            .ok_or_else(|| Refusal::InvalidNode(name.as_str().into()))
    }

    pub(super) fn update_nodes(
        &mut self,
        caller: &Caller,
        names: &[NodeName],
        update: &NodeUpdate,
    ) -> Result<Reply, Refusal> {
        if !caller.admin {
            return Err(Refusal::AccessDenied("only admins may change nodes".into()));
        }
        if names.len() > MAX_TARGETS {
            return Err(Refusal::TooManyItems { got: names.len(), limit: MAX_TARGETS });
        }
        let needs_reason =
            matches!(update.action, Some(NodeAction::Drain | NodeAction::Down | NodeAction::Fail));
        if needs_reason && update.reason.is_empty() {
            return Err(Refusal::ReasonMissing);
        }
        if update.deadline.is_some_and(|at| at <= self.now) {
            let detail = "the deadline of the drain has passed; give a later one".into();
            return Err(Refusal::Malformed { what: Malformed::Other, detail });
        }
        for name in names {
            let (_, node) = self.node_by_name(name)?;
            if !update.gpus.is_empty() {
                self.update_gpus(caller, &mut (*node).clone(), update)?;
            }
        }
        for name in names {
            let (index, node) = self.node_by_name(name)?;
            if !update.gpus.is_empty() {
                let mut node = (*node).clone();
                self.update_gpus(caller, &mut node, update)?;
                self.put_node(index, node);
                self.tell_of_drain(index, update);
                continue;
            }
            self.update_node(caller, index, (*node).clone(), update);
            self.tell_of_drain(index, update);
        }
        Ok(Reply::Done)
    }

    /// Jobs are told of the deadline of a drain.
    fn tell_of_drain(&mut self, index: NodeIndex, update: &NodeUpdate) {
        let Some(deadline) = update.deadline else { return };
        if update.gpus.is_empty() {
            self.tell_of_deadline(index, None, deadline, &update.reason);
        }
        for gpu in &update.gpus {
            self.tell_of_deadline(index, Some(*gpu), deadline, &update.reason);
        }
    }

    fn update_node(
        &mut self,
        caller: &Caller,
        index: NodeIndex,
        mut node: Node,
        update: &NodeUpdate,
    ) {
        let by = Some((caller.uid, self.now));
        if !update.reason.is_empty() {
            node.admin.reason.clone_from(&update.reason);
            node.admin.reason_by = by;
        }
        if let Some(weight) = update.weight {
            node.admin.weight = Some(weight);
        }
        if let Some(features) = &update.features {
            node.admin.features = Some(features.clone().into_boxed_slice());
        }
        if let Some(comment) = &update.comment {
            node.admin.comment.clone_from(comment);
        }
        let mut end_jobs = None;
        match update.action {
            Some(NodeAction::Drain) => {
                node.admin.drain = true;
                node.admin.drain_by = update.deadline;
            }
            Some(NodeAction::Fail) => node.admin.fail = true,
            Some(NodeAction::Down) => {
                let reason = update.reason.clone();
                let by = Some(caller.uid);
                node.down = Some(Down { reason, at: self.now, by, by_silence: false });
                end_jobs = Some(false);
            }
            Some(NodeAction::PowerDown) => {
                node.admin.powered_down = true;
                // Should an agent be there after all, it must register anew.
                if node.session.take().is_some() {
                    self.effects.push(Effect::CutHost(node.name.as_str().into()));
                }
                end_jobs = Some(true);
            }
            Some(NodeAction::PowerUp) => node.admin.powered_down = false,
            Some(NodeAction::Undrain) => {
                node.admin.drain = false;
                node.admin.drain_by = None;
                clear_reason(&mut node);
            }
            Some(NodeAction::Resume) => {
                node.trouble.failures.clear();
                // Whoever resumes it has mended it.
                if let Some(until) = node.trouble.cool_until.take() {
                    self.cooling.remove(&(until, index));
                }
                node.admin.drain = false;
                node.admin.drain_by = None;
                node.admin.fail = false;
                node.admin.powered_down = false;
                node.down = None;
                clear_reason(&mut node);
            }
            None => {}
        }
        self.put_node(index, node);
        match end_jobs {
            Some(true) => self.lose_runs(index),
            Some(false) => self.jobs_on(index).iter().for_each(|job| {
                if let Some(run) = job.active_run().cloned() {
                    self.lose_part(job, &run, index);
                }
            }),
            None => {}
        }
    }

    /// Whether a user has a run on a node.
    #[must_use]
    pub fn has_job_on(&self, uid: UserId, node: &NodeName) -> bool {
        self.node_names
            .get(node)
            .and_then(|index| self.uses.get(index.get()))
            .is_some_and(|used| used.jobs.iter().any(|id| self.owner(*id) == Some(uid)))
    }

    fn owner(&self, id: JobId) -> Option<UserId> {
        self.jobs.get(&id).map(|job| job.uid)
    }
}

fn clear_reason(node: &mut Node) {
    if !node.admin.drain && !node.admin.fail && node.down.is_none() {
        node.admin.reason = "".into();
        node.admin.reason_by = None;
    }
}

/// What a node that has not joined is counted as.
fn promised(entry: &NodeConfig) -> Inventory {
    Inventory {
        cpus: entry.cpus.unwrap_or(0),
        sockets: 1,
        cores_per_socket: entry.cpus.unwrap_or(0),
        threads_per_core: 1,
        memory: entry.memory.unwrap_or_default(),
        gres: entry.gres.clone().into_boxed_slice(),
        ..Inventory::default()
    }
}

fn was_launched(run: &Run) -> bool {
    run.launched.is_some()
}

/// What the node must hear about a run that goes on, derived from the record alone, in order.
fn standing_orders(job: &Job, run: &Run, known: bool) -> impl Iterator<Item = OrderKind> {
    let first = match run.stage {
        RunStage::Allocated if !known && !run.is_configuring() => Some(OrderKind::Launch),
        RunStage::Ending(cause) => Some(OrderKind::Terminate(cause)),
        RunStage::Launched if job.limit_serial > 0 => Some(OrderKind::SetLimit),
        RunStage::Allocated | RunStage::Launched | RunStage::Ended => None,
    };
    let lives = matches!(run.stage, RunStage::Allocated | RunStage::Launched);
    let still = match run.suspended_since {
        Some(_) => Some(OrderKind::Suspend),
        // The node may not have heard that it goes on.
        None => (run.suspended_ms > 0).then_some(OrderKind::Resume),
    };
    first.into_iter().chain(still.filter(|_| lives))
}
