//! Which hosts does a list like `gpu[001-128,200]-ib[0-3],login1` name, and how is it written?
//!
//! Slurm's rules: commas (or blanks) outside brackets separate; several brackets in one word are
//! their product, the last one varying fastest; padding is kept, so that `n[01-10]` and `n[1-10]`
//! differ. As in Slurm, text after the last bracket is refused. Compression folds the number that
//! ends a name and never changes the set of names.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt::Write as _;

use crate::limits::{MAX_HOSTLIST_HOSTS, MAX_LIST_TEXT, MAX_NAME_LEN};

/// Most digits of one number; 18 fit into 64 bits whatever they are.
const MAX_DIGITS: usize = 18;

/// Why a text is no hostlist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostlistError {
    /// A bracket without its partner, or one inside another.
    #[error("hostlist {text:?}: brackets do not match; write n[1-3,5]")]
    Unbalanced {
        /// The word that has the bracket.
        text: String,
    },
    /// Something in brackets that is no number and no range of numbers.
    #[error("hostlist {text:?}: {part:?} is no number or range; write n[1-3,5]")]
    BadRange {
        /// The word that has the bracket.
        text: String,
        /// The part of the bracket that is wrong.
        part: String,
    },
    /// A range whose end is below its start.
    #[error("hostlist {text:?}: range {part:?} runs backwards")]
    Backwards {
        /// The word that has the bracket.
        text: String,
        /// The range.
        part: String,
    },
    /// Text after the last bracket, which Slurm refuses.
    #[error("hostlist {text:?}: {suffix:?} follows the last bracket; list such names one by one")]
    Suffix {
        /// The word.
        text: String,
        /// What follows the bracket.
        suffix: String,
    },
    /// More hosts than [`MAX_HOSTLIST_HOSTS`].
    #[error("hostlist names more than {MAX_HOSTLIST_HOSTS} hosts")]
    TooMany,
    /// A name longer than [`MAX_NAME_LEN`], or a text longer than [`MAX_LIST_TEXT`].
    #[error("hostlist or a name in it is too long ({len} bytes)")]
    TooLong {
        /// Length in bytes.
        len: usize,
    },
}

/// Every name that `text` stands for, in its order, duplicates kept. An empty text names no host.
///
/// # Errors
/// When brackets or ranges are malformed, or the list is beyond a limit; nothing is expanded then.
pub fn expand(text: &str) -> Result<Vec<String>, HostlistError> {
    if text.len() > MAX_LIST_TEXT {
        return Err(HostlistError::TooLong { len: text.len() });
    }
    let mut names = Vec::new();
    for word in split_words(text)? {
        expand_word(word, &mut names)?;
    }
    Ok(names)
}

/// As [`expand`], with only the first of equal names kept.
///
/// # Errors
/// As [`expand`].
pub fn expand_unique(text: &str) -> Result<Vec<String>, HostlistError> {
    let names = expand(text)?;
    let mut seen = HashSet::with_capacity(names.len());
    Ok(names.into_iter().filter(|name| seen.insert(name.clone())).collect())
}

/// The shortest text by Slurm's rules for a set of names: prefixes in the order in which they first
/// appear, numbers sorted and without duplicates, a single host bare.
///
/// Names hold no comma, blank or bracket. O(n log n).
pub fn compress<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut order: HashMap<&str, usize> = HashMap::new();
    let mut groups: Vec<(&str, Group<'a>)> = Vec::new();
    for name in names {
        let (prefix, digits) = split_number(name);
        let at = *order.entry(prefix).or_insert_with(|| {
            groups.push((prefix, Group::default()));
            groups.len() - 1
        });
        let group = &mut groups[at].1;
        if digits.is_empty() {
            group.bare = true;
        } else {
            group.numbers.insert((number(digits), digits.len(), digits));
        }
    }
    let mut out = String::new();
    for (prefix, group) in groups {
        if group.bare {
            push_word(&mut out, prefix, &[]);
        }
        let spans = group.spans();
        if !spans.is_empty() {
            push_word(&mut out, prefix, &spans);
        }
    }
    out
}

/// The names in their given order, duplicates kept, with neighbours folded where they follow each
/// other; what `scontrol show hostlist` prints. O(n).
pub fn compress_keep_order<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut out = String::new();
    let mut current: Option<(&str, Vec<Span>)> = None;
    for name in names {
        let (prefix, digits) = split_number(name);
        let next = (!digits.is_empty()).then(|| Span::single(digits));
        match (&mut current, next) {
            (Some((held, spans)), Some(span)) if *held == prefix && !spans.is_empty() => {
                if !spans.last_mut().is_some_and(|last| last.join(span)) {
                    spans.push(span);
                }
            }
            (_, next) => {
                if let Some((held, spans)) = current.take() {
                    push_word(&mut out, held, &spans);
                }
                current = Some((prefix, next.into_iter().collect()));
            }
        }
    }
    if let Some((held, spans)) = current {
        push_word(&mut out, held, &spans);
    }
    out
}

