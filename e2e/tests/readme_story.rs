//! The README's story: a Tenant of five lines is served, deleted with its data kept, and adopted again.

use maintenance_os_e2e::{World, promise, within};
use serde_json::json;

#[tokio::test]
async fn a_tenant_is_served_then_deleted_with_its_data_kept_then_adopted() {
    promise(async |world| {
        let name = World::name("story");
        let uuid = world.ready(&name, json!({})).await;
        assert_eq!(world.assets(&name).await, 0);
        world.add_asset(&name, "Pump 7").await;
        assert_eq!(world.assets(&name).await, 1);
        assert_eq!(world.uuid(&name).await, uuid);

        let acme = world.rows_of_assets("acme").await;
        world.delete_wholly(&name).await;
        world.answers(5, &name, 404).await;
        assert_eq!(world.ledger(&name).await, [("Retained".to_owned(), uuid.clone())]);
        let databases = world.databases(&format!("tenant_{uuid}")).await;
        assert!(databases.len() == 1 && databases[0].1.contains(&uuid), "the data stays with its mark: {databases:?}");
        assert_eq!(world.logins(&format!("tenant_{uuid}%")).await, Vec::<String>::new());

        // The slug belongs to the data, and whoever wants it is told what to type.
        world.create(&name, json!({})).await;
        let refused = world.becomes(10, &name, "False", "SlugConflict").await;
        assert!(refused.message.contains(&format!("spec.uuid: {uuid}")), "{}", refused.message);
        world.answers(5, &name, 404).await;
        world.delete_wholly(&name).await;
        assert_eq!(world.ledger(&name).await, [("Retained".to_owned(), uuid.clone())]);

        assert_eq!(world.ready(&name, json!({ "uuid": uuid })).await, uuid);
        assert_eq!(world.assets(&name).await, 1, "the data is back");
        assert_eq!(world.rows_of_assets("acme").await, acme, "nobody else's data has changed");
    })
    .await;
}

#[tokio::test]
async fn data_is_adopted_under_another_name_and_never_twice() {
    promise(async |world| {
        let (first, second, third) = (World::name("first"), World::name("second"), World::name("third"));
        let uuid = world.ready(&first, json!({})).await;
        world.add_asset(&first, "Pump 7").await;
        world.create(&third, json!({ "uuid": uuid })).await;
        let refused = world.becomes(10, &third, "False", "Conflict").await;
        assert!(refused.message.contains("cannot be adopted"), "{}", refused.message);
        world.delete_wholly(&first).await;
        world.ready(&second, json!({ "uuid": uuid, "slug": first })).await;
        assert_eq!(world.assets(&first).await, 1, "under the slug that belongs to the data");
    })
    .await;
}

#[tokio::test]
async fn the_table_of_kubectl_shows_what_one_wants_to_know() {
    promise(async |world| {
        let name = World::name("table");
        let uuid = world.ready(&name, json!({})).await;
        let row = within(5, "a row", async || {
            let arguments = ["get", "tenants.tenancy.maintenance-os.com", &name, "-n", "customers", "-o", "wide"];
            let output = tokio::process::Command::new("kubectl").args(arguments).output().await;
            let text = String::from_utf8_lossy(&output.map_err(|error| error.to_string())?.stdout).into_owned();
            let lines: Vec<String> = text.lines().map(str::to_owned).collect();
            <[String; 2]>::try_from(lines).map_err(|lines| format!("{lines:?}"))
        })
        .await;
        let heads: Vec<_> = row[0].split_whitespace().collect();
        let wanted =
            ["NAME", "PLAN", "READY", "STATUS", "HOST", "SCHEMA", "BACKUP", "AGE", "DATABASE", "SERVER", "MESSAGE"];
        assert_eq!(heads, wanted);
        for value in [&name, "pro", "True", "Active", &World::host(&name), &format!("tenant_{uuid}"), "pg-demo-1"] {
            assert!(row[1].split_whitespace().any(|cell| cell == value), "{value} in {}", row[1]);
        }
    })
    .await;
}
