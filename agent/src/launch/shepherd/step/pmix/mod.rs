//! How do the tasks of a step get a PMIx server?
//!
//! libpmix has threads, and a shepherd must not: so the server is a process of its own ([`helper`]),
//! a fork of the shepherd that became the user. It is there before the tasks, who need its variables.
//! What it wants of other nodes goes through the shepherd to srun ([`penstock_proto::pmi`]). It ends
//! when the shepherd closes its socket.

mod helper;
mod plan;

use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use bytes::Bytes;
use penstock_proto::pmi::decode;
use penstock_proto::step_io::{FrameBuffer, encode_frame};
use penstock_proto::v1::step_frame::{Frame, PmiMessage};
use penstock_vocab::Millis;
use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

use super::files::Plan as Files;
use super::run::{Stage, Step};
use crate::launch::shepherd::LaunchError;
use crate::sys::{Forked, boottime, close_all_but};
use plan::Plan;

/// How long the server may take until it serves.
const START_TIME: Millis = Millis(30_000);
/// Most bytes that wait for a server which does not read.
const MAX_QUEUED: usize = 64 << 20;

/// Kinds of messages that only the shepherd and its helper know: it serves, with its variables;
/// and it cannot, with the reason.
const READY: u32 = 1_000;
const FAILED: u32 = 1_001;
/// The name under which its folder stands among the variables.
const DIR: &str = "";

/// Whether a kind of MPI is served by libpmix.
pub(super) fn is_pmix(kind: &str) -> bool {
    kind == "pmix" || kind.starts_with("pmix_v")
}

/// The server, as its shepherd sees it.
pub(super) struct Server {
    socket: Option<OwnedFd>,
    input: FrameBuffer,
    output: VecDeque<Bytes>,
    queued: usize,
    since: Millis,
    /// What every task gets; once it serves.
    variables: Option<Vec<(String, String)>>,
    /// Its folder.
    dir: Option<PathBuf>,
}

/// What the server said.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Said {
    /// Tasks can start.
    Ready,
    /// It does not serve, and why.
    Failed(String),
    /// For srun.
    Message(PmiMessage),
}

impl Server {
    fn new(socket: OwnedFd) -> Self {
        Self {
            socket: Some(socket),
            input: FrameBuffer::default(),
            output: VecDeque::new(),
            queued: 0,
            since: boottime(),
            variables: None,
            dir: None,
        }
    }

    /// What to wait for.
    pub(super) fn fd(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        let out = if self.queued > 0 { PollFlags::OUT } else { PollFlags::empty() };
        self.socket.as_ref().map(|socket| (socket.as_fd(), PollFlags::IN | out))
    }

    /// The variables of a task.
    pub(super) fn variables(&self, rank: u32) -> Vec<(String, String)> {
        let mut variables = self.variables.clone().unwrap_or_default();
        variables.retain(|(name, _)| name != "PMIX_RANK");
        variables.push(("PMIX_RANK".to_owned(), rank.to_string()));
        variables
    }

    /// Passes a message of srun's on.
    pub(super) fn send(&mut self, message: PmiMessage) {
        let bytes = Bytes::from(encode_frame(Frame::Pmi(message)));
        self.queued += bytes.len();
        self.output.push_back(bytes);
    }

    /// Nobody needs it any more.
    pub(super) fn stop(&mut self) {
        self.socket = None;
        self.output.clear();
        self.queued = 0;
    }

