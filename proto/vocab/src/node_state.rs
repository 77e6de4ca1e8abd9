//! What state is a node in, and what do scontrol and sinfo call it?
//!
//! scontrol prints the base state and every flag (`IDLE+DRAIN+NOT_RESPONDING`). sinfo folds them
//! into one word with at most one letter behind it, by the rules in sinfo(1), "NODE STATE CODES".

use std::fmt;
use std::str::FromStr;

use crate::macros::{flag_set, named_enum};

named_enum! {
    /// The base state of a node. Codes are Slurm's, by which sinfo sorts.
    pub enum NodeState {
        /// Nothing heard of it since the controller began.
        Unknown = 0, "UNKNOWN";
        /// Not usable.
        Down = 1, "DOWN";
        /// No CPU is used.
        Idle = 2, "IDLE";
        /// All CPUs are used, or a job has the node to itself.
        Allocated = 3, "ALLOCATED";
        /// Broken in a way that its own agent reported.
        Error = 4, "ERROR";
        /// Some CPUs are used.
        Mixed = 5, "MIXED";
        /// Configured, but not expected to exist yet.
        Future = 6, "FUTURE";
    }
}

named_enum! {
    /// What else holds for a node, in the order in which scontrol prints it.
    pub enum NodeFlag {
        /// Comes and goes with demand.
        Cloud = 0, "CLOUD";
        /// A job that ended there is still being cleaned up.
        Completing = 1, "COMPLETING";
        /// Takes no new work.
        Drain = 2, "DRAIN";
        /// Registered by itself, not by the configuration.
        DynamicNorm = 3, "DYNAMIC_NORM";
        /// Registered with less than the configuration says.
        InvalidReg = 4, "INVALID_REG";
        /// Expected to fail soon; takes no new work.
        Fail = 5, "FAIL";
        /// In a maintenance reservation.
        Maintenance = 6, "MAINTENANCE";
        /// To be powered down.
        PowerDown = 7, "POWER_DOWN";
        /// Is powered down.
        PoweredDown = 8, "POWERED_DOWN";
        /// To be rebooted when idle.
        RebootRequested = 9, "REBOOT_REQUESTED";
        /// Is rebooting.
        RebootIssued = 10, "REBOOT_ISSUED";
        /// In a reservation.
        Reserved = 11, "RESERVED";
        /// Its agent does not answer.
        NotResponding = 12, "NOT_RESPONDING";
        /// Kept free by the backfill scheduler for a job that starts later.
        Planned = 13, "PLANNED";
        /// Is being powered up.
        PoweringUp = 14, "POWERING_UP";
        /// Is being powered down.
        PoweringDown = 15, "POWERING_DOWN";
    }
}

flag_set! {
    /// The flags of a node.
    pub struct NodeFlags of NodeFlag;
}

/// Base state and flags of a node. `Display` is scontrol's form and inverse to `FromStr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeStatus {
    /// The base state.
    pub base: NodeState,
    /// The flags.
    pub flags: NodeFlags,
}

/// Why a text is no node state in scontrol's form.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("node state {text:?}: {word:?} is unknown; give a form like IDLE or MIXED+DRAIN")]
pub struct NodeStatusError {
    /// The text as given.
    pub text: String,
    /// The word in it that is unknown.
    pub word: String,
}

/// The flags that sinfo shows as one letter; the first that is set wins.
const SUFFIXES: [(NodeFlag, &str); 8] = [
    (NodeFlag::Maintenance, "$"),
    (NodeFlag::RebootIssued, "^"),
    (NodeFlag::RebootRequested, "@"),
    (NodeFlag::PoweringUp, "#"),
    (NodeFlag::PoweringDown, "%"),
    (NodeFlag::PoweredDown, "~"),
    (NodeFlag::PowerDown, "!"),
    (NodeFlag::NotResponding, "*"),
];

/// One word of sinfo: its long and its compact name, and the letter behind it.
struct Word {
    long: &'static str,
    compact: &'static str,
    suffix: &'static str,
}

const fn word(long: &'static str, compact: &'static str, suffix: &'static str) -> Word {
    Word { long, compact, suffix }
}

