//! What did an earlier agent leave in the spool?

use std::fs;

use penstock_supervisor::{Found, RunResult};

use super::SpoolError;
use super::attempt::{Claim, Folder};
use super::config::SpoolConfig;
use crate::launch::record::parse_key;
use crate::sys::wall_clock;

/// Reads the spool. What was not claimed is claimed now; what ran and is gone is cleaned up. Also
/// gives the folders of those that run.
pub(super) fn scan(config: &SpoolConfig) -> Result<(Vec<Found>, Vec<Folder>), SpoolError> {
    let path = config.spool_dir();
    let failed = |source| SpoolError::Folder { path: path.clone(), source };
    let (mut found, mut running) = (Vec::new(), Vec::new());
    for entry in fs::read_dir(&path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let Some(key) = name.to_str().and_then(parse_key) else {
            tracing::warn!(?name, "not an attempt's folder; left alone");
            continue;
        };
        let folder = Folder::new(config, key);
        let what = look_at(config, &folder).map_err(failed)?;
        if matches!(what, Found::Running(_)) {
            running.push(folder);
        }
        found.push(what);
    }
    found.sort_unstable_by_key(Found::key);
    Ok((found, running))
}

fn look_at(config: &SpoolConfig, folder: &Folder) -> std::io::Result<Found> {
    let key = folder.key;
    if let Some(result) = folder.read_end() {
        return Ok(Found::Ended(key, result));
    }
    // The claim goes before the boot: whatever is true of the intent, nobody else may start it.
    let found = match folder.claim()? {
        Claim::Tombstone => Found::Tombstone(key),
        Claim::Never => Found::NeverStarted(key),
        Claim::Taken if folder.boot_id().as_ref() == Some(&config.boot_id) => {
            Found::NeverStarted(key)
        }
        // An intent of an earlier boot may have lost its claim with the machine's memory, and
        // one that cannot be read may be such: that it never ran is not proven.
        Claim::Taken => ended_as_lost(config, folder),
        Claim::Shepherd => Found::Running(key),
        // The record may have come between the first look and the end of the shepherd.
        Claim::Gone => match folder.read_end() {
            Some(result) => Found::Ended(key, result),
            None => ended_as_lost(config, folder),
        },
    };
    Ok(found)
}

fn ended_as_lost(config: &SpoolConfig, folder: &Folder) -> Found {
    let result: RunResult = folder.clean_up_lost(config);
    if let Err(error) = folder.write_end(&result) {
        tracing::warn!(attempt = %folder.key, %error, "the end of a lost attempt cannot be kept");
    }
    tracing::warn!(attempt = %folder.key, at = %wall_clock(), "its shepherd is gone");
    Found::Ended(folder.key, result)
}
