//! Users and their roles, for administrators.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use serde::Deserialize;
use sqlx::postgres::PgConnection;

use super::attempts::too_many_mails;
use super::check::{self, FormError};
use super::current::{CurrentUser, Role};
use super::links::Nothing;
use super::store::links::{self, Purpose};
use super::store::users::{self, Listed, NewUser, NotAdded};
use super::{letters, object_id, page, store};
use crate::app::form::CheckedForm;
use crate::app::problem::Problem;
use crate::app::product::Product;
use crate::app::shell::Shell;
use crate::tenancy::TenantContext;

#[derive(Template)]
#[template(path = "accounts/users.html")]
struct UsersPage {
    shell: Shell,
    users: Vec<Listed>,
    /// Of the plan.
    limit: Option<i32>,
    /// How many count against it.
    used: usize,
    form: InviteForm,
    error: FormError,
}

#[derive(Template)]
#[template(path = "accounts/user.html")]
struct UserPage {
    shell: Shell,
    shown: Listed,
    /// Why the last change was refused.
    error: FormError,
}

#[derive(Template)]
#[template(path = "accounts/handover.html")]
struct HandoverPage<'a> {
    shell: Shell,
    email: &'a str,
    link: &'a str,
}

/// Whom to invite.
#[derive(Deserialize, Default)]
pub struct InviteForm {
    #[serde(default)]
    name: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    role: String,
}

/// Another role.
#[derive(Deserialize)]
pub struct RoleForm {
    #[serde(default)]
    role: String,
}

/// `GET /users`
pub async fn list(tenant: TenantContext, user: CurrentUser, shell: Shell) -> Result<Response, Problem> {
    user.require(Role::Admin)?;
    let form = InviteForm { role: Role::Technician.as_str().into(), ..InviteForm::default() };
    list_page(StatusCode::OK, &tenant, shell, form, FormError::default()).await
}

async fn list_page(
    status: StatusCode,
    tenant: &TenantContext,
    shell: Shell,
    form: InviteForm,
    error: FormError,
) -> Result<Response, Problem> {
    let users = tenant.database().run(async |db: &mut PgConnection| Ok::<_, Problem>(users::list(db).await?)).await?;
    let used = users.iter().filter(|user| !user.disabled).count();
    page(status, &UsersPage { shell, users, limit: tenant.entry().plan.limits.users, used, form, error })
}

/// `POST /users`
pub async fn invite(
    State(product): State<Product>,
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    CheckedForm(form): CheckedForm<InviteForm>,
) -> Result<Response, Problem> {
    user.require(Role::Admin)?;
    let (name, email, role) = match checked(&form) {
        Ok(checked) => checked,
        Err(error) => return list_page(StatusCode::BAD_REQUEST, &tenant, shell, form, error).await,
    };
    if let Some(refused) = too_many_mails(&product, &tenant, &email).await? {
        return Ok(refused);
    }
    let max = tenant.entry().plan.limits.users;
    let added = tenant
        .database()
        .transaction(async |db: &mut PgConnection| {
            let id = match users::add(db, &NewUser { email: &email, name: &name, role }, max).await? {
                Ok(id) => id,
                Err(why) => return Ok::<_, Problem>(Err(why)),
            };
            let summary = format!("{name} was invited as {}", role.as_str());
            store::note(db, Some(user.id), "user.invited", id, &summary).await?;
            Ok(Ok((id, links::add(db, id, Purpose::Invite, &email, true).await?)))
        })
        .await?;
    match added {
        Ok((id, token)) => send_invitation(&product, &tenant, &user, shell, (id, &name, &email), &token).await,
        Err(NotAdded::Limit(max)) => Err(limit_reached(&tenant, max)),
        Err(NotAdded::Taken) => {
            let error = FormError::at("email", "There is a user with this e-mail address already.");
            list_page(StatusCode::BAD_REQUEST, &tenant, shell, form, error).await
        }
    }
}

fn checked(form: &InviteForm) -> Result<(String, String, Role), FormError> {
    let name = check::name(&form.name)?;
    let email = check::email(&form.email)?;
    let role = Role::parse(&form.role).ok_or_else(|| FormError::at("role", "Choose a role."))?;
    Ok((name, email, role))
}

fn limit_reached(tenant: &TenantContext, max: i32) -> Problem {
    Problem::LimitReached { limit: "users", max, plan: tenant.entry().plan.name.clone() }
}

/// Mails an invitation. Where that fails, the administrator gets a link to hand over; it is another one, because a link
/// that was handed over proves nothing about the address.
async fn send_invitation(
    product: &Product,
    tenant: &TenantContext,
    by: &CurrentUser,
    shell: Shell,
    (id, name, email): (i64, &str, &str),
    token: &str,
) -> Result<Response, Problem> {
    let entry = tenant.entry();
    let path = Purpose::Invite.path();
    let letter =
        letters::invitation(entry, (name, email), &by.name, &product.mailer().link(&entry.primary_host, path, token));
    let Err(error) = product.mailer().send(&letter).await else {
        return Ok(Redirect::to("/users?done=sent").into_response());
    };
    if product.mailer().is_configured() {
        tracing::error!(target: "tenant", error = &error as &dyn std::error::Error, "an invitation was not sent");
    }
    let token = tenant
        .database()
        .transaction(async |db: &mut PgConnection| {
            links::end(db, id, Purpose::Invite).await?;
            Ok::<_, Problem>(links::add(db, id, Purpose::Invite, email, false).await?)
        })
        .await?;
    let link = product.mailer().link(&entry.primary_host, path, &token);
    page(StatusCode::OK, &HandoverPage { shell, email, link: &link })
}

/// `GET /users/{id}`
pub async fn show(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    user.require(Role::Admin)?;
    user_page(StatusCode::OK, &tenant, shell, object_id(&id)?, FormError::default()).await
}

