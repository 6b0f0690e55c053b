//! Restoring one backup into the database that the operator made for it beside the live one: what the Job of a `TenantRestore`
//! does.
//!
//! ```text
//! dump ──▶ hashed ──▶ pg_restore as the login of this run, SET ROLE to the owner of the tables ──▶ checksum ──▶ rows compared
//! ```
//!
//! A dump is a program that whoever wrote to the tenant's database had a hand in. The login enters this one database, and what
//! it makes there belongs to the role that owns every tenant's tables, as if migrations had made it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::bucket::Bucket;
use super::keys::BackupId;
use super::manifest::Manifest;
use super::pour::{self, Pour};
use super::programs::Programs;
use super::server::{self, Login, Server};
use super::verify;
use crate::api::backup::LONGEST_ERROR;
use crate::api::tenant_restore::{RestoreReport, Restored, TableRows};
use crate::desired::names;
use crate::desired::sql::identifier;

/// Kubernetes keeps 4,096 bytes of a termination message; so many of them are for the tables.
const ROOM_FOR_TABLES: usize = 3000;

/// Everything that a backup is restored with.
pub struct Restorer {
    /// The server.
    pub server: Server,
    /// The login of this run; its database has its name.
    pub login: Login,
    /// Who reads the live database, to count its rows.
    pub reader: Login,
    /// Where backups are.
    pub bucket: Bucket,
    /// `pg_restore`.
    pub programs: Programs,
    /// Ends it.
    pub stop: CancellationToken,
}

/// What is restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The TenantRestore.
    pub restore: Uuid,
    /// The tenant whose live database is counted.
    pub tenant: Uuid,
    /// Whose backup.
    pub source: Uuid,
    /// Which one; None: the newest.
    pub backup: Option<BackupId>,
}

impl Restorer {
    /// Restores, and says what came of it: also that it failed.
    pub async fn report(&self, wanted: &Wanted) -> RestoreReport {
        let restored = tokio::select! {
            restored = self.restore(wanted) => restored,
            () = self.stop.cancelled() => Err(anyhow::anyhow!("it was stopped")),
        };
        let mut report =
            RestoreReport { restore: wanted.restore, ended_at: Timestamp::now(), ..RestoreReport::default() };
        match restored {
            Ok(restored) => report.restored = Some(restored),
            Err(error) => report.error = Some(format!("{error:#}").chars().take(LONGEST_ERROR).collect()),
        }
        report
    }

    /// Restores a backup into the login's database and compares checksum and rows with the manifest.
    ///
    /// # Errors
    /// There is no such backup, it is damaged, it does not restore or not to what was there; or something is in the database
    /// already.
    pub async fn restore(&self, wanted: &Wanted) -> anyhow::Result<Restored> {
        let (id, manifest) = verify::find(&self.bucket, wanted.source, wanted.backup).await?;
        let restored = async {
            let mut inside = self.server.connect(&self.login, &self.login.username).await?;
            self.server.identify(&mut inside).await?;
            let there = server::rows(&mut inside).await?;
            ensure!(
                there.is_empty(),
                "database {} is not empty: a restore into it was begun before and its end is not known",
                self.login.username
            );
            let pour = Pour {
                bucket: &self.bucket,
                programs: &self.programs,
                server: &self.server,
                login: &self.login,
                role: Some(names::SCHEMA_ROLE),
            };
            pour.fill(wanted.source, id, &manifest).await?;
            self.grant(&mut inside).await?;
            let found = server::rows(&mut inside).await?;
            inside.close().await.context("leaving the restored database")?;
            pour::same_rows(&manifest.rows, &found)
        };
        let restored: anyhow::Result<()> = restored.await;
        restored.with_context(|| format!("restoring backup {id} of tenant {}", wanted.source))?;
        let live = self.live(wanted.tenant).await?;
        Ok(summary(&manifest, live.as_ref()))
    }

    /// Gives the one table its rights that has others than the default privileges say.
    async fn grant(&self, inside: &mut PgConnection) -> anyhow::Result<()> {
        let role = identifier(names::SCHEMA_ROLE);
        let text = format!("SET ROLE {role};\n{};\nRESET ROLE", crate::desired::server::restored_grants());
        let granted = sqlx::raw_sql(AssertSqlSafe(text)).execute(inside).await;
        granted.context("putting rights in the restored database right").map(drop)
    }

