//! What does the shepherd of a step do until nothing of it is left?
//!
//! It waits in one place for everything: srun, the tasks' streams, its children, the agent's orders,
//! the group's emptiness and the clock.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use bytes::Bytes;
use penstock_proto::v1::step_frame::{
    Credit, Exited, Finished, Frame, Note, Output, Setup, Started,
};
use penstock_supervisor::ending::{Action, Input, Target};
use penstock_supervisor::{EndCause, RunResult};
use penstock_vocab::{Millis, Signal};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, WaitOptions};
use rustix::time::Timespec;

use super::files::Plan;
use super::line::{Broken, Callee, Line};
use super::spawn::Common;
use super::task::{Channel, Taken, Task};
use super::{HELD_BACK_BYTES, start};
use crate::launch::record::{News, Order};
use crate::launch::shepherd::charge::{self, Charge, Ready};
use crate::launch::shepherd::control::{self, Link, Report};
use crate::launch::shepherd::{LaunchError, write_line};
use crate::sys::{SingleThreaded, boottime, local_time_text, signal_group, signal_pid, wall_clock};

/// How long srun may be silent while tasks run.
const SILENCE: Millis = Millis(60_000);
/// How long the record of the end waits for srun to take the last output.
const LAST_WORDS: Millis = Millis(2_000);
/// How long output is kept for an srun that is there and does not take it.
const KEEP: Millis = Millis(3_600_000);
/// How long an srun that has everything may take to hang up.
const HANG_UP: Millis = Millis(5_000);
/// Most listeners beside srun.
const MAX_LISTENERS: usize = 16;
/// What may wait for a listener beside srun; one that is slower is left.
const LISTENER_BYTES: usize = 4 << 20;
/// Input that was taken by the tasks before srun is told.
const CREDIT_BYTES: u64 = 32 << 10;
/// Input that waits for tasks beyond which srun is not listened to: one that heeds the credit it gets
/// never sends so much.
const INPUT_BYTES: usize = 4 << 20;

/// How far it is.
#[derive(Debug)]
pub(super) enum Stage {
    /// srun is called, and says what to run.
    Calling,
    /// A process opens the files that the user named.
    Opening { plan: Plan, files: Vec<File> },
    /// Tasks were started.
    Running,
}

/// A step's part on this node.
pub(super) struct Step {
    pub(super) alone: SingleThreaded,
    pub(super) common: Common,
    pub(super) charge: Charge,
    pub(super) srun: Line,
    listeners: Vec<Line>,
    /// Since when srun is not heard.
    lost: Option<Millis>,
    pub(super) stage: Stage,
    pub(super) setup: Setup,
    pub(super) tasks: Vec<Task>,
    /// Where the processes speak that have not become programs yet.
    pub(super) report: Option<OwnedFd>,
    pub(super) error: Option<LaunchError>,
    /// The first task's stderr, where that is a file.
    pub(super) log: Option<File>,
    oom_seen: u64,
    announced: bool,
    exited: bool,
    finished: bool,
    /// Input that came, and for how much of it srun was told that it was taken.
    received: u64,
    credited: u64,
    /// Which task's output is looked at first.
    turn: usize,
}

