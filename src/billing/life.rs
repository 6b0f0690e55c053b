//! A subscription from its events: pure, and the same in whatever order, and however often, they came.
//!
//! The newest snapshot counts, by Stripe's clock. That has whole seconds, so of the same second counts, in this order:
//! 1. a `deleted` after anything else, and a `created` before: nothing follows the one or precedes the other;
//! 2. the status that serves more (`active`, `trialing`, `past_due`, `incomplete`, the rest): who is served for a moment too
//!    long costs less than who is locked out by mistake, and what Stripe means it says again;
//! 3. the later end of the period;
//! 4. the greater id of the event, so that there is always exactly one.

use jiff::Timestamp;
use uuid::Uuid;

use super::event::{Event, Snapshot, Word};

/// What the events of one subscription say together.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Life {
    /// Whose it may be, the most trustworthy first: the newest `metadata.tenant` of its own, then the newest word of a
    /// checkout or of somebody.
    pub tenants: Vec<Uuid>,
    /// How it stands; None: no event of its own was seen.
    pub stand: Option<Stand>,
}

/// How a subscription stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    /// The newest snapshot.
    pub snapshot: Snapshot,
    /// The event that it is of.
    pub event: String,
    /// When that was made.
    pub at: Timestamp,
    /// Since when the status is what it is, as far as the events show.
    pub since: Timestamp,
}

/// What the events of one subscription say together. Events of others must not be among them.
pub fn life(events: &[Event]) -> Life {
    let mut events: Vec<_> = events.iter().collect();
    events.sort_by(|left, right| (left.created, &left.id).cmp(&(right.created, &right.id)));
    let mut snapshots: Vec<(&Event, &Snapshot)> = events
        .iter()
        .filter_map(|event| match &event.word {
            Word::Subscription(snapshot) => Some((*event, snapshot.as_ref())),
            _ => None,
        })
        .collect();
    snapshots.sort_by(|left, right| rank(left).cmp(&rank(right)));
    let own = snapshots.iter().rev().filter_map(|(_, snapshot)| snapshot.tenant);
    let said = events.iter().rev().filter_map(|event| match event.word {
        Word::Owner(owner) => owner,
        _ => None,
    });
    let mut tenants = Vec::new();
    for tenant in own.chain(said) {
        if !tenants.contains(&tenant) {
            tenants.push(tenant);
        }
    }
    let stand = snapshots.last().map(|(event, snapshot)| {
        let same = snapshots.iter().rev().take_while(|(_, before)| before.status == snapshot.status);
        Stand {
            snapshot: (*snapshot).clone(),
            event: event.id.clone(),
            at: event.created,
            since: same.last().map_or(event.created, |(first, _)| first.created),
        }
    });
    Life { tenants, stand }
}

fn rank<'a>((event, snapshot): &(&'a Event, &'a Snapshot)) -> (Timestamp, u8, u8, Timestamp, &'a str) {
    let kind = match event.kind.as_str() {
        "customer.subscription.created" => 0,
        "customer.subscription.deleted" => 2,
        _ => 1,
    };
    let serves = match snapshot.status.as_str() {
        "active" => 4,
        "trialing" => 3,
        "past_due" => 2,
        "incomplete" => 1,
        _ => 0,
    };
    (event.created, kind, serves, snapshot.period_end, &event.id)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn event(id: usize, kind: &str, created: i64, status: &str, tenant: Option<u128>) -> Event {
        let tenant = tenant.map(|tenant| Uuid::from_u128(tenant).to_string());
        let text = json!({ "id": format!("evt_{id}"), "type": format!("customer.subscription.{kind}"), "created": created,
            "data": { "object": { "id": "sub_1", "status": status, "metadata": { "tenant": tenant },
                "current_period_start": created, "current_period_end": created + 100 } } });
        Event::parse(&text.to_string(), Timestamp::UNIX_EPOCH).unwrap()
    }

    fn status(events: &[Event]) -> (String, i64) {
        let stand = life(events).stand.unwrap();
        (stand.snapshot.status, stand.since.as_second())
    }

    #[test]
    fn of_the_same_second_nothing_follows_the_end_and_nothing_precedes_the_beginning() {
        let events = [
            event(9, "created", 5, "incomplete", None),
            event(1, "updated", 5, "active", None),
            event(2, "updated", 5, "past_due", None),
        ];
        assert_eq!(status(&events), ("active".into(), 5));
        let ended = [&events[..], &[event(0, "deleted", 5, "canceled", None)]].concat();
        assert_eq!(status(&ended), ("canceled".into(), 5));
    }

    #[test]
    fn a_status_stands_since_the_first_of_the_events_that_say_so_in_a_row() {
        let events = [
            event(1, "created", 1, "active", None),
            event(2, "updated", 2, "unpaid", None),
            event(3, "updated", 3, "active", None),
            event(4, "updated", 4, "unpaid", None),
            event(5, "updated", 5, "unpaid", None),
        ];
        assert_eq!(status(&events), ("unpaid".into(), 4));
        assert_eq!(status(&events[..3]), ("active".into(), 3));
    }

    #[test]
    fn the_newest_word_of_its_own_says_whose_it_is_and_then_the_checkouts() {
        let checkout = json!({ "id": "evt_c", "type": "checkout.session.completed", "created": 9,
            "data": { "object": { "subscription": "sub_1", "metadata": { "tenant": Uuid::from_u128(3) } } } });
        let checkout = Event::parse(&checkout.to_string(), Timestamp::UNIX_EPOCH).unwrap();
        let events = [
            checkout,
            event(1, "created", 1, "active", Some(1)),
            event(2, "updated", 2, "active", Some(2)),
            event(3, "updated", 3, "active", None),
        ];
        assert_eq!(life(&events).tenants, [2, 1, 3].map(Uuid::from_u128));
        assert_eq!(life(&events[..1]), Life { tenants: vec![Uuid::from_u128(3)], stand: None });
        assert_eq!(life(&[]), Life::default());
    }

    fn any_event(id: usize) -> impl Strategy<Value = Event> {
        let kinds = prop::sample::select(vec!["created", "updated", "deleted", "paused", "resumed", "trial_will_end"]);
        let statuses = prop::sample::select(vec![
            "incomplete",
            "incomplete_expired",
            "trialing",
            "active",
            "past_due",
            "canceled",
            "unpaid",
            "paused",
            "nonsense",
        ]);
        // Few instants, so that many events are of the same second.
        (kinds, 0..4_i64, statuses, prop::option::of(0..3_u128))
            .prop_map(move |(kind, created, status, tenant)| event(id, kind, created, status, tenant))
    }

    proptest! {
        #[test]
        fn the_order_in_which_events_came_does_not_matter_nor_how_often(
            (events, shuffled) in (0..12_usize)
                .prop_flat_map(|count| (0..count).map(any_event).collect::<Vec<_>>())
                .prop_flat_map(|events| {
                    let twice: Vec<_> = events.iter().chain(&events).cloned().collect();
                    (Just(events), Just(twice).prop_shuffle())
                })
        ) {
            prop_assert_eq!(life(&events), life(&shuffled));
        }

        #[test]
        fn an_older_event_never_takes_the_place_of_a_newer_one(
            events in (1..12_usize).prop_flat_map(|count| (0..count).map(any_event).collect::<Vec<_>>())
        ) {
            let newest = events.iter().filter(|event| matches!(event.word, Word::Subscription(_))).map(|event| event.created).max();
            prop_assert_eq!(life(&events).stand.map(|stand| stand.at), newest);
        }
    }
}
