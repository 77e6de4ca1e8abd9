//! How do tests make a small cluster and talk to it in few words?
//!
//! `world().nodes(4).cpus(8).build()` is a cluster of idle nodes `n1`..`n4` in one partition `main`;
//! every command that goes through [`World::execute`] is followed by the cluster's own check.

#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

pub(crate) mod accounts;
pub(crate) mod audit;
pub(crate) mod build;
pub(crate) mod steps;

use std::sync::Arc;

use penstock_core::cluster::{AccountRecords, Records};
use penstock_core::command::{
    AttemptPhase, AttemptReport, JobUpdate, MAX_STARTS, NodeAction, NodeUpdate, Order, Target,
};
use penstock_core::model::{Inventory, Job, Node, NodeIndex, RequestId, RunResult};
use penstock_core::scheduler::{Limits, Plan, plan};
use penstock_core::{Cluster, Command, Effect, Outcome, Refusal, Reply};
use penstock_vocab::{
    Attempt, ExitCode, GroupId, JobId, JobState, NodeName, SessionId, Timestamp, UserId,
};

pub(crate) use penstock_core::command::Caller;

pub(crate) use build::{JobBuilder, job, partition_name, world};

/// When every world begins.
pub(crate) const START: Timestamp = Timestamp::from_secs(1_000_000);

/// A cluster, a clock, and what was ordered.
pub(crate) struct World {
    pub(crate) cluster: Cluster,
    pub(crate) now: Timestamp,
    pub(crate) orders: Vec<(NodeIndex, Order)>,
    pub(crate) inventory: Inventory,
    pub(crate) next_session: u64,
}

/// An ordinary user.
pub(crate) fn user(uid: u32) -> Caller {
    Caller { uid: UserId(uid), gid: GroupId(uid), admin: false, request: None }
}

/// The admin.
pub(crate) fn admin() -> Caller {
    Caller { admin: true, ..user(0) }
}

/// The same caller with a request id.
pub(crate) fn asking(caller: Caller, request: u128) -> Caller {
    Caller { request: Some(RequestId(request)), ..caller }
}

pub(crate) fn node_name(number: u32) -> NodeName {
    NodeName::new(&format!("n{number}")).unwrap()
}

/// Why the only target of a command was refused; `None`: it was not.
pub(crate) fn refusal_of(reply: &Reply) -> Option<Refusal> {
    let Reply::Targets(results) = reply else { panic!("{reply:?}") };
    results.iter().find_map(|result| result.refusal.clone())
}

impl World {
    pub(crate) fn execute(&mut self, command: Command) -> Result<Outcome, Refusal> {
        let text = format!("{command:?}");
        let before = audit::dump(&self.cluster);
        let result = self.cluster.execute(self.now, command);
        let after = audit::dump(&self.cluster);
        match &result {
            Ok(outcome) => {
                let missed = audit::unannounced(&before, &after, &outcome.changed);
                assert!(missed.is_empty(), "{text} changed {missed:?} and did not say so");
                for effect in &outcome.effects {
                    if let Effect::Order(node, order) = effect {
                        self.orders.push((*node, order.clone()));
                    }
                }
            }
            Err(refusal) => assert!(before == after, "{text} was refused ({refusal}) and changed"),
        }
        let broken = self.cluster.check();
        assert!(broken.is_empty(), "after {text}: {broken:?}");
        audit::nothing_twice(&self.cluster);
        result
    }

