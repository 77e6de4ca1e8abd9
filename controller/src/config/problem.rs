//! How is a mistake in a file said, so that it can be found and mended?

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file can't be used.
    Error,
    /// Probably not what was meant; daemons start all the same.
    Warning,
    /// Allowed, and worth knowing.
    Note,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        })
    }
}

/// One thing that is wrong with, or worth knowing of, a file. Orders by place.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The file, as it was named.
    pub path: PathBuf,
    /// Line, from 1.
    pub line: usize,
    /// Column in letters, from 1.
    pub column: usize,
    /// How much it matters.
    pub severity: Severity,
    /// What is wrong, with the value, and what to do.
    pub message: String,
}

/// `FILE:LINE:COLUMN: error: MESSAGE`, the form that editors jump to.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, line, column, severity, message } = self;
        write!(f, "{}:{line}:{column}: {severity}: {message}", path.display())
    }
}

/// The problems of one file, gathered while it is read.
pub(super) struct Problems<'a> {
    path: &'a Path,
    text: &'a str,
    list: Vec<Problem>,
}

impl<'a> Problems<'a> {
    pub(super) fn new(path: &'a Path, text: &'a str) -> Self {
        Self { path, text, list: Vec::new() }
    }

    pub(super) fn error(&mut self, at: &Range<usize>, message: impl Into<String>) {
        self.add(Severity::Error, at, message.into());
    }

    pub(super) fn warning(&mut self, at: &Range<usize>, message: impl Into<String>) {
        self.add(Severity::Warning, at, message.into());
    }

    pub(super) fn note(&mut self, at: &Range<usize>, message: impl Into<String>) {
        self.add(Severity::Note, at, message.into());
    }

    fn add(&mut self, severity: Severity, at: &Range<usize>, message: String) {
        let (line, column) = self.place(at.start);
        self.list.push(Problem { path: self.path.to_owned(), line, column, severity, message });
    }

    /// The line (from 1) on which byte `at` of the file lies.
    pub(super) fn line(&self, at: usize) -> usize {
        self.place(at).0
    }

    fn place(&self, at: usize) -> (usize, usize) {
        let mut at = at.min(self.text.len());
        while !self.text.is_char_boundary(at) {
            at -= 1;
        }
        let before = &self.text[..at];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = before.matches('\n').count() + 1;
        (line, before[line_start..].chars().count() + 1)
    }

    pub(super) fn has_errors(&self) -> bool {
        self.list.iter().any(|problem| problem.severity == Severity::Error)
    }

    /// The problems in the order of their places.
    pub(super) fn into_sorted(self) -> Vec<Problem> {
        let mut list = self.list;
        list.sort();
        list.dedup();
        list
    }
}

/// The word of `known` that `typed` most likely meant, if one is near.
pub(super) fn nearest<'k>(typed: &str, known: &[&'k str]) -> Option<&'k str> {
    let most = (typed.chars().count() / 3).max(1) + 1;
    let near = known.iter().map(|word| (edits(typed, word), *word)).min();
    near.filter(|(count, _)| *count <= most).map(|(_, word)| word)
}

/// Letters to insert, delete or change to make `b` of `a`; a swap counts two. O(len a x len b),
/// where a key of a file is short; words beyond 64 letters are near to nothing.
fn edits(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, letter) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in b.iter().enumerate() {
            let change = diagonal + usize::from(letter != other);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_key_is_found_and_far_ones_are_not() {
        let known = ["max_time", "max_nodes", "default_time", "name"];
        assert_eq!(nearest("max_tme", &known), Some("max_time"));
        assert_eq!(nearest("MaxTime", &known), Some("max_time"));
        assert_eq!(nearest("nmae", &known), Some("name"));
        assert_eq!(nearest("color", &known), None);
    }

    #[test]
    fn place_counts_letters_and_not_bytes() {
        let text = "a = 1\näö = 2\n";
        let problems = Problems::new(Path::new("f"), text);
        assert_eq!(problems.place(0), (1, 1));
        let at = text.find("= 2").expect("is there");
        assert_eq!(problems.place(at), (2, 4));
        assert_eq!(problems.place(text.len() + 5), (3, 1));
    }
}
