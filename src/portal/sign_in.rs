//! Signing in: a password, then a second factor, each with a new session.

use askama::Template;
use axum::Extension;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use http::header::SET_COOKIE;
use serde::Deserialize;

use super::attempts::{Attempt, Kind};
use super::form::Sent;
use super::gate::Noted;
use super::next;
use super::problem::{Problem, Refused, html};
use super::rights::{Allowed, SignedIn};
use super::second_factor::{recovery_hash, step_of};
use super::shell::Shell;
use super::state::Portal;
use super::visitor::{Caller, Visitor, hash, session_cookie, token};
use crate::central::{AdminRow, AuditEntry, NewSession, SessionRow};
use crate::passwords::Verdict;
use crate::web::cookie;

/// Longest e-mail address that is looked for.
const EMAIL: usize = 254;

/// Where somebody goes afterwards.
#[derive(Debug, Default, Deserialize)]
pub struct Next {
    #[serde(default)]
    next: String,
}

#[derive(Template)]
#[template(path = "portal/sign_in.html")]
struct SignInPage {
    shell: Shell,
    email: String,
    next: String,
    wrong: bool,
}

#[derive(Template)]
#[template(path = "portal/code.html")]
struct CodePage {
    shell: Shell,
    next: String,
    email: String,
    /// With the password: somebody who is signed in shows that it is them.
    prove: bool,
    wrong: Option<&'static str>,
}

/// A password.
#[derive(Deserialize)]
pub struct PasswordForm {
    email: String,
    password: String,
    #[serde(default)]
    next: String,
}

/// A second factor.
#[derive(Deserialize)]
pub struct CodeForm {
    #[serde(default)]
    password: String,
    code: String,
    #[serde(default)]
    next: String,
}

/// Asks for address and password.
pub async fn show(
    Extension(visitor): Extension<Visitor>,
    Query(Next { next }): Query<Next>,
    shell: Shell,
) -> Result<Response, Problem> {
    match visitor {
        Visitor::Full(_) => Ok(Redirect::to(next::path(&next)).into_response()),
        Visitor::Unknown => Err(Problem::CentralAway),
        Visitor::Half(_) | Visitor::Nobody => {
            html(&SignInPage { shell, email: String::new(), next: next::path(&next).to_owned(), wrong: false })
        }
    }
}

/// Compares address and password.
pub async fn password(
    State(portal): State<Portal>,
    Extension(caller): Extension<Caller>,
    Extension(visitor): Extension<Visitor>,
    shell: Shell,
    Sent(form): Sent<PasswordForm>,
) -> Result<Response, Problem> {
    let email: String = form.email.trim().chars().take(EMAIL).collect();
    let attempt = Attempt::new(Kind::Password, &email, caller.address);
    attempt.begin(&portal).await?;
    let found = portal.patiently(portal.central().admin_by_email(&email)).await?;
    let kept = found.as_ref().map(|admin| admin.password.clone());
    let verdict = portal.passwords().verify(&form.password, kept.clone()).await?;
    let (Some(admin), Verdict::Right | Verdict::Rehash(_)) = (found, &verdict) else {
        // Who tried is not known; whose account it was to be is what was typed.
        let entry = AuditEntry {
            resource_type: Some("Admin".into()),
            resource_id: Some(email.clone()),
            ..caller.entry(None, "visitor", "admin.sign_in_failed")
        };
        portal.note(&entry).await?;
        let page = SignInPage { shell, email, next: next::path(&form.next).to_owned(), wrong: true };
        return Ok(refused(html(&page)?, "wrong address or password"));
    };
    if let (Verdict::Rehash(stronger), Some(before)) = (&verdict, kept) {
        portal.patiently(portal.central().rehash_password(admin.id, &before, stronger)).await?;
    }
    attempt.succeeded(&portal, admin.id).await?;
    let mut response = Redirect::to(&next::link(step(&admin), next::path(&form.next))).into_response();
    begin(&portal, &caller, &visitor, admin.id, false, &mut response).await?;
    Ok(response)
}

