//! What becomes of a step?

use std::collections::BTreeMap;
use std::sync::Arc;

use penstock_core::Cluster;
use penstock_core::model::{EndCause, NodeIndex, Step, StepKey, StepPhase};
use penstock_proto::v1;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::super::shared::Shared;
use super::{Chunks, own_step};
use crate::convert::codes;
use crate::convert::run::NodeNames;
use crate::convert::step::{phase_to_wire, step_to_wire};
use crate::identity::caller_of;

/// Events that may wait for a slow reader.
const EVENTS: usize = 64;

pub(super) fn watch_step(
    shared: &Arc<Shared>,
    request: Request<v1::WatchStepRequest>,
) -> Result<Response<Chunks<v1::StepEvent>>, Status> {
    let caller = caller_of(&request)?.clone();
    let message = request.into_inner();
    let changes = shared.steps.watches.watch(penstock_vocab::JobId(message.job_id));
    let asked = (message.job_id, message.step);
    let step = own_step(shared, &shared.snapshot(), &caller, asked)?;
    let (sender, receiver) = mpsc::channel(EVENTS);
    let watcher = Watcher {
        shared: Arc::clone(shared),
        key: step.key,
        told: Told::default(),
        newest: step,
        sender,
    };
    tokio::spawn(watcher.run(changes));
    Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
}

/// One who watches a step.
struct Watcher {
    shared: Arc<Shared>,
    key: StepKey,
    told: Told,
    /// As it was last seen.
    newest: Arc<Step>,
    sender: mpsc::Sender<Result<v1::StepEvent, Status>>,
}

/// What was told of a step.
#[derive(Debug, Default)]
struct Told {
    phases: BTreeMap<NodeIndex, v1::StepPhase>,
    failed: Vec<NodeIndex>,
    ending: Option<EndCause>,
}

impl Watcher {
    async fn run(mut self, mut changes: watch::Receiver<u64>) {
        loop {
            changes.mark_unchanged();
            if !self.tell().await {
                return;
            }
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { return },
                () = self.sender.closed() => return,
            }
        }
    }

    /// Tells what is new; false if there is nothing more to tell.
    async fn tell(&mut self) -> bool {
        let snapshot = self.shared.snapshot();
        let cluster = &snapshot.cluster;
        if let Some(step) = cluster.step(self.key) {
            self.newest = Arc::clone(step);
        }
        let step = &self.newest;
        let mut events = self.told.news(cluster, step);
        if self.shared.steps.relays.is_wanted(self.key) {
            events.push(v1::StepEvent { relay_wanted: true, ..v1::StepEvent::default() });
        }
        // Of one whose record went with its job it was told before, or nobody listened for long.
        let over = !step.is_live() || cluster.step(self.key).is_none();
        if over {
            let step = Some(step_to_wire(cluster, step));
            events.push(v1::StepEvent { step, ..v1::StepEvent::default() });
        }
        for event in events {
            if self.sender.send(Ok(event)).await.is_err() {
                return false;
            }
        }
        !over
    }
}

impl Told {
    fn news(&mut self, cluster: &Cluster, step: &Step) -> Vec<v1::StepEvent> {
        let mut events = Vec::new();
        let ending = cluster.step_ending(step);
        if let Some(cause) = ending.filter(|_| ending != self.ending) {
            let ending = codes::cause(cause) as i32;
            events.push(v1::StepEvent { ending, ..v1::StepEvent::default() });
        }
        self.ending = ending.or(self.ending);
        for part in &step.shares {
            let node = part.share.node;
            let name = || cluster.node_name(node).to_owned();
            let lost = match &part.phase {
                StepPhase::Ended(result) => result.lost || result.fenced,
                StepPhase::Allocated | StepPhase::Running => {
                    ending == Some(EndCause::NodeFail)
                        && cluster.node(node).is_some_and(|(node, _)| node.down.is_some())
                }
            };
            if lost && !self.failed.contains(&node) {
                self.failed.push(node);
                let node = name();
                events.push(v1::StepEvent { node, node_failed: true, ..Default::default() });
            }
            let (phase, result) = phase_to_wire(&part.phase);
            if self.told_of(node) == phase {
                continue;
            }
            self.phases.insert(node, phase);
            events.push(v1::StepEvent {
                node: name(),
                phase: phase.into(),
                result,
                ..v1::StepEvent::default()
            });
        }
        events
    }

    fn told_of(&self, node: NodeIndex) -> v1::StepPhase {
        self.phases.get(&node).copied().unwrap_or(v1::StepPhase::Allocated)
    }
}
