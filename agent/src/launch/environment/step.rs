//! Which variables does a task of a step see?
//!
//! What srun sent of its own environment, less what that says of the step or script that srun itself
//! runs in; then what the controller computed for the job; then what is true of this step, this node
//! and this task (srun(1), OUTPUT ENVIRONMENT VARIABLES). As in Slurm, names without `STEP` or `JOB`
//! (`SLURM_NTASKS`, `SLURM_NODELIST` ...) speak of the step.

use std::net::IpAddr;
use std::path::Path;

use penstock_proto::job_variables::{counted, cpus, repeated};
use penstock_proto::v1::{self, step_frame::Setup};
use penstock_vocab::compress;

use super::{Account, DEFAULT_PATH, Variables, offer_commands};
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
    "SLURM_MPI_TYPE",
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
    match facts.spec.distribution.split_once('=') {
        Some((kind, size)) => {
            vars.set("SLURM_DISTRIBUTION", kind);
            vars.set("SLURM_DIST_PLANESIZE", size);
        }
        None => vars.set_text("SLURM_DISTRIBUTION", &facts.spec.distribution),
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
    vars.set_text("SLURM_MPI_TYPE", &spec.mpi);
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
    if let Some(head) = head.or_else(|| launch.step_nodes.first()) {
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    /// What Slurm 22.05 shows task 1 of `srun -N2 -n3 -l`, two on a1 and one on a2; less what names its
    /// own files (`SLURM_CONF`, `SLURM_WORKING_CLUSTER`).
    const SLURMS: &str = "SLURMD_NODENAME=a1 SLURM_CLUSTER_NAME=bench SLURM_CPUS_ON_NODE=2 \
        SLURM_CPU_BIND=quiet,mask_cpu:0x3 SLURM_CPU_BIND_LIST=0x3 SLURM_CPU_BIND_TYPE=mask_cpu: \
        SLURM_CPU_BIND_VERBOSE=quiet SLURM_GTIDS=0,1 SLURM_JOBID=1 SLURM_JOB_CPUS_PER_NODE=2,1 \
        SLURM_JOB_GID=0 SLURM_JOB_ID=1 SLURM_JOB_NAME=sh SLURM_JOB_NODELIST=a[1-2] \
        SLURM_JOB_NUM_NODES=2 SLURM_JOB_PARTITION=main SLURM_JOB_UID=0 SLURM_JOB_USER=root \
        SLURM_LABELIO=1 SLURM_LAUNCH_NODE_IPADDR=127.0.0.1 SLURM_LOCALID=1 SLURM_NNODES=2 \
        SLURM_NODEID=0 SLURM_NODELIST=a[1-2] SLURM_NPROCS=3 SLURM_NTASKS=3 SLURM_PRIO_PROCESS=0 \
        SLURM_PROCID=1 SLURM_SRUN_COMM_HOST=127.0.0.1 SLURM_SRUN_COMM_PORT=44265 SLURM_STEPID=0 \
        SLURM_STEP_ID=0 SLURM_STEP_LAUNCHER_PORT=44265 SLURM_STEP_NODELIST=a[1-2] \
        SLURM_STEP_NUM_NODES=2 SLURM_STEP_NUM_TASKS=3 SLURM_STEP_TASKS_PER_NODE=2,1 \
        SLURM_SUBMIT_DIR=/home/me SLURM_SUBMIT_HOST=vm SLURM_TASKS_PER_NODE=2,1 \
        SLURM_TASK_PID=2319 SLURM_TOPOLOGY_ADDR=a1 SLURM_TOPOLOGY_ADDR_PATTERN=node \
        SLURM_UMASK=0022";

    fn facts() -> Facts {
        let words = |words: &str| words.split(' ').map(str::to_owned).collect();
        let launch = v1::LaunchStep {
            step_nodes: words("a1 a2"),
            step_tasks: vec![2, 1],
            user_name: "root".to_owned(),
            cluster: "bench".to_owned(),
            variables: words(
                "SLURM_JOB_CPUS_PER_NODE=2,1 SLURM_JOB_NAME=sh SLURM_JOB_NODELIST=a[1-2] \
                 SLURM_JOB_NUM_NODES=2 SLURM_JOB_PARTITION=main SLURM_SUBMIT_DIR=/home/me \
                 SLURM_SUBMIT_HOST=vm",
            ),
            ..v1::LaunchStep::default()
        };
        let mut facts = Facts::for_tests(launch, vec![0, 1]);
        (facts.job_id, facts.number, facts.node) = (1, 0, "a1".to_owned());
        facts.share.cpu_ranges = vec![0, 1];
        facts
    }

    fn see(facts: &Facts, setup: &Setup, gpus: Option<&Gpus>) -> BTreeMap<String, String> {
        let account = Account { name: "root".to_owned(), ..Account::default() };
        let place = StepPlace {
            socket: "/run/agent.sock",
            commands_dir: None,
            account: &account,
            launch_address: Some([127, 0, 0, 1].into()),
            launch_port: 44_265,
        };
        let bind = Some(("quiet", "mask_cpu:", "0x3"));
        let task = TaskPlace { rank: 1, local: 1, pid: 2_319, bind, gpus };
        let block = StepVariables::of(facts, setup, &place).of_task(&task).into_block();
        let split = |entry: std::ffi::CString| {
            let text = entry.into_string().expect("plain text in tests");
            let (name, value) = text.split_once('=').expect("name and value");
            (name.to_owned(), value.to_owned())
        };
        block.into_iter().map(split).collect()
    }

    fn setup() -> Setup {
        // srun runs in a task of another step itself.
        let environment = b"PATH=/bin\0SLURM_PROCID=7\0SLURM_STEP_GPUS=3\0SLURM_CPU_BIND_X=1\0\
            SLURM_NTASKS=40\0SLURM_NODELIST=x\0PMI_FD=9\0A=b=c\0"
            .as_slice();
        Setup { environment: environment.into(), umask: 0o022, label: true, ..Setup::default() }
    }

    #[test]
    fn a_task_sees_exactly_what_slurm_shows() {
        let mut seen = see(&facts(), &setup(), None);
        assert_eq!(seen.remove("A").as_deref(), Some("b=c"));
        assert_eq!(seen.remove("PENSTOCK_SOCKET").as_deref(), Some("/run/agent.sock"));
        for (name, value) in [("PATH", "/bin"), ("USER", "root"), ("TMPDIR", "/tmp")] {
            assert_eq!(seen.remove(name).as_deref(), Some(value), "{name}");
        }
        seen.remove("LOGNAME");
        let expected: BTreeMap<_, _> = SLURMS
            .split_ascii_whitespace()
            .filter_map(|word| word.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        assert_eq!(seen, expected);
    }

    #[test]
    fn what_was_asked_for_is_told() {
        let mut facts = facts();
        let gpus = v1::GresCount { name: "gpu".to_owned(), count: 1, ..v1::GresCount::default() };
        facts.spec = v1::StepSpec {
            cpus_per_task: Some(2),
            ntasks_per_node: Some(2),
            mem_per_cpu_mib: Some(100),
            distribution: "plane=2".to_owned(),
            overcommit: true,
            threads_per_core: 1,
            mpi: "pmi2".to_owned(),
            gpus_per_task: Some(gpus),
            ..v1::StepSpec::default()
        };
        let setup = Setup { export: "NONE".to_owned(), ..setup() };
        let of_task = Gpus { step: vec![2, 3], task: vec![3], visible: None };
        let seen = see(&facts, &setup, Some(&of_task));
        for (name, value) in [
            ("SLURM_CPUS_PER_TASK", "2"),
            ("SLURM_NTASKS_PER_NODE", "2"),
            ("SLURM_MEM_PER_CPU", "100"),
            ("SLURM_DISTRIBUTION", "plane"),
            ("SLURM_DIST_PLANESIZE", "2"),
            ("SLURM_OVERCOMMIT", "1"),
            ("SLURM_THREADS_PER_CORE", "1"),
            ("SLURM_MPI_TYPE", "pmi2"),
            ("SLURM_EXPORT_ENV", "NONE"),
            ("SLURM_GPUS_PER_TASK", "1"),
            ("SLURM_STEP_GPUS", "2,3"),
            ("SLURM_GPUS_ON_NODE", "2"),
            ("CUDA_VISIBLE_DEVICES", "3"),
        ] {
            assert_eq!(seen.get(name).map(String::as_str), Some(value), "{name}");
        }
        let none = see(&facts, &setup, Some(&Gpus::default()));
        assert_eq!(none["CUDA_VISIBLE_DEVICES"], NO_DEVICES);
    }

    #[test]
    fn torch_finds_where_to_meet() {
        let mut facts = facts();
        facts.spec.mpi = "torch".to_owned();
        let seen = see(&facts, &setup(), None);
        let expected = [
            ("MASTER_ADDR", "a1"),
            ("MASTER_PORT", "12031"),
            ("RANK", "1"),
            ("WORLD_SIZE", "3"),
            ("LOCAL_RANK", "1"),
            ("LOCAL_WORLD_SIZE", "2"),
            ("NODE_RANK", "0"),
        ];
        for (name, value) in expected {
            assert_eq!(seen.get(name).map(String::as_str), Some(value), "{name}");
        }
        facts.launch.node_addresses = vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()];
        assert_eq!(see(&facts, &setup(), None)["MASTER_ADDR"], "10.0.0.1");
    }
}
