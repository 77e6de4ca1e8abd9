//! What can happen next in the simulated world?

use penstock_core::command::{AttemptReport, PreemptLine, ReshapeLine, StartLine};
use penstock_core::ledger::Answer;
use penstock_core::model::{Gpu, Reshape};
use penstock_supervisor::{AttemptKey, AttemptReport as HostReport, HostEvent, Order, Welcome};
use penstock_vocab::{Millis, SessionId, Timestamp};

/// One connection of an agent to the controller; numbers are never used twice.
pub(crate) type Stream = u64;
/// How often something was started; an event of an earlier life is void.
pub(crate) type Life = u64;

/// What a launch carries, as far as the simulated host needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Payload {
    pub(crate) lease: Option<Millis>,
    pub(crate) slices: Vec<SliceOf>,
}

/// A slice, as a launch names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SliceOf {
    pub(crate) gpu: u32,
    pub(crate) generation: u64,
    pub(crate) uuid: Box<str>,
}

/// From an agent.
#[derive(Debug, Clone)]
pub(crate) enum Upward {
    Register {
        boot: String,
        attempts: Vec<AttemptReport>,
        gpus: Vec<Gpu>,
    },
    /// A GPU as it is now, the generation of the order that is answered, and what was wrong with it.
    Layout(SessionId, Box<Gpu>, u64, String),
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
    Reshape(SessionId, Reshape),
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
    Reshapes(Life, Vec<ReshapeLine>),
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
    /// The driver cuts a GPU, or refuses.
    Cut(usize, Life, usize),
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
