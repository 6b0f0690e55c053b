//! What every request passes, and what every answer has.
//!
//! host ─▶ who asks ─▶ is a write from our own form? ─▶ handler ─▶ refused writes into the audit trail ─▶ headers

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY, SET_COOKIE,
    STRICT_TRANSPORT_SECURITY, USER_AGENT, X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, Method, StatusCode};
use serde_json::json;
use subtle::ConstantTimeEq;
use uuid::Uuid;

use super::problem::{Problem, Refused};
use super::state::Portal;
use super::style;
use super::visitor::{Caller, Visitor, form_cookie, form_secret, identify, session_cookie, token, token_of};
use crate::web::cookie;
use crate::web::origin::is_same_origin;

/// Longest form.
const FORM: usize = 64 * 1024;
/// How long a form may take: nobody is known yet who sends one.
const SLOWEST: std::time::Duration = std::time::Duration::from_secs(10);
/// How long a browser keeps the cookie of the form that signs in.
const FORM_COOKIE: std::time::Duration = std::time::Duration::from_hours(12);
/// Longest name of a browser that is kept.
const AGENT: usize = 255;

/// In the extensions of an answer whose handler has written to the audit trail.
#[derive(Clone, Copy, Debug)]
pub struct Noted;

/// The layer around everything.
pub async fn enter(State(portal): State<Portal>, mut request: Request, next: Next) -> Response {
    let config = portal.config();
    let is_ours = config.hosts.host_of(&request).is_ok_and(|host| host == config.host);
    if !is_ours {
        return secured(misdirected(), config.secure);
    }
    let address = config.hosts.client_of(&request).0;
    let (csrf, new_cookie) = forms_secret(request.headers(), config.secure);
    let caller = Caller { address, user_agent: agent(request.headers()), correlation: Uuid::new_v4(), csrf };
    // The style sheet is everybody's.
    let visitor = if request.uri().path() == style::path() {
        Visitor::Nobody
    } else {
        identify(&portal, request.headers()).await
    };
    let is_write = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    request.extensions_mut().insert(visitor.clone());
    request.extensions_mut().insert(caller.clone());
    let checked = if is_write { own_form(request, &config.host, &caller.csrf).await } else { Ok(request) };
    let mut response = match checked {
        Ok(request) => next.run(request).await,
        Err(problem) => problem.into_response(),
    };
    if is_write {
        let extensions = response.extensions();
        let is_noted = extensions.get::<Noted>().is_some();
        if let Some(Refused(why)) = extensions.get::<Refused>().filter(|_| !is_noted).cloned() {
            note_refusal(&portal, &visitor, &caller, (&method, &path), (response.status(), &why)).await;
        }
    }
    if let Some(cookie) = new_cookie {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    secured(response, config.secure)
}

/// Says nothing of what is served here.
fn misdirected() -> Response {
    (StatusCode::MISDIRECTED_REQUEST, "Nothing is served under this name.\n").into_response()
}

fn agent(headers: &HeaderMap) -> Option<String> {
    let text = headers.get(USER_AGENT)?.to_str().ok()?;
    Some(text.chars().take(AGENT).collect())
}

/// The secret of the forms, and the cookie that it follows from where there is none yet.
fn forms_secret(headers: &HeaderMap, secure: bool) -> (String, Option<HeaderValue>) {
    let kept = token_of(headers, session_cookie(secure)).or_else(|| token_of(headers, form_cookie(secure)));
    if let Some(kept) = kept {
        return (form_secret(kept), None);
    }
    let new = token();
    let cookie = cookie::set_strict(form_cookie(secure), &new, FORM_COOKIE, secure);
    (form_secret(&new), Some(cookie))
}

/// Reads a form and checks that we made it. The body goes on unread.
async fn own_form(request: Request, host: &str, secret: &str) -> Result<Request, Problem> {
    if !is_same_origin(request.headers(), host) {
        return Err(Problem::CrossSite);
    }
    let (parts, body) = request.into_parts();
    let body = tokio::time::timeout(SLOWEST, to_bytes(body, FORM)).await;
    let body = body.map_err(|_| Problem::Malformed)?.map_err(|_| Problem::Malformed)?;
    let kind = parts.headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return Err(Problem::Malformed);
    }
    if !has_secret(&body, secret) {
        return Err(Problem::StaleForm);
    }
    Ok(Request::from_parts(parts, Body::from(body)))
}

fn has_secret(body: &Bytes, secret: &str) -> bool {
    let fields: Vec<(String, String)> = serde_urlencoded::from_bytes(body).unwrap_or_default();
    let mut secrets = fields.iter().filter(|(name, _)| name == "csrf");
    let (Some((_, given)), None) = (secrets.next(), secrets.next()) else { return false };
    given.as_bytes().ct_eq(secret.as_bytes()).into()
}

/// What somebody tried and was refused. Of those who are not signed in only attempts at signing in are written, which
/// their handlers do: else anybody could fill the trail.
async fn note_refusal(
    portal: &Portal,
    visitor: &Visitor,
    caller: &Caller,
    (method, path): (&Method, &str),
    (status, why): (StatusCode, &str),
) {
    let status = status.as_u16();
    tracing::info!(%method, path, status, why, correlation = %caller.correlation, "a write was refused");
    let Visitor::Full(admin) = visitor else { return };
    let mut entry = caller.entry(Some(admin), "", "request.refused");
    entry.resource_type = Some("Path".into());
    entry.resource_id = Some(path.chars().take(255).collect());
    entry.changes = Some(json!({ "method": method.as_str(), "status": status, "why": why }));
    if portal.note(&entry).await.is_err() {
        tracing::warn!(path, correlation = %caller.correlation, "a refused write could not be noted");
    }
}

fn secured(mut response: Response, secure: bool) -> Response {
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| drop(headers.insert(name, HeaderValue::from_static(value)));
    set(
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'self'; img-src 'self' data:; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'",
    );
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(X_FRAME_OPTIONS, "DENY");
    // Not `no-referrer`: with it, browsers send `Origin: null` with our own forms. No other site is told anything.
    set(REFERRER_POLICY, "same-origin");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    set(HeaderName::from_static("x-robots-tag"), "noindex");
    if secure {
        set(STRICT_TRANSPORT_SECURITY, "max-age=31536000");
    }
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}
