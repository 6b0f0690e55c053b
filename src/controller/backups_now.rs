//! TenantBackups: one Job each, made from the CronJob of the tenant, and what came of it.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::runtime::events::{Event, EventType};
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::backup;
use super::context::Context;
use crate::api::backup::BackupReport;
use crate::api::condition::{ConditionType, Reason};
use crate::api::tenant_backup::{BackupPhase, TenantBackup, TenantBackupStatus};
use crate::api::{GROUP, Tenant, VERSION};
use crate::apply::{ApplyError, objects};
use crate::central::{LedgerState, TenantRow};
use crate::desired::status::condition;
use crate::desired::{backup_now, names};
use crate::error::chain;
use crate::observe::jobs::{self, Standing};
use crate::observe::ledger::uid;

/// Field manager of TenantBackups.
const MANAGER: &str = "maintenance-os-backup";
/// Between two looks at the Jobs while one is under way, and between two looks while there is none.
const PACE: Duration = Duration::from_secs(1);

/// Works on TenantBackups until `stop`.
pub async fn run(context: Arc<Context>, store: Store<TenantBackup>, stop: CancellationToken) {
    let work = async {
        if store.wait_until_ready().await.is_err() {
            return;
        }
        let mut known = jobs_of_before(&context).await;
        loop {
            let all = store.state();
            for object in all.iter().filter(|object| !status_of(object).phase.is_over()) {
                known.insert(uid_of(object));
                if let Err(error) = visit(&context, object).await {
                    tracing::warn!(
                        backup = object.name_any(),
                        error = chain(&error),
                        "a backup did not get on, trying again"
                    );
                }
            }
            let there: HashSet<_> = all.iter().map(|object| uid_of(object)).collect();
            let gone: Vec<_> = known.iter().filter(|uid| !there.contains(uid)).copied().collect();
            for uid in gone {
                context.backups.turns.give_back(uid);
                match remove(&context, uid).await {
                    Ok(()) => drop(known.remove(&uid)),
                    Err(error) => {
                        tracing::warn!(error = chain(&error), "the Job of a TenantBackup that is gone was not removed");
                    }
                }
            }
            tokio::time::sleep(PACE).await;
        }
    };
    tokio::select! {
        () = work => {}
        () = stop.cancelled() => {}
    }
}

fn status_of(object: &TenantBackup) -> TenantBackupStatus {
    object.status.clone().unwrap_or_default()
}

fn uid_of(object: &TenantBackup) -> Uuid {
    object.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()).unwrap_or_default()
}

/// The TenantBackups whose Jobs are there: one may have been deleted while no operator was there to see it.
async fn jobs_of_before(context: &Context) -> HashSet<Uuid> {
    let api = Api::<PartialObjectMeta<Job>>::namespaced(context.client.clone(), &context.settings.namespace);
    match api.list_metadata(&ListParams::default().labels(backup_now::LABEL)).await {
        Ok(jobs) => jobs.iter().filter_map(|job| job.labels().get(backup_now::LABEL)?.parse().ok()).collect(),
        Err(error) => {
            tracing::warn!(error = chain(&error), "could not list the Jobs of TenantBackups");
            HashSet::new()
        }
    }
}

async fn remove(context: &Context, uid: Uuid) -> Result<(), ApplyError> {
    let (namespace, name) = (&context.settings.namespace, names::backup_now(uid));
    let how = DeleteParams::background();
    let remove = objects::remove::<Job>(&context.client, namespace, &name, &how);
    context.gate.pass("remove the Job of a TenantBackup that is gone", remove).await
}

async fn visit(context: &Context, object: &TenantBackup) -> Result<(), ApplyError> {
    if object.metadata.deletion_timestamp.is_some() {
        return Ok(());
    }
    let mut status = status_of(object);
    let (reason, message) = decide(context, object, &mut status).await?;
    if status.phase.is_over() {
        context.backups.turns.give_back(uid_of(object));
    }
    write(context, object, status, reason, &message).await
}

