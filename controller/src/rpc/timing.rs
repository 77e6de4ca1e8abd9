//! How long do calls take to be answered?

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use tower::{Layer, Service};

use crate::statistics::{OTHER_METHODS, Statistics};

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
        // Shares the path's bytes with the request.
        let uri = request.uri().clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            statistics.call(method_of(uri.path()), begun.elapsed());
            answer
        })
    }
}

/// The method that a path calls; a stranger may ask for anything.
fn method_of(path: &str) -> &str {
    let known = path.strip_prefix("/penstock.v1.").and_then(|rest| rest.split_once('/'));
    let plain =
        |method: &&str| method.len() <= 40 && method.bytes().all(|b| b.is_ascii_alphanumeric());
    known.map(|(_, method)| method).filter(plain).unwrap_or(OTHER_METHODS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn methods_are_told_by_their_names() {
        let table = [
            ("/penstock.v1.Penstock/ListJobs", "ListJobs"),
            ("/penstock.v1.Planning/Explain", "Explain"),
            ("/penstock.v1.Planning/Explain/more", OTHER_METHODS),
            ("/penstock.v1.Planning/Ex plain", OTHER_METHODS),
            ("/grpc.health.v1.Health/Check", OTHER_METHODS),
            ("/", OTHER_METHODS),
        ];
        for (path, method) in table {
            assert_eq!(method_of(path), method, "{path}");
        }
    }
}
