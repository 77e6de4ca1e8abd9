//! What do all answers over HTTP share?

use std::sync::Arc;

use http::{HeaderMap, header};
use penstock_vocab::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::auth::{Access, Who};
use super::body::Bodies;
use super::names::Names;
use super::problem::Problem;
use super::rest::events::MOST_STREAMS;
use super::shapes::Shapes;
use super::traffic::Traffic;
use crate::http::feed::Events;
use crate::rpc::{Service, Shared};

/// What handlers need.
pub(super) struct Web {
    pub(super) shared: Arc<Shared>,
    /// What gRPC calls go to.
    pub(super) service: Service,
    pub(super) access: Arc<Access>,
    pub(super) names: Names,
    pub(super) shapes: Shapes,
    pub(super) bodies: Bodies,
    pub(super) traffic: Traffic,
    pub(super) events: Arc<Events>,
    /// Places for streams of events.
    pub(super) streams: Arc<Semaphore>,
    /// The controller goes down.
    pub(super) stop: CancellationToken,
    /// The name of the session's cookie. Cookies know no ports, so that it has ours in it: several
    /// controllers on one machine leave each other alone.
    pub(super) cookie: String,
}

impl Web {
    pub(super) fn new(
        shared: Arc<Shared>,
        access: Arc<Access>,
        names: Names,
        shapes: Shapes,
        port: u16,
        stop: CancellationToken,
    ) -> Arc<Self> {
        // Browsers keep a cookie of this prefix to one host and to TLS.
        let prefix = if names.scheme() == "https" { "__Host-" } else { "" };
        Arc::new(Self {
            service: Service::new(Arc::clone(&shared)),
            shared,
            access,
            names,
            shapes,
            bodies: Bodies::default(),
            traffic: Traffic::default(),
            events: Arc::default(),
            streams: Arc::new(Semaphore::new(MOST_STREAMS)),
            stop,
            cookie: format!("{prefix}penstock-{port}"),
        })
    }

    /// The controller's time.
    pub(super) fn now(&self) -> Timestamp {
        self.shared.clock.now()
    }

    /// The secret in the session's cookie. Two of one name are none: one may be foreign.
    pub(super) fn session_cookie(&self, headers: &HeaderMap) -> Option<String> {
        let mut own = headers
            .get_all(header::COOKIE)
            .iter()
            .filter_map(|header| header.to_str().ok())
            .flat_map(|header| header.split(';'))
            .filter_map(|pair| pair.trim().split_once('='))
            .filter(|(name, _)| *name == self.cookie);
        match (own.next(), own.next()) {
            (Some((_, secret)), None) => Some(secret.to_owned()),
            (None, _) | (Some(_), Some(_)) => None,
        }
    }

    /// `Set-Cookie` that signs a browser in for so many seconds; 0: out.
    pub(super) fn set_cookie(&self, secret: &str, secs: u32) -> String {
        let secure = if self.names.scheme() == "https" { "; Secure" } else { "" };
        format!(
            "{}={secret}; Path=/; Max-Age={secs}; HttpOnly; SameSite=Strict{secure}",
            self.cookie
        )
    }
}

/// A call of the services as `who`.
pub(super) fn asked<T>(who: &Who, message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.extensions_mut().insert(who.caller.clone());
    request
}

/// Makes a long answer on a thread of its own.
pub(super) async fn aside<T: Send + 'static>(
    make: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Problem> {
    tokio::task::spawn_blocking(make).await.map_err(|_| {
        let status = http::StatusCode::INTERNAL_SERVER_ERROR;
        Problem::new(status, "the answer broke off; this is a bug")
    })
}
