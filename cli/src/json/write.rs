//! How are JSON and YAML laid out?
//!
//! JSON as json-c does it, with which Slurm writes; YAML with the type of every value, as Slurm's own
//! writer does.

use std::fmt::Write as _;

use super::Json;

/// The value as JSON, ended by a newline.
pub(super) fn json(value: &Json) -> String {
    let mut out = String::new();
    push_json(&mut out, value, 0);
    out.push('\n');
    out
}

fn push_json(out: &mut String, value: &Json, depth: usize) {
    match value {
        Json::Null => out.push_str("null"),
        Json::Bool(true) => out.push_str("true"),
        Json::Bool(false) => out.push_str("false"),
        Json::Int(number) => push(out, format_args!("{number}")),
        Json::Float(number) => push_float(out, *number),
        Json::Text(text) => push_quoted(out, text),
        Json::Blank => out.push_str("\"\""),
        Json::List(values) => {
            out.push('[');
            for (at, value) in values.iter().enumerate() {
                out.push_str(if at == 0 { "\n" } else { ",\n" });
                indent(out, depth + 1);
                push_json(out, value, depth + 1);
            }
            out.push('\n');
            indent(out, depth);
            out.push(']');
        }
        Json::Map(entries) => {
            out.push('{');
            for (at, (key, value)) in entries.iter().enumerate() {
                out.push_str(if at == 0 { "\n" } else { ",\n" });
                indent(out, depth + 1);
                push_quoted(out, key);
                out.push_str(": ");
                push_json(out, value, depth + 1);
            }
            out.push('\n');
            indent(out, depth);
            out.push('}');
        }
    }
}

fn indent(out: &mut String, depth: usize) {
    (0..depth).for_each(|_| out.push_str("  "));
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a String cannot fail");
}

/// With at least one decimal, and never as a word that JSON lacks.
fn push_float(out: &mut String, number: f64) {
    if number.is_finite() {
        push(out, format_args!("{number:?}"));
    } else {
        out.push_str("null");
    }
}

fn push_quoted(out: &mut String, text: &str) {
    out.push('"');
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '/' => out.push_str("\\/"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            letter if letter.is_control() => {
                push(out, format_args!("\\u{:04x}", u32::from(letter)))
            }
            letter => out.push(letter),
        }
    }
    out.push('"');
}

/// The value as YAML, with Slurm's frame.
pub(super) fn yaml(value: &Json) -> String {
    let mut out = "%YAML 1.1\n---".to_owned();
    push_yaml(&mut out, value, 0);
    out.push_str("...\n");
    out
}

/// Writes what follows a key or a dash, with the newline that ends it.
fn push_yaml(out: &mut String, value: &Json, depth: usize) {
    match value {
        Json::Null => out.push_str(" !!null null\n"),
        Json::Bool(bit) => push(out, format_args!(" !!bool {bit}\n")),
        Json::Int(number) => push(out, format_args!(" !!int {number}\n")),
        Json::Float(number) => push(out, format_args!(" !!float {number:.6}\n")),
        Json::Blank => out.push_str(" !!str\n"),
        Json::Text(text) if text.is_empty() => out.push_str(" !!null null\n"),
        Json::Text(text) => {
            out.push_str(" !!str ");
            push_scalar(out, text);
            out.push('\n');
        }
        Json::List(values) if values.is_empty() => out.push_str(" !!seq []\n"),
        Json::List(values) => {
            out.push_str(" !!seq\n");
            for value in values {
                indent(out, depth.saturating_sub(1));
                out.push('-');
                push_yaml(out, value, depth);
            }
        }
        Json::Map(entries) if entries.is_empty() => out.push_str(" !!map {}\n"),
        Json::Map(entries) => {
            out.push_str(" !!map\n");
            for (key, value) in entries {
                indent(out, depth);
                push(out, format_args!("!!str {key}:"));
                push_yaml(out, value, depth + 1);
            }
        }
    }
}

/// A text plain where YAML reads it back as it is, else in single quotes; what cannot be printed needs
/// double ones.
fn push_scalar(out: &mut String, text: &str) {
    let plain_first =
        |letter: char| letter.is_alphanumeric() || matches!(letter, '/' | '_' | '(' | '.');
    let odd = |letter: char| letter.is_control() || matches!(letter, '#');
    let plain = text.starts_with(plain_first)
        && !text.ends_with([' ', ':'])
        && !text.contains(": ")
        && !text.contains(odd);
    if plain {
        out.push_str(text);
    } else if text.contains(char::is_control) {
        push_quoted(out, text);
    } else {
        push(out, format_args!("'{}'", text.replace('\'', "''")));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::map;
    use super::*;

    fn sample() -> Json {
        map(vec![
            ("name", Json::text("a/b \"c\"\n\u{1b}[31m ü")),
            ("unset", Json::text("")),
            ("none", Json::Null),
            ("list", Json::List(vec![Json::text("x"), map(vec![("n", Json::Int(-3))])])),
            ("empty", Json::List(Vec::new())),
            ("share", Json::Float(3.0)),
            ("yes", Json::Bool(true)),
        ])
    }

    #[test]
    fn json_is_laid_out_as_json_c_does() {
        assert_eq!(
            json(&sample()),
            "{\n  \"name\": \"a\\/b \\\"c\\\"\\n\\u001b[31m ü\",\n  \"unset\": \"\",\n  \"none\": null,\n  \
             \"list\": [\n    \"x\",\n    {\n      \"n\": -3\n    }\n  ],\n  \"empty\": [\n  ],\n  \
             \"share\": 3.0,\n  \"yes\": true\n}\n"
        );
    }

    #[test]
    fn yaml_tells_the_type_of_each_value() {
        assert_eq!(
            yaml(&sample()),
            "%YAML 1.1\n--- !!map\n!!str name: !!str \"a\\/b \\\"c\\\"\\n\\u001b[31m ü\"\n\
             !!str unset: !!null null\n!!str none: !!null null\n!!str list: !!seq\n- !!str x\n\
             - !!map\n  !!str n: !!int -3\n!!str empty: !!seq []\n!!str share: !!float 3.000000\n\
             !!str yes: !!bool true\n...\n"
        );
    }

    proptest! {
        #[test]
        fn no_text_breaks_out_of_its_line(text in ".{0,20}") {
            let written = json(&Json::text(text));
            prop_assert_eq!(written.lines().count(), 1);
            let steers = written.chars().any(|letter| letter.is_control() && letter != '\n');
            prop_assert!(!steers);
        }
    }
}