/// The numbered names of one prefix, and whether the prefix itself is a name.
#[derive(Default)]
struct Group<'a> {
    bare: bool,
    numbers: BTreeSet<(u64, usize, &'a str)>,
}

impl Group<'_> {
    /// Runs of numbers, sorted. Names of different padding never share a run.
    fn spans(&self) -> Vec<Span> {
        let padded: BTreeSet<usize> = self
            .numbers
            .iter()
            .filter(|(_, len, digits)| *len > 1 && digits.starts_with('0'))
            .map(|(_, len, _)| *len)
            .collect();
        // A bucket per padding first, so that n1,n01,n2,n02 gives two runs and not four.
        let mut buckets: HashMap<usize, Vec<Span>> = HashMap::new();
        for (_, len, digits) in &self.numbers {
            let bucket = buckets.entry(if padded.contains(len) { *len } else { 0 }).or_default();
            let span = Span::single(digits);
            if !bucket.last_mut().is_some_and(|last| last.join(span)) {
                bucket.push(span);
            }
        }
        let mut all: Vec<Span> = buckets.into_values().flatten().collect();
        all.sort_unstable();
        let mut spans: Vec<Span> = Vec::with_capacity(all.len());
        for span in all {
            if !spans.last_mut().is_some_and(|last| last.join(span)) {
                spans.push(span);
            }
        }
        spans
    }
}

/// `lo..=hi`, each written with at least `width` digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    lo: u64,
    width: usize,
    hi: u64,
}

impl Span {
    fn single(digits: &str) -> Self {
        let value = number(digits);
        Self { lo: value, width: digits.len(), hi: value }
    }

    /// Appends `next` if every name stays as it is; false leaves both untouched.
    fn join(&mut self, next: Self) -> bool {
        let written = decimal_len(next.lo).max(self.width);
        let same_text = written == next.width;
        if !same_text || self.hi.checked_add(1) != Some(next.lo) {
            return false;
        }
        self.hi = next.hi;
        true
    }
}

fn decimal_len(value: u64) -> usize {
    value.checked_ilog10().map_or(1, |log| log as usize + 1)
}

/// The value of up to [`MAX_DIGITS`] decimal digits.
fn number(digits: &str) -> u64 {
    digits.bytes().fold(0, |value, digit| value * 10 + u64::from(digit - b'0'))
}

/// The order in which a compressed list names hosts: by what stands before the last number, then by
/// that number, so that `n2` comes before `n10`. (Where one prefix has numbers with and without
/// padding, `n2` and `n02`, a list names them apart.)
#[must_use]
pub fn host_order(a: &str, b: &str) -> Ordering {
    let ((a_prefix, a_digits), (b_prefix, b_digits)) = (split_number(a), split_number(b));
    // Without leading zeros, a longer number is a larger one.
    let (a_number, b_number) = (a_digits.trim_start_matches('0'), b_digits.trim_start_matches('0'));
    (a_prefix, a_number.len(), a_number, a_digits.len()).cmp(&(
        b_prefix,
        b_number.len(),
        b_number,
        b_digits.len(),
    ))
}

/// Splits the digits off that end `name`, at most [`MAX_DIGITS`] of them.
fn split_number(name: &str) -> (&str, &str) {
    let digits = name.bytes().rev().take(MAX_DIGITS).take_while(u8::is_ascii_digit).count();
    name.split_at(name.len() - digits)
}

/// Appends one word: `prefix`, `prefix7`, or `prefix[7,9-11]`.
fn push_word(out: &mut String, prefix: &str, spans: &[Span]) {
    if !out.is_empty() {
        out.push(',');
    }
    out.push_str(prefix);
    let brackets = spans.len() > 1 || spans.iter().any(|span| span.lo != span.hi);
    if brackets {
        out.push('[');
    }
    for (i, Span { lo, width, hi }) in spans.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write!(out, "{lo:0width$}").expect("writing to a String cannot fail");
        if hi != lo {
            write!(out, "-{hi:0width$}").expect("writing to a String cannot fail");
        }
    }
    if brackets {
        out.push(']');
    }
}

