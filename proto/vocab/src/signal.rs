//! Which signal is meant by `USR1`, `SIGUSR1` or `10`, and when does `--signal` send it?
//!
//! Numbers are those of Linux on x86 and ARM.

use std::fmt;
use std::str::FromStr;

use crate::ids::plain_number;
use crate::limits::MAX_SIGNAL_LEAD_SECS;

/// Seconds before the end of a job at which `--signal` sends, where it names none.
pub const DEFAULT_SIGNAL_LEAD_SECS: u16 = 60;

/// Highest signal number of Linux (`SIGRTMAX`).
const MAX_NUMBER: u8 = 64;

/// Names of 1..=31, in the order of their numbers.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2",
    "PIPE", "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG",
    "XCPU", "XFSZ", "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// Other names of signals that have one already.
const ALIASES: [(&str, u8); 4] = [("IOT", 6), ("CLD", 17), ("POLL", 29), ("UNUSED", 31)];

/// A signal number, 1..=64.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signal(u8);

/// Why a text is no signal or no `--signal` value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignalError {
    /// No such name or number.
    #[error("signal {text:?} is unknown; give a name (USR1) or a number from 1 to {MAX_NUMBER}")]
    Unknown {
        /// The text as given.
        text: String,
    },
    /// Letters before the colon other than R and B.
    #[error("signal option {text:?}: only R and B may stand before the colon")]
    Prefix {
        /// The text as given.
        text: String,
    },
    /// Seconds that are no number in range.
    #[error("signal option {text:?}: the seconds behind @ are 0 to {MAX_SIGNAL_LEAD_SECS}")]
    Seconds {
        /// The text as given.
        text: String,
    },
}

impl Signal {
    /// Hang-up.
    pub const HUP: Self = Self(1);
    /// Interrupt.
    pub const INT: Self = Self(2);
    /// Cannot be caught; ends a process.
    pub const KILL: Self = Self(9);
    /// Asks a process to end.
    pub const TERM: Self = Self(15);
    /// Goes on after a stop.
    pub const CONT: Self = Self(18);
    /// Cannot be caught; stops a process.
    pub const STOP: Self = Self(19);
    /// Stops a process unless it declines.
    pub const TSTP: Self = Self(20);

    /// The signal of that number; `None` outside 1..=64.
    #[must_use]
    pub const fn new(number: u8) -> Option<Self> {
        if number >= 1 && number <= MAX_NUMBER { Some(Self(number)) } else { None }
    }

    /// Its number.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }

    /// Its name without `SIG`; `None` for real-time signals.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        NAMES.get(usize::from(self.0) - 1).copied()
    }
}

impl FromStr for Signal {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = || SignalError::Unknown { text: text.to_owned() };
        let upper = text.trim().to_ascii_uppercase();
        if let Some(number) = plain_number(&upper) {
            return Self::new(number).ok_or_else(unknown);
        }
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        let by_name = (1..).zip(NAMES).find(|&(_, known)| known == name).map(|(number, _)| number);
        let by_alias = || ALIASES.iter().find(|(known, _)| *known == name).map(|&(_, n)| n);
        by_name.or_else(by_alias).map(Self).ok_or_else(unknown)
    }
}

/// The name without `SIG`, or the number of a signal that has no name.
impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.pad(name),
            None => self.0.fmt(f),
        }
    }
}

/// The value of `--signal=[R][B]:SIG[@SECS]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SignalSpec {
    /// What is sent.
    pub signal: Signal,
    /// How many seconds before the end of the job; default [`DEFAULT_SIGNAL_LEAD_SECS`].
    pub lead_secs: u16,
    /// `B`: only the batch shell gets it; otherwise all steps but not the shell.
    pub batch_only: bool,
    /// `R`: a job that overlaps a reservation may start, and gets the signal before it begins.
    pub reservation: bool,
}

impl FromStr for SignalSpec {
    type Err = SignalError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (prefix, rest) = match text.split_once(':') {
            None => (None, text),
            Some((prefix, rest)) => (Some(prefix.to_ascii_uppercase()), rest),
        };
        let (reservation, batch_only) = match prefix.as_deref() {
            None => (false, false),
            Some("R") => (true, false),
            Some("B") => (false, true),
            Some("RB" | "BR") => (true, true),
            Some(_) => return Err(SignalError::Prefix { text: text.to_owned() }),
        };
        let (signal, secs) = match rest.split_once('@') {
            None => (rest, None),
            Some((signal, secs)) => (signal, Some(secs)),
        };
        let wrong_secs = || SignalError::Seconds { text: text.to_owned() };
        let lead_secs = match secs {
            None => DEFAULT_SIGNAL_LEAD_SECS,
            Some(digits) => plain_number(digits).ok_or_else(wrong_secs)?,
        };
        Ok(Self { signal: signal.parse()?, lead_secs, batch_only, reservation })
    }
}

/// `[R][B]:SIG@SECS`, without the colon if neither letter is set.
impl fmt::Display for SignalSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reservation {
            f.write_str("R")?;
        }
        if self.batch_only {
            f.write_str("B")?;
        }
        if self.reservation || self.batch_only {
            f.write_str(":")?;
        }
        write!(f, "{}@{}", self.signal, self.lead_secs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn names_and_numbers_mean_the_same() {
        for text in ["USR1", "SIGUSR1", "sigusr1", "usr1", "10", " 10 "] {
            assert_eq!(text.parse::<Signal>().map(Signal::number), Ok(10), "{text:?}");
        }
        for (signal, number, name) in [
            (Signal::HUP, 1, "HUP"),
            (Signal::INT, 2, "INT"),
            (Signal::KILL, 9, "KILL"),
            (Signal::TERM, 15, "TERM"),
            (Signal::CONT, 18, "CONT"),
            (Signal::STOP, 19, "STOP"),
            (Signal::TSTP, 20, "TSTP"),
        ] {
            assert_eq!((signal.number(), signal.name()), (number, Some(name)));
        }
        assert_eq!(Signal::new(31).and_then(Signal::name), Some("SYS"));
        assert_eq!("IOT".parse(), Ok(Signal(6)));
        for text in ["", "foo", "0", "65", "SIG", "-9", "300"] {
            assert!(text.parse::<Signal>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn signal_options_are_read() {
        for (text, expect) in [
            ("USR1", "USR1@60"),
            ("10@30", "USR1@30"),
            ("B:USR2@30", "B:USR2@30"),
            ("b:usr2", "B:USR2@60"),
            ("R:TERM@0", "R:TERM@0"),
            ("BR:TERM@65535", "RB:TERM@65535"),
        ] {
            assert_eq!(
                text.parse::<SignalSpec>().map(|spec| spec.to_string()),
                Ok(expect.to_owned())
            );
        }
        for text in
            ["", "B", "X:USR1", ":USR1", "BB:USR1", "USR1@", "USR1@65536", "USR1@-1", "B:", "@30"]
        {
            assert!(text.parse::<SignalSpec>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn options_read_back(number in 1_u8..=MAX_NUMBER, lead_secs: u16, batch_only: bool, reservation: bool) {
            let signal = Signal::new(number).expect("in range");
            prop_assert_eq!(signal.to_string().parse(), Ok(signal));
            let spec = SignalSpec { signal, lead_secs, batch_only, reservation };
            prop_assert_eq!(spec.to_string().parse(), Ok(spec));
        }
    }
}
