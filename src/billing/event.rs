//! What an event of Stripe says, as far as it matters here.
//!
//! Every event of type `customer.subscription.*` carries the whole subscription as it then was: those decide. An invoice
//! and a finished checkout say to which subscription they belong, and a checkout perhaps which tenant began it; an invoice
//! never decides, because Stripe tells each change of a subscription's status by an event of the subscription's own.
//! `maintenance_os.assigned` is our own: somebody said whose a subscription is.

use jiff::Timestamp;
use serde_json::Value;
use uuid::Uuid;

/// The type of the event by which somebody says whose a subscription is.
pub const ASSIGNED: &str = "maintenance_os.assigned";

/// The statuses that Stripe has; the central database knows no others.
const STATUSES: [&str; 8] =
    ["incomplete", "incomplete_expired", "trialing", "active", "past_due", "canceled", "unpaid", "paused"];

/// Reasons of a cancellation after which nothing more is served: what is left of the period was never paid.
const NOT_PAID: [&str; 2] = ["payment_failed", "payment_disputed"];

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Stripe's `evt_…`.
    pub id: String,
    /// As `customer.subscription.updated`.
    pub kind: String,
    /// By Stripe's clock, whole seconds.
    pub created: Timestamp,
    /// The subscription that it is about, if any.
    pub subscription: Option<String>,
    /// What it says.
    pub word: Word,
}

/// What an event says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// A subscription as it was then.
    Subscription(Box<Snapshot>),
    /// It is about a subscription, and cannot be read; why.
    Unreadable(String),
    /// A checkout or somebody says whose the subscription is; None: it does not say.
    Owner(Option<Uuid>),
    /// Of an invoice: kept for people.
    Noted,
    /// Nothing follows from it.
    Other,
}

/// A subscription at the time of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// One of Stripe's statuses.
    pub status: String,
    /// Begin of the period.
    pub period_start: Timestamp,
    /// End of the period; of a cancellation for want of payment the end of what is served.
    pub period_end: Timestamp,
    /// When the cancellation was asked for.
    pub canceled_at: Option<Timestamp>,
    /// When it ends whatever the status says: a cancellation that is announced.
    pub ends_at: Option<Timestamp>,
    /// `metadata.tenant`.
    pub tenant: Option<Uuid>,
    /// `metadata.plan`, or the price's `lookup_key`: the slug of one of our Plans, if there is such a one.
    pub plan: Option<String>,
    /// Stripe's `cus_…`.
    pub customer: Option<String>,
}

/// Why a body with a good signature is not kept: without these there is nothing to keep it under.
#[derive(Debug, thiserror::Error, Clone, Copy, PartialEq, Eq)]
pub enum NoEvent {
    /// No JSON object.
    #[error("it is no JSON object")]
    NoObject,
    /// No `id` of the form that Stripe's have.
    #[error("it has no id of letters, digits and underscores, 255 at most")]
    NoId,
    /// No `type` of the form that Stripe's have.
    #[error("it has no type of letters, digits, dots and underscores, 255 at most")]
    NoKind,
}

impl Event {
    /// Reads an event. One that we cannot make sense of is an event all the same.
    ///
    /// # Errors
    /// It has no id or no type.
    pub fn parse(body: &str, now: Timestamp) -> Result<Self, NoEvent> {
        let event: Value = serde_json::from_str(body).map_err(|_| NoEvent::NoObject)?;
        let id = name(&event["id"], "_-").ok_or(NoEvent::NoId)?;
        let kind = name(&event["type"], "_.-[]").ok_or(NoEvent::NoKind)?;
        // Events of Stripe's second kind have a text here, and are not of a type that is used.
        let created = instant(&event["created"])
            .or_else(|| event["created"].as_str().and_then(|created| created.parse().ok()))
            .unwrap_or(now);
        let object = &event["data"]["object"];
        let (subscription, word) = word(&kind, object);
        Ok(Self { id, kind, created, subscription, word })
    }
}

