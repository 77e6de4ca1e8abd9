//! Who asks the probe, and what becomes of the answers?
//!
//! One task: it keeps a probe running, samples, carries out orders to cut, and hands on what is new.
//! A question that is not answered in time costs the probe its life; the next one is started after
//! a wait that doubles with each failure.

mod cutting;
mod kernel;
mod picture;
mod watch;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use penstock_proto::v1;
use penstock_vocab::GresRequest;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::client::{Probe, ProbeCommand};
use super::devices::Devices;
use super::files;
use super::layout::Layouts;
use super::settings::{Accelerator, GpuSettings};
use super::wire::{Answer, Described, Look, Nothing, Question, Say, Unusable};
use crate::sys::wall_clock;
use kernel::{KERNEL_LOG, Line, Recent, Teller};
pub(crate) use picture::Picture;
use watch::Watch;

/// Longest wait for an answer; the probe gives up a little earlier on single GPUs.
const ANSWER_TIME: Duration = Duration::from_secs(10);

/// First wait before another probe, doubled with each failure, up to the longest.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A probe that worked for so long was no failure.
const GOOD_TIME: Duration = Duration::from_secs(120);

/// So many ends of probes within [`CRASH_WINDOW`] make the node ask to be drained.
const MAX_CRASHES: usize = 5;
const CRASH_WINDOW: Duration = Duration::from_secs(600);

/// How often a machine without an NVIDIA GPU is looked at for one.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// How often all GPUs are described anew, though nothing seems to have changed.
const DESCRIBE_EVERY: Duration = Duration::from_secs(300);

/// Most events in one report; more wait for the next.
const MAX_EVENTS: usize = 256;

/// What the monitor has to say.
#[derive(Debug)]
pub(crate) enum News {
    /// The node is now this; a registration is due.
    Picture(Picture),
    /// The node is now this, and the controller hears of it otherwise.
    Known(Picture),
    /// What was measured and what happened.
    Report(v1::GpuReport),
    /// How an order to cut went.
    Layout(Box<v1::GpuLayout>),
}

/// Orders to cut, for the monitor.
pub(crate) type Orders = mpsc::Sender<v1::ReshapeGpu>;

/// Everything that a monitor needs.
#[derive(Debug)]
pub(crate) struct Monitor {
    pub(crate) settings: GpuSettings,
    pub(crate) claims: Vec<GresRequest>,
    pub(crate) declared: Vec<Accelerator>,
    pub(crate) command: ProbeCommand,
    pub(crate) devices: Devices,
    pub(crate) state_dir: PathBuf,
    pub(crate) boot_id: String,
    /// The logical number of each real CPU; empty: the same.
    pub(crate) cpus: BTreeMap<u32, u32>,
}

/// The monitor at work.
pub(crate) struct Work {
    monitor: Monitor,
    layouts: Layouts,
    probe: Option<Running>,
    /// When to start the next probe.
    next: Instant,
    failures: u32,
    crashes: Vec<Instant>,
    /// Why GPUs cannot be read; empty: they can, or there is nothing to read.
    unusable: Unusable,
    /// GPUs as they are told.
    gpus: Vec<v1::Gpu>,
    fake: bool,
    /// What was said last.
    told: Option<Picture>,
    notes: std::collections::BTreeSet<String>,
    events: Vec<v1::GpuEvent>,
    /// What was told of lately, and by whom.
    recent: Recent,
    watch: Watch,
    /// What there is to say as soon as somebody listens.
    unsaid: Vec<News>,
    sample_due: Instant,
    describe_due: Instant,
}

/// A probe that was asked something, or is not.
struct Running {
    probe: Probe,
    since: Instant,
    asked: BTreeMap<u64, (Asked, Instant)>,
}

/// What an answer will be about.
#[derive(Debug, Clone)]
enum Asked {
    Describe,
    Sample,
    /// Of the GPU with this UUID.
    Cut(String),
}

