//! Which nodes have the features that a job asks for with `--constraint`?
//!
//! The grammar is Slurm's and, or and parentheses: `a&b`, `a|b`, `(a|b)&c`; a comma reads as `&`.
//! Counts (`a*2`) and matching sets (`[a|b]`) are refused by name.

use std::fmt;

/// Deepest nesting of parentheses, so that no text can exhaust the stack.
const MAX_DEPTH: usize = 32;

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
    /// A form that is not supported.
    #[error("constraint {text:?}: {what} is not built yet; use & and |")]
    Unsupported {
        /// The whole text.
        text: String,
        /// Name of the form.
        what: &'static str,
    },
    /// Parentheses nested too deeply, or not closed.
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
    root: Option<Expression>,
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
    /// If the text is no expression of features, `&`, `|` and parentheses.
    pub fn parse(text: &str) -> Result<Self, ConstraintError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        for (symbol, what) in [('*', "a count of nodes (a*2)"), ('[', "a matching set ([a|b])")] {
            if text.contains(symbol) {
                return Err(ConstraintError::Unsupported { text: text.to_owned(), what });
            }
        }
        let mut parser = Parser { text, at: 0 };
        let root = parser.any(0)?;
        if parser.at < text.len() {
            return Err(parser.expected());
        }
        Ok(Self { text: text.into(), root: Some(root) })
    }

    /// Whether a node with these features serves.
    #[must_use]
    pub fn accepts(&self, features: &[Box<str>]) -> bool {
        self.root.as_ref().is_none_or(|root| root.holds(features))
    }

    /// Whether nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Every feature named, in order.
    #[must_use]
    pub fn features(&self) -> Vec<&str> {
        let mut names = Vec::new();
        if let Some(root) = &self.root {
            root.collect(&mut names);
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
    fn holds(&self, features: &[Box<str>]) -> bool {
        match self {
            Self::Feature(name) => features.contains(name),
            Self::All(parts) => parts.iter().all(|part| part.holds(features)),
            Self::Any(parts) => parts.iter().any(|part| part.holds(features)),
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

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn expected(&self) -> ConstraintError {
        ConstraintError::Expected { text: self.text.to_owned(), at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn any(&mut self, depth: usize) -> Result<Expression, ConstraintError> {
        let mut parts = vec![self.all(depth)?];
        while self.peek() == Some(b'|') {
            self.at += 1;
            parts.push(self.all(depth)?);
        }
        Ok(join(parts, Expression::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Expression, ConstraintError> {
        let mut parts = vec![self.atom(depth)?];
        while matches!(self.peek(), Some(b'&' | b',')) {
            self.at += 1;
            parts.push(self.atom(depth)?);
        }
        Ok(join(parts, Expression::All))
    }

    fn atom(&mut self, depth: usize) -> Result<Expression, ConstraintError> {
        if self.peek() == Some(b'(') {
            if depth >= MAX_DEPTH {
                return Err(ConstraintError::Parentheses { text: self.text.to_owned() });
            }
            self.at += 1;
            let inner = self.any(depth + 1)?;
            if self.peek() != Some(b')') {
                return Err(ConstraintError::Parentheses { text: self.text.to_owned() });
            }
            self.at += 1;
            return Ok(inner);
        }
        let rest = &self.text[self.at..];
        let end = rest.find(['&', '|', ',', '(', ')']).unwrap_or(rest.len());
        let name = rest[..end].trim();
        if name.is_empty() {
            return Err(self.expected());
        }
        self.at += end;
        Ok(Expression::Feature(name.into()))
    }
}

fn join(mut parts: Vec<Expression>, many: fn(Box<[Expression]>) -> Expression) -> Expression {
    if parts.len() == 1 { parts.remove(0) } else { many(parts.into_boxed_slice()) }
}

#[cfg(test)]
mod tests {
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
    fn odd_text_is_refused() {
        for text in ["a&", "|a", "(a", "a)", "a&&b", "a*2", "[a|b]"] {
            assert!(Constraint::parse(text).is_err(), "{text}");
        }
        assert!(Constraint::parse(&"(".repeat(100_000)).is_err());
    }
}
