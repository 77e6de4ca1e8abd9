//! Which agents are connected, and how do orders reach them?
//!
//! A link is one agent's stream. Orders go into its bounded queue; where that is full, or where the
//! stream breaks, the link is cut, and what got lost is derived again from the records when the
//! agent registers anew. Heartbeats and samples stay here: the cluster hears of transitions only.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use penstock_core::command::Order;
use penstock_core::model::NodeIndex;
use penstock_core::{Cluster, Effect, RecordKey};
use penstock_proto::v1;
use penstock_proto::v1::controller_message::Body;
use penstock_vocab::{Attempt, JobId, Millis, NodeName, SessionId, Timestamp};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::site::SiteDesk;
use crate::steps::StepDesk;
use crate::writer::{Perform, Snapshot};

/// Orders that may wait for one agent.
const ORDERS: usize = 16_384;

/// What the task of a link sends.
#[derive(Debug)]
pub enum LinkItem {
    /// An order about an attempt.
    Order(Order, Arc<Snapshot>),
    /// A message that no record asks for: lost with the stream.
    Message(Box<Body>),
    /// Cut this GPU.
    Reshape(u32, Arc<Snapshot>),
}

/// All links.
#[derive(Debug, Default)]
pub struct Links {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    links: BTreeMap<Box<str>, Link>,
    /// When nodes that have no link were last heard of.
    lost: BTreeMap<Box<str>, Timestamp>,
    last_session: u64,
}

#[derive(Debug)]
struct Link {
    session: SessionId,
    orders: mpsc::Sender<LinkItem>,
    cut: CancellationToken,
    last_seen: Timestamp,
    vitals: Option<(u32, u64)>,
    address: String,
    boot_id: Box<str>,
}

/// What a reader sees of a link.
#[derive(Debug, Clone)]
pub struct LinkView {
    /// When something last came.
    pub last_seen: Timestamp,
    /// From where.
    pub address: String,
    /// The machine's boot id.
    pub boot_id: Box<str>,
}

impl Links {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a link for a host; an older one of the same host is cut. Sessions grow over restarts,
    /// since they begin at the time in microseconds.
    pub fn open(
        &self,
        host: &str,
        now: Timestamp,
        address: String,
        boot_id: &str,
    ) -> (SessionId, mpsc::Receiver<LinkItem>, CancellationToken) {
        let mut inner = self.lock();
        let least = u64::try_from(now.0).unwrap_or(0).saturating_mul(1000);
        inner.last_session = (inner.last_session + 1).max(least);
        let session = SessionId(inner.last_session);
        let (orders, receiver) = mpsc::channel(ORDERS);
        let cut = CancellationToken::new();
        let link = Link {
            session,
            orders,
            cut: cut.clone(),
            last_seen: now,
            vitals: None,
            address,
            boot_id: boot_id.into(),
        };
        if let Some(older) = inner.links.insert(host.into(), link) {
            older.cut.cancel();
        }
        inner.lost.remove(host);
        (session, receiver, cut)
    }

    /// Forgets a link, unless a newer one took its place.
    pub fn close(&self, host: &str, session: SessionId, now: Timestamp) {
        let mut inner = self.lock();
        if inner.links.get(host).is_some_and(|link| link.session == session) {
            inner.links.remove(host);
            inner.lost.insert(host.into(), now);
        }
    }

    /// Notes that a host was heard of; false if this is not its newest stream.
    pub fn heard(
        &self,
        host: &str,
        session: SessionId,
        now: Timestamp,
        vitals: Option<(u32, u64)>,
    ) -> bool {
        let mut inner = self.lock();
        let link = inner.links.get_mut(host).filter(|link| link.session == session);
        link.map(|link| {
            link.last_seen = now;
            link.vitals = vitals.or(link.vitals);
        })
        .is_some()
    }

