//! How does a folder become a running cluster, whatever of it lives already?

use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use penstock_vocab::compress;

use super::commands;
use super::failure::Failure;
use super::files::{self, AgentFile, Endpoints};
use super::gpus::{self, FakeGpus};
use super::interrupt::{Interrupt, Woke};
use super::layout::Layout;
use super::options::Claims;
use super::process::{self, Held, Identity};
use super::registry::{CONTROLLER, Registry};
use super::remote::Remote;
use super::talk::Talk;

/// Longest time until a controller answers: it may have a store to read.
const CONTROLLER_PATIENCE: Duration = Duration::from_secs(60);

/// Longest time until agents are registered, and what each of them adds to it.
const AGENTS_PATIENCE: Duration = Duration::from_secs(30);
const EACH_AGENT_PATIENCE: Duration = Duration::from_millis(250);

/// Between two looks at whether a daemon is ready.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Ports that are tried when others take them away between our look and the controller's bind.
const PORT_TRIES: u32 = 3;

/// A cluster that runs.
pub(super) struct Cluster {
    pub(super) remote: Remote,
    /// Where commands find the controller.
    pub(super) socket: PathBuf,
}

/// What is needed to bring a cluster up.
pub(super) struct Starter<'a> {
    pub(super) layout: &'a Layout,
    pub(super) registry: &'a mut Registry,
    pub(super) interrupt: &'a Interrupt,
    pub(super) talk: Talk,
}

/// A daemon that was just started: who it is, and where its log was before.
struct Started {
    name: String,
    identity: Identity,
    log_from: u64,
}

