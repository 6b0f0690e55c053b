//! `auth`: who is it? By the session's cookie on pages, by a token on the JSON interface.
//!
//! The library knows sessions and tokens, the app knows users: it says so in a [`Guard`].

use std::future::Future;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{AUTHORIZATION, HeaderValue, SET_COOKIE};
use http::request::Parts;
use http::{Extensions, HeaderMap, Method};

use crate::tenancy::session::cookie::{self, SESSION};
use crate::tenancy::session::{Holder, SessionError, SessionId};
use crate::tenancy::{Tenancy, TenantContext};

/// What an app knows of its users.
///
/// Both look-ups ask the tenant's own database, each time: what was decided about a user a moment ago holds for the
/// next request, in every process.
pub trait Guard: Clone + Send + Sync + 'static {
    /// A user as found; in the extensions of the request as [`SignedIn`].
    type User: Clone + Send + Sync + 'static;
    /// Why it cannot be said, as an answer.
    type Error: IntoResponse + Send;

    /// The user of a session; none when there is no such user any more, or its generation is another.
    fn by_session(
        &self,
        tenant: &TenantContext,
        holder: &Holder,
    ) -> impl Future<Output = Result<Option<Self::User>, Self::Error>> + Send;

    /// The user of a token for programs.
    fn by_token(
        &self,
        tenant: &TenantContext,
        token: &str,
    ) -> impl Future<Output = Result<Option<Self::User>, Self::Error>> + Send;

    /// Whether the address that the user signs in with is known to be the user's.
    fn is_verified(&self, user: &Self::User) -> bool;

    /// Tells the handlers who it is, in the app's own types. `form_secret` is the secret of the session's forms; there is
    /// none where a token was used, because no browser sends one by itself.
    fn admit(&self, user: &Self::User, form_secret: Option<String>, extensions: &mut Extensions);

    /// The answer to who is not let through.
    fn refuse(&self, why: Refused, request: &Parts) -> Response;

    /// Whether a path belongs to the interface for programs, which takes tokens.
    fn is_api(&self, path: &str) -> bool {
        path == "/api" || path.starts_with("/api/")
    }
}

/// Why somebody is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// Nobody is signed in, or no longer.
    SignInFirst,
    /// Nobody can say who is signed in, because Redis is away. This passes.
    Unavailable,
    /// The user has not shown yet that the address is theirs.
    Unverified,
}

/// Who is signed in, in the request's extensions.
#[derive(Clone)]
pub struct SignedIn<U>(pub U);

/// The session that a request came with, in its extensions; for signing out.
#[derive(Clone)]
pub struct CurrentSession(pub SessionId);

/// The state of both layers.
#[derive(Clone)]
pub struct Auth<G> {
    /// For the sessions.
    pub tenancy: Tenancy,
    /// For the users.
    pub guard: G,
}

/// What a request shows of who sent it.
enum Visitor<U> {
    /// Nothing.
    Stranger,
    /// A cookie that is worth nothing here, or not any more.
    Stale,
    /// A token that is not one.
    BadToken,
    /// A user. Those with a token have no session.
    Known(U, Option<SessionId>),
    /// A cookie that nobody can judge right now.
    Unknown,
}

/// The layer around what is for signed-in users alone.
pub async fn require_user<G: Guard>(
    State(auth): State<Auth<G>>,
    tenant: TenantContext,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    let visitor = match find(&auth, &tenant, &parts).await {
        Ok(visitor) => visitor,
        Err(error) => return error.into_response(),
    };
    match visitor {
        Visitor::Known(user, session) => {
            admit(&auth.guard, user, session, &mut parts.extensions);
            next.run(Request::from_parts(parts, body)).await
        }
        Visitor::Unknown => auth.guard.refuse(Refused::Unavailable, &parts),
        Visitor::Stale => forgetting(&auth, auth.guard.refuse(Refused::SignInFirst, &parts)),
        Visitor::Stranger | Visitor::BadToken => auth.guard.refuse(Refused::SignInFirst, &parts),
    }
}

