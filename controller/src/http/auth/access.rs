//! How are links, sessions and tokens made, believed and ended?

use std::fs::{self, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use penstock_vocab::Timestamp;
use rand::RngExt as _;

use super::revoked::{Revoked, RevokedError};
use super::sessions::Sessions;
use super::token::{Claims, TokenProblem, sign, verify};
use super::{Who, via_of, via_word};
use crate::config::HttpSection;

/// Bytes of the signing key, of a link's and of a session's secret: 256 bits.
const SECRET_BYTES: usize = 32;

/// Life of a token for which none is stated, seconds: Slurm's half hour.
const TOKEN_SECS: u64 = 1_800;

/// Why access can't be managed.
#[derive(Debug, thiserror::Error)]
pub enum AccessError {
    /// A file or folder.
    #[error("cannot {what} {}", path.display())]
    Io {
        /// `read`, `make` and the like.
        what: &'static str,
        /// Which.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The key can be read by others, or is not one.
    #[error("{} {why}; remove it to end all tokens, then start the controller again", path.display())]
    Key {
        /// The key's file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The list of what is revoked.
    #[error(transparent)]
    Revoked(#[from] RevokedError),
}

/// A token that was just made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAccessToken {
    /// The word itself.
    pub token: String,
    /// Its name, by which it can be revoked.
    pub id: String,
    /// When it ends.
    pub expires: Timestamp,
}

/// Links, sessions and tokens.
#[derive(Debug)]
pub struct Access {
    key: Key,
    revoked: Mutex<Revoked>,
    revoked_path: PathBuf,
    sessions: Sessions,
    /// What links begin with: `http://127.0.0.1:6830`.
    base: String,
    session_secs: u32,
    token_secs: u64,
}

/// Never shown.
struct Key([u8; SECRET_BYTES]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key")
    }
}

impl Access {
    /// Opens or makes the key in `state_dir`'s folder `http`. `base` is how browsers reach this.
    ///
    /// # Errors
    /// See [`AccessError`]; nothing is made anew where something is damaged.
    pub fn open(state_dir: &Path, http: &HttpSection, base: String) -> Result<Self, AccessError> {
        let dir = state_dir.join("http");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(|source| AccessError::Io { what: "make", path: dir.clone(), source })?;
        let key = open_key(&dir.join("key"))?;
        let revoked_path = dir.join("revoked");
        Ok(Self {
            key,
            revoked: Mutex::new(Revoked::read(&revoked_path)?),
            revoked_path,
            sessions: Sessions::default(),
            base,
            session_secs: http.session_secs,
            token_secs: http.token_secs.into(),
        })
    }

    /// A link that signs a browser in once, and when it ends; `None`: there are too many.
    pub fn link(&self, who: Who, now: Timestamp) -> Option<(String, Timestamp)> {
        let secret = secret();
        let ends = self.sessions.open_link(&secret, who, now)?;
        Some((format!("{}/login/{secret}", self.base), ends))
    }

    /// Follows a link: the secret of a new session and how long it lasts, seconds. `None`: the link was
    /// followed before, is too old, or never was.
    pub fn follow(&self, link: &str, now: Timestamp) -> Option<(String, u32, Who)> {
        let who = self.sessions.follow_link(link, now)?;
        let secret = secret();
        let opened = self.sessions.open(&secret, who.clone(), now, self.session_secs);
        opened.then_some((secret, self.session_secs, who))
    }

    /// Who the browser with this session's secret is.
    pub fn session(&self, secret: &str, now: Timestamp) -> Option<Who> {
        self.sessions.who(secret, now)
    }

    /// Ends a session.
    pub fn sign_out(&self, secret: &str) {
        self.sessions.close(secret);
    }

    /// How many browsers are signed in.
    pub fn session_count(&self, now: Timestamp) -> usize {
        self.sessions.count(now)
    }

    /// A token for `who`; `lifespan_secs` 0: the default.
    ///
    /// # Errors
    /// With a sentence, if it is to live longer than the cluster file lets it.
    pub fn token(
        &self,
        who: &Who,
        lifespan_secs: u64,
        now: Timestamp,
    ) -> Result<NewAccessToken, String> {
        let secs = if lifespan_secs == 0 { TOKEN_SECS.min(self.token_secs) } else { lifespan_secs };
        if secs > self.token_secs {
            return Err(format!(
                "a token may live {} s at most here, and {secs} s were asked for; an admin can raise \
                 token_secs in [http] of the cluster file",
                self.token_secs
            ));
        }
        let iat = now.0.div_euclid(1_000);
        let exp = iat.saturating_add(i64::try_from(secs).unwrap_or(i64::MAX));
        let id = hex(&rand::rng().random::<[u8; 8]>());
        let claims = Claims {
            exp,
            iat,
            ims: now.0,
            jti: id.clone(),
            sun: who.user.to_string(),
            uid: who.caller.uid,
            gid: who.caller.gid,
            via: via_word(&who.caller.via),
            ro: who.read_only,
        };
        let expires = Timestamp(exp.saturating_mul(1_000));
        Ok(NewAccessToken { token: sign(&self.key.0, &claims), id, expires })
    }

    /// Who a token stands for.
    ///
    /// # Errors
    /// Why it stands for nobody.
    pub fn believe(&self, token: &str, now: Timestamp) -> Result<Who, TokenProblem> {
        let claims = verify(&self.key.0, token, now.0)?;
        let revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        if revoked.has(&claims.jti, claims.uid, claims.ims) {
            return Err(TokenProblem::Revoked);
        }
        drop(revoked);
        let via = via_of(&claims.via).ok_or(TokenProblem::Foreign)?;
        let caller = crate::identity::Caller { uid: claims.uid, gid: claims.gid, via };
        Ok(Who { caller, user: claims.sun.into(), read_only: claims.ro })
    }

    /// Revokes one token of a user, or with an empty `id` all its tokens, sessions and links. Durable when
    /// it returns; reads and writes a file. Returns how many sessions ended.
    ///
    /// # Errors
    /// See [`RevokedError`]; then the tokens still count.
    pub fn revoke(&self, uid: u32, id: &str, now: Timestamp) -> Result<usize, RevokedError> {
        let mut revoked = self.revoked.lock().unwrap_or_else(PoisonError::into_inner);
        let mut next = revoked.clone();
        next.tidy(now.0);
        // As long as any token could live that is there now.
        let longest = i64::try_from(self.token_secs).unwrap_or(i64::MAX).saturating_mul(2);
        let exp = now.0.div_euclid(1_000).saturating_add(longest);
        if id.is_empty() {
            next.add_user(uid, now.0, exp);
        } else {
            next.add_token(id, uid, exp)?;
        }
        next.write(&self.revoked_path)?;
        *revoked = next;
        drop(revoked);
        Ok(if id.is_empty() { self.sessions.end_all(uid) } else { 0 })
    }

    /// What links begin with.
    #[must_use]
    pub fn base(&self) -> &str {
        &self.base
    }
}

fn open_key(path: &Path) -> Result<Key, AccessError> {
    let io = |what: &'static str| {
        let path = path.to_owned();
        move |source| AccessError::Io { what, path, source }
    };
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(mut file) => {
            let key = rand::rng().random::<[u8; SECRET_BYTES]>();
            file.write_all(&key).and_then(|()| file.sync_all()).map_err(io("write"))?;
            Ok(Key(key))
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => read_key(path),
        Err(source) => Err(io("make")(source)),
    }
}

fn read_key(path: &Path) -> Result<Key, AccessError> {
    let io = |source| AccessError::Io { what: "read", path: path.to_owned(), source };
    let bad = |why: String| AccessError::Key { path: path.to_owned(), why };
    let file = fs::File::open(path).map_err(io)?;
    let mode = file.metadata().map_err(io)?.permissions().mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(bad(format!("has mode {mode:04o}, so others can read it and make tokens")));
    }
    let mut bytes = Vec::with_capacity(SECRET_BYTES + 1);
    file.take(SECRET_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(io)?;
    let len = bytes.len();
    <[u8; SECRET_BYTES]>::try_from(bytes)
        .map(Key)
        .map_err(|_| bad(format!("has {len} bytes or more, and a key has {SECRET_BYTES}")))
}

fn secret() -> String {
    hex(&rand::rng().random::<[u8; SECRET_BYTES]>())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all that is written");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Caller, HostRole, Via};

    fn open(dir: &Path) -> Result<Access, AccessError> {
        Access::open(dir, &HttpSection::default(), "http://127.0.0.1:1".into())
    }

    fn who(uid: u32) -> Who {
        let via = Via::Host { name: "login1".into(), role: HostRole::Login };
        let caller = Caller { uid, gid: 100, via };
        Who { caller, user: "alice".into(), read_only: true }
    }

    #[test]
    fn a_token_stands_for_who_made_it_and_the_way_it_came_also_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let access = open(dir.path()).unwrap();
        let made = access.token(&who(7), 60, Timestamp(5_000)).unwrap();
        assert_eq!(made.expires, Timestamp(65_000));
        assert_eq!(access.believe(&made.token, Timestamp(6_000)), Ok(who(7)));
        let again = open(dir.path()).unwrap();
        assert_eq!(again.believe(&made.token, Timestamp(6_000)), Ok(who(7)));
        assert_eq!(again.believe(&made.token, Timestamp(65_000)), Err(TokenProblem::Expired));
        let elsewhere = tempfile::tempdir().unwrap();
        let other = open(elsewhere.path()).unwrap();
        assert_eq!(other.believe(&made.token, Timestamp(6_000)), Err(TokenProblem::Foreign));
    }

    #[test]
    fn what_was_revoked_stays_revoked_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let access = open(dir.path()).unwrap();
        let now = Timestamp(5_000);
        let [one, two] = [0, 1].map(|_| access.token(&who(7), 60, now).unwrap());
        access.revoke(7, &one.id, now).unwrap();
        let access = open(dir.path()).unwrap();
        assert_eq!(access.believe(&one.token, now), Err(TokenProblem::Revoked));
        assert_eq!(access.believe(&two.token, now), Ok(who(7)));
        let (link, _) = access.link(who(7), now).unwrap();
        let (session, _, _) = access.follow(link.rsplit('/').next().unwrap(), now).unwrap();
        assert_eq!(access.session(&session, now), Some(who(7)));
        assert_eq!(access.revoke(7, "", now).unwrap(), 1);
        assert_eq!(access.session(&session, now), None);
        assert_eq!(access.believe(&two.token, now), Err(TokenProblem::Revoked));
        let later = access.token(&who(7), 60, Timestamp(5_001)).unwrap();
        assert_eq!(access.believe(&later.token, Timestamp(5_001)), Ok(who(7)));
    }

    #[test]
    fn nobody_gets_a_longer_life_than_the_file_gives() {
        let dir = tempfile::tempdir().unwrap();
        let access = open(dir.path()).unwrap();
        let refused = access.token(&who(7), 30 * 86_400 + 1, Timestamp(0)).unwrap_err();
        assert!(refused.contains("token_secs"), "{refused}");
        assert_eq!(access.token(&who(7), 0, Timestamp(0)).unwrap().expires, Timestamp(1_800_000));
    }

    #[test]
    fn a_key_that_others_read_or_that_is_cut_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        open(dir.path()).unwrap();
        let key = dir.path().join("http/key");
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o7777, 0o600);
        fs::set_permissions(&key, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(open(dir.path()).unwrap_err().to_string().contains("0640"));
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&key, [1; 5]).unwrap();
        assert!(open(dir.path()).unwrap_err().to_string().contains("5 bytes"));
    }
}
