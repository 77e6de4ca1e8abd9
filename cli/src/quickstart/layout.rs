//! Where does a quickstart keep its files, and may it keep them there?
//!
//! ```text
//! DIR/cluster.toml        the cluster's file; PENSTOCK_CONFIG points to it
//! DIR/hello.sh            the first job
//! DIR/bin/                penstock and the Slurm-named commands
//! DIR/controller/         log and store of the controller
//! DIR/nodeN/              agent.toml, token, log and state of each agent
//! DIR/pids, lock          which processes these are, and who may change that
//! ```
//!
//! As root the default is `/var/lib/penstock/quickstart`: other users run jobs there too, so they
//! must be able to pass through to sockets and scripts (modes 0755 and 0711), which root's home and
//! most temporary folders do not allow. Stores and tokens inside are closed (0700, 0600).

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::failure::Failure;
use super::registry::Registry;
use super::talk::Talk;

/// Root's folder; see the module's docs.
const ROOT_DIR: &str = "/var/lib/penstock/quickstart";

/// Mode of folders that others pass through and don't list.
const PASS_THROUGH: u32 = 0o711;

/// The files of one quickstart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Layout {
    dir: PathBuf,
}

impl Layout {
    /// The files in `dir`, an absolute path.
    pub(super) fn at(dir: &Path) -> Self {
        Self { dir: dir.to_owned() }
    }

    /// The files of a quickstart that there is already.
    pub(super) fn existing(dir: Option<&Path>) -> Result<Self, Failure> {
        let dir = choose(dir)?;
        let Ok(absolute) = fs::canonicalize(&dir) else {
            let why = "there is none; was it started with another --dir?".to_owned();
            return Err(Failure::Folder { dir, why });
        };
        let layout = Self::at(&absolute);
        if !layout.lock_file().exists() {
            let why = "no quickstart was started in it; was it another --dir?".to_owned();
            return Err(Failure::Folder { dir, why });
        }
        layout.check_owner()?;
        Ok(layout)
    }

