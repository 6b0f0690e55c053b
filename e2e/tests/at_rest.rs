//! At rest the operator writes nothing but its Lease.

use std::collections::{BTreeMap, BTreeSet};

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
                // The status of a Deployment is Kubernetes' own, which also changes with its pods.
                let generation = object.meta().generation.map(|generation| generation.to_string());
                let version = generation.filter(|_| kind.kind == "Deployment").or_else(|| object.resource_version());
                versions.insert(name, version.unwrap_or_default());
            }
        }
    }
    versions
}

fn changes(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Vec<String> {
    let names: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

/// Waits until nothing has changed for longer than a resync: figures in a status may follow that late.
async fn settles(world: &World) -> BTreeMap<String, String> {
    let mut before = versions(world).await;
    loop {
        match first_change(world, &before, world.resync + 3).await {
            None => return before,
            Some(_) => before = versions(world).await,
        }
    }
}

/// What changes first within this time.
async fn first_change(world: &World, before: &BTreeMap<String, String>, seconds: u64) -> Option<Vec<String>> {
    let look = wait(seconds, async || {
        let changed = changes(before, &versions(world).await);
        if changed.is_empty() { Err("nothing is written".to_owned()) } else { Ok(changed) }
    });
    look.await.ok()
}

#[tokio::test]
async fn for_a_minute_and_over_a_restart_of_the_operator_nothing_is_written() {
    promise(async |world| {
        for number in 0..3 {
            world.ready(&World::name(&format!("rest{number}")), json!({})).await;
        }
        let before = settles(world).await;
        assert!(world.resync < 30, "two resyncs lie in a minute");
        assert_eq!(first_change(world, &before, 60).await, None, "written at rest");
        world.restart_operator().await;
        assert_eq!(first_change(world, &before, world.resync + 3).await, None, "written by an operator that begins");
        world.others_are_served().await;
        world.ready(&World::name("after"), json!({})).await;
    })
    .await;
}