fn word(kind: &str, object: &Value) -> (Option<String>, Word) {
    if kind.starts_with("customer.subscription.") {
        let subscription = name(&object["id"], "_-");
        let word = match (&subscription, snapshot(kind, object)) {
            (None, _) => Word::Unreadable("the subscription has no id".into()),
            (Some(_), Ok(snapshot)) => Word::Subscription(Box::new(snapshot)),
            (Some(_), Err(why)) => Word::Unreadable(why),
        };
        return (subscription, word);
    }
    let (subscription, word) = match kind {
        "checkout.session.completed" => {
            // Not `client_reference_id`: with payment links it is part of an address, and whoever buys writes what they like.
            (reference(&object["subscription"]), Word::Owner(uuid(&object["metadata"]["tenant"])))
        }
        ASSIGNED => (reference(&object["subscription"]), Word::Owner(uuid(&object["tenant"]))),
        _ if kind.starts_with("invoice.") => {
            // Since 2025 an invoice names its subscription below `parent`.
            let parent = reference(&object["parent"]["subscription_details"]["subscription"]);
            let subscription = parent.or_else(|| reference(&object["subscription"]));
            (
                subscription,
                if matches!(kind, "invoice.paid" | "invoice.payment_failed") { Word::Noted } else { Word::Other },
            )
        }
        _ => (None, Word::Other),
    };
    // A checkout or an invoice without a subscription is a sale of something else.
    if subscription.is_none() { (None, Word::Other) } else { (subscription, word) }
}

fn snapshot(kind: &str, object: &Value) -> Result<Snapshot, String> {
    let status = object["status"].as_str().unwrap_or_default();
    if !STATUSES.contains(&status) {
        return Err(format!("the status {status:?} is none that we know"));
    }
    let began = instant(&object["start_date"]).or_else(|| instant(&object["created"]));
    let (start, end) = period(object).or_else(|| began.map(|began| (began, began))).ok_or("it has no period")?;
    let mut end = end.max(start);
    let ended = instant(&object["ended_at"]);
    let reason = object["cancellation_details"]["reason"].as_str().unwrap_or_default();
    if status == "canceled" && NOT_PAID.contains(&reason) {
        end = ended.unwrap_or(start).clamp(start, end);
    }
    let announced = object["cancel_at_period_end"].as_bool() == Some(true);
    let ends_at = instant(&object["cancel_at"]).or_else(|| announced.then_some(end));
    let is_over = matches!(status, "canceled" | "incomplete_expired") || kind == "customer.subscription.deleted";
    let price = &object["items"]["data"][0]["price"];
    Ok(Snapshot {
        status: status.to_owned(),
        period_start: start,
        period_end: end,
        canceled_at: instant(&object["canceled_at"]),
        ends_at: ends_at.filter(|_| !is_over),
        tenant: uuid(&object["metadata"]["tenant"]),
        plan: name(&object["metadata"]["plan"], "-").or_else(|| name(&price["lookup_key"], "-")),
        customer: reference(&object["customer"]),
    })
}

/// The period: of the subscription in API versions until 2025-03-31, since then of its items, of which the last to end counts.
fn period(object: &Value) -> Option<(Timestamp, Timestamp)> {
    let of = |object: &Value| instant(&object["current_period_start"]).zip(instant(&object["current_period_end"]));
    let items = object["items"]["data"].as_array().into_iter().flatten().filter_map(of);
    of(object).or_else(|| items.max_by_key(|(start, end)| (*end, *start)))
}

/// What PostgreSQL, and people, take for a time as well.
fn instant(value: &Value) -> Option<Timestamp> {
    value.as_i64().filter(|second| *second >= 0).and_then(|second| Timestamp::from_second(second).ok())
}

