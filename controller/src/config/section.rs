//! How is one table of the file read, so that no key goes unread and no mistake unsaid?
//!
//! A [`Section`] hands out values by key and remembers which keys it was asked for; `finish` names
//! every other key of the table. A value of a wrong kind is reported and counts as absent, so that
//! one reading finds all mistakes.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};
use std::path::PathBuf;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::problem::{Problems, nearest};

/// A value and the bytes of the file that it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed<T> {
    pub(super) value: T,
    pub(super) at: Range<usize>,
}

/// One table of the file while it is read.
pub(super) struct Section<'s, 'p, 'i> {
    /// As messages name it: `[controller]`, `[[partition]] "main"`.
    pub(super) title: String,
    table: &'s DeTable<'i>,
    at: Range<usize>,
    known: Vec<&'static str>,
    pub(super) problems: &'s mut Problems<'p>,
}

impl<'s, 'p, 'i> Section<'s, 'p, 'i> {
    pub(super) fn new(
        title: impl Into<String>,
        table: &'s DeTable<'i>,
        at: Range<usize>,
        problems: &'s mut Problems<'p>,
    ) -> Self {
        Self { title: title.into(), table, at, known: Vec::new(), problems }
    }

    /// Where the table begins.
    pub(super) fn at(&self) -> Range<usize> {
        self.at.clone()
    }

    fn get(&mut self, key: &'static str) -> Option<&'s Spanned<DeValue<'i>>> {
        self.known.push(key);
        self.table.get(key)
    }

    /// A key that is read elsewhere.
    pub(super) fn skip(&mut self, key: &'static str) {
        self.known.push(key);
    }

    fn wrong_kind(&mut self, key: &str, value: &Spanned<DeValue<'i>>, wanted: &str, example: &str) {
        let message = format!(
            "{} {key} is {}, and {wanted} is wanted; write {key} = {example}",
            self.title,
            said(value.get_ref()),
        );
        self.problems.error(&value.span(), message);
    }

    /// A text.
    pub(super) fn string(&mut self, key: &'static str, example: &str) -> Option<Placed<String>> {
        let value = self.get(key)?;
        if let Some(text) = value.get_ref().as_str() {
            return Some(Placed { value: text.to_owned(), at: value.span() });
        }
        self.wrong_kind(key, value, "a text", example);
        None
    }

    /// A text, or a whole number as its digits.
    pub(super) fn string_or_number(&mut self, key: &'static str) -> Option<Placed<String>> {
        let Some(value) = self.table.get(key) else {
            self.known.push(key);
            return None;
        };
        if let DeValue::Integer(integer) = value.get_ref() {
            self.known.push(key);
            return Some(Placed { value: integer.to_string(), at: value.span() });
        }
        self.string(key, "64")
    }

    /// `true` or `false`.
    pub(super) fn boolean(&mut self, key: &'static str) -> Option<Placed<bool>> {
        let value = self.get(key)?;
        if let Some(flag) = value.get_ref().as_bool() {
            return Some(Placed { value: flag, at: value.span() });
        }
        self.wrong_kind(key, value, "true or false", "true");
        None
    }

    /// A whole number within `range`.
    pub(super) fn number(
        &mut self,
        key: &'static str,
        range: RangeInclusive<u32>,
    ) -> Option<Placed<u32>> {
        let value = self.get(key)?;
        let (low, high) = (*range.start(), *range.end());
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_kind(key, value, "a whole number", &low.max(1).to_string());
            return None;
        };
        let number = u32::from_str_radix(integer.as_str(), integer.radix()).ok();
        match number.filter(|number| range.contains(number)) {
            Some(number) => Some(Placed { value: number, at: value.span() }),
            None => {
                let message = format!(
                    "{} {key} is {integer}; give a number from {low} to {high}",
                    self.title
                );
                self.problems.error(&value.span(), message);
                None
            }
        }
    }

    /// A list of texts; one text stands for a list of one.
    pub(super) fn strings(
        &mut self,
        key: &'static str,
        example: &str,
    ) -> Option<Placed<Vec<Placed<String>>>> {
        let value = self.get(key)?;
        let items = match value.get_ref() {
            DeValue::String(text) => {
                vec![Placed { value: text.clone().into_owned(), at: value.span() }]
            }
            DeValue::Array(array) => {
                let mut items = Vec::with_capacity(array.len());
                for item in array.iter() {
                    match item.get_ref().as_str() {
                        Some(text) => {
                            items.push(Placed { value: text.to_owned(), at: item.span() });
                        }
                        None => self.wrong_kind(key, item, "a list of texts", example),
                    }
                }
                items
            }
            _ => {
                self.wrong_kind(key, value, "a list of texts", example);
                return None;
            }
        };
        Some(Placed { value: items, at: value.span() })
    }

    /// A text that `parse` understands.
    pub(super) fn parsed<T, E: Display>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Placed<T>> {
        let text = self.string(key, example)?;
        self.convert(key, text, parse)
    }

    /// As [`Self::parsed`], where a bare whole number is understood as its digits: minutes of a
    /// time, mebibytes of a size.
    pub(super) fn parsed_or_number<T, E: Display>(
        &mut self,
        key: &'static str,
        example: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Placed<T>> {
        if let Some(value) = self.table.get(key)
            && let DeValue::Integer(integer) = value.get_ref()
        {
            self.known.push(key);
            let text = Placed { value: integer.to_string(), at: value.span() };
            return self.convert(key, text, parse);
        }
        self.parsed(key, example, parse)
    }

    /// An absolute path.
    pub(super) fn path(&mut self, key: &'static str, example: &str) -> Option<Placed<PathBuf>> {
        self.parsed(key, example, |text| {
            let path = PathBuf::from(text);
            if path.is_absolute() {
                return Ok(path);
            }
            Err(format!("{text:?} is no absolute path; daemons run in /, so begin it with a slash"))
        })
    }

    fn convert<T, E: Display>(
        &mut self,
        key: &str,
        text: Placed<String>,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Placed<T>> {
        match parse(&text.value) {
            Ok(value) => Some(Placed { value, at: text.at }),
            Err(error) => {
                self.problems.error(&text.at, format!("{} {key}: {error}", self.title));
                None
            }
        }
    }

    /// Names every key that was never asked for.
    pub(super) fn finish(self) {
        for key in self.table.keys() {
            let name = key.get_ref().as_ref();
            if self.known.contains(&name) {
                continue;
            }
            let message = unknown_key(&self.title, name, &self.known);
            self.problems.error(&key.span(), message);
        }
    }
}

/// What to say of a key that is not known: the one that was meant, or all there are.
pub(super) fn unknown_key(title: &str, name: &str, known: &[&str]) -> String {
    match nearest(name, known) {
        Some(meant) => format!("{title} has no key {name:?}; did you mean {meant:?}?"),
        None => {
            let mut known = known.to_vec();
            known.sort_unstable();
            format!("{title} has no key {name:?}; it has {}", known.join(", "))
        }
    }
}

/// A value as a message names it: its kind, and the value where it is short.
fn said(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.len() <= 40 => format!("the text {text:?}"),
        DeValue::String(_) => "a long text".to_owned(),
        DeValue::Integer(number) => format!("the number {number}"),
        DeValue::Float(number) => format!("the fraction {}", number.as_str()),
        DeValue::Boolean(flag) => flag.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}
