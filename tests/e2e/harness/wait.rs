//! How long does a test wait, and for what?

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Longest wait for anything that should come within a moment; the machine may be busy with other
/// tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `look` finds something.
///
/// # Panics
/// When the deadline passes first; the message says `what` was awaited.
#[track_caller]
pub(crate) fn wait_for<T>(
    what: impl Display,
    deadline: Duration,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < deadline, "waited {deadline:?} in vain until {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until `holds` does; see [`wait_for`].
#[track_caller]
pub(crate) fn wait_until(what: impl Display, deadline: Duration, mut holds: impl FnMut() -> bool) {
    wait_for(what, deadline, || holds().then_some(()));
}
