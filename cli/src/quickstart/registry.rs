//! Which processes belong to this folder's cluster?
//!
//! `DIR/pids` has a line for each: name, pid, start time, boot id. It is replaced as a whole, so
//! that it is never half written. Names: `controller`, `node1` and so on, and `quickstart` for the
//! one that holds the folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use super::failure::Failure;
use super::files::replace;
use super::layout::Layout;
use super::process::{Held, Identity};

/// The name of the controller's entry.
pub(super) const CONTROLLER: &str = "controller";

/// The name of a quickstart's own entry.
const QUICKSTART: &str = "quickstart";

/// The processes of one folder.
#[derive(Debug)]
pub(super) struct Registry {
    path: PathBuf,
    entries: BTreeMap<String, Identity>,
}

impl Registry {
    /// What the folder remembers; lines that make no sense are forgotten.
    pub(super) fn read(layout: &Layout) -> Self {
        let path = layout.pids();
        let text = fs::read_to_string(&path).unwrap_or_default();
        Self { path, entries: text.lines().filter_map(parse_line).collect() }
    }

    /// Remembers a process under `name`.
    pub(super) fn put(&mut self, name: &str, identity: Identity) -> Result<(), Failure> {
        self.entries.insert(name.to_owned(), identity);
        self.write()
    }

    /// Remembers this quickstart.
    pub(super) fn put_self(&mut self) -> Result<(), Failure> {
        let pid = i32::try_from(std::process::id()).unwrap_or(i32::MAX);
        match Identity::of(pid) {
            Some(identity) => self.put(QUICKSTART, identity),
            None => Ok(()),
        }
    }

    /// Forgets this quickstart, and the file with it when nothing else is left.
    pub(super) fn forget_self(&mut self) -> Result<(), Failure> {
        self.entries.remove(QUICKSTART);
        self.entries.retain(|_, identity| identity.lives());
        self.write()
    }

    /// The process of that name, where it lives.
    pub(super) fn living(&self, name: &str) -> Option<&Identity> {
        self.entries.get(name).filter(|identity| identity.lives())
    }

    /// The quickstart that holds the folder, where it lives and is not this one.
    pub(super) fn other_quickstart(&self) -> Option<&Identity> {
        let own = std::process::id();
        self.living(QUICKSTART).filter(|identity| u32::try_from(identity.pid) != Ok(own))
    }

    /// Takes hold of every daemon that lives: agents, and the controller last.
    pub(super) fn hold_daemons(&self) -> Vec<Held> {
        let daemons = self.daemons().into_iter();
        daemons.filter_map(|(name, identity)| identity.hold(name)).collect()
    }

    /// Every daemon that is remembered: agents by number, and the controller last.
    pub(super) fn daemons(&self) -> Vec<(&str, &Identity)> {
        let mut daemons: Vec<(&str, &Identity)> = self
            .entries
            .iter()
            .filter(|(name, _)| *name != QUICKSTART)
            .map(|(name, identity)| (name.as_str(), identity))
            .collect();
        // Shorter names first: node2 comes before node10.
        daemons.sort_by_key(|(name, _)| (*name == CONTROLLER, name.len(), *name));
        daemons
    }

    fn write(&self) -> Result<(), Failure> {
        if self.entries.is_empty() {
            return match fs::remove_file(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(Failure::system(format!("remove {}", self.path.display()))(error))
                }
                _ => Ok(()),
            };
        }
        let line = |(name, id): (&String, &Identity)| {
            format!("{name} {} {} {}\n", id.pid, id.start, id.boot)
        };
        let text: String = self.entries.iter().map(line).collect();
        replace(&self.path, text.as_bytes(), 0o644)
    }
}

fn parse_line(line: &str) -> Option<(String, Identity)> {
    let mut words = line.split(' ');
    let name = words.next()?.to_owned();
    let pid = words.next()?.parse().ok().filter(|pid| *pid > 1)?;
    let start = words.next()?.parse().ok()?;
    let boot = words.next()?.to_owned();
    Some((name, Identity { pid, start, boot }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity::of(std::process::id().cast_signed()).unwrap()
    }

    #[test]
    fn what_is_put_is_read_and_the_dead_do_not_live() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(dir.path());
        let mut registry = Registry::read(&layout);
        registry.put(CONTROLLER, identity()).unwrap();
        registry.put("node10", identity()).unwrap();
        registry.put("node2", Identity { start: 1, ..identity() }).unwrap();
        let read = Registry::read(&layout);
        let names: Vec<_> = read.daemons().iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["node2", "node10", CONTROLLER]);
        assert!(read.living(CONTROLLER).is_some() && read.living("node2").is_none());
        assert_eq!(read.hold_daemons().len(), 2);
    }

    #[test]
    fn nonsense_is_forgotten() {
        for line in ["", "controller", "controller x 1 b", "controller 0 1 b", "controller -5 1 b"]
        {
            assert_eq!(parse_line(line), None, "{line:?}");
        }
    }
}
