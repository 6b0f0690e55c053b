//! The drill: whether a tenant's backups restore, and the last backup before a delete.
//!
//! From      `Tenant.spec.backup.verify`, `Plan.spec.backup.verify`, `Tenant.spec.deletionPolicy`, what the Jobs told
//! Makes     a CronJob `drill-<uuid>` in the operator's namespace; a Job `last-<uuid>-<id>` for a delete; the condition
//!           `RestoreVerified`
//! Ready     has no part in it; a delete with the policy BackupThenDelete waits for its Job

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, Job};
use serde_json::json;
use uuid::Uuid;

use crate::api::backup::BackupReport;
use crate::api::condition::Reason;
use crate::api::plan::PlanSpec;
use crate::api::tenant::{BackupStatus, BeforeDeleteStatus, TenantSpec, UnverifiedStatus, VerifiedStatus};

use super::backup::{self, BucketSettings, Heard, Target};
use super::facts::Facts;

/// Once a week, each tenant on a day of its own, after the backups of the night.
const SCHEDULE: &str = "H H(4-6) * * H";
/// Names of Jobs for deletes begin with it.
const LAST: &str = "last-";
/// A Job for a delete that failed goes after this time, and another one is made.
const FAILED_KEPT: i64 = 600;

/// Cron schedule in UTC. What the Tenant says, else what its Plan says, else once a week.
pub fn wanted(uuid: Uuid, tenant: &TenantSpec, plan: Option<&PlanSpec>) -> String {
    let own = tenant.backup.as_ref().and_then(|backup| backup.verify.as_ref());
    let plans = plan.and_then(|plan| plan.backup.as_ref()?.verify.as_ref());
    backup::spread(own.or(plans).map_or(SCHEDULE, |verify| &verify.schedule), uuid)
}

/// `drill-<uuid>`.
pub fn name(uuid: Uuid) -> String {
    format!("drill-{uuid}")
}

/// The CronJob that restores a tenant's newest backup into a scratch database.
pub fn cron_job(target: &Target<'_>, schedule: &str, bucket: &BucketSettings, namespace: &str, image: &str) -> CronJob {
    let pod = backup::pod_for(target, &["rehearse"], &backup::provisioner(&target.source), bucket, image);
    let labels = backup::labels(target);
    backup::scheduled(&name(target.uuid), namespace, &labels, schedule, &backup::once(&pod, &labels))
}

/// Name of the Job that takes the last backup before a delete. It is of one object: a tenant that was had back and is deleted
/// again has another.
pub fn last_name(uuid: Uuid, object_uid: Uuid) -> String {
    format!("{LAST}{uuid}-{}", &object_uid.simple().to_string()[20..])
}

/// The Job that takes a last backup and restores it, for a delete of the object `object_uid`.
pub fn last_job(target: &Target<'_>, object_uid: Uuid, bucket: &BucketSettings, namespace: &str, image: &str) -> Job {
    let environment = [backup::reader(&target.source), backup::provisioner(&target.source)].concat();
    let pod = backup::pod_for(target, &["last", "--name", &target.name], &environment, bucket, image);
    let labels = backup::labels(target);
    let job = json!({
        "metadata": { "name": last_name(target.uuid, object_uid), "namespace": namespace, "labels": labels },
        "spec": {
            "backoffLimit": 2,
            "activeDeadlineSeconds": 6 * 3600,
            "ttlSecondsAfterFinished": FAILED_KEPT,
            "template": { "metadata": { "labels": labels }, "spec": pod },
        },
    });
    serde_json::from_value(job).expect("a Job is written as the API has it")
}

/// What a Job for a delete told of the backup that it took, and restored, itself. None: the Job is another, or it failed.
pub fn of_last<'a>(job: &str, reports: &'a [BackupReport]) -> Option<&'a BackupReport> {
    let taken = reports.iter().find_map(|report| report.taken.as_ref())?;
    let restored =
        reports.iter().find(|report| report.restored.as_ref().is_some_and(|restored| restored.name == taken.name));
    restored.filter(|_| job.starts_with(LAST))
}

