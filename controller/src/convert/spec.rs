//! What does a submission ask for, in the core's terms?

use std::sync::Arc;

use penstock_core::model::{
    ArrayRequest, BlobId, Constraint, Dependency, Details, GpuTerms, JobSpec, MemoryRequest, Shape,
    SignalRequest, SwitchRequest,
};
use penstock_core::refusal::{Malformed, Refusal};
use penstock_proto::v1;
use penstock_vocab::{
    GresName, GresRequest, Mib, NameError, NodeName, PartitionName, Timestamp, Walltime,
    parse_array_spec,
};

use super::bounds::{self, malformed};
use super::codes;

/// Reads a submission: every text in it parsed, every bound checked. `script` and `environment` name
/// the blobs that came along; what the message says of them is not believed.
///
/// # Errors
/// With a sentence for the submitter, if something can't be read or is beyond a bound.
pub fn submission(
    mut spec: v1::JobSpec,
    script: BlobId,
    environment: BlobId,
) -> Result<(JobSpec, Option<ArrayRequest>), Refusal> {
    bounds::check_spec(&spec)?;
    let array = array_request(&spec.array)?;
    spec.script_hash.clear();
    spec.environment_hash.clear();
    let mut spec = spec_from_wire(spec, &mut PartitionName::new)?;
    let details = Arc::make_mut(&mut spec.details);
    details.script = script;
    details.environment = environment;
    Ok((spec, array))
}

/// Reads `--array`; empty text is no array.
fn array_request(text: &str) -> Result<Option<ArrayRequest>, Refusal> {
    if text.trim().is_empty() {
        return Ok(None);
    }
    let wrong = |error| malformed(Malformed::Array, chain(&error));
    let (tasks, throttle) = parse_array_spec(text).map_err(wrong)?;
    Ok(Some(ArrayRequest { tasks, throttle: throttle.unwrap_or(0) }))
}

/// Reads a request without looking at its bounds, as it stands in a record. `partition` takes a
/// partition's name, so that equal names can share their memory.
///
/// # Errors
/// If a text can't be read.
pub fn spec_from_wire(
    spec: v1::JobSpec,
    partition: &mut dyn FnMut(&str) -> Result<PartitionName, NameError>,
) -> Result<JobSpec, Refusal> {
    let shape = shape_from_wire(&spec)?;
    let dependency = Dependency::parse(&spec.dependency)
        .map_err(|error| malformed(Malformed::Dependency, error.to_string()))?;
    let partitions = spec
        .partitions
        .iter()
        .map(|name| partition(name).map_err(|_| Refusal::InvalidPartition(name.as_str().into())))
        .collect::<Result<_, _>>()?;
    Ok(JobSpec {
        partitions,
        shape: Arc::new(shape),
        time_limit: spec.time_limit_secs.map(walltime),
        begin_time: Timestamp(spec.begin_time_ms),
        hold: spec.hold,
        requeue: spec.requeue,
        nice: spec.nice,
        priority: spec.priority,
        dependency,
        kill_on_invalid_dep: spec.kill_on_invalid_dep,
        signal: spec.signal.map(|signal| SignalRequest {
            signal: signal.signal,
            seconds_before: signal.seconds_before,
            batch_only: signal.batch_only,
        }),
        allocation: spec.allocation,
        no_kill: spec.no_kill,
        reservation: spec.reservation.into(),
        deadline: codes::moment_from(spec.deadline_ms),
        min_time: spec.min_time_secs.map(walltime),
        details: Arc::new(Details {
            append: append(spec.open_mode)?,
            work_dir: spec.work_dir.into(),
            stdin: spec.stdin.into(),
            stdout: spec.stdout.into(),
            stderr: spec.stderr.into(),
            umask: spec.umask,
            rlimits: spec.rlimits.iter().map(|limit| (limit.resource, limit.soft)).collect(),
            command: spec.command.into(),
            arguments: spec.script_arguments.into_iter().map(Into::into).collect(),
            submit_host: spec.submit_host.into(),
            submit_line: spec.submit_line.into(),
            export: spec.export.into(),
            user_name: spec.user_name.into(),
            group_name: spec.group_name.into(),
            script: blob(&spec.script_hash)?,
            environment: blob(&spec.environment_hash)?,
            submit_sid: spec.submit_sid,
            unheld: spec.unheld,
            gpu_bind: spec.gpu_bind.into(),
            idle_ok: spec.idle_ok.into(),
            distribution: spec.distribution.into(),
            wckey: spec.wckey.into(),
        }),
        name: spec.name.into(),
        account: spec.account.into(),
        qos: spec.qos.into(),
        comment: spec.comment.into(),
    })
}

