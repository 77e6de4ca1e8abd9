//! Which variables does a batch script see?
//!
//! The submitted block, less what it says of the job that it was submitted from, then what the
//! controller added, then everything that describes this job on this node (sbatch(1), OUTPUT
//! ENVIRONMENT VARIABLES). The agent's own environment is never passed on.

mod step;

pub(crate) use step::{Gpus, StepPlace, StepVariables, TaskPlace};

use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use penstock_proto::job_variables::{cpus, job_variables};
use penstock_proto::v1;

use crate::gpu::Grant;

/// The job's user as this machine knows it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Account {
    /// Login name.
    pub name: String,
    /// Home directory.
    pub home: String,
    /// Login shell.
    pub shell: String,
}

/// What is known only where the job starts.
#[derive(Debug, Clone)]
pub struct Place<'a> {
    /// This node's name.
    pub node: &'a str,
    /// This machine's host name.
    pub host: &'a str,
    /// Socket through which the job's commands speak to the cluster.
    pub socket: &'a str,
    /// Folder with commands of Slurm's names, for `PATH`.
    pub commands_dir: Option<&'a Path>,
    /// Pid that the script will have.
    pub pid: u32,
    /// When it starts, seconds since the epoch.
    pub start_secs: i64,
    /// The user.
    pub account: &'a Account,
    /// The devices that it was given; `None`: what the shares say is all that is known.
    pub devices: Option<&'a Grant>,
}

/// `PATH` where nothing else names one.
const DEFAULT_PATH: &str = "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin";

/// Starts of names that describe a job or step. A script that submits a job passes its own on;
/// the new job must not take them for its own.
const OF_A_JOB: &[&str] = &[
    "SLURM_ARRAY_",
    "SLURM_CLUSTER_NAME",
    "SLURM_CPUS_",
    "SLURM_CPU_BIND",
    "SLURM_DISTRIBUTION",
    "SLURM_EXPORT_ENV",
    "SLURM_GPUS",
    "SLURM_GTIDS",
    "SLURM_JOB",
    "SLURM_LAUNCH_NODE_IPADDR",
    "SLURM_LOCALID",
    "SLURM_MEM_",
    "SLURM_NNODES",
    "SLURM_NODEID",
    "SLURM_NODELIST",
    "SLURM_NODE_ALIASES",
    "SLURM_NPROCS",
    "SLURM_NTASKS",
    "SLURM_PRIO_PROCESS",
    "SLURM_PROCID",
    "SLURM_RESTART_COUNT",
    "SLURM_SRUN_COMM_",
    "SLURM_STEP",
    "SLURM_TASKS_PER_NODE",
    "SLURM_TASK_PID",
    "SLURM_TOPOLOGY_ADDR",
    "SLURM_UMASK",
    "SLURMD_NODENAME",
    "SLURM_HINT",
];

/// What names devices to programs.
const OF_DEVICES: &[&str] = &[
    "CUDA_VISIBLE_DEVICES",
    "GPU_DEVICE_ORDINAL",
    "NVIDIA_VISIBLE_DEVICES",
    "ROCR_VISIBLE_DEVICES",
];

/// The environment of the batch script of `launch`, sorted by name. Entries without `=`, or with
/// a name that is empty, are left out.
#[must_use]
pub fn environment(launch: &v1::Launch, place: &Place<'_>) -> Vec<CString> {
    batch_variables(launch, place).into_block()
}

/// The same, for whoever changes some of it.
pub(crate) fn batch_variables(launch: &v1::Launch, place: &Place<'_>) -> Variables {
    let mut vars = Variables::default();
    for entry in launch.environment.split(|&byte| byte == 0) {
        vars.add(entry, |name| !OF_A_JOB.iter().any(|start| name.starts_with(start.as_bytes())));
    }
    for entry in &launch.variables {
        vars.add(entry.as_bytes(), |_| true);
    }
    let job = launch.job.clone().unwrap_or_default();
    let spec = job.spec.clone().unwrap_or_default();
    defaults(&mut vars, &spec, place);
    of_the_job(&mut vars, &job, &launch.cluster);
    vars.set_text("SLURM_EXPORT_ENV", &spec.export);
    if let Some(share) = job.run.as_ref().and_then(|run| run.shares.first()) {
        of_the_node(&mut vars, share, place);
    }
    vars.set("SLURM_JOB_START_TIME", place.start_secs);
    if launch.time_limit_secs != 0 {
        let end = place.start_secs.saturating_add_unsigned(launch.time_limit_secs);
        vars.set("SLURM_JOB_END_TIME", end);
    }
    vars.set("PENSTOCK_SOCKET", place.socket);
    vars
}

