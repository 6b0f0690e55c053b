//! At rest the operator writes nothing but its Lease.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ListParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Resource, ResourceExt};
use maintenance_os::api::{DatabaseServer, Plan, Tenant};
use maintenance_os_e2e::{World, promise, wait};
use serde_json::json;

/// Every object that the operator might write, with its version.
async fn versions(world: &World) -> BTreeMap<String, String> {
    use k8s_openapi::api::core::v1::{Secret, Service, ServiceAccount};
    use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
    let kinds = [
        ApiResource::erase::<Tenant>(&()),
        ApiResource::erase::<Plan>(&()),
        ApiResource::erase::<DatabaseServer>(&()),
        ApiResource::erase::<Secret>(&()),
        ApiResource::erase::<Deployment>(&()),
        ApiResource::erase::<Service>(&()),
        ApiResource::erase::<ServiceAccount>(&()),
        ApiResource::erase::<Role>(&()),
        ApiResource::erase::<RoleBinding>(&()),
    ];
    let mut versions = BTreeMap::new();
    for kind in kinds {
        let api: Api<DynamicObject> = Api::all_with(world.client.clone(), &kind);
        for object in api.list_metadata(&ListParams::default()).await.expect("listing objects") {
            let namespace = object.meta().namespace.clone().unwrap_or_default();
            if ["", "customers", "maintenance-os"].contains(&namespace.as_str()) {
                let name = format!("{} {namespace}/{}", kind.kind, object.name_any());
                versions.insert(name, object.resource_version().unwrap_or_default());
            }
        }
    }
    versions
}

fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let names = before.keys().chain(after.keys());
    let mut changed: Vec<_> = names.filter(|name| before.get(*name) != after.get(*name)).cloned().collect();
    changed.dedup();
    changed
}

/// Waits until nothing has changed for three seconds.
async fn settles(world: &World) -> BTreeMap<String, String> {
    let mut before = versions(world).await;
    loop {
        let still = wait(3, async || {
            let now = versions(world).await;
            let changed = changes(&before, &now);
            if changed.is_empty() { Err::<BTreeMap<String, String>, _>("nothing changes".into()) } else { Ok(now) }
        });
        match still.await {
            Err(_) => return before,
            Ok(now) => before = now,
        }
    }
}

#[tokio::test]
async fn for_a_minute_without_changes_nothing_is_written() {
    promise(async |world| {
        for number in 0..3 {
            world.ready(&World::name(&format!("rest{number}")), json!({})).await;
        }
        let before = settles(world).await;
        let begun = std::time::Instant::now();
        let written = wait(60, async || {
            let changed = changes(&before, &versions(world).await);
            if changed.is_empty() { Err("nothing is written".to_owned()) } else { Ok(changed) }
        });
        if let Ok(changed) = written.await {
            panic!("written after {:?} at rest: {changed:?}", begun.elapsed());
        }
        assert!(begun.elapsed() >= Duration::from_secs(2 * world.resync), "a resync lies in that time");
    })
    .await;
}

#[tokio::test]
async fn an_operator_that_starts_again_writes_nothing() {
    promise(async |world| {
        for number in 0..3 {
            world.ready(&World::name(&format!("again{number}")), json!({})).await;
        }
        let before = settles(world).await;
        world.restart_operator().await;
        // It leads before it has visited everything.
        let written = wait(25, async || {
            let changed = changes(&before, &versions(world).await);
            let changed: Vec<_> = changed.into_iter().filter(|name| name != "Deployment maintenance-os/maintenance-os-operator").collect();
            if changed.is_empty() { Err("nothing is written".to_owned()) } else { Ok(changed) }
        });
        if let Ok(changed) = written.await {
            panic!("written after a restart: {changed:?}");
        }
        world.others_are_served().await;
    })
    .await;
}
