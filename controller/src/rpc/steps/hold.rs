//! What becomes of a job without a script, as long as somebody holds it?

use std::sync::Arc;
use std::time::Duration;

use penstock_core::Refusal;
use penstock_core::model::{Job, Run};
use penstock_proto::v1;
use penstock_proto::v1::allocation_event::Kind;
use penstock_vocab::JobId;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::super::shared::Shared;
use super::super::status::refused;
use super::{Chunks, own_job};
use crate::convert::wire;
use crate::identity::caller_of;
use crate::listing;
use crate::steps::Holding;
use crate::writer::Snapshot;

/// Events that may wait for a slow reader.
const EVENTS: usize = 8;
/// How often it is asked whether a waiting job waits for something else by now.
const REASONS: Duration = Duration::from_secs(2);

pub(super) fn hold_allocation(
    shared: &Arc<Shared>,
    request: Request<v1::HoldAllocationRequest>,
) -> Result<Response<Chunks<v1::AllocationEvent>>, Status> {
    let caller = caller_of(&request)?.clone();
    let id = JobId(request.into_inner().job_id);
    // Before the look at the job, so that no change is missed.
    let changes = shared.steps.watches.watch(id);
    let (job, _) = own_job(shared, &shared.snapshot(), &caller, id)?;
    if !job.spec.allocation {
        return Err(refused(&Refusal::NotAnAllocation(id)));
    }
    let (sender, receiver) = mpsc::channel(EVENTS);
    let holding = shared.steps.holders.hold(id, shared.clock.now());
    let holder =
        Holder { shared: Arc::clone(shared), id, told: None, reason: String::new(), sender };
    tokio::spawn(holder.run(changes, holding));
    Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
}

/// One who holds a job, and what they know of it.
struct Holder {
    shared: Arc<Shared>,
    id: JobId,
    told: Option<Kind>,
    reason: String,
    sender: mpsc::Sender<Result<v1::AllocationEvent, Status>>,
}

impl Holder {
    /// Tells what becomes of the job until it is over or nobody listens.
    async fn run(mut self, mut changes: watch::Receiver<u64>, mut holding: Holding) {
        loop {
            changes.mark_unchanged();
            let goes_on = self.tell().await;
            if !goes_on {
                break;
            }
            let waits = self.told == Some(Kind::Pending);
            tokio::select! {
                changed = changes.changed() => if changed.is_err() { break },
                () = tokio::time::sleep(REASONS), if waits => {}
                () = self.sender.closed() => break,
            }
        }
        holding.seen(self.shared.clock.now());
    }

    /// Tells what is new; false if there is nothing more to tell.
    async fn tell(&mut self) -> bool {
        let snapshot = self.shared.snapshot();
        let Some(job) = snapshot.cluster.job(self.id) else {
            let ended = v1::AllocationEvent { kind: Kind::Ended.into(), ..Default::default() };
            drop(self.sender.send(Ok(ended)).await);
            return false;
        };
        let kind = kind_of(job, self.told);
        let plan = self.shared.plan();
        let view = listing::View { cluster: &snapshot.cluster, plan: &plan };
        let line = listing::job_line(&view, job);
        let same = self.told == Some(kind) && (kind != Kind::Pending || line.reason == self.reason);
        if same {
            return true;
        }
        self.reason.clone_from(&line.reason);
        let granted = kind == Kind::Granted;
        let run = job.active_run().filter(|_| granted);
        let event = v1::AllocationEvent {
            kind: kind.into(),
            job: Some(line),
            variables: run.map(|run| variables(&snapshot, job, run)).unwrap_or_default(),
        };
        self.told = Some(kind);
        self.sender.send(Ok(event)).await.is_ok() && kind != Kind::Ended
    }
}

fn variables(snapshot: &Snapshot, job: &Job, run: &Run) -> Vec<String> {
    wire::variables(&snapshot.cluster, job, run)
}

fn kind_of(job: &Job, told: Option<Kind>) -> Kind {
    match job.active_run() {
        None if job.is_over() => Kind::Ended,
        None => Kind::Pending,
        Some(run) if run.is_ending() => Kind::Ending,
        Some(run) if run.suspended_since.is_some() => Kind::Suspended,
        Some(_) if matches!(told, Some(Kind::Suspended | Kind::Resumed)) => Kind::Resumed,
        Some(_) => Kind::Granted,
    }
}
