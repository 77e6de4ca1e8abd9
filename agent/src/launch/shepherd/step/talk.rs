//! What do srun and the shepherd of a step say to each other?

use bytes::Bytes;
use penstock_proto::pmi::{ABORT, FENCE, abort_body, abort_parts};
use penstock_proto::v1::step_frame::{Exited, Frame, Note, Output, PmiMessage, Started};
use penstock_supervisor::EndCause;
use penstock_supervisor::ending::Input;
use penstock_vocab::{Millis, Signal};

use super::line::{Broken, Line};
use super::pmi::{Happened, Server};
use super::pmix::{self, Said};
use super::run::{INPUT_BYTES, Stage, Step};
use super::start;
use super::task::Task;
use crate::launch::record::News;
use crate::launch::shepherd::charge;
use crate::launch::shepherd::control::Link;
use crate::launch::shepherd::{LaunchError, write_line};
use crate::sys::{boottime, local_time_text, signal_group, wall_clock};

/// How long srun may be silent while tasks run.
const SILENCE: Millis = Millis(60_000);
/// What may wait for a listener beside srun; one that is slower is left.
const LISTENER_BYTES: usize = 4 << 20;

impl Step {
    /// To srun and to all who listen.
    pub(super) fn send(&mut self, frame: Frame) {
        self.listeners.retain(|line| line.queued() < LISTENER_BYTES);
        for line in self.listeners.iter_mut().filter(|line| line.is_open()) {
            line.send(frame.clone());
        }
        self.srun.send(frame);
    }

    /// Hears srun and the other listeners.
    pub(super) fn converse(&mut self, link: &mut Link) {
        let now = boottime();
        match self.srun.work(now) {
            Ok(frames) => {
                if self.srun.is_open() && self.lost.take().is_some() {
                    self.catch_up();
                }
                for frame in frames {
                    self.srun.count_input(&frame);
                    self.take_frame(frame, true, link);
                }
            }
            Err(broken) => self.broken(&broken, now, link),
        }
        if self.input_backlog() > INPUT_BYTES {
            let text = "more input came than was asked for".to_owned();
            self.broken(&Broken::Stranger(text), now, link);
        }
        let mut others = std::mem::take(&mut self.listeners);
        let full = self.input_backlog() > INPUT_BYTES / 2;
        others.retain_mut(|line| {
            let was_open = line.is_open();
            let Ok(frames) = line.work(now) else { return false };
            if line.is_open() && !was_open {
                line.send(self.started());
            }
            for frame in frames {
                line.count_input(&frame);
                self.take_frame(frame, false, link);
            }
            // One that sends on and on would take the room of srun's own.
            !full
        });
        others.append(&mut self.listeners);
        self.listeners = others;
        self.give_credit();
    }

