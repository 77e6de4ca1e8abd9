//! What can go wrong with a quickstart, and what is there to do about it?

use std::error::Error as _;
use std::io;
use std::path::PathBuf;

use crate::errors::RemoteError;
use crate::output::note;

/// Why quickstart gave up.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    /// Somebody pressed Ctrl-C, or the process was told to end.
    #[error("interrupted")]
    Interrupted,
    /// The system refused something.
    #[error("cannot {what}")]
    System {
        /// What was tried, e.g. `write /x/cluster.toml`.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// The folder cannot serve.
    #[error("cannot use the folder {}: {why}", dir.display())]
    Folder {
        /// Which.
        dir: PathBuf,
        /// Why, and the way out.
        why: String,
    },
    /// There is no place for a folder.
    #[error("neither XDG_STATE_HOME nor HOME is set; choose a folder with --dir DIR")]
    NoHome,
    /// Another quickstart holds the folder.
    #[error(
        "another quickstart{who} works on {}; give this one --dir, or end that one with \
         quickstart --stop --dir {0}", dir.display()
    )]
    Locked {
        /// Which folder.
        dir: PathBuf,
        /// ` (pid N)` where it is known.
        who: String,
    },
    /// A daemon ended, or did not become ready.
    #[error("{name} {what}; the end of its log, {}:\n{tail}", log.display())]
    Daemon {
        /// `controller`, `node1`, ...
        name: String,
        /// What became of it.
        what: String,
        /// Its log.
        log: PathBuf,
        /// The log's last lines.
        tail: String,
    },
    /// The controller refused a call or did not answer it.
    #[error("cannot {what}: {}", told(error))]
    Remote {
        /// What was tried, e.g. `list the nodes`.
        what: &'static str,
        /// What came back.
        error: RemoteError,
    },
    /// A command of the tour failed; it has said why itself.
    #[error("{command} ended with {how}{}", said(words))]
    Command {
        /// As typed.
        command: String,
        /// Its exit status.
        how: String,
        /// What it wrote to standard error.
        words: String,
    },
    /// Processes did not go, not even by SIGKILL.
    #[error("still there after SIGKILL: {names}; see what the kernel waits for in /proc/PID/stack")]
    Stuck {
        /// Names and pids.
        names: String,
    },
}

fn told(error: &RemoteError) -> String {
    match error.detail() {
        Some(detail) => format!("{}: {detail}", error.slurm_text()),
        None => error.slurm_text().to_owned(),
    }
}

fn said(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!(":\n{}", words.trim_end()) }
}

impl Failure {
    /// Turns an error of the system into a failure of `what`.
    pub(super) fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }

    /// Turns an answer that is none into a failure of `what`.
    pub(super) fn remote(what: &'static str) -> impl FnOnce(RemoteError) -> Self {
        move |error| Self::Remote { what, error }
    }

    /// Says it on standard error, with its causes.
    pub(super) fn report(&self) {
        let mut text = format!("quickstart: error: {self}");
        let mut cause = self.source();
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        note(&text);
    }

    /// The exit status that goes with it.
    pub(super) fn status(&self) -> i32 {
        match self {
            // As a shell reports SIGINT.
            Self::Interrupted => 130,
            Self::System { .. }
            | Self::Folder { .. }
            | Self::NoHome
            | Self::Locked { .. }
            | Self::Daemon { .. }
            | Self::Remote { .. }
            | Self::Command { .. }
            | Self::Stuck { .. } => 1,
        }
    }
}
