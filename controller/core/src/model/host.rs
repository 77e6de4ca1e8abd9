//! Which hosts may speak to the controller, and in which role?

use penstock_vocab::{Timestamp, UserId};

/// What a host may do for its users.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostRole {
    /// Runs jobs; writes only for users with a job there.
    Compute,
    /// Speaks for any user, never for admin acts.
    Login,
    /// Also forwards admin acts.
    Admin,
}

/// A host that has joined.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Name, bound to its first key.
    pub name: Box<str>,
    /// Role that its token gave.
    pub role: HostRole,
    /// sha256 of its public key.
    pub key_hash: [u8; 32],
    /// When it joined.
    pub joined: Timestamp,
    /// Cut off.
    pub revoked: bool,
    /// Token it joined by.
    pub token_id: Box<str>,
}

/// A join token; of its secret only the hash is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinToken {
    /// Public part.
    pub id: Box<str>,
    /// sha256 of the secret.
    pub secret_hash: [u8; 32],
    /// Role of hosts that join by it.
    pub role: HostRole,
    /// No longer good after this.
    pub expires: Timestamp,
    /// How many hosts may still join by it.
    pub uses_left: u32,
    /// When it was made.
    pub created: Timestamp,
    /// By whom.
    pub created_by: UserId,
}
