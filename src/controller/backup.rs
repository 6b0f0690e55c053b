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
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
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
use super::turns::Turns;
use crate::api::backup::{BackupReport, ListedTenant};
use crate::api::plan::PlanSpec;
use crate::api::{LABEL_TENANT, Tenant};
use crate::apply::{ApplyError, objects};
use crate::central::{LedgerState, TenantRow};
use crate::desired::backup::{self, BucketSettings, Heard, Source, Target};
use crate::desired::facts::LastJob;
use crate::desired::{drill, plan, shared_backup as desired};
use crate::error::chain;
use crate::observe::jobs::{self, Standing};
use crate::observe::ledger::uid;

/// Kubernetes' label of a pod: the Job that it is of.
const LABEL_JOB: &str = "batch.kubernetes.io/job-name";
/// Between two comparisons; a new tenant has its CronJob within this time.
const PACE: Duration = Duration::from_secs(30);

/// What the Jobs told, by tenant.
pub struct Backups {
    heard: Option<Mutex<HashMap<Uuid, Heard>>>,
    /// Who asked for one now, and has it taken.
    pub turns: Turns,
    /// The group that each tenant which shares a CronJob was in, for when its Plan or its object is gone.
    groups: Mutex<HashMap<Uuid, (String, String)>>,
}

