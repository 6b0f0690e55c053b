//! A tenant with workers of its own: who does its jobs, and how one pool hands it to the other.

use maintenance_os::api::routing::{Queue, RoutingEntry, WorkerPool};
use maintenance_os::tenancy::queue::WorkerSettings;

use crate::house::{House, Nap, Note, Trace, settings};
use crate::redis::{Own, ask, entry, eventually, raw};

fn served_by(pool: WorkerPool, entry: &RoutingEntry) -> RoutingEntry {
    RoutingEntry { queue: Queue { pool, ..entry.queue.clone() }, ..entry.clone() }
}

/// A worker of a tenant's own.
fn own(tenant: &RoutingEntry) -> WorkerSettings {
    WorkerSettings { tenant: Some(tenant.uuid), ..settings(2) }
}

#[tokio::test]
async fn workers_of_a_tenants_own_do_its_jobs_and_no_other_and_the_shared_pool_leaves_them_alone() {
    let (server, acme, other) = (Own::start().await, entry(), entry());
    let acme = served_by(WorkerPool::Dedicated, &acme);
    let house = House::new(&server.settings, &[acme.clone(), other.clone()]).await;
    let (shared_did, own_did) = (Trace::default(), Trace::default());
    let (shared, dedicated) = (house.worker(&shared_did, settings(2)), house.worker(&own_did, own(&acme)));
    for number in 0..20 {
        house.context(&acme).await.queue().push(&Note::of(&format!("acme {number}"))).await.unwrap();
        house.context(&other).await.queue().push(&Note::of(&format!("other {number}"))).await.unwrap();
    }
    shared_did.has(20).await;
    own_did.has(20).await;
    assert!(own_did.lines().iter().all(|line| line.starts_with("acme ")), "{:?}", own_did.lines());
    assert!(shared_did.lines().iter().all(|line| line.starts_with("other ")), "{:?}", shared_did.lines());
    dedicated.stop().await;
    shared.stop().await;
}

#[tokio::test]
async fn a_tenant_that_changes_its_pool_and_back_loses_no_job_and_has_none_done_twice() {
    const JOBS: usize = 120;
    let (server, acme) = (Own::start().await, entry());
    let acme = RoutingEntry { queue: Queue { max_processes: 4, ..acme.queue.clone() }, ..acme };
    let mut house = House::new(&server.settings, std::slice::from_ref(&acme)).await;
    let (shared_did, own_did) = (Trace::default(), Trace::default());
    let (shared, dedicated) = (house.worker(&shared_did, settings(4)), house.worker(&own_did, own(&acme)));
    for number in 0..JOBS {
        let nap = Nap { text: format!("{number:03}"), milliseconds: 20 };
        house.context(&acme).await.queue().push(&nap).await.unwrap();
    }
    // In the middle of the work, twice.
    shared_did.has(20).await;
    house.route(&[served_by(WorkerPool::Dedicated, &acme)]).await;
    own_did.has(40).await;
    house.route(std::slice::from_ref(&acme)).await;
    let lines = || [shared_did.lines(), own_did.lines()].concat();
    let ends = || lines().iter().filter(|line| line.starts_with("end ")).count();
    eventually("all of them are done", async || ends() >= JOBS).await;
    let mut all = lines();
    all.sort();
    let count = all.len();
    all.dedup();
    assert_eq!((all.len(), count), (2 * JOBS, 2 * JOBS), "each begins once and ends once");
    let held = house.context(&acme).await.queue().view().unwrap().held().await.unwrap();
    assert_eq!((held.waiting, held.running, held.later, held.failed), (0, 0, 0, 0));
    dedicated.stop().await;
    shared.stop().await;
}

#[tokio::test]
async fn jobs_that_waited_for_workers_that_are_gone_are_done_by_the_shared_pool_when_routing_says_so() {
    let (server, acme) = (Own::start().await, entry());
    let mut house = House::new(&server.settings, &[served_by(WorkerPool::Dedicated, &acme)]).await;
    let trace = Trace::default();
    let shared = house.worker(&trace, settings(2));
    house.context(&acme).await.queue().push(&Note::of("waits")).await.unwrap();
    // Who has queued it with older routing says so in the shared ring, which hands it over.
    let mut redis = raw(&server.settings, 0).await;
    let name = acme.uuid.to_string();
    let _: u64 = ask(&mut *redis, &["ZADD", "queues:due", "1", &name]).await;
    let _: u64 = ask(&mut *redis, &["LPUSH", "queues:bell", "1"]).await;
    eventually("it is handed over", async || {
        let left: Option<String> = ask(&mut *redis, &["ZSCORE", "queues:due", &name]).await;
        let held: Option<String> = ask(&mut *redis, &["ZSCORE", "queues:held", &name]).await;
        left.is_none() && held.is_none()
    })
    .await;
    assert_eq!(trace.len(), 0, "it is not the shared pool's");
    house.route(std::slice::from_ref(&acme)).await;
    trace.has(1).await;
    assert_eq!(trace.lines(), ["waits for acme"]);
    shared.stop().await;
}

#[tokio::test]
async fn a_failed_job_that_is_tried_again_is_done_by_the_pool_that_serves_the_tenant() {
    let (server, acme) = (Own::start().await, entry());
    let acme = served_by(WorkerPool::Dedicated, &acme);
    let house = House::new(&server.settings, std::slice::from_ref(&acme)).await;
    let trace = Trace::default();
    let context = house.context(&acme).await;
    context.queue().push(&crate::house::Fail::Hopeless).await.unwrap();
    let dedicated = house.worker(&trace, own(&acme));
    let view = context.queue().view().unwrap();
    eventually("it failed", async || view.held().await.unwrap().failed == 1).await;
    let ids: Vec<_> = view.failed(10).await.unwrap().into_iter().map(|job| job.id).collect();
    view.retry(&ids).await.unwrap();
    trace.has(2).await;
    dedicated.stop().await;
}
