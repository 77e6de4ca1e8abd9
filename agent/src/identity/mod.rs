//! Who is this host, and to which controller does it speak?
//!
//! The host makes a key on its first start; the key never leaves it. [`Identity::join`] trades a
//! join token for a certificate, over a connection on which the controller's CA was checked
//! against the fingerprint in the token. From then on [`Identity::link_channel`] and
//! [`Identity::gate_channel`] give connections on which both sides prove themselves. The address
//! of the controller proves nothing and may change: its certificate says `penstock-controller`.

mod dial;
mod files;
mod join;
#[cfg(test)]
mod tests;
mod token;
mod verify;

pub(crate) use files::{Identity, IdentityError};
pub(crate) use join::JoinError;
pub(crate) use token::{JoinToken, TokenError};

/// The DNS name in the controller's certificate, whatever address it is reached by.
const SERVER_NAME: &str = "penstock-controller";

/// Lowercase hex, as fingerprints are shown.
fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;

    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes all that is written");
        text
    })
}
