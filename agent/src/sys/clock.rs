//! What time is it, and how do people here write it?

use std::time::{SystemTime, UNIX_EPOCH};

use penstock_vocab::{Millis, Timestamp};
use rustix::time::{ClockId, clock_gettime};

/// Milliseconds since boot, sleep included (`CLOCK_BOOTTIME`).
pub(crate) fn boottime() -> Millis {
    let now = clock_gettime(ClockId::Boottime);
    let secs = u64::try_from(now.tv_sec).unwrap_or(0);
    let millis = u64::try_from(now.tv_nsec / 1_000_000).unwrap_or(0);
    Millis::from_secs(secs).saturating_add(Millis(millis))
}

/// The wall clock, in milliseconds since the epoch; 0 for a clock set before it.
pub(crate) fn wall_clock() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// `2024-05-01T10:00:00` in the machine's zone; the epoch's second count if the year is beyond
/// what the C library can say.
pub(crate) fn local_time_text(time: Timestamp) -> String {
    let secs = time.as_secs();
    // SAFETY: `tm` holds integers and a pointer; all bits zero is a valid value of it.
    let mut tm: libc::tm = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are valid for the call, and localtime_r keeps neither.
    let filled = unsafe { libc::localtime_r(&raw const secs, &raw mut tm) };
    if filled.is_null() {
        return secs.to_string();
    }
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}",
        i64::from(tm.tm_year) + 1900,
        tm.tm_mon + 1,
        tm.tm_mday,
        tm.tm_hour,
        tm.tm_min,
        tm.tm_sec
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_time_has_the_form_of_slurm() {
        let text = local_time_text(Timestamp::from_secs(1_714_557_600));
        assert_eq!(text.len(), "2024-05-01T10:00:00".len());
        assert!(text.starts_with("2024-05-01T") || text.starts_with("2024-04-30T"), "{text}");
    }

    #[test]
    fn boottime_moves_forward() {
        let before = boottime();
        assert!(before > Millis::ZERO);
        assert!(boottime() >= before);
    }
}
