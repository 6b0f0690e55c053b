//! Which objects a tenant has in storage and what they take, counted in the tenant's own database.
//!
//! The order makes it true at every moment: first a row that reserves the bytes, then the object, then the row becomes
//! `stored` in the same transaction as whatever refers to it. On the way out the row becomes `deleting`, then the object
//! goes, then the row. Whatever dies in between is found by [`sweep`].

use futures::StreamExt;
use sqlx::postgres::PgConnection;
use tracing::Instrument;

use crate::app::problem::Problem;
use crate::tenancy::TenantContext;
use crate::tenancy::storage::{ObjectPath, Stored};

/// Objects that one sweep removes at most.
const AT_A_TIME: i64 = 200;
/// Removals at the same time.
const SIDE_BY_SIDE: usize = 4;

/// Reserves room for an upload of at most `bytes`.
///
/// # Errors
/// The plan has no room for it, or the database is away.
pub async fn reserve(tenant: &TenantContext, path: &ObjectPath, bytes: u64) -> Result<(), Problem> {
    let plan = &tenant.entry().plan;
    let max = plan.limits.storage_gib.map(|gib| i64::from(gib) << 30);
    let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
    let path = path.to_string();
    let reserved = tenant
        .database()
        .transaction(async |db: &mut PgConnection| {
            if let Some(max) = max {
                // The row's lock: of two uploads at the same time the second one counts after the first one's commit.
                let used =
                    sqlx::query_scalar!("SELECT bytes FROM storage_usage FOR UPDATE").fetch_one(&mut *db).await?;
                if used.saturating_add(bytes) > max {
                    return Ok(false);
                }
            }
            sqlx::query!("INSERT INTO stored_files (path, bytes) VALUES ($1, $2)", path, bytes).execute(db).await?;
            Ok::<_, Problem>(true)
        })
        .await?;
    if reserved {
        return Ok(());
    }
    let max = plan.limits.storage_gib.unwrap_or_default();
    Err(Problem::LimitReached { limit: "storageGiB", max, plan: plan.name.clone() })
}

/// Inside the caller's transaction: the object is stored, and takes what it takes.
pub async fn settle(db: &mut PgConnection, path: &ObjectPath, stored: &Stored) -> Result<(), sqlx::Error> {
    let bytes = i64::try_from(stored.bytes).unwrap_or(i64::MAX);
    let settled = sqlx::query!(
        "UPDATE stored_files SET state = 'stored', bytes = $2, sha256 = $3 WHERE path = $1 AND state = 'uploading'",
        path.to_string(),
        bytes,
        &stored.sha256[..]
    );
    // A sweep took it for dead, and its object is gone or going.
    if settled.execute(db).await?.rows_affected() == 1 { Ok(()) } else { Err(sqlx::Error::RowNotFound) }
}

/// Cleans up after an upload that failed with `problem`. Where storage is away, the visitor is not kept waiting for it a
/// second time.
pub async fn give_up(tenant: &TenantContext, path: &ObjectPath, problem: &Problem) {
    if !matches!(problem, Problem::Files(error) if error.is_away()) {
        return give_back(tenant, path).await;
    }
    let (tenant, path, span) = (tenant.clone(), path.clone(), tenant.span().clone());
    tokio::spawn(async move { give_back(&tenant, &path).await }.instrument(span));
}

/// Removes an object and gives its bytes back. What does not work now is done by a later sweep.
async fn give_back(tenant: &TenantContext, path: &ObjectPath) {
    if let Err(error) = remove(tenant, path).await {
        tracing::warn!(target: "tenant", %error, %path, "an object is left for the next sweep");
    }
}

/// What all files take, in bytes.
pub async fn used(tenant: &TenantContext) -> Result<i64, Problem> {
    let used = async |db: &mut PgConnection| {
        Ok::<_, Problem>(sqlx::query_scalar!("SELECT bytes FROM storage_usage").fetch_one(db).await?)
    };
    tenant.database().run(used).await
}

/// Removes what nothing refers to any more, uploads that died half way, and imports that are over.
///
/// An hour is longer than any upload may take, see `FileSettings::upload`.
pub async fn sweep(tenant: &TenantContext) {
    let found = tenant
        .database()
        .transaction(async |db: &mut PgConnection| {
            sqlx::query!("DELETE FROM imports WHERE created_at < now() - interval '30 days'").execute(&mut *db).await?;
            let paths = sqlx::query_scalar!(
                "SELECT path FROM stored_files \
                 WHERE state = 'deleting' OR state = 'uploading' AND updated_at < now() - interval '1 hour' \
                 ORDER BY updated_at LIMIT $1",
                AT_A_TIME
            );
            Ok::<_, Problem>(paths.fetch_all(db).await?)
        })
        .await;
    let paths = match found {
        Ok(paths) => paths,
        Err(error) => {
            tracing::warn!(target: "tenant", %error, "storage could not be swept");
            return;
        }
    };
    // The table's CHECK and this type accept the same texts, so that nothing is left out here.
    let paths = paths.into_iter().filter_map(|path| path.parse::<ObjectPath>().ok());
    futures::stream::iter(paths).for_each_concurrent(SIDE_BY_SIDE, async |path| give_back(tenant, &path).await).await;
}

/// First the row says that the object goes, and only where it does is anything removed: a commit whose answer was lost may
/// have stored it after all.
async fn remove(tenant: &TenantContext, path: &ObjectPath) -> Result<(), Problem> {
    let name = path.to_string();
    let goes = async |db: &mut PgConnection| {
        let query =
            sqlx::query!("UPDATE stored_files SET state = 'deleting' WHERE path = $1 AND state <> 'stored'", name);
        Ok::<_, Problem>(query.execute(db).await?.rows_affected() == 1)
    };
    if !tenant.database().run(goes).await? {
        return Ok(());
    }
    tenant.storage().discard(path).await?;
    let path = path.to_string();
    tenant
        .database()
        .run(async |db: &mut PgConnection| {
            sqlx::query!("DELETE FROM stored_files WHERE path = $1 AND state = 'deleting'", path).execute(db).await?;
            Ok(())
        })
        .await
}
