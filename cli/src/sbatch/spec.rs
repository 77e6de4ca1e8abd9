//! How does what was asked for become the job that is sent?

use std::ffi::OsStr;
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{Mode, umask};
use penstock_proto::v1;
use penstock_vocab::{Mib, Walltime};
use sha2::Digest as _;

use crate::sbatch::environment::{Export, block};
use crate::sbatch::request::{Memory, Request, parse_licenses};
use crate::sbatch::script::Script;

/// Limits that travel with a job, as Slurm's PropagateResourceLimits=ALL.
const PROPAGATED: [Resource; 10] = [
    Resource::RLIMIT_CPU,
    Resource::RLIMIT_FSIZE,
    Resource::RLIMIT_DATA,
    Resource::RLIMIT_STACK,
    Resource::RLIMIT_CORE,
    Resource::RLIMIT_RSS,
    Resource::RLIMIT_NPROC,
    Resource::RLIMIT_NOFILE,
    Resource::RLIMIT_MEMLOCK,
    Resource::RLIMIT_AS,
];

/// Where and as whom sbatch runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Submitter {
    /// Current directory.
    pub(crate) cwd: PathBuf,
    /// Name of this host.
    pub(crate) host: String,
    /// Session of this process.
    pub(crate) sid: u32,
    /// File mode creation mask.
    pub(crate) umask: u32,
    /// Soft limits.
    pub(crate) rlimits: Vec<v1::ResourceLimit>,
    /// Name of the user, if this host knows it.
    pub(crate) user_name: String,
    /// Name of the group, if this host knows it.
    pub(crate) group_name: String,
    /// The command line, words joined by blanks.
    pub(crate) submit_line: String,
}

impl Submitter {
    /// Looks at this process.
    ///
    /// # Errors
    /// When the current directory is gone.
    pub(crate) fn of_this_process(submit_line: String) -> Result<Self, String> {
        let cwd = std::env::current_dir().map_err(|error| {
            format!("getcwd failed: {error}; use --chdir from a directory that exists")
        })?;
        let host = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
        let sid = nix::unistd::getsid(None).map_or(0, |sid| sid.as_raw().unsigned_abs());
        let user = uzers::get_user_by_uid(uzers::get_current_uid());
        let group = uzers::get_group_by_gid(uzers::get_current_gid());
        Ok(Self {
            cwd,
            host,
            sid,
            umask: current_umask(),
            rlimits: soft_limits(),
            user_name: user.map(|user| lossy(user.name())).unwrap_or_default(),
            group_name: group.map(|group| lossy(group.name())).unwrap_or_default(),
            submit_line,
        })
    }
}

fn lossy(text: &OsStr) -> String {
    text.to_string_lossy().into_owned()
}

/// Where a bundle is that was named in `cwd`; nothing where none was.
pub(crate) fn bundle_path(named: &str, cwd: &std::path::Path) -> String {
    if named.is_empty() { String::new() } else { cwd.join(named).to_string_lossy().into_owned() }
}

/// The mask can only be read by setting it.
fn current_umask() -> u32 {
    let mask = umask(Mode::empty());
    umask(mask);
    mask.bits()
}

fn soft_limits() -> Vec<v1::ResourceLimit> {
    let read = |resource: Resource| {
        let (soft, _hard) = getrlimit(resource).ok()?;
        Some(v1::ResourceLimit { resource: resource as u32, soft })
    };
    PROPAGATED.into_iter().filter_map(read).collect()
}

/// The whole request, but for its id.
pub(crate) fn submit_request(
    request: &Request,
    script: Script,
    arguments: &[String],
    submitter: &Submitter,
) -> v1::SubmitJobRequest {
    let here: Vec<_> = std::env::vars_os().collect();
    let added = [
        ("SLURM_SUBMIT_DIR", submitter.cwd.as_os_str()),
        ("SLURM_SUBMIT_HOST", OsStr::new(&submitter.host)),
    ];
    let environment = block(request.export.as_ref().unwrap_or(&Export::All), &here, &added);
    v1::SubmitJobRequest {
        request_id: request_id(&request.idempotency_key),
        spec: Some(job_spec(request, &script, arguments, submitter)),
        script: script.text.into(),
        environment: environment.into(),
    }
}

