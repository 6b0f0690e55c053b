//! Sessions, cache and limits on Redis behind Sentinel and on a Redis cluster, as on one that stands alone.

use std::path::Path;

use maintenance_os_e2e::{World, promise, within};
use serde_json::json;

/// `redis-pods.sh MODE up|down`
async fn redis(mode: &str, what: &str) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("cluster/redis-pods.sh");
    let output = tokio::process::Command::new(script).args([mode, what]).output().await.expect("the script runs");
    assert!(output.status.success(), "redis-pods.sh {mode} {what}: {}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn people_work_behind_sentinel_and_stay_signed_in_when_another_leads() {
    promise(async |world| {
        let name = World::name("sentinel");
        world.ready(&name, json!({})).await;
        let mut admin = world.admin(&name).await;
        redis("sentinel", "down").await;
        redis("sentinel", "up").await;
        let password = world.secret("maintenance-os", "redis").await.expect("the app's Secret")["password"].clone();
        let server =
            |number: u32| format!("redis-sentinel-{number}.redis-sentinel.redis-tests.svc.cluster.local:26379");
        let nodes = [server(0), server(1), server(2)].join(",");
        let through = world
            .app_with(
                "app-sentinel",
                &[
                    ("REDIS_MODE", "sentinel"),
                    ("REDIS_NODES", &nodes),
                    ("REDIS_MASTER_NAME", "maintenance-os"),
                    ("REDIS_SENTINEL_PASSWORD", &password),
                    ("REDIS_HOST", ""),
                ],
            )
            .await;
        assert_eq!(admin.sign_in(&through).await.status, 303);
        assert_eq!(admin.page(&through, "/").await.status, 200);
        // Its sessions lie there and not in the other Redis.
        assert_eq!(admin.page(world, "/").await.status, 303);
        // At first the first pod leads.
        world.kill(&world.pods("redis-tests"), "redis-sentinel-0").await;
        within(60, "the page is served on another leader", async || {
            let page = admin.page(&through, "/").await;
            if page.status == 200 { Ok(()) } else { Err(format!("{}: {}", page.status, page.body)) }
        })
        .await;
        // Limits have a connection of their own, which follows the leader for itself.
        within(60, "sessions are written there, too", async || {
            let status = admin.sign_in(&through).await.status;
            if status == 303 { Ok(()) } else { Err(status.to_string()) }
        })
        .await;
        world.stop_app("app-sentinel").await;
        redis("sentinel", "down").await;
    })
    .await;
}

#[tokio::test]
async fn people_work_on_a_redis_cluster() {
    promise(async |world| {
        let name = World::name("cluster");
        world.ready(&name, json!({})).await;
        let mut admin = world.admin(&name).await;
        redis("cluster", "up").await;
        let nodes = "redis-cluster.redis-tests.svc.cluster.local:6379";
        let variables = [("REDIS_MODE", "cluster"), ("REDIS_NODES", nodes), ("REDIS_HOST", "")];
        let through = world.app_with("app-cluster", &variables).await;
        // Each session has another slot, and so perhaps another node.
        for _ in 0..6 {
            assert_eq!(admin.sign_in(&through).await.status, 303);
            assert_eq!(admin.page(&through, "/").await.status, 200);
        }
        assert_eq!(admin.page(world, "/").await.status, 303);
        world.stop_app("app-cluster").await;
        redis("cluster", "down").await;
    })
    .await;
}
