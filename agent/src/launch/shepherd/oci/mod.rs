//! How does a task run in a container?
//!
//! By a runtime that the node has: crun or runc for an OCI bundle (`--container`), Apptainer or enroot
//! for an image (`--container-image`). The task's process becomes the runtime, as the user and within
//! the step's group, with the task's streams; its exit status is the program's. Which runtime there is
//! is looked up in fixed folders before anything starts; what the user named is opened only by the
//! user's processes.

mod config;

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use super::LaunchError;
use super::user::Identity;
use crate::sys::{Forked, SingleThreaded, boottime, close_all_but};
use config::Program;
use nix::mount::{MsFlags, mount};
use nix::sched::CloneFlags;
use penstock_vocab::Millis;
use rustix::process::WaitOptions;

/// Where runtimes are looked for.
const FOLDERS: [&str; 6] =
    ["/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin"];
/// Where cgroups are mounted.
const CGROUPS: &str = "/sys/fs/cgroup";
/// Folder of the user's beside the script.
const FOLDER: &str = "oci";
/// How long the removal of a container's files may take before it is left alone.
const TIDY_TIME: Millis = Millis(2_000);
/// Largest configuration of a bundle.
const MAX_CONFIG: u64 = 4 << 20;

/// What runs containers.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Runtime {
    Crun(PathBuf),
    Runc(PathBuf),
    Apptainer(PathBuf),
    Enroot(PathBuf),
}

/// A container that tasks run in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Oci {
    runtime: Runtime,
    /// Bundle or image, as the user named it.
    name: String,
}

/// One program in it.
pub(super) struct Inside<'a> {
    /// Names the container on this machine: `7.0.3`.
    pub(super) id: &'a str,
    /// A folder of root's, in which [`Oci::make_dir`] made one for the user.
    pub(super) dir: &'a Path,
    pub(super) argv: &'a [Vec<u8>],
    /// NAME=VALUE.
    pub(super) variables: &'a [Vec<u8>],
    /// Folder to begin in, if the user named one.
    pub(super) cwd: Option<&'a str>,
    /// Files that are seen inside under the same name.
    pub(super) binds: &'a [String],
    pub(super) owner: (u32, u32),
}

impl Oci {
    /// What a job or step asks for; `None`: no container.
    ///
    /// # Errors
    /// Where this node has nothing to run it with, or both a bundle and an image are named.
    pub(super) fn of(
        bundle: &str,
        image: &str,
        is_root: bool,
    ) -> Result<Option<Self>, LaunchError> {
        let found = |name: &str| {
            FOLDERS.iter().map(|dir| Path::new(dir).join(name)).find(|path| path.is_file())
        };
        let is_mixed = Path::new(CGROUPS).join("unified").exists();
        Self::choose((bundle, image), is_root, is_mixed, &found).map_err(LaunchError::job)
    }

    fn choose(
        (bundle, image): (&str, &str),
        is_root: bool,
        is_mixed: bool,
        found: &dyn Fn(&str) -> Option<PathBuf>,
    ) -> Result<Option<Self>, String> {
        match (bundle.is_empty(), image.is_empty()) {
            (true, true) => Ok(None),
            (false, false) => {
                Err("--container and --container-image exclude each other; give one".to_owned())
            }
            (false, true) => {
                let crun = || found("crun").map(Runtime::Crun);
                // runc puts what root runs into a group of its own, beside the job's.
                let runc = || found("runc").map(Runtime::Runc).filter(|_| !is_root);
                // crun does not go with a mix of both versions of cgroups, unless they are hidden.
                let mixed = !is_root && is_mixed;
                let runtime = if mixed { runc() } else { crun().or_else(runc) };
                let runtime = runtime.ok_or_else(|| {
                    let name = match (is_root, mixed) {
                        (true, _) => "crun",
                        (false, true) => "runc",
                        (false, false) => "crun or runc",
                    };
                    format!("--container={bundle}: this node has no {name}; install it")
                })?;
                Ok(Some(Self { runtime, name: bundle.to_owned() }))
            }
            (true, false) => {
                let apptainer = found("apptainer").or_else(|| found("singularity"));
                let enroot = || found("enroot").map(Runtime::Enroot);
                let runtime = apptainer.map(Runtime::Apptainer).or_else(enroot);
                let runtime = runtime.ok_or_else(|| {
                    format!(
                        "--container-image={image}: this node has no apptainer, singularity or \
                         enroot; install one, or give a bundle with --container"
                    )
                })?;
                Ok(Some(Self { runtime, name: image.to_owned() }))
            }
        }
    }

