//! Which variables does a task of a step see?
//!
//! What srun sent of its own environment, less what that says of the step or script that srun itself
//! runs in; then what the controller computed for the job; then what is true of this step, this node
//! and this task (srun(1), OUTPUT ENVIRONMENT VARIABLES). As in Slurm, names without `STEP` or `JOB`
//! (`SLURM_NTASKS`, `SLURM_NODELIST` ...) speak of the step.

use std::net::IpAddr;
use std::path::Path;

use penstock_proto::v1::{self, step_frame::Setup};
use penstock_vocab::compress;

use super::{Account, DEFAULT_PATH, Variables, counted, cpus, offer_commands, repeated};
use crate::launch::shepherd::step::Facts;

/// Starts of names that say something of one step, task or node: srun may itself run in a task.
const OF_A_STEP: &[&str] = &[
    "PMI_",
    "PMIX_",
    "SLURMD_NODENAME",
    "SLURM_CPUS_ON_NODE",
    "SLURM_CPU_BIND",
    "SLURM_DISTRIBUTION",
    "SLURM_DIST_PLANESIZE",
    "SLURM_GPUS_ON_NODE",
    "SLURM_GTIDS",
    "SLURM_LABELIO",
    "SLURM_LAUNCH_NODE_IPADDR",
    "SLURM_LOCALID",
    "SLURM_NODEID",
    "SLURM_PROCID",
    "SLURM_PTY_",
    "SLURM_SRUN_COMM_",
    "SLURM_STEP",
    "SLURM_TASK_PID",
    "SLURM_TOPOLOGY_ADDR",
];

/// What `CUDA_VISIBLE_DEVICES` says in a step without GPUs of a job that has some.
const NO_DEVICES: &str = "NoDevFiles";

/// First port that a step's processes may be told to meet at, and how many there are: below those
/// that the kernel hands out by itself (ip(7), `ip_local_port_range`).
const MASTER_PORTS: (u32, u32) = (12_000, 20_000);

/// What is known only where the step runs.
#[derive(Debug, Clone)]
pub(crate) struct StepPlace<'a> {
    /// Socket through which the tasks' commands speak to the cluster.
    pub(crate) socket: &'a str,
    /// Folder with commands of Slurm's names, for `PATH`.
    pub(crate) commands_dir: Option<&'a Path>,
    /// The user.
    pub(crate) account: &'a Account,
    /// srun's address, as it answered.
    pub(crate) launch_address: Option<IpAddr>,
    /// srun's port.
    pub(crate) launch_port: u32,
}

/// The GPUs of one task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Gpus {
    /// Those of the whole step on this node.
    pub(crate) step: Vec<u32>,
    /// Those that the task sees.
    pub(crate) task: Vec<u32>,
    /// By what names these are told to CUDA; `None`: by number.
    pub(crate) visible: Option<Vec<String>>,
}

/// What is known of one task.
#[derive(Debug, Clone)]
pub(crate) struct TaskPlace<'a> {
    /// Rank in the step.
    pub(crate) rank: u32,
    /// Number on this node.
    pub(crate) local: usize,
    /// Its process.
    pub(crate) pid: u32,
    /// `SLURM_CPU_BIND` and its parts, where tasks are bound: verbosity, kind, list.
    pub(crate) bind: Option<(&'a str, &'a str, &'a str)>,
    /// Its GPUs, where the step or the job has some.
    pub(crate) gpus: Option<&'a Gpus>,
}

/// What all tasks of a step on this node see.
#[derive(Debug, Clone)]
pub(crate) struct StepVariables<'a> {
    facts: &'a Facts,
    vars: Variables,
}

