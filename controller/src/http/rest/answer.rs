//! How is a request read and an answer written?

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Query, Request};
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest as _, Sha256};

use crate::http::problem::Problem;

/// Header by which a client says that it makes a request again.
pub(in crate::http) const IDEMPOTENCY_KEY: &str = "idempotency-key";
/// Longest such key, bytes.
const MAX_KEY: usize = 255;

/// What handlers answer.
pub(in crate::http) type Answer = Result<Response, Problem>;

/// What stands behind the question mark.
pub(in crate::http) struct Params<T>(pub(in crate::http) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Params<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Query::<T>::try_from_uri(&parts.uri).map(|Query(params)| Self(params)).map_err(|error| {
            let cause = std::error::Error::source(&error);
            let text = cause.map_or_else(|| error.to_string(), ToString::to_string);
            Problem::bad(format!("the query is not understood: {text}"))
        })
    }
}

/// A body of JSON; an empty one is `{}`.
pub(in crate::http) struct Body<T>(pub(in crate::http) T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let bytes = Bytes::from_request(request, state)
            .await
            .map_err(|_| Problem::bad("the request's body can't be read"))?;
        let text = if bytes.is_empty() { &b"{}"[..] } else { &bytes[..] };
        serde_json::from_slice(text)
            .map(Self)
            .map_err(|error| Problem::bad(format!("the request's body is not understood: {error}")))
    }
}

/// A request id out of the client's key; none: it has none. The path is in it, so that one key for two
/// kinds of requests means two of them.
pub(in crate::http) fn request_id(
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<Bytes, Problem> {
    let Some(key) = headers.get(IDEMPOTENCY_KEY) else { return Ok(Bytes::new()) };
    if key.is_empty() || key.len() > MAX_KEY {
        let text = format!("Idempotency-Key has {} bytes; give 1 to {MAX_KEY}", key.len());
        return Err(Problem::bad(text));
    }
    let mut hash = Sha256::new();
    for part in [method.as_str().as_bytes(), path.as_bytes(), key.as_bytes()] {
        hash.update(part.len().to_be_bytes());
        hash.update(part);
    }
    Ok(Bytes::copy_from_slice(&hash.finalize()[..16]))
}

/// The request id of a change, which every handler of one takes.
pub(in crate::http) struct Key(pub(in crate::http) Bytes);

impl<S: Send + Sync> FromRequestParts<S> for Key {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        request_id(&parts.method, parts.uri.path(), &parts.headers).map(Self)
    }
}

/// A value as JSON.
pub(in crate::http) fn json<T: Serialize>(status: StatusCode, value: &T) -> Response {
    let body = serde_json::to_vec(value).expect("what is told has texts for keys");
    text(status, body)
}

/// JSON that is written already.
pub(in crate::http) fn text(status: StatusCode, body: impl IntoResponse) -> Response {
    let mut response = (status, body).into_response();
    let kind = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// A listing with its ETag, or nothing where the client has it already.
pub(in crate::http) fn tagged<T: Serialize>(headers: &HeaderMap, value: &T) -> Response {
    tagged_text(headers, serde_json::to_vec(value).expect("what is told has texts for keys"))
}

/// The same of JSON that is written already.
pub(in crate::http) fn tagged_text(headers: &HeaderMap, body: Vec<u8>) -> Response {
    let hash = Sha256::digest(&body);
    let tag: String = hash[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    let tag = format!("\"{tag}\"");
    let known = headers
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|one| one.trim().trim_start_matches("W/") == tag);
    let mut response = match known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => text(StatusCode::OK, body),
    };
    if let Ok(value) = HeaderValue::from_str(&tag) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_has_a_listing_is_not_sent_it_again() {
        let mut headers = HeaderMap::new();
        let first = tagged(&headers, &[1, 2]);
        assert_eq!(first.status(), StatusCode::OK);
        let tag = first.headers()[header::ETAG].clone();
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"other\""));
        headers.append(header::IF_NONE_MATCH, tag);
        assert_eq!(tagged(&headers, &[1, 2]).status(), StatusCode::NOT_MODIFIED);
        assert_eq!(tagged(&headers, &[1, 3]).status(), StatusCode::OK);
    }

    #[test]
    fn a_key_means_one_request_of_one_kind() {
        let mut headers = HeaderMap::new();
        let id = |path: &str, headers: &HeaderMap| request_id(&Method::POST, path, headers);
        assert_eq!(id("/a", &headers).unwrap(), Bytes::new());
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_static("k"));
        let one = id("/a", &headers).unwrap();
        assert_eq!(one.len(), 16);
        assert_eq!(id("/a", &headers).unwrap(), one);
        assert_ne!(id("/b", &headers).unwrap(), one);
        headers.insert(IDEMPOTENCY_KEY, HeaderValue::from_str(&"k".repeat(256)).unwrap());
        assert!(id("/a", &headers).is_err());
    }
}
