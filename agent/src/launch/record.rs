//! What do agent and shepherd write down for each other, and how do they speak?
//!
//! Messages are protobuf, one to a packet of a `SOCK_SEQPACKET` socket. They are private to one
//! machine, yet evolve by addition: an agent of a newer version adopts older shepherds.

use penstock_proto::usage::{task_usage_from_wire, task_usage_to_wire};
use penstock_proto::v1;
use penstock_supervisor::{AttemptKey, RunResult, Usage};
use penstock_vocab::{Attempt, JobId, Millis, Timestamp};

use super::cgroup::{GroupName, Hierarchies};
use crate::gpu::Grant;

/// File in an attempt's folder: what is to be started.
pub(super) const INTENT: &str = "intent";
/// File: made by whoever may start the attempt, and locked while that one lives.
pub(super) const CLAIM: &str = "claim";
/// The claim of a shepherd before it has its name; locked by then.
pub(super) const CLAIM_NEW: &str = "claim.new";
/// File: how the attempt ended.
pub(super) const EXIT: &str = "exit";
/// The same file while it is written.
pub(super) const EXIT_NEW: &str = "exit.new";
/// Socket: made by a shepherd whose agent is gone.
pub(super) const CONTROL: &str = "control";
/// File: what a shepherd said when it panicked.
pub(super) const PANIC: &str = "panic";
/// Name of the script, as Slurm's; programs see it in `$0`.
pub(super) const SCRIPT: &str = "slurm_script";

/// What an agent writes into the claim, so that the attempt never starts.
pub(super) const CLAIMED_BY_AGENT: &[u8] = b"never";
/// The same, for an attempt whose launch was not seen.
pub(super) const TOMBSTONE: &[u8] = b"tombstone";

/// The step number under which an epilog of the site is started; a prolog is the one before it.
pub(super) const EPILOG: u32 = 4_294_967_281;

/// Largest packet on a control socket.
pub(super) const MAX_PACKET: usize = 16 << 10;
/// Longest text for people in one, bytes.
pub(super) const MAX_TEXT: usize = 1024;

/// Everything that a shepherd needs.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Intent {
    #[prost(message, optional, tag = "1")]
    pub(super) launch: Option<v1::Launch>,
    /// Boot id of the machine; an intent of an earlier boot describes nothing that runs.
    #[prost(string, tag = "2")]
    pub(super) boot_id: String,
    #[prost(message, optional, tag = "3")]
    pub(super) hierarchies: Option<Hierarchies>,
    /// Folder for the script.
    #[prost(string, tag = "4")]
    pub(super) script_dir: String,
    /// Name of this node.
    #[prost(string, tag = "5")]
    pub(super) node: String,
    /// The agent's socket for commands.
    #[prost(string, tag = "6")]
    pub(super) socket: String,
    /// Folder with commands of Slurm's names; empty: none.
    #[prost(string, tag = "7")]
    pub(super) commands_dir: String,
    /// Real CPUs to pin to, as the kernel lists them; empty: do not pin.
    #[prost(string, tag = "8")]
    pub(super) cpus: String,
    /// Most processes and threads of the job; 0: no limit.
    #[prost(uint32, tag = "9")]
    pub(super) max_processes: u32,
    /// File from which leases are known.
    #[prost(string, tag = "10")]
    pub(super) lease_file: String,
    /// A step's part, instead of `launch`.
    #[prost(message, optional, tag = "11")]
    pub(super) step: Option<v1::LaunchStep>,
    /// The real CPUs of a step, in the order of their logical numbers; empty: do not pin.
    #[prost(uint32, repeated, tag = "12")]
    pub(super) step_cpus: Vec<u32>,
    /// A prolog or epilog of the site, instead of `launch`.
    #[prost(message, optional, tag = "13")]
    pub(super) hook: Option<v1::LaunchHook>,
    /// The devices that it gets; absent: an agent that knew of none.
    #[prost(message, optional, tag = "20")]
    pub(super) devices: Option<Grant>,
}

/// What is to be started.
#[derive(Debug, Clone, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "it is passed on in a box")]
pub enum Part {
    /// A batch script.
    Batch(v1::Launch),
    /// This node's part of a step.
    Step(v1::LaunchStep),
    /// A prolog or epilog of the site.
    Hook(v1::LaunchHook),
}

impl Part {
    /// What the job has on this node.
    pub(super) fn job_share(&self) -> Option<&v1::NodeShare> {
        match self {
            Self::Batch(launch) => launch.job.as_ref()?.run.as_ref()?.shares.first(),
            Self::Step(launch) => launch.job_share.as_ref(),
            Self::Hook(launch) => launch.share.as_ref(),
        }
    }
}

