//! Backups: a CronJob for every tenant that has a database, and what their Jobs tell.
//!
//! What is asked for is compared with the CronJobs that a watch shows, and only what differs is written. A Job tells what came of
//! it in the termination message of its pod; the visit of the Tenant writes that into its status.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::context::Context;
use super::fleet::Wake;
use crate::api::LABEL_TENANT;
use crate::api::backup::BackupReport;
use crate::apply::{ApplyError, objects};
use crate::central::{LedgerState, TenantRow};
use crate::desired::backup::{self, BucketSettings, Heard, Target};
use crate::desired::plan;
use crate::error::chain;

/// Between two comparisons; a new tenant has its CronJob within this time.
const PACE: Duration = Duration::from_secs(30);

/// What the Jobs told, by tenant.
pub struct Backups {
    heard: Option<Mutex<HashMap<Uuid, Heard>>>,
}

impl Backups {
    /// Nothing heard yet.
    pub fn new(is_on: bool) -> Self {
        Self { heard: is_on.then(Mutex::default) }
    }

    /// What was told of one tenant; None: there are no backups here.
    pub fn heard(&self, uuid: Option<Uuid>) -> Option<Heard> {
        let heard = self.heard.as_ref()?.lock().unwrap_or_else(PoisonError::into_inner);
        Some(uuid.and_then(|uuid| heard.get(&uuid).cloned()).unwrap_or_default())
    }

    /// Takes a report in; says whether it is news.
    fn take(&self, report: BackupReport) -> bool {
        let Some(heard) = &self.heard else { return false };
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        let known = heard.entry(report.tenant).or_default();
        let before = known.clone();
        known.take(report);
        *known != before
    }
}

/// Keeps CronJobs as they should be and hears their Jobs, until `stop`.
pub async fn run(context: Arc<Context>, stop: CancellationToken) {
    let wanted = context.settings.backup.wanted();
    let (store, writer) = reflector::store::<PartialObjectMeta<CronJob>>();
    let namespace = &context.settings.namespace;
    let config = || watcher::Config::default().labels(backup::SELECTOR);
    let api = Api::<PartialObjectMeta<CronJob>>::namespaced(context.client.clone(), namespace);
    let watching = watcher(api, config()).default_backoff().reflect(writer).for_each(|event| {
        told("CronJobs of backups", event.map(drop));
        std::future::ready(())
    });
    let pods = watcher(Api::<Pod>::namespaced(context.client.clone(), namespace), config()).default_backoff();
    let hearing = pods.applied_objects().for_each(|pod| {
        told("pods of backups", pod.map(|pod| hear(&context, &pod)));
        std::future::ready(())
    });
    let keeping = async {
        if store.wait_until_ready().await.is_err() {
            return;
        }
        loop {
            compare(&context, &store, wanted.as_ref()).await;
            tokio::time::sleep(PACE.min(context.settings.resync)).await;
        }
    };
    tokio::select! {
        () = watching => {}
        () = hearing => {}
        () = keeping => {}
        () = stop.cancelled() => {}
    }
}

fn told(what: &str, event: Result<(), watcher::Error>) {
    if let Err(error) = event {
        tracing::warn!(error = chain(&error), "the watch of the {what} broke, trying again");
    }
}

/// Takes in what a pod that has ended says, and has its Tenant looked at.
fn hear(context: &Context, pod: &Pod) {
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ended = statuses.filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.message.as_deref());
    let label = pod.labels().get(LABEL_TENANT).and_then(|uuid| uuid.parse::<Uuid>().ok());
    for report in ended.filter_map(|message| serde_json::from_str::<Vec<BackupReport>>(message).ok()).flatten() {
        // A pod speaks for its own tenant only; and one whose clock runs ahead would be the newest for ever.
        if label != Some(report.tenant) || backup::is_ahead(report.ended_at, Timestamp::now()) {
            continue;
        }
        let (uuid, is_failure) = (report.tenant, report.taken.is_none());
        if let Some(taken) = &report.taken {
            context.metrics.backup.took(uuid, taken.seconds);
            context.metrics.backup.show(uuid, report.ended_at, i64::try_from(taken.size).unwrap_or(i64::MAX));
        }
        if !context.backups.take(report) {
            continue;
        }
        if is_failure {
            context.metrics.backup.failed();
        }
        if let Some((namespace, name)) = context.ledger.holder_of(uuid) {
            let _ = context.wake.send(Wake::One(ObjectRef::new(&name).within(&namespace)));
        }
    }
}

