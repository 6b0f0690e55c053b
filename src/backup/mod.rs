//! Backups of tenants that are known to restore: `maintenance-os backup run`, `list`, `verify`, `restore`.
//!
//! | module | what |
//! |---|---|
//! | [`keys`], [`manifest`], [`retention`] | names in the bucket, what makes a dump a backup, what may go: pure |
//! | [`bucket`] | the bucket |
//! | [`server`], [`programs`] | PostgreSQL; `pg_dump` and `pg_restore` |
//! | [`take`], [`shelf`], [`verify`] | takes one, looks at all of a tenant, proves one |
//! | [`restore`] | brings one back beside the live database |
//!
//! A backup is a dump *with a manifest that is sound*. Whatever is not is never counted, so that the last good one is never
//! pushed out by a bad one.

pub mod bucket;
pub mod keys;
pub mod manifest;
pub mod programs;
pub mod restore;
pub mod retention;
pub mod server;
pub mod shelf;
pub mod take;
pub mod verify;

use std::path::Path;

use anyhow::{Context, ensure};
use futures::{StreamExt, stream};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::bucket::Bucket;
use self::keys::BackupId;
use self::manifest::{Manifest, TenantFacts};
use self::programs::Programs;
use self::restore::Restorer;
use self::retention::Keep;
use self::server::{Login, Server};
use self::shelf::{Entry, Shelf};
use self::take::Taker;
use self::verify::Drill;
use crate::api::backup::{BackupReport, BackupTaken, LONGEST_ERROR};
use crate::desired::names;
use crate::settings::{BackupAction, BackupSettings, RestoreArguments, ServerArguments, TenantArguments, VerifyAction};

/// Tenants whose backups are taken at the same time.
const AT_A_TIME: usize = 2;

/// Does what the command line says.
///
/// # Errors
/// It was not done, for at least one tenant.
pub async fn run(settings: BackupSettings, stop: CancellationToken) -> anyhow::Result<()> {
    match settings.action {
        BackupAction::Run { tenants, bucket, server, password, retention, report } => {
            let taker = Taker {
                bucket: Bucket::new(&bucket.settings())?,
                programs: Programs(server.programs.clone()),
                server: server_of(&server),
                login: Login { username: names::BACKUP.into(), password },
                stop,
            };
            let outcomes = take_all(&taker, &tenants_of(&tenants)?, retention.keep()).await;
            if let Some(path) = report {
                write_report(&path, &outcomes)?;
            }
            let failed = outcomes.iter().filter(|outcome| outcome.taken.is_err()).count();
            ensure!(
                failed == 0,
                "{failed} of {} backups were not taken; what was there before is untouched",
                outcomes.len()
            );
            Ok(())
        }
        BackupAction::List { tenant, bucket } => {
            print!("{}", listing(&Shelf::read(&Bucket::new(&bucket.settings())?, tenant).await?));
            Ok(())
        }
        BackupAction::Verify { tenant, id, bucket, restore } => {
            let bucket = Bucket::new(&bucket.settings())?;
            verify_one(&bucket, tenant, id, restore.as_ref()).await
        }
        BackupAction::Restore(arguments) => restore_one(&arguments, stop).await,
    }
}

async fn restore_one(arguments: &RestoreArguments, stop: CancellationToken) -> anyhow::Result<()> {
    let restorer = Restorer {
        server: server_of(&arguments.server),
        login: Login { username: names::beside(arguments.restore), password: arguments.restore_password.clone() },
        reader: Login { username: names::BACKUP.into(), password: arguments.password.clone() },
        bucket: Bucket::new(&arguments.bucket.settings())?,
        programs: Programs(arguments.server.programs.clone()),
        stop,
    };
    let wanted = restore::Wanted {
        restore: arguments.restore,
        tenant: arguments.tenant,
        source: arguments.source,
        backup: arguments.id,
    };
    let report = restorer.report(&wanted).await;
    if let Some(path) = &arguments.report {
        restore::write_report(path, &report)?;
    }
    match report.error {
        Some(error) => anyhow::bail!(error),
        None => Ok(()),
    }
}

/// What came of one tenant's backup.
pub struct Outcome {
    /// Whose.
    pub tenant: TenantFacts,
    /// The backup, or why there is none.
    pub taken: anyhow::Result<Manifest>,
}

async fn prune(taker: &Taker, tenant: Uuid, keep: Keep, taken: &Manifest) -> anyhow::Result<usize> {
    let taken = taken.id.parse().context("reading the name of the backup that was just taken")?;
    shelf::prune(&taker.bucket, tenant, keep, taken).await
}

