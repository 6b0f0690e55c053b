//! A tenant's backups: the CronJob that takes them, and whether the newest is young enough.
//!
//! From      `Tenant.spec.backup`, `Plan.spec.backup`, what the Jobs told
//! Makes     a CronJob `backup-<uuid>` in the operator's namespace; `status.backup`, the condition `BackupFresh` (that they
//!           restore: `drill`)
//! Ready     has no part in it: customers are served whether there is a backup or not

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::CronJob;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::api::backup::BackupReport;
use crate::api::condition::Reason;
use crate::api::plan::PlanBackup;
use crate::api::server::DatabaseServerSpec;
use crate::api::tenant::{Backup, BackupStatus, Retention};
use crate::api::{LABEL_SERVER, LABEL_TENANT, MANAGED_BY};

use super::facts::{Facts, LedgerRow};
use super::{drill, names, shared_backup};

/// Once a night, each tenant at another minute of three hours.
const SCHEDULE: &str = "H H(1-3) * * *";
/// Kept of each where neither Tenant nor Plan says anything.
const RETENTION: [i32; 3] = [7, 4, 12];
/// The newest backup is young for so long at least.
const FRESH: SignedDuration = SignedDuration::from_hours(26);
/// Clocks of one cluster differ by less.
const AHEAD: SignedDuration = SignedDuration::from_hours(1);
/// Label and value by which Jobs and pods of backups are found.
pub const SELECTOR: &str = "app.kubernetes.io/component=backup,app.kubernetes.io/managed-by=maintenance-os";
const USER: i64 = 65532;
const CA: &str = "/etc/maintenance-os/server";
/// File that a Job writes its reports into; Kubernetes makes it the termination message.
const REPORT: &str = "/dev/termination-log";

/// The bucket of backups, as the chart says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketSettings {
    /// Its name.
    pub bucket: String,
    /// Its region.
    pub region: String,
    /// Address of the server; "" is Amazon's.
    pub endpoint: String,
    /// Secret of the operator's namespace with `AWS_ACCESS_KEY_ID` and `AWS_SECRET_ACCESS_KEY`.
    pub secret: String,
    /// Account of the Jobs' pods; it has no rights.
    pub account: String,
}

/// What backups a tenant is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Cron schedule in UTC, as Kubernetes knows it.
    pub schedule: String,
    /// The newest of each of so many days, weeks and months.
    pub keep: [i32; 3],
}

/// The schedule as it is written: what the Tenant says, else what its Plan says, else every night.
pub fn schedule<'a>(tenant: Option<&'a Backup>, plan: Option<&'a PlanBackup>) -> &'a str {
    let asked = tenant.and_then(|backup| backup.schedule.as_deref());
    asked.or_else(|| plan.and_then(|backup| backup.schedule.as_deref())).unwrap_or(SCHEDULE)
}

/// What the Tenant says, else what its Plan says, else every night.
pub fn wanted(uuid: Uuid, tenant: Option<&Backup>, plan: Option<&PlanBackup>) -> Wanted {
    let of = |pick: fn(&Retention) -> Option<i32>| {
        let own = tenant.and_then(|backup| backup.retention.as_ref()).and_then(pick);
        own.or_else(|| plan.and_then(|backup| backup.retention.as_ref()).and_then(pick))
    };
    let kept = [of(|kept| kept.daily), of(|kept| kept.weekly), of(|kept| kept.monthly)];
    // Each by itself: whoever asks for more days does not ask for fewer months.
    let keep = std::array::from_fn(|kind| kept[kind].unwrap_or(RETENTION[kind]));
    Wanted { schedule: spread(schedule(tenant, plan), uuid), keep }
}

/// Whether a time is of a clock that runs ahead: it must not count as the newest for ever.
pub fn is_ahead(time: Timestamp, now: Timestamp) -> bool {
    time.duration_since(now) > AHEAD
}

