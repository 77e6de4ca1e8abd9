//! What is done when a GPU reports a fault?
//!
//! A table of XIDs (NVIDIA's catalogue, the buckets in which operators put them), which the cluster
//! file may change entry by entry, and a breaker: a bug in a driver must not drain the whole cluster.

use std::collections::BTreeMap;

use super::gpu::GpuDrainEnd;

/// What an agent says went wrong with a GPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuFault {
    /// Index on the node.
    pub gpu: u32,
    /// GPU instance that is concerned; `None`: the whole GPU.
    pub gi: Option<u32>,
    /// XID; 0: another kind, told in the text.
    pub xid: u32,
    /// For people.
    pub text: Box<str>,
}

/// Conditions that agents find by themselves, in the place of an XID, and how the cluster file names them.
pub const CONDITIONS: [(u32, &str); 3] =
    [(10_001, "throttled"), (10_002, "link_down"), (10_003, "uncorrected")];

impl GpuFault {
    /// The word of a condition; `None`: it is an XID.
    #[must_use]
    pub fn condition(&self) -> Option<&'static str> {
        CONDITIONS.iter().find(|(code, _)| *code == self.xid).map(|(_, word)| *word)
    }
}

/// What becomes of the job that holds the GPU, or the slice that is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum JobAction {
    /// It goes on.
    #[default]
    Leave,
    /// It ends as failed: the fault is its own.
    Fail,
    /// It ends and runs again elsewhere, where it may.
    Requeue,
}

/// What gets no new job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum DrainAction {
    /// Nothing is drained.
    #[default]
    None,
    /// That GPU, with all its slices; the node's others go on.
    Gpu,
    /// The node.
    Node,
}

/// What is done about one XID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XidRule {
    /// Said to nobody.
    pub ignore: bool,
    /// To the job.
    pub job: JobAction,
    /// To the GPU or node.
    pub drain: DrainAction,
    /// Instead of `drain` this, when it happened to jobs of so many users (or, where nobody held the
    /// GPU, so many times) within a day; 0: never.
    pub repeat: u32,
    /// What is drained then.
    pub then: DrainAction,
    /// What ends the drain.
    pub end: GpuDrainEnd,
}

impl XidRule {
    /// Nothing but a line in the log.
    pub const NOTE: Self = Self {
        ignore: false,
        job: JobAction::Leave,
        drain: DrainAction::None,
        repeat: 0,
        then: DrainAction::None,
        end: GpuDrainEnd::ByHand,
    };
    /// Not even that.
    pub const IGNORE: Self = Self { ignore: true, ..Self::NOTE };
    /// The job fails by its own fault; if jobs of three users do, the GPU is to be tested.
    pub const OWN: Self =
        Self { job: JobAction::Fail, repeat: 3, then: DrainAction::Gpu, ..Self::NOTE };
    /// The GPU gets no new job; those on it end as they would.
    pub const DRAIN: Self = Self { drain: DrainAction::Gpu, ..Self::NOTE };
    /// The same, and its jobs run again elsewhere.
    pub const LOST: Self = Self { job: JobAction::Requeue, ..Self::DRAIN };
    /// Its jobs run again elsewhere, and the node gets no new one.
    pub const DOWN: Self = Self { job: JobAction::Requeue, drain: DrainAction::Node, ..Self::NOTE };
    /// Nothing, but twice in a day drains the GPU.
    pub const WATCH: Self = Self { repeat: 2, then: DrainAction::Gpu, ..Self::NOTE };
    /// The job runs again elsewhere; the GPU stays.
    pub const CONTAINED: Self = Self { job: JobAction::Requeue, ..Self::NOTE };
}

/// What is done about faults of GPUs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuHealth {
    /// What the cluster file says of single XIDs.
    pub rules: BTreeMap<u32, XidRule>,
    /// Most GPUs that are drained by themselves within `breaker_secs`: so many of a hundred of the
    /// cluster's, at least `breaker_least`. What comes then is said and drains nothing.
    pub breaker_percent: u32,
    /// See `breaker_percent`.
    pub breaker_least: u32,
    /// See `breaker_percent`.
    pub breaker_secs: u32,
}

impl Default for GpuHealth {
    fn default() -> Self {
        Self { rules: BTreeMap::new(), breaker_percent: 10, breaker_least: 4, breaker_secs: 3_600 }
    }
}

impl GpuHealth {
    /// What is done about a fault: as the file says, else as the table does.
    #[must_use]
    pub fn rule(&self, fault: &GpuFault) -> XidRule {
        match self.rules.get(&fault.xid) {
            Some(rule) => *rule,
            None if fault.xid == 154 => recovery(&fault.text),
            None => default_rule(fault.xid),
        }
    }
}

/// "GPU recovery action changed from 0x0 (None) to 0x1 (GPU Reset Required)": what the driver asks for.
fn recovery(text: &str) -> XidRule {
    let now = text.rsplit(" to ").next().unwrap_or(text).to_ascii_lowercase();
    if now.contains("none") {
        XidRule::NOTE
    } else if now.contains("reboot") {
        XidRule { drain: DrainAction::Node, ..XidRule::NOTE }
    } else {
        XidRule::DRAIN
    }
}

fn default_rule(xid: u32) -> XidRule {
    match xid {
        // Other kinds of events: what is lasting comes as the GPU's fault when the node registers.
        0 | 63 | 92 | 93 | 121 | 157 | 10_001..=10_003 => XidRule::NOTE,
        13
        | 31
        | 43
        | 45
        | 68
        | 11
        | 25
        | 32
        | 39..=41
        | 69..=72
        | 75..=77
        | 80
        | 82..=86
        | 88
        | 89 => XidRule::OWN,
        96..=105 | 126..=135 | 139 => XidRule::OWN,
        38 | 44 | 66 | 67 | 74 | 144..=150 => XidRule::WATCH,
        109 => XidRule { job: JobAction::Requeue, ..XidRule::WATCH },
        94 => XidRule::CONTAINED,
        48 | 95 | 140 => XidRule::LOST,
        54 | 79 | 151 => XidRule::DOWN,
        // 46 62 64 110 119 120 136 143 155 156 158 160 161 167..172, and what nobody knows.
        _ => XidRule::DRAIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_what_operators_do() {
        let health = GpuHealth::default();
        let rule =
            |xid, text: &str| health.rule(&GpuFault { gpu: 0, gi: None, xid, text: text.into() });
        for (xid, expect) in [
            (13, XidRule::OWN),
            (63, XidRule::NOTE),
            (79, XidRule::DOWN),
            (94, XidRule::CONTAINED),
            (95, XidRule::LOST),
            (119, XidRule::DRAIN),
            (4_711, XidRule::DRAIN),
        ] {
            assert_eq!(rule(xid, ""), expect, "{xid}");
        }
        let text = "GPU recovery action changed from 0x0 (None) to ";
        assert_eq!(rule(154, &format!("{text}0x1 (GPU Reset Required)")), XidRule::DRAIN);
        assert_eq!(
            rule(154, &format!("{text}0x2 (Node Reboot Required)")).drain,
            DrainAction::Node
        );
        assert_eq!(rule(154, "changed from 0x1 (GPU Reset Required) to 0x0 (None)"), XidRule::NOTE);
    }

    #[test]
    fn the_file_has_the_last_word() {
        let rules = [(13, XidRule::IGNORE)].into();
        let health = GpuHealth { rules, ..GpuHealth::default() };
        let fault = GpuFault { gpu: 0, gi: None, xid: 13, text: "".into() };
        assert_eq!(health.rule(&fault), XidRule::IGNORE);
    }
}
