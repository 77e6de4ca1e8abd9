//! Ends of tasks, of nodes and of the step.

use penstock_proto::v1;
use penstock_proto::v1::step_frame;

use super::{
    ABORT_SECS, Act, DEFAULT_KILL_WAIT_SECS, KILL_AFTER_MS, LAST_BYTES_MS, Session, TELL_AFTER_MS,
};
use crate::step::exits::WaitStatus;

impl Session {
    pub(super) fn on_exited(&mut self, node: usize, exited: step_frame::Exited, now_ms: u64) {
        let status = WaitStatus(exited.wait_status);
        if !self.exits.ended(node, exited.task, status) {
            return;
        }
        if matches!(status.signal(), Some(libc::SIGKILL | libc::SIGTERM)) {
            self.ended_by_signal = true;
        }
        if exited.out_of_memory && !self.cancelled {
            let node = &self.layout.nodes[node];
            let line = format!("{node}: task {}: Out Of Memory", exited.task);
            self.acts.push(Act::Error(line));
        }
        if self.exits.has_untold() && self.tell_at_ms.is_none() {
            self.tell_at_ms = Some(now_ms + TELL_AFTER_MS);
        }
        if status.0 != 0 && self.habits.kill_on_bad_exit && !self.terminating && !self.aborted {
            self.tell_exits();
            self.terminate();
        }
        let first = !std::mem::replace(&mut self.first_end, true);
        if first && self.habits.max_wait_secs > 0 && !self.exits.all_ended() {
            self.wait_until_ms = Some(now_ms + self.habits.max_wait_secs * 1_000);
        }
    }

    pub(super) fn tell_exits(&mut self) {
        self.tell_at_ms = None;
        let nodes = &self.layout.nodes;
        let copies = self.habits.copies;
        let lines = if copies { self.exits.tell_copies(nodes) } else { self.exits.tell(nodes) };
        let known = |line: &String| self.reader_gone && line.ends_with("Broken pipe");
        if !self.cancelled && !self.habits.looks_on {
            self.acts.extend(lines.into_iter().filter(|line| !known(line)).map(Act::Error));
        }
    }

    /// One end means the end of all; the texts are those of Slurm's launch plugin.
    fn terminate(&mut self) {
        self.terminating = true;
        self.say(format!("launch/slurm: _step_signal: Terminating StepId={}", self.layout.name));
        self.acts.push(Act::EndStep);
    }

    /// `--wait` is over.
    pub(super) fn end_for_waiting(&mut self, now_ms: u64) {
        if self.exits.all_ended() || self.aborted {
            return;
        }
        self.say(format!("First task exited {}s ago", self.habits.max_wait_secs));
        self.report();
        self.terminate();
        self.abort(now_ms);
    }

    /// Where all tasks stand.
    pub(super) fn report(&mut self) {
        for line in self.exits.report() {
            self.say(format!("StepId={} {line}", self.layout.name));
        }
    }

    /// Ends the step, and soon kills what does not end.
    pub(super) fn abort(&mut self, now_ms: u64) {
        if !self.terminating {
            self.acts.push(Act::EndStep);
        }
        self.kill_at_ms.get_or_insert(now_ms + KILL_AFTER_MS);
        self.on_ending(now_ms);
    }

    /// The step is being ended, by whomever.
    fn on_ending(&mut self, now_ms: u64) {
        if std::mem::replace(&mut self.aborted, true) {
            return;
        }
        let kill_wait = match self.layout.kill_wait_secs {
            0 => DEFAULT_KILL_WAIT_SECS,
            told => told.into(),
        };
        let secs = kill_wait + ABORT_SECS;
        self.give_up_at_ms = Some(now_ms + secs * 1_000);
        self.say(format!("Job step aborted: Waiting up to {secs} seconds for job step to finish."));
    }

    /// The controller tells of the step.
    pub(crate) fn on_step_event(&mut self, event: &v1::StepEvent, now_ms: u64) {
        let node = self.layout.nodes.iter().position(|name| *name == event.node);
        let ended = event.phase() == v1::StepPhase::Ended;
        if let (Some(node), true) = (node, event.node_failed) {
            self.on_node_failed(node, now_ms);
        }
        if let (Some(node), true) = (node, ended) {
            let error = event.result.as_ref().map_or("", |result| result.launch_error.as_str());
            self.on_node_ended(node, error, now_ms);
        }
        let order = !matches!(
            event.ending(),
            v1::EndCause::Unspecified | v1::EndCause::Exited | v1::EndCause::LaunchFailed
        );
        if order && !self.terminating && !self.exits.all_ended() {
            self.on_ending(now_ms);
        }
        if event.step.as_ref().is_some_and(|step| step.end_ms != 0) {
            self.on_all_ended(now_ms);
        }
    }

    /// The job that the step is in, where srun holds it.
    pub(crate) fn on_job_event(&mut self, kind: v1::allocation_event::Kind, now_ms: u64) {
        match kind {
            v1::allocation_event::Kind::Ending if !self.exits.all_ended() => self.on_ending(now_ms),
            v1::allocation_event::Kind::Ended => self.on_all_ended(now_ms),
            _ => {}
        }
    }

    /// Nothing of the step is left; what shepherds sent before may still be on its way.
    fn on_all_ended(&mut self, now_ms: u64) {
        (0..self.nodes.len()).for_each(|node| self.on_node_ended(node, "", now_ms));
        self.give_up_at_ms.get_or_insert(now_ms + LAST_BYTES_MS);
    }

    fn on_node_ended(&mut self, node: usize, error: &str, now_ms: u64) {
        if std::mem::replace(&mut self.nodes[node].ended, true) {
            return;
        }
        if !error.is_empty() && !self.nodes[node].finished {
            self.on_launch_error(node, error, now_ms);
        }
    }

    fn on_node_failed(&mut self, node: usize, now_ms: u64) {
        let name = &self.layout.nodes[node];
        self.acts.push(Act::Error(format!("Node failure on {name}")));
        for task in self.layout.tasks[node].clone() {
            self.exits.lost(task);
        }
        self.nodes[node].finished = true;
        if !self.habits.no_kill {
            self.on_ending(now_ms);
        }
    }

    /// Tasks of a node could not be started.
    pub(super) fn on_launch_error(&mut self, node: usize, text: &str, now_ms: u64) {
        let name = &self.layout.nodes[node];
        let step = &self.layout.name;
        self.acts.push(Act::Error(format!(
            "Task launch for StepId={step} failed on node {name}: {text}"
        )));
        if !std::mem::replace(&mut self.launch_failed, true) {
            self.acts.push(Act::Error(format!("Application launch failed: {text}")));
        }
        self.nodes[node].ended = true;
        if self.nodes.iter().any(|node| !node.is_over()) && !self.aborted {
            self.abort(now_ms);
        }
    }
}