    /// Rows of every table of the live database; None: there is none.
    async fn live(&self, tenant: Uuid) -> anyhow::Result<Option<BTreeMap<String, i64>>> {
        let mut connection = match self.server.connect(&self.reader, &names::database(tenant)).await {
            Ok(connection) => connection,
            Err(error) if is_missing(&error) => return Ok(None),
            Err(error) => return Err(error),
        };
        let rows = server::rows(&mut connection).await.context("counting what is in the live database")?;
        connection.close().await.context("leaving the live database")?;
        Ok(Some(rows))
    }
}

/// There is no database of that name.
fn is_missing(error: &anyhow::Error) -> bool {
    let database = error.chain().find_map(|cause| cause.downcast_ref::<sqlx::Error>()?.as_database_error());
    database.is_some_and(|error| error.code().is_some_and(|code| code == "3D000"))
}

/// What a person decides by: rows in the backup and in the live database, those tables first that differ most.
fn summary(manifest: &Manifest, live: Option<&BTreeMap<String, i64>>) -> Restored {
    let nothing = BTreeMap::new();
    let known = live.unwrap_or(&nothing);
    let names: std::collections::BTreeSet<_> = manifest.rows.keys().chain(known.keys()).collect();
    let mut tables: Vec<_> = names
        .into_iter()
        .map(|table| TableRows {
            table: table.clone(),
            backup: manifest.rows.get(table).copied(),
            live: known.get(table).copied(),
        })
        .collect();
    let differs = |rows: &TableRows| rows.backup.unwrap_or_default().abs_diff(rows.live.unwrap_or_default());
    tables.sort_by_key(|rows| (std::cmp::Reverse(differs(rows)), rows.table.clone()));
    let all = tables.len();
    let mut room = ROOM_FOR_TABLES;
    let fits = |rows: &TableRows| {
        let length = serde_json::to_string(rows).map_or(usize::MAX, |text| text.len() + 1);
        room = room.checked_sub(length)?;
        Some(rows.clone())
    };
    let tables: Vec<_> = tables.iter().map_while(fits).collect();
    Restored {
        backup: manifest.id.clone(),
        size: manifest.dump.size,
        sha256: manifest.dump.sha256.clone(),
        schema: manifest.server.schema_version.clone(),
        rows: manifest.rows.values().sum(),
        live_rows: live.map(|rows| rows.values().sum()),
        left_out: i32::try_from(all - tables.len()).unwrap_or(i32::MAX),
        tables,
    }
}

/// Writes what came of it where the operator reads it.
///
/// # Errors
/// The file cannot be written.
pub fn write_report(path: &Path, report: &RestoreReport) -> anyhow::Result<()> {
    let text = serde_json::to_vec(report).context("writing the report")?;
    std::fs::write(path, text).with_context(|| format!("writing the report {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::manifest::{DumpFacts, SCHEMA, ServerFacts, TenantFacts, Tools};

    fn manifest(tables: usize) -> Manifest {
        Manifest {
            schema: SCHEMA,
            id: "20261231T235959Z-0123456789abcdef0123456789abcdef".into(),
            tenant: TenantFacts { uuid: Uuid::from_u128(1), name: "acme".into() },
            server: ServerFacts {
                name: "pg-1".into(),
                system_identifier: "1".into(),
                version: "17.6".into(),
                database: "tenant".into(),
                schema_version: "0004_ab".into(),
            },
            dump: DumpFacts { key: "k".into(), format: "custom".into(), size: 7, sha256: "a".repeat(64) },
            rows: (0..tables).map(|table| (format!("public.table_{table:04}"), 1_000_000)).collect(),
            kept: false,
            started_at: Timestamp::UNIX_EPOCH,
            ended_at: Timestamp::UNIX_EPOCH,
            tools: Tools { maintenance_os: "1".into(), pg_dump: "17".into() },
            checksum: String::new(),
        }
    }

    #[test]
    fn the_tables_that_differ_most_come_first_and_the_report_fits_into_a_termination_message() {
        let manifest = manifest(500);
        let mut live = manifest.rows.clone();
        live.insert("public.table_0321".into(), 3);
        live.insert("public.table_0123".into(), 999_999);
        live.remove("public.table_0400");
        let restored = summary(&manifest, Some(&live));
        let first: Vec<_> = restored.tables.iter().take(3).map(|rows| (rows.table.as_str(), rows.live)).collect();
        assert_eq!(
            first,
            [("public.table_0400", None), ("public.table_0321", Some(3)), ("public.table_0123", Some(999_999))]
        );
        assert_eq!(restored.tables.len() + usize::try_from(restored.left_out).unwrap(), 500);
        assert_eq!(restored.rows, 500_000_000);
        let report = RestoreReport { restored: Some(restored), ..RestoreReport::default() };
        assert!(serde_json::to_vec(&report).unwrap().len() < 4096);
    }
}
