//! Who may come in?
//!
//! Every request but those for health, sign-in and, where the file says so, metrics passes here. A token in
//! a header counts before a cookie. With a cookie a change must come from a page of ours: the browser sends
//! the cookie along whoever's page asks (CSRF), but says whose page it is.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::request::Parts;
use http::{HeaderMap, Method, StatusCode, header};

use super::auth::{TokenProblem, Who};
use super::problem::Problem;
use super::web::Web;
use crate::identity::Via;

/// Slurm's header for the token.
const TOKEN_HEADER: &str = "x-slurm-user-token";
/// Slurm's header for the user's name.
const USER_HEADER: &str = "x-slurm-user-name";
/// Questions that are asked by POST and change nothing.
const ASKED_BY_POST: [&str; 1] = ["/api/v1/what-if"];

/// By what somebody is known.
#[derive(Clone)]
pub(super) enum Credential {
    /// A token in a header.
    Token(Arc<str>),
    /// The secret in a browser's cookie.
    Session(Arc<str>),
}

impl Credential {
    /// Whether it still lets somebody in.
    pub(super) fn holds(&self, web: &Web) -> bool {
        let who = match self {
            Self::Token(token) => web.access.believe(token, web.now()).ok(),
            Self::Session(secret) => web.access.session(secret, web.now()),
        };
        who.is_some_and(|who| still_there(web, &who).is_ok())
    }
}

/// Refuses names that are not ours, before anything else.
pub(super) async fn only_for_us(
    State(web): State<Arc<Web>>,
    request: Request,
    next: Next,
) -> Response {
    match host_of(request.headers(), request.uri()) {
        Some(host) if web.names.has(&host) => next.run(request).await,
        _ => {
            let text = "this port is not known by the name in the request; an admin can add it to names \
                        in [http] of the cluster file";
            Problem::new(StatusCode::MISDIRECTED_REQUEST, text).into_response()
        }
    }
}

/// Lets known callers in, with their body read and their [`Who`] at hand.
pub(super) async fn signed_in(
    State(web): State<Arc<Web>>,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let (who, credential) = match admit(&web, &parts) {
        Ok(known) => known,
        Err(problem) => return problem.into_response(),
    };
    parts.extensions.insert(who);
    parts.extensions.insert(credential);
    if changes(&parts.method) {
        let bytes = match web.bodies.read(&parts.headers, body).await {
            Ok(bytes) => bytes,
            Err(problem) => return problem.into_response(),
        };
        if let Err(problem) = json_alone(&parts.headers, bytes.is_empty()) {
            return problem.into_response();
        }
        return next.run(Request::from_parts(parts, bytes.into())).await;
    }
    next.run(Request::from_parts(parts, axum::body::Body::empty())).await
}

fn changes(method: &Method) -> bool {
    ![Method::GET, Method::HEAD].contains(method)
}

/// Who it is, if it may do anything of this kind.
pub(super) fn admit(web: &Web, parts: &Parts) -> Result<(Who, Credential), Problem> {
    let (who, credential) = match token(&parts.headers)? {
        Some(token) => (by_token(web, &parts.headers, &token)?, Credential::Token(token.into())),
        None => by_cookie(web, &parts.headers)?,
    };
    still_there(web, &who)?;
    if changes(&parts.method) {
        if matches!(credential, Credential::Session(_)) && !from_our_page(web, parts) {
            let text = "a change with a browser's session must come from a page of this controller";
            return Err(Problem::new(StatusCode::FORBIDDEN, text));
        }
        if who.read_only && !ASKED_BY_POST.contains(&parts.uri.path()) {
            let text = "this sign-in may look and change nothing; make one without read-only";
            return Err(Problem::new(StatusCode::FORBIDDEN, text));
        }
    }
    Ok((who, credential))
}

