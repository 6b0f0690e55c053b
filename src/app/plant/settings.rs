//! The tenant's settings: its hosts, its plan, and how much of the plan is used.

use askama::Template;
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use sqlx::postgres::PgConnection;

use super::{assets, no_store, private_page};
use crate::api::tenant::TenantState;
use crate::app::accounts::{CurrentUser, Role};
use crate::app::files::storage_used;
use crate::app::problem::Problem;
use crate::app::shell::Shell;
use crate::tenancy::TenantContext;

/// How much of one limit is used.
#[derive(Debug, Clone, Serialize)]
pub struct Usage {
    /// The limit's name in the plan.
    pub limit: &'static str,
    #[serde(skip)]
    label: &'static str,
    /// Absent where nobody counts.
    pub used: Option<i64>,
    /// Absent: without limit.
    pub max: Option<i32>,
}

impl Usage {
    fn is_full(&self) -> bool {
        self.used.zip(self.max).is_some_and(|(used, max)| used >= i64::from(max))
    }
}

/// What an administrator wants to know of the tenant.
#[derive(Debug, Clone, Serialize)]
pub struct Settings {
    pub tenant: String,
    pub slug: String,
    pub state: String,
    pub primary_host: String,
    pub hosts: Vec<String>,
    pub plan: String,
    pub features: Vec<String>,
    pub subscription: String,
    pub current_period_end: Option<String>,
    pub trial_ends_at: Option<String>,
    pub usage: Vec<Usage>,
}

impl Settings {
    fn is_empty(&self) -> bool {
        self.usage.iter().any(|usage| usage.limit == "assets" && usage.used == Some(0))
    }
}

async fn settings(tenant: &TenantContext) -> Result<Settings, Problem> {
    let (users, assets) = tenant
        .database()
        .run(async |db: &mut PgConnection| {
            let users = sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM users WHERE disabled_at IS NULL"#);
            Ok::<_, Problem>((users.fetch_one(&mut *db).await?, assets::store::count(db).await?))
        })
        .await?;
    // Rounded up: what is full must not read as if there were room.
    let gib = (storage_used(tenant).await? + (1 << 30) - 1) >> 30;
    let entry = tenant.entry();
    let limits = &entry.plan.limits;
    let usage = |limit, label, used, max| Usage { limit, label, used, max };
    Ok(Settings {
        tenant: entry.display_name.clone(),
        slug: entry.slug.clone(),
        state: match entry.state {
            TenantState::ReadOnly => "Read-only".into(),
            other => format!("{other:?}"),
        },
        primary_host: entry.primary_host.clone(),
        hosts: entry.hosts.clone(),
        plan: entry.plan.name.clone(),
        features: entry.plan.features.clone(),
        subscription: entry.subscription.status.clone(),
        current_period_end: entry.subscription.current_period_end.clone(),
        trial_ends_at: entry.subscription.trial_ends_at.clone(),
        usage: vec![
            usage("users", "People who can sign in", Some(users), limits.users),
            usage("assets", "Assets, retired ones included", Some(assets), limits.assets),
            usage("storageGiB", "File storage in GiB, rounded up", Some(gib), limits.storage_gib),
            usage("requestsPerMinute", "Requests per minute", None, limits.requests_per_minute),
        ],
    })
}

#[derive(Template)]
#[template(path = "plant/settings.html")]
struct SettingsPage {
    shell: Shell,
    settings: Settings,
}

/// `GET /settings`
pub async fn page(tenant: TenantContext, user: CurrentUser, shell: Shell) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    private_page(&SettingsPage { shell, settings: settings(&tenant).await? })
}

/// `GET /api/settings`
pub async fn api(tenant: TenantContext, user: CurrentUser) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    Ok((no_store(), Json(settings(&tenant).await?)).into_response())
}

/// `GET /api/tenant`. Strangers hear whose host it is, once the tenant's database has answered; probes and scripts ask.
pub async fn tenant(tenant: TenantContext, parts: http::request::Parts) -> Result<Response, Problem> {
    let assets =
        tenant.database().run(async |db: &mut PgConnection| Ok::<_, Problem>(assets::store::count(db).await?)).await?;
    let entry = tenant.entry();
    let mut document = serde_json::json!({ "tenant": entry.display_name, "slug": entry.slug });
    if parts.extensions.get::<CurrentUser>().is_some() {
        document["uuid"] = serde_json::json!(entry.uuid);
        document["assets"] = serde_json::json!(assets);
    }
    Ok((no_store(), Json(document)).into_response())
}
