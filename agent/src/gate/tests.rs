//! The gate between a real client and a real server.

use std::fs;
use std::net::Shutdown;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use penstock_proto::v1::agent_link_client::AgentLinkClient;
use penstock_proto::v1::penstock_client::PenstockClient;
use penstock_proto::v1::penstock_server::{Penstock, PenstockServer};
use penstock_proto::v1::steps_client::StepsClient;
use penstock_proto::v1::*;
use penstock_proto::{GID_HEADER, UID_HEADER};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Code, Request, Response, Status};

use super::{Gate, Limits};

/// A controller that answers a ping with the headers it got, and `WaitJob` when it is let.
struct Controller {
    waiting: Arc<Semaphore>,
    ended: Arc<Semaphore>,
}

type Answer<T> = Result<Response<T>, Status>;
type Jobs<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

macro_rules! unused {
    ($($name:ident($request:ty) -> $reply:ty;)*) => {$(
        fn $name<'a, 'b>(
            &'a self,
            _request: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Answer<$reply>> + Send + 'b>>
        where
            'a: 'b,
            Self: 'b,
        {
            Box::pin(async { Err(Status::unimplemented("not in this test")) })
        }
    )*};
}

#[tonic::async_trait]
impl Penstock for Controller {
    type ListJobsStream = Jobs<ListJobsReply>;
    type ListAccountingStream = Jobs<ListAccountingReply>;

    async fn ping(&self, request: Request<PingRequest>) -> Answer<PingReply> {
        let mut headers: Vec<_> = request
            .metadata()
            .as_ref()
            .iter()
            .filter(|(name, _)| name.as_str().starts_with("penstock-"))
            .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
            .collect();
        headers.sort();
        Ok(Response::new(PingReply { version: headers.join(" "), ..PingReply::default() }))
    }

    async fn list_jobs(&self, _: Request<ListJobsRequest>) -> Answer<Self::ListJobsStream> {
        let some = ListJobsReply { unknown: vec!["7".into()], ..ListJobsReply::default() };
        let refusal = Status::with_details(Code::FailedPrecondition, "no", vec![1, 2].into());
        Ok(Response::new(Box::pin(tokio_stream::iter([Ok(some), Err(refusal)]))))
    }

    async fn wait_job(&self, _: Request<WaitJobRequest>) -> Answer<WaitJobReply> {
        self.waiting.add_permits(1);
        self.ended.acquire().await.unwrap().forget();
        Ok(Response::new(WaitJobReply::default()))
    }

    unused! {
        submit_job(SubmitJobRequest) -> SubmitJobReply;
        submit_jobs(SubmitJobsRequest) -> SubmitJobsReply;
        cancel_jobs(CancelJobsRequest) -> CancelJobsReply;
        control_jobs(ControlJobsRequest) -> ControlJobsReply;
        update_job(UpdateJobRequest) -> UpdateJobReply;
        update_node(UpdateNodeRequest) -> UpdateNodeReply;
        list_accounting(ListAccountingRequest) -> Jobs<ListAccountingReply>;
        list_nodes(ListNodesRequest) -> ListNodesReply;
        list_partitions(ListPartitionsRequest) -> ListPartitionsReply;
        show_config(ShowConfigRequest) -> ShowConfigReply;
        reconfigure(ReconfigureRequest) -> ReconfigureReply;
        get_batch_script(GetBatchScriptRequest) -> GetBatchScriptReply;
        create_token(CreateTokenRequest) -> CreateTokenReply;
        list_hosts(ListHostsRequest) -> ListHostsReply;
        reset_host(ResetHostRequest) -> ResetHostReply;
        revoke_host(RevokeHostRequest) -> RevokeHostReply;
    }
}

struct World {
    _tmp: tempfile::TempDir,
    socket: PathBuf,
    waiting: Arc<Semaphore>,
    ended: Arc<Semaphore>,
    shutdown: CancellationToken,
    gate: JoinHandle<()>,
    /// Second handles of the gate's connections to the controller.
    behind: Arc<Mutex<Vec<StdUnixStream>>>,
}

fn world(limits: Limits) -> World {
    let tmp = tempfile::tempdir().unwrap();
    let (waiting, ended) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let behind = tmp.path().join("controller.sock");
    let service = Controller { waiting: Arc::clone(&waiting), ended: Arc::clone(&ended) };
    let listener = UnixListener::bind(&behind).unwrap();
    let connections = Arc::<Mutex<Vec<StdUnixStream>>>::default();
    let kept = Arc::clone(&connections);
    let incoming = UnixListenerStream::new(listener).map(move |stream| {
        let handle = stream.as_ref().unwrap().as_fd().try_clone_to_owned().unwrap();
        kept.lock().unwrap().push(handle.into());
        stream
    });
    tokio::spawn(
        Server::builder().add_service(PenstockServer::new(service)).serve_with_incoming(incoming),
    );
    let socket = tmp.path().join("agent.sock");
    let mut gate = Gate::bind(&socket).unwrap();
    gate.limits = limits;
    let shutdown = CancellationToken::new();
    let (channel, closing) = (watch::Sender::new(Some(channel(&behind))), shutdown.clone());
    let gate =
        tokio::spawn(async move { gate.serve(channel.subscribe(), "head:6820", closing).await });
    World { _tmp: tmp, socket, waiting, ended, shutdown, gate, behind: connections }
}

fn channel(socket: &Path) -> Channel {
    let socket = socket.to_owned();
    let connector = tower::service_fn(move |_: http::Uri| {
        let socket = socket.clone();
        async move { UnixStream::connect(socket).await.map(TokioIo::new) }
    });
    Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector)
}

