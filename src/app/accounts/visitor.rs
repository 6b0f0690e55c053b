//! Forms of visitors who have no session: signing in, a new password, the first user.
//!
//! Their browser gets a cookie with a secret when a page with such a form is first shown, and the form holds what follows
//! from the secret and the tenant. Nothing is kept on our side. Over TLS the cookie's name begins with `__Host-`: no
//! other host, not even one under the same domain, can set it.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::Method;
use http::header::SET_COOKIE;
use std::time::Duration;

use super::store::links::new_token;
use crate::app::product::Product;
use crate::app::shell::CsrfToken;
use crate::tenancy::TenantContext;
use crate::tenancy::session::{cookie, derived};

/// How long a form may stay open.
const AGE: Duration = Duration::from_hours(24);

/// The layer around pages for visitors; inside the one that knows users.
pub async fn form_secret(
    State(product): State<Product>,
    tenant: TenantContext,
    mut request: Request,
    next: Next,
) -> Response {
    // Whoever is signed in has the session's.
    if request.extensions().get::<CsrfToken>().is_some() {
        return next.run(request).await;
    }
    let secure = product.tenancy().sessions().settings().secure;
    let name = if secure { "__Host-mo_form" } else { "mo_form" };
    let kept = cookie::value(request.headers(), name).filter(|value| is_secret(value)).map(ToOwned::to_owned);
    let is_new = kept.is_none() && request.method() == Method::GET;
    let secret = kept.unwrap_or_else(new_token);
    let token = derived("form", tenant.entry().uuid, secret.as_bytes());
    request.extensions_mut().insert(CsrfToken(token.into()));
    let mut response = next.run(request).await;
    if is_new {
        response.headers_mut().append(SET_COOKIE, cookie::set(name, &secret, AGE, secure));
    }
    response
}

/// Whether it can be one of ours: only then is it worth to be kept.
pub fn is_secret(text: &str) -> bool {
    BASE64_URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}
