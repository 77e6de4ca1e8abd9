//! Do inputs reach the supervisor, and its outputs host and controller, whatever is slow?

use std::path::Path;

use penstock_supervisor::{AttemptKey, EndCause, Found, Order, RunResult, StoreId};
use penstock_vocab::{Attempt, JobId, SessionId};
use tokio::task::JoinSet;
use tokio::time::timeout;
use v1::agent_message::Body;

use super::*;
use crate::convert::Opened;
use crate::health::HealthChecks;
use crate::launch::Wired as _;

const LONG: Duration = Duration::from_secs(20);

/// Takes as many commands as its queue has room for.
struct Fake(mpsc::Sender<HostCommand>);

impl Launcher for Fake {
    fn take(&mut self, command: &HostCommand) -> Result<(), NotTaken> {
        use mpsc::error::TrySendError;
        let copy = match command {
            HostCommand::Start(launch) => HostCommand::Start(launch.clone()),
            HostCommand::Renew(since) => HostCommand::Renew(*since),
            HostCommand::Forget(key) => HostCommand::Forget(*key),
            HostCommand::Terminate(key, cause, wait) => HostCommand::Terminate(*key, *cause, *wait),
            other => panic!("not expected here: {other:?}"),
        };
        self.0.try_send(copy).map_err(|error| match error {
            TrySendError::Full(_) => NotTaken::Busy,
            TrySendError::Closed(_) => NotTaken::Closed,
        })
    }
}

struct World {
    position: watch::Receiver<Option<StorePosition>>,
    link: mpsc::Sender<LinkEvent>,
    events: mpsc::Sender<Event>,
    commands: mpsc::Receiver<HostCommand>,
    again: Arc<Notify>,
    cancel: CancellationToken,
    tasks: JoinSet<()>,
    folder: tempfile::TempDir,
    gpu_news: mpsc::Sender<News>,
}

fn key(job: u32) -> AttemptKey {
    AttemptKey::new(JobId(job), Attempt(0))
}

fn world(found: Vec<Found>) -> World {
    let folder = tempfile::tempdir().expect("folder");
    let (link, link_receiver) = mpsc::channel(8);
    let (events, events_receiver) = mpsc::channel(8);
    let (host, commands) = mpsc::channel(4);
    let (gpu_news, gpus) = mpsc::channel(8);
    let (position_sender, position) = watch::channel(None);
    let (again, cancel) = (Arc::new(Notify::new()), CancellationToken::new());
    let owner = Owner {
        node: "n1".into(),
        inventory: v1::Inventory { cpus: 8, ..Default::default() },
        host: Fake(host),
        position: position_sender,
        again: Arc::clone(&again),
        confirm_file: confirm_file(folder.path()),
        gpus: OfGpus::default(),
        health: HealthChecks::default(),
    };
    let store = StorePosition { id: StoreId::new(b"store"), sequence: 10 };
    let recovery = Recovery { found, store: Some(store), leases: false };
    let ears = Ears { link: link_receiver, host: events_receiver, gpus };
    let mut tasks = JoinSet::new();
    tasks.spawn(owner.run(recovery, ears, cancel.clone()));
    World { position, link, events, commands, again, cancel, tasks, folder, gpu_news }
}

fn confirm_file(folder: &Path) -> PathBuf {
    folder.join("confirm")
}

impl World {
    /// A stream whose far end takes `room` messages.
    async fn open(&self, room: usize) -> mpsc::Receiver<v1::AgentMessage> {
        let (outbound, messages) = mpsc::channel(room);
        self.tell(LinkEvent::Opened { outbound }).await;
        messages
    }

    async fn tell(&self, event: LinkEvent) {
        timeout(LONG, self.link.send(event)).await.expect("in time").expect("the owner lives");
    }

    async fn welcome(&self, session: u64, sequence: u64) {
        let store = StorePosition { id: StoreId::new(b"store"), sequence };
        let (session, cluster) = (SessionId(session), "c".to_owned());
        let opened = Opened { session, store, heartbeat_secs: 5, cluster };
        self.tell(LinkEvent::Message(Incoming::Opened(opened))).await;
    }

    async fn order(&self, session: u64, order: Order<Box<Part>>) {
        let session = SessionId(session);
        self.tell(LinkEvent::Message(Incoming::Order { session, order })).await;
    }

    async fn launch(&self, session: u64, job: u32) {
        let payload = Box::new(Part::from(v1::Launch { job_id: job, ..Default::default() }));
        self.order(session, Order::Launch { key: key(job), limit_serial: 0, lease: None, payload })
            .await;
    }

    async fn happen(&self, event: HostEvent) {
        let sent = self.events.send(Event::Host(event));
        timeout(LONG, sent).await.expect("in time").expect("the owner lives");
    }

