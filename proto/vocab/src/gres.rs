//! Which generic resources does `gpu:h100:4,shard:1` ask for?
//!
//! Forms: `gpu`, `gpu:2`, `gpu:a100`, `gpu:a100:2`, each with an optional `gres/` or `gres:` before
//! it. A count may carry k, m, g, t or p (powers of 1024). What reads as a count is never a type.

use std::fmt;
use std::str::FromStr;

use crate::ids::{NameError, check_name};
use crate::limits::{MAX_GRES_LIST, MAX_LIST_TEXT};

/// A kind of resource: its name, and its type where one matters. Orders by name, untyped first.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GresName {
    name: Box<str>,
    kind: Option<Box<str>>,
}

/// So many of a kind of resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct GresRequest {
    /// Which kind; untyped means any type.
    pub name: GresName,
    /// How many; zero asks for none.
    pub count: u64,
}

/// Why a text is no gres list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GresError {
    /// An entry that has none of the forms.
    #[error("gres {text:?} is not understood; give NAME, NAME:COUNT, NAME:TYPE or NAME:TYPE:COUNT")]
    Malformed {
        /// The entry.
        text: String,
    },
    /// A count beyond 64 bits.
    #[error("gres {text:?}: the count is too large")]
    TooMany {
        /// The entry.
        text: String,
    },
    /// A type that would be read as a count.
    #[error("gres type {kind:?} reads as a count; give the type a letter")]
    KindIsCount {
        /// The type.
        kind: String,
    },
    /// A name or type with a letter that lists cannot carry.
    #[error("gres {text:?} has a wrong name or type")]
    Name {
        /// The entry.
        text: String,
        /// What is wrong with it.
        source: NameError,
    },
    /// More than [`MAX_GRES_LIST`] entries, or a text beyond [`MAX_LIST_TEXT`].
    #[error("gres list is too long; at most {MAX_GRES_LIST} entries are allowed")]
    TooLong,
}

impl GresName {
    /// A kind of resource from its parts.
    ///
    /// # Errors
    /// When a part is empty, too long, has a letter that lists cannot carry, or when the type would
    /// be read as a count.
    pub fn new(name: &str, kind: Option<&str>) -> Result<Self, GresError> {
        let wrong = |text: &str| {
            let text = text.to_owned();
            move |source| GresError::Name { text, source }
        };
        check_name("gres", name).map_err(wrong(name))?;
        if let Some(kind) = kind {
            check_name("gres type", kind).map_err(wrong(kind))?;
            if is_count(kind) {
                return Err(GresError::KindIsCount { kind: kind.to_owned() });
            }
        }
        Ok(Self { name: name.into(), kind: kind.map(Into::into) })
    }

    /// Any GPU.
    #[must_use]
    pub fn gpu() -> Self {
        Self { name: "gpu".into(), kind: None }
    }

    /// The name: `gpu`, `shard`, ...
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The type, such as `h100`; `None` for any.
    #[must_use]
    pub fn kind(&self) -> Option<&str> {
        self.kind.as_deref()
    }

    /// The same resource of any type.
    #[must_use]
    pub fn untyped(&self) -> Self {
        Self { name: self.name.clone(), kind: None }
    }
}

/// `gpu` or `gpu:h100`.
impl fmt::Display for GresName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            None => f.pad(&self.name),
            Some(kind) => f.pad(&format!("{}:{kind}", self.name)),
        }
    }
}

impl FromStr for GresName {
    type Err = GresError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = strip_family(text);
        match bare.split_once(':') {
            None => Self::new(bare, None),
            Some((name, kind)) => Self::new(name, Some(kind)),
        }
    }
}

/// `gpu:4` or `gpu:h100:4`; the count is always written.
impl fmt::Display for GresRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}:{}", self.name, self.count))
    }
}

impl FromStr for GresRequest {
    type Err = GresError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bare = strip_family(text);
        let malformed = || GresError::Malformed { text: text.to_owned() };
        let fields: Vec<&str> = bare.split(':').collect();
        let (name, kind, count) = match *fields.as_slice() {
            [name] => (name, None, None),
            [name, last] if is_count(last) => (name, None, Some(last)),
            [name, kind] => (name, Some(kind), None),
            [name, kind, count] if is_count(count) => (name, Some(kind), Some(count)),
            _ => return Err(malformed()),
        };
        let count = match count {
            None => 1,
            Some(digits) => {
                let error = || GresError::TooMany { text: text.to_owned() };
                parse_count(digits).ok_or_else(error)?
            }
        };
        Ok(Self { name: GresName::new(name, kind)?, count })
    }
}

/// Reads a comma-separated gres list, in its order; `none` and the empty text ask for nothing.
///
/// # Errors
/// When an entry is malformed or the list is beyond [`MAX_GRES_LIST`].
pub fn parse_gres_list(text: &str) -> Result<Vec<GresRequest>, GresError> {
    parse_list(text, str::parse)
}

/// Reads the value of `--gpus`, `--gpus-per-node` and the like: `4`, `h100:4`, or several types
/// joined by commas. A type alone asks for one.
///
/// # Errors
/// As [`parse_gres_list`].
pub fn parse_gpus(text: &str) -> Result<Vec<GresRequest>, GresError> {
    parse_list(text, |entry| format!("gpu:{entry}").parse())
}