/// One of the descriptors that are waited for.
#[derive(Debug, Clone, Copy)]
enum Tag {
    Other,
    Output(usize, Channel),
    Input(usize),
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
        let charge = Charge::new(ready, common.facts.terms(), claim);
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
            received: 0,
            credited: 0,
            turn: 0,
        })
    }

    /// Runs to the end. Gives back how it ended, the claim, and what srun has not taken yet.
    pub(super) fn run(mut self, link: &mut Link) -> (RunResult, File, Option<Rest>) {
        let mut over_at = None;
        loop {
            let now = boottime();
            if self.charge.ending.is_done() {
                let over_at = *over_at.get_or_insert(now);
                let waited = now.saturating_sub(over_at) >= LAST_WORDS;
                if self.is_delivered() || waited {
                    break;
                }
            }
            self.charge.arm();
            let ready = self.wait(Some(link));
            self.move_bytes(&ready);
            if let Some(input) = self.charge.look_at_lease() {
                self.feed(input, link);
            }
            self.converse(link);
            self.hear_the_tasks(link);
            self.reap(link);
            for order in link.receive() {
                self.obey(&order, link);
            }
            if !self.tasks.is_empty() && !self.exited && self.charge.sample() {
                let _repeated = self.charge.kill();
            }
            if let Some(input) = self.charge.look_whether_empty() {
                self.feed(input, link);
            }
            self.feed(Input::Tick, link);
            self.look_whether_over(link);
        }
        let status = self.wait_status();
        let result = self.charge.result(status, self.error.take());
        let Self { charge, srun, listeners, tasks, finished, .. } = self;
        let rest = Rest { srun, listeners, tasks, finished };
        (result, charge.into_claim(), Some(rest))
    }

    /// Waits; says which of the tasks' descriptors are ready.
    fn wait(&self, link: Option<&Link>) -> Vec<Tag> {
        let mut tags = Vec::new();
        let mut fds: Vec<PollFd<'_>> = Vec::new();
        let mut add = |tag, fd, flags| {
            tags.push(tag);
            fds.push(PollFd::from_borrowed_fd(fd, flags));
        };
        let report = self.report.as_ref().map(OwnedFd::as_fd);
        let agent = link.into_iter().flat_map(Link::fds);
        for fd in self.charge.fds().into_iter().chain(report).chain(agent) {
            add(Tag::Other, fd, PollFlags::IN);
        }
        if let Some(events) = self.charge.events() {
            add(Tag::Other, events, PollFlags::PRI);
        }
        let deaf = self.input_backlog() > INPUT_BYTES;
        for (fd, flags) in self.srun.fds() {
            let flags = if deaf { flags.difference(PollFlags::IN) } else { flags };
            add(Tag::Other, fd, flags);
        }
        for (fd, flags) in self.listeners.iter().flat_map(Line::fds) {
            add(Tag::Other, fd, flags);
        }
        for (tag, fd, flags) in task_fds(&self.tasks, self.takes_output()) {
            add(tag, fd, flags);
        }
        let patience =
            std::iter::once(&self.srun).chain(&self.listeners).filter_map(Line::patience);
        let over = self.charge.ending.is_done().then_some(LAST_WORDS);
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

    fn input_backlog(&self) -> usize {
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
                Tag::Other => {}
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

    /// To srun and to all who listen.
    pub(super) fn send(&mut self, frame: Frame) {
        self.listeners.retain(|line| line.queued() < LISTENER_BYTES);
        for line in self.listeners.iter_mut().filter(|line| line.is_open()) {
            line.send(frame.clone());
        }
        self.srun.send(frame);
    }

    fn flush_input(&mut self, at: usize) {
        let task = &mut self.tasks[at];
        if task.stdin.as_mut().is_some_and(|stdin| !stdin.flush()) {
            task.stdin = None;
        }
    }

    fn give_credit(&mut self) {
        let backlog = u64::try_from(self.input_backlog()).unwrap_or(u64::MAX);
        let due = self.received.saturating_sub(backlog).saturating_sub(self.credited);
        if due >= CREDIT_BYTES || (due > 0 && backlog == 0) {
            self.credited += due;
            self.srun.send(Frame::Credit(Credit { bytes: u32::try_from(due).unwrap_or(u32::MAX) }));
        }
    }

    /// Hears srun and the other listeners.
    fn converse(&mut self, link: &mut Link) {
        let now = boottime();
        if self.input_backlog() <= INPUT_BYTES {
            match self.srun.work(now) {
                Ok(frames) => {
                    if self.srun.is_open() && self.lost.take().is_some() {
                        self.catch_up();
                    }
                    frames.into_iter().for_each(|frame| self.take_frame(frame, true, link));
                }
                Err(broken) => self.broken(&broken, now, link),
            }
        }
        let mut others = std::mem::take(&mut self.listeners);
        others.retain_mut(|line| {
            let was_open = line.is_open();
            let Ok(frames) = line.work(now) else { return false };
            if line.is_open() && !was_open {
                line.send(self.started());
            }
            frames.into_iter().for_each(|frame| self.take_frame(frame, false, link));
            true
        });
        others.append(&mut self.listeners);
        self.listeners = others;
    }

    fn broken(&mut self, broken: &Broken, now: Millis, link: &mut Link) {
        let calling = matches!(self.stage, Stage::Calling);
        if self.charge.ending.is_done() || self.finished || (calling && self.error.is_some()) {
            self.lost = None;
            return self.srun.close();
        }
        let was_open = self.srun.is_open();
        let since = *self.lost.get_or_insert(now);
        let again = match broken {
            // Asks at the port whether it is gone, or only the connection.
            Broken::Gone(_) => was_open,
            Broken::Unreachable(_) => !calling && now.saturating_sub(since) < SILENCE,
            Broken::Stranger(_) => false,
        };
        let called = again && !calling && {
            let hello = start::hello(&self.common.facts);
            Line::call(self.srun.callee().clone(), hello, now).map(|line| self.srun = line).is_ok()
        };
        if called {
            return;
        }
        self.lost = None;
        self.srun.close();
        if calling {
            let text = broken.text().to_owned();
            self.fail(LaunchError::job(format!("{}: {text}", self.common.facts.node)));
        } else {
            self.listeners.clear();
            let kill_wait_secs = self.common.facts.launch.kill_wait_secs;
            self.feed(Input::Terminate { cause: EndCause::Other, kill_wait_secs }, link);
        }
    }

    /// What an srun that was away for a while may not have heard.
    fn catch_up(&mut self) {
        if self.report.is_none() && matches!(self.stage, Stage::Running) {
            let started = self.started();
            self.srun.send(started);
            for at in 0..self.tasks.len() {
                if let Some(status) = self.tasks[at].status {
                    let task = self.tasks[at].rank;
                    let exited = Exited { task, wait_status: status, out_of_memory: false };
                    self.srun.send(Frame::Exited(exited));
                }
            }
        }
    }

    pub(super) fn started(&self) -> Frame {
        let pid = |task: &Task| u32::try_from(task.pid.as_raw_nonzero().get()).unwrap_or(0);
        let error = self.error.as_ref().map(|error| error.text.clone()).unwrap_or_default();
        Frame::Started(Started { pids: self.tasks.iter().map(pid).collect(), error })
    }

    fn take_frame(&mut self, frame: Frame, of_srun: bool, link: &mut Link) {
        match frame {
            Frame::Setup(setup) if of_srun && matches!(self.stage, Stage::Calling) => {
                if self.error.is_none() && self.charge.ending.cause().is_none() {
                    self.begin(setup);
                }
            }
            Frame::Input(input) => {
                if of_srun {
                    self.received += input.data.len() as u64;
                }
                let wanted = |task: &Task| input.task.is_none_or(|rank| rank == task.rank);
                for at in 0..self.tasks.len() {
                    if !wanted(&self.tasks[at]) {
                        continue;
                    }
                    if let Some(stdin) = &mut self.tasks[at].stdin {
                        stdin.push(input.data.clone());
                        if input.end && of_srun {
                            stdin.end();
                        }
                    }
                    self.flush_input(at);
                }
                self.give_credit();
            }
            Frame::Signal(order) => {
                let signal = u8::try_from(order.signal).ok().and_then(Signal::new);
                if let Some(signal) = signal {
                    self.signal_tasks(signal, order.task, link);
                }
            }
            Frame::Window(size) => {
                self.tasks.iter().for_each(|task| task.resize(size.rows, size.columns));
            }
            // What only a shepherd says, and what is over.
            Frame::Hello(_)
            | Frame::Challenge(_)
            | Frame::Proof(_)
            | Frame::Setup(_)
            | Frame::Started(_)
            | Frame::Output(_)
            | Frame::Exited(_)
            | Frame::Finished(_)
            | Frame::Note(_)
            | Frame::Credit(_)
            | Frame::Pmi(_) => {}
        }
    }

    fn signal_tasks(&mut self, signal: Signal, rank: Option<u32>, link: &mut Link) {
        if rank.is_none() && matches!(signal, Signal::KILL | Signal::TERM) && !self.exited {
            self.announce(EndCause::Other);
        }
        let sent = match rank {
            None => self.charge.container.signal(signal, |_| true),
            Some(rank) => {
                let runs = |task: &&Task| task.rank == rank && task.status.is_none();
                self.tasks.iter().filter(runs).try_for_each(|task| signal_group(task.pid, signal))
            }
        };
        if let Err(error) = sent {
            let id = self.common.facts.step_id();
            link.tell(News::Notice(format!("{signal} cannot be sent to step {id}: {error}")));
        }
    }

    fn feed(&mut self, input: Input, link: &mut Link) {
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

    /// One line for the user, on the step's first node only.
    fn announce(&mut self, cause: EndCause) {
        if self.announced || self.common.facts.node_index != 0 || self.tasks.is_empty() {
            return;
        }
        self.announced = true;
        let (id, node) = (self.common.facts.step_id(), &self.common.facts.node);
        let (at, tail) = (local_time_text(wall_clock()), charge::why(cause));
        self.tell_user(&format!("*** STEP {id} ON {node} CANCELLED AT {at}{tail} ***"));
    }

    /// Writes a line where the first task's stderr goes.
    fn tell_user(&mut self, line: &str) {
        let line = format!("slurmstepd: error: {line}");
        if let Some(log) = &self.log {
            return write_line(log, &line);
        }
        let Some(task) = self.tasks.first().map(|task| task.rank) else { return };
        let data = Bytes::from(format!("{line}\n"));
        self.send(Frame::Output(Output { task, stderr: true, data, end: false }));
    }

    /// The step cannot be started, or not go on.
    pub(super) fn fail(&mut self, error: LaunchError) {
        if self.error.is_none() {
            self.error = Some(error);
            let started = self.started();
            self.send(started);
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
                    self.start_tasks(&plan, files);
                } else if self.charge.ending.cause().is_none() {
                    self.fail(LaunchError::node("the step's files could not be opened"));
                }
            }
            Stage::Calling | Stage::Running => {
                let started = self.started();
                self.send(started);
                link.tell(News::Started(self.charge.started().as_millis()));
            }
        }
    }

    /// Takes in every child that ended, orphans of the tasks among them.
    fn reap(&mut self, link: &mut Link) {
        self.charge.clear_signals();
        while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
            let ran = self.tasks.iter().position(|task| task.pid == pid && task.status.is_none());
            if let Some(at) = ran {
                self.hear_the_tasks(link);
                self.task_exited(at, status.as_raw());
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
        if !self.setup.task_epilog.is_empty() && self.error.is_none() {
            self.tasks[at].epilog = self.start_epilog(at);
        }
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
            Order::Terminate(_) | Order::Suspend(_) => {
                if let Some(input) = charge::input_of(order) {
                    self.feed(input, link);
                }
            }
        }
    }

    /// Tells the state machine once when no task is left, or none will be started.
    fn look_whether_over(&mut self, link: &mut Link) {
        let none_will_be = self.error.is_some() || self.charge.ending.cause().is_some();
        let over = match &self.stage {
            Stage::Calling | Stage::Opening { .. } => none_will_be,
            Stage::Running if self.tasks.is_empty() => none_will_be,
            Stage::Running => self.tasks.iter().all(Task::is_over) && self.report.is_none(),
        };
        if over && !self.exited {
            self.exited = true;
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

    fn tell_of_memory(&mut self) {
        let id = self.common.facts.step_id();
        let Charge { oom_kills, counted, limit_bytes, .. } = &self.charge;
        let plural = if *oom_kills == 1 { "" } else { "s" };
        let (peak, limit) = (counted.peak_bytes >> 20, limit_bytes >> 20);
        let first = format!(
            "Detected {oom_kills} oom_kill event{plural} in StepId={id}. Some of the step tasks have \
             been OOM Killed."
        );
        let second = format!(
            "step {id} on {}: peak memory {peak} MiB, limit {limit} MiB; ask for more with --mem",
            self.common.facts.node
        );
        self.tell_user(&first);
        self.tell_user(&second);
    }

    pub(super) fn note(&mut self, text: String) {
        self.srun.send(Frame::Note(Note { text }));
    }

    /// srun has all that it will get, or is not there.
    fn is_delivered(&self) -> bool {
        self.finished && (self.srun.queued() == 0 || !self.srun.is_open())
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

fn task_fds(
    tasks: &[Task],
    takes_output: bool,
) -> impl Iterator<Item = (Tag, BorrowedFd<'_>, PollFlags)> {
    tasks.iter().enumerate().flat_map(move |(at, task)| {
        let channels = [Channel::Out, Channel::Err].into_iter().filter(move |_| takes_output);
        let outputs = channels.filter_map(move |channel| {
            Some((Tag::Output(at, channel), task.channel(channel)?, PollFlags::IN))
        });
        let input = task.stdin.as_ref().and_then(|stdin| stdin.fd());
        outputs.chain(input.map(|fd| (Tag::Input(at), fd, PollFlags::OUT)))
    })
}

/// Polls; the tags of the tasks' descriptors that are ready.
fn ready(fds: &mut [PollFd<'_>], tags: &[Tag], timeout: Option<std::time::Duration>) -> Vec<Tag> {
    let timeout = timeout.and_then(|length| Timespec::try_from(length).ok());
    // An interrupted or failed wait is one that ended early.
    let _early = poll(fds, timeout.as_ref());
    let happened = fds.iter().zip(tags).filter(|(fd, _)| !fd.revents().is_empty());
    happened.map(|(_, tag)| *tag).filter(|tag| !matches!(tag, Tag::Other)).collect()
}

/// What is left when a step is over: output that srun has not taken.
pub(in crate::launch::shepherd) struct Rest {
    srun: Line,
    listeners: Vec<Line>,
    tasks: Vec<Task>,
    finished: bool,
}

impl Rest {
    /// Hands over what is left, to an srun that is there, and waits for it to hang up.
    pub(in crate::launch::shepherd) fn deliver(mut self) {
        let began = boottime();
        let mut all_sent = None;
        while self.srun.is_open() {
            let now = boottime();
            let kept = now.saturating_sub(began) >= KEEP;
            let waited = all_sent.is_some_and(|at| now.saturating_sub(at) >= HANG_UP);
            if kept || waited {
                return;
            }
            let takes = self.srun.queued() < HELD_BACK_BYTES;
            let mut tags = Vec::new();
            let mut fds = Vec::new();
            for (fd, flags) in self.srun.fds() {
                tags.push(Tag::Other);
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
            for (tag, fd, flags) in task_fds(&self.tasks, takes) {
                tags.push(tag);
                fds.push(PollFd::from_borrowed_fd(fd, flags));
            }
            let outputs = ready(&mut fds, &tags, Some(HANG_UP.to_std()));
            drop(fds);
            for tag in outputs {
                if let Tag::Output(at, channel) = tag {
                    self.take_output(at, channel);
                }
            }
            if !self.finished && self.tasks.iter().all(Task::is_silent) {
                self.finished = true;
                self.srun.send(Frame::Finished(Finished {}));
            }
            self.listeners.retain_mut(|line| line.work(now).is_ok());
            if self.srun.work(now).is_err() {
                return;
            }
            if self.finished && self.srun.queued() == 0 && all_sent.is_none() {
                self.srun.end();
                self.listeners.iter().for_each(Line::end);
                all_sent = Some(now);
            }
        }
    }

    fn take_output(&mut self, at: usize, channel: Channel) {
        let Some(task) = self.tasks.get_mut(at) else { return };
        let (data, end) = match task.read(channel) {
            Taken::Nothing => return,
            Taken::Data(data) => (data, false),
            Taken::End => (Bytes::new(), true),
        };
        let (task, stderr) = (task.rank, channel == Channel::Err);
        self.srun.send(Frame::Output(Output { task, stderr, data, end }));
    }
}
