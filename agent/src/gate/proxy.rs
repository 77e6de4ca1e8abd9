//! How does one call pass through the gate?

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Request, Response};
use http_body::{Body as HttpBody, Frame, SizeHint};
use penstock_proto::{GID_HEADER, UID_HEADER};
use tokio::sync::watch;
use tonic::body::Body;
use tonic::transport::Channel;
use tonic::{Status, TimeoutExpired};
use tower::ServiceExt as _;

use super::connection::{Activity, Busy};
use super::quota::{Quota, Slot};
use super::socket::Peer;

/// The services that users may speak to.
const SERVICE_PATHS: &[&str] = &[
    "/penstock.v1.Penstock/",
    "/penstock.v1.Accounting/",
    "/penstock.v1.Planning/",
    "/penstock.v1.Steps/",
    "/penstock.v1.Web/",
    "/penstock.v1.Cron/",
    "/penstock.v1.Events/",
];
/// Headers that only the gate sets; the receiver believes them.
const OWN_HEADERS: &str = "penstock-";

/// Where calls go.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) channel: watch::Receiver<Option<Channel>>,
    pub(super) controller: String,
    pub(super) calls: Quota,
    pub(super) lasting: Quota,
}

/// Calls that go on as long as a step or an allocation does, or until one can begin: whoever has many
/// of those can still ask for other things.
const LASTING: [&str; 5] = [
    "/penstock.v1.Steps/HoldAllocation",
    "/penstock.v1.Steps/CreateStep",
    "/penstock.v1.Steps/WatchStep",
    "/penstock.v1.Steps/RelayStep",
    "/penstock.v1.Events/WatchJobs",
];

/// The calls of one connection.
#[derive(Debug, Clone)]
pub(super) struct Proxy {
    pub(super) upstream: Arc<Upstream>,
    pub(super) peer: Peer,
    pub(super) activity: Activity,
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

impl<B> tower::Service<Request<B>> for Proxy
where
    B: HttpBody<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (upstream, peer) = (Arc::clone(&self.upstream), self.peer);
        let busy = self.activity.begin();
        let request = request.map(Body::new);
        Box::pin(async move {
            let answer = forward(upstream, peer, busy, request).await;
            Ok(answer.unwrap_or_else(Status::into_http))
        })
    }
}

async fn forward(
    upstream: Arc<Upstream>,
    peer: Peer,
    busy: Busy,
    mut request: Request<Body>,
) -> Result<Response<Body>, Status> {
    if !is_allowed(request.uri().path()) {
        return Err(Status::unimplemented(format!(
            "{} is not for users; commands call {} only",
            request.uri().path(),
            SERVICE_PATHS.join(", ")
        )));
    }
    let lasting = LASTING.contains(&request.uri().path());
    let quota = if lasting { &upstream.lasting } else { &upstream.calls };
    let Some(slot) = quota.take(peer.uid) else {
        return Err(Status::resource_exhausted(format!(
            "too many calls of uid {} are waiting at this host's agent; let some of them end",
            peer.uid
        )));
    };
    set_identity(request.headers_mut(), peer);
    let Some(channel) = upstream.channel.borrow().clone() else {
        return Err(Status::unavailable(format!(
            "this host has not joined the cluster of the controller at {} yet; the log of its \
             agent says why",
            upstream.controller
        )));
    };
    match channel.oneshot(request).await {
        Ok(answer) => Ok(answer.map(|body| {
            let held = Held { _slot: slot, _busy: busy };
            Body::new(Passing { body: Some(body), upstream, _held: held })
        })),
        Err(err) => Err(unreachable(&upstream.controller, &err)),
    }
}

fn is_allowed(path: &str) -> bool {
    SERVICE_PATHS.iter().find_map(|service| path.strip_prefix(service)).is_some_and(|method| {
        !method.is_empty() && method.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Removes what the client stated of itself and states what the kernel says.
fn set_identity(headers: &mut HeaderMap, peer: Peer) {
    let forged: Vec<HeaderName> =
        headers.keys().filter(|name| name.as_str().starts_with(OWN_HEADERS)).cloned().collect();
    for name in forged {
        headers.remove(name);
    }
    headers.insert(HeaderName::from_static(UID_HEADER), HeaderValue::from(peer.uid));
    headers.insert(HeaderName::from_static(GID_HEADER), HeaderValue::from(peer.gid));
}

/// `UNAVAILABLE`, so that commands retry with the same request id, whatever broke: a connection
/// that ends under a call shows in many ways. Only the client's own deadline stays what it is.
fn unreachable(controller: &str, err: &(dyn std::error::Error + 'static)) -> Status {
    let mut root = err;
    while let Some(source) = root.source() {
        root = source;
    }
    if root.is::<TimeoutExpired>() {
        return Status::deadline_exceeded("the controller did not answer in time");
    }
    Status::unavailable(format!(
        "the agent of this host cannot reach the controller at {controller}: {root}; jobs that \
         run are not affected, try again later"
    ))
}

/// What a call holds until its answer has been passed on.
#[derive(Debug)]
struct Held {
    _slot: Slot,
    _busy: Busy,
}

/// An answer on its way; where it breaks off, the client is told in trailers.
struct Passing {
    body: Option<Body>,
    upstream: Arc<Upstream>,
    _held: Held,
}

impl HttpBody for Passing {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let Some(body) = &mut self.body else { return Poll::Ready(None) };
        match ready!(Pin::new(body).poll_frame(cx)) {
            Some(Err(err)) => {
                self.body = None;
                let status = unreachable(&self.upstream.controller, &err);
                let mut trailers = HeaderMap::new();
                status.add_header(&mut trailers)?;
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
            frame => Poll::Ready(frame),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(HttpBody::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_methods_of_the_users_services_pass() {
        let allowed = [
            "/penstock.v1.Penstock/Ping",
            "/penstock.v1.Penstock/SubmitJob",
            "/penstock.v1.Accounting/ListShares",
            "/penstock.v1.Planning/Explain",
            "/penstock.v1.Web/CreateAccessToken",
            "/penstock.v1.Steps/HoldAllocation",
            "/penstock.v1.Steps/RelayStep",
        ];
        let refused = [
            "/penstock.v1.AgentLink/Attach",
            "/penstock.v1.AgentLink/Join",
            "/penstock.v1.Penstock/",
            "/penstock.v1.Penstock/../AgentLink/Attach",
            "/penstock.v1.Penstock/%2e%2e/x",
            "/penstock.v1.Penstock",
            "//penstock.v1.Penstock/Ping",
            "/",
            "",
        ];
        assert!(allowed.iter().all(|path| is_allowed(path)));
        assert!(!refused.iter().any(|path| is_allowed(path)));
    }

    #[test]
    fn whatever_the_client_states_of_itself_is_replaced() {
        let mut headers = HeaderMap::new();
        let forged = [(UID_HEADER, "0"), (UID_HEADER, "1"), ("penstock-role-bin", "AAAA")];
        for (name, value) in forged.into_iter().chain([("te", "trailers")]) {
            headers.append(name, HeaderValue::from_static(value));
        }
        set_identity(&mut headers, Peer { uid: 1000, gid: 100 });
        let mut left: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        left.sort_unstable();
        assert_eq!(left, [(GID_HEADER, "100"), (UID_HEADER, "1000"), ("te", "trailers")]);
    }
}
