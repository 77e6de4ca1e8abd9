//! How does a test speak to a daemon without a command in between?

use std::path::Path;

use hyper_util::rt::TokioIo;
use penstock_proto::v1;
use penstock_proto::v1::penstock_client::PenstockClient;
use tokio::net::UnixStream;
use tonic::transport::{Channel, Endpoint};

use super::Cluster;

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

/// A request for a held job, for tests of who may send it and how often.
pub(crate) fn held_request(cluster: &Cluster) -> v1::SubmitJobRequest {
    v1::SubmitJobRequest {
        request_id: rand::random::<[u8; 16]>().to_vec().into(),
        spec: Some(v1::JobSpec {
            work_dir: cluster.work().display().to_string(),
            hold: true,
            ..v1::JobSpec::default()
        }),
        script: b"#!/bin/sh\n".to_vec().into(),
        environment: b"A=1\0".to_vec().into(),
    }
}

/// Submits a script with what no option of sbatch can say, such as a time limit in seconds; returns
/// the job's id.
pub(crate) fn submit(
    cluster: &Cluster,
    change: impl FnOnce(&mut v1::JobSpec),
    script: &str,
) -> u32 {
    submit_with(cluster, change, script, b"PATH=/usr/bin:/bin\0".to_vec())
}

/// The same with an environment: `NAME=VALUE`, each ended by a zero byte.
pub(crate) fn submit_with(
    cluster: &Cluster,
    change: impl FnOnce(&mut v1::JobSpec),
    script: &str,
    environment: Vec<u8>,
) -> u32 {
    let mut spec = v1::JobSpec {
        name: "raw".to_owned(),
        work_dir: cluster.work().display().to_string(),
        umask: 0o022,
        ..v1::JobSpec::default()
    };
    change(&mut spec);
    let request = v1::SubmitJobRequest {
        request_id: rand::random::<[u8; 16]>().to_vec().into(),
        spec: Some(spec),
        script: format!("#!/bin/bash\n{script}\n").into_bytes().into(),
        environment: environment.into(),
    };
    block_on(async {
        let mut rpc = rpc_at(&cluster.socket()).await;
        rpc.submit_job(request).await.expect("taken").into_inner().job_id
    })
}
