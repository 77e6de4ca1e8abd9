//! How does the spool get a shepherd?
//!
//! By a word to a process that forks one (`zygote`). That process is started when it is first
//! needed, by posix_spawn, and again if it is gone.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Child, Stdio};

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::config::ShepherdCommand;
use crate::launch::shepherd;

/// The process that forks shepherds.
#[derive(Debug)]
pub(super) struct Launcher {
    command: ShepherdCommand,
    process: Option<(Child, OwnedFd)>,
}

impl Launcher {
    pub(super) const fn new(command: ShepherdCommand) -> Self {
        Self { command, process: None }
    }

    /// A shepherd for the attempt in `folder`: this end of the socket to it.
    ///
    /// # Errors
    /// When no process can be made. Where one dies after it was asked, the socket is closed.
    pub(super) fn launch(&mut self, folder: &Path) -> io::Result<OwnedFd> {
        let (ours, theirs) = packet_pair()?;
        let ask = |socket: &OwnedFd| {
            shepherd::order(socket, folder.as_os_str().as_bytes(), theirs.as_fd())
        };
        if let Some((_, socket)) = &self.process
            && ask(socket).is_ok()
        {
            return Ok(ours);
        }
        self.end();
        let (socket, other) = packet_pair()?;
        let mut command = self.command.command();
        command.stdin(Stdio::from(other)).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn()?;
        let (_, socket) = self.process.insert((child, socket));
        ask(socket)?;
        Ok(ours)
    }

    /// Lets the process end, and waits until it has.
    fn end(&mut self) {
        if let Some((mut child, socket)) = self.process.take() {
            drop(socket);
            // It is ours and waits for nothing but that socket.
            let _status = child.wait();
        }
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        self.end();
    }
}

fn packet_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::UNIX, SocketType::SEQPACKET);
    Ok(rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)?)
}
