//! Calls about crontabs.

use bytes::Bytes;
use penstock_core::command::{CrontabRequest, Submission};
use penstock_core::model::{CronJob, MAX_CRON_JOBS, MAX_CRONTAB_BYTES};
use penstock_core::{Command, Refusal, Reply};
use penstock_proto::v1;
use penstock_proto::v1::cron_server::Cron;
use penstock_vocab::{CronSpec, GroupId, JobId, UserId};
use tonic::{Request, Response, Status};

use super::jobs::{Blobs, blobs_of, submission, unexpected};
use super::service::Service;
use super::shared::Shared;
use super::status::failed;
use crate::convert::cron::crontab_to_wire;
use crate::convert::wire::refusal_to_wire;
use crate::cron_times::{next_times, zone_of};
use crate::identity::{Action, Authority, Caller, caller_of};
use crate::writer::ExecuteError;

#[tonic::async_trait]
impl Cron for Service {
    async fn get_crontab(
        &self,
        r: Request<v1::GetCrontabRequest>,
    ) -> Result<Response<v1::GetCrontabReply>, Status> {
        get_crontab(&self.0, &r)
    }

    async fn set_crontab(
        &self,
        r: Request<v1::SetCrontabRequest>,
    ) -> Result<Response<v1::SetCrontabReply>, Status> {
        set_crontab(&self.0, r).await
    }
}

fn get_crontab(
    shared: &Shared,
    request: &Request<v1::GetCrontabRequest>,
) -> Result<Response<v1::GetCrontabReply>, Status> {
    let caller = caller_of(request)?;
    let owner_uid = request.get_ref().uid.unwrap_or(caller.uid);
    shared.allow(caller, Action::ReadOwn { owner_uid })?;
    let snapshot = shared.snapshot();
    let crontab = snapshot.cluster.crontab(UserId(owner_uid));
    Ok(Response::new(v1::GetCrontabReply { crontab: crontab.map(|found| crontab_to_wire(found)) }))
}

async fn set_crontab(
    shared: &Shared,
    request: Request<v1::SetCrontabRequest>,
) -> Result<Response<v1::SetCrontabReply>, Status> {
    let caller = caller_of(&request)?.clone();
    let message = request.into_inner();
    let (owner, authority) = owner_of(shared, &caller, &message)?;
    let core = shared.core_caller(&caller, authority, &message.request_id)?;
    let bounds = [
        (message.entries.len(), MAX_CRON_JOBS, "lines with commands"),
        (message.text.len(), MAX_CRONTAB_BYTES, "bytes"),
    ];
    for (got, most, what) in bounds {
        if got > most {
            let text = format!("the crontab has {got} {what}, at most {most} are taken");
            return Err(Status::invalid_argument(text));
        }
    }
    let zone = zone_of(&message.zone).map_err(|why| Status::invalid_argument(why.to_string()))?;
    let (mut jobs, mut blobs) = (Vec::new(), Blobs::new());
    for entry in message.entries {
        let range = entry.lines.unwrap_or_default();
        let lines = (range.first, range.last);
        let zone = (&zone, message.zone.as_str());
        match read_entry(shared, &owner, entry, zone, &message.environment, &mut blobs)? {
            Ok(job) => jobs.push(job),
            Err(refusal) => return Ok(refused_lines(lines, &refusal)),
        }
    }
    let request = CrontabRequest {
        owner: UserId(owner.uid),
        gid: GroupId(owner.gid),
        text: message.text.into(),
        jobs,
    };
    let command = Command::SetCrontab(core, Box::new(request));
    match shared.writer.execute_with(command, blobs).await {
        Ok(Reply::SubmittedMany(made)) => {
            let ids = made.into_iter().flatten().map(|JobId(id)| id).collect();
            Ok(Response::new(v1::SetCrontabReply { job_ids: ids, ..Default::default() }))
        }
        Ok(_) => Err(unexpected()),
        Err(ExecuteError::Refused(Refusal::CrontabLine { lines, cause })) => {
            Ok(refused_lines(lines, &cause))
        }
        Err(error) => Err(failed(&error)),
    }
}

/// As whom the jobs run, and in what capacity the caller asks.
fn owner_of(
    shared: &Shared,
    caller: &Caller,
    message: &v1::SetCrontabRequest,
) -> Result<(Caller, Authority), Status> {
    match message.uid.filter(|uid| *uid != caller.uid) {
        None => Ok((caller.clone(), shared.allow(caller, Action::SubmitAs { uid: caller.uid })?)),
        Some(uid) => {
            let what = "change crontabs of other users";
            let authority = shared.allow(caller, Action::AdminAct { what })?;
            Ok((Caller { uid, gid: message.gid, ..caller.clone() }, authority))
        }
    }
}

/// Reads an entry; the inner error is its own fault.
fn read_entry(
    shared: &Shared,
    owner: &Caller,
    entry: v1::CronEntry,
    (zone, zone_name): (&jiff::tz::TimeZone, &str),
    environment: &Bytes,
    blobs: &mut Blobs,
) -> Result<Result<(Submission, CronJob), Refusal>, Status> {
    let range = entry.lines.unwrap_or_default();
    let spec = CronSpec::parse(&entry.time)
        .map_err(|why| Status::invalid_argument(format!("line {}: {why}", range.last)))?;
    let of_job = blobs_of(entry.script, environment.clone())?;
    let wanted = entry.spec.ok_or_else(|| Status::invalid_argument("an entry has no spec"))?;
    let read = submission(shared, owner, wanted, &of_job);
    blobs.extend(of_job);
    Ok(read.map(|submission| {
        let upcoming = next_times(&spec, zone, shared.clock.now()).into();
        let lines = (range.first, range.last);
        (submission, CronJob { spec, zone: zone_name.into(), lines, upcoming })
    }))
}

fn refused_lines((first, last): (u32, u32), refusal: &Refusal) -> Response<v1::SetCrontabReply> {
    Response::new(v1::SetCrontabReply {
        job_ids: Vec::new(),
        failed_lines: Some(v1::LineRange { first, last }),
        refusal: Some(refusal_to_wire(refusal)),
    })
}
