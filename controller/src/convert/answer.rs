//! How is an answer remembered, so that a request that comes again after a restart gets the same?

use penstock_core::command::{Reply, Target, TargetResult};
use penstock_core::model::{Answer, StepKey, StepNumber};
use penstock_core::refusal::Refusal;
use penstock_proto::{RECORD_FORMAT, v1};
use penstock_vocab::{Attempt, JobId, Timestamp};

use super::array::{indices_from_wire, indices_to_wire};
use super::error::ConvertError;
use super::wire::refusal_to_wire;
use v1::answer_record::Reply as Stored;

/// An answer's record. Answers to what carries no request id are never remembered; they would come
/// back as done.
#[must_use]
pub fn answer_to_wire(answer: &Answer) -> v1::AnswerRecord {
    let mut stored_warnings = Vec::new();
    let reply = match &answer.reply {
        // What a change of accounts did is told by nobody who asks again.
        Reply::Done | Reply::Started { .. } | Reply::Joined(_) | Reply::AccountsChanged(_) => {
            Stored::Done(true)
        }
        Reply::Reserved(name) => Stored::Reserved(name.to_string()),
        Reply::StepCreated(key) => Stored::Step(v1::StepName {
            job_id: key.job.0,
            attempt: key.attempt.0,
            step: key.number.0,
        }),
        Reply::Submitted { job, warnings } => {
            stored_warnings = warnings.iter().map(ToString::to_string).collect();
            Stored::JobId(job.0)
        }
        Reply::SubmittedMany(results) => Stored::Jobs(v1::SubmitJobsReply {
            results: results.iter().map(submitted_to_wire).collect(),
        }),
        Reply::Targets(results) => Stored::Targets(v1::TargetAnswers {
            answers: results.iter().map(target_to_wire).collect(),
        }),
    };
    v1::AnswerRecord {
        format: RECORD_FORMAT,
        answered_ms: answer.at.0,
        warnings: stored_warnings,
        reply: Some(reply),
    }
}

/// Inverse of [`answer_to_wire`], but that refusals come back in their words alone.
///
/// # Errors
/// If there is no reply or a part of it can't be read.
pub fn answer_from_wire(record: v1::AnswerRecord) -> Result<Answer, ConvertError> {
    let reply = match record.reply.ok_or(ConvertError::Missing { what: "the answer's reply" })? {
        Stored::Done(_) => Reply::Done,
        Stored::Reserved(name) => Reply::Reserved(name.into()),
        Stored::Step(name) => Reply::StepCreated(StepKey {
            job: JobId(name.job_id),
            attempt: Attempt(name.attempt),
            number: StepNumber(name.step),
        }),
        Stored::JobId(id) => Reply::Submitted {
            job: JobId(id),
            warnings: record.warnings.into_iter().map(Into::into).collect(),
        },
        Stored::Jobs(jobs) => {
            let results = jobs.results.into_iter().map(|result| match result.refusal {
                Some(refusal) => Err(Box::new(refusal_from_wire(refusal))),
                None => Ok(JobId(result.job_id)),
            });
            Reply::SubmittedMany(results.collect())
        }
        Stored::Targets(targets) => Reply::Targets(
            targets.answers.into_iter().map(target_from_wire).collect::<Result<_, _>>()?,
        ),
        // Never written by any version: the results as people read them name no exact target.
        Stored::Results(_) => {
            return Err(ConvertError::invalid("the answer's reply", "results without targets"));
        }
    };
    Ok(Answer { at: Timestamp(record.answered_ms), reply })
}

/// What became of one spec of several.
#[must_use]
pub fn submitted_to_wire(result: &Result<JobId, Box<Refusal>>) -> v1::submit_jobs_reply::Result {
    match result {
        Ok(id) => v1::submit_jobs_reply::Result { job_id: id.0, refusal: None },
        Err(refusal) => {
            let refusal = Some(refusal_to_wire(refusal));
            v1::submit_jobs_reply::Result { job_id: 0, refusal }
        }
    }
}

fn target_to_wire(result: &TargetResult) -> v1::TargetAnswer {
    let mut step = 0;
    let (job, kind, tasks) = match &result.target {
        Target::Id(id) => (id, v1::TargetKind::Id, None),
        Target::Job(id) => (id, v1::TargetKind::Job, None),
        Target::Waiting(id) => (id, v1::TargetKind::Waiting, None),
        Target::Tasks(id, tasks) => (id, v1::TargetKind::Tasks, Some(indices_to_wire(tasks))),
        Target::Step(id, number) => {
            step = number.0;
            (id, v1::TargetKind::Step, None)
        }
    };
    v1::TargetAnswer {
        job_id: job.0,
        kind: kind as i32,
        tasks,
        step,
        refusal: result.refusal.as_ref().map(refusal_to_wire),
    }
}

fn target_from_wire(answer: v1::TargetAnswer) -> Result<TargetResult, ConvertError> {
    let id = JobId(answer.job_id);
    let unknown =
        || ConvertError::UnknownCode { what: "target kind", code: i64::from(answer.kind) };
    let target = match v1::TargetKind::try_from(answer.kind).map_err(|_| unknown())? {
        v1::TargetKind::Unspecified => return Err(unknown()),
        v1::TargetKind::Id => Target::Id(id),
        v1::TargetKind::Job => Target::Job(id),
        v1::TargetKind::Waiting => Target::Waiting(id),
        v1::TargetKind::Step => Target::Step(id, StepNumber(answer.step)),
        v1::TargetKind::Tasks => {
            Target::Tasks(id, indices_from_wire(&answer.tasks.unwrap_or_default())?)
        }
    };
    Ok(TargetResult { target, refusal: answer.refusal.map(refusal_from_wire) })
}

fn refusal_from_wire(refusal: v1::Refusal) -> Refusal {
    Refusal::Remembered {
        kind: refusal.kind.into(),
        slurm_text: refusal.slurm_text.into(),
        detail: refusal.detail.into(),
    }
}
