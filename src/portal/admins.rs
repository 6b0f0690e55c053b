//! The administrators: invited, given rights, reset, removed.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use rand::Rng;
use serde::Deserialize;
use serde_json::json;

use super::change::noted;
use super::form::Sent;
use super::problem::{Problem, html};
use super::rights::{Allowed, ManageAdmins, Right, Rights, SeeAdmins};
use super::shell::Shell;
use super::show;
use super::sign_in::Empty;
use super::state::Portal;
use super::visitor::{Admin, Caller};
use crate::central::{AdminRow, AuditEntry, Changed};

/// Longest e-mail address.
const EMAIL: usize = 254;

struct Row {
    id: i32,
    email: String,
    rights: String,
    second_factor: bool,
    invited: bool,
    last: String,
}

#[derive(Template)]
#[template(path = "portal/admins.html")]
struct AdminsPage {
    shell: Shell,
    admins: Vec<Row>,
}

struct Choice {
    right: Right,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "portal/invite.html")]
struct InvitePage {
    shell: Shell,
    email: String,
    choices: Vec<Choice>,
    wrong: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "portal/admin.html")]
struct AdminPage {
    shell: Shell,
    admin: Row,
    myself: bool,
    choices: Vec<Choice>,
    wrong: Option<&'static str>,
}

#[derive(Template)]
#[template(path = "portal/one_time.html")]
struct OneTimePage {
    shell: Shell,
    email: String,
    password: String,
    reset: bool,
    host: String,
}

/// The rights, each as a checkbox.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RightsForm {
    email: String,
    view: Option<String>,
    manage_tenants: Option<String>,
    manage_plans: Option<String>,
    restore: Option<String>,
    billing: Option<String>,
    manage_admins: Option<String>,
}

impl RightsForm {
    fn rights(&self) -> Rights {
        let ticked = |right: &Right| match right {
            Right::View => self.view.is_some(),
            Right::ManageTenants => self.manage_tenants.is_some(),
            Right::ManagePlans => self.manage_plans.is_some(),
            Right::Restore => self.restore.is_some(),
            Right::Billing => self.billing.is_some(),
            Right::ManageAdmins => self.manage_admins.is_some(),
        };
        Right::ALL.into_iter().filter(ticked).collect()
    }
}

fn choices(rights: Rights) -> Vec<Choice> {
    Right::ALL.into_iter().map(|right| Choice { right, chosen: rights.has(right) }).collect()
}

fn row(portal: &Portal, admin: &AdminRow) -> Row {
    Row {
        id: admin.id,
        email: admin.email.clone(),
        rights: Rights::of(&admin.permissions).titles(),
        second_factor: admin.two_factor_secret.is_some(),
        invited: admin.must_change_password,
        last: admin.last_login_at.map_or_else(|| "Never".into(), |at| show::ago(at, portal.now())),
    }
}

/// All of them.
pub async fn admins(
    State(portal): State<Portal>,
    Allowed(..): Allowed<SeeAdmins>,
    shell: Shell,
) -> Result<Response, Problem> {
    let admins = portal.patiently(portal.central().admins()).await?;
    let admins = admins.iter().map(|admin| row(&portal, admin)).collect();
    html(&AdminsPage { shell, admins })
}

/// Asks whom to invite.
pub async fn ask_invite(Allowed(..): Allowed<ManageAdmins>, shell: Shell) -> Result<Response, Problem> {
    let choices = choices([Right::View].into_iter().collect());
    html(&InvitePage { shell, email: String::new(), choices, wrong: None })
}

/// Invites somebody, and shows the password for their first sign-in.
pub async fn invite(
    State(portal): State<Portal>,
    Allowed(admin, _): Allowed<ManageAdmins>,
    Extension(caller): Extension<Caller>,
    shell: Shell,
    Sent(form): Sent<RightsForm>,
) -> Result<Response, Problem> {
    let (email, rights) = (form.email.trim().to_owned(), form.rights());
    let again = |shell, wrong| {
        let page = InvitePage { shell, email: email.clone(), choices: choices(rights), wrong: Some(wrong) };
        Ok(noted(html(&page)?, StatusCode::UNPROCESSABLE_ENTITY, wrong))
    };
    if !is_address(&email) {
        refused(&portal, &admin, &caller, "admin.invite", &email, "no address").await?;
        return again(shell, "That is no e-mail address.");
    }
    let password = one_time();
    let kept = portal.passwords().hash(&password).await?;
    let entry = entry(&caller, &admin, "admin.invited", &email, json!({ "after": rights.permissions() }));
    let made = portal.patiently(portal.central().invite_admin(&email, &kept, &rights.permissions(), &entry)).await?;
    if made.is_none() {
        refused(&portal, &admin, &caller, "admin.invite", &email, "the address has one").await?;
        return again(shell, "There is an administrator with this address already.");
    }
    html(&OneTimePage { shell, email, password, reset: false, host: portal.config().host.clone() })
}

fn is_address(text: &str) -> bool {
    let parts = text.split_once('@');
    let plain =
        text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'<' | b'>' | b'"' | b',' | b':' | b'\\'));
    plain
        && text.len() <= EMAIL
        && parts.is_some_and(|(name, host)| !name.is_empty() && host.contains('.') && !host.contains('@'))
}

/// A password for one sign-in: of 26 letters and digits, 128 bits.
fn one_time() -> String {
    let letters = b"abcdefghjkmnpqrstuvwxyz23456789";
    let mut random = rand::rng();
    let text: Vec<u8> = (0..26).map(|_| letters[random.random_range(0..letters.len())]).collect();
    String::from_utf8_lossy(&text).into_owned()
}

