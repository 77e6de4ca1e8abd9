//! Which change does a message ask for?

use penstock_core::Cluster;
use penstock_core::command::{JobUpdate, NodeUpdate};
use penstock_core::model::{Constraint, Dependency};
use penstock_core::refusal::{Malformed, Refusal};
use penstock_proto::v1;
use penstock_vocab::{
    Mib, NodeName, PartitionName, Timestamp, expand_unique, parse_array_spec, parse_gres_list,
};

use super::bounds::{
    MAX_LICENSES, MAX_NAME_BYTES, MAX_NODES, MAX_PATH_BYTES, MAX_TEXT_BYTES, check_count,
    check_text, check_time_limit, malformed,
};
use super::codes;
use super::spec::{chain, walltime};

/// Most GPUs that one change of nodes names.
const MAX_GPUS_NAMED: u64 = 256;

/// Licences as `-L` has them: `name[:count]`, joined by commas or semicolons.
fn licenses(text: &str) -> Result<Vec<(Box<str>, u64)>, Refusal> {
    let entries = text.split([',', ';']).map(str::trim).filter(|entry| !entry.is_empty());
    let licenses: Vec<_> = entries
        .map(|entry| {
            let (name, count) = entry.rsplit_once(':').unwrap_or((entry, "1"));
            match count.parse() {
                Ok(count) if count > 0 => Ok((name.into(), count)),
                Ok(_) | Err(_) => {
                    let text = format!("licence {entry:?} is not of the form NAME:COUNT");
                    Err(Refusal::InvalidLicense(text.into()))
                }
            }
        })
        .collect::<Result<_, _>>()?;
    check_count("licences", licenses.len(), MAX_LICENSES)?;
    Ok(licenses)
}

/// Reads a change to jobs.
///
/// # Errors
/// With a sentence for people, if a text can't be read or is beyond a bound.
pub fn job_update_from_wire(update: v1::JobUpdate) -> Result<JobUpdate, Refusal> {
    check_update(&update)?;
    let nodes = match (update.nodes_min, update.nodes_max) {
        (None, None) => None,
        (min, max) => Some((min.unwrap_or(0), max.unwrap_or(0))),
    };
    Ok(JobUpdate {
        time_limit: update.time_limit_secs.map(walltime),
        time_limit_delta: update.time_limit_delta_secs,
        partitions: update.partition.as_deref().map(partitions).transpose()?,
        qos: update.qos.map(Into::into),
        account: update.account.map(Into::into),
        priority: update.priority,
        nice: update.nice,
        dependency: update.dependency.as_deref().map(dependency).transpose()?,
        begin_time: update.begin_time_ms.map(|ms| Timestamp(ms.max(0))),
        nodes,
        ntasks: update.ntasks,
        cpus_per_task: update.cpus_per_task,
        mem_per_node: update.mem_per_node_mib.map(Mib),
        mem_per_cpu: update.mem_per_cpu_mib.map(Mib),
        constraint: update.constraint.as_deref().map(constraint).transpose()?,
        gres: update
            .gres
            .as_deref()
            .map(parse_gres_list)
            .transpose()
            .map_err(|error| malformed(Malformed::Gres, chain(&error)))?,
        required: update.required_nodes.as_deref().map(node_list).transpose()?,
        excluded: update.excluded_nodes.as_deref().map(node_list).transpose()?,
        name: update.name.map(Into::into),
        comment: update.comment.map(Into::into),
        requeue: update.requeue,
        throttle: update.array_throttle,
        reservation: update.reservation.map(Into::into),
        licenses: update.licenses.as_deref().map(licenses).transpose()?,
        deadline: update.deadline_ms.map(|ms| Timestamp(ms.max(0))),
        min_time: update.min_time_secs.map(walltime),
        work_dir: update.work_dir.map(Into::into),
        stdout: update.stdout.map(Into::into),
        stderr: update.stderr.map(Into::into),
        stdin: update.stdin.map(Into::into),
    })
}

