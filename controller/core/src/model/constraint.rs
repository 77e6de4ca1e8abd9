//! Which nodes have the features that a job asks for with `--constraint`?
//!
//! The grammar is sbatch's: and, or and parentheses (`a&b`, `a|b`, `(a|b)&c`; a comma reads as `&`)
//! say what every node must have; a count (`a*2`, `a*2&b*4`, `[a*2&b*4]`) says how many of the job's
//! nodes must have something, each node counted once; a matching set (`[a|b]`) says that all nodes
//! have the same one of these. What Slurm has no meaning for is refused by name.

use std::fmt;

use parse::{Item, Parser};

mod parse;

/// Deepest nesting of parentheses, so that no text can exhaust the stack.
const MAX_DEPTH: usize = 32;

/// Most counts, and most options of a matching set: what a node serves fits a word.
const MAX_PARTS: usize = 32;

/// Why a constraint can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConstraintError {
    /// Text ends or goes on where a feature name should stand.
    #[error("constraint {text:?}: expected a feature name at position {at}")]
    Expected {
        /// The whole text.
        text: String,
        /// Byte position.
        at: usize,
    },
    /// A form that has no meaning.
    #[error("constraint {text:?}: {what}")]
    Unsupported {
        /// The whole text.
        text: String,
        /// What is wrong with it, and what to write instead.
        what: &'static str,
    },
    /// A count that is no number of nodes.
    #[error("constraint {text:?}: {count:?} is no count of nodes; give 1 or more")]
    Count {
        /// The whole text.
        text: String,
        /// What stands after the asterisk.
        count: String,
    },
    /// Parentheses or brackets nested too deeply, or not closed.
    #[error("constraint {text:?}: parentheses don't match or nest deeper than {MAX_DEPTH}")]
    Parentheses {
        /// The whole text.
        text: String,
    },
}

/// A feature expression; the default asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Constraint {
    text: Box<str>,
    /// What every node must have.
    every: Box<[Expression]>,
    /// How many nodes must have what.
    counts: Box<[(u32, Expression)]>,
    /// Of which all nodes must have the same one.
    options: Box<[Expression]>,
}

/// What of a constraint a node serves, a bit for each part in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Marks {
    /// Counts that it may be counted for.
    pub counts: u32,
    /// Options of the matching set that it has.
    pub options: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Expression {
    Feature(Box<str>),
    All(Box<[Expression]>),
    Any(Box<[Expression]>),
}

