//! What are users and groups called?
//!
//! Names come from this host's passwd and group databases, which may be slow (LDAP): they are kept
//! for a while. A name that a client states is believed only where this host knows no better, and
//! never where it belongs to somebody else here.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a looked-up name is kept.
const KEPT: Duration = Duration::from_secs(60);
/// Most names that are kept of each kind.
const MOST: usize = 10_000;

/// Names of users and groups.
#[derive(Debug, Default)]
pub struct Users {
    users: Cache<u32, Option<String>>,
    groups: Cache<u32, Option<String>>,
    member_of: Cache<u32, Vec<Box<str>>>,
}

#[derive(Debug)]
struct Cache<K, V>(Mutex<HashMap<K, (Instant, V)>>);

impl<K, V> Default for Cache<K, V> {
    fn default() -> Self {
        Self(Mutex::new(HashMap::new()))
    }
}

impl<K: Eq + Hash + Copy, V: Clone> Cache<K, V> {
    fn get(&self, key: K, look_up: impl FnOnce() -> V) -> V {
        let mut map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, value)) = map.get(&key)
            && at.elapsed() < KEPT
        {
            return value.clone();
        }
        drop(map);
        let value = look_up();
        map = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if map.len() >= MOST {
            map.clear();
        }
        map.insert(key, (Instant::now(), value.clone()));
        value
    }
}

impl Users {
    /// The name of a user, as far as this host knows one.
    pub fn user(&self, uid: u32) -> Option<String> {
        self.users.get(uid, || {
            uzers::get_user_by_uid(uid).map(|user| user.name().to_string_lossy().into_owned())
        })
    }

    /// The name of a group, as far as this host knows one.
    pub fn group(&self, gid: u32) -> Option<String> {
        self.groups.get(gid, || {
            uzers::get_group_by_gid(gid).map(|group| group.name().to_string_lossy().into_owned())
        })
    }

    /// Names of the groups that a user is in.
    pub fn groups_of(&self, uid: u32, gid: u32) -> Vec<Box<str>> {
        self.member_of.get(uid, || {
            let Some(name) = self.user(uid) else { return Vec::new() };
            uzers::get_user_groups(&name, gid)
                .unwrap_or_default()
                .iter()
                .map(|group| group.name().to_string_lossy().into())
                .collect()
        })
    }

    /// The name to use for a user: this host's, else the stated one if nobody else has it here.
    pub fn user_or(&self, uid: u32, stated: &str) -> String {
        self.user(uid).unwrap_or_else(|| {
            let taken = uzers::get_user_by_name(stated).is_some();
            if stated.is_empty() || taken { uid.to_string() } else { stated.to_owned() }
        })
    }

    /// The name to use for a group, likewise.
    pub fn group_or(&self, gid: u32, stated: &str) -> String {
        self.group(gid).unwrap_or_else(|| {
            let taken = uzers::get_group_by_name(stated).is_some();
            if stated.is_empty() || taken { gid.to_string() } else { stated.to_owned() }
        })
    }

    /// The uid to record for a user: this host's, else the stated one, or the one that the name spells,
    /// if nobody has it here.
    pub fn uid_or(&self, name: &str, stated: Option<u32>) -> Option<u32> {
        let own = uzers::get_user_by_name(name).map(|user| user.uid());
        let free = |uid: &u32| self.user(*uid).is_none();
        own.or_else(|| stated.or_else(|| name.parse().ok()).filter(free))
    }

    /// The uid of a user name or of decimal digits.
    pub fn uid(&self, name: &str) -> Option<u32> {
        uzers::get_user_by_name(name).map(|user| user.uid()).or_else(|| name.parse().ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stated_number_counts_only_where_this_host_knows_no_better() {
        let users = Users::default();
        // Root is known everywhere; of the others nobody is.
        let table = [
            ("root", None, Some(0)),
            ("root", Some(4_000_000_001), Some(0)),
            ("nobody-of-this-name", Some(0), None),
            ("nobody-of-this-name", Some(4_000_000_001), Some(4_000_000_001)),
            ("nobody-of-this-name", None, None),
            ("0", None, None),
            ("4000000001", None, Some(4_000_000_001)),
        ];
        for (name, stated, uid) in table {
            assert_eq!(users.uid_or(name, stated), uid, "{name} {stated:?}");
        }
    }
}