impl Part {
    /// The generic resources that it has on this node.
    pub(super) fn gres(&self) -> &[v1::GresShare] {
        let share = match self {
            Self::Batch(_) | Self::Hook(_) => self.job_share(),
            Self::Step(launch) => launch
                .step
                .as_ref()
                .and_then(|step| step.shares.first())
                .and_then(|share| share.share.as_ref()),
        };
        share.map_or(&[], |share| &share.gres)
    }
}

impl From<v1::Launch> for Part {
    fn from(launch: v1::Launch) -> Self {
        Self::Batch(launch)
    }
}

impl From<v1::LaunchStep> for Part {
    fn from(launch: v1::LaunchStep) -> Self {
        Self::Step(launch)
    }
}

impl From<v1::LaunchHook> for Part {
    fn from(launch: v1::LaunchHook) -> Self {
        Self::Hook(launch)
    }
}

impl Wired for v1::LaunchHook {
    fn key(&self) -> AttemptKey {
        AttemptKey { step: Some(self.step), ..launch_key(self.job_id, self.attempt) }
    }
}

impl Wired for Part {
    fn key(&self) -> AttemptKey {
        match self {
            Self::Batch(launch) => launch.key(),
            Self::Step(launch) => launch.key(),
            Self::Hook(launch) => launch.key(),
        }
    }
}

/// What an agent tells a shepherd.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ToShepherd {
    #[prost(oneof = "Order", tags = "1, 2, 3, 4, 5, 6, 7, 8")]
    pub(super) order: Option<Order>,
}

/// One order.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Order {
    #[prost(message, tag = "1")]
    Terminate(v1::Terminate),
    #[prost(message, tag = "2")]
    Signal(v1::SignalAttempt),
    #[prost(message, tag = "3")]
    SetLimit(v1::SetLimit),
    #[prost(message, tag = "4")]
    Suspend(v1::Suspend),
    #[prost(message, tag = "5")]
    Attach(v1::AttachListener),
    #[prost(message, tag = "6")]
    Measure(v1::MeasurePart),
    #[prost(message, tag = "7")]
    Relay(v1::RelayFrame),
    #[prost(message, tag = "8")]
    Notice(v1::Notice),
}

/// What a shepherd tells its agent.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct FromShepherd {
    #[prost(oneof = "News", tags = "1, 2, 3, 4, 5")]
    pub(super) news: Option<News>,
}

/// One piece of news.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum News {
    /// The job's process was started, at this time (milliseconds since the epoch).
    #[prost(int64, tag = "1")]
    Started(i64),
    /// The attempt is over; its record is written.
    #[prost(message, tag = "2")]
    Ended(v1::RunResult),
    /// Something cannot be done on this machine; the job goes on.
    #[prost(string, tag = "3")]
    Notice(String),
    /// What it used until now; which part it is goes without saying.
    #[prost(message, tag = "4")]
    Usage(v1::PartUsage),
    /// For srun, which cannot be reached from here.
    #[prost(message, tag = "5")]
    Relay(v1::RelayFrame),
}

/// An attempt's wire messages carry its numbers.
pub trait Wired {
    /// The attempt, or the part of a step, that the message names.
    fn key(&self) -> AttemptKey;
}

macro_rules! wired {
    ($($message:ident),+) => { $(
        impl Wired for v1::$message {
            fn key(&self) -> AttemptKey {
                AttemptKey { step: self.step, ..launch_key(self.job_id, self.attempt) }
            }
        }
    )+ };
}
wired!(
    Terminate,
    SignalAttempt,
    SetLimit,
    Suspend,
    Acknowledge,
    AttemptReport,
    MeasurePart,
    Notice
);

const fn launch_key(job_id: u32, attempt: u32) -> AttemptKey {
    AttemptKey::new(JobId(job_id), Attempt(attempt))
}

impl Wired for v1::AttachListener {
    fn key(&self) -> AttemptKey {
        AttemptKey { step: Some(self.step), ..launch_key(self.job_id, self.attempt) }
    }
}

impl Wired for v1::RelayFrame {
    fn key(&self) -> AttemptKey {
        AttemptKey { step: Some(self.step), ..launch_key(self.job_id, self.attempt) }
    }
}

impl Wired for v1::LaunchStep {
    /// A launch that names no step is one of job 0, which nobody has.
    fn key(&self) -> AttemptKey {
        let step = self.step.as_ref();
        let (job, attempt, number) = step.map_or((0, 0, 0), |s| (s.job_id, s.attempt, s.step));
        AttemptKey { step: Some(number), ..launch_key(job, attempt) }
    }
}

impl Wired for v1::Launch {
    fn key(&self) -> AttemptKey {
        launch_key(self.job_id, self.attempt)
    }
}

