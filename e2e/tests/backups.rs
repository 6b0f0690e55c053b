//! A tenant's backup is taken by its own CronJob and known to restore, and the Tenant says so; also the last one before a delete.

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, ListParams, PostParams};
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
        let job = begin(world, &title, &name).await;
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

        let drill = format!("drill-{uuid}");
        let rehearsal = begin(world, &drill, &format!("{name}-drill")).await;
        let verified = within(90, "the Tenant tells of the rehearsal", async || {
            let status = world.tenants().get(&name).await.map_err(|error| error.to_string())?.status;
            status.and_then(|status| status.backup?.verified).ok_or_else(|| "none".into())
        })
        .await;
        assert_eq!(Some(&verified.name), backup.name.as_ref(), "the newest backup was restored");
        let condition = world.condition(&name, "RestoreVerified").await.expect("the condition");
        assert_eq!(condition.status, "True", "{}", condition.message);
        for job in [job, rehearsal] {
            jobs.delete(&job, &DeleteParams::background()).await.expect("deleting the Job");
        }
        world.delete_wholly(&name).await;
        for title in [&title, &drill] {
            within(20, "the CronJob goes with its Tenant", async || {
                let left = crons.get_opt(title).await.map_err(|error| error.to_string())?;
                if left.is_none() { Ok(()) } else { Err(format!("{title} is there")) }
            })
            .await;
        }
    })
    .await;
}

/// Begins what a CronJob would do by its schedule.
async fn begin(world: &World, cron: &str, name: &str) -> String {
    let crons: Api<CronJob> = Api::namespaced(world.client.clone(), OPERATOR);
    let template = within(20, "the CronJob is there", async || {
        let cron = crons.get_opt(cron).await.map_err(|error| error.to_string())?;
        cron.map(|cron| cron.spec.job_template).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    let metadata = kube::core::ObjectMeta { name: Some(name.to_owned()), ..template.metadata.unwrap_or_default() };
    let job = Job { metadata, spec: template.spec, ..Job::default() };
    let jobs: Api<Job> = Api::namespaced(world.client.clone(), OPERATOR);
    jobs.create(&PostParams::default(), &job).await.expect("creating a Job from the CronJob");
    name.to_owned()
}

#[tokio::test]
async fn a_tenant_that_is_deleted_after_a_last_backup_leaves_one_that_restores() {
    promise(async |world| {
        world.forget_releases().await;
        let name = World::name("last");
        let uuid = world.ready(&name, json!({ "deletionPolicy": "BackupThenDelete", "quarantine": "1h" })).await;
        world.add_asset(&name, "Pump of the last day").await;
        let binding = world.binding(&name).await;
        world.delete(&name).await;
        let jobs: Api<Job> = Api::namespaced(world.client.clone(), OPERATOR);
        let job = within(30, "the Job of the last backup is there", async || {
            let found = jobs.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
            let mut names = found.items.iter().map(ResourceExt::name_any);
            names.find(|job| job.starts_with(&format!("last-{uuid}"))).ok_or_else(|| "not yet".to_owned())
        })
        .await;
        assert!(binding.direct(&format!("tenant_{uuid}")).await.is_err(), "nothing changes after the last backup");
        within(120, "the Tenant goes when the backup is known to restore", async || {
            let there = world.tenants().get_opt(&name).await.map_err(|error| error.to_string())?;
            there.map_or(Ok(()), |tenant| Err(format!("{:?}", tenant.status.map(|status| status.conditions))))
        })
        .await;
        // The pod has ended before its Job is counted.
        within(20, "the Tenant went because its Job succeeded", async || {
            let status = jobs.get(&job).await.map_err(|error| error.to_string())?.status.unwrap_or_default();
            if status.succeeded == Some(1) { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
        assert_eq!(world.ledger(&name).await, [("Quarantined".to_owned(), uuid.clone())]);
        assert_eq!(world.ready(&name, json!({ "uuid": uuid })).await, uuid);
        assert_eq!(world.assets(&name).await, 1, "and it is had back within its quarantine");
        jobs.delete(&job, &DeleteParams::background()).await.expect("deleting the Job");
    })
    .await;
}

#[tokio::test]
async fn tenants_of_a_plan_that_shares_are_backed_up_by_one_job_and_each_is_told() {
    promise(async |world| {
        let plan = World::name("shared");
        let schedule = json!({ "mode": "Shared", "schedule": "H 3 1 1 *" });
        world.plan(&plan, json!({ "displayName": "Shared", "price": "1.00", "backup": schedule })).await;
        let names = [World::name("sharea"), World::name("shareb")];
        let mut uuids = Vec::new();
        for name in &names {
            uuids.push(world.ready(name, json!({ "planRef": { "name": plan } })).await);
        }
        let crons: Api<CronJob> = Api::namespaced(world.client.clone(), OPERATOR);
        let maps: Api<ConfigMap> = Api::namespaced(world.client.clone(), OPERATOR);
        let cron = within(60, "one CronJob is there for both", async || {
            let found = crons.list(&ListParams::default()).await.map_err(|error| error.to_string())?.items;
            let shared =
                found.iter().filter(|cron| cron.spec.schedule.ends_with(" 3 1 1 *")).map(ResourceExt::name_any);
            let [name] = <[String; 1]>::try_from(shared.collect::<Vec<_>>()).map_err(|found| format!("{found:?}"))?;
            let list = maps.get(&name).await.map_err(|error| error.to_string())?.data.unwrap_or_default();
            let listed = list.get("tenants.json").cloned().unwrap_or_default();
            if uuids.iter().all(|uuid| listed.contains(uuid)) { Ok(name) } else { Err(listed) }
        })
        .await;
        for uuid in &uuids {
            within(60, "none has a CronJob of its own", async || {
                let own = crons.get_opt(&format!("backup-{uuid}")).await.map_err(|error| error.to_string())?;
                if own.is_none() { Ok(()) } else { Err("it is there".to_owned()) }
            })
            .await;
        }
        let job = begin(world, &cron, &plan).await;
        for name in &names {
            within(90, "the Tenant tells of its backup", async || {
                let status = world.tenants().get(name).await.map_err(|error| error.to_string())?.status;
                let last = status.and_then(|status| status.backup?.last_success);
                last.map(drop).ok_or_else(|| "none".into())
            })
            .await;
        }
        let jobs: Api<Job> = Api::namespaced(world.client.clone(), OPERATOR);
        jobs.delete(&job, &DeleteParams::background()).await.expect("deleting the Job");
        for name in &names {
            world.delete_wholly(name).await;
        }
        within(60, "the CronJob goes with the last of them", async || {
            let left = crons.get_opt(&cron).await.map_err(|error| error.to_string())?;
            if left.is_none() { Ok(()) } else { Err(format!("{cron} is there")) }
        })
        .await;
    })
    .await;
}
