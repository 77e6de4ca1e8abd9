//! How does a step begin, once srun has said what to run?

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd};
use std::path::Path;

use penstock_proto::v1::step_frame::{Hello, Setup};
use rustix::fs::{Mode, OFlags};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;
use rustix::pty::OpenptFlags;

use super::binding::Binding;
use super::facts::Facts;
use super::files::{End, Ends, Plan};
use super::gpus;
use super::labels::Labelled;
use super::pmi::Server;
use super::pmix;
use super::run::{Stage, Step};
use super::spawn::{self, Birth, Common};
use super::task::{Pipes, Task, window};
use crate::launch::environment::{Gpus, TaskPlace};
use crate::launch::shepherd::LaunchError;
use crate::launch::shepherd::control::{self, Report};
use crate::launch::shepherd::oci::{self, Oci};
use crate::sys::{Forked, close_all_but};

/// Who calls srun.
pub(super) fn hello(facts: &Facts) -> Hello {
    Hello { job_id: facts.job_id, step: facts.number, node: facts.node.clone(), ..Hello::default() }
}

/// What all tasks need beside their streams.
struct Shared {
    binding: Binding,
    gpus: Option<Vec<Gpus>>,
    report: OwnedFd,
}

/// Both sides of a task's streams.
struct Streams {
    theirs: [OwnedFd; 3],
    ours: Pipes,
    /// The task's end of its socket to the server of PMI.
    pmi: Option<OwnedFd>,
}

impl Step {
    /// srun said what to run.
    pub(super) fn begin(&mut self, setup: Setup) {
        self.common.launch_address = self.srun.peer().map(|peer| peer.ip());
        if let Err(error) = self.check(&setup).and_then(|()| self.prepare_container()) {
            return self.fail(error);
        }
        self.setup = setup;
        let plan = Plan::of(&self.common.facts, &self.setup);
        if plan.needs_files() {
            if let Err(error) = self.open_files(plan) {
                self.fail(LaunchError::node(format!("no process can be made: {error}")));
            }
        } else {
            self.start_when_served(plan, Vec::new());
        }
    }

    /// Starts the tasks, after a server that they need.
    pub(super) fn start_when_served(&mut self, plan: Plan, files: Vec<File>) {
        if pmix::is_pmix(&self.common.facts.spec.mpi) {
            self.start_pmix(plan, files);
        } else {
            self.stage = Stage::Running;
            self.start_tasks(&plan, files);
        }
    }

    fn check(&self, setup: &Setup) -> Result<(), LaunchError> {
        let spec = &self.common.facts.spec;
        let known = matches!(spec.mpi.as_str(), "" | "none" | "pmi2" | "torch");
        if !known && !pmix::is_pmix(&spec.mpi) {
            return Err(LaunchError::job(format!(
                "--mpi={} is not known on {}; give none, pmi2, pmix or torch",
                spec.mpi, self.common.facts.node
            )));
        }
        let missing = self.common.facts.tasks.iter().find(|&&rank| {
            !setup.programs.is_empty() && !setup.programs.iter().any(|it| it.task == rank)
        });
        match missing {
            Some(rank) => Err(LaunchError::job(format!("no program was given for task {rank}"))),
            None => Ok(()),
        }
    }

    /// Finds what runs the container that the step wants.
    fn prepare_container(&mut self) -> Result<(), LaunchError> {
        let spec = &self.common.facts.spec;
        let is_root = self.common.facts.uid == 0;
        let oci = Oci::of(&spec.container, &spec.container_image, is_root)?;
        if oci.is_some() {
            let dir = Path::new(&self.common.intent.script_dir);
            Oci::make_dir(dir, &self.common.identity)?;
        }
        self.common.oci = oci;
        Ok(())
    }

    /// Removes what containers left, most of it in a process that is the user.
    pub(super) fn tidy_containers(&mut self) {
        if self.common.oci.take().is_none() {
            return;
        }
        let dir = Path::new(&self.common.intent.script_dir);
        oci::tidy(self.alone, dir, &self.common.identity);
    }

