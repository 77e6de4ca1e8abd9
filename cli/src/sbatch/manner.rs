//! What can a job say of how it is run, beside its size, its files and its GPUs?

use penstock_proto::v1;

use super::request::{BadValue, invalid};
use super::table::Key;
use crate::allocation::words;

/// The limits that `--propagate` can name, by setrlimit's number.
const LIMITS: [(&str, u32); 10] = [
    ("CPU", 0),
    ("FSIZE", 1),
    ("DATA", 2),
    ("STACK", 3),
    ("CORE", 4),
    ("RSS", 5),
    ("NPROC", 6),
    ("NOFILE", 7),
    ("MEMLOCK", 8),
    ("AS", 9),
];

/// Options on how a job is run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Manner {
    /// Where its tasks go, for its steps; checked.
    pub(crate) distribution: String,
    /// Goes on where a node other than its first fails.
    pub(crate) no_kill: bool,
    /// A word to account it by.
    pub(crate) wckey: String,
    /// The limits of the submitter that go with it, by setrlimit's number; `None`: all.
    pub(crate) limits: Option<Vec<u32>>,
}

impl Manner {
    /// Reads one option; false where it is none of these.
    ///
    /// # Errors
    /// When the value is none.
    pub(super) fn apply(&mut self, key: Key, value: Option<&str>) -> Result<bool, BadValue> {
        let text = value.unwrap_or_default();
        match key {
            Key::Distribution => self.distribution = words::distribution(text)?,
            Key::NoKill => self.no_kill = words::no_kill(value)?,
            Key::Propagate => self.limits = limits(value)?,
            // Scripts start once all nodes of the job are there, whatever is asked.
            Key::WaitAllNodes => wait_all_nodes(text)?,
            Key::Wckey => text.clone_into(&mut self.wckey),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Puts all of it into the job, whose size is there.
    pub(super) fn fill(&self, spec: &mut v1::JobSpec) {
        spec.distribution.clone_from(&self.distribution);
        spec.no_kill = self.no_kill;
        spec.wckey.clone_from(&self.wckey);
        spec.rlimits = self.propagated(&spec.rlimits);
    }

    /// Those of the submitter's limits that go with the job.
    pub(crate) fn propagated(&self, limits: &[v1::ResourceLimit]) -> Vec<v1::ResourceLimit> {
        let chosen = |limit: &&v1::ResourceLimit| {
            self.limits.as_ref().is_none_or(|chosen| chosen.contains(&limit.resource))
        };
        limits.iter().filter(chosen).copied().collect()
    }
}

/// `ALL`, `NONE`, or names with commas between them; `None`: all.
fn limits(value: Option<&str>) -> Result<Option<Vec<u32>>, BadValue> {
    let Some(text) = value else { return Ok(None) };
    match text.to_ascii_uppercase().as_str() {
        "ALL" => return Ok(None),
        "NONE" => return Ok(Some(Vec::new())),
        _ => {}
    }
    let mut chosen = Vec::new();
    for name in text.split(',').filter(|name| !name.is_empty()) {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("RLIMIT_").unwrap_or(&upper);
        match LIMITS.iter().find(|(limit, _)| *limit == bare) {
            Some((_, number)) => chosen.push(*number),
            None => {
                return Err(BadValue(vec![
                    format!("Bad rlimit name: {name}"),
                    format!("--propagate={text} is not valid."),
                ]));
            }
        }
    }
    Ok(Some(chosen))
}

fn wait_all_nodes(text: &str) -> Result<(), BadValue> {
    match text.trim().parse::<u32>() {
        Ok(0 | 1) => Ok(()),
        Ok(_) => Err(invalid(Key::WaitAllNodes)),
        Err(_) => {
            let line = format!("Invalid numeric value \"{text}\" for --wait-all-nodes.");
            Err(BadValue(vec![line]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(key: Key, value: Option<&str>) -> Result<Manner, BadValue> {
        let mut manner = Manner::default();
        manner.apply(key, value).map(|known| {
            assert!(known, "{key:?}");
            manner
        })
    }

    #[test]
    fn limits_are_chosen_by_name() {
        let kept = |value: Option<&str>| {
            let mut spec = v1::JobSpec {
                rlimits: [3, 7, 8].map(|resource| v1::ResourceLimit { resource, soft: 1 }).to_vec(),
                ..v1::JobSpec::default()
            };
            read(Key::Propagate, value).expect("valid").fill(&mut spec);
            spec.rlimits.iter().map(|limit| limit.resource).collect::<Vec<u32>>()
        };
        assert_eq!(kept(None), [3, 7, 8]);
        assert_eq!(kept(Some("ALL")), [3, 7, 8]);
        assert_eq!(kept(Some("none")), [0; 0]);
        assert_eq!(kept(Some("STACK,MEMLOCK")), [3, 8]);
        assert_eq!(kept(Some("rlimit_nofile,CPU")), [7]);
        let Err(BadValue(lines)) = read(Key::Propagate, Some("STACK,FOO")) else { panic!("valid") };
        assert_eq!(lines, ["Bad rlimit name: FOO", "--propagate=STACK,FOO is not valid."]);
    }

    #[test]
    fn values_are_slurms() {
        let cases: [(Key, Option<&str>, &str); 5] = [
            (Key::Distribution, Some("foo"), "Invalid --distribution specification"),
            (Key::NoKill, Some("foo"), "Invalid --no-kill specification"),
            (Key::WaitAllNodes, Some("foo"), "Invalid numeric value \"foo\" for --wait-all-nodes."),
            (Key::WaitAllNodes, Some("3"), "Invalid --wait-all-nodes specification"),
            (Key::Propagate, Some("X"), "--propagate=X is not valid."),
        ];
        for (key, value, last) in cases {
            let Err(BadValue(lines)) = read(key, value) else { panic!("{key:?} is valid") };
            assert_eq!(lines.last().map(String::as_str), Some(last));
        }
        let manner = read(Key::Distribution, Some("cyclic:block")).expect("valid");
        assert_eq!(manner.distribution, "cyclic:block");
        assert!(read(Key::NoKill, None).expect("valid").no_kill);
        assert!(!read(Key::NoKill, Some("off")).expect("valid").no_kill);
        assert_eq!(read(Key::Wckey, Some("w")).expect("valid").wckey, "w");
        assert!(read(Key::WaitAllNodes, Some("1")).is_ok());
    }
}
