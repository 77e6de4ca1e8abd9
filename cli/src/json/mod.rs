//! How do listings tell other programs what they know (`--json`, `--yaml`)?
//!
//! In the shape of the Slurm that `--version` names, 22.05 with its data version v0.0.38: keys, order
//! of keys and layout are its own. `--json=v0.0.40` gives the shape of Slurm 23.11, in which numbers
//! say whether they are set and states are lists.

mod account;
mod job;
mod newer;
mod node;
mod write;

pub(crate) use account::accounted_jobs;
pub(crate) use job::queued_jobs;
pub(crate) use node::nodes;

use std::borrow::Cow;

use crate::errors::error;

/// A value that is written as JSON or YAML.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    /// Not known, or no value.
    Null,
    /// A switch.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Any other number.
    Float(f64),
    /// A text; an empty one is unset, which JSON writes as `""` and YAML as null.
    Text(String),
    /// A text that is set and empty, which YAML tells from one that is unset.
    Blank,
    /// Values in their order.
    List(Vec<Self>),
    /// Keys with their values, in their order.
    Map(Vec<(Cow<'static, str>, Self)>),
}

impl Json {
    /// A text.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(text.into())
    }

    /// A count.
    pub(crate) fn count(number: impl Into<u64>) -> Self {
        Self::Int(i64::try_from(number.into()).unwrap_or(i64::MAX))
    }

    /// Seconds since the epoch; 0: unset.
    pub(crate) const fn time(ms: i64) -> Self {
        Self::Int(ms.div_euclid(1000))
    }

    /// The value of a key of a map.
    fn get(&self, key: &str) -> Option<&Self> {
        match self {
            Self::Map(entries) => entries.iter().find(|(name, _)| *name == key).map(|(_, v)| v),
            _ => None,
        }
    }
}

/// A map of fixed keys.
fn map(entries: Vec<(&'static str, Json)>) -> Json {
    Json::Map(entries.into_iter().map(|(key, value)| (Cow::Borrowed(key), value)).collect())
}

/// In which form and shape a listing is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Form {
    yaml: bool,
    newer: bool,
}

/// Which of Slurm's plugins would have answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Source {
    /// The controller.
    Controller,
    /// Accounting.
    Accounting,
}

impl Form {
    /// JSON of data version v0.0.40.
    pub(crate) const NEWER: Self = Self { yaml: false, newer: true };

    /// Reads `--json[=VERSION]` or `--yaml[=VERSION]`.
    ///
    /// # Errors
    /// With the exit status, once the reason is printed.
    pub(crate) fn read(program: &str, yaml: bool, version: Option<&str>) -> Result<Self, i32> {
        let word = version.unwrap_or_default();
        let number = word.strip_prefix('v').unwrap_or(word);
        let newer = match number {
            "" | "0.0.38" => false,
            "0.0.40" => true,
            _ => {
                error(
                    program,
                    &format!("data version {word:?} is not known; give v0.0.38 or v0.0.40"),
                );
                return Err(1);
            }
        };
        Ok(Self { yaml, newer })
    }

    /// The whole answer: what it is, and under `key` the records.
    pub(crate) fn answer(self, source: Source, key: &'static str, records: Vec<Json>) -> String {
        let records = Json::List(records);
        let answer = if self.newer {
            newer::answer(source, key, records)
        } else {
            map(vec![("meta", meta(source)), ("errors", Json::List(Vec::new())), (key, records)])
        };
        if self.yaml { write::yaml(&answer) } else { write::json(&answer) }
    }
}

/// What Slurm says of itself.
fn meta(source: Source) -> Json {
    let (kind, name) = match source {
        Source::Controller => ("openapi/v0.0.38", "Slurm OpenAPI v0.0.38"),
        Source::Accounting => ("openapi/dbv0.0.38", "Slurm OpenAPI DB v0.0.38"),
    };
    let plugin = vec![("type", Json::text(kind)), ("name", Json::text(name))];
    let (major, minor, micro, release) = version();
    let numbers =
        vec![("major", Json::Int(major)), ("micro", Json::Int(micro)), ("minor", Json::Int(minor))];
    let slurm = vec![("version", map(numbers)), ("release", Json::text(release))];
    map(vec![("plugin", map(plugin)), ("Slurm", map(slurm))])
}

/// The numbers of the Slurm whose commands these are.
fn version() -> (i64, i64, i64, &'static str) {
    let release = crate::dispatch::SLURM_VERSION.split(' ').next_back().unwrap_or_default();
    let mut numbers = release.split('.').map(|number| number.parse::<i64>().unwrap_or(0));
    let mut next = || numbers.next().unwrap_or(0);
    (next(), next(), next(), release)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        let read = |version| Form::read("squeue", false, version);
        assert_eq!(read(None), Ok(Form { yaml: false, newer: false }));
        assert_eq!(read(Some("v0.0.38")), read(None));
        assert_eq!(read(Some("v0.0.40")), Ok(Form { yaml: false, newer: true }));
        assert_eq!(read(Some("v9")), Err(1));
    }

    #[test]
    fn an_empty_answer_is_slurms() {
        let text =
            Form { yaml: false, newer: false }.answer(Source::Controller, "jobs", Vec::new());
        // As squeue --json of Slurm 22.05.8 begins.
        assert_eq!(
            text,
            "{
  \"meta\": {
    \"plugin\": {
      \"type\": \"openapi\\/v0.0.38\",
      \"name\": \"Slurm OpenAPI v0.0.38\"
    },
    \"Slurm\": {
      \"version\": {
        \"major\": 22,
        \"micro\": 8,
        \"minor\": 5
      },
      \"release\": \"22.05.8\"
    }
  },
  \"errors\": [
  ],
  \"jobs\": [
  ]
}
"
        );
    }
}
