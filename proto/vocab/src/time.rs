//! What is a point in time, and how far are two of them apart?
//!
//! No clock is read here and no time zone is known: a [`Timestamp`] comes from outside, and
//! arithmetic saturates instead of wrapping.

use std::fmt;

/// Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(pub i64);

/// A length of time in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

const MILLIS_PER_SEC: u64 = 1000;

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);
    /// The latest time there is; stands for "never".
    pub const MAX: Self = Self(i64::MAX);

    /// The start of a second, capped at the ends of the range.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1000))
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Time from `earlier` until here; zero if `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Millis {
        if self.0 > earlier.0 { Millis(self.0.abs_diff(earlier.0)) } else { Millis(0) }
    }

    /// This time and `length` more, capped at [`Self::MAX`].
    #[must_use]
    pub const fn plus(self, length: Millis) -> Self {
        Self(self.0.saturating_add_unsigned(length.0))
    }

    /// `length` before this time, capped at the start of the range.
    #[must_use]
    pub const fn minus(self, length: Millis) -> Self {
        Self(self.0.saturating_sub_unsigned(length.0))
    }

    /// This time and `secs` seconds more, capped at [`Self::MAX`].
    #[must_use]
    pub const fn plus_secs(self, secs: u64) -> Self {
        self.plus(Millis::from_secs(secs))
    }

    /// `secs` seconds before this time, capped at the start of the range.
    #[must_use]
    pub const fn minus_secs(self, secs: u64) -> Self {
        self.minus(Millis::from_secs(secs))
    }
}

impl Millis {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// So many seconds, capped at the range.
    #[must_use]
    pub const fn from_secs(secs: u64) -> Self {
        Self(secs.saturating_mul(MILLIS_PER_SEC))
    }

    /// Whole seconds, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> u64 {
        self.0 / MILLIS_PER_SEC
    }

    /// Whole seconds, rounded up.
    #[must_use]
    pub const fn as_secs_rounded_up(self) -> u64 {
        self.0.div_ceil(MILLIS_PER_SEC)
    }

    /// Sum, capped at the range.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Difference, at least zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The same length for the standard library's timers.
    #[must_use]
    pub const fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0)
    }
}

/// Whole seconds since the epoch and milliseconds: `1700000000.250`. For logs and errors; tools
/// print local time themselves.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, size) = (if self.0 < 0 { "-" } else { "" }, self.0.unsigned_abs());
        write!(f, "{sign}{}.{:03}", size / MILLIS_PER_SEC, size % MILLIS_PER_SEC)
    }
}

/// Seconds and milliseconds: `1.250s`.
impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}s", self.0 / MILLIS_PER_SEC, self.0 % MILLIS_PER_SEC)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_stops_at_the_ends() {
        assert_eq!(Timestamp::MAX.plus_secs(1), Timestamp::MAX);
        assert_eq!(Timestamp(i64::MIN).minus_secs(1), Timestamp(i64::MIN));
        assert_eq!(Timestamp::from_secs(i64::MAX), Timestamp::MAX);
        assert_eq!(Timestamp(5).since(Timestamp(9)), Millis::ZERO);
        assert_eq!(Timestamp(i64::MAX).since(Timestamp(i64::MIN)), Millis(u64::MAX));
    }

    #[test]
    fn seconds_round_down() {
        assert_eq!(Timestamp(1999).as_secs(), 1);
        assert_eq!(Timestamp(-1).as_secs(), -1);
        assert_eq!((Millis(1999).as_secs(), Millis(1001).as_secs_rounded_up()), (1, 2));
        assert_eq!(Timestamp(1500).plus_secs(2), Timestamp(3500));
    }

    #[test]
    fn times_print_with_milliseconds() {
        assert_eq!(Timestamp(-1500).to_string(), "-1.500");
        assert_eq!(Millis(1250).to_string(), "1.250s");
    }
}
