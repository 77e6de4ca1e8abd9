//! Which options and operands does a command line hold, read by the habits of `getopt_long`?
//!
//! Tools write `-o%P`, `--opt=value`, `--opt value`, unique abbreviations (`--job`), options behind
//! operands, and `--` to end them; scripts match the error texts. All of that is glibc's behaviour
//! and is done here once for every command that bears a Slurm name.

use std::fmt;

use crate::output::note;
use crate::suggest::nearest;

/// What an option takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Takes {
    /// Nothing.
    Nothing,
    /// A value, attached or as the next word.
    Value,
    /// A value only where it is attached (`--nice=5`, `-I5`).
    Maybe,
}

/// One line of a command's table of options.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Opt<K> {
    /// Long name without dashes.
    pub(crate) long: &'static str,
    /// Letter.
    pub(crate) short: Option<char>,
    /// What it takes.
    pub(crate) takes: Takes,
    /// What the command calls it; names of one key are synonyms.
    pub(crate) key: K,
}

impl<K> Opt<K> {
    /// An option that has a long name only.
    pub(crate) const fn long(long: &'static str, takes: Takes, key: K) -> Self {
        Self { long, short: None, takes, key }
    }

    /// An option that has a letter too.
    pub(crate) const fn both(short: char, long: &'static str, takes: Takes, key: K) -> Self {
        Self { long, short: Some(short), takes, key }
    }
}

/// How an option is typed, whatever it means to its command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Name {
    /// Long name without dashes.
    pub(crate) long: &'static str,
    /// Letter.
    pub(crate) short: Option<char>,
    /// What it takes.
    pub(crate) takes: Takes,
}

/// The names of a table, for completion.
pub(crate) fn names<K>(table: &[Opt<K>]) -> Vec<Name> {
    let name =
        |option: &Opt<K>| Name { long: option.long, short: option.short, takes: option.takes };
    table.iter().map(name).collect()
}

/// Where operands may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operands {
    /// The first one ends the options: what follows belongs to a script or command.
    EndOptions,
    /// Between options too.
    Anywhere,
}

/// One option as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given<K> {
    /// Which one.
    pub(crate) key: K,
    /// Its value, where it takes one.
    pub(crate) value: Option<String>,
}

/// A command line, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Parsed<K> {
    /// Options in the order in which they were given.
    pub(crate) given: Vec<Given<K>>,
    /// Words that are no options, in their order.
    pub(crate) operands: Vec<String>,
}

/// Why a command line cannot be read; the texts are glibc's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum UsageError {
    /// No option starts like that.
    Unrecognized {
        /// The word with its value.
        word: String,
        /// The option that was probably meant.
        near: Option<&'static str>,
    },
    /// Several options start like that.
    Ambiguous {
        /// The word as given.
        word: String,
        /// Long names that it may stand for.
        candidates: Vec<&'static str>,
    },
    /// A long option without its value.
    LongNeedsValue(&'static str),
    /// A long option with a value that it does not take.
    LongTakesNone(&'static str),
    /// No option has that letter.
    InvalidLetter(char),
    /// A letter without its value.
    LetterNeedsValue(char),
}

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unrecognized { word, .. } => write!(f, "unrecognized option '{word}'"),
            Self::Ambiguous { word, candidates } => {
                write!(f, "option '{word}' is ambiguous; possibilities:")?;
                candidates.iter().try_for_each(|name| write!(f, " '--{name}'"))
            }
            Self::LongNeedsValue(name) => write!(f, "option '--{name}' requires an argument"),
            Self::LongTakesNone(name) => write!(f, "option '--{name}' doesn't allow an argument"),
            Self::InvalidLetter(letter) => write!(f, "invalid option -- '{letter}'"),
            Self::LetterNeedsValue(letter) => {
                write!(f, "option requires an argument -- '{letter}'")
            }
        }
    }
}

impl UsageError {
    /// Prints the error and the pointer to `--help` on standard error.
    pub(crate) fn report(&self, program: &str) {
        note(&format!("{program}: {self}"));
        note(&format!("Try \"{program} --help\" for more information"));
        self.suggest(program);
    }

    /// Names the option that was probably meant, where there is one.
    pub(crate) fn suggest(&self, program: &str) {
        if let Self::Unrecognized { near: Some(near), .. } = self {
            note(&format!("{program}: did you mean --{near}?"));
        }
    }
}

