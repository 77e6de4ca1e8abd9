//! What does a job look like from outside?

use std::collections::BTreeMap;

/// The words of `scontrol show job -o`.
#[derive(Debug, Clone)]
pub(crate) struct JobView {
    words: BTreeMap<String, String>,
    line: String,
}

impl JobView {
    /// Reads one line.
    pub(crate) fn parse(line: &str) -> Self {
        let words = line.split_whitespace().filter_map(|word| word.split_once('='));
        let words = words.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Self { words, line: line.to_owned() }
    }

    /// The value of a key.
    #[track_caller]
    pub(crate) fn get(&self, key: &str) -> &str {
        self.words.get(key).unwrap_or_else(|| panic!("no {key} in {}", self.line))
    }

    /// `JobState`.
    pub(crate) fn state(&self) -> &str {
        self.get("JobState")
    }

    /// State, exit code and reason in one, for a single assertion.
    pub(crate) fn end(&self) -> String {
        format!("{} {} {}", self.state(), self.get("ExitCode"), self.get("Reason"))
    }

    /// Whether it has ended and its resources are free.
    pub(crate) fn is_over(&self) -> bool {
        let going = ["PENDING", "RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED"];
        !going.contains(&self.state())
    }
}