/// Name of the folder of an attempt's part: `12.0`, `12.0.3`.
pub(super) fn parse_key(name: &str) -> Option<AttemptKey> {
    let (job, rest) = name.split_once('.')?;
    let (attempt, step) = rest.split_once('.').map_or((rest, None), |(a, s)| (a, Some(s)));
    let step = step.map(str::parse).transpose().ok()?;
    let key = AttemptKey { step, ..launch_key(job.parse().ok()?, attempt.parse().ok()?) };
    // Exactly as it is written: `012.0` is not ours.
    (key.to_string() == name).then_some(key)
}

/// Name of a part's cgroup.
pub(super) fn group_name(key: AttemptKey) -> GroupName {
    let AttemptKey { job, attempt, step } = key;
    GroupName {
        attempt: format!("job_{job}.{attempt}"),
        part: step.map_or_else(|| "batch".to_owned(), |step| format!("step_{step}")),
    }
}

/// At most [`MAX_TEXT`] bytes of `text`, cut between letters.
pub(super) fn cut(text: &str) -> &str {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|&at| text.is_char_boundary(at));
    &text[..end.unwrap_or(0)]
}

/// The result as records and messages carry it.
#[must_use]
pub fn result_to_wire(result: &RunResult) -> v1::RunResult {
    v1::RunResult {
        start_ms: result.start.as_millis(),
        end_ms: result.end.as_millis(),
        wait_status: result.wait_status,
        out_of_memory: result.out_of_memory,
        time_limit: result.time_limit,
        unkillable: result.unkillable,
        launch_error: result.launch_error.clone(),
        node_fault: result.node_fault,
        usage: Some(usage_to_wire(&result.usage)),
        elapsed_ms: result.elapsed.0,
        lost: result.lost,
        fenced: result.fenced,
        devices_changed: result.devices_changed,
    }
}

/// What was used, as records and messages carry it.
pub(super) fn usage_to_wire(usage: &Usage) -> v1::Usage {
    v1::Usage {
        user_cpu_usec: usage.user_cpu_usec,
        system_cpu_usec: usage.system_cpu_usec,
        peak_memory_bytes: usage.peak_memory_bytes,
        memory_limit_bytes: usage.memory_limit_bytes,
        tasks: usage.tasks.as_deref().and_then(task_usage_to_wire),
    }
}

/// Inverse of [`result_to_wire`].
#[must_use]
pub fn result_from_wire(wire: v1::RunResult) -> RunResult {
    let usage = wire.usage.unwrap_or_default();
    RunResult {
        start: Timestamp(wire.start_ms),
        end: Timestamp(wire.end_ms),
        wait_status: wire.wait_status,
        out_of_memory: wire.out_of_memory,
        time_limit: wire.time_limit,
        unkillable: wire.unkillable,
        launch_error: wire.launch_error,
        node_fault: wire.node_fault,
        usage: Usage {
            user_cpu_usec: usage.user_cpu_usec,
            system_cpu_usec: usage.system_cpu_usec,
            peak_memory_bytes: usage.peak_memory_bytes,
            memory_limit_bytes: usage.memory_limit_bytes,
            tasks: usage.tasks.as_ref().map(|tasks| Box::new(task_usage_from_wire(tasks))),
        },
        elapsed: Millis(wire.elapsed_ms),
        lost: wire.lost,
        fenced: wire.fenced,
        devices_changed: wire.devices_changed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_names_are_read_only_as_they_are_written() {
        for step in [None, Some(0), Some(u32::MAX)] {
            let key = AttemptKey { step, ..launch_key(12, 3) };
            assert_eq!(parse_key(&key.to_string()), Some(key));
        }
        for name in ["", "12", "12.", ".3", "012.3", "12.3.04", "12.3.", "12.3.4.5", "lost+found"] {
            assert_eq!(parse_key(name), None, "{name:?}");
        }
    }

    #[test]
    fn results_survive_the_wire() {
        let mut tasks = penstock_vocab::TaskUsage::of(1);
        let spread = penstock_vocab::Spread::of(2, 9);
        tasks.set(penstock_vocab::Measure::Rss, Some(spread));
        let result = RunResult {
            start: Timestamp(5),
            end: Timestamp(9),
            wait_status: 256,
            out_of_memory: true,
            usage: Usage {
                user_cpu_usec: 1,
                memory_limit_bytes: 4,
                tasks: Some(Box::new(tasks)),
                ..Usage::default()
            },
            elapsed: Millis(4),
            lost: true,
            fenced: true,
            devices_changed: true,
            ..RunResult::default()
        };
        assert_eq!(result_from_wire(result_to_wire(&result)), result);
    }

    #[test]
    fn long_texts_are_cut_between_letters() {
        assert_eq!(cut(&"ä".repeat(MAX_TEXT)).len(), MAX_TEXT);
        assert_eq!(cut(&format!("x{}", "ä".repeat(MAX_TEXT))).len(), MAX_TEXT - 1);
    }
}
