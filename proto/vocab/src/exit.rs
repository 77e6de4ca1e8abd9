//! How did a process end, and how do Slurm's tools write that?

use std::fmt;
use std::str::FromStr;

/// Exit status and ending signal, printed `E:S`. Orders by status, then signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ExitCode {
    /// The status 0..=255 that the process exited with; 0 if a signal ended it.
    pub status: u8,
    /// The signal 1..=127 that ended it; 0 if none. Slurm writes 125 for an OOM kill.
    pub signal: u8,
}

/// Why a text is no exit code.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "exit code {text:?} is not understood; give STATUS:SIGNAL (0:9), status up to 255, signal up to 127"
)]
pub struct ExitCodeError {
    /// The text as given.
    pub text: String,
}

/// Highest signal number that a wait status can hold.
const MAX_SIGNAL: u8 = 0x7f;

impl ExitCode {
    /// Ended well: `0:0`.
    pub const SUCCESS: Self = Self { status: 0, signal: 0 };
    /// What Slurm reports for a job that the kernel's OOM killer ended: `0:125`.
    pub const OUT_OF_MEMORY: Self = Self { status: 0, signal: 125 };

    /// Exited by itself with `status`.
    #[must_use]
    pub const fn exited(status: u8) -> Self {
        Self { status, signal: 0 }
    }

    /// Ended by `signal` (0..=127; higher bits are dropped).
    #[must_use]
    pub const fn signaled(signal: u8) -> Self {
        Self { status: 0, signal: signal & MAX_SIGNAL }
    }

    /// Whether both parts are zero.
    #[must_use]
    pub const fn is_success(self) -> bool {
        self.status == 0 && self.signal == 0
    }

    /// Reads what `wait(2)` returned for a process that ended; the core-dump bit is dropped.
    #[must_use]
    pub const fn from_wait_status(status: i32) -> Self {
        let [low, high, ..] = status.to_le_bytes();
        Self { status: high, signal: low & MAX_SIGNAL }
    }

    /// Inverse of [`Self::from_wait_status`]; also the number in Slurm's JSON (3:0 is 768).
    #[must_use]
    pub const fn to_wait_status(self) -> i32 {
        i32::from_le_bytes([self.signal & MAX_SIGNAL, self.status, 0, 0])
    }

    /// The status that a shell, and srun, exit with for this end: 128 + signal, or the status.
    #[must_use]
    pub const fn shell_status(self) -> u8 {
        if self.signal == 0 { self.status } else { 128 | (self.signal & MAX_SIGNAL) }
    }
}

impl fmt::Display for ExitCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}", self.status, self.signal))
    }
}

impl FromStr for ExitCode {
    type Err = ExitCodeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (status, signal) = text.split_once(':')?;
            let plain = |digits: &str| digits.bytes().all(|b| b.is_ascii_digit());
            if !plain(status) || !plain(signal) {
                return None;
            }
            let signal = signal.parse().ok().filter(|&signal| signal <= MAX_SIGNAL)?;
            Some(Self { status: status.parse().ok()?, signal })
        };
        parse().ok_or_else(|| ExitCodeError { text: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn wait_statuses_are_taken_apart() {
        for (wait, code, text) in [
            (0, ExitCode::SUCCESS, "0:0"),
            (768, ExitCode::exited(3), "3:0"),
            (9, ExitCode::signaled(9), "0:9"),
            (0x80 | 11, ExitCode::signaled(11), "0:11"),
        ] {
            assert_eq!(ExitCode::from_wait_status(wait), code);
            assert_eq!(code.to_string(), text);
        }
        assert_eq!(ExitCode::signaled(9).shell_status(), 137);
        assert_eq!(ExitCode::exited(3).shell_status(), 3);
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "1", ":", "1:", ":1", "256:0", "0:128", "+1:0", "1:2:3", " 1:0"] {
            assert!(text.parse::<ExitCode>().is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn both_forms_read_back(status: u8, signal in 0_u8..128) {
            let code = ExitCode { status, signal };
            prop_assert_eq!(code.to_string().parse(), Ok(code));
            prop_assert_eq!(ExitCode::from_wait_status(code.to_wait_status()), code);
        }
    }
}
