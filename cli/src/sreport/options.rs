//! What does a command line of sreport ask for?

use jiff::{ToSpan as _, ZonedDateTime};

use crate::errors::error;
use crate::listing::TableStyle;
use crate::options::{Operands, parse};
use crate::output::note;
use crate::when::{Looking, parse_when};
use crate::words::{find_name, list as list_of};

use super::FAILED;
use super::table::{self, Key};
use super::units::Unit;

/// What to do.
#[derive(Debug)]
pub(super) enum Choice {
    Help,
    Usage,
    Version,
    Report(Box<Options>),
}

/// A report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Utilization,
    AccountByUser,
    UserByAccount,
    Sizes,
    Top,
    /// One of Slurm's that is refused: why.
    Unbuilt(&'static str),
}

const NO_WCKEYS: &str = "Penstock has no workload characterization keys; use accounts";

const CLUSTER: &[(&str, Kind)] = &[
    ("AccountUtilizationByUser", Kind::AccountByUser),
    ("UserUtilizationByAccount", Kind::UserByAccount),
    ("UserUtilizationByWckey", Kind::Unbuilt(NO_WCKEYS)),
    ("Utilization", Kind::Utilization),
    ("WCKeyUtilizationByUser", Kind::Unbuilt(NO_WCKEYS)),
];

const JOB: &[(&str, Kind)] = &[
    ("SizesByAccount", Kind::Sizes),
    ("SizesByAccountAndWcKey", Kind::Unbuilt(NO_WCKEYS)),
    ("SizesByWckey", Kind::Unbuilt(NO_WCKEYS)),
];

const RESERVATION: &[(&str, Kind)] = &[(
    "Utilization",
    Kind::Unbuilt("usage is not kept by reservation; sacct -o reservation,elapsed tells of jobs"),
)];

const USER: &[(&str, Kind)] = &[("TopUsage", Kind::Top), ("Top", Kind::Top)];

