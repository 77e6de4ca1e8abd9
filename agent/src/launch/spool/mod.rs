//! Which attempts are on this node, and how does the agent reach them?
//!
//! The spool is a folder for each attempt, root's own: `spool/<job>.<attempt>/` for its batch
//! script, `spool/<job>.<attempt>.<step>/` for this node's part of a step. One thread owns
//! it (see `worker`), reached by a bounded queue; what happens comes back as events over a bounded
//! channel. Nothing is waited for here: a start is an order, its outcome an event.

mod attempt;
mod config;
mod launcher;
mod scan;
mod worker;

pub use config::{ShepherdCommand, SpoolConfig};

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use penstock_proto::v1;
use penstock_supervisor::{AttemptKey, EndCause, Found, HostEvent, SignalRequest, TimeLimit};
use penstock_vocab::Millis;
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::OwnedFd;
use tokio::sync::mpsc;

use super::lease::{self, Ledger};
use super::record::{Order, Part, Wired as _};
use worker::{Command, Worker};

/// Orders that may wait for the thread; at 600 starts a second, several seconds' worth.
const MAX_WAITING: usize = 4_096;
/// Events that may wait for the agent; the thread stops when it does not take them.
const MAX_EVENTS: usize = 1_024;

/// Why the spool does not do something.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// A folder of the spool cannot be made or read.
    #[error("{path} cannot be used as spool; give the agent's user that folder alone")]
    Folder {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The thread cannot be started.
    #[error("the spool's thread cannot be started")]
    Thread(#[source] io::Error),
    /// Too many orders wait; say it again later.
    #[error("{MAX_WAITING} orders wait for the spool; try again")]
    Busy,
    /// The thread has ended.
    #[error("the spool is closed")]
    Closed,
}

/// What the spool has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Something happened to an attempt. May be said again after an agent was restarted.
    Host(HostEvent),
    /// Something cannot be done on this machine; each text is said once.
    Notice(String),
    /// What a part that runs used until now.
    Usage(Box<v1::PartUsage>),
    /// The shepherd of a step's part has this for the step's maker.
    Relay(Box<v1::RelayFrame>),
}

/// A spool and what it held when it was opened.
#[derive(Debug)]
pub struct Opened {
    /// The spool.
    pub spool: Spool,
    /// Every attempt found. Those that no shepherd had claimed are locked by now and never start.
    pub found: Vec<Found>,
    /// Whether one of those that run may hold a lease.
    pub leases: bool,
    /// What happens from now on.
    pub events: mpsc::Receiver<Event>,
}

/// The agent's hold on its spool. Dropping it ends the thread; shepherds and jobs go on.
#[derive(Debug)]
pub struct Spool {
    orders: Option<SyncSender<Command>>,
    wake: Arc<OwnedFd>,
    closing: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Spool {
    /// Opens the spool below `config.state_dir`, takes over what an earlier agent left there, and
    /// starts the thread. Blocks for a few file operations an attempt found.
    ///
    /// # Errors
    /// When folders cannot be made or read, or no thread can be started.
    pub fn open(config: SpoolConfig) -> Result<Opened, SpoolError> {
        config.make_folders()?;
        let (scanned, held) = scan::scan(&config)?;
        let ledger = Ledger::open(&config.state_dir, &config.boot_id, !held.is_empty()).map_err(
            |source| SpoolError::Folder { path: lease::path(&config.state_dir), source },
        )?;
        let leases = ledger.is_in_use();
        let thread_error = |error: rustix::io::Errno| SpoolError::Thread(error.into());
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let wake = Arc::new(eventfd(0, flags).map_err(thread_error)?);
        let (orders, receiver) = sync_channel(MAX_WAITING);
        let (sender, events) = mpsc::channel(MAX_EVENTS);
        let closing = Arc::new(AtomicBool::new(false));
        let shared = (Arc::clone(&wake), Arc::clone(&closing));
        let worker = Worker::new(config, (held, ledger), shared, receiver, sender)
            .map_err(SpoolError::Thread)?;
        let thread = std::thread::Builder::new()
            .name("spool".to_owned())
            .spawn(move || worker.run())
            .map_err(SpoolError::Thread)?;
        let spool = Self { orders: Some(orders), wake, closing, thread: Some(thread) };
        Ok(Opened { spool, found: scanned, leases, events })
    }

    /// From now on, leases count from `since` (`CLOCK_BOOTTIME`). A shepherd whose lease is over
    /// ends its job by itself.
    ///
    /// # Errors
    /// [`SpoolError::Busy`] or [`SpoolError::Closed`]; then nothing was done. So for all below.
    pub fn renew(&self, since: Millis) -> Result<(), SpoolError> {
        self.send(Command::Renew(since))
    }

    /// Starts an attempt. Started, StartFailed or Ended follows as event; for an attempt that is in
    /// the spool already, nothing does.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub fn start(&self, part: impl Into<Part>) -> Result<(), SpoolError> {
        self.send(Command::Start(Box::new(part.into())))
    }

