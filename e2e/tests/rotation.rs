//! A tenant's password is renewed, and nobody notices.

use maintenance_os_e2e::{OPERATOR, SERVER, World, promise, refusal, within};
use serde_json::json;

#[tokio::test]
async fn passwords_are_renewed_under_load_and_the_old_ones_stop_working() {
    promise(async |world| {
        let name = World::name("rotated");
        let uuid = world.ready(&name, json!({})).await;
        let (admin, database) = (world.admin(&name).await, format!("tenant_{uuid}"));
        let rotate = async {
            let mut used = vec![world.binding(&name).await];
            for round in 0..4 {
                let annotation = json!({ "metadata": { "annotations": { "tenancy.maintenance-os.com/rotate": format!("{round}") } } });
                world.merge(&world.tenants(), &name, &annotation).await;
                let before = used.last().expect("the first").key("username").to_owned();
                let now = within(60, "the binding has the other login", async || {
                    let now = world.binding(&name).await;
                    if now.key("username") == before { Err(before.clone()) } else { Ok(now) }
                })
                .await;
                assert_eq!(refusal(now.pooled(&database).await).await, None, "the new one works at once, round {round}");
                let old = used.last().expect("the first");
                assert_eq!(refusal(old.pooled(&database).await).await, None, "so does the old one, for a while, round {round}");
                within(60, "the old login is gone", async || {
                    let logins = world.logins(&format!("tenant_{uuid}%")).await;
                    if logins == [now.key("username")] { Ok(()) } else { Err(format!("{logins:?}")) }
                })
                .await;
                assert!(refusal(old.pooled(&database).await).await.is_some(), "the old one works, round {round}");
                used.push(now);
            }
            used
        };
        let (used, seen) = world.under_load(&admin, rotate).await;
        assert!(seen.failed.is_empty() && seen.served > 100, "{seen:?}");
        let mut passwords: Vec<_> = used.iter().map(|binding| binding.key("password")).collect();
        passwords.sort_unstable();
        passwords.dedup();
        assert_eq!(passwords.len(), 5, "each is a new one");
        let status = world.tenants().get(&name).await.expect("there").status.expect("written");
        let credentials = status.credentials.expect("shown");
        assert_eq!(credentials.username, used.last().expect("five").key("username"));
        world.others_are_served().await;
    })
    .await;
}

#[tokio::test]
async fn the_operators_own_passwords_and_the_poolers_certificate_are_renewed_and_nobody_notices() {
    promise(async |world| {
        let name = World::name("during");
        let uuid = world.ready(&name, json!({})).await;
        let admin = world.admin(&name).await;
        let roles = || async { world.secret(OPERATOR, &format!("{SERVER}-roles")).await.expect("made by the operator") };
        let provisioner = || async { world.secret(OPERATOR, SERVER).await.expect("the connection Secret") };
        let (roles_before, connection_before, certificate_before) =
            (roles().await, provisioner().await, world.pooler_certificate().await);
        let asked = World::name("rotate");
        let rotate = async {
            let group = "tenancy.maintenance-os.com";
            let patch = json!({ "metadata": { "annotations": { format!("{group}/rotate"): asked, format!("{group}/rotate-provisioner"): asked } } });
            world.merge(&world.servers(), SERVER, &patch).await;
            within(60, "the server says that it was done", async || {
                let status = world.servers().get(SERVER).await.expect("there").status.expect("written");
                let rotated = status.rotated.clone().unwrap_or_default();
                let done = [rotated.credentials, rotated.provisioner].iter().all(|done| done.as_deref() == Some(&asked));
                if done { Ok(()) } else { Err(format!("{status:?}")) }
            })
            .await;
            within(60, "the pooler has another certificate", async || {
                let now = world.pooler_certificate().await;
                let kept: Vec<_> = now.iter().filter(|shown| certificate_before.contains(shown)).collect();
                if kept.is_empty() { Ok(()) } else { Err(format!("{kept:?}")) }
            })
            .await;
            // With the new passwords.
            world.ready(&World::name("after"), json!({})).await;
        };
        let ((), seen) = world.under_load(&admin, rotate).await;
        assert!(seen.failed.is_empty() && seen.served > 50, "{seen:?}");
        let (now, connection) = (roles().await, provisioner().await);
        for key in ["migrator", "backup"] {
            assert_ne!(now[key], roles_before[key], "{key}");
        }
        assert_ne!(connection["password"], connection_before["password"]);
        let binding = world.binding(&name).await;
        for (role, old, new) in [
            (connection["username"].as_str(), &connection_before["password"], &connection["password"]),
            ("maintenance_os_migrator", &roles_before["migrator"], &now["migrator"]),
            ("maintenance_os_backup", &roles_before["backup"], &now["backup"]),
        ] {
            let database = if role == connection["username"] { "postgres".to_owned() } else { format!("tenant_{uuid}") };
            assert_eq!(refusal(binding.as_role(role, new).direct(&database).await).await, None, "{role}, new password");
            let refused = refusal(binding.as_role(role, old).direct(&database).await).await;
            assert!(refused.is_some_and(|why| why.contains("password")), "{role}, old password");
        }
    })
    .await;
}
