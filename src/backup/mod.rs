//! Backups of tenants that are known to restore: `maintenance-os backup run`, `rehearse`, `last`, `list`, `verify`.
//!
//! | module | what |
//! |---|---|
//! | [`keys`], [`manifest`], [`retention`] | names in the bucket, what makes a dump a backup, what may go: pure |
//! | [`bucket`] | the bucket |
//! | [`server`], [`programs`] | PostgreSQL; `pg_dump` and `pg_restore` |
//! | [`central`] | where the central database is |
//! | [`take`], [`shelf`], [`verify`] | takes one, looks at all of a tenant, proves one |
//! | [`report`] | tells the operator what came of it |
//!
//! A backup is a dump *with a manifest that is sound*. Whatever is not is never counted, so that the last good one is never
//! pushed out by a bad one.

pub mod bucket;
pub mod central;
pub mod keys;
pub mod manifest;
pub mod programs;
pub mod report;
pub mod retention;
pub mod server;
pub mod shelf;
pub mod take;
pub mod verify;

use std::path::Path;

use anyhow::{Context, bail, ensure};
use futures::{StreamExt, stream};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::bucket::Bucket;
use self::keys::BackupId;
use self::manifest::{Manifest, TenantFacts};
use self::programs::Programs;
use self::report::write_report;
use self::retention::Keep;
use self::server::{Login, Server};
use self::shelf::{Entry, Shelf};
use self::take::Taker;
use self::verify::{Drill, Rehearsed};
use crate::desired::names;
use crate::settings::{
    BackupAction, BackupSettings, BucketArguments, ProvisionerArguments, RetentionArguments, ScratchArguments,
    ServerArguments, TenantArguments, VerifyAction,
};

/// Tenants whose backups are taken at the same time.
const AT_A_TIME: usize = 2;

/// Does what the command line says.
///
/// # Errors
/// It was not done, for at least one tenant.
pub async fn run(settings: BackupSettings, stop: CancellationToken) -> anyhow::Result<()> {
    match settings.action {
        BackupAction::Run { tenants, bucket, server, password, retention, report } => {
            let taker = taker(&bucket, &server, password, stop)?;
            take_and_tell(&taker, &tenants_of(&tenants)?, retention, report.as_deref()).await
        }
        BackupAction::Central { bucket, central_url, central_ca, programs, retention, report } => {
            let (server, login, database) = central::parse(&central_url, central_ca)?;
            let (bucket, programs) = (Bucket::new(&bucket.settings())?, Programs(programs));
            let taker = Taker { bucket, programs, server, login, central: Some(database), stop };
            let central = TenantFacts { uuid: keys::CENTRAL, name: "central".into() };
            take_and_tell(&taker, &[central], retention, report.as_deref()).await
        }
        BackupAction::Rehearse { tenant, bucket, scratch, report } => {
            let bucket = Bucket::new(&bucket.settings())?;
            let rehearsed = drill(&scratch).rehearse(&bucket, tenant, None).await;
            write_report(report.as_deref(), &[report::of_rehearsal(tenant, &rehearsed)])?;
            rehearsed.map(drop)
        }
        BackupAction::Last { tenant, name, bucket, scratch, password, report } => {
            let taker = taker(&bucket, &scratch.server, password, stop)?;
            let tenant = TenantFacts { uuid: tenant, name };
            let taken = taker.take(&tenant).await;
            let outcome = Outcome { tenant, taken };
            let mut reports = vec![outcome.report()];
            let rehearsed = rehearse_taken(&taker.bucket, &drill(&scratch), &outcome).await;
            reports.extend(rehearsed.as_ref().map(|rehearsed| report::of_rehearsal(outcome.tenant.uuid, rehearsed)));
            write_report(report.as_deref(), &reports)?;
            outcome.taken?;
            rehearsed.unwrap_or_else(|| bail!("nothing was rehearsed")).map(drop)
        }
        BackupAction::List { tenant, bucket } => {
            print!("{}", listing(&Shelf::read(&Bucket::new(&bucket.settings())?, tenant).await?));
            Ok(())
        }
        BackupAction::Verify { tenant, id, bucket, restore } => {
            let bucket = Bucket::new(&bucket.settings())?;
            verify_one(&bucket, tenant, id, restore.as_ref()).await
        }
    }
}

fn taker(
    bucket: &BucketArguments,
    server: &ServerArguments,
    password: String,
    stop: CancellationToken,
) -> anyhow::Result<Taker> {
    Ok(Taker {
        bucket: Bucket::new(&bucket.settings())?,
        programs: Programs(server.programs.clone()),
        server: server_of(server),
        login: Login { username: names::BACKUP.into(), password },
        central: None,
        stop,
    })
}

fn drill(scratch: &ScratchArguments) -> Drill {
    let ProvisionerArguments { provisioner, provisioner_password } = scratch.provisioner.clone();
    Drill {
        server: server_of(&scratch.server),
        provisioner: Login { username: provisioner, password: provisioner_password },
        programs: Programs(scratch.server.programs.clone()),
    }
}

async fn take_and_tell(
    taker: &Taker,
    tenants: &[TenantFacts],
    retention: RetentionArguments,
    report: Option<&Path>,
) -> anyhow::Result<()> {
    let outcomes = take_all(taker, tenants, retention.keep()).await;
    write_report(report, &outcomes.iter().map(Outcome::report).collect::<Vec<_>>())?;
    let failed = outcomes.iter().filter(|outcome| outcome.taken.is_err()).count();
    ensure!(failed == 0, "{failed} of {} backups were not taken; what was there before is untouched", outcomes.len());
    Ok(())
}

/// Restores the very backup that was taken, and no other.
async fn rehearse_taken(bucket: &Bucket, drill: &Drill, outcome: &Outcome) -> Option<anyhow::Result<Rehearsed>> {
    let manifest = outcome.taken.as_ref().ok()?;
    let rehearsed = async {
        let id = manifest.id.parse().context("reading the name of the backup that was just taken")?;
        drill.rehearse(bucket, outcome.tenant.uuid, Some(id)).await
    };
    Some(rehearsed.await)
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
    if let Some(VerifyAction::Restore(scratch)) = restore {
        let took = drill(scratch).restore(bucket, tenant, id, &manifest).await?;
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
