//! What `spec.state`, a trial and a plan mean: at the hosts, at the pooler and at PostgreSQL.

use std::time::{Duration, Instant};

use maintenance_os_e2e::{World, promise, refusal, within};
use serde_json::json;

/// Longest until a suspended tenant is cut off.
const CUT_OFF: u64 = 5;

async fn set_state(world: &World, name: &str, state: &str) {
    world.merge(&world.tenants(), name, &json!({ "spec": { "state": state } })).await;
}

#[tokio::test]
async fn a_suspension_cuts_off_visitors_pooler_and_sessions_within_five_seconds() {
    promise(async |world| {
        let name = World::name("suspended");
        let uuid = world.ready(&name, json!({})).await;
        let (mut admin, binding) = (world.admin(&name).await, world.binding(&name).await);
        let database = format!("tenant_{uuid}");
        let mut pooled = binding.pooled(&database).await.expect("a session through the pooler");
        let mut direct = binding.direct(&database).await.expect("a session past the pooler");
        let long = |session| async move { sqlx::raw_sql("SELECT pg_sleep(60)").execute(session).await };
        let cut = async {
            let begun = Instant::now();
            set_state(world, &name, "Suspended").await;
            let hosts = async {
                within(CUT_OFF, "no host serves it", async || {
                    let answer = world.try_get(&name, "/sign-in").await?;
                    if answer.status == 503 { Ok(()) } else { Err(format!("{}", answer.status)) }
                })
                .await;
                begun.elapsed()
            };
            let sessions = async {
                within(CUT_OFF, "no session of its logins is left", async || {
                    let left = format!("SELECT count(*) FROM pg_stat_activity WHERE usename LIKE 'tenant_{uuid}%'");
                    let left = world.psql("template1", &left).await.concat();
                    if left == "0" { Ok(()) } else { Err(format!("{left} sessions")) }
                })
                .await;
                begun.elapsed()
            };
            // Requests that are on their way may take their time to fail; nothing new is served.
            let both = async { tokio::join!(hosts, sessions) };
            world.under_load(&admin, both).await.0
        };
        let (pooled, direct, (hosts, sessions)) = tokio::join!(long(&mut pooled), long(&mut direct), cut);
        assert!(pooled.is_err() && direct.is_err(), "queries that were running went on: {pooled:?} {direct:?}");
        assert!(
            hosts.max(sessions) < Duration::from_secs(CUT_OFF),
            "hosts after {hosts:?}, sessions after {sessions:?}"
        );
        println!("cut off: hosts after {hosts:?}, sessions after {sessions:?}");
        assert!(refusal(binding.pooled(&database).await).await.is_some(), "a login through the pooler");
        assert!(refusal(binding.direct(&database).await).await.is_some(), "a login past the pooler");
        world.becomes(15, &name, "True", "Suspended").await;
        let page = admin.page(world, "/").await;
        assert_eq!(page.status, 503);
        assert!(!page.body.contains(&name), "the page is neutral: {}", page.body);

        set_state(world, &name, "Active").await;
        world.becomes(30, &name, "True", "Active").await;
        world.answers(10, &name, 200).await;
        let page = admin.page(world, "/").await;
        assert_eq!(page.status, 303, "the session from before has ended: {}", page.body);
        assert_eq!(admin.sign_in(world).await.status, 303);
        assert_eq!(admin.page(world, "/").await.status, 200);
        world.others_are_served().await;
    })
    .await;
}