impl Backups {
    /// Nothing heard yet.
    pub fn new(is_on: bool) -> Self {
        Self { heard: is_on.then(Mutex::default), turns: Turns::default(), groups: Mutex::default() }
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
    let reading = shared_backup::read_logs(&context, ended.clone(), logs);
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
    let label = pod.labels().get(LABEL_TENANT).and_then(|uuid| uuid.parse::<Uuid>().ok());
    let job = pod.labels().get(LABEL_JOB).map_or("", String::as_str);
    let reports =
        jobs::messages(pod).filter_map(|message| serde_json::from_str::<Vec<BackupReport>>(message).ok()).flatten();
    // A pod speaks for its own tenant only.
    let reports: Vec<_> = reports.filter(|report| label == Some(report.tenant)).collect();
    // Whichever clock it has: the Job's name says what it was made for.
    if let Some(report) = drill::of_last(job, &reports)
        && context.backups.take_last(job, report)
    {
        look(context, report.tenant);
    }
    for report in reports {
        take(context, report);
    }
}

/// Takes a report in, and has its Tenant looked at where it is news.
pub(super) fn take(context: &Context, report: BackupReport) {
    let uuid = report.tenant;
    // It would be the newest for ever.
    if backup::is_ahead(report.ended_at, Timestamp::now()) {
        tracing::warn!(tenant = %uuid, at = %report.ended_at, "a report of a backup is not counted: the clock that it was made by runs ahead by more than an hour");
        return;
    }
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
    let mut asked = Asked::default();
    let mut standing = BTreeSet::new();
    if let Some(bucket) = bucket {
        for row in rows.values().filter(|row| row.ledger_state == LedgerState::Provisioned) {
            ask(context, row, bucket, &mut asked);
        }
        for job in std::mem::take(&mut asked.jobs) {
            asked.is_whole &= write(context, store, job).await;
        }
        let mut groups = desired::groups(std::mem::take(&mut asked.groups));
        let is_there = |name: &str| store.get(&ObjectRef::new(name).within(&context.settings.namespace)).is_some();
        let unsure: BTreeSet<_> =
            asked.unsure.iter().filter(|(own, _)| !is_there(own)).map(|(_, server)| server).collect();
        groups.retain(|name, group| !(unsure.contains(&group.server) && is_there(name)));
        standing = shared_backup::write(context, store, &groups, bucket).await;
        asked.is_whole &= standing.len() == groups.len();
    }
    show(context, &rows);
    for job in store.state() {
        let (name, uuid) = (job.name_any(), job.labels().get(LABEL_TENANT).and_then(|uuid| uuid.parse::<Uuid>().ok()));
        // One that the ledger does not know at all stays: a ledger that was lost takes no backups with it.
        let is_over = uuid.and_then(|uuid| rows.get(&uuid)).is_some_and(|row| !row.ledger_state.is_live());
        // What takes its place is there.
        let is_replaced = asked.surplus.get(&name).is_some_and(|by| standing.contains(by))
            || desired::is_name(&name) && asked.is_whole && !standing.contains(&name);
        if bucket.is_none() || is_over || is_replaced {
            let remove = remove(&context.client, &context.settings.namespace, name);
            if let Err(error) = context.gate.pass("remove a CronJob of backups that is for nobody", remove).await {
                tracing::warn!(error = chain(&error), "a CronJob of backups that is for nobody was not removed");
            }
        }
    }
}

/// What all tenants are to have.
struct Asked {
    jobs: Vec<CronJob>,
    groups: Vec<(String, String, ListedTenant)>,
    /// CronJobs of tenants that share one now, and which.
    surplus: BTreeMap<String, String>,
    /// CronJobs of the own of tenants of which nothing is known, and their servers.
    unsure: Vec<(String, String)>,
    /// All could be asked for, and what was asked for so far is there.
    is_whole: bool,
}

impl Default for Asked {
    fn default() -> Self {
        Self { jobs: Vec::new(), groups: Vec::new(), surplus: BTreeMap::new(), unsure: Vec::new(), is_whole: true }
    }
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
    if desired::is_name(&name) {
        objects::remove::<ConfigMap>(client, namespace, &name, &DeleteParams::background()).await?;
    }
    objects::remove::<CronJob>(client, namespace, &name, &DeleteParams::background()).await
}

/// What a tenant is to have, as far as that can be said now.
fn ask(context: &Context, row: &TenantRow, bucket: &BucketSettings, asked: &mut Asked) {
    let (namespace, image) = (&context.settings.namespace, &context.settings.image);
    let own = backup::name(row.uuid);
    let tenant = context.tenants.get(&ObjectRef::new(&row.name).within(&row.namespace));
    let plan = tenant.as_ref().and_then(|tenant| plan_of(context, row, tenant));
    let mut groups = context.backups.groups.lock().unwrap_or_else(PoisonError::into_inner);
    let (Some(tenant), Some(plan)) = (tenant, plan) else {
        // An object or a Plan that is not there says nothing: what there is stays, and nothing is removed meanwhile.
        asked.is_whole = false;
        match (groups.get(&row.uuid).cloned(), &row.server) {
            (Some((server, schedule)), _) => asked.groups.push((server, schedule, listed(row, None))),
            // Which list it is in is not known since this operator began: none is written without it.
            (None, Some(server)) => asked.unsure.push((own, server.clone())),
            (None, None) => {}
        }
        return;
    };
    let wanted = backup::wanted(row.uuid, tenant.spec.backup.as_ref(), plan.backup.as_ref());
    let shares = desired::is_shared(Some(&plan));
    if shares && let Some(server) = &row.server {
        let schedule = backup::schedule(tenant.spec.backup.as_ref(), plan.backup.as_ref()).to_owned();
        asked.surplus.insert(own, desired::name_of(server, &schedule));
        groups.insert(row.uuid, (server.clone(), schedule.clone()));
        asked.groups.push((server.clone(), schedule, listed(row, Some(wanted.keep))));
    } else {
        groups.remove(&row.uuid);
    }
    let rehearsed = drill::wanted(row.uuid, &tenant.spec, Some(&plan));
    let jobs = with_target(context, row, |target| {
        let taken = (!shares).then(|| backup::cron_job(target, &wanted, bucket, namespace, image));
        let rehearsed = drill::cron_job(target, &rehearsed, bucket, namespace, image);
        taken.into_iter().chain([rehearsed]).collect::<Vec<_>>()
    });
    asked.is_whole &= jobs.is_some();
    asked.jobs.extend(jobs.into_iter().flatten());
}

fn plan_of(context: &Context, row: &TenantRow, tenant: &Tenant) -> Option<PlanSpec> {
    let look = |name: &str| context.plans.get(&ObjectRef::new(name)).map(|plan| plan.spec.clone());
    plan::effective(&tenant.spec.plan_ref.name, row.plan.as_deref(), look).spec
}

fn listed(row: &TenantRow, keep: Option<[i32; 3]>) -> ListedTenant {
    ListedTenant { uuid: row.uuid, name: format!("{}/{}", row.namespace, row.name), keep }
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
    let api: Api<Job> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    match api.get_opt(name).await {
        Ok(None) => LastJob::Absent,
        Ok(Some(job)) => match jobs::standing(&job) {
            Standing::Running => LastJob::Running,
            Standing::Succeeded => LastJob::Succeeded,
            Standing::Failed(reason) => LastJob::Failed(reason),
        },
        Err(error) => LastJob::Unknown(chain(&error)),
    }
}

/// The CronJob that takes a tenant's backups, also where one for many does: what its Jobs of other kinds are made from. None: not
/// everything is known that it is made from.
pub fn job(context: &Context, row: &TenantRow, bucket: &BucketSettings) -> Option<CronJob> {
    let (namespace, image) = (&context.settings.namespace, &context.settings.image);
    let tenant = context.tenants.get(&ObjectRef::new(&row.name).within(&row.namespace))?;
    let plan = plan_of(context, row, &tenant)?;
    let wanted = backup::wanted(row.uuid, tenant.spec.backup.as_ref(), plan.backup.as_ref());
    with_target(context, row, |target| backup::cron_job(target, &wanted, bucket, namespace, image))
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
