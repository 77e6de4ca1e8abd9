//! What does the file say is done about GPUs that somebody holds and does not use?
//!
//! `[[idle_reclaim]]`, a table a rule; the first that covers a job counts for it. A rule is only tried
//! out unless it says `dry_run = false`.

use std::ops::Range;

use penstock_core::model::{IdleAction, IdleRule, MAX_IDLE_WARNINGS};
use penstock_vocab::PartitionName;
use toml::de::DeTable;

use super::problem::Problems;
use super::section::Section;

/// Longest window, grace and start of a rule: 30 days.
const MAX_SECS: u32 = 30 * 86_400;
/// Most rules: each is looked at for each job with GPUs.
const MAX_RULES: usize = 64;

/// Reads every `[[idle_reclaim]]`.
pub(super) fn read(
    tables: Vec<(&DeTable<'_>, Range<usize>)>,
    problems: &mut Problems<'_>,
) -> Vec<IdleRule> {
    let mut rules: Vec<IdleRule> = Vec::new();
    for (number, (table, at)) in tables.into_iter().enumerate() {
        if number == MAX_RULES {
            let message = format!("more than {MAX_RULES} [[idle_reclaim]]; join some");
            problems.error(&at, message);
            break;
        }
        let mut section = Section::new("[[idle_reclaim]]", table, at.clone(), problems);
        let mut rule = read_one(&mut section);
        section.finish();
        if rule.name.is_empty() {
            rule.name = format!("rule{}", number + 1).into();
        }
        if rules.iter().any(|known| known.name == rule.name) {
            let message = format!("[[idle_reclaim]] {:?} is described twice", rule.name);
            problems.error(&at, message);
        }
        rules.push(rule);
    }
    rules
}

fn read_one(section: &mut Section<'_, '_, '_>) -> IdleRule {
    let mut rule = IdleRule::default();
    if let Some(name) = section.string("name", "\"long\"") {
        rule.name = name.value.into();
    }
    read_partitions(section, &mut rule);
    let mut texts = |key, place: &mut Vec<Box<str>>| {
        if let Some(list) = section.strings(key, "[\"normal\"]") {
            *place = list.value.into_iter().map(|text| text.value.into()).collect();
        }
    };
    texts("qos", &mut rule.qos);
    texts("accounts", &mut rule.accounts);
    texts("exempt_users", &mut rule.exempt_users);
    texts("exempt_qos", &mut rule.exempt_qos);
    texts("exempt_accounts", &mut rule.exempt_accounts);
    let mut flag = |key, place: &mut bool| {
        if let Some(flag) = section.boolean(key) {
            *place = flag.value;
        }
    };
    flag("exempt_interactive", &mut rule.exempt_interactive);
    flag("accept_idle_ok", &mut rule.accept_idle_ok);
    flag("dry_run", &mut rule.dry_run);
    let mut number = |key, range, place: &mut u32| {
        if let Some(number) = section.number(key, range) {
            *place = number.value;
        }
    };
    number("threshold_percent", 0..=99, &mut rule.threshold_percent);
    number("memory_percent", 0..=100, &mut rule.memory_percent);
    number("busy_watts", 0..=10_000, &mut rule.busy_watts);
    number("window_secs", 1..=MAX_SECS, &mut rule.window_secs);
    number("coverage_percent", 1..=100, &mut rule.coverage_percent);
    number("gpus_percent", 1..=100, &mut rule.gpus_percent);
    number("start_grace_secs", 0..=MAX_SECS, &mut rule.start_grace_secs);
    number("warnings", 1..=MAX_IDLE_WARNINGS, &mut rule.warnings);
    number("grace_secs", 0..=MAX_SECS, &mut rule.grace_secs);
    let action = section.parsed("action", "\"notify\"", |word| {
        IdleAction::from_name(word)
            .ok_or_else(|| format!("{word:?} is none of notify, requeue, cancel, preemptible"))
    });
    if let Some(action) = action {
        rule.action = action.value;
    }
    rule
}

fn read_partitions(section: &mut Section<'_, '_, '_>, rule: &mut IdleRule) {
    let Some(list) = section.strings("partitions", "[\"main\"]") else { return };
    for text in list.value {
        match PartitionName::new(&text.value) {
            Ok(name) => rule.partitions.push(name),
            Err(error) => {
                section.problems.error(&text.at, format!("[[idle_reclaim]] partitions: {error}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::ClusterFile;
    use super::*;

    fn parse(rules: &str) -> Result<Vec<IdleRule>, String> {
        let text = format!("[[partition]]\nname = \"main\"\nnodes = \"ALL\"\n{rules}");
        let file = ClusterFile::parse(Path::new("c.toml"), &text);
        file.map(|file| file.idle).map_err(|error| error.to_string())
    }

    #[test]
    fn a_rule_is_read_and_only_tried_out_unless_it_says_otherwise() {
        let rules = parse(
            "[[idle_reclaim]]\npartitions = \"main\"\nqos = [\"short\", \"long\"]\n\
             window_secs = 60\naction = \"requeue\"\n[[idle_reclaim]]\nname = \"rest\"\n\
             dry_run = false\nwarnings = 3",
        );
        let rules = rules.unwrap();
        assert_eq!((&*rules[0].name, rules[0].dry_run, rules[0].window_secs), ("rule1", true, 60));
        assert_eq!((rules[0].action, rules[0].qos.len()), (IdleAction::Requeue, 2));
        assert_eq!((&*rules[1].name, rules[1].dry_run, rules[1].warnings), ("rest", false, 3));
        assert_eq!(parse("").unwrap(), []);
    }

    #[test]
    fn nonsense_is_named_with_its_line() {
        for (wrong, expect) in [
            ("action = \"kill\"", "[[idle_reclaim]] action: \"kill\" is none of notify"),
            ("warnings = 0", "[[idle_reclaim]] warnings is 0; give a number from 1 to 10"),
            ("widow_secs = 5", "did you mean \"window_secs\"?"),
            ("dry_run = \"no\"", "true or false is wanted"),
            ("partitions = [\"a b\"]", "[[idle_reclaim]] partitions: "),
            ("name = \"a\"\n[[idle_reclaim]]\nname = \"a\"", "is described twice"),
        ] {
            let told = parse(&format!("[[idle_reclaim]]\n{wrong}")).unwrap_err();
            assert!(told.contains(expect) && told.contains("c.toml:"), "{told}");
        }
    }
}
