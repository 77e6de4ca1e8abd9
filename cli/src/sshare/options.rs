//! What does a command line of sshare ask for?

use crate::errors::error;
use crate::listing::{Report, TableStyle};
use crate::options::{Operands, parse};
use crate::words::list as list_of;

use super::FAILED;
use super::fields::{self, Line};
use super::table::{self, Key};

/// What to do.
pub(super) enum Choice {
    Help,
    Usage,
    Version,
    HelpFormat,
    List(Box<Options>),
    /// The user whose share is put into words, and in which accounts; empty: all.
    Explain(String, Vec<String>),
}

/// What to list, and how.
pub(super) struct Options {
    /// The columns.
    pub(super) report: Report<Line>,
    /// Accounts; empty: all.
    pub(super) accounts: Vec<String>,
    /// Users; `None`: all.
    pub(super) users: Option<Vec<String>>,
    /// No lines of accounts.
    pub(super) users_only: bool,
    /// Whether a column shows the name of the cluster.
    pub(super) needs_cluster: bool,
}

/// Reads the command line.
///
/// # Errors
/// With the exit status, once the reason is printed.
pub(super) fn read(program: &str, args: &[String]) -> Result<Choice, i32> {
    let parsed = parse(table::TABLE, Operands::Anywhere, args).map_err(|problem| {
        problem.report(program);
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
    let (mut all, mut long, mut partition, mut users_only) = (false, false, false, false);
    let (mut header, mut style) = (true, TableStyle::Columns);
    let (mut accounts, mut users, mut format) = (Vec::new(), None, None);
    let mut explain = None;
    for given in parsed.given {
        let value = given.value.unwrap_or_default();
        match given.key {
            Key::Account => accounts = list_of(&value.to_lowercase()),
            Key::All => all = true,
            Key::Explain => explain = Some(value),
            Key::Format => format = Some(value),
            Key::Long => long = true,
            Key::NoHeader => header = false,
            Key::Parsable => style = TableStyle::Ended("|".to_owned()),
            Key::Parsable2 => style = TableStyle::Between("|".to_owned()),
            Key::Partition => partition = true,
            Key::User => users = Some(list_of(&value).into_iter().map(name_of).collect()),
            Key::UsersOnly => users_only = true,
            Key::Unbuilt(name) => {
                let why = "a daemon knows its own cluster only";
                error(program, &format!("--{name} is not built in Penstock: {why}"));
                return Err(FAILED);
            }
            Key::Help | Key::HelpFormat | Key::Usage | Key::Version | Key::Ignored => {}
        }
    }
    if let Some(user) = explain {
        return Ok(Choice::Explain(user, accounts));
    }
    if users.is_none() && !all {
        users = Some(vec![own_name()]);
    }
    let format = format.unwrap_or_else(|| fields::default_format(long, partition));
    let report = Report::new(fields::FIELDS, &format, style, header).map_err(|name| {
        error(program, &format!("Invalid field requested: \"{name}\""));
        FAILED
    })?;
    let needs_cluster = format.to_lowercase().contains("cl");
    Ok(Choice::List(Box::new(Options { report, accounts, users, users_only, needs_cluster })))
}

fn own_name() -> String {
    name_of(uzers::get_current_uid().to_string())
}

/// The name of a user who is given by number.
fn name_of(word: String) -> String {
    let named = word.parse().ok().and_then(uzers::get_user_by_uid);
    named.map_or(word, |user| user.name().to_string_lossy().into_owned())
}
