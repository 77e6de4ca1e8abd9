//! What does `scontrol` do without a verb? It reads verbs from standard input, a line each, until one
//! says `exit`.

use std::io::BufRead as _;

use crate::output::{print_line, write_bytes};

use super::{Voice, dispatch};

/// Longest line that is read; Slurm's buffers are shorter.
const MAX_LINE: usize = 1 << 20;

/// Carries out line after line; returns the status of the last that failed, or 0.
pub(super) fn run(flags: &[String], voice: Voice) -> i32 {
    let mut status = 0;
    let mut lines = std::io::stdin().lock().lines();
    loop {
        write_bytes(b"scontrol: ");
        let Some(Ok(line)) = lines.next() else {
            print_line("");
            return status;
        };
        let words = words(&line);
        let Some((verb, rest)) = words.split_first().filter(|_| line.len() <= MAX_LINE) else {
            continue;
        };
        if is_end(verb) {
            return status;
        }
        let this = dispatch(verb, rest, flags.to_vec(), voice);
        status = if this == 0 { status } else { this };
    }
}

/// `exit`, `quit` and what Slurm takes for them.
fn is_end(verb: &str) -> bool {
    let verb = verb.to_ascii_lowercase();
    verb == "q" || (verb.len() >= 2 && "exit".starts_with(&verb)) || verb == "quit"
}

/// Words between blanks; quotes hold some together and vanish.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for letter in line.chars() {
        match (letter, quote) {
            (letter, Some(open)) if letter == open => quote = None,
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_split_as_a_shell_would() {
        let check = |line: &str, expect: &[&str]| assert_eq!(words(line), expect, "{line:?}");
        check("show job 2", &["show", "job", "2"]);
        check(
            "  update\tNodeName=n1 Reason='bad fan' \n",
            &["update", "NodeName=n1", "Reason=bad fan"],
        );
        check("hold \"\"", &["hold", ""]);
        check("   ", &[]);
    }

    #[test]
    fn the_words_that_end_it() {
        let ends: Vec<&str> = ["exit", "quit", "q", "EX", "e", "quiet", "show"]
            .into_iter()
            .filter(|w| is_end(w))
            .collect();
        assert_eq!(ends, ["exit", "quit", "q", "EX"]);
    }
}