impl Constraint {
    /// Reads an expression; empty text asks for nothing.
    ///
    /// # Errors
    /// If the text is none of the forms that sbatch documents.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let (mut every, mut counts, mut options) = (Vec::new(), Vec::new(), Vec::new());
        for item in Parser::new(text).whole()? {
            match item {
                Item::Plain(expression) => every.push(expression),
                Item::Count(nodes, expression) => counts.push((nodes, expression)),
                Item::Options(all) => options = all,
            }
        }
        if counts.len() > MAX_PARTS || options.len() > MAX_PARTS {
            let what = "more than 32 counts or options; ask for fewer";
            return Err(ConstraintError::Unsupported { text: text.to_owned(), what });
        }
        Ok(Self {
            text: text.into(),
            every: every.into(),
            counts: counts.into(),
            options: options.into(),
        })
    }

    /// Whether a node with these features may be one of the job's.
    #[must_use]
    pub fn accepts(&self, features: &[Box<str>]) -> bool {
        self.marks(|name| features.iter().any(|feature| **feature == *name)).is_some()
    }

    /// What a node serves, by whether it has a feature; `None`: it may not be one of the job's.
    pub fn marks(&self, has: impl Fn(&str) -> bool) -> Option<Marks> {
        if !self.every.iter().all(|part| part.holds(&has)) {
            return None;
        }
        let bits = |held: &mut dyn Iterator<Item = bool>| {
            held.enumerate().fold(0u32, |bits, (at, held)| bits | u32::from(held) << at)
        };
        let counts = bits(&mut self.counts.iter().map(|(_, part)| part.holds(&has)));
        let options = bits(&mut self.options.iter().map(|part| part.holds(&has)));
        (self.options.is_empty() || options != 0).then_some(Marks { counts, options })
    }

    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.every.is_empty() && self.counts.is_empty() && self.options.is_empty()
    }

    /// How many nodes each count asks for, in the order of [`Marks::counts`].
    pub fn counts(&self) -> impl ExactSizeIterator<Item = u32> {
        self.counts.iter().map(|(nodes, _)| *nodes)
    }

    /// How many options the matching set has; 0: there is none.
    #[must_use]
    pub fn options(&self) -> usize {
        self.options.len()
    }

    /// Fewest nodes that can serve: no node is counted twice.
    #[must_use]
    pub fn least_nodes(&self) -> u32 {
        self.counts().fold(0, u32::saturating_add)
    }

    /// Every feature named, in order.
    #[must_use]
    pub fn features(&self) -> Vec<&str> {
        let mut names = Vec::new();
        let counted = self.counts.iter().map(|(_, part)| part);
        for part in self.every.iter().chain(counted).chain(&self.options) {
            part.collect(&mut names);
        }
        names
    }
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Expression {
    fn holds(&self, has: &impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Feature(name) => has(name),
            Self::All(parts) => parts.iter().all(|part| part.holds(has)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(has)),
        }
    }

    fn collect<'a>(&'a self, names: &mut Vec<&'a str>) {
        match self {
            Self::Feature(name) => names.push(name),
            Self::All(parts) | Self::Any(parts) => {
                parts.iter().for_each(|part| part.collect(names));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn features(names: &str) -> Vec<Box<str>> {
        names.split(' ').map(Into::into).collect()
    }

    #[test]
    fn and_binds_tighter_than_or() {
        let constraint = Constraint::parse("h100&ib|cpu").unwrap();
        for (have, fits) in [("h100 ib", true), ("h100", false), ("cpu", true), ("ib", false)] {
            assert_eq!(constraint.accepts(&features(have)), fits, "{have}");
        }
        let constraint = Constraint::parse("h100&(ib|eth)").unwrap();
        assert!(constraint.accepts(&features("eth h100")));
        assert!(!constraint.accepts(&features("eth")));
    }

    #[test]
    fn counts_and_matching_sets_are_told_apart() {
        type Case = (&'static str, &'static [u32], usize, usize);
        let cases: [Case; 9] = [
            ("a&b", &[], 0, 2),
            ("a*2", &[2], 0, 0),
            ("a*2&b*4", &[2, 4], 0, 0),
            ("[a*2&b*4]", &[2, 4], 0, 0),
            ("[a*2,b*4]", &[2, 4], 0, 0),
            ("ib&a*2", &[2], 0, 1),
            ("[(a|b)*1&(c)*2]", &[1, 2], 0, 0),
            ("[a|b|(c&d)]", &[], 3, 0),
            ("ib&[a|b]", &[], 2, 1),
        ];
        for (text, counts, options, every) in cases {
            let constraint = Constraint::parse(text).unwrap();
            assert_eq!(constraint.counts().collect::<Vec<_>>(), counts, "{text}");
            assert_eq!((constraint.options(), constraint.every.len()), (options, every), "{text}");
            assert_eq!(constraint.least_nodes(), counts.iter().sum::<u32>());
        }
        let marks = |text: &str, have: &str| {
            let have = features(have);
            Constraint::parse(text).unwrap().marks(|name| have.iter().any(|f| **f == *name))
        };
        assert_eq!(marks("ib&a*2&b*1", "ib b").unwrap().counts, 0b10);
        assert_eq!(marks("ib&a*2&b*1", "a b"), None, "every node needs ib");
        assert_eq!(marks("[a|b|c]", "a c").unwrap().options, 0b101);
        assert_eq!(marks("[a|b]", "c"), None, "it is none of the set");
        assert_eq!(marks("a*2", "c").unwrap().counts, 0, "the other nodes may be any");
    }

    #[test]
    fn what_has_no_meaning_is_refused_by_name() {
        for text in ["a&", "|a", "(a", "a)", "a&&b", "[", "[a|b", "a]", "()", "[]", "*2", "a b*"] {
            assert!(Constraint::parse(text).is_err(), "{text}");
        }
        for (text, name) in [
            ("a*0", "\"0\" is no count"),
            ("a*x", "\"x\" is no count"),
            ("a*-1", "\"-1\" is no count"),
            ("a*99999999999", "no count"),
            ("a*2|b", "count"),
            ("[a|b]|c", "matching set"),
            ("(a*2)", "parentheses"),
            ("[a|b]&[c|d]", "second"),
            ("[a|[b]]", "brackets within"),
            ("[a&b]", "each"),
            ("[a*2&b]", "each"),
            ("[a*2|b*3]", "counts"),
            ("[a&b|c]", "parentheses"),
            ("[a|b]*2", "brackets"),
            ("a*2*3", "no count"),
        ] {
            let error = Constraint::parse(text).expect_err(text).to_string();
            assert!(error.contains(name), "{text}: {error}");
            assert!(error.contains(text), "{text}: {error}");
        }
        for deep in ["(", "["] {
            assert!(Constraint::parse(&deep.repeat(100_000)).is_err());
        }
        let many = vec!["a"; 40].join("|");
        assert!(Constraint::parse(&format!("[{many}]")).is_err());
    }

    proptest! {
        #[test]
        fn no_text_panics_and_what_is_read_prints_back(text in "[ab()&|,*\\[\\] 0-9]{0,24}") {
            if let Ok(constraint) = Constraint::parse(&text) {
                let again = Constraint::parse(&constraint.to_string());
                prop_assert_eq!(again, Ok(constraint));
            }
        }
    }
}
