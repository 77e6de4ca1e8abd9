//! How many connections may one user hold to the controller's own socket?
//!
//! Each is a file of this process, and without files neither an agent's call nor a segment of the
//! store can be opened. So the limit on files is raised as far as it goes, and no ordinary user gets
//! more than a part of it. Root and the controller's own user are not counted.

use std::collections::HashMap;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio_stream::Stream;
use tonic::transport::server::{Connected, UdsConnectInfo};
use tracing::{debug, warn};

/// Most connections of one user: each `sbatch --wait` is one.
const MOST_OF_ONE: u64 = 1_024;
/// The part of all files that one user may have, as a divisor.
const PART_OF_ONE: u64 = 4;

/// Raises this process's limit on files as far as it may; returns what it is then.
pub(super) fn raise_file_limit() -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else { return MOST_OF_ONE };
    if soft < hard && setrlimit(Resource::RLIMIT_NOFILE, hard, hard).is_ok() { hard } else { soft }
}

/// Connections to the controller's socket as they come; those beyond a user's limit are closed.
#[derive(Debug)]
pub(super) struct LocalConnections {
    listener: UnixListener,
    counts: Counts,
}

/// Connections of each uid.
#[derive(Debug, Clone)]
struct Counts {
    of_one: u64,
    held: Arc<Mutex<HashMap<u32, u64>>>,
}

/// A connection that is counted while it lives.
#[derive(Debug)]
pub(super) struct LocalConnection {
    stream: UnixStream,
    _slot: Option<Slot>,
}

/// One connection of a uid.
#[derive(Debug)]
struct Slot {
    uid: u32,
    counts: Counts,
}

impl LocalConnections {
    /// `files` is this process's limit.
    pub(super) fn new(listener: UnixListener, files: u64) -> Self {
        let of_one = MOST_OF_ONE.min(files / PART_OF_ONE).max(1);
        Self { listener, counts: Counts { of_one, held: Arc::default() } }
    }

    /// Takes a connection, unless its user has too many.
    fn admit(&self, stream: UnixStream) -> Option<LocalConnection> {
        let uid = match stream.peer_cred() {
            Ok(peer) => peer.uid(),
            Err(error) => {
                debug!(%error, "the kernel does not say who connected");
                return None;
            }
        };
        if uid == 0 || uid == nix::unistd::geteuid().as_raw() {
            return Some(LocalConnection { stream, _slot: None });
        }
        let slot = self.counts.take(uid)?;
        Some(LocalConnection { stream, _slot: Some(slot) })
    }
}

impl Stream for LocalConnections {
    type Item = io::Result<LocalConnection>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match self.listener.poll_accept(cx) {
                Poll::Ready(Ok((stream, _))) => {
                    if let Some(connection) = self.admit(stream) {
                        return Poll::Ready(Some(Ok(connection)));
                    }
                }
                Poll::Ready(Err(error)) => return Poll::Ready(Some(Err(error))),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl Counts {
    fn take(&self, uid: u32) -> Option<Slot> {
        let mut held = self.lock();
        let count = held.entry(uid).or_default();
        if *count >= self.of_one {
            return None;
        }
        *count += 1;
        if *count == self.of_one {
            warn!(uid, connections = self.of_one, "this user may open no more connections");
        }
        drop(held);
        Some(Slot { uid, counts: self.clone() })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u32, u64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut held = self.counts.lock();
        let left = held.get(&self.uid).map_or(0, |count| count.saturating_sub(1));
        if left == 0 {
            held.remove(&self.uid);
        } else {
            held.insert(self.uid, left);
        }
    }
}

impl Connected for LocalConnection {
    type ConnectInfo = UdsConnectInfo;

    fn connect_info(&self) -> Self::ConnectInfo {
        self.stream.connect_info()
    }
}

impl AsyncRead for LocalConnection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for LocalConnection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_can_be_taken_again() {
        let counts = Counts { of_one: 2, held: Arc::default() };
        let first = counts.take(7).expect("room");
        let second = counts.take(7).expect("room");
        assert!(counts.take(7).is_none());
        let other = counts.take(8).expect("another user has a limit of its own");
        drop(first);
        let third = counts.take(7).expect("room again");
        drop((second, third, other));
        assert!(counts.lock().is_empty());
    }

    #[tokio::test]
    async fn few_files_are_shared_out() {
        let dir = tempfile::tempdir().expect("a folder");
        for (files, expect) in [(100_000, MOST_OF_ONE), (400, 100), (1, 1)] {
            let listener = UnixListener::bind(dir.path().join(files.to_string())).expect("bound");
            assert_eq!(LocalConnections::new(listener, files).counts.of_one, expect);
        }
    }
}
