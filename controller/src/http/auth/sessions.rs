//! Which links are open, and which browsers are signed in?
//!
//! Both are known by the hash of their secret alone. A link is good once and for minutes; following it
//! makes a session. A user has a few of each: a further one takes the oldest one's place.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use penstock_vocab::Timestamp;

use super::Who;
use crate::identity::secret_hash;

/// How long a link is good, milliseconds.
pub(super) const LINK_MS: i64 = 300_000;
/// Most open links of one user.
const LINKS_OF_ONE: usize = 16;
/// Most sessions of one user.
const SESSIONS_OF_ONE: usize = 32;
/// Most of each kind in all; one more is refused.
const MOST: usize = 50_000;

type Secrets = BTreeMap<[u8; 32], Entry>;

#[derive(Debug)]
struct Entry {
    who: Who,
    made: Timestamp,
    ends: Timestamp,
}

/// Links and sessions.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    links: Secrets,
    sessions: Secrets,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a link; `None`: there are too many. Returns when it ends.
    pub(super) fn open_link(&self, secret: &str, who: Who, now: Timestamp) -> Option<Timestamp> {
        let ends = Timestamp(now.0.saturating_add(LINK_MS));
        put(&mut self.lock().links, secret, Entry { who, made: now, ends }, LINKS_OF_ONE)
            .then_some(ends)
    }

    /// Follows a link: whose it is, once.
    pub(super) fn follow_link(&self, secret: &str, now: Timestamp) -> Option<Who> {
        let entry = self.lock().links.remove(&secret_hash(secret))?;
        (entry.ends > now).then_some(entry.who)
    }

    /// Signs a browser in for `secs`; false: there are too many.
    pub(super) fn open(&self, secret: &str, who: Who, now: Timestamp, secs: u32) -> bool {
        let ends = Timestamp(now.0.saturating_add(i64::from(secs) * 1_000));
        put(&mut self.lock().sessions, secret, Entry { who, made: now, ends }, SESSIONS_OF_ONE)
    }

    /// Who a browser is.
    pub(super) fn who(&self, secret: &str, now: Timestamp) -> Option<Who> {
        let inner = self.lock();
        let entry = inner.sessions.get(&secret_hash(secret))?;
        (entry.ends > now).then(|| entry.who.clone())
    }

    /// Signs a browser out.
    pub(super) fn close(&self, secret: &str) {
        self.lock().sessions.remove(&secret_hash(secret));
    }

    /// Ends all links and sessions of a user; returns how many sessions.
    pub(super) fn end_all(&self, uid: u32) -> usize {
        let mut inner = self.lock();
        inner.links.retain(|_, entry| entry.who.caller.uid != uid);
        let before = inner.sessions.len();
        inner.sessions.retain(|_, entry| entry.who.caller.uid != uid);
        before - inner.sessions.len()
    }

    /// How many browsers are signed in at `now`.
    pub(super) fn count(&self, now: Timestamp) -> usize {
        self.lock().sessions.values().filter(|entry| entry.ends > now).count()
    }
}

/// Puts an entry in; the oldest of its user goes where there are `of_one`.
fn put(secrets: &mut Secrets, secret: &str, entry: Entry, of_one: usize) -> bool {
    let now = entry.made;
    secrets.retain(|_, old| old.ends > now);
    let uid = entry.who.caller.uid;
    let own = || secrets.iter().filter(|(_, old)| old.who.caller.uid == uid);
    if own().count() >= of_one {
        let oldest = own().min_by_key(|(_, old)| old.made).map(|(hash, _)| *hash);
        oldest.map(|hash| secrets.remove(&hash));
    }
    if secrets.len() >= MOST {
        return false;
    }
    secrets.insert(secret_hash(secret), entry);
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Caller, Via};

    fn who(uid: u32) -> Who {
        let caller = Caller { uid, gid: uid, via: Via::ControllerSocket };
        Who { caller, user: format!("u{uid}").into(), read_only: false }
    }

    #[test]
    fn a_link_is_good_once_and_for_minutes() {
        let sessions = Sessions::default();
        sessions.open_link("a", who(1), Timestamp(0)).unwrap();
        assert_eq!(sessions.follow_link("b", Timestamp(1)), None);
        assert_eq!(sessions.follow_link("a", Timestamp(1)), Some(who(1)));
        assert_eq!(sessions.follow_link("a", Timestamp(1)), None);
        sessions.open_link("c", who(1), Timestamp(0)).unwrap();
        assert_eq!(sessions.follow_link("c", Timestamp(LINK_MS)), None);
    }

    #[test]
    fn a_session_ends_by_time_by_hand_and_with_its_user() {
        let sessions = Sessions::default();
        assert!(sessions.open("a", who(1), Timestamp(0), 10));
        assert_eq!(sessions.who("a", Timestamp(9_999)), Some(who(1)));
        assert_eq!(sessions.who("a", Timestamp(10_000)), None);
        assert!(sessions.open("b", who(1), Timestamp(0), 10));
        sessions.close("b");
        assert_eq!(sessions.who("b", Timestamp(1)), None);
        for secret in ["c", "d"] {
            assert!(sessions.open(secret, who(2), Timestamp(1), 10));
        }
        assert_eq!(sessions.end_all(2), 2);
        assert_eq!(sessions.who("c", Timestamp(2)), None);
        assert_eq!(sessions.who("a", Timestamp(2)), Some(who(1)));
    }

    #[test]
    fn a_user_has_a_few_and_takes_no_place_of_others() {
        let sessions = Sessions::default();
        assert!(sessions.open("other", who(2), Timestamp(0), 10));
        for number in 0..=SESSIONS_OF_ONE {
            let now = Timestamp(i64::try_from(number).unwrap());
            assert!(sessions.open(&number.to_string(), who(1), now, 10));
        }
        let now = Timestamp(100);
        assert_eq!(sessions.count(now), SESSIONS_OF_ONE + 1);
        assert_eq!(sessions.who("0", now), None);
        assert_eq!(sessions.who("1", now), Some(who(1)));
        assert_eq!(sessions.who("other", now), Some(who(2)));
    }
}