/// What it says next.
async fn decide(
    context: &Context,
    object: &TenantBackup,
    status: &mut TenantBackupStatus,
) -> Result<(Reason, String), ApplyError> {
    let (client, namespace) = (context.client.clone(), &context.settings.namespace);
    let name = names::backup_now(uid_of(object));
    let job = Api::<Job>::namespaced(client.clone(), namespace).get_opt(&name).await;
    let job = job.map_err(|source| ApplyError::kubernetes(format!("read Job {namespace}/{name}"), source))?;
    let now = Time(Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default());
    let fail = |status: &mut TenantBackupStatus, message: String| {
        status.phase = BackupPhase::Failed;
        status.ended_at = Some(now.clone());
        (
            Reason::BackupFailed,
            format!("{message}. Earlier backups are untouched; create another TenantBackup to try again"),
        )
    };
    let Some(job) = job else {
        if status.phase == BackupPhase::Running {
            return Ok(fail(status, format!("Job {name} is gone, somebody removed it")));
        }
        return Ok(match begin(context, object).await? {
            Ok(tenant) => {
                status.phase = BackupPhase::Running;
                status.tenant = Some(tenant.to_string());
                status.started_at = Some(now);
                (Reason::Provisioning, format!("Job {name} takes the backup"))
            }
            Err(why) => (Reason::Provisioning, why),
        });
    };
    status.phase = BackupPhase::Running;
    status.started_at = status.started_at.take().or_else(|| job.metadata.creation_timestamp.clone());
    let pods = ListParams::default().labels(&format!("{}={}", backup_now::LABEL, uid_of(object)));
    let pods = Api::<Pod>::namespaced(client, namespace).list(&pods).await;
    let pods =
        pods.map_err(|source| ApplyError::kubernetes(format!("list the pods of Job {namespace}/{name}"), source))?;
    let mut reports: Vec<BackupReport> = pods.items.iter().flat_map(reports).collect();
    reports.sort_by_key(|report| report.ended_at);
    if let Some((report, taken)) = reports.iter().rev().find_map(|report| Some((report, report.taken.as_ref()?))) {
        status.phase = BackupPhase::Done;
        status.tenant = Some(report.tenant.to_string());
        status.backup = Some(taken.name.clone());
        status.size = i64::try_from(taken.size).ok();
        status.sha256 = Some(taken.sha256.clone());
        status.ended_at = Some(Time(report.ended_at));
        return Ok((Reason::Active, format!("backup {} lies in the bucket", taken.name)));
    }
    let why = reports.last().and_then(|report| report.error.clone());
    if jobs::standing(&job) != Standing::Running {
        return Ok(fail(status, why.unwrap_or_else(|| format!("Job {name} ended without a word of what came of it"))));
    }
    let tries = why.map_or_else(String::new, |why| format!("; an attempt failed: {why}"));
    Ok((Reason::Provisioning, format!("Job {name} takes the backup{tries}")))
}

fn reports(pod: &Pod) -> Vec<BackupReport> {
    jobs::messages(pod)
        .filter_map(|message| serde_json::from_str::<Vec<BackupReport>>(message).ok())
        .flatten()
        .collect()
}

/// Makes the Job; the tenant, or why it cannot be made yet.
async fn begin(context: &Context, object: &TenantBackup) -> Result<Result<Uuid, String>, ApplyError> {
    let Some(bucket) = context.settings.backup.wanted() else {
        return Ok(Err("there are no backups here: set backup.bucket of the chart".into()));
    };
    let name = &object.spec.tenant_ref.name;
    let namespace = object.namespace().unwrap_or_default();
    let Some(tenant) = context.tenants.get(&ObjectRef::new(name).within(&namespace)) else {
        return Ok(Err(format!("there is no Tenant {name} in namespace {namespace}")));
    };
    let Some(row) = row_of(context, &tenant) else {
        return Ok(Err(format!("Tenant {name} has no database yet")));
    };
    let Some(template) = backup::job(context, &row, &bucket) else {
        return Ok(Err(format!("the server of Tenant {name}, or its Plan, is not known yet")));
    };
    // The night's are spread; of these, somebody may ask for a thousand at once.
    if !context.backups.turns.take(uid_of(object), row.server.as_deref().unwrap_or_default()) {
        return Ok(Err("waits for its turn: as many backups are being taken on its server as may".into()));
    }
    let job = backup_now::job(uid_of(object), template);
    let create = objects::create(&context.client, &context.settings.namespace, &job);
    context.gate.pass(&format!("create Job {}", job.name_any()), create).await?;
    Ok(Ok(row.uuid))
}

fn row_of(context: &Context, tenant: &Tenant) -> Option<TenantRow> {
    let object = Some(uid(tenant));
    let rows = context.ledger.rows().into_iter();
    rows.filter(|row| row.ledger_state == LedgerState::Provisioned).find(|row| row.object_uid == object)
}

/// Writes the status when it says something new, and tells of a new phase in an Event.
async fn write(
    context: &Context,
    object: &TenantBackup,
    mut status: TenantBackupStatus,
    reason: Reason,
    message: &str,
) -> Result<(), ApplyError> {
    let before = status_of(object);
    status.observed_generation = object.metadata.generation;
    let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
    let (ready, stalled) = (status.phase == BackupPhase::Done, status.phase == BackupPhase::Failed);
    let all = [
        (ConditionType::Ready, ready),
        (ConditionType::Reconciling, !ready && !stalled),
        (ConditionType::Stalled, stalled),
    ];
    let one = |(kind, value)| {
        condition(&before.conditions, kind, Some(value), (reason, message), object.metadata.generation, now)
    };
    status.conditions = all.map(one).into();
    if object.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let patch = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "TenantBackup",
        "metadata": { "name": name, "uid": object.metadata.uid }, "status": status,
    });
    let api: Api<TenantBackup> = Api::namespaced(context.client.clone(), &namespace);
    let parameters = PatchParams::apply(MANAGER).force();
    let patch = Patch::Apply(patch);
    let written = api.patch_status(&name, &parameters, &patch);
    match context.gate.pass("write the status of a backup", written).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => return Ok(()),
        Err(source) => {
            return Err(ApplyError::kubernetes(format!("write the status of TenantBackup {namespace}/{name}"), source));
        }
    }
    if before.phase != status.phase {
        let event = Event {
            type_: if stalled { EventType::Warning } else { EventType::Normal },
            reason: format!("Backup{:?}", status.phase),
            note: Some(message.chars().take(1000).collect()),
            action: "Backup".into(),
            secondary: None,
        };
        let (events, reference) = (context.events.clone(), object.object_ref(&()));
        tokio::spawn(async move {
            if let Err(error) = events.publish(&event, &reference).await {
                tracing::debug!(error = chain(&error), "could not publish an Event");
            }
        });
    }
    Ok(())
}
