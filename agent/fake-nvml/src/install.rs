//! How does a folder come to hold a library of GPUs that do not exist?

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::scenario::{Scenario, ScenarioError};

/// Name of the library in such a folder, as the real one's.
pub const LIBRARY_NAME: &str = "libnvidia-ml.so.1";

/// Name of the scenario beside it.
pub const SCENARIO_NAME: &str = "scenario.toml";

/// Name of this crate's library as cargo builds it.
const BUILT: &str = "libpenstock_fake_nvml.so";

/// Why a folder cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The library was not built, or does not lie where it is looked for.
    #[error("{BUILT} is neither beside {} nor in deps/ there; build it, or copy it there", beside.display())]
    NoLibrary {
        /// The running program.
        beside: PathBuf,
    },
    /// A file cannot be made.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The scenario makes no sense.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
}

/// Where the library is: beside the running program, or in `deps/` there, as cargo leaves it.
///
/// # Errors
/// When it is at none of these places.
pub fn library_path() -> Result<PathBuf, InstallError> {
    let program = std::env::current_exe().unwrap_or_default();
    let folder = program.parent().unwrap_or_else(|| Path::new("."));
    // A program that is a link lies elsewhere than its link.
    let real = fs::canonicalize(&program).ok().and_then(|path| path.parent().map(Path::to_owned));
    let folders = [Some(folder.to_owned()), real].into_iter().flatten();
    let places = folders.flat_map(|dir| [dir.join(BUILT), dir.join("deps").join(BUILT)]);
    places
        .into_iter()
        .find(|place| place.exists())
        .ok_or_else(|| InstallError::NoLibrary { beside: program.clone() })
}

/// Writes `scenario` into `folder` and puts the library beside it; its path. What calls changed
/// there before stays. A library that is to lack symbols is a copy without them.
///
/// # Errors
/// When the scenario makes no sense, or the files cannot be made.
pub fn install(folder: &Path, scenario: &str) -> Result<PathBuf, InstallError> {
    let file = folder.join(SCENARIO_NAME);
    let read = Scenario::parse(scenario, &file.display().to_string())?;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| InstallError::Write { path, source }
    };
    fs::create_dir_all(folder).map_err(failed(folder))?;
    let new = folder.join("scenario.new");
    fs::write(&new, scenario).map_err(failed(&new))?;
    fs::rename(&new, &file).map_err(failed(&file))?;
    let (from, to) = (library_path()?, folder.join(LIBRARY_NAME));
    let put = folder.join("library.new");
    let _absent = fs::remove_file(&put);
    if read.missing.is_empty() {
        symlink(&from, &put).map_err(failed(&put))?;
    } else {
        let library = fs::read(&from).map_err(failed(&from))?;
        fs::write(&put, without(library, &read.missing)).map_err(failed(&put))?;
    }
    fs::rename(&put, &to).map_err(failed(&to))?;
    Ok(to)
}

/// The library with symbols renamed in its table, so that nobody finds them.
fn without(mut library: Vec<u8>, missing: &[String]) -> Vec<u8> {
    for name in missing {
        let wanted: Vec<u8> = [&[0], name.as_bytes(), &[0]].concat();
        let mut from = 0;
        while let Some(found) = library[from..].windows(wanted.len()).position(|w| w == wanted) {
            // The last letter becomes one that no name has.
            library[from + found + name.len()] = b'!';
            from += found + name.len();
        }
    }
    library
}
