//! Backups of tenants whose Plan says `Shared`: one CronJob for all of them on a server.
//!
//! From      `Plan.spec.backup.mode`, and what `backup` reads
//! Makes     a CronJob and a ConfigMap `backup-shared-<id>` for each server and schedule, in the operator's namespace
//! Ready     has no part in it
//!
//! The Job takes two backups at a time, and one that fails hides no other. It has more to tell than a termination message
//! holds, so it writes a line for each tenant into its log.

use std::collections::BTreeMap;

use k8s_openapi::api::batch::v1::CronJob;
use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::json;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::api::backup::ListedTenant;
use crate::api::plan::{BackupMode, PlanSpec};

use super::backup::{self, BucketSettings, Source};

/// Names of these CronJobs begin with it.
const PREFIX: &str = "backup-shared-";
/// Key of the ConfigMap.
const KEY: &str = "tenants.json";
const PATH: &str = "/etc/maintenance-os/tenants";

/// Tenants of one server whose backups begin at the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The DatabaseServer.
    pub server: String,
    /// Cron schedule in UTC.
    pub schedule: String,
    /// The tenants, by uuid.
    pub tenants: BTreeMap<Uuid, ListedTenant>,
}

/// Whether backups of tenants on this plan are taken by one Job for many.
pub fn is_shared(plan: Option<&PlanSpec>) -> bool {
    plan.and_then(|plan| plan.backup.as_ref()).is_some_and(|backup| backup.mode == BackupMode::Shared)
}

/// Puts tenants, each with its server and its schedule as it is asked for, into groups.
pub fn groups(tenants: impl IntoIterator<Item = (String, String, ListedTenant)>) -> BTreeMap<String, Group> {
    let mut groups = BTreeMap::new();
    for (server, asked, tenant) in tenants {
        let schedule = spread(&server, &asked);
        let group = groups.entry(name(&server, &schedule)).or_insert_with(|| Group {
            server,
            schedule,
            tenants: BTreeMap::new(),
        });
        group.tenants.insert(tenant.uuid, tenant);
    }
    groups
}

/// With the server's own numbers in the place of each `H`: all of a group begin together.
fn spread(server: &str, asked: &str) -> String {
    let digest = Sha256::digest(server);
    backup::spread(asked, Uuid::from_slice(&digest[..16]).expect("a digest has 32 bytes"))
}

/// Name of the objects of the group that a tenant with this schedule, as it is written, belongs to.
pub fn name_of(server: &str, asked: &str) -> String {
    name(server, &spread(server, asked))
}

fn name(server: &str, schedule: &str) -> String {
    let digest = Sha256::digest(format!("{server}\n{schedule}"));
    format!("{PREFIX}{}", Uuid::from_slice(&digest[..16]).expect("a digest has 32 bytes").simple())
}

/// Whether that is the name of a group's objects.
pub fn is_name(name: &str) -> bool {
    name.starts_with(PREFIX)
}

/// The list that the Job reads when it begins.
pub fn config_map(name: &str, group: &Group, namespace: &str) -> ConfigMap {
    let tenants: Vec<_> = group.tenants.values().collect();
    let text = serde_json::to_string(&tenants).expect("names and numbers are JSON");
    let map = json!({
        "metadata": { "name": name, "namespace": namespace, "labels": backup::labels_of(&group.server) },
        "data": { KEY: text },
    });
    serde_json::from_value(map).expect("a ConfigMap is written as the API has it")
}

/// The CronJob of a group.
pub fn cron_job(
    name: &str,
    group: &Group,
    source: &Source<'_>,
    bucket: &BucketSettings,
    namespace: &str,
    image: &str,
) -> CronJob {
    let list = format!("{PATH}/{KEY}");
    let command = ["run", "--tenants", &list, "--report-lines"];
    let mut pod = backup::pod(source, &command, &backup::reader(source), bucket, image);
    let map = json!({ "name": "tenants", "configMap": { "name": name } });
    let mount = json!({ "name": "tenants", "mountPath": PATH, "readOnly": true });
    pod["volumes"].as_array_mut().expect("a list").push(map);
    pod["containers"][0]["volumeMounts"].as_array_mut().expect("a list").push(mount);
    let labels = backup::labels_of(&group.server);
    let job = json!({
        // A pod that was taken away is made again; one that ended by itself has tried each tenant twice, and is not.
        "backoffLimit": 2,
        "podFailurePolicy": { "rules": [{ "action": "Ignore", "onPodConditions": [{ "type": "DisruptionTarget" }] }, { "action": "FailJob", "onExitCodes": { "operator": "In", "values": [1] } }] },
        "activeDeadlineSeconds": 24 * 3600,
        "template": { "metadata": { "labels": labels }, "spec": pod },
    });
    backup::scheduled(name, namespace, &labels, &group.schedule, &job)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::NameRef;
    use crate::api::plan::PlanBackup;
    use crate::api::server::DatabaseServerSpec;

    fn listed(number: u128, keep: Option<[i32; 3]>) -> ListedTenant {
        ListedTenant { uuid: Uuid::from_u128(number), name: format!("customers/t{number}"), keep }
    }

    #[test]
    fn tenants_of_one_server_and_schedule_are_one_group_and_others_are_not() {
        let of = |server: &str, schedule: &str, number| (server.to_owned(), schedule.to_owned(), listed(number, None));
        let night = "H 2 * * *";
        let groups = groups([of("a", night, 1), of("a", night, 2), of("b", night, 3), of("a", "5 4 * * *", 4)]);
        let sizes: Vec<_> = groups.values().map(|group| group.tenants.len()).collect();
        assert_eq!((groups.len(), sizes.iter().sum::<usize>()), (3, 4));
        for (name, group) in &groups {
            assert!(name.len() <= 52 && is_name(name) && !group.schedule.contains('H'), "{name} {}", group.schedule);
        }
        assert!(!is_name("backup-00000000-0000-0000-0000-000000000007") && !is_name("drill-7"));
    }

    #[test]
    fn the_plan_decides_who_shares() {
        let plan =
            |mode| PlanSpec { backup: Some(PlanBackup { mode, ..PlanBackup::default() }), ..PlanSpec::default() };
        assert!(is_shared(Some(&plan(BackupMode::Shared))));
        assert!(
            !is_shared(Some(&plan(BackupMode::PerTenant)))
                && !is_shared(Some(&PlanSpec::default()))
                && !is_shared(None)
        );
    }

    #[test]
    fn the_job_reads_the_list_and_no_password_but_the_readers() {
        let spec = DatabaseServerSpec { connection_secret_ref: NameRef { name: "pg-1".into() }, ..Default::default() };
        let source = Source { server: "pg-1", spec: &spec, system_identifier: "741" };
        let groups = groups([("pg-1".to_owned(), "1 2 * * *".to_owned(), listed(7, Some([7, 4, 12])))]);
        let (name, group) = groups.first_key_value().unwrap();
        let job = cron_job(name, group, &source, &BucketSettings::default(), "ns", "image");
        let text = serde_json::to_string(&job).unwrap();
        assert!(text.contains("pg-1-roles") && !text.contains("MOS_PROVISIONER"), "{text}");
        let map = config_map(name, group, "ns").data.unwrap();
        let tenants: Vec<ListedTenant> = serde_json::from_str(&map[KEY]).unwrap();
        assert_eq!(tenants, [listed(7, Some([7, 4, 12]))]);
    }
}
