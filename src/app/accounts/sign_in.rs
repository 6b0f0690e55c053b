//! Signing in and out.

use askama::Template;
use axum::extract::{FromRequest, RawQuery, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::header::{RETRY_AFTER, SET_COOKIE};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde::Deserialize;
use sqlx::postgres::PgConnection;

use super::attempts::{Allowed, Attempt, DEVICE_AGE, Kind};
use super::begin::{Before, Client, begin, unavailable};
use super::check::FormError;
use super::next::destination;
use super::passwords::Verdict;
use super::store::users::{self, Account};
use super::{links, page, query_value, visitor};
use crate::api::tenant::TenantState;
use crate::app::form::CheckedForm;
use crate::app::problem::Problem;
use crate::app::product::Product;
use crate::app::shell::Shell;
use crate::tenancy::TenantContext;
use crate::tenancy::redis::Redis;
use crate::tenancy::session::{SessionError, cookie};

/// The cookie of a browser that somebody has signed in with.
const DEVICE: &str = "mo_device";

#[derive(Template)]
#[template(path = "accounts/sign_in.html")]
struct SignInPage<'a> {
    shell: Shell,
    email: &'a str,
    next: &'a str,
    /// Whether a mail can be asked for.
    mail: bool,
    error: FormError,
}

/// The form.
#[derive(Deserialize)]
pub struct SignInForm {
    #[serde(default)]
    email: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    next: String,
}

/// `GET /sign-in`
pub async fn show(
    State(product): State<Product>,
    shell: Shell,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let next = query_value(query.as_deref(), "next");
    if shell.user.is_some() {
        return Ok(Redirect::to(destination(&next)).into_response());
    }
    let mail = product.mailer().is_configured();
    page(StatusCode::OK, &SignInPage { shell, email: "", next: destination(&next), mail, error: FormError::default() })
}

/// `POST /sign-in`
pub async fn sign_in(
    State(product): State<Product>,
    tenant: TenantContext,
    shell: Shell,
    Client(address): Client,
    Before(before): Before,
    headers: HeaderMap,
    CheckedForm(form): CheckedForm<SignInForm>,
) -> Result<Response, Problem> {
    let redis = product.tenancy().redis().ok_or(Problem::SignInUnavailable)?;
    let device = cookie::value(&headers, DEVICE).filter(|value| visitor::is_secret(value));
    let attempt = Attempt::new(tenant.entry().uuid, Kind::SignIn, &form.email, address, device);
    let refused = |status, error| {
        let mail = product.mailer().is_configured();
        page(status, &SignInPage { shell, email: form.email.trim(), next: destination(&form.next), mail, error })
    };
    if let Allowed::After(seconds) = attempt.begin(redis).await.map_err(away)? {
        return Ok(later(seconds, refused(StatusCode::TOO_MANY_REQUESTS, FormError::at("password", wait(seconds)))?));
    }
    let Some(account) = accepted(&product, &tenant, &form).await? else {
        // The same for an account that is not there, one that is disabled and one that has no password yet.
        let error = FormError::at("password", "The e-mail address or the password is not right.");
        return refused(StatusCode::BAD_REQUEST, error);
    };
    // Before the session is begun: whoever has the right password and meets an outage there may try again as often as it
    // takes.
    attempt.succeeded(redis).await.map_err(away)?;
    let mut response = begin(&product, &tenant, before.as_ref(), (account.id, account.generation), &form.next).await?;
    remember_device(&product, redis, &attempt, device, &mut response).await?;
    Ok(response)
}

/// `POST /sign-out`. Takes the request as it is, because who has no session any more has no valid form either, and is
/// signed out all the same.
pub async fn sign_out(
    State(product): State<Product>,
    Before(before): Before,
    request: Request,
) -> Result<Response, Problem> {
    let mut response = Redirect::to("/sign-in").into_response();
    let Some(session) = before else { return Ok(response) };
    CheckedForm::<links::Nothing>::from_request(request, &product).await?;
    let sessions = product.tenancy().sessions();
    sessions.end(&session.0).await.map_err(|error| unavailable(&error))?;
    response.headers_mut().append(SET_COOKIE, cookie::clear(cookie::SESSION, sessions.settings().secure));
    Ok(response)
}

/// The account, if the password is its own and it may be used.
async fn accepted(product: &Product, tenant: &TenantContext, form: &SignInForm) -> Result<Option<Account>, Problem> {
    let email = form.email.trim();
    // No address has such characters, and PostgreSQL takes not even the question.
    let found = if email.chars().any(char::is_control) {
        None
    } else {
        let find = async |db: &mut PgConnection| Ok::<_, Problem>(users::account(db, email).await?);
        tenant.database().run(find).await?
    };
    let account = found.filter(|account| !account.disabled);
    let kept = account.as_ref().and_then(|account| account.password_hash.clone());
    let verdict = product.passwords().verify(&form.password, kept.clone()).await?;
    let (Some(account), false) = (account, verdict == Verdict::Wrong) else { return Ok(None) };
    // A tenant that is read-only can be looked at, so one can sign in there too; only nothing is noted.
    if tenant.entry().state != TenantState::ReadOnly {
        let rehashed = if let Verdict::Rehash(hash) = &verdict { Some(hash.as_str()) } else { None };
        tenant
            .database()
            .run(async |db: &mut PgConnection| {
                Ok::<_, Problem>(users::signed_in(db, account.id, &kept.unwrap_or_default(), rehashed).await?)
            })
            .await?;
    }
    Ok(Some(account))
}

async fn remember_device(
    product: &Product,
    redis: &Redis,
    attempt: &Attempt,
    device: Option<&str>,
    response: &mut Response,
) -> Result<(), Problem> {
    let secret = device.map_or_else(super::store::links::new_token, ToOwned::to_owned);
    attempt.remember_device(redis, &secret).await.map_err(away)?;
    let secure = product.tenancy().sessions().settings().secure;
    response.headers_mut().append(SET_COOKIE, cookie::set(DEVICE, &secret, DEVICE_AGE, secure));
    Ok(())
}

/// What somebody reads who has to wait.
pub fn wait(seconds: u64) -> String {
    let minutes = seconds.div_ceil(60);
    let minutes = if minutes == 1 { "a minute".to_owned() } else { format!("{minutes} minutes") };
    format!("That was tried too often. Try again in {minutes}.")
}

/// An answer to come back from later.
pub fn later(seconds: u64, mut response: Response) -> Response {
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

/// Notes why, and says what visitors may know of it.
pub fn away(error: redis::RedisError) -> Problem {
    unavailable(&SessionError::Away { doing: "counting attempts", source: error })
}
