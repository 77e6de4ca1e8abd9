//! Which job, array task or step does a user mean by `123`, `123_4`, `123_[1-3,7]`, `123.batch`?

use std::fmt;
use std::str::FromStr;

use crate::array_spec::{ArraySpecError, parse_array_spec};
use crate::ids::{ArrayTaskId, JobId, plain_number};
use crate::indexset::IndexSet;
use crate::limits::MAX_ARRAY_INDEX;

/// One job, or tasks of a job array, as users type it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum JobSelector {
    /// `123`: the job, or every task of the array with that id.
    Job(JobId),
    /// `123_4`: one task.
    Task(JobId, ArrayTaskId),
    /// `123_[1-3,7]`: some tasks; never empty after parsing.
    Tasks(JobId, IndexSet),
    /// `123_*`: every task of an array.
    AllTasks(JobId),
}

/// Which step of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StepId {
    /// The batch script: `batch`.
    Batch,
    /// The step that holds processes from outside (ssh): `extern`.
    Extern,
    /// salloc's step on the node: `interactive`.
    Interactive,
    /// What srun started, counted from 0.
    Number(u32),
}

/// The number under which salloc's step on the node is kept.
pub const INTERACTIVE_STEP: u32 = 0xffff_fffa;

/// A step as users type it and sacct prints it: `123.0`, `123_4.batch`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StepSelector {
    /// The job, or the array that the task is in.
    pub job: JobId,
    /// The task, where an array was named.
    pub task: Option<ArrayTaskId>,
    /// The step.
    pub step: StepId,
}

/// Why a text names no job or step.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// The part before `_` or `.` is no job id.
    #[error("job id {text:?} is not a number from 1 up; give 123, 123_4 or 123_[1-3]")]
    JobId {
        /// The text as given.
        text: String,
    },
    /// The part behind `_` is no task.
    #[error(
        "array task of {text:?} is not a number up to {MAX_ARRAY_INDEX}, a list in brackets or *"
    )]
    TaskId {
        /// The text as given.
        text: String,
    },
    /// The list in brackets is wrong; the source says how.
    #[error("array tasks of {text:?} are not understood")]
    Tasks {
        /// The text as given.
        text: String,
        /// What is wrong with the list.
        source: ArraySpecError,
    },
    /// The part behind `.` is no step.
    #[error("step of {text:?} is not a number, batch, extern or interactive")]
    Step {
        /// The text as given.
        text: String,
    },
}

/// Slurm's numbers for the steps that have a name; from this one up none is a step's number.
const INTERACTIVE_CODE: u32 = 4_294_967_290;
const BATCH_CODE: u32 = 4_294_967_291;
const EXTERN_CODE: u32 = 4_294_967_292;

impl JobSelector {
    /// The id before the underscore.
    #[must_use]
    pub const fn job(&self) -> JobId {
        match self {
            Self::Job(job) | Self::Task(job, _) | Self::Tasks(job, _) | Self::AllTasks(job) => *job,
        }
    }
}

impl StepId {
    /// Slurm's number: batch 4294967291, extern 4294967292, interactive 4294967290.
    #[must_use]
    pub const fn code(self) -> u32 {
        match self {
            Self::Batch => BATCH_CODE,
            Self::Extern => EXTERN_CODE,
            Self::Interactive => INTERACTIVE_CODE,
            Self::Number(number) => number,
        }
    }

    /// Inverse of [`Self::code`]; `None` for Slurm's other reserved numbers.
    #[must_use]
    pub const fn from_code(code: u32) -> Option<Self> {
        match code {
            BATCH_CODE => Some(Self::Batch),
            EXTERN_CODE => Some(Self::Extern),
            INTERACTIVE_CODE => Some(Self::Interactive),
            number if number < INTERACTIVE_CODE => Some(Self::Number(number)),
            _ => None,
        }
    }
}

impl FromStr for StepId {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let error = || SelectorError::Step { text: text.to_owned() };
        match text {
            "batch" => Ok(Self::Batch),
            "extern" => Ok(Self::Extern),
            "interactive" => Ok(Self::Interactive),
            digits => {
                let number = plain_number(digits).filter(|&number| number < INTERACTIVE_CODE);
                number.map(Self::Number).ok_or_else(error)
            }
        }
    }
}

impl fmt::Display for StepId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Batch => f.pad("batch"),
            Self::Extern => f.pad("extern"),
            Self::Interactive => f.pad("interactive"),
            Self::Number(number) => number.fmt(f),
        }
    }
}

fn parse_job_id(digits: &str, text: &str) -> Result<JobId, SelectorError> {
    let id = plain_number(digits).filter(|&id| id != 0);
    id.map(JobId).ok_or_else(|| SelectorError::JobId { text: text.to_owned() })
}

