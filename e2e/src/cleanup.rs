//! Nothing is left of a test, and nothing of one that failed stands in the way of the next.

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ListParams};
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt};
use maintenance_os::api::Tenant;
use serde_json::json;

use crate::administrator::CENTRAL;
use crate::edge::DEMO;
use crate::outage::Outage;
use crate::wait::{wait, within};
use crate::world::{CUSTOMERS, LABEL, OPERATOR, SERVER, World};

/// Heals the cluster and removes what tests made.
pub async fn before(world: &World) {
    heal(world).await;
    remove(world).await;
}

/// Removes what the test made.
pub async fn after(world: &World) {
    remove(world).await;
}

/// Undoes every disturbance that a test may have left.
pub async fn heal(world: &World) {
    for part in Outage::ALL {
        world.end_outage(part).await;
    }
    for app in ["app-sentinel", "app-cluster"] {
        world.stop_app(app).await;
    }
    within(90, "PostgreSQL answers its administrator", async || world.try_psql("template1", "SELECT 1").await).await;
    world.open_database(CENTRAL).await;
    world.open_database("postgres").await;
    world.psql("template1", "ALTER ROLE maintenance_os_provisioner RESET default_transaction_read_only").await;
    if let Some(password) = world.secret(OPERATOR, SERVER).await.and_then(|keys| keys.get("password.right").cloned()) {
        world.change_secret(OPERATOR, SERVER, &[("password", &password)]).await;
        world.merge(&world.secrets(OPERATOR), SERVER, &json!({ "data": { "password.right": null } })).await;
    }
    world
        .merge(
            &world.servers(),
            SERVER,
            &json!({ "spec": { "capacity": { "maxTenants": 1000, "connectionOvercommit": 100 } } }),
        )
        .await;
    world.scale_operator(1).await;
    if world.edge_mode().await.is_some_and(|mode| mode != DEMO) {
        world.set_edge_mode(DEMO).await;
    }
    world.server_becomes(90, "True", "Active").await;
}

async fn remove(world: &World) {
    let labelled = ListParams::default().labels(LABEL);
    let at_once = DeleteParams::default();
    let all: Api<PartialObjectMeta<Tenant>> = Api::all(world.client.clone());
    // Those that do not decode would make every list of Tenants fail.
    for tenant in all.list_metadata(&labelled).await.expect("listing Tenants") {
        let namespace = tenant.meta().namespace.clone().unwrap_or_default();
        let api: Api<PartialObjectMeta<Tenant>> = Api::namespaced(world.client.clone(), &namespace);
        if tenant.finalizers().is_empty() {
            let _ = api.delete(&tenant.name_any(), &at_once).await;
        }
    }
    for tenant in world.made_by_tests().await {
        let name = tenant.name_any();
        if tenant.metadata.deletion_timestamp.is_none() || tenant.spec.deletion_policy != Default::default() {
            // Kept data is removed below; the quarantine has its own test.
            world.merge(&world.tenants(), &name, &json!({ "spec": { "deletionPolicy": "Retain" } })).await;
        }
        world.delete(&name).await;
    }
    let gone = wait(60, async || {
        let left = world.made_by_tests().await;
        if left.is_empty() {
            Ok(())
        } else {
            Err(format!("{:?}", left.iter().map(ResourceExt::name_any).collect::<Vec<_>>()))
        }
    });
    gone.await.unwrap_or_else(|left| panic!("Tenants of tests do not go: {left}"));
    let secrets: Api<Secret> = world.secrets(CUSTOMERS);
    secrets.delete_collection(&at_once, &labelled).await.expect("deleting the Secrets of tests");
    world.plans().delete_collection(&at_once, &labelled).await.expect("deleting the Plans of tests");
    let restores: Api<maintenance_os::api::TenantRestore> = Api::namespaced(world.client.clone(), CUSTOMERS);
    restores.delete_collection(&at_once, &labelled).await.expect("deleting the TenantRestores of tests");
    let backups: Api<maintenance_os::api::TenantBackup> = Api::namespaced(world.client.clone(), CUSTOMERS);
    backups.delete_collection(&at_once, &labelled).await.expect("deleting the TenantBackups of tests");
    let rollouts: Api<maintenance_os::api::SchemaRollout> = Api::all(world.client.clone());
    rollouts.delete_collection(&at_once, &labelled).await.expect("deleting the SchemaRollouts of tests");
    world.servers().delete_collection(&at_once, &labelled).await.expect("deleting the DatabaseServers of tests");
    forget_data(world).await;
}

/// Drops the kept data of tests' tenants with the ledger's rows: by hand, as no operator ever would.
async fn forget_data(world: &World) {
    let kept = "FROM tenants WHERE slug LIKE 'e2e-%' AND object_uid IS NULL";
    let uuids = world.psql(CENTRAL, &format!("SELECT id {kept}")).await;
    if uuids.is_empty() {
        return;
    }
    let mut statements = String::new();
    for uuid in &uuids {
        statements.push_str(&format!(
            "DROP DATABASE IF EXISTS \"tenant_{uuid}\" WITH (FORCE);\nDROP DATABASE IF EXISTS \"quarantine_{uuid}\" WITH (FORCE);\n"
        ));
        for role in [format!("tenant_{uuid}_a"), format!("tenant_{uuid}_b"), format!("tenant_{uuid}")] {
            statements.push_str(&format!("DROP ROLE IF EXISTS \"{role}\";\n"));
        }
    }
    world.psql("template1", &statements).await;
    world.psql(CENTRAL, &format!("DELETE {kept} AND id IN ('{}')", uuids.join("','"))).await;
}

impl World {
    /// Waits until the demo's DatabaseServer is Ready with this status and reason; the message.
    pub async fn server_becomes(&self, seconds: u64, status: &str, reason: &str) -> String {
        self.named_server_becomes(seconds, SERVER, status, reason).await
    }

    /// As [`World::server_becomes`] of any DatabaseServer.
    pub async fn named_server_becomes(&self, seconds: u64, name: &str, status: &str, reason: &str) -> String {
        within(seconds, &format!("DatabaseServer {name} is Ready={status} {reason}"), async || {
            let server = self.servers().get(name).await.map_err(|error| error.to_string())?;
            let conditions = server.status.map(|status| status.conditions).unwrap_or_default();
            let ready =
                conditions.into_iter().find(|condition| condition.type_ == "Ready").ok_or("no condition Ready")?;
            if ready.status == status && ready.reason == reason {
                Ok(ready.message)
            } else {
                Err(format!("{} {}: {}", ready.status, ready.reason, ready.message))
            }
        })
        .await
    }
}
