//! Backups: two CronJobs for every tenant that has a database, one that takes them and one that rehearses a restore; the Job of
//! a last backup before a delete; and what these tell.
//!
//! What is asked for is compared with the CronJobs that a watch shows, and only what differs is written. A Job tells what came of
//! it in the termination message of its pod; the visit of the Tenant writes that into its status.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::context::Context;
use super::fleet::Wake;
use super::shared_backup;
use crate::api::backup::{BackupReport, ListedTenant};
use crate::api::{LABEL_TENANT, Tenant};
use crate::apply::{ApplyError, objects};
use crate::central::{LedgerState, TenantRow};
use crate::desired::backup::{self, BucketSettings, Heard, Source, Target};
use crate::desired::facts::LastJob;
use crate::desired::{drill, plan, shared_backup as desired};
use crate::error::chain;
use crate::observe::ledger::uid;

/// Kubernetes' label of a pod: the Job that it is of.
const LABEL_JOB: &str = "batch.kubernetes.io/job-name";
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
        self.change(report.tenant, |heard| heard.take(report))
    }

    /// Takes in that the Job `job` restored the backup which it took; says whether it is news.
    fn take_last(&self, job: &str, report: &BackupReport) -> bool {
        self.change(report.tenant, |heard| heard.take_last(job, report.clone()))
    }

    /// Whether a report would be news.
    fn is_news(&self, report: &BackupReport) -> bool {
        let before = self.heard(Some(report.tenant)).unwrap_or_default();
        let mut after = before.clone();
        after.take(report.clone());
        before != after
    }

    fn change(&self, tenant: Uuid, change: impl FnOnce(&mut Heard)) -> bool {
        let Some(heard) = &self.heard else { return false };
        let mut heard = heard.lock().unwrap_or_else(PoisonError::into_inner);
        let known = heard.entry(tenant).or_default();
        let before = known.clone();
        change(known);
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
    let (ended, logs) = mpsc::unbounded_channel();
    let hearing = pods.applied_objects().for_each(|pod| {
        told("pods of backups", pod.map(|pod| hear(&context, &pod, &ended)));
        std::future::ready(())
    });
    let reading = shared_backup::read_logs(&context, logs);
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
        () = reading => {}
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
fn hear(context: &Context, pod: &Pod, logs: &mpsc::UnboundedSender<Pod>) {
    if shared_backup::is_ended(pod) {
        // The receiver lives as long as the watch.
        let _ = logs.send(pod.clone());
        return;
    }
    let statuses = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
    let ended = statuses.filter_map(|status| status.state.as_ref()?.terminated.as_ref()?.message.as_deref());
    let label = pod.labels().get(LABEL_TENANT).and_then(|uuid| uuid.parse::<Uuid>().ok());
    let job = pod.labels().get(LABEL_JOB).map_or("", String::as_str);
    let reports = ended.filter_map(|message| serde_json::from_str::<Vec<BackupReport>>(message).ok()).flatten();
    // A pod speaks for its own tenant only; and one whose clock runs ahead would be the newest for ever.
    let reports: Vec<_> = reports
        .filter(|report| label == Some(report.tenant) && !backup::is_ahead(report.ended_at, Timestamp::now()))
        .collect();
    if let Some(report) = drill::of_last(job, &reports)
        && context.backups.take_last(job, report)
    {
        look(context, report.tenant);
    }
    reports.into_iter().for_each(|report| take(context, report));
}

/// Takes a report in, and has its Tenant looked at where it is news.
pub(super) fn take(context: &Context, report: BackupReport) {
    let uuid = report.tenant;
    count(context, &report);
    if context.backups.take(report) {
        look(context, uuid);
    }
}

fn look(context: &Context, uuid: Uuid) {
    if let Some((namespace, name)) = context.ledger.holder_of(uuid) {
        // A closed channel: the operator is stopping.
        let _ = context.wake.send(Wake::One(ObjectRef::new(&name).within(&namespace)));
    }
}

/// The figures of a report.
fn count(context: &Context, report: &BackupReport) {
    let metrics = &context.metrics.backup;
    if let Some(taken) = &report.taken {
        metrics.took(report.tenant, taken.seconds);
        metrics.show(report.tenant, report.ended_at, i64::try_from(taken.size).unwrap_or(i64::MAX));
    }
    if report.restored.is_some() {
        metrics.show_verified(report.tenant, report.ended_at);
    }
    if report.error.is_some() && context.backups.is_news(report) {
        metrics.failed(report.rehearsal);
    }
}

/// Writes the CronJobs that are not as they should be, and removes those that are for nobody any more.
async fn compare(context: &Context, store: &Store<PartialObjectMeta<CronJob>>, bucket: Option<&BucketSettings>) {
    let rows: BTreeMap<Uuid, TenantRow> = context.ledger.rows().into_iter().map(|row| (row.uuid, row)).collect();
    let mut wanted = Asked::default();
    if let Some(bucket) = bucket {
        for row in rows.values().filter(|row| row.ledger_state == LedgerState::Provisioned) {
            ask(context, store, row, bucket, &mut wanted);
        }
        for job in std::mem::take(&mut wanted.jobs) {
            write(context, store, job).await;
        }
        shared_backup::write(context, store, &wanted.groups, bucket).await;
    }
    show(context, &rows);
    for job in store.state() {
        let (name, uuid) = (job.name_any(), job.labels().get(LABEL_TENANT).and_then(|uuid| uuid.parse::<Uuid>().ok()));
        // One that the ledger does not know at all stays: a ledger that was lost takes no backups with it.
        let is_over = uuid.and_then(|uuid| rows.get(&uuid)).is_some_and(|row| !row.ledger_state.is_live());
        if bucket.is_none() || is_over || wanted.surplus.contains(&name) {
            let remove = remove(&context.client, &context.settings.namespace, name);
            if let Err(error) = context.gate.pass("remove a CronJob of backups that is for nobody", remove).await {
                tracing::warn!(error = chain(&error), "a CronJob of backups that is for nobody was not removed");
            }
        }
    }
}

/// What all tenants are to have.
#[derive(Default)]
struct Asked {
    jobs: Vec<CronJob>,
    groups: Vec<(String, String, ListedTenant)>,
    /// CronJobs of tenants that share one now.
    surplus: BTreeSet<String>,
}

/// Writes a CronJob that is not as it should be.
pub(super) async fn write(context: &Context, store: &Store<PartialObjectMeta<CronJob>>, job: CronJob) -> bool {
    let name = job.name_any();
    let known = store.get(&ObjectRef::new(&name).within(&context.settings.namespace));
    if known.is_some_and(|known| objects::is_same(&known.metadata, &job)) {
        return true;
    }
    let write = objects::apply(&context.client, &context.settings.namespace, job);
    let written = context.gate.pass(&format!("write CronJob {name}"), write).await;
    if let Err(error) = &written {
        tracing::warn!(name, error = chain(error), "a CronJob of backups was not written");
    }
    written.is_ok()
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
        if let Some(verified) = status.and_then(drill::verified_at) {
            context.metrics.backup.show_verified(row.uuid, verified);
        }
    }
}

