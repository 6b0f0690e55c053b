//! A Tenant goes and its data stays.

use serde_json::json;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::holder::ledger_state;
use super::model::LedgerState;
use super::{Central, CentralError, audit, bounded};

/// What the operator saw of a tenant's database when it released the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DatabaseFact {
    /// It is on its server.
    Present,
    /// The server was read, and it is not there.
    Absent,
    /// The server could not be read.
    Unknown,
}

/// What became of a released row. In every case the finalizer may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// The data is kept, and its slug with it.
    Kept,
    /// There never was a database; the row is gone and its slug free.
    Forgotten,
    /// The object does not hold the tenant (any more). Nothing was written.
    NotHolder,
}

/// Why a row is given up.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Give {
    Released,
    Superseded,
}

/// A locked row.
pub(super) struct Held {
    pub uuid: Uuid,
    pub namespace: String,
    pub name: String,
    pub object_uid: Option<Uuid>,
    pub state: LedgerState,
    pub server: Option<String>,
}

impl Central {
    /// The object lets go of its tenant. A Provisioned row becomes Retained, and so does a Registered one that was
    /// placed, unless its server was read and has no such database: an answer may have been lost after the database
    /// was made. A row that never had a database is deleted. The hosts are free in either case.
    pub async fn release(&self, uuid: Uuid, object_uid: Uuid, database: DatabaseFact) -> Result<Release, CentralError> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            let held = lock(&mut transaction, uuid).await?;
            let Some(held) = held.filter(|held| held.object_uid == Some(object_uid)) else {
                return earlier(&mut transaction, uuid, object_uid).await;
            };
            let release = give_up(&mut transaction, &held, database, Give::Released).await?;
            transaction.commit().await?;
            Ok(release)
        };
        bounded(format!("release tenant {uuid}"), work).await
    }

    /// Whether this object let go of its tenant earlier, so that nothing is left to be done for it.
    pub async fn is_released(&self, object_uid: Uuid) -> Result<bool, CentralError> {
        let query = sqlx::query_scalar("SELECT EXISTS (SELECT FROM releases WHERE object_uid = $1)").bind(object_uid);
        bounded(format!("ask whether object {object_uid} was released"), query.fetch_one(&self.pool)).await
    }
}

/// The row, locked until the transaction ends.
pub(super) async fn lock(connection: &mut PgConnection, uuid: Uuid) -> Result<Option<Held>, sqlx::Error> {
    let row = sqlx::query(
        "SELECT namespace, object_name, object_uid, ledger_state, server FROM tenants WHERE id = $1 FOR UPDATE",
    )
    .bind(uuid)
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else {
        return Ok(None);
    };
    Ok(Some(Held {
        uuid,
        namespace: row.try_get("namespace")?,
        name: row.try_get("object_name")?,
        object_uid: row.try_get("object_uid")?,
        state: ledger_state(&row)?,
        server: row.try_get("server")?,
    }))
}

pub(super) async fn give_up(
    connection: &mut PgConnection,
    held: &Held,
    database: DatabaseFact,
    give: Give,
) -> Result<Release, sqlx::Error> {
    let superseded = give == Give::Superseded;
    let nothing_made = held.server.is_none() || database == DatabaseFact::Absent;
    if held.state == LedgerState::Registered && nothing_made {
        return forget(connection, held, superseded).await;
    }
    log(connection, held, "Retained", superseded, false).await?;
    super::hosts::keep_proved(connection, held.uuid).await?;
    sqlx::query("UPDATE tenants SET ledger_state = 'Retained', object_uid = NULL WHERE id = $1")
        .bind(held.uuid)
        .execute(&mut *connection)
        .await?;
    note(connection, held, if superseded { "tenant.superseded" } else { "tenant.retained" }).await?;
    Ok(Release::Kept)
}

/// Deletes a row that never had a database.
pub(super) async fn forget(
    connection: &mut PgConnection,
    held: &Held,
    superseded: bool,
) -> Result<Release, sqlx::Error> {
    log(connection, held, "Forgotten", superseded, false).await?;
    note(connection, held, "tenant.forgotten").await?;
    sqlx::query("DELETE FROM tenants WHERE id = $1").bind(held.uuid).execute(connection).await?;
    Ok(Release::Forgotten)
}

/// Remembers that the object is gone for good.
pub(super) async fn log(
    connection: &mut PgConnection,
    held: &Held,
    outcome: &str,
    superseded: bool,
    confirmed: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO releases (object_uid, tenant_id, tenant_slug, outcome, superseded, confirmed)
         SELECT object_uid, id, slug, $2, $3, $4 FROM tenants WHERE id = $1",
    )
    .bind(held.uuid)
    .bind(outcome)
    .bind(superseded)
    .bind(confirmed)
    .execute(connection)
    .await
    .map(drop)
}

pub(super) async fn note(connection: &mut PgConnection, held: &Held, action: &str) -> Result<(), sqlx::Error> {
    let changes = json!({ "ledgerState": held.state.as_str(), "objectUid": held.object_uid, "server": held.server });
    audit::write(connection, &audit::of_tenant(held.uuid, action, &held.namespace, &held.name, changes)).await
}

/// What an earlier call of the same object did, whose answer was lost.
async fn earlier(connection: &mut PgConnection, uuid: Uuid, object_uid: Uuid) -> Result<Release, sqlx::Error> {
    let outcome =
        sqlx::query_scalar::<_, String>("SELECT outcome FROM releases WHERE object_uid = $1 AND tenant_id = $2")
            .bind(object_uid)
            .bind(uuid)
            .fetch_optional(connection)
            .await?;
    Ok(match outcome.as_deref() {
        Some("Retained") => Release::Kept,
        Some("Forgotten") => Release::Forgotten,
        _ => Release::NotHolder,
    })
}
