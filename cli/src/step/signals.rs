//! Which signals has this process got?

use std::io;
use std::task::Poll;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What srun hears, beside changes of its window.
pub(crate) const SRUN: [i32; 6] =
    [libc::SIGINT, libc::SIGQUIT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2];

/// Signals as they come. They are caught from the moment of the call on.
#[derive(Debug)]
pub(crate) struct Signals {
    caught: Vec<(i32, Signal)>,
}

impl Signals {
    /// Catches these. Needs the runtime.
    ///
    /// # Errors
    /// When the process has no descriptors left.
    pub(crate) fn catch(numbers: &[i32]) -> io::Result<Self> {
        let one = |number: &i32| Ok((*number, signal(SignalKind::from_raw(*number))?));
        Ok(Self { caught: numbers.iter().map(one).collect::<io::Result<_>>()? })
    }

    /// The next one. Loses none when it is dropped.
    pub(crate) async fn next(&mut self) -> i32 {
        std::future::poll_fn(|context| {
            for (number, signal) in &mut self.caught {
                if signal.poll_recv(context).is_ready() {
                    return Poll::Ready(*number);
                }
            }
            Poll::Pending
        })
        .await
    }
}
