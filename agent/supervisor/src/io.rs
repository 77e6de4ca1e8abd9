//! What goes into the supervisor, and what comes out?

use penstock_vocab::{Millis, SessionId, Signal, Timestamp};

use crate::words::{
    AttemptKey, AttemptReport, Distrust, EndCause, RunResult, StorePosition, Welcome,
};

/// What the spool holds of one attempt when the agent starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// The intent to launch it was written, and no shepherd has claimed it.
    Unclaimed(AttemptKey),
    /// The intent was found unclaimed and its lock is held: no shepherd can claim it any more.
    NeverStarted(AttemptKey),
    /// A shepherd holds it.
    Running(AttemptKey),
    /// It ended; the record of its end was found, or its shepherd vanished ([`RunResult::lost`]).
    Ended(AttemptKey, RunResult),
    /// It was forbidden to start before its launch was seen.
    Tombstone(AttemptKey),
}

impl Found {
    /// Which attempt was found.
    #[must_use]
    pub const fn key(&self) -> AttemptKey {
        match self {
            Self::Unclaimed(key)
            | Self::NeverStarted(key)
            | Self::Running(key)
            | Self::Ended(key, _)
            | Self::Tombstone(key) => *key,
        }
    }
}

/// What an agent knows when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recovery {
    /// Everything in the spool. The newest attempt of each job follows from it.
    pub found: Vec<Found>,
    /// The store last obeyed; `None`: this agent never had a session.
    pub store: Option<StorePosition>,
    /// An attempt found here may hold a lease ([`Output::Renew`]).
    pub leases: bool,
}

/// What the controller wants. `L` is all that is needed to start the job; it is passed through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order<L> {
    /// Start the attempt, unless that was ever ordered before.
    Launch {
        /// Which attempt.
        key: AttemptKey,
        /// Serial of the time limit in `payload`.
        limit_serial: u32,
        /// How long it may run from the moment at which an acknowledged heartbeat was sent;
        /// `None`: it needs no lease.
        lease: Option<Millis>,
        /// What the host needs to start it.
        payload: L,
    },
    /// End it; if its launch was not seen yet, it must never start.
    Terminate {
        /// Which attempt.
        key: AttemptKey,
        /// Why.
        cause: EndCause,
        /// Seconds between SIGTERM and SIGKILL; 0: kill at once.
        kill_wait_secs: u32,
    },
    /// Send a signal to its processes.
    Signal {
        /// Which attempt.
        key: AttemptKey,
        /// What is sent, and to whom.
        request: SignalRequest,
    },
    /// Give it another time limit.
    SetLimit {
        /// Which attempt.
        key: AttemptKey,
        /// The limit.
        limit: TimeLimit,
    },
    /// Stop its processes, or let them go on.
    Suspend {
        /// Which attempt.
        key: AttemptKey,
        /// True: stop them.
        suspend: bool,
    },
    /// Its end is durable at the controller: forget it.
    Acknowledge {
        /// Which attempt.
        key: AttemptKey,
    },
}

impl<L> Order<L> {
    /// Which attempt is meant.
    #[must_use]
    pub const fn key(&self) -> AttemptKey {
        match self {
            Self::Launch { key, .. }
            | Self::Terminate { key, .. }
            | Self::Signal { key, .. }
            | Self::SetLimit { key, .. }
            | Self::Suspend { key, .. }
            | Self::Acknowledge { key } => *key,
        }
    }
}

/// A signal to an attempt, as `scancel` asks for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalRequest {
    /// What is sent.
    pub signal: Signal,
    /// Only to the batch shell.
    pub batch_only: bool,
    /// To the batch shell and everything below it.
    pub full: bool,
}

/// A time limit and how new it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimit {
    /// Seconds from the start; 0: none.
    pub limit_secs: u64,
    /// Raised by the controller at each change; an older one than known is dropped.
    pub serial: u32,
}

/// What happened on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostEvent {
    /// A shepherd claimed the attempt and started the job.
    Started(AttemptKey),
    /// It could not be started, and will not be.
    StartFailed {
        /// Which attempt.
        key: AttemptKey,
        /// Why, for people.
        error: String,
        /// Because of the node, not because of the job.
        node_fault: bool,
    },
    /// It ended; nothing of it runs any more, or [`RunResult::unkillable`] is set.
    Ended(AttemptKey, RunResult),
    /// The lock of an unclaimed intent was taken: it can never start.
    LockTaken(AttemptKey),
    /// The disk of the spool is full: no job can be started until somebody makes room.
    SpoolFull,
}

