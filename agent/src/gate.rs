//! How do commands on this host reach the controller?
//!
//! Through a local socket that everybody may connect to. The gate knows from the kernel who did,
//! says so in headers that it alone sets, and passes the call on over the host's mutual-TLS
//! channel, unread. Only calls of the services for users pass: on that channel the controller
//! takes the host's own calls for the host's, and users must not make those.
//!
//! No user can stop another: connections and calls are counted for each uid, every call has its
//! own flow control, and a connection that does nothing is closed. A process that is merely
//! stopped keeps its call, since the person may continue it.

mod connection;
mod proxy;
mod quota;
mod socket;
#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;
use tracing::{debug, warn};

pub(crate) use socket::GateError;

use proxy::Upstream;
use quota::Quota;
use socket::Listener;

/// What the gate lets through. Files are the scarce thing: a connection takes one, and the agent
/// needs some for the jobs.
#[derive(Debug, Clone)]
struct Limits {
    connections: usize,
    connections_of_one: usize,
    calls: usize,
    calls_of_one: usize,
    /// Calls that last as long as a step or a job does, apart from the others.
    lasting: usize,
    lasting_of_one: usize,
    /// From the connection until its first call.
    first_call: Duration,
    /// Without any call, after the first.
    idle: Duration,
    /// From the word to close until the connection is cut.
    grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        // Each srun and salloc on this host has one for as long as it lasts.
        let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        let files = files.and_then(|files| usize::try_from(files).ok()).unwrap_or(usize::MAX);
        let connections = (files / 4 * 3).clamp(MIN_CONNECTIONS, MAX_CONNECTIONS);
        Self {
            connections,
            connections_of_one: connections / 3,
            calls: 1_024,
            calls_of_one: 256,
            lasting: 4_096,
            lasting_of_one: 1_024,
            first_call: Duration::from_secs(10),
            idle: Duration::from_secs(60),
            grace: Duration::from_secs(2),
        }
    }
}

/// Connections at a time, by how many files this process may have open.
const MIN_CONNECTIONS: usize = 48;
const MAX_CONNECTIONS: usize = 4_096;

/// After a failed accept, mostly for want of files, so that the loop does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The socket, bound; calls wait in its backlog until [`Gate::serve`] runs.
#[derive(Debug)]
pub(crate) struct Gate {
    listener: Listener,
    limits: Limits,
}

impl Gate {
    /// Binds the socket at `path`, mode 0666, making its folder (0755) where needed. A socket that
    /// nobody listens on is replaced. Needs a tokio runtime.
    ///
    /// # Errors
    /// Where the path is too long, is something else than a socket, or another process listens.
    pub(crate) fn bind(path: &Path) -> Result<Self, GateError> {
        Ok(Self { listener: Listener::bind(path)?, limits: Limits::default() })
    }

    /// Passes calls on over the newest channel until `shutdown`; then calls that are on their way
    /// have two seconds to end, and the socket is removed. While there is no channel, since the
    /// host has not joined yet, calls are told so. `controller` is the address that texts name.
    pub(crate) async fn serve(
        self,
        channel: watch::Receiver<Option<Channel>>,
        controller: &str,
        shutdown: CancellationToken,
    ) {
        let Self { listener, limits } = self;
        let upstream = Arc::new(Upstream {
            channel,
            controller: controller.to_owned(),
            calls: Quota::new(limits.calls, limits.calls_of_one),
            lasting: Quota::new(limits.lasting, limits.lasting_of_one),
        });
        let slots = Quota::new(limits.connections, limits.connections_of_one);
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(ended) = connections.join_next() => log_panic(ended),
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => match slots.take(peer.uid) {
                        Some(slot) => {
                            let closing = shutdown.clone();
                            let (limits, upstream) = (limits.clone(), Arc::clone(&upstream));
                            connections.spawn(async move {
                                connection::serve(stream, peer, upstream, &limits, closing).await;
                                drop(slot);
                            });
                        }
                        None => debug!(uid = peer.uid, "too many connections; one is refused"),
                    },
                    Err(err) => {
                        warn!(error = %err, "a command's connection could not be accepted");
                        sleep(ACCEPT_PAUSE).await;
                    }
                },
            }
        }
        drop(listener);
        let drain = async {
            while let Some(ended) = connections.join_next().await {
                log_panic(ended);
            }
        };
        if timeout(limits.grace * 2, drain).await.is_err() {
            connections.shutdown().await;
        }
    }
}

fn log_panic(ended: Result<(), tokio::task::JoinError>) {
    if let Err(err) = ended {
        warn!(error = %err, "a command's connection ended by a fault of ours");
    }
}
