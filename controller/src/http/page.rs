//! What does a browser get: how it signs in, and the files of the pages?
//!
//! Files are part of this binary. Every answer carries a policy that lets a page load and speak to nothing
//! but us, and run no script that is not one of our files.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tracing::{info, warn};

use super::guard;
use super::problem::Problem;
use super::web::Web;

/// Content-Security-Policy of every answer.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
                      connect-src 'self'; font-src 'self'; form-action 'self'; base-uri 'none'; \
                      frame-ancestors 'none'";

/// A file of the pages.
struct File {
    path: &'static str,
    kind: &'static str,
    bytes: &'static [u8],
}

/// All files, by path.
const FILES: &[File] = &[
    File { path: "/", kind: "text/html; charset=utf-8", bytes: include_bytes!("page/index.html") },
    File {
        path: "/style.css",
        kind: "text/css; charset=utf-8",
        bytes: include_bytes!("page/style.css"),
    },
];

/// Routes that nobody has to be known for.
pub(super) fn open_routes() -> Router<Arc<Web>> {
    Router::new().route("/health", get(health)).route("/login/{link}", get(sign_in))
}

/// Routes of the pages for those who are signed in.
pub(super) fn signed_in_routes() -> Router<Arc<Web>> {
    Router::new().route("/logout", post(sign_out))
}

async fn health() -> &'static str {
    "ok\n"
}

async fn sign_in(
    State(web): State<Arc<Web>>,
    method: Method,
    Path(link): Path<String>,
) -> Response {
    // Some programs look at a link before they open it.
    if method == Method::HEAD {
        return StatusCode::OK.into_response();
    }
    let Some((secret, secs, who)) = web.access.follow(&link, web.now()) else {
        warn!("a link was followed that is used up, too old, or never was");
        return html(StatusCode::FORBIDDEN, include_str!("page/used.html"));
    };
    info!(user = %who.user, uid = who.caller.uid, via = %who.caller.via, "signed in by a link");
    // A page instead of a redirection: a browser that came from elsewhere would not send the cookie along.
    let mut response = html(StatusCode::OK, include_str!("page/welcome.html"));
    set_cookie(&mut response, &web.set_cookie(&secret, secs));
    response
}

async fn sign_out(State(web): State<Arc<Web>>, headers: HeaderMap) -> Response {
    if let Some(secret) = web.session_cookie(&headers) {
        web.access.sign_out(&secret);
    }
    let mut response = StatusCode::NO_CONTENT.into_response();
    set_cookie(&mut response, &web.set_cookie("", 0));
    response
}

fn set_cookie(response: &mut Response, cookie: &str) {
    if let Ok(value) = HeaderValue::from_str(cookie) {
        response.headers_mut().insert(header::SET_COOKIE, value);
    }
}

fn html(status: StatusCode, text: &'static str) -> Response {
    let kind = (header::CONTENT_TYPE, "text/html; charset=utf-8");
    (status, [kind], text).into_response()
}

/// A file of the pages; a page that says how to sign in to who is not.
pub(super) async fn file(State(web): State<Arc<Web>>, request: Request) -> Response {
    let (parts, _) = request.into_parts();
    let wants_page = parts
        .headers
        .get(header::ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    if let Err(problem) = guard::admit(&web, &parts) {
        return match wants_page && problem.status() == StatusCode::UNAUTHORIZED {
            true => html(StatusCode::UNAUTHORIZED, include_str!("page/sign-in.html")),
            false => problem.into_response(),
        };
    }
    let path = parts.uri.path();
    let Some(file) = FILES.iter().find(|file| file.path == path) else {
        let text =
            format!("there is nothing at {path:?}; /api/v1/openapi.json lists what there is");
        return Problem::new(StatusCode::NOT_FOUND, text).into_response();
    };
    if ![Method::GET, Method::HEAD].contains(&parts.method) {
        return wrong_method().await.into_response();
    }
    ([(header::CONTENT_TYPE, file.kind)], file.bytes).into_response()
}

/// What is there knows no such method.
pub(super) async fn wrong_method() -> Problem {
    let text = "this path does not know the method; /api/v1/openapi.json lists what there is";
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, text)
}

/// Puts on every answer what browsers are to keep to.
pub(super) async fn headers(State(web): State<Arc<Web>>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let fixed = [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("referrer-policy", "no-referrer"),
        ("cross-origin-opener-policy", "same-origin"),
        ("cross-origin-resource-policy", "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    // What one user saw is nobody else's, also where a proxy is in between. An ETag still saves the way.
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("private, no-cache"));
    if web.names.scheme() == "https" {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
    response
}
