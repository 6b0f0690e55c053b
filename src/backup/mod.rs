//! Backups of tenants that are known to restore: `maintenance-os backup run`, `rehearse`, `last`, `list`, `verify`, `restore`.
//!
//! | module | what |
//! |---|---|
//! | [`keys`], [`manifest`], [`retention`] | names in the bucket, what makes a dump a backup, what may go: pure |
//! | [`bucket`] | the bucket |
//! | [`server`], [`programs`] | PostgreSQL; `pg_dump` and `pg_restore` |
//! | [`central`] | where the central database is |
//! | [`take`], [`shelf`], [`verify`] | takes one, looks at all of a tenant, proves one |
//! | [`pour`] | from the bucket into a database, compared with the manifest |
//! | [`report`] | tells the operator what came of it |
//! | [`restore`] | brings one back beside the live database |
//!
//! A backup is a dump *with a manifest that is sound*. Whatever is not is never counted, so that the last good one is never
//! pushed out by a bad one.

pub mod bucket;
pub mod central;
pub mod keys;
pub mod manifest;
pub mod pour;
pub mod programs;
pub mod report;
pub mod restore;
pub mod retention;
pub mod server;
pub mod shelf;
pub mod take;
pub mod verify;

use std::collections::BTreeSet;
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
use self::restore::Restorer;
use self::retention::Keep;
use self::server::{Login, Server};
use self::shelf::{Entry, Shelf};
use self::take::Taker;
use self::verify::{Drill, Rehearsed};
use crate::api::backup::ListedTenant;
use crate::desired::names;
use crate::settings::{
    BackupAction, BackupSettings, BucketArguments, ProvisionerArguments, RestoreArguments, ScratchArguments,
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
        BackupAction::Run { tenants, bucket, server, password, retention, keep_all, report, report_lines } => {
            let taker = taker(&bucket, &server, password, stop)?;
            let mut wanted = wanted(&tenants, retention.keep())?;
            if keep_all {
                for wanted in &mut wanted {
                    wanted.keep = None;
                }
            }
            let told = |outcome: &Outcome| {
                if report_lines {
                    report::print_line(&outcome.report());
                }
            };
            let outcomes = take_each(&taker, &wanted, &told).await;
            tell(report.as_deref(), &outcomes)?;
            ensure!(outcomes.len() == wanted.len(), "it was stopped after {} of {}", outcomes.len(), wanted.len());
            Ok(())
        }
        BackupAction::Central { bucket, central_url, central_ca, programs, retention, report } => {
            let (server, login, database) = central::parse(&central_url, central_ca)?;
            let (bucket, programs) = (Bucket::new(&bucket.settings())?, Programs(programs));
            let taker = Taker { bucket, programs, server, login, central: Some(database), last: false, stop };
            let central = TenantFacts { uuid: keys::CENTRAL, name: "central".into() };
            tell(report.as_deref(), &take_all(&taker, &[central], retention.keep()).await)
        }
        BackupAction::Rehearse { tenant, bucket, scratch, report } => {
            let bucket = Bucket::new(&bucket.settings())?;
            let rehearsed = drill(&scratch, stop).rehearse(&bucket, tenant, None).await;
            write_report(report.as_deref(), &[report::of_rehearsal(tenant, &rehearsed)])?;
            rehearsed.map(drop)
        }
        BackupAction::Last { tenant, name, bucket, scratch, password, report } => {
            let taker = Taker { last: true, ..taker(&bucket, &scratch.server, password, stop.clone())? };
            let tenant = TenantFacts { uuid: tenant, name };
            let taken = taker.take(&tenant).await;
            let outcome = Outcome { tenant, taken };
            let mut reports = vec![outcome.report()];
            let rehearsed = rehearse_taken(&taker.bucket, &drill(&scratch, stop), &outcome).await;
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
            verify_one(&bucket, tenant, id, restore.as_ref(), stop).await
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
        last: false,
        stop,
    })
}

fn drill(scratch: &ScratchArguments, stop: CancellationToken) -> Drill {
    let ProvisionerArguments { provisioner, provisioner_password } = scratch.provisioner.clone();
    Drill {
        server: server_of(&scratch.server),
        provisioner: Login { username: provisioner, password: provisioner_password },
        programs: Programs(scratch.server.programs.clone()),
        stop,
    }
}

fn tell(report: Option<&Path>, outcomes: &[Outcome]) -> anyhow::Result<()> {
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
    let wanted: Vec<_> = tenants.iter().map(|tenant| Wanted { tenant: tenant.clone(), keep: Some(keep) }).collect();
    pass(taker, wanted.iter(), &|_| {}).await
}