/// A new id, or the one that a key stands for: the controller carries out a user's request of one id once.
fn request_id(key: &str) -> bytes::Bytes {
    if key.is_empty() {
        return crate::connect::request_id();
    }
    let hash = sha2::Sha256::digest([b"sbatch --idempotency-key\0", key.as_bytes()].concat());
    bytes::Bytes::copy_from_slice(&hash[..16])
}

/// The job as it is asked for.
pub(crate) fn job_spec(
    request: &Request,
    script: &Script,
    arguments: &[String],
    submitter: &Submitter,
) -> v1::JobSpec {
    let (nodes_min, nodes_max) = request.nodes.unwrap_or_default();
    let (per_node, per_cpu, per_gpu) = memory(request);
    let gres_per_node = [request.gres.clone(), request.gpus_per_node.clone()].concat();
    let mut spec = v1::JobSpec {
        mail_type: request.mail_type.clone(),
        mail_user: request.mail_user.clone(),
        name: request.job_name.clone().unwrap_or_else(|| script.default_name.clone()),
        account: request.account.clone(),
        qos: request.qos.clone(),
        partitions: request.partitions.clone(),
        nodes_min,
        nodes_max,
        ntasks: request.ntasks,
        cpus_per_task: request.cpus_per_task,
        ntasks_per_node: request.ntasks_per_node,
        mem_per_node_mib: per_node,
        mem_per_cpu_mib: per_cpu,
        gres_per_node,
        gpus_total: request.gpus.clone(),
        constraint: request.constraint.clone(),
        required_nodes: request.nodelist.clone(),
        excluded_nodes: request.exclude.clone(),
        exclusive: request.exclusive,
        time_limit_secs: request.time.map(limit_secs),
        begin_time_ms: request.begin_ms,
        hold: request.hold,
        requeue: request.requeue,
        nice: request.nice,
        priority: request.priority,
        comment: request.comment.clone(),
        measure_secs: request.measure_secs,
        container: bundle_path(&request.container, &submitter.cwd),
        container_image: request.container_image.clone(),
        dependency: request.dependency.clone(),
        array: request.array.clone(),
        signal: request.signal.map(signal_request),
        work_dir: work_dir(request, &submitter.cwd),
        stdin: request.input.clone(),
        stdout: request.output.clone(),
        stderr: request.error.clone(),
        open_mode: request.open_mode.into(),
        umask: submitter.umask,
        rlimits: submitter.rlimits.clone(),
        command: script.path.clone(),
        script_arguments: arguments.to_vec(),
        submit_host: submitter.host.clone(),
        submit_line: submitter.submit_line.clone(),
        export: request.export.as_ref().map_or("", Export::as_typed).to_owned(),
        user_name: submitter.user_name.clone(),
        group_name: submitter.group_name.clone(),
        kill_on_invalid_dep: request.kill_on_invalid_dep,
        submit_sid: submitter.sid,
        reservation: request.reservation.clone(),
        deadline_ms: request.deadline_ms,
        min_time_secs: request.time_min.map(limit_secs).filter(|secs| *secs > 0),
        exclusive_user: request.exclusive_user,
        oversubscribe: request.oversubscribe,
        // Checked when the command line was read.
        licenses: match request.licenses.as_str() {
            "" => Vec::new(),
            text => parse_licenses(text).unwrap_or_default(),
        },
        switches: request.switches,
        ..v1::JobSpec::default()
    };
    if request.overcommit {
        overcommit(&mut spec);
    }
    request.gpu.fill(&mut spec, per_gpu);
    request.manner.fill(&mut spec);
    spec
}

fn signal_request(signal: penstock_vocab::SignalSpec) -> v1::SignalRequest {
    v1::SignalRequest {
        signal: signal.signal.number().into(),
        seconds_before: signal.lead_secs.into(),
        batch_only: signal.batch_only,
    }
}

/// One CPU on each node will do, which all tasks there share.
pub(crate) fn overcommit(spec: &mut v1::JobSpec) {
    let nodes = spec.nodes_min.max(1);
    let by_node = spec.ntasks_per_node.map(|tasks| tasks.saturating_mul(nodes));
    spec.overcommit = true;
    spec.overcommit_tasks = spec.ntasks.or(by_node);
    (spec.ntasks, spec.ntasks_per_node, spec.cpus_per_task) = (Some(nodes), None, None);
}

