//! Which jobs does a crontab stand for?
//!
//! Slurm's rules: `#SCRON` lines hold options of sbatch for the next line with a time and a command; other
//! lines that begin with `#`, and blank ones, are nothing; `NAME=value` has `$NAME` replaced in the commands
//! that follow.

use penstock_vocab::CronSpec;

use crate::options::{Operands, parse};
use crate::sbatch::request::{BadValue, Request, Source};
use crate::sbatch::table::{Key, TABLE};

const MARK: &str = "#SCRON";

/// Options that say nothing about a job that comes again and again.
const NOT_HERE: &[(Key, &str)] = &[
    (Key::Array, "--array"),
    (Key::Begin, "--begin"),
    (Key::Deadline, "--deadline"),
    (Key::TestOnly, "--test-only"),
    (Key::Wait, "--wait"),
    (Key::Wrap, "--wrap"),
];

/// A line with a command, and what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    /// First and last line, counted from 1.
    pub(super) lines: (u32, u32),
    /// Options of its directives.
    pub(super) request: Request,
    /// The time as typed.
    pub(super) time: String,
    /// The command, variables replaced.
    pub(super) command: String,
    /// The whole script.
    pub(super) script: String,
}

/// A line that can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadLine {
    /// Counted from 1.
    pub(super) line: u32,
    /// What is wrong, a line each.
    pub(super) texts: Vec<String>,
}

/// Reads a crontab.
///
/// # Errors
/// At the first line that is none.
pub(super) fn read(text: &str) -> Result<Vec<Entry>, BadLine> {
    let mut entries = Vec::new();
    let mut variables: Vec<(String, String)> = Vec::new();
    let mut directives: Vec<&str> = Vec::new();
    let mut first = 0;
    for (line, number) in text.lines().zip(1u32..) {
        let shown = line.trim_start_matches([' ', '\t']);
        if let Some(words) = shown.strip_prefix(MARK) {
            options(words, number)?;
            first = if directives.is_empty() { number } else { first };
            directives.push(line);
        } else if shown.is_empty() || shown.starts_with('#') {
        } else if let Some((name, value)) = variable(shown) {
            variables.retain(|(known, _)| known != name);
            variables.push((name.to_owned(), value.to_owned()));
        } else {
            let first = if directives.is_empty() { number } else { first };
            let own = std::mem::take(&mut directives);
            entries.push(entry(shown, (first, number), &own, &variables)?);
        }
    }
    Ok(entries)
}

fn entry(
    line: &str,
    lines: (u32, u32),
    directives: &[&str],
    variables: &[(String, String)],
) -> Result<Entry, BadLine> {
    let (_, time, command) = CronSpec::parse_line(line)
        .map_err(|error| BadLine { line: lines.1, texts: vec![error.to_string()] })?;
    let mut command = command.to_owned();
    for (name, value) in variables {
        command = command.replace(&format!("${name}"), value);
    }
    let mut request = Request::default();
    let mut script = "#!/bin/sh\n# This job was submitted through scrontab\n".to_owned();
    for directive in directives {
        let words = directive.trim_start().strip_prefix(MARK).unwrap_or_default();
        apply(&mut request, words, lines.0)?;
        script.push_str(directive);
        script.push('\n');
    }
    script.push_str(&format!("# crontab time request was: '{time}'\n{command}\n"));
    Ok(Entry { lines, request, time: time.to_owned(), command, script })
}

/// Checks the options of one directive.
fn options(words: &str, line: u32) -> Result<(), BadLine> {
    apply(&mut Request::default(), words, line)
}

fn apply(request: &mut Request, words: &str, line: u32) -> Result<(), BadLine> {
    let bad = |texts| BadLine { line, texts };
    let words: Vec<String> = words.split_ascii_whitespace().map(str::to_owned).collect();
    let invalid = |word: &str| format!("Invalid option found in #SCRON line: {word}");
    let parsed = parse(TABLE, Operands::EndOptions, &words)
        .map_err(|error| bad(vec![error.to_string(), invalid(&words.join(" "))]))?;
    for given in &parsed.given {
        if let Some((_, name)) = NOT_HERE.iter().find(|(key, _)| *key == given.key) {
            let why = format!("{name} has no meaning for a job that comes again and again");
            return Err(bad(vec![why, invalid(name)]));
        }
        request.apply(given, Source::Script).map_err(|BadValue(mut texts)| {
            texts.push(invalid(&words.join(" ")));
            bad(texts)
        })?;
    }
    match parsed.operands.first() {
        Some(word) => Err(bad(vec![invalid(word)])),
        None => Ok(()),
    }
}