/// Writes the CronJobs that are not as they should be, and removes those whose tenant is gone.
async fn compare(context: &Context, store: &Store<PartialObjectMeta<CronJob>>, bucket: Option<&BucketSettings>) {
    let rows: BTreeMap<Uuid, TenantRow> = context.ledger.rows().into_iter().map(|row| (row.uuid, row)).collect();
    if let Some(bucket) = bucket {
        for row in rows.values().filter(|row| row.ledger_state == LedgerState::Provisioned) {
            let Some(job) = job(context, row, bucket) else { continue };
            let name = job.name_any();
            let known = store.get(&ObjectRef::new(&name).within(&context.settings.namespace));
            if known.is_some_and(|known| objects::is_same(&known.metadata, &job)) {
                continue;
            }
            let write = objects::apply(&context.client, &context.settings.namespace, job);
            if let Err(error) = context.gate.pass(&format!("write CronJob {name}"), write).await {
                tracing::warn!(tenant = %row.uuid, error = chain(&error), "the CronJob of a tenant's backups was not written");
            }
        }
    }
    show(context, &rows);
    for job in store.state() {
        let uuid = job.labels().get(LABEL_TENANT).and_then(|uuid| uuid.parse::<Uuid>().ok());
        // One that the ledger does not know at all stays: a ledger that was lost takes no backups with it.
        let is_over = uuid.and_then(|uuid| rows.get(&uuid)).is_some_and(|row| !row.ledger_state.is_live());
        if is_over || bucket.is_none() {
            let remove = remove(&context.client, &context.settings.namespace, job.name_any());
            if let Err(error) = context.gate.pass("remove the CronJob of a tenant that is gone", remove).await {
                tracing::warn!(error = chain(&error), "the CronJob of a tenant that is gone was not removed");
            }
        }
    }
}

/// Shows what the Tenants' statuses say: an operator that has just begun may have no pods to hear any more.
fn show(context: &Context, rows: &BTreeMap<Uuid, TenantRow>) {
    for row in rows.values() {
        if !row.ledger_state.is_live() {
            context.metrics.backup.forget(row.uuid);
            continue;
        }
        let tenant = context.tenants.get(&ObjectRef::new(&row.name).within(&row.namespace));
        let status = tenant.as_ref().and_then(|tenant| tenant.status.as_ref()?.backup.as_ref());
        if let Some((status, last)) = status.and_then(|status| Some((status, backup::last_success(status)?))) {
            context.metrics.backup.show(row.uuid, last, status.size.unwrap_or_default());
        }
    }
}

async fn remove(client: &Client, namespace: &str, name: String) -> Result<(), ApplyError> {
    objects::remove::<CronJob>(client, namespace, &name, &DeleteParams::background()).await
}

/// The CronJob that a tenant is to have; None: not everything is known that it is made from.
pub(super) fn job(context: &Context, row: &TenantRow, bucket: &BucketSettings) -> Option<CronJob> {
    let server = context.servers.get(row.server.as_deref()?)?;
    // One that was not seen yet is not taken for another.
    let identity = server.identity()?;
    let tenant = context.tenants.get(&ObjectRef::new(&row.name).within(&row.namespace))?;
    let look = |name: &str| context.plans.get(&ObjectRef::new(name)).map(|plan| plan.spec.clone());
    let plan = plan::effective(&tenant.spec.plan_ref.name, row.plan.as_deref(), look).spec;
    let wanted = backup::asked(row.uuid, tenant.spec.backup.as_ref(), plan.as_ref())?;
    let spec = server.facts(0, 0).spec;
    let target = Target {
        uuid: row.uuid,
        name: format!("{}/{}", row.namespace, row.name),
        server: row.server.as_deref()?,
        spec: &spec,
        system_identifier: &identity.system_identifier,
    };
    Some(backup::cron_job(&target, &wanted, bucket, &context.settings.namespace, &context.settings.image))
}
