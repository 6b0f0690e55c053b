//! Pages that a link in a mail leads to, and the page that asks for one: a new password, an invitation, an address.
//!
//! Opening a link changes nothing: programs that look into mails open links too. What it is for happens when the page's
//! form is sent.

use askama::Template;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use serde::Deserialize;
use sqlx::postgres::PgConnection;
use tracing::Instrument;

use super::attempts::{Allowed, Attempt, Kind};
use super::begin::{Before, Client, begin};
use super::check::{self, FormError};
use super::sign_in::{away, later, wait};
use super::store::links::{self, Link, Purpose};
use super::store::users;
use super::{letters, page, query_value, send_later, store};
use crate::app::form::CheckedForm;
use crate::app::problem::Problem;
use crate::app::product::Product;
use crate::app::shell::Shell;
use crate::tenancy::TenantContext;

/// A form without fields of its own.
#[derive(Deserialize)]
pub struct Nothing {}

#[derive(Template)]
#[template(path = "accounts/forgot.html")]
struct ForgotPage<'a> {
    shell: Shell,
    email: &'a str,
    sent: bool,
    mail: bool,
    error: FormError,
}

#[derive(Template)]
#[template(path = "accounts/password.html")]
struct PasswordPage<'a> {
    shell: Shell,
    /// Whether it is the first password.
    invitation: bool,
    action: &'static str,
    token: &'a str,
    email: &'a str,
    name: &'a str,
    error: FormError,
}

#[derive(Template)]
#[template(path = "accounts/verify.html")]
struct VerifyPage<'a> {
    shell: Shell,
    token: &'a str,
    email: &'a str,
}

#[derive(Template)]
#[template(path = "accounts/dead_link.html")]
struct DeadLinkPage {
    shell: Shell,
    /// What to do instead.
    advice: &'static str,
}

/// Who asks for a mail.
#[derive(Deserialize)]
pub struct ForgotForm {
    #[serde(default)]
    email: String,
}

/// A password typed twice, and for an invitation the name.
#[derive(Deserialize)]
pub struct PasswordForm {
    #[serde(default)]
    token: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    again: String,
}

/// A token alone.
#[derive(Deserialize)]
pub struct TokenForm {
    #[serde(default)]
    token: String,
}

/// What is answered to a link that is not good, whatever the reason: who has it is not told which.
pub fn dead_link(shell: Shell, advice: &'static str) -> Result<Response, Problem> {
    page(StatusCode::GONE, &DeadLinkPage { shell, advice })
}

/// `GET /forgot-password`
pub async fn forgot(
    State(product): State<Product>,
    shell: Shell,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let sent = query_value(query.as_deref(), "sent") == "1";
    let mail = product.mailer().is_configured();
    page(StatusCode::OK, &ForgotPage { shell, email: "", sent, mail, error: FormError::default() })
}

/// `POST /forgot-password`. Everything that depends on whether there is such an account happens after the answer.
pub async fn send_reset(
    State(product): State<Product>,
    tenant: TenantContext,
    shell: Shell,
    Client(address): Client,
    CheckedForm(form): CheckedForm<ForgotForm>,
) -> Result<Response, Problem> {
    let mail = product.mailer().is_configured();
    let refused = |status, email: &str, error| page(status, &ForgotPage { shell, email, sent: false, mail, error });
    let email = match check::email(&form.email) {
        Ok(email) => email,
        Err(error) => return refused(StatusCode::BAD_REQUEST, &form.email, error),
    };
    let redis = product.tenancy().redis().ok_or(Problem::SignInUnavailable)?;
    let attempt = Attempt::new(tenant.entry().uuid, Kind::Mail, &email, address, None);
    if let Allowed::After(seconds) = attempt.begin(redis).await.map_err(away)? {
        let error = FormError::at("email", wait(seconds));
        return Ok(later(seconds, refused(StatusCode::TOO_MANY_REQUESTS, &email, error)?));
    }
    let span = tenant.span().clone();
    let work = async move {
        if let Err(error) = mail_reset(&product, &tenant, &email).await {
            tracing::error!(target: "tenant", error = &error as &dyn std::error::Error, "no mail for a new password");
        }
    };
    tokio::spawn(work.instrument(span));
    Ok(Redirect::to("/forgot-password?sent=1").into_response())
}

