//! The Job of a TenantBackup: what the tenant's CronJob would make, now.

use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::ResourceExt;
use uuid::Uuid;

use super::names;

/// Label on Job and pod: uid of the TenantBackup.
pub const LABEL: &str = "tenancy.maintenance-os.com/backup-now";
/// Flag of `backup run`: removes none.
const KEEP_ALL: &str = "--keep-all";
/// So long a Job that has ended is kept, for people to look at.
const KEPT: i32 = 24 * 3600;

/// The Job. Its name is the object's uid, so that there is never a second one.
pub fn job(uid: Uuid, cron_job: CronJob) -> Job {
    let labels = cron_job.labels().clone();
    let mut job = Job { spec: cron_job.spec.job_template.spec, ..Job::default() };
    job.metadata.name = Some(names::backup_now(uid));
    job.metadata.namespace = cron_job.metadata.namespace;
    job.metadata.labels = Some(labels);
    job.labels_mut().insert(LABEL.into(), uid.to_string());
    if let Some(spec) = &mut job.spec {
        spec.ttl_seconds_after_finished = Some(KEPT);
        // It is taken because something is about to happen, or has: the one of the night is what is wanted then, and of a day
        // only the newest would stay.
        for container in spec.template.spec.iter_mut().flat_map(|pod| pod.containers.iter_mut()) {
            container.args.get_or_insert_default().push(KEEP_ALL.to_owned());
        }
        let pod = spec.template.metadata.get_or_insert_default();
        pod.labels.get_or_insert_default().insert(LABEL.into(), uid.to_string());
    }
    job
}
