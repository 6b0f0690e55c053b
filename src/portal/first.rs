//! The first sign-in: a password of one's own, and a second factor.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use serde::Deserialize;

use super::attempts::{Attempt, Kind};
use super::form::Sent;
use super::problem::{Problem, html};
use super::rights::{Allowed, Myself, Right, Rights, SignedIn};
use super::second_factor::{Enrolment, enrolment, recovery_codes, recovery_hash, secret, step_of};
use super::shell::Shell;
use super::sign_in::{begin, half, owner, step};
use super::state::Portal;
use super::visitor::{Caller, Visitor};
use crate::central::{CentralError, SessionRow};
use crate::passwords::{Verdict, check};

#[derive(Template)]
#[template(path = "portal/password.html")]
struct PasswordPage {
    shell: Shell,
    /// Where the form is sent.
    action: &'static str,
    first: bool,
    email: String,
    wrong: Option<String>,
}

#[derive(Template)]
#[template(path = "portal/second_factor.html")]
struct SecondFactorPage {
    shell: Shell,
    email: String,
    enrolment: Enrolment,
    wrong: bool,
}

#[derive(Template)]
#[template(path = "portal/recovery.html")]
struct RecoveryPage {
    shell: Shell,
    codes: Vec<String>,
}

#[derive(Template)]
#[template(path = "portal/account.html")]
struct AccountPage {
    shell: Shell,
    email: String,
    rights: String,
    codes_left: i64,
}

/// A new password.
#[derive(Deserialize)]
pub struct NewPassword {
    password: String,
    again: String,
}

/// A code.
#[derive(Deserialize)]
pub struct Code {
    code: String,
}

fn at_step(visitor: Visitor, here: &str) -> Result<Result<SessionRow, Response>, Problem> {
    let session = half(visitor, "/")?;
    let step = step(&session.admin);
    Ok(if step == here { Ok(session) } else { Err(Redirect::to(step).into_response()) })
}

/// Asks for a password of one's own.
pub async fn ask_password(Extension(visitor): Extension<Visitor>, shell: Shell) -> Result<Response, Problem> {
    match at_step(visitor, "/sign-in/password")? {
        Ok(session) => html(&PasswordPage {
            shell,
            action: "/sign-in/password",
            first: true,
            email: session.admin.email,
            wrong: None,
        }),
        Err(elsewhere) => Ok(elsewhere),
    }
}

/// Sets a password of one's own.
pub async fn password(
    State(portal): State<Portal>,
    Extension(caller): Extension<Caller>,
    Extension(visitor): Extension<Visitor>,
    shell: Shell,
    Sent(form): Sent<NewPassword>,
) -> Result<Response, Problem> {
    let session = match at_step(visitor, "/sign-in/password")? {
        Ok(session) => session,
        Err(elsewhere) => return Ok(elsewhere),
    };
    let admin = &session.admin;
    if let Some(wrong) = fault(&portal, &form, &admin.email, &admin.password).await? {
        let email = admin.email.clone();
        return unaccepted(&PasswordPage {
            shell,
            action: "/sign-in/password",
            first: true,
            email,
            wrong: Some(wrong),
        });
    }
    let mut entry = caller.entry(None, &admin.email, "admin.password_set");
    entry.admin_id = Some(admin.id);
    let kept = portal.passwords().hash(&form.password).await?;
    portal.patiently(portal.central().set_password(admin.id, &kept, &session.hash, &entry)).await?;
    Ok(Redirect::to("/sign-in/second-factor").into_response())
}

/// What is wrong with a new password, for who typed it.
async fn fault(portal: &Portal, form: &NewPassword, email: &str, kept: &str) -> Result<Option<String>, Problem> {
    if form.password != form.again {
        return Ok(Some("The two are not the same. Type them again.".into()));
    }
    if let Err(wrong) = check(&form.password, email, "") {
        return Ok(Some(wrong));
    }
    let same = portal.passwords().verify(&form.password, Some(kept.to_owned())).await? != Verdict::Wrong;
    Ok(same.then(|| "That is the one you have. Choose another.".into()))
}

fn unaccepted(page: &impl Template) -> Result<Response, Problem> {
    let mut response = html(page)?;
    *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
    Ok(response)
}

/// Shows how to add the second factor to an app.
pub async fn ask_second_factor(
    State(portal): State<Portal>,
    Extension(visitor): Extension<Visitor>,
    shell: Shell,
) -> Result<Response, Problem> {
    match at_step(visitor, "/sign-in/second-factor")? {
        Ok(session) => {
            let secret = pending(&portal, &session).await?;
            html(&second_factor_page(&portal, shell, &session, &secret, false)?)
        }
        Err(elsewhere) => Ok(elsewhere),
    }
}

fn second_factor_page(
    portal: &Portal,
    shell: Shell,
    session: &SessionRow,
    secret: &[u8],
    wrong: bool,
) -> Result<SecondFactorPage, Problem> {
    let email = session.admin.email.clone();
    let enrolment = enrolment(secret, &portal.config().host, &email)
        .ok_or_else(|| Problem::Internal("a pending second factor cannot be shown".into()))?;
    Ok(SecondFactorPage { shell, email, enrolment, wrong })
}

/// The secret that is being set up: the same for as long as the session, so that a page that is opened twice shows one.
async fn pending(portal: &Portal, session: &SessionRow) -> Result<Vec<u8>, Problem> {
    let owner = owner(session.admin.id);
    let kept = session.pending_secret.as_ref().and_then(|sealed| portal.keys().open(&owner, sealed).ok());
    if let Some(kept) = kept {
        return Ok(kept);
    }
    let secret = secret();
    let sealed = portal.keys().seal(&owner, &secret);
    portal.patiently(portal.central().set_pending_secret(&session.hash, &sealed)).await?;
    Ok(secret.to_vec())
}