/// A type: its name, its reports, and Slurm's words for those that are valid.
type Type = (&'static str, &'static [(&'static str, Kind)], &'static str);

const TYPES: &[Type] = &[
    (
        "cluster",
        CLUSTER,
        "Valid cluster reports are, \"AccountUtilizationByUser\", \"UserUtilizationByAccount\", \
         \"UserUtilizationByWckey\", \"Utilization\", and \"WCKeyUtilizationByUser\"",
    ),
    (
        "job",
        JOB,
        "Valid job reports are, \"SizesByAccount, SizesByAccountAndWcKey, and  SizesByWckey\"",
    ),
    ("reservation", RESERVATION, "Valid reservation reports are, \"Utilization\""),
    ("user", USER, "Valid user reports are, \"Top\""),
];

/// What to report, and how.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) kind: Kind,
    /// Milliseconds since the epoch; the end is not in it.
    pub(super) start_ms: i64,
    pub(super) end_ms: i64,
    pub(super) unit: Unit,
    /// Kinds of resources as typed; `None`: CPUs, without a column for the name.
    pub(super) tres: Option<Vec<String>>,
    /// Empty: ours, which is the only one.
    pub(super) clusters: Vec<String>,
    /// Empty: all.
    pub(super) accounts: Vec<String>,
    /// Empty: all.
    pub(super) users: Vec<String>,
    pub(super) format: Option<String>,
    pub(super) top: usize,
    /// Accounts of a user together.
    pub(super) group: bool,
    /// Accounts are indented.
    pub(super) tree: bool,
    /// Every account for itself.
    pub(super) flat: bool,
    pub(super) style: TableStyle,
    pub(super) header: bool,
}

/// How many users a report of the top shows.
const TOP: usize = 10;

/// Reads the command line.
///
/// # Errors
/// With the exit status, once the reason is printed.
pub(super) fn read(program: &str, args: &[String], now: &ZonedDateTime) -> Result<Choice, i32> {
    let parsed = parse(table::TABLE, Operands::Anywhere, args).map_err(|problem| {
        problem.report(program);
        FAILED
    })?;
    let mut options = Options {
        kind: Kind::Utilization,
        start_ms: 0,
        end_ms: 0,
        unit: Unit::Minutes,
        tres: None,
        clusters: Vec::new(),
        accounts: Vec::new(),
        users: Vec::new(),
        format: None,
        top: TOP,
        group: false,
        tree: false,
        flat: false,
        style: TableStyle::Columns,
        header: true,
    };
    for given in parsed.given {
        let value = given.value.unwrap_or_default();
        match given.key {
            Key::Help => return Ok(Choice::Help),
            Key::Usage => return Ok(Choice::Usage),
            Key::Version => return Ok(Choice::Version),
            Key::NoHeader => options.header = false,
            Key::Parsable => options.style = TableStyle::Ended("|".to_owned()),
            Key::Parsable2 => options.style = TableStyle::Between("|".to_owned()),
            Key::Tres => options.tres = Some(list_of(&value.to_lowercase())),
            Key::Time => {
                options.unit = Unit::parse(&value)
                    .ok_or_else(|| refuse(program, &format!("unknown time format {value}")))?;
            }
            Key::Ignored => {}
        }
    }
    let mut words = parsed.operands.iter();
    let Some(typed) = words.next() else {
        return Err(refuse(
            program,
            "interactive mode is not built; give a report (sreport --help)",
        ));
    };
    options.kind = kind(program, typed, words.next())?;
    let (mut start, mut end) = (None, None);
    for word in words {
        options.take(program, word, now, &mut start, &mut end)?;
    }
    (options.start_ms, options.end_ms) = window(start, end, now);
    Ok(Choice::Report(Box::new(options)))
}

fn refuse(program: &str, why: &str) -> i32 {
    error(program, why);
    FAILED
}

fn kind(program: &str, typed: &str, report: Option<&String>) -> Result<Kind, i32> {
    let types: Vec<(&str, usize)> =
        TYPES.iter().enumerate().map(|(at, (name, _, _))| (*name, at)).collect();
    let Some((name, reports, valid)) = find_name(&types, typed).and_then(|at| TYPES.get(at)) else {
        note(&format!("invalid keyword: {typed}"));
        return Err(FAILED);
    };
    let Some(report) = report else {
        note(&format!("too few arguments for keyword:{typed}"));
        return Err(FAILED);
    };
    // As Slurm, the first that begins so where several do.
    let begins = |known: &str| {
        known.get(..report.len()).is_some_and(|head| head.eq_ignore_ascii_case(report))
    };
    let found = reports.iter().find(|(known, _)| known.eq_ignore_ascii_case(report));
    match found.or_else(|| reports.iter().find(|(known, _)| begins(known))) {
        Some((known, Kind::Unbuilt(why))) => {
            Err(refuse(program, &format!("{name} {known} is not built in Penstock: {why}")))
        }
        Some((_, kind)) => Ok(*kind),
        None => {
            note(&format!("Not valid report {report}"));
            note(valid);
            Err(FAILED)
        }
    }
}

/// The window: yesterday, unless said; never beyond now, and an hour where it would be empty.
fn window(start: Option<i64>, end: Option<i64>, now: &ZonedDateTime) -> (i64, i64) {
    /// Milliseconds of an hour.
    const HOUR: i64 = 3_600_000;
    let midnight = now.start_of_day().unwrap_or_else(|_| now.clone());
    let yesterday = midnight.checked_sub(1.day()).unwrap_or_else(|_| midnight.clone());
    let now_ms = now.timestamp().as_millisecond();
    let start_ms = start.unwrap_or_else(|| yesterday.timestamp().as_millisecond());
    let default_end = if start.is_some() { now_ms } else { midnight.timestamp().as_millisecond() };
    let end_ms = end.unwrap_or(default_end).min(now_ms);
    (start_ms, if end_ms > start_ms { end_ms } else { start_ms.saturating_add(HOUR) })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Condition {
    Accounts,
    Clusters,
    End,
    Format,
    Start,
    TopCount,
    Users,
    Unbuilt,
}

const CONDITIONS: &[(&str, Condition)] = &[
    ("Accounts", Condition::Accounts),
    ("Acct", Condition::Accounts),
    ("Clusters", Condition::Clusters),
    ("End", Condition::End),
    ("Format", Condition::Format),
    ("Start", Condition::Start),
    ("TopCount", Condition::TopCount),
    ("Users", Condition::Users),
    ("GID", Condition::Unbuilt),
    ("Grouping", Condition::Unbuilt),
    ("Jobs", Condition::Unbuilt),
    ("Names", Condition::Unbuilt),
    ("Nodes", Condition::Unbuilt),
    ("Partitions", Condition::Unbuilt),
    ("Wckeys", Condition::Unbuilt),
];

impl Options {
    fn take(
        &mut self,
        program: &str,
        word: &str,
        now: &ZonedDateTime,
        start: &mut Option<i64>,
        end: &mut Option<i64>,
    ) -> Result<(), i32> {
        let Some((key, value)) = word.split_once('=') else {
            return self.take_switch(program, word);
        };
        let Some(condition) = find_name(CONDITIONS, key) else {
            note(&format!(" Unknown condition: {word}"));
            note("Use keyword set to modify value");
            return Err(FAILED);
        };
        let time = || {
            let time = parse_when(value, now, Looking::Back).map_err(|problem| {
                note(&problem.to_string());
                FAILED
            });
            time.map(jiff::Timestamp::as_millisecond)
        };
        match condition {
            Condition::Accounts => self.accounts = list_of(&value.to_lowercase()),
            Condition::Users => self.users = list_of(value),
            Condition::Clusters => self.clusters = list_of(&value.to_lowercase()),
            Condition::Format => self.format = Some(value.to_owned()),
            Condition::Start => *start = Some(time()?),
            Condition::End => *end = Some(time()?),
            Condition::TopCount => {
                self.top = value.parse().map_err(|_| {
                    refuse(program, &format!("Invalid value for TopCount ({value})"))
                })?;
            }
            Condition::Unbuilt => {
                return Err(refuse(program, &format!("{key}= is not built in Penstock")));
            }
        }
        Ok(())
    }

    fn take_switch(&mut self, program: &str, word: &str) -> Result<(), i32> {
        match word.to_ascii_lowercase().as_str() {
            "where" | "set" | "all_clusters" => {}
            "tree" => self.tree = true,
            "group" => self.group = true,
            "flatview" => self.flat = true,
            "printjobcount" | "acctasparent" => {
                return Err(refuse(program, &format!("{word} is not built in Penstock")));
            }
            _ => {
                note(&format!(" Unknown condition: {word}"));
                note("Use keyword set to modify value");
                return Err(FAILED);
            }
        }
        Ok(())
    }
}