impl Starter<'_> {
    /// Starts what is missing of the controller and of node1 to node`nodes`, and waits until all of
    /// them are ready. Claims that are not given stay as they are.
    pub(super) fn ensure(
        &mut self,
        nodes: u32,
        claims: Claims,
        gpus: Option<&FakeGpus>,
    ) -> Result<Cluster, Failure> {
        commands::link_all(self.layout)?;
        files::write_hello(self.layout)?;
        let (endpoints, remote) = self.ensure_controller()?;
        let names: Vec<String> = (1..=nodes).map(|number| format!("node{number}")).collect();
        self.drop_stranded(&names, &endpoints)?;
        let started = self.start_agents(&names, (claims, gpus), &endpoints, &remote)?;
        self.await_nodes(&names, &started, &remote)?;
        let kept = names.len() - started.len();
        if kept > 0 {
            let found = names.iter().filter(|name| started.iter().all(|s| s.name != **name));
            let list = compress(found.map(String::as_str));
            self.talk.say(&format!("{kept} agent(s) found running: {list}"));
        }
        Ok(Cluster { remote, socket: endpoints.socket })
    }

    fn ensure_controller(&mut self) -> Result<(Endpoints, Remote), Failure> {
        if let Some(identity) = self.registry.living(CONTROLLER) {
            let pid = identity.pid;
            if let Some(endpoints) = files::read_endpoints(self.layout)? {
                let remote = Remote::at(&endpoints.socket)?;
                let found = Started {
                    name: CONTROLLER.to_owned(),
                    identity: identity.clone(),
                    log_from: process::log_end(&self.layout.log(CONTROLLER)),
                };
                self.await_controller(&found, &remote)?;
                self.talk.say(&format!("controller found running, pid {pid}"));
                return Ok((endpoints, remote));
            }
        }
        self.layout.make_daemon_dir(CONTROLLER)?;
        let mut tries = 1;
        loop {
            let endpoints = files::settle_endpoints(self.layout)?;
            let remote = Remote::at(&endpoints.socket)?;
            let file = self.layout.cluster_file();
            let started = self.start(CONTROLLER, "controller", &file.to_string_lossy())?;
            match self.await_controller(&started, &remote) {
                Ok(()) => {
                    let (pid, port) = (started.identity.pid, endpoints.port);
                    self.talk.say(&format!("controller started, pid {pid}, 127.0.0.1:{port}"));
                    return Ok((endpoints, remote));
                }
                // Where somebody was quicker, settling finds the port taken and chooses another.
                Err(Failure::Daemon { .. })
                    if tries < PORT_TRIES
                        && !started.identity.lives()
                        && files::settle_endpoints(self.layout)? != endpoints =>
                {
                    tries += 1;
                }
                Err(failure) => return Err(failure),
            }
        }
    }

    fn await_controller(&self, started: &Started, remote: &Remote) -> Result<(), Failure> {
        let deadline = Instant::now() + CONTROLLER_PATIENCE;
        loop {
            self.look(std::slice::from_ref(started))?;
            if remote.answers() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(self.failed(started, "does not answer"));
            }
        }
    }

    /// Ends agents that dial a port at which the controller no longer is; their jobs go on, and the
    /// agents that take their place find them.
    fn drop_stranded(&mut self, names: &[String], endpoints: &Endpoints) -> Result<(), Failure> {
        let stranded = names.iter().filter_map(|name| {
            let (_, port) = files::read_agent(self.layout, name);
            let identity = self.registry.living(name)?;
            if port == Some(endpoints.port) { None } else { identity.hold(name) }
        });
        let stranded: Vec<Held> = stranded.collect();
        if stranded.is_empty() { Ok(()) } else { process::end(stranded, self.interrupt) }
    }

    fn start_agents(
        &mut self,
        names: &[String],
        (claims, gpus): (Claims, Option<&FakeGpus>),
        endpoints: &Endpoints,
        remote: &Remote,
    ) -> Result<Vec<Started>, Failure> {
        let missing = |name: &&String| self.registry.living(name).is_none();
        let missing: Vec<&String> = names.iter().filter(missing).collect();
        let Ok(uses @ 1..) = u32::try_from(missing.len()) else { return Ok(Vec::new()) };
        let token = remote.create_token(uses)?;
        let all: Vec<Claims> = names.iter().map(|name| self.claims_of(name, claims)).collect();
        let pin_cpus = self.say_shared(&all);
        let mut started = Vec::with_capacity(missing.len());
        for (number, (name, claims)) in (1..).zip(names.iter().zip(&all)) {
            if !missing.contains(&name) {
                continue;
            }
            self.layout.make_daemon_dir(name)?;
            files::replace(&self.layout.token(name), format!("{token}\n").as_bytes(), 0o600)?;
            if let Some(gpus) = gpus {
                gpus.install(self.layout, name, claims.cpus.unwrap_or_else(machine_cpus))?;
            }
            let library = gpus::library(self.layout, name);
            let gpus = library.as_deref();
            let agent = AgentFile { name, number, claims: *claims, pin_cpus, gpus };
            files::write_agent(self.layout, &agent, endpoints)?;
            let file = self.layout.agent_file(name);
            started.push(self.start(name, "agent", &file.to_string_lossy())?);
        }
        Ok(started)
    }

    /// What is asked for now, else what the agent's file says.
    fn claims_of(&self, name: &str, given: Claims) -> Claims {
        let (before, _) = files::read_agent(self.layout, name);
        Claims { cpus: given.cpus.or(before.cpus), memory: given.memory.or(before.memory) }
    }

    /// Whether CPUs can be pinned: only where this is the only agent and claims what there is. Says
    /// so where not: agents on one machine do not know of each other.
    fn say_shared(&self, claims: &[Claims]) -> bool {
        let machine = machine_cpus();
        let total: u64 = claims.iter().map(|one| u64::from(one.cpus.unwrap_or(machine))).sum();
        if claims.len() == 1 && total <= u64::from(machine) {
            return true;
        }
        let nodes = if claims.len() == 1 { "node1 claims" } else { "the nodes claim" };
        self.talk.say(&format!(
            "{nodes} {total} CPUs, the machine has {machine}: CPUs are counted and not pinned"
        ));
        false
    }

    fn await_nodes(
        &self,
        names: &[String],
        started: &[Started],
        remote: &Remote,
    ) -> Result<(), Failure> {
        let agents = u32::try_from(names.len()).unwrap_or(u32::MAX);
        let patience = AGENTS_PATIENCE + EACH_AGENT_PATIENCE.saturating_mul(agents);
        let deadline = Instant::now() + patience;
        let mut told = vec![false; names.len()];
        loop {
            let ready = remote.ready_nodes()?;
            for (name, told) in names.iter().zip(&mut told) {
                if !*told && ready.contains(name) {
                    *told = true;
                    if let Some(agent) = started.iter().find(|started| started.name == *name) {
                        self.talk.say(&format!("{name} started, pid {}", agent.identity.pid));
                    }
                }
            }
            let Some(late) = told.iter().position(|told| !told) else { return Ok(()) };
            if Instant::now() > deadline {
                let late = &names[late];
                let from = started.iter().find(|started| started.name == *late);
                let from = from.map_or(0, |started| started.log_from);
                return Err(self.daemon_failure(late, "did not register", from));
            }
            self.look(started)?;
        }
    }

    fn start(&mut self, name: &str, what: &str, file: &str) -> Result<Started, Failure> {
        let log = self.layout.log(name);
        let log_from = process::log_end(&log);
        let exe = self.layout.penstock();
        let identity = process::spawn(&exe, &[what, "--config", file], &log)?;
        self.registry.put(name, identity.clone())?;
        Ok(Started { name: name.to_owned(), identity, log_from })
    }

    /// Waits a moment, which ends early where one of the daemons does.
    ///
    /// # Errors
    /// When one of them has ended, or a signal came.
    fn look(&self, daemons: &[Started]) -> Result<(), Failure> {
        let mut held = Vec::with_capacity(daemons.len());
        for daemon in daemons {
            let Some(one) = daemon.identity.hold(&daemon.name) else {
                return Err(self.failed(daemon, "ended at once"));
            };
            held.push(one);
        }
        let fds: Vec<BorrowedFd<'_>> = held.iter().map(Held::fd).collect();
        match self.interrupt.wait(&fds, Some(LOOK_EVERY))? {
            Woke::Signal => Err(Failure::Interrupted),
            Woke::Descriptor(place) => Err(self.failed(&daemons[place], "ended at once")),
            Woke::Timeout => Ok(()),
        }
    }

    fn failed(&self, daemon: &Started, what: &str) -> Failure {
        self.daemon_failure(&daemon.name, what, daemon.log_from)
    }

    fn daemon_failure(&self, name: &str, what: &str, log_from: u64) -> Failure {
        let log = self.layout.log(name);
        let tail = process::log_tail(&log, log_from);
        Failure::Daemon { name: name.to_owned(), what: what.to_owned(), log, tail }
    }
}

/// CPUs that this process may use.
fn machine_cpus() -> u32 {
    let found = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    u32::try_from(found).unwrap_or(u32::MAX)
}
