//! What is promised of one job.

use std::time::Duration;

use maintenance_os::tenancy::queue::WorkerSettings;
use maintenance_os::tenancy::queue::look::{Held, Place, Progress};
use maintenance_os::tenancy::redis::RedisSettings;
use serde::{Deserialize, Serialize};

use crate::house::{Fail, House, Nap, Note, Trace, settings};
use crate::redis::{Own, ask, behind_sentinels, cluster, entry, eventually, raw};

async fn jobs_are_done(redis: RedisSettings) {
    let tenants = [entry(), entry()]
        .map(|tenant| maintenance_os::api::routing::RoutingEntry { name: format!("t-{}", tenant.uuid), ..tenant });
    let house = House::new(&redis, &tenants).await;
    let trace = Trace::default();
    let worker = house.worker(&trace, settings(4));
    for tenant in &tenants {
        house.context(tenant).await.queue().push(&Note::of("hello")).await.unwrap();
    }
    trace.has(2).await;
    let mut expected = tenants.each_ref().map(|tenant| format!("hello for t-{}", tenant.uuid));
    expected.sort();
    let mut lines = trace.lines();
    lines.sort();
    assert_eq!(lines, expected, "each with its own tenant's context");
    for tenant in &tenants {
        let view = house.context(tenant).await.queue().view().unwrap();
        eventually("nothing is left", async || view.held().await.unwrap() == Held::default()).await;
    }
    worker.stop().await;
}

#[tokio::test]
async fn jobs_are_done_on_one_server() {
    let server = Own::start().await;
    jobs_are_done(server.settings.clone()).await;
    let left: Vec<String> = ask(&mut *raw(&server.settings, 0).await, &["KEYS", "tenant-*"]).await;
    assert!(left.is_empty(), "a queue that is done leaves nothing behind: {left:?}");
}

#[tokio::test]
async fn jobs_are_done_behind_sentinels() {
    jobs_are_done(behind_sentinels()).await;
}

#[tokio::test]
async fn jobs_are_done_on_a_cluster() {
    jobs_are_done(cluster()).await;
}

