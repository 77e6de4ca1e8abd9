//! How long may a job run, and how are times of day-and-hour length written?
//!
//! Slurm's forms: `M`, `M:S`, `H:M:S`, `D-H`, `D-H:M`, `D-H:M:S`; `0`, `-1`, `UNLIMITED` and
//! `INFINITE` mean no limit. As in Slurm a field may exceed its clock range (`90:00` is 90 minutes).

use std::fmt;
use std::str::FromStr;

use crate::limits::MAX_WALLTIME_MINUTES;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;
const MAX_SECS: u64 = MAX_WALLTIME_MINUTES * MINUTE;

/// A time limit. Orders by length, unlimited last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Walltime {
    /// At most so many seconds; parsing yields 1..=[`MAX_WALLTIME_MINUTES`] minutes' worth.
    Limited(u64),
    /// No limit.
    Unlimited,
}

/// Why a text is no time limit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalltimeError {
    /// No digit at all.
    #[error("time limit is empty; give minutes (90), hours (1:30:00) or days (2-00:00:00)")]
    Empty,
    /// Not of one of Slurm's forms.
    #[error(
        "time limit {text:?} is not understood; give minutes (90), hours (1:30:00) or days (2-00:00:00)"
    )]
    Malformed {
        /// The text as given.
        text: String,
    },
    /// A field, or the whole, beyond its range.
    #[error("time limit {text:?}: {field} is {value}, at most {max} is allowed")]
    OutOfRange {
        /// The text as given.
        text: String,
        /// Which field: `days`, `hours`, `minutes` or `seconds`.
        field: &'static str,
        /// Its value.
        value: u64,
        /// The highest value that is allowed.
        max: u64,
    },
}

impl Walltime {
    /// The limit in whole minutes, seconds rounded up as Slurm does; `None` when unlimited.
    #[must_use]
    pub const fn minutes_rounded_up(self) -> Option<u64> {
        match self {
            Self::Limited(secs) => Some(secs.div_ceil(MINUTE)),
            Self::Unlimited => None,
        }
    }

    /// The limit in seconds; `None` when unlimited.
    #[must_use]
    pub const fn as_secs(self) -> Option<u64> {
        match self {
            Self::Limited(secs) => Some(secs),
            Self::Unlimited => None,
        }
    }

    /// A limit of whole minutes.
    #[must_use]
    pub const fn from_minutes(minutes: u64) -> Self {
        Self::Limited(minutes.saturating_mul(MINUTE))
    }

    /// The limit with seconds rounded up to whole minutes, as the controller keeps it.
    #[must_use]
    pub const fn rounded_up(self) -> Self {
        match self {
            Self::Limited(secs) => Self::from_minutes(secs.div_ceil(MINUTE)),
            Self::Unlimited => Self::Unlimited,
        }
    }

    /// As squeue's TIME_LIMIT prints it: leading units dropped (`10:00`, `1:00:00`), `UNLIMITED`.
    #[must_use]
    pub fn short(self) -> String {
        match self {
            Self::Limited(secs) => elapsed_short(secs),
            Self::Unlimited => "UNLIMITED".to_owned(),
        }
    }
}

/// Reads a time limit. Zero in any form means unlimited.
///
/// # Errors
/// When the text is empty, has none of Slurm's forms, or is beyond [`MAX_WALLTIME_MINUTES`].
pub fn parse_walltime(text: &str) -> Result<Walltime, WalltimeError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(WalltimeError::Empty);
    }
    let no_limit = ["UNLIMITED", "INFINITE", "-1"];
    if no_limit.iter().any(|word| word.eq_ignore_ascii_case(trimmed)) {
        return Ok(Walltime::Unlimited);
    }
    let malformed = || WalltimeError::Malformed { text: text.to_owned() };
    let (days, clock) = match trimmed.split_once('-') {
        Some((days, clock)) => (Some(days), clock),
        None => (None, trimmed),
    };
    let fields: Vec<&str> = clock.split(':').collect();
    let names: &[(&'static str, u64)] = match (days.is_some(), fields.len()) {
        (true, 1) => &[("hours", HOUR)],
        (true, 2) => &[("hours", HOUR), ("minutes", MINUTE)],
        (_, 3) => &[("hours", HOUR), ("minutes", MINUTE), ("seconds", 1)],
        (false, 1) => &[("minutes", MINUTE)],
        (false, 2) => &[("minutes", MINUTE), ("seconds", 1)],
        _ => return Err(malformed()),
    };
    let mut secs = 0;
    let with_days = days.map(|days| (days, ("days", DAY)));
    for (digits, (field, unit)) in
        with_days.into_iter().chain(fields.into_iter().zip(names.iter().copied()))
    {
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(malformed());
        }
        let max = MAX_SECS / unit;
        let value = digits.parse().unwrap_or(u64::MAX);
        if value > max {
            return Err(WalltimeError::OutOfRange { text: text.to_owned(), field, value, max });
        }
        secs += value * unit;
    }
    if secs > MAX_SECS {
        let (value, max) = (secs.div_ceil(MINUTE), MAX_WALLTIME_MINUTES);
        return Err(WalltimeError::OutOfRange {
            text: text.to_owned(),
            field: "minutes",
            value,
            max,
        });
    }
    Ok(if secs == 0 { Walltime::Unlimited } else { Walltime::Limited(secs) })
}