    /// Makes the user's folder in `dir`, which is root's and may be there.
    ///
    /// # Errors
    /// The node's, where it cannot be made.
    pub(super) fn make_dir(dir: &Path, owner: &Identity) -> Result<(), LaunchError> {
        let make = || -> io::Result<()> {
            match fs::DirBuilder::new().mode(0o711).create(dir) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => made?,
            }
            let own = dir.join(FOLDER);
            fs::DirBuilder::new().mode(0o700).create(&own)?;
            if owner.is_another() {
                let (uid, gid) = (owner.uid.as_raw(), owner.gid.as_raw());
                std::os::unix::fs::lchown(&own, Some(uid), Some(gid))?;
            }
            Ok(())
        };
        make().map_err(|error| {
            LaunchError::node(format!("no folder for containers in {}: {error}", dir.display()))
        })
    }

    /// Empties the user's folder in `dir`. Call it as the user.
    fn empty_dir(dir: &Path) {
        for entry in fs::read_dir(dir.join(FOLDER)).into_iter().flatten().flatten() {
            let _gone = fs::remove_dir_all(entry.path());
        }
    }

    /// Removes the folders, once they are empty.
    fn remove_dir(dir: &Path) {
        let _left = fs::remove_dir(dir.join(FOLDER)).and_then(|()| fs::remove_dir(dir));
    }

    /// The command line to execute instead of the program's. Call it as the user, in the folder that
    /// the job begins in.
    ///
    /// # Errors
    /// In words for the user.
    pub(super) fn command(&self, inside: &Inside<'_>) -> Result<Vec<Vec<u8>>, String> {
        let words = |path: &Path, words: &[&str]| {
            let mut all = vec![path.as_os_str().as_bytes().to_vec()];
            all.extend(words.iter().map(|word| word.as_bytes().to_vec()));
            all
        };
        match &self.runtime {
            Runtime::Crun(path) => {
                if inside.owner.0 == 0 {
                    hide_cgroups().map_err(|error| format!("cgroups cannot be hidden: {error}"))?;
                }
                let (state, bundle) = self.write_bundle(inside)?;
                let groups = "--cgroup-manager=disabled";
                let run = ["--root", &state, groups, "run", "--bundle", &bundle, inside.id];
                Ok(words(path, &run))
            }
            Runtime::Runc(path) => {
                let (state, bundle) = self.write_bundle(inside)?;
                let run =
                    ["--rootless=true", "--root", &state, "run", "--bundle", &bundle, inside.id];
                Ok(words(path, &run))
            }
            Runtime::Apptainer(path) => {
                let image = apptainer_image(&self.name);
                let mut all = words(path, &["exec"]);
                if let Some(cwd) = inside.cwd {
                    all.extend(words(Path::new("--pwd"), &[cwd]));
                }
                all.push(image.into_bytes());
                all.extend_from_slice(inside.argv);
                Ok(all)
            }
            Runtime::Enroot(path) => {
                if !is_path(&self.name) {
                    return Err(format!(
                        "--container-image={0}: enroot starts images in files; make one with \
                         `enroot import docker://{0}` and give its path",
                        self.name
                    ));
                }
                let mut all = words(path, &["start", "--rw", &self.name]);
                all.extend_from_slice(inside.argv);
                Ok(all)
            }
        }
    }

    /// Writes the bundle of one task: the folder of the runtime's state, and the bundle's.
    fn write_bundle(&self, inside: &Inside<'_>) -> Result<(String, String), String> {
        let named = |error: &dyn std::fmt::Display| {
            format!("--container={}: config.json cannot be used: {error}", self.name)
        };
        let bundle = fs::canonicalize(&self.name)
            .map_err(|error| format!("--container={}: {error}", self.name))?;
        let text = read_config(&bundle.join("config.json")).map_err(|error| named(&error))?;
        let program = Program {
            argv: inside.argv,
            variables: inside.variables,
            cwd: inside.cwd,
            binds: inside.binds,
            owner: inside.owner,
        };
        let config = config::adapt(&text, &bundle, &program).map_err(|error| named(&error))?;
        let own = inside.dir.join(FOLDER).join(inside.id);
        let (state, copy) = (own.join("state"), own.join("bundle"));
        let write = || -> io::Result<()> {
            fs::create_dir_all(&state)?;
            fs::create_dir_all(&copy)?;
            fs::write(copy.join("config.json"), config)
        };
        write().map_err(|error| format!("{} cannot be written: {error}", own.display()))?;
        Ok((state.display().to_string(), copy.display().to_string()))
    }
}

