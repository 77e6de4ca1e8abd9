//! Who is behind this HTTP request?
//!
//! Nobody proves anything over HTTP that the kernel has not said before: a link or a token is asked
//! for through a local socket, where the uid is known, and stands for that uid *and the way it came*.
//! A token that was made through a login host can do what its user can do there, and no more. Links
//! and sessions live in this process's memory, by the hashes of their secrets; tokens are signed by a
//! key in the state directory, and what was revoked of them is in a file beside it.

mod access;
mod revoked;
mod sessions;
mod token;

pub use access::{Access, AccessError, NewAccessToken};
pub use revoked::RevokedError;
pub use token::TokenProblem;

use std::sync::Arc;

use crate::identity::{Caller, HostRole, Via};

/// Somebody who was let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The uid, and the way it was learned.
    pub caller: Caller,
    /// Login name.
    pub user: Arc<str>,
    /// May look and change nothing.
    pub read_only: bool,
}

/// A way as one word: `controller`, or `login:HOST`.
fn via_word(via: &Via) -> String {
    match via {
        Via::ControllerSocket => "controller".to_owned(),
        Via::Host { name, role } => format!("{role}:{name}"),
    }
}

/// The way that a word names.
fn via_of(word: &str) -> Option<Via> {
    if word == "controller" {
        return Some(Via::ControllerSocket);
    }
    let (role, name) = word.split_once(':')?;
    let roles = [HostRole::Compute, HostRole::Login, HostRole::Admin];
    let role = roles.into_iter().find(|known| known.as_str() == role)?;
    Some(Via::Host { name: name.into(), role })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ways_are_kept_by_their_words() {
        let ways = [
            Via::ControllerSocket,
            Via::Host { name: "n1".into(), role: HostRole::Compute },
            Via::Host { name: "login:1".into(), role: HostRole::Login },
            Via::Host { name: "head".into(), role: HostRole::Admin },
        ];
        for way in ways {
            assert_eq!(via_of(&via_word(&way)), Some(way));
        }
        for wrong in ["", "controller:x", "root:n1", "login"] {
            assert_eq!(via_of(wrong), None, "{wrong}");
        }
    }
}