impl FromStr for Walltime {
    type Err = WalltimeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_walltime(text)
    }
}

impl fmt::Display for Walltime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limited(secs) => f.pad(&elapsed_long(*secs)),
            Self::Unlimited => f.pad("UNLIMITED"),
        }
    }
}

/// Seconds as sacct and scontrol print them: `[D-]HH:MM:SS`.
#[must_use]
pub fn elapsed_long(secs: u64) -> String {
    let (days, hours, minutes, secs) = split(secs);
    if days > 0 {
        format!("{days}-{hours:02}:{minutes:02}:{secs:02}")
    } else {
        format!("{hours:02}:{minutes:02}:{secs:02}")
    }
}

/// Seconds as squeue's TIME prints them: `0:05`, `1:02:03`, `2-01:02:03`.
#[must_use]
pub fn elapsed_short(secs: u64) -> String {
    let (days, hours, minutes, secs) = split(secs);
    if days > 0 {
        format!("{days}-{hours:02}:{minutes:02}:{secs:02}")
    } else if hours > 0 {
        format!("{hours}:{minutes:02}:{secs:02}")
    } else {
        format!("{minutes}:{secs:02}")
    }
}

/// Days, hours, minutes and seconds.
const fn split(secs: u64) -> (u64, u64, u64, u64) {
    (secs / DAY, secs / HOUR % 24, secs / MINUTE % 60, secs % MINUTE)
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn every_form_of_slurm_is_read() {
        for (text, secs) in [
            ("90", 5400),
            ("1:30", 90),
            ("1:30:00", 5400),
            ("90:00", 5400),
            ("2-0", 172_800),
            ("2-3", 183_600),
            ("1-2:3", 93_780),
            ("1-2:3:4", 93_784),
            (" 5 ", 300),
            ("0:30", 30),
            ("0-0:1", 60),
        ] {
            assert_eq!(parse_walltime(text), Ok(Walltime::Limited(secs)), "{text:?}");
        }
        for text in ["0", "00:00", "0-0", "UNLIMITED", "unlimited", "Infinite", "-1"] {
            assert_eq!(parse_walltime(text), Ok(Walltime::Unlimited), "{text:?}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        assert_eq!(parse_walltime("  "), Err(WalltimeError::Empty));
        for text in ["x", "1:", ":1", "1-", "-5", "1:2:3:4", "1-2:3:4:5", "1.5", "+3", "1--2", "5m"]
        {
            assert!(
                matches!(parse_walltime(text), Err(WalltimeError::Malformed { .. })),
                "{text:?}"
            );
        }
        for text in ["4294967293", "99999999999999999999", "2982617-0", "2982616-05"] {
            assert!(parse_walltime(text).is_err(), "{text:?}");
        }
        let error = parse_walltime("4294967293").expect_err("beyond the range");
        let expect =
            "time limit \"4294967293\": minutes is 4294967293, at most 4294967292 is allowed";
        assert_eq!(error.to_string(), expect);
    }

    #[test]
    fn seconds_round_up_to_minutes() {
        for (secs, minutes) in [(1, 1), (60, 1), (61, 2)] {
            assert_eq!(Walltime::Limited(secs).minutes_rounded_up(), Some(minutes));
        }
        assert_eq!(Walltime::Unlimited.minutes_rounded_up(), None);
        assert_eq!(Walltime::Limited(61).rounded_up(), Walltime::Limited(120));
    }

    #[test]
    fn lengths_print_long_and_short() {
        for (secs, long, short) in [
            (0, "00:00:00", "0:00"),
            (5, "00:00:05", "0:05"),
            (600, "00:10:00", "10:00"),
            (3723, "01:02:03", "1:02:03"),
            (176_523, "2-01:02:03", "2-01:02:03"),
        ] {
            assert_eq!((elapsed_long(secs).as_str(), elapsed_short(secs).as_str()), (long, short));
        }
        assert_eq!(Walltime::Unlimited.to_string(), "UNLIMITED");
        assert_eq!(Walltime::Limited(600).short(), "10:00");
    }

    #[test]
    fn no_limit_is_longer_than_any() {
        assert!(Walltime::Unlimited > Walltime::Limited(u64::MAX));
    }

    proptest! {
        #[test]
        fn display_reads_back(secs in 1..=MAX_SECS) {
            let limit = Walltime::Limited(secs);
            prop_assert_eq!(limit.to_string().parse(), Ok(limit));
        }

        #[test]
        fn the_short_form_reads_back(secs in 1..=MAX_SECS) {
            prop_assert_eq!(elapsed_short(secs).parse(), Ok(Walltime::Limited(secs)));
        }

        #[test]
        fn no_text_panics(text in "[0-9:\\-]{0,24}") {
            let _outcome = parse_walltime(&text);
        }
    }
}
