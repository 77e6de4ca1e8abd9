//! What may be answered when?
//!
//! Group commit as a state machine: commands that wait are run on a working copy, the records they
//! changed are handed out as one commit, and only when that is durable do the answers, the effects
//! and the new snapshot come out. A command that panics is dropped with its copy and handed back, so
//! that one bad input never stops the rest.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use penstock_vocab::Timestamp;

use crate::cluster::Cluster;
use crate::command::{Command, Effect, Outcome, RecordKey, Reply};
use crate::refusal::Refusal;

/// Bounds of one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommitLimits {
    /// Most records.
    pub records: usize,
    /// Most commands.
    pub commands: usize,
}

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was carried out, and that is durable.
    Done(Reply),
    /// It was refused; nothing changed.
    Refused(Refusal),
    /// It panicked; nothing changed.
    Panicked(String),
}

/// A commit to be made durable: records to be written or deleted as they are in `cluster`.
#[derive(Debug)]
pub struct Commit {
    /// Number of this commit, one more than the last.
    pub sequence: u64,
    /// Records that changed; one that is not in `cluster` is to be deleted.
    pub changed: Vec<RecordKey>,
    /// The cluster that the records are in.
    pub cluster: Cluster,
}

/// What comes out of a commit that is durable.
#[derive(Debug)]
pub struct Published<T> {
    /// The new snapshot.
    pub snapshot: Cluster,
    /// Its number.
    pub sequence: u64,
    /// What to do now.
    pub effects: Vec<Effect>,
    /// Answers, in the order of the commands.
    pub answers: Vec<(T, Answer)>,
}

/// A command that panicked, to be kept for whoever mends it.
#[derive(Debug)]
pub struct Poison {
    /// The command, as text.
    pub command: String,
    /// The panic's message.
    pub message: String,
}

/// The ledger. `T` stands for whoever waits for an answer.
#[derive(Debug)]
pub struct Ledger<T> {
    durable: Cluster,
    working: Cluster,
    sequence: u64,
    waiting: VecDeque<(T, Command)>,
    capacity: usize,
    in_flight: Option<InFlight<T>>,
    poison: Vec<Poison>,
}

#[derive(Debug)]
struct InFlight<T> {
    answers: Vec<(T, Answer)>,
    effects: Vec<Effect>,
}

impl<T> Ledger<T> {
    /// A ledger over a cluster whose records are durable up to `sequence`.
    #[must_use]
    pub fn new(cluster: Cluster, sequence: u64, capacity: usize) -> Self {
        Self {
            durable: cluster.clone(),
            working: cluster,
            sequence,
            waiting: VecDeque::new(),
            capacity,
            in_flight: None,
            poison: Vec::new(),
        }
    }

    /// Takes a command in.
    ///
    /// # Errors
    /// Gives both back if as many wait as may.
    pub fn push(&mut self, token: T, command: Command) -> Result<(), (T, Command)> {
        if self.waiting.len() >= self.capacity {
            return Err((token, command));
        }
        self.waiting.push_back((token, command));
        Ok(())
    }

    /// Whether a commit could be begun.
    #[must_use]
    pub fn has_work(&self) -> bool {
        self.in_flight.is_none() && !self.waiting.is_empty()
    }

    /// Runs commands that wait and hands out what they changed: no more records than the limit, but
    /// for a single command that alone changes more. `None` while a commit is in flight
    /// or nothing waits. A commit that changes no record need not be written, but must be finished.
    pub fn begin(&mut self, now: Timestamp, limits: CommitLimits) -> Option<Commit> {
        if !self.has_work() {
            return None;
        }
        let mut changed = Vec::new();
        let mut flight = InFlight { answers: Vec::new(), effects: Vec::new() };
        while changed.len() < limits.records && flight.answers.len() < limits.commands {
            let Some((token, command)) = self.waiting.pop_front() else { break };
            let answer = match self.run(now, &command) {
                Ok((next, Ok(outcome))) => {
                    let sum = changed.len() + outcome.changed.len();
                    if sum > limits.records && !changed.is_empty() {
                        // It goes into the next commit; what it came to here is dropped.
                        self.waiting.push_front((token, command));
                        break;
                    }
                    self.working = next;
                    changed.extend(outcome.changed);
                    flight.effects.extend(outcome.effects);
                    Answer::Done(outcome.reply)
                }
                Ok((_, Err(refusal))) => Answer::Refused(refusal),
                Err(message) => {
                    self.poison.push(Poison::new(&command, message.clone()));
                    Answer::Panicked(message)
                }
            };
            flight.answers.push((token, answer));
        }
        changed.sort_unstable();
        changed.dedup();
        if !changed.is_empty() {
            self.sequence += 1;
        }
        self.in_flight = Some(flight);
        Some(Commit { sequence: self.sequence, changed, cluster: self.working.clone() })
    }

    /// Runs a command on a copy, which is dropped if it panics, so that nothing half-done is ever
    /// seen; then the panic's message is the error.
    fn run(
        &self,
        now: Timestamp,
        command: &Command,
    ) -> Result<(Cluster, Result<Outcome, Refusal>), String> {
        let mut next = self.working.clone();
        // Cheap: what is large in a command is shared.
        let command = command.clone();
        catch_unwind(AssertUnwindSafe(|| {
            let outcome = next.execute(now, command);
            (next, outcome)
        }))
        .map_err(|panic| {
            panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned())
                .unwrap_or_default()
        })
    }

    /// The store counts further than the commits made here (its own upkeep has numbers too).
    pub fn advance_to(&mut self, sequence: u64) {
        self.sequence = self.sequence.max(sequence);
    }

    /// The commit in flight is durable: its answers may go out.
    ///
    /// # Panics
    /// If none is in flight, which is a bug of the caller.
    pub fn finish(&mut self) -> Published<T> {
        let flight = self.in_flight.take().expect("finish is called once for each begin");
        self.durable = self.working.clone();
        Published {
            snapshot: self.durable.clone(),
            sequence: self.sequence,
            effects: flight.effects,
            answers: flight.answers,
        }
    }

    /// The commit in flight was not applied, and that is known: nothing of it happened.
    pub fn abort(&mut self, changed: bool) -> Vec<T> {
        let Some(flight) = self.in_flight.take() else { return Vec::new() };
        self.working = self.durable.clone();
        if changed {
            self.sequence -= 1;
        }
        flight.answers.into_iter().map(|(token, _)| token).collect()
    }

    /// Commands that panicked since the last call.
    pub fn take_poison(&mut self) -> Vec<Poison> {
        std::mem::take(&mut self.poison)
    }

    /// The cluster as it is durable.
    #[must_use]
    pub fn durable(&self) -> &Cluster {
        &self.durable
    }

    /// Number of the newest commit.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.sequence
    }
}

impl Poison {
    /// Longest text that is kept of a command, in bytes.
    const MAX_TEXT: usize = 16 << 10;

    fn new(command: &Command, message: String) -> Self {
        let mut text = format!("{command:?}");
        let mut end = text.len().min(Self::MAX_TEXT);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        Self { command: text, message }
    }
}
