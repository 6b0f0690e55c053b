//! Routines for programs.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Deserialize;
use sqlx::postgres::PgConnection;

use super::Routine;
use super::edit::why;
use super::form::{RoutineDocument, RoutineForm};
use super::pages::asset_retired;
use super::store::{self, Resumed, Stored, Wanted};
use crate::app::accounts::{CurrentUser, Role};
use crate::app::plant::asked::{Asked, Id, Walk, plain};
use crate::app::plant::{change, changed, no_store};
use crate::app::problem::Problem;
use crate::tenancy::TenantContext;
use crate::tenancy::repository::TenantRepository;

/// The filters of the list.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    q: String,
    state: String,
    assigned_to: Option<i64>,
    asset_id: Option<i64>,
    cursor: Option<String>,
    limit: Option<i64>,
}

/// `GET /api/routines`
pub async fn list(tenant: TenantContext, _: CurrentUser, Asked(query): Asked<Query>) -> Result<Response, Problem> {
    let walk = Walk::new(query.cursor.as_deref(), query.limit)?;
    let wanted = Wanted {
        search: plain(&query.q),
        state: plain(&query.state),
        assigned_to: query.assigned_to,
        asset: query.asset_id,
        after: Some(walk.after),
    };
    let rows = tenant
        .database()
        .run(async |db: &mut PgConnection| Ok::<_, Problem>(store::list(db, &wanted, walk.limit + 1, 0).await?))
        .await?;
    Ok((no_store(), Json(walk.answer(rows, |routine| routine.id))).into_response())
}

/// `GET /api/routines/{id}`
pub async fn show(tenant: TenantContext, _: CurrentUser, Id(id): Id) -> Result<Response, Problem> {
    found(&tenant, StatusCode::OK, id).await
}

async fn found(tenant: &TenantContext, status: StatusCode, id: i64) -> Result<Response, Problem> {
    let routine = TenantRepository::<Routine>::of(tenant).find::<Problem>(id).await?;
    Ok((status, no_store(), Json(routine)).into_response())
}

/// `POST /api/routines`
pub async fn add(
    tenant: TenantContext,
    user: CurrentUser,
    document: Result<Json<RoutineDocument>, JsonRejection>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let Json(document) = document?;
    let routine = RoutineForm::from(document).check()?;
    let made = TenantRepository::<Routine>::of(&tenant).create::<Problem>((user.id, routine)).await?;
    changed(&tenant).await;
    match made {
        Stored::Done(id) => found(&tenant, StatusCode::CREATED, id).await,
        refused => Err(Problem::Invalid(why(refused).in_one_line())),
    }
}

/// `PUT /api/routines/{id}`: the whole document with the `updated_at` that was read. The asset stays the one it was.
pub async fn update(
    tenant: TenantContext,
    user: CurrentUser,
    Id(id): Id,
    document: Result<Json<RoutineDocument>, JsonRejection>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let Json(document) = document?;
    let form = RoutineForm::from(document);
    let routine = form.check()?;
    let version = form
        .version()
        .ok_or_else(|| Problem::Invalid("updated_at: Send the `updated_at` of the version that you read.".into()))?;
    let stored =
        change(&tenant, async |db: &mut PgConnection| Ok(store::update(db, user.id, id, &routine, version).await?))
            .await?;
    match stored {
        Stored::Done(id) => found(&tenant, StatusCode::OK, id).await,
        Stored::Missing => Err(Problem::NotFound),
        Stored::Changed => Err(Problem::Conflict("Somebody else changed it since you read it. Read it again.".into())),
        refused @ (Stored::InProgress | Stored::DateTaken(_)) => Err(Problem::Conflict(why(refused).in_one_line())),
        refused => Err(Problem::Invalid(why(refused).in_one_line())),
    }
}

/// `POST /api/routines/{id}/pause`; pausing twice is no error.
pub async fn pause(tenant: TenantContext, user: CurrentUser, Id(id): Id) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    change(&tenant, async |db: &mut PgConnection| Ok(store::pause(db, user.id, id).await?)).await?;
    found(&tenant, StatusCode::OK, id).await
}

/// `POST /api/routines/{id}/resume`; resuming twice is no error.
pub async fn resume(tenant: TenantContext, user: CurrentUser, Id(id): Id) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    match change(&tenant, async |db: &mut PgConnection| Ok(store::resume(db, user.id, id).await?)).await? {
        Resumed::AssetRetired => Err(asset_retired()),
        _ => found(&tenant, StatusCode::OK, id).await,
    }
}
