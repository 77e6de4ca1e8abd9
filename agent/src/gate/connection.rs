//! How long does one connection of a command live?

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::Limits;
use super::proxy::{Proxy, Upstream};
use super::socket::Peer;

/// Calls on one connection at a time; commands make one, libraries some.
const MAX_STREAMS: u32 = 128;
/// What a client may send ahead of the controller; small, since each connection may use it.
const WINDOW_BYTES: u32 = 128 << 10;
/// What may wait for a client that does not read.
const SEND_BUFFER_BYTES: usize = 64 << 10;
const MAX_HEADER_BYTES: u32 = 16 << 10;

/// Serves one connection until the client leaves, it has been idle too long, or `shutdown`.
/// Bytes that are no HTTP/2 end it.
pub(super) async fn serve(
    stream: UnixStream,
    peer: Peer,
    upstream: Arc<Upstream>,
    limits: &Limits,
    shutdown: CancellationToken,
) {
    let activity = Activity::default();
    let proxy = Proxy { upstream, peer, activity: activity.clone() };
    let builder = server();
    let mut connection =
        pin!(builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(proxy)));
    let mut end = None;
    loop {
        let wake = end.unwrap_or_else(|| activity.idle_until(limits));
        tokio::select! {
            ended = connection.as_mut() => {
                if let Err(err) = ended {
                    debug!(uid = peer.uid, error = %err, "a command's connection broke");
                }
                return;
            }
            () = shutdown.cancelled(), if end.is_none() => {}
            () = sleep_until(wake) => {
                if end.is_some() {
                    return;
                }
                if Instant::now() < activity.idle_until(limits) {
                    continue;
                }
            }
        }
        // A connection in its handshake takes no notice of this; the end cuts it.
        connection.as_mut().graceful_shutdown();
        end = Some(Instant::now() + limits.grace);
    }
}

fn server() -> Builder<TokioExecutor> {
    let mut builder = Builder::new(TokioExecutor::new()).http2_only();
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_send_buf_size(SEND_BUFFER_BYTES)
        .max_header_list_size(MAX_HEADER_BYTES);
    builder
}

/// What goes on on a connection; clones share it.
#[derive(Debug, Clone)]
pub(super) struct Activity(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    calls: usize,
    had_a_call: bool,
    last: Instant,
}

/// A call that is on its way; ended by the drop.
#[derive(Debug)]
pub(super) struct Busy(Activity);

impl Default for Activity {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(State { calls: 0, had_a_call: false, last: Instant::now() })))
    }
}

impl Activity {
    pub(super) fn begin(&self) -> Busy {
        let mut state = self.lock();
        state.calls += 1;
        state.had_a_call = true;
        drop(state);
        Busy(self.clone())
    }

    /// When the connection will have been idle too long, were nothing more to happen.
    fn idle_until(&self, limits: &Limits) -> Instant {
        let state = self.lock();
        let from = if state.calls > 0 { Instant::now() } else { state.last };
        from + if state.had_a_call { limits.idle } else { limits.first_call }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.calls -= 1;
        state.last = Instant::now();
    }
}
