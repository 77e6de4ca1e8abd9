//! Which limits can be set, and how are their values read?
//!
//! Amounts are `cpu=4,mem=8G,gres/gpu=2`, where -1 takes a limit away and kinds that are not named
//! stay; numbers are plain, with -1 likewise; walls are minutes or `[D-]HH:MM:SS`. Slurm's older
//! keys for one kind (`GrpCPUs`) are read too.

use penstock_proto::v1;
use penstock_vocab::{TresKind, elapsed_long, parse_tres_list, parse_walltime};

use super::words::{Stop, Word};
use super::world::World;

/// How the value of a limit is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Amounts by kind.
    Amounts,
    /// The amount of one kind.
    One(&'static str),
    /// Hours of one kind, kept as minutes: `100gpu-hours`.
    Budget,
    /// A count.
    Number,
    /// A count of waiting jobs whose age counts, which can only be taken away: none is built.
    Accrue,
    /// A time, kept in minutes.
    Wall,
}

/// A limit: its name on the wire, how it is shown when it is set, and its form.
pub(super) type Limit = (&'static str, &'static str, Form);

const GRP_TRES: Limit = ("GrpTRES", "GrpTRES", Form::Amounts);
const GRP_TRES_MINS: Limit = ("GrpTRESMins", "GrpTRESMins", Form::Amounts);
const GRP_SUBMIT: Limit = ("GrpSubmitJobs", "GrpSubmitJobs", Form::Number);
const MAX_TRES: Limit = ("MaxTRESPerJob", "MaxTRES", Form::Amounts);
const MAX_TRES_MINS: Limit = ("MaxTRESMinsPerJob", "MaxTRESMins", Form::Amounts);
const MAX_WALL: Limit = ("MaxWallDurationPerJob", "MaxWall", Form::Wall);

/// Keys that associations and QOS share.
pub(super) const SHARED: &[(&str, Limit)] = &[
    ("GrpTRES", GRP_TRES),
    ("GrpTRESMins", GRP_TRES_MINS),
    ("Budget", ("GrpTRESMins", "GrpTRESMins", Form::Budget)),
    ("GrpTRESRunMins", ("GrpTRESRunMins", "GrpTRESRunMins", Form::Amounts)),
    ("GrpCPUs", ("GrpTRES", "GrpTRES", Form::One("cpu"))),
    ("GrpCPUMins", ("GrpTRESMins", "GrpTRESMins", Form::One("cpu"))),
    ("GrpCPURunMins", ("GrpTRESRunMins", "GrpTRESRunMins", Form::One("cpu"))),
    ("GrpMemory", ("GrpTRES", "GrpTRES", Form::One("mem"))),
    ("GrpNodes", ("GrpTRES", "GrpTRES", Form::One("node"))),
    ("GrpJobs", ("GrpJobs", "GrpJobs", Form::Number)),
    ("GrpJobsAccrue", ("GrpJobsAccrue", "GrpJobsAccrue", Form::Accrue)),
    ("GrpSubmitJobs", GRP_SUBMIT),
    ("GrpWall", ("GrpWall", "GrpWall", Form::Wall)),
    ("MaxTRES", MAX_TRES),
    ("MaxTRESPerJob", MAX_TRES),
    ("MaxTRESPerNode", ("MaxTRESPerNode", "MaxTRESPerNode", Form::Amounts)),
    ("MaxTRESMins", MAX_TRES_MINS),
    ("MaxTRESMinsPerJob", MAX_TRES_MINS),
    ("MaxCPUs", ("MaxTRESPerJob", "MaxTRES", Form::One("cpu"))),
    ("MaxCPUMins", ("MaxTRESMinsPerJob", "MaxTRESMins", Form::One("cpu"))),
    ("MaxNodes", ("MaxTRESPerJob", "MaxTRES", Form::One("node"))),
    ("MaxWall", MAX_WALL),
    ("MaxWallDurationPerJob", MAX_WALL),
];

