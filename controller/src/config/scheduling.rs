//! What does the file say of order, planning, charging, preemption, switches and licences?
//!
//! The sections `[priority]`, `[backfill]`, `[fairshare]`, `[preemption]` and `[placement]` make up
//! a policy, which a file of its own may name for a replay; `[accounting]`, `[cost]`, `[licenses]`,
//! `[[switch]]` and `[[block]]` belong to the cluster.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::Path;

use penstock_core::model::{
    Backfill, CostRates, Enforcement, FairShareConfig, Packing, PreemptBy, PreemptMode, Preemption,
    ResetPeriod, Scheduling, Weights,
};
use penstock_vocab::TresKind;
use toml::de::{DeTable, DeValue};

use super::file::{YEAR_SECS, table};
use super::problem::{Problem, Problems};
use super::section::{Placed, Section, unknown_key};
use super::topology;

/// Sections of a policy.
pub(super) const POLICY_SECTIONS: [&str; 5] =
    ["priority", "backfill", "fairshare", "preemption", "placement"];
/// Sections that belong to the cluster beside it.
pub(super) const CLUSTER_SECTIONS: [&str; 11] = [
    "accounting",
    "cost",
    "licenses",
    "switch",
    "block",
    "gpu_health",
    "mig",
    "hooks",
    "mail",
    "idle_reclaim",
    "health_check",
];

/// Highest weight: all factors together stay within 32 bits.
const MAX_WEIGHT: u32 = 100_000_000;
/// Highest number for a kind of resource: in millionths it stays far within 64 bits.
const MAX_AMOUNT: u64 = 100_000_000;

/// Reads a policy's file, which names order, planning, charging, preemption and placement as a
/// cluster file does, and nothing else. What it leaves out has its default.
///
/// # Errors
/// With every mistake in it.
pub fn policy_from(path: &Path, text: &str) -> Result<Scheduling, Vec<Problem>> {
    policy_over(Scheduling::default(), path, text)
}

/// As [`policy_from`]; sections that it leaves out stay as they are in `scheduling`.
///
/// # Errors
/// With every mistake in it.
pub fn policy_over(
    mut scheduling: Scheduling,
    path: &Path,
    text: &str,
) -> Result<Scheduling, Vec<Problem>> {
    let mut problems = Problems::new(path, text);
    let (document, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let message = format!("not TOML: {}", error.message().replace('\n', " "));
        problems.error(&error.span().unwrap_or(0..0), message);
    }
    let document = document.get_ref();
    let unknown = |name: &str| !POLICY_SECTIONS.contains(&name);
    for key in document.keys().filter(|key| unknown(key.get_ref().as_ref())) {
        problems.error(&key.span(), unknown_key("the policy", key.get_ref(), &POLICY_SECTIONS));
    }
    read_policy(document, &mut scheduling, &mut problems);
    if problems.has_errors() { Err(problems.into_sorted()) } else { Ok(scheduling) }
}

/// Everything of the document that is about scheduling.
pub(super) fn read(document: &DeTable<'_>, problems: &mut Problems<'_>) -> Scheduling {
    let mut scheduling = Scheduling::default();
    read_policy(document, &mut scheduling, problems);
    if let Some((table, at)) = table(document, "accounting", problems) {
        let mut section = Section::new("[accounting]", table, at, problems);
        let words = [
            ("none", Enforcement::None),
            ("safe", Enforcement::Safe),
            ("strict", Enforcement::Strict),
        ];
        scheduling.enforce = word(&mut section, "enforce", &words).unwrap_or_default();
        section.finish();
    }
    if let Some((table, at)) = table(document, "cost", problems) {
        let section = Section::new("[cost]", table, at, problems);
        scheduling.cost = read_cost(section);
    }
    if let Some((table, _)) = table(document, "licenses", problems) {
        scheduling.licenses = read_licenses(table, problems);
    }
    scheduling.topology = topology::read(document, problems);
    scheduling
}

