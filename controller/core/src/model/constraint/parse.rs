//! How is the text of a constraint read?
//!
//! A recursive descent; what stands between `&` at the top, or in brackets, is an [`Item`].

use super::{ConstraintError, Expression, MAX_DEPTH};

/// What ends a feature's name.
const SYMBOLS: [char; 8] = ['&', '|', ',', '(', ')', '[', ']', '*'];

/// One part of a constraint.
pub(super) enum Item {
    /// What every node must have.
    Plain(Expression),
    /// What so many nodes must have.
    Count(u32, Expression),
    /// Of which all nodes must have the same one.
    Options(Vec<Expression>),
}

/// Where a text is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Top,
    Brackets,
}

pub(super) struct Parser<'a> {
    text: &'a str,
    at: usize,
    /// Whether there was a pair of brackets.
    bracketed: bool,
}

type Parsed<T> = Result<T, ConstraintError>;

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, at: 0, bracketed: false }
    }

    /// Reads the whole text.
    pub(super) fn whole(mut self) -> Parsed<Vec<Item>> {
        let mut alternatives = self.alternatives(Place::Top)?;
        if self.at < self.text.len() {
            return Err(self.expected());
        }
        if alternatives.len() == 1 {
            return Ok(alternatives.remove(0));
        }
        let mut any = Vec::new();
        for items in alternatives {
            any.push(join(self.plain(items)?, Expression::All));
        }
        Ok(vec![Item::Plain(join(any, Expression::Any))])
    }

    /// Items that are joined by `&`, all of which must be plain.
    fn plain(&self, items: Vec<Item>) -> Parsed<Vec<Expression>> {
        let plain = |item| match item {
            Item::Plain(expression) => Ok(expression),
            Item::Count(..) => Err(self.unsupported(
                "a count (a*2) can't stand beside |; count the alternatives, (a|b)*2",
            )),
            Item::Options(_) => Err(self.unsupported(
                "a matching set ([a|b]) can't stand beside |; put all options into the brackets",
            )),
        };
        items.into_iter().map(plain).collect()
    }

    fn alternatives(&mut self, place: Place) -> Parsed<Vec<Vec<Item>>> {
        let mut alternatives = Vec::new();
        loop {
            let mut items = Vec::new();
            loop {
                self.item(place, &mut items)?;
                if !self.take(&['&', ',']) {
                    break;
                }
            }
            alternatives.push(items);
            if !self.take(&['|']) {
                return Ok(alternatives);
            }
        }
    }

    fn item(&mut self, place: Place, items: &mut Vec<Item>) -> Parsed<()> {
        if self.take(&['[']) {
            if place == Place::Brackets {
                return Err(self.unsupported("brackets within brackets; use parentheses"));
            }
            if self.bracketed {
                return Err(self.unsupported("a second pair of brackets; only one may be given"));
            }
            self.bracketed = true;
            return self.brackets(items);
        }
        let expression = self.atom(0)?;
        items.push(if self.take(&['*']) {
            Item::Count(self.count()?, expression)
        } else {
            Item::Plain(expression)
        });
        Ok(())
    }

    /// What stands in brackets: counts joined by `&`, or a matching set.
    fn brackets(&mut self, items: &mut Vec<Item>) -> Parsed<()> {
        let mut alternatives = self.alternatives(Place::Brackets)?;
        if !self.take(&[']']) {
            return Err(ConstraintError::Parentheses { text: self.text.to_owned() });
        }
        if self.take(&['*']) {
            let what = "a count after brackets; put it into them, [(a|b)*2]";
            return Err(self.unsupported(what));
        }
        if alternatives.len() == 1 {
            let only = alternatives.remove(0);
            let counted = only.iter().all(|item| matches!(item, Item::Count(..)));
            if !counted && only.len() > 1 {
                let what = "& in brackets needs a count for each, [a*1&b*2]; else leave them out";
                return Err(self.unsupported(what));
            }
            items.extend(only);
            return Ok(());
        }
        let mut options = Vec::new();
        for mut option in alternatives {
            match (option.pop(), option.is_empty()) {
                (Some(Item::Plain(expression)), true) => options.push(expression),
                (Some(Item::Count(..)), true) => {
                    return Err(self.unsupported("counts in brackets are joined by &, not by |"));
                }
                _ => {
                    let what = "& in a matching set needs parentheses, [(a&b)|c]";
                    return Err(self.unsupported(what));
                }
            }
        }
        items.push(Item::Options(options));
        Ok(())
    }

    /// An expression in parentheses.
    fn any(&mut self, depth: usize) -> Parsed<Expression> {
        let mut parts = vec![self.all(depth)?];
        while self.take(&['|']) {
            parts.push(self.all(depth)?);
        }
        Ok(join(parts, Expression::Any))
    }

    fn all(&mut self, depth: usize) -> Parsed<Expression> {
        let mut parts = vec![self.atom(depth)?];
        while self.take(&['&', ',']) {
            parts.push(self.atom(depth)?);
        }
        Ok(join(parts, Expression::All))
    }

    fn atom(&mut self, depth: usize) -> Parsed<Expression> {
        if self.take(&['(']) {
            if depth >= MAX_DEPTH {
                return Err(ConstraintError::Parentheses { text: self.text.to_owned() });
            }
            let inner = self.any(depth + 1)?;
            if matches!(self.peek(), Some('*' | '[')) {
                let what = "counts and brackets can't stand in parentheses";
                return Err(self.unsupported(what));
            }
            if !self.take(&[')']) {
                return Err(ConstraintError::Parentheses { text: self.text.to_owned() });
            }
            return Ok(inner);
        }
        if self.peek() == Some('[') {
            return Err(self.unsupported("counts and brackets can't stand in parentheses"));
        }
        let name = self.word();
        if name.is_empty() { Err(self.expected()) } else { Ok(Expression::Feature(name.into())) }
    }

    fn count(&mut self) -> Parsed<u32> {
        let digits = self.word();
        let count = digits.parse().ok().filter(|count| *count > 0);
        let starred = self.peek() == Some('*');
        count.filter(|_| !starred).ok_or_else(|| ConstraintError::Count {
            text: self.text.to_owned(),
            count: if starred { format!("{digits}*") } else { digits.to_owned() },
        })
    }

    fn word(&mut self) -> &'a str {
        let rest = &self.text[self.at..];
        let end = rest.find(SYMBOLS).unwrap_or(rest.len());
        self.at += end;
        rest[..end].trim()
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].trim_start().chars().next()
    }

    /// Goes past one of these symbols, if it is next.
    fn take(&mut self, symbols: &[char]) -> bool {
        let rest = &self.text[self.at..];
        let found = self.peek().filter(|next| symbols.contains(next));
        if let Some(symbol) = found {
            self.at = self.text.len() - rest.trim_start().len() + symbol.len_utf8();
        }
        found.is_some()
    }

    fn expected(&self) -> ConstraintError {
        ConstraintError::Expected { text: self.text.to_owned(), at: self.at }
    }

    fn unsupported(&self, what: &'static str) -> ConstraintError {
        ConstraintError::Unsupported { text: self.text.to_owned(), what }
    }
}

fn join(mut parts: Vec<Expression>, many: fn(Box<[Expression]>) -> Expression) -> Expression {
    if parts.len() == 1 { parts.remove(0) } else { many(parts.into_boxed_slice()) }
}