    pub(crate) fn try_submit(&mut self, job: &JobBuilder) -> Result<JobId, Refusal> {
        let command = Command::Submit(job.caller, Box::new(job.submission()));
        match self.execute(command)?.reply {
            Reply::Submitted { job, .. } => Ok(job),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn submit(&mut self, job: &JobBuilder) -> JobId {
        self.try_submit(job).unwrap()
    }

    pub(crate) fn plan(&self) -> Plan {
        plan(&self.cluster, self.now, Limits::default())
    }

    /// Makes a plan and carries it out; the jobs that started.
    pub(crate) fn run_plan(&mut self) -> Vec<JobId> {
        let before: Vec<_> = self.active();
        let singletons = self.cluster.jobs().any(|job| job.spec.dependency.singleton)
            || self.cluster.arrays().any(|array| array.spec.dependency.singleton);
        for lines in self.plan().starts.chunks(MAX_STARTS) {
            let reply = self.execute(Command::Start(lines.to_vec())).unwrap().reply;
            let Reply::Started { refused, .. } = reply else { panic!("{reply:?}") };
            // Of jobs of one name a plan may start one that keeps the next back; licences and what
            // is reserved are for the recheck to see.
            let kept = self.cluster.reservations().next().is_some()
                || !self.cluster.config().scheduling.licenses.is_empty();
            assert!(refused == 0 || singletons || kept, "{reply:?}");
        }
        self.active().into_iter().filter(|id| !before.contains(id)).collect()
    }

    /// Jobs that hold resources.
    pub(crate) fn active(&self) -> Vec<JobId> {
        self.cluster.jobs().filter(|job| job.active_run().is_some()).map(|job| job.id).collect()
    }

    pub(crate) fn advance(&mut self, secs: u64) {
        self.now = self.now.plus_secs(secs);
    }

    /// Lets time pass and take effect.
    pub(crate) fn wait(&mut self, secs: u64) {
        self.advance(secs);
        self.execute(Command::Tick).unwrap();
    }

    pub(crate) fn job(&self, id: JobId) -> Arc<Job> {
        Arc::clone(self.cluster.job(id).unwrap_or_else(|| panic!("there is no job {id}")))
    }

    pub(crate) fn state(&self, id: JobId) -> JobState {
        self.job(id).state
    }

    pub(crate) fn node(&self, number: u32) -> Arc<Node> {
        self.cluster.node_by_name(&node_name(number)).unwrap().1
    }

    pub(crate) fn index(&self, number: u32) -> NodeIndex {
        self.cluster.node_by_name(&node_name(number)).unwrap().0
    }

    /// Opens a session with this inventory.
    pub(crate) fn register_with(
        &mut self,
        number: u32,
        inventory: Inventory,
        attempts: Vec<AttemptReport>,
    ) -> SessionId {
        self.next_session += 1;
        let session = SessionId(self.next_session);
        let (node, inventory) = (node_name(number), Box::new(inventory));
        self.execute(Command::Register { node, session, inventory, attempts }).unwrap();
        session
    }

    pub(crate) fn register(&mut self, number: u32, attempts: Vec<AttemptReport>) -> SessionId {
        self.register_with(number, self.inventory.clone(), attempts)
    }

    /// As `register`, after a reboot.
    pub(crate) fn reboot(&mut self, number: u32, attempts: Vec<AttemptReport>) -> SessionId {
        let boot_id = format!("boot-{}", self.next_session + 1).into();
        self.register_with(number, Inventory { boot_id, ..self.inventory.clone() }, attempts)
    }

    pub(crate) fn disconnect(&mut self, number: u32) {
        let Some(session) = self.node(number).session else { return };
        self.execute(Command::Disconnected { node: node_name(number), session }).unwrap();
    }

    pub(crate) fn silence(&mut self, number: u32) {
        self.disconnect(number);
        self.execute(Command::Silent { node: node_name(number) }).unwrap();
    }

    /// The batch node of a job's run reports on it.
    pub(crate) fn report(&mut self, id: JobId, phase: AttemptPhase) {
        let job = self.job(id);
        let run = job.active_run().expect("the job has a run");
        let (node, _) = self.cluster.node(run.batch_node().unwrap()).unwrap();
        let (node, session) = (node.name.clone(), node.session.expect("the node is connected"));
        let report = AttemptReport { job: id, attempt: run.attempt, step: None, phase };
        self.execute(Command::Report { node, session, report }).unwrap();
    }

    pub(crate) fn running(&mut self, id: JobId) {
        self.report(id, AttemptPhase::Running);
    }

    pub(crate) fn exit(&mut self, id: JobId, status: u8) {
        let result = RunResult { exit: ExitCode::exited(status), ..RunResult::default() };
        self.report(id, AttemptPhase::Ended(Box::new(result)));
    }

    pub(crate) fn cancel(&mut self, caller: Caller, target: Target) -> Option<Refusal> {
        refusal_of(&self.execute(Command::Cancel(caller, vec![target])).unwrap().reply)
    }

    pub(crate) fn requeue(
        &mut self,
        caller: Caller,
        target: Target,
        hold: bool,
    ) -> Option<Refusal> {
        let command = Command::Requeue { caller, targets: vec![target], hold };
        refusal_of(&self.execute(command).unwrap().reply)
    }

    pub(crate) fn update(
        &mut self,
        caller: Caller,
        target: Target,
        update: JobUpdate,
    ) -> Option<Refusal> {
        let command = Command::UpdateJob(caller, vec![target], Box::new(update));
        refusal_of(&self.execute(command).unwrap().reply)
    }

    pub(crate) fn node_action(&mut self, number: u32, action: NodeAction) {
        let reason = "test".into();
        let update = NodeUpdate { action: Some(action), reason, ..NodeUpdate::default() };
        let names = vec![node_name(number)];
        self.execute(Command::UpdateNode(admin(), names, Box::new(update))).unwrap();
    }

    /// Kinds of the orders since the last call, for a job.
    pub(crate) fn take_orders(&mut self, id: JobId) -> Vec<penstock_core::command::OrderKind> {
        let orders = std::mem::take(&mut self.orders);
        orders.into_iter().filter(|(_, order)| order.job == id).map(|(_, o)| o.kind).collect()
    }

    /// The same cluster as a daemon would load it after a restart.
    pub(crate) fn restored(&self) -> Cluster {
        Cluster::restore(self.records(), Arc::clone(self.cluster.config()), self.now)
    }

    /// What a store would hold.
    pub(crate) fn records(&self) -> Records {
        let mut records = Records::default();
        records.next_job = self.cluster.next_job_id();
        for (_, node, _) in self.cluster.nodes() {
            let trouble = penstock_core::model::LaunchTrouble::default();
            records.add_node(Node { session: None, trouble, ..(**node).clone() });
        }
        records.jobs = self.cluster.jobs().map(|job| (**job).clone()).collect();
        records.steps = self.cluster.steps().map(|step| (**step).clone()).collect();
        records.arrays = self.cluster.arrays().map(|array| (**array).clone()).collect();
        records.reservations = self.cluster.reservations().map(|one| (**one).clone()).collect();
        for key in self.cluster.record_keys() {
            if let penstock_core::RecordKey::Crontab(owner) = key {
                records.crontabs.push((**self.cluster.crontab(owner).unwrap()).clone());
            }
        }
        records.hosts = self.cluster.hosts().map(|host| (**host).clone()).collect();
        records.tokens = self.cluster.tokens().map(|token| (**token).clone()).collect();
        for key in self.cluster.record_keys() {
            if let penstock_core::RecordKey::Answer(uid, request) = key {
                let answer = self.cluster.answer(uid, request).unwrap();
                records.answers.push(((uid, request), (**answer).clone()));
            }
        }
        records.accounts = self.account_records();
        records.usage_reset_at = self.cluster.usage_reset_at();
        records
    }
}

impl World {
    fn account_records(&self) -> AccountRecords {
        let accounts = self.cluster.accounts();
        let usage = accounts.all_usage().map(|(owner, used)| (owner.clone(), (**used).clone()));
        AccountRecords {
            accounts: accounts.all_accounts().map(|account| (**account).clone()).collect(),
            users: accounts.all_users().map(|user| (**user).clone()).collect(),
            assocs: accounts.all_assocs().map(|assoc| (**assoc).clone()).collect(),
            qos: accounts.all_qos().map(|qos| (**qos).clone()).collect(),
            usage: usage.collect(),
            next_assoc: accounts.next_assoc_number(),
            next_qos: accounts.next_qos_number(),
        }
    }

    /// Loads changed records, as after a restart, and lets the nodes `1..=nodes` register again.
    pub(crate) fn reload(&mut self, nodes: u32, change: impl FnOnce(&mut Records)) {
        let mut records = self.records();
        change(&mut records);
        self.cluster = Cluster::restore(records, Arc::clone(self.cluster.config()), self.now);
        for number in 1..=nodes {
            let index = self.index(number);
            let runs = self.cluster.jobs_on(index);
            let known = runs.iter().filter_map(|job| job.active_run().map(|run| (job.id, run)));
            let known = known.filter(|(_, run)| run.script_node() == Some(index));
            let known = known.map(|(id, run)| says(id, run.attempt.0, AttemptPhase::Running));
            let known = known.collect();
            self.register(number, known);
        }
    }
}

/// What a node says of an attempt.
pub(crate) fn says(id: JobId, attempt: u32, phase: AttemptPhase) -> AttemptReport {
    AttemptReport { job: id, attempt: Attempt(attempt), step: None, phase }
}
