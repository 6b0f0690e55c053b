//! The hosts of a tenant. A host belongs to one tenant of the fleet: the unique index on `domains.domain` decides.

use std::collections::BTreeMap;

use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::register::Failure;
use super::{Central, CentralError, RegisterError, bounded};

/// Host → is it the primary one. Ordered: two transactions that insert the same hosts in two orders would deadlock.
pub(super) type Hosts = BTreeMap<String, bool>;

impl Central {
    /// Notes whether the ownership of a host is proved. Says false when the tenant does not have the host.
    pub async fn verify_host(&self, uuid: Uuid, host: &str, verified: bool) -> Result<bool, CentralError> {
        let work = async {
            sqlx::query(
                "UPDATE domains SET is_verified = $3 WHERE tenant_id = $1 AND domain = $2 AND is_verified <> $3",
            )
            .bind(uuid)
            .bind(host)
            .bind(verified)
            .execute(&self.pool)
            .await?;
            sqlx::query_scalar("SELECT EXISTS (SELECT FROM domains WHERE tenant_id = $1 AND domain = $2)")
                .bind(uuid)
                .bind(host)
                .fetch_one(&self.pool)
                .await
        };
        bounded(format!("note the verification of {host}"), work).await
    }
}

/// Makes the tenant's hosts what the object says. A host that stays keeps its verification.
pub(super) async fn write(
    connection: &mut PgConnection,
    tenant: Uuid,
    known_before: bool,
    hosts: &Hosts,
) -> Result<(), Failure> {
    if hosts.is_empty() && !known_before {
        return Ok(());
    }
    let names: Vec<&str> = hosts.keys().map(String::as_str).collect();
    let primary: Vec<bool> = hosts.values().copied().collect();
    if known_before {
        sqlx::query("DELETE FROM domains WHERE tenant_id = $1 AND domain <> ALL ($2)")
            .bind(tenant)
            .bind(&names)
            .execute(&mut *connection)
            .await?;
        // Before another becomes primary: the unique index is checked row by row.
        sqlx::query(
            "UPDATE domains SET is_primary = false FROM unnest($2::text[], $3::bool[]) AS wanted (host, is_primary)
             WHERE tenant_id = $1 AND domain = host AND domains.is_primary AND NOT wanted.is_primary",
        )
        .bind(tenant)
        .bind(&names)
        .bind(&primary)
        .execute(&mut *connection)
        .await?;
    }
    sqlx::query(
        "INSERT INTO domains (tenant_id, domain)
         SELECT $1, host FROM unnest($2::text[]) AS wanted (host)
         WHERE NOT EXISTS (SELECT FROM domains WHERE domain = host) ORDER BY host COLLATE \"C\"
         ON CONFLICT (domain) DO NOTHING",
    )
    .bind(tenant)
    .bind(&names)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "UPDATE domains SET is_primary = true FROM unnest($2::text[], $3::bool[]) AS wanted (host, is_primary)
         WHERE tenant_id = $1 AND domain = host AND wanted.is_primary AND NOT domains.is_primary",
    )
    .bind(tenant)
    .bind(&names)
    .bind(&primary)
    .execute(&mut *connection)
    .await?;
    refuse_taken(connection, tenant, known_before, &names).await
}

async fn refuse_taken(
    connection: &mut PgConnection,
    tenant: Uuid,
    known_before: bool,
    names: &[&str],
) -> Result<(), Failure> {
    let taken = sqlx::query(
        "SELECT d.domain, t.id, t.namespace, t.object_name, t.ledger_state
         FROM unnest($2::text[]) AS wanted (host)
         LEFT JOIN domains d ON d.domain = host LEFT JOIN tenants t ON t.id = d.tenant_id
         WHERE d.tenant_id IS DISTINCT FROM $1 ORDER BY host LIMIT 1",
    )
    .bind(tenant)
    .bind(names)
    .fetch_optional(connection)
    .await?;
    let Some(row) = taken else {
        return Ok(());
    };
    // Nobody has it, although it could not be inserted: its holder gave it up in between.
    let Some(host) = row.try_get::<Option<String>, _>("domain")? else {
        return Err(Failure::Race);
    };
    let holder = super::holder::holder_of(&row)?;
    let uuid = known_before.then_some(tenant);
    Err(Failure::Answer(RegisterError::DomainConflict { host, holder, uuid }))
}
