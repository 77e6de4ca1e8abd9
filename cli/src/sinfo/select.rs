//! Which nodes does `-t idle,drain` mean?

use penstock_vocab::{NodeFlag, NodeState, NodeStatus};

/// Slurm's list in the error text, in its order and with its slips.
pub(super) const VALID_STATES: &str = "unknown,down,idle,allocated,?,mixed,future,drain,drained,\
    draining,no_respond,reserved,perfctrs,cloud,completing,powering_down,powered_down,power_down,\
    powering_up,fail,maint,reboot,reboot^,unknown";

/// The states that are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct StateSelection {
    words: Vec<StateWord>,
    /// All of them must hold (`mix&drain`), not any.
    all: bool,
}

/// What a word means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StateWord {
    /// Every node.
    Any,
    /// This base state, and nothing that still runs where it is IDLE.
    Base(NodeState),
    /// This flag.
    Flag(NodeFlag),
    /// Drained and empty.
    Drained,
    /// Drained and in use.
    Draining,
}

const WORDS: &[(&str, StateWord)] = &[
    ("all", StateWord::Any),
    ("unknown", StateWord::Base(NodeState::Unknown)),
    ("unk", StateWord::Base(NodeState::Unknown)),
    ("down", StateWord::Base(NodeState::Down)),
    ("idle", StateWord::Base(NodeState::Idle)),
    ("allocated", StateWord::Base(NodeState::Allocated)),
    ("alloc", StateWord::Base(NodeState::Allocated)),
    ("mixed", StateWord::Base(NodeState::Mixed)),
    ("mix", StateWord::Base(NodeState::Mixed)),
    ("future", StateWord::Base(NodeState::Future)),
    ("futr", StateWord::Base(NodeState::Future)),
    ("error", StateWord::Base(NodeState::Error)),
    ("drain", StateWord::Flag(NodeFlag::Drain)),
    ("drained", StateWord::Drained),
    ("draining", StateWord::Draining),
    ("drng", StateWord::Draining),
    ("no_respond", StateWord::Flag(NodeFlag::NotResponding)),
    ("reserved", StateWord::Flag(NodeFlag::Reserved)),
    ("resv", StateWord::Flag(NodeFlag::Reserved)),
    ("cloud", StateWord::Flag(NodeFlag::Cloud)),
    ("completing", StateWord::Flag(NodeFlag::Completing)),
    ("comp", StateWord::Flag(NodeFlag::Completing)),
    ("powering_down", StateWord::Flag(NodeFlag::PoweringDown)),
    ("powered_down", StateWord::Flag(NodeFlag::PoweredDown)),
    ("power_down", StateWord::Flag(NodeFlag::PowerDown)),
    ("powering_up", StateWord::Flag(NodeFlag::PoweringUp)),
    ("power_up", StateWord::Flag(NodeFlag::PoweringUp)),
    ("fail", StateWord::Flag(NodeFlag::Fail)),
    ("failing", StateWord::Flag(NodeFlag::Fail)),
    ("maint", StateWord::Flag(NodeFlag::Maintenance)),
    ("reboot", StateWord::Flag(NodeFlag::RebootRequested)),
    ("reboot_requested", StateWord::Flag(NodeFlag::RebootRequested)),
    ("reboot_issued", StateWord::Flag(NodeFlag::RebootIssued)),
    ("planned", StateWord::Flag(NodeFlag::Planned)),
    ("plnd", StateWord::Flag(NodeFlag::Planned)),
    ("inval", StateWord::Flag(NodeFlag::InvalidReg)),
];

/// Reads a list joined by commas (any of them) or `&` (all of them).
///
/// # Errors
/// With the first word that is no state.
pub(super) fn parse_states(list: &str) -> Result<StateSelection, String> {
    let all = list.contains('&');
    let words = list.split([',', '&']).map(str::trim).filter(|word| !word.is_empty());
    let read = |word: &str| {
        let found = WORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(word));
        found.map(|(_, meaning)| *meaning).ok_or_else(|| word.to_owned())
    };
    Ok(StateSelection { words: words.map(read).collect::<Result<_, _>>()?, all })
}

impl StateSelection {
    /// Whether a node in that state is meant.
    pub(super) fn matches(&self, status: NodeStatus) -> bool {
        if self.all {
            self.words.iter().all(|word| word.matches(status))
        } else {
            self.words.iter().any(|word| word.matches(status))
        }
    }
}

impl StateWord {
    fn matches(self, status: NodeStatus) -> bool {
        let in_use = matches!(status.base, NodeState::Allocated | NodeState::Mixed)
            || status.flags.contains(NodeFlag::Completing);
        let drain = status.flags.contains(NodeFlag::Drain);
        match self {
            Self::Any => true,
            // Slurm counts a drained node in here, and one that still completes not.
            Self::Base(NodeState::Idle) => status.base == NodeState::Idle && !in_use,
            Self::Base(base) => status.base == base,
            Self::Flag(flag) => status.flags.contains(flag),
            Self::Drained => drain && !in_use,
            Self::Draining => drain && in_use,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_matched_by_any_or_by_all() {
        let idle = NodeStatus::new(NodeState::Idle);
        let drained = idle.with(NodeFlag::Drain);
        let draining = NodeStatus::new(NodeState::Mixed).with(NodeFlag::Drain);
        let check = |list: &str, expect: [bool; 3]| {
            let states = parse_states(list).expect("valid");
            let got = [idle, drained, draining].map(|status| states.matches(status));
            assert_eq!(got, expect, "{list}");
        };
        check("idle", [true, true, false]);
        check("idle&drain", [false, true, false]);
        check("drain", [false, true, true]);
        check("drained", [false, true, false]);
        check("DRAINING", [false, false, true]);
        check("idle,mix", [true; 3]);
        check("mix&drain", [false, false, true]);
        check("all", [true; 3]);
        assert_eq!(parse_states("idle,foo"), Err("foo".to_owned()));
    }
}
