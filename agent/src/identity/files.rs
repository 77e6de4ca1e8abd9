//! What does this host remember of itself over a restart?
//!
//! Two files in `<state_dir>/identity`: `host.key`, made on the first start, and
//! `membership.pem`, written whole by a join: the host's certificate and the CA's below a few
//! lines that name cluster, host and role. A key without membership is a host that has not
//! joined; a membership without its key is refused, since a new key would not be believed.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use penstock_proto::v1::HostRole;
use rcgen::{KeyPair, PublicKeyData as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::ParsedCertificate;
use tonic::transport::Channel;

use super::dial::{self, Dialer, Windows};

const DIRECTORY: &str = "identity";
const KEY_FILE: &str = "host.key";
const MEMBERSHIP_FILE: &str = "membership.pem";

/// A launch carries up to 10 MiB; few are on their way at a time.
const LINK_WINDOWS: Windows = Windows { stream: 1 << 20, connection: 4 << 20 };
/// A reader that stops holds up at most its own 64 KiB: the connection's window has room for all
/// calls that the gate lets through at once (1,024), so that nobody waits for another's reader.
const GATE_WINDOWS: Windows = Windows { stream: 64 << 10, connection: 64 << 20 };

/// Why the host's identity is not usable.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key is gone and the certificate is not.
    #[error(
        "{membership} exists and {key} does not: this host can't prove who it is. Restore the key, \
         or remove {membership}, have the host reset at the controller and join again"
    )]
    KeyLost {
        /// The file that is there.
        membership: PathBuf,
        /// The file that is not.
        key: PathBuf,
    },
    /// The key can be read by others than its owner.
    #[error(
        "{path} has mode {mode:04o}, so others can read the host's key; run `chmod 600 {path}`, \
         and if it was not meant, have the host reset and join again"
    )]
    Exposed {
        /// The key's file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file's content is not what it should be.
    #[error(
        "{path} is damaged ({detail}); restore it, or remove it, have the host reset at the \
         controller and join again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// A file could not be read or written.
    #[error("cannot {what} {path}")]
    Io {
        /// `read`, `write` and the like.
        what: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// A key could not be made or used; this is a fault of ours or of the random source.
    #[error("cannot use the host's key: {detail}")]
    Crypto {
        /// What the library says.
        detail: String,
    },
    /// No certificate yet.
    #[error("this host has not joined a cluster; it needs a join token")]
    NotJoined,
}

/// The cluster that this host belongs to, and what it is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Membership {
    /// The name that is bound to this host's key.
    pub(crate) host: String,
    /// The cluster's name when the host joined.
    pub(crate) cluster: String,
    /// What the token made of the host.
    pub(crate) role: HostRole,
    pub(super) certificate: CertificateDer<'static>,
    pub(super) ca: CertificateDer<'static>,
}

/// This host's key and, once it has joined, its membership.
pub(crate) struct Identity {
    directory: PathBuf,
    pub(super) key: KeyPair,
    membership: Option<Membership>,
}

impl Identity {
    /// Opens what `state_dir` holds; on the first start makes the key, durably.
    ///
    /// # Errors
    /// Where the key is lost or exposed, a file is damaged, or it can't be read or written.
    pub(crate) fn open(state_dir: &Path) -> Result<Self, IdentityError> {
        let directory = state_dir.join(DIRECTORY);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&directory)
            .map_err(|err| io_error("create", &directory, err))?;
        let (key_path, path) = (directory.join(KEY_FILE), directory.join(MEMBERSHIP_FILE));
        let membership = read_if_there(&path)?;
        let key = match read_if_there(&key_path)? {
            Some(pem) => {
                check_mode(&key_path)?;
                KeyPair::from_pem(&pem).map_err(|err| damaged(&key_path, err.to_string()))?
            }
            None if membership.is_some() => {
                return Err(IdentityError::KeyLost { membership: path, key: key_path });
            }
            None => {
                let key = KeyPair::generate().map_err(crypto)?;
                write_whole(&directory, KEY_FILE, key.serialize_pem().as_bytes())?;
                key
            }
        };
        let membership = membership
            .map(|text| Membership::parse(&text, &key).map_err(|detail| damaged(&path, detail)))
            .transpose()?;
        Ok(Self { directory, key, membership })
    }

    /// The membership; `None` until the host has joined.
    pub(crate) fn membership(&self) -> Option<&Membership> {
        self.membership.as_ref()
    }

    /// A channel for the agent's own stream to the controller at `address` (`host:port`).
    ///
    /// It connects when first used and again after each loss; a call on it fails with
    /// `UNAVAILABLE` while there is no connection. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`IdentityError::NotJoined`] before a join.
    pub(crate) fn link_channel(&self, address: &str) -> Result<Channel, IdentityError> {
        self.channel(address, LINK_WINDOWS)
    }

    /// A channel for the calls that the gate forwards; otherwise as [`Identity::link_channel`].
    ///
    /// It is a connection of its own, so that no user's call can hold up the agent's stream.
    ///
    /// # Errors
    /// [`IdentityError::NotJoined`] before a join.
    pub(crate) fn gate_channel(&self, address: &str) -> Result<Channel, IdentityError> {
        self.channel(address, GATE_WINDOWS)
    }

    fn channel(&self, address: &str, windows: Windows) -> Result<Channel, IdentityError> {
        let membership = self.membership.as_ref().ok_or(IdentityError::NotJoined)?;
        let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(self.key.serialize_der()));
        let tls = dial::mutual_config(&membership.ca, membership.certificate.clone(), key)
            .map_err(crypto)?;
        Ok(dial::lazy_channel(Dialer::new(address, tls), windows))
    }

    /// Replaces the membership, durably.
    pub(super) fn store(
        &mut self,
        membership: Membership,
        pem: &str,
    ) -> Result<&Membership, IdentityError> {
        let text = membership.head() + pem;
        write_whole(&self.directory, MEMBERSHIP_FILE, text.as_bytes())?;
        Ok(self.membership.insert(membership))
    }
}