/// Confirms the second factor, and signs in.
pub async fn second_factor(
    State(portal): State<Portal>,
    Extension(caller): Extension<Caller>,
    Extension(visitor): Extension<Visitor>,
    shell: Shell,
    Sent(form): Sent<Code>,
) -> Result<Response, Problem> {
    let session = match at_step(visitor.clone(), "/sign-in/second-factor")? {
        Ok(session) => session,
        Err(elsewhere) => return Ok(elsewhere),
    };
    let admin = &session.admin;
    let attempt = Attempt::new(Kind::Code, &admin.email, caller.address);
    attempt.begin(&portal).await?;
    let secret = pending(&portal, &session).await?;
    let Some(step) = step_of(&secret, &form.code, portal.now().as_second()) else {
        return unaccepted(&second_factor_page(&portal, shell, &session, &secret, true)?);
    };
    attempt.succeeded(&portal, admin.id).await?;
    let codes = recovery_codes();
    let hashes: Vec<_> = codes.iter().map(|code| recovery_hash(code)).collect();
    let mut entry = caller.entry(None, &admin.email, "admin.second_factor_set");
    entry.admin_id = Some(admin.id);
    let sealed = portal.keys().seal(&owner(admin.id), &secret);
    portal.patiently(portal.central().set_two_factor(admin.id, &sealed, step, &hashes, &entry)).await?;
    let mut response = html(&RecoveryPage { shell, codes })?;
    begin(&portal, &caller, &visitor, admin.id, true, &mut response).await?;
    let mut entry = caller.entry(None, &admin.email, "admin.signed_in");
    entry.admin_id = Some(admin.id);
    portal.note(&entry).await?;
    Ok(response)
}

/// Makes the first administrator from what the portal was started with, where there is none, as soon as the central
/// database answers.
pub async fn make_first_admin(portal: Portal, email: String, password: String) {
    let mut wait = std::time::Duration::from_secs(1);
    loop {
        match first_admin(&portal, &email, &password).await {
            Ok(made) => {
                if made {
                    tracing::info!(email, "the first administrator was made");
                }
                return;
            }
            Err(problem) => {
                tracing::warn!(?problem, "the first administrator could not be made yet");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(std::time::Duration::from_secs(30));
            }
        }
    }
}

async fn first_admin(portal: &Portal, email: &str, password: &str) -> Result<bool, Problem> {
    let read: Result<_, CentralError> = portal.central().admins().await;
    // Asked first: hashing costs a tenth of a second, and nearly always there is somebody.
    if !read?.is_empty() {
        return Ok(false);
    }
    let kept = portal.passwords().hash(password).await?;
    Ok(portal.central().first_admin(email, &kept, &Rights::all().permissions()).await?)
}

/// Somebody's own page.
pub async fn account(
    State(portal): State<Portal>,
    Allowed(admin, _): Allowed<SignedIn>,
    shell: Shell,
) -> Result<Response, Problem> {
    let codes_left = portal.patiently(portal.central().recovery_codes_left(admin.id)).await?;
    let rights = if admin.rights.is_empty() {
        format!("None. Ask an administrator with the right “{}” for some.", Right::ManageAdmins.title())
    } else {
        admin.rights.titles()
    };
    html(&AccountPage { shell, email: admin.email, rights, codes_left })
}

/// Asks for another password.
pub async fn ask_new_password(Allowed(admin, _): Allowed<Myself>, shell: Shell) -> Result<Response, Problem> {
    html(&PasswordPage { shell, action: "/account/password", first: false, email: admin.email, wrong: None })
}

/// Sets another password.
pub async fn new_password(
    State(portal): State<Portal>,
    Allowed(admin, _): Allowed<Myself>,
    Extension(caller): Extension<Caller>,
    shell: Shell,
    Sent(form): Sent<NewPassword>,
) -> Result<Response, Problem> {
    let row = portal.patiently(portal.central().admin(admin.id)).await?.ok_or(Problem::NotFound)?;
    if let Some(wrong) = fault(&portal, &form, &row.email, &row.password).await? {
        let email = row.email.clone();
        return unaccepted(&PasswordPage {
            shell,
            action: "/account/password",
            first: false,
            email,
            wrong: Some(wrong),
        });
    }
    let kept = portal.passwords().hash(&form.password).await?;
    let entry = caller.entry(Some(&admin), "", "admin.password_set");
    portal.patiently(portal.central().set_password(admin.id, &kept, &admin.session, &entry)).await?;
    Ok(Redirect::to("/account?done=password").into_response())
}

/// Gives somebody other recovery codes.
pub async fn new_codes(
    State(portal): State<Portal>,
    Allowed(admin, _): Allowed<Myself>,
    Extension(caller): Extension<Caller>,
    shell: Shell,
) -> Result<Response, Problem> {
    let codes = recovery_codes();
    let hashes: Vec<_> = codes.iter().map(|code| recovery_hash(code)).collect();
    let entry = caller.entry(Some(&admin), "", "admin.recovery_codes_set");
    portal.patiently(portal.central().set_recovery_codes(admin.id, &hashes, &entry)).await?;
    html(&RecoveryPage { shell, codes })
}

#[derive(Template)]
#[template(path = "portal/codes.html")]
struct CodesPage {
    shell: Shell,
}

/// Asks whether somebody wants other recovery codes.
pub async fn ask_new_codes(Allowed(..): Allowed<Myself>, shell: Shell) -> Result<Response, Problem> {
    html(&CodesPage { shell })
}
