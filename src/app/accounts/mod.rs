//! Who may work here: sign-in, users and their roles, tokens for programs.
//!
//! | to see … | read |
//! |---|---|
//! | whom handlers see | `current` |
//! | how a request's user is found | `guard`, and the layers `auth` and `verified` of the library |
//! | sign-in and its limits | `sign_in`, `attempts`, `passwords`, `begin` |
//! | links in mails | `links`, `letters` |
//! | the first user | `welcome` |
//! | pages of administrators | `people` |
//! | one's own pages | `profile`, `tokens` |
//! | every statement | `store` |

mod api;
mod attempts;
mod begin;
mod check;
mod current;
mod guard;
mod letters;
mod links;
mod next;
mod people;
mod profile;
mod sign_in;
mod store;
mod tokens;
mod visitor;
mod welcome;

use askama::Template;
use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::StatusCode;
use http::header::{CACHE_CONTROL, HeaderValue};
use sqlx::postgres::PgConnection;
use tracing::Instrument;

pub use self::current::{CurrentUser, Role};
pub use self::guard::Users;
pub use crate::passwords::{PasswordError, Passwords};

pub use self::visitor::form_secret;
use crate::passwords;

use super::mail::Letter;
use super::problem::Problem;
use super::product::Product;
use super::render;
use crate::tenancy::TenantContext;

/// Paths whose forms write nothing of the tenant's: one can sign in to look at a tenant that is read-only.
pub const ALWAYS_SERVED: &[&str] = &["/sign-in", "/sign-out"];

/// A user who may work, by id.
pub async fn active(db: &mut PgConnection, id: i64) -> Result<Option<CurrentUser>, sqlx::Error> {
    Ok(store::users::find(db, id).await?.map(|found| found.user))
}

/// Pages for visitors who are not signed in.
pub fn public() -> Router<Product> {
    Router::new()
        .route("/sign-in", get(sign_in::show).post(sign_in::sign_in))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/forgot-password", get(links::forgot).post(links::send_reset))
        .route("/reset-password", get(links::show_reset).post(links::reset))
        .route("/invitation", get(links::show_invitation).post(links::accept_invitation))
        .route("/verify-email", get(links::show_verify).post(links::verify))
        .route("/welcome", get(welcome::show).post(welcome::make_first_user))
}

/// Pages for those who are, whether or not their address is known to be theirs.
pub fn unverified() -> Router<Product> {
    Router::new().route(guard::UNVERIFIED, get(profile::unverified).post(profile::send_again))
}

/// Pages for those whose address is known to be theirs.
pub fn signed_in() -> Router<Product> {
    Router::new()
        .route("/users", get(people::list).post(people::invite))
        .route("/users/{id}", get(people::show))
        .route("/users/{id}/invite", post(people::invite_again))
        .route("/users/{id}/role", post(people::set_role))
        .route("/users/{id}/disable", post(people::disable))
        .route("/users/{id}/enable", post(people::enable))
        .route("/profile", get(profile::show))
        .route("/profile/name", post(profile::rename))
        .route("/profile/email", post(profile::change_email))
        .route("/profile/password", post(profile::change_password))
        .route("/tokens", get(tokens::list).post(tokens::make))
        .route("/tokens/{id}/revoke", post(tokens::revoke))
        .route("/api/me", get(api::me))
        .route("/api/users", get(api::list))
}

/// A page that no cache keeps: every page here is somebody's own.
fn page(status: StatusCode, template: &impl Template) -> Result<Response, Problem> {
    let no_store = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((status, no_store, render::page(template)?).into_response())
}

/// One value of a query; empty where it is not there.
fn query_value(query: Option<&str>, name: &str) -> String {
    let pairs: Vec<(String, String)> = serde_urlencoded::from_str(query.unwrap_or_default()).unwrap_or_default();
    pairs.into_iter().find(|(key, _)| key == name).map(|(_, value)| value).unwrap_or_default()
}

/// An id in a path. What is no number is the id of nothing.
fn object_id(text: &str) -> Result<i64, Problem> {
    text.parse().map_err(|_| Problem::NotFound)
}

/// Sends a mail that nobody waits for.
fn send_later(product: &Product, tenant: &TenantContext, letter: Letter) {
    let mailer = product.mailer().clone();
    let work = async move {
        if let Err(error) = mailer.send(&letter).await {
            tracing::error!(target: "tenant", error = chain(&error), subject = letter.subject, "a mail was not sent");
        }
    };
    tokio::spawn(work.instrument(tenant.span().clone()));
}

/// An error and everything below it, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    super::problem::chain(error)
}