impl<'a> StepVariables<'a> {
    pub(crate) fn of(facts: &'a Facts, setup: &Setup, place: &StepPlace<'_>) -> Self {
        let mut vars = Variables::default();
        for entry in setup.environment.split(|&byte| byte == 0) {
            vars.add(entry, |name| {
                !OF_A_STEP.iter().any(|start| name.starts_with(start.as_bytes()))
            });
        }
        for entry in &facts.launch.variables {
            vars.put(entry.as_bytes());
        }
        defaults(&mut vars, setup, place);
        of_the_job(&mut vars, facts);
        of_the_step(&mut vars, facts);
        of_the_request(&mut vars, &facts.spec);
        vars.set_text("SLURM_EXPORT_ENV", &setup.export);
        vars.set("SLURM_UMASK", format!("{:04o}", setup.umask & 0o7777));
        vars.set_given("SLURM_LABELIO", setup.label.then_some(1));
        if let Some(address) = place.launch_address {
            vars.set("SLURM_LAUNCH_NODE_IPADDR", address);
            vars.set("SLURM_SRUN_COMM_HOST", address);
        }
        vars.set("SLURM_SRUN_COMM_PORT", place.launch_port);
        vars.set("SLURM_STEP_LAUNCHER_PORT", place.launch_port);
        if let Some(window) = setup.window.filter(|_| setup.pty) {
            vars.set("SLURM_PTY_WIN_COL", window.columns);
            vars.set("SLURM_PTY_WIN_ROW", window.rows);
        }
        vars.set("PENSTOCK_SOCKET", place.socket);
        Self { facts, vars }
    }

    /// What one task sees.
    pub(crate) fn of_task(&self, task: &TaskPlace<'_>) -> Variables {
        let mut vars = self.vars.clone();
        vars.set("SLURM_PROCID", task.rank);
        vars.set("SLURM_LOCALID", task.local);
        vars.set("SLURM_TASK_PID", task.pid);
        if let Some((verbosity, kind, list)) = task.bind {
            vars.set("SLURM_CPU_BIND", format!("{verbosity},{kind}{list}"));
            vars.set("SLURM_CPU_BIND_VERBOSE", verbosity);
            vars.set("SLURM_CPU_BIND_TYPE", kind);
            vars.set("SLURM_CPU_BIND_LIST", list);
        }
        if let Some(gpus) = task.gpus {
            see_gpus(&mut vars, gpus);
        }
        if self.facts.spec.mpi == "torch" {
            meet(&mut vars, self.facts, task);
        }
        vars
    }
}

fn defaults(vars: &mut Variables, setup: &Setup, place: &StepPlace<'_>) {
    let account = place.account;
    if !setup.export.eq_ignore_ascii_case("NIL") {
        vars.set_default("HOME", &account.home);
        vars.set_default("USER", &account.name);
        vars.set_default("LOGNAME", &account.name);
        vars.set_default("SHELL", &account.shell);
    }
    vars.set_default("PATH", DEFAULT_PATH);
    vars.set_default("TMPDIR", "/tmp");
    if let Some(dir) = place.commands_dir {
        offer_commands(vars, dir);
    }
}

fn of_the_job(vars: &mut Variables, facts: &Facts) {
    let v1::LaunchStep { gid, user_name, group_name, cluster, .. } = &facts.launch;
    vars.set("SLURM_JOB_ID", facts.job_id);
    vars.set("SLURM_JOBID", facts.job_id);
    vars.set("SLURM_JOB_UID", facts.uid);
    vars.set("SLURM_JOB_GID", gid);
    vars.set_text("SLURM_JOB_USER", user_name);
    vars.set_text("SLURM_JOB_GROUP", group_name);
    vars.set_text("SLURM_CLUSTER_NAME", cluster);
}

fn of_the_step(vars: &mut Variables, facts: &Facts) {
    let v1::LaunchStep { step_nodes, step_tasks, .. } = &facts.launch;
    let nodes = compress(step_nodes.iter().map(String::as_str));
    let tasks = repeated(step_tasks.iter().map(|&count| u64::from(count)));
    for name in ["SLURM_STEP_ID", "SLURM_STEPID"] {
        vars.set(name, facts.number);
    }
    for (step, short) in [
        ("SLURM_STEP_NODELIST", "SLURM_NODELIST"),
        ("SLURM_STEP_NUM_NODES", "SLURM_NNODES"),
        ("SLURM_STEP_NUM_TASKS", "SLURM_NTASKS"),
        ("SLURM_STEP_TASKS_PER_NODE", "SLURM_TASKS_PER_NODE"),
    ] {
        let value = match short {
            "SLURM_NODELIST" => nodes.clone(),
            "SLURM_NNODES" => step_nodes.len().to_string(),
            "SLURM_NTASKS" => facts.task_count().to_string(),
            _ => tasks.clone(),
        };
        vars.set(step, &value);
        vars.set(short, value);
    }
    vars.set("SLURM_NPROCS", facts.task_count());
    vars.set("SLURM_NODEID", facts.node_index);
    let ranks: Vec<String> = facts.tasks.iter().map(u32::to_string).collect();
    vars.set("SLURM_GTIDS", ranks.join(","));
    vars.set("SLURM_CPUS_ON_NODE", cpus(&facts.share));
    vars.set("SLURMD_NODENAME", &facts.node);
    vars.set("SLURM_TOPOLOGY_ADDR", &facts.node);
    vars.set("SLURM_TOPOLOGY_ADDR_PATTERN", "node");
    vars.set("SLURM_PRIO_PROCESS", 0);
    let spread = u32::try_from(step_nodes.len()).is_ok_and(|nodes| facts.task_count() <= nodes);
    let given = facts.spec.distribution.as_str();
    match given.split_once('=') {
        Some((kind, size)) => {
            vars.set("SLURM_DISTRIBUTION", kind);
            vars.set("SLURM_DIST_PLANESIZE", size);
        }
        None if given.is_empty() => {
            vars.set("SLURM_DISTRIBUTION", if spread { "cyclic" } else { "block" });
        }
        None => vars.set("SLURM_DISTRIBUTION", given),
    }
}

