//! Which job, and which part of it, does a line of a listing tell of?
//!
//! A row borrows the message it came from. A message without a record, as a newer or broken daemon
//! might send it, reads as one whose fields are all unset.

use std::sync::LazyLock;

use penstock_proto::v1;
use penstock_vocab::{ArrayTaskId, ExitCode, JobFlags, JobId, JobState, PatternFields, StepId};

use super::array;
use super::step::StepRecord;
use super::value::Value;

static NO_JOB: LazyLock<v1::Job> = LazyLock::new(v1::Job::default);
static NO_SPEC: LazyLock<v1::JobSpec> = LazyLock::new(v1::JobSpec::default);

/// Which part of the record the line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All of it.
    Whole,
    /// One waiting task of an array.
    Task(u32),
    /// The step that runs the batch script.
    Batch,
    /// A step of srun or salloc.
    Step,
}

/// A job as a line sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct JobRow<'a> {
    /// The message.
    pub(crate) info: &'a v1::JobInfo,
    /// Its record.
    pub(crate) job: &'a v1::Job,
    /// What was submitted.
    pub(crate) spec: &'a v1::JobSpec,
    /// The run that the line tells of; none while the job waits.
    pub(crate) run: Option<&'a v1::Run>,
    /// Which part.
    pub(crate) part: Part,
    /// The step, where the line is about one that has a record.
    pub(crate) step: Option<&'a StepRecord>,
    /// Milliseconds since the epoch at which the listing is made.
    pub(crate) now_ms: i64,
    /// Name of the cluster; empty where it was not asked for.
    pub(crate) cluster: &'a str,
    /// Most characters of a list of waiting tasks; `None`: no limit.
    pub(crate) list_limit: Option<usize>,
}

impl<'a> JobRow<'a> {
    /// The job as it is now: a job that waits again shows nothing of its last run.
    pub(crate) fn live(info: &'a v1::JobInfo, now_ms: i64) -> Self {
        let mut row = Self::accounted(info, now_ms);
        if row.base_state() == JobState::Pending {
            row.run = None;
        }
        row
    }

    /// The job as accounting tells of it, with the run of the message.
    pub(crate) fn accounted(info: &'a v1::JobInfo, now_ms: i64) -> Self {
        let job = info.job.as_ref().unwrap_or_else(|| &*NO_JOB);
        let spec = job.spec.as_ref().unwrap_or_else(|| &*NO_SPEC);
        let run = job.run.as_ref().filter(|run| run.start_ms != 0);
        let (part, cluster, list_limit) = (Part::Whole, "", None);
        Self { info, job, spec, run, part, step: None, now_ms, cluster, list_limit }
    }

    /// The same job, another part.
    pub(crate) const fn with_part(mut self, part: Part) -> Self {
        self.part = part;
        self
    }

    /// The row of one of the job's steps.
    pub(crate) const fn with_step(mut self, step: &'a StepRecord) -> Self {
        self.part = Part::Step;
        self.run = Some(&step.run);
        self.step = Some(step);
        self
    }

    /// Whether the line is about a step.
    pub(crate) const fn is_step(&self) -> bool {
        matches!(self.part, Part::Batch | Part::Step)
    }

