//! The clients: they ask for something, and ask again with the same id until they are answered.

use std::sync::Arc;

use penstock_core::command::{
    JobUpdate, NodeAction, NodeUpdate, SignalOrder, Submission, Target, TargetResult,
};
use penstock_core::ledger::Answer;
use penstock_core::model::Hold;
use penstock_core::{Command, Reply};
use penstock_vocab::{IndexSet, JobId, Timestamp, Walltime};

use crate::common::{JobBuilder, admin, asking, job};
use crate::controller::{Waiter, node_name};
use crate::event::Event;
use crate::world::{AGENTS, Scenario, World};

/// Operations of one run.
const OPERATIONS: usize = 45;

/// Something that a client wants.
#[derive(Debug, Clone)]
pub(crate) struct Operation {
    pub(crate) command: Command,
    /// The answer that the client has.
    pub(crate) answer: Option<Answer>,
}

impl Operation {
    /// The job or array that this client was told it has.
    pub(crate) fn submitted(&self) -> Option<JobId> {
        match &self.answer {
            Some(Answer::Done(Reply::Submitted { job, .. })) => Some(*job),
            _ => None,
        }
    }
}

/// Whether two answers say the same; a refusal that was remembered has lost its fields.
fn same(a: &Reply, b: &Reply) -> bool {
    let words = |result: &TargetResult| {
        let refusal = result.refusal.as_ref();
        let words = refusal.map(|why| (why.kind().to_owned(), why.to_string()));
        (result.target.clone(), words)
    };
    match (a, b) {
        (Reply::Targets(a), Reply::Targets(b)) => a.iter().map(words).eq(b.iter().map(words)),
        // An answer that is remembered says that it was done, and no longer what.
        (Reply::AccountsChanged(_), Reply::Done) | (Reply::Done, Reply::AccountsChanged(_)) => true,
        _ => a == b,
    }
}

impl World {
    pub(crate) fn new_operation(&mut self) {
        let most = if self.scenario == Scenario::Steps { 2 * OPERATIONS } else { OPERATIONS };
        if !self.in_chaos() || self.operations.len() >= most {
            return;
        }
        let number = self.operations.len();
        let command = if self.scenario == Scenario::Shared {
            self.shared_command(number)
        } else if self.scenario == Scenario::Steps {
            self.step_command(number)
        } else if self.scenario == Scenario::Cuts {
            self.cut_command(number)
        } else if self.rng.chance(550) {
            self.submission(number)
        } else {
            self.change(number)
        };
        self.operations.push(Operation { command, answer: None });
        self.after(0, Event::Send(number));
        let pause = match self.scenario {
            Scenario::Plain | Scenario::Shared | Scenario::Steps | Scenario::Cuts => 2_500,
            Scenario::Leases => 6_000,
        };
        self.soon(10, pause, Event::NewOperation);
    }

    pub(crate) fn send_request(&mut self, number: usize) {
        if self.operations[number].answer.is_some() {
            return;
        }
        self.soon(1_500, 5_000, Event::Send(number));
        if self.in_chaos() && self.rng.chance(100) {
            return;
        }
        self.soon(1, 30, Event::Arrives(number));
        if self.in_chaos() && self.rng.chance(100) {
            self.soon(1, 3_000, Event::Arrives(number));
        }
    }

    pub(crate) fn request_arrives(&mut self, number: usize) {
        let command = self.operations[number].command.clone();
        self.push(Waiter::Client(number), command);
    }

    pub(crate) fn answer_arrives(&mut self, number: usize, answer: Answer) {
        let known = &mut self.operations[number].answer;
        match (known, &answer) {
            (Some(Answer::Done(before)), Answer::Done(now)) if !same(before, now) => {
                let text = format!("request {number} was answered {before:?}, then {now:?}");
                self.fail(text);
            }
            (Some(_), _) => {}
            (empty @ None, _) => *empty = Some(answer),
        }
    }

    pub(crate) fn request(&self, number: usize) -> u128 {
        u128::try_from(number).expect("small") + 1
    }

