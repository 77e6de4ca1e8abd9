//! How do lines in a file get the number of their task (`--label` with `--output=FILE`)?
//!
//! Such a file is written by the shepherd, from the task's pipe: whole lines, each behind the task's
//! number, as wide as the step's highest. The file was opened by the user.

use std::fs::File;
use std::io::Write as _;

/// Longest line that is kept together.
const MAX_LINE: usize = 64 << 10;

/// A file that gets one task's lines.
#[derive(Debug)]
pub(super) struct Labelled {
    file: File,
    label: String,
    /// A line that has no end yet.
    begun: Vec<u8>,
}

impl Labelled {
    /// Of the task `rank` among `count`.
    pub(super) fn new(file: File, rank: u32, count: u32) -> Self {
        let width = count.saturating_sub(1).to_string().len();
        Self { file, label: format!("{rank:width$}: "), begun: Vec::new() }
    }

    /// Writes what is complete. A file that takes nothing any more does not hold up the task.
    pub(super) fn push(&mut self, data: &[u8]) {
        self.begun.extend_from_slice(data);
        let end = match self.begun.iter().rposition(|&byte| byte == b'\n') {
            Some(last) => last + 1,
            None if self.begun.len() >= MAX_LINE => return self.end(),
            None => return,
        };
        let rest = self.begun.split_off(end);
        let lines = std::mem::replace(&mut self.begun, rest);
        self.write(&lines);
    }

    /// No more comes.
    pub(super) fn end(&mut self) {
        if !self.begun.is_empty() {
            self.begun.push(b'\n');
            let lines = std::mem::take(&mut self.begun);
            self.write(&lines);
        }
    }

    fn write(&self, lines: &[u8]) {
        let mut text = Vec::with_capacity(lines.len() + self.label.len());
        for line in lines.split_inclusive(|&byte| byte == b'\n') {
            text.extend_from_slice(self.label.as_bytes());
            text.extend_from_slice(line);
        }
        let _full = (&self.file).write_all(&text);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use super::*;

    #[test]
    fn lines_are_labelled_whole() {
        let mut file = tempfile::tempfile().unwrap();
        let mut labelled = Labelled::new(file.try_clone().unwrap(), 3, 11);
        for piece in ["a", "b\nc\n", "", "no end"] {
            labelled.push(piece.as_bytes());
        }
        labelled.end();
        let mut text = String::new();
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, " 3: ab\n 3: c\n 3: no end\n");
    }
}