#[tokio::test]
async fn a_read_only_tenant_is_looked_at_and_not_changed_and_nobody_has_to_sign_in_again() {
    promise(async |world| {
        let name = World::name("readonly");
        world.ready(&name, json!({})).await;
        world.add_asset(&name, "Pump 7").await;
        let mut admin = world.admin(&name).await;
        set_state(world, &name, "ReadOnly").await;
        world.becomes(20, &name, "True", "ReadOnly").await;
        let page = admin.page(world, "/assets").await;
        assert!(page.status == 200 && page.body.contains("Pump 7"), "{page:?}");
        let refused = admin.api_post(world, "/api/assets", &json!({ "name": "Pump 8" })).await;
        assert_eq!(refused.status, 503, "{}", refused.body);
        // The binding's login, past the app: the server refuses it too.
        let binding = world.binding(&name).await;
        let mut session = binding.pooled(binding.key("database")).await.expect("its login works");
        let write = sqlx::raw_sql("UPDATE assets SET name = 'changed'").execute(&mut session).await;
        assert!(write.is_err_and(|error| error.to_string().contains("read-only")), "a write went through");
        assert_eq!(admin.sign_in(world).await.status, 303, "signing in writes nothing of the tenant's");
        set_state(world, &name, "Active").await;
        world.becomes(20, &name, "True", "Active").await;
        world.add_asset(&name, "Pump 8").await;
    })
    .await;
}

#[tokio::test]
async fn a_hibernated_tenant_shows_a_waiting_page_and_is_awake_five_seconds_later() {
    promise(async |world| {
        let name = World::name("asleep");
        let uuid = world.ready(&name, json!({})).await;
        world.add_asset(&name, "Pump 7").await;
        let admin = world.admin(&name).await;
        set_state(world, &name, "Hibernated").await;
        world.becomes(20, &name, "True", "Hibernated").await;
        assert_eq!(world.condition(&name, "Serving").await.expect("written").status, "False");
        let binding = world.binding(&name).await;
        assert!(refusal(binding.pooled(&format!("tenant_{uuid}")).await).await.is_some(), "the pooler serves it");
        let logins = world.logins(&format!("tenant_{uuid}%")).await;
        assert_eq!(logins.len(), 1, "its login stays: {logins:?}");

        let begun = Instant::now();
        let page = admin.page(world, "/assets").await;
        assert!(page.status == 503 && page.body.contains("Waking up"), "{page:?}");
        within(5, "the same page is there", async || {
            let page = admin.page(world, "/assets").await;
            if page.status == 200 && page.body.contains("Pump 7") { Ok(()) } else { Err(format!("{}", page.status)) }
        })
        .await;
        assert!(begun.elapsed() < Duration::from_secs(5), "awake after {:?}", begun.elapsed());
        world.becomes(10, &name, "True", "Active").await;
        assert_eq!(world.condition(&name, "Serving").await.expect("written").status, "True");
        // Asked for by nobody, it sleeps again; the demo's operator waits as long as it may.
        world.becomes(240, &name, "True", "Hibernated").await;
    })
    .await;
}

#[tokio::test]
async fn a_trial_ends_at_its_instant_and_the_data_is_there_when_it_is_prolonged() {
    promise(async |world| {
        let name = World::name("trial");
        // Whole seconds, as times of the API are written.
        let ends = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second() + 12).expect("a time");
        world.ready(&name, json!({ "trialEndsAt": ends.to_string() })).await;
        world.add_asset(&name, "Pump 7").await;
        let admin = world.admin(&name).await;
        let (before, after) = within(30, "the trial is over", async || {
            let before = jiff::Timestamp::now();
            let page = admin.page(world, "/assets").await;
            if page.status == 402 { Ok((before, jiff::Timestamp::now())) } else { Err(format!("{}", page.status)) }
        })
        .await;
        assert!(after >= ends, "over at {after} and not at {ends}");
        assert!(before < ends + Duration::from_secs(2), "still served at {before}, after {ends}");
        assert_eq!(admin.page(world, "/settings").await.status, 200, "where one can go on");
        world.becomes(5, &name, "True", "TrialExpired").await;
        for kind in ["Serving", "SubscriptionActive"] {
            assert_eq!(world.condition(&name, kind).await.expect("written").status, "False", "{kind}");
        }
        let later = (ends + Duration::from_secs(3600)).to_string();
        world.merge(&world.tenants(), &name, &json!({ "spec": { "trialEndsAt": later } })).await;
        world.becomes(20, &name, "True", "Active").await;
        assert!(admin.page(world, "/assets").await.body.contains("Pump 7"));
    })
    .await;
}

