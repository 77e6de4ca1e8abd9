//! Who does what in the probe?
//!
//! The main thread hears the agent and hands questions to the threads of the GPUs; it waits for
//! their answers only so long. A thread that does not come back is asked nothing more until it does.

use std::collections::BTreeMap;
use std::io::BufReader;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use penstock_proto::v1;

use super::library::{Library, words};
use super::{Mouth, cut, describe, events, measure};
use crate::gpu::wire::{
    self, Answer, Ask, Cut, Described, Done, Look, Question, Sampled, Trouble, Unusable,
};

/// How long the answers of all GPUs are waited for; the agent waits a little longer for ours.
const PATIENCE: Duration = Duration::from_secs(5);

/// Most GPUs that a node may have; more are taken for garbage.
const MAX_GPUS: u32 = 64;

/// Samples of a GPU, and what else was seen of it.
type Seen = (Vec<v1::GpuSample>, Look);

/// What the thread of a GPU is to do.
enum Task {
    Describe(Sender<describe::Described>),
    Sample(Sender<(u32, Result<Seen, String>)>),
    Cut(u64, Box<Cut>),
}

/// The thread of a GPU.
struct Worker {
    tasks: Sender<Task>,
    /// Tasks that it has not done.
    open: Arc<AtomicU32>,
    /// Since when it does what.
    doing: Arc<Mutex<Option<(&'static str, Instant)>>>,
}

impl Worker {
    /// Gives it a task, unless it is at another.
    fn give(&self, task: Task) -> Result<(), (&'static str, Duration)> {
        if self.open.load(Ordering::Acquire) > 0 {
            let doing = self.doing.lock().unwrap_or_else(PoisonError::into_inner);
            return Err(
                doing.map_or(("begin", Duration::ZERO), |(what, since)| (what, since.elapsed()))
            );
        }
        self.open.fetch_add(1, Ordering::AcqRel);
        self.tasks.send(task).map_err(|_| ("end", Duration::ZERO))
    }
}

/// Serves until the agent is gone.
pub(super) fn serve(path: &Path, devices: &Path, ear: UnixStream, mouth: Mouth) {
    let library = match Library::load(path) {
        Ok(library) => Arc::new(library),
        Err(unusable) => return mouth.say(0, Answer::Unusable(unusable)),
    };
    let count = match library.nvml.device_count() {
        Ok(count) => count.min(MAX_GPUS),
        Err(error) => {
            let unusable = Unusable { word: "nvml_failed".to_owned(), text: words(&error) };
            return mouth.say(0, Answer::Unusable(unusable));
        }
    };
    let all: Vec<Worker> =
        (0..count).map(|index| start(index, count, &library, devices, &mouth)).collect();
    let (watched, told) = (Arc::clone(&library), mouth.clone());
    std::thread::spawn(move || events::watch(&watched, count, &told));
    let mut ear = BufReader::new(ear);
    // An end of the stream is the agent's end.
    while let Ok(ask) = wire::read::<Ask>(&mut ear) {
        match ask.question {
            Some(Question::Describe(_)) => mouth.say(ask.id, describe_all(&library, &all)),
            Some(Question::Sample(_)) => mouth.say(ask.id, sample_all(&all)),
            Some(Question::Cut(order)) => give_cut(ask.id, order, &all, &mouth),
            None => {}
        }
    }
    // A thread may hang: nobody waits for it.
    std::process::exit(0);
}

fn start(index: u32, count: u32, library: &Arc<Library>, devices: &Path, mouth: &Mouth) -> Worker {
    let (tasks, inbox) = channel();
    let (open, doing) = (Arc::new(AtomicU32::new(0)), Arc::new(Mutex::new(None)));
    let thread = Thread {
        index,
        count,
        library: Arc::clone(library),
        devices: devices.to_owned(),
        mouth: mouth.clone(),
        open: Arc::clone(&open),
        doing: Arc::clone(&doing),
    };
    std::thread::spawn(move || thread.run(&inbox));
    Worker { tasks, open, doing }
}

/// What the thread of a GPU has.
struct Thread {
    index: u32,
    count: u32,
    library: Arc<Library>,
    devices: PathBuf,
    mouth: Mouth,
    open: Arc<AtomicU32>,
    doing: Arc<Mutex<Option<(&'static str, Instant)>>>,
}

impl Thread {
    fn run(&self, inbox: &Receiver<Task>) {
        let mut before = measure::Memory::default();
        while let Ok(task) = inbox.recv() {
            match task {
                Task::Describe(back) => {
                    self.does("describe");
                    let described = self.describe();
                    self.is_done();
                    // Whoever asked may have stopped waiting.
                    let _late = back.send(described);
                }
                Task::Sample(back) => {
                    self.does("sample");
                    let sampled = measure::sample(&self.library, self.index, &mut before);
                    self.is_done();
                    let _late = back.send((self.index, sampled.map_err(|error| words(&error))));
                }
                Task::Cut(id, order) => {
                    self.does("cut");
                    let error = cut::cut(&self.library, &order).err().unwrap_or_default();
                    let gpu = Some(self.describe().gpu).filter(|gpu| !gpu.uuid.is_empty());
                    let gpu = gpu.map(Box::new);
                    self.is_done();
                    self.mouth.say(id, Answer::Done(Done { gpu, error }));
                }
            }
        }
    }

