//! What does the supervisor's owner want of this machine, and who does it?

use penstock_proto::v1;
use penstock_supervisor::{AttemptKey, EndCause, SignalRequest, TimeLimit};
use penstock_vocab::Millis;

use crate::launch::{Part, Spool, SpoolError};

/// One thing to do, as the supervisor said it (see [`penstock_supervisor::Output`]).
#[derive(Debug)]
pub(crate) enum HostCommand {
    /// From now on, leases count from this time of `CLOCK_BOOTTIME`.
    Renew(Millis),
    /// Start the attempt.
    Start(Box<Part>),
    /// Make sure that an unclaimed attempt never starts.
    TakeLock(AttemptKey),
    /// End it; the number is the wait between SIGTERM and SIGKILL in seconds.
    Terminate(AttemptKey, EndCause, u32),
    /// Send it a signal.
    Signal(AttemptKey, SignalRequest),
    /// Give it another time limit.
    SetLimit(AttemptKey, TimeLimit),
    /// Stop it, or let it go on.
    Suspend(AttemptKey, bool),
    /// Have the shepherd of a step connect to one more listener.
    Attach(Box<v1::AttachListener>),
    /// Measure what it uses.
    Measure(v1::MeasurePart),
    /// Hand the shepherd of a step what its maker has for it.
    Relay(Box<v1::RelayFrame>),
    /// Tell whoever runs it something, on its stderr.
    Notice(Box<v1::Notice>),
    /// Forget it, or its tombstone.
    Forget(AttemptKey),
    /// Keep that it must never start.
    Bury(AttemptKey),
}

/// Why a command was not taken; nothing was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotTaken {
    /// Too many wait; say it again soon.
    Busy,
    /// Nobody takes any more.
    Closed,
}

/// Carries out commands in order, without waiting for any of them.
pub(crate) trait Launcher: Send + 'static {
    /// Takes `command`; its outcome is an event, if it has one.
    fn take(&mut self, command: &HostCommand) -> Result<(), NotTaken>;
}

impl Launcher for Spool {
    fn take(&mut self, command: &HostCommand) -> Result<(), NotTaken> {
        let taken = match command {
            HostCommand::Renew(since) => self.renew(*since),
            // Script and environment are shared, so that the copy is small.
            HostCommand::Start(part) => self.start(Part::clone(part)),
            HostCommand::TakeLock(key) => self.take_lock(*key),
            HostCommand::Terminate(key, cause, kill_wait_secs) => {
                self.terminate(*key, *cause, *kill_wait_secs)
            }
            HostCommand::Signal(key, request) => self.signal(*key, *request),
            HostCommand::SetLimit(key, limit) => self.set_limit(*key, *limit),
            HostCommand::Suspend(key, suspend) => self.suspend(*key, *suspend),
            HostCommand::Attach(listener) => self.attach(v1::AttachListener::clone(listener)),
            HostCommand::Measure(part) => self.measure(*part),
            HostCommand::Relay(frame) => self.relay(v1::RelayFrame::clone(frame)),
            HostCommand::Notice(notice) => self.notice(v1::Notice::clone(notice)),
            HostCommand::Forget(key) => self.forget(*key),
            HostCommand::Bury(key) => self.bury(*key),
        };
        taken.map_err(|error| match error {
            SpoolError::Busy => NotTaken::Busy,
            SpoolError::Closed | SpoolError::Folder { .. } | SpoolError::Thread(_) => {
                NotTaken::Closed
            }
        })
    }
}
