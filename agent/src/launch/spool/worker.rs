//! Who starts shepherds and hears them?
//!
//! One thread with one epoll: orders of the agent come over a queue and an eventfd, news of the
//! shepherds over their sockets, the end of a shepherd as the end of its socket. No thread and
//! no timer a job.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::time::Duration;

use penstock_proto::v1;
use penstock_supervisor::{AttemptKey, HostEvent, RunResult};
use penstock_vocab::Millis;
use prost::Message as _;
use rustix::event::{Timespec, epoll};
use rustix::net::{RecvFlags, SendFlags};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::Event;
use super::attempt::{Claim, Folder};
use super::config::SpoolConfig;
use super::launcher::Launcher;
use crate::gpu::GrantError;
use crate::launch::lease::Ledger;
use crate::launch::record::{
    self as files, FromShepherd, MAX_PACKET, News, Order, Part, ToShepherd, Wired as _, cut,
};
use crate::sys::wall_clock;

/// Pause between looks at shepherds that cannot be reached yet.
const RETRY: Duration = Duration::from_millis(20);
/// Orders kept for a shepherd that cannot be reached yet; there are only so many kinds.
const MAX_ORDERS: usize = 64;
/// Events taken from the kernel at once.
const BATCH: usize = 64;
/// Texts of notices remembered, so that each is said once.
const MAX_NOTICES: usize = 64;
/// Mark of the eventfd among the epoll's marks.
const WAKE: u64 = u64::MAX;

/// The epoll's marks of shepherds: numbers that are never used again, so that an event of a socket
/// that was closed meanwhile names nobody.
#[derive(Debug, Default)]
struct Marks {
    next: u64,
    keys: HashMap<u64, AttemptKey>,
}

impl Marks {
    fn give(&mut self, key: AttemptKey) -> u64 {
        let mark = self.next;
        self.next += 1;
        self.keys.insert(mark, key);
        mark
    }
}

/// What the agent wants.
#[derive(Debug)]
pub(super) enum Command {
    Renew(Millis),
    Start(Box<Part>),
    TakeLock(AttemptKey),
    Order(AttemptKey, Order),
    Forget(AttemptKey),
    Bury(AttemptKey),
}

/// One shepherd.
#[derive(Debug)]
struct Shepherd {
    folder: Folder,
    /// With its mark; `None` while an adopted one is not reached yet.
    socket: Option<(OwnedFd, u64)>,
    /// What it is to be told when it is reached.
    orders: Vec<Order>,
}

/// The thread's state.
pub(super) struct Worker {
    config: SpoolConfig,
    shepherds: BTreeMap<AttemptKey, Shepherd>,
    launcher: Launcher,
    marks: Marks,
    notices: HashSet<String>,
    ledger: Ledger,
    epoll: OwnedFd,
    wake: Arc<OwnedFd>,
    /// The agent lets go of the spool.
    closing: Arc<AtomicBool>,
    orders: Receiver<Command>,
    events: Sender<Event>,
}

