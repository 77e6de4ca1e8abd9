//! What is to be set on a QOS?

use penstock_proto::v1;
use penstock_vocab::{elapsed_long, parse_walltime};

use crate::words::{find_name, list};

use super::edits::qos_list;
use super::limits::{self, Limit};
use super::words::{Stop, Word};
use super::world::World;

/// Slurm's names of switches, in its order.
const FLAGS: [&str; 10] = [
    "DenyOnLimit",
    "EnforceUsageThreshold",
    "NoReserve",
    "PartitionMaxNodes",
    "PartitionMinNodes",
    "OverPartQOS",
    "PartitionTimeLimit",
    "RequiresReservation",
    "NoDecay",
    "UsageFactorSafe",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Description,
    Flags,
    GraceTime,
    LimitFactor,
    Names,
    Preempt,
    PreemptExemptTime,
    PreemptMode,
    Priority,
    RawUsage,
    UsageFactor,
    UsageThreshold,
    Limit(Limit),
}

const KEYS: &[(&str, Key)] = &[
    ("Description", Key::Description),
    ("Flags", Key::Flags),
    ("GraceTime", Key::GraceTime),
    ("LimitFactor", Key::LimitFactor),
    ("Names", Key::Names),
    ("Preempt", Key::Preempt),
    ("PreemptExemptTime", Key::PreemptExemptTime),
    ("PreemptMode", Key::PreemptMode),
    ("Priority", Key::Priority),
    ("RawUsage", Key::RawUsage),
    ("UsageFactor", Key::UsageFactor),
    ("UsageThreshold", Key::UsageThreshold),
];

/// Values that were given.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct QosEdit {
    /// QOS that are added.
    pub(super) names: Vec<String>,
    /// The change, without its name.
    pub(super) change: v1::account_change::PutQos,
    /// Labels and values, as they are told.
    pub(super) told: Vec<(&'static str, String)>,
}

