//! What are jobs, tasks, users and nodes called?
//!
//! Numbers and names get a type each, so that none is taken for another.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::MAX_NAME_LEN;

/// Why a text is no id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {text:?} is not a number in range")]
pub struct IdError {
    /// Which kind of id: `job id`, `user id`, ...
    pub what: &'static str,
    /// The text as given.
    pub text: String,
}

/// Why a text is no name of a node or partition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing given.
    #[error("{what} name is empty")]
    Empty {
        /// `node` or `partition`.
        what: &'static str,
    },
    /// Longer than [`MAX_NAME_LEN`].
    #[error("{what} name has {len} bytes, at most {MAX_NAME_LEN} are allowed")]
    TooLong {
        /// `node` or `partition`.
        what: &'static str,
        /// Its length in bytes.
        len: usize,
    },
    /// A letter that would be ambiguous in lists or on command lines.
    #[error(
        "{what} name {text:?} has {letter:?}; use letters, digits and '_', inside also '-' and '.'"
    )]
    Letter {
        /// `node` or `partition`.
        what: &'static str,
        /// The text as given.
        text: String,
        /// The first letter that is not allowed.
        letter: char,
    },
}

/// Reads decimal digits only: no sign, no blank.
pub(crate) fn plain_number<T: FromStr>(digits: &str) -> Option<T> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    if plain { digits.parse().ok() } else { None }
}

/// Checks a name against the letters and the length that lists can carry.
pub(crate) fn check_name(what: &'static str, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > MAX_NAME_LEN {
        return Err(NameError::TooLong { what, len: text.len() });
    }
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    // A name that begins like an option or a hidden file is a trap on command lines.
    let first = text.chars().next().filter(|c| matches!(c, '-' | '.'));
    match first.or_else(|| text.chars().find(|&c| !allowed(c))) {
        Some(letter) => Err(NameError::Letter { what, text: text.to_owned(), letter }),
        None => Ok(()),
    }
}

macro_rules! number_ids {
    ($( $(#[$meta:meta])* $name:ident($inner:ty), $what:literal; )+) => { $(
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let error = || IdError { what: $what, text: text.to_owned() };
                plain_number(text).map(Self).ok_or_else(error)
            }
        }

        impl From<$name> for $inner {
            fn from(id: $name) -> Self {
                id.0
            }
        }
    )+ };
}

number_ids! {
    /// The number of a job, unique on a cluster; the controller hands out 1 and up.
    JobId(u32), "job id";
    /// The index of a task in its job array, 0..=[`crate::MAX_ARRAY_INDEX`].
    ArrayTaskId(u32), "array task id";
    /// A Unix user id.
    UserId(u32), "user id";
    /// A Unix group id.
    GroupId(u32), "group id";
    /// Which run of a job this is: 0 for the first, one more after every requeue.
    Attempt(u32), "attempt";
    /// One connection of a client or agent to a controller, unique within a term.
    SessionId(u64), "session id";
}

impl Attempt {
    /// The run after this one; stays at the end of the range.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

macro_rules! names {
    ($( $(#[$meta:meta])* $name:ident, $what:literal; )+) => { $(
        $(#[$meta])*
        ///
        /// ASCII letters, digits, `_`, and behind the first also `-` and `.`; 1..=[`MAX_NAME_LEN`]
        /// bytes. Cloning is cheap.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Takes `text` as a name.
            ///
            /// # Errors
            /// When it is empty, too long, or has a letter that lists cannot carry.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check_name($what, text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $name {
            type Error = NameError;

            fn try_from(text: &str) -> Result<Self, Self::Error> {
                Self::new(text)
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                &*self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                &*self.0 == *other
            }
        }
    )+ };
}

names! {
    /// The name of a node.
    NodeName, "node";
    /// The name of a partition.
    PartitionName, "partition";
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::collections::BTreeMap;

    #[test]
    fn ids_are_plain_numbers() {
        assert_eq!("12".parse(), Ok(JobId(12)));
        assert_eq!(JobId(12).to_string(), "12");
        for text in ["", "+1", "-1", "1 ", "4294967296", "x"] {
            assert!(text.parse::<JobId>().is_err(), "{text:?}");
        }
        assert_eq!("18446744073709551615".parse(), Ok(SessionId(u64::MAX)));
        assert_eq!(Attempt(u32::MAX).next(), Attempt(u32::MAX));
    }

    #[test]
    fn names_hold_what_lists_can_carry() {
        for text in ["n1", "gpu-01.site_a", "7"] {
            assert_eq!(NodeName::new(text).expect("valid"), text);
        }
        for text in ["", "n[1]", "a,b", "a b", "é", "a/b", "-n1", ".x", &"x".repeat(256)] {
            assert!(PartitionName::new(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_map_by_name_answers_to_text() {
        let map = BTreeMap::from([(NodeName::new("n1").expect("valid"), 1)]);
        assert_eq!(map.get("n1"), Some(&1));
    }
}
