//! In which pieces does the output of many tasks reach one stream?
//!
//! Whole lines, so that tasks do not cut each other's lines in two; with `--label` each line begins
//! with the number of its task. A single task without labels has nobody to mix with: its output goes
//! through as it comes, so that a prompt is seen.

use std::collections::BTreeMap;

/// Bytes of an unfinished line that are held back at most; then they go out as they are.
const MAX_LINE_BYTES: usize = 64 << 10;

/// How the lines of tasks are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Labels {
    width: usize,
}

impl Labels {
    /// Labels as wide as the highest task number of `ntasks`.
    pub(crate) fn for_tasks(ntasks: u32) -> Self {
        Self { width: ntasks.saturating_sub(1).to_string().len() }
    }

    fn push(self, out: &mut Vec<u8>, task: u32) {
        let width = self.width;
        out.extend_from_slice(format!("{task:>width$}: ").as_bytes());
    }
}

/// Puts the output of all tasks into the order in which it is written.
#[derive(Debug)]
pub(crate) struct Merger {
    labels: Option<Labels>,
    at_once: bool,
    /// Unfinished lines, by task and whether it is standard error.
    held: BTreeMap<(u32, bool), Vec<u8>>,
}

impl Merger {
    /// For a step of `ntasks`; `unbuffered` gives up whole lines for speed.
    pub(crate) fn new(ntasks: u32, label: bool, unbuffered: bool) -> Self {
        Self {
            labels: label.then(|| Labels::for_tasks(ntasks)),
            at_once: unbuffered || (ntasks == 1 && !label),
            held: BTreeMap::new(),
        }
    }

    /// Takes what a task wrote; returns what may be written now.
    pub(crate) fn push(&mut self, task: u32, stderr: bool, data: &[u8]) -> Vec<u8> {
        if self.at_once {
            return self.labelled(task, data);
        }
        let held = self.held.entry((task, stderr)).or_default();
        held.extend_from_slice(data);
        let ready = match held.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => end + 1,
            None if held.len() >= MAX_LINE_BYTES => held.len(),
            None => return Vec::new(),
        };
        let rest = held.split_off(ready);
        let ready = std::mem::replace(held, rest);
        self.labelled(task, &ready)
    }

    /// The stream of a task has ended: what is left of it.
    pub(crate) fn finish(&mut self, task: u32, stderr: bool) -> Vec<u8> {
        let left = self.held.remove(&(task, stderr)).unwrap_or_default();
        self.labelled(task, &left)
    }

    /// What is left of every task, by stream.
    pub(crate) fn finish_all(&mut self) -> Vec<(bool, Vec<u8>)> {
        let left = std::mem::take(&mut self.held);
        let whole = |((task, stderr), data): ((u32, bool), Vec<u8>)| {
            let data = self.labelled(task, &data);
            (!data.is_empty()).then_some((stderr, data))
        };
        left.into_iter().filter_map(whole).collect()
    }

    /// With labels each piece ends its line, as Slurm does it.
    fn labelled(&self, task: u32, data: &[u8]) -> Vec<u8> {
        let Some(labels) = self.labels else { return data.to_vec() };
        let mut out = Vec::with_capacity(data.len() + 16);
        for line in data.split_inclusive(|byte| *byte == b'\n') {
            labels.push(&mut out, task);
            out.extend_from_slice(line);
            if line.last() != Some(&b'\n') {
                out.push(b'\n');
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    #[test]
    fn labels_are_as_wide_as_the_highest_number() {
        for (ntasks, expect) in [(1, "3: "), (10, "3: "), (11, " 3: "), (1001, "   3: ")] {
            let mut out = Vec::new();
            Labels::for_tasks(ntasks).push(&mut out, 3);
            assert_eq!(text(&out), expect, "{ntasks}");
        }
    }

    #[test]
    fn lines_of_two_tasks_are_not_cut() {
        let mut merger = Merger::new(2, false, false);
        assert_eq!(text(&merger.push(0, false, b"one ")), "");
        assert_eq!(text(&merger.push(1, false, b"uno\ndos")), "uno\n");
        assert_eq!(text(&merger.push(0, false, b"line\n")), "one line\n");
        assert_eq!(text(&merger.push(1, true, b"e\n")), "e\n");
        assert_eq!(text(&merger.finish(1, false)), "dos");
        assert_eq!(text(&merger.finish(1, false)), "");
    }

    #[test]
    fn one_task_is_seen_at_once_and_labels_make_whole_lines() {
        assert_eq!(text(&Merger::new(1, false, false).push(0, false, b"$ ")), "$ ");
        let mut labelled = Merger::new(12, true, false);
        assert_eq!(text(&labelled.push(3, false, b"a\nb")), " 3: a\n");
        assert_eq!(labelled.finish_all(), [(false, b" 3: b\n".to_vec())]);
        let mut unbuffered = Merger::new(2, true, true);
        assert_eq!(text(&unbuffered.push(1, false, b"a\nb")), "1: a\n1: b\n");
    }

    #[test]
    fn a_line_without_end_is_not_held_for_ever() {
        let mut merger = Merger::new(2, false, false);
        let long = vec![b'x'; MAX_LINE_BYTES];
        assert!(merger.push(0, false, &long[1..]).is_empty());
        assert_eq!(merger.push(0, false, b"x").len(), MAX_LINE_BYTES);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_or_reordered(
            pieces in prop::collection::vec((0..3_u32, "[ab\n]{0,6}"), 0..30)
        ) {
            let mut merger = Merger::new(3, false, false);
            let mut written = [String::new(), String::new(), String::new()];
            let mut given = written.clone();
            for (task, piece) in &pieces {
                given[*task as usize].push_str(piece);
                written[*task as usize].push_str(&text(&merger.push(*task, false, piece.as_bytes())));
            }
            for task in 0..3_u32 {
                written[task as usize].push_str(&text(&merger.finish(task, false)));
            }
            prop_assert_eq!(written, given);
        }
    }
}
