//! Bad input: a clear condition, nothing half done, and everybody else is served as before.

use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject};
use maintenance_os::api::Tenant;
use maintenance_os_e2e::{World, promise, within};
use serde_json::{Value, json};

#[tokio::test]
async fn a_tenant_waits_for_its_plan_and_for_the_plan_to_be_sold() {
    promise(async |world| {
        let (name, plan_name) = (World::name("plan"), World::name("plan"));
        world.create(&name, json!({ "planRef": { "name": plan_name } })).await;
        let missing = world.becomes(10, &name, "False", "PlanNotFound").await;
        assert!(missing.message.contains(&plan_name) && missing.message.contains("create it"), "{}", missing.message);
        world.plan(&plan_name, json!({ "active": false })).await;
        world.becomes(10, &name, "False", "PlanInactive").await;
        assert_eq!(world.ledger(&name).await, [], "nothing was made");
        world.merge(&world.plans(), &plan_name, &json!({ "spec": { "active": true } })).await;
        world.becomes_ready(15, &name).await;
        // Who has data keeps it whatever becomes of the Plan.
        world.plans().delete(&plan_name, &DeleteParams::default()).await.expect("deleting the Plan");
        world.becomes(15, &name, "False", "PlanNotFound").await;
        world.answers(5, &name, 200).await;
        world.plan(&plan_name, json!({ "active": false })).await;
        world.becomes_ready(15, &name).await;
    })
    .await;
}

