//! What is a cluster of a test, and what can be done with it?

use std::fs::{self, Permissions};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use super::cleanup;
use super::command::{Cmd, Ran};
use super::daemon::Daemon;
use super::job::JobView;
use super::options::{AgentOptions, Options};
use super::wait::{PATIENCE, wait_for, wait_until};

/// The commands that are linked into the cluster's folder.
const COMMANDS: [&str; 15] = [
    "penstock", "sbatch", "squeue", "scancel", "scontrol", "sacct", "sinfo", "srun", "salloc",
    "sattach", "sbcast", "sstat", "seff", "scrontab", "sprio",
];

/// What all tests want of the policy, unless they say otherwise.
const SHORT_TIMES: [(&str, u32); 5] = [
    ("heartbeat_secs", 1),
    ("node_timeout_secs", 60),
    ("kill_wait_secs", 1),
    ("unkillable_secs", 5),
    ("requeue_delay_secs", 0),
];

/// Ports are taken from below those that the kernel gives to callers.
const FIRST_PORT: u16 = 18_000;
const PORTS: u16 = 14_000;

/// How often another port is tried, where somebody was quicker.
const PORT_TRIES: u32 = 5;

/// A controller, its agents, and their folder. Everything ends when it is dropped.
pub(crate) struct Cluster {
    folder: tempfile::TempDir,
    options: Options,
    port: u16,
    /// `None` while it is down.
    pub(crate) controller: Option<Daemon>,
    /// In the order of the options; `None` while one is down.
    pub(crate) agents: Vec<Option<Daemon>>,
}

impl Cluster {
    /// Writes the files, starts the controller and the agents, and waits until all nodes are ready.
    pub(crate) fn start(options: Options) -> Self {
        let mut cluster = Self::prepare(options);
        cluster.start_controller();
        cluster.start_agents();
        cluster
    }

    /// The folder with its files, and nothing started.
    pub(crate) fn prepare(options: Options) -> Self {
        let folder = tempfile::Builder::new().prefix("pst-").tempdir().expect("a folder");
        let dir = folder.path();
        let own = |path: &Path, mode| {
            fs::set_permissions(path, Permissions::from_mode(mode)).expect("our own folder");
            if let Some(uid) = options.uid {
                chown(path, Some(uid), Some(uid)).expect("root gives away");
            }
        };
        own(dir, 0o755);
        for (name, mode) in [("bin", 0o755), ("work", 0o1777), ("private", 0o700)] {
            fs::create_dir(dir.join(name)).expect("new");
            own(&dir.join(name), mode);
        }
        for name in COMMANDS {
            symlink(env!("CARGO_BIN_EXE_penstock"), dir.join("bin").join(name)).expect("new");
        }
        for agent in &options.agents {
            fs::create_dir(dir.join(&agent.name)).expect("agents have different names");
            own(&dir.join(&agent.name), 0o755);
        }
        let agents = options.agents.iter().map(|_| None).collect();
        Self { folder, options, port: 0, controller: None, agents }
    }

    /// Its folder.
    pub(crate) fn dir(&self) -> &Path {
        self.folder.path()
    }

    /// Where its commands and jobs run; everybody may write there.
    pub(crate) fn work(&self) -> PathBuf {
        self.dir().join("work")
    }

    /// The controller's socket.
    pub(crate) fn socket(&self) -> PathBuf {
        self.dir().join("c.sock")
    }

    /// The socket of an agent.
    pub(crate) fn gate(&self, name: &str) -> PathBuf {
        self.dir().join(name).join("a.sock")
    }

    /// Where the controller listens for agents.
    pub(crate) fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The controller's state folder.
    pub(crate) fn state(&self) -> PathBuf {
        self.dir().join("state")
    }

    fn config(&self) -> PathBuf {
        self.dir().join("cluster.toml")
    }

    fn controller_log(&self) -> PathBuf {
        self.dir().join("controller.log")
    }

    /// Writes the cluster's file.
    fn write_config(&self) {
        let quoted = |path: PathBuf| format!("{:?}", path.display().to_string());
        let mut policy = self.options.policy.clone();
        for (key, secs) in SHORT_TIMES {
            if !policy.contains(key) {
                policy.push_str(&format!("{key} = {secs}\n"));
            }
        }
        let sections = &self.options.sections;
        let partition = if sections.contains("[[partition]]") {
            ""
        } else {
            "[[partition]]\nname = \"main\"\ndefault = true\nnodes = \"ALL\"\n"
        };
        let text = format!(
            "[cluster]\nname = \"test\"\nresolve_nodes = {}\n[controller]\nlisten = {:?}\n\
             socket = {}\nstate_dir = {}\n[policy]\n{policy}{partition}{sections}",
            self.options.resolve_nodes,
            self.address(),
            quoted(self.socket()),
            quoted(self.state()),
        );
        fs::write(self.config(), text).expect("written");
    }