    /// Cuts every link that was silent for `secs`.
    pub fn cut_silent(&self, now: Timestamp, secs: u64) {
        for (host, link) in &self.lock().links {
            if now.since(link.last_seen).as_secs() > secs && !link.cut.is_cancelled() {
                warn!(%host, silent_secs = secs, "an agent is silent; its stream is cut");
                link.cut.cancel();
            }
        }
    }

    /// How long a host has had no link, counted from `started` where it never had one; `None` while
    /// it has one. Whatever it was answered, was answered before that.
    pub fn silence(&self, host: &str, now: Timestamp, started: Timestamp) -> Option<Millis> {
        let inner = self.lock();
        let since = inner.lost.get(host).copied().unwrap_or(started);
        (!inner.links.contains_key(host)).then(|| now.since(since))
    }

    /// Nodes that have had no link for `secs`, counted from `started` where none was ever seen.
    pub fn silent_nodes<'a>(
        &self,
        nodes: impl Iterator<Item = &'a NodeName>,
        now: Timestamp,
        started: Timestamp,
        secs: u64,
    ) -> Vec<NodeName> {
        let inner = self.lock();
        nodes
            .filter(|name| !inner.links.contains_key(name.as_str()))
            .filter(|name| {
                let since = inner.lost.get(name.as_str()).copied().unwrap_or(started);
                now.since(since).as_secs() >= secs
            })
            .cloned()
            .collect()
    }

    /// Load average times 100 and free memory in MiB, as a node last said.
    pub fn vitals(&self, node: &str) -> Option<(u32, u64)> {
        self.lock().links.get(node).and_then(|link| link.vitals)
    }

    /// What is known of a host's link.
    pub fn view(&self, host: &str) -> Option<LinkView> {
        self.lock().links.get(host).map(|link| LinkView {
            last_seen: link.last_seen,
            address: link.address.clone(),
            boot_id: link.boot_id.clone(),
        })
    }

    /// Cuts a host's link.
    pub fn cut(&self, host: &str) {
        if let Some(link) = self.lock().links.get(host) {
            link.cut.cancel();
        }
    }

    /// Whether this session's stream is open.
    pub fn is_open(&self, host: &str, session: SessionId) -> bool {
        self.lock().links.get(host).is_some_and(|link| link.session == session)
    }

    /// Puts an order into a node's queue; without a link it is dropped, and derived again later.
    pub fn order(&self, node: &NodeName, order: Order, snapshot: &Arc<Snapshot>) {
        let inner = self.lock();
        let Some(link) = inner.links.get(node.as_str()) else {
            debug!(%node, job = %order.job, "no link; the order is derived when the node registers");
            return;
        };
        if link.orders.try_send(LinkItem::Order(order, Arc::clone(snapshot))).is_err() {
            warn!(%node, "too many orders wait for this agent; its stream is cut");
            link.cut.cancel();
        }
    }
}

impl Links {
    /// Sends a message that no record asks for to a node; false if it has no link, or if too much
    /// waits there already.
    pub fn send(&self, node: &NodeName, body: Body) -> bool {
        let inner = self.lock();
        let Some(link) = inner.links.get(node.as_str()) else { return false };
        link.orders.try_send(LinkItem::Message(Box::new(body))).is_ok()
    }
}

/// Lets effects happen.
#[derive(Debug)]
pub struct Performer {
    links: Arc<Links>,
    steps: Arc<StepDesk>,
    site: Arc<SiteDesk>,
}

impl Performer {
    /// A performer that reaches agents by `links`, at `steps` whoever waits for steps, and at `site`
    /// what the site wants to run and to say.
    #[must_use]
    pub fn new(links: Arc<Links>, steps: Arc<StepDesk>, site: Arc<SiteDesk>) -> Self {
        Self { links, steps, site }
    }
}

