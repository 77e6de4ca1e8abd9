//! How does a fork of the shepherd become the job?
//!
//! In this order: into the group, as root; the private `/etc/hosts`; then the user, for good; and
//! only then everything that the user named.

use std::ffi::{CString, NulError};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::unistd::execve;
use penstock_proto::v1;
use rustix::fs::Mode;
use rustix::process::Pid;

use super::control::{self, Report};
use super::oci::{Inside, Oci};
use super::task_scripts::{epilogs, prologs};
use super::user::Identity;
use super::{LaunchError, Prepared, hosts, output, script, spec_of, write_line};
use crate::launch::cgroup::Container;
use crate::launch::environment::{Place, Variables, batch_variables};
use crate::launch::record::Intent;
use crate::sys::{
    Forked, SingleThreaded, close_all_but, reset_signals, set_soft_limit, wall_clock,
};

/// Where a job goes whose folder cannot be entered.
const FALLBACK_DIR: &str = "/tmp";

/// Everything that the new process needs.
pub(super) struct Plan {
    pub(super) intent: Intent,
    pub(super) prepared: Prepared,
    /// Where the shepherd listens until the script runs.
    pub(super) report: OwnedFd,
}

impl Plan {
    /// Becomes the job, or tells the shepherd why not. Never returns.
    pub(super) fn exec(self) -> ! {
        let Err(error) = self.become_job();
        control::tell(&self.report, &Report::Failed(error), None);
        std::process::exit(1)
    }

    fn become_job(&self) -> Result<std::convert::Infallible, LaunchError> {
        let launch = self.intent.launch.clone().unwrap_or_default();
        let job = launch.job.clone().unwrap_or_default();
        let spec = spec_of(&launch);
        self.leave_root(&launch, &spec)?;
        let astray = enter(&spec.work_dir)?;
        let streams = output::open(&job, &spec, &self.intent.node)?;
        control::tell(&self.report, &Report::Output, Some(&streams.stderr));
        connect(&streams)?;
        if let Some(line) = astray {
            write_line(&streams.stderr, &line);
        }
        let mut vars = variables(&self.intent, &self.prepared.identity, &launch);
        if let Err(code) = prologs(&launch.task_prolog, "", &mut vars) {
            std::process::exit(code);
        }
        let block = vars.into_block();
        if let Some(oci) = &self.prepared.oci {
            return self.run_inside(oci, &spec, job.id, &block);
        }
        reset_signals();
        let error = execute(&self.prepared.script, &launch.script, &spec, &block)?;
        Err(script::exec_error(&launch.script, error))
    }

    /// Everything that needs the agent's rights, and then gives them up.
    fn leave_root(&self, launch: &v1::Launch, spec: &v1::JobSpec) -> Result<(), LaunchError> {
        let node = |what: &str, error: io::Error| LaunchError::node(format!("{what}: {error}"));
        let ready = &self.prepared.ready;
        if let Container::Group(group) = &ready.container {
            group.enter().map_err(|error| node("the job's cgroup cannot be entered", error))?;
        }
        if !launch.hosts.is_empty()
            && let Err(why) = hosts::make_private(&launch.hosts)
        {
            control::tell(&self.report, &Report::Notice(why), None);
        }
        nix::unistd::setsid().map_err(|error| node("no session can be made", error.into()))?;
        let identity = &self.prepared.identity;
        let who = &spec.user_name;
        identity.assume().map_err(|e| node(&format!("user {who:?} cannot be assumed"), e))?;
        if ready.ends_with_shepherd() {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
                .map_err(|error| node("the job cannot be tied to its shepherd", error.into()))?;
        }
        rustix::process::umask(Mode::from_raw_mode(spec.umask & 0o777));
        for limit in &spec.rlimits {
            set_soft_limit(limit.resource, limit.soft).map_err(|error| {
                node(&format!("resource limit {} cannot be set", limit.resource), error)
            })?;
        }
        Ok(())
    }

    /// Runs the script in a container, in which it has the same name.
    fn run_inside(
        &self,
        oci: &Oci,
        spec: &v1::JobSpec,
        job_id: u32,
        block: &[CString],
    ) -> Result<std::convert::Infallible, LaunchError> {
        let zero = |_: NulError| LaunchError::job("a word of the job holds a zero byte");
        let script = self.prepared.script.as_os_str().as_bytes().to_vec();
        let mut argv = vec![script];
        argv.extend(spec.script_arguments.iter().map(|word| word.as_bytes().to_vec()));
        let variables: Vec<Vec<u8>> = block.iter().map(|it| it.as_bytes().to_vec()).collect();
        let inside = Inside {
            id: &format!("penstock-{job_id}.batch"),
            dir: Path::new(&self.intent.script_dir),
            argv: &argv,
            variables: &variables,
            cwd: None,
            binds: &[self.prepared.script.display().to_string()],
            owner: (self.prepared.identity.uid.as_raw(), self.prepared.identity.gid.as_raw()),
        };
        let argv = oci.command(&inside).map_err(LaunchError::job)?;
        let words: Result<Vec<CString>, _> = argv.into_iter().map(CString::new).collect();
        let words = words.map_err(zero)?;
        reset_signals();
        let Err(error) = execve(&words[0], &words, block);
        let runtime = words[0].to_string_lossy();
        Err(LaunchError::node(format!("{runtime} cannot be run: {}", error.desc())))
    }
}