/// What comes after the password.
pub fn step(admin: &AdminRow) -> &'static str {
    match (&admin.two_factor_secret, admin.must_change_password) {
        (Some(_), _) => "/sign-in/code",
        (None, true) => "/sign-in/password",
        (None, false) => "/sign-in/second-factor",
    }
}

/// Asks for the second factor.
pub async fn ask_code(
    Extension(visitor): Extension<Visitor>,
    Query(Next { next }): Query<Next>,
    shell: Shell,
) -> Result<Response, Problem> {
    let session = half(visitor, &next)?;
    let step = step(&session.admin);
    if step != "/sign-in/code" {
        return Ok(Redirect::to(step).into_response());
    }
    let next = next::path(&next).to_owned();
    html(&CodePage { shell, next, email: session.admin.email, prove: false, wrong: None })
}

/// Somebody whose password was right.
///
/// # Errors
/// They are not, or are signed in already.
pub fn half(visitor: Visitor, next: &str) -> Result<SessionRow, Problem> {
    match visitor {
        Visitor::Half(session) => Ok(*session),
        Visitor::Unknown => Err(Problem::CentralAway),
        Visitor::Full(_) | Visitor::Nobody => Err(Problem::SignIn(next::path(next).to_owned())),
    }
}

/// Compares the second factor.
pub async fn code(
    State(portal): State<Portal>,
    Extension(caller): Extension<Caller>,
    Extension(visitor): Extension<Visitor>,
    shell: Shell,
    Sent(form): Sent<CodeForm>,
) -> Result<Response, Problem> {
    let session = half(visitor.clone(), &form.next)?;
    let admin = &session.admin;
    if let Err(wrong) = second_factor(&portal, &caller, admin, &form.code).await? {
        let next = next::path(&form.next).to_owned();
        let page = CodePage { shell, next, email: admin.email.clone(), prove: false, wrong: Some(wrong) };
        return Ok(refused(html(&page)?, "wrong second factor"));
    }
    let mut response = Redirect::to(next::path(&form.next)).into_response();
    begin(&portal, &caller, &visitor, admin.id, true, &mut response).await?;
    let mut entry = caller.entry(None, &admin.email, "admin.signed_in");
    entry.admin_id = Some(admin.id);
    portal.note(&entry).await?;
    Ok(response)
}

/// Asks somebody who is signed in to show that it is them.
pub async fn ask_proof(
    Allowed(admin, _): Allowed<SignedIn>,
    Query(Next { next }): Query<Next>,
    shell: Shell,
) -> Result<Response, Problem> {
    let next = next::path(&next).to_owned();
    html(&CodePage { shell, next, email: admin.email, prove: true, wrong: None })
}

/// Compares password and second factor of somebody who is signed in.
pub async fn prove(
    State(portal): State<Portal>,
    Allowed(admin, _): Allowed<SignedIn>,
    Extension(caller): Extension<Caller>,
    Extension(visitor): Extension<Visitor>,
    shell: Shell,
    Sent(form): Sent<CodeForm>,
) -> Result<Response, Problem> {
    let row = portal.patiently(portal.central().admin(admin.id)).await?.ok_or(Problem::NotFound)?;
    let attempt = Attempt::new(Kind::Password, &row.email, caller.address);
    attempt.begin(&portal).await?;
    let verdict = portal.passwords().verify(&form.password, Some(row.password.clone())).await?;
    let wrong = if verdict == Verdict::Wrong {
        portal.note(&caller.entry(Some(&admin), "", "admin.proof_failed")).await?;
        Some("That is not your password.")
    } else {
        attempt.succeeded(&portal, admin.id).await?;
        second_factor(&portal, &caller, &row, &form.code).await?.err()
    };
    if wrong.is_some() {
        let next = next::path(&form.next).to_owned();
        let page = CodePage { shell, next, email: row.email, prove: true, wrong };
        return Ok(refused(html(&page)?, "wrong password or second factor"));
    }
    let mut response = Redirect::to(next::path(&form.next)).into_response();
    begin(&portal, &caller, &visitor, admin.id, true, &mut response).await?;
    Ok(response)
}

