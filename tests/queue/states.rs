//! What a tenant's state means for its jobs.

use std::time::Duration;

use maintenance_os::api::routing::RoutingEntry;
use maintenance_os::api::tenant::TenantState;
use maintenance_os::tenancy::queue::WorkerSettings;

use crate::house::{Fail, House, Note, Trace, settings};
use crate::redis::{Own, ask, entry, eventually, raw};

#[tokio::test]
async fn a_tenant_that_is_not_served_keeps_its_jobs_until_it_is_again() {
    for state in [TenantState::Suspended, TenantState::ReadOnly] {
        let (server, acme, other) = (Own::start().await, entry(), entry());
        let mut house = House::new(&server.settings, &[acme.clone(), other.clone()]).await;
        let (trace, context) = (Trace::default(), house.context(&acme).await);
        house.route(&[RoutingEntry { state, ..acme.clone() }, other.clone()]).await;
        let worker = house.worker(&trace, settings(2));
        context.queue().push(&Note::of("kept")).await.unwrap();
        house.context(&other).await.queue().push(&Note::of("other")).await.unwrap();
        trace.has(1).await;
        // Long enough for another turn.
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert_eq!(trace.lines(), ["other for acme"], "{state:?}");
        assert_eq!(context.queue().view().unwrap().held().await.unwrap().waiting, 1);
        house.route(&[acme, other]).await;
        trace.has(2).await;
        assert_eq!(trace.lines()[1], "kept for acme");
        worker.stop().await;
    }
}

#[tokio::test]
async fn a_job_wakes_a_hibernated_tenant() {
    let (server, acme) = (Own::start().await, entry());
    let mut house = House::new(&server.settings, std::slice::from_ref(&acme)).await;
    let (trace, context) = (Trace::default(), house.context(&acme).await);
    let asleep = RoutingEntry { state: TenantState::Hibernated, sleeps: true, ..acme.clone() };
    house.route(&[asleep]).await;
    let worker = house.worker(&trace, settings(2));
    context.queue().push(&Note::of("wake up")).await.unwrap();
    let acknowledgements = house.tenancy.acknowledgements().router();
    eventually("the operator is told that somebody wants it", async || {
        use tower::ServiceExt;
        let request = http::Request::get("/acks").body(axum::body::Body::empty()).unwrap();
        let answer = acknowledgements.clone().oneshot(request).await.unwrap().into_body();
        let answer = axum::body::to_bytes(answer, 1 << 16).await.unwrap();
        String::from_utf8_lossy(&answer).contains(&acme.uuid.to_string())
    })
    .await;
    assert_eq!(trace.len(), 0);
    house.route(&[RoutingEntry { sleeps: true, ..acme.clone() }]).await;
    trace.has(1).await;
    worker.stop().await;
}

#[tokio::test]
async fn jobs_of_a_tenant_that_is_no_more_are_given_up_with_that_reason() {
    let (server, acme, other) = (Own::start().await, entry(), entry());
    let mut house = House::new(&server.settings, &[acme.clone(), other.clone()]).await;
    let (trace, context) = (Trace::default(), house.context(&acme).await);
    house.route(std::slice::from_ref(&other)).await;
    let worker = house.worker(&trace, WorkerSettings { gone: Duration::from_secs(1), ..settings(2) });
    context.queue().push(&Note::of("orphan")).await.unwrap();
    context.queue().push_later(&Note::of("orphan"), Duration::from_secs(3600)).await.unwrap();
    let view = context.queue().view().unwrap();
    eventually("they are given up", async || view.held().await.unwrap().failed == 2).await;
    let reasons: Vec<_> = view.failed(10).await.unwrap().into_iter().map(|job| job.error).collect();
    assert_eq!(reasons, [Some("the tenant is no more".into()), Some("the tenant is no more".into())]);
    // What a lost worker held has been given up too.
    let mut redis = raw(&server.settings, 0).await;
    let (queue, id) = (format!("tenant-{}", acme.uuid), uuid::Uuid::from_u128(5).to_string());
    let _: u64 = ask(&mut *redis, &["HSET", &format!("{queue}:jobs"), &id, "{}"]).await;
    let _: u64 = ask(&mut *redis, &["ZADD", &format!("{queue}:running"), "1", &id]).await;
    context.queue().push(&Note::of("orphan")).await.unwrap();
    eventually("it is given up", async || view.held().await.unwrap().failed == 4).await;
    assert_eq!(view.held().await.unwrap().running, 0);
    let _: u64 = ask(&mut *redis, &["ZREM", &format!("{queue}:dead"), &id]).await;
    // Adopted again, they can be tried again.
    house.route(&[acme, other]).await;
    let ids: Vec<_> = view.failed(10).await.unwrap().into_iter().map(|job| job.id).collect();
    assert_eq!(view.retry(&ids).await.unwrap(), 3);
    trace.has(3).await;
    worker.stop().await;
}

