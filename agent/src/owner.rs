//! Who feeds the supervisor, and who carries out what it says?
//!
//! One task owns it. The task never waits for the network or for the spool: what one of them does
//! not take at once waits here, in order and bounded. While too much waits for the spool, nothing
//! more is read from the controller.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use penstock_proto::v1;
use penstock_supervisor::{
    HostEvent, Ignored, Input, Output, Recovery, StorePosition, Supervisor, Welcome,
};
use penstock_vocab::{Millis, Timestamp};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::convert::{
    Incoming, attempt_report, drain_message, register_message, report_message, usage_message,
};
use crate::gpu::News;
use crate::health::HealthChecks;
use crate::host::{HostCommand, Launcher, NotTaken};
use crate::launch::{Event, Part};
use crate::link::LinkEvent;
use crate::sys::boottime;

mod gpus;

pub(crate) use gpus::OfGpus;

/// Commands waiting for the spool beyond which no order is read; each launch may carry a script
/// and an environment.
const MAX_BACKLOG: usize = 256;

/// Time after which a spool that was busy is asked again: it takes some ten commands meanwhile.
const BUSY_WAIT: Duration = Duration::from_millis(10);

/// Messages waiting for the network; more are dropped, since ends are repeated and the rest is
/// asked for again.
const MAX_OUTBOX: usize = 32_768;

/// Events handled in a row before the network gets its turn.
const BURST: usize = 64;

/// How often an admin's confirmation is looked for, while one is needed.
const CONFIRM_EVERY: Duration = Duration::from_secs(5);

/// What the owner needs to know of this node.
pub(crate) struct Owner<H> {
    /// Name of the node.
    pub(crate) node: String,
    /// What the node offers.
    pub(crate) inventory: v1::Inventory,
    /// Does what is to be done on this host.
    pub(crate) host: H,
    /// Gets the store's position whenever it is to be kept.
    pub(crate) position: watch::Sender<Option<StorePosition>>,
    /// Makes the link open a new stream.
    pub(crate) again: Arc<Notify>,
    /// A file by whose presence an admin confirms a controller's store.
    pub(crate) confirm_file: PathBuf,
    /// What it has to do with GPUs.
    pub(crate) gpus: OfGpus,
    /// Runs the program that says whether the node is well.
    pub(crate) health: HealthChecks,
}

/// The owner at work.
struct Work<H> {
    owner: Owner<H>,
    supervisor: Supervisor<Box<Part>>,
    outbound: Option<mpsc::Sender<v1::AgentMessage>>,
    outbox: VecDeque<v1::AgentMessage>,
    backlog: VecDeque<HostCommand>,
    outputs: Vec<Output<Box<Part>>>,
    /// When the registration of this stream was sent.
    asked: Timestamp,
    /// What parts used, and was not told; the newest of each.
    usage: Vec<v1::PartUsage>,
}

/// What the owner hears.
pub(crate) struct Ears {
    /// From the link.
    pub(crate) link: mpsc::Receiver<LinkEvent>,
    /// From the spool.
    pub(crate) host: mpsc::Receiver<Event>,
    /// Of the GPUs.
    pub(crate) gpus: mpsc::Receiver<News>,
}

impl<H: Launcher> Owner<H> {
    /// Takes what the last agent left, then works until `cancel`, or until the link or the spool
    /// is gone. Jobs are left alone.
    pub(crate) async fn run(self, recovery: Recovery, mut ears: Ears, cancel: CancellationToken) {
        let mut work = Work {
            owner: self,
            supervisor: Supervisor::new(),
            outbound: None,
            outbox: VecDeque::new(),
            backlog: VecDeque::new(),
            outputs: Vec::new(),
            asked: now(),
            usage: Vec::new(),
        };
        work.input(Input::Recovered(recovery));
        let mut look = interval(CONFIRM_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let hears_gpus = work.owner.gpus.are_heard;
            let turn = tokio::select! {
                () = cancel.cancelled() => return,
                event = ears.host.recv() => Turn::Host(event),
                event = ears.link.recv(), if work.backlog.len() < MAX_BACKLOG => Turn::Link(event),
                room = room(work.outbound.as_ref()), if !work.outbox.is_empty() => Turn::Send(room),
                news = ears.gpus.recv(), if hears_gpus => Turn::Gpus(news.map(Box::new)),
                () = sleep(BUSY_WAIT), if !work.backlog.is_empty() => Turn::Flush,
                () = until(work.supervisor.next_tick()) => Turn::Tick,
                _ = look.tick(), if work.supervisor.awaits_confirmation() => Turn::Look,
            };
            if work.take(turn, &mut ears).is_none() || work.flush() == Err(NotTaken::Closed) {
                return;
            }
        }
    }
}

/// What the owner turns to next.
enum Turn {
    Host(Option<Event>),
    Link(Option<LinkEvent>),
    Send(Option<mpsc::OwnedPermit<v1::AgentMessage>>),
    Gpus(Option<Box<News>>),
    Flush,
    Tick,
    Look,
}

