//! What does a command line of squeue ask for?

use std::time::Duration;

use penstock_proto::v1;
use penstock_vocab::{
    JobSelector, StateFilter, StepSelector, all_job_states, expand, parse_job_state,
};

use crate::errors::error;
use crate::json::Form;
use crate::listing::{
    ALL_LETTERS, Columns, JobField, JobRow, Part, Source, all_letters, by_letter, by_long_name,
    parse_letters, parse_names, user_id,
};
use crate::options::{Given, Operands, parse};
use crate::output::{note, write_bytes};
use crate::words::{list as list_of, split_job_ids};

use super::FAILED;
use super::sort::{self, SortKey};
use super::steps::{self, Asked, StepOptions};
use super::table::{self, Key};

const DEFAULT: &str = "%.18i %.9P %.8j %.8u %.2t %.10M %.6D %R";
const LONG: &str = "%.18i %.9P %.8j %.8u %.8T %.10M %.9l %.6D %R";
const START: &str = "%.18i %.9P %.8j %.8u %.2t %.19S %.6D %20Y %R";
const DEFAULT_SORT: &str = "P,t,-p";
const START_SORT: &str = "S";

/// What to do.
#[derive(Debug)]
pub(super) enum Choice {
    Help,
    Usage,
    Version,
    List(Box<Options>),
    Steps(Box<StepOptions>),
}

/// What to list, and how.
#[derive(Debug)]
pub(super) struct Options {
    /// The columns.
    pub(super) columns: Columns<&'static JobField>,
    /// Order of the lines.
    pub(super) sort: Vec<SortKey>,
    /// A letter of the order that names no field.
    pub(super) bad_sort: Option<char>,
    /// Whether a header is printed.
    pub(super) header: bool,
    /// Whether the date is printed before it.
    pub(super) date: bool,
    /// Which jobs, in the controller's words.
    pub(super) filter: v1::JobFilter,
    /// The ids that were given.
    pub(super) selectors: Vec<JobSelector>,
    /// Jobs that have ended, too.
    pub(super) ended: bool,
    /// Only users were given that do not exist.
    pub(super) matches_nothing: bool,
    /// A line for each waiting task.
    pub(super) each_task: bool,
    /// Pause between listings; `None`: one listing.
    pub(super) iterate: Option<Duration>,
    /// Kept up to date by the controller.
    pub(super) watch: bool,
    /// Conditions that are checked here.
    pub(super) checks: Checks,
    /// For programs instead of people.
    pub(super) form: Option<Form>,
}

/// Conditions on jobs that the controller does not check; empty: any.
#[derive(Debug, Default)]
pub(super) struct Checks {
    reservation: String,
    licenses: Vec<String>,
}

impl Checks {
    fn is_empty(&self) -> bool {
        self.reservation.is_empty() && self.licenses.is_empty()
    }

    fn pass(&self, row: &JobRow<'_>) -> bool {
        let wanted = |name: &str| self.licenses.iter().any(|wanted| wanted == name);
        (self.reservation.is_empty() || row.spec.reservation == self.reservation)
            && (self.licenses.is_empty()
                || row.spec.licenses.iter().any(|license| wanted(&license.name)))
    }
}

impl Options {
    /// The request for the controller.
    pub(super) fn request(&self) -> v1::ListJobsRequest {
        let fields = self.columns.columns.iter().filter_map(|column| column.field);
        let full = !self.checks.is_empty()
            || self.form.is_some()
            || !fields.chain(self.sort.iter().map(|key| key.field)).all(|field| field.brief);
        let filter = Some(self.filter.clone());
        // Waiting tasks are told apart here: one record is shorter than a million.
        v1::ListJobsRequest { filter, all_states: self.ended, full, expand_arrays: false }
    }

    /// Whether a column shows the name of the cluster.
    pub(super) fn needs_cluster(&self) -> bool {
        let mut fields = self.columns.columns.iter().filter_map(|column| column.field);
        fields.any(|field| field.long.contains(&"cluster"))
    }

    /// Hands out the lines of one record: one, or one for each waiting task that is meant.
    pub(super) fn each_row<'a>(&self, row: JobRow<'a>, take: &mut dyn FnMut(JobRow<'a>)) {
        if !self.checks.pass(&row) {
            return;
        }
        let Some(tasks) = row.pending_tasks() else { return take(row) };
        let array = row.array_job_id();
        let chosen: Vec<&JobSelector> =
            self.selectors.iter().filter(|selector| selector.job().0 == array).collect();
        let names_all = |selector: &&JobSelector| {
            matches!(selector, JobSelector::Job(_) | JobSelector::AllTasks(_))
        };
        let whole = chosen.is_empty() || chosen.iter().any(names_all);
        if whole && !self.each_task {
            return take(row);
        }
        let names = |selector: &&JobSelector, task: u32| match selector {
            JobSelector::Job(_) | JobSelector::AllTasks(_) => true,
            JobSelector::Task(_, wanted) => wanted.0 == task,
            JobSelector::Tasks(_, wanted) => wanted.contains(task),
        };
        crate::listing::indices(tasks)
            .filter(|task| whole || chosen.iter().any(|selector| names(selector, *task)))
            .for_each(|task| take(row.with_part(Part::Task(task))));
    }
}

