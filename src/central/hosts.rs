//! The hosts of a tenant. A host belongs to one tenant of the fleet: the unique index on `domains.domain` decides.
//!
//! A row is a claim. The first to claim a host has the row, and the first to *prove* its ownership takes it, whoever had
//! only claimed it: else anybody could keep a customer's host from the customer by asking for it first. A host that was
//! proved stays with its tenant until the proof has been missing for a while, also when the Tenant is deleted and its data
//! is kept or in quarantine.

use std::collections::BTreeMap;

use jiff::SignedDuration;
use serde_json::json;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::{Central, CentralError, audit, bounded};

/// Host → is it the primary one. Ordered: two transactions that insert the same hosts in two orders would deadlock.
pub(super) type Hosts = BTreeMap<String, bool>;

/// What became of a proof.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// The host is the tenant's.
    Taken {
        /// Who had claimed it and not proved it, other than this tenant.
        from: Option<Uuid>,
    },
    /// The host is another tenant's, who proved it before.
    Held {
        /// Whose.
        by: Uuid,
    },
    /// No object holds the tenant any more: nothing was written.
    NotLive,
}

impl Central {
    /// Notes that the ownership of a host was proved for a tenant just now. The proof counts against everybody who has not
    /// proved it, and against kept data whose last proof is older than `grace` and that is not in quarantine.
    pub async fn prove_host(&self, uuid: Uuid, host: &str, grace: SignedDuration) -> Result<Proof, CentralError> {
        bounded(format!("note the proof of {host}"), self.prove(uuid, host, grace)).await
    }

    async fn prove(&self, uuid: Uuid, host: &str, grace: SignedDuration) -> Result<Proof, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        let tenant = sqlx::query("SELECT namespace, object_name FROM tenants WHERE id = $1 AND object_uid IS NOT NULL")
            .bind(uuid)
            .fetch_optional(&mut *transaction)
            .await?;
        let Some(tenant) = tenant else { return Ok(Proof::NotLive) };
        let before = sqlx::query("SELECT tenant_id, is_verified FROM domains WHERE domain = $1 FOR UPDATE")
            .bind(host)
            .fetch_optional(&mut *transaction)
            .await?;
        // Decided by one statement, so that of two at once exactly one wins whatever was read before.
        let taken = sqlx::query(
            "INSERT INTO domains (tenant_id, domain, is_verified, proved_at) VALUES ($1, $2, true, now())
             ON CONFLICT (domain) DO UPDATE
             SET tenant_id = EXCLUDED.tenant_id, is_verified = true, proved_at = now(), lost_since = NULL,
                 is_primary = domains.is_primary AND domains.tenant_id = EXCLUDED.tenant_id
             WHERE domains.tenant_id = EXCLUDED.tenant_id OR NOT domains.is_verified
                OR (domains.proved_at < now() - make_interval(secs => $3)
                    AND EXISTS (SELECT FROM tenants t WHERE t.id = domains.tenant_id
                                AND t.object_uid IS NULL AND t.ledger_state <> 'Quarantined'))",
        )
        .bind(uuid)
        .bind(host)
        .bind(grace.as_secs_f64())
        .execute(&mut *transaction)
        .await?;
        let holder = before.as_ref().map(|row| row.try_get::<Uuid, _>("tenant_id")).transpose()?;
        if taken.rows_affected() == 0 {
            let by = sqlx::query_scalar("SELECT tenant_id FROM domains WHERE domain = $1").bind(host);
            let by: Option<Uuid> = by.fetch_optional(&mut *transaction).await?;
            // Gone in between: it is tried again with the next look.
            return Ok(Proof::Held { by: by.or(holder).unwrap_or_default() });
        }
        let from = holder.filter(|holder| *holder != uuid);
        let was_verified = before.map(|row| row.try_get::<bool, _>("is_verified")).transpose()?.unwrap_or_default();
        if from.is_some() || !was_verified {
            let (namespace, name): (String, String) = (tenant.try_get("namespace")?, tenant.try_get("object_name")?);
            let changes = json!({ "host": host, "from": from });
            let entry = audit::of_tenant(uuid, "tenant.host_proved", &namespace, &name, changes);
            audit::write(&mut *transaction, &entry).await?;
        }
        transaction.commit().await?;
        Ok(Proof::Taken { from })
    }

    /// Notes that the proof of a tenant's host is missing. It stays verified until that has been so for `grace`. True: it
    /// was verified until now and something was written.
    pub async fn miss_host(&self, uuid: Uuid, host: &str, grace: SignedDuration) -> Result<bool, CentralError> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            let missed = sqlx::query(
                "WITH missed AS (
                     UPDATE domains SET lost_since = coalesce(lost_since, now()),
                            is_verified = coalesce(lost_since, now()) > now() - make_interval(secs => $3)
                     WHERE tenant_id = $1 AND domain = $2 AND is_verified
                       AND (lost_since IS NULL OR lost_since <= now() - make_interval(secs => $3))
                     RETURNING tenant_id, is_verified)
                 SELECT is_verified, namespace, object_name FROM missed JOIN tenants ON id = tenant_id",
            )
            .bind(uuid)
            .bind(host)
            .bind(grace.as_secs_f64())
            .fetch_optional(&mut *transaction)
            .await?;
            let Some(missed) = missed else { return Ok(false) };
            let (namespace, name): (String, String) = (missed.try_get("namespace")?, missed.try_get("object_name")?);
            let action =
                if missed.try_get("is_verified")? { "tenant.host_proof_missing" } else { "tenant.host_unproved" };
            let entry = audit::of_tenant(uuid, action, &namespace, &name, json!({ "host": host }));
            audit::write(&mut *transaction, &entry).await?;
            transaction.commit().await?;
            Ok(true)
        };
        bounded(format!("note the missing proof of {host}"), work).await
    }

    /// Gives up a host that the tenant's object does not name.
    pub async fn drop_host(&self, uuid: Uuid, host: &str) -> Result<(), CentralError> {
        let query = sqlx::query("DELETE FROM domains WHERE tenant_id = $1 AND domain = $2").bind(uuid).bind(host);
        let work = async { query.execute(&self.pool).await.map(drop) };
        bounded(format!("give up {host}"), work).await
    }
}

/// Makes the tenant's claims what the object says. A host that stays keeps its proof; one that another tenant has is left
/// alone: whoever proves it gets it.
pub(super) async fn write(
    connection: &mut PgConnection,
    tenant: Uuid,
    known_before: bool,
    hosts: &Hosts,
) -> Result<(), sqlx::Error> {
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
    Ok(())
}

/// The Tenant goes and its data stays: only what was proved stays reserved with it.
pub(super) async fn keep_proved(connection: &mut PgConnection, tenant: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM domains WHERE tenant_id = $1 AND NOT is_verified")
        .bind(tenant)
        .execute(connection)
        .await?;
    Ok(())
}

/// The data goes, and its hosts are free.
pub(super) async fn free(connection: &mut PgConnection, tenant: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM domains WHERE tenant_id = $1").bind(tenant).execute(connection).await?;
    Ok(())
}
