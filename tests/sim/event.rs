//! What can happen next in the simulated world?

use penstock_core::command::{AttemptReport, PreemptLine, StartLine};
use penstock_core::ledger::Answer;
use penstock_supervisor::{AttemptKey, AttemptReport as HostReport, HostEvent, Order, Welcome};
use penstock_vocab::{Millis, SessionId, Timestamp};

/// One connection of an agent to the controller; numbers are never used twice.
pub(crate) type Stream = u64;
/// How often something was started; an event of an earlier life is void.
pub(crate) type Life = u64;

/// What a launch carries, as far as the simulated host needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) lease: Option<Millis>,
}

/// From an agent.
#[derive(Debug, Clone)]
pub(crate) enum Upward {
    Register {
        boot: String,
        attempts: Vec<AttemptReport>,
    },
    Report(SessionId, HostReport),
    Drain(SessionId, &'static str),
    /// When it was sent, on the machine's own clock.
    Heartbeat(Timestamp),
}

/// To an agent.
#[derive(Debug, Clone)]
pub(crate) enum Downward {
    Welcome(Welcome),
    Order(SessionId, Order<Payload>),
    Heartbeat { session: SessionId, sent: Timestamp, sequence: u64 },
}

/// Something that happens at its time.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    // The network.
    Up(Stream, Upward),
    Down(Stream, Downward),
    ControllerNotices(Stream),
    AgentNotices(Stream),
    /// A message that lay in the socket of a stopped agent.
    Buffered(Stream, Downward),
    // The controller.
    ControllerStart,
    Commit(Life),
    Plan(Life),
    Starts(Life, Vec<StartLine>),
    Preempts(Life, Vec<PreemptLine>),
    Upkeep(Life),
    // An agent and its machine.
    AgentStart(usize, Life),
    Connect(usize, Life),
    AgentTick(usize, Life),
    Beat(usize, Life),
    Fork(usize, Life, AttemptKey),
    TakeLock(usize, Life, AttemptKey),
    Host(usize, Life, HostEvent),
    Claim(usize, Life, AttemptKey),
    ProcessEnds(usize, Life, AttemptKey),
    KillLands(usize, Life, AttemptKey),
    Boot(usize),
    /// A shepherd's time has come to look at its lease.
    Shepherd(usize, Life, AttemptKey),
    /// An agent that was stopped goes on.
    Continue(usize, Life),
    // Clients and misfortune.
    NewOperation,
    Send(usize),
    Arrives(usize),
    Answered(usize, Answer),
    Misfortune,
    PartitionEnds(usize),
    StoreMends,
    Heal,
    Nurse,
}
