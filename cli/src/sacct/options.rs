//! What does a command line of sacct ask for?

use jiff::ZonedDateTime;
use penstock_proto::v1;
use penstock_vocab::{
    JobSelector, StateFilter, StepSelector, expand, parse_job_state, parse_walltime,
};

use crate::errors::error;
use crate::json::Form;
use crate::listing::{Clock, TableStyle, Units, user_id};
use crate::options::{Given, Operands, parse};
use crate::output::note;
use crate::when::{Looking, parse_when};
use crate::words::{list as list_of, split_job_ids};

use super::FAILED;
use super::fields::{self, Field, FieldError};
use super::rows::Range;
use super::table::{self, Key};

/// What to do.
#[derive(Debug)]
pub(super) enum Choice {
    Help,
    Usage,
    Version,
    HelpFormat,
    List(Box<Options>),
}

/// What to list, and how.
#[derive(Debug)]
pub(super) struct Options {
    /// Which jobs, in the controller's words.
    pub(super) request: v1::ListAccountingRequest,
    /// Steps that were asked for one by one.
    pub(super) steps: Vec<StepSelector>,
    /// Jobs that were asked for as a whole.
    pub(super) jobs: Vec<JobSelector>,
    /// The columns.
    pub(super) fields: Vec<Field>,
    /// What surrounds the values.
    pub(super) style: TableStyle,
    /// Whether a header is printed.
    pub(super) header: bool,
    /// No rows of steps.
    pub(super) jobs_only: bool,
    /// Times are cut to the window.
    pub(super) truncate: bool,
    /// Unit of memory.
    pub(super) units: Units,
    /// Conditions that are checked here.
    pub(super) checks: Checks,
    /// For programs instead of people.
    pub(super) form: Option<Form>,
}

/// Conditions on jobs that the controller does not check.
#[derive(Debug, Default)]
pub(super) struct Checks {
    /// Clusters; empty: whichever this is.
    pub(super) clusters: Vec<String>,
    pub(super) qos: Vec<String>,
    pub(super) gids: Vec<u32>,
    pub(super) associations: Vec<u32>,
    pub(super) nodes: Option<Range>,
    pub(super) cpus: Option<Range>,
    /// Seconds.
    pub(super) time_limit: Option<Range>,
}

/// The clusters of a list; none where it says `all`.
fn clusters(list: &str) -> Vec<String> {
    let named = list_of(list);
    let all = named.iter().any(|name| name.eq_ignore_ascii_case("all"));
    if all { Vec::new() } else { named }
}

impl Options {
    /// Whether a column shows the name of the cluster.
    pub(super) fn needs_cluster(&self) -> bool {
        let checked = !self.checks.clusters.is_empty();
        checked
            || self.form.is_some()
            || self.fields.iter().any(|field| field.column.name == "Cluster")
    }
}

#[derive(Debug, Default)]
struct Draft {
    request: v1::ListAccountingRequest,
    steps: Vec<StepSelector>,
    jobs: Vec<JobSelector>,
    format: Option<String>,
    start: Option<i64>,
    end: Option<i64>,
    states_given: bool,
    no_header: bool,
    jobs_only: bool,
    truncate: bool,
    ended_style: Option<bool>,
    delimiter: Option<String>,
    units: Option<Units>,
    checks: Checks,
    form: Option<Form>,
    limit_min: Option<u64>,
    limit_max: Option<u64>,
}

/// Reads the command line and the environment.
///
/// # Errors
/// With the exit status, once the reason is printed.
pub(super) fn read(
    program: &str,
    args: &[String],
    env: &dyn Fn(&str) -> Option<String>,
    now: &ZonedDateTime,
) -> Result<Choice, i32> {
    let parsed = parse(table::TABLE, Operands::Anywhere, args).map_err(|problem| {
        // Slurm's sacct does not point to its help.
        note(&format!("{program}: {problem}"));
        problem.suggest(program);
        FAILED
    })?;
    for (key, choice) in [
        (Key::Help, Choice::Help),
        (Key::Usage, Choice::Usage),
        (Key::Version, Choice::Version),
        (Key::HelpFormat, Choice::HelpFormat),
    ] {
        if parsed.given.iter().any(|given| given.key == key) {
            return Ok(choice);
        }
    }
    let mut draft = Draft { format: env("SACCT_FORMAT"), ..Draft::default() };
    for given in parsed.given {
        draft.take(program, given, now)?;
    }
    if !parsed.operands.is_empty() {
        error(program, "Unknown arguments:");
        parsed.operands.iter().for_each(|word| error(program, &format!(" {word}")));
        return Err(FAILED);
    }
    draft.finish(program, now).map(|options| Choice::List(Box::new(options)))
}

