//! How is a step asked for, stored and sent?

use std::sync::Arc;

use penstock_core::model::{
    Distribution, MemoryRequest, Step, StepDetails, StepKey, StepNumber, StepPhase, StepShare,
    StepSpec,
};
use penstock_core::refusal::{Malformed, Refusal};
use penstock_proto::v1;
use penstock_vocab::{Attempt, ExitCode, JobId, Mib, Millis, Timestamp, UserId};

use super::bounds::{
    MAX_MEASURE_SECS, MAX_NAME_BYTES, MAX_NODES, MAX_PATH_BYTES, MAX_TEXT_BYTES, check_count,
    check_text, malformed,
};
use super::codes;
use super::error::ConvertError;
use super::run::{
    NodeNames, NodePlaces, run_result_to_wire, share_from_wire, share_to_wire, small,
    usage_from_wire, usage_to_wire,
};
use super::spec::{gres_list, gres_request, gres_to_wire, node_names, walltime, walltime_secs};
use super::wire::run_result;

/// Most generic resources that one step may ask for.
const MAX_GRES: usize = 64;
/// Longest time limit of a step, seconds: a hundred years.
const MAX_LIMIT_SECS: u64 = 100 * 366 * 86_400;

/// Reads a request for a step from outside. Addresses and secret stay with whoever asks for it.
///
/// # Errors
/// With a sentence for who asks, if something can't be read or is beyond a bound.
pub fn step_request(spec: &v1::StepSpec) -> Result<StepSpec, Refusal> {
    let texts = [
        ("the step's name", &spec.name, MAX_NAME_BYTES),
        ("the distribution", &spec.distribution, MAX_NAME_BYTES),
        ("--cpu-bind", &spec.cpu_bind, MAX_TEXT_BYTES),
        ("--gpu-bind", &spec.gpu_bind, MAX_TEXT_BYTES),
        ("--mpi", &spec.mpi, MAX_NAME_BYTES),
        ("srun's host", &spec.srun_host, MAX_NAME_BYTES),
        ("the command line", &spec.submit_line, MAX_TEXT_BYTES),
        ("the container", &spec.container, MAX_PATH_BYTES),
        ("the container's image", &spec.container_image, MAX_PATH_BYTES),
        ("the container's folder", &spec.container_dir, MAX_PATH_BYTES),
        ("the comment", &spec.comment, MAX_TEXT_BYTES),
    ];
    for (what, text, most) in texts {
        check_text(what, text, most)?;
    }
    check_count("generic resources", spec.gres_per_node.len(), MAX_GRES)?;
    check_count("nodes", spec.required_nodes.len(), MAX_NODES)?;
    check_count("nodes", spec.excluded_nodes.len(), MAX_NODES)?;
    check_count("nodes of tasks", spec.task_nodes.len(), 1 << 16)?;
    if spec.mem_per_node_mib.is_some() && spec.mem_per_cpu_mib.is_some() {
        let detail = "--mem and --mem-per-cpu exclude each other; give one of them";
        return Err(malformed(Malformed::Other, detail));
    }
    if spec.time_limit_secs.is_some_and(|secs| secs > MAX_LIMIT_SECS) {
        return Err(malformed(Malformed::Other, "the step's time limit is beyond a hundred years"));
    }
    let mut spec = step_spec_from_wire(spec)?;
    if spec.memory == MemoryRequest::PerCpu(Mib(0)) {
        spec.memory = MemoryRequest::WholeNode;
    }
    Ok(spec)
}