/// A name of letters, digits and these other characters: the database's columns take no more than 255, and no zero byte.
fn name(value: &Value, others: &str) -> Option<String> {
    let text = value.as_str()?;
    let plain = text.chars().all(|character| character.is_ascii_alphanumeric() || others.contains(character));
    (plain && (1..=255).contains(&text.len())).then(|| text.to_owned())
}

/// The id of an object that is referred to, or stands there in full.
fn reference(value: &Value) -> Option<String> {
    name(value, "_-").or_else(|| name(&value["id"], "_-"))
}

fn uuid(value: &Value) -> Option<Uuid> {
    value.as_str()?.trim().parse().ok()
}

#[cfg(test)]
#[allow(clippy::needless_pass_by_value, reason = "the objects that tests make read better without")]
mod tests {
    use serde_json::json;

    use super::*;

    const TENANT: &str = "7b0f3c52-5d0e-4b9e-9a55-0d1a2c7f1e11";

    fn parse(event: &Value) -> Event {
        Event::parse(&event.to_string(), Timestamp::UNIX_EPOCH).unwrap()
    }

    fn subscription(kind: &str, more: Value) -> Event {
        let mut object = json!({ "id": "sub_1", "object": "subscription", "status": "active", "customer": "cus_1",
            "start_date": 1000, "metadata": { "tenant": TENANT, "plan": "pro" },
            "items": { "data": [{ "current_period_start": 1000, "current_period_end": 2000 }] } });
        for (key, value) in more.as_object().unwrap() {
            object[key] = value.clone();
        }
        parse(&json!({ "id": "evt_1", "type": kind, "created": 1000, "data": { "object": object } }))
    }