/// Looks at the node's GPUs before anything else: within [`ANSWER_TIME`], or without them. What it
/// found, and the monitor that goes on from there.
pub(crate) async fn first_look(monitor: Monitor) -> (Picture, Work) {
    let mut work = Work::new(monitor);
    let deadline = Instant::now() + ANSWER_TIME;
    if work.is_wanted() {
        work.start().await;
        while work.probe.as_ref().is_some_and(|running| !running.asked.is_empty())
            && Instant::now() < deadline
        {
            let Some(running) = work.probe.as_mut() else { break };
            match tokio::time::timeout_at(deadline, running.probe.hear()).await {
                Ok(heard) => {
                    // Layouts that a boot took away are made again before the node is told of.
                    let said = work.heard(heard).await;
                    work.unsaid.extend(said);
                }
                Err(_) => work.lose("it did not answer in time"),
            }
        }
    }
    work.learn();
    let picture = work.picture();
    work.told = Some(picture.clone());
    (picture, work)
}

/// Whether this machine has an NVIDIA GPU or its driver: without, nothing is tried.
fn has_nvidia() -> bool {
    let driver = ["/dev/nvidiactl", "/proc/driver/nvidia/version"];
    if driver.iter().any(|path| Path::new(path).exists()) {
        return true;
    }
    let devices = std::fs::read_dir("/sys/bus/pci/devices").into_iter().flatten().flatten();
    let mut devices = devices.map(|entry| entry.path());
    devices.any(|device| {
        let says = |file: &str, start: &str| {
            std::fs::read_to_string(device.join(file)).is_ok_and(|text| text.starts_with(start))
        };
        // A display or 3D controller of NVIDIA's.
        says("vendor", "0x10de") && says("class", "0x03")
    })
}

/// What the select of the monitor came to.
enum Turn {
    Heard(std::io::Result<Say>),
    Order(v1::ReshapeGpu),
    Kernel(Line),
    Time,
}

impl Work {
    fn new(monitor: Monitor) -> Self {
        let layouts = Layouts::open(&monitor.state_dir, &monitor.boot_id);
        if let Some(broken) = &layouts.broken {
            warn!("{broken}");
        }
        let now = Instant::now();
        Self {
            monitor,
            layouts,
            probe: None,
            next: now,
            failures: 0,
            crashes: Vec::new(),
            unusable: Unusable::default(),
            gpus: Vec::new(),
            fake: false,
            told: None,
            notes: std::collections::BTreeSet::new(),
            events: Vec::new(),
            recent: Recent::default(),
            watch: Watch::default(),
            unsaid: Vec::new(),
            sample_due: now,
            describe_due: now,
        }
    }

