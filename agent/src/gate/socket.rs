//! How does the gate get its place in the file system, and keep it?

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _,
};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use tokio::net::{UnixListener, UnixStream};

/// `sun_path` has 108 bytes, the last of them NUL; see unix(7).
const MAX_PATH_BYTES: usize = 107;

/// Why the gate's socket could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum GateError {
    /// The kernel has no room for such a path.
    #[error(
        "socket path {path} has {length} bytes, at most {MAX_PATH_BYTES} are possible; set a \
         shorter `socket` under [agent]"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length in bytes.
        length: usize,
    },
    /// Another agent, or a controller, is there.
    #[error("another process listens on {path}; stop it, or set another `socket` under [agent]")]
    Taken {
        /// The path.
        path: PathBuf,
    },
    /// A file or folder lies there.
    #[error("{path} exists and is not a socket; remove it, or set another `socket` under [agent]")]
    NotASocket {
        /// The path.
        path: PathBuf,
    },
    /// The system refused.
    #[error("cannot {what} {path}")]
    Io {
        /// `create`, `bind` and the like.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
}

/// Who is at the other end, from the kernel, as of the connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Peer {
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// The bound socket; dropping it removes the file.
#[derive(Debug)]
pub(super) struct Listener {
    listener: UnixListener,
    path: PathBuf,
    /// Held as long as we listen, so that two agents that start at once don't replace each
    /// other's sockets.
    _lock: Flock<File>,
}

impl Listener {
    pub(super) fn bind(path: &Path) -> Result<Self, GateError> {
        let length = path.as_os_str().len();
        if length > MAX_PATH_BYTES {
            return Err(GateError::PathTooLong { path: path.into(), length });
        }
        if let Some(parent) = path.parent() {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(parent)
                .map_err(|err| io_error("create", parent, err))?;
        }
        let lock = lock(path)?;
        remove_stale(path)?;
        let listener = UnixListener::bind(path).map_err(|err| io_error("bind", path, err))?;
        // Everybody may connect: who may do what is the controller's business.
        fs::set_permissions(path, Permissions::from_mode(0o666))
            .map_err(|err| io_error("open to everybody", path, err))?;
        Ok(Self { listener, path: path.into(), _lock: lock })
    }

    /// The next connection. Cancel-safe.
    pub(super) async fn accept(&self) -> io::Result<(UnixStream, Peer)> {
        let (stream, _) = self.listener.accept().await?;
        let peer = stream.peer_cred()?;
        Ok((stream, Peer { uid: peer.uid(), gid: peer.gid() }))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Err(err) = fs::remove_file(&self.path) {
            tracing::debug!(error = %err, "the gate's socket could not be removed");
        }
    }
}

fn lock(path: &Path) -> Result<Flock<File>, GateError> {
    let mut lock_path = path.as_os_str().to_owned();
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&lock_path)
        .map_err(|err| io_error("create", &lock_path, err))?;
    Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, errno)| match errno {
        Errno::EWOULDBLOCK => GateError::Taken { path: path.into() },
        errno => io_error("lock", &lock_path, errno.into()),
    })
}

/// Removes a socket that nobody listens on; refuses everything else that lies there.
fn remove_stale(path: &Path) -> Result<(), GateError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(err) if err.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(err) => return Err(io_error("look at", path, err)),
    };
    if !metadata.file_type().is_socket() {
        return Err(GateError::NotASocket { path: path.into() });
    }
    match StdUnixStream::connect(path) {
        Ok(_) => Err(GateError::Taken { path: path.into() }),
        Err(err) if err.kind() == io::ErrorKind::ConnectionRefused => {
            fs::remove_file(path).map_err(|err| io_error("remove", path, err))
        }
        Err(err) => Err(io_error("connect to", path, err)),
    }
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> GateError {
    GateError::Io { what, path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener as StdUnixListener;

    use super::*;

    #[tokio::test]
    async fn everybody_may_connect_and_the_kernel_says_who_did() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("run/penstock/agent.sock");
        let listener = Listener::bind(&path).unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o666);
        let _client = UnixStream::connect(&path).await.unwrap();
        let (_stream, peer) = listener.accept().await.unwrap();
        assert_eq!(peer.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(peer.gid, nix::unistd::getegid().as_raw());
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn only_a_socket_that_nobody_listens_on_is_replaced() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("agent.sock");
        drop(StdUnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let ours = Listener::bind(&path).unwrap();
        let err = Listener::bind(&path).unwrap_err();
        assert!(matches!(err, GateError::Taken { .. }), "{err}");
        assert!(StdUnixStream::connect(&path).is_ok());
        drop(ours);

        let theirs = StdUnixListener::bind(&path).unwrap();
        let err = Listener::bind(&path).unwrap_err();
        assert!(matches!(err, GateError::Taken { .. }), "{err}");
        drop(theirs);

        let file = tmp.path().join("file");
        fs::write(&file, "precious").unwrap();
        let err = Listener::bind(&file).unwrap_err();
        assert!(matches!(err, GateError::NotASocket { .. }), "{err}");
        assert_eq!(fs::read(&file).unwrap(), b"precious");
    }

    #[tokio::test]
    async fn a_path_that_the_kernel_cannot_take_is_refused_with_its_length() {
        let path = PathBuf::from(format!("/tmp/{}", "x".repeat(120)));
        let err = Listener::bind(&path).unwrap_err();
        assert!(err.to_string().contains("125 bytes, at most 107"), "{err}");
    }
}