/// Reads a request without looking at its bounds, as it stands in a record.
///
/// # Errors
/// If a text can't be read.
pub fn step_spec_from_wire(spec: &v1::StepSpec) -> Result<StepSpec, Refusal> {
    Ok(StepSpec {
        name: spec.name.as_str().into(),
        ntasks: spec.ntasks,
        nodes_min: spec.nodes_min,
        nodes_max: spec.nodes_max,
        cpus_per_task: spec.cpus_per_task,
        ntasks_per_node: spec.ntasks_per_node,
        memory: match (spec.mem_per_node_mib, spec.mem_per_cpu_mib) {
            (None, None) => MemoryRequest::Default,
            (Some(0), _) => MemoryRequest::WholeNode,
            (Some(memory), _) => MemoryRequest::PerNode(Mib(memory)),
            (None, Some(memory)) => MemoryRequest::PerCpu(Mib(memory)),
        },
        gres_per_node: gres_list(&spec.gres_per_node)?,
        gpus_total: spec.gpus_total.as_ref().map(gres_request).transpose()?,
        gpus_per_task: spec.gpus_per_task.as_ref().map(gres_request).transpose()?,
        exact: spec.exact,
        overlap: spec.overlap,
        overcommit: spec.overcommit,
        relative: spec.relative,
        required: node_names(&spec.required_nodes)?,
        excluded: node_names(&spec.excluded_nodes)?,
        distribution: distribution(&spec.distribution)?,
        task_nodes: node_names(&spec.task_nodes)?,
        time_limit: spec.time_limit_secs.filter(|secs| *secs > 0).map(walltime),
        no_kill: spec.no_kill,
        interactive: spec.interactive,
        details: Arc::new(StepDetails {
            distribution: spec.distribution.as_str().into(),
            cpu_bind: spec.cpu_bind.as_str().into(),
            gpu_bind: spec.gpu_bind.as_str().into(),
            mpi: spec.mpi.as_str().into(),
            srun_host: spec.srun_host.as_str().into(),
            srun_pid: spec.srun_pid,
            submit_line: spec.submit_line.as_str().into(),
            container: spec.container.as_str().into(),
            container_image: spec.container_image.as_str().into(),
            container_dir: spec.container_dir.as_str().into(),
            comment: spec.comment.as_str().into(),
            threads_per_core: spec.threads_per_core,
            ntasks_per_core: spec.ntasks_per_core,
            ntasks_per_socket: spec.ntasks_per_socket,
            pty: spec.pty,
            measure_secs: spec.measure_secs.map(|secs| secs.min(MAX_MEASURE_SECS)),
        }),
    })
}

/// `block`, `cyclic:cyclic,Pack`, `plane=4`: the first word says how tasks go over nodes. The rest is
/// for the nodes themselves.
fn distribution(text: &str) -> Result<Distribution, Refusal> {
    let first = text.split([':', ',']).next().unwrap_or_default().to_ascii_lowercase();
    let unknown = || {
        let detail = format!(
            "--distribution={text} is not understood; give block, cyclic, plane=SIZE or arbitrary"
        );
        malformed(Malformed::Other, detail)
    };
    match first.split_once('=') {
        Some(("plane", size)) => {
            let size = size.parse().ok().filter(|size| *size > 0).ok_or_else(unknown)?;
            Ok(Distribution::Plane(size))
        }
        Some(_) => Err(unknown()),
        None => match first.as_str() {
            "" | "*" | "pack" | "nopack" => Ok(Distribution::Default),
            "block" => Ok(Distribution::Block),
            "cyclic" => Ok(Distribution::Cyclic),
            "arbitrary" => Ok(Distribution::Arbitrary),
            _ => Err(unknown()),
        },
    }
}

/// The inverse of [`step_spec_from_wire`].
#[must_use]
pub fn step_spec_to_wire(spec: &StepSpec) -> v1::StepSpec {
    let (mem_per_node_mib, mem_per_cpu_mib) = match spec.memory {
        MemoryRequest::Default | MemoryRequest::PerGpu(_) => (None, None),
        MemoryRequest::WholeNode => (Some(0), None),
        MemoryRequest::PerNode(memory) => (Some(memory.0), None),
        MemoryRequest::PerCpu(memory) => (None, Some(memory.0)),
    };
    let details = &spec.details;
    v1::StepSpec {
        name: spec.name.to_string(),
        ntasks: spec.ntasks,
        nodes_min: spec.nodes_min,
        nodes_max: spec.nodes_max,
        cpus_per_task: spec.cpus_per_task,
        ntasks_per_node: spec.ntasks_per_node,
        mem_per_node_mib,
        mem_per_cpu_mib,
        gres_per_node: spec.gres_per_node.iter().map(gres_to_wire).collect(),
        gpus_total: spec.gpus_total.as_ref().map(gres_to_wire),
        gpus_per_task: spec.gpus_per_task.as_ref().map(gres_to_wire),
        exact: spec.exact,
        overlap: spec.overlap,
        overcommit: spec.overcommit,
        relative: spec.relative,
        required_nodes: spec.required.iter().map(ToString::to_string).collect(),
        excluded_nodes: spec.excluded.iter().map(ToString::to_string).collect(),
        distribution: details.distribution.to_string(),
        task_nodes: spec.task_nodes.iter().map(ToString::to_string).collect(),
        time_limit_secs: spec.time_limit.map(walltime_secs),
        immediate: false,
        no_kill: spec.no_kill,
        cpu_bind: details.cpu_bind.to_string(),
        gpu_bind: details.gpu_bind.to_string(),
        mpi: details.mpi.to_string(),
        addresses: Vec::new(),
        port: 0,
        secret: bytes::Bytes::new(),
        srun_host: details.srun_host.to_string(),
        srun_pid: details.srun_pid,
        submit_line: details.submit_line.to_string(),
        container: details.container.to_string(),
        container_image: details.container_image.to_string(),
        container_dir: details.container_dir.to_string(),
        comment: details.comment.to_string(),
        interactive: spec.interactive,
        threads_per_core: details.threads_per_core,
        ntasks_per_core: details.ntasks_per_core,
        ntasks_per_socket: details.ntasks_per_socket,
        pty: details.pty,
        measure_secs: details.measure_secs,
    }
}

