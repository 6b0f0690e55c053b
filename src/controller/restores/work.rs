//! Do: one effect after the other.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;
use uuid::Uuid;

use super::facts::reference;
use crate::apply::migrate::{self, MigrateError, Patience};
use crate::apply::{ApplyError, kubernetes, objects};
use crate::controller::backup;
use crate::controller::context::{Context, new_password};
use crate::controller::server::{credentials, pool};
use crate::controller::servers::Server;
use crate::desired::restore::{self, Effect, Facts, Target, Whose, statements};
use crate::desired::sql::Batch;
use crate::desired::{names, server};
use crate::error::chain;

/// Nobody else is in a database beside; a statement may take its time.
const PATIENCE: Patience = Patience { lock: Duration::from_secs(30), statement: Duration::from_hours(2) };

/// Executes effects in order. Some: why the database beside cannot be brought up, which the next decision has to know.
///
/// # Errors
/// Of the first effect that failed; what comes after it was not begun.
pub async fn execute(context: &Context, facts: &Facts, effects: &[Effect]) -> Result<Option<String>, ApplyError> {
    let Whose::Known(target) = &facts.whose else { return Ok(None) };
    let uid = restore::uid(&facts.object);
    for effect in effects {
        match effect {
            Effect::Sql(batch) => run(context, target, batch).await?,
            Effect::WriteSecret => write_secret(context, uid, target).await?,
            Effect::CreateJob => create_job(context, facts, target).await?,
            Effect::RemoveObjects => remove_objects(context, uid).await?,
            Effect::Migrate(version) => {
                if let Some(why) = migrate(context, uid, target, version).await? {
                    return Ok(Some(why));
                }
            }
            Effect::Swap(batch) => swap(context, facts, target, batch).await?,
            Effect::Note(mark) => {
                let row = super::row(&target.server, mark);
                let noted = context.central.note_replaced(&row);
                let noted = context.gate.pass("list the database that was replaced", noted).await;
                let doing = || format!("list the database that restore {uid} replaced");
                noted.map_err(|source| ApplyError::Central { doing: doing(), source })?;
                context.restores.note(uid);
            }
        }
    }
    Ok(None)
}

fn server_of(context: &Context, target: &Target) -> Result<Arc<Server>, ApplyError> {
    let server = context.servers.get(&target.server);
    server.ok_or_else(|| ApplyError::Stale(format!("DatabaseServer {} has gone", target.server)))
}

async fn run(context: &Context, target: &Target, batch: &Batch) -> Result<(), ApplyError> {
    server_of(context, target)?.run(batch, Some(target.uuid)).await
}

async fn write_secret(context: &Context, uid: Uuid, target: &Target) -> Result<(), ApplyError> {
    let namespace = &context.settings.namespace;
    let secret = restore::objects::secret(uid, target.uuid, namespace, &new_password());
    let put = objects::put_secret(&context.client, namespace, &secret);
    context.gate.pass("write the Secret of a restore", put).await.map(drop)
}

async fn create_job(context: &Context, facts: &Facts, target: &Target) -> Result<(), ApplyError> {
    let uid = restore::uid(&facts.object);
    let row = context.ledger.rows().into_iter().find(|row| row.uuid == target.uuid);
    let bucket = context.settings.backup.wanted();
    let template = row.zip(bucket).and_then(|(row, bucket)| backup::job(context, &row, &bucket));
    let template =
        template.ok_or_else(|| ApplyError::Stale(format!("tenant {} or its server has changed", target.uuid)))?;
    let wanted = restore::objects::Wanted {
        restore: uid,
        tenant: target.uuid,
        source: restore::source(&facts.object, target.uuid),
        backup: facts.object.spec.backup.clone(),
    };
    let job = restore::objects::job(&wanted, &template);
    let create = objects::create(&context.client, &context.settings.namespace, &job);
    context.gate.pass(&format!("create Job {}", job.name_any()), create).await
}

/// Removes Job and Secret of a restore, whatever of them is there.
pub async fn remove_objects(context: &Context, uid: Uuid) -> Result<(), ApplyError> {
    let name = names::restore(uid);
    super::delete::<Job>(context, &name).await?;
    super::delete::<Secret>(context, &name).await
}

/// Brings the database beside up and seals it with what it has now. Some: it cannot be.
async fn migrate(context: &Context, uid: Uuid, target: &Target, version: &str) -> Result<Option<String>, ApplyError> {
    let known = server_of(context, target)?;
    let password = credentials::migrator_password(context, &target.server).await;
    let password = password.map_err(|error| ApplyError::Stale(format!("no password of the migrator: {error:#}")))?;
    let migrations = pool::migrations();
    let options = known.connection().options(&names::beside(uid), names::MIGRATOR, &password);
    let work = migrate::bring_up(options, &migrations, version, PATIENCE);
    match context.gate.pass("migrate a restored database", work).await {
        Ok(count) => {
            let schema = server::schema(&migrations[..count.min(migrations.len())]);
            run(context, target, &statements::seal(uid, target.uuid, &schema)).await?;
            Ok(None)
        }
        Err(error @ MigrateError::Busy) => Err(ApplyError::Stale(chain(&error))),
        Err(MigrateError::Server(source)) => {
            Err(ApplyError::Sql { doing: format!("bring up database {}", names::beside(uid)), source })
        }
        Err(error) => Ok(Some(chain(&error))),
    }
}

/// Swaps, when the API server itself says that it is still to be: a cached object may be an older one.
async fn swap(context: &Context, facts: &Facts, target: &Target, batch: &Batch) -> Result<(), ApplyError> {
    let stale = |what: &str| ApplyError::Stale(format!("{what} of {} has changed", facts.object.name_any()));
    let still = super::fresh(context, &facts.object).await?.is_some_and(|object| {
        object.metadata.deletion_timestamp.is_none() && object.spec.approve && !object.spec.abort
    });
    if !still {
        return Err(stale("the wish"));
    }
    let tenant = context.tenants.get(&reference(&facts.object)).ok_or_else(|| stale("the Tenant"))?;
    let tenant = kubernetes::fresh(&context.client, &tenant).await?;
    let same = |tenant: &crate::api::Tenant| {
        tenant.metadata.deletion_timestamp.is_none() && crate::observe::ledger::uid(tenant) == target.object_uid
    };
    if !tenant.as_ref().is_some_and(same) {
        return Err(stale("the Tenant"));
    }
    let known = server_of(context, target)?;
    let swapped = known.run(batch, Some(target.uuid)).await;
    // What is known of the tenant is asked again, whatever came of it.
    known.doubt(target.uuid);
    swapped
}
