//! The way to a daemon, against one that answers as it is told.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex};

use penstock_proto::v1::penstock_server::{Penstock, PenstockServer};
use tonic::Request;

use super::*;

fn find(env: &[(&str, &str)], existing: &[&str]) -> Result<PathBuf, RemoteError> {
    let env: BTreeMap<&str, &str> = env.iter().copied().collect();
    find_socket(&|name| env.get(name).map(OsString::from), &|path| {
        existing.iter().any(|known| Path::new(known) == path)
    })
}

#[test]
fn the_environment_names_the_socket_first() {
    assert_eq!(find(&[("PENSTOCK_SOCKET", "/s")], &[CONTROLLER_SOCKET]), Ok("/s".into()));
    assert_eq!(find(&[("PENSTOCK_SOCKET", "")], &[AGENT_SOCKET]), Ok(AGENT_SOCKET.into()));
    assert_eq!(find(&[], &[]), Ok(CONTROLLER_SOCKET.into()));
}

#[test]
fn the_cluster_file_names_the_socket_that_exists() {
    let dir = tempfile::tempdir().expect("temporary folder");
    let file = dir.path().join("penstock.toml");
    let table = [
        ("[controller]\nsocket = \"/c\"\n[agent]\nsocket = \"/a\"\n", vec!["/c", "/a"], "/c"),
        ("[controller]\nsocket = \"/c\"\n[agent]\nsocket = \"/a\"\n", vec!["/a"], "/a"),
        ("[controller]\nsocket = \"/c\"\n[agent]\nsocket = \"/a\"\n", vec![], "/c"),
        ("[agent]\nsocket = \"/a\"\n", vec![], "/a"),
        ("[controller]\n[cluster]\nname = \"x\"\n", vec![], CONTROLLER_SOCKET),
    ];
    for (text, existing, expect) in table {
        std::fs::write(&file, text).expect("written");
        let named = file.to_str().expect("plain path");
        assert_eq!(find(&[("PENSTOCK_CONFIG", named)], &existing), Ok(expect.into()), "{text}");
    }
    std::fs::write(&file, "[cluster]\n").expect("written");
    let named = file.to_str().expect("plain path");
    assert!(find(&[("PENSTOCK_CONFIG", named)], &[]).is_err());
    assert!(find(&[("PENSTOCK_CONFIG", "/no/such/file")], &[]).is_err());
}

#[test]
fn details_that_are_a_refusal_are_decoded() {
    let refusal = v1::Refusal {
        kind: "InvalidPartition".into(),
        slurm_text: "Invalid partition name specified".into(),
        detail: "partition \"nope\" is unknown".into(),
    };
    let details = Bytes::from(refusal.encode_to_vec());
    let status = Status::with_details(Code::FailedPrecondition, "refused", details);
    assert_eq!(refusal_of(&status), Some(refusal));
    assert_eq!(refusal_of(&Status::unavailable("later")), None);
    let garbage = Bytes::from_static(b"\xff\xff");
    assert_eq!(refusal_of(&Status::with_details(Code::Internal, "x", garbage)), None);
}

#[test]
fn a_socket_that_is_not_there_is_told_with_its_path() {
    let client = Client::at("/no/such/socket".into()).expect("runtime");
    let patience =
        Patience { deadline: Duration::from_secs(5), retry_for: Duration::from_millis(120) };
    let mut tries = 0;
    let result = client.call(patience, |mut rpc| {
        tries += 1;
        async move { rpc.ping(v1::PingRequest {}).await }
    });
    match result {
        Err(RemoteError::Unreachable(text)) => {
            assert!(text.contains("/no/such/socket"), "{text}")
        }
        other => panic!("unexpected: {other:?}"),
    }
    assert!(tries >= 2, "one try only");
}

#[test]
fn request_ids_are_sixteen_bytes_and_differ() {
    assert_eq!(request_id().len(), 16);
    assert_ne!(request_id(), request_id());
}

/// What the fake controller answers, in order, and what it was asked.
#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Result<u32, Status>>>>,
    ids: Arc<Mutex<Vec<Bytes>>>,
}

/// A controller of which a few calls are real.
macro_rules! fake {
    ($($name:ident($request:ident) -> $reply:ident;)+) => {
        #[tonic::async_trait]
        impl Penstock for Script {
            type ListJobsStream = tokio_stream::Iter<std::vec::IntoIter<Result<v1::ListJobsReply, Status>>>;
            type ListAccountingStream = tokio_stream::Empty<Result<v1::ListAccountingReply, Status>>;

            async fn submit_job(
                &self,
                request: Request<v1::SubmitJobRequest>,
            ) -> Result<Response<v1::SubmitJobReply>, Status> {
                self.ids.lock().expect("not poisoned").push(request.into_inner().request_id);
                let answer = self.answers.lock().expect("not poisoned").pop_front();
                let job_id = answer.unwrap_or_else(|| Err(Status::internal("script is over")))?;
                Ok(Response::new(v1::SubmitJobReply { job_id, warnings: Vec::new() }))
            }

            async fn list_jobs(
                &self,
                _request: Request<v1::ListJobsRequest>,
            ) -> Result<Response<Self::ListJobsStream>, Status> {
                let part = |unknown: &str| {
                    Ok(v1::ListJobsReply { jobs: Vec::new(), unknown: vec![unknown.to_owned()] })
                };
                let end = match self.answers.lock().expect("not poisoned").pop_front() {
                    Some(Err(status)) => Err(status),
                    _ => part("2"),
                };
                Ok(Response::new(tokio_stream::iter(vec![part("1"), end])))
            }

            async fn list_accounting(
                &self,
                _request: Request<v1::ListAccountingRequest>,
            ) -> Result<Response<Self::ListAccountingStream>, Status> {
                Ok(Response::new(tokio_stream::empty()))
            }

            $(async fn $name(
                &self,
                _request: Request<v1::$request>,
            ) -> Result<Response<v1::$reply>, Status> {
                Err(Status::unimplemented(""))
            })+
        }
    };
}

