//! What is left of a step that is over, and how do many descriptors wait in one place?

use std::os::fd::BorrowedFd;

use bytes::Bytes;
use penstock_proto::v1::step_frame::{Finished, Frame, Output};
use penstock_vocab::Millis;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::time::Timespec;

use super::HELD_BACK_BYTES;
use super::line::Line;
use super::task::{Channel, Taken, Task};
use crate::sys::boottime;

/// How long output is kept for an srun that is there and does not take it.
const KEEP: Millis = Millis(3_600_000);
/// How long an srun that has everything may take to hang up.
const HANG_UP: Millis = Millis(5_000);

/// One of the descriptors that are waited for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Tag {
    Other,
    Pmi,
    Output(usize, Channel),
    Input(usize),
}

pub(super) fn task_fds(
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
pub(super) fn ready(
    fds: &mut [PollFd<'_>],
    tags: &[Tag],
    timeout: Option<std::time::Duration>,
) -> Vec<Tag> {
    let timeout = timeout.and_then(|length| Timespec::try_from(length).ok());
    // An interrupted or failed wait is one that ended early.
    let _early = poll(fds, timeout.as_ref());
    let happened = fds.iter().zip(tags).filter(|(fd, _)| !fd.revents().is_empty());
    happened.map(|(_, tag)| *tag).filter(|tag| !matches!(tag, Tag::Other)).collect()
}

/// What is left when a step is over: output that srun has not taken.
pub(in crate::launch::shepherd) struct Rest {
    pub(super) srun: Line,
    pub(super) listeners: Vec<Line>,
    pub(super) tasks: Vec<Task>,
    pub(super) finished: bool,
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