#[tokio::test]
async fn a_change_of_plan_is_noticed_by_nobody_who_works_with_it() {
    promise(async |world| {
        let (small, large) = (World::name("small"), World::name("large"));
        for (plan, most, pool) in [(&small, 8, 2), (&large, 40, 20)] {
            world.plan(plan, json!({ "database": { "maxConnections": most, "poolSize": pool } })).await;
        }
        let name = World::name("growing");
        let uuid = world.ready(&name, json!({ "planRef": { "name": small } })).await;
        let admin = world.admin(&name).await;
        let limit = async |most: &str| {
            let asked = format!("SELECT datconnlimit FROM pg_database WHERE datname = 'tenant_{uuid}'");
            within(60, &format!("the database has {most} connections"), async || {
                let seen = world.psql("template1", &asked).await.concat();
                if seen == most { Ok(()) } else { Err(seen) }
            })
            .await;
        };
        let change = async {
            for _ in 0..3 {
                for (plan, most) in [(&large, "40"), (&small, "8")] {
                    world.merge(&world.tenants(), &name, &json!({ "spec": { "planRef": { "name": plan } } })).await;
                    world.becomes(30, &name, "True", "Active").await;
                    limit(most).await;
                }
            }
            // The Plan itself.
            world.merge(&world.plans(), &small, &json!({ "spec": { "database": { "maxConnections": 10 } } })).await;
            limit("10").await;
        };
        let ((), seen) = world.under_load(&admin, change).await;
        assert!(seen.failed.is_empty() && seen.served > 100, "{seen:?}");
    })
    .await;
}

#[tokio::test]
async fn a_server_promises_no_more_connections_than_it_may() {
    promise(async |world| {
        let (roomy, greedy) = (World::name("roomy"), World::name("greedy"));
        world.plan(&greedy, json!({ "database": { "maxConnections": 1000 } })).await;
        world.ready(&roomy, json!({})).await;
        let status = world.servers().get("pg-demo-1").await.expect("there").status.expect("written");
        let connections = status.connections.expect("shown");
        assert!(connections.promised >= 25 && connections.budget > connections.promised, "{connections:?}");
        let overcommit = |times: i32| json!({ "spec": { "capacity": { "connectionOvercommit": times } } });
        world.merge(&world.servers(), "pg-demo-1", &overcommit(1)).await;
        within(20, "the smaller budget is known", async || {
            let status = world.servers().get("pg-demo-1").await.map_err(|error| error.to_string())?.status;
            let connections = status.and_then(|status| status.connections).ok_or("not shown")?;
            if connections.budget == 400 { Ok(()) } else { Err(format!("{connections:?}")) }
        })
        .await;
        let refused = World::name("refused");
        world.create(&refused, json!({ "planRef": { "name": greedy } })).await;
        let ready = world.becomes(10, &refused, "False", "CapacityExceeded").await;
        assert!(
            ready.message.contains("connectionOvercommit") && ready.message.contains("1000 more"),
            "{}",
            ready.message
        );
        // Who is there and asks for more keeps what it has, and is served.
        world.merge(&world.tenants(), &roomy, &json!({ "spec": { "planRef": { "name": greedy } } })).await;
        let ready = world.becomes(20, &roomy, "False", "CapacityExceeded").await;
        assert!(ready.message.contains("served with 25 connections as before"), "{}", ready.message);
        world.answers(5, &roomy, 200).await;
        world.others_are_served().await;
        world.merge(&world.servers(), "pg-demo-1", &overcommit(100)).await;
        world.becomes_ready(40, &refused).await;
        world.becomes_ready(40, &roomy).await;
    })
    .await;
}