/// Whether a resource `offered` by a node satisfies a `request`: same name, and same type unless
/// the request names none.
#[must_use]
pub fn gres_matches(request: &GresName, offered: &GresName) -> bool {
    request.name == offered.name && (request.kind.is_none() || request.kind == offered.kind)
}

/// Reads digits with an optional k, m, g, t or p (powers of 1024, any case); `None` if it is no
/// count or beyond 64 bits.
#[must_use]
pub fn parse_count(text: &str) -> Option<u64> {
    let (digits, power) = split_count(text)?;
    digits.parse::<u64>().ok()?.checked_mul(1 << (10 * power))
}

fn is_count(text: &str) -> bool {
    split_count(text).is_some()
}

/// Digits, and the power of 1024 behind them.
fn split_count(text: &str) -> Option<(&str, u32)> {
    let end = text.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, suffix) = text.split_at(end);
    let power = match suffix.to_ascii_lowercase().as_str() {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return None,
    };
    (!digits.is_empty()).then_some((digits, power))
}

/// Without the `gres/` or `gres:` that older and newer tools put before a name.
fn strip_family(text: &str) -> &str {
    text.strip_prefix("gres/").or_else(|| text.strip_prefix("gres:")).unwrap_or(text)
}

fn parse_list<F>(text: &str, parse: F) -> Result<Vec<GresRequest>, GresError>
where
    F: Fn(&str) -> Result<GresRequest, GresError>,
{
    let trimmed = text.trim();
    if trimmed.is_empty() || trimmed.eq_ignore_ascii_case("none") {
        return Ok(Vec::new());
    }
    if trimmed.len() > MAX_LIST_TEXT || trimmed.split(',').count() > MAX_GRES_LIST {
        return Err(GresError::TooLong);
    }
    trimmed.split(',').map(parse).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn printed(requests: Result<Vec<GresRequest>, GresError>) -> String {
        let words =
            |list: Vec<GresRequest>| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        requests.map_or_else(|error| format!("error: {error}"), |list| words(list).join(","))
    }

    #[test]
    fn every_form_is_read() {
        for (text, expect) in [
            ("", ""),
            ("none", ""),
            ("NONE", ""),
            ("gpu", "gpu:1"),
            ("gpu:2", "gpu:2"),
            ("gpu:0", "gpu:0"),
            ("gpu:a100", "gpu:a100:1"),
            ("gpu:a100:2", "gpu:a100:2"),
            ("gpu:h100:4,shard:1", "gpu:h100:4,shard:1"),
            ("gres/gpu:2", "gpu:2"),
            ("gres:gpu:a100:2", "gpu:a100:2"),
            ("bandwidth:2k", "bandwidth:2048"),
            ("x:1M,y:1g", "x:1048576,y:1073741824"),
            ("gpu:1g.10gb:3", "gpu:1g.10gb:3"),
        ] {
            assert_eq!(printed(parse_gres_list(text)), expect, "{text:?}");
        }
        for (text, expect) in [
            ("4", "gpu:4"),
            ("h100:4", "gpu:h100:4"),
            ("h100", "gpu:h100:1"),
            ("a:1,b:2", "gpu:a:1,gpu:b:2"),
        ] {
            assert_eq!(printed(parse_gpus(text)), expect, "{text:?}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in [
            ",",
            "gpu,",
            ":",
            "gpu:",
            ":2",
            "gpu:a:b",
            "gpu:a:2:3",
            "gpu:-1",
            "gpu:a b",
            "gpu:2:2",
            "gres/",
        ] {
            assert!(parse_gres_list(text).is_err(), "{text:?}");
        }
        let huge = parse_gres_list("gpu:99999999999999999999");
        assert!(matches!(huge, Err(GresError::TooMany { .. })));
        assert_eq!(parse_gres_list(&"a,".repeat(300)), Err(GresError::TooLong));
        assert!(matches!(GresName::new("gpu", Some("2k")), Err(GresError::KindIsCount { .. })));
    }

    #[test]
    fn an_untyped_request_takes_any_type() {
        let name = |text: &str| text.parse::<GresName>().expect("valid");
        for (request, offered, expect) in [
            ("gpu", "gpu:h100", true),
            ("gpu", "gpu", true),
            ("gpu:h100", "gpu:h100", true),
            ("gpu:h100", "gpu:a100", false),
            ("gpu:h100", "gpu", false),
            ("gpu", "shard", false),
        ] {
            assert_eq!(gres_matches(&name(request), &name(offered)), expect, "{request} {offered}");
        }
    }

    proptest! {
        #[test]
        fn requests_read_back(name in "[a-z][a-z0-9_]{0,5}", kind in prop::option::of("[a-z][a-z0-9.]{0,5}"), count: u64) {
            prop_assume!(name != "gres" && name != "none");
            let name = GresName::new(&name, kind.as_deref()).expect("valid");
            prop_assert_eq!(name.to_string().parse(), Ok(name.clone()));
            let request = GresRequest { name, count };
            prop_assert_eq!(request.to_string().parse(), Ok(request));
        }
    }
}