    /// It can be given the next task, which whoever hears of this one may do at once.
    fn is_done(&self) {
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.open.fetch_sub(1, Ordering::AcqRel);
    }

    fn does(&self, what: &'static str) {
        let now = Some((what, Instant::now()));
        *self.doing.lock().unwrap_or_else(PoisonError::into_inner) = now;
    }

    fn describe(&self) -> describe::Described {
        describe::describe(&self.library, self.index, self.count, &self.devices)
    }
}

/// Why a GPU that did not answer is no use.
fn unresponsive(since: Duration) -> String {
    format!("unresponsive: a call has not come back for {} s", since.as_secs())
}

fn describe_all(library: &Library, all: &[Worker]) -> Answer {
    let (back, answers) = channel();
    let mut found = BTreeMap::new();
    for (index, worker) in (0..).zip(all) {
        if let Err((_, since)) = worker.give(Task::Describe(back.clone())) {
            found.insert(index, describe::fault(index, unresponsive(since)));
        }
    }
    drop(back);
    let deadline = Instant::now() + PATIENCE;
    while let Ok(one) = answers.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        found.insert(one.gpu.index, one);
    }
    for index in (0..).zip(all).map(|(index, _)| index) {
        let silent = || describe::fault(index, unresponsive(PATIENCE));
        found.entry(index).or_insert_with(silent);
    }
    Answer::Described(Described {
        gpus: describe::tie(found.into_values().collect()),
        fake: library.fake,
        driver: library.driver.clone(),
        notes: library.notes(),
    })
}

fn sample_all(all: &[Worker]) -> Answer {
    let (back, answers) = channel();
    let mut sampled = Sampled::default();
    let mut waiting = Vec::new();
    for (index, worker) in (0..).zip(all) {
        match worker.give(Task::Sample(back.clone())) {
            Ok(()) => waiting.push(index),
            Err(("cut", _)) => sampled.busy.push(index),
            Err((_, since)) => {
                sampled.troubles.push(Trouble { gpu: index, text: unresponsive(since) });
            }
        }
    }
    drop(back);
    let deadline = Instant::now() + PATIENCE;
    while let Ok((index, one)) =
        answers.recv_timeout(deadline.saturating_duration_since(Instant::now()))
    {
        waiting.retain(|other| *other != index);
        match one {
            Ok((samples, look)) => {
                sampled.samples.extend(samples);
                sampled.looks.push(look);
            }
            Err(text) => sampled.troubles.push(Trouble { gpu: index, text }),
        }
    }
    let silent = |gpu| Trouble { gpu, text: unresponsive(PATIENCE) };
    sampled.troubles.extend(waiting.into_iter().map(silent));
    sampled.samples.sort_by_key(|sample| (sample.gpu, sample.gi));
    Answer::Sampled(sampled)
}

/// The thread of the GPU answers by itself: the others are measured meanwhile.
fn give_cut(id: u64, order: Cut, all: &[Worker], mouth: &Mouth) {
    let refuse = |error: String| mouth.say(id, Answer::Done(Done { gpu: None, error }));
    let index = order.gpu;
    let Some(worker) = all.get(index as usize) else {
        return refuse(format!("there is no GPU {index}"));
    };
    // A sample takes milliseconds, so that this is worth a wait.
    let deadline = Instant::now() + PATIENCE;
    while worker.open.load(Ordering::Acquire) > 0 && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(5));
    }
    if let Err((what, since)) = worker.give(Task::Cut(id, Box::new(order))) {
        refuse(format!("GPU {index} has been at another {what} for {} s", since.as_secs()));
    }
}
