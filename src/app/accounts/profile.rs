//! One's own account: name, e-mail address, password.

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use serde::Deserialize;
use sqlx::postgres::PgConnection;

use super::attempts::{Allowed, Attempt, Kind, too_many_mails};
use super::begin::{Before, Client, begin};
use super::check::{self, FormError};
use super::current::CurrentUser;
use super::links::Nothing;
use super::passwords::Verdict;
use super::sign_in::{away, later, wait};
use super::store::links::{self, Purpose};
use super::store::users;
use super::{letters, page, store};
use crate::app::form::CheckedForm;
use crate::app::mail::MailError;
use crate::app::problem::Problem;
use crate::app::product::Product;
use crate::app::shell::Shell;
use crate::tenancy::TenantContext;

#[derive(Template)]
#[template(path = "accounts/profile.html")]
struct ProfilePage {
    shell: Shell,
    user: CurrentUser,
    /// As typed.
    name: String,
    /// As typed, into the form for another address.
    email: String,
    /// Whether the address can be changed.
    mail: bool,
    error: FormError,
}

#[derive(Template)]
#[template(path = "accounts/unverified.html")]
struct UnverifiedPage {
    shell: Shell,
    user: CurrentUser,
    /// What became of a mail that was asked for.
    said: Option<&'static str>,
    failed: bool,
}

/// Another name.
#[derive(Deserialize)]
pub struct NameForm {
    #[serde(default)]
    name: String,
}

/// Another address.
#[derive(Deserialize)]
pub struct EmailForm {
    #[serde(default)]
    email: String,
    #[serde(default)]
    current_for_email: String,
}

/// Another password.
#[derive(Deserialize)]
pub struct PasswordForm {
    #[serde(default)]
    current: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    again: String,
}

/// `GET /profile`
pub async fn show(State(product): State<Product>, user: CurrentUser, shell: Shell) -> Result<Response, Problem> {
    profile(StatusCode::OK, &product, shell, user, FormError::default())
}

fn profile(
    status: StatusCode,
    product: &Product,
    shell: Shell,
    user: CurrentUser,
    error: FormError,
) -> Result<Response, Problem> {
    let (name, mail) = (user.name.clone(), product.mailer().is_configured());
    page(status, &ProfilePage { shell, user, name, email: String::new(), mail, error })
}

const SAVED: &str = "/profile?done=saved";

/// `POST /profile/name`
pub async fn rename(
    State(product): State<Product>,
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    CheckedForm(form): CheckedForm<NameForm>,
) -> Result<Response, Problem> {
    let name = match check::name(&form.name) {
        Ok(name) => name,
        Err(error) => {
            let mail = product.mailer().is_configured();
            let shown = ProfilePage { shell, user, name: form.name, email: String::new(), mail, error };
            return page(StatusCode::BAD_REQUEST, &shown);
        }
    };
    tenant
        .database()
        .transaction(async |db: &mut PgConnection| {
            users::rename(db, user.id, &name).await?;
            let summary = format!("{} is now called {name}", user.name);
            // Two long names fit the column only when shortened.
            let summary: String = summary.chars().take(1000).collect();
            store::note(db, Some(user.id), "user.renamed", user.id, &summary).await?;
            Ok::<_, Problem>(())
        })
        .await?;
    Ok(Redirect::to(SAVED).into_response())
}

/// What comparing the current password found.
enum Current {
    Right,
    Refused(StatusCode, FormError, u64),
}