fn read_policy(document: &DeTable<'_>, scheduling: &mut Scheduling, problems: &mut Problems<'_>) {
    if let Some((table, at)) = table(document, "priority", problems) {
        scheduling.weights = read_weights(Section::new("[priority]", table, at, problems));
    }
    if let Some((table, at)) = table(document, "backfill", problems) {
        scheduling.backfill = read_backfill(Section::new("[backfill]", table, at, problems));
    }
    if let Some((table, at)) = table(document, "fairshare", problems) {
        scheduling.fairshare = read_fairshare(Section::new("[fairshare]", table, at, problems));
    }
    if let Some((table, at)) = table(document, "preemption", problems) {
        scheduling.preemption = read_preemption(Section::new("[preemption]", table, at, problems));
    }
    if let Some((table, at)) = table(document, "placement", problems) {
        let mut section = Section::new("[placement]", table, at, problems);
        let words = [
            ("fragmentation", Packing::Fragmentation),
            ("best_fit", Packing::BestFit),
            ("first_fit", Packing::FirstFit),
        ];
        scheduling.packing = word(&mut section, "gpus", &words).unwrap_or_default();
        section.finish();
    }
}

/// One of a few words, in any case.
pub(super) fn word<T: Copy>(
    section: &mut Section<'_, '_, '_>,
    key: &'static str,
    words: &[(&str, T)],
) -> Option<T> {
    let first = words.first().map_or("", |(word, _)| word);
    let found = section.parsed(key, &format!("{first:?}"), |text| {
        let known = words.iter().find(|(word, _)| word.eq_ignore_ascii_case(text));
        known.map(|(_, value)| *value).ok_or_else(|| {
            let all: Vec<_> = words.iter().map(|(word, _)| *word).collect();
            format!("{text:?} is not understood; give {}", all.join(", "))
        })
    });
    found.map(|found| found.value)
}

fn number(
    section: &mut Section<'_, '_, '_>,
    key: &'static str,
    range: std::ops::RangeInclusive<u32>,
    default: u32,
) -> u32 {
    section.number(key, range).map_or(default, |number| number.value)
}

fn flag(section: &mut Section<'_, '_, '_>, key: &'static str, default: bool) -> bool {
    section.boolean(key).map_or(default, |flag| flag.value)
}

fn read_weights(mut section: Section<'_, '_, '_>) -> Weights {
    let default = Weights::default();
    let section_ref = &mut section;
    let order = [("multifactor", false), ("fcfs", true)];
    let weights = Weights {
        fcfs: word(section_ref, "order", &order).unwrap_or(default.fcfs),
        age: number(section_ref, "age", 0..=MAX_WEIGHT, default.age),
        max_age_secs: number(section_ref, "max_age_secs", 1..=YEAR_SECS, default.max_age_secs),
        fairshare: number(section_ref, "fairshare", 0..=MAX_WEIGHT, default.fairshare),
        job_size: number(section_ref, "job_size", 0..=MAX_WEIGHT, default.job_size),
        favor_small: flag(section_ref, "favor_small", default.favor_small),
        partition: number(section_ref, "partition", 0..=MAX_WEIGHT, default.partition),
        qos: number(section_ref, "qos", 0..=MAX_WEIGHT, default.qos),
        assoc: number(section_ref, "association", 0..=MAX_WEIGHT, default.assoc),
        tres: tres_weights(section_ref, "tres"),
        expansion: number(section_ref, "expansion", 0..=MAX_WEIGHT, default.expansion),
        expansion_cap: number(section_ref, "expansion_cap", 2..=1_000_000, default.expansion_cap),
        small_area: number(section_ref, "small_area", 0..=MAX_WEIGHT, default.small_area),
        base: number(section_ref, "base", 0..=MAX_WEIGHT, default.base),
    };
    section.finish();
    weights
}