/// Lets a runtime of root's find no cgroups, which it would use: processes stay in the job's.
fn hide_cgroups() -> nix::Result<()> {
    let none: Option<&str> = None;
    nix::sched::unshare(CloneFlags::CLONE_NEWNS)?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(Some("none"), CGROUPS, Some("tmpfs"), flags, none)
}

/// Removes what containers left in `dir`, most of it in a process that is the user.
pub(super) fn tidy(alone: SingleThreaded, dir: &Path, owner: &Identity) {
    match alone.fork() {
        Ok(Forked::Child) => {
            close_all_but(&[]);
            if owner.assume().is_ok() {
                Oci::empty_dir(dir);
            }
            std::process::exit(0);
        }
        Ok(Forked::Parent(pid)) => {
            let began = boottime();
            while boottime().saturating_sub(began) < TIDY_TIME {
                let ended = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
                if !matches!(ended, Ok(None)) {
                    break;
                }
                std::thread::sleep(Millis(1).to_std());
            }
        }
        // What is left is in a folder that nobody else gets.
        Err(_) => {}
    }
    Oci::remove_dir(dir);
}

fn read_config(path: &Path) -> io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut text = Vec::new();
    fs::File::open(path)?.take(MAX_CONFIG + 1).read_to_end(&mut text)?;
    if text.len() as u64 > MAX_CONFIG {
        return Err(io::Error::other(format!("it has more than {MAX_CONFIG} bytes")));
    }
    Ok(text)
}

/// Whether an image is a file, and not a name in a registry.
fn is_path(image: &str) -> bool {
    image.starts_with(['/', '.'])
        || [".sif", ".sqsh", ".squashfs", ".img"].iter().any(|end| image.ends_with(end))
}

/// An image of pyxis's form, `[REGISTRY#]IMAGE[:TAG]` or a path, in Apptainer's words.
fn apptainer_image(image: &str) -> String {
    if is_path(image) || image.contains("://") {
        return image.to_owned();
    }
    format!("docker://{}", image.replacen('#', "/", 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(
        bundle: &str,
        image: &str,
        is_root: bool,
        there: &[&str],
    ) -> Result<Option<Oci>, String> {
        let found = |name: &str| there.contains(&name).then(|| PathBuf::from(name));
        Oci::choose((bundle, image), is_root, false, &found)
    }

    #[test]
    fn the_runtime_is_what_the_node_has() {
        assert_eq!(choose("", "", true, &[]), Ok(None));
        let runtime = |it: Result<Option<Oci>, String>| it.unwrap().unwrap().runtime;
        assert_eq!(runtime(choose("/b", "", false, &["runc"])), Runtime::Runc("runc".into()));
        assert_eq!(
            runtime(choose("/b", "", true, &["runc", "crun"])),
            Runtime::Crun("crun".into())
        );
        assert!(choose("/b", "", true, &["runc"]).unwrap_err().contains("has no crun; install"));
        assert!(choose("/b", "x", true, &["crun"]).unwrap_err().contains("exclude each other"));
        assert_eq!(runtime(choose("", "x", true, &["enroot"])), Runtime::Enroot("enroot".into()));
        let none = choose("", "ubuntu", true, &["crun"]).unwrap_err();
        assert!(none.starts_with("--container-image=ubuntu: this node has no apptainer"), "{none}");
    }

    #[test]
    fn images_are_named_as_pyxis_names_them() {
        for (image, expect) in [
            ("ubuntu:22.04", "docker://ubuntu:22.04"),
            ("nvcr.io#nvidia/pytorch:24.01-py3", "docker://nvcr.io/nvidia/pytorch:24.01-py3"),
            ("./my.sif", "./my.sif"),
            ("/images/a.sqsh", "/images/a.sqsh"),
            ("library://alpine", "library://alpine"),
        ] {
            assert_eq!(apptainer_image(image), expect);
        }
    }
}
