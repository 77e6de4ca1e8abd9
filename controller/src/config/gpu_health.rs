//! What does the file say is done about faults of GPUs?
//!
//! `[gpu_health]` holds the breaker; `[gpu_health.xid]` gives single XIDs another action than the
//! table's: words joined by `+`. `[mig]` names nodes whose GPUs are cut as the queue asks.

use std::collections::BTreeMap;

use penstock_core::model::{
    CONDITIONS, DrainAction, DynamicNodes, GpuDrainEnd, GpuHealth, JobAction, MigConfig, XidRule,
};
use penstock_vocab::NodeName;
use toml::de::{DeTable, DeValue};

use super::file::{YEAR_SECS, table};
use super::problem::Problems;
use super::section::Section;

/// Words of an action.
const WORDS: &str = "ignore, note, fail_job, requeue_job, drain_gpu, drain_node, until_boot";

/// Reads `[gpu_health]`.
pub(super) fn read(document: &DeTable<'_>, problems: &mut Problems<'_>) -> GpuHealth {
    let mut health = GpuHealth::default();
    let Some((found, at)) = table(document, "gpu_health", problems) else { return health };
    if let Some((xids, _)) = table(found, "xid", problems) {
        health.rules = read_rules(xids, problems);
    }
    if let Some((conditions, _)) = table(found, "condition", problems) {
        health.rules.extend(read_conditions(conditions, problems));
    }
    let mut section = Section::new("[gpu_health]", found, at, problems);
    section.skip("xid");
    section.skip("condition");
    let mut set = |key, range, place: &mut u32| {
        if let Some(number) = section.number(key, range) {
            *place = number.value;
        }
    };
    set("breaker_percent", 0..=100, &mut health.breaker_percent);
    set("breaker_least", 0..=100_000, &mut health.breaker_least);
    set("breaker_secs", 1..=YEAR_SECS, &mut health.breaker_secs);
    section.finish();
    health
}

/// Reads `[mig]`: which nodes' GPUs are cut as the queue asks.
pub(super) fn read_mig(document: &DeTable<'_>, problems: &mut Problems<'_>) -> MigConfig {
    let mut mig = MigConfig::default();
    let Some((found, at)) = table(document, "mig", problems) else { return mig };
    let mut section = Section::new("[mig]", found, at, problems);
    if let Some(nodes) = section.parsed("dynamic", "\"ALL\"", dynamic_nodes) {
        mig.dynamic = nodes.value;
    }
    if let Some(secs) = section.number("deadline_secs", 5..=3_600) {
        mig.deadline_secs = secs.value;
    }
    if let Some(secs) = section.number("settle_secs", 0..=86_400) {
        mig.settle_secs = secs.value;
    }
    section.finish();
    mig
}

/// `ALL`, or a hostlist.
fn dynamic_nodes(text: &str) -> Result<DynamicNodes, String> {
    if text.eq_ignore_ascii_case("all") {
        return Ok(DynamicNodes::All);
    }
    let names = penstock_vocab::expand(text).map_err(|error| error.to_string())?;
    let name = |name: String| NodeName::new(&name).map_err(|error| error.to_string());
    Ok(DynamicNodes::Named(names.into_iter().map(name).collect::<Result<_, _>>()?))
}

fn read_rules(xids: &DeTable<'_>, problems: &mut Problems<'_>) -> BTreeMap<u32, XidRule> {
    let mut rules = BTreeMap::new();
    for (key, value) in xids.iter() {
        let name = key.get_ref().as_ref();
        let xid = name.parse::<u32>().ok();
        let rule = match value.get_ref() {
            DeValue::String(text) => rule_of(text),
            _ => None,
        };
        match (xid, rule) {
            (None, _) => {
                let message = format!("[gpu_health.xid] {name:?} is no XID; give its number");
                problems.error(&key.span(), message);
            }
            (Some(_), None) => {
                let message = format!(
                    "[gpu_health.xid] {name}: the action is not understood; join these by +: {WORDS}"
                );
                problems.error(&value.span(), message);
            }
            (Some(xid), Some(rule)) => {
                rules.insert(xid, rule);
            }
        }
    }
    rules
}

/// What is done about what agents find by themselves.
fn read_conditions(found: &DeTable<'_>, problems: &mut Problems<'_>) -> BTreeMap<u32, XidRule> {
    let mut rules = BTreeMap::new();
    for (key, value) in found.iter() {
        let name = key.get_ref().as_ref();
        let known = CONDITIONS.iter().find(|(_, word)| *word == name);
        let rule = value.get_ref().as_str().and_then(rule_of);
        match (known, rule) {
            (None, _) => {
                let words: Vec<&str> = CONDITIONS.iter().map(|(_, word)| *word).collect();
                let words = words.join(", ");
                let message = format!("[gpu_health.condition] has no {name:?}; it has {words}");
                problems.error(&key.span(), message);
            }
            (Some(_), None) => {
                let message = format!(
                    "[gpu_health.condition] {name}: the action is not understood; join these by +: \
                     {WORDS}"
                );
                problems.error(&value.span(), message);
            }
            (Some((code, _)), Some(rule)) => {
                rules.insert(*code, rule);
            }
        }
    }
    rules
}

/// Reads `requeue_job+drain_gpu`; `None`: a word is not known.
fn rule_of(text: &str) -> Option<XidRule> {
    let mut rule = XidRule::NOTE;
    for word in text.split('+').map(str::trim) {
        match word {
            "ignore" => rule.ignore = true,
            "note" => {}
            "fail_job" => rule.job = JobAction::Fail,
            "requeue_job" => rule.job = JobAction::Requeue,
            "drain_gpu" => rule.drain = DrainAction::Gpu,
            "drain_node" => rule.drain = DrainAction::Node,
            "until_boot" => rule.end = GpuDrainEnd::Boot,
            _ => return None,
        }
    }
    let acts = rule.job != JobAction::Leave || rule.drain != DrainAction::None;
    (!rule.ignore || !acts).then_some(rule)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_are_words_joined_by_plus() {
        let lost = XidRule { end: GpuDrainEnd::Boot, ..XidRule::LOST };
        assert_eq!(rule_of("requeue_job + drain_gpu+until_boot"), Some(lost));
        assert_eq!(rule_of("ignore"), Some(XidRule::IGNORE));
        assert_eq!(rule_of("note"), Some(XidRule::NOTE));
        for wrong in ["", "drain", "ignore+drain_gpu"] {
            assert_eq!(rule_of(wrong), None, "{wrong}");
        }
    }
}
