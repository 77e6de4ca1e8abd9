//! What can go wrong with a store, and what does the caller do about it?

use std::error::Error;
use std::io;
use std::path::{Path, PathBuf};

use super::key::{Revision, Term};

/// Any error, boxed, sendable.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// Why a store refused a call.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another writer took over: stop at once, write nothing.
    #[error("term {} is over: another controller has become the writer; this one must stop", term.0)]
    Deposed {
        /// The term of the call.
        term: Term,
    },
    /// Known not to be applied; the same batch may be tried again.
    #[error(
        "the store can't take the batch now, nothing was written; free space or wait, then repeat"
    )]
    Unavailable(#[source] BoxError),
    /// May or may not be applied: read the store's revision before anything else.
    #[error("the store did not answer in time; read it back before the next write")]
    Unknown {
        /// The revision that the batch has if it was applied.
        revision_hint: Option<Revision>,
    },
    /// Outside [`BatchLimits`](super::BatchLimits); nothing was written.
    #[error("a batch of {got} {unit} exceeds the store's limit of {limit}; split it")]
    TooLarge {
        /// What is allowed.
        limit: u64,
        /// What came.
        got: u64,
        /// What is counted.
        unit: &'static str,
    },
    /// What was read is not what was written.
    #[error("{what}; {how_to_restore}")]
    Corrupt {
        /// What is wrong, with path and place.
        what: String,
        /// The command that restores.
        how_to_restore: String,
    },
    /// A write or fsync failed: stop the process. The store takes nothing more; what it answered
    /// before is durable.
    #[error("the store failed and takes nothing more; the daemon must restart from disk")]
    Failed(#[source] BoxError),
}

/// Why a store did not open. Nothing on disk was changed.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Another process has it.
    #[error(
        "store {} is in use by another process; stop the other penstock daemon or command first",
        dir.display()
    )]
    InUse {
        /// The store's directory.
        dir: PathBuf,
    },
    /// Written by a newer release.
    #[error(
        "{} has format {found}, this release knows formats up to {known}; nothing was changed; \
         install the release that wrote it, `penstock store export {}` there gives text",
        path.display(), dir.display()
    )]
    NewerFormat {
        /// The store's directory.
        dir: PathBuf,
        /// The file that says so.
        path: PathBuf,
        /// Its format.
        found: u32,
        /// The newest known here.
        known: u32,
    },
    /// No store there, and none may be created.
    #[error("there is no store in {}; check that its disk is mounted", dir.display())]
    Missing {
        /// The store's directory.
        dir: PathBuf,
    },
    /// Damaged or incomplete: refused rather than started short.
    #[error("{what}; {how_to_restore}")]
    Corrupt {
        /// What is wrong, with path and place.
        what: String,
        /// The command that restores.
        how_to_restore: String,
    },
    /// The operating system refused.
    #[error("can't {what} {}", path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// Error of the file layer, before it is known what it means for the store.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    #[error("can't {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("{0}")]
    Damaged(String),
    #[error("{} has format {found}, this release knows up to {known}", path.display())]
    Newer { path: PathBuf, found: u32, known: u32 },
}

impl Fault {
    /// For `map_err`: names the action and the file.
    pub(crate) fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Fault {
        move |source| Fault::Io { what, path: path.to_owned(), source }
    }

    /// Whether the disk, quota or file size limit was full, and nothing else was wrong.
    pub(crate) fn is_no_space(&self) -> bool {
        match self {
            Fault::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull
                    | io::ErrorKind::QuotaExceeded
                    | io::ErrorKind::FileTooLarge
            ),
            Fault::Damaged(_) | Fault::Newer { .. } => false,
        }
    }

    /// As a reason not to open `dir`.
    pub(crate) fn refuse(self, dir: &Path) -> OpenError {
        match self {
            Fault::Io { what, path, source } => OpenError::Io { what, path, source },
            Fault::Damaged(what) => OpenError::Corrupt { what, how_to_restore: advice(dir) },
            Fault::Newer { path, found, known } => {
                OpenError::NewerFormat { dir: dir.to_owned(), path, found, known }
            }
        }
    }

    /// As the answer to a read of an open store in `dir`.
    pub(crate) fn unreadable(self, dir: &Path) -> StoreError {
        match self {
            Fault::Damaged(what) => StoreError::Corrupt { what, how_to_restore: advice(dir) },
            other => StoreError::Unavailable(Box::new(other)),
        }
    }
}

/// What an admin does about a damaged store in `dir`.
pub(crate) fn advice(dir: &Path) -> String {
    let dir = dir.display();
    format!(
        "refused, nothing was changed; with the daemon stopped run `penstock store check {dir}` to \
         see what is there, then `penstock store rebuild {dir}`, which restores what can be \
         restored and deletes nothing"
    )
}
