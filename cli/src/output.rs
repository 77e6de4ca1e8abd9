//! How does a command print, so that a closed pipe is success and a full disk is not?
//!
//! Data goes to standard output and words to standard error. `println!` panics when its reader has
//! gone (`squeue | head -1`); these functions end the process with status 0 then.

use std::io::{self, ErrorKind, Write as _};

/// Writes `bytes` to standard output at once.
///
/// A reader that has gone ends the process with status 0; any other failure, such as a full disk,
/// ends it with status 1 and a line on standard error.
pub(crate) fn write_bytes(bytes: &[u8]) {
    let mut out = io::stdout().lock();
    if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
        drop(out);
        leave(&error);
    }
}

/// Writes `line` and a newline to standard output; ends the process as [`write_bytes`] does.
pub(crate) fn print_line(line: &str) {
    let mut text = String::with_capacity(line.len() + 1);
    text.push_str(line);
    text.push('\n');
    write_bytes(text.as_bytes());
}

/// Writes `line` and a newline to standard error. Whoever closed standard error wants no words.
pub(crate) fn note(line: &str) {
    let mut text = String::with_capacity(line.len() + 1);
    text.push_str(line);
    text.push('\n');
    io::stderr().write_all(text.as_bytes()).ok();
}

/// Ends the process after a failed write to standard output.
fn leave(error: &io::Error) -> ! {
    if error.kind() == ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    note(&format!("cannot write to standard output: {error}"));
    std::process::exit(1)
}
