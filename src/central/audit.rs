//! `audit_logs`: who did what to whom. The database chains the entries by itself, see `chain` and `0004_portal.sql`.

use std::net::IpAddr;

use serde_json::Value;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::{Central, CentralError, bounded};

/// The actor of what the operator does.
pub(super) const OPERATOR: &str = "operator";

/// One entry. Leave secrets out of `changes`.
#[derive(Clone, Debug, Default)]
pub struct AuditEntry {
    /// The tenant; its slug is copied, so that the entry says something after the tenant is gone.
    pub tenant: Option<Uuid>,
    /// The administrator who did it.
    pub admin_id: Option<i32>,
    /// `operator`, or the administrator's e-mail address; `portal` for what it does by itself, `visitor` for who is not known.
    /// Empty means `operator`.
    pub actor: String,
    /// As `tenant.suspended`.
    pub action: String,
    /// As `Tenant`.
    pub resource_type: Option<String>,
    /// `namespace/name`, or a row's id.
    pub resource_id: Option<String>,
    /// Before and after.
    pub changes: Option<Value>,
    /// Where the request came from.
    pub ip_address: Option<IpAddr>,
    /// What it was made with.
    pub user_agent: Option<String>,
    /// The same in the Event about it.
    pub correlation_id: Option<Uuid>,
}

impl Central {
    /// Writes one entry.
    pub async fn audit(&self, entry: &AuditEntry) -> Result<(), CentralError> {
        let doing = format!("write the audit entry {}", entry.action);
        bounded(doing, write(&self.pool, entry)).await
    }
}

pub(super) async fn write(executor: impl PgExecutor<'_>, entry: &AuditEntry) -> Result<(), sqlx::Error> {
    let actor = if entry.actor.is_empty() { OPERATOR } else { &entry.actor };
    // The tenant is looked up, not only its slug: it may have been deleted meanwhile, and that must not lose the entry.
    sqlx::query(
        "INSERT INTO audit_logs (tenant_id, tenant_uuid, tenant_slug, admin_id, actor, action, resource_type, resource_id, changes,
                                 ip_address, user_agent, correlation_id)
         VALUES ((SELECT id FROM tenants WHERE id = $1), $1, (SELECT slug FROM tenants WHERE id = $1),
                 $2, $3, $4, $5, $6, $7, $8::text::inet, $9, $10)",
    )
    .bind(entry.tenant)
    .bind(entry.admin_id)
    .bind(actor)
    .bind(&entry.action)
    .bind(&entry.resource_type)
    .bind(&entry.resource_id)
    .bind(&entry.changes)
    .bind(entry.ip_address.map(|address| address.to_string()))
    .bind(&entry.user_agent)
    .bind(entry.correlation_id)
    .execute(executor)
    .await
    .map(drop)
}

/// An entry about a Tenant object, by the operator.
pub(super) fn of_tenant(uuid: Uuid, action: &str, namespace: &str, name: &str, changes: Value) -> AuditEntry {
    AuditEntry {
        tenant: Some(uuid),
        action: action.to_owned(),
        resource_type: Some("Tenant".to_owned()),
        resource_id: Some(format!("{namespace}/{name}")),
        changes: Some(changes),
        ..AuditEntry::default()
    }
}
