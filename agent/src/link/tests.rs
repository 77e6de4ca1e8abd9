//! Does the link keep a stream, in order, and come back?

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Mutex;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_stream::Stream;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::transport::{Endpoint, Server};
use tonic::{Request, Response};
use v1::agent_link_server::{AgentLink, AgentLinkServer};
use v1::{agent_message, controller_message};

use super::*;

const LONG: Duration = Duration::from_secs(20);

/// One stream as a controller sees it.
struct Attached {
    messages: Streaming<v1::AgentMessage>,
    replies: mpsc::Sender<Result<v1::ControllerMessage, Status>>,
}

/// A controller that leaves everything to the test.
struct Fake {
    attached: mpsc::Sender<Attached>,
    refusal: Arc<Mutex<Option<Status>>>,
}

type Replies = Pin<Box<dyn Stream<Item = Result<v1::ControllerMessage, Status>> + Send>>;

#[tonic::async_trait]
impl AgentLink for Fake {
    type AttachStream = Replies;

    async fn join(&self, _: Request<v1::JoinRequest>) -> Result<Response<v1::JoinReply>, Status> {
        Err(Status::unimplemented("not needed"))
    }

    async fn attach(
        &self,
        request: Request<Streaming<v1::AgentMessage>>,
    ) -> Result<Response<Replies>, Status> {
        if let Some(status) = self.refusal.lock().expect("not poisoned").take() {
            return Err(status);
        }
        let (replies, stream) = mpsc::channel(64);
        let attached = Attached { messages: request.into_inner(), replies };
        self.attached.send(attached).await.map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(Box::pin(ReceiverStream::new(stream))))
    }
}

struct Loopback(SocketAddr);

impl Dial for Loopback {
    async fn dial(&self) -> Result<Channel, DialError> {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.0)).expect("valid");
        endpoint.connect().await.map_err(|error| DialError::NotReached(Box::new(error)))
    }
}

struct World {
    attached: mpsc::Receiver<Attached>,
    refusal: Arc<Mutex<Option<Status>>>,
    events: mpsc::Receiver<LinkEvent>,
    again: Arc<Notify>,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
}

impl World {
    async fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let (attached_sender, attached) = mpsc::channel(8);
        let refusal = Arc::new(Mutex::new(None));
        let fake = Fake { attached: attached_sender, refusal: Arc::clone(&refusal) };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            Server::builder()
                .add_service(AgentLinkServer::new(fake))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .expect("serves until it is dropped");
        });
        let (events_sender, events) = mpsc::channel(4);
        let (again, cancel) = (Arc::new(Notify::new()), CancellationToken::new());
        let link = Link {
            dial: Loopback(address),
            events: events_sender,
            again: Arc::clone(&again),
            controller: address.to_string(),
        };
        tasks.spawn(link.run(cancel.clone()));
        Self { attached, refusal, events, again, cancel, tasks }
    }

    async fn event(&mut self) -> LinkEvent {
        timeout(LONG, self.events.recv()).await.expect("in time").expect("the link lives")
    }

    /// The next stream, after the registration was received.
    async fn register(&mut self, attempts: u32) -> (Attached, mpsc::Sender<v1::AgentMessage>) {
        let LinkEvent::Opened { outbound } = self.event().await else { panic!("not opened") };
        let report = |job_id| v1::AttemptReport { job_id, ..Default::default() };
        let attempts = (0..attempts).map(report).collect();
        let register = v1::Register { node: "n1".into(), attempts, ..Default::default() };
        let body = Some(agent_message::Body::Register(register.clone()));
        outbound.send(v1::AgentMessage { session: 0, body }).await.expect("room");
        let mut attached =
            timeout(LONG, self.attached.recv()).await.expect("in time").expect("served");
        let expect = Some(agent_message::Body::Register(register));
        assert_eq!(attached.next().await.body, expect, "first of all");
        (attached, outbound)
    }
}

impl Attached {
    async fn next(&mut self) -> v1::AgentMessage {
        let message = timeout(LONG, self.messages.message()).await.expect("in time");
        message.expect("the stream lives").expect("the stream goes on")
    }

    async fn say(&self, session: u64, body: controller_message::Body) {
        let message = v1::ControllerMessage { session, body: Some(body) };
        self.replies.send(Ok(message)).await.expect("the stream lives");
    }

    async fn welcome(&self, session: u64) {
        let welcome = v1::Welcome { session, heartbeat_secs: 1, ..Default::default() };
        self.say(session, controller_message::Body::Welcome(welcome)).await;
    }
}

