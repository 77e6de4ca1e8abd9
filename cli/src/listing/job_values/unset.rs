//! What does Slurm show for what a job here never has?

use std::borrow::Cow;

use crate::listing::job_row::{JobRow, Part};
use crate::listing::value::Value;

pub(crate) fn unset<'a>(_: &JobRow<'a>) -> Value<'a> {
    Value::text("")
}

pub(crate) fn not_applicable<'a>(_: &JobRow<'a>) -> Value<'a> {
    Value::OrNa(Cow::Borrowed(""))
}

pub(crate) fn any<'a>(_: &JobRow<'a>) -> Value<'a> {
    Value::word("*")
}

pub(crate) fn any_geometry<'a>(_: &JobRow<'a>) -> Value<'a> {
    Value::word("*:*:*")
}

pub(crate) fn zero<'a>(_: &JobRow<'a>) -> Value<'a> {
    Value::Number(0)
}

pub(crate) fn one<'a>(_: &JobRow<'a>) -> Value<'a> {
    Value::Number(1)
}

pub(crate) fn no_time<'a>(_: &JobRow<'a>) -> Value<'a> {
    Value::Elapsed(0)
}

pub(crate) fn not_set<'a>(_: &JobRow<'a>) -> Value<'a> {
    Value::word("NotSet")
}

pub(crate) fn unknown<'a>(row: &JobRow<'a>) -> Value<'a> {
    if row.part == Part::Batch { Value::Number(0) } else { Value::word("Unknown") }
}

pub(crate) fn step_unknown<'a>(row: &JobRow<'a>) -> Value<'a> {
    if row.is_step() { Value::word("Unknown") } else { Value::Empty }
}

pub(crate) fn empty<'a>(_: &JobRow<'a>) -> Value<'a> {
    Value::Empty
}

pub(crate) fn job_zero<'a>(row: &JobRow<'a>) -> Value<'a> {
    row.of_job(Value::Number(0))
}