/// The layer around what is for everybody, and knows who is signed in where somebody is. Whoever brings no cookie and no
/// token costs nothing and gets no session. An outage passes here: a sign-in page is better than none.
pub async fn know_user<G: Guard>(
    State(auth): State<Auth<G>>,
    tenant: TenantContext,
    request: Request,
    next: Next,
) -> Response {
    let (mut parts, body) = request.into_parts();
    // What a database that is away means here is up to the handler; most do not need it.
    let visitor = find(&auth, &tenant, &parts).await.unwrap_or(Visitor::Unknown);
    let mut stale = false;
    match visitor {
        Visitor::Known(user, session) => admit(&auth.guard, user, session, &mut parts.extensions),
        // A program with a wrong token shall hear of it, and not take the answer for strangers as its own.
        Visitor::BadToken => return auth.guard.refuse(Refused::SignInFirst, &parts),
        Visitor::Stale => stale = true,
        Visitor::Stranger | Visitor::Unknown => {}
    }
    let response = next.run(Request::from_parts(parts, body)).await;
    // A sign-in that has just succeeded sets the same cookie; it must not be cleared behind its back.
    if stale && !sets_session(response.headers()) { forgetting(&auth, response) } else { response }
}

async fn find<G: Guard>(auth: &Auth<G>, tenant: &TenantContext, request: &Parts) -> Result<Visitor<G::User>, G::Error> {
    let is_api = auth.guard.is_api(request.uri.path());
    if is_api && request.headers.contains_key(AUTHORIZATION) {
        let Some(token) = bearer(&request.headers) else { return Ok(Visitor::BadToken) };
        let user = auth.guard.by_token(tenant, token).await?;
        return Ok(user.map_or(Visitor::BadToken, |user| Visitor::Known(user, None)));
    }
    // A cookie rides along with whatever a browser sends, and a document carries no secret of a form: so the interface
    // for programs is only read with it.
    if is_api && !matches!(request.method, Method::GET | Method::HEAD) {
        return Ok(Visitor::Stranger);
    }
    if !cookie::is_present(&request.headers, SESSION) {
        return Ok(Visitor::Stranger);
    }
    let Some(session) = cookie::value(&request.headers, SESSION).and_then(SessionId::parse) else {
        return Ok(Visitor::Stale);
    };
    by_session(auth, tenant, session).await
}

async fn by_session<G: Guard>(
    auth: &Auth<G>,
    tenant: &TenantContext,
    session: SessionId,
) -> Result<Visitor<G::User>, G::Error> {
    let sessions = auth.tenancy.sessions();
    if session.tenant() != tenant.entry().uuid {
        // A browser never sends it here by itself. Somebody carried it, so it is not safe where it belongs either.
        tracing::warn!(target: "tenant", "a session of another tenant was presented, and ends");
        return Ok(ended(sessions.end(&session).await));
    }
    let holder = match sessions.find(&session).await {
        Ok(Some(holder)) => holder,
        Ok(None) => return Ok(Visitor::Stale),
        Err(error) => {
            tracing::warn!(target: "tenant", error = &error as &dyn std::error::Error, "who is signed in cannot be said");
            return Ok(Visitor::Unknown);
        }
    };
    match auth.guard.by_session(tenant, &holder).await? {
        Some(user) => Ok(Visitor::Known(user, Some(session))),
        None => Ok(ended(sessions.end(&session).await)),
    }
}

fn ended<U>(outcome: Result<(), SessionError>) -> Visitor<U> {
    if let Err(error) = outcome {
        tracing::warn!(target: "tenant", error = &error as &dyn std::error::Error, "a session was not ended in Redis");
    }
    Visitor::Stale
}

fn admit<G: Guard>(guard: &G, user: G::User, session: Option<SessionId>, extensions: &mut Extensions) {
    guard.admit(&user, session.as_ref().map(SessionId::form_secret), extensions);
    extensions.insert(SignedIn(user));
    if let Some(session) = session {
        extensions.insert(CurrentSession(session));
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim()).filter(|token| !token.is_empty())
}

fn sets_session(headers: &HeaderMap) -> bool {
    let is_ours = |value: &HeaderValue| {
        value.as_bytes().strip_prefix(SESSION.as_bytes()).is_some_and(|rest| rest.starts_with(b"="))
    };
    headers.get_all(SET_COOKIE).iter().any(is_ours)
}

fn forgetting<G>(auth: &Auth<G>, mut response: Response) -> Response {
    let secure = auth.tenancy.sessions().settings().secure;
    response.headers_mut().append(SET_COOKIE, cookie::clear(SESSION, secure));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_one_word_after_bearer() {
        let rows: [(&[&'static str], Option<&str>); 7] = [
            (&["Bearer abc"], Some("abc")),
            (&["bearer  abc "], Some("abc")),
            (&["Basic abc"], None),
            (&["Bearer"], None),
            (&["Bearer "], None),
            (&["Bearer a", "Bearer b"], None),
            (&[], None),
        ];
        for (values, expected) in rows {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(AUTHORIZATION, HeaderValue::from_static(value));
            }
            assert_eq!(bearer(&headers), expected, "{values:?}");
        }
    }
}
