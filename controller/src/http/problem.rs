//! How is it said over HTTP that something was refused or went wrong?
//!
//! As a problem of RFC 9457: the status tells a program what to do, `detail` is the sentence that a command
//! would print, `kind` names the refusal for good.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use penstock_proto::v1;
use prost::Message as _;
use serde::Serialize;
use tonic::{Code, Status};
use utoipa::ToSchema;

/// Something was refused or went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct Problem {
    /// Always `about:blank`: `status` and `kind` say what it is.
    #[serde(rename = "type")]
    about: &'static str,
    /// The status in words.
    title: String,
    /// The status again.
    #[schema(example = 409)]
    status: u16,
    /// One sentence for people: what was wrong, with the value, and what to do.
    detail: String,
    /// Stable name of the refusal, e.g. `InvalidPartition`.
    #[serde(skip_serializing_if = "String::is_empty")]
    kind: String,
    /// Slurm's text for it.
    #[serde(skip_serializing_if = "String::is_empty")]
    slurm_text: String,
}

impl Problem {
    /// A problem of ours.
    pub(super) fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            about: "about:blank",
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            kind: String::new(),
            slurm_text: String::new(),
        }
    }

    /// The request is not understood.
    pub(super) fn bad(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// A refusal of one of several things.
    pub(super) fn refused(refusal: &v1::Refusal) -> Self {
        let status = match refusal.kind.as_str() {
            "AccessDenied" => StatusCode::FORBIDDEN,
            "InvalidJobId" | "InvalidNode" | "UnknownRecord" => StatusCode::NOT_FOUND,
            _ => StatusCode::CONFLICT,
        };
        Self::new(status, refusal.detail.clone()).of(refusal)
    }

    fn of(mut self, refusal: &v1::Refusal) -> Self {
        self.kind.clone_from(&refusal.kind);
        self.slurm_text.clone_from(&refusal.slurm_text);
        self
    }

    /// The sentence.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The status.
    pub(super) fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// Slurm's text for it; where it has none, the sentence.
    pub(super) fn slurm_text(&self) -> &str {
        if self.slurm_text.is_empty() { &self.detail } else { &self.slurm_text }
    }
}

fn status_of(code: Code) -> StatusCode {
    match code {
        Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::PermissionDenied => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => StatusCode::CONFLICT,
        Code::ResourceExhausted => StatusCode::TOO_MANY_REQUESTS,
        Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        Code::Unimplemented => StatusCode::NOT_IMPLEMENTED,
        Code::Ok | Code::Cancelled | Code::Unknown | Code::Internal | Code::DataLoss => {
            StatusCode::INTERNAL_SERVER_ERROR
        }
    }
}

impl From<Status> for Problem {
    fn from(status: Status) -> Self {
        let problem = Self::new(status_of(status.code()), status.message());
        match v1::Refusal::decode(status.details()) {
            Ok(refusal) if !refusal.kind.is_empty() => problem.of(&refusal),
            Ok(_) | Err(_) => problem,
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self).expect("texts and a number");
        let mut response = (self.status(), body).into_response();
        let headers = response.headers_mut();
        let kind = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, kind);
        match self.status() {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
            }
            StatusCode::UNAUTHORIZED => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_name_and_its_sentence() {
        let refusal = v1::Refusal {
            kind: "InvalidPartition".into(),
            slurm_text: "Invalid partition name specified".into(),
            detail: "there is no partition \"x\"".into(),
        };
        let status = Status::with_details(
            Code::InvalidArgument,
            refusal.detail.clone(),
            refusal.encode_to_vec().into(),
        );
        let text = serde_json::to_string(&Problem::from(status)).unwrap();
        assert_eq!(
            text,
            r#"{"type":"about:blank","title":"Bad Request","status":400,"detail":"there is no partition \"x\"","kind":"InvalidPartition","slurm_text":"Invalid partition name specified"}"#
        );
        let plain = Problem::from(Status::unavailable("going down"));
        assert_eq!(plain.slurm_text(), "going down");
        assert_eq!(plain.into_response().headers()["retry-after"], "1");
    }
}