/// A step as the wire and the store have it.
#[must_use]
pub fn step_to_wire(nodes: &impl NodeNames, step: &Step) -> v1::Step {
    v1::Step {
        job_id: step.key.job.0,
        attempt: step.key.attempt.0,
        step: step.key.number.0,
        uid: step.uid.0,
        spec: Some(step_spec_to_wire(&step.spec)),
        shares: step.shares.iter().map(|share| part_to_wire(nodes, share)).collect(),
        start_ms: step.start_time.0,
        end_ms: codes::moment(step.end_time),
        state: step.state.code(),
        exit_status: u32::from(step.exit.status),
        exit_signal: u32::from(step.exit.signal),
        usage: Some(usage_to_wire(&step.usage)),
        ending: step.ending.map_or(0, |cause| codes::cause(cause) as i32),
        ended_by_uid: step.ended_by.map_or(0, |uid| uid.0),
        ended_by_user: step.ended_by.is_some(),
        time_limit_secs: step.spec.time_limit.map_or(0, walltime_secs),
        run_elapsed_ms: step.run_elapsed.0,
    }
}

/// One node's part of a step.
#[must_use]
pub fn part_to_wire(nodes: &impl NodeNames, part: &StepShare) -> v1::StepShare {
    let (phase, result) = phase_to_wire(&part.phase);
    v1::StepShare {
        share: Some(share_to_wire(nodes, &part.share)),
        tasks: part.ranks.to_vec(),
        phase: phase as i32,
        result,
    }
}

/// How far a part got, with its result once it has ended.
#[must_use]
pub fn phase_to_wire(phase: &StepPhase) -> (v1::StepPhase, Option<v1::RunResult>) {
    match phase {
        StepPhase::Allocated => (v1::StepPhase::Allocated, None),
        StepPhase::Running => (v1::StepPhase::Running, None),
        StepPhase::Ended(result) => (v1::StepPhase::Ended, Some(run_result_to_wire(result))),
    }
}

/// Inverse of [`step_to_wire`].
///
/// # Errors
/// If a part is missing, a code unknown, or a text can't be read.
pub fn step_from_wire(step: v1::Step, places: &mut impl NodePlaces) -> Result<Step, ConvertError> {
    let spec = step.spec.ok_or(ConvertError::Missing { what: "the step's request" })?;
    let spec = step_spec_from_wire(&spec)
        .map_err(|refusal| ConvertError::invalid("the step's request", refusal))?;
    let shares = step.shares.into_iter().map(|part| part_from_wire(part, places));
    Ok(Step {
        key: StepKey {
            job: JobId(step.job_id),
            attempt: Attempt(step.attempt),
            number: StepNumber(step.step),
        },
        uid: UserId(step.uid),
        spec: Arc::new(spec),
        shares: shares.collect::<Result<_, _>>()?,
        start_time: Timestamp(step.start_ms),
        run_elapsed: Millis(step.run_elapsed_ms),
        end_time: codes::moment_from(step.end_ms),
        state: codes::state_from(step.state)?,
        exit: ExitCode {
            status: small("exit status", step.exit_status)?,
            signal: small("exit signal", step.exit_signal)?,
        },
        usage: step.usage.as_ref().map(usage_from_wire).unwrap_or_default(),
        ending: match step.ending {
            0 => None,
            code => Some(codes::cause_from(code)?),
        },
        ended_by: step.ended_by_user.then_some(UserId(step.ended_by_uid)),
        ticket: 0,
    })
}

fn part_from_wire(
    part: v1::StepShare,
    places: &mut impl NodePlaces,
) -> Result<StepShare, ConvertError> {
    let share = part.share.ok_or(ConvertError::Missing { what: "what a node gives to a step" })?;
    let unknown =
        || ConvertError::UnknownCode { what: "phase of a step", code: i64::from(part.phase) };
    let phase = match v1::StepPhase::try_from(part.phase).map_err(|_| unknown())? {
        v1::StepPhase::Unspecified => return Err(unknown()),
        v1::StepPhase::Allocated => StepPhase::Allocated,
        v1::StepPhase::Running => StepPhase::Running,
        v1::StepPhase::Ended => {
            let what = "the result of a step's part that ended";
            let result = part.result.ok_or(ConvertError::Missing { what })?;
            StepPhase::Ended(Box::new(run_result(result)))
        }
    };
    Ok(StepShare {
        share: share_from_wire(&share, places)?,
        ranks: part.tasks.into_boxed_slice(),
        phase,
    })
}
