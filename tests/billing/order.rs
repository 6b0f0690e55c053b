//! Events come in any order, and more than once.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::house::{DAY, House, NOW, Served, of, other, subscription};

/// A life: begun with a first payment that needs a confirmation, renewed, unpaid, paid after all, cancelled to the end of
/// the period, over. `place`: makes the ids those of another life.
fn life(place: usize, tenant: Uuid) -> Vec<Value> {
    let sub = format!("sub_{place}");
    let event = |number: usize, kind: &str, created: i64, status: &str, more: &Value| {
        subscription(&format!("evt_{place}_{number}"), kind, created, &sub, status, more)
    };
    let period = |month: i64| {
        let (start, end) = (NOW + month * 30 * DAY, NOW + (month + 1) * 30 * DAY);
        json!({ "metadata": { "tenant": tenant }, "items": { "data": [{ "current_period_start": start, "current_period_end": end }] } })
    };
    let with = |month: i64, more: Value| {
        let mut object = period(month);
        object.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        object
    };
    let leave = NOW + 40 * DAY;
    vec![
        event(0, "created", NOW, "incomplete", &period(0)),
        // The same second.
        event(1, "updated", NOW, "active", &period(0)),
        event(2, "updated", NOW + 30 * DAY, "past_due", &period(1)),
        // The same second again.
        event(
            3,
            "updated",
            NOW + 60 * DAY,
            "active",
            &with(1, json!({ "cancel_at_period_end": true, "canceled_at": leave })),
        ),
        event(
            4,
            "deleted",
            NOW + 60 * DAY,
            "canceled",
            &with(1, json!({ "canceled_at": leave, "ended_at": NOW + 60 * DAY })),
        ),
    ]
}

fn orders(count: usize) -> Vec<Vec<usize>> {
    if count == 0 {
        return vec![Vec::new()];
    }
    let shorter = orders(count - 1);
    let put = |order: &Vec<usize>, place: usize| {
        let mut order = order.clone();
        order.insert(place, count - 1);
        order
    };
    shorter.iter().flat_map(|order| (0..count).map(move |place| put(order, place))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_whose_events_come_in_any_order_ends_in_the_same_row() {
    let house = House::new().await;
    let orders = orders(5);
    assert_eq!(orders.len(), 120);
    let mut expected = None;
    for (place, order) in orders.iter().enumerate() {
        let events = life(place, house.tenant);
        for number in order {
            house.take(&events[*number]).await;
        }
        let row = house.row(&format!("sub_{place}")).await;
        let expected = expected.get_or_insert_with(|| row.clone());
        assert_eq!(row, *expected, "{order:?}");
    }
    let last = expected.unwrap();
    for part in ["\"status\": \"canceled\"", "\"last_event_at\": \"2027-01-26T00:00:00+00:00\"", "\"ends_at\": null"] {
        assert!(last.contains(part), "{part} in {last}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_come_at_once_and_twice_at_two_webhooks_end_in_the_same_row_as_in_their_order() {
    let house = House::new().await;
    for event in life(0, house.tenant) {
        house.take(&event).await;
    }
    let expected = house.row("sub_0").await;
    let two = [Served::new(house.db.central.clone()).await, Served::new(house.db.central.clone()).await];
    for place in 1..=10 {
        let events = life(place, house.tenant);
        let all = events.iter().rev().chain(&events).enumerate().map(|(number, event)| two[number % 2].send(event));
        for answer in futures::future::join_all(all).await {
            assert_eq!(answer.0, 200);
        }
        assert_eq!(house.row(&format!("sub_{place}")).await, expected, "life {place}");
    }
    assert_eq!(house.count("billing_events").await, 55);
}

#[tokio::test]
async fn an_older_event_changes_nothing_and_is_kept_as_such() {
    let house = House::new().await;
    let event =
        |id: &str, created: i64, status: &str| subscription(id, "updated", created, "sub_1", status, &of(house.tenant));
    assert_eq!(house.take(&event("evt_2", NOW + 2, "active")).await, "applied");
    let before = house.db.versions().await;
    assert_eq!(house.take(&event("evt_1", NOW + 1, "unpaid")).await, "superseded");
    assert_eq!(house.take(&event("evt_2", NOW + 2, "active")).await, "duplicate");
    assert_eq!(house.db.versions().await, before, "no row was written");
    assert_eq!(house.take(&event("evt_3", NOW + 3, "active")).await, "unchanged");
    assert_eq!(house.outcomes().await, ["evt_2 applied", "evt_1 superseded", "evt_3 unchanged"]);
    assert_eq!(
        house.count("audit_logs WHERE action LIKE 'subscription.%'").await,
        1,
        "what changes nothing is no change"
    );
}

#[tokio::test]
async fn a_checkout_says_whose_a_subscription_is_whichever_of_the_two_comes_first() {
    let house = House::new().await;
    for (place, checkout_first) in [true, false].into_iter().enumerate() {
        let sub = format!("sub_{place}");
        let object = json!({ "mode": "subscription", "subscription": sub, "metadata": { "tenant": house.tenant } });
        let checkout = other(&format!("evt_c{place}"), "checkout.session.completed", NOW, &object);
        let created = subscription(&format!("evt_s{place}"), "created", NOW, &sub, "active", &json!({}));
        let outcomes = if checkout_first {
            [house.take(&checkout).await, house.take(&created).await]
        } else {
            [house.take(&created).await, house.take(&checkout).await]
        };
        assert_eq!(outcomes, if checkout_first { ["noted", "applied"] } else { ["unmatched", "applied"] });
        assert!(house.row(&sub).await.contains(&house.tenant.to_string()));
    }
}