/// Takes a command line apart.
///
/// # Errors
/// At the first word that no option of `table` explains.
pub(crate) fn parse<K: Copy + PartialEq>(
    table: &[Opt<K>],
    operands: Operands,
    args: &[String],
) -> Result<Parsed<K>, UsageError> {
    let mut parsed = Parsed { given: Vec::new(), operands: Vec::new() };
    let mut words = args.iter();
    while let Some(word) = words.next() {
        if word == "--" {
            parsed.operands.extend(words.by_ref().cloned());
        } else if let Some(long) = word.strip_prefix("--") {
            let mut next = || words.next().cloned();
            parsed.given.push(read_long(table, long, &mut next)?);
        } else if word.len() > 1 && word.starts_with('-') {
            let mut next = || words.next().cloned();
            read_letters(table, &word[1..], &mut next, &mut parsed.given)?;
        } else {
            parsed.operands.push(word.clone());
            if operands == Operands::EndOptions {
                parsed.operands.extend(words.by_ref().cloned());
            }
        }
    }
    Ok(parsed)
}

/// Reads `name` or `name=value`, the dashes taken off.
fn read_long<K: Copy + PartialEq>(
    table: &[Opt<K>],
    text: &str,
    next: &mut dyn FnMut() -> Option<String>,
) -> Result<Given<K>, UsageError> {
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value.to_owned())),
        None => (text, None),
    };
    let option = find_long(table, name, text)?;
    let value = match (option.takes, value) {
        (Takes::Nothing, Some(_)) => return Err(UsageError::LongTakesNone(option.long)),
        (Takes::Value, None) => Some(next().ok_or(UsageError::LongNeedsValue(option.long))?),
        (_, value) => value,
    };
    Ok(Given { key: option.key, value })
}

/// The option of that long name, or the only one that starts so.
fn find_long<'t, K: Copy + PartialEq>(
    table: &'t [Opt<K>],
    name: &str,
    whole: &str,
) -> Result<&'t Opt<K>, UsageError> {
    if let Some(exact) = table.iter().find(|option| option.long == name) {
        return Ok(exact);
    }
    let candidates: Vec<&Opt<K>> =
        table.iter().filter(|option| !name.is_empty() && option.long.starts_with(name)).collect();
    let Some((first, rest)) = candidates.split_first() else {
        let near = nearest(name, table.iter().map(|option| option.long));
        return Err(UsageError::Unrecognized { word: format!("--{whole}"), near });
    };
    if rest.iter().all(|other| other.key == first.key && other.takes == first.takes) {
        return Ok(first);
    }
    // glibc names the first, and of the others those that mean something else.
    let other = |option: &&&Opt<K>| option.key != first.key || option.takes != first.takes;
    let candidates =
        std::iter::once(first).chain(rest.iter().filter(other)).map(|option| option.long).collect();
    Err(UsageError::Ambiguous { word: format!("--{whole}"), candidates })
}

