//! How much of a request is read, and for how long?
//!
//! Only of callers that are known. A large body takes one of a few places, so that all of them together are
//! bounded; and each must have come within half a minute.

use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};
use tokio::sync::Semaphore;

use super::problem::Problem;

/// Largest body, bytes: a script and an environment, with what JSON adds to them.
pub(super) const MAX_BODY: usize = 9 << 20;
/// Up to so many bytes nobody needs a place.
const SMALL: usize = 64 << 10;
/// Places for large bodies.
const PLACES: usize = 16;
/// How long a body may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// The places.
#[derive(Debug)]
pub(super) struct Bodies(Semaphore);

impl Default for Bodies {
    fn default() -> Self {
        Self(Semaphore::new(PLACES))
    }
}

impl Bodies {
    /// Reads a body as a whole.
    pub(super) async fn read(&self, headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
        let length = headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
        if length.is_some_and(|length| length > MAX_BODY) {
            return Err(too_large());
        }
        // Where no length is stated any may come.
        let large = length.is_none_or(|length| length > SMALL) && !axum_body_is_empty(&body);
        let _place = match large {
            true => Some(self.0.try_acquire().map_err(|_| {
                let text = "other large requests are being read; try again in a second";
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, text)
            })?),
            false => None,
        };
        match tokio::time::timeout(PATIENCE, axum::body::to_bytes(body, MAX_BODY)).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) if is_too_long(&error) => Err(too_large()),
            Ok(Err(_)) => Err(Problem::bad("the request broke off")),
            Err(_) => {
                let text =
                    format!("the request's body did not come within {} s", PATIENCE.as_secs());
                Err(Problem::new(StatusCode::REQUEST_TIMEOUT, text))
            }
        }
    }
}

fn axum_body_is_empty(body: &Body) -> bool {
    http_body::Body::is_end_stream(body)
}

fn is_too_long(error: &axum::Error) -> bool {
    // The limit's own error is not nameable without another dependency; it says so in its text.
    std::error::Error::source(error).is_some_and(|source| source.to_string().contains("limit"))
}

fn too_large() -> Problem {
    let text = format!("the request's body is larger than {} MiB", MAX_BODY >> 20);
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_body_beyond_the_limit_is_refused_with_and_without_a_stated_length() {
        let bodies = Bodies::default();
        let mut headers = HeaderMap::new();
        let small = bodies.read(&headers, Body::from("x")).await.unwrap();
        assert_eq!(&small[..], b"x");
        let long = vec![b'x'; MAX_BODY + 1];
        let unstated = bodies.read(&headers, Body::from(long)).await.unwrap_err();
        assert_eq!(unstated.status(), StatusCode::PAYLOAD_TOO_LARGE);
        headers.insert(header::CONTENT_LENGTH, (MAX_BODY + 1).to_string().parse().unwrap());
        let stated = bodies.read(&headers, Body::empty()).await.unwrap_err();
        assert_eq!(stated.status(), StatusCode::PAYLOAD_TOO_LARGE);
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_does_not_come_is_given_up() {
        let bodies = Bodies::default();
        let (sender, receiver) = tokio::sync::mpsc::channel::<Result<Bytes, std::io::Error>>(1);
        let stream = tokio_stream::wrappers::ReceiverStream::new(receiver);
        let slow = bodies.read(&HeaderMap::new(), Body::from_stream(stream)).await.unwrap_err();
        assert_eq!(slow.status(), StatusCode::REQUEST_TIMEOUT);
        drop(sender);
    }
}
