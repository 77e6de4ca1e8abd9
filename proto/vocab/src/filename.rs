//! Which file does `slurm-%A_%a.out` mean for this task?
//!
//! The patterns of sbatch(1) and srun(1): `%%`, `%A`, `%a`, `%J`, `%j`, `%N`, `%n`, `%s`, `%t`,
//! `%u`, `%x`. A number before the letter pads numeric ones with zeros. A backslash anywhere in the
//! name switches replacement off; the backslash itself goes (two give one).

use std::fmt::Write as _;

use crate::ids::{ArrayTaskId, JobId};
use crate::selector::StepId;

/// What `%a` prints for a job that is no array task: Slurm's `NO_VAL`.
pub const NO_ARRAY_TASK: u32 = 4_294_967_294;

/// Widest zero padding; wider ones are cut to it, as in Slurm.
const MAX_PAD: usize = 10;

/// What the letters of a pattern stand for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternFields<'a> {
    /// `%j`: the job's own id.
    pub job_id: JobId,
    /// `%A` and `%a`: the array's id and the index; a job outside an array has none.
    pub array: Option<(JobId, ArrayTaskId)>,
    /// `%s`, and the part of `%J` behind the point.
    pub step: StepId,
    /// `%N`: the node's short host name.
    pub node_name: &'a str,
    /// `%n`: which node of the job this is, from 0.
    pub node_index: u32,
    /// `%t`: the rank of the task.
    pub task: u32,
    /// `%u`: the user's name.
    pub user: &'a str,
    /// `%x`: the job's name.
    pub job_name: &'a str,
}

/// The file name that `pattern` gives. An unknown letter stays as it is, with its `%`.
///
/// Values are put in as they are: a job name with a slash names a file in another directory, which
/// the caller opens with the user's own rights.
#[must_use]
pub fn expand_pattern(pattern: &str, fields: &PatternFields<'_>) -> String {
    if pattern.contains('\\') {
        return without_backslashes(pattern);
    }
    let mut out = String::with_capacity(pattern.len() + 16);
    let mut rest = pattern;
    while let Some((literal, tail)) = rest.split_once('%') {
        out.push_str(literal);
        let digits = tail.bytes().take_while(u8::is_ascii_digit).count();
        let (number, after) = tail.split_at(digits);
        let pad = number.parse().unwrap_or(if number.is_empty() { 0 } else { MAX_PAD });
        let mut letters = after.chars();
        let known =
            letters.next().is_some_and(|c| push_field(&mut out, c, pad.min(MAX_PAD), fields));
        if known {
            rest = letters.as_str();
        } else {
            out.push('%');
            rest = tail;
        }
    }
    out.push_str(rest);
    out
}

/// Appends what `letter` stands for; false if it is no field.
fn push_field(out: &mut String, letter: char, pad: usize, fields: &PatternFields<'_>) -> bool {
    let (array_job, array_task) = match fields.array {
        Some((job, task)) => (job.0, task.0),
        None => (fields.job_id.0, NO_ARRAY_TASK),
    };
    let number = match letter {
        'A' => array_job,
        'a' => array_task,
        'j' | 'J' => fields.job_id.0,
        'n' => fields.node_index,
        't' => fields.task,
        's' => return push_step(out, fields.step, pad),
        '%' => return push_text(out, "%"),
        'N' => return push_text(out, fields.node_name),
        'u' => return push_text(out, fields.user),
        'x' => return push_text(out, fields.job_name),
        _ => return false,
    };
    write!(out, "{number:0pad$}").expect("writing to a String cannot fail");
    // In a batch script %J is the job's id alone.
    if letter == 'J' && fields.step != StepId::Batch {
        write!(out, ".{}", fields.step).expect("writing to a String cannot fail");
    }
    true
}

fn push_step(out: &mut String, step: StepId, pad: usize) -> bool {
    match step {
        StepId::Number(number) => {
            write!(out, "{number:0pad$}").expect("writing to a String cannot fail");
        }
        StepId::Batch | StepId::Extern | StepId::Interactive => {
            write!(out, "{step}").expect("writing to a String cannot fail");
        }
    }
    true
}

fn push_text(out: &mut String, text: &str) -> bool {
    out.push_str(text);
    true
}

/// The pattern with each backslash gone but the letter behind it kept.
fn without_backslashes(pattern: &str) -> String {
    let mut out = String::with_capacity(pattern.len());
    let mut letters = pattern.chars();
    while let Some(letter) = letters.next() {
        match letter {
            '\\' => out.extend(letters.next()),
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields() -> PatternFields<'static> {
        PatternFields {
            job_id: JobId(7),
            array: None,
            step: StepId::Batch,
            node_name: "n1",
            node_index: 2,
            task: 3,
            user: "ann",
            job_name: "train",
        }
    }

    #[test]
    fn patterns_of_a_batch_job() {
        for (pattern, expect) in [
            ("slurm-%j.out", "slurm-7.out"),
            ("%A_%a", "7_4294967294"),
            ("%J.%s", "7.batch"),
            ("%x-%u-%N-%n-%t", "train-ann-n1-2-3"),
            ("%4t.%10j.%99j", "0003.0000000007.0000000007"),
            ("%999999999999999999999j", "0000000007"),
            ("100%%", "100%"),
            ("%q%4q%", "%q%4q%"),
            ("%5x", "train"),
            ("a\\%j", "a%j"),
            ("a\\\\%j", "a\\%j"),
            ("%%j", "%j"),
            ("é%jé", "é7é"),
        ] {
            assert_eq!(expand_pattern(pattern, &fields()), expect, "{pattern:?}");
        }
    }

    #[test]
    fn patterns_of_a_step_of_an_array_task() {
        let array = Some((JobId(5), ArrayTaskId(12)));
        let fields = PatternFields { array, step: StepId::Number(0), ..fields() };
        assert_eq!(expand_pattern("%A_%3a %J %2s", &fields), "5_012 7.0 00");
    }
}