impl Links {
    /// Lets a node cut a GPU; without a link it is dropped, and derived again later.
    pub fn reshape(&self, node: &NodeName, gpu: u32, snapshot: &Arc<Snapshot>) {
        let inner = self.lock();
        let Some(link) = inner.links.get(node.as_str()) else { return };
        if link.orders.try_send(LinkItem::Reshape(gpu, Arc::clone(snapshot))).is_err() {
            warn!(%node, "too many orders wait for this agent; its stream is cut");
            link.cut.cancel();
        }
    }
}

impl Perform for Performer {
    fn note(&mut self, before: &Cluster, snapshot: &Arc<Snapshot>, changed: &[RecordKey]) {
        self.site.note(before, snapshot, changed);
    }

    fn perform(&mut self, effects: Vec<Effect>, snapshot: &Arc<Snapshot>) {
        for effect in effects {
            match effect {
                Effect::Order(node, order) => {
                    if let Some(name) = name_of(snapshot, node) {
                        self.links.order(&name, order, snapshot);
                    }
                }
                Effect::CutHost(host) => self.links.cut(&host),
                Effect::Watched(job) => {
                    self.steps.watches.tell(job);
                    self.steps.line.call(job);
                }
                Effect::Reshape(node, gpu) => {
                    if let Some(name) = name_of(snapshot, node) {
                        self.links.reshape(&name, gpu, snapshot);
                    }
                }
                Effect::Notice { node, job, attempt, text } => {
                    self.notice(snapshot, node, (job, attempt), &text);
                }
                Effect::Warn(text) => tracing::warn!(%text, "GPU"),
                Effect::Schedule => {}
            }
        }
    }
}

impl Performer {
    /// Has whoever runs a job told: where its script writes, or its steps where it has none. It is lost
    /// where the node has no link.
    fn notice(
        &self,
        snapshot: &Snapshot,
        node: NodeIndex,
        (job, attempt): (JobId, Attempt),
        text: &str,
    ) {
        let cluster = &snapshot.cluster;
        let run = cluster.job(job).and_then(|job| job.run.as_ref());
        let script = run.is_some_and(|run| run.attempt == attempt && run.script_node().is_some());
        let mut places = vec![(node, None)];
        if !script {
            let steps = cluster.live_steps_of(job);
            places = steps
                .filter_map(|step| {
                    let share = step.live_shares().next()?;
                    Some((share.share.node, Some(step.key.number.0)))
                })
                .collect();
        }
        for (node, step) in places {
            let Some(name) = name_of(snapshot, node) else { continue };
            let (job_id, attempt, text) = (job.0, attempt.0, text.to_owned());
            self.links.send(&name, Body::Notice(v1::Notice { job_id, attempt, text, step }));
        }
    }
}

fn name_of(snapshot: &Snapshot, node: NodeIndex) -> Option<NodeName> {
    snapshot.cluster.node(node).map(|(node, _)| node.name.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn silence_counts_from_the_end_of_the_last_link_and_never_from_before_the_start() {
        let links = Links::default();
        let silence = |now| links.silence("n1", at(now), at(100)).map(Millis::as_secs);
        assert_eq!(silence(130), Some(30));
        let (session, _orders, _cut) = links.open("n1", at(140), String::new(), "boot");
        assert!(links.heard("n1", session, at(150), None));
        assert_eq!(silence(1_000), None, "an open link speaks for itself, however quiet");
        links.close("n1", session, at(1_000));
        assert_eq!(silence(1_030), Some(30));
    }

    #[test]
    fn an_older_stream_of_a_host_is_answered_nothing() {
        let links = Links::default();
        let (old, _orders, cut) = links.open("n1", at(1), String::new(), "boot");
        let (new, _orders, _cut) = links.open("n1", at(2), String::new(), "boot");
        assert!(cut.is_cancelled());
        assert!(!links.heard("n1", old, at(3), None));
        links.close("n1", old, at(3));
        assert!(links.heard("n1", new, at(3), None), "it is still there");
        links.close("n1", new, at(4));
        assert!(!links.heard("n1", new, at(5), None));
    }
}
