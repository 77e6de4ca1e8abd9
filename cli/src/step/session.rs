//! What does srun do about each thing that happens to its step?
//!
//! A value: what happens goes in with the time, what is to be done comes out as [`Act`]s. Texts and
//! times are those of Slurm 22.05.

mod ends;
mod feed;
mod interrupt;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use penstock_proto::v1;
use penstock_proto::v1::step_frame::{self, Frame, InputData, WindowSize};

use super::exits::{Exits, WaitStatus};
use super::merge::Merger;

/// How long ends of tasks are gathered, so that those that end alike share a line.
const TELL_AFTER_MS: u64 = 60;

/// Between the order that ends a step and SIGKILL from here.
const KILL_AFTER_MS: u64 = 250;

/// Slurm's STEP_ABORT_TIME: what an aborted step gets beyond KillWait.
const ABORT_SECS: u64 = 2;

/// How long the last bytes of a step that is over are waited for.
const LAST_BYTES_MS: u64 = 10_000;

/// Two interrupts within this time end the step.
const TWICE_MS: u64 = 1_000;

/// KillWait where the controller did not tell its own; Slurm's default.
const DEFAULT_KILL_WAIT_SECS: u64 = 30;

/// Input that a node takes before it has said that it has room for more.
const INPUT_WINDOW_BYTES: u64 = 64 << 10;

/// What is known of the step from the start.
#[derive(Debug, Clone, Default)]
pub(crate) struct Layout {
    /// `5.0`
    pub(crate) name: String,
    /// Its nodes in order.
    pub(crate) nodes: Vec<String>,
    /// Global numbers of the tasks of each of them.
    pub(crate) tasks: Vec<Vec<u32>>,
    /// Seconds from SIGTERM to SIGKILL; 0: not told.
    pub(crate) kill_wait_secs: u32,
}

impl Layout {
    /// Of a step as the controller tells it.
    pub(crate) fn of(step: &v1::Step, kill_wait_secs: u32) -> Self {
        let node = |share: &v1::StepShare| {
            share.share.as_ref().map(|share| share.node.clone()).unwrap_or_default()
        };
        Self {
            name: format!("{}.{}", step.job_id, step.step),
            nodes: step.shares.iter().map(node).collect(),
            tasks: step.shares.iter().map(|share| share.tasks.clone()).collect(),
            kill_wait_secs,
        }
    }

    /// Tasks of all nodes.
    pub(crate) fn ntasks(&self) -> u32 {
        let count: usize = self.tasks.iter().map(Vec::len).sum();
        u32::try_from(count).unwrap_or(u32::MAX)
    }
}

/// Which tasks get what is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum InputTo {
    #[default]
    All,
    None,
    Task(u32),
}

/// How the user wants it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Habits {
    pub(crate) label: bool,
    pub(crate) unbuffered: bool,
    pub(crate) kill_on_bad_exit: bool,
    /// Seconds after the first end at which the others are ended; 0: never.
    pub(crate) max_wait_secs: u64,
    pub(crate) quit_on_interrupt: bool,
    /// One interrupt goes to the tasks at once.
    pub(crate) disable_status: bool,
    /// Only this task's output is wanted.
    pub(crate) only_stdout: Option<u32>,
    pub(crate) only_stderr: Option<u32>,
    pub(crate) input: InputTo,
    /// Goes on where a node fails.
    pub(crate) no_kill: bool,
    /// Only looks on (sattach): an interrupt ends the looking, and no exit ends the step.
    pub(crate) looks_on: bool,
    /// The tasks are copies of a file (sbcast), whose exit status is an error number.
    pub(crate) copies: bool,
}

