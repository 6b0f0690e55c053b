//! The Job that restores, and the Secret with its login's password.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::api::{LABEL_RESTORE, LABEL_TENANT, MANAGED_BY};
use crate::desired::names;

/// Label and value by which Jobs and pods of restores are found.
pub const SELECTOR: &str = "app.kubernetes.io/component=restore,app.kubernetes.io/managed-by=maintenance-os";
/// The key of the Secret.
pub const KEY: &str = "password";

/// What a Job restores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The TenantRestore.
    pub restore: Uuid,
    /// The tenant.
    pub tenant: Uuid,
    /// Whose backup.
    pub source: Uuid,
    /// Which one; None: the newest.
    pub backup: Option<String>,
}

fn labels(wanted: (Uuid, Uuid)) -> BTreeMap<String, String> {
    let (restore, tenant) = wanted;
    [
        ("app.kubernetes.io/name", "maintenance-os".to_owned()),
        ("app.kubernetes.io/component", "restore".to_owned()),
        ("app.kubernetes.io/part-of", "maintenance-os".to_owned()),
        ("app.kubernetes.io/managed-by", MANAGED_BY.to_owned()),
        (LABEL_TENANT, tenant.to_string()),
        (LABEL_RESTORE, restore.to_string()),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// The Secret.
pub fn secret(restore: Uuid, tenant: Uuid, namespace: &str, password: &str) -> Secret {
    let mut secret =
        Secret { data: Some([(KEY.to_owned(), ByteString(password.as_bytes().to_vec()))].into()), ..Secret::default() };
    secret.metadata.name = Some(names::restore(restore));
    secret.metadata.namespace = Some(namespace.to_owned());
    secret.metadata.labels = Some(labels((restore, tenant)));
    secret
}

/// The Job: the pod that takes the tenant's backups, with other arguments and the login's password. It is never made twice for
/// one restore, and never tried again: what a first attempt left in the database is not known.
pub fn job(wanted: &Wanted, cron_job: &CronJob) -> Job {
    let template = cron_job.spec.job_template.spec.as_ref();
    let mut pod = json!(template.and_then(|job| job.template.spec.clone()));
    let name = names::restore(wanted.restore);
    let mut arguments = vec![
        "backup".to_owned(),
        "restore".to_owned(),
        format!("--restore={}", wanted.restore),
        format!("--tenant={}", wanted.tenant),
        format!("--source={}", wanted.source),
        "--report=/dev/termination-log".to_owned(),
    ];
    arguments.extend(wanted.backup.iter().map(|backup| format!("--id={backup}")));
    let container = &mut pod["containers"][0];
    container["name"] = json!("restore");
    container["args"] = json!(arguments);
    // How many are kept is nothing to a restore.
    let is_retention = |variable: &Value| variable["name"].as_str().is_some_and(|name| name.starts_with("MOS_KEEP_"));
    if let Some(variables) = container["env"].as_array_mut() {
        variables.retain(|variable| !is_retention(variable));
        variables.push(
            json!({ "name": "MOS_RESTORE_PASSWORD", "valueFrom": { "secretKeyRef": { "name": name, "key": KEY } } }),
        );
    }
    let labels = labels((wanted.restore, wanted.tenant));
    let job = json!({
        "metadata": { "name": name, "namespace": cron_job.metadata.namespace, "labels": labels },
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 12 * 3600,
            "template": { "metadata": { "labels": labels }, "spec": pod },
        },
    });
    serde_json::from_value(job).expect("a Job is written as the API has it")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::NameRef;
    use crate::api::server::DatabaseServerSpec;
    use crate::desired::backup::{self, BucketSettings, Source, Target};

    fn cron_job() -> CronJob {
        let spec = DatabaseServerSpec { connection_secret_ref: NameRef { name: "pg-1".into() }, ..Default::default() };
        let uuid = Uuid::from_u128(7);
        let source = Source { server: "pg-1", spec: &spec, system_identifier: "741" };
        let target = Target { source, uuid, name: "customers/acme".into() };
        let bucket = BucketSettings { bucket: "b".into(), secret: "s3-backup".into(), ..Default::default() };
        backup::cron_job(&target, &backup::wanted(uuid, None, None), &bucket, "ns", "image")
    }

    fn secrets(container: &Value) -> Vec<String> {
        let variables = container["env"].as_array().unwrap().iter();
        let from = variables.filter_map(|variable| {
            let from = &variable["valueFrom"]["secretKeyRef"];
            Some(format!("{}/{}", from["name"].as_str()?, from["key"].as_str()?))
        });
        let mut secrets: Vec<_> = from.collect();
        secrets.sort();
        secrets
    }

    #[test]
    fn the_job_is_the_backups_pod_with_the_password_of_this_run_and_no_other_right() {
        let restore = Uuid::from_u128(9);
        let wanted =
            Wanted { restore, tenant: Uuid::from_u128(7), source: Uuid::from_u128(8), backup: Some("B".into()) };
        let job = json!(job(&wanted, &cron_job()));
        let pod = &job["spec"]["template"]["spec"];
        assert_eq!(pod["automountServiceAccountToken"], json!(false));
        assert_eq!(pod["securityContext"]["runAsNonRoot"], json!(true));
        assert_eq!(job["spec"]["backoffLimit"], json!(0));
        let container = &pod["containers"][0];
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], json!(true));
        let arguments = container["args"].as_array().unwrap();
        assert!(
            arguments.contains(&json!("--id=B")) && arguments.contains(&json!(format!("--source={}", wanted.source)))
        );
        assert_eq!(
            secrets(container),
            [
                "pg-1-roles/backup".to_owned(),
                "pg-1/host".into(),
                "pg-1/port".into(),
                format!("restore-{restore}/password"),
                "s3-backup/AWS_ACCESS_KEY_ID".into(),
                "s3-backup/AWS_SECRET_ACCESS_KEY".into(),
            ]
        );
        assert_eq!(job["spec"]["template"]["metadata"]["labels"][LABEL_RESTORE], json!(restore.to_string()));
        assert!(job["metadata"]["name"].as_str().unwrap().len() <= 63);
    }

    #[test]
    fn the_job_of_a_backup_now_is_the_cron_jobs_and_is_found_by_the_object() {
        let uid = Uuid::from_u128(9);
        let cron_job = cron_job();
        let job = crate::desired::backup_now::job(uid, cron_job.clone());
        let of = |template: &Option<k8s_openapi::api::core::v1::PodSpec>| json!(template);
        let theirs = cron_job.spec.job_template.spec.unwrap().template;
        let ours = job.spec.as_ref().unwrap().template.clone();
        let mut theirs = of(&theirs.spec);
        // What is taken before something happens, or after, takes the place of no other.
        theirs["containers"][0]["args"].as_array_mut().unwrap().push(json!("--keep-all"));
        assert_eq!(of(&ours.spec), theirs);
        let labels = ours.metadata.unwrap().labels.unwrap();
        assert_eq!(labels["app.kubernetes.io/component"], "backup");
        assert_eq!(labels[crate::desired::backup_now::LABEL], uid.to_string());
        assert!(job.metadata.name.unwrap().len() <= 63);
    }
}
