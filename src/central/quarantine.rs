//! A Tenant goes and its data with it, after a while; and the breaker that stops a mass deletion.

use jiff::Timestamp;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::model::LedgerState;
use super::release::{self, Held, Release};
use super::{Central, CentralError, bounded};

/// Serialises the counting of deletes: two at once would both see the last free place.
const BREAKER_LOCK: i64 = 0x6d6f_735f_6272_6b72;
/// This many deletes within ten minutes are always let through …
const BREAKER_FLOOR: i64 = 10;
/// … and this share of the tenants, if it is more.
const BREAKER_PERCENT: i64 = 5;

/// What became of a request to destroy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quarantine {
    /// The row is Quarantined (perhaps since an earlier call; then its `drop_after` stands). The finalizer may go once
    /// the database is closed and renamed.
    Quarantined,
    /// The breaker holds it. Nothing was written.
    Blocked {
        /// Tenants destroyed within the last ten minutes.
        count: i64,
        /// How many may be.
        limit: i64,
    },
    /// There never was a database; the row is gone and its slug free.
    Forgotten,
    /// The object does not hold the tenant (any more). Nothing was written.
    NotHolder,
}

impl Central {
    /// The object lets go of its tenant, whose data may be dropped after `drop_after`. At most max(10, 5 %) of the
    /// tenants within ten minutes, unless the delete is confirmed.
    pub async fn quarantine(
        &self,
        uuid: Uuid,
        object_uid: Uuid,
        drop_after: Timestamp,
        confirmed: bool,
    ) -> Result<Quarantine, CentralError> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            // Before the row's lock, always, so that two calls cannot wait for each other.
            sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(BREAKER_LOCK).execute(&mut *transaction).await?;
            let held = release::lock(&mut transaction, uuid).await?;
            let Some(held) = held.filter(|held| held.object_uid == Some(object_uid)) else {
                return earlier(&mut transaction, uuid, object_uid).await;
            };
            let quarantine = close(&mut transaction, &held, drop_after, confirmed).await?;
            transaction.commit().await?;
            Ok(quarantine)
        };
        bounded(format!("quarantine tenant {uuid}"), work).await
    }

    /// Decides for good that quarantined data is dropped. True: it is, now drop the database and then call
    /// [`Central::mark_dropped`]. False: somebody took the data over, or it is not yet time; leave it alone.
    ///
    /// The decision comes first because an adoption may come at any moment: it either finds the row Quarantined and
    /// wins, or Dropped and is refused. Never is a database dropped under a Tenant that has just got it back.
    pub async fn begin_drop(&self, uuid: Uuid) -> Result<bool, CentralError> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            let Some(held) = release::lock(&mut transaction, uuid).await? else {
                return Ok(false);
            };
            let decided = sqlx::query(
                "UPDATE tenants SET ledger_state = 'Dropped'
                 WHERE id = $1 AND ledger_state = 'Quarantined' AND drop_after <= now()",
            )
            .bind(uuid)
            .execute(&mut *transaction)
            .await?;
            if decided.rows_affected() == 1 {
                super::hosts::free(&mut transaction, uuid).await?;
                release::note(&mut transaction, &held, "tenant.drop_started").await?;
                transaction.commit().await?;
                return Ok(true);
            }
            sqlx::query_scalar("SELECT ledger_state = 'Dropped' AND dropped_at IS NULL FROM tenants WHERE id = $1")
                .bind(uuid)
                .fetch_one(&mut *transaction)
                .await
        };
        bounded(format!("decide the drop of tenant {uuid}"), work).await
    }

    /// Tenants whose data was dropped within the last 30 days.
    pub async fn dropped_lately(&self) -> Result<Vec<Uuid>, CentralError> {
        let query = sqlx::query_scalar(
            "SELECT id FROM tenants WHERE ledger_state = 'Dropped' AND dropped_at > now() - interval '30 days'",
        );
        bounded("read whose data was dropped lately", query.fetch_all(&self.pool)).await
    }

    /// The server has confirmed that the database is gone. Refused before [`Central::begin_drop`].
    pub async fn mark_dropped(&self, uuid: Uuid) -> Result<(), CentralError> {
        let doing = format!("note the drop of tenant {uuid}");
        let work = async {
            let mut transaction = self.pool.begin().await?;
            let held = release::lock(&mut transaction, uuid).await?;
            let state = held.as_ref().map(|held| held.state);
            if let Some(held) = held.filter(|held| held.state == LedgerState::Dropped) {
                let done = sqlx::query("UPDATE tenants SET dropped_at = now() WHERE id = $1 AND dropped_at IS NULL")
                    .bind(uuid)
                    .execute(&mut *transaction)
                    .await?;
                if done.rows_affected() == 1 {
                    release::note(&mut transaction, &held, "tenant.dropped").await?;
                }
                transaction.commit().await?;
            }
            Ok(state)
        };
        match bounded(&doing, work).await? {
            Some(LedgerState::Dropped) => Ok(()),
            state => Err(CentralError::Refused { doing, uuid, state }),
        }
    }
}

async fn close(
    connection: &mut PgConnection,
    held: &Held,
    drop_after: Timestamp,
    confirmed: bool,
) -> Result<Quarantine, sqlx::Error> {
    if held.server.is_none() {
        return release::forget(connection, held, false).await.map(|_: Release| Quarantine::Forgotten);
    }
    let (count, limit) = breaker(connection).await?;
    if count >= limit && !confirmed {
        return Ok(Quarantine::Blocked { count, limit });
    }
    release::log(connection, held, "Quarantined", false, confirmed).await?;
    super::hosts::keep_proved(connection, held.uuid).await?;
    sqlx::query(
        "UPDATE tenants SET ledger_state = 'Quarantined', object_uid = NULL, drop_after = $2::text::timestamptz
         WHERE id = $1",
    )
    .bind(held.uuid)
    .bind(drop_after.to_string())
    .execute(&mut *connection)
    .await?;
    release::note(connection, held, "tenant.quarantined").await?;
    Ok(Quarantine::Quarantined)
}

/// How many tenants were destroyed lately, and how many may be. The share is of the tenants there were before, or the
/// limit would sink while it is being used up.
async fn breaker(connection: &mut PgConnection) -> Result<(i64, i64), sqlx::Error> {
    let row = sqlx::query(
        "SELECT (SELECT count(*) FROM releases
                 WHERE outcome = 'Quarantined' AND released_at > clock_timestamp() - interval '10 minutes') AS gone,
                (SELECT count(*) FROM tenants WHERE object_uid IS NOT NULL) AS live",
    )
    .fetch_one(connection)
    .await?;
    let (gone, live): (i64, i64) = (row.try_get("gone")?, row.try_get("live")?);
    Ok((gone, BREAKER_FLOOR.max((gone + live) * BREAKER_PERCENT / 100)))
}

/// What an earlier call of the same object did, whose answer was lost.
async fn earlier(connection: &mut PgConnection, uuid: Uuid, object_uid: Uuid) -> Result<Quarantine, sqlx::Error> {
    let outcome =
        sqlx::query_scalar::<_, String>("SELECT outcome FROM releases WHERE object_uid = $1 AND tenant_id = $2")
            .bind(object_uid)
            .bind(uuid)
            .fetch_optional(connection)
            .await?;
    Ok(match outcome.as_deref() {
        Some("Quarantined") => Quarantine::Quarantined,
        Some("Forgotten") => Quarantine::Forgotten,
        _ => Quarantine::NotHolder,
    })
}
