//! How does quickstart wait for processes, for a while, and for Ctrl-C at once?
//!
//! A thread of its own hears SIGINT, SIGTERM and SIGHUP and writes a byte for each into a socket
//! pair; waiting is one `poll` over that and over pidfds.

use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Woke {
    /// A signal to end; it is used up.
    Signal,
    /// The descriptor of this place in the list: for a pidfd, that process has ended.
    Descriptor(usize),
    /// The time was up.
    Timeout,
}

/// Signals that ask quickstart to end. From now on they end nothing by themselves.
#[derive(Debug)]
pub(super) struct Interrupt {
    heard: UnixStream,
}

impl Interrupt {
    /// Begins to listen.
    pub(super) fn install() -> Result<Self, Failure> {
        Self::begin().map_err(Failure::system("listen for signals"))
    }

    fn begin() -> io::Result<Self> {
        let (heard, mut tell) = UnixStream::pair()?;
        heard.set_nonblocking(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let [mut int, mut term, mut hup] = {
            let _inside = runtime.enter();
            [
                signal(SignalKind::interrupt())?,
                signal(SignalKind::terminate())?,
                signal(SignalKind::hangup())?,
            ]
        };
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            runtime.block_on(async {
                loop {
                    tokio::select! {
                        _ = int.recv() => (),
                        _ = term.recv() => (),
                        _ = hup.recv() => (),
                    }
                    if tell.write_all(b"!").is_err() {
                        return;
                    }
                }
            });
        })?;
        Ok(Self { heard })
    }

    /// Waits for a signal, for one of `descriptors` to be ready, or until `timeout` is over (`None`:
    /// for ever).
    pub(super) fn wait(
        &self,
        descriptors: &[BorrowedFd<'_>],
        timeout: Option<Duration>,
    ) -> Result<Woke, Failure> {
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let left = left.map(|left| Timespec {
                tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            });
            let mut fds = vec![PollFd::from_borrowed_fd(self.heard.as_fd(), PollFlags::IN)];
            let all = descriptors.iter().map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN));
            fds.extend(all);
            match poll(&mut fds, left.as_ref()) {
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(Failure::system("wait")(error.into())),
                Ok(0) => return Ok(Woke::Timeout),
                Ok(_) => {}
            }
            let ready = fds.iter().position(|fd| !fd.revents().is_empty());
            match ready {
                Some(0) if self.use_up() => return Ok(Woke::Signal),
                Some(0) | None => {}
                Some(place) => return Ok(Woke::Descriptor(place - 1)),
            }
        }
    }

    /// Waits for a while, unless a signal comes.
    ///
    /// # Errors
    /// [`Failure::Interrupted`] when one came.
    pub(super) fn pause(&self, duration: Duration) -> Result<(), Failure> {
        match self.wait(&[], Some(duration))? {
            Woke::Signal => Err(Failure::Interrupted),
            Woke::Descriptor(_) | Woke::Timeout => Ok(()),
        }
    }

    fn use_up(&self) -> bool {
        let mut byte = [0];
        matches!((&self.heard).read(&mut byte), Ok(1))
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn descriptor_wakes_and_time_runs_out() {
        let interrupt = Interrupt::install().unwrap();
        let (here, mut there) = UnixStream::pair().unwrap();
        let woke = interrupt.wait(&[here.as_fd()], Some(Duration::from_millis(1))).unwrap();
        assert_eq!(woke, Woke::Timeout);
        there.write_all(b"x").unwrap();
        let woke = interrupt.wait(&[here.as_fd()], None).unwrap();
        assert_eq!(woke, Woke::Descriptor(0));
    }
}