/// A backup that is to be taken.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whose.
    pub tenant: TenantFacts,
    /// What is kept of the older ones; None: all.
    pub keep: Option<Keep>,
}

/// As [`take_all`], and calls `told` as each is done. Of several, those that failed are tried once more when the others are
/// done.
pub async fn take_each(taker: &Taker, wanted: &[Wanted], told: &impl Fn(&Outcome)) -> Vec<Outcome> {
    let mut outcomes = pass(taker, wanted.iter(), told).await;
    if wanted.len() < 2 || taker.stop.is_cancelled() {
        return outcomes;
    }
    let failed: BTreeSet<_> =
        outcomes.extract_if(.., |outcome| outcome.taken.is_err()).map(|outcome| outcome.tenant.uuid).collect();
    let again = wanted.iter().filter(|wanted| failed.contains(&wanted.tenant.uuid));
    outcomes.extend(pass(taker, again, told).await);
    outcomes
}

async fn pass(taker: &Taker, wanted: impl Iterator<Item = &Wanted>, told: &impl Fn(&Outcome)) -> Vec<Outcome> {
    let one = async |wanted: &Wanted| {
        let outcome = take_one(taker, wanted).await;
        told(&outcome);
        outcome
    };
    // Whoever is stopped begins no other.
    let wanted = stream::iter(wanted).take_while(|_| std::future::ready(!taker.stop.is_cancelled()));
    wanted.map(one).buffer_unordered(AT_A_TIME).collect().await
}

async fn take_one(taker: &Taker, Wanted { tenant, keep }: &Wanted) -> Outcome {
    let taken = taker.take(tenant).await;
    match (&taken, keep) {
        (Ok(manifest), keep) => {
            tracing::info!(tenant = %tenant.uuid, name = tenant.name, backup = manifest.id, size = manifest.dump.size, "backed up");
            let pruned = match keep {
                Some(keep) => prune(taker, tenant.uuid, *keep, manifest).await,
                None => Ok(0),
            };
            // The backup is there; that old ones could not be removed does not take it away.
            match pruned {
                Ok(0) => {}
                Ok(removed) => tracing::info!(tenant = %tenant.uuid, removed, "removed old backups"),
                Err(error) => {
                    tracing::warn!(tenant = %tenant.uuid, error = format!("{error:#}"), "old backups were not removed");
                }
            }
        }
        (Err(error), _) => {
            tracing::error!(tenant = %tenant.uuid, name = tenant.name, error = format!("{error:#}"), "no backup");
        }
    }
    Outcome { tenant: tenant.clone(), taken }
}

async fn verify_one(
    bucket: &Bucket,
    tenant: Uuid,
    id: Option<BackupId>,
    restore: Option<&VerifyAction>,
    stop: CancellationToken,
) -> anyhow::Result<()> {
    let (id, manifest) = verify::find(bucket, tenant, id).await?;
    verify::checksum(bucket, tenant, id, &manifest).await?;
    println!("{id}: {} bytes, checksum as written", manifest.dump.size);
    if let Some(VerifyAction::Restore(scratch)) = restore {
        let took = drill(scratch, stop).restore(bucket, tenant, id, &manifest).await?;
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

fn wanted(arguments: &TenantArguments, keep: Keep) -> anyhow::Result<Vec<Wanted>> {
    let facts = |uuid, name: &str| TenantFacts { uuid, name: name.to_owned() };
    let one = arguments.tenant.map(|uuid| Wanted { tenant: facts(uuid, &arguments.name), keep: Some(keep) });
    let mut wanted: Vec<_> = one.into_iter().collect();
    if let Some(path) = &arguments.tenants {
        let text = std::fs::read(path).with_context(|| format!("reading the tenants' file {}", path.display()))?;
        let listed: Vec<ListedTenant> = serde_json::from_slice(&text).with_context(|| {
            format!(
                "reading the tenants' file {}: it must be a list of objects with uuid, name and keep",
                path.display()
            )
        })?;
        wanted.extend(listed.iter().map(|listed| {
            let keep = listed.keep.map(|keep| {
                let [daily, weekly, monthly] = keep.map(|count| usize::try_from(count).unwrap_or_default());
                Keep { daily, weekly, monthly }
            });
            Wanted { tenant: facts(listed.uuid, &listed.name), keep }
        }));
    }
    Ok(wanted)
}