/// `PATH` of prologs and epilogs, which run with the agent's rights.
const HOOK_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The environment of a prolog or epilog of the site on this node.
pub(crate) fn hook_environment(
    launch: &v1::LaunchHook,
    node: &str,
    devices: Option<&Grant>,
) -> Vec<(OsString, OsString)> {
    let mut vars = Variables::default();
    launch.variables.iter().for_each(|entry| vars.put(entry.as_bytes()));
    vars.set("PATH", HOOK_PATH);
    vars.set("SLURMD_NODENAME", node);
    match devices.filter(|devices| devices.knows_gpus()) {
        Some(_) => {}
        None => launch.share.iter().for_each(|share| gpus(&mut vars, share)),
    }
    let given = devices.iter().flat_map(|devices| devices.variables());
    given.for_each(|entry| vars.put(entry.as_bytes()));
    vars.pairs().collect()
}

/// Names and values on their way into a block.
#[derive(Debug, Clone, Default)]
pub(crate) struct Variables(BTreeMap<Vec<u8>, Vec<u8>>);

impl Variables {
    /// Takes `NAME=VALUE` if it is one and `keep` says so of the name.
    fn add(&mut self, entry: &[u8], keep: impl Fn(&[u8]) -> bool) {
        let Some(at) = entry.iter().position(|&byte| byte == b'=') else { return };
        let (name, value) = (&entry[..at], &entry[at + 1..]);
        if !name.is_empty() && keep(name) {
            self.0.insert(name.to_vec(), value.to_vec());
        }
    }

    /// Sets `name`, whatever it was.
    pub(crate) fn set(&mut self, name: &str, value: impl ToString) {
        self.0.insert(name.as_bytes().to_vec(), value.to_string().into_bytes());
    }

    fn set_given(&mut self, name: &str, value: Option<impl ToString>) {
        if let Some(value) = value {
            self.set(name, value);
        }
    }

    fn set_text(&mut self, name: &str, value: &str) {
        self.set_given(name, Some(value).filter(|text| !text.is_empty()));
    }

    fn set_default(&mut self, name: &str, value: &str) {
        if !value.is_empty() && !self.0.contains_key(name.as_bytes()) {
            self.set(name, value);
        }
    }

    /// The value of `name`, if it has one.
    pub(crate) fn get(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name.as_bytes()).map(Vec::as_slice)
    }

    /// All names with their values, in order.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (OsString, OsString)> {
        let text = |bytes: &Vec<u8>| OsString::from_vec(bytes.clone());
        self.0.iter().map(move |(name, value)| (text(name), text(value)))
    }

    /// Takes `name` away.
    pub(crate) fn unset(&mut self, name: &[u8]) {
        self.0.remove(name);
    }

    /// Sets `NAME=VALUE`, if it is one.
    pub(crate) fn put(&mut self, entry: &[u8]) {
        self.add(entry, |_| true);
    }

    /// `NAME=VALUE`, sorted by name; what holds a zero byte is left out.
    pub(crate) fn into_block(self) -> Vec<CString> {
        let join = |(mut name, value): (Vec<u8>, Vec<u8>)| {
            name.push(b'=');
            name.extend(value);
            // No name or text of a message with a zero byte inside gets into an environment.
            CString::new(name).ok()
        };
        self.0.into_iter().filter_map(join).collect()
    }
}

