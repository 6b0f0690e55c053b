//! What Stripe and others are answered, and what is kept.

use jiff::{SignedDuration, Timestamp};
use maintenance_os::billing::serve::SecretSource;
use maintenance_os::billing::signature::sign;
use serde_json::json;
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use crate::house::{DAY, House, Line, NOW, SECRET, Served, of, other, subscription};

#[tokio::test]
async fn an_event_of_stripe_is_kept_and_its_tenant_has_the_subscription() {
    let house = House::new().await;
    let served = Served::new(house.db.central.clone()).await;
    let event = subscription("evt_1", "created", NOW, "sub_1", "active", &of(house.tenant));
    assert_eq!(served.send(&event).await, (200, "kept\n".into()));
    let row = house.db.row(house.tenant).await.subscription.unwrap();
    assert_eq!((row.status.as_str(), row.canceled, row.ends_at), ("active", false, None));
    assert_eq!(row.current_period_end, Timestamp::from_second(NOW + 30 * DAY).unwrap());
    let kept = "SELECT payload::text FROM billing_events e JOIN tenants t ON t.id = e.tenant_id WHERE slug = 'acme'";
    assert_eq!(house.db.texts(kept).await, [event.to_string()], "word for word");
    let plan = "SELECT slug::text FROM plans p JOIN subscriptions s ON s.plan_id = p.id";
    assert_eq!(house.db.texts(plan).await, ["pro"]);
    let audit =
        "SELECT actor || ' ' || action || ' ' || resource_id || ' ' || (changes->'after'->>'status') FROM audit_logs
        WHERE action LIKE 'subscription.%' ORDER BY id";
    assert_eq!(house.db.texts(audit).await, ["stripe subscription.created sub_1 active"]);
    let next = subscription("evt_2", "updated", NOW + 1, "sub_1", "past_due", &of(house.tenant));
    assert_eq!(served.send(&next).await.0, 200);
    assert_eq!(house.status().await.as_deref(), Some("past_due"));
    assert_eq!(house.db.texts(audit).await.len(), 2);
    assert_eq!(served.figure("maintenance_os_billing_events_total{outcome=\"applied\"}"), "2");
}

#[tokio::test]
async fn whoever_is_not_stripe_is_told_nothing_and_nothing_is_kept() {
    let house = House::new().await;
    let served = Served::new(house.db.central.clone()).await;
    let body = subscription("evt_1", "created", NOW, "sub_1", "active", &of(house.tenant)).to_string();
    let now = Timestamp::now();
    let good = sign(SECRET, body.as_bytes(), now);
    let (old, ahead) = (now - SignedDuration::from_secs(400), now + SignedDuration::from_secs(400));
    let (old, ahead) = (sign(SECRET, body.as_bytes(), old), sign(SECRET, body.as_bytes(), ahead));
    let foreign = sign("whsec_other", body.as_bytes(), now);
    let tampered = body.replace("active", "paused");
    let nonsense = sign(SECRET, b"{}", now);
    let binary = sign(SECRET, b"\xff", now);
    let requests: [(&[u8], &[&str]); 10] = [
        (body.as_bytes(), &[]),
        (body.as_bytes(), &["nonsense"]),
        (body.as_bytes(), &[&foreign]),
        (body.as_bytes(), &[&old]),
        (body.as_bytes(), &[&ahead]),
        (body.as_bytes(), &[&good, &good]),
        (tampered.as_bytes(), &[&good]),
        (b"", &[&good]),
        (b"{}", &[&nonsense]),
        (b"\xff", &[&binary]),
    ];
    for (index, (body, headers)) in requests.into_iter().enumerate() {
        assert_eq!(served.post(body.to_vec(), headers).await, (400, "Bad Request\n".into()), "request {index}");
    }
    assert_eq!(served.post(vec![b' '; (1 << 20) + 1], &[&good]).await.0, 413);
    assert_eq!(reqwest::get(served.url()).await.unwrap().status().as_u16(), 405);
    assert_eq!(house.count("billing_events").await + house.count("subscriptions").await, 0);
    for (reason, count) in [("missing", "2"), ("malformed", "1"), ("stale", "2"), ("forged", "3"), ("body", "3")] {
        assert_eq!(
            served.figure(&format!("maintenance_os_billing_refused_total{{reason=\"{reason}\"}}")),
            count,
            "{reason}"
        );
    }
    assert_eq!(served.post(body.into_bytes(), &[&good]).await.0, 200, "the same body is taken as it is");
}

