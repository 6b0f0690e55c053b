//! A subscription is set and ended by hand, for customers without Stripe. A tenant has one at most.

use jiff::Timestamp;
use sqlx::PgConnection;
use uuid::Uuid;

use super::record::text;
use super::{note, of_tenant};
use crate::central::{Central, CentralError, bounded};

/// A subscription that somebody sets.
#[derive(Clone, Debug)]
pub struct Manual<'a> {
    /// One of Stripe's statuses.
    pub status: &'a str,
    /// The plan's slug.
    pub plan: Option<&'a str>,
    /// When it ends.
    pub until: Timestamp,
}

/// Why a manual subscription is not what it was asked to be.
#[derive(Debug, thiserror::Error)]
pub enum ManualError {
    /// No such tenant.
    #[error("the ledger knows no tenant {0}: its uuid is status.uuid of the Tenant")]
    NoTenant(Uuid),
    /// No such plan.
    #[error("the ledger knows no plan {0}: kubectl get plans")]
    NoPlan(String),
    /// It has none.
    #[error("tenant {0} has no manual subscription; one of Stripe's is ended at Stripe")]
    NoSubscription(Uuid),
    /// The central database failed.
    #[error(transparent)]
    Central(#[from] CentralError),
}

impl Central {
    /// Makes the tenant's manual subscription what is asked for. Its period begins now, or began with it.
    pub async fn set_manual(&self, tenant: Uuid, manual: &Manual<'_>, actor: &str) -> Result<(), ManualError> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            let result = set(&mut transaction, tenant, manual, actor).await?;
            if result.is_ok() {
                transaction.commit().await?;
            }
            Ok(result)
        };
        bounded(format!("set the subscription of tenant {tenant}"), work).await?
    }

    /// Ends the tenant's manual subscription now; one that has ended stays as it is.
    pub async fn end_manual(&self, tenant: Uuid, actor: &str) -> Result<(), ManualError> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            let result = end(&mut transaction, tenant, actor).await?;
            transaction.commit().await?;
            Ok(result)
        };
        bounded(format!("end the subscription of tenant {tenant}"), work).await?
    }
}

async fn set(
    connection: &mut PgConnection,
    tenant: Uuid,
    manual: &Manual<'_>,
    actor: &str,
) -> Result<Result<(), ManualError>, sqlx::Error> {
    // Also the lock by which two at once do not make two.
    let known: Option<Uuid> = sqlx::query_scalar("SELECT id FROM tenants WHERE id = $1 FOR NO KEY UPDATE")
        .bind(tenant)
        .fetch_optional(&mut *connection)
        .await?;
    if known.is_none() {
        return Ok(Err(ManualError::NoTenant(tenant)));
    }
    let plan: Option<i32> = sqlx::query_scalar("SELECT id FROM plans WHERE slug = $1")
        .bind(manual.plan)
        .fetch_optional(&mut *connection)
        .await?;
    if let (Some(asked), None) = (manual.plan, plan) {
        return Ok(Err(ManualError::NoPlan(asked.to_owned())));
    }
    let before = of_tenant(connection, tenant).await?;
    sqlx::query(if before.is_some() {
        "UPDATE subscriptions SET plan_id = $2, status_since = CASE WHEN status = $3 THEN status_since ELSE now() END,
             status = $3, canceled_at = NULL, current_period_start = least(current_period_start, $4::text::timestamptz),
             current_period_end = $4::text::timestamptz, ends_at = $4::text::timestamptz
         WHERE id = $5 AND tenant_id = $1"
    } else {
        "INSERT INTO subscriptions (tenant_id, plan_id, status, current_period_start, current_period_end, ends_at, status_since)
         SELECT $1, $2, $3, least(now(), $4::text::timestamptz), $4::text::timestamptz, $4::text::timestamptz, now()
         WHERE $5::integer IS NULL"
    })
    .bind(tenant)
    .bind(plan)
    .bind(manual.status)
    .bind(text(manual.until))
    .bind(before.as_ref().map(|before| before.id))
    .execute(&mut *connection)
    .await?;
    tell(connection, tenant, actor, before).await.map(Ok)
}

async fn end(connection: &mut PgConnection, tenant: Uuid, actor: &str) -> Result<Result<(), ManualError>, sqlx::Error> {
    let Some(before) = of_tenant(connection, tenant).await? else {
        return Ok(Err(ManualError::NoSubscription(tenant)));
    };
    sqlx::query(
        "UPDATE subscriptions SET status = 'canceled', canceled_at = now(), status_since = now(), ends_at = NULL,
             current_period_end = least(current_period_end, greatest(current_period_start, now()))
         WHERE id = $1 AND status <> 'canceled'",
    )
    .bind(before.id)
    .execute(&mut *connection)
    .await?;
    tell(connection, tenant, actor, Some(before)).await.map(Ok)
}

async fn tell(
    connection: &mut PgConnection,
    tenant: Uuid,
    actor: &str,
    before: Option<super::Stored>,
) -> Result<(), sqlx::Error> {
    let after = of_tenant(connection, tenant).await?.ok_or(sqlx::Error::RowNotFound)?;
    note(connection, actor, format!("manual/{}", after.id), before, &after).await.map(drop)
}
