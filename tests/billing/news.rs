//! Whoever listens hears of each change of a subscription, and of nothing else.

use std::collections::BTreeSet;
use std::time::Duration;

use maintenance_os::central::{Manual, News, SubscriptionNews};
use serde_json::json;

use crate::house::{House, Line, NOW, of, subscription};
use crate::support::Object;

const DEADLINE: Duration = Duration::from_secs(40);

async fn next(news: &mut SubscriptionNews) -> Option<News> {
    tokio::time::timeout(DEADLINE, news.next()).await.expect("something is heard in time").ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_is_heard_and_what_changes_nothing_is_not() {
    let house = House::new().await;
    let other = house.db.provisioned(&Object::new("globex")).await;
    let mut news = house.db.central.subscription_news().await.unwrap();
    let of_both = |tenants: &[uuid::Uuid]| Some(News::Changed(tenants.iter().copied().collect::<BTreeSet<_>>()));
    let event = |id: &str, created: i64, status: &str, tenant| {
        subscription(id, "updated", created, "sub_1", status, &of(tenant))
    };
    house.take(&event("evt_1", NOW, "active", house.tenant)).await;
    assert_eq!(next(&mut news).await, of_both(&[house.tenant]));
    // Neither a duplicate, nor an older one, nor one that says the same.
    house.take(&event("evt_1", NOW, "active", house.tenant)).await;
    house.take(&event("evt_0", NOW - 1, "unpaid", house.tenant)).await;
    house.take(&event("evt_2", NOW + 1, "active", house.tenant)).await;
    let manual = Manual { status: "active", plan: None, until: "2999-01-01T00:00:00Z".parse().unwrap() };
    house.db.central.set_manual(other, &manual, "eve").await.unwrap();
    assert_eq!(next(&mut news).await, of_both(&[other]), "the next that is heard is the next change");
    // It is another tenant's after all: both hear of it.
    house.take(&event("evt_3", NOW + 2, "active", other)).await;
    assert_eq!(next(&mut news).await, of_both(&[house.tenant, other]));
    house.db.execute("DELETE FROM subscriptions WHERE stripe_subscription_id = 'sub_1'").await;
    assert_eq!(next(&mut news).await, of_both(&[other]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_listens_is_told_that_something_may_have_been_missed() {
    let house = House::new().await;
    let line = Line::new().await;
    let central = line.central(&house.db).await;
    let mut news = central.subscription_news().await.unwrap();
    line.cut();
    line.mend();
    let event =
        subscription("evt_1", "created", NOW, "sub_1", "active", &json!({ "metadata": { "tenant": house.tenant } }));
    house.take(&event).await;
    // Listening again or an error: the one who asks compares everything in either case.
    assert!(matches!(next(&mut news).await, Some(News::Missed) | None));
    let mut news = central.subscription_news().await.unwrap();
    let event = subscription("evt_2", "updated", NOW + 1, "sub_1", "paused", &json!({}));
    house.take(&event).await;
    assert_eq!(next(&mut news).await, Some(News::Changed([house.tenant].into())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_has_died_without_a_word_is_noticed() {
    let house = House::new().await;
    let line = Line::new().await;
    let mut news = line.central(&house.db).await.subscription_news().await.unwrap();
    let mut healthy = house.db.central.subscription_news().await.unwrap();
    let healthy = tokio::spawn(async move { next(&mut healthy).await });
    line.fall_silent();
    assert_eq!(next(&mut news).await, None, "it asks whether anybody is there, and is not answered");
    // The other one was as silent, asked as well, and still listens.
    house.take(&subscription("evt_1", "created", NOW, "sub_1", "active", &of(house.tenant))).await;
    assert_eq!(healthy.await.unwrap(), Some(News::Changed([house.tenant].into())));
}