/// Compares the password of somebody who is signed in: a screen that was left alone must not be enough.
async fn current(
    product: &Product,
    tenant: &TenantContext,
    user: &CurrentUser,
    Client(address): Client,
    (field, password): (&'static str, &str),
) -> Result<Current, Problem> {
    let redis = product.tenancy().redis().ok_or(Problem::SignInUnavailable)?;
    let attempt = Attempt::new(tenant.entry().uuid, Kind::SignIn, &user.email, address, None);
    if let Allowed::After(seconds) = attempt.begin(redis).await.map_err(away)? {
        let error = FormError::at(field, wait(seconds));
        return Ok(Current::Refused(StatusCode::TOO_MANY_REQUESTS, error, seconds));
    }
    let account = tenant
        .database()
        .run(async |db: &mut PgConnection| Ok::<_, Problem>(users::account_of(db, user.id).await?))
        .await?;
    let kept = account.and_then(|account| account.password_hash);
    if product.passwords().verify(password, kept).await? == Verdict::Wrong {
        return Ok(Current::Refused(StatusCode::BAD_REQUEST, FormError::at(field, "That is not your password."), 0));
    }
    attempt.succeeded(redis).await.map_err(away)?;
    Ok(Current::Right)
}

/// `POST /profile/password`. Ends all sessions of the user; this browser gets a new one.
pub async fn change_password(
    State(product): State<Product>,
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    client: Client,
    Before(before): Before,
    CheckedForm(form): CheckedForm<PasswordForm>,
) -> Result<Response, Problem> {
    if let Err(error) = check::password(&form.password, &form.again, &user.email, &user.name) {
        return profile(StatusCode::BAD_REQUEST, &product, shell, user, error);
    }
    if let Current::Refused(status, error, seconds) =
        current(&product, &tenant, &user, client, ("current", &form.current)).await?
    {
        return refused(seconds, profile(status, &product, shell, user, error));
    }
    let hash = product.passwords().hash(&form.password).await?;
    let generation = tenant
        .database()
        .transaction(async |db: &mut PgConnection| {
            let generation = users::set_password(db, user.id, &hash).await?;
            links::end(db, user.id, Purpose::Reset).await?;
            let summary = format!("{} changed the password", user.name);
            store::note(db, Some(user.id), "user.password_changed", user.id, &summary).await?;
            Ok::<_, Problem>(generation)
        })
        .await?;
    begin(&product, &tenant, before.as_ref(), (user.id, generation), SAVED).await
}

fn refused(seconds: u64, response: Result<Response, Problem>) -> Result<Response, Problem> {
    if seconds > 0 { Ok(later(seconds, response?)) } else { response }
}

/// `POST /profile/email`. The address changes when the link in a mail to the new one is opened.
pub async fn change_email(
    State(product): State<Product>,
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    client: Client,
    CheckedForm(form): CheckedForm<EmailForm>,
) -> Result<Response, Problem> {
    let answer = |status, shell, user, email: &str, error| {
        let mail = product.mailer().is_configured();
        let CurrentUser { name, .. } = &user;
        let (name, email) = (name.clone(), email.to_owned());
        page(status, &ProfilePage { shell, user, name, email, mail, error })
    };
    let email = match check::email(&form.email) {
        Ok(email) => email,
        Err(error) => return answer(StatusCode::BAD_REQUEST, shell, user, &form.email, error),
    };
    let typed = ("current_for_email", form.current_for_email.as_str());
    if let Current::Refused(status, error, seconds) = current(&product, &tenant, &user, client, typed).await? {
        return refused(seconds, answer(status, shell, user, &email, error));
    }
    if let Some(refused) = too_many_mails(&product, &tenant, &email).await? {
        return Ok(refused);
    }
    if send_verification(&product, &tenant, &user, &email).await?.is_err() {
        let error = FormError::at("email", "No mail could be sent there right now. Try again later.");
        return answer(StatusCode::SERVICE_UNAVAILABLE, shell, user, &email, error);
    }
    Ok(Redirect::to("/profile?done=sent").into_response())
}

/// Mails a link that confirms `email` as the user's address.
async fn send_verification(
    product: &Product,
    tenant: &TenantContext,
    user: &CurrentUser,
    email: &str,
) -> Result<Result<(), MailError>, Problem> {
    let token = tenant
        .database()
        .transaction(async |db: &mut PgConnection| {
            links::end(db, user.id, Purpose::Verify).await?;
            Ok::<_, Problem>(links::add(db, user.id, Purpose::Verify, email, true).await?)
        })
        .await?;
    let entry = tenant.entry();
    let link = product.mailer().link(&entry.primary_host, Purpose::Verify.path(), &token);
    let sent = product.post(tenant, letters::verification(entry, (&user.name, email), &link)).await;
    if let Err(error) = &sent {
        tracing::error!(target: "tenant", error = error as &dyn std::error::Error, "a mail to confirm an address was not sent");
    }
    Ok(sent)
}

/// `GET /unverified`: for users whose address is not known to be theirs yet.
pub async fn unverified(user: CurrentUser, shell: Shell) -> Result<Response, Problem> {
    page(StatusCode::OK, &UnverifiedPage { shell, user, said: None, failed: false })
}

/// `POST /unverified`: sends the mail.
pub async fn send_again(
    State(product): State<Product>,
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    Client(address): Client,
    CheckedForm(Nothing {}): CheckedForm<Nothing>,
) -> Result<Response, Problem> {
    let redis = product.tenancy().redis().ok_or(Problem::SignInUnavailable)?;
    let attempt = Attempt::new(tenant.entry().uuid, Kind::Mail, &user.email, address, None);
    if let Allowed::After(seconds) = attempt.begin(redis).await.map_err(away)? {
        let said = Some("Several mails have been sent already. Look into your spam folder, or try again later.");
        let shown = UnverifiedPage { shell, user, said, failed: true };
        return Ok(later(seconds, page(StatusCode::TOO_MANY_REQUESTS, &shown)?));
    }
    let email = user.email.clone();
    let (status, said) = if send_verification(&product, &tenant, &user, &email).await?.is_ok() {
        (StatusCode::OK, "The mail is on its way.")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "No mail could be sent right now. Try again later.")
    };
    page(status, &UnverifiedPage { shell, user, said: Some(said), failed: status != StatusCode::OK })
}
