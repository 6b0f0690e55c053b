//! The seed's `plans`.

use serde_json::{Value, json};
use sqlx::types::Json;

use super::{Central, CentralError, bounded};
use crate::api::plan::PlanSpec;

/// One plan as the central database has it.
#[derive(Clone, Debug, PartialEq)]
pub struct PlanRow {
    /// The Plan's name.
    pub slug: String,
    /// Name shown to people.
    pub display_name: String,
    /// Decimal, at most two places.
    pub price: String,
    /// ISO 4217 code.
    pub currency: String,
    /// What is switched on.
    pub features: Vec<String>,
    /// The seed's limits.
    pub limits: Value,
    /// Sold to new tenants.
    pub active: bool,
}

impl PlanRow {
    /// The row of a Plan object.
    pub fn of(name: &str, spec: &PlanSpec) -> Self {
        let limits = json!({
            "users": spec.limits.users,
            "assets": spec.limits.assets,
            "storageGiB": spec.limits.storage_gib,
            "requestsPerMinute": spec.limits.requests_per_minute,
            "poolSize": spec.database.pool_size,
            "maxConnections": spec.database.max_connections,
            "minWorkers": spec.workers.min_processes,
            "maxWorkers": spec.workers.max_processes,
            "backupRetentionDays": spec.backup.as_ref().and_then(|backup| backup.retention.as_ref()?.daily),
        });
        Self {
            slug: name.to_owned(),
            display_name: spec.display_name.clone(),
            price: spec.price.clone(),
            currency: spec.currency.clone(),
            features: spec.features.clone(),
            limits,
            active: spec.active,
        }
    }
}

const SAME: &str = "SELECT id FROM plans
    WHERE slug = $1 AND (name, price, currency, features, limits, is_active) = ($2, $3::text::numeric, $4, $5, $6, $7)";

const WRITE: &str = "INSERT INTO plans (slug, name, price, currency, features, limits, is_active)
    VALUES ($1, $2, $3::text::numeric, $4, $5, $6, $7)
    ON CONFLICT (slug) DO UPDATE SET (name, price, currency, features, limits, is_active)
        = (excluded.name, excluded.price, excluded.currency, excluded.features, excluded.limits, excluded.is_active)
    RETURNING id";

impl Central {
    /// Makes the row what the Plan says and returns its number.
    pub async fn upsert_plan(&self, plan: &PlanRow) -> Result<i32, CentralError> {
        let bind = |sql: &'static str| {
            sqlx::query_scalar::<_, i32>(sql)
                .bind(&plan.slug)
                .bind(&plan.display_name)
                .bind(&plan.price)
                .bind(&plan.currency)
                .bind(Json(&plan.features))
                .bind(&plan.limits)
                .bind(plan.active)
        };
        let work = async {
            // Asked first, because ON CONFLICT takes a number from the sequence and a lock on the row even when
            // there is nothing to change.
            match bind(SAME).fetch_optional(&self.pool).await? {
                Some(id) => Ok(id),
                None => bind(WRITE).fetch_one(&self.pool).await,
            }
        };
        bounded(format!("write the plan {}", plan.slug), work).await
    }
}