/// The token of a request, by either header; two must be the same.
fn token(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let text = |name: &str| -> Result<Option<String>, Problem> {
        let mut values = headers.get_all(name).iter();
        let value = values.next();
        if values.next().is_some() {
            return Err(Problem::bad(format!("the header {name} is there twice")));
        }
        Ok(value.and_then(|value| value.to_str().ok()).map(str::to_owned))
    };
    let slurm = text(TOKEN_HEADER)?;
    let bearer = match text(header::AUTHORIZATION.as_str())? {
        None => None,
        Some(value) => match value.split_once(' ') {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => {
                Some(token.trim().to_owned())
            }
            _ => return Err(unknown("only Authorization: Bearer TOKEN is known here")),
        },
    };
    match (slurm, bearer) {
        (Some(one), Some(other)) if one != other => {
            Err(unknown("the headers X-SLURM-USER-TOKEN and Authorization have different tokens"))
        }
        (one, other) => Ok(one.or(other)),
    }
}

fn unknown(text: &str) -> Problem {
    Problem::new(StatusCode::UNAUTHORIZED, text)
}

fn by_token(web: &Web, headers: &HeaderMap, token: &str) -> Result<Who, Problem> {
    let refuse = |problem: TokenProblem| unknown(&problem.to_string());
    let who = web.access.believe(token, web.now()).map_err(refuse)?;
    match headers.get(USER_HEADER) {
        Some(name) if name.as_bytes() != who.user.as_bytes() => {
            Err(refuse(TokenProblem::OtherUser))
        }
        _ => Ok(who),
    }
}

fn by_cookie(web: &Web, headers: &HeaderMap) -> Result<(Who, Credential), Problem> {
    let known = web.session_cookie(headers).and_then(|secret| {
        let who = web.access.session(&secret, web.now())?;
        Some((who, Credential::Session(secret.into())))
    });
    known.ok_or_else(|| {
        unknown(
            "not signed in, or no longer: `penstock web` on a host of the cluster prints a link, \
             `scontrol token` a token for scripts",
        )
    })
}

/// A sign-in ends with the host through which it was made.
fn still_there(web: &Web, who: &Who) -> Result<(), Problem> {
    let Via::Host { name, role } = &who.caller.via else { return Ok(()) };
    let snapshot = web.shared.snapshot();
    let host = snapshot.cluster.host(name);
    let stands = host.is_some_and(|host| !host.revoked && crate::rpc::role_of(host.role) == *role);
    if stands { Ok(()) } else { Err(unknown(&TokenProblem::HostGone.to_string())) }
}

/// Whether the browser says that a page of ours asks.
fn from_our_page(web: &Web, parts: &Parts) -> bool {
    let text = |name: header::HeaderName| {
        parts.headers.get(name).map(|value| value.to_str().unwrap_or("null"))
    };
    let Some(host) = host_of(&parts.headers, &parts.uri) else { return false };
    let site = parts.headers.get("sec-fetch-site").map(|value| value.as_bytes());
    match (text(header::ORIGIN), site) {
        (_, Some(site)) if site != b"same-origin" => false,
        (Some(origin), _) => web.names.is_own(origin, &host),
        (None, Some(_)) => true,
        (None, None) => false,
    }
}

/// What a request calls us: HTTP/2's authority, else the one `Host` header.
fn host_of(headers: &HeaderMap, uri: &http::Uri) -> Option<String> {
    if let Some(authority) = uri.authority() {
        return Some(authority.as_str().to_owned());
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) => host.to_str().ok().map(str::to_owned),
        _ => None,
    }
}

/// A form of another page can send texts without being asked whether it may, but no JSON.
fn json_alone(headers: &HeaderMap, empty: bool) -> Result<(), Problem> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.map(|kind| kind.split(';').next().unwrap_or_default().trim());
    match kind {
        Some(kind) if kind.eq_ignore_ascii_case("application/json") => Ok(()),
        None if empty => Ok(()),
        _ => {
            let text = "a body is JSON here; send it with Content-Type: application/json";
            Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, text))
        }
    }
}
