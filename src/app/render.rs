//! How answers look: problems as a page or as JSON, and the headers that every answer has.

use std::sync::LazyLock;

use askama::Template;
use axum::Json;
use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{Html, IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{
    ACCEPT, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, HeaderValue, REFERRER_POLICY, RETRY_AFTER,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use http::{HeaderMap, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::problem::{KEPT_HEADERS, Problem, Shown};
use crate::tenancy::Refusal;

/// The one style sheet. It stands inside each page: a page for an unknown host must look right too, and at an unknown
/// host nothing else is served.
pub use crate::web::STYLE;

/// Nothing may be loaded, run or framed; the style sheet is allowed by its hash, so that injected styles are not.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let hash = BASE64_STANDARD.encode(Sha256::digest(STYLE));
    let policy = format!(
        "default-src 'none'; style-src 'sha256-{hash}'; img-src 'self' data:; form-action 'self'; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    HeaderValue::from_str(&policy).expect("base64 and the text around it are visible ASCII")
});

/// Sets the headers that every answer has.
pub async fn set_security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    // A file that is downloaded has a stricter one of its own.
    headers.entry(CONTENT_SECURITY_POLICY).or_insert_with(|| POLICY.clone());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(X_FRAME_OPTIONS, HeaderValue::from_static("DENY"));
    // Not `no-referrer`: with it, browsers send `Origin: null` with our own forms.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    headers.insert(HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin"));
    headers.insert(HeaderName::from_static("cross-origin-resource-policy"), HeaderValue::from_static("same-origin"));
    response
}

/// A page that says what is the matter. It names no tenant: most of them are seen before anybody is known.
#[derive(Template)]
#[template(path = "problem.html")]
struct ProblemPage<'a> {
    style: &'static str,
    status: u16,
    title: &'a str,
    detail: &'a str,
    /// Seconds after which it is worth trying again.
    wait: Option<&'a str>,
    /// Seconds after which the page tries by itself.
    again: Option<&'a str>,
    /// Where to go from here.
    links: &'static [(&'static str, &'static str)],
}

/// Where to go from here: nowhere where no tenant is served, for there is nothing to go to.
fn links(status: StatusCode, refusal: Option<Refusal>, shown: &Shown) -> &'static [(&'static str, &'static str)] {
    let is_closed = |refusal| {
        matches!(
            refusal,
            Refusal::BadHost(_)
                | Refusal::UnknownHost
                | Refusal::Central
                | Refusal::Suspended
                | Refusal::Hibernated
                | Refusal::Restoring
        )
    };
    match status {
        _ if refusal.is_some_and(is_closed) => &[],
        StatusCode::UNAUTHORIZED => &[("/sign-in", "Sign in")],
        StatusCode::FORBIDDEN if shown.limit.is_some() => &[("/settings", "See what is used"), ("/", "Dashboard")],
        StatusCode::SERVICE_UNAVAILABLE if refusal.is_none() => &[("", "Try again"), ("/", "Dashboard")],
        StatusCode::PAYMENT_REQUIRED => &[],
        _ => &[("/", "Dashboard")],
    }
}

/// Gives every refusal and problem its page, or its JSON document where a program asked.
pub async fn render_problems(request: Request, next: Next) -> Response {
    let json = wants_json(request.uri().path(), request.headers());
    let is_read = request.method() == http::Method::GET;
    let response = next.run(request).await;
    let extensions = response.extensions();
    let shown = match (extensions.get::<Shown>(), extensions.get::<Refusal>()) {
        (Some(shown), _) => shown.clone(),
        (None, Some(refusal)) => Shown::from(*refusal),
        (None, None) => return response,
    };
    let status = response.status();
    let refusal = extensions.get::<Refusal>().copied();
    let wait = response.headers().get(RETRY_AFTER).and_then(|wait| wait.to_str().ok());
    let mut rendered = if json {
        as_json(status, &shown)
    } else {
        let page = ProblemPage {
            style: STYLE,
            status: status.as_u16(),
            title: shown.title,
            detail: &shown.detail,
            wait,
            // Only a page that was being looked at: a write is never sent again without its sender.
            again: wait.filter(|_| is_read && matches!(refusal, Some(Refusal::Hibernated | Refusal::Restoring))),
            links: links(status, refusal, &shown),
        };
        as_page(&page)
    };
    for name in KEPT_HEADERS {
        for value in response.headers().get_all(&name) {
            rendered.headers_mut().append(name.clone(), value.clone());
        }
    }
    *rendered.status_mut() = status;
    rendered
}

fn as_page(page: &ProblemPage<'_>) -> Response {
    match page.render() {
        Ok(html) => Html(html).into_response(),
        Err(_) => page.title.to_owned().into_response(),
    }
}

/// Problem details as in RFC 9457; `limit` and `max` are ours.
fn as_json(status: StatusCode, shown: &Shown) -> Response {
    let mut document = json!({ "title": shown.title, "status": status.as_u16(), "detail": shown.detail });
    if let Some((limit, max)) = shown.limit {
        document["limit"] = limit.into();
        document["max"] = max.into();
    }
    let mut response = Json(document).into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    response
}

fn wants_json(path: &str, headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    path == "/api"
        || path.starts_with("/api/")
        || (accept.contains("application/json") && !accept.contains("text/html"))
}

/// A rendered template.
pub fn page(template: &impl Template) -> Result<Html<String>, Problem> {
    template.render().map(Html).map_err(|error| Problem::Internal(format!("rendering a page: {error}")))
}
