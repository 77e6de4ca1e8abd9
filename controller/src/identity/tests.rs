//! Real handshakes against the controller's TLS configuration.

use std::path::Path;
use std::sync::Arc;

use penstock_proto::v1::agent_link_client::AgentLinkClient;
use penstock_proto::v1::agent_link_server::{AgentLink, AgentLinkServer};
use penstock_proto::v1::{AgentMessage, ControllerMessage, JoinReply, JoinRequest};
use penstock_proto::{GID_HEADER, UID_HEADER};
use rcgen::{CertificateParams, KeyPair};
use tokio::net::TcpListener;
use tokio_stream::Empty;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity, Server};
use tonic::{Code, Request, Response, Status, Streaming};

use super::*;

/// Answers with what the interceptor made of the caller.
struct Mirror;

#[tonic::async_trait]
impl AgentLink for Mirror {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let caller = caller_of(&request)?;
        let cluster = format!("{} {} via {}", caller.uid, caller.gid, caller.via);
        Ok(Response::new(JoinReply { cluster, ..JoinReply::default() }))
    }

    type AttachStream = Empty<Result<ControllerMessage, Status>>;

    async fn attach(
        &self,
        _request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("not in this test"))
    }
}

struct Directory(Vec<([u8; 32], HostIdentity)>);

impl HostDirectory for Directory {
    fn by_key(&self, key_hash: &[u8; 32]) -> Option<HostIdentity> {
        self.0.iter().find(|(key, _)| key == key_hash).map(|(_, host)| host.clone())
    }
}

struct Host {
    identity: Identity,
    key_hash: [u8; 32],
}

fn host(ca: &Ca, name: &str, role: HostRole) -> Host {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap();
    let signed = ca.sign(csr.der(), name, role).unwrap();
    let identity = Identity::from_pem(signed.certificate_pem, key.serialize_pem());
    Host { identity, key_hash: signed.key_hash }
}

fn ca(dir: &Path, name: &str) -> Ca {
    Ca::open_or_create(&dir.join(name)).unwrap()
}

/// Serves [`Mirror`] with `ca` on a free port and returns that.
async fn serve(ca: &Ca, directory: Directory) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let interceptor = CallerInterceptor::new(Arc::new(directory));
    let service = InterceptedService::new(AgentLinkServer::new(Mirror), interceptor);
    let server = Server::builder()
        .tls_config(server_tls_config(ca).unwrap())
        .unwrap()
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    port
}

/// One call to `port`, trusting `trusted`, as `identity`, with these headers.
async fn call(
    port: u16,
    trusted: &Ca,
    identity: Option<&Identity>,
    headers: &[(&'static str, &'static str)],
) -> Result<String, Status> {
    let mut tls = ClientTlsConfig::new()
        .domain_name(SERVER_NAME)
        .ca_certificate(Certificate::from_pem(trusted.certificate_pem()));
    if let Some(identity) = identity {
        tls = tls.identity(identity.clone());
    }
    let channel = Endpoint::from_shared(format!("https://127.0.0.1:{port}"))
        .and_then(|endpoint| endpoint.tls_config(tls))
        .unwrap()
        .connect_lazy();
    let mut request = Request::new(JoinRequest::default());
    for (name, value) in headers {
        request.metadata_mut().append(*name, value.parse().unwrap());
    }
    AgentLinkClient::new(channel).join(request).await.map(|reply| reply.into_inner().cluster)
}

const AS_ALICE: &[(&str, &str)] = &[(UID_HEADER, "1000"), (GID_HEADER, "100")];

#[tokio::test]
async fn a_joined_host_is_known_by_its_key_and_speaks_for_its_user() {
    let tmp = tempfile::tempdir().unwrap();
    let ca = ca(tmp.path(), "ca");
    // The certificate says login, the records say compute: the records count.
    let n1 = host(&ca, "other-name", HostRole::Login);
    let known = HostIdentity { name: "n1".into(), role: HostRole::Compute, revoked: false };
    let port = serve(&ca, Directory(vec![(n1.key_hash, known)])).await;
    let seen = call(port, &ca, Some(&n1.identity), AS_ALICE).await.unwrap();
    assert_eq!(seen, "1000 100 via compute host n1");
    let err = call(port, &ca, Some(&n1.identity), &[]).await.unwrap_err();
    assert_eq!(err.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn strangers_and_the_revoked_are_refused_whatever_they_state() {
    let tmp = tempfile::tempdir().unwrap();
    let ca = ca(tmp.path(), "ca");
    let (gone, reset) = (host(&ca, "n1", HostRole::Admin), host(&ca, "n2", HostRole::Admin));
    let known = HostIdentity { name: "n1".into(), role: HostRole::Admin, revoked: true };
    let port = serve(&ca, Directory(vec![(gone.key_hash, known)])).await;
    let cases = [
        (None, "no client certificate"),
        (Some(&gone.identity), "revoked"),
        (Some(&reset.identity), "join again"),
    ];
    for (identity, text) in cases {
        let err = call(port, &ca, identity, AS_ALICE).await.unwrap_err();
        assert_eq!(err.code(), Code::Unauthenticated);
        assert!(err.message().contains(text), "{err}");
    }
}

#[tokio::test]
async fn a_certificate_of_another_ca_does_not_even_connect() {
    let tmp = tempfile::tempdir().unwrap();
    let (ours, theirs) = (ca(tmp.path(), "ours"), ca(tmp.path(), "theirs"));
    let impostor = host(&theirs, "n1", HostRole::Admin);
    let known = HostIdentity { name: "n1".into(), role: HostRole::Admin, revoked: false };
    let port = serve(&ours, Directory(vec![(impostor.key_hash, known)])).await;
    let err = call(port, &ours, Some(&impostor.identity), AS_ALICE).await.unwrap_err();
    assert_ne!(err.code(), Code::Unauthenticated, "the handshake itself must fail: {err}");
}

#[tokio::test]
async fn a_host_does_not_talk_to_a_controller_of_another_ca() {
    let tmp = tempfile::tempdir().unwrap();
    let (ours, theirs) = (ca(tmp.path(), "ours"), ca(tmp.path(), "theirs"));
    let n1 = host(&ours, "n1", HostRole::Compute);
    let known = HostIdentity { name: "n1".into(), role: HostRole::Compute, revoked: false };
    let port = serve(&theirs, Directory(vec![(n1.key_hash, known)])).await;
    let err = call(port, &ours, Some(&n1.identity), AS_ALICE).await.unwrap_err();
    assert_eq!(err.code(), Code::Unavailable, "{err}");
}

#[tokio::test]
async fn the_controller_shows_its_ca_so_that_a_token_can_be_checked() {
    let tmp = tempfile::tempdir().unwrap();
    let ca = ca(tmp.path(), "ca");
    let (chain, _key) = ca.server_identity().unwrap();
    let shown = chain.matches("BEGIN CERTIFICATE").count();
    assert_eq!(shown, 2);
    assert!(chain.ends_with(ca.certificate_pem()));
}