impl NodeStatus {
    /// A base state without flags.
    #[must_use]
    pub const fn new(base: NodeState) -> Self {
        Self { base, flags: NodeFlags::EMPTY }
    }

    /// The same with one flag more.
    #[must_use]
    pub const fn with(self, flag: NodeFlag) -> Self {
        Self { base: self.base, flags: self.flags.with(flag) }
    }

    /// sinfo's long word: `IDLE`, `DRAINED*`, `MIXED-`. sinfo prints it in lower case.
    #[must_use]
    pub fn sinfo_long(self) -> String {
        let Word { long, suffix, .. } = self.word();
        format!("{long}{suffix}")
    }

    /// sinfo's compact word, in lower case as it is printed: `idle`, `drain*`, `mix-`.
    #[must_use]
    pub fn sinfo_compact(self) -> String {
        let Word { compact, suffix, .. } = self.word();
        format!("{compact}{suffix}")
    }

    fn has(self, flag: NodeFlag) -> bool {
        self.flags.contains(flag)
    }

    /// The letter behind a word, or nothing.
    fn suffix(self) -> &'static str {
        SUFFIXES.iter().find(|(flag, _)| self.has(*flag)).map_or("", |(_, letter)| letter)
    }

    fn word(self) -> Word {
        if self.has(NodeFlag::InvalidReg) {
            return word("INVAL", "inval", "");
        }
        self.special_word().unwrap_or_else(|| self.base_word())
    }

    /// The word where a flag hides the base state.
    fn special_word(self) -> Option<Word> {
        let silent = if self.has(NodeFlag::NotResponding) { "*" } else { "" };
        let in_use = matches!(self.base, NodeState::Allocated | NodeState::Mixed);
        let completing = self.has(NodeFlag::Completing);
        let drain = self.has(NodeFlag::Drain);
        let usable = !drain && !in_use && self.base != NodeState::Down;
        if self.has(NodeFlag::Maintenance) && usable {
            return Some(word("MAINT", "maint", silent));
        }
        if self.has(NodeFlag::RebootIssued) && !in_use {
            return Some(word("REBOOT", "boot", "^"));
        }
        if self.has(NodeFlag::RebootRequested) && !in_use {
            return Some(word("REBOOT", "boot", silent));
        }
        if drain && (completing || in_use) {
            return Some(word("DRAINING", "drng", self.suffix()));
        }
        if drain {
            return Some(word("DRAINED", "drain", self.suffix()));
        }
        if self.has(NodeFlag::Fail) {
            let failing = completing || self.base == NodeState::Allocated;
            let (long, compact) = if failing { ("FAILING", "failg") } else { ("FAIL", "fail") };
            return Some(word(long, compact, silent));
        }
        let hides = !matches!(self.base, NodeState::Down | NodeState::Allocated);
        (completing && hides).then(|| word("COMPLETING", "comp", self.suffix()))
    }

    /// The word for the base state and what modifies it.
    fn base_word(self) -> Word {
        let suffix = self.suffix();
        let plain = suffix.is_empty();
        match self.base {
            NodeState::Unknown => {
                word("UNKNOWN", "unk", if self.has(NodeFlag::NotResponding) { "*" } else { "" })
            }
            NodeState::Down => word("DOWN", "down", suffix),
            NodeState::Allocated if plain && self.has(NodeFlag::Completing) => {
                word("ALLOCATED", "alloc", "+")
            }
            NodeState::Allocated => word("ALLOCATED", "alloc", suffix),
            NodeState::Idle if plain && self.has(NodeFlag::Reserved) => {
                word("RESERVED", "resv", "")
            }
            NodeState::Idle if plain && self.has(NodeFlag::Planned) => word("PLANNED", "plnd", ""),
            NodeState::Idle => word("IDLE", "idle", suffix),
            NodeState::Mixed if plain && self.has(NodeFlag::Planned) => word("MIXED", "mix", "-"),
            NodeState::Mixed => word("MIXED", "mix", suffix),
            NodeState::Future => word("FUTURE", "futr", suffix),
            NodeState::Error => word("ERROR", "error", suffix),
        }
    }
}

/// scontrol's form: the base state and all flags joined by `+`.
impl fmt::Display for NodeStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = self.base.name().to_owned();
        for flag in self.flags.iter() {
            text.push('+');
            text.push_str(flag.name());
        }
        f.pad(&text)
    }
}

