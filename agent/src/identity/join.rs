//! How does a host become one of the cluster?

use std::sync::Mutex;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use penstock_proto::v1::agent_link_client::AgentLinkClient;
use penstock_proto::v1::{HostRole, JoinReply, JoinRequest};
use rcgen::{CertificateParams, DistinguishedName, DnType};
use tonic::{Code, Status};

use super::dial::{self, DialError, Dialer, Windows};
use super::files::{self, Identity, IdentityError, Membership};
use super::token::JoinToken;
use super::verify::{WrongCa, fingerprint};

/// The answer waits for the controller's disk, and perhaps for a store that is catching up.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
const WINDOWS: Windows = Windows { stream: 64 << 10, connection: 64 << 10 };

/// Why a host did not join.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    /// The controller belongs to another cluster than the token; nothing was sent to it.
    #[error("the controller at {address} is not the one that made the token")]
    WrongCa {
        /// Its address.
        address: String,
        /// Both fingerprints.
        source: WrongCa,
    },
    /// No connection; worth another try.
    #[error("cannot reach the controller at {address}")]
    Unreachable {
        /// Its address.
        address: String,
        /// Why.
        source: DialError,
    },
    /// The connection broke or no answer came; worth another try with the same token.
    #[error("no answer from the controller at {address}: {text}")]
    Interrupted {
        /// Its address.
        address: String,
        /// What happened.
        text: String,
    },
    /// Another key has this host's name.
    #[error("the controller does not take this host as {host}: {text}")]
    NameTaken {
        /// The name.
        host: String,
        /// The controller's text.
        text: String,
    },
    /// The token is unknown, used up, expired or false, or the name is not usable.
    #[error("the controller refuses the join: {text}")]
    Refused {
        /// The controller's text.
        text: String,
    },
    /// The controller's answer makes no sense; a fault of ours.
    #[error("the controller's answer to the join is not usable: {detail}")]
    BadAnswer {
        /// What is wrong with it.
        detail: String,
    },
    /// The answer could not be kept, or no request could be made.
    #[error(transparent)]
    Identity(#[from] IdentityError),
}

impl JoinError {
    /// Whether the same call may succeed later without anybody doing anything.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Interrupted { .. } => true,
            Self::WrongCa { .. }
            | Self::NameTaken { .. }
            | Self::Refused { .. }
            | Self::BadAnswer { .. }
            | Self::Identity(_) => false,
        }
    }
}

impl Identity {
    /// Joins, as `host`, the cluster whose controller listens at `address` (`host:port`).
    ///
    /// The token's secret is sent only after the CA was checked against the token's fingerprint.
    /// When this returns, the membership is on disk. A host that has joined may join again, with
    /// the same key; that replaces the membership. A join that was interrupted may be repeated.
    ///
    /// # Errors
    /// See [`JoinError`]; the identity is then as before.
    pub(crate) async fn join(
        &mut self,
        address: &str,
        token: &JoinToken,
        host: &str,
    ) -> Result<&Membership, JoinError> {
        let request = JoinRequest {
            token_id: token.id.clone(),
            token_secret: token.secret.clone(),
            host: host.to_owned(),
            csr: self.request(host)?.into(),
        };
        let reply = ask(address, token.fingerprint, request).await?;
        let membership =
            self.check(&reply, token, host).map_err(|detail| JoinError::BadAnswer { detail })?;
        let pem = format!("{}{}", reply.certificate, reply.ca_certificate);
        Ok(self.store(membership, &pem)?)
    }

    /// A certificate request; of the name in it the controller takes no notice.
    fn request(&self, host: &str) -> Result<Vec<u8>, IdentityError> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, host);
        let request = params
            .serialize_request(&self.key)
            .map_err(|err| IdentityError::Crypto { detail: err.to_string() })?;
        Ok(request.der().to_vec())
    }

    fn check(
        &self,
        reply: &JoinReply,
        token: &JoinToken,
        host: &str,
    ) -> Result<Membership, String> {
        let (certificate, ca) =
            files::certificates(&format!("{}{}", reply.certificate, reply.ca_certificate))?;
        files::check_key(&certificate, &self.key)?;
        if fingerprint(&ca) != token.fingerprint {
            return Err("its CA is not that of the connection".to_owned());
        }
        let role = reply.role();
        if role == HostRole::Unspecified {
            return Err("it names no role".to_owned());
        }
        if [&*reply.cluster, host].iter().any(|name| name.contains(char::is_control)) {
            return Err("a name in it has control characters".to_owned());
        }
        let (host, cluster) = (host.to_owned(), reply.cluster.clone());
        Ok(Membership { host, cluster, role, certificate, ca })
    }
}

/// Connects, checks the CA, and only then sends the request.
async fn ask(
    address: &str,
    fingerprint: [u8; 32],
    request: JoinRequest,
) -> Result<JoinReply, JoinError> {
    let dialer = Dialer::new(address, dial::pinned_config(fingerprint));
    let stream = dialer.dial().await.map_err(|source| match source.wrong_ca() {
        Some(wrong) => JoinError::WrongCa { address: address.to_owned(), source: wrong.clone() },
        None => JoinError::Unreachable { address: address.to_owned(), source },
    })?;
    // The one connection that was checked is used, once.
    let stream = Mutex::new(Some(stream));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = stream.lock().ok().and_then(|mut stream| stream.take());
        async move { stream.map(TokioIo::new).ok_or("the connection was lost") }
    });
    let interrupted = |text: String| JoinError::Interrupted { address: address.to_owned(), text };
    let channel = dial::endpoint(WINDOWS)
        .timeout(ANSWER_TIMEOUT)
        .connect_with_connector(connector)
        .await
        .map_err(|err| interrupted(err.to_string()))?;
    let host = request.host.clone();
    match AgentLinkClient::new(channel).join(request).await {
        Ok(reply) => Ok(reply.into_inner()),
        Err(status) => Err(refusal(host, &status)
            .unwrap_or_else(|| interrupted(format!("{:?}: {}", status.code(), status.message())))),
    }
}

/// The controller's own decision; `None` where it took none.
fn refusal(host: String, status: &Status) -> Option<JoinError> {
    let text = status.message().to_owned();
    match status.code() {
        Code::AlreadyExists => Some(JoinError::NameTaken { host, text }),
        Code::PermissionDenied
        | Code::Unauthenticated
        | Code::FailedPrecondition
        | Code::InvalidArgument
        | Code::NotFound
        | Code::OutOfRange
        | Code::Unimplemented => Some(JoinError::Refused { text }),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => None,
    }
}
