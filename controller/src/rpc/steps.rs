//! Calls about steps, and about jobs without a script.

mod attach;
mod create;
mod hold;
mod list;
mod relay;
mod stat;
mod watch;

use std::pin::Pin;
use std::sync::Arc;

use penstock_core::Refusal;
use penstock_core::command::{Caller as CoreCaller, Command, Reply, SignalOrder, Target};
use penstock_core::model::{Job, Step, StepNumber};
use penstock_proto::v1;
use penstock_proto::v1::steps_server::Steps;
use penstock_vocab::{ExitCode, JobId};
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

use super::jobs::{changer, each_part, unexpected, wire_results};
use super::service::Service;
use super::shared::Shared;
use super::status::{failed, refused};
use crate::convert::wire;
use crate::identity::{Action, Authority, Caller, caller_of};
use crate::writer::Snapshot;

pub(super) use relay::from_node as relay_from_node;

type Answer<T> = Result<Response<T>, Status>;
type Chunks<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Most selectors of one call.
const MAX_SELECTORS: usize = 10_000;
/// Highest signal of Linux.
const MAX_SIGNAL: u32 = 64;

#[tonic::async_trait]
impl Steps for Service {
    type HoldAllocationStream = Chunks<v1::AllocationEvent>;
    type WatchStepStream = Chunks<v1::StepEvent>;
    type ListStepsStream = Chunks<v1::ListStepsReply>;
    type StatJobsStream = Chunks<v1::StatJobsReply>;
    type RelayStepStream = Chunks<v1::RelayFrame>;

    async fn hold_allocation(
        &self,
        r: Request<v1::HoldAllocationRequest>,
    ) -> Answer<Self::HoldAllocationStream> {
        hold::hold_allocation(&self.0, r)
    }

    async fn release_allocation(
        &self,
        r: Request<v1::ReleaseAllocationRequest>,
    ) -> Answer<v1::ReleaseAllocationReply> {
        release_allocation(&self.0, r).await
    }

    async fn create_step(&self, r: Request<v1::CreateStepRequest>) -> Answer<v1::CreateStepReply> {
        create::create_step(&self.0, r).await
    }

    async fn watch_step(&self, r: Request<v1::WatchStepRequest>) -> Answer<Self::WatchStepStream> {
        watch::watch_step(&self.0, r)
    }

    async fn signal_steps(
        &self,
        r: Request<v1::SignalStepsRequest>,
    ) -> Answer<v1::SignalStepsReply> {
        signal_steps(&self.0, r).await
    }

    async fn list_steps(&self, r: Request<v1::ListStepsRequest>) -> Answer<Self::ListStepsStream> {
        list::list_steps(&self.0, r)
    }

    async fn stat_jobs(&self, r: Request<v1::StatJobsRequest>) -> Answer<Self::StatJobsStream> {
        stat::stat_jobs(&self.0, r).await
    }

    async fn attach_step(&self, r: Request<v1::AttachStepRequest>) -> Answer<v1::AttachStepReply> {
        attach::attach_step(&self.0, r)
    }

    async fn relay_step(
        &self,
        r: Request<Streaming<v1::RelayFrame>>,
    ) -> Answer<Self::RelayStepStream> {
        relay::relay_step(&self.0, r).await
    }
}

/// A job that the caller may act on, as who it is.
fn own_job(
    shared: &Shared,
    snapshot: &Snapshot,
    caller: &Caller,
    id: JobId,
) -> Result<(Arc<Job>, Authority), Status> {
    let job = snapshot.cluster.job(id).ok_or_else(|| refused(&Refusal::InvalidJobId(id)))?;
    let authority = shared.allow(caller, Action::WriteJob { owner_uid: job.uid.0 })?;
    if authority != Authority::Admin && job.uid.0 != caller.uid {
        let text = format!("job {id} belongs to uid {}; you are uid {}", job.uid, caller.uid);
        return Err(refused(&Refusal::AccessDenied(text.into())));
    }
    Ok((Arc::clone(job), authority))
}

