//! How is output written without standing still when nobody reads it?
//!
//! A terminal that is stopped or a full pipe must not keep srun from hearing signals. Output waits in
//! a queue; while that is long, no more is taken from the shepherds. Pipes and terminals are shared
//! with other processes and stay blocking, so that only what they surely take is written, and a
//! thread waits for them where they take nothing.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::fd::AsFd as _;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::task::JoinHandle;

/// Bytes that wait before shepherds are no longer read.
const MAX_WAITING_BYTES: usize = 256 << 10;

/// What a pipe or terminal that is ready takes in one write without blocking (`PIPE_BUF`).
const PIECE_BYTES: usize = 4096;

/// How long the thread waits at a time: the end of the process waits for it.
const WAIT_MS: u16 = 200;

/// A place to write to.
#[derive(Debug)]
enum Sink {
    /// Never makes anybody wait for long.
    File(File),
    /// A pipe, a terminal, a socket.
    Stream(File),
    /// Its reader is gone, or nobody wants it.
    Nowhere,
}

/// Standard output and standard error of a step.
#[derive(Debug)]
pub(crate) struct Sinks {
    stdout: Sink,
    stderr: Sink,
    /// Both may go to one place, where order matters.
    waiting: VecDeque<(bool, Bytes)>,
    waiting_bytes: usize,
    /// Ends when a stream that took nothing takes something, or after a while.
    ready: Option<JoinHandle<()>>,
}

/// Why a stream takes no more.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// Its reader is gone.
    ReaderGone,
    /// A sentence about it.
    Failed(String),
}

impl Sinks {
    /// Writes to these; `None`: nowhere.
    pub(crate) fn new(stdout: Option<File>, stderr: Option<File>) -> Self {
        Self {
            stdout: sink(stdout),
            stderr: sink(stderr),
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            ready: None,
        }
    }

    /// Puts output into the queue.
    pub(crate) fn push(&mut self, stderr: bool, data: Bytes) {
        if !data.is_empty() {
            self.waiting_bytes += data.len();
            self.waiting.push_back((stderr, data));
        }
    }

    /// Whether something waits.
    pub(crate) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether no more should be taken for now.
    pub(crate) fn is_full(&self) -> bool {
        self.waiting_bytes >= MAX_WAITING_BYTES
    }

    /// Writes some of what waits, once it is taken. Loses nothing when it is dropped.
    pub(crate) async fn write_some(&mut self) -> Result<(), Trouble> {
        if let Some(ready) = &mut self.ready {
            ready.await.ok();
            self.ready = None;
        }
        let Some((stderr, data)) = self.waiting.front_mut() else { return Ok(()) };
        let stderr = *stderr;
        let sink = if stderr { &mut self.stderr } else { &mut self.stdout };
        let result = match sink {
            Sink::Nowhere => Ok(data.len()),
            Sink::File(file) => file.write(data),
            Sink::Stream(stream) if is_ready(stream, PollTimeout::ZERO) => {
                stream.write(&data[..data.len().min(PIECE_BYTES)])
            }
            Sink::Stream(stream) => match stream.try_clone() {
                Ok(stream) => {
                    self.ready = Some(tokio::task::spawn_blocking(move || {
                        is_ready(&stream, PollTimeout::from(WAIT_MS));
                    }));
                    return Ok(());
                }
                Err(error) => Err(error),
            },
        };
        match result {
            Ok(written) => {
                data.advance(written);
                self.waiting_bytes -= written;
                if data.is_empty() {
                    self.waiting.pop_front();
                }
                Ok(())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(()),
            // Somebody else made it non-blocking and was faster.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                tokio::time::sleep(Duration::from_millis(1)).await;
                Ok(())
            }
            Err(error) => {
                *sink = Sink::Nowhere;
                let name = if stderr { "standard error" } else { "standard output" };
                Err(match error.kind() {
                    io::ErrorKind::BrokenPipe => Trouble::ReaderGone,
                    _ => Trouble::Failed(format!("cannot write to {name}: {error}")),
                })
            }
        }
    }
}

fn sink(file: Option<File>) -> Sink {
    match file {
        None => Sink::Nowhere,
        Some(file) if file.metadata().is_ok_and(|about| about.is_file()) => Sink::File(file),
        Some(file) => Sink::Stream(file),
    }
}

/// Whether a write of a piece goes through at once, or fails at once.
fn is_ready(file: &File, timeout: PollTimeout) -> bool {
    let mut fds = [PollFd::new(file.as_fd(), PollFlags::POLLOUT)];
    poll(&mut fds, timeout).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    async fn write_all(sinks: &mut Sinks) -> Option<Trouble> {
        let mut trouble = None;
        while sinks.is_waiting() {
            trouble = sinks.write_some().await.err().or(trouble);
        }
        trouble
    }

    #[tokio::test]
    async fn a_full_pipe_waits_for_its_reader() {
        let (mut reader, writer) = std::io::pipe().expect("a pipe");
        let mut sinks = Sinks::new(Some(File::from(std::os::fd::OwnedFd::from(writer))), None);
        sinks.push(false, vec![b'x'; 300 << 10].into());
        sinks.push(true, "nobody wants it".into());
        assert!(sinks.is_full());
        let written = tokio::time::timeout(Duration::from_millis(50), write_all(&mut sinks)).await;
        assert!(written.is_err(), "nobody reads");
        let read = std::thread::spawn(move || {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).expect("read");
            bytes.len()
        });
        assert!(write_all(&mut sinks).await.is_none());
        drop(sinks);
        assert_eq!(read.join().expect("no panic"), 300 << 10);
    }

    #[tokio::test]
    async fn a_reader_that_left_is_noticed_once() {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        let mut sinks = Sinks::new(Some(File::from(std::os::fd::OwnedFd::from(writer))), None);
        sinks.push(false, "x".into());
        assert!(matches!(sinks.write_some().await, Err(Trouble::ReaderGone)));
        assert!(write_all(&mut sinks).await.is_none());
    }
}
