//! What does the shepherd hold of one task?
//!
//! Its process, and the ends of its streams that srun is behind. Nothing here waits: what a task does
//! not read stays in a queue, what it writes is read when srun takes it.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use bytes::Bytes;
use penstock_proto::step_io::STEP_CHUNK_BYTES;
use rustix::io::Errno;
use rustix::process::Pid;

use super::labels::Labelled;

/// What a terminal takes for the end of input (Ctrl-D).
const END_OF_TERMINAL: &[u8] = &[4];

/// stdout or stderr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Channel {
    Out,
    Err,
}

/// What reading gave.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Data(Bytes),
    /// No more will come.
    End,
    /// Nothing is there now.
    Nothing,
}

/// A started task.
#[derive(Debug)]
pub(super) struct Task {
    pub(super) rank: u32,
    pub(super) pid: Pid,
    /// Raw wait status, once it has ended.
    pub(super) status: Option<i32>,
    /// The process that runs the epilog of the task.
    pub(super) epilog: Option<Pid>,
    pub(super) stdin: Option<Sink>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    /// Files that get what it writes, in srun's stead.
    files: [Option<Labelled>; 2],
    /// The task's end of its stderr, for the epilog.
    pub(super) last_words: Option<OwnedFd>,
    has_terminal: bool,
}

/// The shepherd's ends of a task's streams, for those that srun is behind.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pub(super) stdin: Option<OwnedFd>,
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
    pub(super) files: [Option<Labelled>; 2],
    pub(super) last_words: Option<OwnedFd>,
    pub(super) is_terminal: bool,
}

impl Task {
    /// # Errors
    /// When a pipe cannot be made non-blocking.
    pub(super) fn new(rank: u32, pid: Pid, pipes: Pipes) -> io::Result<Self> {
        for fd in [&pipes.stdin, &pipes.stdout, &pipes.stderr].into_iter().flatten() {
            rustix::io::ioctl_fionbio(fd, true)?;
        }
        Ok(Self {
            rank,
            pid,
            status: None,
            epilog: None,
            stdin: pipes.stdin.map(|fd| Sink::new(fd, pipes.is_terminal)),
            stdout: pipes.stdout,
            stderr: pipes.stderr,
            files: pipes.files,
            last_words: pipes.last_words,
            has_terminal: pipes.is_terminal,
        })
    }

    /// Neither it nor its epilog runs.
    pub(super) const fn is_over(&self) -> bool {
        self.status.is_some() && self.epilog.is_none()
    }

    pub(super) fn channel(&self, channel: Channel) -> Option<BorrowedFd<'_>> {
        match channel {
            Channel::Out => self.stdout.as_ref(),
            Channel::Err => self.stderr.as_ref(),
        }
        .map(|fd| fd.as_fd())
    }

    /// All output was read.
    pub(super) const fn is_silent(&self) -> bool {
        self.stdout.is_none() && self.stderr.is_none()
    }

    /// Reads no more.
    pub(super) fn hush(&mut self) {
        (self.stdout, self.stderr) = (None, None);
    }

    /// Reads at most a frame's worth; what belongs into a file of the task is written there.
    pub(super) fn read(&mut self, channel: Channel) -> Taken {
        let taken = self.read_pipe(channel);
        let [stdout, stderr] = &mut self.files;
        let file = match channel {
            Channel::Out => stdout,
            Channel::Err => stderr,
        };
        match (file, taken) {
            (Some(file), Taken::Data(data)) => file.push(&data),
            (Some(file), Taken::End) => file.end(),
            (_, taken) => return taken,
        }
        Taken::Nothing
    }

    fn read_pipe(&mut self, channel: Channel) -> Taken {
        let end = match channel {
            Channel::Out => &mut self.stdout,
            Channel::Err => &mut self.stderr,
        };
        let Some(fd) = end.as_ref() else { return Taken::Nothing };
        let mut buffer = vec![0; STEP_CHUNK_BYTES];
        match rustix::io::read(fd, &mut buffer[..]) {
            Err(Errno::AGAIN | Errno::INTR) => Taken::Nothing,
            Ok(length) if length > 0 => {
                buffer.truncate(length);
                Taken::Data(buffer.into())
            }
            // A terminal that nobody has open any more gives EIO.
            Ok(_) | Err(_) => {
                *end = None;
                Taken::End
            }
        }
    }

    /// Tells the terminal how large the user's is.
    pub(super) fn resize(&self, rows: u32, columns: u32) {
        let Some(master) = self.stdout.as_ref().filter(|_| self.has_terminal) else { return };
        let size = window(rows, columns);
        // A terminal that is closed needs no size.
        let _closed = rustix::termios::tcsetwinsize(master, size);
    }
}

/// A size as the kernel wants it.
pub(super) fn window(rows: u32, columns: u32) -> rustix::termios::Winsize {
    let small = |cells: u32| u16::try_from(cells).unwrap_or(u16::MAX);
    rustix::termios::Winsize {
        ws_row: small(rows),
        ws_col: small(columns),
        ws_xpixel: 0,
        ws_ypixel: 0,
    }
}

/// What a task reads, and what waits to be read.
#[derive(Debug)]
pub(super) struct Sink {
    fd: OwnedFd,
    queue: VecDeque<Bytes>,
    queued: usize,
    ended: bool,
    is_terminal: bool,
}

impl Sink {
    fn new(fd: OwnedFd, is_terminal: bool) -> Self {
        Self { fd, queue: VecDeque::new(), queued: 0, ended: false, is_terminal }
    }

    /// To wait for, where something is to be written.
    pub(super) fn fd(&self) -> Option<BorrowedFd<'_>> {
        (self.queued > 0).then(|| self.fd.as_fd())
    }

    /// Bytes that the task has not taken.
    pub(super) const fn queued(&self) -> usize {
        self.queued
    }

    pub(super) fn push(&mut self, data: Bytes) {
        if !self.ended && !data.is_empty() {
            self.queued += data.len();
            self.queue.push_back(data);
        }
    }

    /// No more comes after what is in the queue.
    pub(super) fn end(&mut self) {
        if self.is_terminal {
            self.push(Bytes::from_static(END_OF_TERMINAL));
        }
        self.ended = true;
    }

    /// Writes what the task takes; false when it is over: all is written, or nobody reads.
    pub(super) fn flush(&mut self) -> bool {
        while let Some(front) = self.queue.front_mut() {
            match rustix::io::write(&self.fd, front) {
                Ok(written) => {
                    self.queued -= written;
                    let _written = front.split_to(written);
                    if front.is_empty() {
                        self.queue.pop_front();
                    }
                }
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
        // A terminal stays open: it is one descriptor with the output.
        !self.ended || self.is_terminal
    }
}