impl World {
    fn client(&self) -> PenstockClient<Channel> {
        PenstockClient::new(channel(&self.socket))
    }

    /// A call that the controller is busy with when this returns.
    async fn wait_job(&self) -> JoinHandle<Answer<WaitJobReply>> {
        let mut client = self.client();
        let call = tokio::spawn(async move { client.wait_job(WaitJobRequest::default()).await });
        self.waiting.acquire().await.unwrap().forget();
        call
    }
}

async fn ping(mut client: PenstockClient<Channel>) -> Result<String, Status> {
    client.ping(PingRequest {}).await.map(|reply| reply.into_inner().version)
}

fn us() -> String {
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    format!("{GID_HEADER}={gid} {UID_HEADER}={uid}")
}

#[tokio::test]
async fn the_controller_hears_the_kernels_uid_and_nothing_that_the_client_made_up() {
    let world = world(Limits::default());
    let mut request = Request::new(PingRequest {});
    for (name, value) in [(UID_HEADER, "12345"), (GID_HEADER, "12345"), ("penstock-role", "x")] {
        request.metadata_mut().append(name, value.parse().unwrap());
    }
    let reply = world.client().ping(request).await.unwrap().into_inner();
    assert_eq!(reply.version, us());
}

#[tokio::test]
async fn streams_and_refusals_pass_whole() {
    let world = world(Limits::default());
    let answer = world.client().list_jobs(ListJobsRequest::default()).await.unwrap();
    let mut jobs = answer.into_inner();
    assert_eq!(jobs.message().await.unwrap().unwrap().unknown, ["7"]);
    let refusal = jobs.message().await.unwrap_err();
    assert_eq!((refusal.code(), refusal.message()), (Code::FailedPrecondition, "no"));
    assert_eq!(refusal.details(), [1, 2]);
}

#[tokio::test]
async fn users_cannot_speak_as_the_host() {
    let world = world(Limits::default());
    let mut link = AgentLinkClient::new(channel(&world.socket));
    let err = link.join(JoinRequest::default()).await.unwrap_err();
    assert_eq!(err.code(), Code::Unimplemented);
    assert!(err.message().contains("not for users"), "{err}");
}

#[tokio::test]
async fn an_unreachable_controller_is_said_and_the_gate_recovers() {
    let tmp = tempfile::tempdir().unwrap();
    let (socket, behind) = (tmp.path().join("agent.sock"), tmp.path().join("controller.sock"));
    let gate = Gate::bind(&socket).unwrap();
    let upstream = watch::Sender::new(None);
    let newest = upstream.subscribe();
    tokio::spawn(async move {
        gate.serve(newest, "head:6820", CancellationToken::new()).await;
    });
    let client = PenstockClient::new(channel(&socket));
    let err = ping(client.clone()).await.unwrap_err();
    assert_eq!(err.code(), Code::Unavailable);
    assert!(err.message().contains("has not joined"), "{err}");

    upstream.send_replace(Some(channel(&behind)));
    let err = ping(client.clone()).await.unwrap_err();
    assert_eq!(err.code(), Code::Unavailable);
    assert!(err.message().contains("head:6820: No such file"), "{err}");

    let none = || Arc::new(Semaphore::new(0));
    let service = Controller { waiting: none(), ended: none() };
    let listener = UnixListener::bind(&behind).unwrap();
    tokio::spawn(
        Server::builder()
            .add_service(PenstockServer::new(service))
            .serve_with_incoming(UnixListenerStream::new(listener)),
    );
    assert_eq!(ping(client).await.unwrap(), us());
}

