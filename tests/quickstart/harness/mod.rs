//! How does a test use a quickstart?

mod cleanup;
mod command;
mod home;
mod process;
mod wait;

pub(crate) use command::{Cmd, Ran};
pub(crate) use home::Home;
pub(crate) use process::Process;
pub(crate) use wait::{wait_for, wait_until};

/// The uid and gid of the account that every machine has and that may do nothing.
pub(crate) const NOBODY: u32 = 65_534;

/// Whether this process is root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