    /// Goes on as far as that is possible without waiting.
    pub(super) fn work(&mut self) -> Vec<Said> {
        let mut said = Vec::new();
        let open = self.receive();
        loop {
            match self.input.next_frame() {
                Ok(Some(Frame::Pmi(message))) => said.push(self.hear(message)),
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) => {
                    said.push(Said::Failed(format!("what it says is not understood: {error}")));
                    self.stop();
                    return said;
                }
            }
        }
        if !open {
            self.stop();
            said.push(Said::Failed("the PMIx server ended".to_owned()));
        } else if self.queued > MAX_QUEUED {
            self.stop();
            said.push(Said::Failed("the PMIx server takes nothing".to_owned()));
        } else {
            self.flush();
        }
        said
    }

    fn hear(&mut self, message: PmiMessage) -> Said {
        match message.kind {
            READY => match decode(message.body) {
                Ok(pairs) => {
                    let (dir, variables): (Vec<_>, Vec<_>) =
                        pairs.into_iter().partition(|(name, _)| name == DIR);
                    self.dir = dir.into_iter().next().map(|(_, dir)| PathBuf::from(dir));
                    self.variables = Some(variables);
                    Said::Ready
                }
                Err(error) => Said::Failed(error.to_string()),
            },
            FAILED => Said::Failed(String::from_utf8_lossy(&message.body).into_owned()),
            _ => Said::Message(message),
        }
    }

    /// False at its end.
    fn receive(&mut self) -> bool {
        let Some(socket) = &self.socket else { return true };
        let mut buffer = [0; 16 << 10];
        loop {
            match rustix::net::recv(socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((0, _)) => return false,
                Ok((length, _)) => self.input.push(&buffer[..length]),
                Err(Errno::AGAIN) => return true,
                Err(Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    fn flush(&mut self) {
        let Some(socket) = &self.socket else { return };
        while let Some(front) = self.output.front_mut() {
            match rustix::net::send(socket, front, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => {
                    self.queued -= sent;
                    let _sent = front.split_to(sent);
                    if front.is_empty() {
                        self.output.pop_front();
                    }
                }
                Err(Errno::INTR) => {}
                // Its end is met when it is read.
                Err(_) => return,
            }
        }
    }
}

impl Step {
    /// Starts the server; the tasks follow when it serves.
    pub(super) fn start_pmix(&mut self, files: Files, opened: Vec<std::fs::File>) {
        match self.fork_pmix() {
            Ok(server) => {
                self.pmix = Some(server);
                self.stage = Stage::Serving { plan: files, files: opened };
            }
            Err(error) => self.fail(error),
        }
    }

    fn fork_pmix(&self) -> Result<Server, LaunchError> {
        let no = |error| LaunchError::node(format!("no PMIx server can be made: {error}"));
        let plan = Plan::of(&self.common.facts)?;
        let (family, kind) = (AddressFamily::UNIX, SocketType::STREAM);
        let (ours, theirs) = rustix::net::socketpair(family, kind, SocketFlags::CLOEXEC, None)
            .map_err(|error| no(error.into()))?;
        if let Forked::Child = self.alone.fork().map_err(no)? {
            close_all_but(&[theirs.as_fd()]);
            // What goes wrong before is seen by the shepherd as its end.
            if self.common.leave_root(&self.charge.container, &self.setup).is_ok() {
                rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
                let _name = nix::sys::prctl::set_name(c"penstock-pmix");
                if nix::unistd::chdir("/").is_ok() {
                    helper::run(plan, theirs);
                }
            }
            std::process::exit(0);
        }
        Ok(Server::new(ours))
    }

    /// Whether the server took too long to begin.
    pub(super) fn look_at_pmix_start(&mut self) {
        let late = |server: &Server| boottime().saturating_sub(server.since) >= START_TIME;
        if matches!(self.stage, Stage::Serving { .. })
            && self.error.is_none()
            && self.pmix.as_ref().is_some_and(late)
        {
            let secs = START_TIME.as_secs();
            let node = &self.common.facts.node;
            let text = format!("{node}: libpmix does not serve within {secs} s");
            self.fail(LaunchError::node(text));
        }
    }

    /// Removes what a server that was killed left behind, in a process that is the user.
    pub(super) fn tidy_pmix(&mut self) {
        let Some(dir) = self.pmix.take().and_then(|server| server.dir) else { return };
        if let Ok(Forked::Child) = self.alone.fork() {
            close_all_but(&[]);
            if self.common.identity.assume().is_ok() {
                let _gone = std::fs::remove_dir_all(dir);
            }
            std::process::exit(0);
        }
    }
}

/// The version of the libpmix that this machine has; `None`: it has none.
#[must_use]
pub fn version() -> Option<String> {
    let version = crate::sys::pmix::Library::load().ok()?.version();
    Some(version).filter(|version| !version.is_empty())
}
