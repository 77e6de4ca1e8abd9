//! What time is it?
//!
//! The controller's time never goes back and never jumps: it is the wall time at the start plus what
//! CLOCK_BOOTTIME counted since, slewed towards the wall clock by at most half a millisecond a
//! second. A wall clock that is off by more than [`STEP`] was set by somebody; that is logged once
//! and taken at the next start.

use std::sync::Mutex;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use penstock_vocab::Timestamp;
use tracing::warn;

/// A difference beyond this, in milliseconds, is a step and is not slewed.
const STEP_MS: i64 = 10_000;
/// Slew: one millisecond in so many.
const SLEW_ONE_IN: i64 = 2_000;

/// The controller's clock.
#[derive(Debug)]
pub struct Clock {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// What to add to the boot time, microseconds.
    offset_us: i64,
    /// Boot time of the last reading, microseconds.
    last_us: i64,
    /// How far the wall clock was off when that was last said, microseconds; 0: it is not.
    said_us: i64,
}

impl Clock {
    /// Starts from the wall clock as it is now.
    #[must_use]
    pub fn start() -> Self {
        let boot = boottime_us();
        let state = State { offset_us: wall_us() - boot, last_us: boot, said_us: 0 };
        Self { state: Mutex::new(state) }
    }

    /// Now, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        state.read(boottime_us(), wall_us())
    }
}

impl State {
    fn read(&mut self, boot_us: i64, wall_us: i64) -> Timestamp {
        let elapsed = (boot_us - self.last_us).max(0);
        self.last_us = self.last_us.max(boot_us);
        let off = wall_us - (self.last_us + self.offset_us);
        if off.abs() > STEP_MS * 1000 {
            if (off - self.said_us).abs() > STEP_MS * 1000 {
                self.said_us = off;
                warn!(
                    off_secs = off / 1_000_000,
                    "the wall clock was set; the controller keeps its own time until it is restarted"
                );
            }
        } else {
            self.said_us = 0;
            let most = elapsed / SLEW_ONE_IN;
            self.offset_us += off.clamp(-most, most);
        }
        Timestamp((self.last_us + self.offset_us) / 1000)
    }
}

fn boottime_us() -> i64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME)
        .map_or(0, |time| time.tv_sec() * 1_000_000 + time.tv_nsec() / 1000)
}

fn wall_us() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| i64::try_from(since.as_micros()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR_US: i64 = 3_600_000_000;

    #[test]
    fn time_never_jumps_and_never_goes_back() {
        let mut state = State { offset_us: 1_000_000_000, last_us: 0, said_us: 0 };
        let mut last = Timestamp(0);
        for second in 1..100i64 {
            let boot = second * 1_000_000;
            // The wall clock jumps an hour ahead at 30 s and an hour back at 60 s.
            let jump = match second {
                30..60 => HOUR_US,
                60.. => -HOUR_US,
                _ => 0,
            };
            let now = state.read(boot, boot + 1_000_000_000 + jump);
            assert!(now > last, "{now} after {last}");
            assert_eq!(now.0, (boot + 1_000_000_000) / 1000);
            last = now;
        }
    }

    #[test]
    fn a_small_difference_is_slewed_by_half_a_millisecond_a_second() {
        let mut state = State { offset_us: 0, last_us: 0, said_us: 0 };
        // The wall clock is 1 s ahead.
        let now = state.read(1_000_000, 2_000_000);
        assert_eq!(now, Timestamp(1000));
        assert_eq!(state.offset_us, 500);
    }
}