    pub(crate) fn submission(&mut self, number: usize) -> Command {
        let mut job = job().spec(|spec| spec.name = format!("op-{number}").into());
        job = match self.rng.below(8) {
            0 => job.tasks(4),
            1 => job.nodes(2).tasks(3),
            2 => job.shape(|shape| shape.exclusive = true),
            3 => job.partition(&["high", "main"]),
            4 => job.memory(1_500),
            _ => job,
        };
        job = self.dependency(job);
        if self.rng.chance(250) {
            let last = u32::try_from(self.rng.between(1, 7)).expect("small");
            let throttle = u32::try_from(self.rng.below(4)).expect("small");
            job = job.array(0, last, throttle);
        }
        if self.rng.chance(100) {
            job = job.spec(|spec| spec.requeue = Some(false));
        }
        if self.rng.chance(60) {
            job = job.spec(|spec| spec.hold = true);
        }
        if self.rng.chance(80) {
            let begin =
                Timestamp(self.wall().0 + i64::try_from(self.rng.below(9_000)).expect("small"));
            job = job.spec(|spec| spec.begin_time = begin);
        }
        let submission = Submission {
            spec: Arc::new(job.spec),
            array: job.array,
            groups: Arc::new([]),
            user: "".into(),
        };
        Command::Submit(asking(job.caller, self.request(number)), Box::new(submission))
    }

    fn dependency(&mut self, job: JobBuilder) -> JobBuilder {
        let kill = self.rng.chance(500);
        let known: Vec<JobId> = self.operations.iter().filter_map(Operation::submitted).collect();
        if known.is_empty() || !self.rng.chance(250) {
            return job;
        }
        let on = known[self.rng.index(known.len())];
        let text = match self.rng.below(4) {
            0 => format!("afterok:{on}"),
            1 => format!("afternotok:{on}"),
            2 => format!("after:{on}"),
            _ => format!("afterany:{on}"),
        };
        job.after(&text).spec(|spec| spec.kill_on_invalid_dep = kill)
    }

    pub(crate) fn target(&mut self) -> Target {
        let known: Vec<JobId> = self.operations.iter().filter_map(Operation::submitted).collect();
        if known.is_empty() || self.rng.chance(100) {
            let highest = u32::try_from(known.len()).expect("few") * 4 + 2;
            let id = u32::try_from(self.rng.below(u64::from(highest))).expect("small");
            return Target::Job(JobId(id));
        }
        let id = known[self.rng.index(known.len())];
        if self.rng.chance(200) {
            let task = u32::try_from(self.rng.below(6)).expect("small");
            return Target::Tasks(id, IndexSet::from_range(task, task + 1, 1));
        }
        Target::Id(id)
    }

    pub(crate) fn change(&mut self, number: usize) -> Command {
        let caller = asking(admin(), self.request(number));
        let targets = vec![self.target()];
        match self.rng.below(12) {
            0..3 => Command::Cancel(caller, targets),
            3 => Command::SetHold(caller, targets, Hold::User),
            4 => Command::SetHold(caller, targets, Hold::None),
            5..8 => Command::Requeue { caller, targets, hold: self.rng.chance(200) },
            8 => {
                let order = SignalOrder { signal: 10, batch_only: false, full: false };
                Command::Signal(caller, targets, order)
            }
            9 => {
                let minutes = self.rng.between(1, 90);
                let time_limit = Some(Walltime::from_minutes(minutes));
                let throttle = self.rng.chance(500).then_some(2);
                let update = JobUpdate { time_limit, throttle, ..JobUpdate::default() };
                Command::UpdateJob(caller, targets, Box::new(update))
            }
            kind => {
                let node = node_name(self.rng.index(AGENTS));
                let action = match (kind, self.rng.below(3)) {
                    (10, 0) => NodeAction::Down,
                    (10, _) => NodeAction::Drain,
                    _ => NodeAction::Resume,
                };
                let reason = "simulated".into();
                let update = NodeUpdate { action: Some(action), reason, ..NodeUpdate::default() };
                Command::UpdateNode(caller, vec![node], Box::new(update))
            }
        }
    }
}