/// What was given, before it is put together.
#[derive(Debug, Default)]
struct Draft {
    format: Option<Source>,
    sort: Option<String>,
    filter: v1::JobFilter,
    selectors: Vec<JobSelector>,
    jobs_follow: bool,
    steps: Option<Vec<StepSelector>>,
    steps_follow: bool,
    ended: bool,
    unknown_users: bool,
    no_header: bool,
    long: bool,
    start: bool,
    each_task: bool,
    iterate: Option<Duration>,
    watch: bool,
    checks: Checks,
    form: Option<Form>,
}

/// Reads the command line and the environment.
///
/// # Errors
/// With the exit status, once the reason is printed.
pub(super) fn read(
    program: &str,
    args: &[String],
    env: &dyn Fn(&str) -> Option<String>,
) -> Result<Choice, i32> {
    let parsed = parse(table::TABLE, Operands::Anywhere, args).map_err(|problem| {
        problem.report(program);
        FAILED
    })?;
    let asks = |key| parsed.given.iter().any(|given| given.key == key);
    for (key, choice) in
        [(Key::Help, Choice::Help), (Key::Usage, Choice::Usage), (Key::Version, Choice::Version)]
    {
        if asks(key) {
            return Ok(choice);
        }
    }
    let mut draft = Draft::default();
    draft.take_environment(program, env, &asks)?;
    for given in parsed.given {
        draft.take(program, given)?;
    }
    let mut operands = parsed.operands.into_iter();
    if draft.jobs_follow
        && let Some(list) = operands.next()
    {
        draft.take_jobs(program, &list)?;
    }
    if draft.steps_follow
        && let Some(list) = operands.next()
    {
        draft.take_steps(program, &list)?;
    }
    if let Some(word) = operands.next() {
        error(program, &format!("Unrecognized option: {word}"));
        write_bytes(table::USAGE.as_bytes());
        return Err(FAILED);
    }
    if let Some(steps) = draft.steps.take() {
        return Ok(Choice::Steps(Box::new(StepOptions::new(program, draft.asked(steps)))));
    }
    draft.finish(program).map(|options| Choice::List(Box::new(options)))
}

impl Draft {
    fn take_environment(
        &mut self,
        program: &str,
        env: &dyn Fn(&str) -> Option<String>,
        asks: &dyn Fn(Key) -> bool,
    ) -> Result<(), i32> {
        self.each_task = env("SQUEUE_ARRAY").is_some();
        for (name, key) in table::ENVIRONMENT {
            let is_format = matches!(key, Key::Format | Key::FormatNames);
            let overruled = is_format
                && [Key::Format, Key::FormatNames, Key::Long, Key::Start].into_iter().any(asks);
            let overruled = overruled || asks(*key) || (*key == Key::User && asks(Key::Me));
            if let Some(value) = env(name).filter(|value| !value.is_empty() && !overruled) {
                // Of two formats in the environment the one of -o counts.
                if is_format && self.format.is_some() {
                    continue;
                }
                self.take(program, Given { key: *key, value: Some(value) })?;
            }
        }
        Ok(())
    }

    fn take(&mut self, program: &str, given: Given<Key>) -> Result<(), i32> {
        let value = given.value.as_deref().unwrap_or_default();
        match given.key {
            Key::Account => self.filter.accounts = list_of(value),
            Key::Array => self.each_task = true,
            Key::Json => self.form = Some(Form::read(program, false, given.value.as_deref())?),
            Key::Yaml => self.form = Some(Form::read(program, true, given.value.as_deref())?),
            Key::Format => self.take_format(program, Source::Letters(value.to_owned()))?,
            Key::FormatNames => self.take_format(program, Source::Names(value.to_owned()))?,
            Key::Iterate => self.iterate = Some(seconds(program, value)?),
            Key::Job if given.value.is_none() => self.jobs_follow = true,
            Key::Job => self.take_jobs(program, value)?,
            Key::Licenses => self.checks.licenses = list_of(value),
            Key::Watch => self.watch = true,
            Key::Long => self.long = true,
            Key::Me => {
                self.filter.uids = vec![uzers::get_current_uid()];
                self.unknown_users = false;
            }
            Key::Name => self.filter.names = list_of(value),
            Key::Nodelist => self.take_nodes(program, value)?,
            Key::NoHeader => self.no_header = true,
            Key::Partition => self.filter.partitions = list_of(value),
            Key::Qos => self.filter.qos = list_of(value),
            Key::Reservation => value.clone_into(&mut self.checks.reservation),
            Key::Sort => self.sort = Some(value.to_owned()),
            Key::Start => self.start = true,
            Key::Steps if given.value.is_none() => {
                self.steps.get_or_insert_default();
                self.steps_follow = true;
            }
            Key::Steps => self.take_steps(program, value)?,
            Key::States => self.take_states(program, value)?,
            Key::User => self.take_users(program, value),
            Key::All | Key::Ignored | Key::Help | Key::Usage | Key::Version => {}
            Key::Unbuilt(name) => {
                error(program, &format!("--{name} is not built in Penstock"));
                return Err(FAILED);
            }
        }
        Ok(())
    }