fn entry(caller: &Caller, admin: &Admin, action: &str, email: &str, changes: serde_json::Value) -> AuditEntry {
    AuditEntry {
        resource_type: Some("Admin".into()),
        resource_id: Some(email.chars().take(255).collect()),
        changes: Some(changes),
        ..caller.entry(Some(admin), "", action)
    }
}

async fn refused(
    portal: &Portal,
    admin: &Admin,
    caller: &Caller,
    action: &str,
    email: &str,
    why: &str,
) -> Result<(), Problem> {
    let entry = entry(caller, admin, &format!("{action}.refused"), email, json!({ "why": why }));
    portal.note(&entry).await
}

async fn found(portal: &Portal, id: i32) -> Result<AdminRow, Problem> {
    portal.patiently(portal.central().admin(id)).await?.ok_or(Problem::NotFound)
}

/// One of them.
pub async fn admin(
    State(portal): State<Portal>,
    Allowed(me, _): Allowed<ManageAdmins>,
    Path(id): Path<i32>,
    shell: Shell,
) -> Result<Response, Problem> {
    let found = found(&portal, id).await?;
    html(&page(&portal, shell, &me, &found, None))
}

fn page(portal: &Portal, shell: Shell, me: &Admin, found: &AdminRow, wrong: Option<&'static str>) -> AdminPage {
    let choices = choices(Rights::of(&found.permissions));
    AdminPage { shell, admin: row(portal, found), myself: found.id == me.id, choices, wrong }
}

/// What nobody does to themselves, and what would leave nobody.
const MYSELF: &str = "Somebody else has to do this for you: nobody changes their own rights.";
const LAST: &str = "Nobody would be left who may manage administrators. Give somebody else the right first.";

/// Gives somebody these rights and no others.
pub async fn set_rights(
    State(portal): State<Portal>,
    Allowed(me, _): Allowed<ManageAdmins>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i32>,
    shell: Shell,
    Sent(form): Sent<RightsForm>,
) -> Result<Response, Problem> {
    let found = found(&portal, id).await?;
    let (before, after) = (Rights::of(&found.permissions), form.rights());
    let changes = json!({ "before": before.permissions(), "after": after.permissions() });
    let entry = entry(&caller, &me, "admin.rights_changed", &found.email, changes);
    let changed = if id == me.id {
        Err(MYSELF)
    } else {
        match portal.patiently(portal.central().set_permissions(id, &after.permissions(), &entry)).await? {
            Changed::Last => Err(LAST),
            Changed::Yes => Ok("rights"),
            Changed::No => Ok("unchanged"),
        }
    };
    outcome(&portal, &me, &caller, shell, &found, changed).await
}

/// Removes somebody.
pub async fn remove(
    State(portal): State<Portal>,
    Allowed(me, _): Allowed<ManageAdmins>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i32>,
    shell: Shell,
    Sent(Empty {}): Sent<Empty>,
) -> Result<Response, Problem> {
    let found = found(&portal, id).await?;
    let changes = json!({ "before": Rights::of(&found.permissions).permissions() });
    let entry = entry(&caller, &me, "admin.removed", &found.email, changes);
    let changed = if id == me.id {
        Err(MYSELF)
    } else {
        match portal.patiently(portal.central().remove_admin(id, &entry)).await? {
            Changed::Last => Err(LAST),
            Changed::Yes => return Ok(Redirect::to("/admins?done=removed").into_response()),
            Changed::No => Ok("unchanged"),
        }
    };
    outcome(&portal, &me, &caller, shell, &found, changed).await
}

async fn outcome(
    portal: &Portal,
    me: &Admin,
    caller: &Caller,
    shell: Shell,
    found: &AdminRow,
    changed: Result<&str, &'static str>,
) -> Result<Response, Problem> {
    match changed {
        Ok(done) => Ok(Redirect::to(&format!("/admins/{}?done={done}", found.id)).into_response()),
        Err(wrong) => {
            refused(portal, me, caller, "admin.change", &found.email, wrong).await?;
            Ok(noted(html(&page(portal, shell, me, found, Some(wrong)))?, StatusCode::CONFLICT, wrong))
        }
    }
}

/// Puts somebody who lost their password or second factor back to the beginning.
pub async fn reset(
    State(portal): State<Portal>,
    Allowed(me, _): Allowed<ManageAdmins>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<i32>,
    shell: Shell,
    Sent(Empty {}): Sent<Empty>,
) -> Result<Response, Problem> {
    let found = found(&portal, id).await?;
    if id == me.id {
        return outcome(&portal, &me, &caller, shell, &found, Err(MYSELF)).await;
    }
    let password = one_time();
    let kept = portal.passwords().hash(&password).await?;
    let entry = entry(&caller, &me, "admin.reset", &found.email, json!({}));
    if !portal.patiently(portal.central().reset_admin(id, &kept, &entry)).await? {
        return Err(Problem::NotFound);
    }
    html(&OneTimePage { shell, email: found.email, password, reset: true, host: portal.config().host.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_plain_and_has_a_host() {
        for good in ["jo@example.com", "jo.o+x@a.b.example"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "jo",
            "jo@",
            "@example.com",
            "jo@example",
            "jo@a.b@c.d",
            "jo o@example.com",
            "<x>@example.com",
            "jö@example.com",
            "a:b@example.com",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
        assert_eq!(one_time().len(), 26);
        assert_ne!(one_time(), one_time());
    }
}