/// What a login would set, where the submitter's environment does not.
fn defaults(vars: &mut Variables, spec: &v1::JobSpec, place: &Place<'_>) {
    let account = place.account;
    if !spec.export.eq_ignore_ascii_case("NIL") {
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
    vars.set("ENVIRONMENT", "BATCH");
    vars.set("HOSTNAME", place.host);
}

/// Puts the folder with the commands in front of `PATH`, if it is not in it.
fn offer_commands(vars: &mut Variables, dir: &Path) {
    let path = vars.0.remove(b"PATH".as_slice()).unwrap_or_default();
    let path = OsString::from_vec(path);
    let present = std::env::split_paths(&path).any(|part| part == dir);
    let all = std::iter::once(dir.to_path_buf()).filter(|_| !present);
    // A folder with a colon in its name cannot stand in PATH: then PATH stays as it was.
    let joined = std::env::join_paths(all.chain(std::env::split_paths(&path)));
    vars.0.insert(b"PATH".to_vec(), joined.unwrap_or(path).into_vec());
}

/// What is true of the job wherever its processes run.
fn of_the_job(vars: &mut Variables, job: &v1::Job, cluster: &str) {
    for (name, value) in job_variables(job, cluster) {
        match name.as_str() {
            // The submitter states both in its environment; -D changes where the job runs, not whence
            // it came.
            "SLURM_SUBMIT_DIR" | "SLURM_SUBMIT_HOST" => vars.set_default(&name, &value),
            _ => vars.set(&name, value),
        }
    }
}

/// What is true of the script and the node that it runs on.
fn of_the_node(vars: &mut Variables, share: &v1::NodeShare, place: &Place<'_>) {
    vars.set("SLURM_CPUS_ON_NODE", cpus(share));
    vars.set("SLURMD_NODENAME", place.node);
    vars.set("SLURM_TOPOLOGY_ADDR", place.node);
    vars.set("SLURM_TOPOLOGY_ADDR_PATTERN", "node");
    for name in ["NODEID", "PROCID", "LOCALID", "GTIDS", "PRIO_PROCESS"] {
        vars.set(&format!("SLURM_{name}"), 0);
    }
    vars.set("SLURM_TASK_PID", place.pid);
    match place.devices.filter(|devices| devices.knows_gpus()) {
        // Whoever submitted it from a job may have passed on what was that job's, and the controller
        // numbers units, not devices.
        Some(_) => {
            let names = OF_DEVICES.iter().chain(&["SLURM_JOB_GPUS", "SLURM_GPUS_ON_NODE"]);
            names.for_each(|name| vars.unset(name.as_bytes()));
        }
        None => gpus(vars, share),
    }
    let given = place.devices.iter().flat_map(|devices| devices.variables());
    given.for_each(|entry| vars.put(entry.as_bytes()));
}

/// What programs read where no driver is asked: the numbers of the job's GPUs.
fn gpus(vars: &mut Variables, share: &v1::NodeShare) {
    let of_gpus = share.gres.iter().filter(|gres| gres.name == "gpu");
    let ids: Vec<String> = of_gpus.flat_map(|g| &g.ids).map(u32::to_string).collect();
    let list = ids.join(",");
    for name in ["CUDA_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"] {
        vars.set_text(name, &list);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn share(node: &str, cpu_ranges: &[u32], tasks: u32) -> v1::NodeShare {
        v1::NodeShare {
            node: node.to_owned(),
            cpu_ranges: cpu_ranges.to_vec(),
            memory_mib: 2000,
            tasks,
            ..v1::NodeShare::default()
        }
    }

    /// The array task of the reference: task 3 of 3,5 with -n3 -N2 --gres=gpu:2, job id 7.
    fn launch() -> v1::Launch {
        let spec = v1::JobSpec {
            name: "probe".to_owned(),
            user_name: "root".to_owned(),
            ntasks: Some(3),
            mem_per_cpu_mib: Some(10),
            gres_per_node: vec![v1::GresCount {
                name: "gpu".to_owned(),
                r#type: String::new(),
                count: 2,
            }],
            export: "ALL".to_owned(),
            work_dir: "/home/me".to_owned(),
            ..v1::JobSpec::default()
        };
        let gres =
            v1::GresShare { name: "gpu".to_owned(), ids: vec![0, 1], ..v1::GresShare::default() };
        let mut first = share("n1", &[0, 0, 2, 2], 2);
        first.gres.push(gres);
        let run = v1::Run {
            shares: vec![first, share("n2", &[0, 0], 1)],
            partition: "main".to_owned(),
            ..v1::Run::default()
        };
        let array =
            v1::ArraySummary { task_count: 2, task_min: 3, task_max: 5, task_step: 1, throttle: 0 };
        let job = v1::Job {
            id: 7,
            spec: Some(spec),
            run: Some(run),
            array_job_id: 1,
            array_task_id: Some(3),
            array: Some(array),
            ..v1::Job::default()
        };
        v1::Launch {
            job_id: 7,
            job: Some(job),
            cluster: "bench".to_owned(),
            time_limit_secs: 60,
            ..v1::Launch::default()
        }
    }

    fn see(launch: &v1::Launch) -> BTreeMap<String, String> {
        see_with(launch, None)
    }

    fn see_with(launch: &v1::Launch, devices: Option<&Grant>) -> BTreeMap<String, String> {
        let account = Account {
            name: "root".to_owned(),
            home: "/root".to_owned(),
            shell: "/bin/bash".to_owned(),
        };
        let place = Place {
            node: "n1",
            host: "host1",
            socket: "/run/agent.sock",
            commands_dir: Some(Path::new("/opt/penstock/slurm")),
            pid: 4711,
            start_secs: 1000,
            account: &account,
            devices,
        };
        let split = |entry: CString| {
            let text = entry.into_string().expect("plain text in tests");
            let (name, value) = text.split_once('=').expect("name and value");
            (name.to_owned(), value.to_owned())
        };
        environment(launch, &place).into_iter().map(split).collect()
    }

    #[test]
    fn an_array_task_sees_what_slurm_shows() {
        let seen = see(&launch());
        let expected = "SLURM_JOB_ID=7 SLURM_JOBID=7 SLURM_ARRAY_JOB_ID=1 SLURM_ARRAY_TASK_ID=3 \
            SLURM_ARRAY_TASK_COUNT=2 SLURM_ARRAY_TASK_MIN=3 SLURM_ARRAY_TASK_MAX=5 \
            SLURM_ARRAY_TASK_STEP=1 SLURM_JOB_NAME=probe SLURM_JOB_USER=root SLURM_JOB_UID=0 \
            SLURM_JOB_GID=0 SLURM_JOB_PARTITION=main SLURM_CLUSTER_NAME=bench \
            SLURM_JOB_NODELIST=n[1-2] SLURM_NODELIST=n[1-2] SLURM_JOB_NUM_NODES=2 SLURM_NNODES=2 \
            SLURM_JOB_CPUS_PER_NODE=2,1 SLURM_CPUS_ON_NODE=2 SLURM_TASKS_PER_NODE=2,1 \
            SLURM_NTASKS=3 SLURM_NPROCS=3 SLURM_MEM_PER_CPU=10 SLURM_GPUS_ON_NODE=2 \
            SLURM_JOB_GPUS=0,1 CUDA_VISIBLE_DEVICES=0,1 SLURM_SUBMIT_DIR=/home/me \
            SLURMD_NODENAME=n1 SLURM_NODEID=0 SLURM_PROCID=0 SLURM_LOCALID=0 SLURM_GTIDS=0 \
            SLURM_TASK_PID=4711 SLURM_PRIO_PROCESS=0 SLURM_TOPOLOGY_ADDR=n1 \
            SLURM_TOPOLOGY_ADDR_PATTERN=node SLURM_NODE_ALIASES=(null) SLURM_EXPORT_ENV=ALL \
            ENVIRONMENT=BATCH HOSTNAME=host1 TMPDIR=/tmp SLURM_JOB_START_TIME=1000 \
            SLURM_JOB_END_TIME=1060 PENSTOCK_SOCKET=/run/agent.sock HOME=/root USER=root \
            LOGNAME=root SHELL=/bin/bash";
        for pair in expected.split_whitespace() {
            let (name, value) = pair.split_once('=').unwrap();
            assert_eq!(seen.get(name).map(String::as_str), Some(value), "{name}");
        }
        for absent in ["SLURM_CPUS_PER_TASK", "SLURM_RESTART_COUNT", "SLURM_MEM_PER_NODE"] {
            assert!(!seen.contains_key(absent), "{absent}");
        }
    }

    #[test]
    fn the_job_it_was_submitted_from_is_forgotten() {
        let mut launch = launch();
        launch.environment =
            b"SLURM_STEP_ID=4\0SLURM_CPUS_PER_TASK=9\0SLURM_CONF=/c\0FOO=a=b\0=x\0junk\0HOME=/h\0\0"
                .as_slice()
                .into();
        launch.variables = vec!["BAR=1".to_owned(), "SLURM_JOB_ID=99".to_owned()];
        let seen = see(&launch);
        assert!(!seen.contains_key("SLURM_STEP_ID") && !seen.contains_key("SLURM_CPUS_PER_TASK"));
        let of = |name: &str| seen.get(name).map(String::as_str);
        assert_eq!(of("SLURM_CONF"), Some("/c"));
        assert_eq!(of("FOO"), Some("a=b"));
        assert_eq!(of("BAR"), Some("1"));
        assert_eq!(of("HOME"), Some("/h"));
        assert_eq!(of("SLURM_JOB_ID"), Some("7"));
    }

    #[test]
    fn the_commands_folder_comes_first_in_path_and_once() {
        let mut launch = launch();
        assert!(see(&launch)["PATH"].starts_with("/opt/penstock/slurm:/usr/local/bin:"));
        launch.environment = b"PATH=/bin:/opt/penstock/slurm".as_slice().into();
        assert_eq!(see(&launch)["PATH"], "/bin:/opt/penstock/slurm");
    }

    #[test]
    fn known_gpus_are_named_by_uuid_and_those_of_another_job_are_forgotten() {
        let gpu = |index: u32| v1::Gpu {
            index,
            uuid: format!("GPU-{index}"),
            r#type: "h100".to_owned(),
            ..v1::Gpu::default()
        };
        let devices = crate::gpu::Devices::default();
        devices.learn(vec![gpu(0), gpu(1), gpu(2)], Vec::new());
        let key = penstock_supervisor::AttemptKey::new(
            penstock_vocab::JobId(7),
            penstock_vocab::Attempt(0),
        );
        let mut launch = launch();
        launch.environment =
            b"CUDA_VISIBLE_DEVICES=GPU-9\0ROCR_VISIBLE_DEVICES=9".as_slice().into();
        let share = launch.job.as_ref().and_then(|job| job.run.as_ref()?.shares.first()).cloned();
        for (shares, expect) in
            [(share.unwrap_or_default().gres, Some("GPU-0,GPU-1")), (Vec::new(), None)]
        {
            let grant = devices.grant(key, &shares).unwrap();
            let seen = see_with(&launch, Some(&grant));
            let of = |name: &str| seen.get(name).map(String::as_str);
            assert_eq!(of("CUDA_VISIBLE_DEVICES"), expect);
            assert_eq!(of("NVIDIA_VISIBLE_DEVICES"), expect);
            assert_eq!(of("SLURM_JOB_GPUS"), expect.map(|_| "0,1"));
            assert_eq!(of("ROCR_VISIBLE_DEVICES"), None);
        }
    }

    #[test]
    fn nil_exports_nothing_of_the_user() {
        let mut launch = launch();
        launch.job.as_mut().unwrap().spec.as_mut().unwrap().export = "NIL".to_owned();
        let seen = see(&launch);
        assert!(!seen.contains_key("HOME") && seen.contains_key("PATH"));
        assert_eq!(seen["SLURM_EXPORT_ENV"], "NIL");
    }

    #[test]
    fn memory_follows_the_request() {
        let mut launch = launch();
        let set = |launch: &mut v1::Launch, per_cpu, per_node| {
            let spec = launch.job.as_mut().unwrap().spec.as_mut().unwrap();
            (spec.mem_per_cpu_mib, spec.mem_per_node_mib) = (per_cpu, per_node);
        };
        for (per_node, expected) in [(Some(500), "500"), (Some(0), "2000"), (None, "2000")] {
            set(&mut launch, None, per_node);
            assert_eq!(see(&launch)["SLURM_MEM_PER_NODE"], expected);
        }
    }
}