    /// Makes sure that an attempt which no shepherd has claimed never starts. LockTaken follows
    /// as event, or what the shepherd that was faster has to say.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub fn take_lock(&self, key: AttemptKey) -> Result<(), SpoolError> {
        self.send(Command::TakeLock(key))
    }

    /// Ends an attempt: SIGCONT and SIGTERM, after `kill_wait_secs` SIGKILL; 0 kills at once.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub fn terminate(
        &self,
        key: AttemptKey,
        cause: EndCause,
        kill_wait_secs: u32,
    ) -> Result<(), SpoolError> {
        let cause = match cause {
            EndCause::Cancelled => v1::EndCause::Cancelled,
            EndCause::TimeLimit => v1::EndCause::TimeLimit,
            EndCause::NodeFail => v1::EndCause::NodeFail,
            EndCause::Requeue => v1::EndCause::Requeue,
            EndCause::RequeueHold => v1::EndCause::RequeueHold,
            EndCause::Other => v1::EndCause::Unspecified,
        };
        self.order(Order::Terminate(v1::Terminate {
            job_id: key.job.0,
            attempt: key.attempt.0,
            cause: cause.into(),
            kill_wait_secs,
            step: key.step,
        }))
    }

    /// Sends a signal: to the batch shell, to everything, or to the tasks of steps.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub fn signal(&self, key: AttemptKey, request: SignalRequest) -> Result<(), SpoolError> {
        self.order(Order::Signal(v1::SignalAttempt {
            job_id: key.job.0,
            attempt: key.attempt.0,
            signal: request.signal.number().into(),
            batch_only: request.batch_only,
            full: request.full,
            step: key.step,
        }))
    }

    /// Gives an attempt another time limit, counted from its start.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub fn set_limit(&self, key: AttemptKey, limit: TimeLimit) -> Result<(), SpoolError> {
        self.order(Order::SetLimit(v1::SetLimit {
            job_id: key.job.0,
            attempt: key.attempt.0,
            time_limit_secs: limit.limit_secs,
            limit_serial: limit.serial,
            step: key.step,
        }))
    }

    /// Lets an attempt's processes stand still, or go on.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub fn suspend(&self, key: AttemptKey, suspend: bool) -> Result<(), SpoolError> {
        let (job_id, attempt, step) = (key.job.0, key.attempt.0, key.step);
        self.order(Order::Suspend(v1::Suspend { job_id, attempt, suspend, step }))
    }

    /// Has the shepherd of a step's part connect to one more listener; one that is not there does
    /// not.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub fn attach(&self, listener: v1::AttachListener) -> Result<(), SpoolError> {
        self.order(Order::Attach(listener))
    }

    /// Has a part measured at once; Usage follows as event, unless the part has ended.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub fn measure(&self, part: v1::MeasurePart) -> Result<(), SpoolError> {
        self.order(Order::Measure(part))
    }

    /// Hands a shepherd what the maker of its step has for it; where it does not take it, it is lost,
    /// which the two of them notice.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub fn relay(&self, frame: v1::RelayFrame) -> Result<(), SpoolError> {
        self.order(Order::Relay(frame))
    }

    /// Writes one line to the stderr of a job's script, or of a step; longer ones are cut, and control
    /// characters left out.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub fn notice(&self, notice: v1::Notice) -> Result<(), SpoolError> {
        let letters = notice.text.chars().filter(|letter| !letter.is_control());
        let mut text = String::new();
        for letter in letters {
            if text.len() + letter.len_utf8() > MAX_NOTICE {
                break;
            }
            text.push(letter);
        }
        self.order(Order::Notice(v1::Notice { text, ..notice }))
    }

    /// Removes all that is held of an attempt that ended or never starts, a tombstone too. One
    /// that runs is left alone.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub fn forget(&self, key: AttemptKey) -> Result<(), SpoolError> {
        self.send(Command::Forget(key))
    }

    /// Keeps, also for later agents, that this attempt must never start here.
    ///
    /// # Errors
    /// As [`Self::renew`].
    pub fn bury(&self, key: AttemptKey) -> Result<(), SpoolError> {
        self.send(Command::Bury(key))
    }

    fn order(&self, order: Order) -> Result<(), SpoolError> {
        self.send(Command::Order(order.key(), order))
    }

    fn send(&self, command: Command) -> Result<(), SpoolError> {
        let orders = self.orders.as_ref().ok_or(SpoolError::Closed)?;
        orders.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => SpoolError::Busy,
            TrySendError::Disconnected(_) => SpoolError::Closed,
        })?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        // A counter that is full wakes as well.
        let _full = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }
}

/// Longest text of a notice, bytes: a shepherd takes orders of one kilobyte.
const MAX_NOTICE: usize = 800;

impl Drop for Spool {
    fn drop(&mut self) {
        self.orders = None;
        self.closing.store(true, Ordering::Relaxed);
        self.wake();
        if let Some(thread) = self.thread.take() {
            // A panic in it was reported when it happened.
            let _panicked = thread.join();
        }
    }
}

impl Order {
    fn key(&self) -> AttemptKey {
        match self {
            Self::Terminate(order) => order.key(),
            Self::Signal(order) => order.key(),
            Self::SetLimit(order) => order.key(),
            Self::Suspend(order) => order.key(),
            Self::Attach(order) => order.key(),
            Self::Measure(order) => order.key(),
            Self::Relay(frame) => frame.key(),
            Self::Notice(order) => order.key(),
        }
    }
}

/// Makes `path` and its parents if need be, with exactly `mode` for the last folder.
fn ensure_folder(path: &std::path::Path, mode: u32) -> Result<(), SpoolError> {
    use std::os::unix::fs::PermissionsExt as _;
    let failed = |source| SpoolError::Folder { path: path.to_path_buf(), source };
    fs::create_dir_all(path).map_err(failed)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(failed)
}