impl Worker {
    pub(super) fn new(
        config: SpoolConfig,
        (running, ledger): (Vec<Folder>, Ledger),
        (wake, closing): (Arc<OwnedFd>, Arc<AtomicBool>),
        orders: Receiver<Command>,
        events: Sender<Event>,
    ) -> io::Result<Self> {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &wake, epoll::EventData::new_u64(WAKE), epoll::EventFlags::IN)?;
        let adopted = |folder: Folder| {
            let key = folder.key;
            config.devices.adopt(key, folder.devices());
            (key, Shepherd { folder, socket: None, orders: Vec::new() })
        };
        Ok(Self {
            launcher: Launcher::new(config.shepherd.clone()),
            shepherds: running.into_iter().map(adopted).collect(),
            config,
            marks: Marks::default(),
            notices: HashSet::new(),
            ledger,
            epoll,
            wake,
            closing,
            orders,
            events,
        })
    }

    /// Works until the spool is dropped.
    pub(super) fn run(mut self) {
        let mut batch = Vec::with_capacity(BATCH);
        loop {
            self.reach_adopted();
            let unreached = self.shepherds.values().any(|s| s.socket.is_none());
            let retry = Timespec { tv_sec: 0, tv_nsec: i64::from(RETRY.subsec_nanos()) };
            let timeout = unreached.then_some(retry);
            batch.clear();
            let space = rustix::buffer::spare_capacity(&mut batch);
            // An interrupted wait is one with no events.
            let _interrupted = epoll::wait(&self.epoll, space, timeout.as_ref());
            for event in &batch {
                match event.data.u64() {
                    WAKE => {
                        let _empty = rustix::io::read(&*self.wake, &mut [0_u8; 8]);
                    }
                    mark => {
                        if let Some(key) = self.marks.keys.get(&mark) {
                            self.hear(*key);
                        }
                    }
                }
            }
            if !self.obey() {
                return;
            }
        }
    }

    /// Does what the agent wants; false if the agent is gone.
    fn obey(&mut self) -> bool {
        loop {
            match self.orders.try_recv() {
                Ok(Command::Renew(since)) => self.renew(since),
                Ok(Command::Start(part)) => self.start(*part),
                Ok(Command::TakeLock(key)) => self.take_lock(key),
                Ok(Command::Order(key, order)) => self.pass_on(key, order),
                Ok(Command::Forget(key)) => self.forget(key),
                Ok(Command::Bury(key)) => self.bury(key),
                Err(TryRecvError::Empty) => return true,
                Err(TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn renew(&mut self, since: Millis) {
        if let Err(error) = self.ledger.renew(since) {
            let text = format!("leases cannot be renewed, and jobs that need one end: {error}");
            if self.is_new(&text) {
                self.tell(Event::Notice(text));
            }
        }
    }

    fn start(&mut self, part: Part) {
        let key = part.key();
        let folder = Folder::new(&self.config, key);
        match folder.create() {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(attempt = %key, "is in the spool already; not started again");
                return;
            }
            Err(error) => return self.spool_failed(&folder, &error),
        }
        let devices = match self.config.devices.grant(key, part.gres()) {
            Ok(devices) => devices,
            Err(GrantError::Changed(error)) => return self.start_refused(&folder, error, true),
            Err(GrantError::Absent(error)) => return self.start_failed(&folder, error),
        };
        if let Err(error) = folder.write_intent(&self.config, part, devices) {
            return self.spool_failed(&folder, &error);
        }
        let launched = self.launcher.launch(&folder.path).and_then(|socket| {
            let mark = self.watch(key, &socket)?;
            Ok((socket, mark))
        });
        match launched {
            Ok(socket) => {
                let (socket, orders) = (Some(socket), Vec::new());
                self.shepherds.insert(key, Shepherd { folder, socket, orders });
            }
            Err(error) => self.start_failed(&folder, format!("no shepherd can be made: {error}")),
        }
    }

    /// A node whose spool is full knows by itself that it can start nothing.
    fn spool_failed(&mut self, folder: &Folder, error: &io::Error) {
        if matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) {
            self.tell(Event::Host(HostEvent::SpoolFull));
        }
        self.start_failed(folder, format!("the spool takes no job: {error}"));
    }

    /// The node's fault: keeps the failure for a later agent, if it can, and tells this one.
    fn start_failed(&mut self, folder: &Folder, error: String) {
        self.start_refused(folder, error, false);
    }

    /// The same, also where the devices are others by now: the node's fault for a controller that knows no
    /// better.
    fn start_refused(&mut self, folder: &Folder, error: String, devices_changed: bool) {
        // Whatever was spawned must not start the job any more.
        let claimed = folder.claim();
        if matches!(claimed, Ok(Claim::Shepherd)) {
            self.adopt(folder.clone());
            return;
        }
        let now = wall_clock();
        let result = RunResult {
            start: now,
            end: now,
            launch_error: cut(&error).to_owned(),
            node_fault: true,
            devices_changed,
            ..RunResult::default()
        };
        // On a full disk this fails as well; then only this agent knows.
        let _full = folder.write_end(&result);
        self.ended(folder.key, result);
    }

    fn adopt(&mut self, folder: Folder) {
        let shepherd = Shepherd { folder, socket: None, orders: Vec::new() };
        self.shepherds.insert(shepherd.folder.key, shepherd);
    }

    fn watch(&mut self, key: AttemptKey, socket: &OwnedFd) -> io::Result<u64> {
        let mark = self.marks.give(key);
        let data = epoll::EventData::new_u64(mark);
        if let Err(error) = epoll::add(&self.epoll, socket, data, epoll::EventFlags::IN) {
            self.marks.keys.remove(&mark);
            return Err(error.into());
        }
        Ok(mark)
    }

    /// Takes the shepherd out of the list, and its socket's mark with it.
    fn release(&mut self, key: AttemptKey) {
        if let Some(Shepherd { socket: Some((_, mark)), .. }) = self.shepherds.remove(&key) {
            self.marks.keys.remove(&mark);
        }
    }

    /// Tries to reach the shepherds of an earlier agent; each listens once it has noticed that its
    /// agent is gone.
    fn reach_adopted(&mut self) {
        let unreached =
            self.shepherds.iter().filter(|(_, s)| s.socket.is_none()).map(|(key, _)| *key);
        for key in unreached.collect::<Vec<_>>() {
            let Some(shepherd) = self.shepherds.get_mut(&key) else { continue };
            let Ok(socket) = shepherd.folder.connect() else {
                self.check_alive(key);
                continue;
            };
            let orders = std::mem::take(&mut shepherd.orders);
            orders.iter().for_each(|order| send(&socket, order));
            if let Ok(mark) = self.watch(key, &socket)
                && let Some(shepherd) = self.shepherds.get_mut(&key)
            {
                shepherd.socket = Some((socket, mark));
            }
        }
    }

    /// Takes the news of one shepherd.
    fn hear(&mut self, key: AttemptKey) {
        let mut buffer = [0; MAX_PACKET];
        loop {
            let Some(shepherd) = self.shepherds.get_mut(&key) else { return };
            let Some((socket, mark)) = &shepherd.socket else { return };
            match rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => return,
                Ok((length, _)) if length > 0 => {
                    let packet = FromShepherd::decode(&buffer[..length]).unwrap_or_default();
                    self.news(key, packet.news);
                }
                Ok(_) | Err(_) => {
                    // Closing it takes it out of the epoll.
                    self.marks.keys.remove(mark);
                    shepherd.socket = None;
                    return self.check_alive(key);
                }
            }
        }
    }

    fn news(&mut self, key: AttemptKey, news: Option<News>) {
        match news {
            Some(News::Started(_)) => self.tell(Event::Host(HostEvent::Started(key))),
            Some(News::Ended(wire)) => {
                self.release(key);
                self.ended(key, files::result_from_wire(wire));
            }
            Some(News::Usage(part)) => {
                let (job_id, attempt, step) = (key.job.0, key.attempt.0, key.step);
                let part = v1::PartUsage { job_id, attempt, step, ..part };
                self.tell(Event::Usage(Box::new(part)));
            }
            Some(News::Notice(text)) if self.is_new(&text) => self.tell(Event::Notice(text)),
            Some(News::Relay(frame)) => {
                let (job_id, attempt) = (key.job.0, key.attempt.0);
                let step = key.step.unwrap_or(frame.step);
                let frame = v1::RelayFrame { job_id, attempt, step, ..frame };
                self.tell(Event::Relay(Box::new(frame)));
            }
            // Said before, or by a shepherd of another version in words that this one has not.
            Some(News::Notice(_)) | None => {}
        }
    }

    fn is_new(&mut self, notice: &str) -> bool {
        self.notices.len() < MAX_NOTICES && self.notices.insert(notice.to_owned())
    }

    /// Finds out whether a shepherd that cannot be heard is there; if not, its attempt is over.
    fn check_alive(&mut self, key: AttemptKey) {
        let Some(shepherd) = self.shepherds.get(&key) else { return };
        let folder = shepherd.folder.clone();
        match folder.claim() {
            Ok(Claim::Shepherd) => {}
            Ok(Claim::Taken | Claim::Never | Claim::Tombstone) => {
                // It died before it could claim: by our lock, nothing can start any more.
                self.release(key);
                self.start_failed(&folder, "the shepherd ended before it began".to_owned());
            }
            Ok(Claim::Gone) => {
                self.release(key);
                let result = folder.read_end().unwrap_or_else(|| {
                    let lost = folder.clean_up_lost(&self.config);
                    let _full = folder.write_end(&lost);
                    lost
                });
                self.ended(key, result);
            }
            Err(error) => tracing::warn!(attempt = %key, %error, "cannot be looked at"),
        }
    }

    fn ended(&mut self, key: AttemptKey, result: RunResult) {
        self.config.devices.release(key);
        let event = if result.launch_error.is_empty() || result.devices_changed {
            HostEvent::Ended(key, result)
        } else {
            let RunResult { launch_error: error, node_fault, .. } = result;
            HostEvent::StartFailed { key, error, node_fault }
        };
        self.tell(Event::Host(event));
    }

    fn tell(&self, event: Event) {
        let mut event = event;
        // Waits while the agent is busy, unless it has let go of the spool: the next one asks.
        while let Err(TrySendError::Full(back)) = self.events.try_send(event) {
            if self.closing.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(RETRY);
            event = back;
        }
    }

    fn pass_on(&mut self, key: AttemptKey, order: Order) {
        match self.shepherds.get_mut(&key) {
            Some(Shepherd { socket: Some((socket, _)), .. }) => send(socket, &order),
            Some(shepherd) if shepherd.orders.len() < MAX_ORDERS => shepherd.orders.push(order),
            _ => tracing::debug!(attempt = %key, ?order, "nobody to tell"),
        }
    }

    fn take_lock(&mut self, key: AttemptKey) {
        let folder = Folder::new(&self.config, key);
        match folder.claim() {
            Ok(Claim::Taken | Claim::Never | Claim::Tombstone) => {
                self.tell(Event::Host(HostEvent::LockTaken(key)));
            }
            Ok(Claim::Shepherd) if self.shepherds.contains_key(&key) => {}
            Ok(Claim::Shepherd | Claim::Gone) => {
                self.adopt(folder);
                self.check_alive(key);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::debug!(attempt = %key, "is not in the spool");
            }
            Err(error) => tracing::warn!(attempt = %key, %error, "cannot be locked"),
        }
    }

    fn forget(&self, key: AttemptKey) {
        if self.shepherds.contains_key(&key) {
            tracing::warn!(attempt = %key, "runs and is not forgotten");
            return;
        }
        if let Err(error) = Folder::new(&self.config, key).remove() {
            tracing::warn!(attempt = %key, %error, "its folder cannot be removed");
        }
    }

    fn bury(&self, key: AttemptKey) {
        let folder = Folder::new(&self.config, key);
        let buried = folder.create().and_then(|new| match new {
            true => folder.claim_with(files::TOMBSTONE),
            false => Ok(()),
        });
        if let Err(error) = buried {
            tracing::warn!(attempt = %key, %error, "its tombstone cannot be written");
        }
    }
}

fn send(socket: &OwnedFd, order: &Order) {
    let packet = ToShepherd { order: Some(order.clone()) }.encode_to_vec();
    // A shepherd that is gone or has not read dozens of orders takes no more.
    let _gone = rustix::net::send(socket, &packet, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
}

#[cfg(test)]
mod tests {
    use penstock_vocab::{Attempt, JobId};

    use super::*;

    #[test]
    fn a_mark_is_given_once() {
        let mut marks = Marks::default();
        let keys = [None, Some(0), Some(u32::MAX)]
            .map(|step| AttemptKey { step, ..AttemptKey::new(JobId(7), Attempt(1)) });
        let given = keys.map(|key| marks.give(key));
        assert_eq!(given.map(|mark| marks.keys[&mark]), keys);
        marks.keys.remove(&given[2]);
        assert!(!given.contains(&marks.give(keys[2])));
    }
}
