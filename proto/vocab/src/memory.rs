//! How much memory does a text like `4G` ask for, and how is an amount written?
//!
//! The unit is the mebibyte throughout, as in Slurm; all suffixes are powers of 1024.

use std::fmt;
use std::str::FromStr;

/// An amount of memory in MiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Mib(pub u64);

/// Why a text is no amount of memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MemoryError {
    /// Nothing given.
    #[error("memory size is empty; give MiB (4096) or a size with a unit (4G)")]
    Empty,
    /// Not digits and a unit.
    #[error(
        "memory size {text:?} is not understood; give whole MiB (4096) or a size with K, M, G, T or P (4G)"
    )]
    Malformed {
        /// The text as given.
        text: String,
    },
    /// More than 64 bits of MiB.
    #[error("memory size {text:?} is too large")]
    TooLarge {
        /// The text as given.
        text: String,
    },
}

/// Units above MiB, each 1024 times the one before.
const UNITS: [char; 4] = ['M', 'G', 'T', 'P'];

impl Mib {
    /// Bytes, capped at 64 bits.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.0.saturating_mul(1 << 20)
    }

    /// The least whole MiB that hold `bytes`.
    #[must_use]
    pub const fn from_bytes_rounded_up(bytes: u64) -> Self {
        Self(bytes.div_ceil(1 << 20))
    }

    /// The amount exactly, in the largest unit that keeps it whole: `4G`, `1536M`, `0`.
    ///
    /// Inverse of [`parse_memory`], and the form that TRES lists use.
    #[must_use]
    pub fn to_arg(self) -> String {
        if self.0 == 0 {
            return "0".to_owned();
        }
        let (mut amount, mut unit) = (self.0, 0);
        while amount >= 1024 && amount.is_multiple_of(1024) && unit + 1 < UNITS.len() {
            amount /= 1024;
            unit += 1;
        }
        format!("{amount}{}", UNITS[unit])
    }

    /// Sum, capped at 64 bits.
    #[must_use]
    pub const fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// Difference, at least zero.
    #[must_use]
    pub const fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Sum, or `None` beyond 64 bits.
    #[must_use]
    pub fn checked_add(self, other: Self) -> Option<Self> {
        self.0.checked_add(other.0).map(Self)
    }

    /// Difference, or `None` below zero.
    #[must_use]
    pub fn checked_sub(self, other: Self) -> Option<Self> {
        self.0.checked_sub(other.0).map(Self)
    }
}

/// Reads a size: bare digits are MiB; suffix K, M, G, T or P in any case, with an optional `B` or
/// `iB` behind it. Kibibytes round up to whole MiB.
///
/// # Errors
/// When the text is empty, not of that form (fractions and signs are not), or beyond 64 bits.
pub fn parse_memory(text: &str) -> Result<Mib, MemoryError> {
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Err(MemoryError::Empty);
    }
    let malformed = || MemoryError::Malformed { text: text.to_owned() };
    let too_large = || MemoryError::TooLarge { text: text.to_owned() };
    let end = trimmed.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, suffix) = trimmed.split_at(end);
    if digits.is_empty() {
        return Err(malformed());
    }
    let amount: u64 = digits.parse().map_err(|_| too_large())?;
    let mut rest = suffix.chars();
    let unit = rest.next().map(|c| c.to_ascii_uppercase());
    if !["", "b", "ib"].iter().any(|tail| tail.eq_ignore_ascii_case(rest.as_str())) {
        return Err(malformed());
    }
    let Some(unit) = unit else { return Ok(Mib(amount)) };
    if unit == 'K' {
        return Ok(Mib(amount.div_ceil(1024)));
    }
    let power = UNITS.iter().position(|&known| known == unit).ok_or_else(malformed)?;
    let scale = 1_u64 << (10 * power);
    amount.checked_mul(scale).map(Mib).ok_or_else(too_large)
}

impl FromStr for Mib {
    type Err = MemoryError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        parse_memory(text)
    }
}

/// As scontrol prints sizes for people: `0`, `10M`, `4G`, and with two decimals `1.50G`. Not exact;
/// see [`Mib::to_arg`].
impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.pad("0");
        }
        let mut unit = 0;
        let mut scale: u64 = 1;
        while self.0 / scale >= 1024 && unit + 1 < UNITS.len() {
            scale *= 1024;
            unit += 1;
        }
        let (whole, rest) = (self.0 / scale, self.0 % scale);
        let letter = UNITS[unit];
        if rest == 0 {
            return f.pad(&format!("{whole}{letter}"));
        }
        // Whole numbers, and half to even, as printf rounds what it can hold exactly.
        let (scale, exact) = (u128::from(scale), u128::from(rest) * 100);
        let (below, over) = (exact / scale, exact % scale * 2);
        let up = over > scale || (over == scale && below % 2 == 1);
        let total = u128::from(whole) * 100 + below + u128::from(up);
        f.pad(&format!("{}.{:02}{letter}", total / 100, total % 100))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_in_mebibytes() {
        for (text, mib) in [
            ("0", 0),
            ("4096", 4096),
            ("1K", 1),
            ("1025k", 2),
            ("10M", 10),
            ("4G", 4096),
            ("4g", 4096),
            ("4GB", 4096),
            ("4GiB", 4096),
            ("4gib", 4096),
            ("2T", 2 << 20),
            ("1P", 1 << 30),
        ] {
            assert_eq!(parse_memory(text), Ok(Mib(mib)), "{text:?}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        assert_eq!(parse_memory(""), Err(MemoryError::Empty));
        for text in ["G", "1.5G", "-1", "+1", "4X", "4Gi", "4G B", "4BB", "4B", "4iB", "4GG", "4é"]
        {
            assert!(matches!(parse_memory(text), Err(MemoryError::Malformed { .. })), "{text:?}");
        }
        for text in ["99999999999999999999", "99999999999999P"] {
            assert!(matches!(parse_memory(text), Err(MemoryError::TooLarge { .. })), "{text:?}");
        }
    }

    #[test]
    fn sizes_print_as_scontrol_does_and_exactly() {
        for (mib, display, arg) in [
            (0, "0", "0"),
            (10, "10M", "10M"),
            (1023, "1023M", "1023M"),
            (1024, "1G", "1G"),
            (1536, "1.50G", "1536M"),
            (1152, "1.12G", "1152M"),
            (1025, "1.00G", "1025M"),
            (4096, "4G", "4G"),
            (1 << 20, "1T", "1T"),
            (1 << 40, "1024P", "1024P"),
        ] {
            assert_eq!((Mib(mib).to_string().as_str(), Mib(mib).to_arg().as_str()), (display, arg));
        }
    }

    proptest! {
        #[test]
        fn the_exact_form_reads_back(mib: u64, shift in 0_u32..64) {
            let size = Mib(mib >> shift);
            prop_assert_eq!(parse_memory(&size.to_arg()), Ok(size));
        }

        #[test]
        fn the_display_of_round_sizes_reads_back(amount in 1_u64..1024, power in 0_u32..4) {
            let size = Mib(amount << (10 * power));
            prop_assert_eq!(size.to_string().parse(), Ok(size));
        }
    }
}
