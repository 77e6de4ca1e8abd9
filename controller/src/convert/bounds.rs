//! How much text may a submitter send?
//!
//! One job's record has to fit into a batch with others, and its words into a line on a screen.

use penstock_core::refusal::{Malformed, Refusal};
use penstock_proto::v1;
use penstock_vocab::{
    MAX_GRES_LIST, MAX_SIGNAL_LEAD_SECS, MAX_WALLTIME_MINUTES, MailTypes, is_mail_address,
};

/// Longest name of a job, an account, a QOS, a user, a group or a host, in bytes.
pub(super) const MAX_NAME_BYTES: usize = 1 << 10;
/// Longest path, in bytes; Linux's own limit.
pub(super) const MAX_PATH_BYTES: usize = 4 << 10;
/// Longest free text, in bytes: comment, command line, constraint, dependency, export list.
pub(super) const MAX_TEXT_BYTES: usize = 64 << 10;
/// Longest time between two measurements of what a job uses, seconds; more counts as this.
pub(super) const MAX_MEASURE_SECS: u32 = 86_400;
/// Most arguments of a script.
const MAX_ARGUMENTS: usize = 10_000;
/// Most bytes of all arguments of a script together.
const MAX_ARGUMENT_BYTES: usize = 256 << 10;
/// Most partitions of one job.
const MAX_PARTITIONS: usize = 64;
/// Most nodes that one job may name, and as many bytes of their names as arguments may have.
pub(super) const MAX_NODES: usize = 10_000;
/// Most choices of resources in one request.
const MAX_CHOICES: usize = 8;
/// Most licences that one job or reservation may hold.
pub(super) const MAX_LICENSES: usize = 256;
/// Most resource limits; Linux has 16.
const MAX_RLIMITS: usize = 32;
/// Highest signal of Linux.
const MAX_SIGNAL: u32 = 64;

/// A part of a request that can't be read.
pub(super) fn malformed(what: Malformed, detail: impl Into<Box<str>>) -> Refusal {
    Refusal::Malformed { what, detail: detail.into() }
}

/// Refuses text that is too long or has a NUL byte in it.
pub(super) fn check_text(field: &str, text: &str, max: usize) -> Result<(), Refusal> {
    if text.len() > max {
        let detail = format!("{field} has {} bytes, at most {max} are allowed", text.len());
        return Err(malformed(Malformed::Other, detail));
    }
    if text.contains('\0') {
        return Err(malformed(Malformed::Other, format!("{field} has a NUL byte in it")));
    }
    Ok(())
}

pub(super) fn check_count(field: &str, got: usize, max: usize) -> Result<(), Refusal> {
    if got <= max {
        return Ok(());
    }
    let detail = format!("{got} {field} were given, at most {max} are allowed");
    Err(malformed(Malformed::Other, detail))
}

/// Checks everything about a request that has a bound.
pub(super) fn check_spec(spec: &v1::JobSpec) -> Result<(), Refusal> {
    check_texts(spec)?;
    check_lists(spec)?;
    check_numbers(spec)
}

fn check_texts(spec: &v1::JobSpec) -> Result<(), Refusal> {
    let names = [
        ("the job's name", &spec.name),
        ("the account", &spec.account),
        ("the QOS", &spec.qos),
        ("the wckey", &spec.wckey),
        ("the distribution", &spec.distribution),
        ("the user's name", &spec.user_name),
        ("the group's name", &spec.group_name),
        ("the submitting host", &spec.submit_host),
        ("the reservation", &spec.reservation),
        ("the binding of GPUs", &spec.gpu_bind),
    ];
    let paths = [
        ("the working directory", &spec.work_dir),
        ("the path of standard input", &spec.stdin),
        ("the path of standard output", &spec.stdout),
        ("the path of standard error", &spec.stderr),
        ("the path of the script", &spec.command),
        ("the container", &spec.container),
        ("the container's image", &spec.container_image),
    ];
    let texts = [
        ("the comment", &spec.comment),
        ("the constraint", &spec.constraint),
        ("the dependency", &spec.dependency),
        ("the array specification", &spec.array),
        ("the command line", &spec.submit_line),
        ("the export list", &spec.export),
        ("why GPUs may be idle", &spec.idle_ok),
    ];
    if let Err(error) = spec.mail_type.parse::<MailTypes>() {
        return Err(malformed(Malformed::Other, error.to_string()));
    }
    if !spec.mail_user.is_empty() && !is_mail_address(&spec.mail_user) {
        let text = format!("mail cannot be sent to {:?}", spec.mail_user);
        return Err(malformed(Malformed::Other, text));
    }
    names.iter().try_for_each(|(field, text)| check_text(field, text, MAX_NAME_BYTES))?;
    paths.iter().try_for_each(|(field, text)| check_text(field, text, MAX_PATH_BYTES))?;
    texts.iter().try_for_each(|(field, text)| check_text(field, text, MAX_TEXT_BYTES))
}

