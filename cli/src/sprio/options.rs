//! What does a command line of sprio ask for?

use penstock_vocab::JobSelector;

use crate::errors::error;
use crate::listing::user_id;
use crate::options::{Given, Operands, parse};
use crate::output::{note, write_bytes};
use crate::words::{list as list_of, split_job_ids};

use super::FAILED;
use super::fields::{self, SortKey};
use super::table::{self, Key};

/// What to do.
#[derive(Debug)]
pub(super) enum Choice {
    Help,
    Usage,
    Version,
    List(Box<Options>),
}

/// What to list, and how.
#[derive(Debug, Default)]
pub(super) struct Options {
    /// Ids as typed; empty: all.
    pub(super) selectors: Vec<String>,
    /// Partitions; empty: all.
    pub(super) partitions: Vec<String>,
    /// Users; `None`: all.
    pub(super) users: Option<Vec<u32>>,
    /// A format of the user's own.
    pub(super) format: Option<String>,
    /// Order of the lines.
    pub(super) sort: Vec<SortKey>,
    /// Whether a header is printed.
    pub(super) header: bool,
    /// Every factor.
    pub(super) long: bool,
    /// Factors instead of points.
    pub(super) norm: bool,
    /// The weights instead of the jobs.
    pub(super) weights: bool,
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
    for (key, choice) in
        [(Key::Help, Choice::Help), (Key::Usage, Choice::Usage), (Key::Version, Choice::Version)]
    {
        if parsed.given.iter().any(|given| given.key == key) {
            return Ok(choice);
        }
    }
    let mut options = Options { header: true, format: env("SPRIO_FORMAT"), ..Options::default() };
    let mut sort = "i".to_owned();
    for given in parsed.given {
        options.take(program, given, &mut sort)?;
    }
    if let Some(word) = parsed.operands.first() {
        error(program, &format!("Unrecognized option: {word}"));
        write_bytes(table::USAGE.as_bytes());
        return Err(FAILED);
    }
    options.sort = fields::parse_sort(&sort).map_err(|letter| {
        error(program, &format!("Invalid sort specification: {letter}"));
        FAILED
    })?;
    Ok(Choice::List(Box::new(options)))
}

impl Options {
    fn take(&mut self, program: &str, given: Given<Key>, sort: &mut String) -> Result<(), i32> {
        let value = given.value.unwrap_or_default();
        match given.key {
            Key::Format => self.format = Some(value),
            Key::Job => self.take_jobs(program, &value)?,
            Key::Long => self.long = true,
            Key::NoHeader => self.header = false,
            Key::Norm => self.norm = true,
            Key::Partition => self.partitions = list_of(&value),
            Key::Sort => *sort = value,
            Key::User => self.take_users(program, &value),
            Key::Weights => self.weights = true,
            Key::Help | Key::Usage | Key::Version | Key::Ignored => {}
            Key::Unbuilt(name) => {
                let why = "a daemon knows its own cluster only";
                error(program, &format!("--{name} is not built in Penstock: {why}"));
                return Err(FAILED);
            }
        }
        Ok(())
    }

    fn take_jobs(&mut self, program: &str, list: &str) -> Result<(), i32> {
        for word in split_job_ids(list) {
            if word.parse::<JobSelector>().is_err() {
                error(program, &format!("Invalid job id: {word}"));
                return Err(FAILED);
            }
            self.selectors.push(word.to_owned());
        }
        Ok(())
    }

    fn take_users(&mut self, program: &str, list: &str) {
        let users = self.users.get_or_insert_default();
        for word in list_of(list) {
            match user_id(&word) {
                Some(uid) => users.push(uid),
                None => {
                    error(program, &format!("Invalid user: {word}"));
                    note("");
                }
            }
        }
    }
}