/// The words between commas and blanks that are outside brackets; empty ones are skipped as Slurm
/// skips them.
fn split_words(text: &str) -> Result<Vec<&str>, HostlistError> {
    let unbalanced = |start: usize| HostlistError::Unbalanced { text: text[start..].to_owned() };
    let mut words = Vec::new();
    let mut start = 0;
    let mut inside = false;
    for (at, c) in text.char_indices() {
        match c {
            '[' if inside => return Err(unbalanced(start)),
            ']' if !inside => return Err(unbalanced(start)),
            '[' => inside = true,
            ']' => inside = false,
            ',' | ' ' | '\t' | '\n' if !inside => {
                words.push(&text[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if inside {
        return Err(unbalanced(start));
    }
    words.push(&text[start..]);
    words.retain(|word| !word.is_empty());
    Ok(words)
}

/// Appends the names that one word stands for.
fn expand_word(word: &str, names: &mut Vec<String>) -> Result<(), HostlistError> {
    let mut parts: Vec<(&str, Vec<Span>)> = Vec::new();
    let mut rest = word;
    let mut count: usize = 1;
    while let Some((literal, tail)) = rest.split_once('[') {
        let Some((body, after)) = tail.split_once(']') else {
            return Err(HostlistError::Unbalanced { text: word.to_owned() });
        };
        let (spans, numbers) = parse_body(word, body)?;
        count = count.checked_mul(numbers).ok_or(HostlistError::TooMany)?;
        parts.push((literal, spans));
        rest = after;
    }
    if names.len().checked_add(count).is_none_or(|total| total > MAX_HOSTLIST_HOSTS) {
        return Err(HostlistError::TooMany);
    }
    if !parts.is_empty() && !rest.is_empty() {
        return Err(HostlistError::Suffix { text: word.to_owned(), suffix: rest.to_owned() });
    }
    let digits_at_most = parts.len() * (MAX_DIGITS + 1);
    let longest = parts.iter().map(|(lit, _)| lit.len()).sum::<usize>() + digits_at_most;
    let longest = if parts.is_empty() { rest.len() } else { longest };
    if longest > MAX_NAME_LEN {
        return Err(HostlistError::TooLong { len: longest });
    }
    if parts.is_empty() {
        names.push(rest.to_owned());
    } else {
        push_product(&parts, &mut String::new(), names);
    }
    Ok(())
}

/// Appends the product of `parts`; recursion is as deep as a word has brackets, which
/// [`MAX_NAME_LEN`] bounds.
fn push_product(parts: &[(&str, Vec<Span>)], head: &mut String, names: &mut Vec<String>) {
    let Some(((literal, spans), rest)) = parts.split_first() else {
        names.push(head.clone());
        return;
    };
    let base = head.len();
    for Span { lo, width, hi } in spans {
        for value in *lo..=*hi {
            head.truncate(base);
            head.push_str(literal);
            write!(head, "{value:0width$}").expect("writing to a String cannot fail");
            push_product(rest, head, names);
        }
    }
    head.truncate(base);
}

/// The ranges of one bracket and how many numbers they hold together.
fn parse_body(word: &str, body: &str) -> Result<(Vec<Span>, usize), HostlistError> {
    let mut spans = Vec::new();
    let mut count: usize = 0;
    for part in body.split(',') {
        let bad = || HostlistError::BadRange { text: word.to_owned(), part: part.to_owned() };
        let (lo, hi) = part.split_once('-').unwrap_or((part, part));
        let valid = |digits: &str| {
            (1..=MAX_DIGITS).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
        };
        if !valid(lo) || !valid(hi) {
            return Err(bad());
        }
        let span = Span { lo: number(lo), width: lo.len(), hi: number(hi) };
        if span.hi < span.lo {
            return Err(HostlistError::Backwards { text: word.to_owned(), part: part.to_owned() });
        }
        let size = usize::try_from(span.hi - span.lo).unwrap_or(usize::MAX);
        count = count.saturating_add(size).saturating_add(1);
        if count > MAX_HOSTLIST_HOSTS {
            return Err(HostlistError::TooMany);
        }
        spans.push(span);
    }
    Ok((spans, count))
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn expanded(text: &str) -> String {
        expand(text).map_or_else(|error| format!("error: {error}"), |names| names.join(" "))
    }

    #[test]
    fn lists_expand_in_order() {
        for (text, expect) in [
            ("", ""),
            (" , ", ""),
            ("n1", "n1"),
            ("n1,n1", "n1 n1"),
            ("n[1-3,5]", "n1 n2 n3 n5"),
            ("n[3,1]", "n3 n1"),
            ("n[08-11]", "n08 n09 n10 n11"),
            ("n[9-10],login", "n9 n10 login"),
            ("r[1-2]n[1-2]", "r1n1 r1n2 r2n1 r2n2"),
            (
                "gpu[001-002,200]-ib[0-1]",
                "gpu001-ib0 gpu001-ib1 gpu002-ib0 gpu002-ib1 gpu200-ib0 gpu200-ib1",
            ),
            ("[1-2]", "1 2"),
            ("a b\tc", "a b c"),
        ] {
            assert_eq!(expanded(text), expect, "{text:?}");
        }
    }

    #[test]
    fn malformed_lists_are_refused() {
        let unbalanced = |r: Result<_, _>| matches!(r, Err(HostlistError::Unbalanced { .. }));
        let bad = |r: Result<_, _>| matches!(r, Err(HostlistError::BadRange { .. }));
        for text in ["n[1", "n1]", "n[[1]]", "a,n[1,b"] {
            assert!(unbalanced(expand(text)), "{text:?}");
        }
        for text in ["n[]", "n[1-]", "n[-1]", "n[a]", "n[1,]", "n[1-2-3]", "n[1234567890123456789]"]
        {
            assert!(bad(expand(text)), "{text:?}");
        }
        assert!(matches!(expand("n[2-1]"), Err(HostlistError::Backwards { .. })));
        assert!(matches!(expand("x[01-02]y"), Err(HostlistError::Suffix { .. })));
        assert!(matches!(expand(&"n".repeat(300)), Err(HostlistError::TooLong { .. })));
    }

    #[test]
    fn a_list_beyond_the_limit_is_refused_before_it_is_expanded() {
        assert_eq!(expand("n[1-100000]").map(|names| names.len()), Ok(MAX_HOSTLIST_HOSTS));
        for text in
            ["n[1-100001]", "n[0-999999999999999999]", "a[1-1000]b[1-1000]", "n[1-100000],x"]
        {
            assert_eq!(expand(text), Err(HostlistError::TooMany), "{text:?}");
        }
    }

    #[test]
    fn unique_expansion_keeps_the_first_of_each() {
        assert_eq!(expand_unique("n[2,1-3],n1").expect("valid"), ["n2", "n1", "n3"]);
    }

    #[test]
    fn compression_sorts_numbers_and_keeps_prefixes_in_order() {
        for (names, expect) in [
            ("", ""),
            ("n1", "n1"),
            ("n2 n1", "n[1-2]"),
            ("n1 n3", "n[1,3]"),
            ("n10 n9 n8 n8", "n[8-10]"),
            ("n09 n10 n11", "n[09-11]"),
            ("n99 n100 n098", "n[098,99-100]"),
            ("n01 n1 n02 n2", "n[1-2,01-02]"),
            ("b1 a1 b2 a2", "b[1-2],a[1-2]"),
            ("n n1 login n2", "n,n[1-2],login"),
            ("r1n1 r1n2 r2n1", "r1n[1-2],r2n1"),
            ("gpu1-ib gpu2-ib", "gpu1-ib,gpu2-ib"),
            ("login login", "login"),
        ] {
            assert_eq!(compress(names.split(' ').filter(|n| !n.is_empty())), expect, "{names:?}");
        }
    }

    #[test]
    fn compression_in_order_folds_neighbours_only() {
        for (names, expect) in [
            ("a b", "a,b"),
            ("n3 n1 n2", "n[3,1-2]"),
            ("n1 n1", "n[1,1]"),
            ("n1 m1 n2", "n1,m1,n2"),
            ("n n1 n2 n", "n,n[1-2],n"),
        ] {
            assert_eq!(compress_keep_order(names.split(' ')), expect, "{names:?}");
        }
    }

    proptest! {
        #[test]
        fn compressed_names_expand_to_the_same_set(
            names in prop::collection::vec("[ab]{0,2}[0-9]{0,2}-?[0-9]{0,3}x?", 0..40)
        ) {
            let names: Vec<String> = names.into_iter().filter(|n| !n.is_empty()).collect();
            let text = compress(names.iter().map(String::as_str));
            let back = expand(&text).expect("what compress writes is a hostlist");
            let unique: BTreeSet<&String> = names.iter().collect();
            prop_assert_eq!(back.len(), unique.len(), "{}", &text);
            prop_assert_eq!(back.iter().collect::<BTreeSet<_>>(), unique, "{}", text);
        }

        #[test]
        fn hosts_in_order_are_in_the_order_of_their_list(
            names in prop::collection::btree_set("n[1-9][0-9]{0,2}|m[0-9]{3}|r[0-9]n[0-9]", 0..40)
        ) {
            let mut names: Vec<String> = names.into_iter().collect();
            names.sort_by(|a, b| host_order(a, b));
            let text = compress(names.iter().map(String::as_str));
            prop_assert_eq!(expand(&text).expect("a hostlist"), names, "{}", text);
        }

        #[test]
        fn names_compressed_in_order_expand_to_themselves(
            names in prop::collection::vec("n[01]?[0-9]{0,2}", 0..40)
        ) {
            let text = compress_keep_order(names.iter().map(String::as_str));
            prop_assert_eq!(expand(&text).expect("a hostlist"), names);
        }

        #[test]
        fn no_text_makes_expansion_panic(text in "[n0-9,\\[\\]\\- é]{0,30}") {
            if let Ok(names) = expand(&text) {
                prop_assert!(names.len() <= MAX_HOSTLIST_HOSTS);
            }
        }
    }
}
