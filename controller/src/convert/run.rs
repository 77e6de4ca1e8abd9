//! How is a run of a job stored, with the nodes it has by their names?

use fixedbitset::FixedBitSet;
use penstock_core::Cluster;
use penstock_core::cluster::Records;
use penstock_core::command::Unit;
use penstock_core::model::{
    BatchPart, GpuKill, GresShare, NodeIndex, NodeShare, ONE_MILLIONTHS, Run, RunLease, RunResult,
    RunStage, Usage,
};
use penstock_proto::usage::{task_usage_from_wire, task_usage_to_wire};
use penstock_proto::v1;
use penstock_vocab::{
    Attempt, ExitCode, GresName, JobId, JobState, Mib, NameError, NodeName, PartitionName,
    Timestamp, UserId,
};

use super::codes;
use super::error::ConvertError;
use super::gpu;
use super::hooks::{hooks_from_wire, hooks_to_wire};
use super::wire::run_result;

/// Most logical CPUs of one node that are believed: a record can't make us allocate more.
pub(super) const MAX_CPUS: u32 = 1 << 16;

/// Which node has which place?
pub trait NodeNames {
    /// The name of the node at `index`; empty if there is none.
    fn node_name(&self, index: NodeIndex) -> &str;
}

impl NodeNames for Cluster {
    fn node_name(&self, index: NodeIndex) -> &str {
        self.node(index).map_or("", |(node, _)| node.name.as_str())
    }
}

/// Which place has which node, while records are read; makes places as needed.
pub trait NodePlaces {
    /// The place of a node.
    ///
    /// # Errors
    /// If the text can't be a node's name.
    fn place(&mut self, name: &str) -> Result<NodeIndex, NameError>;

    /// A partition's name.
    ///
    /// # Errors
    /// If the text can't be a partition's name.
    fn partition(&mut self, name: &str) -> Result<PartitionName, NameError> {
        PartitionName::new(name)
    }
}

impl NodePlaces for Records {
    fn place(&mut self, name: &str) -> Result<NodeIndex, NameError> {
        Ok(self.node_index(&NodeName::new(name)?))
    }
}

/// A run as the wire and the store have it.
#[must_use]
pub fn run_to_wire(nodes: &impl NodeNames, run: &Run) -> v1::Run {
    let (stage, mut end_cause) = codes::stage(run.stage);
    if run.stage == RunStage::Ended {
        end_cause = past_cause(run);
    }
    v1::Run {
        attempt: run.attempt.0,
        shares: run.shares.iter().map(|share| share_to_wire(nodes, share)).collect(),
        start_ms: run.start_time.0,
        end_ms: codes::moment(run.end_time),
        stage: stage as i32,
        end_cause: end_cause as i32,
        ended_by_uid: run.ended_by.map_or(0, |uid| uid.0),
        exit_status: u32::from(run.exit.status),
        exit_signal: u32::from(run.exit.signal),
        usage: Some(usage_to_wire(&run.usage)),
        end_state: run.end_state.map_or(0, JobState::code),
        end_reason: run.end_reason.to_string(),
        launched_ms: codes::moment(run.launched),
        partition_index: 0,
        partition: run.partition.to_string(),
        ended_by_user: run.ended_by.is_some(),
        billing: run.billing,
        usage_factor: Some(run.usage_factor),
        suspended_since_ms: codes::moment(run.suspended_since),
        suspended_ms: run.suspended_ms,
        checkpoint_ms: codes::moment(run.checkpoint),
        yields_to: run.yields_to.map_or(0, |unit| unit.id().0),
        yields_to_array: matches!(run.yields_to, Some(Unit::Array(_))),
        ends_at_ms: run.ends_at.map_or(0, |(at, _)| at.0),
        ends_at_cause: run.ends_at.map_or(0, |(_, cause)| codes::cause(cause) as i32),
        lease_secs: run.lease.map_or(0, |lease| lease.secs),
        lease_kill_wait_secs: run.lease.map_or(0, |lease| lease.kill_wait_secs),
        no_batch: run.batch == BatchPart::None,
        batch_result: match &run.batch {
            BatchPart::Ended(result) => Some(run_result_to_wire(result)),
            BatchPart::None | BatchPart::Script | BatchPart::NeverStarted => None,
        },
        batch_never_started: run.batch == BatchPart::NeverStarted,
        derived_status: u32::from(run.derived_exit.status),
        derived_signal: u32::from(run.derived_exit.signal),
        steps_warned: run.steps_warned,
        gpus: run.gpus.iter().map(gpu::usage_to_wire).collect(),
        gpu_fault: run.gpu_kill.as_ref().map_or_else(String::new, |kill| kill.text.to_string()),
        gpu_fault_requeue: run.gpu_kill.as_ref().is_some_and(|kill| kill.requeue),
        hooks: run.hooks.as_deref().map(hooks_to_wire),
        idle: run.idle.as_ref().map(gpu::idle_to_wire),
    }
}

