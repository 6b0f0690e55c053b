//! Databases whose place a restored one has taken: kept for a while, then dropped.

use jiff::Timestamp;
use serde_json::json;
use sqlx::Row;
use uuid::Uuid;

use super::audit::{self, AuditEntry};
use super::{Central, CentralError, bounded};

/// A database that was replaced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replaced {
    /// uid of the TenantRestore.
    pub restore: Uuid,
    /// The tenant whose it was.
    pub tenant: Uuid,
    /// The DatabaseServer.
    pub server: String,
    /// Its name there.
    pub database: String,
    /// Its schema.
    pub schema: String,
    /// When it may be dropped.
    pub drop_after: Timestamp,
}

impl Central {
    /// Lists a database that was replaced; one that is listed stays as it is, also when it was given a later time meanwhile.
    pub async fn note_replaced(&self, replaced: &Replaced) -> Result<(), CentralError> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            let written = sqlx::query(
                "INSERT INTO replaced_databases (restore_uid, tenant_id, server, database_name, schema_version, drop_after)
                 VALUES ($1, $2, $3, $4, $5, $6::text::timestamptz) ON CONFLICT DO NOTHING",
            )
            .bind(replaced.restore)
            .bind(replaced.tenant)
            .bind(&replaced.server)
            .bind(&replaced.database)
            .bind(&replaced.schema)
            .bind(replaced.drop_after.to_string())
            .execute(&mut *transaction)
            .await?;
            if written.rows_affected() == 1 {
                let changes = json!({ "replaced": replaced.database, "dropAfter": replaced.drop_after.to_string() });
                audit::write(&mut *transaction, &entry(replaced.tenant, replaced.restore, "tenant.restored", changes))
                    .await?;
            }
            transaction.commit().await
        };
        bounded(format!("list the database that a restore of tenant {} replaced", replaced.tenant), work).await
    }

    /// Replaced databases on a server whose time has passed and that are not known to be gone.
    pub async fn due_replaced(&self, server: &str) -> Result<Vec<(Uuid, Uuid)>, CentralError> {
        let work = async {
            let rows = sqlx::query(
                "SELECT restore_uid, tenant_id FROM replaced_databases
                  WHERE server = $1 AND dropped_at IS NULL AND drop_after <= now() ORDER BY drop_after",
            )
            .bind(server)
            .fetch_all(&self.pool)
            .await?;
            rows.iter().map(|row| Ok((row.try_get("restore_uid")?, row.try_get("tenant_id")?))).collect()
        };
        bounded("read which replaced databases are due", work).await
    }

    /// The server has confirmed that a replaced database is gone.
    pub async fn mark_replaced_dropped(&self, restore: Uuid) -> Result<(), CentralError> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            let tenant: Option<Uuid> = sqlx::query_scalar(
                "UPDATE replaced_databases SET dropped_at = now() WHERE restore_uid = $1 AND dropped_at IS NULL
                 RETURNING tenant_id",
            )
            .bind(restore)
            .fetch_optional(&mut *transaction)
            .await?;
            if let Some(tenant) = tenant {
                let dropped = entry(tenant, restore, "tenant.replaced_database_dropped", json!({}));
                audit::write(&mut *transaction, &dropped).await?;
            }
            transaction.commit().await
        };
        bounded(format!("note the drop of what restore {restore} replaced"), work).await
    }
}

fn entry(tenant: Uuid, restore: Uuid, action: &str, changes: serde_json::Value) -> AuditEntry {
    AuditEntry {
        tenant: Some(tenant),
        action: action.to_owned(),
        resource_type: Some("TenantRestore".to_owned()),
        resource_id: Some(restore.to_string()),
        changes: Some(changes),
        ..AuditEntry::default()
    }
}