/// Keys of associations alone.
pub(super) const OF_ASSOCIATIONS: &[(&str, Limit)] = &[
    ("MaxJobs", ("MaxJobs", "MaxJobs", Form::Number)),
    ("MaxJobsAccrue", ("MaxJobsAccrue", "MaxJobsAccrue", Form::Accrue)),
    ("MaxSubmitJobs", ("MaxSubmitJobs", "MaxSubmitJobs", Form::Number)),
    ("Guaranteed", ("Guaranteed", "Guaranteed", Form::Amounts)),
];

const PER_USER: Limit = ("MaxTRESPerUser", "MaxTRESPerUser", Form::Amounts);
const PER_ACCOUNT: Limit = ("MaxTRESPerAccount", "MaxTRESPerAccount", Form::Amounts);
const MIN_TRES: Limit = ("MinTRESPerJob", "MinTRESPerJob", Form::Amounts);
const JOBS_PU: Limit = ("MaxJobsPerUser", "MaxJobsPerUser", Form::Number);
const JOBS_PA: Limit = ("MaxJobsPerAccount", "MaxJobsPerAccount", Form::Number);
const SUBMIT_PU: Limit = ("MaxSubmitJobsPerUser", "MaxSubmitJobsPerUser", Form::Number);
const SUBMIT_PA: Limit = ("MaxSubmitJobsPerAccount", "MaxSubmitJobsPerAccount", Form::Number);
const ACCRUE_PU: Limit = ("MaxJobsAccruePerUser", "MaxJobsAccruePerUser", Form::Accrue);
const ACCRUE_PA: Limit = ("MaxJobsAccruePerAccount", "MaxJobsAccruePerAccount", Form::Accrue);

/// Keys of QOS alone.
pub(super) const OF_QOS: &[(&str, Limit)] = &[
    ("MaxTRESPerUser", PER_USER),
    ("MaxTRESPU", PER_USER),
    ("MaxCPUsPerUser", ("MaxTRESPerUser", "MaxTRESPerUser", Form::One("cpu"))),
    ("MaxNodesPerUser", ("MaxTRESPerUser", "MaxTRESPerUser", Form::One("node"))),
    ("MaxTRESPerAccount", PER_ACCOUNT),
    ("MaxTRESPA", PER_ACCOUNT),
    ("MinTRESPerJob", MIN_TRES),
    ("MinTRES", MIN_TRES),
    ("MinCPUs", ("MinTRESPerJob", "MinTRESPerJob", Form::One("cpu"))),
    ("MaxJobsPerUser", JOBS_PU),
    ("MaxJobsPU", JOBS_PU),
    ("MaxJobs", JOBS_PU),
    ("MaxJobsPerAccount", JOBS_PA),
    ("MaxJobsPA", JOBS_PA),
    ("MaxSubmitJobsPerUser", SUBMIT_PU),
    ("MaxSubmitJobsPU", SUBMIT_PU),
    ("MaxSubmitPU", SUBMIT_PU),
    ("MaxSubmitJobs", SUBMIT_PU),
    ("MaxSubmitJobsPerAccount", SUBMIT_PA),
    ("MaxSubmitJobsPA", SUBMIT_PA),
    ("MaxSubmitPA", SUBMIT_PA),
    ("MaxJobsAccruePerUser", ACCRUE_PU),
    ("MaxJobsAccruePU", ACCRUE_PU),
    ("MaxJobsAccruePerAccount", ACCRUE_PA),
    ("MaxJobsAccruePA", ACCRUE_PA),
];