impl Draft {
    fn take(&mut self, program: &str, given: Given<Key>, now: &ZonedDateTime) -> Result<(), i32> {
        let value = given.value.as_deref().unwrap_or_default();
        match given.key {
            Key::Account => self.request.accounts = list_of(value),
            Key::Associations => self.checks.associations = numbers(program, value)?,
            Key::AllUsers => self.request.all_users = true,
            Key::Allocations => self.jobs_only = true,
            Key::Brief => self.format = Some(fields::BRIEF.to_owned()),
            Key::Clusters => self.checks.clusters = clusters(value),
            Key::Cpus => self.checks.cpus = Some(range(program, value)?),
            Key::Delimiter => self.delimiter = Some(value.to_owned()),
            Key::Duplicates => self.request.duplicates = true,
            Key::End => self.end = Some(time(value, now)?),
            Key::Format => self.format = Some(value.to_owned()),
            Key::Group => self.checks.gids = groups(program, value)?,
            Key::Json => self.form = Some(Form::read(program, false, given.value.as_deref())?),
            Key::Yaml => self.form = Some(Form::read(program, true, given.value.as_deref())?),
            Key::Jobs => self.take_jobs(program, value)?,
            Key::Long => self.format = Some(fields::LONG.to_owned()),
            Key::Name => self.request.names = list_of(value),
            Key::Wckeys => self.request.wckeys = list_of(value),
            Key::NoConvert => self.units = Some(Units::Raw),
            Key::NoHeader => self.no_header = true,
            Key::Nodes => self.checks.nodes = Some(range(program, value)?),
            Key::NodeList => self.request.nodes = hosts(program, value)?,
            Key::Parsable => self.ended_style = Some(true),
            Key::Parsable2 => self.ended_style = Some(false),
            Key::Partition => self.request.partitions = list_of(value),
            Key::Qos => self.checks.qos = list_of(value),
            Key::Start => self.start = Some(time(value, now)?),
            Key::State => self.take_states(program, value)?,
            Key::TimeLimitMin => self.limit_min = Some(limit(program, value)?),
            Key::TimeLimitMax => self.limit_max = Some(limit(program, value)?),
            Key::Truncate => self.truncate = true,
            Key::Units => self.units = Some(units(program, value)?),
            Key::User | Key::Uid => self.take_users(program, value)?,
            Key::Help | Key::HelpFormat | Key::Usage | Key::Version | Key::Ignored => {}
            Key::Completion => {
                note("Slurm job completion is disabled");
                return Err(FAILED);
            }
            Key::Unbuilt(name) => {
                error(program, &format!("--{name} is not built in Penstock"));
                return Err(FAILED);
            }
        }
        Ok(())
    }

    fn take_jobs(&mut self, program: &str, list: &str) -> Result<(), i32> {
        for word in split_job_ids(list).into_iter().map(str::trim) {
            let (job, is_step) = match word.split_once('.') {
                Some((job, _)) => (job, true),
                None => (word, false),
            };
            let read = match word.parse::<StepSelector>() {
                Ok(step) if is_step => {
                    self.steps.push(step);
                    true
                }
                _ => match job.parse::<JobSelector>() {
                    Ok(selector) if !is_step => {
                        self.jobs.push(selector);
                        true
                    }
                    _ => false,
                },
            };
            if !read {
                note(&format!("{program}: fatal: Bad job/step specified: {word}"));
                return Err(FAILED);
            }
            self.request.selectors.push(job.to_owned());
        }
        Ok(())
    }

    fn take_states(&mut self, program: &str, list: &str) -> Result<(), i32> {
        self.states_given = true;
        for word in list_of(list) {
            let Ok(state) = parse_job_state(&word) else {
                note(&format!("{program}: fatal: unrecognized job state value '{word}'"));
                return Err(FAILED);
            };
            self.request.states.push(StateFilter::name(state).to_owned());
        }
        Ok(())
    }