    fn take_format(&mut self, program: &str, format: Source) -> Result<(), i32> {
        let clash = matches!(
            (&self.format, &format),
            (Some(Source::Letters(_)), Source::Names(_))
                | (Some(Source::Names(_)), Source::Letters(_))
        );
        if clash {
            error(
                program,
                match format {
                    Source::Names(_) => "-O (--Format) is incompatible with -o (--format)",
                    Source::Letters(_) => "-o (--format) is incompatible with -O (--Format)",
                },
            );
            return Err(FAILED);
        }
        self.format = Some(format);
        Ok(())
    }

    fn take_jobs(&mut self, program: &str, list: &str) -> Result<(), i32> {
        for word in split_job_ids(list) {
            let Ok(selector) = word.parse::<JobSelector>() else {
                error(program, &format!("Invalid job id: {word}"));
                return Err(FAILED);
            };
            self.filter.selectors.push(word.to_owned());
            self.selectors.push(selector);
        }
        Ok(())
    }

    fn take_steps(&mut self, program: &str, list: &str) -> Result<(), i32> {
        self.steps.get_or_insert_default().extend(steps::read_steps(program, list)?);
        Ok(())
    }

    fn take_nodes(&mut self, program: &str, list: &str) -> Result<(), i32> {
        self.filter.nodes = expand(list).map_err(|_| {
            error(program, &format!("Invalid node name {list}"));
            FAILED
        })?;
        Ok(())
    }

    fn take_states(&mut self, program: &str, list: &str) -> Result<(), i32> {
        let words = list_of(list);
        self.ended = true;
        self.filter.states.clear();
        if words.iter().any(|word| word.eq_ignore_ascii_case("all")) {
            return Ok(());
        }
        for word in words {
            let Ok(state) = parse_job_state(&word) else {
                error(program, &format!("Invalid job state specified: {word}"));
                error(program, &format!("Valid job states include: {}\n", all_job_states()));
                return Err(FAILED);
            };
            self.filter.states.push(StateFilter::name(state).to_owned());
        }
        Ok(())
    }

    fn take_users(&mut self, program: &str, list: &str) {
        self.filter.uids.clear();
        for word in list_of(list) {
            match user_id(&word) {
                Some(uid) => self.filter.uids.push(uid),
                None => error(program, &format!("Invalid user: {word}\n")),
            }
        }
        self.unknown_users = self.filter.uids.is_empty();
    }

    /// What of it concerns steps.
    fn asked(self, steps: Vec<StepSelector>) -> Asked {
        // Steps run or they are not listed, whatever the state of their job.
        let filter = v1::JobFilter { states: Vec::new(), ..self.filter };
        Asked {
            format: self.format,
            sort: self.sort,
            no_header: self.no_header,
            long: self.long,
            filter,
            steps,
            matches_nothing: self.unknown_users,
            iterate: self.iterate,
        }
    }