    /// Starts the controller, on a port that is free the first time, and waits until it answers.
    pub(crate) fn start_controller(&mut self) {
        for _ in 0..PORT_TRIES {
            if self.port == 0 {
                self.port = free_port();
                self.write_config();
            }
            let mut daemon = self.spawn_controller();
            let answers = wait_for("the controller answers or ends", PATIENCE, || {
                if self.socket().exists() && self.penstock("scontrol ping").run().code == 0 {
                    return Some(true);
                }
                (!daemon.lives()).then_some(false)
            });
            if answers {
                self.controller = Some(daemon);
                return;
            }
            let log = daemon.log();
            assert!(log.contains("can't listen on 127"), "the controller ended:\n{log}");
            self.port = 0;
        }
        panic!("no port for the controller in {PORT_TRIES} tries");
    }

    /// Starts the controller and does not wait.
    pub(crate) fn spawn_controller(&self) -> Daemon {
        let program = self.bin("penstock");
        let log = self.controller_log();
        let clock = self.options.clock.as_deref();
        Daemon::start(&program, "controller", &self.config(), &log, self.options.uid, clock)
    }

    /// The path of a command.
    pub(crate) fn bin(&self, name: &str) -> PathBuf {
        self.dir().join("bin").join(name)
    }

    /// Starts all agents and waits until their nodes are ready.
    pub(crate) fn start_agents(&mut self) {
        for place in 0..self.options.agents.len() {
            let agent = self.options.agents[place].clone();
            let token = self.token(agent.role);
            self.write_agent(&agent, &token);
            let program = self.bin("penstock");
            self.agents[place] = Some(self.spawn_agent(&program, &agent.name));
        }
        for agent in self.options.agents.clone() {
            self.await_agent(&agent);
        }
    }

    /// Makes a join token.
    pub(crate) fn token(&self, role: &str) -> String {
        let words = format!("token create --role {role} --valid 10m");
        self.penstock(&words).ok().trim().to_owned()
    }

    /// Writes the file of an agent.
    pub(crate) fn write_agent(&self, agent: &AgentOptions, token: &str) {
        let name = &agent.name;
        let dir = self.dir().join(name);
        if !dir.exists() {
            fs::create_dir(&dir).expect("new");
        }
        let number = self.options.agents.iter().position(|other| other.name == *name);
        let mut text = format!(
            "[agent]\ncontroller = {:?}\nname = {name:?}\naddress = \"127.0.0.{}\"\n\
             token = {token:?}\nstate_dir = \"state\"\nrun_dir = \"run\"\nsocket = \"a.sock\"\n\
             commands_dir = \"../bin\"\ncpus = {}\nmemory = {:?}\n{}",
            self.address(),
            number.unwrap_or(90) + 2,
            agent.cpus,
            agent.memory,
            agent.lines,
        );
        if !agent.lines.contains("pin_cpus") {
            text.push_str("pin_cpus = false\n");
        }
        fs::write(dir.join("agent.toml"), text).expect("written");
    }

    /// Starts the agent `name`, whose file is written, and does not wait.
    pub(crate) fn spawn_agent(&self, program: &Path, name: &str) -> Daemon {
        let dir = self.dir().join(name);
        let (config, log) = (dir.join("agent.toml"), dir.join("log"));
        Daemon::start(program, "agent", &config, &log, self.options.uid, None)
    }

    fn await_agent(&mut self, agent: &AgentOptions) {
        let name = &agent.name;
        if agent.role == "compute" {
            self.await_node(name, &["IDLE", "MIXED", "ALLOCATED"]);
        } else {
            let what = format!("the gate of {name} answers");
            wait_until(what, PATIENCE, || self.via(name, "scontrol").arg("ping").run().code == 0);
        }
    }

    /// Starts the agent at `place` again, from another program if one is given, and waits until its
    /// node is ready.
    pub(crate) fn restart_agent(&mut self, place: usize, program: Option<&Path>) {
        let agent = self.options.agents[place].clone();
        let own = self.bin("penstock");
        let registrations = self.registrations(&agent.name);
        self.agents[place] = Some(self.spawn_agent(program.unwrap_or(&own), &agent.name));
        let what = format!("{} registers again", agent.name);
        wait_until(what, PATIENCE, || self.registrations(&agent.name) > registrations);
    }

