//! Taking one backup.
//!
//! ```text
//! snapshot ──▶ pg_dump ──▶ hashed ──▶ parts in the bucket ──▶ completed when pg_dump ended well ──▶ read back ──▶ manifest
//!        └──▶ rows of every table                                                                            read back
//! ```
//!
//! Before the manifest is there nothing is a backup; whatever fails until then leaves those that were there as they were.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::bucket::{Bucket, Hashed, Upload};
use super::keys::{self, BackupId, Part};
use super::manifest::{DumpFacts, Manifest, SCHEMA, ServerFacts, TenantFacts, Tools};
use super::programs::{self, Programs};
use super::server::{Login, Server, Snapshot};

/// Everything that a backup is taken with.
#[derive(Clone)]
pub struct Taker {
    /// The server that is read.
    pub server: Server,
    /// As whom.
    pub login: Login,
    /// Name of the central database, where that is what is read.
    pub central: Option<String>,
    /// They are the last ones before a delete.
    pub last: bool,
    /// Where it is written.
    pub bucket: Bucket,
    /// `pg_dump`.
    pub programs: Programs,
    /// Ends it, with nothing half kept.
    pub stop: CancellationToken,
}

impl Taker {
    /// Takes a backup of `tenant`.
    ///
    /// # Errors
    /// Nothing that counts as a backup was written.
    pub async fn take(&self, tenant: &TenantFacts) -> anyhow::Result<Manifest> {
        let id = BackupId::new(Timestamp::now(), Uuid::new_v4());
        let taken = self.dump(tenant, id).await;
        if taken.is_err() {
            // What was completed and turned out to be wrong would lie there for nothing; also a manifest whose answer was
            // lost, which goes first.
            let discarded = self.bucket.remove(tenant.uuid, &[id].into()).await;
            if let Err(error) = discarded {
                tracing::warn!(tenant = %tenant.uuid, error = format!("{error:#}"), "what was written of a backup that failed may remain");
            }
        }
        taken.with_context(|| format!("backing up tenant {} ({})", tenant.uuid, tenant.name))
    }

    async fn dump(&self, tenant: &TenantFacts, id: BackupId) -> anyhow::Result<Manifest> {
        let started_at = Timestamp::now();
        let database = self.database(tenant.uuid)?;
        let mut snapshot = Snapshot::open(&self.server, &self.login, &database, tenant.uuid).await?;
        let key = keys::key(tenant.uuid, id, Part::Dump);
        let mut upload = self.bucket.begin(&key).await?;
        let dumped = tokio::select! {
            dumped = self.stream(&database, &mut snapshot, &mut upload) => dumped,
            () = self.stop.cancelled() => Err(anyhow::anyhow!("it was stopped")),
        };
        let rows = match dumped {
            Ok(rows) => rows,
            Err(error) => {
                upload.abort().await;
                return Err(error);
            }
        };
        let written = upload.finish().await?;
        self.read_back(&key, &written).await?;
        let manifest = Manifest {
            schema: SCHEMA,
            id: id.to_string(),
            tenant: tenant.clone(),
            server: ServerFacts {
                name: self.server.name.clone(),
                system_identifier: snapshot.system_identifier,
                version: snapshot.version,
                database,
                schema_version: snapshot.schema,
            },
            dump: DumpFacts { key, format: "custom".into(), size: written.size, sha256: written.sha256 },
            rows,
            started_at,
            ended_at: Timestamp::now(),
            tools: Tools {
                maintenance_os: env!("CARGO_PKG_VERSION").into(),
                pg_dump: self.programs.version("pg_dump").await?,
            },
            kept: self.last,
            checksum: String::new(),
        };
        self.seal(tenant.uuid, id, &manifest).await
    }

    fn database(&self, tenant: Uuid) -> anyhow::Result<String> {
        if tenant == keys::CENTRAL {
            self.central.clone().context("the central database was not named")
        } else {
            Ok(crate::desired::names::database(tenant))
        }
    }

    /// Runs `pg_dump` to its end into `upload`, and counts the rows of the same moment meanwhile.
    async fn stream(
        &self,
        database: &str,
        snapshot: &mut Snapshot,
        upload: &mut Upload,
    ) -> anyhow::Result<BTreeMap<String, i64>> {
        let arguments = [
            "--format=custom".to_owned(),
            format!("--snapshot={}", snapshot.id),
            "--lock-wait-timeout=60s".to_owned(),
            "--no-password".to_owned(),
        ];
        let environment = self.server.environment(&self.login, database);
        let mut child = self.programs.start("pg_dump", &arguments, environment, Stdio::null())?;
        let mut output = child.stdout.take().context("pg_dump has no output")?;
        let errors = child.stderr.take();
        // Where the bucket fails, pg_dump is ended at once. Else it would wait for a reader, and its locks and the snapshot
        // with it, for as long as the Job may run.
        let copy = async {
            let copied = upload.copy(&mut output).await;
            if copied.is_err() {
                let _ = child.start_kill();
            }
            copied
        };
        let (copied, complaint, rows) = tokio::join!(copy, programs::complaint(errors), snapshot.rows());
        copied?;
        // Where they cannot be counted the snapshot is over, and what pg_dump complains of follows from that.
        let rows = rows?;
        programs::ended("pg_dump", &mut child, &complaint).await?;
        Ok(rows)
    }

    async fn read_back(&self, key: &str, written: &Hashed) -> anyhow::Result<()> {
        let found = self.bucket.read(key, &mut tokio::io::sink()).await?;
        ensure!(
            found == *written,
            "the bucket {} gives back something else than was written to {key}: {} bytes instead of {}",
            self.bucket.name(),
            found.size,
            written.size
        );
        Ok(())
    }

    /// Writes the manifest and reads it back.
    async fn seal(&self, tenant: Uuid, id: BackupId, manifest: &Manifest) -> anyhow::Result<Manifest> {
        let key = keys::key(tenant, id, Part::Manifest);
        self.bucket.put(&key, manifest.encode()).await?;
        let found = self.bucket.get(&key).await?;
        Manifest::decode(&found, tenant, id).with_context(|| format!("reading the manifest {key} back"))
    }
}