/// To whom a frame goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum To {
    All,
    Node(usize),
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Act {
    /// Goes to standard output or standard error of the command.
    Write { stderr: bool, data: Bytes },
    /// `srun: TEXT`
    Say(String),
    /// `srun: error: TEXT`
    Error(String),
    /// A line of a shepherd.
    Line(String),
    /// A signal for tasks.
    Signal(To, u32),
    /// Input for tasks of that node.
    Input(usize, InputData),
    /// The terminal's size, for all.
    Window(WindowSize),
    /// The controller is asked to end the step.
    EndStep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct NodeState {
    connected: bool,
    /// Once, whatever became of the connection.
    was_connected: bool,
    /// It sent all it had.
    finished: bool,
    /// The controller says that it is over there.
    ended: bool,
    /// Bytes of input that it still takes.
    credit: u64,
}

impl NodeState {
    fn is_over(self) -> bool {
        self.finished || (self.ended && !self.connected)
    }
}

/// One step, as its srun sees it.
#[derive(Debug)]
pub(crate) struct Session {
    layout: Layout,
    habits: Habits,
    nodes: Vec<NodeState>,
    exits: Exits,
    merger: Merger,
    acts: Vec<Act>,
    input_ended: bool,
    tell_at_ms: Option<u64>,
    wait_until_ms: Option<u64>,
    kill_at_ms: Option<u64>,
    give_up_at_ms: Option<u64>,
    last_interrupt_ms: Option<u64>,
    /// The user wants no word about how tasks end: he ended them.
    cancelled: bool,
    /// Its end was ordered, here or elsewhere.
    aborted: bool,
    terminating: bool,
    ended_by_signal: bool,
    reader_gone: bool,
    launch_failed: bool,
    gave_up: bool,
    first_end: bool,
}

impl Session {
    pub(crate) fn new(layout: Layout, habits: Habits) -> Self {
        let ntasks = layout.ntasks();
        let node = NodeState { credit: INPUT_WINDOW_BYTES, ..NodeState::default() };
        Self {
            nodes: vec![node; layout.nodes.len()],
            exits: Exits::new(ntasks),
            merger: Merger::new(ntasks, habits.label, habits.unbuffered),
            input_ended: habits.input == InputTo::None,
            layout,
            habits,
            acts: Vec::new(),
            tell_at_ms: None,
            wait_until_ms: None,
            kill_at_ms: None,
            give_up_at_ms: None,
            last_interrupt_ms: None,
            cancelled: false,
            aborted: false,
            terminating: false,
            ended_by_signal: false,
            reader_gone: false,
            launch_failed: false,
            gave_up: false,
            first_end: false,
        }
    }

    /// What is to be done since the last call.
    pub(crate) fn take_acts(&mut self) -> Vec<Act> {
        std::mem::take(&mut self.acts)
    }

    /// A shepherd has proved who it is.
    pub(crate) fn on_connected(&mut self, node: usize) {
        if let Some(state) = self.nodes.get_mut(node) {
            state.connected = true;
            state.was_connected = true;
            state.credit = INPUT_WINDOW_BYTES;
        }
        if self.aborted && self.kill_at_ms.is_none() && !self.habits.looks_on {
            self.send_signal(To::Node(node), libc::SIGKILL);
        }
    }

    /// A connection has ended.
    pub(crate) fn on_closed(&mut self, node: usize) {
        if let Some(state) = self.nodes.get_mut(node) {
            state.connected = false;
        }
    }

    /// A frame of that node.
    pub(crate) fn on_frame(&mut self, node: usize, frame: Frame, now_ms: u64) {
        match frame {
            Frame::Output(output) => self.on_output(output),
            Frame::Started(started) => self.on_started(node, &started, now_ms),
            Frame::Exited(exited) => self.on_exited(node, exited, now_ms),
            Frame::Finished(_) => {
                if let Some(state) = self.nodes.get_mut(node) {
                    state.finished = true;
                }
            }
            Frame::Note(note) => self.acts.push(Act::Line(note.text)),
            Frame::Credit(credit) => {
                if let Some(state) = self.nodes.get_mut(node) {
                    state.credit = state.credit.saturating_add(credit.bytes.into());
                }
            }
            // The first words are the listener's, PMI is served elsewhere, and the rest is what
            // only srun says.
            Frame::Hello(_)
            | Frame::Challenge(_)
            | Frame::Proof(_)
            | Frame::Setup(_)
            | Frame::Input(_)
            | Frame::Signal(_)
            | Frame::Window(_)
            | Frame::Pmi(_) => {}
        }
    }

    fn on_output(&mut self, output: step_frame::Output) {
        let only = if output.stderr { self.habits.only_stderr } else { self.habits.only_stdout };
        if only.is_some_and(|task| task != output.task) {
            return;
        }
        let (task, stderr) = (output.task, output.stderr);
        let mut data = self.merger.push(task, stderr, &output.data);
        if output.end {
            data.extend(self.merger.finish(task, stderr));
        }
        self.write(stderr, data);
    }

    fn write(&mut self, stderr: bool, data: Vec<u8>) {
        if !data.is_empty() {
            self.acts.push(Act::Write { stderr, data: data.into() });
        }
    }

    fn on_started(&mut self, node: usize, started: &step_frame::Started, now_ms: u64) {
        if started.error.is_empty() {
            if let Some(tasks) = self.layout.tasks.get(node) {
                self.exits.started(tasks);
            }
        } else {
            self.on_launch_error(node, &started.error, now_ms);
        }
    }

    /// Whoever read standard output is gone: tasks meet that as they would in a pipeline.
    pub(crate) fn on_reader_gone(&mut self) {
        self.reader_gone = true;
        self.send_signal(To::All, libc::SIGPIPE);
    }

    /// Output could not be written for another reason than a reader that left.
    pub(crate) fn on_write_error(&mut self, text: &str, now_ms: u64) {
        self.acts.push(Act::Error(text.to_owned()));
        self.launch_failed = true;
        self.abort(now_ms);
    }

    /// A task of an MPI program wants all to end.
    pub(crate) fn on_mpi_abort(&mut self, text: &str, now_ms: u64) {
        if !self.habits.looks_on && !self.aborted {
            self.acts.push(Act::Error(format!("mpi: {text}")));
            self.abort(now_ms);
        }
    }

    fn send_signal(&mut self, to: To, signal: i32) {
        self.acts.push(Act::Signal(to, signal.unsigned_abs()));
    }

    /// Does what is due.
    pub(crate) fn on_tick(&mut self, now_ms: u64) {
        let due = |at: Option<u64>| at.is_some_and(|at| at <= now_ms);
        if due(self.tell_at_ms) {
            self.tell_exits();
        }
        if due(self.wait_until_ms) {
            self.wait_until_ms = None;
            self.end_for_waiting(now_ms);
        }
        if due(self.kill_at_ms) {
            self.kill_at_ms = None;
            self.send_signal(To::All, libc::SIGKILL);
        }
        if due(self.give_up_at_ms) && !self.gave_up {
            self.gave_up = true;
            self.acts.push(Act::Error("Timed out waiting for job step to complete".to_owned()));
            self.acts.push(Act::EndStep);
        }
    }

    /// When [`Self::on_tick`] has something to do.
    pub(crate) fn next_tick_ms(&self) -> Option<u64> {
        let give_up = self.give_up_at_ms.filter(|_| !self.gave_up);
        [self.tell_at_ms, self.wait_until_ms, self.kill_at_ms, give_up].into_iter().flatten().min()
    }

    /// Whether there is nothing more to wait for.
    pub(crate) fn is_over(&self) -> bool {
        self.gave_up || self.nodes.iter().all(|node| node.is_over())
    }

    /// The last words, and the exit status.
    pub(crate) fn finish(&mut self) -> i32 {
        self.tell_exits();
        for (stderr, data) in self.merger.finish_all() {
            self.write(stderr, data);
        }
        if self.ended_by_signal && !self.aborted && !self.habits.looks_on {
            self.say(format!("Force Terminated StepId={}", self.layout.name));
        }
        match self.exits.status() {
            Some(status) if status.0 != 0 => status.shell_code(),
            _ if self.launch_failed => 1,
            // Its tasks are gone without a word.
            _ if !self.exits.all_ended() && !self.habits.looks_on => {
                WaitStatus(libc::SIGKILL).shell_code()
            }
            _ => 0,
        }
    }

    fn say(&mut self, text: String) {
        self.acts.push(Act::Say(text));
    }
}
