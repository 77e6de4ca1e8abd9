//! How does somebody else come to hear what a step says?

use penstock_core::Refusal;
use penstock_core::model::{Step, StepPhase};
use penstock_proto::v1;
use penstock_proto::v1::controller_message::Body as ToAgent;
use tonic::{Request, Response, Status};

use super::super::shared::Shared;
use super::super::status::refused;
use super::create::checked;
use super::own_step;
use crate::convert::step::step_to_wire;
use crate::identity::caller_of;
use crate::steps::Kept;
use crate::writer::Snapshot;

/// Makes the shepherds of a step connect to one more listener.
pub(super) fn attach_step(
    shared: &Shared,
    request: Request<v1::AttachStepRequest>,
) -> Result<Response<v1::AttachStepReply>, Status> {
    let caller = caller_of(&request)?.clone();
    let message = request.into_inner();
    let snapshot = shared.snapshot();
    let step = own_step(shared, &snapshot, &caller, (message.job_id, message.step))?;
    if !step.is_live() {
        return Err(refused(&Refusal::AlreadyDone(step.key.job)));
    }
    let kept = Kept { addresses: message.addresses, port: message.port, secret: message.secret };
    let kept = checked(kept)?;
    let told = tell_shepherds(shared, &snapshot, &step, &kept);
    if told == 0 {
        return Err(Status::unavailable(format!(
            "no node of step {} can be reached now; try again",
            step.key
        )));
    }
    let step = Some(step_to_wire(&snapshot.cluster, &step));
    Ok(Response::new(v1::AttachStepReply { step }))
}

/// How many nodes were told of a listener.
fn tell_shepherds(shared: &Shared, snapshot: &Snapshot, step: &Step, kept: &Kept) -> usize {
    let runs = step.shares.iter().filter(|part| part.phase == StepPhase::Running);
    let nodes = runs.filter_map(|part| snapshot.cluster.node(part.share.node));
    let tell = |name| {
        let listener = v1::AttachListener {
            job_id: step.key.job.0,
            attempt: step.key.attempt.0,
            step: step.key.number.0,
            addresses: kept.addresses.clone(),
            port: kept.port,
            secret: kept.secret.clone(),
        };
        shared.links.send(name, ToAgent::Attach(listener))
    };
    nodes.filter(|(node, _)| tell(&node.name)).count()
}
