//! How does a fork of the shepherd become a task?
//!
//! In this order: into the group, as root; then the user, for good; and only then everything that
//! the user named. Until its streams are connected, what goes wrong is told to the shepherd; after
//! that, to the user, as Slurm does, and the task ends with the error's number.

use std::convert::Infallible;
use std::ffi::{CString, OsStr};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::unistd::execve;
use penstock_proto::v1::step_frame::Setup;
use rustix::fs::Mode;

use super::binding::Binding;
use super::facts::Facts;
use crate::launch::cgroup::Container;
use crate::launch::environment::{Gpus, StepPlace, StepVariables, TaskPlace, Variables};
use crate::launch::record::Intent;
use crate::launch::shepherd::LaunchError;
use crate::launch::shepherd::control::{self, Report};
use crate::launch::shepherd::oci::{Inside, Oci};
use crate::launch::shepherd::task_scripts::{complain, epilogs, prologs};
use crate::launch::shepherd::user::Identity;
use crate::sys::{reset_signals, set_soft_limit};

/// Where a task goes whose folder cannot be entered.
const FALLBACK_DIR: &str = "/tmp";

/// What all tasks of this node have in common.
pub(super) struct Common {
    pub(super) intent: Intent,
    pub(super) facts: Facts,
    pub(super) identity: Identity,
    /// The processes must be killed with their shepherd.
    pub(super) ends_with_shepherd: bool,
    /// Soft limit of open files that this process began with.
    pub(super) files: u64,
    /// srun's address.
    pub(super) launch_address: Option<std::net::IpAddr>,
    /// The container that tasks run in.
    pub(super) oci: Option<Oci>,
}

/// What becomes of one task.
pub(super) struct Birth<'a> {
    pub(super) common: &'a Common,
    pub(super) setup: &'a Setup,
    pub(super) container: &'a Container,
    pub(super) binding: &'a Binding,
    pub(super) gpus: Option<&'a Gpus>,
    pub(super) local: usize,
    pub(super) streams: [OwnedFd; 3],
    pub(super) is_terminal: bool,
    /// More variables of its own.
    pub(super) extra: Vec<(String, String)>,
    /// A socket that its program inherits.
    pub(super) pmi: Option<OwnedFd>,
    /// Where the shepherd listens until the program runs.
    pub(super) report: OwnedFd,
}

impl Common {
    /// Everything that needs the agent's rights, and then gives them up; a session of its own.
    pub(super) fn leave_root(
        &self,
        container: &Container,
        setup: &Setup,
    ) -> Result<(), LaunchError> {
        let node = |what: &str, error: io::Error| LaunchError::node(format!("{what}: {error}"));
        if let Container::Group(group) = container {
            group.enter().map_err(|error| node("the step's cgroup cannot be entered", error))?;
        }
        nix::unistd::setsid().map_err(|error| node("no session can be made", error.into()))?;
        let who = &self.facts.launch.user_name;
        let assumed = self.identity.assume();
        assumed.map_err(|error| node(&format!("user {who:?} cannot be assumed"), error))?;
        if self.ends_with_shepherd {
            nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)
                .map_err(|error| node("the step cannot be tied to its shepherd", error.into()))?;
        }
        rustix::process::umask(Mode::from_raw_mode(setup.umask & 0o777));
        Ok(())
    }

    /// Enters the step's folder, or `/tmp` as Slurm does; the line that tells the user so.
    pub(super) fn enter(setup: &Setup) -> Result<Option<String>, LaunchError> {
        let dir = &setup.work_dir;
        let Err(error) = nix::unistd::chdir(dir.as_str()) else { return Ok(None) };
        // Without any folder, relative names would lead into the agent's spool.
        nix::unistd::chdir(FALLBACK_DIR).map_err(|error| {
            LaunchError::node(format!("neither {dir:?} nor {FALLBACK_DIR} can be entered: {error}"))
        })?;
        let reason = error.desc();
        Ok(Some(format!("couldn't chdir to `{dir}': {reason}: going to {FALLBACK_DIR} instead")))
    }

    /// Something runs after each task.
    pub(super) fn has_task_epilog(&self, setup: &Setup) -> bool {
        !setup.task_epilog.is_empty() || !self.facts.launch.task_epilog.is_empty()
    }

    /// The variables of the step.
    pub(super) fn variables(&self, setup: &Setup) -> StepVariables<'_> {
        let place = StepPlace {
            socket: &self.intent.socket,
            commands_dir: Facts::commands_dir(&self.intent),
            account: &self.identity.account,
            launch_address: self.launch_address,
            launch_port: self.facts.launch.port,
        };
        StepVariables::of(&self.facts, setup, &place)
    }
}