/// How something ended, as a record has it.
#[must_use]
pub fn run_result_to_wire(result: &RunResult) -> v1::RunResult {
    v1::RunResult {
        start_ms: 0,
        end_ms: 0,
        wait_status: result.exit.to_wait_status(),
        out_of_memory: result.out_of_memory,
        time_limit: result.time_limit,
        unkillable: result.unkillable,
        launch_error: result.launch_error.to_string(),
        node_fault: result.node_fault,
        usage: Some(usage_to_wire(&result.usage)),
        elapsed_ms: result.elapsed_ms,
        lost: result.lost,
        fenced: result.fenced,
        devices_changed: result.devices_changed,
    }
}

/// Why a run ended, as its state tells; for readers, and not read back.
fn past_cause(run: &Run) -> v1::EndCause {
    match run.end_state {
        Some(JobState::Pending) => v1::EndCause::Requeue,
        Some(JobState::Failed) if !run.end_reason.is_empty() => v1::EndCause::LaunchFailed,
        Some(JobState::Completed | JobState::Failed) => v1::EndCause::Exited,
        Some(JobState::Cancelled) => v1::EndCause::Cancelled,
        Some(JobState::Timeout) => v1::EndCause::TimeLimit,
        Some(JobState::NodeFail) => v1::EndCause::NodeFail,
        Some(JobState::OutOfMemory) => v1::EndCause::OutOfMemory,
        Some(JobState::Preempted) => v1::EndCause::Preempted,
        Some(JobState::Deadline) => v1::EndCause::Deadline,
        Some(JobState::Running | JobState::Suspended | JobState::BootFail) | None => {
            v1::EndCause::Unspecified
        }
    }
}

/// Inverse of [`run_to_wire`].
///
/// # Errors
/// If a code is unknown or a value out of its range.
pub fn run_from_wire(run: v1::Run, places: &mut impl NodePlaces) -> Result<Run, ConvertError> {
    let wrong = |error| ConvertError::invalid("the run's partition", error);
    let stage = codes::stage_from(run.stage, run.end_cause)?;
    // A run that was requeued ended as pending, whose code is 0 as well.
    let ended = run.end_state != 0 || stage == RunStage::Ended;
    let shares = run.shares.iter().map(|share| share_from_wire(share, places));
    Ok(Run {
        attempt: Attempt(run.attempt),
        shares: shares.collect::<Result<_, _>>()?,
        partition: places.partition(&run.partition).map_err(wrong)?,
        start_time: Timestamp(run.start_ms),
        launched: codes::moment_from(run.launched_ms),
        end_time: codes::moment_from(run.end_ms),
        stage,
        ended_by: run.ended_by_user.then_some(UserId(run.ended_by_uid)),
        end_state: if ended { Some(codes::state_from(run.end_state)?) } else { None },
        exit: ExitCode {
            status: small("exit status", run.exit_status)?,
            signal: small("exit signal", run.exit_signal)?,
        },
        usage: run.usage.as_ref().map(usage_from_wire).unwrap_or_default(),
        end_reason: run.end_reason.into(),
        billing: run.billing,
        usage_factor: run.usage_factor.unwrap_or(ONE_MILLIONTHS),
        suspended_since: codes::moment_from(run.suspended_since_ms),
        suspended_ms: run.suspended_ms,
        checkpoint: codes::moment_from(run.checkpoint_ms),
        yields_to: match (run.yields_to, run.yields_to_array) {
            (0, _) => None,
            (id, true) => Some(Unit::Array(JobId(id))),
            (id, false) => Some(Unit::Job(JobId(id))),
        },
        ends_at: match run.ends_at_ms {
            0 => None,
            at => Some((Timestamp(at), codes::cause_from(run.ends_at_cause)?)),
        },
        lease: (run.lease_secs > 0)
            .then_some(RunLease { secs: run.lease_secs, kill_wait_secs: run.lease_kill_wait_secs }),
        batch: match (run.batch_result, run.batch_never_started, run.no_batch) {
            (Some(result), _, _) => BatchPart::Ended(Box::new(run_result(result))),
            (None, true, _) => BatchPart::NeverStarted,
            (None, false, true) => BatchPart::None,
            (None, false, false) => BatchPart::Script,
        },
        steps_warned: run.steps_warned,
        derived_exit: ExitCode {
            status: small("derived exit status", run.derived_status)?,
            signal: small("derived exit signal", run.derived_signal)?,
        },
        gpus: run.gpus.iter().map(gpu::usage_from_wire).collect::<Result<_, _>>()?,
        gpu_kill: (!run.gpu_fault.is_empty()).then(|| GpuKill {
            text: run.gpu_fault.as_str().into(),
            requeue: run.gpu_fault_requeue,
        }),
        hooks: run.hooks.as_ref().map(hooks_from_wire).transpose()?.map(Box::new),
        idle: run.idle.map(gpu::idle_from_wire).transpose()?,
    })
}

