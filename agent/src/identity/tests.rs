//! Joining and connecting, against a small controller with a CA of its own.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use penstock_proto::v1::agent_link_client::AgentLinkClient;
use penstock_proto::v1::agent_link_server::{AgentLink, AgentLinkServer};
use penstock_proto::v1::{AgentMessage, ControllerMessage, HostRole, JoinReply, JoinRequest};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa,
    KeyPair,
};
use tokio::net::TcpListener;
use tokio_stream::Empty;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::server::{TcpConnectInfo, TlsConnectInfo};
use tonic::transport::{Certificate, Server, ServerTlsConfig};
use tonic::{Code, Request, Response, Status, Streaming};

use super::verify::fingerprint;
use super::*;

type Ca = CertifiedIssuer<'static, KeyPair>;

fn ca() -> Arc<Ca> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    Arc::new(Ca::self_signed(params, KeyPair::generate().unwrap()).unwrap())
}

fn token(ca: &Ca) -> JoinToken {
    let word = format!("pst1.0123abcd.{}.{}", "0f".repeat(16), hex(&fingerprint(ca.der())));
    word.parse().unwrap()
}

/// Takes every join but two, and `Attach` from hosts with a certificate.
struct Controller(Arc<Ca>);

#[tonic::async_trait]
impl AgentLink for Controller {
    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        let request = request.into_inner();
        match request.host.as_str() {
            "taken" => return Err(Status::already_exists("taken is bound to another key")),
            "late" => return Err(Status::permission_denied("token 0123abcd has expired")),
            "busy" => return Err(Status::unavailable("starting")),
            _ => {}
        }
        assert_eq!((&*request.token_id, request.token_secret.len()), ("0123abcd", 32));
        let mut csr =
            CertificateSigningRequestParams::from_der(&request.csr.as_ref().into()).unwrap();
        csr.params = CertificateParams::new(vec![request.host.clone()]).unwrap();
        let certificate = csr.signed_by(&self.0).unwrap().pem();
        let shown = if request.host == "swapped" { ca() } else { Arc::clone(&self.0) };
        Ok(Response::new(JoinReply {
            certificate,
            ca_certificate: shown.pem(),
            role: HostRole::Login.into(),
            cluster: "demo".into(),
        }))
    }

    type AttachStream = Empty<Result<ControllerMessage, Status>>;

    async fn attach(
        &self,
        request: Request<Streaming<AgentMessage>>,
    ) -> Result<Response<Self::AttachStream>, Status> {
        let tls = request.extensions().get::<TlsConnectInfo<TcpConnectInfo>>().unwrap();
        match tls.peer_certs() {
            Some(_) => Ok(Response::new(tokio_stream::empty())),
            None => Err(Status::unauthenticated("no certificate")),
        }
    }
}

/// Serves with a certificate of `ca` for `name`; returns the address.
async fn serve(ca: &Arc<Ca>, name: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec![name.into()]).unwrap().signed_by(&key, ca).unwrap();
    let chain = own.pem() + &ca.pem();
    let tls = ServerTlsConfig::new()
        .identity(tonic::transport::Identity::from_pem(chain, key.serialize_pem()))
        .client_ca_root(Certificate::from_pem(ca.pem()))
        .client_auth_optional(true);
    let server = Server::builder()
        .tls_config(tls)
        .unwrap()
        .add_service(AgentLinkServer::new(Controller(Arc::clone(ca))))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    address
}

async fn attach(identity: &Identity, address: &str) -> Result<(), Status> {
    let channel = identity.link_channel(address).unwrap();
    let messages = tokio_stream::empty::<AgentMessage>();
    AgentLinkClient::new(channel).attach(messages).await.map(drop)
}

fn file(state_dir: &Path, name: &str) -> std::path::PathBuf {
    state_dir.join("identity").join(name)
}

