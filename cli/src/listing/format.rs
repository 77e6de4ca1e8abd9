//! Which columns does a format of squeue or sinfo ask for?
//!
//! `-o`: `%[[.]W]C[suffix]`, where the text up to the next `%` follows the column and text before
//! the first `%` begins the line. `-O`: `name[:[.][W][suffix]]`, joined by commas, 20 wide unless
//! said. A width is both the least and the most; without one the text stays as it is.

/// One column: a field of type `F`, and how it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Column<F> {
    /// What is shown; `None`: nothing but the suffix (a field that does not exist).
    pub(crate) field: Option<F>,
    /// Least and most characters; 0: as long as the text is.
    pub(crate) width: usize,
    /// Blanks go before the text.
    pub(crate) right: bool,
    /// Text behind the column, also in the header.
    pub(crate) suffix: String,
}

/// A format, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Columns<F> {
    /// Text at the beginning of each line.
    pub(crate) prefix: String,
    /// The columns in their order.
    pub(crate) columns: Vec<Column<F>>,
    /// What of the format names no field.
    pub(crate) unknown: Vec<String>,
}

/// Which option a format came from, and with it how it is parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Source {
    /// `-o`.
    Letters(String),
    /// `-O`.
    Names(String),
}

/// Width of a column of `-O` that says none.
const NAMED_WIDTH: usize = 20;

/// Widest column; more would only waste memory.
const MAX_WIDTH: usize = 1 << 16;

/// Takes a format of `-o` apart; `find` knows the letters.
pub(crate) fn parse_letters<F>(format: &str, find: impl Fn(char) -> Option<F>) -> Columns<F> {
    // As strtok does in Slurm, several percent signs count as one.
    let mut tokens = format.split('%');
    let prefix = tokens.next().unwrap_or_default().to_owned();
    let mut parsed = Columns { prefix, columns: Vec::new(), unknown: Vec::new() };
    for token in tokens.filter(|token| !token.is_empty()) {
        let (right, width, rest) = parse_width(token);
        let mut letters = rest.chars();
        let Some(letter) = letters.next() else {
            parsed.unknown.push(String::new());
            let suffix = format!("%{token}");
            parsed.columns.push(Column { field: None, width: 0, right: false, suffix });
            continue;
        };
        let column = match find(letter) {
            Some(field) => {
                Column { field: Some(field), width, right, suffix: letters.as_str().to_owned() }
            }
            None => {
                parsed.unknown.push(letter.to_string());
                Column { field: None, width: 0, right: false, suffix: format!("%{token}") }
            }
        };
        parsed.columns.push(column);
    }
    parsed
}

/// Takes a format of `-O` apart; `find` knows the names, which come in lower case.
pub(crate) fn parse_names<F>(format: &str, find: impl Fn(&str) -> Option<F>) -> Columns<F> {
    let mut parsed = Columns { prefix: String::new(), columns: Vec::new(), unknown: Vec::new() };
    for word in format.split(',').map(str::trim_start).filter(|word| !word.is_empty()) {
        let (name, rest) = match word.split_once(':') {
            Some((name, rest)) => (name, Some(rest)),
            None => (word, None),
        };
        let Some(field) = find(&name.trim_end().to_ascii_lowercase()) else {
            parsed.unknown.push(name.to_owned());
            continue;
        };
        let (right, width, suffix) = rest.map_or((false, NAMED_WIDTH, ""), parse_width);
        let column = Column { field: Some(field), width, right, suffix: suffix.to_owned() };
        parsed.columns.push(column);
    }
    parsed
}

/// Every letter that `find` knows, each as long as its text, with what `suffix` gives behind it.
pub(crate) fn all_letters<F>(
    letters: &str,
    find: impl Fn(char) -> Option<F>,
    suffix: impl Fn(char) -> &'static str,
) -> Columns<F> {
    let column = |letter| {
        let suffix = suffix(letter).to_owned();
        find(letter).map(|field| Column { field: Some(field), width: 0, right: false, suffix })
    };
    let columns = letters.chars().filter_map(column).collect();
    Columns { prefix: String::new(), columns, unknown: Vec::new() }
}

