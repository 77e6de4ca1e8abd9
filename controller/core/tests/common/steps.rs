//! Steps in few words: `w.step(job, &step().tasks(2).exact())`.

use std::sync::Arc;

use penstock_core::command::{AttemptPhase, AttemptReport, OrderKind};
use penstock_core::model::{
    Distribution, MemoryRequest, RunResult, Step, StepKey, StepNumber, StepSpec,
};
use penstock_core::{Command, Refusal, Reply};
use penstock_vocab::{ExitCode, JobId, Mib, parse_gres_list};

use super::{JobBuilder, World, node_name, user};

/// A request for a step, without any wish.
pub(crate) fn step() -> StepBuilder {
    StepBuilder(StepSpec::default())
}

#[derive(Debug, Clone)]
pub(crate) struct StepBuilder(pub(crate) StepSpec);

impl StepBuilder {
    pub(crate) fn with(mut self, change: impl FnOnce(&mut StepSpec)) -> Self {
        change(&mut self.0);
        self
    }

    pub(crate) fn tasks(self, tasks: u32) -> Self {
        self.with(|spec| spec.ntasks = Some(tasks))
    }

    pub(crate) fn nodes(self, nodes: u32) -> Self {
        self.with(|spec| spec.nodes_min = Some(nodes))
    }

    pub(crate) fn cpus(self, cpus: u32) -> Self {
        self.with(|spec| spec.cpus_per_task = Some(cpus))
    }

    pub(crate) fn exact(self) -> Self {
        self.with(|spec| spec.exact = true)
    }

    pub(crate) fn overlap(self) -> Self {
        self.with(|spec| spec.overlap = true)
    }

    pub(crate) fn memory(self, memory: u64) -> Self {
        self.with(|spec| spec.memory = MemoryRequest::PerNode(Mib(memory)))
    }

    pub(crate) fn gres(self, text: &str) -> Self {
        let gres = match text {
            "none" => vec!["none:0".parse().unwrap()],
            text => parse_gres_list(text).unwrap(),
        };
        self.with(|spec| spec.gres_per_node = gres.into_boxed_slice())
    }

    pub(crate) fn on(self, nodes: &[u32]) -> Self {
        self.with(|spec| spec.required = nodes.iter().map(|n| node_name(*n)).collect())
    }

    pub(crate) fn by(self, how: Distribution) -> Self {
        self.with(|spec| spec.distribution = how)
    }
}

impl JobBuilder {
    /// It has no script.
    pub(crate) fn allocation(self) -> Self {
        self.spec(|spec| spec.allocation = true)
    }

    pub(crate) fn no_kill(self) -> Self {
        self.spec(|spec| spec.no_kill = true)
    }
}

impl World {
    /// Submits a job and starts it.
    pub(crate) fn started(&mut self, job: &JobBuilder) -> JobId {
        let id = self.submit(job);
        assert_eq!(self.run_plan(), [id]);
        id
    }

    pub(crate) fn try_step(&mut self, id: JobId, step: &StepBuilder) -> Result<StepKey, Refusal> {
        let command = Command::CreateStep(user(1000), id, Arc::new(step.0.clone()), 7);
        match self.execute(command)?.reply {
            Reply::StepCreated(key) => Ok(key),
            other => panic!("{other:?}"),
        }
    }

    pub(crate) fn step(&mut self, id: JobId, step: &StepBuilder) -> StepKey {
        self.try_step(id, step).unwrap()
    }

    pub(crate) fn the_step(&self, key: StepKey) -> Arc<Step> {
        Arc::clone(self.cluster.step(key).unwrap_or_else(|| panic!("there is no step {key}")))
    }

    /// Node numbers and ranks of a step.
    pub(crate) fn layout(&self, key: StepKey) -> Vec<(u32, Vec<u32>)> {
        let step = self.the_step(key);
        let part = |share: &penstock_core::model::StepShare| {
            (share.share.node.0 + 1, share.ranks.to_vec())
        };
        step.shares.iter().map(part).collect()
    }

    /// A node reports on its part of a step.
    pub(crate) fn step_report(&mut self, key: StepKey, number: u32, phase: AttemptPhase) {
        let node = self.node(number);
        let (node, session) = (node.name.clone(), node.session.expect("the node is connected"));
        let report = step_says(key, phase);
        self.execute(Command::Report { node, session, report }).unwrap();
    }

    /// Every node of a step says that it runs.
    pub(crate) fn step_runs(&mut self, key: StepKey) {
        for (node, _) in self.layout(key) {
            self.step_report(key, node, AttemptPhase::Running);
        }
    }

    /// A node's part of a step ended with this status.
    pub(crate) fn step_exit(&mut self, key: StepKey, node: u32, status: u8) {
        self.step_report(key, node, ended(status));
    }

    /// Every part of a step that lives ended with this status.
    pub(crate) fn step_exits(&mut self, key: StepKey, status: u8) {
        let live: Vec<u32> =
            self.the_step(key).live_shares().map(|part| part.share.node.0 + 1).collect();
        live.into_iter().for_each(|node| self.step_exit(key, node, status));
    }

    /// What was ordered of steps since the last call: step, node number, kind.
    pub(crate) fn step_orders(&mut self, id: JobId) -> Vec<(u32, u32, OrderKind)> {
        let orders = std::mem::take(&mut self.orders);
        let of_steps = orders.into_iter().filter(|(_, order)| order.job == id);
        let told = of_steps.filter_map(|(node, order)| {
            Some((order.step.map(|number| number.0)?, node.0 + 1, order.kind))
        });
        told.collect()
    }
}

pub(crate) fn step_says(key: StepKey, phase: AttemptPhase) -> AttemptReport {
    AttemptReport { job: key.job, attempt: key.attempt, step: Some(key.number), phase }
}

pub(crate) fn ended(status: u8) -> AttemptPhase {
    let exit = ExitCode::exited(status);
    AttemptPhase::Ended(Box::new(RunResult { exit, elapsed_ms: 5, ..RunResult::default() }))
}

pub(crate) fn number(key: StepKey) -> u32 {
    let StepNumber(number) = key.number;
    number
}
