//! From the bucket into a database: a dump passed to `pg_restore`, hashed on its way, and its rows compared with the manifest.
//!
//! A dump is a program that whoever wrote to the tenant's database had a hand in. It runs as the login that is given, which
//! enters one database and nothing else.

use std::collections::BTreeMap;
use std::process::Stdio;

use anyhow::{Context, bail, ensure};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use super::bucket::{Bucket, Hashed};
use super::keys::{self, BackupId, Part};
use super::manifest::Manifest;
use super::programs::{self, Programs};
use super::server::{Login, Server};

/// Where from and where to.
pub struct Pour<'a> {
    /// Where backups are.
    pub bucket: &'a Bucket,
    /// `pg_restore`.
    pub programs: &'a Programs,
    /// The server.
    pub server: &'a Server,
    /// Who restores; the database has its name.
    pub login: &'a Login,
    /// Role that what is restored belongs to; None: the login's.
    pub role: Option<&'a str>,
}

impl Pour<'_> {
    /// Passes the dump of one backup of `tenant` to `pg_restore`.
    ///
    /// # Errors
    /// It does not restore, or a byte of it is another one than was written.
    pub async fn fill(&self, tenant: Uuid, id: BackupId, manifest: &Manifest) -> anyhow::Result<()> {
        let database = &self.login.username;
        let mut arguments =
            vec!["--no-owner", "--no-privileges", "--exit-on-error", "--no-password", "--dbname", database];
        arguments.extend(self.role.iter().flat_map(|role| ["--role", role]));
        let arguments: Vec<_> = arguments.into_iter().map(str::to_owned).collect();
        let environment = self.server.environment(self.login, database);
        let mut child = self.programs.start("pg_restore", &arguments, environment, Stdio::piped())?;
        let mut input = child.stdin.take().context("pg_restore has no input")?;
        let (errors, mut output) = (child.stderr.take(), child.stdout.take().context("pg_restore has no output")?);
        let key = keys::key(tenant, id, Part::Dump);
        let feed = async {
            let fed = self.bucket.read(&key, &mut input).await;
            // Its end is how pg_restore knows that there is no more.
            let _ = input.shutdown().await;
            drop(input);
            fed
        };
        let mut nowhere = tokio::io::sink();
        let (fed, complaint, _) =
            tokio::join!(feed, programs::complaint(errors), tokio::io::copy(&mut output, &mut nowhere));
        // What it complained about is why it took no more.
        programs::ended("pg_restore", &mut child, &complaint).await?;
        same_bytes(&key, &fed?, manifest)
    }
}

/// That what was read is what was written.
///
/// # Errors
/// It is not.
pub fn same_bytes(key: &str, found: &Hashed, manifest: &Manifest) -> anyhow::Result<()> {
    let Manifest { dump, .. } = manifest;
    ensure!(
        found.sha256 == dump.sha256 && found.size == dump.size,
        "{key} is damaged: it has {} bytes with SHA-256 {}, and {} bytes with {} were written. It cannot be relied on; an older \
         backup may be whole",
        found.size,
        found.sha256,
        dump.size,
        dump.sha256
    );
    Ok(())
}

/// That a restored database has the rows that the manifest says.
///
/// # Errors
/// It has not; of which table.
pub fn same_rows(manifest: &BTreeMap<String, i64>, found: &BTreeMap<String, i64>) -> anyhow::Result<()> {
    let mut names = manifest.keys().chain(found.keys());
    if let Some(table) = names.find(|table| manifest.get(*table) != found.get(*table)) {
        let count =
            |rows: Option<&i64>| rows.map_or_else(|| "is not there".to_owned(), |rows| format!("has {rows} rows"));
        bail!(
            "table {table} {} in the restored database and {} in the backup's manifest",
            count(found.get(table)),
            count(manifest.get(table))
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_row_more_or_less_is_found() {
        let rows: BTreeMap<_, _> = (0..3).map(|table| (format!("public.table_{table}"), 7)).collect();
        same_rows(&rows, &rows).unwrap();
        for change in [
            |rows: &mut BTreeMap<String, i64>| *rows.get_mut("public.table_1").unwrap() -= 1,
            |rows: &mut BTreeMap<String, i64>| {
                rows.remove("public.table_1");
            },
            |rows: &mut BTreeMap<String, i64>| {
                rows.insert("public.more".into(), 0);
            },
        ] {
            let mut found = rows.clone();
            change(&mut found);
            assert!(same_rows(&rows, &found).is_err());
        }
    }
}
