//! Proving that a backup is whole, and that it restores.

use std::time::{Duration, Instant};

use anyhow::Context;
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::bucket::Bucket;
use super::keys::{self, BackupId, Part};
use super::manifest::Manifest;
use super::pour::{self, Pour};
use super::programs::Programs;
use super::server::{self, Login, Server};
use super::shelf::Shelf;
use crate::desired::sql::Batch;
use crate::desired::{scram, scratch};

/// Scratch databases of this age were left by something that was killed.
const LEFT_BEHIND: i64 = 24 * 3600;
/// Nobody is in a scratch database for a moment, after it was made and before it is compared: no longer than this.
const BETWEEN_STEPS: i64 = 300;

/// The manifest of one backup of `tenant`: of the newest, or of `id`.
///
/// # Errors
/// There is none, or it is not sound.
pub async fn find(bucket: &Bucket, tenant: Uuid, id: Option<BackupId>) -> anyhow::Result<(BackupId, Manifest)> {
    let Some(id) = id else {
        let shelf = Shelf::read(bucket, tenant).await?;
        let newest = shelf.newest(Timestamp::now()).map(|(id, manifest)| (id, manifest.clone()));
        return newest.with_context(|| format!("tenant {tenant} has no backup in bucket {}", bucket.name()));
    };
    let key = keys::key(tenant, id, Part::Manifest);
    let found = bucket.get(&key).await?;
    let manifest = Manifest::decode(&found, tenant, id).with_context(|| format!("reading the manifest {key}"))?;
    Ok((id, manifest))
}

/// Reads a dump to its end and compares it with its manifest.
///
/// # Errors
/// A byte is another one than was written.
pub async fn checksum(bucket: &Bucket, tenant: Uuid, id: BackupId, manifest: &Manifest) -> anyhow::Result<()> {
    let key = keys::key(tenant, id, Part::Dump);
    let found = bucket.read(&key, &mut tokio::io::sink()).await?;
    pour::same_bytes(&key, &found, manifest)
}

/// Where backups are restored to see whether they restore.
pub struct Drill {
    /// The server.
    pub server: Server,
    /// A role that may make databases and roles.
    pub provisioner: Login,
    /// `pg_restore`.
    pub programs: Programs,
    /// Ends it, with nothing left behind.
    pub stop: CancellationToken,
}

/// A backup that restores.
#[derive(Clone, Copy, Debug)]
pub struct Rehearsed {
    /// Its name.
    pub id: BackupId,
    /// How long the restore took.
    pub took: Duration,
}

impl Drill {
    /// Restores one backup of `tenant`, without `id` the newest, as [`Self::restore`].
    ///
    /// # Errors
    /// There is none, or it does not restore to what was there.
    pub async fn rehearse(&self, bucket: &Bucket, tenant: Uuid, id: Option<BackupId>) -> anyhow::Result<Rehearsed> {
        let (id, manifest) = find(bucket, tenant, id).await?;
        let took = self.restore(bucket, tenant, id, &manifest).await?;
        tracing::info!(%tenant, backup = %id, milliseconds = took.as_millis(), "restored for a trial, with every row");
        Ok(Rehearsed { id, took })
    }

    /// Restores a backup into a scratch database, compares the rows of every table, and drops it; says how long the restore
    /// took.
    ///
    /// # Errors
    /// It does not restore, or not to what was there.
    pub async fn restore(
        &self,
        bucket: &Bucket,
        tenant: Uuid,
        id: BackupId,
        manifest: &Manifest,
    ) -> anyhow::Result<Duration> {
        let mut provisioner = self.server.connect(&self.provisioner, "postgres").await?;
        self.server.identify(&mut provisioner).await?;
        let now = Timestamp::now().as_second();
        self.sweep(&mut provisioner, tenant, now).await?;
        let name = scratch::name(now, &scratch::id(tenant, Uuid::new_v4()));
        let owner = Login { username: name.clone(), password: scram::password(rand::random()) };
        let restored = async {
            let verifier = scram::verifier(&owner.password);
            run(&mut provisioner, &scratch::create(&name, &verifier, &self.provisioner.username)).await?;
            let began = Instant::now();
            let filled = async {
                // It is the database's owner, and nothing else.
                let (programs, server) = (&self.programs, &self.server);
                let pour = Pour { bucket, programs, server, login: &owner, role: None };
                pour.fill(tenant, id, manifest).await?;
                let took = began.elapsed();
                self.compare(manifest, &owner).await?;
                Ok(took)
            };
            // Not around what makes the database: PostgreSQL would go on making it, and nobody would remove it.
            tokio::select! {
                filled = filled => filled,
                () = self.stop.cancelled() => Err(anyhow::anyhow!("it was stopped")),
            }
        };
        let restored: anyhow::Result<Duration> = restored.await;
        // The connection may be what failed.
        let removed = async {
            let mut provisioner = self.server.connect(&self.provisioner, "postgres").await?;
            self.remove(&mut provisioner, &name).await
        };
        let removed = removed.await;
        let took = restored.with_context(|| format!("restoring backup {id} of tenant {tenant} for a trial"))?;
        removed?;
        Ok(took)
    }

    async fn compare(&self, manifest: &Manifest, owner: &Login) -> anyhow::Result<()> {
        let mut connection = self.server.connect(owner, &owner.username).await?;
        let found = server::rows(&mut connection).await?;
        connection.close().await.context("leaving the scratch database")?;
        pour::same_rows(&manifest.rows, &found)
    }

    /// Removes what was left behind: of this tenant what nobody is in, of any what is old.
    async fn sweep(&self, provisioner: &mut PgConnection, tenant: Uuid, now: i64) -> anyhow::Result<()> {
        let names: Vec<(String, bool)> = sqlx::query_as(
            "SELECT name, EXISTS (SELECT FROM pg_stat_activity WHERE datname = name)
               FROM (SELECT datname::text FROM pg_database UNION SELECT rolname::text FROM pg_roles) AS names (name)",
        )
        .fetch_all(&mut *provisioner)
        .await
        .context("looking for scratch databases that were left")?;
        let is_left = |name: &str, is_used: bool| {
            let age = scratch::made(name).map(|made| now - made);
            let own = !is_used && scratch::is_of(name, tenant);
            age.is_some_and(|age| age > LEFT_BEHIND || own && age > BETWEEN_STEPS)
        };
        for (name, _) in names.iter().filter(|(name, is_used)| is_left(name, *is_used)) {
            self.remove(provisioner, name).await?;
        }
        Ok(())
    }

    async fn remove(&self, provisioner: &mut PgConnection, name: &str) -> anyhow::Result<()> {
        let (database, role): (bool, bool) = sqlx::query_as(
            "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1), EXISTS (SELECT FROM pg_roles WHERE rolname = $1)",
        )
        .bind(name)
        .fetch_one(&mut *provisioner)
        .await
        .with_context(|| format!("looking for the scratch database {name}"))?;
        run(provisioner, &scratch::remove(name, database, role)).await
    }
}

async fn run(connection: &mut PgConnection, batches: &[Batch]) -> anyhow::Result<()> {
    for batch in batches {
        let done = sqlx::raw_sql(AssertSqlSafe(batch.text())).execute(&mut *connection).await;
        done.with_context(|| format!("running: {}", batch.summary()))?;
    }
    Ok(())
}
