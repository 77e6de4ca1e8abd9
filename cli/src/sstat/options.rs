//! What does a command line of sstat ask for?

use penstock_vocab::{JobId, StepId};

use crate::errors::error;
use crate::listing::{TableStyle, Units};
use crate::options::{Given, Operands, parse};
use crate::output::note;

use super::FAILED;
use super::fields::{self, Field};
use super::table::{self, Key};

/// What to do.
#[derive(Debug)]
pub(super) enum Choice {
    Help,
    Usage,
    Version,
    HelpFormat,
    Stat(Box<Options>),
}

/// A job that is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Asked {
    /// Its id, or that of its array.
    pub(super) job: JobId,
    /// The task of the array.
    pub(super) task: Option<u32>,
    /// The step.
    pub(super) step: Option<StepId>,
}

/// What to show, and how.
#[derive(Debug)]
pub(super) struct Options {
    /// Of what, in the order in which it was given.
    pub(super) asked: Vec<Asked>,
    /// Every step of a job for which none was named.
    pub(super) all_steps: bool,
    /// A row for each node of a step.
    pub(super) by_node: bool,
    /// The columns.
    pub(super) fields: Vec<Field>,
    /// What surrounds the values.
    pub(super) style: TableStyle,
    /// Whether a header is printed.
    pub(super) header: bool,
    /// Unit of memory.
    pub(super) units: Units,
}

/// Reads the command line.
///
/// # Errors
/// With the exit status, once the reason is printed.
pub(super) fn read(program: &str, args: &[String]) -> Result<Choice, i32> {
    let parsed = parse(table::TABLE, Operands::Anywhere, args).map_err(|problem| {
        // Slurm's sstat does not point to its help.
        note(&format!("{program}: {problem}"));
        problem.suggest(program);
        FAILED
    })?;
    for (key, choice) in [
        (Key::Help, Choice::Help),
        (Key::HelpFormat, Choice::HelpFormat),
        (Key::Usage, Choice::Usage),
        (Key::Version, Choice::Version),
    ] {
        if parsed.given.iter().any(|given| given.key == key) {
            return Ok(choice);
        }
    }
    let mut options = Options {
        asked: Vec::new(),
        all_steps: false,
        by_node: false,
        fields: Vec::new(),
        style: TableStyle::Columns,
        header: true,
        units: Units::Exact,
    };
    let mut format = String::new();
    for given in parsed.given {
        options.take(program, given, &mut format)?;
    }
    // As Slurm's: one operand is one more list, what follows it is not looked at.
    if let Some(operand) = parsed.operands.first() {
        options.add(program, operand)?;
    }
    if options.asked.is_empty() {
        error(program, "You didn't give me any jobs to stat.");
        return Err(FAILED);
    }
    let format = if format.is_empty() { fields::DEFAULT } else { &format };
    options.fields = fields::parse(format).map_err(|name| {
        error(program, &format!("Invalid field requested: \"{name}\""));
        FAILED
    })?;
    Ok(Choice::Stat(Box::new(options)))
}

impl Options {
    fn take(&mut self, program: &str, given: Given<Key>, format: &mut String) -> Result<(), i32> {
        let value = given.value.as_deref().unwrap_or_default();
        let mut add = |text: &str| {
            format.push_str(text);
            format.push(',');
        };
        match given.key {
            Key::AllSteps => self.all_steps = true,
            Key::Format => add(value),
            Key::Jobs => self.add(program, value)?,
            Key::NoConvert => self.units = Units::Raw,
            Key::NoHeader => self.header = false,
            Key::Parsable => self.style = TableStyle::Ended("|".to_owned()),
            Key::Parsable2 => self.style = TableStyle::Between("|".to_owned()),
            Key::Pids => {
                self.by_node = true;
                add(fields::PIDS);
            }
            Key::Help | Key::HelpFormat | Key::Usage | Key::Verbose | Key::Version => {}
        }
        Ok(())
    }

    /// Takes in a list of jobs and steps; what is there already is not taken twice.
    fn add(&mut self, program: &str, list: &str) -> Result<(), i32> {
        let list = list.trim_matches(['"', '\'']);
        for word in list.split(',').map(str::trim).filter(|word| !word.is_empty()) {
            let asked = parse_asked(word).map_err(|text| {
                note(&format!("{program}: fatal: {text}"));
                FAILED
            })?;
            if !self.asked.contains(&asked) {
                self.asked.push(asked);
            }
        }
        Ok(())
    }
}

/// Reads `12`, `12.0`, `12.batch`, `12_3.1`.
fn parse_asked(word: &str) -> Result<Asked, String> {
    let (job, step) = word.split_once('.').map_or((word, None), |(job, step)| (job, Some(step)));
    let bad = || format!("Bad job/step specified: {word}");
    let (id, task) = job.split_once('_').map_or((job, None), |(id, task)| (id, Some(task)));
    let id: u32 = id.parse().map_err(|_| bad())?;
    let task = task.map(str::parse).transpose().map_err(|_| bad())?;
    let step = match step {
        None => None,
        Some("batch") => Some(StepId::Batch),
        Some("extern") => Some(StepId::Extern),
        Some("interactive") => Some(StepId::Interactive),
        Some(number) => {
            let number = number.parse().map_err(|_| format!("Bad step specified: {job}"))?;
            Some(StepId::Number(number))
        }
    };
    Ok(Asked { job: JobId(id), task, step })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    fn read_line(line: &[&str]) -> Result<Choice, i32> {
        read("sstat", &line.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    pub(in super::super) fn options(line: &[&str]) -> Options {
        match read_line(line) {
            Ok(Choice::Stat(options)) => *options,
            other => panic!("{line:?}: {other:?}"),
        }
    }

    #[test]
    fn jobs_and_steps_are_read() {
        let read = options(&["-j", "1,2.0,3_4.batch", "-j", "1,5.extern", "6"]);
        let asked: Vec<_> = read.asked.iter().map(|it| (it.job.0, it.task, it.step)).collect();
        assert_eq!(
            asked,
            [
                (1, None, None),
                (2, None, Some(StepId::Number(0))),
                (3, Some(4), Some(StepId::Batch)),
                (5, None, Some(StepId::Extern)),
                (6, None, None),
            ]
        );
        assert_eq!(read.fields.len(), 47);
        let read = options(&["-nP", "-i", "-o", "maxrss%5,", "-j1"]);
        let names: Vec<_> = read.fields.iter().map(|field| field.column.name).collect();
        assert_eq!(names, ["JobID", "Nodelist", "Pids", "MaxRSS"]);
        assert!(!read.header && read.by_node && read.style == TableStyle::Between("|".into()));
    }

    #[test]
    fn what_slurm_refuses_is_refused() {
        for line in [
            &[][..],
            &["-j", ""],
            &["-j", "foo"],
            &["-j", "1.foo"],
            &["-j", "1.BATCH"],
            &["-j", "1", "-o", "foo"],
            &["-j", "1", "-o", "ALL"],
            &["-Z"],
            &["--json", "-j", "1"],
        ] {
            assert!(matches!(read_line(line), Err(FAILED)), "{line:?}");
        }
        assert!(matches!(read_line(&["-e"]), Ok(Choice::HelpFormat)));
    }
}
