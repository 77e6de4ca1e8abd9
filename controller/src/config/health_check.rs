//! Which program says whether a node is well, and how often is it asked?
//!
//! `[health_check]` is Slurm's `HealthCheckProgram`, `HealthCheckInterval` and `HealthCheckNodeState`.
//! The program lies on the nodes; it drains its node by itself where it must (`scontrol update`).

use std::path::PathBuf;

use toml::de::DeTable;

use super::file::{YEAR_SECS, table};
use super::problem::Problems;
use super::section::Section;

/// The program, and on which nodes it runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Where it lies on each node.
    pub program: PathBuf,
    /// Seconds from one run to the next; 0: it never runs.
    pub interval_secs: u32,
    /// Nodes in which states run it.
    pub states: Vec<CheckedState>,
    /// Nodes run it one after the other over the interval, and not all at once.
    pub cycle: bool,
}

/// A state of nodes, as far as this counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckedState {
    /// All CPUs are in use.
    Alloc,
    /// Nothing is.
    Idle,
    /// Something is.
    Mixed,
}

const ALL: [CheckedState; 3] = [CheckedState::Alloc, CheckedState::Idle, CheckedState::Mixed];

/// Reads `[health_check]`; `None`: there is none, or no program.
pub(super) fn read(document: &DeTable<'_>, problems: &mut Problems<'_>) -> Option<HealthCheck> {
    let (found, at) = table(document, "health_check", problems)?;
    let mut section = Section::new("[health_check]", found, at, problems);
    let program = section.path("program", "\"/usr/sbin/nhc\"");
    let interval = section.number("interval_secs", 0..=YEAR_SECS);
    let states = section.parsed("node_state", "\"ANY\"", states);
    if !found.contains_key("program") {
        let at = section.at();
        section.problems.error(&at, "[health_check] has no program; write program = \"/path\"");
    }
    section.finish();
    let (states, cycle) = states.map_or_else(|| (ALL.to_vec(), false), |states| states.value);
    Some(HealthCheck {
        program: program?.value,
        interval_secs: interval.map_or(0, |secs| secs.value),
        states,
        cycle,
    })
}

/// Slurm's words, joined by commas; `CYCLE` alone means any state.
fn states(text: &str) -> Result<(Vec<CheckedState>, bool), String> {
    let (mut states, mut cycle) = (Vec::new(), false);
    for word in text.split(',').map(str::trim) {
        match word.to_ascii_uppercase().as_str() {
            "ALLOC" => states.push(CheckedState::Alloc),
            "IDLE" => states.push(CheckedState::Idle),
            "MIXED" => states.push(CheckedState::Mixed),
            "ANY" => states.extend(ALL),
            "CYCLE" => cycle = true,
            _ => {
                return Err(format!(
                    "{word:?} is no state; join ALLOC, IDLE, MIXED, ANY and CYCLE by commas"
                ));
            }
        }
    }
    if states.is_empty() {
        states.extend(ALL);
    }
    Ok((states, cycle))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_slurms_words() {
        use CheckedState::{Alloc, Idle, Mixed};
        for (text, expect) in [
            ("ANY", Some((ALL.to_vec(), false))),
            ("idle", Some((vec![Idle], false))),
            ("ALLOC,MIXED,CYCLE", Some((vec![Alloc, Mixed], true))),
            ("CYCLE", Some((ALL.to_vec(), true))),
            ("DOWN", None),
            ("", None),
        ] {
            assert_eq!(states(text).ok(), expect, "{text}");
        }
    }
}
