//! What can this machine show, and what has to be skipped on it?

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Gid, Uid};
use rustix::thread::{set_thread_groups, set_thread_res_gid, set_thread_res_uid};

/// The uid and gid of the account that every machine has and that may do nothing.
pub(crate) const NOBODY: u32 = 65_534;

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Whether commands can be run as [`NOBODY`]; says that the test is skipped where not.
pub(crate) fn other_user() -> bool {
    let known = nix::unistd::User::from_uid(NOBODY.into()).ok().flatten();
    let runs = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_penstock"));
        command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
        command.uid(NOBODY).gid(NOBODY).status().is_ok_and(|status| status.success())
    };
    let found = known.is_some_and(|user| user.name == "nobody") && runs();
    if !found {
        println!("skipped: no second user `nobody` who can run {}", env!("CARGO_BIN_EXE_penstock"));
    }
    found
}

/// Whether this is root and there is another user; says that the test is skipped where not.
pub(crate) fn root_and_other_user() -> bool {
    if !is_root() {
        println!("skipped: not root");
        return false;
    }
    other_user()
}

/// Does something on a thread that is `nobody`; for root only.
pub(crate) fn as_nobody<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let become_nobody = move || {
        let (uid, gid) = (Uid::from_raw(NOBODY), Gid::from_raw(NOBODY));
        set_thread_groups(&[]).expect("root may");
        set_thread_res_gid(gid, gid, gid).expect("root may");
        set_thread_res_uid(uid, uid, uid).expect("root may");
        act()
    };
    std::thread::spawn(become_nobody).join().expect("what is done there does not panic")
}

/// Whether the kernel can hold jobs to their memory here; says that the test is skipped where not.
pub(crate) fn limits_memory() -> bool {
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let version1 = mounts.lines().any(|line| {
        line.split_once(" - cgroup ")
            .is_some_and(|(_, rest)| rest.split([' ', ',']).any(|option| option == "memory"))
    });
    let version2 = fs::read_to_string("/sys/fs/cgroup/cgroup.controllers")
        .is_ok_and(|controllers| controllers.split_whitespace().any(|name| name == "memory"));
    let found = is_root() && (version1 || version2);
    if !found {
        println!("skipped: no cgroup that limits memory can be made");
    }
    found
}

/// A small file system of its own on a folder; unmounted when dropped.
pub(crate) struct Tmpfs(std::path::PathBuf);

/// Mounts `mib` MiB of memory on `dir`, which is made; says that the test is skipped where that is
/// not possible.
pub(crate) fn tmpfs(dir: &Path, mib: u32) -> Option<Tmpfs> {
    fs::create_dir_all(dir).expect("made");
    let options = format!("size={mib}m,mode=0755");
    let flags = nix::mount::MsFlags::empty();
    match nix::mount::mount(Some("tmpfs"), dir, Some("tmpfs"), flags, Some(options.as_str())) {
        Ok(()) => Some(Tmpfs(dir.to_owned())),
        Err(error) => {
            println!("skipped: no tmpfs can be mounted: {error}");
            None
        }
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // Whoever still holds a file in it keeps it alive, out of sight.
        nix::mount::umount2(&self.0, nix::mount::MntFlags::MNT_DETACH).ok();
    }
}