async fn user_page(
    status: StatusCode,
    tenant: &TenantContext,
    shell: Shell,
    id: i64,
    error: FormError,
) -> Result<Response, Problem> {
    let shown =
        tenant.database().run(async |db: &mut PgConnection| Ok::<_, Problem>(users::get(db, id).await?)).await?;
    page(status, &UserPage { shell, shown: shown.ok_or(Problem::NotFound)?, error })
}

/// `POST /users/{id}/invite`: the invitation once more.
pub async fn invite_again(
    State(product): State<Product>,
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    Path(id): Path<String>,
    CheckedForm(Nothing {}): CheckedForm<Nothing>,
) -> Result<Response, Problem> {
    user.require(Role::Admin)?;
    let id = object_id(&id)?;
    let known = tenant
        .database()
        .run(async |db: &mut PgConnection| Ok::<_, Problem>(users::get(db, id).await?))
        .await?
        .ok_or(Problem::NotFound)?;
    if let Some(refused) = too_many_mails(&product, &tenant, &known.email).await? {
        return Ok(refused);
    }
    let (invited, token) = tenant
        .database()
        .transaction(async |db: &mut PgConnection| {
            let invited = users::get(db, id).await?.filter(|user| user.invited && !user.disabled);
            let invited = invited.ok_or(Problem::NotFound)?;
            links::end(db, id, Purpose::Invite).await?;
            let token = links::add(db, id, Purpose::Invite, &invited.email, true).await?;
            Ok::<_, Problem>((invited, token))
        })
        .await?;
    send_invitation(&product, &tenant, &user, shell, (id, &invited.name, &invited.email), &token).await
}

/// What was found when a user was to be changed.
enum Change {
    Done,
    NoSuchUser,
    LastAdmin,
    Limit(i32),
}

impl Change {
    async fn answer(
        self,
        tenant: &TenantContext,
        shell: Shell,
        id: i64,
        field: &'static str,
    ) -> Result<Response, Problem> {
        match self {
            Self::Done => Ok(Redirect::to(&format!("/users/{id}?done=saved")).into_response()),
            Self::NoSuchUser => Err(Problem::NotFound),
            Self::Limit(max) => Err(limit_reached(tenant, max)),
            Self::LastAdmin => {
                let text = "This is the last administrator. Make somebody else one first.";
                user_page(StatusCode::BAD_REQUEST, tenant, shell, id, FormError::at(field, text)).await
            }
        }
    }
}

/// `POST /users/{id}/role`. Holds for the user's next request; nobody is signed out by it.
pub async fn set_role(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    Path(id): Path<String>,
    CheckedForm(form): CheckedForm<RoleForm>,
) -> Result<Response, Problem> {
    user.require(Role::Admin)?;
    let id = object_id(&id)?;
    let Some(role) = Role::parse(&form.role) else {
        let error = FormError::at("role", "Choose a role.");
        return user_page(StatusCode::BAD_REQUEST, &tenant, shell, id, error).await;
    };
    let change = tenant
        .database()
        .transaction(async |db: &mut PgConnection| {
            users::lock(db).await?;
            let Some(shown) = users::get(db, id).await? else { return Ok::<_, Problem>(Change::NoSuchUser) };
            if role < Role::Admin && users::is_last_admin(db, id).await? {
                return Ok(Change::LastAdmin);
            }
            if shown.role != role {
                users::set_role(db, id, role).await?;
                let summary = format!("{} is now {}", shown.name, role.as_str());
                store::note(db, Some(user.id), "user.role_changed", id, &summary).await?;
            }
            Ok(Change::Done)
        })
        .await?;
    change.answer(&tenant, shell, id, "role").await
}

/// `POST /users/{id}/disable`. Ends the user's sessions and tokens.
pub async fn disable(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    Path(id): Path<String>,
    CheckedForm(Nothing {}): CheckedForm<Nothing>,
) -> Result<Response, Problem> {
    user.require(Role::Admin)?;
    let id = object_id(&id)?;
    let change = tenant
        .database()
        .transaction(async |db: &mut PgConnection| {
            users::lock(db).await?;
            let Some(shown) = users::get(db, id).await? else { return Ok::<_, Problem>(Change::NoSuchUser) };
            if users::is_last_admin(db, id).await? {
                return Ok(Change::LastAdmin);
            }
            if !shown.disabled {
                users::set_disabled(db, id, true).await?;
                store::note(db, Some(user.id), "user.disabled", id, &format!("{} was disabled", shown.name)).await?;
            }
            Ok(Change::Done)
        })
        .await?;
    change.answer(&tenant, shell, id, "disable").await
}

/// `POST /users/{id}/enable`. Counts against the plan again.
pub async fn enable(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    Path(id): Path<String>,
    CheckedForm(Nothing {}): CheckedForm<Nothing>,
) -> Result<Response, Problem> {
    user.require(Role::Admin)?;
    let id = object_id(&id)?;
    let max = tenant.entry().plan.limits.users;
    let change = tenant
        .database()
        .transaction(async |db: &mut PgConnection| {
            users::lock(db).await?;
            let Some(shown) = users::get(db, id).await? else { return Ok::<_, Problem>(Change::NoSuchUser) };
            if !shown.disabled {
                return Ok(Change::Done);
            }
            if let Err(NotAdded::Limit(max)) = users::has_room(db, max).await? {
                return Ok(Change::Limit(max));
            }
            users::set_disabled(db, id, false).await?;
            store::note(db, Some(user.id), "user.enabled", id, &format!("{} was enabled", shown.name)).await?;
            Ok(Change::Done)
        })
        .await?;
    change.answer(&tenant, shell, id, "disable").await
}
