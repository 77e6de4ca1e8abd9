//! How does this host become and stay a member, so that it can be connected?

use std::io;
use std::path::PathBuf;

use penstock_proto::v1::HostRole;
use tokio::sync::{Mutex, watch};
use tonic::transport::Channel;
use tracing::{info, warn};

use crate::config::{AgentConfig, TokenSource};
use crate::identity::{Identity, IdentityError, JoinError, JoinToken, TokenError};
use crate::link::{Dial, DialError};

/// Largest token file, in bytes: several times a token.
const MAX_TOKEN_BYTES: u64 = 4 << 10;

/// Why this host is no member.
#[derive(Debug, thiserror::Error)]
enum EnrolError {
    #[error(
        "this host has not joined and has no token; set token_file = \"...\" in [agent], with a \
         token from `penstock token create`"
    )]
    NoToken,
    #[error("cannot read the join token from {}", path.display())]
    TokenFile { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Token(#[from] TokenError),
    #[error(
        "this host joined as {joined:?} and is called {named:?} in the file; set name = \
         {joined:?}, or remove the agent's identity folder and join again"
    )]
    Renamed { joined: String, named: String },
}

/// Joins where needed, then connects.
pub(crate) struct Member {
    config: AgentConfig,
    identity: Mutex<Identity>,
    gate: watch::Sender<Option<Channel>>,
}

impl Member {
    /// A host with this identity. `gate` gets a channel for the commands of this host as soon as
    /// it has joined; needs a tokio runtime.
    ///
    /// # Errors
    /// When the identity is not usable.
    pub(crate) fn new(
        config: AgentConfig,
        identity: Identity,
        gate: watch::Sender<Option<Channel>>,
    ) -> Result<Self, IdentityError> {
        if identity.membership().is_some() {
            gate.send_replace(Some(identity.gate_channel(&config.controller)?));
        }
        Ok(Self { config, identity: Mutex::new(identity), gate })
    }

    fn token(&self) -> Result<JoinToken, EnrolError> {
        let text = match &self.config.token {
            TokenSource::None => return Err(EnrolError::NoToken),
            TokenSource::Inline(text) => text.clone(),
            TokenSource::File(path) => read_token(path.clone())?,
        };
        Ok(text.parse()?)
    }

    async fn join(&self, identity: &mut Identity) -> Result<(), DialError> {
        let token = self.token().map_err(|error| DialError::Refused(Box::new(error)))?;
        let (address, name) = (&self.config.controller, self.config.name.as_str());
        let membership = identity.join(address, &token, name).await.map_err(join_error)?;
        let role = membership.role;
        info!(cluster = membership.cluster, host = membership.host, role = name_of(role), "joined");
        if role != HostRole::Compute && self.config.claims_resources() {
            warn!(
                "the join token made this a {} host, which runs no jobs: cpus, memory, gres and \
                 features of [agent] count for nothing; for a node, make a token with \
                 `penstock token create --role compute`, remove the agent's identity folder, have \
                 the host reset and join again",
                name_of(role)
            );
        }
        let channel = identity.gate_channel(address).map_err(identity_error)?;
        self.gate.send_replace(Some(channel));
        Ok(())
    }
}

impl Dial for Member {
    async fn dial(&self) -> Result<Channel, DialError> {
        let mut identity = self.identity.lock().await;
        if identity.membership().is_none() {
            self.join(&mut identity).await?;
        }
        let named = self.config.name.as_str();
        if let Some(joined) = identity.membership().map(|member| member.host.as_str())
            && joined != named
        {
            let (joined, named) = (joined.to_owned(), named.to_owned());
            return Err(DialError::Refused(Box::new(EnrolError::Renamed { joined, named })));
        }
        identity.link_channel(&self.config.controller).map_err(identity_error)
    }
}

fn read_token(path: PathBuf) -> Result<String, EnrolError> {
    use std::io::Read as _;

    let mut text = String::new();
    match std::fs::File::open(&path)
        .and_then(|file| file.take(MAX_TOKEN_BYTES).read_to_string(&mut text))
    {
        Ok(_) => Ok(text),
        Err(source) => Err(EnrolError::TokenFile { path, source }),
    }
}

fn name_of(role: HostRole) -> &'static str {
    match role {
        HostRole::Unspecified => "nameless",
        HostRole::Compute => "compute",
        HostRole::Login => "login",
        HostRole::Admin => "admin",
    }
}

fn join_error(error: JoinError) -> DialError {
    if error.is_transient() {
        DialError::NotReached(Box::new(error))
    } else {
        DialError::Refused(Box::new(error))
    }
}

fn identity_error(error: IdentityError) -> DialError {
    DialError::Refused(Box::new(error))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn member(folder: &Path, token: &str) -> Member {
        let text = format!("[agent]\ncontroller = '127.0.0.1:1'\nname = 'n1'\n{token}");
        let config = AgentConfig::parse(&text, &folder.join("c.toml")).expect("valid");
        let identity = Identity::open(&folder.join("state")).expect("made");
        Member::new(config, identity, watch::Sender::new(None)).expect("no channel needed")
    }

    fn text(error: &dyn std::error::Error) -> String {
        let source = error.source().map(text).unwrap_or_default();
        format!("{error}: {source}")
    }

    #[tokio::test]
    async fn without_a_usable_token_the_way_out_is_said() {
        let folder = tempfile::tempdir().expect("folder");
        std::fs::write(folder.path().join("wrong"), "no token\n").expect("written");
        for (token, expect) in [
            ("", "set token_file"),
            ("token_file = 'missing'", "missing"),
            ("token_file = 'wrong'", "pst1"),
            ("token = 'pst1.x'", "2 parts"),
        ] {
            let error = member(folder.path(), token).dial().await.expect_err(token);
            assert!(matches!(error, DialError::Refused(_)), "{error:?}");
            assert!(text(&error).contains(expect), "{} lacks {expect:?}", text(&error));
        }
    }

    #[tokio::test]
    async fn a_controller_that_is_not_there_may_come() {
        let folder = tempfile::tempdir().expect("folder");
        let token = format!("pst1.{}.{}.{}", "0".repeat(8), "1".repeat(32), "2".repeat(64));
        let member = member(folder.path(), &format!("token = '{token}'"));
        let error = member.dial().await.expect_err("nobody listens on port 1");
        assert!(matches!(error, DialError::NotReached(_)), "{error:?}");
        assert!(member.gate.borrow().is_none());
    }
}