/// Puts a number of the tenant's own in the place of each `H`, or `H(a-b)`: the same for a tenant each time, so that a fleet's
/// backups are spread.
pub(super) fn spread(schedule: &str, uuid: Uuid) -> String {
    // Days that every month has.
    let ranges = [(0, 59), (0, 23), (1, 28), (1, 12), (0, 6)];
    let fields = schedule.split_ascii_whitespace().zip(ranges).enumerate();
    let numbers = fields.map(|(place, (field, whole))| {
        let Some(rest) = field.strip_prefix('H') else { return field.to_owned() };
        let inner = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
        let bounds = inner.and_then(|inner| inner.split_once('-'));
        let parsed = bounds.and_then(|(low, high)| Some((low.parse().ok()?, high.parse().ok()?)));
        let (low, high): (u32, u32) = parsed.filter(|(low, high)| low <= high).unwrap_or(whole);
        let digest = Sha256::digest([uuid.as_bytes().as_slice(), &[u8::try_from(place).unwrap_or_default()]].concat());
        let random = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
        (low + random % (high - low + 1)).to_string()
    });
    numbers.collect::<Vec<_>>().join(" ")
}

/// How old the newest backup may be: 26 hours, or the schedule's longest pause and a tenth.
pub fn limit(schedule: &str) -> SignedDuration {
    let mut fields = schedule.split_ascii_whitespace();
    let mut is_any = || fields.next().is_none_or(|field| field.starts_with('*'));
    let (_, _, day, month, weekday) = (is_any(), is_any(), is_any(), is_any(), is_any());
    let days = match (month, day, weekday) {
        (false, ..) => 366,
        (true, false, true) => 31,
        // Of two kinds of days, either begins one.
        (true, _, false) => 7,
        (true, true, true) => 1,
    };
    FRESH.max(SignedDuration::from_secs(days * 86_400 * 11 / 10))
}

/// What the Jobs of a tenant told, as far as their pods are still there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heard {
    /// The newest backup.
    pub taken: Option<BackupReport>,
    /// The newest failure to take one.
    pub failed: Option<BackupReport>,
    /// The newest rehearsal of a restore that went well.
    pub restored: Option<BackupReport>,
    /// The newest that failed.
    pub unrestored: Option<BackupReport>,
    /// By Job: the backup that it took for a delete, and restored.
    pub before_delete: BTreeMap<String, BackupReport>,
}

/// A server, as Jobs read it.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    /// The DatabaseServer.
    pub server: &'a str,
    /// Its spec.
    pub spec: &'a DatabaseServerSpec,
    /// PostgreSQL's identity of it: the Job refuses another one.
    pub system_identifier: &'a str,
}

/// What the Job of one tenant reads.
pub struct Target<'a> {
    /// Where.
    pub source: Source<'a>,
    /// The tenant.
    pub uuid: Uuid,
    /// `namespace/name` of the Tenant.
    pub name: String,
}

/// `backup-<uuid>`: 43 characters of the 52 that a CronJob's name may have.
pub fn name(uuid: Uuid) -> String {
    format!("backup-{uuid}")
}

/// Labels of all CronJobs, Jobs and pods of backups.
pub(super) fn labels_of(server: &str) -> Value {
    json!({
        "app.kubernetes.io/name": "maintenance-os",
        "app.kubernetes.io/component": "backup",
        "app.kubernetes.io/part-of": "maintenance-os",
        "app.kubernetes.io/managed-by": MANAGED_BY,
        LABEL_SERVER: server,
    })
}

/// Labels of those of one tenant.
pub(super) fn labels(target: &Target<'_>) -> Value {
    let mut labels = labels_of(target.source.server);
    labels[LABEL_TENANT] = json!(target.uuid.to_string());
    labels
}

/// The CronJob that takes a tenant's backups.
pub fn cron_job(
    target: &Target<'_>,
    wanted: &Wanted,
    bucket: &BucketSettings,
    namespace: &str,
    image: &str,
) -> CronJob {
    let environment = [reader(&target.source), keep(wanted)].concat();
    let pod = pod_for(target, &["run", "--name", &target.name], &environment, bucket, image);
    scheduled(&name(target.uuid), namespace, &labels(target), &wanted.schedule, &once(&pod, &labels(target)))
}