    /// Empty on the row of a step, else `value`.
    pub(crate) fn of_job<'v>(&self, value: Value<'v>) -> Value<'v> {
        if self.is_step() { Value::Empty } else { value }
    }

    /// The base state; that of a newer daemon that is unknown here reads as PENDING.
    pub(crate) fn base_state(&self) -> JobState {
        JobState::from_code(self.job.state).unwrap_or(JobState::Pending)
    }

    /// The flags.
    pub(crate) fn flags(&self) -> JobFlags {
        JobFlags::from_bits(self.job.flags)
    }

    /// The waiting tasks, where the record is the rest of an array.
    pub(crate) fn pending_tasks(&self) -> Option<&'a v1::IndexRuns> {
        self.info.pending_tasks.as_ref().filter(|tasks| !tasks.runs.is_empty())
    }

    /// The array's id, or the job's own outside an array.
    pub(crate) const fn array_job_id(&self) -> u32 {
        if self.job.array_job_id == 0 { self.job.id } else { self.job.array_job_id }
    }

    /// The index in the array, of a task that has a record of its own or is shown alone.
    pub(crate) const fn task_id(&self) -> Option<u32> {
        match self.part {
            Part::Task(task) => Some(task),
            Part::Whole | Part::Batch | Part::Step => self.job.array_task_id,
        }
    }

    /// Whether the job belongs to an array.
    pub(crate) fn is_array(&self) -> bool {
        self.task_id().is_some() || self.pending_tasks().is_some()
    }

    /// How many tasks of the array may run at once; 0: any number.
    pub(crate) fn throttle(&self) -> u32 {
        self.job.array.as_ref().map_or(0, |array| array.throttle)
    }

    /// Appends `3-9%2`: the waiting tasks and the throttle.
    pub(crate) fn push_pending_tasks(&self, out: &mut String) {
        if let Some(tasks) = self.pending_tasks() {
            array::push_indices(out, tasks, self.throttle(), self.list_limit);
        }
    }

    /// When the job began or is expected to begin; 0: unknown.
    pub(crate) fn start_ms(&self) -> i64 {
        if let Some(run) = self.run {
            return run.start_ms;
        }
        if self.base_state().is_finished() {
            return self.job.end_ms;
        }
        let begin = self.spec.begin_time_ms.max(self.job.not_before_ms);
        match self.info.expected_start_ms {
            0 if begin > self.now_ms => begin,
            expected => expected,
        }
    }

    /// When the job, or the run, ended; 0: it has not.
    pub(crate) fn ended_ms(&self) -> i64 {
        match self.run {
            Some(run) => run.end_ms,
            None if self.base_state().is_finished() => self.job.end_ms,
            None => 0,
        }
    }

    /// Seconds that the job has run.
    pub(crate) fn used_secs(&self) -> u64 {
        let Some(run) = self.run else { return 0 };
        let end = if run.end_ms == 0 { self.now_ms } else { run.end_ms };
        // Whole seconds on both sides, so that the difference agrees with the times shown.
        let secs = end.div_euclid(1000) - run.start_ms.div_euclid(1000);
        u64::try_from(secs).unwrap_or(0).saturating_sub(self.suspended_ms() / 1000)
    }

    /// Milliseconds that the run has stood still, until now or its end.
    pub(crate) fn suspended_ms(&self) -> u64 {
        let Some(run) = self.run else { return 0 };
        let end = if run.end_ms == 0 { self.now_ms } else { run.end_ms };
        let now = match run.suspended_since_ms {
            0 => 0,
            since => u64::try_from(end.saturating_sub(since)).unwrap_or(0),
        };
        run.suspended_ms.saturating_add(now)
    }

    /// The time limit in seconds; `None`: unlimited.
    pub(crate) fn limit_secs(&self) -> Option<u64> {
        Some(self.job.time_limit_secs).filter(|secs| *secs != 0)
    }

    /// How the batch script ended; success while it runs.
    pub(crate) fn exit_code(&self) -> ExitCode {
        let Some(run) = self.run.filter(|run| run.end_ms != 0) else { return ExitCode::SUCCESS };
        let byte = |number: u32| u8::try_from(number & 0xff).expect("eight bits");
        ExitCode { status: byte(run.exit_status), signal: byte(run.exit_signal & 0x7f) }
    }

    /// A path with its pattern filled in, below the working directory unless absolute.
    pub(crate) fn path(&self, pattern: &str) -> String {
        let array = match (self.task_id(), self.pending_tasks()) {
            (Some(task), _) => Some(task),
            (None, Some(_)) => Some(penstock_vocab::NO_ARRAY_TASK),
            (None, None) => None,
        };
        let fields = PatternFields {
            job_id: JobId(self.job.id),
            array: array.map(|task| (JobId(self.array_job_id()), ArrayTaskId(task))),
            step: StepId::Batch,
            node_name: &self.info.batch_host,
            node_index: 0,
            task: 0,
            user: &self.info.user_name,
            job_name: &self.spec.name,
        };
        let path = penstock_vocab::expand_pattern(pattern, &fields);
        if path.starts_with('/') {
            path
        } else {
            format!("{}/{path}", self.spec.work_dir.trim_end_matches('/'))
        }
    }
}