    fn finish(mut self, program: &str) -> Result<Options, i32> {
        if self.long && self.format.is_some() {
            let text = "Options -o(--format) and -l(--long) are mutually exclusive. \
                        Please remove one and retry.";
            note(&format!("{program}: fatal: {text}"));
            return Err(FAILED);
        }
        let own = if self.start {
            START
        } else if self.long {
            LONG
        } else {
            DEFAULT
        };
        let source = self.format.take().unwrap_or_else(|| Source::Letters(own.to_owned()));
        let columns = columns(source);
        for name in &columns.unknown {
            error(program, &format!("Invalid job format specification: {name}"));
        }
        if self.watch && self.iterate.is_some() {
            error(program, "--watch and --iterate are mutually exclusive: --watch needs no pause");
            return Err(FAILED);
        }
        if self.start && self.filter.states.is_empty() {
            self.filter.states = vec!["PENDING".to_owned()];
        }
        let default_sort = if self.start { START_SORT } else { DEFAULT_SORT };
        let keys = sort::parse(self.sort.as_deref().unwrap_or(default_sort));
        let (sort, bad_sort) = match keys {
            Ok(sort) => (sort, None),
            Err(letter) => (Vec::new(), Some(letter)),
        };
        Ok(Options {
            columns,
            sort,
            bad_sort,
            form: self.form,
            header: !self.no_header,
            date: self.long && !self.no_header,
            filter: self.filter,
            selectors: self.selectors,
            // As Slurm does, programs see every job that is known.
            ended: self.ended || self.form.is_some(),
            matches_nothing: self.unknown_users,
            each_task: self.each_task,
            iterate: self.iterate,
            watch: self.watch,
            checks: self.checks,
        })
    }
}

fn columns(source: Source) -> Columns<&'static JobField> {
    match source {
        Source::Letters(format) if format == "%all" => {
            let suffix = |letter| if letter == 'Z' { "" } else { "|" };
            all_letters(ALL_LETTERS, by_letter, suffix)
        }
        Source::Letters(format) => parse_letters(&format, by_letter),
        Source::Names(format) => parse_names(&format, by_long_name),
    }
}

fn seconds(program: &str, text: &str) -> Result<Duration, i32> {
    match text.parse::<u64>() {
        Ok(secs) if secs > 0 => Ok(Duration::from_secs(secs)),
        Ok(_) | Err(_) => {
            error(program, &format!("--iterate={text}\n"));
            Err(FAILED)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &[&str], env: &[(&str, &str)]) -> Options {
        let args: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
        let lookup = |name: &str| {
            env.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        };
        match read("squeue", &args, &lookup) {
            Ok(Choice::List(options)) => *options,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    fn status(line: &[&str]) -> i32 {
        let args: Vec<String> = line.iter().map(|&word| word.to_owned()).collect();
        read("squeue", &args, &|_| None).map(|_| 0).unwrap_or_else(|status| status)
    }

    #[test]
    fn the_habits_of_real_tools_are_understood() {
        let read = options(&["--noheader", "--format=%i %t", "--job", "12,13_[1-3,5]"], &[]);
        assert_eq!(read.filter.selectors, ["12", "13_[1-3,5]"]);
        assert!(!read.header);
        assert_eq!(read.columns.columns.len(), 2);
        assert_eq!(options(&["-j12"], &[]).filter.selectors, ["12"]);
        assert_eq!(options(&["-hj", "7", "-o", "%T"], &[]).filter.selectors, ["7"]);
        let all = options(&["-t", "all"], &[]);
        assert!(all.ended && all.filter.states.is_empty());
        let some = options(&["--states=pd,Running,CG"], &[]);
        assert_eq!(some.filter.states, ["PENDING", "RUNNING", "COMPLETING"]);
        assert_eq!(
            options(&["-o%P"], &[]).columns.columns[0].field.map(|f| f.header),
            Some("PARTITION")
        );
    }

    #[test]
    fn only_the_default_columns_make_a_brief_request() {
        assert!(!options(&[], &[]).request().full);
        assert!(!options(&["-h", "-o", "%i|%T|%N"], &[]).request().full);
        assert!(options(&["-o", "%i %Z"], &[]).request().full);
        assert!(options(&["-S", "q"], &[]).request().full);
    }

    #[test]
    fn the_environment_stands_in_for_options_and_gives_way_to_them() {
        let env = [("SQUEUE_FORMAT", "%j"), ("SQUEUE_STATES", "R"), ("SQUEUE_ARRAY", "1")];
        let read = options(&[], &env);
        assert_eq!(read.columns.columns.len(), 1);
        assert_eq!(read.filter.states, ["RUNNING"]);
        assert!(read.each_task);
        assert_eq!(options(&["-l"], &env).columns.columns.len(), 9);
        assert_eq!(options(&["-O", "jobid,name"], &env).columns.columns.len(), 2);
    }

    #[test]
    fn what_slurm_refuses_is_refused() {
        for line in [
            &["-j", "foo"][..],
            &["-t", "foo"],
            &["-l", "-o", "%i"],
            &["-o", "%i", "-O", "jobid"],
            &["-i", "x"],
            &["--foo"],
            &["foo"],
            &["-M", "bench"],
            &["--json=v9"],
        ] {
            assert_eq!(status(line), 1, "{line:?}");
        }
        assert_eq!(status(&["-S", "foo"]), 0);
        assert_eq!(status(&["-O", "foo"]), 0);
        assert_eq!(status(&["-j"]), 0);
    }
}
