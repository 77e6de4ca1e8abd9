//! Where do the tasks' words come from and go to, and who opens the files among that?
//!
//! Files are opened by a process of its own that has become the user, in the order of the tasks,
//! before any task is started: so a file that several tasks share is emptied once, and one that cannot
//! be opened stops the step. The opened files come to the shepherd, whose tasks inherit them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt as _;

use penstock_proto::v1::{OpenMode, step_frame::Setup};
use penstock_vocab::{ArrayTaskId, JobId, PatternFields, StepId, expand_pattern};

use super::facts::{Facts, INTERACTIVE_STEP};
use crate::launch::shepherd::LaunchError;
use crate::launch::shepherd::control::{self, Report};

/// The other end of one of a task's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing: `/dev/null`.
    Null,
    /// srun.
    Connection,
    /// The file with this number in the plan.
    File(usize),
    /// The file with this number, written by the shepherd.
    Labelled(usize),
    /// The pseudo terminal.
    Terminal,
}

/// The streams of one task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ends {
    pub(super) stdin: End,
    pub(super) stdout: End,
    pub(super) stderr: End,
}

/// A file that the user named.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Wanted {
    name: String,
    /// `stdin`, `stdout` or `stderr`.
    what: &'static str,
}

/// Streams of all tasks of this node, and the files that they need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) tasks: Vec<Ends>,
    files: Vec<Wanted>,
    append: bool,
}

impl Plan {
    pub(super) fn of(facts: &Facts, setup: &Setup) -> Self {
        let mut files = Vec::new();
        let tasks = facts.tasks.iter().map(|&rank| ends(facts, setup, rank, &mut files)).collect();
        Self { tasks, files, append: setup.open_mode == OpenMode::Append as i32 }
    }

    pub(super) fn needs_files(&self) -> bool {
        !self.files.is_empty()
    }

    pub(super) fn file_count(&self) -> usize {
        self.files.len()
    }

    /// Opens all files, as the process that calls it may, and sends them over `report`.
    ///
    /// # Errors
    /// With the first that cannot be opened.
    pub(super) fn open(&self, report: &OwnedFd) -> Result<(), LaunchError> {
        for wanted in &self.files {
            let file = self.open_one(wanted).map_err(|error| failed(wanted, &error))?;
            control::tell(report, &Report::Output, Some(&file));
        }
        Ok(())
    }

    fn open_one(&self, wanted: &Wanted) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options.custom_flags(libc::O_NOCTTY);
        if wanted.what == "stdin" {
            return options.read(true).open(&wanted.name);
        }
        let emptied = if self.append { 0 } else { libc::O_TRUNC };
        options.append(true).create(true).mode(0o666).custom_flags(libc::O_NOCTTY | emptied);
        options.open(&wanted.name)
    }
}

fn ends(facts: &Facts, setup: &Setup, rank: u32, files: &mut Vec<Wanted>) -> Ends {
    if setup.pty {
        let end = if rank == 0 { End::Terminal } else { End::Null };
        return Ends { stdin: end, stdout: end, stderr: end };
    }
    let mut output = |pattern: &str, what| {
        let name = name(facts, pattern, rank);
        // Under one name is one file, which all write at its end.
        let known =
            files.iter().position(|file: &Wanted| file.name == name && file.what != "stdin");
        let at = known.unwrap_or_else(|| {
            files.push(Wanted { name, what });
            files.len() - 1
        });
        if setup.label { End::Labelled(at) } else { End::File(at) }
    };
    let stdout = match setup.stdout.as_str() {
        "" => End::Connection,
        pattern => output(pattern, "stdout"),
    };
    let stderr = match setup.stderr.as_str() {
        // Without a file of its own it goes where stdout goes.
        "" => stdout,
        pattern => output(pattern, "stderr"),
    };
    let stdin = match setup.stdin.as_str() {
        _ if setup.no_input || setup.input_task.is_some_and(|task| task != rank) => End::Null,
        "" => End::Connection,
        pattern => {
            // A place to read at for each task.
            files.push(Wanted { name: name(facts, pattern, rank), what: "stdin" });
            End::File(files.len() - 1)
        }
    };
    Ends { stdin, stdout, stderr }
}

fn name(facts: &Facts, pattern: &str, rank: u32) -> String {
    let variable = |name: &str| {
        let mut entries = facts.launch.variables.iter();
        entries.find_map(|entry| entry.strip_prefix(name)?.strip_prefix('='))
    };
    let number = |name: &str| variable(name)?.parse::<u32>().ok();
    let array = number("SLURM_ARRAY_JOB_ID").zip(number("SLURM_ARRAY_TASK_ID"));
    let fields = PatternFields {
        job_id: JobId(facts.job_id),
        array: array.map(|(job, task)| (JobId(job), ArrayTaskId(task))),
        step: match facts.number {
            INTERACTIVE_STEP => StepId::Interactive,
            step => StepId::Number(step),
        },
        node_name: &facts.node,
        node_index: facts.node_index,
        task: rank,
        user: &facts.launch.user_name,
        job_name: variable("SLURM_JOB_NAME").unwrap_or(&facts.spec.name),
    };
    expand_pattern(pattern, &fields)
}

fn failed(wanted: &Wanted, error: &io::Error) -> LaunchError {
    let Wanted { name, what } = wanted;
    let reason = match error.raw_os_error() {
        Some(code) => nix::errno::Errno::from_raw(code).desc().to_owned(),
        None => error.to_string(),
    };
    let text = format!("Could not open {what} file {name}: {reason}");
    match error.raw_os_error() {
        Some(libc::EIO | libc::ENFILE | libc::ENOMEM | libc::ESTALE) => LaunchError::node(text),
        _ => LaunchError::job(text),
    }
}