async fn mail_reset(product: &Product, tenant: &TenantContext, email: &str) -> Result<(), Problem> {
    let made = tenant
        .database()
        .transaction(async |db: &mut PgConnection| {
            let account = users::account(db, email).await?.filter(|account| !account.disabled);
            // Somebody who was invited and has no password yet uses the invitation, or this.
            let Some(account) = account else { return Ok::<_, Problem>(None) };
            let token = links::add(db, account.id, Purpose::Reset, &account.email, true).await?;
            Ok(Some((account, token)))
        })
        .await?;
    let Some((account, token)) = made else { return Ok(()) };
    let entry = tenant.entry();
    let link = product.mailer().link(&entry.primary_host, Purpose::Reset.path(), &token);
    let letter = letters::reset(entry, (&account.name, &account.email), &link);
    product.post(tenant, letter).await.map_err(|error| Problem::Internal(super::chain(&error)))
}

const ASK_AGAIN: &str = "Ask for a new one on the sign-in page, under “Forgot your password?”.";
const ASK_ADMIN: &str = "Ask your administrator to invite you again.";

/// `GET /reset-password`
pub async fn show_reset(tenant: TenantContext, shell: Shell, query: RawQuery) -> Result<Response, Problem> {
    show_password(tenant, shell, query, Purpose::Reset).await
}

/// `GET /invitation`
pub async fn show_invitation(tenant: TenantContext, shell: Shell, query: RawQuery) -> Result<Response, Problem> {
    show_password(tenant, shell, query, Purpose::Invite).await
}

async fn show_password(
    tenant: TenantContext,
    shell: Shell,
    RawQuery(query): RawQuery,
    purpose: Purpose,
) -> Result<Response, Problem> {
    let token = query_value(query.as_deref(), "token");
    match find(&tenant, purpose, &token).await? {
        Some(link) => password_page(StatusCode::OK, shell, purpose, (&token, &link.name), &link, FormError::default()),
        None => dead_link(shell, advice(purpose)),
    }
}

fn advice(purpose: Purpose) -> &'static str {
    if purpose == Purpose::Invite { ASK_ADMIN } else { ASK_AGAIN }
}

fn password_page(
    status: StatusCode,
    shell: Shell,
    purpose: Purpose,
    (token, name): (&str, &str),
    link: &Link,
    error: FormError,
) -> Result<Response, Problem> {
    let invitation = purpose == Purpose::Invite;
    let shown = PasswordPage { shell, invitation, action: purpose.path(), token, email: &link.email, name, error };
    page(status, &shown)
}

async fn find(tenant: &TenantContext, purpose: Purpose, token: &str) -> Result<Option<Link>, Problem> {
    tenant.database().run(async |db: &mut PgConnection| Ok::<_, Problem>(links::find(db, purpose, token).await?)).await
}

/// `POST /reset-password`
pub async fn reset(
    state: State<Product>,
    tenant: TenantContext,
    shell: Shell,
    before: Before,
    form: CheckedForm<PasswordForm>,
) -> Result<Response, Problem> {
    set_password(state, tenant, shell, before, form, Purpose::Reset).await
}

/// `POST /invitation`
pub async fn accept_invitation(
    state: State<Product>,
    tenant: TenantContext,
    shell: Shell,
    before: Before,
    form: CheckedForm<PasswordForm>,
) -> Result<Response, Problem> {
    set_password(state, tenant, shell, before, form, Purpose::Invite).await
}

