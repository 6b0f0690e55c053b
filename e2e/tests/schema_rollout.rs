//! A schema rollout: wave after wave, over failures, under load, and over the end of an operator.

use std::collections::BTreeMap;

use kube::api::{Api, DeleteParams, PostParams};
use maintenance_os::api::SchemaRollout;
use maintenance_os::api::rollout::SchemaRolloutStatus;
use maintenance_os_e2e::schema::TAKE_BACK;
use maintenance_os_e2e::{World, promise, within};
use serde_json::{Value, json};

fn rollouts(world: &World) -> Api<SchemaRollout> {
    Api::all(world.client.clone())
}

async fn begin(world: &World, name: &str, spec: Value) {
    let rollout = json!({
        "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "SchemaRollout",
        "metadata": { "name": name, "labels": { "maintenance-os-e2e": "true" } }, "spec": spec,
    });
    let rollout = serde_json::from_value(rollout).expect("a SchemaRollout as the API has it");
    rollouts(world).create(&PostParams::default(), &rollout).await.expect("creating a SchemaRollout");
}

async fn becomes(world: &World, seconds: u64, name: &str, phase: &str) -> SchemaRolloutStatus {
    within(seconds, &format!("SchemaRollout {name} is {phase}"), async || {
        let status = rollouts(world).get(name).await.map_err(|error| error.to_string())?.status.ok_or("no status")?;
        if format!("{:?}", status.phase) == phase { Ok(status) } else { Err(format!("{status:?}")) }
    })
    .await
}

async fn schema(world: &World, tenant: &str) -> String {
    let tenant = world.tenants().get(tenant).await.expect("there");
    tenant.status.and_then(|status| status.database?.schema_version).unwrap_or_default()
}

async fn take_back(world: &World, uuid: &str) {
    let database = format!("tenant_{uuid}");
    world.psql(&database, TAKE_BACK).await;
    let mark = world.databases(&database).await.remove(0).1;
    let (rest, _) = mark.rsplit_once("schema=").expect("a mark of ours");
    world.psql("template1", &format!("COMMENT ON DATABASE \"{database}\" IS '{rest}schema=0004_00000000'")).await;
}

#[tokio::test]
async fn a_rollout_goes_canary_first_says_what_failed_where_and_goes_on_when_it_is_mended() {
    promise(async |world| {
        let names: Vec<_> = (0..8).map(|number| World::name(&format!("roll{number}"))).collect();
        let mut uuids = BTreeMap::new();
        for name in &names {
            uuids.insert(name.clone(), world.ready(name, json!({})).await);
        }
        world.add_asset(&names[2], "Pump 7").await;
        let admin = world.admin(&names[2]).await;
        for name in &names[..2] {
            let label = json!({ "metadata": { "labels": { "tenancy.maintenance-os.com/ring": "canary" } } });
            world.merge(&world.tenants(), name, &label).await;
        }
        for uuid in uuids.values() {
            take_back(world, uuid).await;
        }
        // One whose migration cannot go well: somebody made a column of that name.
        let broken = &names[5];
        world.psql(&format!("tenant_{}", uuids[broken]), "ALTER TABLE assets ADD COLUMN search int").await;
        for name in &names {
            within(world.resync + 20, &format!("{name} is seen to be of the release before"), async || {
                let version = schema(world, name).await;
                if version == "0004" { Ok(()) } else { Err(version) }
            })
            .await;
        }
        world.answers(10, &names[0], 200).await;

        let rollout = World::name("next");
        let waves = json!([{ "name": "canary", "ring": "canary", "soak": "3s" }]);
        begin(world, &rollout, json!({ "waves": waves, "maxFailures": 3 })).await;
        let (status, seen) = world
            .under_load(&admin, async {
                let soaking = becomes(world, 30, &rollout, "Soaking").await;
                assert_eq!(soaking.wave.as_deref(), Some("canary (1/2)"), "{soaking:?}");
                assert_eq!(schema(world, &names[0]).await.as_str().max("0006"), "0006");
                assert_eq!(schema(world, &names[7]).await, "0004", "the others wait");
                becomes(world, 60, &rollout, "Failed").await
            })
            .await;
        assert!(seen.failed.is_empty() && seen.served > 30, "{seen:?}");
        assert_eq!(status.failed, 1, "{status:?}");
        assert_eq!(status.done, status.total - 1, "{status:?}");
        let said = "0005_asset_search.sql, line 17: column \"search\" of relation \"assets\" already exists [42701]";
        assert_eq!(status.failures.iter().map(|failure| failure.message.as_str()).collect::<Vec<_>>(), [said]);
        let refused = world.becomes(10, broken, "False", "MigrationFailed").await;
        assert!(refused.message.contains(said) && refused.message.contains("customers are served"), "{}", refused.message);
        assert_eq!(world.condition(broken, "Serving").await.expect("written").status, "True");
        world.answers(5, broken, 200).await;
        for name in names.iter().filter(|name| *name != broken) {
            within(15, &format!("{name} says its version"), async || {
                let version = schema(world, name).await;
                if version == "0006" { Ok(()) } else { Err(version) }
            })
            .await;
        }
        // What failed is still known to an operator that begins anew.
        world.scale_operator(0).await;
        world.scale_operator(1).await;
        world.becomes(30, broken, "False", "MigrationFailed").await;
        world.psql(&format!("tenant_{}", uuids[broken]), "ALTER TABLE assets DROP COLUMN search").await;
        let retry = json!({ "metadata": { "annotations": { "tenancy.maintenance-os.com/retry": format!("customers/{broken}#1") } } });
        world.merge(&rollouts(world), &rollout, &retry).await;
        let status = becomes(world, 60, &rollout, "Complete").await;
        assert_eq!((status.failed, status.done, status.failures.len()), (0, status.total, 0), "{status:?}");
        world.becomes_ready(20, broken).await;
        assert_eq!(schema(world, broken).await, "0006");
        rollouts(world).delete(&rollout, &DeleteParams::default()).await.expect("deleting the SchemaRollout");

        // Nothing to do: nobody's database is entered.
        let idle = World::name("idle");
        let unused = &uuids[&names[7]];
        let entered = format!("SELECT sessions FROM pg_stat_database WHERE datname = 'tenant_{unused}'");
        let before = world.psql("template1", &entered).await;
        begin(world, &idle, json!({})).await;
        becomes(world, 15, &idle, "Complete").await;
        assert_eq!(world.psql("template1", &entered).await, before, "a database was entered for nothing");
        rollouts(world).delete(&idle, &DeleteParams::default()).await.expect("deleting the SchemaRollout");
        world.others_are_served().await;
    })
    .await;
}
