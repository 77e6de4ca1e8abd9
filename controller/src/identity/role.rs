//! What did the token that a host joined with make it?

use std::fmt;

use penstock_proto::v1;

/// What a host may say on behalf of its users; named by the token it joined with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum HostRole {
    /// Runs jobs; speaks for the users whose jobs run on it.
    Compute,
    /// Runs no jobs; speaks for any user, never for admins.
    Login,
    /// Speaks for any user and forwards admin acts of those who may do them.
    Admin,
}

impl HostRole {
    /// The word for it in tokens, listings and texts.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Login => "login",
            Self::Admin => "admin",
        }
    }

    /// Reads the wire's value; `None` where it names no role.
    pub fn from_wire(role: v1::HostRole) -> Option<Self> {
        match role {
            v1::HostRole::Unspecified => None,
            v1::HostRole::Compute => Some(Self::Compute),
            v1::HostRole::Login => Some(Self::Login),
            v1::HostRole::Admin => Some(Self::Admin),
        }
    }

    /// The wire's value.
    pub fn to_wire(self) -> v1::HostRole {
        match self {
            Self::Compute => v1::HostRole::Compute,
            Self::Login => v1::HostRole::Login,
            Self::Admin => v1::HostRole::Admin,
        }
    }
}

impl fmt::Display for HostRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