/// `NAME=value`, with blanks round the sign and quotes round the value as cron lets them stand.
fn variable(line: &str) -> Option<(&str, &str)> {
    let (name, value) = line.split_once('=')?;
    let name = name.trim_end_matches([' ', '\t']);
    let mut letters = name.bytes();
    let begins = letters.next().is_some_and(|first| first.is_ascii_alphabetic() || first == b'_');
    if !begins || !letters.all(|letter| letter.is_ascii_alphanumeric() || letter == b'_') {
        return None;
    }
    let value = value.trim_matches([' ', '\t']);
    let quoted = |quote| value.strip_prefix(quote)?.strip_suffix(quote);
    Some((name, quoted('"').or_else(|| quoted('\'')).unwrap_or(value)))
}

/// Puts words in front of some lines, which are counted from 1.
pub(super) fn mark_lines(text: &str, lines: &[(u32, u32)], mark: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    for (line, number) in text.lines().zip(1u32..) {
        if lines.iter().any(|(first, last)| (*first..=*last).contains(&number)) {
            out.push_str(mark);
        }
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# my jobs
DIR = \"/data/x y\"

#SCRON -J nightly -t 10
#SCRON --mem=20
0 2 * * * $DIR/run --all
#SCRON -n2
  # between
@hourly  hostname
*/5 * * * * true
";

    #[test]
    fn a_crontab_is_read_with_its_directives() {
        let entries = read(TEXT).expect("good");
        let lines: Vec<_> = entries.iter().map(|entry| entry.lines).collect();
        assert_eq!(lines, [(4, 6), (7, 9), (10, 10)]);
        let commands: Vec<_> = entries.iter().map(|entry| entry.command.as_str()).collect();
        assert_eq!(commands, ["/data/x y/run --all", "hostname", "true"]);
        let times: Vec<_> = entries.iter().map(|entry| entry.time.as_str()).collect();
        assert_eq!(times, ["0 2 * * *", "@hourly", "*/5 * * * *"]);
        assert_eq!(entries[0].request.job_name.as_deref(), Some("nightly"));
        assert!(entries[0].request.time.is_some() && entries[0].request.memory.is_some());
        assert_eq!((entries[1].request.ntasks, &entries[1].request.job_name), (Some(2), &None));
        assert_eq!(entries[2].request, Request::default());
        assert_eq!(
            entries[0].script,
            "#!/bin/sh\n# This job was submitted through scrontab\n#SCRON -J nightly -t 10\n\
             #SCRON --mem=20\n# crontab time request was: '0 2 * * *'\n/data/x y/run --all\n"
        );
    }

    #[test]
    fn wrong_lines_are_named() {
        let table = [
            ("61 * * * * x", 1, "bad minute"),
            ("\n@never x", 2, "invalid @ line"),
            ("* * * * *", 1, "unexpected end of line"),
            ("#SCRON --foo\n@daily x", 1, "unrecognized option '--foo'"),
            ("#SCRON -t 5\n#SCRON -t x\n@daily x", 2, "Invalid --time specification"),
            ("#SCRON --array=1-3\n@daily x", 1, "--array has no meaning"),
            ("#SCRON -n2 script.sh\n@daily x", 1, "Invalid option found in #SCRON line: script.sh"),
            ("1A=2", 1, "bad minute"),
        ];
        for (text, line, begins) in table {
            let bad = read(text).expect_err(text);
            assert_eq!(bad.line, line, "{text}");
            assert!(
                bad.texts.iter().any(|text| text.starts_with(begins)),
                "{text}: {:?}",
                bad.texts
            );
        }
    }

    #[test]
    fn variables_are_those_of_cron() {
        let table = [
            ("A=b", Some(("A", "b"))),
            ("A_1 =  'b c' ", Some(("A_1", "b c"))),
            ("A=", Some(("A", ""))),
            ("A='b", Some(("A", "'b"))),
            ("0 0 * * * A=b", None),
            ("@daily A=b", None),
            ("A b=c", None),
        ];
        for (line, expect) in table {
            assert_eq!(variable(line), expect, "{line}");
        }
    }

    #[test]
    fn lines_are_marked() {
        let marked = mark_lines("a\nb\nc\nd", &[(2, 3)], "#BAD: ");
        assert_eq!(marked, "a\n#BAD: b\n#BAD: c\nd\n");
    }
}
