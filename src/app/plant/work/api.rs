//! Executions for programs.

use axum::Json;
use axum::extract::rejection::JsonRejection;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use sqlx::postgres::PgConnection;

use super::Detail;
use super::pages::{checked_notes, checked_reason};
use super::store::{self, Step, Walked};
use crate::app::accounts::{CurrentUser, Role};
use crate::app::plant::asked::{Asked, Id, Walk, plain};
use crate::app::plant::day::Day;
use crate::app::plant::{change, no_store, plan_due};
use crate::app::problem::Problem;
use crate::tenancy::TenantContext;
use crate::tenancy::repository::TenantRepository;

/// The filters of the list.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct Query {
    status: String,
    routine_id: Option<i64>,
    asset_id: Option<i64>,
    assigned_to: Option<i64>,
    due_before: Option<String>,
    due_after: Option<String>,
    cursor: Option<String>,
    limit: Option<i64>,
}

/// `GET /api/executions`
pub async fn list(tenant: TenantContext, _: CurrentUser, Asked(query): Asked<Query>) -> Result<Response, Problem> {
    let walk = Walk::new(query.cursor.as_deref(), query.limit)?;
    let day = |name: &str, text: Option<&str>| {
        text.map(|text| {
            Day::parse(text).ok_or_else(|| Problem::Invalid(format!("`{name}` is no date. Write it as 2026-11-25.")))
        })
        .transpose()
    };
    let wanted = Walked {
        status: plain(&query.status),
        routine: query.routine_id,
        asset: query.asset_id,
        assigned_to: query.assigned_to,
        due_before: day("due_before", query.due_before.as_deref())?,
        due_after: day("due_after", query.due_after.as_deref())?,
    };
    plan_due(&tenant).await?;
    let rows = tenant
        .database()
        .run(async |db: &mut PgConnection| {
            Ok::<_, Problem>(store::walk(db, &wanted, walk.after, walk.limit + 1).await?)
        })
        .await?;
    Ok((no_store(), Json(walk.answer(rows, |work| work.id))).into_response())
}

/// `GET /api/executions/{id}`
pub async fn show(tenant: TenantContext, _: CurrentUser, Id(id): Id) -> Result<Response, Problem> {
    let work = TenantRepository::<Detail>::of(&tenant).find::<Problem>(id).await?;
    Ok((no_store(), Json(work)).into_response())
}

/// `POST /api/executions/generate`
pub async fn generate(tenant: TenantContext, user: CurrentUser) -> Result<Response, Problem> {
    user.require(Role::Technician)?;
    let planned = plan_due(&tenant).await?;
    Ok((no_store(), Json(serde_json::json!({ "planned": planned }))).into_response())
}

async fn after(tenant: TenantContext, user: CurrentUser, id: i64, step: Step) -> Result<Response, Problem> {
    match step {
        Step::Done => show(tenant, user, Id(id)).await,
        Step::Missing => Err(Problem::NotFound),
        Step::TooLate => {
            let work = TenantRepository::<Detail>::of(&tenant).find::<Problem>(id).await?;
            Err(Problem::Conflict(work.standing()))
        }
    }
}

/// `POST /api/executions/{id}/start`
pub async fn start(tenant: TenantContext, user: CurrentUser, Id(id): Id) -> Result<Response, Problem> {
    user.require(Role::Technician)?;
    let step = change(&tenant, async |db: &mut PgConnection| Ok(store::start(db, user.id, id).await?)).await?;
    after(tenant, user, id, step).await
}

/// What a program says about completed work.
#[derive(Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub struct CompleteDocument {
    notes: Option<String>,
    asset_status: Option<String>,
}

/// `POST /api/executions/{id}/complete`
pub async fn complete(
    tenant: TenantContext,
    user: CurrentUser,
    Id(id): Id,
    document: Result<Json<CompleteDocument>, JsonRejection>,
) -> Result<Response, Problem> {
    user.require(Role::Technician)?;
    let Json(document) = document?;
    let (notes, status) = (document.notes.unwrap_or_default(), document.asset_status.unwrap_or_default());
    let (notes, status) = checked_notes(&notes, &status)?;
    let step = change(&tenant, async |db: &mut PgConnection| {
        Ok(store::complete(db, user.id, id, notes.as_deref(), status).await?)
    })
    .await?;
    after(tenant, user, id, step).await
}

/// What a program says about skipped work.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SkipDocument {
    reason: String,
    #[serde(default)]
    missed: bool,
}

/// `POST /api/executions/{id}/skip`
pub async fn skip(
    tenant: TenantContext,
    user: CurrentUser,
    Id(id): Id,
    document: Result<Json<SkipDocument>, JsonRejection>,
) -> Result<Response, Problem> {
    user.require(Role::Technician)?;
    let Json(document) = document?;
    let reason = checked_reason(&document.reason)?;
    let step =
        change(
            &tenant,
            async |db: &mut PgConnection| Ok(store::skip(db, user.id, id, &reason, document.missed).await?),
        )
        .await?;
    after(tenant, user, id, step).await
}