/// The edit of one limit, and how its new value is told.
///
/// # Errors
/// When the value has not the limit's form, or names a kind that the cluster does not count, or the
/// limit is not built.
pub(super) fn set(
    edit: &mut v1::LimitEdit,
    limit: Limit,
    world: &World,
    word: &Word<'_>,
) -> Result<String, Stop> {
    let (wire, label, form) = limit;
    match form {
        Form::Amounts => set_amounts(edit, wire, word.value, world, word),
        Form::One(kind) => set_amounts(edit, wire, &format!("{kind}={}", word.value), world, word),
        Form::Budget => {
            let list = budget(word.value).ok_or_else(|| {
                Stop::value(word, &format!("Invalid value for Budget ({}); give hours of a resource, as in 100gpu-hours or 5000cpu-hours", word.value))
            })?;
            set_amounts(edit, wire, &list, world, word)
        }
        Form::Accrue if count(word.value) != Some(None) => Err(not_built(label)),
        Form::Number | Form::Accrue | Form::Wall => {
            let value = if form == Form::Wall { wall(word.value) } else { count(word.value) };
            let value = value.ok_or_else(|| {
                Stop::value(word, &format!("Invalid value for {label} ({})", word.value))
            })?;
            edit.numbers.push(v1::limit_edit::Number { limit: wire.to_owned(), value });
            Ok(match (value, form) {
                (None, _) => "NONE".to_owned(),
                (Some(minutes), Form::Wall) => elapsed_long(u64::from(minutes) * 60),
                (Some(value), _) => value.to_string(),
            })
        }
    }
}

/// Limits on how many jobs gain age are refused; how many wait at all can be limited.
fn not_built(label: &str) -> Stop {
    let instead = label.replace("JobsAccrue", "SubmitJobs");
    Stop::one(format!(
        "sacctmgr: error: {label} is not built in Penstock: every waiting job gains age; {instead} \
         limits how many there are"
    ))
}

fn set_amounts(
    edit: &mut v1::LimitEdit,
    wire: &str,
    list: &str,
    world: &World,
    word: &Word<'_>,
) -> Result<String, Stop> {
    let mut told = Vec::new();
    let mut amounts = v1::limit_edit::Amounts { limit: wire.to_owned(), ..<_>::default() };
    for entry in list.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
        let (name, amount) = entry.split_once('=').unwrap_or((entry, ""));
        let kind: TresKind = name.parse().map_err(|_| no_such_kind(name, world, word))?;
        let kind = kind.to_string();
        if !world.tree().tres.is_empty() && !is_counted(&kind, world) {
            return Err(no_such_kind(name, world, word));
        }
        if amount == "-1" {
            told.push(format!("{kind}=NONE"));
            amounts.clear.push(kind);
            continue;
        }
        let read = parse_tres_list(entry).map_err(|error| Stop::value(word, &error.to_string()))?;
        for (_, count) in read {
            told.push(format!("{kind}={amount}"));
            amounts.set.push(v1::TresAmount { kind: kind.clone(), count });
        }
    }
    if told.is_empty() {
        return Err(Stop::option(word));
    }
    edit.amounts.push(amounts);
    Ok(told.join(","))
}

/// Kinds that a cluster counts are told by name; licences come and go with the cluster file.
fn is_counted(kind: &str, world: &World) -> bool {
    kind.starts_with("license/") || world.tree().tres.iter().any(|known| known == kind)
}

fn no_such_kind(name: &str, world: &World, word: &Word<'_>) -> Stop {
    let known = world.tree().tres.join(", ");
    let hint = if known.is_empty() { known } else { format!("; this cluster counts {known}") };
    Stop::value(word, &format!("no TRES known by type {name}{hint}"))
}

/// `100gpu-hours` as `gres/gpu=6000`.
fn budget(text: &str) -> Option<String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, rest) = text.split_at(digits);
    let kind = rest.trim_start_matches([' ', '-']).strip_suffix("-hours")?;
    let minutes = number.parse::<u64>().ok()?.checked_mul(60)?;
    let plain = matches!(kind, "cpu" | "node" | "billing");
    Some(if plain { format!("{kind}={minutes}") } else { format!("gres/{kind}={minutes}") })
}

/// A count; `Some(None)`: no limit.
#[expect(clippy::option_option, reason = "no number, no limit and a limit are three things")]
pub(super) fn count(text: &str) -> Option<Option<u32>> {
    match text.trim() {
        "-1" => Some(None),
        text => text.parse().ok().map(Some),
    }
}