/// Takes a backup of each tenant, two at a time, and removes of each what need not be kept. One that fails hides no other.
pub async fn take_all(taker: &Taker, tenants: &[TenantFacts], keep: Keep) -> Vec<Outcome> {
    let one = async |tenant: &TenantFacts| {
        let taken = taker.take(tenant).await;
        match &taken {
            Ok(manifest) => {
                tracing::info!(tenant = %tenant.uuid, name = tenant.name, backup = manifest.id, size = manifest.dump.size, "backed up");
                // The backup is there; that old ones could not be removed does not take it away.
                match prune(taker, tenant.uuid, keep, manifest).await {
                    Ok(0) => {}
                    Ok(removed) => tracing::info!(tenant = %tenant.uuid, removed, "removed old backups"),
                    Err(error) => {
                        tracing::warn!(tenant = %tenant.uuid, error = format!("{error:#}"), "old backups were not removed");
                    }
                }
            }
            Err(error) => {
                tracing::error!(tenant = %tenant.uuid, name = tenant.name, error = format!("{error:#}"), "no backup");
            }
        }
        Outcome { tenant: tenant.clone(), taken }
    };
    stream::iter(tenants).map(one).buffer_unordered(AT_A_TIME).collect().await
}

async fn verify_one(
    bucket: &Bucket,
    tenant: Uuid,
    id: Option<BackupId>,
    restore: Option<&VerifyAction>,
) -> anyhow::Result<()> {
    let (id, manifest) = verify::find(bucket, tenant, id).await?;
    verify::checksum(bucket, tenant, id, &manifest).await?;
    println!("{id}: {} bytes, checksum as written", manifest.dump.size);
    if let Some(VerifyAction::Restore { server, provisioner, provisioner_password }) = restore {
        let drill = Drill {
            server: server_of(server),
            provisioner: Login { username: provisioner.clone(), password: provisioner_password.clone() },
            programs: Programs(server.programs.clone()),
        };
        let took = drill.restore(bucket, tenant, id, &manifest).await?;
        let (tables, rows) = (manifest.rows.len(), manifest.rows.values().sum::<i64>());
        println!("{id}: restored in {:.1} s, {tables} tables with {rows} rows as in the manifest", took.as_secs_f64());
    }
    Ok(())
}

fn listing(shelf: &Shelf) -> String {
    let mut text = format!("{:<50} {:>14} {:>10}  {}\n", "BACKUP", "SIZE", "ROWS", "STATE");
    for (id, entry) in shelf.entries.iter().rev() {
        let (id, line) = (id.to_string(), entry);
        text += &match line {
            Entry::Good(manifest) => {
                let rows: i64 = manifest.rows.values().sum();
                format!("{id:<50} {:>14} {rows:>10}  good\n", manifest.dump.size)
            }
            Entry::Bad(why) => format!("{id:<50} {:>14} {:>10}  no backup: {why}\n", "", ""),
        };
    }
    text
}

fn server_of(arguments: &ServerArguments) -> Server {
    Server {
        name: arguments.server_name.clone(),
        host: arguments.host.clone(),
        port: arguments.port,
        // A server with a certificate of a public authority has none of its own.
        ca: arguments.ca.clone().filter(|ca| ca.exists()),
        ssl_mode: arguments.sslmode,
        system_identifier: arguments.system_identifier.clone().filter(|identifier| !identifier.is_empty()),
    }
}

fn tenants_of(arguments: &TenantArguments) -> anyhow::Result<Vec<TenantFacts>> {
    let one = arguments.tenant.map(|uuid| TenantFacts { uuid, name: arguments.name.clone() });
    let mut tenants: Vec<TenantFacts> = one.into_iter().collect();
    if let Some(path) = &arguments.tenants {
        let text = std::fs::read(path).with_context(|| format!("reading the tenants' file {}", path.display()))?;
        let listed: Vec<TenantFacts> = serde_json::from_slice(&text).with_context(|| {
            format!("reading the tenants' file {}: it must be a list of objects with uuid and name", path.display())
        })?;
        tenants.extend(listed);
    }
    Ok(tenants)
}

fn write_report(path: &Path, outcomes: &[Outcome]) -> anyhow::Result<()> {
    let report: Vec<_> = outcomes.iter().map(Outcome::report).collect();
    let text = serde_json::to_vec(&report).context("writing the report")?;
    std::fs::write(path, text).with_context(|| format!("writing the report {}", path.display()))
}

impl Outcome {
    /// What the operator is told.
    pub fn report(&self) -> BackupReport {
        let tenant = self.tenant.uuid;
        match &self.taken {
            Ok(manifest) => BackupReport {
                tenant,
                ended_at: manifest.ended_at,
                taken: Some(BackupTaken {
                    name: manifest.id.clone(),
                    size: manifest.dump.size,
                    sha256: manifest.dump.sha256.clone(),
                    seconds: manifest.ended_at.duration_since(manifest.started_at).as_secs(),
                }),
                error: None,
            },
            Err(error) => BackupReport {
                tenant,
                ended_at: Timestamp::now(),
                taken: None,
                error: Some(format!("{error:#}").chars().take(LONGEST_ERROR).collect()),
            },
        }
    }
}