    /// Forks the process that opens what the user named.
    fn open_files(&mut self, plan: Plan) -> io::Result<()> {
        let (ours, theirs) = control::pair()?;
        if let Forked::Child = self.alone.fork()? {
            close_all_but(&[theirs.as_fd()]);
            let opened = self
                .common
                .leave_root(&self.charge.container, &self.setup)
                .and_then(|()| Common::enter(&self.setup))
                .and_then(|_astray| plan.open(&theirs));
            if let Err(error) = opened {
                control::tell(&theirs, &Report::Failed(error), None);
            }
            std::process::exit(0);
        }
        self.report = Some(ours);
        self.stage = Stage::Opening { plan, files: Vec::new() };
        Ok(())
    }

    /// Forks the tasks.
    pub(super) fn start_tasks(&mut self, plan: &Plan, files: Vec<File>) {
        match self.try_start(plan, &files) {
            // Before anything that they say, or that is said of them.
            Ok(()) => {
                let started = self.started();
                self.send(started);
            }
            Err(error) => self.fail(error),
        }
        let first = plan.tasks.first().map(|ends| ends.stderr);
        if let Some(End::File(at) | End::Labelled(at)) = first {
            self.log = files.into_iter().nth(at);
        }
    }

    fn try_start(&mut self, plan: &Plan, files: &[File]) -> Result<(), LaunchError> {
        let no = |error: io::Error| LaunchError::node(format!("no process can be made: {error}"));
        let cpus = &self.common.intent.step_cpus;
        let binding = Binding::of(&self.common.facts, cpus, threads_of_a_core(cpus))?;
        let gpus = gpus::of_tasks(&self.common.facts)?;
        if binding.in_vain {
            let (node, bind) = (&self.common.facts.node, &self.common.facts.spec.cpu_bind);
            let text =
                format!("srun: warning: {node} pins nothing: --cpu-bind={bind} has no effect");
            self.note(text);
        }
        let (ours, theirs) = control::pair().map_err(no)?;
        let shared = Shared { binding, gpus, report: theirs };
        let mut server =
            (self.common.facts.spec.mpi == "pmi2").then(|| Server::new(&self.common.facts));
        for (local, ends) in plan.tasks.iter().enumerate() {
            let rank = self.common.facts.tasks[local];
            let mut streams = self.streams(rank, *ends, files).map_err(no)?;
            if self.common.has_task_epilog(&self.setup) {
                streams.ours.last_words = Some(streams.theirs[2].try_clone().map_err(no)?);
            }
            if let Some(server) = &mut server {
                streams.pmi = Some(server.add(rank).map_err(no)?);
            }
            let (pid, pipes) =
                self.fork_task(local, streams, &shared, server.as_ref()).map_err(no)?;
            self.charge.meter.add(rank, pid);
            self.tasks.push(Task::new(rank, pid, pipes).map_err(no)?);
        }
        self.report = Some(ours);
        self.pmi = server;
        Ok(())
    }

    fn fork_task(
        &self,
        local: usize,
        streams: Streams,
        shared: &Shared,
        server: Option<&Server>,
    ) -> io::Result<(Pid, Pipes)> {
        let report = shared.report.try_clone()?;
        match self.alone.fork()? {
            Forked::Parent(pid) => Ok((pid, streams.ours)),
            Forked::Child => {
                let kept = streams.theirs.iter().chain(&streams.pmi).chain([&report]);
                close_all_but(&kept.map(OwnedFd::as_fd).collect::<Vec<_>>());
                let rank = self.common.facts.tasks[local];
                let number = streams.pmi.as_ref().map(AsRawFd::as_raw_fd);
                let told = server.zip(number).map(|(server, fd)| server.variables(rank, fd));
                let told = told.or_else(|| Some(self.pmix.as_ref()?.variables(rank)));
                Birth {
                    common: &self.common,
                    setup: &self.setup,
                    container: &self.charge.container,
                    binding: &shared.binding,
                    gpus: shared.gpus.as_ref().and_then(|gpus| gpus.get(local)),
                    local,
                    is_terminal: streams.ours.is_terminal,
                    streams: streams.theirs,
                    extra: told.unwrap_or_default(),
                    pmi: streams.pmi,
                    report,
                }
                .exec()
            }
        }
    }

