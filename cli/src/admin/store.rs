//! `penstock store`: is what is on disk whole, what is in it, and what can be restored?

use std::error::Error;
use std::io::{BufWriter, ErrorKind, Write as _, stdout};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::Subcommand;
use penstock_controller::convert::record::describe;
use penstock_controller::store;

use crate::admin::{FAILED, PROGRAM};
use crate::errors::{chain, error};
use crate::output::{note, write_bytes};

/// Looks after a store.
#[derive(Debug, Subcommand)]
pub(crate) enum Store {
    /// Say what is there and what is wrong; changes nothing
    Check {
        /// Its folder, or the controller's state folder
        dir: PathBuf,
    },
    /// Write every live record as a line of text
    Export {
        /// Its folder, or the controller's state folder
        dir: PathBuf,
    },
    /// Restore what the whole parts give; moves aside and never deletes
    Rebuild {
        /// Its folder, or the controller's state folder
        dir: PathBuf,
    },
}

impl Store {
    pub(crate) fn run(self) -> i32 {
        let done = match self {
            Self::Check { dir } => check(&store_in(dir)),
            Self::Export { dir } => export(&store_in(dir)),
            Self::Rebuild { dir } => rebuild(&store_in(dir)),
        };
        match done {
            Ok(status) => status,
            Err(failure) => {
                error(PROGRAM, &chain(&failure));
                FAILED
            }
        }
    }
}

/// The store's folder: `dir` itself, or `store` in a controller's state folder.
fn store_in(dir: PathBuf) -> PathBuf {
    let inside = dir.join("store");
    if inside.is_dir() { inside } else { dir }
}

fn check(dir: &Path) -> Result<i32, store::OpenError> {
    let report = store::check(dir)?;
    write_bytes(report.to_string().as_bytes());
    Ok(if report.is_whole() { 0 } else { FAILED })
}

fn rebuild(dir: &Path) -> Result<i32, store::OpenError> {
    let rebuilt = store::rebuild(dir)?;
    write_bytes(rebuilt.to_string().as_bytes());
    Ok(0)
}

fn export(dir: &Path) -> Result<i32, store::OpenError> {
    let mut out = BufWriter::new(stdout().lock());
    let written =
        store::export(dir, &mut out, &|key, value| describe(key, &Bytes::copy_from_slice(value)));
    let flushed = out.flush();
    if flushed.is_err_and(|error| error.kind() == ErrorKind::BrokenPipe) {
        return Ok(0);
    }
    let count = match written {
        Err(failure) if is_closed_pipe(&failure) => return Ok(0),
        other => other?,
    };
    note(&format!("{count} records"));
    Ok(0)
}

/// Whether the reader of the export has gone.
fn is_closed_pipe(failure: &store::OpenError) -> bool {
    let mut cause = failure.source();
    while let Some(error) = cause {
        if error
            .downcast_ref::<std::io::Error>()
            .is_some_and(|io| io.kind() == ErrorKind::BrokenPipe)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_store_is_refused() {
        let dir = tempfile::tempdir().expect("temporary folder");
        for command in [
            Store::Check { dir: dir.path().join("none") },
            Store::Export { dir: dir.path().join("none") },
            Store::Rebuild { dir: dir.path().join("none") },
        ] {
            assert_eq!(command.run(), FAILED);
        }
    }
}
