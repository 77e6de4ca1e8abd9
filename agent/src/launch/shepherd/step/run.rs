//! What does the shepherd of a step do until nothing of it is left?
//!
//! It waits in one place for everything: srun, the tasks' streams, its children, the agent's orders,
//! the group's emptiness and the clock.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use bytes::Bytes;
use penstock_proto::v1::step_frame::{Exited, Finished, Frame, Output, Setup};
use penstock_supervisor::ending::{Action, Input, Target};
use penstock_supervisor::{EndCause, RunResult};
use penstock_vocab::{Millis, Signal};
use rustix::event::{PollFd, PollFlags};
use rustix::process::Pid;

use super::files::Plan;
use super::line::{Callee, Line};
use super::pmi::Server;
use super::relay::{self, Relay};
use super::rest::{Rest, Tag, ready, task_fds};
use super::spawn::Common;
use super::task::{Channel, Taken, Task};
use super::{HELD_BACK_BYTES, pmix, start};
use crate::launch::record::{News, Order};
use crate::launch::shepherd::LaunchError;
use crate::launch::shepherd::charge::{self, Charge, Ready};
use crate::launch::shepherd::control::{self, Link, Report};
use crate::sys::{SingleThreaded, boottime, signal_pid};

/// How long the record of the end waits for srun to take the last output.
const LAST_WORDS: Millis = Millis(2_000);
/// The same where the controller carries it, which is slow.
const SLOW_WORDS: Millis = Millis(60_000);
/// How long srun may take to answer and to say what to run.
const SETUP_TIME: Millis = Millis(30_000);
/// Most listeners beside srun.
const MAX_LISTENERS: usize = 16;
/// Input that was taken by the tasks before srun is told.
const CREDIT_BYTES: u64 = 32 << 10;
/// Input that may wait for a task; one who heeds the credit that it gets never sends so much.
pub(super) const INPUT_BYTES: usize = 4 << 20;

/// How far it is.
#[derive(Debug)]
pub(super) enum Stage {
    /// srun is called, and says what to run.
    Calling,
    /// A process opens the files that the user named.
    Opening { plan: Plan, files: Vec<File> },
    /// A server of PMIx gets ready.
    Serving { plan: Plan, files: Vec<File> },
    /// Tasks were started.
    Running,
}

/// A step's part on this node.
pub(super) struct Step {
    pub(super) alone: SingleThreaded,
    pub(super) common: Common,
    pub(super) charge: Charge,
    pub(super) srun: Line,
    pub(super) listeners: Vec<Line>,
    /// Since when srun is not heard.
    pub(super) lost: Option<Millis>,
    pub(super) stage: Stage,
    pub(super) setup: Setup,
    pub(super) tasks: Vec<Task>,
    /// Where the processes speak that have not become programs yet.
    pub(super) report: Option<OwnedFd>,
    pub(super) error: Option<LaunchError>,
    /// The first task's stderr, where that is a file.
    pub(super) log: Option<File>,
    pub(super) oom_seen: u64,
    pub(super) announced: bool,
    pub(super) exited: bool,
    pub(super) finished: bool,
    /// Which task's output is looked at first.
    pub(super) turn: usize,
    pub(super) pmi: Option<Server>,
    pub(super) pmix: Option<pmix::Server>,
    /// Carries what is said with srun, where there is no way to it.
    pub(super) relay: Option<Relay>,
    pub(super) was_relayed: bool,
}

