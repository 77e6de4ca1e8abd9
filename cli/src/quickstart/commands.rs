//! How do the Slurm-named commands get into a shell's and a job's PATH?

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use crate::dispatch::slurm_names;

use super::failure::Failure;
use super::layout::{Layout, closed_to_others, is_root, make_dir, set_mode};

/// Where the running binary is, whatever became of the path it was started by.
const OWN_EXE: &str = "/proc/self/exe";

/// Makes `DIR/bin`: `penstock`, which is this binary, and a link to it for each of Slurm's names, those
/// that are not built too: better a clear refusal than another Slurm's command.
///
/// `penstock` is a link too, but where other users could not follow it, or the file is gone (a
/// newer build took its place), it is a copy.
pub(super) fn link_all(layout: &Layout) -> Result<(), Failure> {
    make_dir(&layout.bin())?;
    // Users complete and list what is in their PATH.
    set_mode(&layout.bin(), 0o755)?;
    let own = fs::read_link(OWN_EXE).map_err(Failure::system("find our own binary"))?;
    let here = layout.penstock();
    if fs::canonicalize(&here).is_ok_and(|target| target == own) {
        // This is DIR/bin/penstock itself, or a link to us already.
    } else if own.exists() && !(is_root() && closed_to_others(&own).is_some()) {
        put(&here, |path| symlink(&own, path))?;
    } else {
        put(&here, |path| {
            // A second name for the same file costs nothing, where the file system allows it.
            fs::hard_link(&own, path).or_else(|_| fs::copy(OWN_EXE, path).map(drop))
        })?;
        set_mode(&here, 0o755)?;
    }
    for name in slurm_names() {
        put(&layout.bin().join(name), |path| symlink("penstock", path))?;
    }
    Ok(())
}

/// Makes `path` anew by `make`, so that it is the old or the new one at any time.
fn put(path: &Path, make: impl FnOnce(&Path) -> std::io::Result<()>) -> Result<(), Failure> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    // Left by a quickstart that was killed; usually there is none.
    fs::remove_file(&new).ok();
    make(&new)
        .and_then(|()| fs::rename(&new, path))
        .map_err(Failure::system(format!("make {}", path.display())))
}

/// What a shell needs, to be given to `eval`.
pub(super) fn exports(layout: &Layout) -> [String; 2] {
    [
        format!("export PENSTOCK_CONFIG={}", quoted(&layout.cluster_file())),
        format!("export PATH={}:\"$PATH\"", quoted(&layout.bin())),
    ]
}

/// A path as a word of any POSIX shell.
pub(super) fn quoted(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,@%=".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.into_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_paths_are_quoted() {
        for (path, expect) in [
            ("/var/lib/x-1", "/var/lib/x-1"),
            ("/a b", "'/a b'"),
            ("/it's", r"'/it'\''s'"),
            ("/$(rm)", "'/$(rm)'"),
        ] {
            assert_eq!(quoted(Path::new(path)), expect);
        }
    }

    #[test]
    fn every_name_leads_to_this_binary() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(dir.path());
        for _twice in 0..2 {
            link_all(&layout).unwrap();
        }
        let own = fs::metadata(OWN_EXE).unwrap();
        for name in ["penstock", "sbatch", "sacct"] {
            let there = fs::metadata(layout.bin().join(name)).unwrap();
            assert_eq!(there.len(), own.len(), "{name}");
        }
        assert_eq!(fs::read_dir(layout.bin()).unwrap().count(), slurm_names().count() + 1);
    }
}