fn of_the_request(vars: &mut Variables, spec: &v1::StepSpec) {
    vars.set_given("SLURM_CPUS_PER_TASK", spec.cpus_per_task);
    vars.set_given("SLURM_NTASKS_PER_NODE", spec.ntasks_per_node);
    vars.set_given("SLURM_MEM_PER_CPU", spec.mem_per_cpu_mib.filter(|&mib| mib > 0));
    vars.set_given("SLURM_MEM_PER_NODE", spec.mem_per_node_mib.filter(|&mib| mib > 0));
    vars.set_given("SLURM_OVERCOMMIT", spec.overcommit.then_some(1));
    let threads = Some(spec.threads_per_core).filter(|&threads| threads > 0);
    vars.set_given("SLURM_THREADS_PER_CORE", threads);
    vars.set_given("SLURM_GPUS", spec.gpus_total.as_ref().map(counted));
    vars.set_given("SLURM_GPUS_PER_TASK", spec.gpus_per_task.as_ref().map(counted));
    let per_node = spec.gres_per_node.iter().find(|gres| gres.name == "gpu");
    vars.set_given("SLURM_GPUS_PER_NODE", per_node.map(counted));
}

fn see_gpus(vars: &mut Variables, gpus: &Gpus) {
    let list = |ids: &[u32]| ids.iter().map(u32::to_string).collect::<Vec<_>>().join(",");
    let seen = ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES"];
    if gpus.step.is_empty() {
        seen.iter().for_each(|name| vars.set(name, NO_DEVICES));
        vars.unset(b"GPU_DEVICE_ORDINAL");
        return;
    }
    vars.set("SLURM_STEP_GPUS", list(&gpus.step));
    vars.set("SLURM_GPUS_ON_NODE", gpus.step.len());
    vars.set("GPU_DEVICE_ORDINAL", list(&gpus.task));
    let Some(names) = &gpus.visible else {
        seen.iter().for_each(|name| vars.set(name, list(&gpus.task)));
        return;
    };
    vars.unset(b"ROCR_VISIBLE_DEVICES");
    for name in ["CUDA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES"] {
        vars.set(name, names.join(","));
    }
}

/// What torch.distributed and its kin read where no launcher of theirs was used (`--mpi=torch`): the
/// step's first node is where rank 0 is, if tasks are not spread by hand.
fn meet(vars: &mut Variables, facts: &Facts, task: &TaskPlace<'_>) {
    let launch = &facts.launch;
    let head = launch.node_addresses.first().filter(|address| !address.is_empty());
    if let Some(head) = head.or(launch.step_nodes.first()) {
        vars.set("MASTER_ADDR", head);
    }
    let (first, count) = MASTER_PORTS;
    let step = facts.job_id.wrapping_mul(31).wrapping_add(facts.number);
    vars.set("MASTER_PORT", first + step % count);
    vars.set("RANK", task.rank);
    vars.set("WORLD_SIZE", facts.task_count());
    vars.set("LOCAL_RANK", task.local);
    vars.set("LOCAL_WORLD_SIZE", facts.tasks.len());
    vars.set("NODE_RANK", facts.node_index);
}
