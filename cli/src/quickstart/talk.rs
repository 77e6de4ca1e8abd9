//! Where does quickstart say what it does?

use std::io::{self, Write as _};

use super::options::Mode;

/// Where words go. A reader that has gone keeps no cluster from being stopped in order, so a failed
/// write is no failure.
#[derive(Debug, Clone, Copy)]
pub(super) struct Talk {
    to_stdout: bool,
}

impl Talk {
    /// With `--detach` standard output belongs to the shell's `eval`.
    pub(super) fn new(mode: Mode) -> Self {
        Self { to_stdout: mode != Mode::Detach }
    }

    /// Says one line or several.
    pub(super) fn say(self, text: &str) {
        let text = format!("{}\n", text.trim_end_matches('\n'));
        if self.to_stdout {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
        } else {
            self.warn(text.trim_end_matches('\n'));
        }
    }

    /// Says what somebody should know who sees only standard error.
    pub(super) fn warn(self, text: &str) {
        crate::output::note(text);
    }
}
