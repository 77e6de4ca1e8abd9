//! Who is calling, and what may they do?
//!
//! The controller is its own certificate authority ([`Ca`]). A host joins once with a counted,
//! expiring token ([`NewToken`]), gets a certificate for a key that never leaves it, and from
//! then on is known by the hash of that key. Users hold no secret: the daemon of their host
//! reads their uid from the kernel and states it on the host's mutual-TLS connection.
//! [`CallerInterceptor`] turns a connection into a [`Caller`]; [`authorize`] says what that
//! caller may do. What a host may say for its users depends on the role its token named.
//!
//! Invariants: the headers that state a uid count only on a connection that proved a host's key;
//! no rule looks at names inside certificates; a revoked host is refused at its next call.

mod authorize;
mod ca;
mod caller;
mod role;
#[cfg(test)]
mod tests;
mod tls;
mod token;

pub use authorize::{Action, Authority, Denied, Facts, authorize};
pub use ca::{Ca, CaError, SERVER_NAME, SignError, Signed};
pub use caller::{
    CONTROLLER_HOST, Caller, CallerInterceptor, HostDirectory, HostIdentity, Via, caller_of,
    host_of,
};
pub use role::HostRole;
pub use tls::{key_hash, peer_key_hash, server_tls_config};
pub use token::{NewToken, secret_hash, secret_matches};
