//! How does a test speak to a daemon without a command in between?

use std::path::Path;

use hyper_util::rt::TokioIo;
use penstock_proto::v1::penstock_client::PenstockClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

/// A client of the users' service.
pub(crate) type Rpc = PenstockClient<Channel>;

/// Runs a future on a small runtime of its own.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(future)
}

/// A client of the daemon behind a socket.
pub(crate) async fn rpc_at(socket: &Path) -> Rpc {
    let path = socket.to_owned();
    let connect = tower::service_fn(move |_| {
        let path = path.clone();
        async move { UnixStream::connect(path).await.map(TokioIo::new) }
    });
    let channel = Endpoint::from_static("http://local").connect_with_connector(connect).await;
    PenstockClient::new(channel.expect("the daemon takes a connection"))
        .max_encoding_message_size(usize::MAX)
        .max_decoding_message_size(penstock_proto::MAX_MESSAGE_BYTES)
}