/// Reads `[.][W]`; returns what follows.
fn parse_width(text: &str) -> (bool, usize, &str) {
    let (right, rest) = match text.strip_prefix('.') {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = rest.split_at(digits);
    let width = if number.is_empty() { 0 } else { number.parse().unwrap_or(MAX_WIDTH) };
    (right, width.min(MAX_WIDTH), rest)
}

/// Appends `text` cut or filled to `width` characters.
pub(crate) fn push_padded(out: &mut Vec<u8>, text: &str, width: usize, right: bool) {
    if width == 0 {
        out.extend_from_slice(text.as_bytes());
        return;
    }
    let (text, len) = cut(text, width);
    let blanks = width - len;
    if right {
        out.resize(out.len() + blanks, b' ');
    }
    out.extend_from_slice(text.as_bytes());
    if !right {
        out.resize(out.len() + blanks, b' ');
    }
}

/// Appends `text`, filled to `width` characters where it is shorter.
pub(crate) fn push_at_least(out: &mut Vec<u8>, text: &str, width: usize, right: bool) {
    push_padded(out, text, width.max(text.chars().count()), right);
}

/// At most `width` characters of `text`, and how many they are.
pub(crate) fn cut(text: &str, width: usize) -> (&str, usize) {
    if text.is_ascii() {
        let len = text.len().min(width);
        return (&text[..len], len);
    }
    match text.char_indices().nth(width) {
        Some((end, _)) => (&text[..end], width),
        None => (text, text.chars().count()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn letter(c: char) -> Option<char> {
        c.is_ascii_alphabetic().then_some(c)
    }

    /// A line with each field shown as its letter or name and nothing padded away.
    fn line<F: ToString>(parsed: &Columns<F>) -> String {
        let mut out = parsed.prefix.clone().into_bytes();
        for column in &parsed.columns {
            let text = column.field.as_ref().map(F::to_string).unwrap_or_default();
            push_padded(&mut out, &text, column.width, column.right);
            out.extend_from_slice(column.suffix.as_bytes());
        }
        String::from_utf8(out).expect("UTF-8 in, UTF-8 out")
    }

    #[test]
    fn letter_formats_are_read_as_slurm_does() {
        let check = |format: &str, expect: &str| {
            assert_eq!(line(&parse_letters(format, letter)), expect, "{format:?}");
        };
        check("%.3i %2P|%j", "  i P |j");
        check(" %A", " A");
        check("x%.3iyy%5jz%z%%%s", "x  iyyj    zzs");
        check("%i %", "i ");
        check("%foo", "foo");
        check("%i|%-5j|%.j", "i|%-5j|j");
        check("%1000N", &format!("N{}", " ".repeat(999)));
        check("plain", "plain");
        check("", "");
        assert_eq!(parse_letters("%-5j%i%é", letter).unknown, ["-", "é"]);
    }

    #[test]
    fn name_formats_are_read_as_slurm_does() {
        let find = |name: &str| ["jobid", "name", "state"].contains(&name).then(|| name.to_owned());
        let check = |format: &str, expect: &str| {
            assert_eq!(line(&parse_names(format, find)), expect, "{format:?}");
        };
        check("jobid", "jobid               ");
        check("JobID:7", "jobid  ");
        check("jobid:3", "job");
        check("jobid:7,name:.10,state::xx", "jobid        namestate:xx");
        check("jobid:6s,name:.8zz|", "jobid s    namezz|");
        check("jobid:###turm###,", "jobid###turm###");
        assert_eq!(parse_names("jobid,foo,name", find).unknown, ["foo"]);
    }

    proptest! {
        #[test]
        fn no_format_panics(format in "[%.0-9a-z:é, -]{0,24}") {
            let parsed = parse_letters(&format, letter);
            let _line = line(&parsed);
            let _line = line(&parse_names(&format, |name| Some(name.to_owned())));
        }

        #[test]
        fn a_width_is_kept(text in ".{0,30}", width in 1_usize..40, right: bool) {
            let mut out = Vec::new();
            push_padded(&mut out, &text, width, right);
            let out = String::from_utf8(out).expect("UTF-8 in, UTF-8 out");
            prop_assert_eq!(out.chars().count(), width);
        }
    }
}
