//! Is this directory a store, which one, and how new must its content at least be?
//!
//! The file `guard` is made last when a store is created and never removed, so data without it,
//! or it without data, is a damaged store and never an empty one.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::error::Fault;
use super::files::{self, checked_body, with_checksum};
use super::frames::{FORMAT, StoreId};
use super::key::write_hex;

/// Longest name of a holder kept, in characters.
const MAX_HOLDER: usize = 200;

/// Content of the guard file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Guard {
    /// The store's name.
    pub(crate) id: StoreId,
    /// Sequence of the newest checkpoint; the store must reach at least this far.
    pub(crate) checkpoint: u64,
    /// Reign of the last writer.
    pub(crate) term: u64,
    /// Who that was, for people.
    pub(crate) holder: String,
}

/// What a directory looks like from outside.
#[derive(Debug)]
pub(crate) enum Presence {
    /// A store with a guard.
    Store(Guard),
    /// Empty, or its creation never finished and nothing was ever answered.
    Empty,
}

impl Guard {
    /// Where the guard of the store in `dir` lies.
    pub(crate) fn path(dir: &Path) -> PathBuf {
        dir.join("guard")
    }

    /// Writes the guard durably. With `finished` false under the name that a store has while it
    /// is being created.
    pub(crate) fn write(&self, dir: &Path, finished: bool) -> Result<(), Fault> {
        let path = if finished { Guard::path(dir) } else { creating(dir) };
        files::write_atomic(&path, self.to_text().as_bytes())
    }

    /// The last step of creating a store.
    pub(crate) fn finish_creation(dir: &Path) -> Result<(), Fault> {
        files::rename_durably(&creating(dir), &Guard::path(dir))
    }

    fn to_text(&self) -> String {
        let mut id = String::new();
        write_hex(&mut id, &self.id).expect("a string takes everything");
        let holder: String =
            self.holder.chars().filter(|c| !c.is_control()).take(MAX_HOLDER).collect();
        let mut body = format!("penstock-store {FORMAT}\n");
        write!(body, "id {id}\ncheckpoint {}\nterm {}\n", self.checkpoint, self.term)
            .expect("a string takes everything");
        writeln!(body, "holder {holder}").expect("a string takes everything");
        with_checksum(&body)
    }

    fn parse(text: &str, path: &Path) -> Result<Guard, Fault> {
        let damaged = || Fault::Damaged(format!("{} is cut or damaged", path.display()));
        let first = text.lines().next().unwrap_or_default();
        let format = first.strip_prefix("penstock-store ").and_then(|rest| rest.parse().ok());
        let found: u32 = format.ok_or_else(damaged)?;
        if found > FORMAT {
            return Err(Fault::Newer { path: path.to_owned(), found, known: FORMAT });
        }
        let body = checked_body(text, path)?;
        let field =
            |name: &str| body.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let number = |name: &str| field(name).and_then(|text| text.parse().ok());
        Ok(Guard {
            id: field("id").and_then(parse_id).ok_or_else(damaged)?,
            checkpoint: number("checkpoint").ok_or_else(damaged)?,
            term: number("term").ok_or_else(damaged)?,
            holder: field("holder").unwrap_or_default().to_owned(),
        })
    }
}

fn creating(dir: &Path) -> PathBuf {
    dir.join("guard.creating")
}

fn parse_id(text: &str) -> Option<StoreId> {
    if text.len() != 32 || !text.is_ascii() {
        return None;
    }
    let mut id = StoreId::default();
    for (at, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(id)
}

/// Names that only a store has.
const PARTS: [&str; 5] = ["redo", "checkpoint", "blobs", "history", "sled"];

/// Looks at `dir` without changing anything.
pub(crate) fn presence(dir: &Path) -> Result<Presence, Fault> {
    let path = Guard::path(dir);
    if let Some(text) = files::read_text(&path)? {
        return Guard::parse(&text, &path).map(Presence::Store);
    }
    if creating(dir).exists() {
        return Ok(Presence::Empty);
    }
    match PARTS.iter().find(|part| dir.join(part).exists()) {
        None => Ok(Presence::Empty),
        Some(part) => Err(Fault::Damaged(format!(
            "{} is missing although {} is there; this is a damaged store, not an empty one",
            path.display(),
            dir.join(part).display()
        ))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guard() -> Guard {
        Guard { id: [0xa5; 16], checkpoint: 42, term: 3, holder: "ctl1:77\n".to_owned() }
    }

    #[test]
    fn guard_survives_its_text_and_any_cut_is_noticed() {
        let text = guard().to_text();
        let read = Guard::parse(&text, Path::new("guard")).unwrap();
        assert_eq!(read, Guard { holder: "ctl1:77".to_owned(), ..guard() });
        for cut in 0..text.len() {
            assert!(Guard::parse(&text[..cut], Path::new("guard")).is_err(), "cut at {cut}");
        }
    }

    #[test]
    fn newer_format_is_named_even_if_the_rest_is_unknown() {
        let newer = Guard::parse("penstock-store 9\nwhat else\n", Path::new("guard"));
        assert!(matches!(newer, Err(Fault::Newer { found: 9, known: FORMAT, .. })));
    }

    #[test]
    fn data_without_guard_is_no_empty_store() {
        let dir = tempfile::tempdir().unwrap();
        assert!(matches!(presence(dir.path()), Ok(Presence::Empty)));
        std::fs::create_dir(dir.path().join("redo")).unwrap();
        assert!(matches!(presence(dir.path()), Err(Fault::Damaged(_))));
        guard().write(dir.path(), false).unwrap();
        assert!(matches!(presence(dir.path()), Ok(Presence::Empty)));
        Guard::finish_creation(dir.path()).unwrap();
        assert!(matches!(presence(dir.path()), Ok(Presence::Store(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_panic(text in "(penstock-store [0-9]{1,3}\n)?(?s).{0,80}") {
            prop_assert!(Guard::parse(&text, Path::new("guard")).is_err());
        }
    }
}