impl std::fmt::Debug for Identity {
    /// Never shows the key.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Identity").field("membership", &self.membership).finish_non_exhaustive()
    }
}

impl Membership {
    /// The lines above the certificates.
    fn head(&self) -> String {
        let Self { host, cluster, role, .. } = self;
        format!("cluster: {cluster}\nhost: {host}\nrole: {}\n", role.as_str_name())
    }

    /// Reads what [`Membership::head`] and two certificates make up; the error is a fragment.
    fn parse(text: &str, key: &KeyPair) -> Result<Self, String> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .ok_or_else(|| format!("it has no line that begins with `{name}: `"))
        };
        let role = field("role")?;
        let (certificate, ca) = certificates(text)?;
        check_key(&certificate, key)?;
        Ok(Self {
            host: field("host")?.to_owned(),
            cluster: field("cluster")?.to_owned(),
            role: HostRole::from_str_name(role).ok_or_else(|| format!("unknown role {role:?}"))?,
            certificate,
            ca,
        })
    }
}

/// The host's certificate and the CA's, in this order, from PEM.
pub(super) fn certificates(
    pem: &str,
) -> Result<(CertificateDer<'static>, CertificateDer<'static>), String> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<_, _>>()
        .map_err(|err| format!("a certificate in it is not readable: {err}"))?;
    let count = found.len();
    let pair: [_; 2] =
        found.try_into().map_err(|_| format!("it has {count} certificates instead of 2"))?;
    let [certificate, ca] = pair;
    Ok((certificate, ca))
}

/// Whether a certificate is for this key; the error is a fragment.
pub(super) fn check_key(certificate: &CertificateDer<'_>, key: &KeyPair) -> Result<(), String> {
    let parsed = ParsedCertificate::try_from(certificate)
        .map_err(|err| format!("its certificate is not readable: {err}"))?;
    if *parsed.subject_public_key_info() == *key.subject_public_key_info() {
        Ok(())
    } else {
        Err("its certificate is not for this host's key".to_owned())
    }
}

fn check_mode(path: &Path) -> Result<(), IdentityError> {
    let metadata = fs::metadata(path).map_err(|err| io_error("read", path, err))?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(IdentityError::Exposed { path: path.into(), mode }) }
}

fn read_if_there(path: &Path) -> Result<Option<String>, IdentityError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(err) if err.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(err) => Err(io_error("read", path, err)),
    }
}

/// Writes `name` so that after a crash it is there whole or as before; on disk when this returns.
fn write_whole(directory: &Path, name: &str, content: &[u8]) -> Result<(), IdentityError> {
    let (path, fresh) = (directory.join(name), directory.join(format!("{name}.new")));
    let write = || {
        match fs::remove_file(&fresh) {
            Err(err) if err.kind() != io::ErrorKind::NotFound => return Err(err),
            Ok(()) | Err(_) => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(directory)?.sync_all()
    };
    write().map_err(|err| io_error("write", &path, err))
}

fn damaged(path: &Path, detail: String) -> IdentityError {
    IdentityError::Damaged { path: path.into(), detail }
}

fn crypto(err: impl std::fmt::Display) -> IdentityError {
    IdentityError::Crypto { detail: err.to_string() }
}

fn io_error(what: &'static str, path: &Path, source: io::Error) -> IdentityError {
    IdentityError::Io { what, path: path.into(), source }
}