    /// The ends of one task's streams.
    fn streams(&self, rank: u32, ends: Ends, files: &[File]) -> io::Result<Streams> {
        if ends.stdin == End::Terminal {
            return self.terminal();
        }
        let mut ours = Pipes::default();
        let file = |at: usize| match files.get(at) {
            Some(file) => file.as_fd().try_clone_to_owned(),
            None => Err(io::Error::other("a file of the step was not opened")),
        };
        let null = || Ok(OwnedFd::from(File::options().read(true).write(true).open("/dev/null")?));
        let stdin = match ends.stdin {
            End::Connection => {
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                ours.stdin = Some(write);
                read
            }
            End::File(at) => file(at)?,
            End::Null | End::Labelled(_) | End::Terminal => null()?,
        };
        let count = self.common.facts.task_count();
        let output = |end, ours: &mut Option<OwnedFd>, labelled: &mut Option<Labelled>| match end {
            End::Connection | End::Labelled(_) => {
                if let End::Labelled(at) = end {
                    *labelled = Some(Labelled::new(file(at)?.into(), rank, count));
                }
                let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
                *ours = Some(read);
                Ok(write)
            }
            End::File(at) => file(at),
            End::Null | End::Terminal => null(),
        };
        let [of_stdout, of_stderr] = &mut ours.files;
        let stdout = output(ends.stdout, &mut ours.stdout, of_stdout)?;
        let stderr = output(ends.stderr, &mut ours.stderr, of_stderr)?;
        Ok(Streams { theirs: [stdin, stdout, stderr], ours, pmi: None })
    }

    /// A pseudo terminal, which belongs to the user.
    fn terminal(&self) -> io::Result<Streams> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let master = rustix::pty::openpt(flags)?;
        rustix::pty::grantpt(&master)?;
        rustix::pty::unlockpt(&master)?;
        let name = rustix::pty::ptsname(&master, Vec::new())?;
        let slave = rustix::fs::open(
            &name,
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        if self.common.identity.is_another() {
            let uid = Some(self.common.identity.uid.as_raw());
            std::os::unix::fs::fchown(&slave, uid, None)?;
        }
        if let Some(size) = self.setup.window {
            rustix::termios::tcsetwinsize(&master, window(size.rows, size.columns))?;
        }
        let ours = Pipes {
            stdin: Some(master.try_clone()?),
            stdout: Some(master),
            is_terminal: true,
            ..Pipes::default()
        };
        Ok(Streams { theirs: [slave.try_clone()?, slave.try_clone()?, slave], ours, pmi: None })
    }

    /// Runs the epilog of a task that has ended; `None` if no process can be made for it.
    pub(super) fn start_epilog(&mut self, at: usize) -> Option<Pid> {
        let stderr = self.tasks[at].last_words.take();
        match self.alone.fork().ok()? {
            Forked::Parent(pid) => Some(pid),
            Forked::Child => {
                let task = &self.tasks[at];
                let pid = Self::pid_of(task.pid);
                let kept: Vec<_> = stderr.iter().map(OwnedFd::as_fd).collect();
                close_all_but(&kept);
                let place = TaskPlace { rank: task.rank, local: at, pid, bind: None, gpus: None };
                let of_step = (&self.charge.container, &self.setup);
                spawn::epilog(&self.common, of_step, &place, stderr.as_ref())
            }
        }
    }
}

/// Threads of the core that the first of `cpus` is one of.
fn threads_of_a_core(cpus: &[u32]) -> usize {
    let siblings = |cpu: &u32| {
        let file = format!("/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list");
        let text = std::fs::read_to_string(file).ok()?;
        Some(crate::inventory::count_cpus(&text))
    };
    cpus.first().and_then(siblings).unwrap_or(1).max(1)
}