/// A Job that is tried again when it fails.
pub(super) fn once(pod: &Value, labels: &Value) -> Value {
    json!({
        "backoffLimit": 3,
        "activeDeadlineSeconds": 6 * 3600,
        "template": { "metadata": { "labels": labels }, "spec": pod },
    })
}

/// A CronJob of `job`.
pub(super) fn scheduled(name: &str, namespace: &str, labels: &Value, schedule: &str, job: &Value) -> CronJob {
    let cron_job = json!({
        "metadata": { "name": name, "namespace": namespace, "labels": labels },
        "spec": {
            "schedule": schedule,
            "timeZone": "Etc/UTC",
            "concurrencyPolicy": "Forbid",
            // What an outage kept from running is made up for within the hour, and not all at once later.
            "startingDeadlineSeconds": 3600,
            "successfulJobsHistoryLimit": 1,
            "failedJobsHistoryLimit": 1,
            "jobTemplate": { "metadata": { "labels": labels }, "spec": job },
        },
    });
    serde_json::from_value(cron_job).expect("a CronJob is written as the API has it")
}

/// The pod of a Job that does `command` for the tenant with these variables beside those of [`place`].
pub(super) fn pod_for(
    target: &Target<'_>,
    command: &[&str],
    environment: &[Value],
    bucket: &BucketSettings,
    image: &str,
) -> Value {
    let uuid = target.uuid.to_string();
    let arguments = [command, &["--tenant", &uuid, "--report", REPORT]].concat();
    pod(&target.source, &arguments, environment, bucket, image)
}