async fn set_password(
    State(product): State<Product>,
    tenant: TenantContext,
    shell: Shell,
    Before(before): Before,
    CheckedForm(form): CheckedForm<PasswordForm>,
    purpose: Purpose,
) -> Result<Response, Problem> {
    // Before the expensive part, so that a wrong token costs nothing.
    let Some(link) = find(&tenant, purpose, &form.token).await? else { return dead_link(shell, advice(purpose)) };
    let checked = if purpose == Purpose::Invite { check::name(&form.name) } else { Ok(link.name.clone()) };
    let checked = checked.and_then(|name| {
        check::password(&form.password, &form.again, &link.email, &name)?;
        Ok(name)
    });
    let name = match checked {
        Ok(name) => name,
        Err(error) => {
            let typed = (form.token.as_str(), form.name.as_str());
            return password_page(StatusCode::BAD_REQUEST, shell, purpose, typed, &link, error);
        }
    };
    let hash = product.passwords().hash(&form.password).await?;
    let set = tenant
        .database()
        .transaction(async |db: &mut PgConnection| spend(db, purpose, &form.token, &name, &hash).await)
        .await?;
    let Some(user) = set else { return dead_link(shell, advice(purpose)) };
    match begin(&product, &tenant, before.as_ref(), user, "/").await {
        // The password is set. Signing in with it will do once that is possible again.
        Err(Problem::SignInUnavailable) => Ok(Redirect::to("/sign-in").into_response()),
        answer => answer,
    }
}

/// Sets the password that the link allows to set, once. Returns the user and the new generation.
async fn spend(
    db: &mut PgConnection,
    purpose: Purpose,
    token: &str,
    name: &str,
    hash: &str,
) -> Result<Option<(i64, i64)>, Problem> {
    let Some(link) = links::spend(db, purpose, token).await? else { return Ok(None) };
    let generation = users::set_password(db, link.user_id, hash).await?;
    if purpose == Purpose::Reset {
        // Who forgot it has nothing to fear for their programs, but who knew it may have made tokens.
        users::revoke_tokens(db, link.user_id).await?;
    }
    // Other ways to set it end as well: a mail that somebody else asked for, an invitation that was handed around.
    links::end(db, link.user_id, Purpose::Reset).await?;
    links::end(db, link.user_id, Purpose::Invite).await?;
    if link.mailed {
        users::verify(db, link.user_id, &link.email).await?;
    }
    let (kind, summary) = match purpose {
        Purpose::Invite => {
            users::rename(db, link.user_id, name).await?;
            ("user.joined", format!("{name} accepted the invitation"))
        }
        _ => ("user.password_reset", format!("{name} chose a new password by mail")),
    };
    store::note(db, Some(link.user_id), kind, link.user_id, &summary).await?;
    Ok(Some((link.user_id, generation)))
}

const SEND_AGAIN: &str = "Sign in, and have a new one sent.";

/// `GET /verify-email`
pub async fn show_verify(tenant: TenantContext, shell: Shell, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let token = query_value(query.as_deref(), "token");
    match find(&tenant, Purpose::Verify, &token).await? {
        Some(link) => page(StatusCode::OK, &VerifyPage { shell, token: &token, email: &link.email }),
        None => dead_link(shell, SEND_AGAIN),
    }
}

/// `POST /verify-email`
pub async fn verify(
    State(product): State<Product>,
    tenant: TenantContext,
    shell: Shell,
    CheckedForm(form): CheckedForm<TokenForm>,
) -> Result<Response, Problem> {
    let verified = tenant
        .database()
        .transaction(async |db: &mut PgConnection| {
            let Some(link) = links::spend(db, Purpose::Verify, &form.token).await? else {
                return Ok::<_, Problem>(None);
            };
            let before = users::account_of(db, link.user_id).await?;
            if !users::verify(db, link.user_id, &link.email).await? {
                return Ok(None);
            }
            let summary = format!("{} confirmed an e-mail address", link.name);
            store::note(db, Some(link.user_id), "user.email_verified", link.user_id, &summary).await?;
            // Mail that is under way to the old address opens nothing any more.
            if before.as_ref().is_some_and(|before| before.email != link.email) {
                links::end(db, link.user_id, Purpose::Reset).await?;
                return Ok(Some(before));
            }
            Ok(Some(None))
        })
        .await?;
    let Some(changed) = verified else { return dead_link(shell, SEND_AGAIN) };
    if let Some(before) = changed {
        send_later(&product, &tenant, letters::address_changed(tenant.entry(), (&before.name, &before.email)));
    }
    Ok(Redirect::to(if shell.user.is_some() { "/profile?done=saved" } else { "/sign-in" }).into_response())
}