/// Memory for each node, for each CPU, for each GPU: one of them, if any.
fn memory(request: &Request) -> (Option<u64>, Option<u64>, Option<Mib>) {
    match request.memory {
        Some((Memory::PerNode(size), _)) => (Some(size.0), None, None),
        Some((Memory::PerCpu(size), _)) => (None, Some(size.0), None),
        Some((Memory::PerGpu(size), _)) => (None, None, Some(size)),
        None => (None, None, None),
    }
}

/// Whole minutes, seconds rounded up, as Slurm keeps limits; 0: none.
pub(crate) fn limit_secs(limit: Walltime) -> u64 {
    limit.rounded_up().as_secs().unwrap_or(0)
}

fn work_dir(request: &Request, cwd: &Path) -> String {
    let dir = match &request.chdir {
        Some(dir) => cwd.join(dir),
        None => cwd.to_owned(),
    };
    dir.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sbatch::manner::Manner;
    use crate::sbatch::request::Source;
    use crate::sbatch::script::wrapped;

    fn submitter() -> Submitter {
        Submitter {
            cwd: "/home/alice".into(),
            host: "login1".into(),
            sid: 7,
            umask: 0o22,
            rlimits: vec![v1::ResourceLimit { resource: 7, soft: 1024 }],
            user_name: "alice".into(),
            group_name: "users".into(),
            submit_line: "sbatch --wrap=true".into(),
        }
    }

    fn spec(request: &Request) -> v1::JobSpec {
        job_spec(request, &wrapped("true"), &[], &submitter())
    }

    #[test]
    fn what_is_not_given_stays_open() {
        let spec = spec(&Request::default());
        assert_eq!(spec.name, "wrap");
        assert_eq!(spec.work_dir, "/home/alice");
        assert_eq!((spec.nodes_min, spec.nodes_max, spec.ntasks), (0, 0, None));
        assert_eq!((spec.mem_per_node_mib, spec.mem_per_cpu_mib), (None, None));
        assert_eq!(spec.time_limit_secs, None);
        assert_eq!(spec.export, "");
        assert_eq!(spec.rlimits.len(), 1);
        assert_eq!((spec.umask, spec.submit_sid), (0o22, 7));
    }

    #[test]
    fn what_is_given_is_carried_over() {
        let request = Request {
            job_name: Some("x".into()),
            nodes: Some((1, 2)),
            memory: Some((Memory::PerCpu(Mib(5)), Source::Script)),
            time: Some(Walltime::Limited(61)),
            chdir: Some("sub".into()),
            export: Some(Export::None),
            manner: Manner { limits: Some(Vec::new()), ..Manner::default() },
            ..Request::default()
        };
        let spec = spec(&request);
        assert_eq!(spec.name, "x");
        assert_eq!((spec.nodes_min, spec.nodes_max), (1, 2));
        assert_eq!((spec.mem_per_node_mib, spec.mem_per_cpu_mib), (None, Some(5)));
        assert_eq!(spec.time_limit_secs, Some(120));
        assert_eq!(spec.work_dir, "/home/alice/sub");
        assert_eq!(spec.export, "NONE");
        assert!(spec.rlimits.is_empty());
    }

    #[test]
    fn a_key_stands_for_one_request() {
        assert_eq!(request_id("a"), request_id("a"));
        assert_ne!(request_id("a"), request_id("b"));
        assert_ne!(request_id(""), request_id(""));
        assert_eq!((request_id("a").len(), request_id("").len()), (16, 16));
    }

    #[test]
    fn no_limit_is_zero_seconds() {
        assert_eq!(limit_secs(Walltime::Unlimited), 0);
        assert_eq!(limit_secs(Walltime::Limited(60)), 60);
    }

    #[test]
    fn this_process_has_a_directory_and_limits() {
        let this = Submitter::of_this_process("sbatch x".into()).expect("has a directory");
        assert!(this.cwd.is_absolute());
        assert!(this.rlimits.iter().any(|limit| limit.resource == Resource::RLIMIT_NOFILE as u32));
        assert_eq!(current_umask(), this.umask);
    }
}