/// Reads a cluster of letters such as `hn`, `o%P` or `n4`, the dash taken off.
fn read_letters<K: Copy + PartialEq>(
    table: &[Opt<K>],
    cluster: &str,
    next: &mut dyn FnMut() -> Option<String>,
    given: &mut Vec<Given<K>>,
) -> Result<(), UsageError> {
    let mut rest = cluster.chars();
    while let Some(letter) = rest.next() {
        let option = table
            .iter()
            .find(|option| option.short == Some(letter))
            .ok_or(UsageError::InvalidLetter(letter))?;
        let glued = rest.as_str();
        let value = match option.takes {
            Takes::Nothing => {
                given.push(Given { key: option.key, value: None });
                continue;
            }
            Takes::Value if glued.is_empty() => {
                Some(next().ok_or(UsageError::LetterNeedsValue(letter))?)
            }
            Takes::Maybe if glued.is_empty() => None,
            Takes::Value | Takes::Maybe => Some(glued.to_owned()),
        };
        given.push(Given { key: option.key, value });
        break;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Key {
        Format,
        Header,
        Jobs,
        Nice,
        User,
        Uid,
        Zone,
    }

    const TABLE: &[Opt<Key>] = &[
        Opt::both('o', "format", Takes::Value, Key::Format),
        Opt::both('h', "noheader", Takes::Nothing, Key::Header),
        Opt::long("job", Takes::Value, Key::Jobs),
        Opt::both('j', "jobs", Takes::Value, Key::Jobs),
        Opt::both('N', "nice", Takes::Maybe, Key::Nice),
        Opt::long("user", Takes::Value, Key::User),
        Opt::long("uid", Takes::Value, Key::Uid),
        Opt::both('z', "zone", Takes::Nothing, Key::Zone),
    ];

    fn words(line: &[&str]) -> Vec<String> {
        line.iter().map(|&word| word.to_owned()).collect()
    }

    fn read(line: &[&str]) -> Result<Parsed<Key>, UsageError> {
        parse(TABLE, Operands::Anywhere, &words(line))
    }

    fn one(key: Key, value: Option<&str>) -> Vec<Given<Key>> {
        vec![Given { key, value: value.map(str::to_owned) }]
    }

    #[test]
    fn every_way_to_write_an_option_is_read() {
        let table: &[(&[&str], Key, Option<&str>)] = &[
            (&["--format=%i"], Key::Format, Some("%i")),
            (&["--format", "%i"], Key::Format, Some("%i")),
            (&["--form", "%i"], Key::Format, Some("%i")),
            (&["-o", "%i"], Key::Format, Some("%i")),
            (&["-o%i"], Key::Format, Some("%i")),
            (&["-o", " %A"], Key::Format, Some(" %A")),
            (&["-o", "--format"], Key::Format, Some("--format")),
            (&["--format="], Key::Format, Some("")),
            (&["--format=a=b"], Key::Format, Some("a=b")),
            (&["--jo", "1"], Key::Jobs, Some("1")),
            (&["--job", "1"], Key::Jobs, Some("1")),
            (&["--nice"], Key::Nice, None),
            (&["--nice=5"], Key::Nice, Some("5")),
            (&["-N5"], Key::Nice, Some("5")),
            (&["-N"], Key::Nice, None),
            (&["--nohead"], Key::Header, None),
            (&["-z"], Key::Zone, None),
        ];
        for (line, key, value) in table {
            let parsed = read(line).unwrap_or_else(|error| panic!("{line:?}: {error}"));
            assert_eq!(parsed.given, one(*key, *value), "{line:?}");
            assert!(parsed.operands.is_empty(), "{line:?}");
        }
    }

    #[test]
    fn errors_are_glibcs() {
        let table: &[(&[&str], &str)] = &[
            (&["--foo"], "unrecognized option '--foo'"),
            (&["--foo=3"], "unrecognized option '--foo=3'"),
            (&["--=3"], "unrecognized option '--=3'"),
            (&["-1"], "invalid option -- '1'"),
            (&["-h1"], "invalid option -- '1'"),
            (&["-o"], "option requires an argument -- 'o'"),
            (&["--format"], "option '--format' requires an argument"),
            (&["--form"], "option '--format' requires an argument"),
            (&["--noheader=1"], "option '--noheader' doesn't allow an argument"),
            (&["--u=1"], "option '--u=1' is ambiguous; possibilities: '--user' '--uid'"),
            (&["--n"], "option '--n' is ambiguous; possibilities: '--noheader' '--nice'"),
        ];
        for (line, text) in table {
            let error = read(line).expect_err("must be refused");
            assert_eq!(error.to_string(), *text, "{line:?}");
        }
    }

    #[test]
    fn the_option_that_was_meant_is_known() {
        let near = |line: &[&str]| match read(line) {
            Err(UsageError::Unrecognized { near, .. }) => near,
            other => panic!("{other:?}"),
        };
        assert_eq!(near(&["--fromat=%i"]), Some("format"));
        assert_eq!(near(&["--noheadr"]), Some("noheader"));
        assert_eq!(near(&["--foo"]), None);
    }

    #[test]
    fn operands_stand_anywhere_or_end_the_options() {
        let line = ["a", "-h", "b", "--", "-o", "c"];
        let anywhere = read(&line).expect("valid");
        assert_eq!(anywhere.operands, words(&["a", "b", "-o", "c"]));
        assert_eq!(anywhere.given, one(Key::Header, None));
        let ended = parse(TABLE, Operands::EndOptions, &words(&line)).expect("valid");
        assert_eq!(ended.operands, words(&line));
        assert!(ended.given.is_empty());
    }

    #[test]
    fn letters_cluster_and_a_single_dash_is_an_operand() {
        let parsed = read(&["-hzo%P", "-"]).expect("valid");
        let keys: Vec<Key> = parsed.given.iter().map(|given| given.key).collect();
        assert_eq!(keys, [Key::Header, Key::Zone, Key::Format]);
        assert_eq!(parsed.given[2].value.as_deref(), Some("%P"));
        assert_eq!(parsed.operands, ["-"]);
    }

    proptest! {
        #[test]
        fn no_command_line_panics(line in proptest::collection::vec("-{0,2}[a-zA-Z0-9=é]{0,6}", 0..6)) {
            let _read = parse(TABLE, Operands::Anywhere, &line);
            let _read = parse(TABLE, Operands::EndOptions, &line);
        }

        #[test]
        fn what_follows_a_double_dash_is_untouched(line in proptest::collection::vec(".{0,6}", 0..6)) {
            let mut full = vec!["--".to_owned()];
            full.extend(line.iter().cloned());
            let parsed = parse(TABLE, Operands::Anywhere, &full).expect("operands only");
            prop_assert_eq!(parsed.operands, line);
        }
    }
}