/// Room for one message, or `None` if nobody takes any more; never where there is no stream.
async fn room(
    queue: Option<&mpsc::Sender<v1::AgentMessage>>,
) -> Option<mpsc::OwnedPermit<v1::AgentMessage>> {
    match queue {
        Some(queue) => queue.clone().reserve_owned().await.ok(),
        None => std::future::pending().await,
    }
}

/// Sleeps until `tick` on the supervisor's clock; for ever if there is none.
async fn until(tick: Option<Timestamp>) {
    match tick {
        Some(tick) => sleep_until(Instant::now() + tick.since(now()).to_std()).await,
        None => std::future::pending().await,
    }
}

/// The supervisor's clock.
fn now() -> Timestamp {
    on_supervisors_clock(boottime())
}

fn on_supervisors_clock(Millis(millis): Millis) -> Timestamp {
    Timestamp(i64::try_from(millis).unwrap_or(i64::MAX))
}

impl<H: Launcher> Work<H> {
    /// Does what it is turn for; `None` if the spool or the link is gone.
    fn take(&mut self, turn: Turn, ears: &mut Ears) -> Option<()> {
        match turn {
            Turn::Host(event) => {
                self.host_event(event?);
                for _ in 1..BURST {
                    let Ok(event) = ears.host.try_recv() else { break };
                    self.host_event(event);
                }
                self.tell_usage();
            }
            Turn::Link(event) => {
                self.link_event(event?);
                for _ in 1..BURST {
                    let Ok(event) = ears.link.try_recv() else { break };
                    self.link_event(event);
                }
            }
            Turn::Send(room) => match (room, self.outbox.pop_front()) {
                (Some(room), Some(message)) => {
                    room.send(message);
                }
                // The stream is over; the link says so next.
                (None, _) | (_, None) => self.outbound = None,
            },
            Turn::Gpus(news) => self.gpu_news(news.map(|news| *news)),
            // Done after each turn.
            Turn::Flush => {}
            Turn::Tick => self.input(Input::Tick),
            Turn::Look => self.look(),
        }
        Some(())
    }

    fn input(&mut self, input: Input<Box<Part>>) {
        let mut outputs = std::mem::take(&mut self.outputs);
        self.supervisor.handle_into(now(), input, &mut outputs);
        for output in outputs.drain(..) {
            self.output(output);
        }
        self.outputs = outputs;
    }

    fn host_event(&mut self, event: Event) {
        let event = match event {
            Event::Host(event) => event,
            Event::Notice(text) => {
                warn!("{text}");
                return;
            }
            Event::Usage(part) => {
                self.usage.push(*part);
                return;
            }
            Event::Relay(frame) => return self.relay(*frame),
        };
        match &event {
            HostEvent::Started(key) => debug!(attempt = %key, "started"),
            HostEvent::Ended(key, result) => {
                info!(attempt = %key, wait_status = result.wait_status, "ended");
            }
            HostEvent::StartFailed { key, error, node_fault } => {
                warn!(attempt = %key, error, node_fault, "could not be started");
            }
            HostEvent::LockTaken(key) => info!(attempt = %key, "never started"),
            HostEvent::SpoolFull => warn!("the spool's disk is full"),
        }
        self.input(Input::Host(event));
    }

    fn link_event(&mut self, event: LinkEvent) {
        match event {
            LinkEvent::Opened { outbound } => {
                self.outbox.clear();
                self.asked = now();
                let register = register_message(self.register());
                self.outbox.push_back(register);
                self.outbound = Some(outbound);
            }
            LinkEvent::Closed => {
                self.outbox.clear();
                self.outbound = None;
                self.input(Input::Disconnected);
            }
            LinkEvent::Message(Incoming::Opened(opened)) => {
                // The stream is the newest there is, since the link has only one.
                let (session, store) = (opened.session, opened.store);
                let asked = self.asked;
                self.input(Input::Welcome(Welcome { session, store, asked, fresh: true }));
                self.tell_of_gpus();
            }
            LinkEvent::Message(Incoming::HeartbeatReply { session, sent, store_sequence }) => {
                self.input(Input::Renewed { session, sent: on_supervisors_clock(sent) });
                self.input(Input::StoreSequence { session, sequence: store_sequence });
            }
            LinkEvent::Message(Incoming::Reshape { session, order }) => self.cut(session, *order),
            LinkEvent::Message(Incoming::Order { session, order }) => {
                self.input(Input::Order { session, order });
            }
            LinkEvent::Message(Incoming::Measure { session, part }) => {
                if self.supervisor.session() == Some(session) {
                    self.backlog.push_back(HostCommand::Measure(part));
                }
            }
            LinkEvent::Message(Incoming::Relay { session, frame }) => {
                if self.supervisor.session() == Some(session) {
                    self.backlog.push_back(HostCommand::Relay(frame));
                }
            }
            LinkEvent::Message(Incoming::Notice { session, notice }) => {
                // It ends nothing and needs no answer.
                if self.supervisor.session() == Some(session) {
                    self.backlog.push_back(HostCommand::Notice(notice));
                }
            }
            LinkEvent::Message(Incoming::HealthCheck { session, order }) => {
                if self.supervisor.session() == Some(session) {
                    self.owner.health.start(&order);
                }
            }
            LinkEvent::Message(Incoming::Attach { session, listener }) => {
                // It ends nothing and needs no answer: who is not there does not connect.
                if self.supervisor.session() == Some(session) {
                    self.backlog.push_back(HostCommand::Attach(listener));
                }
            }
        }
    }