/// Takes in what was told of restores.
pub(super) fn status(status: &mut BackupStatus, heard: &Heard, facts: &Facts) {
    let is_news = |report: Timestamp, known: Option<Timestamp>| {
        known.filter(|known| !backup::is_ahead(*known, facts.now)).is_none_or(|known| known < report)
    };
    if let Some(report) = &heard.restored
        && let Some(restored) = &report.restored
        && is_news(report.ended_at, verified_at(status))
    {
        let took = SignedDuration::from_millis(i64::try_from(restored.milliseconds).unwrap_or(i64::MAX));
        let took = format!("{:.2}s", took.as_secs_f64());
        status.verified = Some(VerifiedStatus { at: report.ended_at.to_string(), name: restored.name.clone(), took });
    }
    if let Some(report) = &heard.unrestored
        && let Some(error) = &report.error
        && is_news(report.ended_at, unverified_at(status))
    {
        status.unverified = Some(UnverifiedStatus { at: report.ended_at.to_string(), error: error.clone() });
    }
    if verified_at(status).is_some_and(|verified| unverified_at(status).is_some_and(|failed| failed < verified)) {
        status.unverified = None;
    }
    let job = facts.row().zip(object_uid(facts)).map(|(row, object_uid)| last_name(row.uuid, object_uid));
    if let Some((job, report)) = job.and_then(|job| heard.before_delete.get_key_value(&job))
        && let Some(restored) = &report.restored
    {
        status.before_delete = Some(BeforeDeleteStatus {
            job: job.clone(),
            name: restored.name.clone(),
            verified_at: report.ended_at.to_string(),
        });
    }
}

/// When the newest rehearsal that went well ended.
pub fn verified_at(status: &BackupStatus) -> Option<Timestamp> {
    status.verified.as_ref()?.at.parse().ok()
}

fn unverified_at(status: &BackupStatus) -> Option<Timestamp> {
    status.unverified.as_ref()?.at.parse().ok()
}

/// The last backup before the delete of this very object, where it is there and known to restore.
pub fn last(facts: &Facts) -> Option<BeforeDeleteStatus> {
    let row = facts.row()?;
    let job = last_name(row.uuid, object_uid(facts)?);
    backup::status(facts)?.before_delete.filter(|last| last.job == job)
}

/// Identity of the Tenant object.
pub fn object_uid(facts: &Facts) -> Option<Uuid> {
    facts.tenant.metadata.uid.as_deref()?.parse().ok()
}

/// Whether the newest rehearsal is young enough and went well. None: there are no backups here.
pub fn verified(facts: &Facts) -> Option<(Option<bool>, Reason, String)> {
    let row = facts.row().filter(|_| facts.backup.is_some())?;
    let schedule = wanted(row.uuid, &facts.tenant.spec, facts.plan.as_ref());
    let status = backup::status(facts).unwrap_or_default();
    let job = name(row.uuid);
    let to_do = format!(
        "Customers are served as before. To try now: kubectl create job --from=cronjob/{job} {}-now -n <the operator's namespace>, then kubectl logs on it; `maintenance-os backup list` shows what there is",
        &job[..14]
    );
    let due = due(facts, &schedule, verified_at(&status)).is_some_and(|due| facts.now >= due);
    Some(match (&status.verified, &status.unverified) {
        (_, Some(failed)) => (
            Some(false),
            Reason::RestoreUnverified,
            format!("the rehearsal of a restore at {} failed: {}. {to_do}", failed.at, failed.error),
        ),
        (Some(verified), None) if due => (
            Some(false),
            Reason::RestoreUnverified,
            format!(
                "the newest rehearsal of a restore is of {}, which is too old for the schedule {schedule}. {to_do}",
                verified.at
            ),
        ),
        (Some(VerifiedStatus { at, name, took }), None) => (
            Some(true),
            Reason::Active,
            format!("backup {name} was restored at {at} in {took}, with every row of its manifest"),
        ),
        (None, None) if due => (
            Some(false),
            Reason::RestoreUnverified,
            format!("no restore was rehearsed although one was due by the schedule {schedule}. {to_do}"),
        ),
        (None, None) => {
            (None, Reason::Provisioning, format!("no restore was rehearsed yet; the schedule is {schedule} UTC"))
        }
    })
}

fn due(facts: &Facts, schedule: &str, last: Option<Timestamp>) -> Option<Timestamp> {
    let since = last.or_else(|| facts.tenant.metadata.creation_timestamp.as_ref().map(|time| time.0))?;
    since.checked_add(backup::limit(schedule)).ok()
}

/// When the newest rehearsal becomes too old, where it is not yet.
pub fn next_change(facts: &Facts) -> Option<Timestamp> {
    let row = facts.row().filter(|_| facts.backup.is_some())?;
    let schedule = wanted(row.uuid, &facts.tenant.spec, facts.plan.as_ref());
    let status = backup::status(facts).unwrap_or_default();
    due(facts, &schedule, verified_at(&status)).filter(|due| *due > facts.now)
}
