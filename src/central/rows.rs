//! Reads of the ledger.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{FromRow, Row};
use uuid::Uuid;

use super::model::{HostRow, SubscriptionRow, TenantRow, state_of};
use super::{Central, CentralError, bounded};

/// One shape of row for every read; the argument is what follows FROM.
/// Times travel as microseconds: sqlx has no codec for jiff, and `extract` is exact where a float is not.
macro_rules! select_tenants {
    ($rest:literal) => {
        concat!(
            "SELECT t.id, t.namespace, t.object_name, t.object_uid, t.slug, t.name, p.slug AS plan, t.status,
                    (extract(epoch FROM t.trial_ends_at) * 1000000)::bigint AS trial_ends_at, t.metadata,
                    t.ledger_state, t.server, t.epoch,
                    (extract(epoch FROM t.drop_after) * 1000000)::bigint AS drop_after,
                    t.schema_version, t.seeded,
                    (extract(epoch FROM t.created_at) * 1000000)::bigint AS created_at,
                    coalesce((SELECT jsonb_agg(jsonb_build_object(
                                  'host', d.domain, 'primary', d.is_primary, 'verified', d.is_verified,
                                  'proved_at', d.proved_at, 'lost_since', d.lost_since)
                                  ORDER BY d.domain COLLATE \"C\")
                              FROM domains d WHERE d.tenant_id = t.id), '[]') AS hosts,
                    s.status AS subscription_status,
                    (extract(epoch FROM s.current_period_end) * 1000000)::bigint AS subscription_end,
                    s.canceled_at IS NOT NULL AS subscription_canceled,
                    (extract(epoch FROM s.ends_at) * 1000000)::bigint AS subscription_ends_at,
                    (extract(epoch FROM s.status_since) * 1000000)::bigint AS subscription_since
             FROM tenants t
             LEFT JOIN plans p ON p.id = t.plan_id
             LEFT JOIN LATERAL (SELECT * FROM subscriptions WHERE tenant_id = t.id
                                ORDER BY ",
            super::billing::order_of_subscriptions!(),
            " LIMIT 1) s ON true ",
            $rest
        )
    };
}

impl Central {
    /// The whole ledger in one query, by uuid. Rows whose data is confirmed gone are left out.
    pub async fn rows(&self) -> Result<Vec<TenantRow>, CentralError> {
        let query = sqlx::query_as(select_tenants!("WHERE t.dropped_at IS NULL ORDER BY t.id"));
        bounded("read the ledger", query.fetch_all(&self.pool)).await
    }

    /// One tenant, whatever became of it.
    pub async fn row(&self, uuid: Uuid) -> Result<Option<TenantRow>, CentralError> {
        let query = sqlx::query_as(select_tenants!("WHERE t.id = $1")).bind(uuid);
        bounded(format!("read tenant {uuid} in the ledger"), query.fetch_optional(&self.pool)).await
    }

    /// Tenants whose data is to be dropped now: the quarantine has passed, or an earlier drop was not confirmed.
    /// Claim each with [`Central::begin_drop`] before touching its database.
    pub async fn due_drops(&self) -> Result<Vec<TenantRow>, CentralError> {
        let query = sqlx::query_as(select_tenants!(
            "WHERE (t.ledger_state = 'Quarantined' AND t.drop_after <= now())
                OR (t.ledger_state = 'Dropped' AND t.dropped_at IS NULL)
             ORDER BY t.drop_after"
        ));
        bounded("read which quarantines have passed", query.fetch_all(&self.pool)).await
    }
}

pub(super) async fn row_of_object(
    executor: impl sqlx::PgExecutor<'_>,
    object_uid: Uuid,
) -> Result<Option<TenantRow>, sqlx::Error> {
    sqlx::query_as(select_tenants!("WHERE t.object_uid = $1")).bind(object_uid).fetch_optional(executor).await
}

impl FromRow<'_, PgRow> for TenantRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        let status: String = row.try_get("status")?;
        let ledger_state: String = row.try_get("ledger_state")?;
        let Json(metadata): Json<BTreeMap<String, Value>> = row.try_get("metadata")?;
        let Json(hosts): Json<Vec<HostRow>> = row.try_get("hosts")?;
        Ok(Self {
            uuid: row.try_get("id")?,
            namespace: row.try_get("namespace")?,
            name: row.try_get("object_name")?,
            object_uid: row.try_get("object_uid")?,
            slug: row.try_get("slug")?,
            display_name: row.try_get("name")?,
            plan: row.try_get("plan")?,
            state: state_of(&status).map_err(decode)?,
            trial_ends_at: instant(row, "trial_ends_at")?,
            metadata: metadata.into_iter().map(|(key, value)| (key, text(value))).collect(),
            ledger_state: ledger_state.parse().map_err(decode::<super::model::UnknownState>)?,
            server: row.try_get("server")?,
            epoch: row.try_get("epoch")?,
            drop_after: instant(row, "drop_after")?,
            schema_version: row.try_get("schema_version")?,
            seeded: row.try_get("seeded")?,
            hosts,
            subscription: subscription(row)?,
            created_at: instant(row, "created_at")?.unwrap_or_default(),
        })
    }
}

/// The column may hold any JSON; one odd value must not make the whole ledger unreadable.
fn text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        other => other.to_string(),
    }
}

fn subscription(row: &PgRow) -> Result<Option<SubscriptionRow>, sqlx::Error> {
    let Some(status) = row.try_get("subscription_status")? else {
        return Ok(None);
    };
    Ok(Some(SubscriptionRow {
        status,
        current_period_end: instant(row, "subscription_end")?.unwrap_or_default(),
        canceled: row.try_get("subscription_canceled")?,
        ends_at: instant(row, "subscription_ends_at")?,
        since: instant(row, "subscription_since")?,
    }))
}

pub(super) fn instant(row: &PgRow, column: &str) -> Result<Option<Timestamp>, sqlx::Error> {
    Ok(row.try_get::<Option<i64>, _>(column)?.map(saturating))
}

/// PostgreSQL's calendar is longer than jiff's; one odd year must not make the whole ledger unreadable.
fn saturating(micros: i64) -> Timestamp {
    let nanos = i32::try_from(micros.rem_euclid(1_000_000) * 1000).unwrap_or_default();
    let edge = if micros < 0 { Timestamp::MIN } else { Timestamp::MAX };
    Timestamp::new(micros.div_euclid(1_000_000), nanos).unwrap_or(edge)
}

fn decode<E: std::error::Error + Send + Sync + 'static>(error: E) -> sqlx::Error {
    sqlx::Error::Decode(Box::new(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_instant_of_jiff_survives_to_the_microsecond_and_others_end_at_its_edges() {
        for instant in [Timestamp::MIN, Timestamp::UNIX_EPOCH, Timestamp::MAX] {
            let micros = instant.as_microsecond();
            assert_eq!(saturating(micros).as_microsecond(), micros);
        }
        assert_eq!(saturating(-1).as_nanosecond(), -1000);
        assert_eq!(saturating(i64::MAX), Timestamp::MAX);
        assert_eq!(saturating(i64::MIN), Timestamp::MIN);
    }
}