    fn snapshot_of(more: Value) -> Snapshot {
        match subscription("customer.subscription.updated", more).word {
            Word::Subscription(snapshot) => *snapshot,
            other => panic!("{other:?}"),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn a_subscription_says_its_tenant_its_plan_and_its_period() {
        let found = snapshot_of(json!({}));
        let expected = Snapshot {
            status: "active".into(),
            period_start: at(1000),
            period_end: at(2000),
            canceled_at: None,
            ends_at: None,
            tenant: Some(TENANT.parse().unwrap()),
            plan: Some("pro".into()),
            customer: Some("cus_1".into()),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn the_period_is_read_in_both_of_stripes_forms() {
        let period = |more: Value| {
            let found = snapshot_of(more);
            (found.period_start.as_second(), found.period_end.as_second())
        };
        let old =
            json!({ "current_period_start": 5, "current_period_end": 9, "items": { "data": [{ "id": "si_1" }] } });
        assert_eq!(period(old), (5, 9));
        let item = |start: i64, end: i64| json!({ "current_period_start": start, "current_period_end": end });
        assert_eq!(period(json!({ "items": { "data": [item(3, 30), item(1, 300), item(2, 20)] } })), (1, 300));
        assert_eq!(period(json!({ "items": { "data": [] } })), (1000, 1000), "without one it began and ended then");
        assert_eq!(period(json!({ "items": { "data": [item(30, 3)] } })), (30, 30), "no period ends before it begins");
    }

    #[test]
    fn an_announced_end_is_known_before_and_one_for_want_of_payment_is_at_once() {
        assert_eq!(snapshot_of(json!({ "cancel_at_period_end": true })).ends_at, Some(at(2000)));
        assert_eq!(snapshot_of(json!({ "cancel_at": 1500 })).ends_at, Some(at(1500)));
        let canceled = |reason: Value| {
            let details = json!({ "status": "canceled", "ended_at": 1200, "canceled_at": 1200, "cancel_at": 1500, "cancellation_details": { "reason": reason } });
            let found = snapshot_of(details);
            (found.period_end.as_second(), found.ends_at)
        };
        assert_eq!(canceled(json!("cancellation_requested")), (2000, None), "what was paid for is served");
        assert_eq!(canceled(Value::Null), (2000, None));
        assert_eq!(canceled(json!("payment_failed")), (1200, None));
        assert_eq!(canceled(json!("payment_disputed")), (1200, None));
    }

    #[test]
    fn what_cannot_be_read_of_a_subscription_is_said_and_kept() {
        for (more, words) in [
            (json!({ "status": "dreaming" }), "\"dreaming\""),
            (json!({ "status": null }), "\"\""),
            (json!({ "items": {}, "start_date": null, "created": -5 }), "period"),
            (json!({ "items": {}, "start_date": null, "created": i64::MAX }), "period"),
        ] {
            let event = subscription("customer.subscription.created", more);
            assert!(matches!(&event.word, Word::Unreadable(why) if why.contains(words)), "{event:?}");
            assert_eq!(event.subscription.as_deref(), Some("sub_1"));
        }
        let event = subscription("customer.subscription.created", json!({ "id": "sub\u{0}" }));
        assert!(matches!(event.word, Word::Unreadable(_)) && event.subscription.is_none());
        let odd =
            snapshot_of(json!({ "metadata": { "tenant": "acme", "plan": "pro\u{0}" }, "customer": { "id": "cus_2" } }));
        assert_eq!((odd.tenant, odd.plan, odd.customer.as_deref()), (None, None, Some("cus_2")));
    }

    #[test]
    fn invoices_and_checkouts_say_whose_they_are_in_both_forms() {
        let event = |kind: &str, object: Value| {
            let event = parse(&json!({ "id": "evt_1", "type": kind, "created": 7, "data": { "object": object } }));
            (event.subscription, event.word)
        };
        let subscription = Some("sub_1".to_owned());
        let old = json!({ "subscription": "sub_1" });
        let new = json!({ "parent": { "subscription_details": { "subscription": "sub_1" } } });
        let full = json!({ "subscription": { "id": "sub_1", "object": "subscription" } });
        for object in [old, new, full] {
            assert_eq!(event("invoice.paid", object.clone()), (subscription.clone(), Word::Noted));
            assert_eq!(event("invoice.finalized", object), (subscription.clone(), Word::Other));
        }
        let owner = Word::Owner(TENANT.parse().ok());
        let checkout = |whose: &str| {
            let mut object: Value = serde_json::from_str(whose).unwrap();
            object["subscription"] = json!("sub_1");
            event("checkout.session.completed", object)
        };
        assert_eq!(checkout(&format!(r#"{{"metadata":{{"tenant":"{TENANT}"}}}}"#)), (subscription.clone(), owner));
        // What a buyer wrote into an address.
        assert_eq!(
            checkout(&format!(r#"{{"client_reference_id":"{TENANT}"}}"#)),
            (subscription.clone(), Word::Owner(None))
        );
        assert_eq!(event("checkout.session.completed", json!({ "mode": "payment" })), (None, Word::Other));
        assert_eq!(event("customer.created", json!({ "id": "cus_1" })), (None, Word::Other));
    }

    #[test]
    fn only_what_has_no_name_is_no_event() {
        let parse = |text: &str| Event::parse(text, at(9)).map(|event| (event.id, event.created.as_second()));
        assert_eq!(parse("[]"), Err(NoEvent::NoId));
        assert_eq!(parse("{"), Err(NoEvent::NoObject));
        assert_eq!(parse(r#"{"id":"evt 1","type":"a"}"#), Err(NoEvent::NoId));
        assert_eq!(parse(r#"{"id":"evt_1"}"#), Err(NoEvent::NoKind));
        assert_eq!(parse(r#"{"id":"evt_1","type":"a.b"}"#), Ok(("evt_1".into(), 9)));
        let second = r#"{"id":"evt_1","object":"v2.core.event","type":"v1.billing.meter.error_report_triggered","created":"2026-01-01T00:00:00.5Z"}"#;
        assert_eq!(parse(second), Ok(("evt_1".into(), 1_767_225_600)));
    }
}