    fn take_users(&mut self, program: &str, list: &str) -> Result<(), i32> {
        for word in list_of(list) {
            let Some(uid) = user_id(&word) else {
                error(program, &format!("Invalid user id: {word}"));
                return Err(FAILED);
            };
            self.request.uids.push(uid);
        }
        Ok(())
    }

    fn finish(mut self, program: &str, now: &ZonedDateTime) -> Result<Options, i32> {
        let fields = fields::parse(self.format.as_deref().unwrap_or(fields::DEFAULT));
        let fields = fields.map_err(|problem| {
            match problem {
                FieldError::Unknown(name) => {
                    error(program, &format!("Invalid field requested: \"{name}\""));
                }
                FieldError::Removed(old, new) => {
                    note(&format!("{program}: fatal: {old} has been removed, please use {new}"));
                }
            }
            FAILED
        })?;
        self.set_window(now);
        if self.request.from_ms > self.request.to_ms {
            let clock = Clock::from_env(now.timestamp().as_millisecond());
            let (mut from, mut to) = (String::new(), String::new());
            clock.push(&mut from, self.request.from_ms);
            clock.push(&mut to, self.request.to_ms);
            error(program, &format!("Start time ({from}) requested is after end time ({to})."));
            return Err(FAILED);
        }
        self.set_users();
        self.checks.time_limit =
            self.limit_min.map(|least| Range { least, most: self.limit_max.unwrap_or(least) });
        let delimiter = self.delimiter.unwrap_or_else(|| "|".to_owned());
        let style = match self.ended_style {
            None => TableStyle::Columns,
            Some(true) => TableStyle::Ended(delimiter),
            Some(false) => TableStyle::Between(delimiter),
        };
        Ok(Options {
            request: self.request,
            steps: self.steps,
            jobs: self.jobs,
            fields,
            style,
            header: !self.no_header,
            jobs_only: self.jobs_only,
            truncate: self.truncate,
            units: self.units.unwrap_or(Units::Exact),
            checks: self.checks,
            form: self.form,
        })
    }

    /// Today; for ids any time; for states this moment.
    fn set_window(&mut self, now: &ZonedDateTime) {
        let now_ms = now.timestamp().as_millisecond();
        let midnight = now.start_of_day().map_or(0, |day| day.timestamp().as_millisecond());
        let by_id = !self.request.selectors.is_empty();
        let default_start = match (by_id, self.states_given) {
            (true, _) => 0,
            (false, true) => now_ms,
            (false, false) => midnight,
        };
        self.request.from_ms = self.start.unwrap_or(default_start);
        // Whoever asks for states since a time, and not until when, asks for that moment.
        let default_end = match (self.states_given, self.start) {
            (true, Some(start)) => start,
            (_, _) => now_ms,
        };
        self.request.to_ms = self.end.unwrap_or(default_end);
    }

    /// Own jobs, unless others are asked for by user or id, or root asks.
    fn set_users(&mut self) {
        let uid = uzers::get_current_uid();
        let named = !self.request.uids.is_empty() || !self.request.selectors.is_empty();
        if self.request.all_users || uid == 0 || named {
            self.request.all_users = self.request.uids.is_empty();
        } else {
            self.request.uids.push(uid);
        }
    }
}

fn time(text: &str, now: &ZonedDateTime) -> Result<i64, i32> {
    parse_when(text, now, Looking::Back).map(|when| when.as_millisecond()).map_err(|problem| {
        note(&problem.to_string());
        FAILED
    })
}

fn range(program: &str, text: &str) -> Result<Range, i32> {
    let (least, most) = text.split_once('-').unwrap_or((text, text));
    match (least.trim().parse(), most.trim().parse()) {
        (Ok(least), Ok(most)) => Ok(Range { least, most }),
        _ => {
            error(program, &format!("{text:?} is not a count or a range of counts (2-4)"));
            Err(FAILED)
        }
    }
}

fn limit(program: &str, text: &str) -> Result<u64, i32> {
    match parse_walltime(text) {
        Ok(limit) => Ok(limit.as_secs().unwrap_or(u64::MAX)),
        Err(problem) => {
            error(program, &problem.to_string());
            Err(FAILED)
        }
    }
}

