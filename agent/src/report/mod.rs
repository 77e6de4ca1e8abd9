//! How busy is this machine just now?
//!
//! What a heartbeat tells: one system call a heartbeat, no file is opened.

use penstock_vocab::Mib;

/// Load and free memory at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Vitals {
    /// Load average over the last minute, times 100, as Slurm's `CPULoad`.
    pub load_centi: u32,
    /// Memory that nothing uses, not even a cache, as Slurm's `FreeMem`; rounded down.
    pub free_memory: Mib,
}

impl Vitals {
    /// Asks the kernel; zeros if it does not answer, which a working Linux never does.
    #[must_use]
    pub fn now() -> Self {
        nix::sys::sysinfo::sysinfo().map_or_else(
            |_| Self::default(),
            |info| Self {
                load_centi: centi(info.load_average().0),
                free_memory: Mib(info.ram_unused() >> 20),
            },
        )
    }
}

/// Hundredths, rounded; 0 for what is no load.
fn centi(load: f64) -> u32 {
    let scaled = (load * 100.0).round().clamp(0.0, f64::from(u32::MAX));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "clamped to the range; a NaN becomes 0"
    )]
    let whole = scaled as u32;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn load_is_given_in_hundredths() {
        for (load, expect) in
            [(0.0, 0), (0.004, 0), (1.0, 100), (12.345, 1_235), (-1.0, 0), (f64::NAN, 0)]
        {
            assert_eq!(centi(load), expect, "{load}");
        }
    }

    #[test]
    fn this_machine_has_some_free_memory() {
        assert!(Vitals::now().free_memory > Mib(0));
    }
}
