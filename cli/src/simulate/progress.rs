//! How does a person see that a long replay goes on?
//!
//! One line on standard error, only where that is a terminal and the replay takes longer than a
//! moment; it is gone when the replay is over. What is printed to standard output does not depend on
//! it.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// Nothing is shown before.
const FIRST: Duration = Duration::from_millis(700);
const EVERY: Duration = Duration::from_millis(200);
const WIDTH: usize = 40;

/// The line.
pub(super) struct Progress {
    title: String,
    total: usize,
    next: Option<Instant>,
    shown: bool,
}

impl Progress {
    /// A line for `total` jobs.
    pub(super) fn new(title: &str, total: usize) -> Self {
        let next = std::io::stderr().is_terminal().then(|| Instant::now() + FIRST);
        Self { title: title.to_owned(), total, next, shown: false }
    }

    /// So many jobs have ended.
    pub(super) fn at(&mut self, done: usize) {
        // The clock is read once in a while only: a replay has up to a million instants a second.
        if !done.is_multiple_of(16) || self.next.is_none_or(|next| Instant::now() < next) {
            return;
        }
        self.next = Some(Instant::now() + EVERY);
        self.shown = true;
        write(&format!("\r{}", line(&self.title, done, self.total)));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            write("\r\x1b[K");
        }
    }
}

fn line(title: &str, done: usize, total: usize) -> String {
    let total = total.max(1);
    let full = (done.min(total)) * WIDTH / total;
    format!("{title} [{}{}] {done} of {total} jobs", "#".repeat(full), ".".repeat(WIDTH - full))
}

fn write(text: &str) {
    let mut out = std::io::stderr().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bar_fills_and_survives_odd_numbers() {
        assert!(line("easy", 0, 4).starts_with("easy [........"));
        assert!(line("easy", 4, 4).ends_with("#] 4 of 4 jobs"));
        assert!(line("easy", 9, 4).ends_with("#] 9 of 4 jobs"));
        line("easy", 0, 0);
    }
}