impl QosEdit {
    /// Reads values.
    ///
    /// # Errors
    /// At the first word that cannot be set, or whose value is none.
    pub(super) fn read(words: &[Word<'_>], world: &World) -> Result<Self, Stop> {
        let mut edit = Self::default();
        words.iter().try_for_each(|word| edit.take(word, world))?;
        edit.told.sort();
        Ok(edit)
    }

    /// Whether nothing is set.
    pub(super) fn is_empty(&self) -> bool {
        self.change == v1::account_change::PutQos::default()
    }

    /// The lines `  LABEL = VALUE`.
    pub(super) fn settings(&self) -> Vec<String> {
        self.told.iter().map(|(label, value)| format!("  {label:<24} = {value}")).collect()
    }

    fn take(&mut self, word: &Word<'_>, world: &World) -> Result<(), Stop> {
        let key = if word.key.is_empty() { Some(Key::Names) } else { find_key(word.key) };
        let key = key.ok_or_else(|| Stop::option(word))?;
        if word.sign.is_some() && key != Key::Flags && key != Key::Preempt {
            return Err(Stop::option(word));
        }
        let value = word.value;
        let change = &mut self.change;
        let wrong =
            |label: &str| Stop::value(word, &format!("Invalid value for {label} ({value})"));
        let (label, told) = match key {
            Key::Names => {
                self.names.extend(list(&value.to_lowercase()));
                return Ok(());
            }
            Key::Description => {
                change.description = Some(value.to_owned());
                return Ok(());
            }
            Key::RawUsage => {
                change.reset_usage = reset(word)?;
                return Ok(());
            }
            Key::Flags => {
                change.flags = Some(flags(word)?);
                ("Flags", value.to_owned())
            }
            Key::Preempt => {
                change.preempt = Some(qos_list(word, world)?);
                ("Preempt", value.to_owned())
            }
            Key::PreemptMode => {
                change.preempt_mode = Some(preempt_mode(word)?.to_owned());
                ("PreemptMode", value.to_owned())
            }
            Key::GraceTime => {
                let secs = seconds(value, 1).ok_or_else(|| wrong("GraceTime"))?.unwrap_or(0);
                change.grace_secs = Some(secs);
                ("GraceTime", elapsed_long(secs.into()))
            }
            Key::PreemptExemptTime => {
                let secs = seconds(value, 60).ok_or_else(|| wrong("PreemptExemptTime"))?;
                change.preempt_exempt_secs = Some(secs.map_or(-1, i64::from));
                ("PreemptExemptTime", secs.map_or_else(none, |secs| elapsed_long(secs.into())))
            }
            Key::Priority => {
                let number = limits::count(value).ok_or_else(|| wrong("Priority"))?;
                change.priority = Some(number.unwrap_or(0));
                ("Priority", value.to_owned())
            }
            Key::UsageFactor => {
                change.usage_factor = Some(millionths(value).ok_or_else(|| wrong("UsageFactor"))?);
                ("UsageFactor", value.to_owned())
            }
            Key::UsageThreshold => {
                let number = millionths(value).ok_or_else(|| wrong("UsageThreshold"))?;
                change.usage_threshold = Some(number);
                ("UsageThreshold", value.to_owned())
            }
            Key::LimitFactor => {
                change.limit_factor = Some(millionths(value).ok_or_else(|| wrong("LimitFactor"))?);
                ("LimitFactor", value.to_owned())
            }
            Key::Limit(limit) => {
                let edit = change.limits.get_or_insert_default();
                (limit.1, limits::set(edit, limit, world, word)?)
            }
        };
        self.told.push((label, told));
        Ok(())
    }
}

/// Usage can only be begun anew.
fn reset(word: &Word<'_>) -> Result<bool, Stop> {
    match word.value.trim() {
        "0" => Ok(true),
        _ => Err(Stop::one("sacctmgr: error: RawUsage can only be set to 0")),
    }
}

fn none() -> String {
    "NONE".to_owned()
}

fn find_key(name: &str) -> Option<Key> {
    let limits = limits::SHARED.iter().chain(limits::OF_QOS);
    let limits = limits.map(|(name, limit)| (*name, Key::Limit(*limit)));
    let all: Vec<(&str, Key)> = KEYS.iter().copied().chain(limits).collect();
    find_name(&all, name)
}

/// Switches that are set, added or taken away; -1 takes all.
fn flags(word: &Word<'_>) -> Result<v1::NameListEdit, Stop> {
    let mut edit = v1::NameListEdit::default();
    if word.value.trim() == "-1" {
        edit.set = Some(v1::NameList::default());
        return Ok(edit);
    }
    let mut names = Vec::new();
    for name in list(word.value) {
        let found = FLAGS.iter().find(|flag| flag.eq_ignore_ascii_case(&name));
        let flag = found.ok_or_else(|| {
            Stop::Wrong(vec![
                " Unknown QOS flag used in:".to_owned(),
                format!("  '{}'", word.value),
                " Valid QOS flags are".to_owned(),
                format!("  '{}'", FLAGS.join(",")),
            ])
        })?;
        names.push((*flag).to_owned());
    }
    match word.sign {
        Some('+') => edit.add = names,
        Some(_) => edit.remove = names,
        None => edit.set = Some(v1::NameList { names }),
    }
    Ok(edit)
}

fn preempt_mode(word: &Word<'_>) -> Result<&'static str, Stop> {
    let modes = ["OFF", "CANCEL", "REQUEUE", "SUSPEND", "cluster"].map(|mode| (mode, mode));
    find_name(&modes, word.value).ok_or_else(|| {
        let value = word.value;
        Stop::value(word, &format!("Invalid preempt mode {value:?}; there are off, cancel, requeue, suspend and cluster"))
    })
}

/// A plain number of `unit` seconds, or a time with colons; `Some(None)`: -1.
#[expect(clippy::option_option, reason = "no time, none set and a time are three things")]
fn seconds(text: &str, unit: u32) -> Option<Option<u32>> {
    if let Some(number) = limits::count(text) {
        return match number {
            None => Some(None),
            Some(number) => number.checked_mul(unit).map(Some),
        };
    }
    let secs = parse_walltime(text).ok()?.as_secs().unwrap_or(0);
    u32::try_from(secs).ok().map(Some)
}

/// A decimal number in millionths; -1 stays -1.
fn millionths(text: &str) -> Option<i64> {
    let text = text.trim();
    if text == "-1" {
        return Some(-1);
    }
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(fraction) || (whole.is_empty() && fraction.is_empty()) {
        return None;
    }
    let whole: i64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let padded = format!("{fraction:0<6}");
    let rest: i64 = padded.get(..6)?.parse().ok()?;
    whole.checked_mul(1_000_000)?.checked_add(rest)
}

#[cfg(test)]
mod tests {
    use super::super::world::example;
    use super::*;

    #[test]
    fn decimals_become_millionths() {
        for (text, expect) in [
            ("0.5", Some(500_000)),
            ("2", Some(2_000_000)),
            (".25", Some(250_000)),
            ("1.2345678", Some(1_234_567)),
            ("-1", Some(-1)),
            ("", None),
            ("x", None),
            ("1e3", None),
            ("-0.5", None),
            ("99999999999999999", None),
        ] {
            assert_eq!(millionths(text), expect, "{text}");
        }
    }

    #[test]
    fn values_are_told_as_slurm_tells_them() {
        let words = [
            "high",
            "priority=100",
            "flags=DenyOnLimit,NoDecay",
            "maxwall=1-0",
            "grptres=cpu=8,gres/gpu=2",
            "preempt=normal",
            "gracetime=120",
            "preemptexempt=60",
        ];
        let words: Vec<Word<'_>> = words.iter().map(|word| Word::new(word)).collect();
        let edit = QosEdit::read(&words, &example()).expect("valid");
        assert_eq!(
            edit.settings(),
            [
                "  Flags                    = DenyOnLimit,NoDecay",
                "  GraceTime                = 00:02:00",
                "  GrpTRES                  = cpu=8,gres/gpu=2",
                "  MaxWall                  = 1-00:00:00",
                "  Preempt                  = normal",
                "  PreemptExemptTime        = 01:00:00",
                "  Priority                 = 100",
            ]
        );
        assert_eq!(edit.names, ["high"]);
        assert_eq!(edit.change.preempt_exempt_secs, Some(3600));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, line) in [
            ("flags=foo", " Unknown QOS flag used in:"),
            (
                "preempt=nope",
                "sacctmgr: error: You gave a bad qos 'nope'. Valid QOS's are normal,q1,high",
            ),
            ("foo=3", " Unknown option: foo=3"),
            ("usagefactor=x", "sacctmgr: error: Invalid value for UsageFactor (x)"),
            ("priority+=3", " Unknown option: priority+=3"),
        ] {
            match QosEdit::read(&[Word::new(text)], &example()) {
                Err(Stop::Wrong(lines)) => assert_eq!(lines[0], line),
                other => panic!("{text}: {other:?}"),
            }
        }
    }
}
