//! What does a command line of sinfo ask for?

use std::time::Duration;

use penstock_vocab::expand_unique;

use crate::errors::error;
use crate::json::Form;
use crate::listing::{
    Columns, NODE_ALL_LETTERS, NodeField, Source, all_letters, node_by_letter, node_by_long_name,
    parse_letters, parse_names,
};
use crate::options::{Given, Operands, parse};
use crate::output::note;
use crate::words::list as list_of;

use super::FAILED;
use super::select::{self, StateSelection};
use super::table::{self, Key};

const DEFAULT: &str = "%9P %.5a %.10l %.6D %.6t %N";
const LONG: &str = "%9P %.5a %.10l %.10s %.4r %.8h %.10g %.6D %.11T %N";
const BY_NODE: &str = "%9N %.6D %.9P %6t";
const BY_NODE_LONG: &str = "%9N %.6D %.9P %.11T %4c %.8z %.6m %.8d %.6w %.8f %20E";
const SUMMARY: &str = "%9P %.5a %.10l %.16F %N";
const REASONS: &str = "%20E %9u %19H %N";
const REASONS_LONG: &str = "%20E %12U %19H %6t %N";

/// What to do.
#[derive(Debug)]
pub(super) enum Choice {
    Help,
    Usage,
    Version,
    /// Reservations, with a head line or without.
    Reservations {
        header: bool,
    },
    List(Box<Options>),
}

/// What to list, and how.
#[derive(Debug)]
pub(super) struct Options {
    /// The columns.
    pub(super) columns: Columns<&'static NodeField>,
    /// Whether the columns are sinfo's own, whose names may widen them.
    pub(super) may_widen: bool,
    /// The keys of `-S`.
    pub(super) sort: Vec<SortKey>,
    /// Whether a header is printed.
    pub(super) header: bool,
    /// Whether the date is printed before it.
    pub(super) date: bool,
    /// A line for each node and partition.
    pub(super) by_node: bool,
    /// Sizes must be equal in a group.
    pub(super) exact: bool,
    /// Hidden partitions too.
    pub(super) hidden: bool,
    /// These partitions only.
    pub(super) partitions: Option<Vec<String>>,
    /// These nodes only.
    pub(super) nodes: Option<Vec<String>>,
    /// Nodes in these states only.
    pub(super) states: Option<StateSelection>,
    /// Nodes that answer (true), or do not (false).
    pub(super) responding: Option<bool>,
    /// Only nodes with a reason, and no line for a partition without them.
    pub(super) reasons: bool,
    /// Pause between listings; `None`: one listing.
    pub(super) iterate: Option<Duration>,
    /// For programs instead of people.
    pub(super) form: Option<Form>,
}

/// One key of the order.
#[derive(Debug, Clone, Copy)]
pub(super) struct SortKey {
    /// What is compared.
    pub(super) field: &'static NodeField,
    /// Greatest first.
    pub(super) reverse: bool,
    /// In the order of the configuration instead of the name (`#P`).
    pub(super) configured: bool,
}

#[derive(Debug, Default)]
struct Draft {
    format: Option<Source>,
    sort: Option<String>,
    no_header: bool,
    long: bool,
    by_node: bool,
    summary: bool,
    reasons: bool,
    exact: bool,
    hidden: bool,
    reservations: bool,
    partitions: Option<Vec<String>>,
    nodes: Option<Vec<String>>,
    states: Option<StateSelection>,
    responding: Option<bool>,
    iterate: Option<Duration>,
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
    let own_format =
        [Key::Format, Key::FormatNames, Key::Long, Key::ByNode, Key::Summary, Key::Reasons];
    let mut draft = Draft::default();
    for (name, key) in table::ENVIRONMENT {
        let overruled = match key {
            Key::Format => own_format.into_iter().any(asks),
            key => asks(*key),
        };
        if let Some(value) = env(name).filter(|value| !value.is_empty() && !overruled) {
            draft.take(program, Given { key: *key, value: Some(value) })?;
        }
    }
    for given in parsed.given {
        draft.take(program, given)?;
    }
    if draft.reservations {
        return Ok(Choice::Reservations { header: !draft.no_header });
    }
    draft.finish(program).map(|options| Choice::List(Box::new(options)))
}

