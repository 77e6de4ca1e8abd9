//! Which tokens no longer count, although their time is not over?
//!
//! Single ones by name, and all of a user that were made before an instant. The file is written as a
//! whole (new file, fsync, rename, fsync of the folder) before the revocation is answered. What has
//! expired by itself is dropped at each writing, so that the file stays small.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Most single tokens that are remembered: whoever revokes more revokes all of a user instead.
const MOST: usize = 100_000;

/// Why a revocation did not happen.
#[derive(Debug, thiserror::Error)]
pub enum RevokedError {
    /// The file.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// `read`, `write` and the like.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The file's content.
    #[error("{} is damaged: {detail}; restore it, or remove it and http/key to end all tokens", path.display())]
    Damaged {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        detail: String,
    },
    /// Too many single tokens.
    #[error("{MOST} tokens are revoked one by one already; revoke all of a user instead")]
    TooMany,
}

/// What is revoked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Revoked {
    /// Tokens by name, with whose they are and until when they would have held, seconds.
    tokens: BTreeMap<String, (u32, i64)>,
    /// By uid: everything that was made up to this instant, milliseconds, and until when one of them could
    /// have held, seconds.
    users: BTreeMap<u32, (i64, i64)>,
}

impl Revoked {
    /// Reads the file; none: nothing is revoked.
    pub(super) fn read(path: &Path) -> Result<Self, RevokedError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(source) => {
                return Err(RevokedError::Io { what: "read", path: path.to_owned(), source });
            }
        };
        serde_json::from_slice(&bytes).map_err(|error| RevokedError::Damaged {
            path: path.to_owned(),
            detail: error.to_string(),
        })
    }

    /// Whether a token of this name and user, made at `made_ms`, is revoked.
    pub(super) fn has(&self, name: &str, uid: u32, made_ms: i64) -> bool {
        // A name is whoever's that made it up; only its owner's revocation counts.
        self.tokens.get(name).is_some_and(|(of, _)| *of == uid)
            || self.users.get(&uid).is_some_and(|(until, _)| made_ms <= *until)
    }

    /// Adds one token, which would have held until `exp` seconds at the latest.
    pub(super) fn add_token(&mut self, name: &str, uid: u32, exp: i64) -> Result<(), RevokedError> {
        if self.tokens.len() >= MOST {
            return Err(RevokedError::TooMany);
        }
        self.tokens.insert(name.to_owned(), (uid, exp));
        Ok(())
    }

    /// Adds all that a user made until `now_ms`.
    pub(super) fn add_user(&mut self, uid: u32, now_ms: i64, exp: i64) {
        self.users.insert(uid, (now_ms, exp));
    }

    /// Forgets what has expired at `now_ms`.
    pub(super) fn tidy(&mut self, now_ms: i64) {
        let live = |exp: i64| exp.saturating_mul(1_000) > now_ms;
        self.tokens.retain(|_, (_, exp)| live(*exp));
        self.users.retain(|_, (_, exp)| live(*exp));
    }

    /// Writes the file as a whole; durable when it returns.
    pub(super) fn write(&self, path: &Path) -> Result<(), RevokedError> {
        let new = path.with_extension("new");
        let io = |what| {
            let path = path.to_owned();
            move |source| RevokedError::Io { what, path, source }
        };
        let bytes = serde_json::to_vec(self).expect("names and numbers");
        let put = || -> io::Result<()> {
            let mut options = OpenOptions::new();
            let mut file =
                options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
            file.write_all(&bytes)?;
            file.sync_all()?;
            fs::rename(&new, path)?;
            let folder = path.parent().unwrap_or_else(|| Path::new("/"));
            File::open(folder)?.sync_all()
        };
        put().map_err(io("write"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn single_tokens_and_all_of_a_user_are_revoked_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revoked");
        assert_eq!(Revoked::read(&path).unwrap(), Revoked::default());
        let mut revoked = Revoked::default();
        revoked.add_token("a1", 1000, 50).unwrap();
        revoked.add_user(1001, 7_000, 60);
        revoked.write(&path).unwrap();
        let read = Revoked::read(&path).unwrap();
        assert_eq!(read, revoked);
        let table = [
            ("a1", 1000, 9_000, true),
            // Another user's token may have any name.
            ("a1", 1002, 9_000, false),
            ("b", 1001, 7_000, true),
            ("b", 1001, 7_001, false),
            ("b", 1000, 0, false),
        ];
        for (name, uid, made, expect) in table {
            assert_eq!(read.has(name, uid, made), expect, "{name} {uid} {made}");
        }
    }

    #[test]
    fn what_has_expired_is_forgotten() {
        let mut revoked = Revoked::default();
        revoked.add_token("old", 1, 50).unwrap();
        revoked.add_token("new", 1, 51).unwrap();
        revoked.add_user(1, 7, 50);
        revoked.tidy(50_000);
        assert!(!revoked.has("old", 1, 9) && revoked.has("new", 1, 9) && !revoked.has("x", 1, 7));
    }

    #[test]
    fn a_damaged_file_is_not_taken_for_an_empty_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("revoked");
        fs::write(&path, "{\"tokens\":").unwrap();
        assert!(matches!(Revoked::read(&path), Err(RevokedError::Damaged { .. })));
    }
}
