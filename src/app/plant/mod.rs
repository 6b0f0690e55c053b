//! The maintenance itself: assets, what is to be done to them, and what was done.
//!
//! | to see … | read |
//! |---|---|
//! | what is looked after | `assets` |
//! | what is to be done, how often | `routines`, `schedule` |
//! | one time that it is due, and what becomes of it | `work` |
//! | who did what | `activity` |
//! | the first page | `dashboard` |
//!
//! Each part has its pages, its JSON and its `store`, which holds every statement. A change is one transaction that also
//! writes its line into the activities; [`change`] runs it.

mod activity;
mod asked;
mod assets;
mod dashboard;
mod day;
mod people;
mod routines;
mod sample;
mod schedule;
pub mod settings;
mod show;
mod typed;
mod work;

pub(in crate::app) use work::store::put_away;

use askama::Template;
use axum::Router;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use http::header::{CACHE_CONTROL, HeaderName, HeaderValue};
use sqlx::postgres::PgConnection;

use self::day::Day;
use super::problem::Problem;
use super::product::Product;
use super::render;
use crate::api::tenant::TenantState;
use crate::tenancy::TenantContext;

/// Pages for those who are signed in.
pub fn signed_in() -> Router<Product> {
    pages().merge(api())
}

fn pages() -> Router<Product> {
    use assets::pages as asset;
    use routines::pages as routine;
    use work::pages as execution;
    Router::new()
        .route("/", get(dashboard::page))
        .route("/assets", get(asset::list).post(asset::add))
        .route("/assets/new", get(asset::new))
        .route("/assets/{id}", get(asset::show).post(asset::update))
        .route("/assets/{id}/edit", get(asset::edit))
        .route("/assets/{id}/retire", post(asset::retire))
        .route("/assets/{id}/restore", post(asset::restore))
        .route("/routines", get(routine::list).post(routines::edit::add))
        .route("/routines/new", get(routines::edit::new))
        .route("/routines/{id}", get(routine::show).post(routines::edit::update))
        .route("/routines/{id}/edit", get(routines::edit::edit))
        .route("/routines/{id}/pause", post(routine::pause))
        .route("/routines/{id}/resume", post(routine::resume))
        .route("/executions", get(execution::list))
        .route("/executions/generate", post(execution::generate))
        .route("/executions/{id}", get(execution::show))
        .route("/executions/{id}/print", get(execution::print))
        .route("/executions/{id}/start", post(execution::start))
        .route("/executions/{id}/complete", post(execution::complete))
        .route("/executions/{id}/skip", post(execution::skip))
        .route("/activities", get(activity::page))
        .route("/settings", get(settings::page))
        .route("/sample-data", post(sample::fill))
}

fn api() -> Router<Product> {
    use assets::api as asset;
    use routines::api as routine;
    use work::api as execution;
    Router::new()
        .route("/api/dashboard", get(dashboard::api))
        .route("/api/assets", get(asset::list).post(asset::add))
        .route("/api/assets/{id}", get(asset::show).put(asset::update))
        .route("/api/assets/{id}/retire", post(asset::retire))
        .route("/api/assets/{id}/restore", post(asset::restore))
        .route("/api/routines", get(routine::list).post(routine::add))
        .route("/api/routines/{id}", get(routine::show).put(routine::update))
        .route("/api/routines/{id}/pause", post(routine::pause))
        .route("/api/routines/{id}/resume", post(routine::resume))
        .route("/api/executions", get(execution::list))
        .route("/api/executions/generate", post(execution::generate))
        .route("/api/executions/{id}", get(execution::show))
        .route("/api/executions/{id}/start", post(execution::start))
        .route("/api/executions/{id}/complete", post(execution::complete))
        .route("/api/executions/{id}/skip", post(execution::skip))
        .route("/api/activities", get(activity::api_list))
        .route("/api/settings", get(settings::api))
}

/// One change to the tenant's data: a transaction, after which the dashboard is made anew.
///
/// # Errors
/// What `work` returns, or the database is away.
pub async fn change<T>(
    tenant: &TenantContext,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, Problem>,
) -> Result<T, Problem> {
    let done = tenant.database().transaction(work).await?;
    changed(tenant).await;
    Ok(done)
}

/// Whoever changes assets, routines or executions in another way calls this afterwards.
pub async fn changed(tenant: &TenantContext) {
    tenant.cache().forget(&dashboard::key(tenant)).await;
}

/// Makes the executions that are due soon. Every page that shows work calls it, so that work appears on its day whether
/// or not a worker runs; returns how many were made.
///
/// # Errors
/// The database is away.
pub async fn plan_due(tenant: &TenantContext) -> Result<u64, Problem> {
    if tenant.entry().state == TenantState::ReadOnly {
        return Ok(0);
    }
    let planned = tenant
        .database()
        .run(async |db: &mut PgConnection| Ok::<_, Problem>(work::store::plan(db, Day::today()).await?))
        .await?;
    if planned > 0 {
        changed(tenant).await;
    }
    Ok(planned)
}

fn limit_reached(tenant: &TenantContext, limit: &'static str, max: Option<i32>) -> Problem {
    Problem::LimitReached { limit, max: max.unwrap_or_default(), plan: tenant.entry().plan.name.clone() }
}

/// Nobody keeps a copy: the next person at the same screen may be another one.
fn no_store() -> [(HeaderName, HeaderValue); 1] {
    [(CACHE_CONTROL, HeaderValue::from_static("no-store"))]
}

fn private_page(template: &impl Template) -> Result<Response, Problem> {
    Ok((no_store(), render::page(template)?).into_response())
}
