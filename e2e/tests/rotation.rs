//! A tenant's password is renewed, and nobody notices.

use maintenance_os_e2e::{World, promise, refusal, within};
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
