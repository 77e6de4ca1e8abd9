//! Which jobs must start or end before this one may?
//!
//! `TYPE:ID[:ID...]` joined by `,` (all must hold) or `?` (one suffices), as sbatch(1) has it.

use std::fmt;

use penstock_vocab::{ArrayTaskId, JobId};

/// Most jobs that one dependency may name.
const MAX_TERMS: usize = 1_000;

/// Why a dependency can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DependencyError {
    /// A type that exists in Slurm and is not built here.
    #[error(
        "dependency type {kind:?} is not known here; use after, afterany, afterok, afternotok, \
         aftercorr or singleton"
    )]
    Unsupported {
        /// The type.
        kind: String,
    },
    /// Not of the form `TYPE:ID[:ID...]`.
    #[error("dependency {text:?} is not of the form TYPE:JOBID[:JOBID...][,TYPE:...]")]
    Malformed {
        /// The part that is wrong.
        text: String,
    },
    /// Both `,` and `?`.
    #[error("dependency {text:?} joins with both ',' and '?'")]
    Mixed {
        /// The whole text.
        text: String,
    },
    /// Names too many jobs.
    #[error("dependency names {count} jobs, at most {MAX_TERMS} are allowed")]
    TooMany {
        /// How many.
        count: usize,
    },
}

/// When a term holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum DependencyKind {
    /// The job started or was cancelled, this many minutes ago.
    After {
        /// Minutes.
        minutes: u32,
    },
    /// It ended, however.
    AfterAny,
    /// It ended with success.
    AfterOk,
    /// It ended without success.
    AfterNotOk,
    /// For a task of an array: the task of the same index in the other array ended with success. As
    /// `AfterOk` where either is no array.
    AfterCorr,
}

/// One job that is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Term {
    /// When it holds.
    pub kind: DependencyKind,
    /// The job or array.
    pub job: JobId,
    /// One task of an array.
    pub task: Option<ArrayTaskId>,
}

/// A dependency; the default waits for nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Dependency {
    /// What is waited for.
    pub terms: Box<[Term]>,
    /// One term suffices.
    pub any: bool,
    /// No other job of the same user and name runs, and none of them that was submitted earlier
    /// waits; one more term.
    pub singleton: bool,
}

impl Dependency {
    /// Reads a dependency; empty text waits for nothing.
    ///
    /// # Errors
    /// If the text is malformed, or names a type that is not built.
    pub fn parse(text: &str) -> Result<Self, DependencyError> {
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        let any = text.contains('?');
        if any && text.contains(',') {
            return Err(DependencyError::Mixed { text: text.to_owned() });
        }
        let mut terms = Vec::new();
        let mut singleton = false;
        for part in text.split([',', '?']) {
            if part == "singleton" {
                singleton = true;
            } else {
                parse_part(part, &mut terms)?;
            }
        }
        if terms.len() > MAX_TERMS {
            return Err(DependencyError::TooMany { count: terms.len() });
        }
        Ok(Self { terms: terms.into_boxed_slice(), any, singleton })
    }

    /// Whether nothing is waited for.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.terms.is_empty() && !self.singleton
    }

    /// Whether tasks of one array may wait for different things.
    #[must_use]
    pub fn is_by_task(&self) -> bool {
        self.terms.iter().any(|term| term.kind == DependencyKind::AfterCorr)
    }
}

fn parse_part(part: &str, terms: &mut Vec<Term>) -> Result<(), DependencyError> {
    let malformed = || DependencyError::Malformed { text: part.to_owned() };
    let (kind, ids) = match part.split_once(':') {
        Some((kind, ids)) => (kind, ids),
        None if part.starts_with(|c: char| c.is_ascii_digit()) => ("afterany", part),
        None => return Err(malformed()),
    };
    for id in ids.split(':') {
        let (id, minutes) = match id.split_once('+') {
            Some((id, minutes)) if kind == "after" => {
                (id, minutes.parse().map_err(|_| malformed())?)
            }
            Some(_) => return Err(malformed()),
            None => (id, 0),
        };
        let kind = match kind {
            "after" => DependencyKind::After { minutes },
            "afterany" => DependencyKind::AfterAny,
            "afterok" => DependencyKind::AfterOk,
            "afternotok" => DependencyKind::AfterNotOk,
            "aftercorr" => DependencyKind::AfterCorr,
            "expand" | "afterburstbuffer" => {
                return Err(DependencyError::Unsupported { kind: kind.to_owned() });
            }
            _ => return Err(malformed()),
        };
        let (job, task) = match id.split_once('_') {
            Some((job, "*")) => (job, None),
            Some((job, task)) => (job, Some(task.parse().map_err(|_| malformed())?)),
            None => (id, None),
        };
        let job = job.parse().map_err(|_| malformed())?;
        terms.push(Term { kind, job, task });
    }
    Ok(())
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DependencyKind::After { .. } => "after",
            DependencyKind::AfterAny => "afterany",
            DependencyKind::AfterOk => "afterok",
            DependencyKind::AfterNotOk => "afternotok",
            DependencyKind::AfterCorr => "aftercorr",
        };
        write!(f, "{kind}:{}", self.job)?;
        if let Some(task) = self.task {
            write!(f, "_{task}")?;
        }
        match self.kind {
            DependencyKind::After { minutes } if minutes > 0 => write!(f, "+{minutes}"),
            _ => Ok(()),
        }
    }
}

/// The form that [`Dependency::parse`] reads.
impl fmt::Display for Dependency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, term) in self.terms.iter().enumerate() {
            if i > 0 {
                f.write_str(if self.any { "?" } else { "," })?;
            }
            term.fmt(f)?;
        }
        if self.singleton {
            let joint = if self.any { "?" } else { "," };
            write!(f, "{}singleton", if self.terms.is_empty() { "" } else { joint })?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn print_and_parse_are_inverse() {
        for (text, shown) in [
            ("afterok:12:13", "afterok:12,afterok:13"),
            ("after:5+10,afterany:7_3", "after:5+10,afterany:7_3"),
            ("afternotok:4?afterok:5", "afternotok:4?afterok:5"),
            ("17", "afterany:17"),
            ("afterok:9_*", "afterok:9"),
            ("singleton", "singleton"),
            ("singleton,afterok:3", "afterok:3,singleton"),
            ("aftercorr:3?singleton", "aftercorr:3?singleton"),
        ] {
            let parsed = Dependency::parse(text).unwrap();
            assert_eq!(parsed.to_string(), shown);
            assert_eq!(Dependency::parse(shown).unwrap(), parsed);
        }
    }

    #[test]
    fn odd_text_is_refused() {
        for text in ["afterok", "afterok:", "afterok:x", "foo:1", "afterok:1,afterok:2?afterok:3"] {
            assert!(Dependency::parse(text).is_err(), "{text}");
        }
        let error = Dependency::parse("expand:3").unwrap_err().to_string();
        assert!(error.contains("expand") && error.contains("not known"), "{error}");
    }
}