/// `cpu=1000,mem=500`: whole numbers by kind.
fn tres_weights(section: &mut Section<'_, '_, '_>, key: &'static str) -> BTreeMap<TresKind, u32> {
    let weights = section.parsed(key, "\"cpu=1000,gres/gpu=5000\"", |text| {
        let amounts = parse_amounts(text, 1, 1)?;
        amounts
            .into_iter()
            .map(|(kind, amount)| match u32::try_from(amount) {
                Ok(weight) if weight <= MAX_WEIGHT => Ok((kind, weight)),
                Ok(_) | Err(_) => Err(format!("{kind}={amount} is more than {MAX_WEIGHT}")),
            })
            .collect()
    });
    weights.map(|weights| weights.value).unwrap_or_default()
}

fn read_backfill(mut section: Section<'_, '_, '_>) -> Backfill {
    let default = Backfill::default();
    let depth = match section.string_or_number("depth") {
        Some(Placed { value, .. }) if value.eq_ignore_ascii_case("all") => Some(u32::MAX),
        Some(Placed { value, at }) => value.parse().ok().or_else(|| {
            let message =
                format!("[backfill] depth is {value:?}; give a number of jobs or \"all\"");
            section.problems.error(&at, message);
            None
        }),
        None => None,
    };
    let section_ref = &mut section;
    let any = 0..=u32::MAX;
    let backfill = Backfill {
        depth: depth.unwrap_or(default.depth),
        window_secs: number(section_ref, "window_secs", 60..=YEAR_SECS, default.window_secs),
        max_tests: number(section_ref, "max_tests", 1..=10_000_000, default.max_tests),
        max_per_user: number(section_ref, "max_per_user", any.clone(), default.max_per_user),
        max_per_partition: number(
            section_ref,
            "max_per_partition",
            any.clone(),
            default.max_per_partition,
        ),
        max_starts: number(section_ref, "max_starts", any.clone(), default.max_starts),
        min_priority_reserve: number(
            section_ref,
            "min_priority_reserve",
            any,
            default.min_priority_reserve,
        ),
        min_age_reserve_secs: number(
            section_ref,
            "min_age_reserve_secs",
            0..=YEAR_SECS,
            default.min_age_reserve_secs,
        ),
        reserve_expansion: number(
            section_ref,
            "reserve_expansion",
            0..=1_000_000,
            default.reserve_expansion,
        ),
        reserve_after_secs: number(
            section_ref,
            "reserve_after_secs",
            0..=YEAR_SECS,
            default.reserve_after_secs,
        ),
        max_array_reserve: number(
            section_ref,
            "max_array_reserve",
            1..=100_000,
            default.max_array_reserve,
        ),
    };
    section.finish();
    backfill
}

fn read_fairshare(mut section: Section<'_, '_, '_>) -> FairShareConfig {
    let default = FairShareConfig::default();
    let periods = [
        ("none", ResetPeriod::None),
        ("daily", ResetPeriod::Daily),
        ("weekly", ResetPeriod::Weekly),
        ("monthly", ResetPeriod::Monthly),
        ("quarterly", ResetPeriod::Quarterly),
        ("yearly", ResetPeriod::Yearly),
    ];
    let longest = 10 * YEAR_SECS.min(u32::MAX / 10);
    let config = FairShareConfig {
        half_life_secs: number(&mut section, "half_life_secs", 0..=longest, default.half_life_secs),
        reset: word(&mut section, "reset", &periods).unwrap_or(default.reset),
        billing: billing(&mut section, "billing"),
        max_tres: flag(&mut section, "max_tres", default.max_tres),
    };
    section.finish();
    config
}

/// `TRESBillingWeights`, in millionths a unit.
pub(super) fn billing(
    section: &mut Section<'_, '_, '_>,
    key: &'static str,
) -> BTreeMap<TresKind, u64> {
    let example = "\"cpu=1.0,mem=0.25G,gres/gpu=10\"";
    let weights = section.parsed(key, example, |text| parse_amounts(text, 1_000_000, 1));
    weights.map(|weights| weights.value).unwrap_or_default()
}