#[tokio::test]
async fn a_tenant_keeps_its_plan_rather_than_change_to_one_that_is_not_sold() {
    promise(async |world| {
        let (name, sold, old) = (World::name("keeps"), World::name("sold"), World::name("old"));
        world.plan(&sold, json!({})).await;
        world.plan(&old, json!({ "active": false })).await;
        world.ready(&name, json!({ "planRef": { "name": sold } })).await;
        let admin = world.admin(&name).await;
        world
            .merge(
                &world.tenants(),
                &name,
                &json!({ "spec": { "planRef": { "name": old }, "displayName": "Renamed" } }),
            )
            .await;
        let refused = world.becomes(15, &name, "False", "PlanInactive").await;
        assert!(refused.message.contains(&sold) && refused.message.contains(&old), "{}", refused.message);
        within(10, "the other wish is carried out, under the plan that it has", async || {
            let settings = admin.api(world, "/api/settings").await.json();
            if settings["tenant"] == "Renamed" && settings["plan"] == *sold {
                Ok(())
            } else {
                Err(settings.to_string())
            }
        })
        .await;
        // Suspending is carried out at once, whatever is the matter with the plan.
        world.merge(&world.tenants(), &name, &json!({ "spec": { "state": "Suspended" } })).await;
        world.answers(5, &name, 503).await;
        world.merge(&world.tenants(), &name, &json!({ "spec": { "state": "Active" } })).await;
        world.answers(10, &name, 200).await;
        world.merge(&world.plans(), &old, &json!({ "spec": { "active": true } })).await;
        world.becomes_ready(15, &name).await;
        within(10, "it is sold again, and the tenant has it", async || {
            let settings = admin.api(world, "/api/settings").await.json();
            if settings["plan"] == *old { Ok(()) } else { Err(settings.to_string()) }
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_slug_of_a_live_tenant_is_refused_and_its_holder_not_touched() {
    promise(async |world| {
        let name = World::name("slug");
        let host_is_acmes =
            async || assert_eq!(world.get("acme", "/api/tenant").await.json()["tenant"], "Acme Pumps GmbH");
        host_is_acmes().await;
        world.create(&name, json!({ "slug": "acme" })).await;
        let refused = world.becomes(10, &name, "False", "SlugConflict").await;
        assert!(refused.message.contains("customers/acme"), "{}", refused.message);
        host_is_acmes().await;
        world.delete_wholly(&name).await;
        host_is_acmes().await;
        assert_eq!(world.ledger("acme").await.len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_tenant_in_a_namespace_that_is_not_served_gets_nothing_and_is_told_so() {
    promise(async |world| {
        let name = World::name("elsewhere");
        let api: Api<Tenant> = Api::namespaced(world.client.clone(), "default");
        let mut tenant = World::tenant(&name, json!({}));
        tenant.metadata.namespace = Some("default".into());
        api.create(&PostParams::default(), &tenant).await.expect("creating a Tenant");
        within(10, "the Tenant is told", async || {
            let conditions =
                api.get(&name).await.map_err(|error| error.to_string())?.status.unwrap_or_default().conditions;
            let told = conditions.iter().any(|condition| {
                condition.type_ == "Ready"
                    && condition.reason == "PermissionDenied"
                    && condition.message.contains("tenantNamespaces")
            });
            if told { Ok(()) } else { Err(format!("{conditions:?}")) }
        })
        .await;
        assert_eq!(api.get(&name).await.expect("the Tenant").finalizers().len(), 0, "nothing holds it");
        assert_eq!(world.ledger(&name).await, []);
        assert_eq!(world.get(&name, "/").await.status, 404);
        api.delete(&name, &DeleteParams::default()).await.expect("deleting the Tenant");
    })
    .await;
}

#[tokio::test]
async fn a_server_that_is_unknown_or_full_takes_no_tenant_until_there_is_one_with_room() {
    promise(async |world| {
        let (unknown, full) = (World::name("unknown"), World::name("full"));
        world.create(&unknown, json!({ "database": { "serverRef": { "name": "no-such-server" } } })).await;
        let refused = world.becomes(10, &unknown, "False", "ServerNotFound").await;
        assert!(refused.message.contains("no-such-server"), "{}", refused.message);
        let capacity = |most: u32| json!({ "spec": { "capacity": { "maxTenants": most } } });
        world.merge(&world.servers(), "pg-demo-1", &capacity(1)).await;
        within(20, "the smaller capacity is known", async || {
            let name = World::name("probe");
            world.create(&name, json!({})).await;
            let ready = world.condition_reason(&name).await;
            world.delete_wholly(&name).await;
            if ready == "CapacityExceeded" { Ok(()) } else { Err(ready) }
        })
        .await;
        world.create(&full, json!({ "database": { "serverRef": { "name": "pg-demo-1" } } })).await;
        let refused = world.becomes(10, &full, "False", "CapacityExceeded").await;
        assert!(refused.message.contains("maxTenants"), "{}", refused.message);
        world.others_are_served().await;
        world.merge(&world.servers(), "pg-demo-1", &capacity(1000)).await;
        world.becomes_ready(30, &full).await;
        world.delete_wholly(&unknown).await;
    })
    .await;
}

#[tokio::test]
async fn a_secret_of_the_bindings_name_that_is_not_ours_is_never_overwritten() {
    promise(async |world| {
        let name = World::name("foreign");
        let secret = format!("{name}-db");
        let foreign = serde_json::from_value(json!({
            "metadata": { "name": secret, "labels": { "maintenance-os-e2e": "true" } },
            "type": "servicebinding.io/postgresql", "stringData": { "password": "mine" },
        }))
        .expect("a Secret as the API has it");
        world.secrets("customers").create(&PostParams::default(), &foreign).await.expect("creating a Secret");
        world.create(&name, json!({})).await;
        let conflict = world.becomes(15, &name, "False", "Conflict").await;
        assert!(conflict.message.contains(&secret), "{}", conflict.message);
        let found = world.secret("customers", &secret).await.expect("the Secret is there");
        assert_eq!(found.get("password").map(String::as_str), Some("mine"));
        assert_eq!(found.len(), 1, "untouched");
        world.kill(&world.secrets("customers"), &secret).await;
        world.becomes_ready(45, &name).await;
    })
    .await;
}

#[tokio::test]
async fn a_database_that_lost_its_mark_or_bears_anothers_is_never_altered_nor_dropped() {
    promise(async |world| {
        let name = World::name("mark");
        let uuid = world.ready(&name, json!({ "deletionPolicy": "Delete", "quarantine": "1s" })).await;
        let database = format!("tenant_{uuid}");
        let mark = world.databases(&database).await[0].1.clone();
        let set = |mark: &str| format!("COMMENT ON DATABASE \"{database}\" IS '{mark}'");
        world.psql("template1", &set("somebody else")).await;
        let conflict = world.becomes(world.resync + 10, &name, "False", "Conflict").await;
        assert!(conflict.message.contains(&database), "{}", conflict.message);
        world.psql("template1", &format!("ALTER DATABASE \"{database}\" CONNECTION LIMIT 7")).await;
        world.delete(&name).await;
        world.becomes(world.resync + 10, &name, "False", "DeletionBlocked").await;
        let limit = world
            .psql("template1", &format!("SELECT datconnlimit FROM pg_database WHERE datname = '{database}'"))
            .await;
        assert_eq!(limit, ["7"], "not altered");
        world.psql("template1", &set(&mark)).await;
        world.goes(world.resync + 20, &name).await;
    })
    .await;
}

/// The Tenants' definition with its schema taken away, so that anything can be stored.
async fn store_garbage(world: &World, name: &str, spec: &Value) {
    let crds: Api<DynamicObject> = Api::all_with(world.client.clone(), &crd());
    let definition = "tenants.tenancy.maintenance-os.com";
    let path = "/spec/versions/0/schema/openAPIV3Schema";
    let anything = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let relaxed = serde_json::from_value(json!([
        { "op": "replace", "path": format!("{path}/properties/spec"), "value": anything },
        { "op": "remove", "path": format!("{path}/x-kubernetes-validations") },
        { "op": "remove", "path": "/spec/versions/0/selectableFields" },
    ]))
    .expect("a patch");
    let before = crds.get(definition).await.expect("the definition of Tenants");
    crds.patch(definition, &PatchParams::default(), &Patch::Json::<()>(relaxed)).await.expect("relaxing the schema");
    let tenants: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), "customers", &kind());
    let mut object = DynamicObject::new(name, &kind()).within("customers").data(json!({ "spec": spec }));
    object.labels_mut().insert("maintenance-os-e2e".into(), "true".into());
    within(20, "garbage is stored", async || {
        let stored = tenants.create(&PostParams::default(), &object).await;
        stored.map(drop).map_err(|error| error.to_string())
    })
    .await;
    let restored = json!({ "spec": before.data["spec"] });
    world.merge(&crds, definition, &restored).await;
}

fn crd() -> ApiResource {
    ApiResource::from_gvk(&kube::core::GroupVersionKind::gvk("apiextensions.k8s.io", "v1", "CustomResourceDefinition"))
}

fn kind() -> ApiResource {
    ApiResource::erase::<Tenant>(&())
}

#[tokio::test]
async fn a_tenant_that_does_not_decode_disturbs_nobody_and_is_told_so() {
    promise(async |world| {
        let (garbage, name) = (World::name("garbage"), World::name("beside"));
        store_garbage(world, &garbage, &json!({ "displayName": ["not", "a", "text"], "planRef": 7 })).await;
        world.ready(&name, json!({})).await;
        world.answers(5, &name, 200).await;
        let tenants: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), "customers", &kind());
        within(20, "the Tenant is told what is wrong with it", async || {
            let object = tenants.get(&garbage).await.map_err(|error| error.to_string())?;
            let told = object.data["status"]["conditions"].as_array().into_iter().flatten().any(|condition| {
                condition["type"] == "Ready"
                    && condition["status"] == "False"
                    && condition["message"].as_str().is_some_and(|message| message.contains("cannot be read"))
            });
            if told { Ok(()) } else { Err(object.data["status"].to_string()) }
        })
        .await;
        // Also an operator that begins with it in the list.
        world.restart_operator().await;
        let late = World::name("late");
        world.ready(&late, json!({})).await;
        world.delete_wholly(&name).await;
        world.others_are_served().await;
        tenants.delete(&garbage, &DeleteParams::default()).await.expect("deleting the Tenant");
        within(15, "it goes", async || match tenants.get_opt(&garbage).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    })
    .await;
}
