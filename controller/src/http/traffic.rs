//! How many requests came, and how long did they take?

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::web::Web;

/// A route and a kind of status.
type Route = (String, &'static str);

/// What was counted of one: how many, and microseconds.
pub(super) type Counted = (Route, (u64, u64));

/// Counts of requests by route, which are as many as there are routes.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    routes: Mutex<BTreeMap<Route, (u64, u64)>>,
    connections: AtomicU64,
}

impl Traffic {
    fn add(&self, route: &str, class: &'static str, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let mut routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = routes.entry((route.to_owned(), class)).or_default();
        entry.0 += 1;
        entry.1 = entry.1.saturating_add(micros);
    }

    /// All counts, by route and class.
    pub(super) fn counts(&self) -> Vec<Counted> {
        let routes = self.routes.lock().unwrap_or_else(PoisonError::into_inner);
        routes.iter().map(|(key, count)| (key.clone(), *count)).collect()
    }

    /// Open connections.
    pub(super) fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }

    /// A connection, counted until it is dropped.
    pub(super) fn connected(web: &Arc<Web>) -> Connected {
        web.traffic.connections.fetch_add(1, Ordering::Relaxed);
        Connected(Arc::clone(web))
    }
}

/// A connection that counts.
pub(super) struct Connected(Arc<Web>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.traffic.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Counts every request that passes.
pub(super) async fn count(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_owned());
    let method = request.method().clone();
    let response = next.run(request).await;
    // A stranger may ask for anything by any method.
    let route = match path {
        Some(path) if !path.contains("{*") => match method.as_str() {
            known @ ("GET" | "HEAD" | "POST" | "PATCH" | "PUT" | "DELETE") => {
                format!("{known} {path}")
            }
            _ => "other".to_owned(),
        },
        _ => "other".to_owned(),
    };
    let class = match response.status().as_u16() {
        100..=199 => "1xx",
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    };
    web.traffic.add(&route, class, begun.elapsed());
    response
}
