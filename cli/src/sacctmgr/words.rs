//! How are the words of a command of sacctmgr read?
//!
//! `KEY=VALUE`, `KEY+=VALUE` and `KEY-=VALUE`; a word without a key is a name. The words `set` and
//! `where` say whether what follows is a new value or a condition.

/// One word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word<'w> {
    /// As typed.
    pub(super) whole: &'w str,
    /// Before the equals sign; empty for a bare word.
    pub(super) key: &'w str,
    /// `+` or `-` before the equals sign.
    pub(super) sign: Option<char>,
    /// Behind it, without quotes.
    pub(super) value: &'w str,
}

impl<'w> Word<'w> {
    /// Takes a word apart.
    pub(super) fn new(whole: &'w str) -> Self {
        let Some((key, value)) = whole.split_once('=') else {
            return Self { whole, key: "", sign: None, value: unquoted(whole) };
        };
        let sign = key.chars().last().filter(|letter| matches!(letter, '+' | '-'));
        let key = sign.map_or(key, |sign| key.strip_suffix(sign).unwrap_or(key));
        Self { whole, key, sign, value: unquoted(value) }
    }
}

fn unquoted(text: &str) -> &str {
    let inner = |quote: char| text.strip_prefix(quote)?.strip_suffix(quote);
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

/// Conditions and new values, told apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Words<'w> {
    pub(super) conditions: Vec<Word<'w>>,
    pub(super) values: Vec<Word<'w>>,
}

/// Splits at `set` and `where`; what comes before either is a condition.
pub(super) fn split(words: &[String]) -> Words<'_> {
    let mut split = Words::default();
    let mut setting = false;
    for word in words {
        match word.to_ascii_lowercase().as_str() {
            "set" => setting = true,
            "where" => setting = false,
            _ if setting => split.values.push(Word::new(word)),
            _ => split.conditions.push(Word::new(word)),
        }
    }
    split
}

/// Why a command is not carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stop {
    /// There is nothing to do; the line is an answer and goes to standard output.
    Nothing(&'static str),
    /// Something is wrong; the lines go to standard error.
    Wrong(Vec<String>),
}

impl Stop {
    /// One line.
    pub(super) fn one(line: impl Into<String>) -> Self {
        Self::Wrong(vec![line.into()])
    }

    /// An error of the program, and Slurm's lines for a value that cannot be set.
    pub(super) fn value(word: &Word<'_>, why: &str) -> Self {
        let Self::Wrong(lines) = Self::option(word) else { return Self::one(why) };
        Self::Wrong(std::iter::once(format!("sacctmgr: error: {why}")).chain(lines).collect())
    }

    /// Slurm's lines for a key that cannot be set.
    pub(super) fn option(word: &Word<'_>) -> Self {
        Self::Wrong(vec![
            format!(" Unknown option: {}", word.whole),
            " Use keyword 'where' to modify condition".to_owned(),
        ])
    }

    /// Slurm's lines for a condition that there is not, in a command that could also set.
    pub(super) fn condition(word: &Word<'_>) -> Self {
        Self::Wrong(vec![
            format!(" Unknown condition: {}", word.whole),
            " Use keyword 'set' to modify value".to_owned(),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_taken_apart() {
        let table = [
            ("bin", ("", None, "bin")),
            ("qos+=high", ("qos", Some('+'), "high")),
            ("qos-=high", ("qos", Some('-'), "high")),
            ("GrpTRES=cpu=-1", ("GrpTRES", None, "cpu=-1")),
            ("Description=\"a b\"", ("Description", None, "a b")),
            ("org='x'", ("org", None, "x")),
            ("qos=", ("qos", None, "")),
            ("x='", ("x", None, "'")),
        ];
        for (text, (key, sign, value)) in table {
            let word = Word::new(text);
            assert_eq!((word.key, word.sign, word.value), (key, sign, value), "{text}");
        }
    }

    #[test]
    fn set_and_where_may_stand_in_any_order() {
        let words = ["bin", "set", "maxjobs=3", "where", "account=a", "SET", "qos=x"];
        let words: Vec<String> = words.iter().map(|&word| word.to_owned()).collect();
        let split = split(&words);
        let wholes = |words: &[Word<'_>]| -> Vec<String> {
            words.iter().map(|word| word.whole.to_owned()).collect()
        };
        assert_eq!(wholes(&split.conditions), ["bin", "account=a"]);
        assert_eq!(wholes(&split.values), ["maxjobs=3", "qos=x"]);
    }
}