/// Everything the supervisor can be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<L> {
    /// Once, before anything else: what the last agent left.
    Recovered(Recovery),
    /// A session begins.
    Welcome(Welcome),
    /// The connection is gone.
    Disconnected,
    /// A newer position of the controller's store, as heartbeats are answered with.
    StoreSequence {
        /// The session of the message.
        session: SessionId,
        /// The store's newest sequence.
        sequence: u64,
    },
    /// The controller answered a heartbeat.
    Renewed {
        /// The session of the message.
        session: SessionId,
        /// When the heartbeat was sent, on the supervisor's clock; never when the answer came,
        /// which may be much later.
        sent: Timestamp,
    },
    /// The controller wants something.
    Order {
        /// The session of the message.
        session: SessionId,
        /// What it wants.
        order: Order<L>,
    },
    /// Something happened on this host.
    Host(HostEvent),
    /// An admin says that the controller's store is right, although it differs.
    Confirmed,
    /// Time has passed: see [`crate::Supervisor::next_tick`].
    Tick,
}

/// Everything the supervisor can want done, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output<L> {
    /// Every lease counts from this moment on the supervisor's clock; later than the last one
    /// said. Said only where an attempt may hold one, and before such an attempt is started.
    Renew(Timestamp),
    /// Start the attempt; said at most once for each.
    Start(AttemptKey, L),
    /// Take the lock of an unclaimed intent, so that it can never start; the answer is
    /// [`HostEvent::LockTaken`], or [`HostEvent::Started`] if a shepherd was faster.
    TakeLock(AttemptKey),
    /// End it. May be said again, with the same or a shorter wait.
    Terminate {
        /// Which attempt.
        key: AttemptKey,
        /// Why.
        cause: EndCause,
        /// Seconds between SIGTERM and SIGKILL.
        kill_wait_secs: u32,
    },
    /// Send a signal.
    Signal(AttemptKey, SignalRequest),
    /// Change the time limit.
    SetLimit(AttemptKey, TimeLimit),
    /// Stop it, or let it go on.
    Suspend(AttemptKey, bool),
    /// Remove what the spool holds of it.
    Forget(AttemptKey),
    /// Keep across restarts that it must never start.
    WriteTombstone(AttemptKey),
    /// That need not be kept any longer.
    RemoveTombstone(AttemptKey),
    /// Keep across restarts which store is obeyed.
    PersistStore(StorePosition),
    /// Tell the controller about an attempt.
    Report(SessionId, AttemptReport),
    /// Ask the controller to drain this node.
    Drain(SessionId, &'static str),
    /// Orders that could end jobs are not carried out until [`Input::Confirmed`].
    Withheld {
        /// The attempt that an order named; `None`: said once, when the session begins.
        key: Option<AttemptKey>,
        /// Why.
        why: Distrust,
    },
    /// Something was not done; for the log.
    Ignored {
        /// The attempt meant, if any.
        key: Option<AttemptKey>,
        /// Why.
        why: Ignored,
    },
}

/// Why an input changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Ignored {
    /// It came before [`Input::Recovered`], or that came twice.
    #[error("the spool was not read yet, or was read twice")]
    NotRecovered,
    /// It belongs to a session that is over, or has not begun.
    #[error("it belongs to another session")]
    OtherSession,
    /// Nothing is known of this attempt.
    #[error("no such attempt is held here")]
    Unknown,
    /// The attempt is not at a point where that makes sense.
    #[error("the attempt is not in a phase in which that can be done")]
    WrongPhase,
    /// A newer limit is known.
    #[error("a newer time limit is known")]
    OldLimit,
    /// It needs a lease, and that is over: by now, the job may run elsewhere. The controller says
    /// it again if it is still wanted.
    #[error("its lease is over before it begins")]
    NoLease,
    /// A bound of this module is reached; the controller says it again.
    #[error("this node holds as many attempts as it can remember")]
    Full,
    /// A process was started although that had been forbidden; it is ended again.
    #[error("the attempt was started after it had been given up; it is killed")]
    StartedTooLate,
}
