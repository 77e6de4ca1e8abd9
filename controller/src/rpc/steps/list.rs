//! Which steps are there?

use std::sync::Arc;

use penstock_proto::v1;
use tonic::{Request, Response, Status};

use super::super::reads::stream;
use super::super::shared::Shared;
use super::super::status::refused;
use super::Chunks;
use crate::identity::{Action, caller_of};
use crate::listing::{self, View};

/// Steps in one part of a listing.
const STEPS_PER_PART: usize = 1_000;

pub(super) fn list_steps(
    shared: &Arc<Shared>,
    request: Request<v1::ListStepsRequest>,
) -> Result<Response<Chunks<v1::ListStepsReply>>, Status> {
    shared.allow(caller_of(&request)?, Action::ReadListing)?;
    let message = request.into_inner();
    let (snapshot, plan) = (shared.snapshot(), shared.plan());
    Ok(stream(move |give| {
        let view = View { cluster: &snapshot.cluster, plan: &plan };
        let steps = listing::list_steps(&view, &message).map_err(|refusal| refused(&refusal))?;
        for part in steps.chunks(STEPS_PER_PART) {
            if !give(v1::ListStepsReply { steps: part.to_vec() }) {
                break;
            }
        }
        Ok(())
    }))
}
