//! Which variables of the submitter's environment does the job get?
//!
//! `--export` chooses: everything, nothing but Slurm's own, or a list. What the job itself adds
//! (its id, its nodes) is put in where it runs.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

/// The value of `--export`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Export {
    /// The whole environment.
    All,
    /// Only Slurm's own variables.
    None,
    /// As [`Self::None`]; Slurm tells the two apart in that only `NONE` asks for a login
    /// environment.
    Nil,
    /// The list as typed: `ALL`, names, and `NAME=VALUE`.
    List(String),
}

impl Export {
    /// Reads the option's value; every text is a list in the end.
    pub(crate) fn parse(text: &str) -> Self {
        match text.trim().to_ascii_uppercase().as_str() {
            "ALL" => Self::All,
            "NONE" => Self::None,
            "NIL" => Self::Nil,
            _ => Self::List(text.to_owned()),
        }
    }

    /// What the job finds in `SLURM_EXPORT_ENV`.
    pub(crate) fn as_typed(&self) -> &str {
        match self {
            Self::All => "ALL",
            Self::None => "NONE",
            Self::Nil => "NIL",
            Self::List(text) => text,
        }
    }
}

/// One variable.
type Variable = (OsString, OsString);

/// The environment of the job: what `export` lets through of `here`, then `added`, which wins.
/// Each variable is `NAME=VALUE` and a NUL.
pub(crate) fn block(export: &Export, here: &[Variable], added: &[(&str, &OsStr)]) -> Vec<u8> {
    let mut chosen = choose(export, here);
    for (name, value) in added {
        set(&mut chosen, OsStr::new(name), value);
    }
    let mut block = Vec::with_capacity(chosen.iter().map(|(n, v)| n.len() + v.len() + 2).sum());
    for (name, value) in &chosen {
        block.extend_from_slice(name.as_bytes());
        block.push(b'=');
        block.extend_from_slice(value.as_bytes());
        block.push(0);
    }
    block
}

fn choose(export: &Export, here: &[Variable]) -> Vec<Variable> {
    match export {
        Export::All => here.to_vec(),
        Export::None | Export::Nil => slurms_own(here).cloned().collect(),
        Export::List(text) => choose_listed(text, here),
    }
}

fn choose_listed(text: &str, here: &[Variable]) -> Vec<Variable> {
    let entries = split_list(text);
    let all = entries.iter().any(|entry| entry.eq_ignore_ascii_case("ALL"));
    let mut chosen: Vec<Variable> =
        if all { here.to_vec() } else { slurms_own(here).cloned().collect() };
    for entry in entries {
        match entry.split_once('=') {
            Some((name, value)) => set(&mut chosen, OsStr::new(name), OsStr::new(value)),
            None => {
                if let Some((name, value)) = here.iter().find(|(name, _)| *name == *entry) {
                    set(&mut chosen, name, value);
                }
            }
        }
    }
    chosen
}

/// Variables that travel whatever `--export` says.
fn slurms_own(here: &[Variable]) -> impl Iterator<Item = &Variable> {
    here.iter().filter(|(name, _)| {
        let name = name.as_bytes();
        name.starts_with(b"SLURM_") || name.starts_with(b"SPANK_")
    })
}

fn set(chosen: &mut Vec<Variable>, name: &OsStr, value: &OsStr) {
    match chosen.iter_mut().find(|(known, _)| known == name) {
        Some((_, place)) => value.clone_into(place),
        None => chosen.push((name.to_owned(), value.to_owned())),
    }
}

/// The entries between commas; a value may be quoted, so that it can hold a comma.
fn split_list(text: &str) -> Vec<String> {
    let mut entries = Vec::new();
    let mut entry = String::new();
    let mut quote = None;
    for letter in text.chars() {
        match quote {
            Some(open) if letter == open => quote = None,
            Some(_) => entry.push(letter),
            None if matches!(letter, '\'' | '"') => quote = Some(letter),
            None if letter == ',' => entries.push(std::mem::take(&mut entry)),
            None => entry.push(letter),
        }
    }
    entries.push(entry);
    entries.retain(|entry| !entry.is_empty());
    entries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> Vec<Variable> {
        [("HOME", "/h"), ("SLURM_CONF", "/c"), ("A", "1"), ("SPANK_X", "x"), ("B", "2")]
            .map(|(name, value)| (name.into(), value.into()))
            .to_vec()
    }

    fn exported(text: &str) -> String {
        let block =
            block(&Export::parse(text), &environment(), &[("SLURM_SUBMIT_DIR", OsStr::new("/d"))]);
        let text = String::from_utf8(block).expect("plain");
        text.trim_end_matches('\0').replace('\0', " ")
    }

    #[test]
    fn export_chooses_what_travels() {
        let table = [
            ("ALL", "HOME=/h SLURM_CONF=/c A=1 SPANK_X=x B=2 SLURM_SUBMIT_DIR=/d"),
            ("all", "HOME=/h SLURM_CONF=/c A=1 SPANK_X=x B=2 SLURM_SUBMIT_DIR=/d"),
            ("NONE", "SLURM_CONF=/c SPANK_X=x SLURM_SUBMIT_DIR=/d"),
            ("NIL", "SLURM_CONF=/c SPANK_X=x SLURM_SUBMIT_DIR=/d"),
            ("A,B", "SLURM_CONF=/c SPANK_X=x A=1 B=2 SLURM_SUBMIT_DIR=/d"),
            ("A=7,NOPE", "SLURM_CONF=/c SPANK_X=x A=7 SLURM_SUBMIT_DIR=/d"),
            ("A='x,y',C=", "SLURM_CONF=/c SPANK_X=x A=x,y C= SLURM_SUBMIT_DIR=/d"),
            ("ALL,A=7", "HOME=/h SLURM_CONF=/c A=7 SPANK_X=x B=2 SLURM_SUBMIT_DIR=/d"),
            ("A=7,ALL", "HOME=/h SLURM_CONF=/c A=7 SPANK_X=x B=2 SLURM_SUBMIT_DIR=/d"),
            ("", "SLURM_CONF=/c SPANK_X=x SLURM_SUBMIT_DIR=/d"),
        ];
        for (text, expect) in table {
            assert_eq!(exported(text), expect, "{text}");
        }
    }

    #[test]
    fn what_is_added_replaces_what_was_there() {
        let here = [("SLURM_SUBMIT_DIR".into(), "/outer".into())];
        let block = block(&Export::All, &here, &[("SLURM_SUBMIT_DIR", OsStr::new("/d"))]);
        assert_eq!(block, b"SLURM_SUBMIT_DIR=/d\0");
    }

    #[test]
    fn the_mode_is_told_as_slurm_tells_it() {
        for (text, told) in [("all", "ALL"), ("None", "NONE"), ("nil", "NIL"), ("A,b=c", "A,b=c")] {
            assert_eq!(Export::parse(text).as_typed(), told);
        }
    }
}