fn units(program: &str, text: &str) -> Result<Units, i32> {
    let power =
        "KMGTP".chars().zip(1..).find(|(letter, _)| text.eq_ignore_ascii_case(&letter.to_string()));
    match power {
        Some((_, power)) => Ok(Units::Fixed(power)),
        None => {
            error(program, &format!("Invalid unit type '{text}'. Possible options are 'KMGTP'"));
            note(&format!("{program}: fatal: Invalid unit type"));
            Err(FAILED)
        }
    }
}

fn numbers(program: &str, list: &str) -> Result<Vec<u32>, i32> {
    let number = |word: String| {
        word.parse().map_err(|_| {
            error(
                program,
                &format!("Invalid association id: {word}; give numbers, as AssocID has them"),
            );
            FAILED
        })
    };
    list_of(list).into_iter().map(number).collect()
}

fn groups(program: &str, list: &str) -> Result<Vec<u32>, i32> {
    let id = |word: String| {
        let group = uzers::get_group_by_name(&word).map(|group| group.gid());
        group.or_else(|| word.parse().ok()).ok_or_else(|| {
            error(program, &format!("Invalid group id: {word}"));
            FAILED
        })
    };
    list_of(list).into_iter().map(id).collect()
}

fn hosts(program: &str, list: &str) -> Result<Vec<String>, i32> {
    expand(list).map_err(|problem| {
        error(program, &problem.to_string());
        FAILED
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> ZonedDateTime {
        "2026-11-24T08:07:44+00:00[UTC]".parse().expect("a time")
    }

    fn read_line(line: &[&str]) -> Result<Choice, i32> {
        let args: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
        read("sacct", &args, &|_| None, &now())
    }

    fn options(line: &[&str]) -> Options {
        match read_line(line) {
            Ok(Choice::List(options)) => *options,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn the_window_depends_on_what_is_asked() {
        let now_ms = now().timestamp().as_millisecond();
        let midnight = now_ms - (8 * 3600 + 7 * 60 + 44) * 1000;
        let window = |line: &[&str]| {
            let request = options(line).request;
            (request.from_ms, request.to_ms)
        };
        assert_eq!(window(&[]), (midnight, now_ms));
        assert_eq!(window(&["-j", "5"]), (0, now_ms));
        assert_eq!(window(&["-s", "R"]), (now_ms, now_ms));
        assert_eq!(
            window(&["-s", "R", "-S", "now-1hour"]),
            (now_ms - 3_600_000, now_ms - 3_600_000)
        );
        assert_eq!(
            window(&["-s", "R", "-S", "now-1hour", "-E", "now"]),
            (now_ms - 3_600_000, now_ms)
        );
        assert_eq!(
            window(&["-S", "2026-11-23", "-E", "2026-11-24"]),
            (midnight - 86_400_000, midnight)
        );
    }

    #[test]
    fn jobs_and_steps_are_told_apart() {
        let read = options(&["-j", "12,13_[1-3],14.batch,15_2.0"]);
        assert_eq!(read.request.selectors, ["12", "13_[1-3]", "14", "15_2"]);
        assert_eq!(read.jobs.len(), 2);
        assert_eq!(read.steps.len(), 2);
        assert!(read.request.all_users);
    }

    #[test]
    fn styles_are_those_of_real_tools() {
        let read = options(&["-nPX", "--format=JobID,State"]);
        assert!(!read.header && read.jobs_only);
        assert_eq!(read.style, TableStyle::Between("|".into()));
        let read = options(&["-p", "--delimiter=^|^"]);
        assert_eq!(read.style, TableStyle::Ended("^|^".into()));
        assert_eq!(options(&["--units=G"]).units, Units::Fixed(3));
    }

    #[test]
    fn what_slurm_refuses_is_refused() {
        for line in [
            &["-1"][..],
            &["-o", "foo"],
            &["--format=Allocgres"],
            &["-s", "foo"],
            &["-j", "foo"],
            &["-j", "1.foo"],
            &["-u", "no_such_user_here"],
            &["-S", "foo"],
            &["foo"],
            &["-c"],
            &["--units=x"],
            &["-R", "Priority"],
            &["-x", "foo"],
            &["--whole-hetjob=yes"],
            &["--json=v9"],
        ] {
            assert_eq!(read_line(line).map(|_| 0).unwrap_or_else(|status| status), 1, "{line:?}");
        }
        assert!(matches!(read_line(&["-e"]), Ok(Choice::HelpFormat)));
    }
}
