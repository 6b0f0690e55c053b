//! `deletionPolicy: Delete`: the data is closed off, can be had back for a while, and goes when nobody wanted it.

use kube::ResourceExt;
use maintenance_os_e2e::{World, promise, within};
use serde_json::json;

#[tokio::test]
async fn deleted_data_is_closed_off_and_had_back_within_its_quarantine() {
    promise(async |world| {
        world.forget_releases().await;
        let name = World::name("back");
        let uuid = world.ready(&name, json!({ "deletionPolicy": "Delete", "quarantine": "1h" })).await;
        world.add_asset(&name, "Pump 7").await;
        let binding = world.binding(&name).await;
        let mut session = binding.direct(&format!("tenant_{uuid}")).await.expect("a session");
        world.delete_wholly(&name).await;
        sqlx::raw_sql("SELECT 1").execute(&mut session).await.expect_err("open sessions are ended");
        world.answers(5, &name, 404).await;
        assert!(binding.pooled(&format!("tenant_{uuid}")).await.is_err(), "the pooler knows it no more");
        assert_eq!(world.ledger(&name).await, [("Quarantined".to_owned(), uuid.clone())]);
        let names: Vec<_> = world.databases(&format!("%{uuid}")).await.into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, [format!("quarantine_{uuid}")]);
        assert_eq!(world.logins(&format!("tenant_{uuid}%")).await, Vec::<String>::new());

        assert_eq!(world.ready(&name, json!({ "uuid": uuid })).await, uuid);
        assert_eq!(world.assets(&name).await, 1, "the data is back");
    })
    .await;
}

#[tokio::test]
async fn data_that_nobody_wanted_back_is_dropped_and_cannot_be_adopted_any_more() {
    promise(async |world| {
        world.forget_releases().await;
        let (name, late) = (World::name("dropped"), World::name("late"));
        let uuid = world.ready(&name, json!({ "deletionPolicy": "Delete", "quarantine": "2s" })).await;
        world.delete_wholly(&name).await;
        within(world.resync + 15, "the database is dropped", async || {
            let left = world.databases(&format!("%{uuid}")).await;
            let rows = world.ledger(&name).await;
            if left.is_empty() && rows == [("Dropped".to_owned(), uuid.clone())] {
                Ok(())
            } else {
                Err(format!("{left:?} {rows:?}"))
            }
        })
        .await;
        let roles =
            world.psql("template1", &format!("SELECT rolname FROM pg_roles WHERE rolname LIKE 'tenant_{uuid}%'")).await;
        assert_eq!(roles, Vec::<String>::new());
        world.create(&late, json!({ "uuid": uuid })).await;
        let refused = world.becomes(15, &late, "False", "Conflict").await;
        assert!(refused.message.contains("cannot be adopted"), "{}", refused.message);
        // The slug is free again, for a new and empty tenant.
        assert_ne!(world.ready(&name, json!({})).await, uuid);
        assert_eq!(world.assets(&name).await, 0);
    })
    .await;
}

#[tokio::test]
async fn the_eleventh_destructive_delete_is_held_until_somebody_confirms_it() {
    promise(async |world| {
        world.forget_releases().await;
        let names: Vec<_> = (0..11).map(|number| World::name(&format!("breaker{number}"))).collect();
        for name in &names {
            world.create(name, json!({ "deletionPolicy": "Delete", "quarantine": "1h" })).await;
        }
        for name in &names {
            world.becomes_ready(60, name).await;
        }
        for name in &names {
            world.delete(name).await;
        }
        let held = within(60, "ten go and one is held", async || {
            let left: Vec<_> = world.made_by_tests().await.iter().map(ResourceExt::name_any).collect();
            <[String; 1]>::try_from(left).map_err(|left| format!("{left:?}"))
        })
        .await;
        let [held] = held;
        let blocked = world.becomes(30, &held, "False", "DeletionBlocked").await;
        assert!(blocked.message.contains("confirm-delete"), "{}", blocked.message);
        let uuid = world.ledger(&held).await.remove(0).1;
        assert_eq!(world.databases(&format!("%{uuid}")).await[0].0, format!("tenant_{uuid}"), "untouched");
        let confirm = json!({ "metadata": { "annotations": { "tenancy.maintenance-os.com/confirm-delete": held } } });
        world.merge(&world.tenants(), &held, &confirm).await;
        world.goes(30, &held).await;
        assert_eq!(world.ledger(&held).await, [("Quarantined".to_owned(), uuid)]);
        world.forget_releases().await;
    })
    .await;
}
