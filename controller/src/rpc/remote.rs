//! Which TCP connections are worth a TLS handshake?
//!
//! One that says nothing would hold a file of this process for ever. So a connection is handed on only
//! once its first bytes have come, and few may be waited for at a time.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tracing::debug;

/// How long a connection may be silent before its first bytes.
const PATIENCE: Duration = Duration::from_secs(10);
/// Connections that are waited for at once; more wait in the kernel's queue.
const WAITED_FOR: usize = 1_024;
/// Connections ready for their handshake.
const READY: usize = 64;
/// Pause after the system gave no connection, for want of files, say.
const PAUSE: Duration = Duration::from_millis(100);

/// Connections whose first bytes have come. Ends with `stop`.
pub(super) fn spoken(
    listener: TcpListener,
    stop: CancellationToken,
) -> ReceiverStream<io::Result<TcpStream>> {
    let (sender, receiver) = mpsc::channel(READY);
    tokio::spawn(async move {
        tokio::select! {
            () = accept(listener, sender) => {}
            () = stop.cancelled() => {}
        }
    });
    ReceiverStream::new(receiver)
}

async fn accept(listener: TcpListener, sender: mpsc::Sender<io::Result<TcpStream>>) {
    let places = Arc::new(Semaphore::new(WAITED_FOR));
    let mut waits = JoinSet::new();
    loop {
        while waits.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                debug!(%error, "no connection was given");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        let sender = sender.clone();
        waits.spawn(async move {
            // Orders and reports are small and must not wait for each other.
            let spoke = stream.set_nodelay(true).is_ok()
                && matches!(tokio::time::timeout(PATIENCE, stream.peek(&mut [0])).await, Ok(Ok(1)));
            drop(place);
            if spoke && sender.send(Ok(stream)).await.is_err() {
                debug!("a connection came while the controller goes down");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio_stream::StreamExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_silent_connection_is_dropped_and_holds_nobody_up() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut incoming = spoken(listener, CancellationToken::new());
        let silent = TcpStream::connect(address).await.unwrap();
        let mut speaks = TcpStream::connect(address).await.unwrap();
        speaks.write_all(b"hello").await.unwrap();
        let first = incoming.next().await.unwrap().unwrap();
        assert_eq!(first.peer_addr().unwrap(), speaks.local_addr().unwrap());
        // The other end closes it once patience is over.
        silent.readable().await.unwrap();
        assert_eq!(silent.try_read(&mut [0; 8]).unwrap(), 0);
    }
}
