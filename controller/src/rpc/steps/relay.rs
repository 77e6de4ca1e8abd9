//! How does the daemon carry a step's bytes between its nodes and its maker?
//!
//! The limits are in [`crate::steps::Relays`]. A node is believed about steps that it has a part of, a
//! caller about its own.

use std::sync::Arc;

use penstock_core::model::{Step, StepKey, StepNumber};
use penstock_proto::v1::RelayFrame;
use penstock_proto::v1::controller_message::Body as ToAgent;
use penstock_vocab::{JobId, NodeName};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use tracing::{debug, info};

use super::super::shared::Shared;
use super::{Chunks, own_step};
use crate::identity::caller_of;
use crate::steps::{Given, OPEN_TIME, Pace};

/// Messages that may wait for a caller which does not read.
const EVENTS: usize = 4;
/// Largest piece that a caller may send.
const MAX_PIECE: usize = 64 << 10;

/// What a node has for the maker of one of its steps.
pub(in crate::rpc) fn from_node(shared: &Arc<Shared>, node: &NodeName, frame: RelayFrame) {
    let snapshot = shared.snapshot();
    let (job, number) = (JobId(frame.job_id), StepNumber(frame.step));
    let step = snapshot.cluster.newest_step(job, number);
    let ours = step.filter(|step| step.is_live() && step.key.attempt.0 == frame.attempt);
    let Some(step) = ours.filter(|step| has_node(shared, step, node)) else {
        debug!(%node, job = %job, "words for a step that this node has no part of are dropped");
        return end(shared, node.as_str(), &frame);
    };
    let key = step.key;
    let frame = RelayFrame { node: node.to_string(), ..frame };
    let about = RelayFrame { data: bytes::Bytes::new(), ..frame.clone() };
    match shared.steps.relays.give(key, step.shares.len(), frame) {
        Given::Queued => {}
        Given::Refused => end(shared, node.as_str(), &about),
        Given::First => {
            info!(%node, step = %key, "the node cannot reach srun; what they say is relayed");
            shared.steps.watches.tell(key.job);
            tokio::spawn(end_unheard(Arc::clone(shared), key));
        }
    }
}

fn has_node(shared: &Shared, step: &Step, node: &NodeName) -> bool {
    let snapshot = shared.snapshot();
    let index = snapshot.cluster.node_by_name(node).map(|(index, _)| index);
    index.is_ok_and(|index| step.shares.iter().any(|part| part.share.node == index))
}

/// Tells a node that the connection which `about` names is over.
fn end(shared: &Shared, node: &str, about: &RelayFrame) {
    let frame = RelayFrame {
        job_id: about.job_id,
        step: about.step,
        attempt: about.attempt,
        node: node.to_owned(),
        channel: about.channel,
        end: true,
        ..RelayFrame::default()
    };
    if let Ok(node) = node.parse::<NodeName>() {
        shared.links.send(&node, ToAgent::Relay(frame));
    }
}

fn end_all(shared: &Shared, key: StepKey, connections: Vec<(String, u64)>) {
    for (node, channel) in connections {
        let about = RelayFrame {
            job_id: key.job.0,
            step: key.number.0,
            attempt: key.attempt.0,
            channel,
            ..RelayFrame::default()
        };
        end(shared, &node, &about);
    }
}

/// Ends what nobody listens to: srun is gone.
async fn end_unheard(shared: Arc<Shared>, key: StepKey) {
    tokio::time::sleep(OPEN_TIME).await;
    if shared.steps.relays.is_wanted(key) {
        let over = shared.steps.relays.close(key);
        end_all(&shared, key, over);
    }
}

/// Carries bytes between the caller and shepherds that cannot reach it.
pub(super) async fn relay_step(
    shared: &Arc<Shared>,
    request: Request<Streaming<RelayFrame>>,
) -> Result<Response<Chunks<RelayFrame>>, Status> {
    let caller = caller_of(&request)?.clone();
    let mut incoming = request.into_inner();
    let first = incoming.message().await?;
    let first = first.ok_or_else(|| Status::invalid_argument("no step was named"))?;
    let step = own_step(shared, &shared.snapshot(), &caller, (first.job_id, first.step))?;
    let (sender, receiver) = mpsc::channel(EVENTS);
    tokio::spawn(carry(Arc::clone(shared), step.key, incoming, sender));
    Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
}

/// Until either side has gone.
async fn carry(
    shared: Arc<Shared>,
    key: StepKey,
    incoming: Streaming<RelayFrame>,
    sender: mpsc::Sender<Result<RelayFrame, Status>>,
) {
    let reader = shared.steps.relays.open(key);
    let up = async {
        let mut pace = Pace::default();
        while let Some(frame) = reader.next().await {
            pace.wait(frame.data.len()).await;
            if sender.send(Ok(frame)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down(&shared, key, incoming) => {}
        () = sender.closed() => {}
    }
    end_all(&shared, key, reader.close());
}

/// From the caller to the nodes.
async fn down(shared: &Shared, key: StepKey, mut incoming: Streaming<RelayFrame>) {
    let mut pace = Pace::default();
    while let Ok(Some(frame)) = incoming.message().await {
        let node = frame.node.parse::<NodeName>();
        let step = shared.snapshot().cluster.step(key).cloned();
        let Some(step) = step.filter(|step| step.is_live()) else { return };
        let Some(node) = node.ok().filter(|node| has_node(shared, &step, node)) else { continue };
        if frame.data.len() > MAX_PIECE {
            return;
        }
        pace.wait(frame.data.len()).await;
        let (job_id, number, attempt) = (key.job.0, key.number.0, key.attempt.0);
        let frame = RelayFrame { job_id, step: number, attempt, ..frame };
        // Where it is not taken the two of them notice a gap.
        shared.links.send(&node, ToAgent::Relay(frame));
    }
}
