//! How does srun get its step?

use std::sync::Arc;
use std::time::Duration;

use penstock_core::Refusal;
use penstock_core::command::{Caller as CoreCaller, Command, Reply};
use penstock_core::model::{StepKey, StepSpec};
use penstock_proto::step_io::STEP_SECRET_BYTES;
use penstock_proto::v1;
use penstock_vocab::{JobId, compress};
use tokio::time::{Instant, timeout_at};
use tonic::{Request, Response, Status};

use super::super::jobs::{changer, unexpected};
use super::super::shared::Shared;
use super::super::status::{failed, refused};
use super::own_job;
use crate::convert::run::NodeNames;
use crate::convert::step::{step_request, step_to_wire};
use crate::convert::wire::{self, refusal_to_wire};
use crate::identity::caller_of;
use crate::listing;
use crate::steps::Kept;
use crate::writer::{ExecuteError, Snapshot};

/// Longest wait of one call, in seconds; the client asks again.
const MAX_WAIT_SECS: u32 = 300;
/// Most addresses of one srun, and the longest one in bytes.
const MAX_ADDRESSES: usize = 32;
const MAX_ADDRESS_BYTES: usize = 256;

pub(super) async fn create_step(
    shared: &Shared,
    request: Request<v1::CreateStepRequest>,
) -> Result<Response<v1::CreateStepReply>, Status> {
    let caller = caller_of(&request)?.clone();
    let message = request.into_inner();
    let id = JobId(message.job_id);
    let core = changer(shared, &caller, &message.request_id)?;
    own_job(shared, &shared.snapshot(), &caller, id)?;
    let asked = message.spec.ok_or_else(|| Status::invalid_argument("the request has no spec"))?;
    check_honoured(&asked)?;
    let spec = Arc::new(step_request(&asked).map_err(|refusal| refused(&refusal))?);
    let wait = if asked.immediate { 0 } else { message.wait_secs.min(MAX_WAIT_SECS) };
    let kept = Kept { addresses: asked.addresses, port: asked.port, secret: asked.secret };
    let keeping = shared.steps.secrets.keep(checked(kept)?);
    let asking = Asking { shared, core, id, spec, ticket: keeping.number };
    let reply = match asking.until(Duration::from_secs(u64::from(wait))).await? {
        Ok(key) => created(&shared.snapshot(), shared, key)?,
        Err(busy) => v1::CreateStepReply {
            busy: Some(refusal_to_wire(&busy)),
            ..v1::CreateStepReply::default()
        },
    };
    Ok(Response::new(reply))
}

/// Refuses what a step's spec has a place for and nothing heeds.
fn check_honoured(spec: &v1::StepSpec) -> Result<(), Status> {
    let unheeded = [
        ("threads-per-core", spec.threads_per_core),
        ("ntasks-per-core", spec.ntasks_per_core),
        ("ntasks-per-socket", spec.ntasks_per_socket),
    ];
    match unheeded.iter().find(|(_, value)| *value != 0) {
        Some((name, value)) => Err(Status::invalid_argument(format!(
            "--{name}={value} of a step is not built yet; leave it out"
        ))),
        None => Ok(()),
    }
}

/// Where somebody listens for shepherds, checked: a step that nobody listens for has nothing to run.
pub(super) fn checked(kept: Kept) -> Result<Kept, Status> {
    let long = |address: &String| address.is_empty() || address.len() > MAX_ADDRESS_BYTES;
    if kept.addresses.len() > MAX_ADDRESSES || kept.addresses.iter().any(long) {
        return Err(Status::invalid_argument(format!(
            "at most {MAX_ADDRESSES} addresses of {MAX_ADDRESS_BYTES} bytes are taken"
        )));
    }
    if u16::try_from(kept.port).is_err() || kept.port == 0 {
        return Err(Status::invalid_argument(format!("{} is no port; give 1 to 65535", kept.port)));
    }
    if kept.secret.len() != STEP_SECRET_BYTES {
        return Err(Status::invalid_argument(format!(
            "a step's secret has {STEP_SECRET_BYTES} bytes, not {}",
            kept.secret.len()
        )));
    }
    Ok(kept)
}

/// Somebody who wants a step.
struct Asking<'a> {
    shared: &'a Shared,
    core: CoreCaller,
    id: JobId,
    spec: Arc<StepSpec>,
    ticket: u64,
}

impl Asking<'_> {
    /// The step, or why there was no room for it for so long.
    async fn until(&self, wait: Duration) -> Result<Result<StepKey, Refusal>, Status> {
        let deadline = Instant::now() + wait;
        // In line before the first try, so that nothing that becomes free meanwhile is missed.
        let place = self.shared.steps.line.join(self.id, self.ticket, &self.spec);
        let Some(mut place) = place else {
            let text = "too many steps of this job wait already; try again later";
            return Err(Status::resource_exhausted(text));
        };
        loop {
            let busy = match self.try_once().await? {
                Ok(key) => return Ok(Ok(key)),
                Err(busy) => busy,
            };
            place.hand_on();
            if timeout_at(deadline, place.turn()).await.is_err() {
                return Ok(Err(busy));
            }
        }
    }

    async fn try_once(&self) -> Result<Result<StepKey, Refusal>, Status> {
        let command = Command::CreateStep(self.core, self.id, Arc::clone(&self.spec), self.ticket);
        match self.shared.writer.execute(command).await {
            Ok(Reply::StepCreated(key)) => Ok(Ok(key)),
            Ok(_) => Err(unexpected()),
            Err(ExecuteError::Refused(busy @ Refusal::StepBusy(_))) => Ok(Err(busy)),
            Err(error) => Err(failed(&error)),
        }
    }
}

fn created(
    snapshot: &Snapshot,
    shared: &Shared,
    key: StepKey,
) -> Result<v1::CreateStepReply, Status> {
    let cluster = &snapshot.cluster;
    let gone = || refused(&Refusal::InvalidStep(key.job, key.number));
    let step = cluster.step(key).ok_or_else(gone)?;
    let job = cluster.job(key.job).ok_or_else(gone)?;
    let run = job.run.as_ref().filter(|run| run.attempt == key.attempt);
    let plan = shared.plan();
    let view = listing::View { cluster, plan: &plan };
    Ok(v1::CreateStepReply {
        step: Some(step_to_wire(cluster, step)),
        busy: None,
        job: Some(listing::job_line(&view, job)),
        nodelist: compress(step.shares.iter().map(|part| cluster.node_name(part.share.node))),
        variables: run.map(|run| wire::variables(cluster, job, run)).unwrap_or_default(),
        kill_wait_secs: shared.file().policy.kill_wait_secs,
    })
}