    /// Works until `cancel`, or until nobody listens.
    pub(crate) async fn run(
        mut self,
        news: mpsc::Sender<News>,
        mut orders: mpsc::Receiver<v1::ReshapeGpu>,
        cancel: CancellationToken,
    ) {
        let mut kernel = self.kernel_log().map(kernel::follow);
        for word in std::mem::take(&mut self.unsaid) {
            if news.send(word).await.is_err() {
                return;
            }
        }
        loop {
            let due = self.due();
            let turn = tokio::select! {
                () = cancel.cancelled() => return,
                heard = hear(self.probe.as_mut()) => Turn::Heard(heard),
                order = orders.recv() => match order {
                    Some(order) => Turn::Order(order),
                    None => return,
                },
                line = next_line(kernel.as_mut()) => match line {
                    Some(line) => Turn::Kernel(line),
                    None => {
                        kernel = None;
                        continue;
                    }
                },
                () = sleep_until(due) => Turn::Time,
            };
            let mut said = match turn {
                Turn::Heard(heard) => self.heard(heard).await,
                Turn::Order(order) => self.order(order).await,
                Turn::Kernel(line) => match line.event(&self.gpus) {
                    Some(event) => self.event(event, Teller::Kernel),
                    None => Vec::new(),
                },
                Turn::Time => self.time().await,
            };
            self.learn();
            let picture = self.picture();
            if self.told.as_ref() != Some(&picture) {
                self.told = Some(picture.clone());
                said.insert(0, News::Picture(picture));
            }
            for word in said {
                if news.send(word).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Where the kernel's log is, if it tells of GPUs that are looked for here.
    fn kernel_log(&self) -> Option<&Path> {
        let settings = &self.monitor.settings;
        let own = || settings.library.is_none().then_some(Path::new(KERNEL_LOG));
        settings.kernel_log.as_deref().or_else(own).filter(|_| self.is_wanted())
    }

    /// Whether GPUs are to be looked for here.
    fn is_wanted(&self) -> bool {
        let settings = &self.monitor.settings;
        settings.detect && (settings.library.is_some() || has_nvidia())
    }

    /// When something is to be done though nobody says anything.
    fn due(&self) -> Instant {
        match &self.probe {
            None => self.next,
            Some(running) => {
                let asked = running.asked.values().map(|(_, deadline)| *deadline).min();
                let sampling = self.monitor.settings.sample_secs > 0;
                let own = self.describe_due.min(if sampling {
                    self.sample_due
                } else {
                    self.describe_due
                });
                asked.map_or(own, |asked| asked.min(own))
            }
        }
    }

    async fn time(&mut self) -> Vec<News> {
        let now = Instant::now();
        let Some(running) = &self.probe else {
            if now < self.next {
                return Vec::new();
            }
            if self.is_wanted() {
                self.start().await;
            } else {
                self.next = now + LOOK_EVERY;
            }
            return Vec::new();
        };
        let sampling = running.asked.values().any(|(asked, _)| matches!(asked, Asked::Sample));
        if running.asked.values().any(|(_, deadline)| *deadline <= now) {
            self.lose("it did not answer in time");
            return Vec::new();
        }
        if self.describe_due <= now {
            self.describe_due = now + DESCRIBE_EVERY;
            self.ask(Asked::Describe, Question::Describe(Nothing {}), ANSWER_TIME).await;
        }
        if self.monitor.settings.sample_secs > 0 && self.sample_due <= now {
            self.sample_due = now + Duration::from_secs(self.monitor.settings.sample_secs.into());
            // One at a time: where a GPU hangs, an answer takes longer than the time between two.
            if !sampling {
                self.ask(Asked::Sample, Question::Sample(Nothing {}), ANSWER_TIME).await;
            }
        }
        Vec::new()
    }

    async fn start(&mut self) {
        let settings = &self.monitor.settings;
        let library = settings.library.as_deref().unwrap_or_else(|| Path::new(""));
        match Probe::start(&self.monitor.command, library, &settings.device_dir) {
            Ok(probe) => {
                let now = Instant::now();
                debug!(pid = probe.pid(), "the GPU probe is started");
                self.probe = Some(Running { probe, since: now, asked: BTreeMap::new() });
                self.describe_due = now + DESCRIBE_EVERY;
                self.sample_due = now + Duration::from_secs(settings.sample_secs.max(1).into());
                self.ask(Asked::Describe, Question::Describe(Nothing {}), ANSWER_TIME).await;
            }
            Err(error) => {
                warn!(%error, "no GPU probe can be started");
                self.put_off();
            }
        }
    }

    async fn ask(&mut self, about: Asked, question: Question, time: Duration) {
        let Some(running) = &mut self.probe else { return };
        // One that takes no question has ended, and may have said why before: it is heard next.
        let id = running.probe.ask(question).await.unwrap_or(0);
        running.asked.insert(id, (about, Instant::now() + time));
    }

    /// The next probe is started later.
    fn put_off(&mut self) {
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(10)).min(LONGEST_WAIT);
        self.failures = self.failures.saturating_add(1);
        self.next = Instant::now() + wait;
    }

    /// Gives the probe up.
    fn lose(&mut self, why: &str) {
        let Some(running) = self.probe.take() else { return };
        if running.since.elapsed() > GOOD_TIME {
            self.failures = 0;
        }
        let now = Instant::now();
        self.crashes.retain(|crash| now.duration_since(*crash) < CRASH_WINDOW);
        self.crashes.push(now);
        warn!(pid = running.probe.pid(), why, "the GPU probe is lost; another one follows");
        let text = format!("the driver does not answer: the GPU probe is lost ({why})");
        self.unusable = Unusable { word: "probe_lost".to_owned(), text };
        self.put_off();
    }

    async fn heard(&mut self, heard: std::io::Result<Say>) -> Vec<News> {
        let say = match heard {
            Ok(say) => say,
            Err(_) => {
                // One that said why it ends is not lost.
                self.lose("it ended");
                return Vec::new();
            }
        };
        let about = self.probe.as_mut().and_then(|running| running.asked.remove(&say.id));
        match (say.answer, about) {
            (Some(Answer::Described(described)), _) => self.described(described).await,
            (Some(Answer::Sampled(sampled)), _) => return self.sampled(sampled),
            (Some(Answer::Done(done)), Some((Asked::Cut(uuid), _))) => {
                return self.cut_done(&uuid, done);
            }
            (Some(Answer::Unusable(unusable)), _) => self.is_unusable(unusable),
            (Some(Answer::Event(event)), _) => return self.event(event, Teller::Nvml),
            (Some(Answer::Done(_)), _) | (None, _) => {}
        }
        Vec::new()
    }

    fn is_unusable(&mut self, unusable: Unusable) {
        self.probe = None;
        if self.unusable != unusable {
            warn!(word = unusable.word, "GPUs cannot be read: {}", unusable.text);
        }
        self.unusable = unusable;
        self.put_off();
    }

    async fn described(&mut self, described: Described) {
        if described.fake && !self.fake {
            warn!(gpus = described.gpus.len(), "the GPUs of this node are FAKE");
        }
        let first = self.gpus.is_empty();
        let strange = self.gpus.iter().filter(|gpu| gpu.fault.starts_with(STRANGER));
        let strangers: BTreeMap<u32, String> =
            strange.map(|gpu| (gpu.index, gpu.fault.clone())).collect();
        self.fake = described.fake;
        self.unusable = Unusable::default();
        for note in described.notes {
            if self.notes.insert(note.clone()) {
                info!("{note}");
            }
        }
        let mut seen = described.gpus;
        seen.iter_mut().for_each(|gpu| self.localize(gpu));
        let todo = self.layouts.open_intents(&self.monitor.boot_id, &seen);
        self.gpus = self.layouts.take(seen);
        // The driver does not know of what only samples tell.
        for gpu in self.gpus.iter_mut().filter(|gpu| gpu.fault.is_empty()) {
            if let Some(fault) = strangers.get(&gpu.index) {
                gpu.fault.clone_from(fault);
            }
        }
        let links: Vec<_> = self.gpus.iter().filter_map(|gpu| self.watch.links(gpu)).collect();
        self.keep_events(links);
        self.keep();
        if first {
            info!(gpus = self.gpus.len(), driver = described.driver, "GPUs found");
        }
        for intent in todo {
            self.resume(intent).await;
        }
    }

    /// Real CPU numbers become the node's.
    fn localize(&self, gpu: &mut v1::Gpu) {
        if self.monitor.cpus.is_empty() {
            return;
        }
        let real = gpu.cpu_ranges.as_chunks::<2>().0.iter().flat_map(|&[from, to]| from..=to);
        let logical: std::collections::BTreeSet<u32> =
            real.filter_map(|cpu| self.monitor.cpus.get(&cpu).copied()).collect();
        let mut ranges: Vec<u32> = Vec::new();
        for cpu in logical {
            match ranges.last_mut() {
                Some(last) if *last + 1 == cpu => *last = cpu,
                _ => ranges.extend([cpu, cpu]),
            }
        }
        gpu.cpu_ranges = ranges;
    }

    fn keep(&self) {
        for gpu in self.gpus.iter().filter(|gpu| !gpu.fake) {
            files::ensure(&gpu.slices);
        }
        if let Err(error) = self.layouts.write() {
            warn!(%error, "the layouts of GPUs cannot be kept");
        }
    }

    fn sampled(&mut self, sampled: super::wire::Sampled) -> Vec<News> {
        for gpu in &mut self.gpus {
            let trouble = sampled.troubles.iter().find(|trouble| trouble.gpu == gpu.index);
            match trouble {
                // The seconds in it go up; the first words are enough.
                Some(trouble) if same_fault(&gpu.fault, &trouble.text) => {}
                Some(trouble) => {
                    warn!(gpu = gpu.index, "{}", trouble.text);
                    gpu.fault.clone_from(&trouble.text);
                }
                None if passing(&gpu.fault)
                    && sampled.samples.iter().any(|sample| sample.gpu == gpu.index) =>
                {
                    info!(gpu = gpu.index, "answers again");
                    gpu.fault.clear();
                    self.describe_due = Instant::now();
                }
                None => {}
            }
        }
        self.look(&sampled.looks);
        if !self.gpus.is_empty() && sampled.troubles.len() == self.gpus.len() {
            let silent = |trouble: &super::wire::Trouble| trouble.text.starts_with(UNRESPONSIVE);
            if sampled.troubles.iter().all(silent) {
                self.lose("no GPU answers");
            }
        }
        let mut samples = sampled.samples;
        self.monitor.devices.attribute(&mut samples);
        let events = std::mem::take(&mut self.events);
        let time_ms = wall_clock().as_millis();
        vec![News::Report(v1::GpuReport { time_ms, samples, events })]
    }

    /// Looks whether something is wrong for long, and whether somebody uses what nobody was given.
    fn look(&mut self, looks: &[Look]) {
        for look in looks {
            let found = self.watch.look(look);
            self.keep_events(found);
            let Some(gpu) = self.gpus.iter_mut().find(|gpu| gpu.index == look.gpu) else {
                continue;
            };
            let held =
                self.monitor.devices.is_held(&gpu.uuid) || self.monitor.settings.shares_foreign;
            match self.watch.stranger(look, held) {
                Some(pid) if gpu.fault.is_empty() => {
                    gpu.fault = format!("{STRANGER} {pid} of {}, which no job owns", owner(pid));
                    warn!(gpu = gpu.index, "{}", gpu.fault);
                }
                None if gpu.fault.starts_with(STRANGER) && (held || look.pids.is_empty()) => {
                    gpu.fault.clear();
                }
                Some(_) | None => {}
            }
        }
    }

    /// Events that go out with the next report.
    fn keep_events(&mut self, found: impl IntoIterator<Item = v1::GpuEvent>) {
        for event in found {
            warn!(gpu = event.gpu, event.text, "GPU condition");
            if self.events.len() < MAX_EVENTS {
                self.events.push(event);
            }
        }
    }

    /// An event is told at once: what it says of a job may not wait for the next sample.
    fn event(&mut self, event: v1::GpuEvent, teller: Teller) -> Vec<News> {
        if !self.recent.is_new(teller, &event, Instant::now()) {
            return Vec::new();
        }
        warn!(gpu = event.gpu, gi = event.gi, xid = event.xid, event.text, "GPU event");
        self.events.push(event);
        // Whatever it was, the GPU may be another now.
        let soon = Instant::now() + Duration::from_millis(200);
        self.describe_due = self.describe_due.min(soon);
        if self.events.len() < MAX_EVENTS && self.told.is_none() {
            return Vec::new();
        }
        let events = std::mem::take(&mut self.events);
        let time_ms = wall_clock().as_millis();
        vec![News::Report(v1::GpuReport { time_ms, samples: Vec::new(), events })]
    }

    /// Tells the launches what there is.
    fn learn(&self) {
        self.monitor.devices.learn(self.gpus.clone(), self.gres());
    }
}

/// How a GPU is called that somebody uses who was not given it.
const STRANGER: &str = "used by process";

/// The user of a process, by number.
fn owner(pid: u32) -> String {
    use std::os::unix::fs::MetadataExt as _;
    let found = std::fs::metadata(format!("/proc/{pid}"));
    found.map_or_else(|_| "an unknown user".to_owned(), |found| format!("user {}", found.uid()))
}

/// How a GPU is called that lets us wait.
const UNRESPONSIVE: &str = "unresponsive";

/// A fault that is over when the GPU answers.
fn passing(fault: &str) -> bool {
    fault.starts_with(UNRESPONSIVE) || fault.starts_with("lost")
}

fn same_fault(one: &str, two: &str) -> bool {
    one == two || one.starts_with(UNRESPONSIVE) && two.starts_with(UNRESPONSIVE)
}

/// The next line of the kernel's log; never where it is not read.
async fn next_line(kernel: Option<&mut mpsc::Receiver<Line>>) -> Option<Line> {
    match kernel {
        Some(kernel) => kernel.recv().await,
        None => std::future::pending().await,
    }
}

/// What a probe says; never where there is none.
async fn hear(running: Option<&mut Running>) -> std::io::Result<Say> {
    match running {
        Some(running) => running.probe.hear().await,
        None => std::future::pending().await,
    }
}