impl Birth<'_> {
    /// Becomes the task, or tells the shepherd or the user why not. Never returns.
    pub(super) fn exec(self) -> ! {
        let code = match self.become_task() {
            Ok(failed) => failed,
            Err(error) => {
                control::tell(&self.report, &Report::Failed(error), None);
                1
            }
        };
        std::process::exit(code)
    }

    /// The exit code with which a task ends that could not run its program.
    fn become_task(&self) -> Result<i32, LaunchError> {
        let Self { common, setup, .. } = self;
        common.leave_root(self.container, setup)?;
        let failed = |error: io::Error| {
            LaunchError::node(format!("standard streams cannot be set: {error}"))
        };
        if self.is_terminal {
            rustix::process::ioctl_tiocsctty(&self.streams[0])
                .map_err(|error| failed(error.into()))?;
        }
        let astray = Common::enter(setup)?;
        self.connect().map_err(failed)?;
        if let Some(line) = astray.filter(|_| self.local == 0) {
            complain(&line);
        }
        self.limit();
        self.bind();
        let mut vars = self.variables();
        let site = &common.facts.launch.task_prolog;
        if let Err(code) = prologs(site, &setup.task_prolog, &mut vars) {
            return Ok(code);
        }
        reset_signals();
        let Err(code) = self.run(vars);
        Ok(code)
    }

    fn connect(&self) -> io::Result<()> {
        let [stdin, stdout, stderr] = &self.streams;
        nix::unistd::dup2_stdin(stdin)?;
        nix::unistd::dup2_stdout(stdout)?;
        nix::unistd::dup2_stderr(stderr)?;
        if let Some(socket) = &self.pmi {
            rustix::io::fcntl_setfd(socket, rustix::io::FdFlags::empty())?;
        }
        Ok(())
    }

    fn limit(&self) {
        let mut wanted = vec![(libc::RLIMIT_NOFILE, self.common.files)];
        wanted.extend(self.setup.rlimits.iter().map(|limit| (limit.resource, limit.soft)));
        for (resource, soft) in wanted {
            if let Err(error) = set_soft_limit(resource, soft) {
                complain(&format!("resource limit {resource} cannot be set to {soft}: {error}"));
            }
        }
    }

    fn bind(&self) {
        let local = self.local;
        let tasks = self.binding.tasks.as_ref();
        if let Some(cpus) = tasks.and_then(|tasks| tasks.get(local)) {
            let mut set = nix::sched::CpuSet::new();
            let known = cpus.iter().all(|&cpu| set.set(cpu).is_ok());
            let bound = nix::sched::sched_setaffinity(nix::unistd::Pid::from_raw(0), &set);
            if !known || bound.is_err() {
                complain(&format!(
                    "task {local} cannot be bound to CPUs {cpus:?}, which the step has not"
                ));
            }
        }
        let cpus = allowed_cpus();
        if let Some(line) = self.binding.line(&self.common.facts, local, std::process::id(), &cpus)
        {
            let _gone = io::Write::write_all(&mut io::stderr(), format!("{line}\n").as_bytes());
        }
    }

    fn variables(&self) -> Variables {
        let Binding { verbosity, kind, list, tasks, .. } = self.binding;
        // Where nobody spoke of it and nothing was done, an srun in this task is not told "none".
        let said = tasks.is_some() || !self.common.facts.spec.cpu_bind.is_empty();
        let place = TaskPlace {
            rank: self.common.facts.tasks.get(self.local).copied().unwrap_or(0),
            local: self.local,
            pid: std::process::id(),
            bind: said.then_some((*verbosity, *kind, list.as_str())),
            gpus: self.gpus,
        };
        let mut vars = self.common.variables(self.setup).of_task(&place);
        if !self.common.facts.spec.container.is_empty() {
            vars.set("SLURM_CONTAINER", &self.common.facts.spec.container);
        }
        for (name, value) in &self.extra {
            vars.set(name, value);
        }
        vars
    }

    /// Runs the program; the code to end with where that fails.
    fn run(&self, vars: Variables) -> Result<Infallible, i32> {
        let mut argv = self.argv();
        let path = vars.get("PATH").unwrap_or_default().to_vec();
        let block = vars.into_block();
        if let Some(oci) = &self.common.oci {
            argv = self.in_container(oci, &argv, &block)?;
        }
        let name = argv.first().cloned().unwrap_or_default();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let fail = |error: Errno| {
            complain(&format!("execve(): {}: {}", text(&name), error.desc()));
            error as i32
        };
        let arguments: Result<Vec<CString>, _> = argv.into_iter().map(CString::new).collect();
        let arguments = arguments.map_err(|_| fail(Errno::EINVAL))?;
        let mut last = Errno::ENOENT;
        for program in candidates(&name, &path) {
            let Ok(program) = CString::new(program.into_os_string().into_encoded_bytes()) else {
                continue;
            };
            let Err(error) = execve(&program, &arguments, &block);
            // Only what is not there, or not to be run, is looked for further on.
            if !matches!(error, Errno::ENOENT | Errno::ENOTDIR | Errno::EACCES) {
                return Err(fail(error));
            }
            if last == Errno::ENOENT {
                last = error;
            }
        }
        Err(fail(last))
    }

    /// The runtime's command line; tells the user where there can be none.
    fn in_container(
        &self,
        oci: &Oci,
        argv: &[Vec<u8>],
        block: &[CString],
    ) -> Result<Vec<Vec<u8>>, i32> {
        let Common { facts, intent, .. } = self.common;
        let rank = facts.tasks.get(self.local).copied().unwrap_or(0);
        let id = format!("penstock-{}.{rank}", facts.step_id());
        let variables: Vec<Vec<u8>> = block.iter().map(|it| it.as_bytes().to_vec()).collect();
        let inside = Inside {
            id: &id,
            dir: Path::new(&intent.script_dir),
            argv,
            variables: &variables,
            cwd: Some(facts.spec.container_dir.as_str()).filter(|dir| !dir.is_empty()),
            binds: &[],
            owner: (facts.uid, facts.launch.gid),
        };
        oci.command(&inside).map_err(|text| {
            complain(&text);
            1
        })
    }

    fn argv(&self) -> Vec<Vec<u8>> {
        let facts = &self.common.facts;
        let rank = facts.tasks.get(self.local).copied().unwrap_or(0);
        let own = self.setup.programs.iter().find(|program| program.task == rank);
        let argv = own.map_or(&self.setup.argv, |program| &program.argv);
        if argv.is_empty() {
            return vec![self.common.identity.account.shell.clone().into_bytes()];
        }
        argv.iter().map(|word| word.to_vec()).collect()
    }
}