fn read_preemption(mut section: Section<'_, '_, '_>) -> Preemption {
    let by = [
        ("none", PreemptBy::None),
        ("partition", PreemptBy::PartitionPriority),
        ("qos", PreemptBy::Qos),
    ];
    let default = Preemption::default();
    let preemption = Preemption {
        by: word(&mut section, "by", &by).unwrap_or_default(),
        mode: preempt_mode(&mut section, "mode").unwrap_or_default(),
        exempt_secs: number(&mut section, "exempt_secs", 0..=YEAR_SECS, default.exempt_secs),
        reclaim: flag(&mut section, "reclaim", default.reclaim),
    };
    let wants_mode = preemption.by != PreemptBy::None || preemption.reclaim;
    if wants_mode && preemption.mode == PreemptMode::Off {
        let at = section.at();
        let message = "[preemption] lets jobs make room for others and has mode \"off\": only jobs \
                       of partitions and QOS with a mode of their own are preempted";
        section.problems.note(&at, message);
    }
    section.finish();
    preemption
}

/// `off`, `cancel`, `requeue` or `suspend`.
pub(super) fn preempt_mode(
    section: &mut Section<'_, '_, '_>,
    key: &'static str,
) -> Option<PreemptMode> {
    let modes = [
        ("requeue", PreemptMode::Requeue),
        ("cancel", PreemptMode::Cancel),
        ("suspend", PreemptMode::Suspend),
        ("off", PreemptMode::Off),
    ];
    word(section, key, &modes)
}

fn read_cost(mut section: Section<'_, '_, '_>) -> CostRates {
    let currency = section.parsed("currency", "\"EUR\"", |text| {
        let good = (1..=8).contains(&text.len()) && !text.contains(char::is_whitespace);
        if good { Ok(text.to_owned()) } else { Err(format!("{text:?} is no currency, as EUR is")) }
    });
    // Rates of memory are for a GiB.
    let rates = section.parsed("per_hour", "\"cpu=0.02,mem=0.004,gres/gpu:h100=2.5\"", |text| {
        parse_amounts(text, 1_000_000, 1_024)
    });
    section.finish();
    CostRates {
        currency: currency.map_or_else(|| "EUR".into(), |currency| currency.value.into()),
        per_hour: rates.map(|rates| rates.value).unwrap_or_default(),
    }
}

fn read_licenses(table: &DeTable<'_>, problems: &mut Problems<'_>) -> BTreeMap<Box<str>, u64> {
    let mut licenses = BTreeMap::new();
    for (key, value) in table.iter() {
        let name = key.get_ref().as_ref();
        if let Err(error) = format!("license/{name}").parse::<TresKind>() {
            problems.error(&key.span(), format!("[licenses] {name:?}: {error}"));
        }
        let count = match value.get_ref() {
            DeValue::Integer(count) => count.as_str().parse().ok(),
            _ => None,
        };
        match count {
            Some(count) => {
                licenses.insert(name.into(), count);
            }
            None => {
                let message = format!("[licenses] {name} must be a whole number, as {name} = 10");
                problems.error(&value.span(), message);
            }
        }
    }
    licenses
}

/// Reads `kind=number,...` with decimals, as whole multiples of 1/`scale`. A number of memory may
/// carry M, G, T or P for the unit that it is for; without one it is for `memory_unit` MiB, and the
/// result is for one MiB unless that is a GiB.
fn parse_amounts(
    text: &str,
    scale: u64,
    memory_unit: u64,
) -> Result<BTreeMap<TresKind, u64>, String> {
    let mut amounts = BTreeMap::new();
    for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (kind, number) =
            entry.split_once('=').ok_or_else(|| format!("{entry:?} is not of the form cpu=1.0"))?;
        let kind: TresKind = kind.trim().parse().map_err(display)?;
        let (digits, unit) = split_unit(number.trim(), &kind)?;
        let form = if scale == 1 { "a whole number" } else { "a number of at most six decimals" };
        let amount = decimal(digits, scale)
            .ok_or_else(|| format!("{number:?} is not {form} from 0 to {MAX_AMOUNT}"))?;
        let per = unit.map_or(1, |unit| if memory_unit == 1 { unit } else { unit / memory_unit });
        let amount = (amount + per.max(1) / 2) / per.max(1);
        if amounts.insert(kind.clone(), amount).is_some() {
            return Err(format!("{kind} is given twice"));
        }
    }
    Ok(amounts)
}