#[tokio::test]
async fn a_job_that_is_queued_for_later_waits_and_one_of_the_same_key_is_queued_once() {
    let (server, acme) = (Own::start().await, entry());
    let house = House::new(&server.settings, std::slice::from_ref(&acme)).await;
    let (trace, tenant) = (Trace::default(), house.context(&acme).await);
    let worker = house.worker(&trace, settings(4));
    let queue = tenant.queue();
    let later = Note { text: "later".into(), key: Some("day".into()) };
    let first = queue.push_later(&later, Duration::from_millis(700)).await.unwrap();
    let second = queue.push(&later).await.unwrap();
    assert_eq!((first.new, second.new, first.id == second.id), (true, false, true));
    queue.push(&Note::of("now")).await.unwrap();
    trace.has(2).await;
    assert_eq!(trace.lines(), ["now for acme", "later for acme"]);
    let view = queue.view().unwrap();
    eventually("the key is free again", async || view.find::<Note>("day").await.unwrap() == Place::Gone).await;
    assert!(queue.push(&later).await.unwrap().new);
    trace.has(3).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_job_that_fails_is_tried_three_times_then_kept_with_its_reason_and_can_be_tried_again() {
    let (server, acme) = (Own::start().await, entry());
    let house = House::new(&server.settings, std::slice::from_ref(&acme)).await;
    let (trace, tenant) = (Trace::default(), house.context(&acme).await);
    let worker = house.worker(&trace, settings(4));
    let view = tenant.queue().view().unwrap();
    tenant.queue().push(&Fail::Again).await.unwrap();
    trace.has(1).await;
    eventually("it waits with its reason", async || {
        view.find::<Fail>("one").await.unwrap() == Place::Waiting(Some("not today".into()))
    })
    .await;
    // The first pause is five seconds, the second one 25.
    trace.has(3).await;
    eventually("it is given up", async || view.find::<Fail>("one").await.unwrap() == Place::Failed("not today".into()))
        .await;
    let failed = view.failed(10).await.unwrap();
    assert_eq!(failed.len(), 1);
    let job = &failed[0];
    assert_eq!((job.kind.as_str(), job.attempts, job.error.as_deref()), ("test.fail", 3, Some("not today")));
    assert!(job.at.is_some() && job.queued_at.is_some());
    assert_eq!(view.retry(&["not a job".to_owned(), job.id.clone()]).await.unwrap(), 1);
    trace.has(4).await;
    assert_eq!(trace.lines(), ["attempt 1", "attempt 2", "attempt 3", "attempt 1"]);
    worker.stop().await;
}

#[tokio::test]
async fn a_job_may_panic_take_too_long_or_be_hopeless_and_the_worker_goes_on() {
    let (server, acme) = (Own::start().await, entry());
    let house = House::new(&server.settings, std::slice::from_ref(&acme)).await;
    let (trace, tenant) = (Trace::default(), house.context(&acme).await);
    let worker = house.worker(&trace, WorkerSettings { tries: 1, timeout: Duration::from_millis(300), ..settings(4) });
    let view = tenant.queue().view().unwrap();
    let reason = async |lines: usize| {
        trace.has(lines).await;
        eventually("it is given up", async || view.held().await.unwrap().failed == 1).await;
        let failed = view.failed(1).await.unwrap().remove(0);
        // Queued anew under the same key it is the same job, so it goes away for the next one only when it is done.
        assert_eq!(failed.attempts, 1);
        failed.error.unwrap()
    };
    tenant.queue().push(&Fail::Panic).await.unwrap();
    assert_eq!(reason(1).await, "it panicked: out of paper");
    // The same key: it takes the place of what was given up, once more in vain.
    assert!(tenant.queue().push(&Fail::Panic).await.unwrap().new);
    assert_eq!(reason(2).await, "it panicked: out of paper");
    let nap = Nap { text: "long".into(), milliseconds: 60_000 };
    tenant.queue().push(&nap).await.unwrap();
    eventually("it is stopped", async || view.held().await.unwrap().failed == 2).await;
    let newest = view.failed(1).await.unwrap().remove(0);
    assert_eq!(newest.error.as_deref(), Some("it was not done within 0 s"));
    assert_eq!(view.retry(&[newest.id]).await.unwrap(), 1);
    tenant.queue().push(&Note::of("after")).await.unwrap();
    eventually("the worker goes on", async || trace.lines().contains(&"after for acme".to_owned())).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_hopeless_job_is_not_tried_again() {
    let (server, acme) = (Own::start().await, entry());
    let house = House::new(&server.settings, std::slice::from_ref(&acme)).await;
    let (trace, tenant) = (Trace::default(), house.context(&acme).await);
    let worker = house.worker(&trace, settings(1));
    tenant.queue().push(&Fail::Hopeless).await.unwrap();
    let view = tenant.queue().view().unwrap();
    eventually("it is given up", async || view.find::<Fail>("one").await.unwrap() == Place::Failed("never".into()))
        .await;
    assert_eq!(trace.lines(), ["attempt 1"]);
    worker.stop().await;
}

#[derive(Serialize, Deserialize)]
struct Unheard;

impl maintenance_os::tenancy::queue::TenantJob for Unheard {
    const NAME: &'static str = "test.unheard";
    type State = ();

    async fn run(
        &self,
        _: &maintenance_os::tenancy::TenantContext,
        _: &maintenance_os::tenancy::queue::Task<()>,
    ) -> Result<serde_json::Value, maintenance_os::tenancy::queue::JobError> {
        unreachable!("no worker knows it")
    }
}

#[tokio::test]
async fn poison_ends_among_the_failed_jobs_with_a_reason() {
    let (server, acme, other) = (Own::start().await, entry(), entry());
    let house = House::new(&server.settings, &[acme.clone(), other.clone()]).await;
    let (trace, tenant) = (Trace::default(), house.context(&acme).await);
    tenant.queue().push(&Unheard).await.unwrap();
    // What our own code would not write.
    let mut raw = raw(&server.settings, 0).await;
    let (list, jobs) = (format!("tenant-{}", acme.uuid), format!("tenant-{}:jobs", acme.uuid));
    let foreign = serde_json::json!({
        "id": uuid::Uuid::from_u128(1), "tenant": other.uuid, "kind": "test.note",
        "queuedAt": "2026-01-01T00:00:00Z", "payload": { "text": "stolen", "key": null },
    });
    let odd = serde_json::json!({
        "id": uuid::Uuid::from_u128(2), "tenant": acme.uuid, "kind": "test.note",
        "queuedAt": "2026-01-01T00:00:00Z", "payload": { "words": 7 },
    });
    let masked = serde_json::json!({
        "id": uuid::Uuid::from_u128(9), "tenant": acme.uuid, "kind": "test.note",
        "queuedAt": "2026-01-01T00:00:00Z", "payload": { "text": "masked", "key": null },
    });
    let poison = [
        ("broken", "{".to_owned()),
        ("large", "x".repeat(10 << 20)),
        (&*uuid::Uuid::from_u128(1).to_string(), foreign.to_string()),
        (&*uuid::Uuid::from_u128(2).to_string(), odd.to_string()),
        ("masked", masked.to_string()),
    ];
    for (id, text) in &poison {
        let _: u64 = ask(&mut *raw, &["HSET", &jobs, id, text]).await;
        let _: u64 = ask(&mut *raw, &["RPUSH", &list, id]).await;
    }
    // An id without a job is nothing.
    let _: u64 = ask(&mut *raw, &["RPUSH", &list, "nothing"]).await;
    let worker = house.worker(&trace, WorkerSettings { tries: 1, ..settings(2) });
    tenant.queue().push(&Note::of("after")).await.unwrap();
    trace.has(1).await;
    let view = tenant.queue().view().unwrap();
    eventually("all are given up", async || view.held().await.unwrap().failed == 6).await;
    let mut reasons: Vec<_> =
        view.failed(10).await.unwrap().into_iter().map(|job| job.error.unwrap_or_default()).collect();
    reasons.sort();
    let beginnings = [
        "it cannot be read: EOF while parsing",
        "it is another tenant's",
        "it says that it is another job",
        "its 10485760 bytes are more than 65536",
        "its payload cannot be read: missing field `text`",
        "no worker knows jobs called test.unheard; known are: test.fail, test.nap, test.note",
    ];
    for (reason, beginning) in reasons.iter().zip(beginnings) {
        assert!(reason.starts_with(beginning), "{reason:?} is not {beginning:?}");
    }
    assert_eq!(trace.lines(), ["after for acme"], "and nothing of it was done");
    worker.stop().await;
}

#[tokio::test]
async fn a_job_says_how_far_it_is_while_its_lease_is_renewed_and_leaves_its_result() {
    let (server, acme) = (Own::start().await, entry());
    let house = House::new(&server.settings, std::slice::from_ref(&acme)).await;
    let (trace, tenant) = (Trace::default(), house.context(&acme).await);
    let (one, two) = (house.worker(&trace, settings(1)), house.worker(&trace, settings(1)));
    // Longer than a lease of three seconds.
    let queued = tenant.queue().push(&Nap { text: "long".into(), milliseconds: 4500 }).await.unwrap();
    let view = tenant.queue().view().unwrap();
    eventually("its progress is seen", async || {
        view.running(10).await.unwrap().first().and_then(|job| job.progress) == Some(Progress { done: 1, of: Some(2) })
    })
    .await;
    trace.has(2).await;
    eventually("it is done", async || view.held().await.unwrap() == Held::default()).await;
    assert_eq!(trace.lines(), ["begin long", "end long"], "and begun once");
    let result: String =
        ask(&mut *raw(&server.settings, 0).await, &["GET", &format!("tenant-{}:result:{}", acme.uuid, queued.id)])
            .await;
    assert_eq!(result, r#"{"slept":4500}"#);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_worker_that_stops_ends_its_jobs_and_takes_no_more() {
    let (server, acme) = (Own::start().await, entry());
    let house = House::new(&server.settings, std::slice::from_ref(&acme)).await;
    let (trace, tenant) = (Trace::default(), house.context(&acme).await);
    let worker = house.worker(&trace, settings(1));
    tenant.queue().push(&Nap { text: "first".into(), milliseconds: 300 }).await.unwrap();
    tenant.queue().push(&Note::of("second")).await.unwrap();
    trace.has(1).await;
    worker.stop().await;
    assert_eq!(trace.lines(), ["begin first", "end first"]);
    assert_eq!(tenant.queue().view().unwrap().held().await.unwrap().waiting, 1);
}

#[tokio::test]
async fn a_worker_that_has_grown_too_large_ends_by_itself() {
    let (server, acme) = (Own::start().await, entry());
    let house = House::new(&server.settings, std::slice::from_ref(&acme)).await;
    let worker = house.worker(&Trace::default(), WorkerSettings { memory: Some(1 << 20), ..settings(1) });
    worker.ended().await;
}

#[tokio::test]
async fn a_job_that_is_queued_again_under_its_key_takes_the_place_of_the_one_that_was_given_up() {
    let (server, acme) = (Own::start().await, entry());
    let house = House::new(&server.settings, std::slice::from_ref(&acme)).await;
    let (trace, tenant) = (Trace::default(), house.context(&acme).await);
    let worker = house.worker(&trace, settings(1));
    let first = tenant.queue().push(&Fail::Hopeless).await.unwrap();
    let view = tenant.queue().view().unwrap();
    eventually("it is given up", async || view.held().await.unwrap().failed == 1).await;
    // The same key, and something else to do.
    let second = tenant.queue().push(&Fail::Until(1)).await.unwrap();
    assert!(second.new && second.id != first.id);
    eventually("it is done, and the other is gone", async || view.held().await.unwrap() == Held::default()).await;
    assert_eq!(trace.lines(), ["attempt 1", "attempt 1"]);
    let left: Vec<String> = ask(&mut *raw(&server.settings, 0).await, &["KEYS", "tenant-*"]).await;
    assert!(left.is_empty(), "{left:?}");
    worker.stop().await;
}

#[tokio::test]
async fn a_job_of_an_unknown_kind_waits_for_a_worker_that_knows_it() {
    let (server, acme) = (Own::start().await, entry());
    let house = House::new(&server.settings, std::slice::from_ref(&acme)).await;
    let (trace, tenant) = (Trace::default(), house.context(&acme).await);
    let worker = house.worker(&trace, settings(1));
    tenant.queue().push(&Unheard).await.unwrap();
    let view = tenant.queue().view().unwrap();
    eventually("it waits for its time", async || view.held().await.unwrap().later == 1).await;
    let waiting = view.later(1).await.unwrap().remove(0);
    assert!(waiting.error.unwrap().starts_with("no worker knows jobs called test.unheard"));
    let pause = waiting.at.unwrap().duration_since(waiting.queued_at.unwrap());
    assert!(pause.as_secs() >= 110, "{pause:?}");
    worker.stop().await;
}

#[tokio::test]
async fn a_failed_job_that_is_discarded_is_gone_with_its_name_and_one_that_waits_is_not() {
    let (server, tenant) = (Own::start().await, entry());
    let house = House::new(&server.settings, std::slice::from_ref(&tenant)).await;
    let (trace, context) = (Trace::default(), house.context(&tenant).await);
    let view = context.queue().view().unwrap();
    context.queue().push(&Fail::Hopeless).await.unwrap();
    let worker = house.worker(&trace, settings(1));
    eventually("it failed", async || view.held().await.unwrap().failed == 1).await;
    worker.stop().await;
    let waits = context.queue().push(&Note::of("waits")).await.unwrap();
    let failed = view.failed(10).await.unwrap().remove(0);
    assert_eq!(view.discard(&waits.id.to_string()).await.unwrap(), 0, "it did not fail");
    assert_eq!(view.discard(&failed.id).await.unwrap(), 1);
    assert_eq!(view.discard(&failed.id).await.unwrap(), 0, "it is gone");
    let held = view.held().await.unwrap();
    assert_eq!((held.waiting, held.failed), (1, 0));
    let mut raw = raw(&server.settings, 0).await;
    let name = |part: &str| format!("tenant-{}:{part}", tenant.uuid);
    let left: u64 = ask(&mut *raw, &["HLEN", &name("jobs")]).await;
    let names: u64 = ask(&mut *raw, &["HLEN", &name("unique")]).await;
    assert_eq!((left, names), (1, 0), "what waits is there, and no name of what is gone");
    // Poison has no name that could be read, and goes all the same.
    let _: u64 = ask(&mut *raw, &["HSET", &name("jobs"), "x", "{"]).await;
    let _: u64 = ask(&mut *raw, &["ZADD", &name("dead"), "1", "x"]).await;
    assert_eq!(view.discard_all().await.unwrap(), 1);
    assert_eq!(view.held().await.unwrap().failed, 0);
}
