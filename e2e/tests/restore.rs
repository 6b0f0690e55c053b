//! A customer deleted everything: a backup is taken and restored by objects, and the customer stays signed in.

use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use maintenance_os::api::tenant_backup::BackupPhase;
use maintenance_os::api::tenant_restore::RestorePhase;
use maintenance_os::api::{TenantBackup, TenantRestore};
use maintenance_os_e2e::{CUSTOMERS, LABEL, World, promise, within};
use serde_json::json;

#[tokio::test]
async fn what_was_deleted_comes_back_on_approval_and_what_was_there_before_is_dropped_in_time() {
    promise(async |world| {
        let name = World::name("restore");
        let uuid = world.ready(&name, json!({ "quarantine": "2s" })).await;
        world.add_asset(&name, "Pump that is worth keeping").await;
        let group = "tenancy.maintenance-os.com/v1alpha1";
        let metadata = json!({ "name": name, "labels": { LABEL: "true" } });
        let tenant = json!({ "name": name });

        let backups: Api<TenantBackup> = Api::namespaced(world.client.clone(), CUSTOMERS);
        let backup = json!({ "apiVersion": group, "kind": "TenantBackup", "metadata": metadata, "spec": { "tenantRef": tenant } });
        let backup = serde_json::from_value(backup).expect("a TenantBackup as the API has it");
        backups.create(&PostParams::default(), &backup).await.expect("creating a TenantBackup");
        let taken = within(90, "the backup is taken", async || {
            let status = backups.get(&name).await.map_err(|error| error.to_string())?.status.unwrap_or_default();
            if status.phase == BackupPhase::Done { Ok(status) } else { Err(format!("{status:?}")) }
        })
        .await;
        let file = taken.backup.expect("a backup that is done has a name");

        world.psql(&format!("tenant_{uuid}"), "DELETE FROM assets").await;
        let restores: Api<TenantRestore> = Api::namespaced(world.client.clone(), CUSTOMERS);
        let restore = json!({ "apiVersion": group, "kind": "TenantRestore", "metadata": metadata, "spec": { "tenantRef": tenant, "backup": file } });
        let restore = serde_json::from_value(restore).expect("a TenantRestore as the API has it");
        restores.create(&PostParams::default(), &restore).await.expect("creating a TenantRestore");
        let becomes = async |phase: RestorePhase| {
            within(120, &format!("the restore is {}", phase.as_str()), async || {
                let status = restores.get(&name).await.map_err(|error| error.to_string())?.status.unwrap_or_default();
                if status.phase == phase { Ok(status) } else { Err(format!("{status:?}")) }
            })
            .await
        };
        let waiting = becomes(RestorePhase::AwaitingApproval).await;
        let assets = waiting.tables.iter().find(|rows| rows.table == "public.assets").expect("the table is told of");
        assert_eq!((assets.backup, assets.live), (Some(1), Some(0)));
        let count = world.psql(&format!("tenant_{uuid}"), "SELECT count(*) FROM assets").await;
        assert_eq!(count, ["0"], "nothing is changed before it is approved");
        let approve = Patch::Merge(json!({ "spec": { "approve": true } }));
        restores.patch(&name, &PatchParams::default(), &approve).await.expect("approving it");
        let done = becomes(RestorePhase::Done).await;
        world.becomes_ready(30, &name).await;
        assert_eq!(world.assets(&name).await, 1, "what was deleted is back");
        let replaced = done.replaced.expect("the database that was there before").database;
        within(world.resync + 20, "the replaced database is dropped when its time has passed", async || {
            let left = world.databases(&replaced).await;
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })
        .await;
        backups.delete(&name, &DeleteParams::default()).await.expect("deleting the TenantBackup");
        restores.delete(&name, &DeleteParams::default()).await.expect("deleting the TenantRestore");
    })
    .await;
}