fn display(error: impl Display) -> String {
    error.to_string()
}

/// A number and, of memory, the MiB of the unit that it is for.
fn split_unit<'t>(number: &'t str, kind: &TresKind) -> Result<(&'t str, Option<u64>), String> {
    let Some(unit) = number.chars().last().filter(char::is_ascii_alphabetic) else {
        return Ok((number, None));
    };
    let digits = number.strip_suffix(unit).unwrap_or(number);
    let mib = match unit.to_ascii_uppercase() {
        'M' => 1,
        'G' => 1 << 10,
        'T' => 1 << 20,
        'P' => 1 << 30,
        _ => return Err(format!("{number:?}: {unit:?} is no unit; give M, G, T or P")),
    };
    if *kind != TresKind::Mem {
        return Err(format!("{kind}={number}: only mem has units"));
    }
    Ok((digits, Some(mib)))
}

/// A decimal number times `scale`, where that is whole.
fn decimal(text: &str, scale: u64) -> Option<u64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let plain = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || !plain(whole) || !plain(fraction) || fraction.len() > 6 {
        return None;
    }
    let whole: u64 = whole.parse().ok().filter(|whole| *whole <= MAX_AMOUNT)?;
    let digits = u32::try_from(fraction.len()).ok()?;
    let part: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let (part, parts) = (part * scale, 10_u64.pow(digits));
    part.is_multiple_of(parts).then_some(whole * scale + part / parts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_whole_millionths() {
        let read = parse_amounts("cpu=1.5,mem=0.25G,gres/gpu:h100=10", 1_000_000, 1).unwrap();
        let shown: Vec<_> = read.iter().map(|(kind, n)| format!("{kind}={n}")).collect();
        assert_eq!(shown, ["cpu=1500000", "mem=244", "gres/gpu:h100=10000000"]);
        let rates = parse_amounts("mem=0.004,cpu=0.02", 1_000_000, 1_024).unwrap();
        assert_eq!(rates[&TresKind::Mem], 4_000);
        assert_eq!(parse_amounts("cpu=7,mem=500.0", 1, 1).unwrap()[&TresKind::Mem], 500);
        let refused = parse_amounts("cpu=1.5", 1, 1).unwrap_err();
        assert_eq!(refused, "\"1.5\" is not a whole number from 0 to 100000000");
        for bad in ["cpu", "cpu=x", "cpu=-1", "cpu=1.0G", "cpu=1,cpu=2", "foo=1", "mem=1X"] {
            assert!(parse_amounts(bad, 1_000_000, 1).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_policy_names_its_mistakes() {
        let text = "[priority]\nagee = 5\n[backfil]\n";
        let problems = policy_from(Path::new("p.toml"), text).unwrap_err();
        let shown: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert!(shown[0].contains("did you mean \"age\""), "{shown:?}");
        assert!(shown[1].contains("did you mean \"backfill\""), "{shown:?}");
        let text = "[priority]\norder = \"fcfs\"\n[backfill]\ndepth = \"all\"\n";
        let policy = policy_from(Path::new("p.toml"), text).unwrap();
        assert!(policy.weights.fcfs);
        assert_eq!(policy.backfill.depth, u32::MAX);
        let text = "[backfill]\ndepth = 7\n";
        let over = policy_over(policy, Path::new("p.toml"), text).unwrap();
        assert!(over.weights.fcfs, "a section that is left out stays");
        assert_eq!(over.backfill, Backfill { depth: 7, ..Backfill::default() });
    }
}
