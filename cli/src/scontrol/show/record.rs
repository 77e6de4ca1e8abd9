//! How is a record laid out?

use crate::listing::push_printable;

/// A record that is written word by word.
#[derive(Debug)]
pub(super) struct Record {
    text: String,
    oneline: bool,
}

impl Record {
    /// An empty record; `oneline`: all of it on one line.
    pub(super) const fn new(oneline: bool) -> Self {
        Self { text: String::new(), oneline }
    }

    /// Appends text to the line; there are no control characters in it afterwards.
    pub(super) fn push(&mut self, text: &str) {
        push_printable(&mut self.text, text);
    }

    /// Begins the next line.
    pub(super) fn next_line(&mut self) {
        self.text.push_str(if self.oneline { " " } else { "\n   " });
    }

    /// Begins the next line with `text`.
    pub(super) fn line(&mut self, text: &str) {
        self.next_line();
        self.push(text);
    }

    /// The whole record with what ends it.
    pub(super) fn finish(mut self) -> String {
        self.text.push_str(if self.oneline { "\n" } else { "\n\n" });
        self.text
    }
}