pub(super) fn small(what: &'static str, value: u32) -> Result<u8, ConvertError> {
    u8::try_from(value).map_err(|_| ConvertError::invalid(what, value))
}

/// What a run used.
#[must_use]
pub fn usage_to_wire(usage: &Usage) -> v1::Usage {
    v1::Usage {
        user_cpu_usec: usage.user_cpu_usec,
        system_cpu_usec: usage.system_cpu_usec,
        peak_memory_bytes: usage.peak_memory_bytes,
        memory_limit_bytes: usage.memory_limit_bytes,
        tasks: usage.tasks.as_deref().and_then(task_usage_to_wire),
    }
}

/// Inverse of [`usage_to_wire`].
#[must_use]
pub fn usage_from_wire(usage: &v1::Usage) -> Usage {
    Usage {
        user_cpu_usec: usage.user_cpu_usec,
        system_cpu_usec: usage.system_cpu_usec,
        peak_memory_bytes: usage.peak_memory_bytes,
        memory_limit_bytes: usage.memory_limit_bytes,
        tasks: usage.tasks.as_ref().map(|tasks| Box::new(task_usage_from_wire(tasks))),
    }
}

pub(super) fn share_to_wire(nodes: &impl NodeNames, share: &NodeShare) -> v1::NodeShare {
    v1::NodeShare {
        node: nodes.node_name(share.node).to_owned(),
        cpu_ranges: bit_ranges(&share.cpus),
        memory_mib: share.memory.0,
        tasks: share.tasks,
        gres: share.gres.iter().map(gres_share_to_wire).collect(),
        node_cpus: u32::try_from(share.cpus.len()).unwrap_or(u32::MAX),
        cpu_sharing: if share.sharing > 1 { share.sharing } else { 0 },
    }
}

pub(super) fn share_from_wire(
    share: &v1::NodeShare,
    places: &mut impl NodePlaces,
) -> Result<NodeShare, ConvertError> {
    let wrong = |error| ConvertError::invalid("the name of a run's node", error);
    Ok(NodeShare {
        node: places.place(&share.node).map_err(wrong)?,
        cpus: bits(&share.cpu_ranges, share.node_cpus)?,
        sharing: share.cpu_sharing.max(1),
        memory: Mib(share.memory_mib),
        tasks: share.tasks,
        gres: share.gres.iter().map(gres_share_from_wire).collect::<Result<_, _>>()?,
    })
}

/// Units of one generic resource.
#[must_use]
pub fn gres_share_to_wire(share: &GresShare) -> v1::GresShare {
    v1::GresShare {
        name: share.name.name().to_owned(),
        r#type: share.name.kind().unwrap_or_default().to_owned(),
        ids: share.ids.to_vec(),
        count: share.ids.len() as u64,
        slices: Vec::new(),
    }
}

fn gres_share_from_wire(share: &v1::GresShare) -> Result<GresShare, ConvertError> {
    let kind = (!share.r#type.is_empty()).then_some(share.r#type.as_str());
    let name = GresName::new(&share.name, kind)
        .map_err(|error| ConvertError::invalid("a generic resource", super::spec::chain(&error)))?;
    Ok(GresShare { name, ids: share.ids.as_slice().into() })
}

/// The set bits as inclusive ranges: start, end, start, end ...
pub(crate) fn bit_ranges(bits: &FixedBitSet) -> Vec<u32> {
    let mut ranges: Vec<u32> = Vec::with_capacity(2);
    for bit in bits.ones().filter_map(|bit| u32::try_from(bit).ok()) {
        match ranges.last_mut() {
            Some(last) if *last + 1 == bit => *last = bit,
            Some(_) | None => ranges.extend([bit, bit]),
        }
    }
    ranges
}

fn bits(ranges: &[u32], len: u32) -> Result<FixedBitSet, ConvertError> {
    let wrong = |detail: String| ConvertError::Invalid { what: "a run's CPUs", detail };
    let highest = ranges.iter().copied().max().map_or(0, |highest| highest.saturating_add(1));
    let len = len.max(highest);
    if len > MAX_CPUS || !ranges.len().is_multiple_of(2) {
        return Err(wrong(format!("{} numbers up to {len}", ranges.len())));
    }
    let mut bits = FixedBitSet::with_capacity(len as usize);
    for pair in ranges.chunks_exact(2) {
        let (start, end) = (pair[0] as usize, pair[1] as usize);
        if start > end {
            return Err(wrong(format!("the range {start}-{end} runs backwards")));
        }
        bits.insert_range(start..end + 1);
    }
    Ok(bits)
}
