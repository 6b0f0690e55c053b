//! The first user: whoever opens the link that the operator wrote into the Secret `<tenant>-welcome`.

use askama::Template;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use sqlx::postgres::PgConnection;

use super::begin::{Before, begin};
use super::check::{self, FormError};
use super::links::dead_link;
use super::store::users;
use super::{page, query_value, store};
use crate::api::welcome::{PURPOSE, VERSION, Welcome};
use crate::app::form::CheckedForm;
use crate::app::problem::Problem;
use crate::app::product::Product;
use crate::app::shell::Shell;
use crate::tenancy::TenantContext;

#[derive(Template)]
#[template(path = "accounts/welcome.html")]
struct WelcomePage<'a> {
    shell: Shell,
    form: &'a WelcomeForm,
    error: FormError,
}

/// The form.
#[derive(Deserialize, Default)]
pub struct WelcomeForm {
    #[serde(default)]
    token: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    email: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    again: String,
}

const ADVICE: &str = "If somebody has used it already, ask that person for an invitation; else ask for a new link.";

/// `GET /welcome`
pub async fn show(
    State(product): State<Product>,
    tenant: TenantContext,
    shell: Shell,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let token = query_value(query.as_deref(), "token");
    if !is_good(&product, &tenant, &token).await? {
        return dead_link(shell, ADVICE);
    }
    page(
        StatusCode::OK,
        &WelcomePage { shell, form: &WelcomeForm { token, ..WelcomeForm::default() }, error: FormError::default() },
    )
}

/// `POST /welcome`
pub async fn make_first_user(
    State(product): State<Product>,
    tenant: TenantContext,
    shell: Shell,
    Before(before): Before,
    CheckedForm(form): CheckedForm<WelcomeForm>,
) -> Result<Response, Problem> {
    // Before the expensive part, so that a wrong token costs nothing.
    if !is_good(&product, &tenant, &form.token).await? {
        return dead_link(shell, ADVICE);
    }
    let (name, email) = match checked(&form) {
        Ok(checked) => checked,
        Err(error) => return page(StatusCode::BAD_REQUEST, &WelcomePage { shell, form: &form, error }),
    };
    let hash = product.passwords().hash(&form.password).await?;
    let made = tenant
        .database()
        .transaction(async |db: &mut PgConnection| {
            // Two who open the link at the same time find nobody both; one after the other, the second finds the first.
            users::lock(db).await?;
            if !users::has_none_with_password(db).await? {
                return Ok::<_, Problem>(None);
            }
            let account = users::add_first(db, &email, &name, &hash).await?;
            let summary = format!("{name} is the first user");
            store::note(db, Some(account.id), "user.joined", account.id, &summary).await?;
            Ok(Some(account))
        })
        .await?;
    let Some(account) = made else { return dead_link(shell, ADVICE) };
    match begin(&product, &tenant, before.as_ref(), (account.id, account.generation), "/").await {
        // The user is there. Signing in will do once that is possible again.
        Err(Problem::SignInUnavailable) => Ok(Redirect::to("/sign-in").into_response()),
        answer => answer,
    }
}

fn checked(form: &WelcomeForm) -> Result<(String, String), FormError> {
    let name = check::name(&form.name)?;
    let email = check::email(&form.email)?;
    check::password(&form.password, &form.again, &email, &name)?;
    Ok((name, email))
}

/// Whether the link was signed for this tenant, is not too old, and nobody can sign in yet. That it is good for one user
/// follows from the last: users are never deleted.
async fn is_good(product: &Product, tenant: &TenantContext, token: &str) -> Result<bool, Problem> {
    let Some(keys) = product.tenancy().signing() else {
        tracing::error!(target: "tenant", "a welcome link was opened, but this app has no signing keys to check it with");
        return Ok(false);
    };
    let payload = match keys.verify(tenant.entry().uuid, PURPOSE, token, Timestamp::now()) {
        Ok(payload) => payload,
        Err(rejected) => {
            tracing::info!(target: "tenant", %rejected, "a welcome link was refused");
            return Ok(false);
        }
    };
    let is_known = serde_json::from_str::<Welcome>(&payload).is_ok_and(|welcome| welcome.version == VERSION);
    if !is_known {
        tracing::error!(target: "tenant", "a welcome link is of another version than this app knows: update the app");
        return Ok(false);
    }
    tenant
        .database()
        .run(async |db: &mut PgConnection| Ok::<_, Problem>(users::has_none_with_password(db).await?))
        .await
}
