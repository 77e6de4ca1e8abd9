//! How does an agent get shepherds without starting a program for each?
//!
//! Starting a program costs a job about a millisecond of processor time, most of it in the
//! loader. So the agent starts one process that only waits, single-threaded and small, and forks:
//! each fork is a shepherd with a folder and a socket of its own. It ends with its agent; the
//! shepherds do not.

use std::ffi::OsStr;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::unistd::{Uid, User, getgrouplist};

use super::{control, shepherd};
use crate::sys::{Forked, SingleThreaded, ignore_children, reset_signals};

/// Waits for folders until the agent is gone.
pub(super) fn serve(alone: SingleThreaded, agent: OwnedFd) -> io::Result<()> {
    // Fails only where this process leads a group already, started by hand.
    let _leader = nix::unistd::setsid();
    nix::sys::prctl::set_name(c"penstock-launch")?;
    // Ctrl-C and the like are meant for the agent, whose end is noticed soon enough.
    nix::sys::signal::SigSet::all().thread_block()?;
    ignore_children();
    warm_up();
    while let Some((folder, socket)) = control::next_order(&agent)? {
        let Some(socket) = socket else { continue };
        // Where no process can be made, the agent sees its socket closed and no claim made.
        if matches!(alone.fork(), Ok(Forked::Child)) {
            drop(agent);
            reset_signals();
            return shepherd(alone, Path::new(OsStr::from_bytes(&folder)), socket);
        }
    }
    Ok(())
}

/// Loads, once for all shepherds, what looks users up.
fn warm_up() {
    let user = User::from_uid(Uid::effective());
    if let Ok(Some(user)) = user
        && let Ok(name) = std::ffi::CString::new(user.name)
    {
        let _groups = getgrouplist(&name, user.gid);
    }
}
