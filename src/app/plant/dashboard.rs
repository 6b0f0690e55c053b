//! The first page: how many, what is late, what happened.

use std::time::Duration;

use askama::Template;
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;

use super::activity::{self, Activity};
use super::day::Day;
use super::work::{self, Work};
use super::{assets, no_store, plan_due, private_page};
use crate::app::accounts::CurrentUser;
use crate::app::problem::Problem;
use crate::app::shell::Shell;
use crate::tenancy::TenantContext;

/// How long it is kept; a change by this app forgets it at once.
const KEPT: Duration = Duration::from_secs(300);
/// Activities that are shown.
const ACTIVITIES: i64 = 10;
/// Executions that are shown, the longest overdue first.
const WORK: i64 = 8;

/// What the tenant's people see first, the same for all of them.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Dashboard {
    pub assets: i64,
    pub active_routines: i64,
    pub pending_executions: i64,
    pub overdue_executions: i64,
    pub due_today: i64,
    /// The ten newest.
    pub recent_activities: Vec<Activity>,
    /// The eight that are due first.
    pub next_executions: Vec<Work>,
}

/// Its key in the tenant's cache.
pub fn key(tenant: &TenantContext) -> String {
    format!("dashboard:{}", tenant.entry().uuid)
}

async fn dashboard(tenant: &TenantContext) -> Result<Dashboard, Problem> {
    tenant
        .cache()
        .remember(&key(tenant), KEPT, async || {
            plan_due(tenant).await?;
            tenant.database().run(async |db: &mut PgConnection| Ok::<_, Problem>(read(db).await?)).await
        })
        .await
}

async fn read(db: &mut PgConnection) -> Result<Dashboard, sqlx::Error> {
    let counts = work::store::counts(db, 0).await?;
    let active_routines = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM routines WHERE active"#);
    let open = work::Wanted { view: "open".into(), ..work::Wanted::default() };
    Ok(Dashboard {
        assets: assets::store::count(db).await?,
        active_routines: active_routines.fetch_one(&mut *db).await?,
        pending_executions: counts.pending,
        overdue_executions: counts.overdue,
        due_today: counts.today,
        recent_activities: activity::list(db, &activity::Wanted { limit: ACTIVITIES, ..Default::default() }).await?,
        next_executions: work::store::list(db, &open, WORK, 0).await?,
    })
}

#[derive(Template)]
#[template(path = "plant/dashboard.html")]
struct DashboardPage {
    shell: Shell,
    dashboard: Dashboard,
    today: Day,
    /// The plan's limit of assets.
    limit: Option<i32>,
}

/// `GET /`
pub async fn page(tenant: TenantContext, _: CurrentUser, shell: Shell) -> Result<Response, Problem> {
    let dashboard = dashboard(&tenant).await?;
    private_page(&DashboardPage { shell, dashboard, today: Day::today(), limit: tenant.entry().plan.limits.assets })
}

/// `GET /api/dashboard`
pub async fn api(tenant: TenantContext, _: CurrentUser) -> Result<Response, Problem> {
    Ok((no_store(), Json(dashboard(&tenant).await?)).into_response())
}
