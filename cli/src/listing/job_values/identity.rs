//! Which job is it, whose, in which state and why?

use std::borrow::Cow;

use penstock_proto::v1;
use penstock_vocab::{JobState, display_state, display_state_code};

use crate::listing::job_row::{JobRow, Part};
use crate::listing::usage::{self, RowState};
use crate::listing::value::{Value, push_number};

pub(crate) fn job_id<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::number(row.job.id)
}

pub(crate) fn array_job_id<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::number(row.array_job_id())
}

/// `12`, `31_4`, `31_[3-5%2]`, and behind it `.batch` on the row of the step.
pub(crate) fn array_id<'a>(row: &JobRow<'a>) -> Value<'a> {
    if !row.is_array() && row.part == Part::Whole {
        return Value::number(row.job.id);
    }
    let mut text = String::new();
    push_number(&mut text, row.array_job_id().into());
    match (row.task_id(), row.pending_tasks()) {
        (Some(task), _) => {
            text.push('_');
            push_number(&mut text, task.into());
        }
        (None, Some(_)) => {
            text.push_str("_[");
            row.push_pending_tasks(&mut text);
            text.push(']');
        }
        (None, None) => {}
    }
    Value::Word(Cow::Owned(with_step(row, text)))
}

pub(crate) fn raw_id<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Word(Cow::Owned(with_step(row, row.job.id.to_string())))
}

fn with_step(row: &JobRow<'_>, mut text: String) -> String {
    match row.step {
        Some(step) => text.push_str(&format!(".{}", step.id())),
        None if row.part == Part::Batch => text.push_str(".batch"),
        None => {}
    }
    text
}

pub(crate) fn array_task<'a>(row: &JobRow<'a>) -> Value<'a> {
    if let Some(task) = row.task_id() {
        return Value::number(task);
    }
    let mut text = String::new();
    row.push_pending_tasks(&mut text);
    Value::OrNa(Cow::Owned(text))
}

pub(crate) fn name<'a>(row: &JobRow<'a>) -> Value<'a> {
    let spec = row.step.and_then(|step| step.step().spec.as_ref());
    match (row.part, spec) {
        (Part::Batch, _) => Value::word("batch"),
        (Part::Step, spec) => Value::word(spec.map_or("", |spec| &spec.name)),
        (Part::Whole | Part::Task(_), _) => Value::word(&row.spec.name),
    }
}

pub(crate) fn user<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::word(&row.info.user_name))
}

pub(crate) fn uid<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::number(row.job.uid))
}

pub(crate) fn group<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::word(&row.info.group_name))
}

pub(crate) fn gid<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::number(row.job.gid))
}

pub(crate) fn account<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::text(&row.spec.account)
}

pub(crate) fn qos<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::text(&row.spec.qos))
}

pub(crate) fn partition<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::word(partition_text(row)))
}

fn partition_text<'a>(row: &JobRow<'a>) -> &'a str {
    match row.run {
        Some(run) if !run.partition.is_empty() => &run.partition,
        _ => &row.info.partition,
    }
}

pub(crate) fn cluster<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::OrNa(Cow::Borrowed(row.cluster))
}

// State and reason.

pub(crate) fn state<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::word(display_state(row.base_state(), row.flags()))
}

pub(crate) fn state_code<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::word(display_state_code(row.base_state(), row.flags()))
}

/// As accounting names it: `CANCELLED by 0`, `REQUEUED`.
pub(crate) fn accounted_state<'a>(row: &JobRow<'a>) -> Value<'a> {
    match (usage::row_state(row), usage::cancelled_by(row)) {
        (RowState::Requeued, _) => Value::word("REQUEUED"),
        (RowState::Base(state), Some(uid)) => {
            Value::Word(Cow::Owned(format!("{} by {uid}", state.name())))
        }
        (RowState::Base(state), None) => Value::word(state.name()),
    }
}

pub(crate) fn reason<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::word(reason_text(row)))
}

/// The reason, `None` where there is none.
pub(crate) fn reason_text<'a>(row: &JobRow<'a>) -> &'a str {
    // A job that was cancelled while it was held keeps that as its reason.
    let cancelled = row.run.is_none() && row.base_state() == JobState::Cancelled;
    match (row.info.reason.as_str(), row.job.hold()) {
        ("" | "None", v1::HoldKind::User) if cancelled => "JobHeldUser",
        ("" | "None", v1::HoldKind::Admin) if cancelled => "JobHeldAdmin",
        ("", _) => "None",
        (reason, _) => reason,
    }
}

/// Why it waits, as accounting tells it: of a job that ran nothing is left of that.
pub(crate) fn accounted_reason<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::word(if row.run.is_some() { "None" } else { reason_text(row) }))
}

/// The nodes of a job that has some, or why it has none: `(Resources)`.
pub(crate) fn reason_or_nodes<'a>(row: &JobRow<'a>) -> Value<'a> {
    let completing = row.flags().contains(penstock_vocab::JobFlag::Completing);
    let tells_reason = matches!(
        row.base_state(),
        JobState::Pending
            | JobState::Timeout
            | JobState::OutOfMemory
            | JobState::Deadline
            | JobState::Failed
    );
    if tells_reason && !completing {
        Value::Word(Cow::Owned(format!("({})", reason_text(row))))
    } else {
        Value::word(&row.info.nodelist)
    }
}

pub(crate) fn wait_status<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Number(usage::live_exit_code(row).to_wait_status().into())
}

pub(crate) fn accounted_exit_code<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Word(Cow::Owned(usage::row_exit_code(row).to_string()))
}

pub(crate) fn derived_wait_status<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Number(usage::derived_exit(row).to_wait_status().into())
}

pub(crate) fn derived_exit_code<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::Word(Cow::Owned(usage::derived_exit(row).to_string())))
}

pub(crate) fn priority<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::number(row.info.priority))
}

/// The association that is charged; 0: the root's.
pub(crate) fn association<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::number(row.job.association))
}

pub(crate) fn priority_share<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Share(f64::from(row.info.priority) / f64::from(u32::MAX))
}

pub(crate) fn nice<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::Number(row.spec.nice.into())
}

pub(crate) fn restarts<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::number(row.job.restarts)
}

pub(crate) fn requeue<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::number(u32::from(row.spec.requeue.unwrap_or(true)))
}

pub(crate) fn dependency<'a>(row: &JobRow<'a>) -> Value<'a> {
    Value::text(&row.info.dependency)
}
