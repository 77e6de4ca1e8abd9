//! Until when may jobs run whose node could be cut off without knowing it?
//!
//! An attempt with a lease may run that long from the moment at which the newest heartbeat that
//! the controller acknowledged was *sent*. The controller heard that heartbeat later than it was
//! sent, so what it counts from then on ends later than the lease, whatever the network delays.
//! Here is decided from when the leases count; each shepherd keeps its own ([`crate::ending`]).
//!
//! Invariants: the moment never goes back and never lies ahead of now; it outlives sessions, since
//! a lease is a matter of time and not of a stream.

use penstock_vocab::{Millis, Timestamp};

use crate::io::Output;

/// From when the leases of this node count.
#[derive(Debug)]
pub(crate) struct Leases {
    /// When the newest acknowledged heartbeat or registration was sent.
    since: Option<Timestamp>,
    /// The moment last said; `None`: none, and no attempt needs one.
    said: Option<Option<Timestamp>>,
}

impl Leases {
    pub(crate) const fn new() -> Self {
        Self { since: None, said: None }
    }

    /// Attempts with a lease may be here already: each renewal is said.
    pub(crate) const fn expect(&mut self) {
        self.said = Some(None);
    }

    /// The controller acknowledged what was sent at `sent`. Nobody sends in the future.
    pub(crate) fn renew<L>(&mut self, now: Timestamp, sent: Timestamp, out: &mut Vec<Output<L>>) {
        if sent <= now {
            self.since = self.since.max(Some(sent));
        }
        if self.said.is_some() {
            self.say(out);
        }
    }

    /// Whether an attempt with this `lease` may start at `now`; if so, its shepherd can know it.
    pub(crate) fn grant<L>(
        &mut self,
        now: Timestamp,
        lease: Millis,
        out: &mut Vec<Output<L>>,
    ) -> bool {
        let granted = self.since.is_some_and(|since| now < since.plus(lease));
        if granted {
            self.say(out);
        }
        granted
    }

    fn say<L>(&mut self, out: &mut Vec<Output<L>>) {
        if self.said.flatten() < self.since {
            out.extend(self.since.map(Output::Renew));
        }
        self.said = Some(self.since);
    }
}
