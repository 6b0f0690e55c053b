//! A tenant's own credentials lead into its own database and nowhere else; no answer is ever another tenant's.

use futures::StreamExt;
use maintenance_os_e2e::{World, promise, refusal};
use serde_json::json;

#[tokio::test]
async fn a_tenants_login_enters_its_own_database_and_no_other() {
    promise(async |world| {
        let (own, other) = (World::name("own"), World::name("other"));
        let (uuid, stranger) = (world.ready(&own, json!({})).await, world.ready(&other, json!({})).await);
        let binding = world.binding(&own).await;
        let database = format!("tenant_{uuid}");
        assert_eq!(refusal(binding.pooled(&database).await).await, None, "its own, through the pooler");
        assert_eq!(refusal(binding.direct(&database).await).await, None, "its own, directly");
        let acme = world.binding("acme").await.key("database").to_owned();
        let closed = [
            format!("tenant_{stranger}"),
            acme,
            "postgres".into(),
            "template1".into(),
            "template0".into(),
            "pgbouncer".into(),
            "maintenance_os_central".into(),
            "central".into(),
            "nothing".into(),
            String::from("*"),
        ];
        for database in &closed {
            assert!(refusal(binding.pooled(database).await).await.is_some(), "{database} through the pooler");
            assert!(refusal(binding.direct(database).await).await.is_some(), "{database} directly");
        }
        let mut wrong = binding.clone();
        wrong.keys.insert("password".into(), "wrong".into());
        assert!(refusal(wrong.pooled(&database).await).await.is_some(), "a wrong password through the pooler");
        assert!(refusal(wrong.direct(&database).await).await.is_some(), "a wrong password directly");
    })
    .await;
}

#[tokio::test]
async fn five_hundred_mixed_requests_at_once_are_each_answered_by_their_own_tenant() {
    promise(async |world| {
        let names: Vec<_> = (0..4).map(|number| World::name(&format!("mixed{number}"))).collect();
        let (mut uuids, mut admins) = (Vec::new(), Vec::new());
        for (number, name) in names.iter().enumerate() {
            uuids.push(world.ready(name, json!({})).await);
            for asset in 0..=number {
                world.add_asset(name, &format!("marker of {name} {asset}")).await;
            }
            admins.push(world.admin(name).await);
        }
        let requests = futures::stream::iter(0..500_usize).map(|request| {
            let (number, name) = (request % names.len(), &names[request % names.len()]);
            let (uuids, names, admin) = (&uuids, &names, &admins[request % names.len()]);
            async move {
                if request % 3 == 0 {
                    let page = admin.page(world, "/assets").await;
                    assert_eq!(page.status, 200, "{name}: {}", page.body);
                    assert!(page.body.contains(&format!("marker of {name} ")), "{name} shows its own");
                    let strangers = names.iter().filter(|other| *other != name);
                    let seen: Vec<_> = strangers.filter(|other| page.body.contains(other.as_str())).collect();
                    assert!(seen.is_empty(), "the page of {name} shows {seen:?}");
                    return;
                }
                let answer = admin.api(world, "/api/tenant").await;
                assert_eq!(answer.status, 200, "{name}: {}", answer.body);
                assert_eq!(answer.json()["uuid"], uuids[number].as_str());
                assert_eq!(answer.assets(), i64::try_from(number + 1).ok());
            }
        });
        requests.buffer_unordered(50).collect::<Vec<()>>().await;
    })
    .await;
}
