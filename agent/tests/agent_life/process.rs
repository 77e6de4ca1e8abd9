//! The agent as a process, and the folders it works in.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, SysconfVar, Uid, User, sysconf};
use penstock_agent::AgentConfig;
use penstock_proto::v1;
use tempfile::TempDir;

use crate::controller::Controller;

const PATIENCE: Duration = Duration::from_secs(60);

/// What this binary is with `agent FILE`.
pub(crate) fn agent(file: &Path) -> ExitCode {
    let ran = AgentConfig::load(file)
        .map_err(|error| error.to_string())
        .and_then(|config| penstock_agent::run_blocking(config).map_err(|e| e.to_string()));
    match ran {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Name of the node: another for each run, so that its cgroups can be found and removed.
pub(crate) fn node() -> String {
    format!("life{}", std::process::id())
}

/// A machine with its file.
pub(crate) struct Host {
    dir: TempDir,
}

impl Host {
    pub(crate) fn new(controller: &Controller) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("ours");
        let (address, token) = (controller.address, &controller.token);
        let text = format!(
            "[agent]\ncontroller = '{address}'\nname = '{}'\ntoken = '{token}'\n\
             state_dir = 'state'\nrun_dir = 'run'\nsocket = 'sock'\ncpus = 2\nmemory = '1G'\n\
             pin_cpus = false\n",
            node()
        );
        fs::write(dir.path().join("c.toml"), text).expect("written");
        fs::create_dir(dir.path().join("work")).expect("made");
        Self { dir }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(std::env::current_exe().expect("this file"));
        command.arg("agent").arg(self.dir.path().join("c.toml"));
        command
    }

    pub(crate) fn agent(&self) -> Agent {
        Agent(self.command().spawn().expect("started"))
    }

    /// A second agent in the same folder must end with a clear word.
    pub(crate) fn expect_refused_twin(&self) {
        let twin = self.command().stderr(Stdio::piped()).output().expect("started");
        let said = String::from_utf8_lossy(&twin.stderr);
        assert!(!twin.status.success() && said.contains("another agent runs"), "{said}");
    }

    pub(crate) fn spool(&self) -> PathBuf {
        self.dir.path().join("state/spool")
    }

    /// What jobs wrote into a file.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join("work").join(name)).unwrap_or_default()
    }

    /// Makes a file that a job waits for.
    pub(crate) fn tell(&self, name: &str) {
        fs::write(self.dir.path().join("work").join(name), "").expect("written");
    }

    pub(crate) async fn wait_until(&self, what: &str, condition: impl Fn() -> bool) {
        let begun = Instant::now();
        while !condition() {
            assert!(begun.elapsed() < PATIENCE, "waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// A job of this process's user.
    pub(crate) fn launch(&self, id: u32, script: &str) -> v1::Launch {
        let user = User::from_uid(Uid::effective()).ok().flatten();
        let spec = v1::JobSpec {
            name: "probe".to_owned(),
            user_name: user.map(|user| user.name).unwrap_or_default(),
            umask: 0o022,
            work_dir: self.dir.path().join("work").display().to_string(),
            stdout: "/dev/null".to_owned(),
            ..Default::default()
        };
        let share = v1::NodeShare { node: node(), tasks: 1, ..Default::default() };
        let job = v1::Job {
            id,
            uid: Uid::effective().as_raw(),
            gid: Gid::effective().as_raw(),
            spec: Some(spec),
            run: Some(v1::Run { shares: vec![share], ..Default::default() }),
            ..Default::default()
        };
        v1::Launch {
            job_id: id,
            job: Some(job),
            script: format!("#!/bin/sh\n{script}\n").into_bytes().into(),
            kill_wait_secs: 30,
            ..Default::default()
        }
    }
}

impl Drop for Host {
    /// Removes the groups of the agent. There are hierarchies where there are none of ours.
    fn drop(&mut self) {
        let root = Path::new("/sys/fs/cgroup");
        let hierarchies = fs::read_dir(root).into_iter().flatten().flatten();
        let roots = hierarchies.map(|entry| entry.path()).chain([root.to_owned()]);
        for penstock in roots.map(|root| root.join("penstock")) {
            for entry in fs::read_dir(penstock).into_iter().flatten().flatten() {
                if entry.file_name().to_string_lossy().starts_with(&format!("{}-", node())) {
                    let _still_used = fs::remove_dir(entry.path());
                }
            }
        }
    }
}

/// A running agent; killed when dropped.
pub(crate) struct Agent(Child);

impl Agent {
    fn pid(&self) -> Pid {
        Pid::from_raw(self.0.id().try_into().expect("pids are small"))
    }

    /// The end of an agent that gets no chance.
    pub(crate) fn kill(&mut self) {
        self.0.kill().expect("ours");
        self.0.wait().expect("ours");
    }

    /// SIGTERM; whether it ended with success.
    pub(crate) fn end(&mut self) -> bool {
        kill(self.pid(), Signal::SIGTERM).expect("ours");
        self.0.wait().expect("ours").success()
    }

    /// Prints what the agent costs at rest; numbers to look at, not limits.
    pub(crate) async fn rest(&self) {
        let before = self.cpu_ticks();
        let time = Duration::from_secs(5);
        tokio::time::sleep(time).await;
        let ticks = self.cpu_ticks() - before;
        let hertz = sysconf(SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
        let per_mille = ticks * 1_000 / (hertz.unsigned_abs() * time.as_secs());
        let rollup = fs::read_to_string(format!("/proc/{}/smaps_rollup", self.0.id()));
        let private: u64 = rollup
            .unwrap_or_default()
            .lines()
            .filter(|line| line.starts_with("Private_"))
            .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
            .sum();
        eprintln!("at rest: {private} KiB private, {per_mille} per mille of a CPU");
    }

    /// User and system time so far.
    fn cpu_ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.0.id())).expect("it runs");
        let fields = stat.rsplit_once(')').expect("the name is in brackets").1;
        let times = fields.split_whitespace().skip(11).take(2);
        times.map(|field| field.parse::<u64>().expect("a number")).sum()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended already.
        let _ended = self.0.kill();
        let _reaped = self.0.wait();
    }
}