/// The pod of a Job that does `command` with these variables beside those of [`place`].
pub(super) fn pod(
    source: &Source<'_>,
    command: &[&str],
    environment: &[Value],
    bucket: &BucketSettings,
    image: &str,
) -> Value {
    let connection = &source.spec.connection_secret_ref.name;
    let arguments = [&["backup"], command].concat();
    let variables = [&place(source, bucket), environment].concat();
    json!({
        "serviceAccountName": bucket.account,
        "automountServiceAccountToken": false,
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 30,
        "securityContext": { "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER, "seccompProfile": { "type": "RuntimeDefault" } },
        // The authority only: the provisioner's password lies in the same Secret.
        "volumes": [{ "name": "server", "secret": { "secretName": connection, "items": [{ "key": "ca.crt", "path": "ca.crt" }], "optional": true } }],
        "containers": [{
            "name": "backup",
            "image": image,
            "args": arguments,
            "env": variables,
            "terminationMessagePath": REPORT,
            "resources": { "requests": { "cpu": "50m", "memory": "64Mi" }, "limits": { "memory": "256Mi" } },
            "securityContext": { "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } },
            "volumeMounts": [{ "name": "server", "mountPath": CA, "readOnly": true }],
        }],
    })
}

fn plain(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

fn secret(name: &str, secret: &str, key: &str) -> Value {
    json!({ "name": name, "valueFrom": { "secretKeyRef": { "name": secret, "key": key } } })
}

/// What a Job that takes backups needs to get in.
pub(super) fn reader(source: &Source<'_>) -> Vec<Value> {
    vec![secret("MOS_BACKUP_PASSWORD", &names::server_roles(source.server), "backup")]
}

/// What a Job that makes scratch databases needs to get in.
pub(super) fn provisioner(source: &Source<'_>) -> Vec<Value> {
    let connection = &source.spec.connection_secret_ref.name;
    vec![secret("MOS_PROVISIONER", connection, "username"), secret("MOS_PROVISIONER_PASSWORD", connection, "password")]
}

fn keep(wanted: &Wanted) -> Vec<Value> {
    let names = ["MOS_KEEP_DAILY", "MOS_KEEP_WEEKLY", "MOS_KEEP_MONTHLY"];
    names.iter().zip(wanted.keep).map(|(name, count)| plain(name, &count.to_string())).collect()
}

/// Where the database and the bucket are.
fn place(source: &Source<'_>, bucket: &BucketSettings) -> Vec<Value> {
    let connection = &source.spec.connection_secret_ref.name;
    let mut variables = vec![
        plain("MOS_SERVER", source.server),
        secret("MOS_SERVER_HOST", connection, "host"),
        secret("MOS_SERVER_PORT", connection, "port"),
        plain("MOS_SERVER_SSLMODE", source.spec.ssl_mode.as_str()),
        plain("MOS_SERVER_CA", &format!("{CA}/ca.crt")),
        plain("MOS_SYSTEM_IDENTIFIER", source.system_identifier),
        secret("AWS_ACCESS_KEY_ID", &bucket.secret, "AWS_ACCESS_KEY_ID"),
        secret("AWS_SECRET_ACCESS_KEY", &bucket.secret, "AWS_SECRET_ACCESS_KEY"),
        plain("AWS_DEFAULT_REGION", &bucket.region),
        plain("AWS_BUCKET", &bucket.bucket),
    ];
    if !bucket.endpoint.is_empty() {
        variables.push(plain("AWS_URL", &bucket.endpoint));
        variables.push(plain("MOS_S3_CUSTOM_ENDPOINT", "true"));
        variables
            .push(plain("MOS_S3_ALLOW_HTTP", if bucket.endpoint.starts_with("http://") { "true" } else { "false" }));
    }
    variables
}

/// What is known of the backups, as far as it was ever told.
pub fn status(facts: &Facts) -> Option<BackupStatus> {
    let before = facts.status().backup;
    let Some(heard) = &facts.backup else { return before };
    let mut status = before.clone().unwrap_or_default();
    newest(&mut status, heard, facts.now);
    drill::status(&mut status, heard, facts);
    (status != BackupStatus::default()).then_some(status)
}

fn newest(status: &mut BackupStatus, heard: &Heard, now: Timestamp) {
    let told = heard.taken.as_ref().and_then(|report| Some((report, report.taken.as_ref()?)));
    let Some((report, taken)) = told else { return };
    let last = last_success(status).filter(|last| !is_ahead(*last, now));
    if last.is_some_and(|last| last >= report.ended_at) {
        return;
    }
    status.last_success = Some(report.ended_at.to_string());
    status.name = Some(taken.name.clone());
    status.size = i64::try_from(taken.size).ok();
    status.sha256 = Some(taken.sha256.clone());
}

/// When the backup that a status tells of ended.
pub fn last_success(status: &BackupStatus) -> Option<Timestamp> {
    status.last_success.as_deref()?.parse().ok()
}

/// Whether the newest backup is young enough, and what to do where it is not. None: there are no backups here.
pub fn fresh(facts: &Facts) -> Option<(Option<bool>, Reason, String)> {
    let row = facts.row().filter(|_| facts.backup.is_some())?;
    let wanted =
        wanted(row.uuid, facts.tenant.spec.backup.as_ref(), facts.plan.as_ref().and_then(|plan| plan.backup.as_ref()));
    let last = status(facts).as_ref().and_then(last_success);
    let failed = facts.backup.as_ref().and_then(|heard| heard.failed.as_ref());
    let failed = failed.filter(|report| last.is_none_or(|last| report.ended_at > last));
    let failed = failed.and_then(|report| {
        Some(format!("; the last attempt, at {}, failed: {}", report.ended_at, report.error.as_ref()?))
    });
    let failed = failed.unwrap_or_default();
    let job = job_of(facts, row);
    let try_now = format!(
        "kubectl create job --from=cronjob/{job} {}-now -n <the operator's namespace>, then kubectl logs on it",
        &job[..22]
    );
    Some(match (last, overdue_at(facts, &wanted, last)) {
        (Some(last), Some(limit)) if facts.now < limit => {
            (Some(true), Reason::Active, format!("the newest backup is of {last}{failed}"))
        }
        (Some(last), _) => (
            Some(false),
            Reason::BackupOverdue,
            format!(
                "the newest backup is of {last}, which is too old for the schedule {}{failed}. Customers are served as before. To try now: {try_now}",
                wanted.schedule
            ),
        ),
        (None, Some(limit)) if facts.now < limit => (
            None,
            Reason::Provisioning,
            format!("there is no backup yet; the schedule is {} UTC{failed}", wanted.schedule),
        ),
        (None, _) => (
            Some(false),
            Reason::BackupOverdue,
            format!(
                "there is no backup although one was due by the schedule {}{failed}. Customers are served as before. To try now: {try_now}",
                wanted.schedule
            ),
        ),
    })
}

/// The CronJob that takes the tenant's backups.
fn job_of(facts: &Facts, row: &LedgerRow) -> String {
    match (&row.server, &facts.plan) {
        (Some(server), plan) if shared_backup::is_shared(plan.as_ref()) => {
            let asked =
                schedule(facts.tenant.spec.backup.as_ref(), plan.as_ref().and_then(|plan| plan.backup.as_ref()));
            shared_backup::name_of(server, asked)
        }
        _ => name(row.uuid),
    }
}

/// When the newest backup is too old, or the first one too late.
fn overdue_at(facts: &Facts, wanted: &Wanted, last: Option<Timestamp>) -> Option<Timestamp> {
    let since = last.or_else(|| facts.tenant.metadata.creation_timestamp.as_ref().map(|time| time.0))?;
    since.checked_add(limit(&wanted.schedule)).ok()
}

/// When the newest backup becomes too old, where it is not yet.
pub fn next_change(facts: &Facts) -> Option<Timestamp> {
    let row = facts.row().filter(|_| facts.backup.is_some())?;
    let wanted =
        wanted(row.uuid, facts.tenant.spec.backup.as_ref(), facts.plan.as_ref().and_then(|plan| plan.backup.as_ref()));
    let last = status(facts).as_ref().and_then(last_success);
    overdue_at(facts, &wanted, last).filter(|limit| *limit > facts.now)
}

impl Heard {
    /// Takes a report in. Of each kind the newest counts, in whatever order they are heard.
    pub fn take(&mut self, report: BackupReport) {
        let known = match (report.rehearsal, report.error.is_some()) {
            (false, false) => &mut self.taken,
            (false, true) => &mut self.failed,
            (true, false) => &mut self.restored,
            (true, true) => &mut self.unrestored,
        };
        if known.as_ref().is_none_or(|known| known.ended_at < report.ended_at) {
            *known = Some(report);
        }
    }

    /// Takes in that the Job `job` restored the backup which it took.
    pub fn take_last(&mut self, job: &str, report: BackupReport) {
        self.before_delete.insert(job.to_owned(), report);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn uuid(number: u128) -> Uuid {
        Uuid::from_u128(number)
    }

    #[test]
    fn tenants_are_spread_over_the_hour_and_each_keeps_its_minute() {
        let minutes: std::collections::BTreeSet<_> = (0..600).map(|number| spread("H 2 * * *", uuid(number))).collect();
        assert_eq!(minutes.len(), 60);
        assert_eq!(spread("H 2 * * *", uuid(7)), spread("H 2 * * *", uuid(7)));
        for number in 0..200 {
            let spread = spread("H H(1-3) * * H", uuid(number));
            let fields: Vec<u32> = spread.split(' ').filter_map(|field| field.parse().ok()).collect();
            assert!(fields[0] < 60 && (1..=3).contains(&fields[1]) && fields[2] < 7, "{spread}");
        }
        assert_eq!(spread("*/15 2,4 1-5 * *", uuid(1)), "*/15 2,4 1-5 * *");
    }

    #[test]
    fn a_backup_may_be_as_old_as_its_schedule_allows() {
        for (schedule, hours) in [
            ("5 2 * * *", 26.4),
            ("5 * * * *", 26.4),
            ("5 2 * * 0", 7.0 * 26.4),
            ("5 2 1 * *", 31.0 * 26.4),
            ("5 2 1 * 0", 7.0 * 26.4),
            ("5 2 1 1 *", 366.0 * 26.4),
        ] {
            assert!((limit(schedule).as_secs_f64() / 3600.0 - hours).abs() < 0.01, "{schedule}: {:?}", limit(schedule));
        }
    }

    #[test]
    fn the_tenant_says_more_than_its_plan_and_the_plan_more_than_nothing() {
        let keep = |daily, weekly, monthly| Some(Retention { daily, weekly, monthly });
        let plan = PlanBackup {
            schedule: Some("1 1 * * *".into()),
            retention: keep(Some(3), None, None),
            ..PlanBackup::default()
        };
        let tenant = Backup { schedule: Some("2 2 * * *".into()), retention: keep(None, Some(5), None), verify: None };
        let id = uuid(1);
        assert_eq!(wanted(id, None, None).keep, [7, 4, 12]);
        assert_eq!(wanted(id, None, Some(&plan)), Wanted { schedule: "1 1 * * *".into(), keep: [3, 4, 12] });
        assert_eq!(wanted(id, Some(&tenant), Some(&plan)), Wanted { schedule: "2 2 * * *".into(), keep: [3, 5, 12] });
        let none = Backup { retention: keep(None, Some(0), Some(0)), ..Backup::default() };
        assert_eq!(wanted(id, Some(&none), Some(&plan)).keep, [3, 0, 0], "none has to be said");
    }

    #[test]
    fn a_backup_of_a_clock_that_ran_ahead_is_not_the_newest_for_ever() {
        let mut facts = crate::desired::convergence::facts_of("acme");
        let taken = crate::api::backup::BackupTaken { name: "n".into(), size: 1, ..Default::default() };
        let report =
            BackupReport { tenant: uuid(1), ended_at: facts.now, taken: Some(taken), ..BackupReport::default() };
        let ahead = facts.now + SignedDuration::from_hours(24 * 365);
        let before = BackupStatus { last_success: Some(ahead.to_string()), ..BackupStatus::default() };
        facts.tenant.status = Some(crate::api::tenant::TenantStatus { backup: Some(before), ..Default::default() });
        facts.backup = Some(Heard { taken: Some(report), ..Heard::default() });
        assert_eq!(status(&facts).as_ref().and_then(last_success), Some(facts.now));
    }

    #[test]
    fn the_job_is_restricted_and_holds_no_more_than_it_needs() {
        let spec = DatabaseServerSpec {
            connection_secret_ref: crate::api::NameRef { name: "pg-1".into() },
            ..Default::default()
        };
        let source = Source { server: "pg-1", spec: &spec, system_identifier: "741" };
        let target = Target { source, uuid: uuid(7), name: "customers/acme".into() };
        let bucket = BucketSettings {
            bucket: "b".into(),
            endpoint: "http://s3:7070".into(),
            secret: "s3-backup".into(),
            account: "maintenance-os-backup".into(),
            ..Default::default()
        };
        let job = cron_job(&target, &wanted(uuid(7), None, None), &bucket, "ns", "image");
        assert!(job.metadata.name.as_ref().unwrap().len() <= 52);
        let text = serde_json::to_value(&job).unwrap();
        let pod = &text["spec"]["jobTemplate"]["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], json!(false));
        assert_eq!(pod["securityContext"]["runAsNonRoot"], json!(true));
        let container = &pod["containers"][0];
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], json!(true));
        let mut secrets: Vec<_> = container["env"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|variable| {
                let from = &variable["valueFrom"]["secretKeyRef"];
                Some(format!("{}/{}", from["name"].as_str()?, from["key"].as_str()?))
            })
            .collect();
        secrets.sort();
        assert_eq!(
            secrets,
            [
                "pg-1-roles/backup",
                "pg-1/host",
                "pg-1/port",
                "s3-backup/AWS_ACCESS_KEY_ID",
                "s3-backup/AWS_SECRET_ACCESS_KEY"
            ]
        );
        assert_eq!(pod["volumes"][0]["secret"]["items"], json!([{ "key": "ca.crt", "path": "ca.crt" }]));
        assert_eq!(text["spec"]["concurrencyPolicy"], json!("Forbid"));
    }
}