impl Step {
    pub(super) fn new(
        alone: SingleThreaded,
        common: Common,
        ready: Ready,
        claim: File,
    ) -> Result<Self, (LaunchError, File)> {
        let launch = &common.facts.launch;
        let callee = Callee {
            addresses: launch.addresses.clone(),
            port: launch.port,
            secret: launch.secret.clone(),
        };
        let srun = match Line::call(callee, start::hello(&common.facts), boottime()) {
            Ok(srun) => srun,
            Err(error) => {
                ready.container.remove();
                return Err((LaunchError::job(format!("srun cannot be called: {error}")), claim));
            }
        };
        let measure_secs = common.facts.launch.measure_secs;
        let charge = Charge::new(ready, common.facts.terms(), measure_secs, claim);
        Ok(Self {
            alone,
            common,
            charge,
            srun,
            listeners: Vec::new(),
            lost: None,
            stage: Stage::Calling,
            setup: Setup::default(),
            tasks: Vec::new(),
            report: None,
            error: None,
            log: None,
            oom_seen: 0,
            announced: false,
            exited: false,
            finished: false,
            turn: 0,
            pmi: None,
            pmix: None,
            relay: None,
            was_relayed: false,
        })
    }

    /// Runs to the end. Gives back how it ended, the claim, and what srun has not taken yet.
    pub(super) fn run(mut self, link: &mut Link) -> (RunResult, File, Option<Rest>) {
        let mut over_at = None;
        loop {
            let now = boottime();
            if self.charge.ending.is_done() {
                let over_at = *over_at.get_or_insert(now);
                let patience = if self.relay.is_some() { SLOW_WORDS } else { LAST_WORDS };
                let waited = now.saturating_sub(over_at) >= patience;
                if self.is_delivered() || waited {
                    break;
                }
            }
            self.charge.arm();
            let ready = self.wait(link);
            self.move_bytes(&ready);
            if ready.iter().any(|tag| matches!(tag, Tag::Pmi)) {
                self.serve_pmi(link);
            }
            if let Some(input) = self.charge.look_at_lease() {
                self.feed(input, link);
            }
            self.work_relay(link);
            self.converse(link);
            self.work_relay(link);
            self.hear_the_tasks(link);
            self.reap(link);
            for order in link.receive() {
                self.obey(&order, link);
            }
            if !self.tasks.is_empty() && !self.exited {
                if self.charge.sample() {
                    let _repeated = self.charge.kill();
                }
                self.charge.measure(false, link);
            }
            if let Some(input) = self.charge.look_whether_empty() {
                self.feed(input, link);
            }
            self.feed(Input::Tick, link);
            self.look_whether_over(link);
        }
        self.tidy_pmix();
        self.tidy_containers();
        let status = self.wait_status();
        let result = self.charge.result(status, self.error.take());
        let Self { charge, srun, listeners, tasks, finished, relay, .. } = self;
        // Through the agent nothing goes on: for it, this is over.
        drop(relay);
        let rest = Rest { srun, listeners, tasks, finished };
        (result, charge.into_claim(), Some(rest))
    }

