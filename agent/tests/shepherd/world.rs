//! A spool in a folder of its own, whose shepherds are this test binary.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::unistd::{Gid, Uid, User};
use penstock_agent::gpu::Devices;
use penstock_agent::inventory::{Claims, take};
use penstock_agent::launch::cgroup::{Hierarchies, detect};
use penstock_agent::launch::{Event, Opened, ShepherdCommand, Spool, SpoolConfig};
use penstock_proto::v1;
use penstock_supervisor::{AttemptKey, Found, HostEvent, RunResult};
use penstock_vocab::{Attempt, JobId};
use tempfile::TempDir;
use tokio::sync::mpsc::Receiver;

/// Longest wait for anything that must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// One agent's spool and the folder it works in.
pub(crate) struct World {
    dir: TempDir,
    config: SpoolConfig,
    spool: Option<Spool>,
    events: Option<Receiver<Event>>,
    pub(crate) found: Vec<Found>,
    pub(crate) leases: bool,
    pub(crate) notices: Vec<String>,
    pub(crate) usage: Vec<v1::PartUsage>,
    pub(crate) relayed: Vec<v1::RelayFrame>,
}

impl World {
    /// With cgroups where this machine has them.
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let detected = detect(&format!("test-{}-{count}", std::process::id()));
        Self::with(detected.hierarchies)
    }

    /// Without cgroups, as on a machine where none can be written.
    pub(crate) fn without_cgroups() -> Self {
        Self::with(Hierarchies::default())
    }

    fn with(hierarchies: Hierarchies) -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let stock = take(&Claims::default()).unwrap();
        let config = SpoolConfig {
            state_dir: dir.path().join("state"),
            run_dir: dir.path().join("run"),
            // The running file itself, also if it was built anew meanwhile.
            shepherd: ShepherdCommand::new(
                PathBuf::from("/proc/self/exe"),
                vec![crate::SHEPHERD.to_owned()],
            ),
            node: "n1".to_owned(),
            socket: dir.path().join("agent.sock"),
            commands_dir: None,
            cpus: stock.cpus,
            max_processes: None,
            hierarchies,
            boot_id: stock.inventory.boot_id,
            devices: Devices::default(),
        };
        let mut world = Self {
            dir,
            config,
            spool: None,
            events: None,
            found: Vec::new(),
            leases: false,
            notices: Vec::new(),
            usage: Vec::new(),
            relayed: Vec::new(),
        };
        world.restart();
        world
    }

    /// Ends the agent's part, if it runs, and opens the spool anew.
    pub(crate) fn restart(&mut self) {
        self.stop();
        let Opened { spool, found, leases, events } = Spool::open(self.config.clone()).unwrap();
        (self.spool, self.events, self.found) = (Some(spool), Some(events), found);
        self.leases = leases;
    }

    /// Ends the agent's part; shepherds go on.
    pub(crate) fn stop(&mut self) {
        (self.spool, self.events) = (None, None);
    }

    pub(crate) fn config(&mut self) -> &mut SpoolConfig {
        &mut self.config
    }

    pub(crate) fn spool(&self) -> &Spool {
        self.spool.as_ref().unwrap()
    }

    /// The folder that jobs work in; everybody may write there.
    pub(crate) fn work_dir(&self) -> PathBuf {
        let dir = self.dir.path().join("work");
        if !dir.exists() {
            fs::create_dir(&dir).unwrap();
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
        }
        dir
    }

    pub(crate) fn attempt_dir(&self, key: AttemptKey) -> PathBuf {
        self.config.state_dir.join("spool").join(key.to_string())
    }

    pub(crate) fn has_groups(&self, what: &str) -> bool {
        let usable = self.config.hierarchies.is_usable();
        if !usable {
            eprintln!("skipped: no cgroup can be written, {what}");
        }
        usable
    }

    /// Starts `job` as job `id`.
    pub(crate) fn start(&self, id: u32, job: Job) -> AttemptKey {
        let launch = job.launch(id, &self.work_dir());
        self.spool().start(launch).unwrap();
        AttemptKey::new(JobId(id), Attempt(0))
    }

    /// The next event that is no notice.
    pub(crate) fn next(&mut self) -> HostEvent {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            match self.events.as_mut().unwrap().try_recv() {
                Ok(Event::Host(event)) => return event,
                Ok(Event::Notice(text)) => self.notices.push(text),
                Ok(Event::Usage(part)) => self.usage.push(*part),
                Ok(Event::Relay(frame)) => self.relayed.push(*frame),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        panic!("nothing happened");
    }

    /// What a part used, as soon as `met` says that it is what is waited for.
    pub(crate) fn used(&mut self, met: impl Fn(&v1::PartUsage) -> bool) -> v1::PartUsage {
        let started = Instant::now();
        while started.elapsed() < PATIENCE {
            if let Some(part) = self.usage.iter().find(|part| met(part)) {
                return part.clone();
            }
            match self.events.as_mut().unwrap().try_recv() {
                Ok(Event::Usage(part)) => self.usage.push(*part),
                Ok(Event::Notice(text)) => self.notices.push(text),
                Ok(event @ (Event::Host(_) | Event::Relay(_))) => panic!("unexpected: {event:?}"),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
        panic!("it was not told: {:?}", self.usage);
    }

    /// Waits until the job runs.
    pub(crate) fn started(&mut self, key: AttemptKey) {
        assert_eq!(self.next(), HostEvent::Started(key));
    }

    /// Waits for the end of an attempt, with or without its start before it.
    pub(crate) fn end(&mut self, key: AttemptKey) -> RunResult {
        loop {
            match self.next() {
                HostEvent::Started(started) => assert_eq!(started, key),
                HostEvent::Ended(ended, result) => {
                    assert_eq!(ended, key);
                    return result;
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
    }

    /// Waits for a failure to start.
    pub(crate) fn failure(&mut self, key: AttemptKey) -> (String, bool) {
        match self.next() {
            HostEvent::StartFailed { key: failed, error, node_fault } => {
                assert_eq!(failed, key);
                (error, node_fault)
            }
            other => panic!("unexpected: {other:?}"),
        }
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.work_dir().join(name)).unwrap_or_default()
    }

    /// Whether every process of a suspended job, which wrote its `pid`, stands still: by what the
    /// freezer says of its group, or, where it has none, by the state of its shell. One that was stopped
    /// while it waited for its child to run a program is not seen to be until that goes on.
    pub(crate) fn stands(&self, key: AttemptKey) -> bool {
        let says = |parent: &str, file: &str, text: &str| {
            let path = Path::new(parent).join(format!("job_{key}/batch")).join(file);
            fs::read_to_string(path).is_ok_and(|said| said.lines().any(|line| line == text))
        };
        let Hierarchies { unified, freezer, .. } = &self.config.hierarchies;
        if !unified.is_empty() {
            says(unified, "cgroup.events", "frozen 1")
        } else if !freezer.is_empty() {
            says(freezer, "freezer.state", "FROZEN")
        } else {
            let stat = fs::read_to_string(format!("/proc/{}/stat", self.read("pid").trim()));
            stat.is_ok_and(|stat| stat.contains(") T ") || stat.contains(") D "))
        }
    }

    /// Waits until a file in the work folder holds `text`.
    pub(crate) fn wait_for(&self, name: &str, text: &str) {
        wait_until(&format!("{text:?} in {name}"), || self.read(name).contains(text));
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.stop();
        self.config.hierarchies.remove();
    }
}

/// Waits until `condition` holds.
pub(crate) fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < PATIENCE, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process runs; one that is dead and not yet waited for does not.
pub(crate) fn is_alive(pid: &str) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
    stat.is_ok_and(|stat| !stat.contains(") Z ") && !stat.contains(") X "))
}

/// A job to be started.
pub(crate) struct Job {
    pub(crate) script: String,
    pub(crate) spec: v1::JobSpec,
    pub(crate) owner: (u32, u32),
    pub(crate) memory_mib: u64,
    pub(crate) launch: v1::Launch,
    pub(crate) array: Option<(u32, u32)>,
    pub(crate) gres: Vec<v1::GresShare>,
}

/// A job of this process's user with a shell script.
pub(crate) fn job(script: &str) -> Job {
    let user = User::from_uid(Uid::effective()).unwrap();
    let spec = v1::JobSpec {
        name: "probe".to_owned(),
        user_name: user.map(|user| user.name).unwrap_or_default(),
        umask: 0o022,
        ..v1::JobSpec::default()
    };
    Job {
        script: format!("#!/bin/sh\n{script}\n"),
        spec,
        owner: (Uid::effective().as_raw(), Gid::effective().as_raw()),
        memory_mib: 0,
        launch: v1::Launch { kill_wait_secs: 30, ..v1::Launch::default() },
        array: None,
        gres: Vec::new(),
    }
}

impl Job {
    pub(crate) fn stdout(mut self, name: &str) -> Self {
        self.spec.stdout = name.to_owned();
        self
    }

    /// Makes it a job of `nobody`; `None` where that takes more rights than this process has.
    pub(crate) fn of_nobody(mut self) -> Option<Self> {
        let nobody = User::from_name("nobody").ok().flatten();
        let Some(user) = nobody.filter(|_| Uid::effective().is_root()) else {
            eprintln!("skipped: another user needs root");
            return None;
        };
        self.owner = (user.uid.as_raw(), user.gid.as_raw());
        self.spec.user_name = user.name;
        Some(self)
    }

    fn launch(self, id: u32, work_dir: &Path) -> v1::Launch {
        let mut spec = self.spec;
        if spec.work_dir.is_empty() {
            spec.work_dir = work_dir.display().to_string();
        }
        let share = v1::NodeShare {
            node: "n1".to_owned(),
            cpu_ranges: vec![0, 0],
            memory_mib: self.memory_mib,
            tasks: 1,
            gres: self.gres,
            ..v1::NodeShare::default()
        };
        let run = v1::Run { shares: vec![share], ..v1::Run::default() };
        let (array_job_id, task) = self.array.unzip();
        let job = v1::Job {
            id,
            uid: self.owner.0,
            gid: self.owner.1,
            spec: Some(spec),
            run: Some(run),
            array_job_id: array_job_id.unwrap_or(0),
            array_task_id: task,
            ..v1::Job::default()
        };
        v1::Launch {
            job_id: id,
            job: Some(job),
            script: self.script.into_bytes().into(),
            ..self.launch
        }
    }
}