/// Compares a code of the app, or a recovery code, and uses it up. The inner error is for who typed it.
///
/// # Errors
/// Too many attempts, or the central database does not answer.
pub async fn second_factor(
    portal: &Portal,
    caller: &Caller,
    admin: &AdminRow,
    typed: &str,
) -> Result<Result<(), &'static str>, Problem> {
    let Some(sealed) = &admin.two_factor_secret else { return Err(Problem::Unfinished) };
    let attempt = Attempt::new(Kind::Code, &admin.email, caller.address);
    attempt.begin(portal).await?;
    let secret = portal.keys().open(&owner(admin.id), sealed).map_err(|error| {
        Problem::Internal(format!("reading the second factor of administrator {}: {error}", admin.id))
    })?;
    let central = portal.central();
    let is_right = match step_of(&secret, typed, portal.now().as_second()) {
        Some(step) => portal.patiently(central.take_step(admin.id, step)).await?,
        None => portal.patiently(central.take_recovery_code(admin.id, &recovery_hash(typed))).await?,
    };
    if !is_right {
        let entry = AuditEntry {
            resource_type: Some("Admin".into()),
            resource_id: Some(admin.email.clone()),
            ..caller.entry(None, "visitor", "admin.second_factor_failed")
        };
        portal.note(&entry).await?;
        return Ok(Err("That code is wrong, or was used before. Each code is good once: wait for the next."));
    }
    attempt.succeeded(portal, admin.id).await?;
    if !portal.keys().is_current(sealed) {
        let resealed = portal.keys().seal(&owner(admin.id), &secret);
        portal.patiently(central.reseal_two_factor(admin.id, sealed, &resealed)).await?;
    }
    Ok(Ok(()))
}

/// For whom a second factor is encrypted.
pub fn owner(id: i32) -> String {
    format!("admin {id}")
}

/// Ends the session.
pub async fn sign_out(
    State(portal): State<Portal>,
    Extension(visitor): Extension<Visitor>,
    Sent(Empty {}): Sent<Empty>,
) -> Result<Response, Problem> {
    let hash = match &visitor {
        Visitor::Full(admin) => Some(&admin.session),
        Visitor::Half(session) => Some(&session.hash),
        Visitor::Nobody | Visitor::Unknown => None,
    };
    if let Some(hash) = hash {
        portal.remember(hash, None);
        portal.patiently(portal.central().end_session(hash)).await?;
    }
    let secure = portal.config().secure;
    let mut response = Redirect::to("/sign-in?done=signed-out").into_response();
    let gone = cookie::set_strict(session_cookie(secure), "", std::time::Duration::ZERO, secure);
    response.headers_mut().append(SET_COOKIE, gone);
    Ok(response)
}

/// A form without fields of its own.
#[derive(Deserialize)]
pub struct Empty {}

/// Begins a session under a new token in place of the one there was, and gives the browser the token.
///
/// # Errors
/// The central database does not answer.
pub async fn begin(
    portal: &Portal,
    caller: &Caller,
    before: &Visitor,
    admin_id: i32,
    full: bool,
    response: &mut Response,
) -> Result<(), Problem> {
    let token = token();
    let before = match before {
        Visitor::Full(admin) => Some(admin.session.as_slice()),
        Visitor::Half(session) => Some(session.hash.as_slice()),
        Visitor::Nobody | Visitor::Unknown => None,
    };
    if let Some(before) = before {
        portal.remember(before, None);
    }
    let config = portal.config();
    let new = NewSession {
        hash: hash(&token),
        admin_id,
        full,
        ip_address: caller.address,
        user_agent: caller.user_agent.as_deref(),
    };
    portal.patiently(portal.central().begin_session(&new, before, config.lifetimes)).await?;
    let name = session_cookie(config.secure);
    let cookie = cookie::set_strict(name, &token, config.lifetimes.lifetime, config.secure);
    response.headers_mut().append(SET_COOKIE, cookie);
    Ok(())
}

/// A page with a form that was not filled in rightly; its handler has noted it.
fn refused(mut response: Response, why: &str) -> Response {
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.extensions_mut().insert(Refused(why.to_owned()));
    response.extensions_mut().insert(Noted);
    response
}
