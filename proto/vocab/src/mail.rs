//! Of which events does a user want mail?
//!
//! `--mail-type` as sbatch(1) has it. Bits are Slurm's, so that scripts that read them find theirs.

use std::fmt;
use std::str::FromStr;

/// Events of which the user of a job is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MailTypes(u32);

/// Names in the order in which Slurm prints them.
const NAMES: [(u32, &str); 11] = [
    (0x0200, "ARRAY_TASKS"),
    (0x0400, "INVALID_DEPEND"),
    (0x0001, "BEGIN"),
    (0x0002, "END"),
    (0x0004, "FAIL"),
    (0x0008, "REQUEUE"),
    (0x0100, "STAGE_OUT"),
    (0x0080, "TIME_LIMIT_50"),
    (0x0040, "TIME_LIMIT_80"),
    (0x0020, "TIME_LIMIT_90"),
    (0x0010, "TIME_LIMIT"),
];

/// What `ALL` stands for.
const ALL: u32 = 0x0400 | 0x0001 | 0x0002 | 0x0004 | 0x0008 | 0x0100;

/// The text is no list of events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no event; give BEGIN, END, FAIL, REQUEUE, ALL, NONE, TIME_LIMIT, \
         TIME_LIMIT_90, TIME_LIMIT_80, TIME_LIMIT_50, ARRAY_TASKS, INVALID_DEPEND or STAGE_OUT"
)]
pub struct MailTypeError {
    /// What was given.
    pub text: String,
}

impl MailTypes {
    /// For each task of an array instead of the array.
    pub const ARRAY_TASKS: Self = Self(0x0200);
    /// Its dependency can never be met.
    pub const INVALID_DEPEND: Self = Self(0x0400);
    /// It started.
    pub const BEGIN: Self = Self(0x0001);
    /// It ended.
    pub const END: Self = Self(0x0002);
    /// It failed.
    pub const FAIL: Self = Self(0x0004);
    /// It runs again.
    pub const REQUEUE: Self = Self(0x0008);
    /// It used half of its time.
    pub const TIME_LIMIT_50: Self = Self(0x0080);
    /// It used 80 percent.
    pub const TIME_LIMIT_80: Self = Self(0x0040);
    /// It used 90 percent.
    pub const TIME_LIMIT_90: Self = Self(0x0020);
    /// It used all of it.
    pub const TIME_LIMIT: Self = Self(0x0010);

    /// Slurm's number for them.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Inverse of [`MailTypes::bits`]; `None` where a bit is unknown.
    #[must_use]
    pub fn from_bits(bits: u32) -> Option<Self> {
        let known = NAMES.iter().fold(0, |all, (bit, _)| all | bit);
        (bits & !known == 0).then_some(Self(bits))
    }

    /// Whether `other` is among them.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// None at all.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Names joined by commas, in any case; `NONE` takes all before it back. Empty: none.
impl FromStr for MailTypes {
    type Err = MailTypeError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bits = 0;
        for part in text.split(',').filter(|part| !part.is_empty()) {
            let found = NAMES.iter().find(|(_, name)| part.eq_ignore_ascii_case(name));
            bits = match found {
                Some((bit, _)) => bits | bit,
                None if part.eq_ignore_ascii_case("ALL") => bits | ALL,
                None if part.eq_ignore_ascii_case("NONE") => 0,
                None => return Err(MailTypeError { text: part.to_owned() }),
            };
        }
        Ok(Self(bits))
    }
}

/// `NONE`, or as Slurm lists them.
impl fmt::Display for MailTypes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_empty() {
            return f.write_str("NONE");
        }
        let set: Vec<&str> =
            NAMES.iter().filter(|(bit, _)| self.0 & bit != 0).map(|(_, name)| *name).collect();
        f.write_str(&set.join(","))
    }
}

/// Whether mail may be sent to `address`: a name, perhaps with a domain, that a mail program takes
/// for no option, no file and no program.
#[must_use]
pub fn is_mail_address(address: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || "@._+-=".contains(c);
    (1..=254).contains(&address.len()) && !address.starts_with('-') && address.chars().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_sbatch_reads_them() {
        for (text, expect) in [
            ("", "NONE"),
            ("none", "NONE"),
            ("begin,END", "BEGIN,END"),
            ("ALL", "INVALID_DEPEND,BEGIN,END,FAIL,REQUEUE,STAGE_OUT"),
            ("ALL,NONE,FAIL", "FAIL"),
            ("TIME_LIMIT_80,time_limit", "TIME_LIMIT_80,TIME_LIMIT"),
            ("ARRAY_TASKS,END", "ARRAY_TASKS,END"),
        ] {
            let types: MailTypes = text.parse().unwrap();
            assert_eq!(types.to_string(), expect, "{text}");
            assert_eq!(types.to_string().parse(), Ok(types));
            assert_eq!(MailTypes::from_bits(types.bits()), Some(types));
        }
        assert!("BEGINS".parse::<MailTypes>().is_err());
        assert_eq!(MailTypes::from_bits(1 << 20), None);
    }

    #[test]
    fn addresses_are_no_options_files_or_programs() {
        for good in ["root", "a.b+c@example.org"] {
            assert!(is_mail_address(good), "{good}");
        }
        for bad in ["", "-s", "|sh", "/etc/passwd", "a b", "a,b", "a\nb", "~/x", "$(x)"] {
            assert!(!is_mail_address(bad), "{bad}");
        }
    }
}
