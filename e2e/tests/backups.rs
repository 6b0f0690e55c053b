//! A tenant's backup is taken by its own CronJob, and the Tenant says so.

use k8s_openapi::api::batch::v1::{CronJob, Job};
use kube::api::{Api, DeleteParams, PostParams};
use maintenance_os_e2e::{OPERATOR, World, promise, within};
use serde_json::json;

#[tokio::test]
async fn a_backup_is_taken_told_and_ends_with_its_tenant() {
    promise(async |world| {
        let name = World::name("backup");
        let uuid = world.ready(&name, json!({ "backup": { "schedule": "H 4 * * *" } })).await;
        world.add_asset(&name, "Pump that is worth keeping").await;
        let jobs: Api<Job> = Api::namespaced(world.client.clone(), OPERATOR);
        let crons: Api<CronJob> = Api::namespaced(world.client.clone(), OPERATOR);
        let title = format!("backup-{uuid}");
        let cron = within(20, "its CronJob is there", async || {
            crons.get_opt(&title).await.map_err(|error| error.to_string())?.ok_or_else(|| "not yet".to_owned())
        })
        .await;
        let spec = cron.spec;
        let (minute, rest) = spec.schedule.split_once(' ').expect("five fields");
        assert!(rest == "4 * * *" && minute.parse::<u8>().is_ok_and(|minute| minute < 60), "{}", spec.schedule);
        let job = Job {
            metadata: kube::core::ObjectMeta {
                name: Some(name.clone()),
                ..spec.job_template.metadata.unwrap_or_default()
            },
            spec: spec.job_template.spec,
            ..Job::default()
        };
        jobs.create(&PostParams::default(), &job).await.expect("creating a Job from the CronJob");
        let backup = within(90, "the Tenant tells of its backup", async || {
            let status = world.tenants().get(&name).await.map_err(|error| error.to_string())?.status;
            status
                .and_then(|status| status.backup)
                .filter(|backup| backup.last_success.is_some())
                .ok_or_else(|| "none".into())
        })
        .await;
        assert_eq!(backup.sha256.as_deref().map(str::len), Some(64), "{backup:?}");
        let fresh = world.condition(&name, "BackupFresh").await.expect("the condition");
        assert_eq!(fresh.status, "True", "{}", fresh.message);
        jobs.delete(&name, &DeleteParams::background()).await.expect("deleting the Job");
        world.delete_wholly(&name).await;
        within(20, "the CronJob goes with its Tenant", async || {
            let left = crons.get_opt(&title).await.map_err(|error| error.to_string())?;
            if left.is_none() { Ok(()) } else { Err("it is there".to_owned()) }
        })
        .await;
    })
    .await;
}