#[tokio::test]
async fn jobs_are_kept_while_it_is_not_certain_that_a_tenant_is_no_more() {
    let (server, acme, other) = (Own::start().await, entry(), entry());
    let mut house = House::new(&server.settings, &[acme.clone(), other.clone()]).await;
    let (trace, context) = (Trace::default(), house.context(&acme).await);
    house.route(std::slice::from_ref(&other)).await;
    house.break_slice("routing-07").await;
    let worker = house.worker(&trace, WorkerSettings { gone: Duration::ZERO, ..settings(2) });
    context.queue().push(&Note::of("orphan")).await.unwrap();
    // Long enough for two more looks.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    let view = context.queue().view().unwrap();
    assert_eq!((view.held().await.unwrap().waiting, view.held().await.unwrap().failed), (1, 0));
    house.mend_slice("routing-07").await;
    eventually("now it is certain", async || view.held().await.unwrap().failed == 1).await;
    worker.stop().await;
}

#[tokio::test]
async fn what_a_tenant_has_in_redis_goes_when_its_data_was_dropped_and_not_before() {
    let (server, acme, other) = (Own::start().await, entry(), entry());
    let both = [acme.clone(), other.clone()];
    let mut house = House::new(&server.settings, &both).await;
    let trace = Trace::default();
    let worker = house.worker(&trace, settings(2));
    for tenant in &both {
        house.context(tenant).await.queue().push(&Fail::Hopeless).await.unwrap();
    }
    trace.has(2).await;
    worker.stop().await;
    let mut redis = raw(&server.settings, 0).await;
    // As if workers of its own had been there.
    let name = acme.uuid.to_string();
    let _: u64 = ask(&mut *redis, &["ZADD", &format!("queues-{name}:due"), "1", &name]).await;
    let _: u64 = ask(&mut *redis, &["HSET", "queues:finish", &name, "5"]).await;
    let (before, others) = (keys_of(&mut *redis, &acme).await, keys_of(&mut *redis, &other).await);
    assert!(before > others && others > 2, "{before} {others}");

    // Gone, but its data is kept; then a slice says that a tenant which is routed was dropped.
    for dropped in [vec![], vec![other.uuid]] {
        house.route_and_drop(std::slice::from_ref(&other), &dropped).await;
        let _: u64 = ask(&mut *redis, &["DEL", "queues:sweep"]).await;
        let worker = house.worker(&trace, settings(2));
        eventually("a sweep has begun", async || ask(&mut *redis, &["EXISTS", "queues:sweep"]).await).await;
        // Long enough for the sweep.
        tokio::time::sleep(Duration::from_millis(500)).await;
        worker.stop().await;
        assert_eq!((keys_of(&mut *redis, &acme).await, keys_of(&mut *redis, &other).await), (before, others));
    }

    house.route_and_drop(std::slice::from_ref(&other), &[acme.uuid]).await;
    let _: u64 = ask(&mut *redis, &["DEL", "queues:sweep"]).await;
    let worker = house.worker(&trace, settings(2));
    eventually("it is removed", async || keys_of(&mut *redis, &acme).await == 0).await;
    let finish: Option<String> = ask(&mut *redis, &["HGET", "queues:finish", &name]).await;
    assert_eq!((finish, keys_of(&mut *redis, &other).await), (None, others));
    worker.stop().await;
}

/// How many keys bear its name.
async fn keys_of(redis: &mut (dyn ::redis::aio::ConnectionLike + Send), tenant: &RoutingEntry) -> usize {
    ask::<Vec<String>>(redis, &["KEYS", &format!("*{}*", tenant.uuid)]).await.len()
}