    /// How often a node registered, as the controller's log says.
    pub(crate) fn registrations(&self, name: &str) -> usize {
        let log = fs::read_to_string(self.controller_log()).unwrap_or_default();
        let of_node = |line: &&str| {
            line.contains("node registered")
                && (line.contains(&format!("node={name} "))
                    || line.contains(&format!("node=\"{name}\"")))
        };
        log.lines().filter(of_node).count()
    }

    /// What an agent said.
    pub(crate) fn agent_log(&self, name: &str) -> String {
        fs::read_to_string(self.dir().join(name).join("log")).unwrap_or_default()
    }

    /// The agent at `place`, which must be up.
    pub(crate) fn agent(&mut self, place: usize) -> &mut Daemon {
        self.agents[place].as_mut().expect("the agent is up")
    }

    /// Sends SIGKILL to the agent at `place`.
    pub(crate) fn kill_agent(&mut self, place: usize) {
        self.agents[place].take().expect("the agent is up").kill();
    }

    /// Sends SIGKILL to the controller.
    pub(crate) fn kill_controller(&mut self) {
        self.controller.take().expect("the controller is up").kill();
    }

    /// A command of Slurm's on the controller's host.
    pub(crate) fn cmd(&self, name: &str) -> Cmd {
        Cmd::new(&self.bin(name)).env("PENSTOCK_CONFIG", self.config()).dir(&self.work())
    }

    /// Makes commands for other threads, while this cluster's daemons come and go.
    pub(crate) fn detached(&self, name: &str) -> impl Fn() -> Cmd + Send + Sync + use<> {
        let (program, config, work) = (self.bin(name), self.config(), self.work());
        move || Cmd::new(&program).env("PENSTOCK_CONFIG", &config).dir(&work)
    }

    /// A command of Slurm's through the gate of an agent.
    pub(crate) fn via(&self, agent: &str, name: &str) -> Cmd {
        Cmd::new(&self.bin(name)).env("PENSTOCK_SOCKET", self.gate(agent)).dir(&self.work())
    }

    /// A command of ours: `penstock WORDS`.
    pub(crate) fn penstock(&self, words: &str) -> Cmd {
        self.cmd("penstock").words(words)
    }

    /// `sbatch --parsable WORDS --wrap SCRIPT`.
    pub(crate) fn wrap(&self, words: &str, script: &str) -> Cmd {
        self.cmd("sbatch").words("--parsable").words(words).arg("--wrap").arg(script)
    }

    /// `squeue -h WORDS`.
    #[track_caller]
    pub(crate) fn squeue(&self, words: &str) -> String {
        self.cmd("squeue").arg("-h").words(words).ok()
    }

    /// `scontrol WORDS`, which must succeed.
    #[track_caller]
    pub(crate) fn scontrol(&self, words: &str) -> String {
        self.cmd("scontrol").words(words).ok()
    }

    /// `sacct -nPX WORDS`.
    #[track_caller]
    pub(crate) fn sacct(&self, words: &str) -> String {
        self.cmd("sacct").words("-n -P -a").words(words).ok()
    }

    /// What `scontrol show job` says of a job; of an array, what it says of one part of it.
    #[track_caller]
    pub(crate) fn job(&self, id: u32) -> JobView {
        self.parts(id).swap_remove(0)
    }

    /// What `scontrol show job` says of a job, or of all parts of an array.
    #[track_caller]
    fn parts(&self, id: u32) -> Vec<JobView> {
        let shown = self.scontrol(&format!("show job {id} -o"));
        let lines = shown.lines().filter(|line| !line.trim().is_empty());
        let parts: Vec<JobView> = lines.map(JobView::parse).collect();
        assert!(!parts.is_empty(), "job {id} is shown as {shown:?}");
        parts
    }

    /// Waits until a job, or all of an array, has ended.
    #[track_caller]
    pub(crate) fn await_end(&self, id: u32) -> JobView {
        self.await_end_within(id, PATIENCE)
    }

    /// Waits until a job has ended, so long.
    #[track_caller]
    pub(crate) fn await_end_within(&self, id: u32, patience: Duration) -> JobView {
        wait_for(format!("job {id} ends"), patience, || {
            let mut parts = self.parts(id);
            parts.iter().all(JobView::is_over).then(|| parts.swap_remove(0))
        })
    }