fn shape_from_wire(spec: &v1::JobSpec) -> Result<Shape, Refusal> {
    let memory = match (spec.mem_per_node_mib, spec.mem_per_cpu_mib) {
        (None, None) => match spec.mem_per_gpu_mib {
            Some(memory) => MemoryRequest::PerGpu(Mib(memory)),
            None => MemoryRequest::Default,
        },
        (Some(0), _) => MemoryRequest::WholeNode,
        (Some(memory), _) => MemoryRequest::PerNode(Mib(memory)),
        (None, Some(memory)) => MemoryRequest::PerCpu(Mib(memory)),
    };
    let constraint = Constraint::parse(&spec.constraint)
        .map_err(|error| malformed(Malformed::Constraint, error.to_string()))?;
    Ok(Shape {
        nodes_min: spec.nodes_min,
        nodes_max: spec.nodes_max,
        ntasks: spec.ntasks,
        cpus_per_task: spec.cpus_per_task,
        ntasks_per_node: spec.ntasks_per_node,
        memory,
        gres_per_node: gres_list(&spec.gres_per_node)?,
        gpus_total: spec.gpus_total.as_ref().map(gres_request).transpose()?,
        gpus: gpu_terms(spec)?,
        constraint,
        required: node_names(&spec.required_nodes)?,
        excluded: node_names(&spec.excluded_nodes)?,
        exclusive: spec.exclusive,
        exclusive_user: spec.exclusive_user,
        oversubscribe: spec.oversubscribe,
        licenses: spec.licenses.iter().map(|l| (l.name.as_str().into(), l.count)).collect(),
        switches: spec
            .switches
            .map(|asked| SwitchRequest { count: asked.count, max_wait_secs: asked.max_wait_secs }),
    })
}

fn gpu_terms(spec: &v1::JobSpec) -> Result<GpuTerms, Refusal> {
    let choices = spec.gres_choices.iter().map(|choice| gres_list(&choice.gres));
    Ok(GpuTerms {
        per_task: spec.gpus_per_task.as_ref().map(gres_request).transpose()?,
        per_socket: spec.gpus_per_socket.as_ref().map(gres_request).transpose()?,
        sockets_per_node: spec.sockets_per_node,
        cpus_per_gpu: spec.cpus_per_gpu,
        choices: choices.collect::<Result<_, _>>()?,
    })
}

/// The inverse of [`spec_from_wire`].
#[must_use]
pub fn spec_to_wire(spec: &JobSpec) -> v1::JobSpec {
    v1::JobSpec {
        name: spec.name.to_string(),
        account: spec.account.to_string(),
        qos: spec.qos.to_string(),
        partitions: texts(&spec.partitions),
        time_limit_secs: spec.time_limit.map(walltime_secs),
        begin_time_ms: spec.begin_time.0,
        hold: spec.hold,
        requeue: spec.requeue,
        nice: spec.nice,
        priority: spec.priority,
        comment: spec.comment.to_string(),
        dependency: if spec.dependency.is_empty() {
            String::new()
        } else {
            spec.dependency.to_string()
        },
        array: String::new(),
        signal: spec.signal.map(|signal| v1::SignalRequest {
            signal: signal.signal,
            seconds_before: signal.seconds_before,
            batch_only: signal.batch_only,
        }),
        kill_on_invalid_dep: spec.kill_on_invalid_dep,
        allocation: spec.allocation,
        no_kill: spec.no_kill,
        reservation: spec.reservation.to_string(),
        deadline_ms: codes::moment(spec.deadline),
        min_time_secs: spec.min_time.map(walltime_secs),
        ..details_to_wire(&spec.details, shape_to_wire(&spec.shape))
    }
}

/// A request with its resources alone.
fn shape_to_wire(shape: &Shape) -> v1::JobSpec {
    let (mem_per_node_mib, mem_per_cpu_mib) = match shape.memory {
        MemoryRequest::Default | MemoryRequest::PerGpu(_) => (None, None),
        MemoryRequest::WholeNode => (Some(0), None),
        MemoryRequest::PerNode(memory) => (Some(memory.0), None),
        MemoryRequest::PerCpu(memory) => (None, Some(memory.0)),
    };
    let license = |(name, count): &(Box<str>, u64)| v1::LicenseCount {
        name: name.to_string(),
        count: *count,
    };
    v1::JobSpec {
        nodes_min: shape.nodes_min,
        nodes_max: shape.nodes_max,
        ntasks: shape.ntasks,
        cpus_per_task: shape.cpus_per_task,
        ntasks_per_node: shape.ntasks_per_node,
        mem_per_node_mib,
        mem_per_cpu_mib,
        gres_per_node: shape.gres_per_node.iter().map(gres_to_wire).collect(),
        gpus_total: shape.gpus_total.as_ref().map(gres_to_wire),
        gpus_per_task: shape.gpus.per_task.as_ref().map(gres_to_wire),
        gpus_per_socket: shape.gpus.per_socket.as_ref().map(gres_to_wire),
        sockets_per_node: shape.gpus.sockets_per_node,
        cpus_per_gpu: shape.gpus.cpus_per_gpu,
        mem_per_gpu_mib: match shape.memory {
            MemoryRequest::PerGpu(memory) => Some(memory.0),
            MemoryRequest::Default
            | MemoryRequest::WholeNode
            | MemoryRequest::PerNode(_)
            | MemoryRequest::PerCpu(_) => None,
        },
        gres_choices: shape.gpus.choices.iter().map(|gres| choice_to_wire(gres)).collect(),
        constraint: shape.constraint.to_string(),
        required_nodes: texts(&shape.required),
        excluded_nodes: texts(&shape.excluded),
        exclusive: shape.exclusive,
        exclusive_user: shape.exclusive_user,
        oversubscribe: shape.oversubscribe,
        licenses: shape.licenses.iter().map(license).collect(),
        switches: shape.switches.map(|asked| v1::SwitchRequest {
            count: asked.count,
            max_wait_secs: asked.max_wait_secs,
        }),
        ..v1::JobSpec::default()
    }
}