fn parse_task_id(digits: &str, text: &str) -> Result<ArrayTaskId, SelectorError> {
    let id = plain_number(digits).filter(|&id| id <= MAX_ARRAY_INDEX);
    id.map(ArrayTaskId).ok_or_else(|| SelectorError::TaskId { text: text.to_owned() })
}

impl FromStr for JobSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let Some((job, tasks)) = text.split_once('_') else {
            return parse_job_id(text, text).map(Self::Job);
        };
        let job = parse_job_id(job, text)?;
        if tasks == "*" {
            return Ok(Self::AllTasks(job));
        }
        let Some(list) = tasks.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) else {
            return Ok(Self::Task(job, parse_task_id(tasks, text)?));
        };
        let wrong = |source| SelectorError::Tasks { text: text.to_owned(), source };
        // A throttle is what squeue shows behind a pending list; users paste it back.
        let (set, _throttle) = parse_array_spec(list).map_err(wrong)?;
        Ok(Self::Tasks(job, set))
    }
}

impl fmt::Display for JobSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(job) => write!(f, "{job}"),
            Self::Task(job, task) => write!(f, "{job}_{task}"),
            Self::Tasks(job, tasks) => write!(f, "{job}_[{tasks}]"),
            Self::AllTasks(job) => write!(f, "{job}_*"),
        }
    }
}

impl FromStr for StepSelector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong_step = || SelectorError::Step { text: text.to_owned() };
        let (job, step) = text.split_once('.').ok_or_else(wrong_step)?;
        let step = step.parse().map_err(|_| wrong_step())?;
        match job.split_once('_') {
            None => Ok(Self { job: parse_job_id(job, text)?, task: None, step }),
            Some((job, task)) => {
                let task = Some(parse_task_id(task, text)?);
                Ok(Self { job: parse_job_id(job, text)?, task, step })
            }
        }
    }
}

impl fmt::Display for StepSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.task {
            None => write!(f, "{}.{}", self.job, self.step),
            Some(task) => write!(f, "{}_{task}.{}", self.job, self.step),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn selectors_read_as_users_type_them() {
        let set: IndexSet = [1, 2, 3, 7].into_iter().collect();
        for (text, expect) in [
            ("123", JobSelector::Job(JobId(123))),
            ("123_0", JobSelector::Task(JobId(123), ArrayTaskId(0))),
            ("123_[1-3,7]", JobSelector::Tasks(JobId(123), set)),
            ("123_*", JobSelector::AllTasks(JobId(123))),
        ] {
            assert_eq!(text.parse(), Ok(expect.clone()));
            assert_eq!(expect.to_string(), text);
            assert_eq!(expect.job(), JobId(123));
        }
        assert_eq!("5_[1%2]".parse(), Ok(JobSelector::Tasks(JobId(5), [1].into_iter().collect())));
    }

    #[test]
    fn other_texts_are_refused() {
        for text in
            ["", "0", "foo", "-1", "1_", "1_x", "1_[", "1_[]", "1_[3-1]", "1_4000001", "_1", "1.0"]
        {
            assert!(text.parse::<JobSelector>().is_err(), "{text:?}");
        }
        for text in ["1", "1.", ".0", "1.x", "1_.0", "1.4294967290", "1.BATCH", "0.0"] {
            assert!(text.parse::<StepSelector>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn named_steps_have_slurms_numbers() {
        for (step, code) in [
            (StepId::Batch, 4_294_967_291),
            (StepId::Extern, 4_294_967_292),
            (StepId::Interactive, 4_294_967_290),
            (StepId::Number(7), 7),
        ] {
            assert_eq!(step.code(), code);
            assert_eq!(StepId::from_code(code), Some(step));
        }
        assert_eq!(StepId::from_code(4_294_967_293), None);
    }

    proptest! {
        #[test]
        fn steps_read_back(
            job in 1_u32.., task in prop::option::of(0..=MAX_ARRAY_INDEX), code in prop_oneof![0_u32..9, 4_294_967_285_u32..4_294_967_293]
        ) {
            let step = StepId::from_code(code).expect("in range");
            let selector = StepSelector { job: JobId(job), task: task.map(ArrayTaskId), step };
            prop_assert_eq!(selector.to_string().parse(), Ok(selector));
        }

        #[test]
        fn task_lists_read_back(job in 1_u32.., tasks in prop::collection::btree_set(0_u32..200, 1..40)) {
            let selector = JobSelector::Tasks(JobId(job), tasks.into_iter().collect());
            prop_assert_eq!(selector.to_string().parse(), Ok(selector));
        }
    }
}
