//! Subscriptions that are set by hand, and which of several counts.

use jiff::Timestamp;
use maintenance_os::central::Manual;
use serde_json::json;
use uuid::Uuid;

use crate::house::{DAY, House, NOW, of, subscription};

fn manual(status: &'static str, until: &str) -> Manual<'static> {
    Manual { status, plan: Some("pro"), until: until.parse().unwrap() }
}

#[tokio::test]
async fn a_manual_subscription_is_set_prolonged_and_ended_and_each_is_in_the_trail() {
    let house = House::new().await;
    let (central, tenant) = (&house.db.central, house.tenant);
    for until in ["2999-01-01T00:00:00Z", "2999-06-01T00:00:00Z", "2999-06-01T00:00:00Z"] {
        central.set_manual(tenant, &manual("active", until), "eve@example.com").await.unwrap();
    }
    let row = house.db.row(tenant).await.subscription.unwrap();
    let end: Timestamp = "2999-06-01T00:00:00Z".parse().unwrap();
    assert_eq!((row.status.as_str(), row.current_period_end, row.ends_at), ("active", end, Some(end)));
    assert_eq!(house.count("subscriptions").await, 1);
    central.end_manual(tenant, "eve@example.com").await.unwrap();
    let row = house.db.row(tenant).await.subscription.unwrap();
    assert_eq!((row.status.as_str(), row.canceled, row.ends_at), ("canceled", true, None));
    assert!(row.current_period_end <= Timestamp::now());
    let before = house.db.versions().await;
    central.end_manual(tenant, "eve@example.com").await.unwrap();
    assert_eq!(house.db.versions().await, before, "what has ended is not ended again");
    let trail = "SELECT actor || ' ' || action FROM audit_logs WHERE action LIKE 'subscription.%' ORDER BY id";
    let [created, changed] = ["eve@example.com subscription.created", "eve@example.com subscription.changed"];
    assert_eq!(house.db.texts(trail).await, [created, changed, changed]);
    central.set_manual(tenant, &manual("active", "2999-01-01T00:00:00Z"), "eve@example.com").await.unwrap();
    assert_eq!(house.status().await.as_deref(), Some("active"), "and it can be set again");
}

#[tokio::test]
async fn what_cannot_be_set_is_said_and_nothing_is_written() {
    let house = House::new().await;
    let central = &house.db.central;
    let nobody = Uuid::new_v4();
    let error = central.set_manual(nobody, &manual("active", "2999-01-01T00:00:00Z"), "eve").await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("the ledger knows no tenant {nobody}: its uuid is status.uuid of the Tenant")
    );
    let gold = Manual { plan: Some("gold"), ..manual("active", "2999-01-01T00:00:00Z") };
    let error = central.set_manual(house.tenant, &gold, "eve").await.unwrap_err();
    assert_eq!(error.to_string(), "the ledger knows no plan gold: kubectl get plans");
    house.take(&subscription("evt_1", "created", NOW, "sub_1", "active", &of(house.tenant))).await;
    let error = central.end_manual(house.tenant, "eve").await.unwrap_err();
    assert!(error.to_string().contains("has no manual subscription"), "{error}");
    assert_eq!(house.count("subscriptions").await, 1);
}

#[tokio::test]
async fn of_several_subscriptions_the_one_that_is_served_for_the_longest_counts() {
    let house = House::new().await;
    let (central, tenant) = (&house.db.central, house.tenant);
    let take = async |number: i64, sub: &str, status: &str, more: serde_json::Value| {
        let mut object = of(tenant);
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        house.take(&subscription(&format!("evt_{number}"), "updated", NOW + number, sub, status, &object)).await
    };
    let counts = async || {
        let lines = central.subscriptions(Some(tenant)).await.unwrap();
        assert_eq!(lines.iter().filter(|line| line.counts).count(), 1);
        let first = lines.into_iter().next().unwrap();
        assert_eq!(house.status().await.as_ref(), Some(&first.status), "the ledger and the list agree");
        format!("{} {}", first.stripe_id.unwrap_or_else(|| "manual".into()), first.status)
    };
    take(1, "sub_1", "active", json!({})).await;
    assert_eq!(counts().await, "sub_1 active");
    // A second checkout, abandoned.
    take(2, "sub_2", "incomplete", json!({})).await;
    take(3, "sub_2", "incomplete_expired", json!({})).await;
    assert_eq!(counts().await, "sub_1 active");
    central.set_manual(tenant, &manual("active", "2999-01-01T00:00:00Z"), "eve").await.unwrap();
    assert_eq!(counts().await, "sub_1 active", "it runs on, the manual one is to end");
    take(4, "sub_1", "unpaid", json!({})).await;
    assert_eq!(counts().await, "manual active");
    let later =
        json!({ "items": { "data": [{ "current_period_start": NOW + DAY, "current_period_end": NOW + 31 * DAY }] } });
    take(5, "sub_3", "active", later).await;
    assert_eq!(counts().await, "sub_3 active");
    take(6, "sub_3", "canceled", json!({})).await;
    assert_eq!(counts().await, "manual active", "a year later than what is paid for");
    central.end_manual(tenant, "eve").await.unwrap();
    assert_eq!(counts().await, "sub_3 canceled", "its paid period is the longest of what is left");
}