/// The newest step of that number of a job that the caller may act on.
fn own_step(
    shared: &Shared,
    snapshot: &Snapshot,
    caller: &Caller,
    (id, number): (u32, u32),
) -> Result<Arc<Step>, Status> {
    let (id, number) = (JobId(id), StepNumber(number));
    own_job(shared, snapshot, caller, id)?;
    let step = snapshot.cluster.newest_step(id, number);
    step.cloned().ok_or_else(|| refused(&Refusal::InvalidStep(id, number)))
}

async fn release_allocation(
    shared: &Shared,
    request: Request<v1::ReleaseAllocationRequest>,
) -> Answer<v1::ReleaseAllocationReply> {
    let caller = caller_of(&request)?.clone();
    let message = request.into_inner();
    let core = changer(shared, &caller, &message.request_id)?;
    let byte = |what: &str, value: u32| {
        u8::try_from(value).map_err(|_| {
            Status::invalid_argument(format!("{what} is {value}, at most 255 is possible"))
        })
    };
    let exit = ExitCode {
        status: byte("the exit status", message.exit_status)?,
        signal: byte("the signal", message.exit_signal)?,
    };
    match shared.writer.execute(Command::Release(core, JobId(message.job_id), exit)).await {
        Ok(Reply::Done) => Ok(Response::new(v1::ReleaseAllocationReply {})),
        Ok(_) => Err(unexpected()),
        Err(error) => Err(failed(&error)),
    }
}

async fn signal_steps(
    shared: &Shared,
    request: Request<v1::SignalStepsRequest>,
) -> Answer<v1::SignalStepsReply> {
    let caller = caller_of(&request)?.clone();
    let message = request.into_inner();
    if message.selectors.len() > MAX_SELECTORS {
        return Err(Status::invalid_argument(format!(
            "{} steps in one call, at most {MAX_SELECTORS} are taken",
            message.selectors.len()
        )));
    }
    if message.signal > MAX_SIGNAL {
        return Err(Status::invalid_argument(format!(
            "there is no signal {}; the highest is {MAX_SIGNAL}",
            message.signal
        )));
    }
    let core = changer(shared, &caller, &message.request_id)?;
    let targets = steps_meant(&shared.snapshot(), &message.selectors)?;
    let order = SignalOrder { signal: message.signal, batch_only: false, full: true };
    let command = |caller: CoreCaller, targets: Vec<Target>| match order.signal {
        0 => Command::Cancel(caller, targets),
        _ => Command::Signal(caller, targets, order),
    };
    let results = each_part(shared, &core, targets, command).await?;
    Ok(Response::new(v1::SignalStepsReply { results: wire_results(shared, &results) }))
}

/// The steps that selectors name: each its own, a job all that run of it.
fn steps_meant(snapshot: &Snapshot, selectors: &[String]) -> Result<Vec<Target>, Status> {
    let cluster = &snapshot.cluster;
    let mut targets = Vec::with_capacity(selectors.len());
    for text in selectors {
        let target = wire::target(cluster, text).map_err(|refusal| refused(&refusal))?;
        let jobs: Vec<JobId> = match &target {
            Target::Step(..) => {
                targets.push(target);
                continue;
            }
            Target::Id(id) | Target::Job(id) | Target::Waiting(id) => {
                let tasks = cluster.tasks_of(*id).map(|job| job.id);
                tasks.chain(cluster.job(*id).map(|job| job.id)).collect()
            }
            Target::Tasks(base, tasks) => cluster
                .tasks_of(*base)
                .filter(|job| job.array.is_some_and(|task| tasks.contains(task.index.0)))
                .map(|job| job.id)
                .collect(),
        };
        if jobs.is_empty() {
            return Err(refused(&Refusal::InvalidJobId(target.id())));
        }
        for id in jobs {
            let live = cluster.live_steps_of(id);
            targets.extend(live.map(|step| Target::Step(id, step.key.number)));
        }
    }
    Ok(targets)
}
