//! The JSON interface.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::CACHE_CONTROL;
use http::request::Parts;
use serde::Deserialize;
use serde_json::json;

use super::accounts::{CurrentUser, Role};
use super::assets::{self, NewAsset};
use super::problem::Problem;
use crate::tenancy::TenantContext;

/// `GET /api/tenant`. Strangers hear whose host it is, once the tenant's database has answered; probes and scripts ask.
pub async fn tenant(tenant: TenantContext, parts: Parts) -> Result<Response, Problem> {
    let assets = assets::count(&tenant).await?;
    let entry = tenant.entry();
    let mut document = json!({ "tenant": entry.display_name, "slug": entry.slug });
    if parts.extensions.get::<CurrentUser>().is_some() {
        document["uuid"] = json!(entry.uuid);
        document["assets"] = json!(assets);
    }
    Ok(([(CACHE_CONTROL, "no-store")], Json(document)).into_response())
}

/// An asset as a program sends it. Unknown members are refused: a misspelt one would be lost without a word.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssetDocument {
    name: String,
    location: Option<String>,
}

/// `POST /api/assets`
pub async fn add_asset(
    tenant: TenantContext,
    user: CurrentUser,
    document: Result<Json<AssetDocument>, JsonRejection>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let Json(document) = document?;
    let asset = NewAsset::new(&document.name, document.location.as_deref()).map_err(Problem::Invalid)?;
    let id = assets::add(&tenant, &asset).await?;
    Ok((StatusCode::CREATED, Json(json!({ "id": id }))).into_response())
}
