//! Subscriptions: those that Stripe's events tell of, and those that somebody sets by hand.
//!
//! | file | what |
//! |---|---|
//! | `record` | an event is kept, and its subscription made what all of its events say |
//! | `manual` | a subscription is set and ended by hand |
//! | `show` | both, for people |
//! | `news` | which tenants' subscriptions changed, as it happens |

mod manual;
mod news;
mod record;
mod show;

use serde_json::Value;
use sqlx::types::Json;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

pub use manual::{Manual, ManualError};
pub use news::{News, SubscriptionNews};
pub use record::{NewEvent, Outcome, Stand, Use, Wanted};
pub use show::{EventLine, SubscriptionLine};

use super::audit::{self, AuditEntry};

/// The order in which a tenant's subscriptions count: the one that is served for the longest first, so that neither an
/// abandoned checkout nor a cancelled predecessor takes anything away. The rule needs no clock: wherever another one would
/// be served at some time, this one is too.
macro_rules! order_of_subscriptions {
    () => {
        "CASE WHEN status IN ('incomplete', 'incomplete_expired') THEN '-infinity'
              WHEN status IN ('unpaid', 'paused') THEN coalesce(status_since, '-infinity')
              WHEN status = 'canceled' THEN current_period_end
              ELSE coalesce(ends_at, 'infinity') END DESC,
         current_period_start DESC, id DESC"
    };
}
pub(super) use order_of_subscriptions;

/// A subscription as it stands, and as the audit trail says it.
struct Stored {
    id: i32,
    tenant: Uuid,
    said: Value,
}

/// One shape for every read; the argument is what follows WHERE.
macro_rules! select_stored {
    ($rest:literal) => {
        concat!(
            "SELECT s.id, s.tenant_id, jsonb_build_object('tenant', s.tenant_id, 'status', s.status, 'plan', p.slug,
                 'currentPeriodStart', s.current_period_start, 'currentPeriodEnd', s.current_period_end,
                 'canceledAt', s.canceled_at, 'endsAt', s.ends_at, 'since', s.status_since) AS said
             FROM subscriptions s LEFT JOIN plans p ON p.id = s.plan_id WHERE ",
            $rest
        )
    };
}

async fn of_stripe(connection: &mut PgConnection, subscription: &str) -> Result<Option<Stored>, sqlx::Error> {
    let query = sqlx::query(select_stored!("s.stripe_subscription_id = $1 FOR UPDATE OF s")).bind(subscription);
    query.fetch_optional(connection).await?.map(|row| stored(&row)).transpose()
}

/// The manual subscription of a tenant.
async fn of_tenant(connection: &mut PgConnection, tenant: Uuid) -> Result<Option<Stored>, sqlx::Error> {
    let query = sqlx::query(select_stored!(
        "s.tenant_id = $1 AND s.stripe_subscription_id IS NULL ORDER BY s.id DESC LIMIT 1 FOR UPDATE OF s"
    ));
    query.bind(tenant).fetch_optional(connection).await?.map(|row| stored(&row)).transpose()
}

fn stored(row: &sqlx::postgres::PgRow) -> Result<Stored, sqlx::Error> {
    let Json(said) = row.try_get("said")?;
    Ok(Stored { id: row.try_get("id")?, tenant: row.try_get("tenant_id")?, said })
}

/// Says in the audit trail what changed; false: nothing did.
async fn note(
    connection: &mut PgConnection,
    actor: &str,
    resource: String,
    before: Option<Stored>,
    after: &Stored,
) -> Result<bool, sqlx::Error> {
    if before.as_ref().is_some_and(|before| before.said == after.said) {
        return Ok(false);
    }
    let entry = AuditEntry {
        tenant: Some(after.tenant),
        actor: actor.to_owned(),
        action: if before.is_some() { "subscription.changed" } else { "subscription.created" }.to_owned(),
        resource_type: Some("Subscription".to_owned()),
        resource_id: Some(resource),
        changes: Some(serde_json::json!({ "before": before.map(|before| before.said), "after": after.said })),
        ..AuditEntry::default()
    };
    audit::write(connection, &entry).await?;
    Ok(true)
}
