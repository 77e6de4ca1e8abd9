//! Are the GPUs of a job idle, and what is next to be done about it?
//!
//! A [`Streak`] says how long a GPU has been idle without a break, and how much of that was seen; it
//! counts lengths of time and no clock, so that a clock which jumps makes nothing idle. [`decide`] says
//! from what is known of a job's GPUs, and of what was said to it before, what comes next. What is not
//! known is never idle: it neither brings a notice nor takes one back.

use std::collections::VecDeque;

use penstock_vocab::Timestamp;

use crate::model::{IdleAction, IdleNote, IdleRule};

/// Most parts of a streak; where more alternate its beginning is forgotten, so that it seems shorter.
const MAX_PARTS: usize = 256;

/// What a sample says of the time for which it speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// The GPU did something.
    Busy,
    /// It did nothing, or had no process.
    Idle,
    /// Nobody knows.
    Unknown,
}

/// What was measured of one GPU, as far as it says whether it is idle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Measured {
    /// Utilisation, percent.
    pub utilization: Option<u32>,
    /// Memory in use, and all there is, MiB.
    pub memory: Option<(u64, u64)>,
    /// Power, milliwatts.
    pub power_mw: Option<u32>,
    /// Processes on it.
    pub processes: Option<u32>,
}

/// What a sample says under a rule.
#[must_use]
pub fn sight(rule: &IdleRule, seen: Measured) -> Sight {
    let loaded = seen.memory.is_some_and(|(used, all)| {
        all > 0 && used.saturating_mul(100) > all.saturating_mul(rule.memory_percent.into())
    });
    let draws = rule.busy_watts > 0
        && seen
            .power_mw
            .is_some_and(|power| u64::from(power) >= u64::from(rule.busy_watts) * 1_000);
    match (seen.utilization, seen.processes) {
        (Some(percent), _) if percent > rule.threshold_percent => Sight::Busy,
        _ if loaded || draws => Sight::Busy,
        (Some(_), _) | (None, Some(0)) => Sight::Idle,
        (None, _) => Sight::Unknown,
    }
}

/// How long one GPU has been idle without a break.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Streak {
    /// Lengths in milliseconds and whether each was seen, the oldest first; the first was.
    parts: VecDeque<(bool, u64)>,
    /// Before it, the GPU was seen to be busy.
    was_busy: bool,
}

impl Streak {
    /// Takes in what was seen for `ms`; time further back than `keep_ms` is forgotten.
    pub fn take(&mut self, sight: Sight, ms: u64, keep_ms: u64) {
        let seen = match sight {
            Sight::Busy => {
                self.parts.clear();
                self.was_busy = true;
                return;
            }
            Sight::Idle => true,
            Sight::Unknown if self.parts.is_empty() => return,
            Sight::Unknown => false,
        };
        if ms == 0 {
            return;
        }
        match self.parts.back_mut() {
            Some((kind, length)) if *kind == seen => *length = length.saturating_add(ms),
            _ => self.parts.push_back((seen, ms)),
        }
        let mut all = self.length_ms();
        while let Some((first_seen, first)) = self.parts.front().copied()
            && (self.parts.len() > MAX_PARTS || all - first >= keep_ms || !first_seen)
            && self.parts.len() > 1
        {
            all -= first;
            self.parts.pop_front();
        }
        if let [only] = self.parts.make_contiguous() {
            only.1 = only.1.min(keep_ms.max(ms));
        }
    }

    /// How long it is, with what was not seen of it.
    #[must_use]
    pub fn length_ms(&self) -> u64 {
        self.parts.iter().fold(0, |sum, (_, ms)| sum.saturating_add(*ms))
    }

    /// Whether the GPU is idle by the rule; `None`: nobody knows, because it was not seen for long enough
    /// or too little of the last window was.
    #[must_use]
    pub fn verdict(&self, rule: &IdleRule) -> Option<bool> {
        let within = self.length_ms() < u64::from(rule.window_secs) * 1_000;
        match (self.is_idle(rule), self.was_busy && within) {
            (true, _) => Some(true),
            (false, true) => Some(false),
            (false, false) => None,
        }
    }

    /// Whether it is as long as the rule's window, and enough of the last window was seen.
    #[must_use]
    pub fn is_idle(&self, rule: &IdleRule) -> bool {
        let window = u64::from(rule.window_secs) * 1_000;
        if self.length_ms() < window {
            return false;
        }
        let (mut left, mut seen) = (window, 0u64);
        for (known, ms) in self.parts.iter().rev() {
            let part = left.min(*ms);
            left -= part;
            seen += if *known { part } else { 0 };
        }
        u128::from(seen) * 100 >= u128::from(window) * u128::from(rule.coverage_percent)
    }
}

/// What is known of one GPU of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GpuSight {
    /// Whether it is idle; `None`: unknown.
    pub idle: Option<bool>,
    /// It had no process when it was last seen.
    pub empty: bool,
    /// How long it has been idle without a break, milliseconds.
    pub idle_ms: u64,
    /// How long it was idle in all, milliseconds.
    pub lost_ms: u64,
}

