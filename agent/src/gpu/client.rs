//! How is a probe started, heard, and given up?

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream as StdStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use bytes::{Buf as _, BytesMut};
use prost::Message as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;

use super::wire::{Ask, Question, Say, frame_length};

/// The program that is a probe.
#[derive(Debug, Clone)]
pub(crate) struct ProbeCommand {
    program: PathBuf,
    arguments: Vec<String>,
    /// Keeps the program's file, even if it is replaced or removed.
    _kept: Option<Arc<File>>,
}

impl ProbeCommand {
    /// The program that this process runs, as `penstock gpu-probe LIBRARY DEVICES`.
    ///
    /// # Errors
    /// When `/proc` is not there.
    pub(crate) fn own() -> io::Result<Self> {
        let file = File::open("/proc/self/exe")?;
        let program = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let arguments = vec!["gpu-probe".to_owned()];
        Ok(Self { program, arguments, _kept: Some(Arc::new(file)) })
    }
}

/// A probe that runs. Dropped, it is killed: it holds nothing that would be lost.
#[derive(Debug)]
pub(super) struct Probe {
    child: Child,
    stream: UnixStream,
    heard: BytesMut,
    next_id: u64,
}

impl Probe {
    /// Starts one.
    ///
    /// # Errors
    /// When no process can be made.
    pub(super) fn start(
        command: &ProbeCommand,
        library: &Path,
        devices: &Path,
    ) -> io::Result<Self> {
        let (ours, theirs) = StdStream::pair()?;
        let mut process = Command::new(&command.program);
        process.arg0("penstock").args(&command.arguments).arg(library).arg(devices).env_clear();
        process.stdin(Stdio::from(OwnedFd::from(theirs)));
        process.stdout(Stdio::null()).stderr(Stdio::null());
        let child = process.spawn()?;
        ours.set_nonblocking(true)?;
        let stream = UnixStream::from_std(ours)?;
        Ok(Self { child, stream, heard: BytesMut::new(), next_id: 1 })
    }

    /// Asks; the number by which the answer is known.
    ///
    /// # Errors
    /// When the probe is gone.
    pub(super) async fn ask(&mut self, question: Question) -> io::Result<u64> {
        let id = self.next_id;
        self.next_id += 1;
        let ask = Ask { id, question: Some(question) }.encode_to_vec();
        let length = u32::try_from(ask.len()).map_err(io::Error::other)?;
        self.stream.write_all(&length.to_be_bytes()).await?;
        self.stream.write_all(&ask).await?;
        Ok(id)
    }

    /// The next thing that it says. Cancel-safe.
    ///
    /// # Errors
    /// When the probe is gone, or says what makes no sense.
    pub(super) async fn hear(&mut self) -> io::Result<Say> {
        loop {
            if let Some((head, rest)) = self.heard.split_first_chunk::<4>() {
                let length = frame_length(*head)?;
                if rest.len() >= length {
                    self.heard.advance(4);
                    let frame = self.heard.split_to(length);
                    return Say::decode(frame).map_err(io::Error::other);
                }
            }
            if self.stream.read_buf(&mut self.heard).await? == 0 {
                return Err(io::Error::from(io::ErrorKind::UnexpectedEof));
            }
        }
    }

    /// Its pid, for the log.
    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        // It may be gone; one that hangs in the kernel goes when that lets it.
        let _gone = self.child.kill();
        // A thread of its own waits, so that nobody here has to.
        let pid = self.child.id();
        let reaper = std::thread::Builder::new().name(format!("reap-{pid}"));
        let Ok(pid) = i32::try_from(pid) else { return };
        let _none = reaper.stack_size(64 << 10).spawn(move || {
            nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid), None).ok();
        });
    }
}
