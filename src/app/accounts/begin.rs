//! How a session begins, whatever led to it: a password, an invitation, a new password, the first user.

use axum::extract::FromRequestParts;
use axum::response::{IntoResponse, Redirect, Response};
use http::header::SET_COOKIE;
use http::request::Parts;
use std::convert::Infallible;
use std::net::IpAddr;

use sqlx::postgres::PgConnection;

use super::next::destination;
use super::store::users;
use crate::app::problem::Problem;
use crate::app::product::Product;
use crate::tenancy::layers::auth::CurrentSession;
use crate::tenancy::session::{Holder, SessionError, cookie};
use crate::tenancy::{TenantContext, client};

/// Signs a user in under a new id, ends the session that the browser had before, and leads to `next`.
pub async fn begin(
    product: &Product,
    tenant: &TenantContext,
    before: Option<&CurrentSession>,
    (user, generation): (i64, i64),
    next: &str,
) -> Result<Response, Problem> {
    let tenancy = product.tenancy();
    let found =
        tenant.database().run(async |db: &mut PgConnection| Ok::<_, Problem>(users::find(db, user).await?)).await?;
    let (incarnation, person) = (tenant.entry().incarnation, found.map(|found| found.user.email));
    let holder = Holder { user: user.to_string(), generation, incarnation, person };
    let session = tenancy.begin_session(tenant, holder).await.map_err(|error| unavailable(&error))?;
    if let Some(CurrentSession(before)) = before {
        tenancy.sessions().end(before).await.map_err(|error| unavailable(&error))?;
    }
    let settings = tenancy.sessions().settings();
    let mut response = Redirect::to(destination(next)).into_response();
    let cookie = cookie::set(cookie::SESSION, &session.text(), settings.lifetime, settings.secure);
    response.headers_mut().append(SET_COOKIE, cookie);
    Ok(response)
}

/// Notes why, and says what visitors may know of it.
pub fn unavailable(error: &SessionError) -> Problem {
    tracing::warn!(target: "tenant", error = error as &dyn std::error::Error, "nobody can sign in");
    Problem::SignInUnavailable
}

/// Where a request comes from, for limits on guessing.
pub struct Client(pub Option<IpAddr>);

impl FromRequestParts<Product> for Client {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, product: &Product) -> Result<Self, Infallible> {
        Ok(Self(client::address_of(parts, product.tenancy().hosts())))
    }
}

/// The session that the request came with, if it came with one.
pub struct Before(pub Option<CurrentSession>);

impl FromRequestParts<Product> for Before {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &Product) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.get().cloned()))
    }
}