impl FromStr for NodeStatus {
    type Err = NodeStatusError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unknown = |word: &str| NodeStatusError { text: text.to_owned(), word: word.to_owned() };
        let mut words = text.split('+');
        let base = words.next().unwrap_or_default();
        let mut status = Self::new(NodeState::from_name(base).ok_or_else(|| unknown(base))?);
        for name in words {
            let flag = NodeFlag::from_name(name).ok_or_else(|| unknown(name))?;
            status.flags.insert(flag);
        }
        Ok(status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(text: &str) -> NodeStatus {
        text.parse().expect("a valid state")
    }

    #[test]
    fn sinfo_words_follow_base_and_flags() {
        for (scontrol, long, compact) in [
            ("IDLE", "IDLE", "idle"),
            ("MIXED", "MIXED", "mix"),
            ("ALLOCATED", "ALLOCATED", "alloc"),
            ("DOWN", "DOWN", "down"),
            ("UNKNOWN+NOT_RESPONDING", "UNKNOWN*", "unk*"),
            ("FUTURE", "FUTURE", "futr"),
            ("IDLE+NOT_RESPONDING", "IDLE*", "idle*"),
            ("IDLE+DRAIN", "DRAINED", "drain"),
            ("IDLE+DRAIN+NOT_RESPONDING", "DRAINED*", "drain*"),
            ("DOWN+DRAIN", "DRAINED", "drain"),
            ("MIXED+DRAIN", "DRAINING", "drng"),
            ("IDLE+COMPLETING+DRAIN", "DRAINING", "drng"),
            ("ALLOCATED+DRAIN+MAINTENANCE", "DRAINING$", "drng$"),
            ("IDLE+FAIL", "FAIL", "fail"),
            ("ALLOCATED+FAIL", "FAILING", "failg"),
            ("IDLE+COMPLETING", "COMPLETING", "comp"),
            ("MIXED+COMPLETING+NOT_RESPONDING", "COMPLETING*", "comp*"),
            ("ALLOCATED+COMPLETING", "ALLOCATED+", "alloc+"),
            ("IDLE+RESERVED", "RESERVED", "resv"),
            ("IDLE+PLANNED", "PLANNED", "plnd"),
            ("MIXED+PLANNED", "MIXED-", "mix-"),
            ("IDLE+MAINTENANCE", "MAINT", "maint"),
            ("MIXED+MAINTENANCE", "MIXED$", "mix$"),
            ("DOWN+MAINTENANCE", "DOWN$", "down$"),
            ("IDLE+REBOOT_ISSUED", "REBOOT^", "boot^"),
            ("ALLOCATED+REBOOT_REQUESTED", "ALLOCATED@", "alloc@"),
            ("IDLE+POWERING_UP", "IDLE#", "idle#"),
            ("IDLE+POWERING_DOWN", "IDLE%", "idle%"),
            ("IDLE+CLOUD+POWERED_DOWN", "IDLE~", "idle~"),
            ("IDLE+POWER_DOWN", "IDLE!", "idle!"),
            ("IDLE+INVALID_REG", "INVAL", "inval"),
        ] {
            let state = status(scontrol);
            assert_eq!(
                (state.sinfo_long().as_str(), state.sinfo_compact().as_str()),
                (long, compact),
                "{scontrol}"
            );
        }
    }

    #[test]
    fn scontrols_form_reads_back_for_every_base_and_flag() {
        for base in NodeState::ALL {
            assert_eq!(NodeState::from_code(base.code()), Some(*base));
            for flag in NodeFlag::ALL {
                let state = NodeStatus::new(*base).with(*flag).with(NodeFlag::Drain);
                assert_eq!(state.to_string().parse(), Ok(state));
            }
        }
        let state =
            NodeStatus::new(NodeState::Idle).with(NodeFlag::NotResponding).with(NodeFlag::Drain);
        assert_eq!(state.to_string(), "IDLE+DRAIN+NOT_RESPONDING");
        for text in ["", "IDLE+", "FOO", "IDLE+FOO", "DRAIN"] {
            assert!(text.parse::<NodeStatus>().is_err(), "{text:?}");
        }
    }
}