    /// Waits; says which of the tasks' descriptors are ready.
    fn wait(&self, link: &Link) -> Vec<Tag> {
        let mut tags = Vec::new();
        let mut fds: Vec<PollFd<'_>> = Vec::new();
        let mut add = |tag, fd, flags| {
            tags.push(tag);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        let report = self.report.as_ref().map(OwnedFd::as_fd);
        for fd in self.charge.fds().into_iter().chain(report).chain(link.fds()) {
            add(Tag::Other, fd, PollFlags::IN);
        }
        if let Some(events) = self.charge.events() {
            add(Tag::Other, events, PollFlags::PRI);
        }
        for (fd, flags) in std::iter::once(&self.srun).chain(&self.listeners).flat_map(Line::fds) {
            add(Tag::Other, fd, flags);
        }
        for (tag, fd, flags) in task_fds(&self.tasks, self.takes_output()) {
            add(tag, fd, flags);
        }
        for (fd, writes) in self.pmi.iter().flat_map(Server::fds) {
            let out = if writes { PollFlags::OUT } else { PollFlags::empty() };
            add(Tag::Pmi, fd, PollFlags::IN | out);
        }
        if let Some((fd, flags)) = self.pmix.as_ref().and_then(pmix::Server::fd) {
            add(Tag::Pmi, fd, flags);
        }
        if let Some((fd, flags)) = self.relay.as_ref().and_then(Relay::fd) {
            add(Tag::Other, fd, flags);
        }
        let now = boottime();
        let patience = std::iter::once(&self.srun)
            .chain(&self.listeners)
            .filter_map(|line| line.patience(now))
            .chain(relay::patience(self.relay.as_ref()));
        let begins = matches!(self.stage, Stage::Calling | Stage::Serving { .. });
        let calling = begins.then_some(LAST_WORDS);
        let over = self.charge.ending.is_done().then_some(LAST_WORDS).or(calling);
        let lines = patience.chain(over).map(Millis::to_std).min();
        let timeout = self.charge.timeout().into_iter().chain(lines).min();
        ready(&mut fds, &tags, timeout)
    }

    /// Whether more of the tasks' output may be read.
    fn takes_output(&self) -> bool {
        self.srun.queued() < HELD_BACK_BYTES && (self.srun.is_open() || self.is_cut_off())
    }

    /// srun is gone for good: output goes nowhere.
    fn is_cut_off(&self) -> bool {
        !self.srun.is_open() && self.lost.is_none() && !matches!(self.stage, Stage::Calling)
    }

    pub(super) fn input_backlog(&self) -> usize {
        self.tasks
            .iter()
            .filter_map(|task| task.stdin.as_ref())
            .map(|s| s.queued())
            .max()
            .unwrap_or(0)
    }

    fn move_bytes(&mut self, ready: &[Tag]) {
        let count = self.tasks.len().max(1);
        let (turn, mut read) = (self.turn, Vec::new());
        for tag in ready {
            match *tag {
                Tag::Output(task, channel) => read.push((task, channel)),
                Tag::Input(task) => self.flush_input(task),
                Tag::Other | Tag::Pmi => {}
            }
        }
        read.sort_by_key(|&(task, _)| (task + count - turn % count) % count);
        for (at, channel) in read {
            if !self.takes_output() {
                // Whoever was not reached comes first next time.
                self.turn = at;
                break;
            }
            self.take_output(at, channel);
        }
        self.give_credit();
    }

    fn take_output(&mut self, at: usize, channel: Channel) {
        let task = &mut self.tasks[at];
        let rank = task.rank;
        let (data, end) = match task.read(channel) {
            Taken::Nothing => return,
            Taken::Data(data) => (data, false),
            Taken::End => (Bytes::new(), true),
        };
        self.send(Frame::Output(Output { task: rank, stderr: channel == Channel::Err, data, end }));
    }

    pub(super) fn flush_input(&mut self, at: usize) {
        let task = &mut self.tasks[at];
        if task.stdin.as_mut().is_some_and(|stdin| !stdin.flush()) {
            task.stdin = None;
        }
    }

    /// Tells those who send input how much of it the slowest task has taken.
    pub(super) fn give_credit(&mut self) {
        let backlog = u64::try_from(self.input_backlog()).unwrap_or(u64::MAX);
        for line in std::iter::once(&mut self.srun).chain(&mut self.listeners) {
            let due = line.uncredited().saturating_sub(backlog);
            if due >= CREDIT_BYTES || (due > 0 && backlog == 0) {
                line.give_credit(due);
            }
        }
    }

    pub(super) fn feed(&mut self, input: Input, link: &mut Link) {
        for action in self.charge.ending.on(boottime(), input) {
            self.perform(action, link);
        }
    }

    fn perform(&mut self, action: Action, link: &mut Link) {
        let done = match action {
            Action::Announce(cause) => {
                if self.error.is_none() {
                    self.announce(cause);
                }
                Ok(())
            }
            // What is for the batch shell alone does not come to a step.
            Action::Signal(_, Target::Shell) => Ok(()),
            Action::Signal(signal, Target::Everything | Target::Steps) => {
                self.signal_unborn(signal);
                self.charge.container.signal(signal, |_| true)
            }
            Action::Freeze => self.charge.container.set_frozen(true),
            Action::Thaw => self.charge.container.set_frozen(false),
            Action::Kill => {
                self.signal_unborn(Signal::KILL);
                self.charge.kill()
            }
            Action::Unkillable | Action::Done => Ok(()),
        };
        if let Err(error) = done {
            let id = self.common.facts.step_id();
            link.tell(News::Notice(format!("{action:?} failed for step {id}: {error}")));
        }
    }

    /// Tasks that may not have entered their group yet are signalled by their number.
    fn signal_unborn(&self, signal: Signal) {
        if self.report.is_some() {
            for task in self.tasks.iter().filter(|task| task.status.is_none()) {
                let _gone = signal_pid(task.pid, signal);
            }
        }
    }

    /// Takes what comes from processes that have not become programs yet.
    fn hear_the_tasks(&mut self, link: &mut Link) {
        while let Some(report) = &self.report {
            match control::hear(report) {
                Ok(Some((Report::Output, file))) => {
                    if let Stage::Opening { files, .. } = &mut self.stage {
                        files.extend(file.map(File::from));
                    }
                }
                Ok(Some((Report::Notice(text), _))) => {
                    link.tell(News::Notice(text));
                }
                Ok(Some((Report::Failed(error), _))) => {
                    self.fail(error);
                    self.feed(Input::Terminate { cause: EndCause::Other, kill_wait_secs: 0 }, link);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Ok(None) | Err(_) => {
                    self.report = None;
                    self.all_speak_no_more(link);
                }
            }
        }
    }

    /// Either all files are open, or every task runs its program.
    fn all_speak_no_more(&mut self, link: &mut Link) {
        if self.error.is_some() {
            return;
        }
        match std::mem::replace(&mut self.stage, Stage::Running) {
            Stage::Opening { plan, files } => {
                if files.len() == plan.file_count() && self.charge.ending.cause().is_none() {
                    self.start_when_served(plan, files);
                } else if self.charge.ending.cause().is_none() {
                    self.fail(LaunchError::node("the step's files could not be opened"));
                }
            }
            Stage::Calling | Stage::Serving { .. } | Stage::Running => {
                link.tell(News::Started(self.charge.started().as_millis()));
                if matches!(self.stage, Stage::Running) && !self.exited {
                    self.charge.meter.start(boottime());
                }
            }
        }
    }

    /// Takes in every child that ended, orphans of the tasks among them.
    fn reap(&mut self, link: &mut Link) {
        self.charge.clear_signals();
        while let Some((pid, status)) = self.charge.reap() {
            let ran = self.tasks.iter().position(|task| task.pid == pid && task.status.is_none());
            if let Some(at) = ran {
                self.hear_the_tasks(link);
                self.task_exited(at, status);
            } else {
                let of = self.tasks.iter_mut().find(|task| task.epilog == Some(pid));
                if let Some(task) = of {
                    task.epilog = None;
                }
            }
        }
    }

    fn task_exited(&mut self, at: usize, wait_status: i32) {
        self.charge.count_oom_kills();
        let killed = wait_status & 0x7f == libc::SIGKILL;
        let out_of_memory = killed && self.charge.oom_kills > self.oom_seen;
        if out_of_memory {
            self.oom_seen += 1;
        }
        let task = self.tasks[at].rank;
        self.tasks[at].status = Some(wait_status);
        self.tasks[at].stdin = None;
        self.send(Frame::Exited(Exited { task, wait_status, out_of_memory }));
        if self.common.has_task_epilog(&self.setup) && self.error.is_none() {
            self.tasks[at].epilog = self.start_epilog(at);
        }
        // Else nobody would see the end of the task's stderr.
        self.tasks[at].last_words = None;
    }

    fn obey(&mut self, order: &Order, link: &mut Link) {
        match order {
            Order::SetLimit(limit) => {
                // The step's own limit holds whatever the job gets.
                let own = self.common.facts.spec.time_limit_secs.filter(|&secs| secs > 0);
                let of_job = Some(limit.time_limit_secs).filter(|&secs| secs > 0);
                let limit_secs = own.into_iter().chain(of_job).min();
                self.feed(Input::SetLimit { limit_secs, serial: limit.limit_serial }, link);
            }
            Order::Attach(listener) => {
                let callee = Callee {
                    addresses: listener.addresses.clone(),
                    port: listener.port,
                    secret: listener.secret.clone(),
                };
                let line = Line::call(callee, start::hello(&self.common.facts), boottime());
                if self.listeners.len() < MAX_LISTENERS && !self.charge.ending.is_done() {
                    self.listeners.extend(line.ok());
                }
            }
            Order::Signal(order) => {
                let signal = u8::try_from(order.signal).ok().and_then(Signal::new);
                if let Some(signal) = signal.filter(|_| !order.batch_only) {
                    self.signal_tasks(signal, None, link);
                }
            }
            Order::Measure(_) => self.charge.measure(true, link),
            Order::Relay(frame) => {
                if let Some(relay) = &mut self.relay {
                    relay.receive(frame);
                }
            }
            Order::Notice(notice) => self.tell_user(&notice.text),
            Order::Terminate(_) | Order::Suspend(_) => {
                if let Some(input) = charge::input_of(order) {
                    self.feed(input, link);
                }
            }
        }
    }

    /// Tells the state machine once when no task is left, or none will be started.
    fn look_whether_over(&mut self, link: &mut Link) {
        let age = self.charge.ending.elapsed(boottime());
        if matches!(self.stage, Stage::Calling) && age >= SETUP_TIME && self.error.is_none() {
            let text = format!("srun did not say within {} s what to run", SETUP_TIME.as_secs());
            self.fail(LaunchError::job(text));
        }
        self.look_at_pmix_start();
        let none_will_be = self.error.is_some() || self.charge.ending.cause().is_some();
        let over = match &self.stage {
            Stage::Calling | Stage::Opening { .. } | Stage::Serving { .. } => none_will_be,
            Stage::Running if self.tasks.is_empty() => none_will_be,
            Stage::Running => self.tasks.iter().all(Task::is_over) && self.report.is_none(),
        };
        if over && !self.exited {
            self.exited = true;
            if let Some(server) = &mut self.pmix {
                server.stop();
            }
            let exited = self.charge.exited();
            self.feed(exited, link);
        }
        if self.charge.ending.is_done() && !self.finished {
            self.finish();
        }
    }

    /// Nothing runs any more: when all output is read, srun is told that it was the last.
    fn finish(&mut self) {
        if self.charge.ending.unkillable() {
            self.tasks.iter_mut().for_each(Task::hush);
        }
        if !self.tasks.iter().all(Task::is_silent) {
            return;
        }
        self.charge.close();
        if self.charge.oom_kills > 0 {
            self.tell_of_memory();
        }
        self.send(Frame::Finished(Finished {}));
        self.finished = true;
    }

    /// srun has all that it will get, or is not there.
    fn is_delivered(&self) -> bool {
        let sent = self.srun.queued() == 0 && relay::is_delivered(self.relay.as_ref());
        self.finished && (sent || !self.srun.is_open())
    }

    /// The status of the whole: a signal of the first task that was ended by one, else the highest
    /// exit status.
    fn wait_status(&self) -> i32 {
        let statuses = || self.tasks.iter().filter_map(|task| task.status);
        let signalled = statuses().find(|status| status & 0x7f != 0);
        let none = if self.error.is_some() { 0 } else { libc::SIGTERM };
        signalled.or_else(|| statuses().max()).unwrap_or(none)
    }

    pub(super) const fn pid_of(pid: Pid) -> u32 {
        pid.as_raw_nonzero().get().unsigned_abs()
    }
}