/// The CPUs that this process may run on.
fn allowed_cpus() -> Vec<usize> {
    let set = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0));
    let on = |cpu: &usize| set.as_ref().is_ok_and(|set| set.is_set(*cpu).unwrap_or(false));
    (0..nix::sched::CpuSet::count()).filter(on).collect()
}

/// Where a program may be: itself if its name has a slash, else in each folder of `path`.
fn candidates(name: &[u8], path: &[u8]) -> Vec<PathBuf> {
    let name = Path::new(OsStr::from_bytes(name));
    if name.as_os_str().as_bytes().contains(&b'/') {
        return vec![name.to_path_buf()];
    }
    std::env::split_paths(OsStr::from_bytes(path)).map(|dir| dir.join(name)).collect()
}

/// Runs the epilogs of a task that has ended, in a fork of the shepherd; `stderr` is where the task's
/// went. Never returns.
pub(super) fn epilog(
    common: &Common,
    (container, setup): (&Container, &Setup),
    place: &TaskPlace<'_>,
    stderr: Option<&OwnedFd>,
) -> ! {
    let run = || -> Result<Infallible, i32> {
        let begun = common.leave_root(container, setup).and_then(|()| Common::enter(setup));
        begun.map_err(|_| 1)?;
        if let Some(stderr) = stderr {
            nix::unistd::dup2_stderr(stderr).map_err(|error| error as i32)?;
        }
        let vars = common.variables(setup).of_task(place);
        reset_signals();
        epilogs(&common.facts.launch.task_epilog, &setup.task_epilog, &vars)
    };
    let Err(code) = run();
    std::process::exit(code)
}