    /// Waits until a job is in a state.
    #[track_caller]
    pub(crate) fn await_state(&self, id: u32, state: &str) -> JobView {
        wait_for(format!("job {id} is {state}"), PATIENCE, || {
            let job = self.job(id);
            (job.state() == state).then_some(job)
        })
    }

    /// Waits until a job that another command submits is in a state.
    #[track_caller]
    pub(crate) fn await_state_soon(&self, id: u32, state: &str) {
        let words = format!("-t all -j {id} -o %T");
        wait_until(format!("job {id} is there and {state}"), PATIENCE, || {
            let ran = self.cmd("squeue").arg("-h").words(&words).run();
            ran.code == 0 && ran.out.trim() == state
        });
    }

    /// Waits until a pending job has a reason.
    #[track_caller]
    pub(crate) fn await_reason(&self, id: u32, reason: &str) -> JobView {
        wait_for(format!("job {id} waits for {reason}"), PATIENCE, || {
            let job = self.job(id);
            (job.state() == "PENDING" && job.get("Reason").starts_with(reason)).then_some(job)
        })
    }

    /// The state of a node, as `scontrol show node` prints it.
    pub(crate) fn node_state(&self, name: &str) -> String {
        let ran = self.cmd("scontrol").words("show node -o").arg(name).run();
        if ran.code != 0 { String::new() } else { JobView::parse(&ran.out).get("State").to_owned() }
    }

    /// Waits until a node is in one of these states.
    #[track_caller]
    pub(crate) fn await_node(&self, name: &str, states: &[&str]) {
        wait_until(format!("node {name} is one of {states:?}"), PATIENCE, || {
            states.contains(&self.node_state(name).as_str())
        });
    }

    /// A file in the work folder; empty where it is not there.
    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.work().join(name)).unwrap_or_default()
    }

    /// Waits until a file in the work folder contains a text.
    #[track_caller]
    pub(crate) fn await_text(&self, name: &str, text: &str) {
        wait_until(format!("{text:?} is in {name}"), PATIENCE, || self.read(name).contains(text));
    }

    /// Writes a script into the work folder; returns its path.
    pub(crate) fn script(&self, name: &str, text: &str) -> PathBuf {
        let path = self.work().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("ours");
        path
    }

    /// Whether the controller takes a submission now.
    pub(crate) fn serves(&self) -> Ran {
        self.cmd("sbatch").words("--parsable -H --wrap true").run()
    }

    /// The processes that belong to this cluster, daemons included.
    pub(crate) fn processes(&self) -> Vec<u32> {
        cleanup::processes_of(self.dir())
    }

    /// The shepherds of its jobs: each works in the folder of its attempt.
    pub(crate) fn shepherds(&self) -> Vec<u32> {
        let is_shepherd = |pid: &u32| {
            fs::read(format!("/proc/{pid}/cmdline"))
                .is_ok_and(|line| line.split(|byte| *byte == 0).any(|word| word == b"shepherd"))
        };
        self.processes().into_iter().filter(is_shepherd).collect()
    }

    /// Waits until controller and agents are the only processes.
    #[track_caller]
    pub(crate) fn await_quiet(&self) {
        let daemons = 1 + self.agents.len();
        wait_until("nothing is left of the jobs", PATIENCE, || self.processes().len() == daemons);
    }
}

/// A port that nobody listens on; each call of this process gives another.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = u16::try_from(std::process::id() % u32::from(PORTS)).expect("below PORTS");
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST_PORT + own.wrapping_mul(7).wrapping_add(step) % PORTS;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for (name, words) in [("squeue", "-t all -o %i|%j|%T|%R"), ("sinfo", "-N -l")] {
                println!("{}", self.cmd(name).words(words).run());
            }
            let logs = self.options.agents.iter().map(|agent| self.agent_log(&agent.name));
            let controller = fs::read_to_string(self.controller_log()).unwrap_or_default();
            for log in logs.chain([controller]) {
                let lines: Vec<&str> = log.lines().collect();
                println!("---\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
            }
        }
        for daemon in self.agents.iter_mut().chain([&mut self.controller]) {
            if let Some(mut daemon) = daemon.take() {
                daemon.kill();
            }
        }
        let folders = fs::read_dir(self.dir()).into_iter().flatten().flatten();
        let agents: Vec<(String, PathBuf)> = folders
            .filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path())))
            .map(|(name, path)| (name, path.join("state")))
            .collect();
        cleanup::clean(self.dir(), &agents);
    }
}
