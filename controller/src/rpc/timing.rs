//! How long do calls take to be answered?

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tower::{Layer, Service};

use crate::statistics::Statistics;

/// Counts and times every call that passes.
#[derive(Debug, Clone)]
pub(super) struct TimingLayer(pub(super) Arc<Statistics>);

/// See [`TimingLayer`].
#[derive(Debug, Clone)]
pub(super) struct Timing<S> {
    inner: S,
    statistics: Arc<Statistics>,
}

impl<S> Layer<S> for TimingLayer {
    type Service = Timing<S>;

    fn layer(&self, inner: S) -> Timing<S> {
        Timing { inner, statistics: Arc::clone(&self.0) }
    }
}

impl<S, B> Service<http::Request<B>> for Timing<S>
where
    S: Service<http::Request<B>>,
    S::Future: Send + 'static,
    S::Response: Send + 'static,
    S::Error: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        let begun = Instant::now();
        let statistics = Arc::clone(&self.statistics);
        let path = request.uri().path();
        let known = path.strip_prefix("/penstock.v1.").and_then(|rest| rest.split_once('/'));
        let plain =
            |method: &&str| method.len() <= 40 && method.bytes().all(|b| b.is_ascii_alphanumeric());
        let method = known.map(|(_, method)| method).filter(plain).unwrap_or("other").to_owned();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            statistics.call(&method, begun.elapsed());
            answer
        })
    }
}
