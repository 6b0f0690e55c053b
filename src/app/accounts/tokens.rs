//! Tokens with which a user's programs work: `Authorization: Bearer mos_…` at `/api`.
//!
//! A token may do what its user may do at the time it is used, and ends with the user.

use askama::Template;
use axum::extract::Path;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use serde::Deserialize;
use sqlx::postgres::PgConnection;

use super::check::{self, FormError};
use super::current::CurrentUser;
use super::links::Nothing;
use super::store::tokens::{self, Listed};
use super::{object_id, page, store};
use crate::app::form::CheckedForm;
use crate::app::problem::Problem;
use crate::app::shell::Shell;
use crate::tenancy::TenantContext;

/// How many a user may have.
const MOST: i64 = 50;

#[derive(Template)]
#[template(path = "accounts/tokens.html")]
struct TokensPage {
    shell: Shell,
    tokens: Vec<Listed>,
    /// The new one, once.
    new: Option<String>,
    form: TokenForm,
    error: FormError,
}

/// A new token.
#[derive(Deserialize, Default)]
pub struct TokenForm {
    #[serde(default)]
    name: String,
    /// How many days it is good; `0` for ever.
    #[serde(default)]
    days: String,
}

/// `GET /tokens`
pub async fn list(tenant: TenantContext, user: CurrentUser, shell: Shell) -> Result<Response, Problem> {
    let form = TokenForm { days: "90".into(), ..TokenForm::default() };
    list_page(StatusCode::OK, &tenant, &user, shell, None, form, FormError::default()).await
}

async fn list_page(
    status: StatusCode,
    tenant: &TenantContext,
    user: &CurrentUser,
    shell: Shell,
    new: Option<String>,
    form: TokenForm,
    error: FormError,
) -> Result<Response, Problem> {
    let tokens =
        tenant.database().run(async |db: &mut PgConnection| Ok::<_, Problem>(tokens::list(db, user.id).await?)).await?;
    page(status, &TokensPage { shell, tokens, new, form, error })
}

/// `POST /tokens`. Answers with the page itself and does not lead to it: the token is shown now or never.
pub async fn make(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    CheckedForm(form): CheckedForm<TokenForm>,
) -> Result<Response, Problem> {
    let (name, days) = match checked(&form) {
        Ok(checked) => checked,
        Err(error) => return list_page(StatusCode::BAD_REQUEST, &tenant, &user, shell, None, form, error).await,
    };
    let made = tenant
        .database()
        .transaction(async |db: &mut PgConnection| {
            if tokens::count(db, user.id).await? >= MOST {
                return Ok::<_, Problem>(None);
            }
            let summary: String = format!("{} made the token {name}", user.name).chars().take(1000).collect();
            store::note(db, Some(user.id), "token.created", user.id, &summary).await?;
            Ok(Some(tokens::add(db, user.id, &name, days).await?))
        })
        .await?;
    if made.is_none() {
        let error = FormError::at("name", format!("You have {MOST} tokens. Revoke one that is not used any more."));
        return list_page(StatusCode::BAD_REQUEST, &tenant, &user, shell, None, form, error).await;
    }
    let form = TokenForm { days: "90".into(), ..TokenForm::default() };
    list_page(StatusCode::OK, &tenant, &user, shell, made, form, FormError::default()).await
}

fn checked(form: &TokenForm) -> Result<(String, Option<i32>), FormError> {
    let name = check::line("name", "The name", &form.name, 255)?;
    let days = match form.days.as_str() {
        "0" => None,
        "30" => Some(30),
        "90" => Some(90),
        "365" => Some(365),
        _ => return Err(FormError::at("days", "Choose how long the token is good.")),
    };
    Ok((name, days))
}

/// `POST /tokens/{id}/revoke`
pub async fn revoke(
    tenant: TenantContext,
    user: CurrentUser,
    Path(id): Path<String>,
    CheckedForm(Nothing {}): CheckedForm<Nothing>,
) -> Result<Response, Problem> {
    let id = object_id(&id)?;
    tenant
        .database()
        .transaction(async |db: &mut PgConnection| {
            // Another user's token is not there either.
            let name = tokens::revoke(db, user.id, id).await?.ok_or(Problem::NotFound)?;
            let summary: String = format!("{} revoked the token {name}", user.name).chars().take(1000).collect();
            store::note(db, Some(user.id), "token.revoked", user.id, &summary).await?;
            Ok::<_, Problem>(())
        })
        .await?;
    Ok(Redirect::to("/tokens?done=removed").into_response())
}