#[tokio::test]
async fn a_stream_registers_beats_and_delivers_in_order() {
    let mut world = World::new().await;
    let (mut attached, outbound) = world.register(3).await;
    attached.welcome(5).await;
    let welcomed = world.event().await;
    assert!(matches!(welcomed, LinkEvent::Message(Incoming::Opened(ref it)) if it.session.0 == 5));

    for beat in 0..2 {
        let message = attached.next().await;
        assert_eq!(message.session, 5, "beat {beat}");
        assert!(matches!(message.body, Some(agent_message::Body::Heartbeat(_))));
    }
    for job_id in 0..10 {
        let it = v1::Acknowledge { job_id, attempt: 0, step: None };
        attached.say(5, controller_message::Body::Acknowledge(it)).await;
    }
    for job in 0..10 {
        let LinkEvent::Message(Incoming::Order { session, order }) = world.event().await else {
            panic!("no order")
        };
        assert_eq!((session.0, order.key().job.0), (5, job));
    }
    let drain = crate::convert::drain_message(SessionId(5), "why");
    outbound.send(drain.clone()).await.expect("room");
    loop {
        let message = attached.next().await;
        if !matches!(message.body, Some(agent_message::Body::Heartbeat(_))) {
            assert_eq!(message, drain);
            break;
        }
    }
    world.cancel.cancel();
}

#[tokio::test]
async fn a_lost_stream_is_closed_before_the_next_is_opened() {
    let mut world = World::new().await;
    let (attached, _) = world.register(0).await;
    attached.welcome(1).await;
    world.event().await;
    drop(attached);
    assert!(matches!(world.event().await, LinkEvent::Closed));
    let (attached, _) = world.register(0).await;
    attached.welcome(2).await;
    assert!(matches!(world.event().await, LinkEvent::Message(Incoming::Opened(_))));
    world.again.notify_one();
    assert!(matches!(world.event().await, LinkEvent::Closed));
    world.register(0).await;
}

#[tokio::test]
async fn a_message_that_is_not_understood_is_skipped() {
    let mut world = World::new().await;
    let (attached, _) = world.register(0).await;
    attached.welcome(1).await;
    world.event().await;
    let strange = v1::SignalAttempt { signal: 999, ..Default::default() };
    attached.say(1, controller_message::Body::Signal(strange)).await;
    attached.say(1, controller_message::Body::Acknowledge(v1::Acknowledge::default())).await;
    assert!(matches!(world.event().await, LinkEvent::Message(Incoming::Order { .. })));
}

#[tokio::test]
async fn a_passing_failure_is_tried_again_soon() {
    let mut world = World::new().await;
    *world.refusal.lock().expect("not poisoned") = Some(Status::unavailable("starting"));
    loop {
        match world.event().await {
            LinkEvent::Opened { outbound } => {
                let body = Some(agent_message::Body::Register(v1::Register::default()));
                outbound.send(v1::AgentMessage { session: 0, body }).await.expect("room");
            }
            LinkEvent::Closed => break,
            LinkEvent::Message(message) => panic!("from nobody: {message:?}"),
        }
    }
    // The first stream may have failed before or after it was refused; this one stands.
    world.register(0).await;
}

#[tokio::test]
async fn the_link_ends_with_its_owner_or_when_told() {
    let mut world = World::new().await;
    world.event().await;
    world.cancel.cancel();
    let closed = async { while world.events.recv().await.is_some() {} };
    timeout(LONG, closed).await.expect("the link ended");

    let mut world = World::new().await;
    drop(world.events);
    let ended = timeout(LONG, world.tasks.join_next()).await.expect("in time");
    ended.expect("a task").expect("no panic");
}

#[test]
fn waits_double_up_to_a_bound_and_refusals_wait_longer() {
    let mut backoff = Backoff::default();
    let waits: Vec<u128> = (0..8).map(|_| backoff.next(false, 0.0).as_millis()).collect();
    assert_eq!(waits, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    assert_eq!(backoff.next(false, 1.0), LONGEST_WAIT / 2);
    assert_eq!(backoff.next(true, 0.0), REFUSED_WAIT);
    backoff.failures = u32::MAX;
    assert_eq!(backoff.next(false, 0.0), LONGEST_WAIT);
}

#[test]
fn refusals_are_told_from_failures() {
    for (status, refusal, text) in [
        (Status::permission_denied("revoked"), true, "the controller refuses this host: revoked"),
        (Status::unavailable("away"), false, "the stream broke: away"),
        (Status::internal("bug"), false, "the stream broke: bug"),
    ] {
        let error = LinkError::of(&status);
        assert_eq!((error.is_refusal(), error.chain()), (refusal, text.to_owned()));
    }
    let source: Box<dyn Error + Send + Sync> = "no token".into();
    assert_eq!(LinkError::from(DialError::Refused(source)).chain(), "refused: no token");
}
