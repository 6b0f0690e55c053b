//! The start page.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};
use http::header::CACHE_CONTROL;
use http::{HeaderValue, StatusCode};
use serde::Deserialize;

use super::accounts::{CurrentUser, Role};
use super::assets::{self, NewAsset, Overview};
use super::form::CheckedForm;
use super::problem::Problem;
use super::render::{self, STYLE};
use super::shell::Shell;
use crate::tenancy::TenantContext;

#[derive(Template)]
#[template(path = "home.html")]
struct HomePage<'a> {
    style: &'static str,
    tenant: &'a str,
    overview: &'a Overview,
    /// The plan's limit of assets.
    limit: Option<i32>,
    full: bool,
    form: AssetForm,
    /// The secret of the form.
    csrf: &'a str,
    /// What to change in the form.
    error: Option<String>,
}

/// The form that adds an asset.
#[derive(Deserialize, Default)]
pub struct AssetForm {
    #[serde(default)]
    name: String,
    #[serde(default)]
    location: String,
}

/// `GET /`
pub async fn show(tenant: TenantContext, _: CurrentUser, shell: Shell) -> Result<Response, Problem> {
    home(&tenant, &shell, AssetForm::default(), None).await
}

/// `POST /assets`: stores it and leads back, so that a reload does not store it again.
pub async fn add_asset(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    CheckedForm(form): CheckedForm<AssetForm>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    match NewAsset::new(&form.name, Some(&form.location)) {
        Ok(asset) => {
            assets::add(&tenant, &asset).await?;
            Ok(Redirect::to("/").into_response())
        }
        // The same page again, with what was typed: nobody should have to type it twice.
        Err(error) => home(&tenant, &shell, form, Some(error)).await,
    }
}

async fn home(
    tenant: &TenantContext,
    shell: &Shell,
    form: AssetForm,
    error: Option<String>,
) -> Result<Response, Problem> {
    let overview = assets::overview(tenant).await?;
    let limit = tenant.entry().plan.limits.assets;
    let status = if error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let page = HomePage {
        style: STYLE,
        tenant: &tenant.entry().display_name,
        full: limit.is_some_and(|limit| overview.count >= i64::from(limit)),
        overview: &overview,
        limit,
        form,
        csrf: shell.csrf(),
        error,
    };
    let no_store = [(CACHE_CONTROL, HeaderValue::from_static("no-store"))];
    Ok((status, no_store, render::page(&page)?).into_response())
}
