//! A plan may give its tenants workers of their own.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use kube::api::Api;
use maintenance_os_e2e::{OPERATOR, World, promise, within};
use serde_json::json;

/// What the Tenant says of its workers.
async fn workers_ready(world: &World, name: &str) -> Result<(String, String), String> {
    let tenant = world.tenants().get(name).await.map_err(|error| error.to_string())?;
    let conditions = tenant.status.map(|status| status.conditions).unwrap_or_default();
    let found = conditions.into_iter().find(|condition| condition.type_ == "WorkersReady");
    found.map(|found| (found.status, found.message)).ok_or_else(|| "no condition WorkersReady".into())
}

#[tokio::test]
async fn a_tenant_has_workers_of_its_own_for_as_long_as_its_plan_says_so() {
    promise(async |world| {
        let name = World::name("own");
        let uuid = world.ready(&name, json!({ "planRef": { "name": "enterprise" } })).await;
        let (status, message) = workers_ready(world, &name).await.expect("the condition");
        assert!(status == "True" && message.contains(&format!("worker-{uuid}")), "{status} {message}");
        let deployments: Api<Deployment> = Api::namespaced(world.client.clone(), OPERATOR);
        let scalers: Api<HorizontalPodAutoscaler> = Api::namespaced(world.client.clone(), OPERATOR);
        let own = format!("worker-{uuid}");
        let there = deployments.get(&own).await.expect("a Deployment of its own");
        assert_eq!(there.status.and_then(|status| status.available_replicas), Some(1));
        assert!(scalers.get_opt(&own).await.expect("looking for it").is_some(), "an autoscaler");

        let mut admin = world.admin(&name).await;
        let import = async |admin: &mut maintenance_os_e2e::Person, machine: &str| {
            let table = format!("Name\n{machine}\n");
            let checked = admin.attach(world, "/imports", "machines.csv", table.as_bytes()).await;
            assert_eq!(checked.status, 303, "{}", checked.body);
            let list = admin.page(world, "/imports").await;
            let id = list.body.split("href=\"/imports/").nth(1).and_then(|rest| rest.split('"').next());
            let page = format!("/imports/{}", id.expect("an import"));
            admin.press(world, &page, &format!("{page}/apply")).await;
            within(30, "it is imported", async || {
                let body = admin.page(world, &page).await.body;
                if body.contains("Go to the assets") { Ok(()) } else { Err(body) }
            })
            .await;
        };
        import(&mut admin, "Lathe").await;

        world.merge(&world.tenants(), &name, &json!({ "spec": { "planRef": { "name": "pro" } } })).await;
        within(60, "its own workers are gone, and what belongs to them", async || {
            let left = deployments.get_opt(&own).await.map_err(|error| error.to_string())?.is_some();
            let scaled = scalers.get_opt(&own).await.map_err(|error| error.to_string())?.is_some();
            if left || scaled { Err(format!("Deployment {left}, autoscaler {scaled}")) } else { Ok(()) }
        })
        .await;
        world.becomes_ready(30, &name).await;
        let (status, message) = workers_ready(world, &name).await.expect("the condition");
        assert_eq!((status.as_str(), message.as_str()), ("True", "the shared pool does its jobs"));
        import(&mut admin, "Drill").await;
    })
    .await;
}