fn choice_to_wire(gres: &[GresRequest]) -> v1::GresChoice {
    v1::GresChoice { gres: gres.iter().map(gres_to_wire).collect() }
}

/// `request` with what the launch and listings need.
fn details_to_wire(details: &Details, request: v1::JobSpec) -> v1::JobSpec {
    v1::JobSpec {
        work_dir: details.work_dir.to_string(),
        stdin: details.stdin.to_string(),
        stdout: details.stdout.to_string(),
        stderr: details.stderr.to_string(),
        open_mode: match details.append {
            true => v1::OpenMode::Append as i32,
            false => v1::OpenMode::Truncate as i32,
        },
        umask: details.umask,
        rlimits: details
            .rlimits
            .iter()
            .map(|(resource, soft)| v1::ResourceLimit { resource: *resource, soft: *soft })
            .collect(),
        command: details.command.to_string(),
        script_arguments: details.arguments.iter().map(ToString::to_string).collect(),
        submit_host: details.submit_host.to_string(),
        submit_line: details.submit_line.to_string(),
        export: details.export.to_string(),
        user_name: details.user_name.to_string(),
        group_name: details.group_name.to_string(),
        script_hash: blob_to_wire(details.script),
        environment_hash: blob_to_wire(details.environment),
        submit_sid: details.submit_sid,
        unheld: details.unheld,
        gpu_bind: details.gpu_bind.to_string(),
        idle_ok: details.idle_ok.to_string(),
        distribution: details.distribution.to_string(),
        wckey: details.wckey.to_string(),
        ..request
    }
}

fn append(code: i32) -> Result<bool, Refusal> {
    match v1::OpenMode::try_from(code) {
        Ok(v1::OpenMode::Append) => Ok(true),
        Ok(v1::OpenMode::Truncate | v1::OpenMode::Unspecified) => Ok(false),
        Err(_) => {
            let detail = format!("open mode {code} is not known to this version");
            Err(malformed(Malformed::Other, detail))
        }
    }
}

/// A time limit in seconds; 0 is none.
#[must_use]
pub fn walltime(secs: u64) -> Walltime {
    if secs == 0 { Walltime::Unlimited } else { Walltime::Limited(secs) }
}

/// Inverse of [`walltime`].
#[must_use]
pub fn walltime_secs(limit: Walltime) -> u64 {
    limit.as_secs().unwrap_or(0)
}

/// One counted generic resource.
#[must_use]
pub fn gres_to_wire(request: &GresRequest) -> v1::GresCount {
    v1::GresCount {
        name: request.name.name().to_owned(),
        r#type: request.name.kind().unwrap_or_default().to_owned(),
        count: request.count,
    }
}

/// Inverse of [`gres_to_wire`].
///
/// # Errors
/// If the name or the type can't be one.
pub fn gres_request(count: &v1::GresCount) -> Result<GresRequest, Refusal> {
    let kind = (!count.r#type.is_empty()).then_some(count.r#type.as_str());
    let name = GresName::new(&count.name, kind)
        .map_err(|error| malformed(Malformed::Gres, chain(&error)))?;
    Ok(GresRequest { name, count: count.count })
}

/// A list of counted generic resources.
///
/// # Errors
/// If a name or a type can't be one.
pub fn gres_list(counts: &[v1::GresCount]) -> Result<Box<[GresRequest]>, Refusal> {
    counts.iter().map(gres_request).collect()
}

/// Names of nodes, each by itself.
///
/// # Errors
/// If one can't be a node's name.
pub fn node_names(names: &[String]) -> Result<Box<[NodeName]>, Refusal> {
    let name =
        |text: &String| NodeName::new(text).map_err(|_| Refusal::InvalidNode(text.as_str().into()));
    names.iter().map(name).collect()
}

fn blob(hash: &[u8]) -> Result<BlobId, Refusal> {
    if hash.is_empty() {
        return Ok(BlobId::default());
    }
    let wrong = |_| malformed(Malformed::Other, "a content hash has not 32 bytes");
    hash.try_into().map(BlobId).map_err(wrong)
}

fn blob_to_wire(blob: BlobId) -> bytes::Bytes {
    if blob == BlobId::default() {
        return bytes::Bytes::new();
    }
    bytes::Bytes::copy_from_slice(&blob.0)
}

fn texts<T: ToString>(names: &[T]) -> Vec<String> {
    names.iter().map(ToString::to_string).collect()
}

/// An error and its sources in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text.push_str(": ");
        text.push_str(&error.to_string());
        source = error.source();
    }
    text
}