    async fn persisted(&mut self) -> u64 {
        let position = self.position.wait_for(Option::is_some);
        let position = timeout(LONG, position).await.expect("in time").expect("the owner lives");
        position.as_ref().expect("waited for").sequence
    }

    async fn command(&mut self) -> HostCommand {
        timeout(LONG, self.commands.recv()).await.expect("in time").expect("the owner lives")
    }
}

#[tokio::test]
async fn leases_count_from_when_the_registration_or_the_heartbeat_was_sent() {
    let mut w = world(vec![]);
    let before = boottime();
    let mut messages = w.open(8).await;
    next(&mut messages).await;
    let after = boottime();
    w.welcome(1, 11).await;
    let lease = Some(Millis::from_secs(20));
    let payload = Box::new(Part::from(v1::Launch { job_id: 7, ..Default::default() }));
    w.order(1, Order::Launch { key: key(7), limit_serial: 0, lease, payload }).await;
    let HostCommand::Renew(since) = w.command().await else { panic!("no lease") };
    assert!(before <= since && since <= after, "{before:?} {since:?} {after:?}");
    assert!(matches!(w.command().await, HostCommand::Start(_)));
    // What matters is when it was sent, not when the answer is here.
    let sent = Millis(since.0 + 1);
    while boottime() <= sent {
        tokio::task::yield_now().await;
    }
    let session = SessionId(1);
    w.tell(LinkEvent::Message(Incoming::HeartbeatReply { session, sent, store_sequence: 11 }))
        .await;
    let HostCommand::Renew(since) = w.command().await else { panic!("no renewal") };
    assert_eq!(since, sent);
}

async fn next(messages: &mut mpsc::Receiver<v1::AgentMessage>) -> v1::AgentMessage {
    timeout(LONG, messages.recv()).await.expect("in time").expect("the owner lives")
}

async fn next_report(messages: &mut mpsc::Receiver<v1::AgentMessage>) -> (u64, u32, i32) {
    let message = next(messages).await;
    let Some(Body::Report(report)) = message.body else { panic!("no report: {message:?}") };
    (message.session, report.job_id, report.phase)
}

const RUNNING: i32 = v1::AttemptPhase::Running as i32;
const ENDED: i32 = v1::AttemptPhase::Ended as i32;

#[tokio::test]
async fn the_registration_carries_what_was_found_and_the_store() {
    let world = world(vec![Found::Running(key(1)), Found::Ended(key(2), RunResult::default())]);
    let mut messages = world.open(8).await;
    let message = next(&mut messages).await;
    let Some(Body::Register(register)) = message.body else { panic!("{message:?}") };
    assert_eq!((message.session, &*register.node), (0, "n1"));
    assert_eq!(register.inventory.map(|inventory| inventory.cpus), Some(8));
    assert_eq!((register.store_id, register.store_sequence), (Bytes::from_static(b"store"), 10));
    let attempts: Vec<_> = register.attempts.iter().map(|it| (it.job_id, it.phase)).collect();
    assert_eq!(attempts, [(1, RUNNING), (2, ENDED)]);
}

#[tokio::test]
async fn a_job_goes_its_way() {
    let mut world = world(vec![]);
    let mut messages = world.open(8).await;
    next(&mut messages).await;
    world.welcome(3, 11).await;
    assert_eq!(world.persisted().await, 11);
    world.launch(3, 7).await;
    let start = world.command().await;
    assert!(matches!(start, HostCommand::Start(ref launch) if launch.key() == key(7)));
    world.happen(HostEvent::Started(key(7))).await;
    assert_eq!(next_report(&mut messages).await, (3, 7, RUNNING));
    let end = HostEvent::Ended(key(7), RunResult::default());
    world.happen(end).await;
    assert_eq!(next_report(&mut messages).await, (3, 7, ENDED));
    world.order(3, Order::Acknowledge { key: key(7) }).await;
    assert!(matches!(world.command().await, HostCommand::Forget(it) if it == key(7)));
}

#[tokio::test]
async fn a_slow_network_delays_reports_and_keeps_their_order() {
    let mut world = world(vec![]);
    let mut messages = world.open(1).await;
    world.welcome(1, 10).await;
    for job in 0..100 {
        world.launch(1, job).await;
        assert!(
            matches!(world.command().await, HostCommand::Start(ref it) if it.key() == key(job))
        );
        world.happen(HostEvent::Started(key(job))).await;
    }
    assert!(matches!(next(&mut messages).await.body, Some(Body::Register(_))));
    for job in 0..100 {
        assert_eq!(next_report(&mut messages).await, (1, job, RUNNING));
    }
}