fn check_lists(spec: &v1::JobSpec) -> Result<(), Refusal> {
    check_count("arguments", spec.script_arguments.len(), MAX_ARGUMENTS)?;
    let total = |texts: &[String]| texts.iter().map(String::len).sum::<usize>();
    let arguments = total(&spec.script_arguments);
    check_count("bytes of arguments", arguments, MAX_ARGUMENT_BYTES)?;
    let nul_free = |text: &String| check_text("an argument", text, MAX_ARGUMENT_BYTES);
    spec.script_arguments.iter().try_for_each(nul_free)?;
    check_count("partitions", spec.partitions.len(), MAX_PARTITIONS)?;
    for nodes in [&spec.required_nodes, &spec.excluded_nodes] {
        check_count("nodes", nodes.len(), MAX_NODES)?;
        check_count("bytes of node names", total(nodes), MAX_ARGUMENT_BYTES)?;
    }
    check_count("generic resources", spec.gres_per_node.len(), MAX_GRES_LIST)?;
    check_count("choices of resources", spec.gres_choices.len(), MAX_CHOICES)?;
    let choices = spec.gres_choices.iter().map(|choice| choice.gres.len());
    check_count("generic resources", choices.max().unwrap_or(0), MAX_GRES_LIST)?;
    check_count("licences", spec.licenses.len(), MAX_LICENSES)?;
    let name =
        |license: &v1::LicenseCount| check_text("a licence's name", &license.name, MAX_NAME_BYTES);
    spec.licenses.iter().try_for_each(name)?;
    check_count("resource limits", spec.rlimits.len(), MAX_RLIMITS)
}

/// Ways to ask for GPUs that can't be had together.
fn check_gpu_terms(spec: &v1::JobSpec) -> Result<(), Refusal> {
    let refuse = |detail: &str| Err(malformed(Malformed::Gres, detail));
    let gives_gpus = |gres: &[v1::GresCount]| gres.iter().any(|gres| gres.name == "gpu");
    let per_node = gives_gpus(&spec.gres_per_node);
    let choice = spec.gres_choices.iter().any(|choice| gives_gpus(&choice.gres));
    if spec.gpus_per_task.is_some() && spec.ntasks.is_none() && spec.gpus_total.is_none() {
        let by_node = spec.ntasks_per_node.is_some();
        if !by_node {
            return refuse(
                "--gpus-per-task used without either --gpus or -n/--ntasks is not allowed.",
            );
        }
    }
    if let (Some(total), Some(each), Some(tasks)) =
        (&spec.gpus_total, &spec.gpus_per_task, spec.ntasks)
        && each.count.checked_mul(u64::from(tasks)) != Some(total.count)
    {
        let (all, each) = (total.count, each.count);
        let detail = format!("{all} GPUs in all are not {each} for each of {tasks} tasks");
        return refuse(&detail);
    }
    if spec.gpus_per_socket.is_some() && spec.sockets_per_node == 0 {
        return refuse("--gpus-per-socket needs --sockets-per-node");
    }
    if !spec.gres_choices.is_empty() && !spec.gres_per_node.is_empty() {
        return refuse("a choice of resources and --gpus-per-node exclude each other");
    }
    let any = per_node
        || choice
        || spec.gpus_total.is_some()
        || spec.gpus_per_task.is_some()
        || spec.gpus_per_socket.is_some();
    if !any && (spec.cpus_per_gpu.is_some() || spec.mem_per_gpu_mib.is_some()) {
        return refuse(
            "--cpus-per-gpu and --mem-per-gpu need GPUs; give --gpus, --gpus-per-node or --gres",
        );
    }
    if spec.cpus_per_gpu.is_some() && spec.cpus_per_task.is_some() {
        return refuse("--cpus-per-task and --cpus-per-gpu are mutually exclusive.");
    }
    let memory = [spec.mem_per_node_mib, spec.mem_per_cpu_mib, spec.mem_per_gpu_mib];
    if memory.iter().flatten().count() > 1 {
        return refuse("--mem, --mem-per-cpu, and --mem-per-gpu are mutually exclusive.");
    }
    Ok(())
}

fn check_numbers(spec: &v1::JobSpec) -> Result<(), Refusal> {
    let counts = [
        ("tasks", spec.ntasks),
        ("CPUs for each task", spec.cpus_per_task),
        ("tasks on each node", spec.ntasks_per_node),
        ("CPUs for each GPU", spec.cpus_per_gpu),
    ];
    if let Some((field, _)) = counts.iter().find(|(_, count)| *count == Some(0)) {
        let detail = format!("0 {field} were asked for; give at least 1, or leave the option out");
        return Err(malformed(Malformed::Count, detail));
    }
    if spec.nodes_max != 0 && spec.nodes_max < spec.nodes_min {
        let (min, max) = (spec.nodes_min, spec.nodes_max);
        let detail = format!("at most {max} nodes are less than at least {min}");
        return Err(malformed(Malformed::Count, detail));
    }
    if spec.mem_per_node_mib.is_some() && spec.mem_per_cpu_mib.is_some() {
        let detail = "memory is given for each node and for each CPU; give one of the two";
        return Err(malformed(Malformed::Other, detail));
    }
    check_gpu_terms(spec)?;
    check_time_limit(spec.time_limit_secs)?;
    if spec.begin_time_ms < 0 {
        return Err(malformed(Malformed::Other, "the begin time lies before 1970"));
    }
    if let Some(signal) = &spec.signal {
        let in_range = (1..=MAX_SIGNAL).contains(&signal.signal)
            && signal.seconds_before <= u32::from(MAX_SIGNAL_LEAD_SECS);
        if !in_range {
            let (number, secs) = (signal.signal, signal.seconds_before);
            let detail = format!(
                "signal {number} {secs} seconds ahead: signals are 1 to {MAX_SIGNAL}, \
                 sent at most {MAX_SIGNAL_LEAD_SECS} seconds ahead"
            );
            return Err(malformed(Malformed::Other, detail));
        }
    }
    Ok(())
}

/// Refuses a time limit beyond what can be printed and added up.
pub(super) fn check_time_limit(secs: Option<u64>) -> Result<(), Refusal> {
    const MAX_SECS: u64 = MAX_WALLTIME_MINUTES * 60;
    if secs.is_some_and(|secs| secs > MAX_SECS) {
        let detail = format!("the time limit is over {MAX_WALLTIME_MINUTES} minutes");
        return Err(malformed(Malformed::Other, detail));
    }
    Ok(())
}