    /// The files of a quickstart that is to run: makes the folder where it is missing.
    pub(super) fn prepare(dir: Option<&Path>, talk: Talk) -> Result<Self, Failure> {
        let dir = choose(dir)?;
        let what = || format!("make the folder {}", dir.display());
        if !dir.exists() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(&dir)
                .map_err(Failure::system(what()))?;
            set_mode(&dir, PASS_THROUGH)?;
        }
        let dir = fs::canonicalize(&dir).map_err(Failure::system(what()))?;
        let layout = Self::at(&dir);
        layout.check_owner()?;
        layout.check_content()?;
        if is_root()
            && let Some(closed) = closed_to_others(&dir)
        {
            talk.warn(&format!(
                "quickstart: warning: only root can pass through {}, so jobs and commands of other \
                 users won't work here; choose another --dir for them",
                closed.display()
            ));
        }
        Ok(layout)
    }

    /// Holds the folder for this process until the file is dropped.
    pub(super) fn lock(&self) -> Result<File, Failure> {
        let path = self.lock_file();
        let what = format!("open {}", path.display());
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&path)
            .map_err(Failure::system(what))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                let registry = Registry::read(self);
                let holder = registry.other_quickstart();
                let who = holder.map_or_else(String::new, |id| format!(" (pid {})", id.pid));
                Err(Failure::Locked { dir: self.dir.clone(), who })
            }
            Err(TryLockError::Error(error)) => {
                Err(Failure::system(format!("lock {}", path.display()))(error))
            }
        }
    }

    fn check_owner(&self) -> Result<(), Failure> {
        let meta = fs::metadata(&self.dir)
            .map_err(Failure::system(format!("look at {}", self.dir.display())))?;
        let own = nix::unistd::geteuid().as_raw();
        let why = if !meta.is_dir() {
            "it is no folder".to_owned()
        } else if meta.uid() != own {
            format!("it belongs to uid {} and you are uid {own}; choose another --dir", meta.uid())
        } else if meta.mode() & 0o022 != 0 {
            "others may write in it; chmod go-w it, or choose another --dir".to_owned()
        } else if self.dir.to_str().is_none() {
            "its name is not UTF-8; choose another --dir".to_owned()
        } else {
            return Ok(());
        };
        Err(Failure::Folder { dir: self.dir.clone(), why })
    }

    /// A folder of somebody's own files is not made a cluster's by a slip of the hand.
    fn check_content(&self) -> Result<(), Failure> {
        let mut entries = fs::read_dir(&self.dir)
            .map_err(Failure::system(format!("read {}", self.dir.display())))?;
        if entries.next().is_none() || self.lock_file().exists() {
            return Ok(());
        }
        let why = "it holds other files and no quickstart; choose an empty or new one".to_owned();
        Err(Failure::Folder { dir: self.dir.clone(), why })
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn cluster_file(&self) -> PathBuf {
        self.dir.join("cluster.toml")
    }

    pub(super) fn hello(&self) -> PathBuf {
        self.dir.join("hello.sh")
    }

    pub(super) fn bin(&self) -> PathBuf {
        self.dir.join("bin")
    }

    pub(super) fn penstock(&self) -> PathBuf {
        self.bin().join("penstock")
    }

    pub(super) fn pids(&self) -> PathBuf {
        self.dir.join("pids")
    }

    fn lock_file(&self) -> PathBuf {
        self.dir.join("lock")
    }

    /// Exists while the cluster runs by `--detach`.
    fn detached_mark(&self) -> PathBuf {
        self.dir.join("detached")
    }

    pub(super) fn is_detached(&self) -> bool {
        self.detached_mark().exists()
    }

    /// Says, or no longer says, that the cluster goes on without a quickstart.
    pub(super) fn mark_detached(&self, detached: bool) -> Result<(), Failure> {
        let mark = self.detached_mark();
        let done = if detached { fs::write(&mark, "") } else { fs::remove_file(&mark) };
        match done {
            Err(error) if detached || error.kind() != ErrorKind::NotFound => {
                Err(Failure::system(format!("change {}", mark.display()))(error))
            }
            _ => Ok(()),
        }
    }

    /// The folder of a daemon: `controller`, `node1`, ...
    pub(super) fn daemon_dir(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    pub(super) fn log(&self, name: &str) -> PathBuf {
        self.daemon_dir(name).join("log")
    }

    pub(super) fn agent_file(&self, name: &str) -> PathBuf {
        self.daemon_dir(name).join("agent.toml")
    }

    pub(super) fn token(&self, name: &str) -> PathBuf {
        self.daemon_dir(name).join("token")
    }

    /// How many agents the folder has files of: the highest N of `nodeN/agent.toml`.
    pub(super) fn known_nodes(&self) -> u32 {
        let Ok(entries) = fs::read_dir(&self.dir) else { return 0 };
        let number = |entry: fs::DirEntry| {
            let name = entry.file_name().into_string().ok()?;
            let number = name.strip_prefix("node")?.parse().ok()?;
            self.agent_file(&name).exists().then_some(number)
        };
        entries.filter_map(Result::ok).filter_map(number).max().unwrap_or(0)
    }

    /// Makes the folder of a daemon, passable for others.
    pub(super) fn make_daemon_dir(&self, name: &str) -> Result<(), Failure> {
        make_dir(&self.daemon_dir(name))
    }
}

/// Makes a folder that others may pass through, unless it is there.
pub(super) fn make_dir(dir: &Path) -> Result<(), Failure> {
    match DirBuilder::new().mode(PASS_THROUGH).create(dir) {
        // The umask may have closed it.
        Ok(()) => set_mode(dir, PASS_THROUGH),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(Failure::system(format!("make the folder {}", dir.display()))(error)),
    }
}

/// Gives `path` exactly this mode.
pub(super) fn set_mode(path: &Path, mode: u32) -> Result<(), Failure> {
    fs::set_permissions(path, Permissions::from_mode(mode))
        .map_err(Failure::system(format!("change the mode of {}", path.display())))
}

/// Whether we are root.
pub(super) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The first folder on the way to `path`, itself included, that others can't pass through.
pub(super) fn closed_to_others(path: &Path) -> Option<&Path> {
    let closed = |dir: &&Path| fs::metadata(dir).is_ok_and(|meta| meta.mode() & 0o001 == 0);
    path.ancestors().filter(closed).last()
}

fn choose(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(dir) = given {
        return Ok(dir.to_owned());
    }
    let env = |name: &str| std::env::var_os(name).map(PathBuf::from);
    default_dir(is_root(), env("XDG_STATE_HOME"), env("HOME")).ok_or(Failure::NoHome)
}

fn default_dir(root: bool, state_home: Option<PathBuf>, home: Option<PathBuf>) -> Option<PathBuf> {
    if root {
        return Some(PathBuf::from(ROOT_DIR));
    }
    // The XDG standard ignores relative paths.
    let absolute = |dir: &PathBuf| dir.is_absolute();
    let state = state_home
        .filter(absolute)
        .or_else(|| home.filter(absolute).map(|home| home.join(".local/state")))?;
    Some(state.join("penstock/quickstart"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quickstart::options::Mode;

    #[test]
    fn default_folder_follows_user_and_environment() {
        let path = |text: &str| Some(PathBuf::from(text));
        assert_eq!(default_dir(true, path("/x"), path("/root")), path(ROOT_DIR));
        assert_eq!(default_dir(false, path("/x"), None), path("/x/penstock/quickstart"));
        let home = path("/h/.local/state/penstock/quickstart");
        assert_eq!(default_dir(false, None, path("/h")), home);
        assert_eq!(default_dir(false, path("relative"), path("/h")), home);
        assert_eq!(default_dir(false, None, None), None);
    }

    fn refusal(dir: &Path) -> String {
        Layout::prepare(Some(dir), Talk::new(Mode::Serve)).unwrap_err().to_string()
    }

    #[test]
    fn foreign_files_and_open_folders_are_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("thesis.tex");
        fs::write(&file, "").unwrap();
        assert!(refusal(dir.path()).contains("holds other files"));
        assert!(refusal(&file).contains("no folder"));
        fs::remove_file(&file).unwrap();
        set_mode(dir.path(), 0o777).unwrap();
        assert!(refusal(dir.path()).contains("others may write"));
    }

    #[test]
    fn new_folder_is_passable_and_locked_once() {
        let dir = tempfile::tempdir().unwrap();
        let layout =
            Layout::prepare(Some(&dir.path().join("a/b")), Talk::new(Mode::Serve)).unwrap();
        assert_eq!(fs::metadata(layout.dir()).unwrap().mode() & 0o777, PASS_THROUGH);
        let held = layout.lock().unwrap();
        let error = layout.lock().unwrap_err().to_string();
        assert!(error.contains("another quickstart works on"), "{error}");
        drop(held);
        layout.lock().unwrap();
        assert!(Layout::prepare(Some(layout.dir()), Talk::new(Mode::Serve)).is_ok());
    }

    #[test]
    fn nodes_are_counted_by_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::at(dir.path());
        assert_eq!(layout.known_nodes(), 0);
        for name in ["node1", "node12", "node99", "nodex"] {
            layout.make_daemon_dir(name).unwrap();
        }
        for name in ["node1", "node12"] {
            fs::write(layout.agent_file(name), "").unwrap();
        }
        assert_eq!(layout.known_nodes(), 12);
    }
}
