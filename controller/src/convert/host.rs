//! How are hosts and join tokens stored and sent?

use bytes::Bytes;
use penstock_core::model::{Host, JoinToken};
use penstock_proto::v1;
use penstock_vocab::{Timestamp, UserId};

use super::codes;
use super::error::ConvertError;

/// A host as the wire and the store have it.
#[must_use]
pub fn host_to_wire(host: &Host) -> v1::Host {
    v1::Host {
        name: host.name.to_string(),
        role: codes::role(host.role) as i32,
        key_hash: Bytes::copy_from_slice(&host.key_hash),
        joined_ms: host.joined.0,
        revoked: host.revoked,
        token_id: host.token_id.to_string(),
    }
}

/// Inverse of [`host_to_wire`].
///
/// # Errors
/// If the role is unknown or the hash is none.
pub fn host_from_wire(host: v1::Host) -> Result<Host, ConvertError> {
    Ok(Host {
        role: codes::role_from(host.role)?,
        key_hash: hash("the hash of the host's key", &host.key_hash)?,
        name: host.name.into(),
        joined: Timestamp(host.joined_ms),
        revoked: host.revoked,
        token_id: host.token_id.into(),
    })
}

/// A join token as the wire and the store have it. The wire's copy goes to admins alone.
#[must_use]
pub fn token_to_wire(token: &JoinToken) -> v1::JoinToken {
    v1::JoinToken {
        id: token.id.to_string(),
        secret_hash: Bytes::copy_from_slice(&token.secret_hash),
        role: codes::role(token.role) as i32,
        expires_ms: token.expires.0,
        uses_left: token.uses_left,
        created_ms: token.created.0,
        created_by_uid: token.created_by.0,
    }
}

/// Inverse of [`token_to_wire`].
///
/// # Errors
/// If the role is unknown or the hash is none.
pub fn token_from_wire(token: v1::JoinToken) -> Result<JoinToken, ConvertError> {
    Ok(JoinToken {
        role: codes::role_from(token.role)?,
        secret_hash: hash("the hash of the token's secret", &token.secret_hash)?,
        id: token.id.into(),
        expires: Timestamp(token.expires_ms),
        uses_left: token.uses_left,
        created: Timestamp(token.created_ms),
        created_by: UserId(token.created_by_uid),
    })
}

fn hash(what: &'static str, bytes: &[u8]) -> Result<[u8; 32], ConvertError> {
    let wrong = |_| ConvertError::invalid(what, format!("{} bytes instead of 32", bytes.len()));
    bytes.try_into().map_err(wrong)
}