async fn remove(client: &Client, namespace: &str, name: String) -> Result<(), ApplyError> {
    objects::remove::<CronJob>(client, namespace, &name, &DeleteParams::background()).await
}

/// What a tenant is to have, as far as that can be said now.
fn ask(
    context: &Context,
    store: &Store<PartialObjectMeta<CronJob>>,
    row: &TenantRow,
    bucket: &BucketSettings,
    asked: &mut Asked,
) {
    let Some(tenant) = context.tenants.get(&ObjectRef::new(&row.name).within(&row.namespace)) else { return };
    let look = |name: &str| context.plans.get(&ObjectRef::new(name)).map(|plan| plan.spec.clone());
    let plan = plan::effective(&tenant.spec.plan_ref.name, row.plan.as_deref(), look).spec;
    let (namespace, image) = (&context.settings.namespace, &context.settings.image);
    let own = backup::name(row.uuid);
    let has_own = store.get(&ObjectRef::new(&own).within(namespace)).is_some();
    let wanted = backup::asked(row.uuid, tenant.spec.backup.as_ref(), plan.as_ref());
    // A Plan that is not there says nothing: who shared a CronJob goes on doing so, and keeps what there is.
    let shares = desired::is_shared(plan.as_ref()) || plan.is_none() && !has_own;
    if shares && let Some(server) = &row.server {
        let plans = plan.as_ref().and_then(|plan| plan.backup.as_ref());
        let schedule = backup::schedule(tenant.spec.backup.as_ref(), plans).to_owned();
        let keep = wanted.as_ref().map(|wanted| wanted.keep);
        let listed = ListedTenant { uuid: row.uuid, name: format!("{}/{}", row.namespace, row.name), keep };
        let shared = ObjectRef::new(&desired::name_of(server, &schedule)).within(namespace);
        // Not before there is one that takes its place.
        if store.get(&shared).is_some() {
            asked.surplus.insert(own);
        }
        asked.groups.push((server.clone(), schedule, listed));
    }
    let jobs = with_target(context, row, |target| {
        let taken =
            wanted.filter(|_| !shares).map(|wanted| backup::cron_job(target, &wanted, bucket, namespace, image));
        let rehearsed = drill::asked(row.uuid, &tenant.spec, plan.as_ref());
        let rehearsed = rehearsed.map(|schedule| drill::cron_job(target, &schedule, bucket, namespace, image));
        taken.into_iter().chain(rehearsed).collect::<Vec<_>>()
    });
    asked.jobs.extend(jobs.into_iter().flatten());
}