/// Minutes; `Some(None)`: no limit.
#[expect(clippy::option_option, reason = "no time, no limit and a limit are three things")]
fn wall(text: &str) -> Option<Option<u32>> {
    if text.trim() == "0" {
        return Some(Some(0));
    }
    match parse_walltime(text).ok()?.rounded_up().as_secs() {
        None => Some(None),
        Some(secs) => u32::try_from(secs / 60).ok().map(Some),
    }
}

#[cfg(test)]
mod tests {
    use super::super::world::example;
    use super::*;

    fn told(limit: Limit, text: &str) -> Result<String, Vec<String>> {
        let mut edit = v1::LimitEdit::default();
        let word = format!("x={text}");
        match set(&mut edit, limit, &example(), &Word::new(&word)) {
            Ok(told) => Ok(told),
            Err(Stop::Wrong(lines)) => Err(lines),
            Err(Stop::Nothing(line)) => Err(vec![line.to_owned()]),
        }
    }

    #[test]
    fn values_are_read_in_their_forms() {
        let table = [
            (GRP_TRES, "cpu=4,gres/gpu=2", "cpu=4,gres/gpu=2"),
            (GRP_TRES, "cpu=-1", "cpu=NONE"),
            (("GrpTRES", "GrpTRES", Form::One("mem")), "8G", "mem=8G"),
            (("GrpTRESMins", "", Form::Budget), "100gpu-hours", "gres/gpu=6000"),
            (("GrpTRESMins", "", Form::Budget), "7cpu-hours", "cpu=420"),
            (GRP_SUBMIT, "7", "7"),
            (GRP_SUBMIT, "-1", "NONE"),
            (MAX_WALL, "60", "01:00:00"),
            (MAX_WALL, "1-0", "1-00:00:00"),
            (MAX_WALL, "-1", "NONE"),
            (MAX_WALL, "0", "00:00:00"),
        ];
        for (limit, text, expect) in table {
            assert_eq!(told(limit, text), Ok(expect.to_owned()), "{text}");
        }
    }

    #[test]
    fn limits_on_age_are_refused_by_name_and_can_be_taken_away() {
        let keys = [SHARED, OF_ASSOCIATIONS, OF_QOS].concat();
        let of_age = keys.into_iter().filter(|(key, _)| key.contains("Accrue"));
        let mut seen = 0;
        for (key, limit) in of_age {
            let lines = told(limit, "3").expect_err(key);
            let name = format!("sacctmgr: error: {} is not built in Penstock: ", limit.0);
            assert!(lines[0].starts_with(&name), "{lines:?}");
            assert_eq!(told(limit, "-1"), Ok("NONE".to_owned()), "{key}");
            seen += 1;
        }
        assert_eq!(seen, 6);
        let lines = told(ACCRUE_PU, "3").expect_err("not built");
        assert!(
            lines[0].ends_with("; MaxSubmitJobsPerUser limits how many there are"),
            "{lines:?}"
        );
    }

    #[test]
    fn wrong_values_are_refused_with_slurms_lines() {
        assert_eq!(
            told(GRP_SUBMIT, "abc"),
            Err(vec![
                "sacctmgr: error: Invalid value for GrpSubmitJobs (abc)".to_owned(),
                " Unknown option: x=abc".to_owned(),
                " Use keyword 'where' to modify condition".to_owned(),
            ])
        );
        let lines = told(GRP_TRES, "foo=3").expect_err("no such kind");
        assert!(lines[0].starts_with("sacctmgr: error: no TRES known by type foo; this cluster"));
        assert!(told(GRP_TRES, "gres/tpu=1").is_err());
        assert!(told(GRP_TRES, "cpu=x").is_err());
        assert!(told(GRP_TRES, "").is_err());
        assert!(told(("GrpTRESMins", "", Form::Budget), "100").is_err());
        assert!(told(GRP_SUBMIT, "99999999999").is_err());
    }
}