    /// Tells what parts used. Where nobody listens it is not kept: the next numbers say it too.
    fn tell_usage(&mut self) {
        let parts = std::mem::take(&mut self.usage);
        if let Some(session) = self.supervisor.session().filter(|_| !parts.is_empty()) {
            self.send(usage_message(session, parts));
        }
    }

    /// Without a stream it is lost, which the two sides notice.
    fn relay(&mut self, frame: v1::RelayFrame) {
        if let Some(session) = self.supervisor.session() {
            let body = Some(v1::agent_message::Body::Relay(frame));
            self.send(v1::AgentMessage { session: session.0, body });
        }
    }

    fn register(&self) -> v1::Register {
        let store = self.supervisor.store();
        v1::Register {
            node: self.owner.node.clone(),
            inventory: Some(self.owner.inventory.clone()),
            attempts: self.supervisor.reports().into_iter().map(attempt_report).collect(),
            store_id: store
                .map_or_else(Bytes::new, |store| Bytes::copy_from_slice(store.id.as_bytes())),
            store_sequence: store.map_or(0, |store| store.sequence),
        }
    }

    fn output(&mut self, output: Output<Box<Part>>) {
        let command = match output {
            Output::Report(session, report) => {
                self.send(report_message(session, report));
                return;
            }
            Output::Drain(session, reason) => {
                error!(reason, "this node asks to be drained");
                self.send(drain_message(session, reason));
                return;
            }
            Output::Withheld { key: None, why } => {
                let confirm = self.owner.confirm_file.display();
                warn!("orders to end jobs are withheld: {why}; to confirm: touch {confirm}");
                return;
            }
            Output::Withheld { key: Some(key), why } => {
                info!(attempt = %key, %why, "order withheld");
                return;
            }
            Output::Ignored { key, why } => {
                let attempt = key.map_or_else(String::new, |key| key.to_string());
                match why {
                    Ignored::StartedTooLate => error!(attempt, "{why}"),
                    Ignored::Full | Ignored::NoLease => warn!(attempt, "{why}"),
                    Ignored::NotRecovered
                    | Ignored::OtherSession
                    | Ignored::Unknown
                    | Ignored::WrongPhase
                    | Ignored::OldLimit => debug!(attempt, "ignored: {why}"),
                }
                return;
            }
            Output::PersistStore(store) => {
                self.owner.position.send_replace(Some(store));
                return;
            }
            Output::Renew(since) => HostCommand::Renew(Millis(u64::try_from(since.0).unwrap_or(0))),
            Output::Start(_, part) => HostCommand::Start(part),
            Output::TakeLock(key) => HostCommand::TakeLock(key),
            Output::Terminate { key, cause, kill_wait_secs } => {
                HostCommand::Terminate(key, cause, kill_wait_secs)
            }
            Output::Signal(key, request) => HostCommand::Signal(key, request),
            Output::SetLimit(key, limit) => HostCommand::SetLimit(key, limit),
            Output::Suspend(key, suspend) => HostCommand::Suspend(key, suspend),
            Output::Forget(key) | Output::RemoveTombstone(key) => HostCommand::Forget(key),
            Output::WriteTombstone(key) => HostCommand::Bury(key),
        };
        self.backlog.push_back(command);
    }

    fn send(&mut self, message: v1::AgentMessage) {
        if self.outbox.len() < MAX_OUTBOX {
            self.outbox.push_back(message);
        }
    }

    /// Hands on what is taken at once; says what stopped the commands, if they did stop.
    fn flush(&mut self) -> Result<(), NotTaken> {
        if let Some(outbound) = &self.outbound {
            while !self.outbox.is_empty()
                && let Ok(permit) = outbound.try_reserve()
            {
                let Some(message) = self.outbox.pop_front() else { break };
                permit.send(message);
            }
        }
        while let Some(command) = self.backlog.front() {
            self.owner.host.take(command)?;
            self.backlog.pop_front();
        }
        Ok(())
    }

    /// Looks for an admin's confirmation. A new session then brings the orders withheld.
    fn look(&mut self) {
        if std::fs::remove_file(&self.owner.confirm_file).is_err() {
            return;
        }
        let before = self.supervisor.store().cloned();
        self.input(Input::Confirmed);
        if let (Some(before), Some(after)) = (before, self.supervisor.store()) {
            info!(before = %before.id, after = %after.id, "the controller's store is confirmed");
        }
        self.owner.again.notify_one();
    }
}

#[cfg(test)]
mod tests;
