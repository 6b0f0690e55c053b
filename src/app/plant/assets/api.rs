//! Assets for programs.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use sqlx::postgres::PgConnection;

use super::Asset;
use super::form::{AssetDocument, AssetForm};
use super::pages::tag_taken;
use super::store::{self, Stored, Wanted};
use crate::app::accounts::{CurrentUser, Role};
use crate::app::plant::asked::{Asked, Id, Walk, plain};
use crate::app::plant::{change, changed, limit_reached, no_store};
use crate::app::problem::Problem;
use crate::tenancy::TenantContext;
use crate::tenancy::repository::TenantRepository;

/// The filters of the list.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    q: String,
    status: String,
    criticality: String,
    category: String,
    location: String,
    cursor: Option<String>,
    limit: Option<i64>,
}

/// `GET /api/assets`
pub async fn list(tenant: TenantContext, _: CurrentUser, Asked(query): Asked<Query>) -> Result<Response, Problem> {
    let walk = Walk::new(query.cursor.as_deref(), query.limit)?;
    let wanted = Wanted {
        search: plain(&query.q),
        status: plain(&query.status),
        criticality: plain(&query.criticality),
        category: plain(&query.category),
        location: plain(&query.location),
        sort: String::new(),
    };
    let rows = tenant
        .database()
        .run(async |db: &mut PgConnection| {
            Ok::<_, Problem>(store::walk(db, &wanted, walk.after, walk.limit + 1).await?)
        })
        .await?;
    Ok((no_store(), Json(walk.answer(rows, |asset| asset.id))).into_response())
}

/// `GET /api/assets/{id}`
pub async fn show(tenant: TenantContext, _: CurrentUser, Id(id): Id) -> Result<Response, Problem> {
    found(&tenant, StatusCode::OK, id).await
}

async fn found(tenant: &TenantContext, status: StatusCode, id: i64) -> Result<Response, Problem> {
    let asset = TenantRepository::<Asset>::of(tenant).find::<Problem>(id).await?;
    Ok((status, no_store(), Json(asset)).into_response())
}

/// `POST /api/assets`
pub async fn add(
    tenant: TenantContext,
    user: CurrentUser,
    document: Result<Json<AssetDocument>, JsonRejection>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let Json(document) = document?;
    let asset = AssetForm::from(document).check()?;
    let max = tenant.entry().plan.limits.assets;
    let made = TenantRepository::<Asset>::of(&tenant).create::<Problem>((user.id, asset, max)).await?;
    changed(&tenant).await;
    match made {
        Stored::Done(id) => found(&tenant, StatusCode::CREATED, id).await,
        Stored::LimitReached => Err(limit_reached(&tenant, "assets", max)),
        _ => Err(Problem::Conflict(tag_taken().in_one_line())),
    }
}

/// `PUT /api/assets/{id}`: the whole document with the `updated_at` that was read.
pub async fn update(
    tenant: TenantContext,
    user: CurrentUser,
    Id(id): Id,
    document: Result<Json<AssetDocument>, JsonRejection>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let Json(document) = document?;
    let form = AssetForm::from(document);
    let asset = form.check()?;
    let version = form
        .version()
        .ok_or_else(|| Problem::Invalid("updated_at: Send the `updated_at` of the version that you read.".into()))?;
    let stored =
        change(&tenant, async |db: &mut PgConnection| Ok(store::update(db, user.id, id, &asset, version).await?))
            .await?;
    match stored {
        Stored::Done(id) => found(&tenant, StatusCode::OK, id).await,
        Stored::TagTaken => Err(Problem::Conflict(tag_taken().in_one_line())),
        Stored::Changed => Err(Problem::Conflict("Somebody else changed it since you read it. Read it again.".into())),
        Stored::Retired => Err(Problem::Conflict("It is retired. Restore it before you change it.".into())),
        _ => Err(Problem::NotFound),
    }
}

/// `POST /api/assets/{id}/retire`; retiring twice is no error.
pub async fn retire(tenant: TenantContext, user: CurrentUser, Id(id): Id) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    change(&tenant, async |db: &mut PgConnection| Ok(store::retire(db, user.id, id).await?)).await?;
    found(&tenant, StatusCode::OK, id).await
}

/// `POST /api/assets/{id}/restore`; restoring twice is no error.
pub async fn restore(tenant: TenantContext, user: CurrentUser, Id(id): Id) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    change(&tenant, async |db: &mut PgConnection| Ok(store::restore(db, user.id, id).await?)).await?;
    found(&tenant, StatusCode::OK, id).await
}