#[tokio::test]
async fn a_host_joins_once_and_is_itself_after_a_restart() {
    let (tmp, ca) = (tempfile::tempdir().unwrap(), ca());
    let address = serve(&ca, "penstock-controller").await;
    let mut identity = Identity::open(tmp.path()).unwrap();
    assert!(identity.membership().is_none());
    assert!(matches!(identity.link_channel(&address), Err(IdentityError::NotJoined)));
    let joined = identity.join(&address, &token(&ca), "n1").await.unwrap().clone();
    assert_eq!((&*joined.host, &*joined.cluster, joined.role), ("n1", "demo", HostRole::Login));
    attach(&identity, &address).await.unwrap();

    let again = Identity::open(tmp.path()).unwrap();
    assert_eq!(again.membership(), Some(&joined));
    attach(&again, &address).await.unwrap();
    for name in ["host.key", "membership.pem"] {
        let mode = fs::metadata(file(tmp.path(), name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[tokio::test]
async fn a_controller_of_another_ca_is_refused_and_both_fingerprints_named() {
    let (tmp, ours, theirs) = (tempfile::tempdir().unwrap(), ca(), ca());
    let address = serve(&theirs, "penstock-controller").await;
    let mut identity = Identity::open(tmp.path()).unwrap();
    let err = identity.join(&address, &token(&ours), "n1").await.unwrap_err();
    let JoinError::WrongCa { source, .. } = &err else { panic!("{err:?}") };
    assert!(source.to_string().contains(&hex(&fingerprint(ours.der()))), "{source}");
    assert!(source.to_string().contains(&hex(&fingerprint(theirs.der()))), "{source}");
    assert!(!err.is_transient());
    assert!(Identity::open(tmp.path()).unwrap().membership().is_none());
}

#[tokio::test]
async fn the_right_ca_is_not_enough_the_server_must_be_its_controller() {
    let (tmp, ca) = (tempfile::tempdir().unwrap(), ca());
    let mut identity = Identity::open(tmp.path()).unwrap();
    // A host with a certificate of the same CA poses as the controller.
    let address = serve(&ca, "n2").await;
    let err = identity.join(&address, &token(&ca), "n1").await.unwrap_err();
    assert!(matches!(err, JoinError::Unreachable { .. }), "{err:?}");
    // One that only shows the CA's certificate, with a leaf of its own making.
    let address = serve_impostor(&ca).await;
    let err = identity.join(&address, &token(&ca), "n1").await.unwrap_err();
    assert!(matches!(err, JoinError::Unreachable { .. }), "{err:?}");
}

async fn serve_impostor(ca: &Arc<Ca>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (own, key) = (super::tests::ca(), KeyPair::generate().unwrap());
    let params = CertificateParams::new(vec!["penstock-controller".into()]).unwrap();
    let chain = params.signed_by(&key, &own).unwrap().pem() + &ca.pem();
    let identity = tonic::transport::Identity::from_pem(chain, key.serialize_pem());
    let server = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity))
        .unwrap()
        .add_service(AgentLinkServer::new(Controller(Arc::clone(ca))))
        .serve_with_incoming(TcpListenerStream::new(listener));
    tokio::spawn(server);
    address
}

#[tokio::test]
async fn refusals_of_the_controller_are_told_apart() {
    let (tmp, ca) = (tempfile::tempdir().unwrap(), ca());
    let address = serve(&ca, "penstock-controller").await;
    let mut identity = Identity::open(tmp.path()).unwrap();
    let taken = identity.join(&address, &token(&ca), "taken").await.unwrap_err();
    assert!(matches!(&taken, JoinError::NameTaken { .. }) && !taken.is_transient());
    assert!(taken.to_string().contains("bound to another key"), "{taken}");
    let late = identity.join(&address, &token(&ca), "late").await.unwrap_err();
    assert!(matches!(&late, JoinError::Refused { .. }) && !late.is_transient());
    assert!(late.to_string().contains("has expired"), "{late}");
    let busy = identity.join(&address, &token(&ca), "busy").await.unwrap_err();
    assert!(busy.is_transient(), "{busy}");
    let swapped = identity.join(&address, &token(&ca), "swapped").await.unwrap_err();
    assert!(matches!(&swapped, JoinError::BadAnswer { .. }), "{swapped}");
    assert!(identity.membership().is_none());
}

#[tokio::test]
async fn nobody_there_is_transient_and_names_the_address() {
    let (tmp, ca) = (tempfile::tempdir().unwrap(), ca());
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let mut identity = Identity::open(tmp.path()).unwrap();
    let err = identity.join(&address, &token(&ca), "n1").await.unwrap_err();
    assert!(err.is_transient());
    assert!(err.to_string().contains(&address), "{err}");
}

#[tokio::test]
async fn a_joined_host_does_not_talk_to_another_ca_at_the_same_address() {
    let (tmp, ours, theirs) = (tempfile::tempdir().unwrap(), ca(), ca());
    let mut identity = Identity::open(tmp.path()).unwrap();
    let address = serve(&ours, "penstock-controller").await;
    identity.join(&address, &token(&ours), "n1").await.unwrap();
    let elsewhere = serve(&theirs, "penstock-controller").await;
    let err = attach(&identity, &elsewhere).await.unwrap_err();
    assert_eq!(err.code(), Code::Unavailable, "{err}");
}

#[tokio::test]
async fn lost_exposed_and_damaged_files_are_refused_by_name() {
    let (tmp, ca) = (tempfile::tempdir().unwrap(), ca());
    let address = serve(&ca, "penstock-controller").await;
    let mut identity = Identity::open(tmp.path()).unwrap();
    identity.join(&address, &token(&ca), "n1").await.unwrap();
    let (key, membership) = (file(tmp.path(), "host.key"), file(tmp.path(), "membership.pem"));
    let (key_pem, whole) = (fs::read(&key).unwrap(), fs::read_to_string(&membership).unwrap());

    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let err = Identity::open(tmp.path()).unwrap_err();
    assert!(matches!(err, IdentityError::Exposed { mode: 0o644, .. }), "{err}");

    fs::remove_file(&key).unwrap();
    let err = Identity::open(tmp.path()).unwrap_err();
    assert!(matches!(err, IdentityError::KeyLost { .. }), "{err}");
    assert!(!key.exists());

    let other = tempfile::tempdir().unwrap();
    Identity::open(other.path()).unwrap();
    fs::copy(file(other.path(), "host.key"), &key).unwrap();
    let err = Identity::open(tmp.path()).unwrap_err();
    assert!(err.to_string().contains("not for this host's key"), "{err}");

    fs::write(&key, key_pem).unwrap();
    let damaged = [
        (String::new(), "no line that begins with `role: `"),
        (whole.replace("role: HOST_ROLE_LOGIN", "role: x"), "unknown role"),
        (whole.replace("host: ", "hosts: "), "no line that begins with `host: `"),
        (whole[..whole.len() / 2].to_owned(), "certificate"),
    ];
    for (text, expect) in damaged {
        fs::write(&membership, text).unwrap();
        let err = Identity::open(tmp.path()).unwrap_err();
        assert!(matches!(err, IdentityError::Damaged { .. }), "{err}");
        assert!(err.to_string().contains(expect), "{err}");
    }
    fs::write(&membership, whole).unwrap();
    Identity::open(tmp.path()).unwrap();
}
