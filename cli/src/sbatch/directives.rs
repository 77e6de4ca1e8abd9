//! Which words do the `#SBATCH` lines of a script hold?
//!
//! Slurm's rules: the mark stands in the first column; lines count until the first one that is
//! neither blank nor a comment; words are split at blanks, with quotes and backslashes as in a
//! shell; a `#` that begins a word ends the line. The words of all lines together are read as one
//! command line.

const MARK: &str = "#SBATCH";

/// Why a directive cannot be split into words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unmatched {quote} in line {line} of the batch script: {text}")]
pub(crate) struct UnmatchedQuote {
    /// The quote that is never closed.
    pub(crate) quote: char,
    /// Counted from 1.
    pub(crate) line: usize,
    /// The line as it stands.
    pub(crate) text: String,
}

/// The words of all directives.
///
/// # Errors
/// When a quote is opened and not closed on its line.
pub(crate) fn directive_words(script: &[u8]) -> Result<Vec<String>, UnmatchedQuote> {
    let mut words = Vec::new();
    for (index, line) in script.split(|&byte| byte == b'\n').enumerate() {
        if let Some(directive) = line.strip_prefix(MARK.as_bytes()) {
            let text = String::from_utf8_lossy(directive);
            let wrong = |quote| UnmatchedQuote {
                quote,
                line: index + 1,
                text: String::from_utf8_lossy(line).into_owned(),
            };
            words.extend(split_words(&text).map_err(wrong)?);
        } else if !matches!(line.trim_ascii_start(), [] | [b'#', ..]) {
            break;
        }
    }
    Ok(words)
}

/// Splits one line; the error is the quote that is not closed.
fn split_words(line: &str) -> Result<Vec<String>, char> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote: Option<char> = None;
    let mut letters = line.chars();
    while let Some(letter) = letters.next() {
        match (quote, letter) {
            (Some(open), _) if letter == open => quote = None,
            (Some('\''), _) => word.get_or_insert_default().push(letter),
            (_, '\\') => {
                // A backslash at the end of the line stands for itself.
                let literal = letters.next().unwrap_or('\\');
                word.get_or_insert_default().push(literal);
            }
            (Some(_), _) => word.get_or_insert_default().push(letter),
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(letter);
            }
            (None, '#') if word.is_none() => break,
            (None, _) if letter.is_ascii_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    quote.map_or(Ok(words), Err)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_split_as_slurm_splits_them() {
        let table: &[(&str, &[&str])] = &[
            ("#SBATCH -n 4", &["-n", "4"]),
            ("#SBATCH --array               3-5", &["--array", "3-5"]),
            ("#SBATCH --parsable            ", &["--parsable"]),
            ("#SBATCH --signal B:USR2@30", &["--signal", "B:USR2@30"]),
            ("#SBATCH --comment='v w'", &["--comment=v w"]),
            ("#SBATCH --comment=\"v 'w'\" -n1", &["--comment=v 'w'", "-n1"]),
            ("#SBATCH --comment=v\\ w", &["--comment=v w"]),
            ("#SBATCH --comment='a\\b'", &["--comment=a\\b"]),
            ("#SBATCH --comment=\"a\\\"b\"", &["--comment=a\"b"]),
            ("#SBATCH -n 4 # four of them", &["-n", "4"]),
            ("#SBATCH -n 4 #four", &["-n", "4"]),
            ("#SBATCH --comment=a#b", &["--comment=a#b"]),
            ("#SBATCH --comment=''", &["--comment="]),
            ("#SBATCH ''", &[""]),
            ("#SBATCH\t-n\t4", &["-n", "4"]),
            ("#SBATCH", &[]),
            (" #SBATCH -n 4", &[]),
            ("##SBATCH -n 4", &[]),
            ("# SBATCH -n 4", &[]),
            ("#PBS -l nodes=4", &[]),
            ("#SBATCH -n 4 -\\", &["-n", "4", "-\\"]),
        ];
        for (line, expect) in table {
            let script = format!("#!/bin/sh\n{line}\n");
            assert_eq!(directive_words(script.as_bytes()), Ok(as_words(expect)), "{line}");
        }
    }

    fn as_words(words: &[&str]) -> Vec<String> {
        words.iter().map(|&word| word.to_owned()).collect()
    }

    #[test]
    fn directives_end_at_the_first_command() {
        let script = "#!/bin/sh\n#SBATCH -n1\n\n  # comment\n#SBATCH -N1\n \t\necho\n#SBATCH -c1\n";
        assert_eq!(directive_words(script.as_bytes()), Ok(as_words(&["-n1", "-N1"])));
    }

    #[test]
    fn an_open_quote_is_refused_with_its_line() {
        let error = directive_words(b"#!/bin/sh\n#SBATCH -J 'a\n").expect_err("open quote");
        assert_eq!((error.quote, error.line), ('\'', 2));
        assert!(error.to_string().contains("#SBATCH -J 'a"), "{error}");
    }

    proptest! {
        #[test]
        fn no_script_panics(script in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _words = directive_words(&script);
        }

        #[test]
        fn a_quoted_word_is_itself(word in "[ -&(-~]{0,20}") {
            let script = format!("#!/bin/sh\n#SBATCH '{word}'\n");
            prop_assert_eq!(directive_words(script.as_bytes()), Ok(vec![word]));
        }
    }
}