/// What is known of the GPUs of a run.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct RunSight {
    /// GPUs and slices that it holds.
    pub held: u32,
    /// Those of which something was seen lately.
    pub gpus: Vec<GpuSight>,
}

impl RunSight {
    fn count(&self, wanted: impl Fn(&GpuSight) -> bool) -> u32 {
        u32::try_from(self.gpus.iter().filter(|gpu| wanted(gpu)).count()).unwrap_or(u32::MAX)
    }

    /// Whether the job is idle by the rule; `None`: too little is known.
    #[must_use]
    pub fn is_idle(&self, rule: &IdleRule) -> Option<bool> {
        if self.held == 0 {
            return Some(false);
        }
        let idle = self.count(|gpu| gpu.idle == Some(true));
        let busy = self.count(|gpu| gpu.idle == Some(false)).min(self.held);
        let enough = |count: u32| {
            u64::from(count) * 100 >= u64::from(self.held) * u64::from(rule.gpus_percent.max(1))
        };
        match (enough(idle), enough(self.held - busy)) {
            (true, _) => Some(true),
            (false, true) => None,
            (false, false) => Some(false),
        }
    }

    /// What was seen, for people: `2 of 2 GPUs idle for 2h05m, 1 of them without any process`.
    #[must_use]
    pub fn evidence(&self) -> String {
        let idle = self.count(|gpu| gpu.idle == Some(true));
        let empty = self.count(|gpu| gpu.idle == Some(true) && gpu.empty);
        let least = self.gpus.iter().filter(|gpu| gpu.idle == Some(true)).map(|gpu| gpu.idle_ms);
        let mut text =
            format!("{idle} of {} GPUs idle for {}", self.held, length(least.min().unwrap_or(0)));
        if empty > 0 {
            text.push_str(&format!(", {empty} of them without any process"));
        }
        text
    }

    /// GPU time that was idle, milliseconds times GPUs.
    #[must_use]
    pub fn lost_ms(&self) -> u64 {
        self.gpus.iter().fold(0, |sum, gpu| sum.saturating_add(gpu.lost_ms))
    }
}

/// `45s`, `12m`, `2h05m`.
#[must_use]
pub fn length(ms: u64) -> String {
    let secs = ms / 1_000;
    match secs {
        0..=599 => format!("{secs}s"),
        600..=3_599 => format!("{}m", secs / 60),
        _ => format!("{}h{:02}m", secs / 3_600, secs % 3_600 / 60),
    }
}

/// What comes next for a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IdleStep {
    /// The notice of this number, from 1.
    Warn(u32),
    /// What the rule says is done.
    Act,
    /// They work again: what was said is taken back.
    Clear,
}

/// What comes next, by what was said before and what is seen at `now`; `None`: nothing.
#[must_use]
pub fn decide(
    rule: &IdleRule,
    note: Option<&IdleNote>,
    sight: &RunSight,
    now: Timestamp,
) -> Option<IdleStep> {
    match (sight.is_idle(rule)?, note) {
        (false, None) => None,
        // One that anybody may preempt is safe again when it works.
        (false, Some(note)) => (note.acted.is_none() || note.action == IdleAction::Preemptible)
            .then_some(IdleStep::Clear),
        (true, None) => Some(IdleStep::Warn(1)),
        (true, Some(note)) if note.acted.is_some() => None,
        (true, Some(note)) => next_of(rule, note, now),
    }
}

fn next_of(rule: &IdleRule, note: &IdleNote, now: Timestamp) -> Option<IdleStep> {
    if note.warned < rule.warnings {
        let due = note.since.plus_secs(warning_secs(rule, note.warned));
        return (now >= due).then_some(IdleStep::Warn(note.warned + 1));
    }
    let acts = rule.action != IdleAction::Notify;
    (acts && now >= note.act_at).then_some(IdleStep::Act)
}

/// How long after the first notice the one that follows `warned` others is given, seconds.
fn warning_secs(rule: &IdleRule, warned: u32) -> u64 {
    u64::from(rule.grace_secs) * u64::from(warned) / u64::from(rule.warnings.max(1))
}

/// Whether what somebody decided is still what comes next, as far as that shows without samples.
#[must_use]
pub fn follows(rule: &IdleRule, note: Option<&IdleNote>, step: IdleStep, now: Timestamp) -> bool {
    match (step, note) {
        (IdleStep::Clear, note) => note.is_some(),
        (IdleStep::Warn(number), None) => number == 1,
        (IdleStep::Act, None) => false,
        (IdleStep::Warn(_) | IdleStep::Act, Some(note)) => {
            note.acted.is_none() && next_of(rule, note, now) == Some(step)
        }
    }
}

#[cfg(test)]
#[path = "idle_tests.rs"]
mod tests;
