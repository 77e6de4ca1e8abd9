//! Which times and nodes do advance reservations leave to a class?

use super::classes::Class;
use super::pool::{Held, Kind, Pool};
use super::profile::end_of;
use crate::cluster::lies_over;
use crate::model::ReservationFlag;

/// What a class has to do with advance reservations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// It names none: whatever one holds is not for it.
    Outside,
    /// It names this one, by its place in [`Pool::reservations`].
    Inside {
        /// Which.
        reservation: u32,
        /// It may run before, after and beside it as well.
        flex: bool,
        /// No other reservation is in its way.
        over: bool,
    },
    /// It names one that does not exist.
    Missing,
}

impl Access {
    /// What a class may use.
    pub(super) fn of(class: &Class, pool: &Pool) -> Self {
        if class.reservation.is_empty() {
            return Self::Outside;
        }
        let found = pool.reservations().iter().position(|r| r.name == class.reservation);
        match found {
            None => Self::Missing,
            Some(at) => {
                let own = &pool.reservations()[at];
                Self::Inside {
                    reservation: u32::try_from(at).unwrap_or(u32::MAX),
                    // One without nodes sets licences aside.
                    flex: own.has(ReservationFlag::Flex) || own.nodes.is_empty(),
                    over: lies_over(own),
                }
            }
        }
    }

    /// Whether it names no reservation.
    pub(super) fn is_outside(self) -> bool {
        self == Self::Outside
    }

    /// The earliest instant from `from` on at which nodes of a kind are not kept from it for
    /// `length`; `None`: never.
    pub(super) fn next(self, pool: &Pool, kind: &Kind, from: i64, length: i64) -> Option<i64> {
        let own = match self {
            Self::Outside => None,
            Self::Missing => return None,
            Self::Inside { reservation, flex, .. } => {
                if !flex && !kind.reservations.contains(&reservation) {
                    return None;
                }
                Some((reservation, flex))
            }
        };
        let over = matches!(self, Self::Inside { over: true, .. });
        let mut start = from;
        // Each turn goes past the end of one time at least, so that this ends.
        loop {
            let mut next = start;
            if let Some((reservation, false)) = own {
                next = within(pool.calendar(reservation), start, length)?;
            }
            for other in kind.reservations.iter().filter(|_| !over) {
                if own.is_none_or(|(own, _)| own != *other) {
                    next = outside(pool.calendar(*other), next, length);
                }
            }
            if next == start {
                return Some(start);
            }
            start = next;
        }
    }

    /// Whether nodes of a kind are not kept from it from `from` on for `length`.
    pub(super) fn allows(self, pool: &Pool, kind: &Kind, from: i64, length: i64) -> bool {
        (kind.reservations.is_empty() && self == Self::Outside)
            || self.next(pool, kind, from, length) == Some(from)
    }

    /// The first reservation that keeps nodes of a kind from it from `from` on for `length`.
    pub(super) fn in_the_way(
        self,
        pool: &Pool,
        kind: &Kind,
        from: i64,
        length: i64,
    ) -> Option<u32> {
        let own = match self {
            Self::Inside { over: true, .. } => return None,
            Self::Inside { reservation, .. } => Some(reservation),
            Self::Outside | Self::Missing => None,
        };
        let touches = |other: &&u32| outside(pool.calendar(**other), from, length) != from;
        kind.reservations.iter().filter(|other| own != Some(**other)).find(touches).copied()
    }
}

/// The earliest start from `from` on that lies within one of these times.
fn within(times: &[Held], from: i64, length: i64) -> Option<i64> {
    let mut starts = times.iter().map(|held| (from.max(held.from), held.until));
    starts.find(|(start, until)| end_of(*start, length) <= *until).map(|(start, _)| start)
}

/// The earliest start from `from` on that touches none of these times.
fn outside(times: &[Held], from: i64, length: i64) -> i64 {
    times.iter().fold(from, |start, held| {
        let touches = held.from < end_of(start, length) && start < held.until;
        if touches { held.until } else { start }
    })
}