/// What the script of a launch sees, and what runs before and after it.
fn variables(intent: &Intent, identity: &Identity, launch: &v1::Launch) -> Variables {
    let host = nix::unistd::gethostname().unwrap_or_default();
    let host = host.to_string_lossy();
    let commands = Some(intent.commands_dir.as_str()).filter(|dir| !dir.is_empty());
    let place = Place {
        node: &intent.node,
        host: &host,
        socket: &intent.socket,
        commands_dir: commands.map(Path::new),
        pid: std::process::id(),
        start_secs: wall_clock().as_secs(),
        account: &identity.account,
        devices: intent.devices.as_ref(),
    };
    batch_variables(launch, &place)
}

/// What runs after a batch script: the site's epilog of tasks.
pub(super) struct AfterScript {
    pub(super) alone: SingleThreaded,
    pub(super) intent: Intent,
    pub(super) identity: Identity,
}

impl AfterScript {
    /// Runs it in a fork, in the job's group and as its user; `None` if no process can be made.
    pub(super) fn start(&self, container: &Container, stderr: Option<&File>) -> Option<Pid> {
        match self.alone.fork().ok()? {
            Forked::Parent(pid) => Some(pid),
            Forked::Child => self.exec(container, stderr),
        }
    }

    fn exec(&self, container: &Container, stderr: Option<&File>) -> ! {
        let launch = self.intent.launch.clone().unwrap_or_default();
        let spec = spec_of(&launch);
        let begun = || -> io::Result<()> {
            if let Container::Group(group) = container {
                group.enter()?;
            }
            nix::unistd::setsid()?;
            self.identity.assume()?;
            rustix::process::umask(Mode::from_raw_mode(spec.umask & 0o777));
            if let Some(stderr) = stderr {
                nix::unistd::dup2_stdout(stderr)?;
                nix::unistd::dup2_stderr(stderr)?;
            }
            Ok(())
        };
        let entered = begun();
        // The group is entered, and this process ends here.
        close_all_but(&[]);
        if entered.is_err() || enter(&spec.work_dir).is_err() {
            std::process::exit(1);
        }
        let vars = variables(&self.intent, &self.identity, &launch);
        reset_signals();
        epilogs(&launch.task_epilog, "", &vars)
    }
}

/// Enters the job's folder, or `/tmp` as Slurm does; the line that tells the user so.
fn enter(dir: &str) -> Result<Option<String>, LaunchError> {
    let Err(error) = nix::unistd::chdir(dir) else { return Ok(None) };
    // Without any folder, relative names would lead into the agent's spool.
    nix::unistd::chdir(FALLBACK_DIR).map_err(|error| {
        LaunchError::node(format!("neither {dir:?} nor {FALLBACK_DIR} can be entered: {error}"))
    })?;
    let reason = error.desc();
    Ok(Some(format!(
        "slurmstepd: error: couldn't chdir to `{dir}': {reason}: going to {FALLBACK_DIR} instead"
    )))
}

fn connect(streams: &output::Streams) -> Result<(), LaunchError> {
    let failed = |error| LaunchError::node(format!("standard streams cannot be set: {error}"));
    nix::unistd::dup2_stdin(&streams.stdin).map_err(failed)?;
    nix::unistd::dup2_stdout(&streams.stdout).map_err(failed)?;
    nix::unistd::dup2_stderr(&streams.stderr).map_err(failed)
}

/// Runs the script; returns only the reason why that failed.
fn execute(
    path: &Path,
    text: &[u8],
    spec: &v1::JobSpec,
    block: &[CString],
) -> Result<io::Error, LaunchError> {
    let zero = |_: NulError| LaunchError::job("a script argument holds a zero byte");
    let script = CString::new(path.as_os_str().as_bytes()).map_err(zero)?;
    let mut arguments = vec![script.clone()];
    for argument in &spec.script_arguments {
        arguments.push(CString::new(argument.as_str()).map_err(zero)?);
    }
    let Err(error) = execve(&script, &arguments, block);
    if error != nix::errno::Errno::EACCES {
        return Ok(error.into());
    }
    // The file is the user's and executable: its file system forbids execution.
    let Some(interpreter) = script::interpreter(text) else { return Ok(error.into()) };
    let program = CString::new(interpreter.program).map_err(zero)?;
    let mut all = vec![program.clone()];
    if let Some(argument) = interpreter.argument {
        all.push(CString::new(argument).map_err(zero)?);
    }
    all.append(&mut arguments);
    let Err(error) = execve(&program, &all, block);
    Ok(error.into())
}