fake! {
    submit_jobs(SubmitJobsRequest) -> SubmitJobsReply;
    cancel_jobs(CancelJobsRequest) -> CancelJobsReply;
    control_jobs(ControlJobsRequest) -> ControlJobsReply;
    update_job(UpdateJobRequest) -> UpdateJobReply;
    update_node(UpdateNodeRequest) -> UpdateNodeReply;
    list_nodes(ListNodesRequest) -> ListNodesReply;
    list_partitions(ListPartitionsRequest) -> ListPartitionsReply;
    show_config(ShowConfigRequest) -> ShowConfigReply;
    ping(PingRequest) -> PingReply;
    reconfigure(ReconfigureRequest) -> ReconfigureReply;
    get_batch_script(GetBatchScriptRequest) -> GetBatchScriptReply;
    wait_job(WaitJobRequest) -> WaitJobReply;
    create_token(CreateTokenRequest) -> CreateTokenReply;
    list_hosts(ListHostsRequest) -> ListHostsReply;
    reset_host(ResetHostRequest) -> ResetHostReply;
    revoke_host(RevokeHostRequest) -> RevokeHostReply;
}

/// A client of a fake controller that answers as `answers` say.
fn against(answers: Vec<Result<u32, Status>>) -> (tempfile::TempDir, Client, Script) {
    let dir = tempfile::tempdir().expect("temporary folder");
    let socket = dir.path().join("socket");
    let script = Script::default();
    script.answers.lock().expect("not poisoned").extend(answers);
    let served = script.clone();
    let listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
    listener.set_nonblocking(true).expect("set");
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("runtime").block_on(async {
            let listener = tokio::net::UnixListener::from_std(listener).expect("listener");
            let incoming = tokio_stream::wrappers::UnixListenerStream::new(listener);
            tonic::transport::Server::builder()
                .add_service(PenstockServer::new(served))
                .serve_with_incoming(incoming)
                .await
                .expect("served");
        });
    });
    let client = Client::at(socket).expect("runtime");
    (dir, client, script)
}

fn submit(client: &Client) -> Result<u32, RemoteError> {
    let request =
        v1::SubmitJobRequest { request_id: request_id(), ..v1::SubmitJobRequest::default() };
    let reply = client.call(Patience::CHANGE, |mut rpc| {
        let request = request.clone();
        async move { rpc.submit_job(request).await }
    });
    reply.map(|reply| reply.job_id)
}

#[test]
fn a_call_is_repeated_with_the_same_id_until_somebody_answers() {
    let answers =
        vec![Err(Status::unavailable("away")), Err(Status::resource_exhausted("full")), Ok(7)];
    let (_dir, client, script) = against(answers);
    assert_eq!(submit(&client), Ok(7));
    let ids = script.ids.lock().expect("not poisoned").clone();
    assert_eq!(ids.len(), 3);
    assert!(ids.iter().all(|id| *id == ids[0] && id.len() == 16));
}

#[test]
fn a_refusal_is_told_at_once() {
    let refusal = v1::Refusal {
        kind: "InvalidPartition".into(),
        slurm_text: "Invalid partition name specified".into(),
        detail: String::new(),
    };
    // Also where the code alone would be worth another try.
    let details = Bytes::from(refusal.encode_to_vec());
    let status = Status::with_details(Code::ResourceExhausted, "refused", details);
    let (_dir, client, script) = against(vec![Err(status)]);
    assert_eq!(submit(&client), Err(RemoteError::Refused(refusal)));
    assert_eq!(script.ids.lock().expect("not poisoned").len(), 1);
}

#[test]
fn an_error_of_ours_is_not_repeated() {
    let (_dir, client, script) = against(vec![Err(Status::internal("a bug")), Ok(1)]);
    match submit(&client) {
        Err(RemoteError::Failed(text)) => assert!(text.contains("a bug"), "{text}"),
        other => panic!("unexpected: {other:?}"),
    }
    assert_eq!(script.ids.lock().expect("not poisoned").len(), 1);
}

#[test]
fn a_stream_that_breaks_is_read_again_from_its_start() {
    let (_dir, client, _script) = against(vec![Err(Status::unavailable("away"))]);
    let replies = client
        .collect(Patience::READ, |mut rpc| async move {
            rpc.list_jobs(v1::ListJobsRequest::default()).await
        })
        .expect("the second try");
    let unknown: Vec<&str> = replies.iter().map(|reply| reply.unknown[0].as_str()).collect();
    assert_eq!(unknown, ["1", "2"]);
}

#[test]
fn a_connection_that_breaks_off_is_worth_another_try() {
    let broken = std::io::Error::from(std::io::ErrorKind::BrokenPipe);
    let mine = Status::from_error(Box::new(broken));
    assert_eq!(mine.code(), Code::Unknown);
    assert!(is_transient(&mine));
    // The daemon's own word for a fault of its own is final.
    assert!(!is_transient(&Status::unknown("what happened?")));
    assert!(!is_transient(&Status::internal("a bug")));
}