/// Calls `make` with what the Jobs of a tenant read; None: its server was not seen yet, and is not taken for another.
fn with_target<T>(context: &Context, row: &TenantRow, make: impl FnOnce(&Target<'_>) -> T) -> Option<T> {
    with_source(context, row.server.as_deref()?, |source| {
        make(&Target { source: *source, uuid: row.uuid, name: format!("{}/{}", row.namespace, row.name) })
    })
}

/// As [`with_target`], for a server.
pub(super) fn with_source<T>(context: &Context, name: &str, make: impl FnOnce(&Source<'_>) -> T) -> Option<T> {
    let server = context.servers.get(name)?;
    let identity = server.identity()?;
    let spec = server.facts(0, 0).spec;
    Some(make(&Source { server: name, spec: &spec, system_identifier: &identity.system_identifier }))
}

/// Whether a Job of the operator's namespace is there, and whether it has given up.
pub async fn last_job(context: &Context, name: &str) -> LastJob {
    let jobs: Api<Job> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    match jobs.get_opt(name).await {
        Ok(None) => LastJob::Absent,
        Ok(Some(job)) => {
            let conditions = job.status.into_iter().flat_map(|status| status.conditions.unwrap_or_default());
            let mut failed = conditions.filter(|condition| condition.type_ == "Failed" && condition.status == "True");
            if failed.next().is_some() { LastJob::Failed } else { LastJob::There }
        }
        Err(error) => LastJob::Unknown(chain(&error)),
    }
}

/// Makes the Job that takes the last backup of a tenant before its delete.
///
/// # Errors
/// The server was not seen yet; the API server refused the Job or did not answer.
pub async fn make_last(context: &Context, tenant: &Tenant, uuid: Uuid) -> Result<(), ApplyError> {
    let stale = |what: &str| ApplyError::Stale(format!("{what} of Tenant {} is not known", tenant.name_any()));
    let bucket = context.settings.backup.wanted().ok_or_else(|| stale("the bucket"))?;
    let row = context.ledger.rows().into_iter().find(|row| row.uuid == uuid).ok_or_else(|| stale("the row"))?;
    let (namespace, image) = (&context.settings.namespace, &context.settings.image);
    let job = with_target(context, &row, |target| drill::last_job(target, uid(tenant), &bucket, namespace, image));
    let job = job.ok_or_else(|| stale("the server"))?;
    objects::create(&context.client, namespace, &job).await
}
