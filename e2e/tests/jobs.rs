//! What is left for later is done, also when whoever does it is killed.

use std::fmt::Write;

use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams};
use maintenance_os_e2e::{OPERATOR, World, promise, within};
use serde_json::json;

/// Enough to be killed in the middle of.
const ROWS: usize = 30_000;

#[tokio::test]
async fn an_import_is_done_once_although_its_worker_is_killed() {
    promise(async |world| {
        let name = World::name("later");
        let uuid = world.ready(&name, json!({ "planRef": { "name": "enterprise" } })).await;
        let mut admin = world.admin(&name).await;
        let table = (0..ROWS).fold("Name\n".to_owned(), |mut table, row| {
            writeln!(table, "Machine {row}").expect("a text takes everything");
            table
        });
        let checked = admin.attach(world, "/imports", "machines.csv", table.as_bytes()).await;
        assert_eq!(checked.status, 303, "{}", checked.body);
        let list = admin.page(world, "/imports").await;
        let id = list.body.split("href=\"/imports/").nth(1).and_then(|rest| rest.split('"').next()).expect("an import");
        let page = format!("/imports/{id}");
        let pressed = admin.press(world, &page, &format!("{page}/apply")).await;
        assert_eq!(pressed.status, 303, "{}", pressed.body);
        within(30, "a worker has it", async || {
            let body = admin.page(world, &page).await.body;
            if body.contains("Being imported") { Ok(()) } else { Err(body) }
        })
        .await;
        let pods = world.pods(OPERATOR);
        // Those of the tenant's own too, which its plan gives it.
        let workers = ListParams::default().labels("app.kubernetes.io/component in (worker, dedicated-worker)");
        for pod in pods.list(&workers).await.expect("listing workers") {
            let now = DeleteParams::default().grace_period(0);
            pods.delete(&pod.name_any(), &now).await.expect("killing a worker");
        }
        // Its lease has to run out, and another worker to start.
        within(120, "it is imported all the same", async || {
            let body = admin.page(world, &page).await.body;
            if body.contains("Go to the assets") { Ok(()) } else { Err(body) }
        })
        .await;
        assert_eq!(world.assets(&name).await, i64::try_from(ROWS).expect("a count"));
        let done = "SELECT count(*) FROM activities WHERE kind = 'asset.imported'";
        assert_eq!(world.psql(&format!("tenant_{uuid}"), done).await, ["1"]);
        let jobs = admin.page(world, "/jobs").await;
        assert!(jobs.body.contains("Nothing to do"), "{}", jobs.body);
        within(60, "a worker is there again", async || {
            let pods = pods.list(&workers).await.map_err(|error| error.to_string())?;
            let ready = pods.iter().filter(|pod| {
                let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_ref());
                conditions.into_iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True")
            });
            if ready.count() > 0 { Ok(()) } else { Err("none is ready".to_owned()) }
        })
        .await;
    })
    .await;
}