fn check_update(update: &v1::JobUpdate) -> Result<(), Refusal> {
    let texts = [
        ("the job's name", &update.name, MAX_NAME_BYTES),
        ("the account", &update.account, MAX_NAME_BYTES),
        ("the QOS", &update.qos, MAX_NAME_BYTES),
        ("the reservation", &update.reservation, MAX_NAME_BYTES),
        ("the licences", &update.licenses, MAX_TEXT_BYTES),
        ("the partition", &update.partition, MAX_TEXT_BYTES),
        ("the comment", &update.comment, MAX_TEXT_BYTES),
        ("the dependency", &update.dependency, MAX_TEXT_BYTES),
        ("the constraint", &update.constraint, MAX_TEXT_BYTES),
        ("the working directory", &update.work_dir, MAX_PATH_BYTES),
        ("the path of standard input", &update.stdin, MAX_PATH_BYTES),
        ("the path of standard output", &update.stdout, MAX_PATH_BYTES),
        ("the path of standard error", &update.stderr, MAX_PATH_BYTES),
    ];
    for (field, text, max) in texts {
        check_text(field, text.as_deref().unwrap_or_default(), max)?;
    }
    if update.ntasks == Some(0) || update.cpus_per_task == Some(0) {
        return Err(malformed(Malformed::Count, "a job has at least one task of one CPU"));
    }
    match (update.nodes_min, update.nodes_max) {
        (Some(min), Some(max)) if max != 0 && max < min => {
            let detail = format!("at most {max} nodes are less than at least {min}");
            return Err(malformed(Malformed::Count, detail));
        }
        _ => {}
    }
    check_time_limit(update.time_limit_secs)
}

fn partitions(text: &str) -> Result<Vec<PartitionName>, Refusal> {
    let name = |name: &str| {
        PartitionName::new(name.trim()).map_err(|_| Refusal::InvalidPartition(name.trim().into()))
    };
    text.split(',').map(name).collect()
}

fn dependency(text: &str) -> Result<Dependency, Refusal> {
    Dependency::parse(text).map_err(|error| malformed(Malformed::Dependency, error.to_string()))
}

fn constraint(text: &str) -> Result<Constraint, Refusal> {
    Constraint::parse(text).map_err(|error| malformed(Malformed::Constraint, error.to_string()))
}

/// Reads a list of nodes as people type it.
///
/// # Errors
/// If it is no list, or stands for too many nodes or for names that no node can have.
pub fn node_list(text: &str) -> Result<Vec<NodeName>, Refusal> {
    let names =
        expand_unique(text).map_err(|error| malformed(Malformed::NodeList, chain(&error)))?;
    check_count("nodes", names.len(), MAX_NODES)?;
    let name = |name: String| NodeName::new(&name).map_err(|_| Refusal::InvalidNode(name.into()));
    names.into_iter().map(name).collect()
}

/// Reads which GPUs are meant: `gpu:3`, `gpu:0,2-5`; empty text: none.
/// GPUs by their indices: `gpu:3`, `gpu:0,2-5`; empty: none.
///
/// # Errors
/// With a sentence for people.
pub fn gpu_list(text: &str) -> Result<Vec<u32>, Refusal> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let wrong = || {
        let detail = format!("gres={text}: give the GPUs by their indices: gpu:3 or gpu:0,2-5");
        malformed(Malformed::Gres, detail)
    };
    let list = text.strip_prefix("gpu:").ok_or_else(wrong)?;
    let (indices, throttle) = parse_array_spec(list).map_err(|_| wrong())?;
    if throttle.is_some() || indices.len() > MAX_GPUS_NAMED {
        return Err(wrong());
    }
    Ok(indices.iter().collect())
}

/// Reads a change to nodes: which, where `ALL` means every node, and what.
///
/// # Errors
/// With a sentence for people, if a text can't be read or is beyond a bound.
pub fn node_update_from_wire(
    cluster: &Cluster,
    request: v1::UpdateNodeRequest,
) -> Result<(Vec<NodeName>, NodeUpdate), Refusal> {
    check_text("the reason", &request.reason, MAX_NAME_BYTES)?;
    for text in [&request.features, &request.comment].into_iter().flatten() {
        check_text("a text", text, MAX_TEXT_BYTES)?;
    }
    let nodes = if request.nodes.trim().eq_ignore_ascii_case("all") {
        cluster.nodes().map(|(_, node, _)| node.name.clone()).collect()
    } else {
        node_list(&request.nodes)?
    };
    let action = codes::node_action_from(request.action)
        .map_err(|error| malformed(Malformed::Other, error.to_string()))?;
    let features = request.features.map(|text| {
        let words = text.split(',').map(str::trim).filter(|word| !word.is_empty());
        words.map(Into::into).collect()
    });
    let update = NodeUpdate {
        action,
        gpus: gpu_list(&request.gres)?,
        deadline: (request.deadline_ms != 0).then_some(Timestamp(request.deadline_ms)),
        reason: request.reason.into(),
        weight: request.weight,
        features,
        comment: request.comment.map(Into::into),
    };
    Ok((nodes, update))
}