#[tokio::test]
async fn a_call_whose_connection_breaks_may_be_retried() {
    let world = world(Limits::default());
    let call = world.wait_job().await;
    for connection in world.behind.lock().unwrap().drain(..) {
        connection.shutdown(Shutdown::Both).unwrap();
    }
    let err = call.await.unwrap().unwrap_err();
    assert_eq!(err.code(), Code::Unavailable, "{err}");
    assert!(err.message().contains("try again"), "{err}");
    assert_eq!(ping(world.client()).await.unwrap(), us());
}

#[tokio::test]
async fn garbage_ends_its_own_connection_only() {
    let world = world(Limits::default());
    let mut stream = UnixStream::connect(&world.socket).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n\0\xff\xff garbage").await.unwrap();
    let mut rest = Vec::new();
    // Closed, cleanly or not; what the server said on the way does not matter.
    drop(stream.read_to_end(&mut rest).await);
    assert_eq!(ping(world.client()).await.unwrap(), us());
}

#[tokio::test]
async fn clients_that_hang_hold_nobody_up() {
    let world = world(Limits::default());
    let _silent = UnixStream::connect(&world.socket).await.unwrap();
    let mut half = UnixStream::connect(&world.socket).await.unwrap();
    half.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let call = world.wait_job().await;
    assert_eq!(ping(world.client()).await.unwrap(), us());
    world.ended.add_permits(1);
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_that_does_nothing_is_closed() {
    let short = Duration::from_millis(20);
    let limits = Limits { first_call: short, idle: short, grace: short, ..Limits::default() };
    let world = world(limits);
    for first_bytes in [&b""[..], b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
        let mut stream = UnixStream::connect(&world.socket).await.unwrap();
        stream.write_all(first_bytes).await.unwrap();
        let mut rest = Vec::new();
        drop(stream.read_to_end(&mut rest).await);
    }
    let call = world.wait_job().await;
    assert_eq!(ping(world.client()).await.unwrap(), us());
    tokio::time::sleep(short * 4).await;
    assert!(!call.is_finished(), "a call that waits is not idle");
    world.ended.add_permits(1);
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_user_with_too_many_calls_is_told_so_until_one_ends() {
    let world = world(Limits { calls_of_one: 1, ..Limits::default() });
    let call = world.wait_job().await;
    let err = ping(world.client()).await.unwrap_err();
    assert_eq!(err.code(), Code::ResourceExhausted);
    assert!(err.message().contains("too many calls"), "{err}");
    world.ended.add_permits(1);
    call.await.unwrap().unwrap();
    // The slot is given back when the answer is through, a moment after the client has it.
    while ping(world.client()).await.is_err() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn calls_that_last_as_long_as_a_step_are_counted_apart() {
    let watch = |client: Channel| async move {
        let request = WatchStepRequest { job_id: 7, step: 0 };
        StepsClient::new(client).watch_step(request).await.unwrap_err().code()
    };
    let world = world(Limits { calls_of_one: 1, lasting_of_one: 1, ..Limits::default() });
    let call = world.wait_job().await;
    // The controller of this test knows no steps; the gate lets the call through to it.
    assert_eq!(watch(channel(&world.socket)).await, Code::Unimplemented);
    world.ended.add_permits(1);
    call.await.unwrap().unwrap();
    let world = self::world(Limits { lasting_of_one: 0, ..Limits::default() });
    assert_eq!(watch(channel(&world.socket)).await, Code::ResourceExhausted);
    assert_eq!(ping(world.client()).await.unwrap(), us());
}

#[tokio::test]
async fn a_user_with_too_many_connections_gets_no_more() {
    let world = world(Limits { connections_of_one: 1, ..Limits::default() });
    let call = world.wait_job().await;
    let mut more = UnixStream::connect(&world.socket).await.unwrap();
    let mut rest = Vec::new();
    drop(more.read_to_end(&mut rest).await);
    assert!(rest.is_empty());
    world.ended.add_permits(1);
    call.await.unwrap().unwrap();
}

#[tokio::test]
async fn shutdown_ends_calls_and_removes_the_socket() {
    let limits = Limits { grace: Duration::from_millis(20), ..Limits::default() };
    let world = world(limits);
    let call = world.wait_job().await;
    world.shutdown.cancel();
    world.gate.await.unwrap();
    assert!(call.await.unwrap().is_err());
    assert!(fs::symlink_metadata(&world.socket).is_err());
}