impl Draft {
    fn take(&mut self, program: &str, given: Given<Key>) -> Result<(), i32> {
        let version = given.value.clone();
        let value = given.value.unwrap_or_default();
        match given.key {
            Key::All => self.hidden = true,
            Key::Dead => self.responding = Some(false),
            Key::Exact => self.exact = true,
            Key::Format => self.format = Some(Source::Letters(value)),
            Key::FormatNames => self.format = Some(Source::Names(value)),
            Key::Json => self.form = Some(Form::read(program, false, version.as_deref())?),
            Key::Yaml => self.form = Some(Form::read(program, true, version.as_deref())?),
            Key::Iterate => self.iterate = Some(seconds(program, &value)?),
            Key::Long => self.long = true,
            Key::ByNode => self.by_node = true,
            Key::Nodes => self.nodes = Some(names(program, &value)?),
            Key::NoHeader => self.no_header = true,
            Key::Partition => self.partitions = Some(list_of(&value)),
            Key::Reasons => self.reasons = true,
            Key::Reservations => self.reservations = true,
            Key::Responding => self.responding = Some(true),
            Key::Sort => self.sort = Some(value),
            Key::States => self.states = Some(states(program, &value)?),
            Key::Summary => self.summary = true,
            Key::Ignored | Key::Help | Key::Usage | Key::Version => {}
            Key::Unbuilt(name) => {
                error(program, &format!("--{name} is not built in Penstock"));
                return Err(FAILED);
            }
        }
        Ok(())
    }

    fn finish(self, program: &str) -> Result<Options, i32> {
        if self.long && matches!(self.format, Some(Source::Letters(_))) {
            let text = "Options -o(--format) and -l(--long) are mutually exclusive. \
                        Please remove one and retry.";
            note(&format!("{program}: fatal: {text}"));
            return Err(FAILED);
        }
        let own = match (self.summary, self.reasons, self.by_node, self.long) {
            (true, ..) => SUMMARY,
            (_, true, _, false) => REASONS,
            (_, true, _, true) => REASONS_LONG,
            (_, _, true, false) => BY_NODE,
            (_, _, true, true) => BY_NODE_LONG,
            (_, _, _, true) => LONG,
            (_, _, _, false) => DEFAULT,
        };
        let may_widen = self.format.is_none();
        let by_name = matches!(self.format, Some(Source::Names(_)));
        let columns = columns(self.format.unwrap_or_else(|| Source::Letters(own.to_owned())));
        for name in &columns.unknown {
            if by_name {
                error(program, &format!("Invalid job format specification: {name}"));
            } else {
                note(&format!("Invalid node format specification: {name}"));
            }
        }
        let default_sort = if self.by_node { "N" } else { "#P,-t" };
        let sort = sort_keys(self.sort.as_deref().unwrap_or(default_sort)).map_err(|letter| {
            error(program, &format!("Invalid sort specification: {letter}"));
            FAILED
        })?;
        Ok(Options {
            columns,
            may_widen,
            sort,
            header: !self.no_header,
            date: self.long && !self.no_header,
            by_node: self.by_node && !self.summary,
            exact: self.exact,
            hidden: self.hidden,
            partitions: self.partitions,
            nodes: self.nodes,
            states: self.states,
            responding: self.responding,
            reasons: self.reasons,
            form: self.form,
            iterate: self.iterate,
        })
    }
}

fn columns(source: Source) -> Columns<&'static NodeField> {
    let suffix = |letter: char| match letter {
        'Z' => " ",
        letter if letter.is_ascii_uppercase() => " |",
        _ => "|",
    };
    let all = || all_letters(NODE_ALL_LETTERS, node_by_letter, suffix);
    match source {
        Source::Letters(format) if format == "%all" => all(),
        Source::Names(format) if format.eq_ignore_ascii_case("all") => all(),
        Source::Letters(format) => parse_letters(&format, node_by_letter),
        Source::Names(format) => parse_names(&format, node_by_long_name),
    }
}

/// Reads `#P,-t`.
fn sort_keys(text: &str) -> Result<Vec<SortKey>, char> {
    let (mut reverse, mut configured) = (false, false);
    let mut keys = Vec::new();
    for letter in text.chars() {
        match letter {
            '-' => reverse = true,
            '#' => configured = true,
            '+' | ',' | ' ' => {}
            letter => {
                let field = node_by_letter(letter).ok_or(letter)?;
                keys.push(SortKey { field, reverse, configured });
                (reverse, configured) = (false, false);
            }
        }
    }
    Ok(keys)
}

fn names(program: &str, list: &str) -> Result<Vec<String>, i32> {
    expand_unique(list).map_err(|problem| {
        error(program, &format!("Invalid node name {list}: {problem}"));
        FAILED
    })
}

fn states(program: &str, list: &str) -> Result<StateSelection, i32> {
    select::parse_states(list).map_err(|word| {
        error(program, &format!("Bad state string: \"{word}\""));
        error(program, &format!("valid states: {}", select::VALID_STATES));
        FAILED
    })
}

fn seconds(program: &str, text: &str) -> Result<Duration, i32> {
    match text.parse::<u64>() {
        Ok(secs) if secs > 0 => Ok(Duration::from_secs(secs)),
        Ok(_) | Err(_) => {
            error(program, &format!("Error: invalid entry for --iterate={text}"));
            Err(FAILED)
        }
    }
}