async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    let ended = tokio::time::timeout(std::time::Duration::from_secs(8), waiting).await;
    assert!(ended.is_ok(), "not before the slow ones are given up: {what}");
}

#[tokio::test]
async fn so_many_slow_bodies_of_strangers_are_held_and_no_more() {
    let house = House::new().await;
    let served = Served::new(house.db.central.clone()).await;
    let address = served.url().split('/').nth(2).unwrap().to_owned();
    let head = format!(
        "POST /stripe/webhook HTTP/1.1\r\nHost: {address}\r\nStripe-Signature: t=1,v1=00\r\nContent-Length: 9\r\n\r\n"
    );
    let mut slow = Vec::new();
    for _ in 0..32 {
        let mut stranger = tokio::net::TcpStream::connect(&address).await.unwrap();
        stranger.write_all(head.as_bytes()).await.unwrap();
        slow.push(stranger);
    }
    let event = other("evt_1", "customer.created", NOW, &json!({}));
    eventually("the room is taken", async || served.send(&event).await.0 == 503).await;
    drop(slow);
    eventually("there is room again", async || served.send(&event).await.0 == 200).await;
}

#[tokio::test]
async fn a_secret_is_replaced_while_the_webhook_runs() {
    let house = House::new().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |text: &str| std::fs::write(file.path(), text).unwrap();
    write("whsec_old\n");
    let served = Served::with(house.db.central.clone(), SecretSource::File(file.path().into())).await;
    let send = async |id: &str, secret: &str| {
        let body = other(id, "customer.created", NOW, &json!({})).to_string();
        let header = sign(secret, body.as_bytes(), Timestamp::now());
        served.post(body.into_bytes(), &[&header]).await.0
    };
    assert_eq!((send("evt_1", "whsec_old").await, send("evt_2", "whsec_new").await), (200, 400));
    write("whsec_new\nwhsec_old\n");
    assert_eq!((send("evt_3", "whsec_old").await, send("evt_4", "whsec_new").await), (200, 200));
    write("whsec_new\n");
    assert_eq!((send("evt_5", "whsec_old").await, send("evt_6", "whsec_new").await), (400, 200));
    write("");
    assert_eq!(send("evt_7", "whsec_new").await, 503, "without a secret nothing is taken, and Stripe tries again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_event_that_comes_many_times_at_once_is_applied_once() {
    let house = House::new().await;
    let two = [Served::new(house.db.central.clone()).await, Served::new(house.db.central.clone()).await];
    let event = subscription("evt_1", "created", NOW, "sub_1", "active", &of(house.tenant));
    let all = (0..24).map(|number| two[number % 2].send(&event));
    for answer in futures::future::join_all(all).await {
        assert_eq!(answer.0, 200);
    }
    assert_eq!(house.outcomes().await, ["evt_1 applied"]);
    assert_eq!(house.count("audit_logs WHERE action LIKE 'subscription.%'").await, 1);
    let figure = |outcome: &str| -> u32 {
        let series = format!("maintenance_os_billing_events_total{{outcome=\"{outcome}\"}}");
        two.iter().map(|served| served.figure(&series).parse::<u32>().unwrap()).sum()
    };
    assert_eq!((figure("applied"), figure("duplicate")), (1, 23));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_central_database_is_away_stripe_is_told_to_come_again() {
    let house = House::new().await;
    let line = Line::new().await;
    let served = Served::new(line.central(&house.db).await).await;
    let event = |number: i64, status: &str| {
        subscription(&format!("evt_{number}"), "updated", NOW + number, "sub_1", status, &of(house.tenant))
    };
    assert_eq!(served.send(&event(1, "active")).await.0, 200);
    line.cut();
    assert_eq!(served.send(&event(2, "unpaid")).await, (503, "Service Unavailable\n".into()));
    assert_eq!(served.figure("maintenance_os_billing_failures_total"), "1");
    assert_eq!(house.outcomes().await, ["evt_1 applied"]);
    line.mend();
    assert_eq!(served.send(&event(2, "unpaid")).await.0, 200);
    assert_eq!(house.status().await.as_deref(), Some("unpaid"));
}

#[tokio::test]
async fn what_names_no_known_tenant_is_kept_shown_and_given_to_the_one_whose_it_is() {
    let house = House::new().await;
    let central = &house.db.central;
    let (stranger, nobody) = (Uuid::new_v4(), json!({}));
    assert_eq!(house.take(&subscription("evt_1", "created", NOW, "sub_1", "active", &of(stranger))).await, "unmatched");
    assert_eq!(house.take(&subscription("evt_2", "updated", NOW + 1, "sub_1", "past_due", &nobody)).await, "unmatched");
    assert_eq!(house.take(&other("evt_3", "invoice.paid", NOW, &json!({ "subscription": "sub_1" }))).await, "noted");
    assert_eq!(central.unmatched_events().await.unwrap(), 2);
    let shown = central.billing_events(None, true, 10).await.unwrap();
    let shown: Vec<_> =
        shown.iter().map(|line| (line.id.as_str(), line.subscription.as_deref(), line.slug.as_deref())).collect();
    assert_eq!(shown, [("evt_2", Some("sub_1"), None), ("evt_1", Some("sub_1"), None)]);
    assert_eq!(house.count("subscriptions").await, 0);

    let assign = maintenance_os::billing::command::assign;
    assert_eq!(assign(central, "sub_1", Uuid::new_v4(), "eve@example.com").await.unwrap().as_str(), "unmatched");
    assert_eq!(assign(central, "sub_1", house.tenant, "eve@example.com").await.unwrap().as_str(), "applied");
    assert!(assign(central, "sub 1", house.tenant, "eve@example.com").await.is_err());
    assert_eq!(house.status().await.as_deref(), Some("past_due"), "all that was kept counts");
    assert_eq!(central.unmatched_events().await.unwrap(), 0);
    assert_eq!(central.billing_events(Some(house.tenant), false, 10).await.unwrap().len(), 5);
    let actor = "SELECT actor::text FROM audit_logs WHERE action = 'subscription.created'";
    assert_eq!(house.db.texts(actor).await, ["eve@example.com"]);
    // From now on it is known by its id.
    assert_eq!(house.take(&subscription("evt_9", "updated", NOW + 9, "sub_1", "active", &nobody)).await, "applied");
    assert_eq!(house.status().await.as_deref(), Some("active"));
}

#[tokio::test]
async fn what_is_not_used_or_cannot_be_read_is_kept_too() {
    let house = House::new().await;
    let event = subscription("evt_1", "created", NOW, "sub_1", "active", &of(house.tenant));
    assert_eq!(house.take(&event).await, "applied");
    assert_eq!(
        house.take(&subscription("evt_2", "updated", NOW + 1, "sub_1", "dreaming", &of(house.tenant))).await,
        "unreadable"
    );
    assert_eq!(
        house.take(&other("evt_3", "invoice.upcoming", NOW, &json!({ "subscription": "sub_1" }))).await,
        "ignored"
    );
    assert_eq!(
        house.take(&other("evt_4", "customer.created", NOW, &json!({ "name": "zero \u{0} byte" }))).await,
        "ignored"
    );
    assert_eq!(
        house.take(&other("evt_5", "checkout.session.completed", NOW, &json!({ "mode": "payment" }))).await,
        "ignored"
    );
    let odd = json!({ "items": { "data": [{ "current_period_start": NOW, "current_period_end": i64::MAX }] } });
    assert_eq!(house.take(&subscription("evt_6", "created", NOW, "sub_2", "active", &odd)).await, "unmatched");
    assert_eq!(house.status().await.as_deref(), Some("active"));
    assert_eq!(house.count("billing_events").await, 6);
}