    fn broken(&mut self, broken: &Broken, now: Millis, link: &mut Link) {
        let calling = matches!(self.stage, Stage::Calling);
        if self.charge.ending.is_done() || self.finished || (calling && self.error.is_some()) {
            self.lost = None;
            return self.srun.close();
        }
        let was_open = self.srun.is_open();
        if self.wants_relay(broken) && self.call_through_agent(now) {
            return;
        }
        if was_open {
            self.relay = None;
        }
        let since = *self.lost.get_or_insert(now);
        let again = match broken {
            // Asks at the port whether it is gone, or only the connection.
            Broken::Gone(_) => was_open,
            Broken::Unreachable(_) => !calling && now.saturating_sub(since) < SILENCE,
            Broken::Stranger(_) => false,
        };
        let called = again && !calling && {
            let hello = start::hello(&self.common.facts);
            Line::call(self.srun.callee_again(), hello, now).map(|line| self.srun = line).is_ok()
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
        if matches!(self.stage, Stage::Running) {
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
            Frame::Pmi(message) if of_srun => self.answer_pmi(message, link),
            Frame::Pmi(_) => {}
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
            | Frame::Credit(_) => {}
        }
    }

    pub(super) fn serve_pmi(&mut self, link: &mut Link) {
        self.serve_pmix(link);
        for happened in self.pmi.as_mut().map(Server::work).unwrap_or_default() {
            match happened {
                Happened::Fence(body) => {
                    self.srun.send(Frame::Pmi(PmiMessage { kind: FENCE, body }));
                }
                Happened::Abort { rank, code, message } => {
                    self.abort_pmi(rank, code, &message, link);
                }
            }
        }
    }

    fn serve_pmix(&mut self, link: &mut Link) {
        for said in self.pmix.as_mut().map(pmix::Server::work).unwrap_or_default() {
            match said {
                Said::Ready => {
                    let stage = std::mem::replace(&mut self.stage, Stage::Running);
                    match stage {
                        Stage::Serving { plan, files } if self.charge.ending.cause().is_none() => {
                            self.start_tasks(&plan, files);
                        }
                        other => self.stage = other,
                    }
                }
                Said::Failed(_) if self.exited => {}
                Said::Failed(text) => {
                    let text = format!("{}: {text}", self.common.facts.node);
                    if matches!(self.stage, Stage::Serving { .. }) {
                        self.fail(LaunchError::job(text));
                    } else {
                        self.tell_user(&text);
                        let cause = EndCause::Other;
                        self.feed(Input::Terminate { cause, kill_wait_secs: 0 }, link);
                    }
                }
                Said::Message(message) if message.kind == ABORT => {
                    let (rank, code, text) = abort_parts(message.body);
                    self.abort_pmi(rank, code, &text, link);
                }
                Said::Message(message) => self.srun.send(Frame::Pmi(message)),
            }
        }
    }

    fn answer_pmi(&mut self, message: PmiMessage, link: &mut Link) {
        if message.kind == ABORT && (self.pmi.is_some() || self.pmix.is_some()) {
            self.feed(Input::Terminate { cause: EndCause::Other, kill_wait_secs: 0 }, link);
        } else if let Some(server) = self.pmix.as_mut() {
            server.send(message);
            // It is written at once where there is room.
            self.serve_pmix(link);
        } else if let Some(server) = self.pmi.as_mut()
            && let Err(error) = server.answer_fence(message.body)
        {
            let rank = self.tasks.first().map_or(0, |task| task.rank);
            self.abort_pmi(rank, 1, &format!("the fence of PMI failed: {error}"), link);
        }
    }

    /// A task ends the whole step.
    fn abort_pmi(&mut self, rank: u32, code: u8, message: &str, link: &mut Link) {
        let said = if message.is_empty() { String::new() } else { format!(": {message}") };
        self.tell_user(&format!("task {rank} aborted the program with code {code}{said}"));
        let body = abort_body(rank, code, message);
        self.srun.send(Frame::Pmi(PmiMessage { kind: ABORT, body }));
        self.feed(Input::Terminate { cause: EndCause::Other, kill_wait_secs: 0 }, link);
    }

    pub(super) fn signal_tasks(&mut self, signal: Signal, rank: Option<u32>, link: &mut Link) {
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

    /// One line for the user, on the step's first node only.
    pub(super) fn announce(&mut self, cause: EndCause) {
        if self.announced || self.common.facts.node_index != 0 || self.tasks.is_empty() {
            return;
        }
        self.announced = true;
        let (id, node) = (self.common.facts.step_id(), &self.common.facts.node);
        let (at, tail) = (local_time_text(wall_clock()), charge::why(cause));
        self.tell_user(&format!("*** STEP {id} ON {node} CANCELLED AT {at}{tail} ***"));
    }

    /// Writes a line where the first task's stderr goes.
    pub(super) fn tell_user(&mut self, line: &str) {
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

    pub(super) fn tell_of_memory(&mut self) {
        let id = self.common.facts.step_id();
        let oom_kills = self.charge.oom_kills;
        let plural = if oom_kills == 1 { "" } else { "s" };
        let first = format!(
            "Detected {oom_kills} oom_kill event{plural} in StepId={id}. Some of the step tasks have \
             been OOM Killed."
        );
        let advice = self.charge.advice();
        let second = format!("step {id} on {}: {advice}", self.common.facts.node);
        self.tell_user(&first);
        self.tell_user(&second);
    }

    pub(super) fn note(&mut self, text: String) {
        self.srun.send(Frame::Note(Note { text }));
    }
}
