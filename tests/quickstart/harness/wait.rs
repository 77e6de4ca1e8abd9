//! How long does a test wait, and for what?

use std::fmt::Display;
use std::time::{Duration, Instant};

/// Longest wait for anything that should come within a moment; the machine may be busy with other
/// tests.
const PATIENCE: Duration = Duration::from_secs(40);

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Waits until `look` finds something.
///
/// # Panics
/// When nothing was found in time; the message says `what` was awaited.
#[track_caller]
pub(crate) fn wait_for<T>(what: impl Display, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain until {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Waits until `holds` does; see [`wait_for`].
#[track_caller]
pub(crate) fn wait_until(what: impl Display, mut holds: impl FnMut() -> bool) {
    wait_for(what, || holds().then_some(()));
}
