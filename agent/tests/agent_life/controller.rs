//! A controller that takes joins, and leaves everything else to the test.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use penstock_proto::v1;
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, CertifiedIssuer, IsCa,
    KeyPair,
};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Certificate, Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status, Streaming};
use v1::agent_link_server::{AgentLink, AgentLinkServer};
use v1::{agent_message, controller_message};

use crate::process::Host;

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

type Ca = CertifiedIssuer<'static, KeyPair>;
type Replies = Pin<Box<dyn Stream<Item = Result<v1::ControllerMessage, Status>> + Send>>;
type Reply = Result<v1::ControllerMessage, Status>;

struct Service {
    ca: Arc<Ca>,
    attached: mpsc::Sender<Attached>,
}

#[tonic::async_trait]
impl AgentLink for Service {
    async fn join(
        &self,
        request: Request<v1::JoinRequest>,
    ) -> Result<Response<v1::JoinReply>, Status> {
        let request = request.into_inner();
        let mut csr = CertificateSigningRequestParams::from_der(&request.csr.as_ref().into())
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        csr.params = CertificateParams::new(vec![request.host]).expect("a valid name");
        Ok(Response::new(v1::JoinReply {
            certificate: csr.signed_by(&self.ca).expect("signed").pem(),
            ca_certificate: self.ca.pem(),
            role: v1::HostRole::Compute.into(),
            cluster: "demo".into(),
        }))
    }

    type AttachStream = Replies;

    async fn attach(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Replies>, Status> {
        let (replies, stream) = mpsc::channel(64);
        let attached = Attached { session: 0, messages: request.into_inner(), replies };
        self.attached.send(attached).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

/// The controller, serving.
pub(crate) struct Controller {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// A token to join with.
    pub(crate) token: String,
    attached: mpsc::Receiver<Attached>,
    _server: tokio::task::JoinSet<()>,
}

impl Controller {
    pub(crate) async fn start() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let ca = Arc::new(Ca::self_signed(params, key).expect("a CA"));
        let key = KeyPair::generate().expect("a key");
        let name = CertificateParams::new(vec!["penstock-controller".into()]).expect("valid");
        let chain = name.signed_by(&key, &ca).expect("signed").pem() + &ca.pem();
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(chain, key.serialize_pem()))
            .client_ca_root(Certificate::from_pem(ca.pem()))
            .client_auth_optional(true);

        let fingerprint = Sha256::digest(ca.der());
        let hex: String = fingerprint.iter().map(|byte| format!("{byte:02x}")).collect();
        let token = format!("pst1.0123abcd.{}.{hex}", "0f".repeat(16));

        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (sender, attached) = mpsc::channel(4);
        let service = AgentLinkServer::new(Service { ca, attached: sender });
        let mut server = tokio::task::JoinSet::new();
        server.spawn(async move {
            Server::builder()
                .tls_config(tls)
                .expect("valid")
                .add_service(service)
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .expect("serves until it is dropped");
        });
        Self { address, token, attached, _server: server }
    }

    /// The next stream and its registration.
    pub(crate) async fn attached(&mut self) -> (Attached, v1::Register) {
        let next = timeout(PATIENCE, self.attached.recv()).await.expect("an agent dials in time");
        let mut link = next.expect("the server lives");
        match link.next().await {
            agent_message::Body::Register(register) => (link, register),
            other => panic!("not registered first: {other:?}"),
        }
    }
}

/// One stream as the controller sees it.
pub(crate) struct Attached {
    session: u64,
    messages: Streaming<v1::AgentMessage>,
    replies: mpsc::Sender<Reply>,
}

impl Attached {
    async fn next(&mut self) -> agent_message::Body {
        let next = timeout(PATIENCE, self.messages.message()).await.expect("a message in time");
        let message = next.expect("the stream lives").expect("the stream goes on");
        assert_eq!(message.session, self.session);
        message.body.expect("never empty")
    }

    pub(crate) async fn say(&self, body: controller_message::Body) {
        let message = v1::ControllerMessage { session: self.session, body: Some(body) };
        self.replies.send(Ok(message)).await.expect("the stream lives");
    }

    pub(crate) async fn welcome(&mut self, session: u64, store_sequence: u64) {
        self.session = session;
        let welcome = v1::Welcome {
            session,
            store_id: b"store".to_vec().into(),
            store_sequence,
            heartbeat_secs: 1,
            cluster: "demo".into(),
            ..Default::default()
        };
        self.say(controller_message::Body::Welcome(welcome)).await;
    }

    /// Ends the stream.
    pub(crate) fn close(self) {
        drop(self);
    }

    /// The next message must be a heartbeat.
    pub(crate) async fn heartbeat(&mut self) {
        match self.next().await {
            agent_message::Body::Heartbeat(beat) => assert!(beat.free_memory_mib > 0),
            other => panic!("unexpected: {other:?}"),
        }
    }

    /// The next report; heartbeats are passed over.
    pub(crate) async fn whole_report(&mut self) -> v1::AttemptReport {
        loop {
            match self.next().await {
                agent_message::Body::Report(report) => return report,
                agent_message::Body::Heartbeat(_) | agent_message::Body::Usage(_) => {}
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    /// Job, attempt and phase of the next report.
    pub(crate) async fn report(&mut self) -> (u32, u32, v1::AttemptPhase) {
        let report = self.whole_report().await;
        if let Some(result) = report.result.as_ref().filter(|it| !it.launch_error.is_empty()) {
            eprintln!("job {} could not be started: {}", report.job_id, result.launch_error);
        }
        (report.job_id, report.attempt, report.phase())
    }

    /// Phase of the next report about job `id`; others, which are repeated until they are
    /// acknowledged, are passed over.
    pub(crate) async fn report_of(&mut self, id: u32) -> v1::AttemptPhase {
        loop {
            let (job, attempt, phase) = self.report().await;
            if job == id {
                assert_eq!(attempt, 0, "of job {id}");
                return phase;
            }
        }
    }

    /// How job `id` ended, and whether its start was reported before.
    pub(crate) async fn end_of(&mut self, id: u32) -> (v1::RunResult, bool) {
        let mut started = false;
        loop {
            let report = self.whole_report().await;
            if report.job_id != id {
                continue;
            }
            match report.result {
                Some(result) => return (result, started),
                None => started = true,
            }
        }
    }

    pub(crate) async fn launch(&self, host: &Host, id: u32, script: &str) {
        self.say(controller_message::Body::Launch(host.launch(id, script))).await;
    }

    pub(crate) async fn terminate(&self, id: u32) {
        let cause = v1::EndCause::Cancelled.into();
        let order = v1::Terminate { job_id: id, attempt: 0, cause, kill_wait_secs: 30, step: None };
        self.say(controller_message::Body::Terminate(order)).await;
    }

    pub(crate) async fn acknowledge(&self, id: u32) {
        let order = v1::Acknowledge { job_id: id, attempt: 0, step: None };
        self.say(controller_message::Body::Acknowledge(order)).await;
    }
}
