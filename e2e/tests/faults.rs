//! Faults: whatever goes away, tenants that are served stay served, nothing is lost, and all heals by itself.

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::ResourceExt;
use kube::api::Api;
use maintenance_os_e2e::{World, promise, within};
use serde_json::json;

const CENTRAL: &str = "maintenance_os_central";

async fn scale_postgres(world: &World, replicas: u32) {
    let sets: Api<StatefulSet> = Api::namespaced(world.client.clone(), "databases");
    world.merge(&sets, "pg-demo-1", &json!({ "spec": { "replicas": replicas } })).await;
    within(60, &format!("PostgreSQL has {replicas} pods"), async || {
        let answer = world.try_psql("template1", "SELECT 1").await;
        if answer.is_ok() == (replicas > 0) { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

#[tokio::test]
async fn a_tenant_that_is_created_while_postgresql_is_down_becomes_ready_once_it_is_back() {
    promise(async |world| {
        let (name, going) = (World::name("down"), World::name("going"));
        world.ready(&going, json!({})).await;
        scale_postgres(world, 0).await;
        world.create(&name, json!({})).await;
        world.becomes(30, &name, "False", "DatabaseUnreachable").await;
        world.delete(&going).await;
        scale_postgres(world, 1).await;
        world.becomes_ready(60, &name).await;
        world.goes(60, &going).await;
        world.answers(30, "acme", 200).await;
        assert_eq!(world.ledger(&going).await[0].0, "Retained");
    })
    .await;
}

#[tokio::test]
async fn a_tenant_that_the_ledger_lost_is_served_and_found_again_by_the_mark_on_its_database() {
    promise(async |world| {
        let name = World::name("lost");
        let uuid = world.ready(&name, json!({})).await;
        // As a central database that was restored from a backup older than the tenant.
        world.psql(CENTRAL, &format!("DELETE FROM tenants WHERE id = '{uuid}'")).await;
        within(world.resync + 30, "the row is there again", async || {
            world.answers(5, &name, 200).await;
            let rows = world.ledger(&name).await;
            if rows == [("Provisioned".to_owned(), uuid.clone())] { Ok(()) } else { Err(format!("{rows:?}")) }
        })
        .await;
        assert_eq!(world.becomes_ready(30, &name).await, uuid);
        assert_eq!(
            world
                .psql(
                    CENTRAL,
                    &format!(
                        "SELECT count(*) FROM audit_logs WHERE tenant_id = '{uuid}' AND action = 'tenant.rebuilt'"
                    )
                )
                .await,
            ["1"]
        );
        // Deleted and applied again, it is still the slug of that data.
        world.delete(&name).await;
        world.goes(30, &name).await;
        assert_eq!(world.ledger(&name).await, [("Retained".to_owned(), uuid)]);
    })
    .await;
}

#[tokio::test]
async fn a_kept_tenant_goes_although_its_server_is_down_and_a_destroyed_one_waits() {
    promise(async |world| {
        world.forget_releases().await;
        let (kept, destroyed) = (World::name("kept"), World::name("destroyed"));
        let uuid = world.ready(&kept, json!({})).await;
        let other = world.ready(&destroyed, json!({ "deletionPolicy": "Delete", "quarantine": "1h" })).await;
        // The server is closed to the operator; the ledger, which lies on it too in the demo, is not.
        world.close_database("postgres").await;
        world.server_becomes(world.resync + 15, "False", "DatabaseUnreachable").await;
        world.delete(&kept).await;
        world.delete(&destroyed).await;
        world.goes(30, &kept).await;
        world.answers(5, &kept, 404).await;
        assert_eq!(world.ledger(&kept).await, [("Retained".to_owned(), uuid.clone())]);
        world.becomes(30, &destroyed, "False", "DeletionBlocked").await;
        assert_eq!(world.logins(&format!("tenant_{uuid}%")).await.len(), 1, "not revoked yet");
        world.others_are_served().await;
        world.open_database("postgres").await;
        world.goes(world.resync + 30, &destroyed).await;
        assert_eq!(world.ledger(&destroyed).await, [("Quarantined".to_owned(), other)]);
        within(world.resync + 15, "the logins of the kept tenant are revoked", async || {
            let logins = world.logins(&format!("tenant_{uuid}%")).await;
            if logins.is_empty() { Ok(()) } else { Err(format!("{logins:?}")) }
        })
        .await;
        assert_eq!(world.databases(&format!("tenant_{uuid}")).await.len(), 1, "its data is kept");
    })
    .await;
}

#[tokio::test]
async fn a_server_with_a_wrong_password_takes_nobody_and_serves_everybody() {
    promise(async |world| {
        let right =
            world.secret("maintenance-os", "pg-demo-1").await.expect("the connection Secret")["password"].clone();
        world.change_secret("maintenance-os", "pg-demo-1", &[("password", "wrong"), ("password.right", &right)]).await;
        world.server_becomes(world.resync + 15, "False", "PermissionDenied").await;
        let name = World::name("denied");
        world.create(&name, json!({})).await;
        world.becomes(15, &name, "False", "DatabaseUnreachable").await;
        world.others_are_served().await;
        world.change_secret("maintenance-os", "pg-demo-1", &[("password", &right)]).await;
        world.becomes_ready(world.resync + 30, &name).await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_refuses_writes_takes_nobody_and_serves_everybody() {
    promise(async |world| {
        let name = World::name("readonly");
        world
            .psql("template1", "ALTER ROLE maintenance_os_provisioner SET default_transaction_read_only = on; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'maintenance_os_provisioner'")
            .await;
        let message = world.server_becomes(world.resync + 15, "False", "DatabaseUnreachable").await;
        assert!(message.contains("read-only"), "{message}");
        world.create(&name, json!({})).await;
        world.becomes(15, &name, "False", "DatabaseUnreachable").await;
        world.others_are_served().await;
        world
            .psql("template1", "ALTER ROLE maintenance_os_provisioner RESET default_transaction_read_only; SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'maintenance_os_provisioner'")
            .await;
        world.becomes_ready(world.resync + 30, &name).await;
    })
    .await;
}

#[tokio::test]
async fn without_the_central_database_tenants_are_served_and_new_ones_wait() {
    promise(async |world| {
        let (before, name) = (World::name("before"), World::name("central"));
        world.ready(&before, json!({})).await;
        world.close_database(CENTRAL).await;
        world.create(&name, json!({})).await;
        let waiting = world.becomes(30, &name, "False", "DatabaseUnreachable").await;
        assert!(
            waiting.message.contains("central database") || waiting.message.contains("register"),
            "{}",
            waiting.message
        );
        world.answers(5, &before, 200).await;
        // Also for an operator that begins without it.
        world.kill_operators().await;
        world.others_are_served().await;
        world.delete(&before).await;
        world.open_database(CENTRAL).await;
        world.becomes_ready(60, &name).await;
        world.goes(30, &before).await;
    })
    .await;
}

#[tokio::test]
async fn ten_tenants_survive_the_death_of_the_operator_and_no_database_is_lost_or_doubled() {
    promise(async |world| {
        let names: Vec<_> = (0..10).map(|number| World::name(&format!("death{number}"))).collect();
        for name in &names {
            world.create(name, json!({})).await;
        }
        world.kill_operators().await;
        let mut uuids = Vec::new();
        for name in &names {
            uuids.push(world.becomes_ready(60, name).await);
        }
        for (name, uuid) in names.iter().zip(&uuids) {
            assert_eq!(world.ledger(name).await, [("Provisioned".to_owned(), uuid.clone())]);
            let databases = world.databases(&format!("tenant_{uuid}")).await;
            assert!(databases.len() == 1 && databases[0].1.contains(uuid), "{databases:?}");
            assert_eq!(world.uuid(name).await, *uuid);
        }
        within(60, "the warm pool is full again and nothing half made is left", async || {
            let warm = world.databases("maintenance\\_os\\_warm\\_%").await.len();
            let cloning = world.databases("maintenance\\_os\\_cloning\\_%").await;
            if warm == 5 && cloning.is_empty() { Ok(()) } else { Err(format!("{warm} warm, {cloning:?}")) }
        })
        .await;
        let marks = "SELECT count(*) - count(DISTINCT shobj_description(oid, 'pg_database')) FROM pg_database WHERE datname LIKE 'tenant\\_%'";
        assert_eq!(world.psql("template1", marks).await, ["0"], "every database has a mark of its own");
    })
    .await;
}

#[tokio::test]
async fn of_two_operators_one_leads_and_the_other_takes_over_within_twenty_seconds() {
    promise(async |world| {
        world.scale_operator(2).await;
        let (leader, _) = world.leader().await;
        world.kill(&world.pods("maintenance-os"), &leader).await;
        world.another_leads(20, &leader).await;
        let name = World::name("second");
        world.ready(&name, json!({})).await;
        world.answers(5, &name, 200).await;
        world.scale_operator(1).await;
        world.ready(&World::name("alone"), json!({})).await;
    })
    .await;
}

#[tokio::test]
async fn tenants_deleted_at_any_moment_of_their_creation_leave_no_login() {
    promise(async |world| {
        let names: Vec<_> = (0..20).map(|number| World::name(&format!("brief{number}"))).collect();
        let lives = names.iter().enumerate().map(|(number, name)| async move {
            world.create(name, json!({})).await;
            // A moment of the creation, not a wait for something.
            let moment = std::time::Duration::from_millis(25 * u64::try_from(number).unwrap_or_default());
            tokio::time::sleep(moment).await;
            world.delete(name).await;
        });
        futures::future::join_all(lives).await;
        for name in &names {
            world.goes(60, name).await;
            // The API server may delete an object although its finalizer was added a moment before: the next resync sees it.
            within(world.resync + 15, &format!("{name} is released"), async || {
                let rows = world.ledger(name).await;
                if rows.iter().all(|(state, _)| state == "Retained") { Ok(()) } else { Err(format!("{rows:?}")) }
            })
            .await;
            assert_eq!(world.get(name, "/").await.status, 404);
        }
        let kept = world.psql(CENTRAL, "SELECT id FROM tenants WHERE slug LIKE 'e2e-brief%'").await;
        for uuid in kept {
            assert_eq!(world.logins(&format!("tenant_{uuid}%")).await, Vec::<String>::new());
            assert_eq!(world.databases(&format!("tenant_{uuid}")).await.len(), 1, "what is kept is there");
        }
        let known = world.psql(CENTRAL, "SELECT id FROM tenants WHERE ledger_state = 'Provisioned'").await;
        let strays: Vec<_> = world
            .logins("tenant\\_%")
            .await
            .into_iter()
            .filter(|login| !known.iter().any(|uuid| login.contains(uuid.as_str())))
            .collect();
        assert_eq!(strays, Vec::<String>::new(), "logins of nobody");
    })
    .await;
}

#[tokio::test]
async fn a_tenant_whose_finalizer_was_removed_by_force_is_released_and_its_data_kept() {
    promise(async |world| {
        let name = World::name("forced");
        let uuid = world.ready(&name, json!({ "deletionPolicy": "Delete", "quarantine": "1s" })).await;
        let (database, binding) = (format!("tenant_{uuid}"), world.binding(&name).await);
        world.scale_operator(0).await;
        world.delete(&name).await;
        world.merge(&world.tenants(), &name, &json!({ "metadata": { "finalizers": null } })).await;
        world.goes(10, &name).await;
        world.scale_operator(1).await;
        within(world.resync + 45, "its login goes and its row is released", async || {
            let (rows, logins) = (world.ledger(&name).await, world.logins(&format!("{database}%")).await);
            let is_released = rows == [("Retained".to_owned(), uuid.clone())] && logins.is_empty();
            if is_released { Ok(()) } else { Err(format!("{rows:?} {logins:?}")) }
        })
        .await;
        world.answers(5, &name, 404).await;
        assert!(binding.pooled(&database).await.is_err());
        assert_eq!(world.databases(&database).await.len(), 1, "nobody said yes three times: the data is kept");
        world.others_are_served().await;
    })
    .await;
}

#[tokio::test]
async fn a_tenant_with_open_sessions_goes_and_they_end() {
    promise(async |world| {
        let name = World::name("sessions");
        let uuid = world.ready(&name, json!({})).await;
        let (binding, database) = (world.binding(&name).await, format!("tenant_{uuid}"));
        let mut pooled = binding.pooled(&database).await.expect("a session through the pooler");
        let mut direct = binding.direct(&database).await.expect("a session with the server");
        for session in [&mut pooled, &mut direct] {
            sqlx::raw_sql("BEGIN; SELECT count(*) FROM assets").execute(session).await.expect("a transaction");
        }
        world.delete_wholly(&name).await;
        for session in [&mut pooled, &mut direct] {
            sqlx::raw_sql("SELECT 1").execute(session).await.expect_err("the session is ended");
        }
    })
    .await;
}

#[tokio::test]
async fn a_tenant_deleted_and_made_again_under_its_name_is_a_new_one_with_another_slug() {
    promise(async |world| {
        let name = World::name("again");
        let first = world.ready(&name, json!({})).await;
        world.delete(&name).await;
        let created = within(20, "the name is free", async || {
            let again = World::tenant(&name, json!({ "slug": format!("{name}-2") }));
            world.tenants().create(&kube::api::PostParams::default(), &again).await.map_err(|error| error.to_string())
        })
        .await;
        let second = world.becomes_ready(30, &created.name_any()).await;
        assert_ne!(first, second);
        let slug = format!("{name}-2");
        world.admin_of(&name, &slug).await;
        assert_eq!(world.uuid(&slug).await, second);
        assert_eq!(world.get(&name, "/").await.status, 404);
        let states: Vec<_> = world.ledger(&name).await.into_iter().map(|(state, _)| state).collect();
        assert_eq!(states, ["Retained"]);
    })
    .await;
}