#[tokio::test]
async fn a_slow_host_holds_the_controller_up_and_loses_nothing() {
    let mut world = world(vec![]);
    let _messages = world.open(8).await;
    world.welcome(1, 10).await;
    let many = u32::try_from(MAX_BACKLOG).expect("fits") + 1_000;
    let link = world.link.clone();
    world.tasks.spawn(async move {
        for job in 0..many {
            let payload = Box::new(Part::from(v1::Launch { job_id: job, ..Default::default() }));
            let order = Order::Launch { key: key(job), limit_serial: 0, lease: None, payload };
            let incoming = Incoming::Order { session: SessionId(1), order };
            link.send(LinkEvent::Message(incoming)).await.expect("the owner lives");
        }
    });
    // Host events are heard although no order is read any more.
    for job in many..many + 50 {
        world.happen(HostEvent::Started(key(job))).await;
    }
    for job in 0..many {
        assert!(
            matches!(world.command().await, HostCommand::Start(ref it) if it.key() == key(job))
        );
    }
}

#[tokio::test]
async fn after_a_lost_stream_the_next_one_hears_everything_again() {
    let mut world = world(vec![Found::Running(key(1))]);
    let mut messages = world.open(8).await;
    next(&mut messages).await;
    world.welcome(1, 10).await;
    assert_eq!(next_report(&mut messages).await, (1, 1, RUNNING));
    world.tell(LinkEvent::Closed).await;
    world.launch(1, 9).await;
    let end = HostEvent::Ended(key(1), RunResult::default());
    world.happen(end).await;
    let mut messages = world.open(8).await;
    let message = next(&mut messages).await;
    let Some(Body::Register(register)) = message.body else { panic!("{message:?}") };
    assert_eq!(register.attempts.len(), 1, "job 9 belonged to the old session");
    world.welcome(2, 10).await;
    assert_eq!(next_report(&mut messages).await, (2, 1, ENDED));
    assert!(world.commands.try_recv().is_err());
}

#[tokio::test]
async fn an_older_store_is_confirmed_by_a_file() {
    let mut world = world(vec![Found::Running(key(1))]);
    let mut messages = world.open(8).await;
    next(&mut messages).await;
    std::fs::write(confirm_file(world.folder.path()), "").expect("written");
    world.welcome(1, 4).await;
    let kill = Order::Terminate { key: key(1), cause: EndCause::Cancelled, kill_wait_secs: 1 };
    world.order(1, kill).await;
    assert_eq!(world.persisted().await, 4);
    timeout(LONG, world.again.notified()).await.expect("a new stream is wanted");
    assert!(!confirm_file(world.folder.path()).exists());
}

#[tokio::test]
async fn the_owner_ends_when_told_and_orders_nothing() {
    let mut world = world(vec![Found::Running(key(1))]);
    world.cancel.cancel();
    let ended = timeout(LONG, world.tasks.join_next()).await.expect("in time");
    ended.expect("a task").expect("no panic");
    assert!(world.commands.recv().await.is_none());
}

/// What the next message says.
async fn body(messages: &mut mpsc::Receiver<v1::AgentMessage>) -> Body {
    next(messages).await.body.expect("never empty")
}

#[tokio::test]
async fn an_event_of_a_gpu_waits_for_the_session_that_hears_of_its_fault() {
    let world = world(Vec::new());
    let mut messages = world.open(8).await;
    next(&mut messages).await;
    world.welcome(1, 11).await;
    let event = |gpu: u32| {
        let events = vec![v1::GpuEvent { gpu, xid: 79, ..Default::default() }];
        News::Report(v1::GpuReport { events, ..Default::default() })
    };
    let tell = |news| async { world.gpu_news.send(news).await.expect("the owner lives") };
    // An empty report, after which the session is known to be open.
    world.launch(1, 1).await;
    tell(event(1)).await;
    let Body::Gpus(report) = body(&mut messages).await else { panic!("no report") };
    assert_eq!(report.events[0].gpu, 1);
    let gpu = v1::Gpu { fault: "lost".to_owned(), ..Default::default() };
    let complaint = Some("gres/gpu: bad".to_owned());
    let picture = crate::gpu::Picture { gpus: vec![gpu], complaint, ..Default::default() };
    tell(News::Picture(picture)).await;
    timeout(LONG, world.again.notified()).await.expect("a new stream is wanted");
    tell(event(2)).await;
    world.tell(LinkEvent::Closed).await;
    let mut messages = world.open(8).await;
    let Body::Register(register) = body(&mut messages).await else { panic!("no registration") };
    assert_eq!(register.inventory.expect("there").gpus[0].fault, "lost");
    world.welcome(2, 12).await;
    let Body::Gpus(report) = body(&mut messages).await else { panic!("no report") };
    assert_eq!(report.events[0].gpu, 2);
    let Body::Drain(drain) = body(&mut messages).await else { panic!("no complaint") };
    assert_eq!(drain.reason, "gres/gpu: bad");
}
