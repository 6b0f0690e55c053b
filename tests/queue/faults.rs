//! Workers that are killed, and a Redis that is away, empty, full or slow.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use maintenance_os::tenancy::TenantContext;
use maintenance_os::tenancy::queue::look::Held;
use maintenance_os::tenancy::queue::{JobError, Registry, Task, TenantJob, Worker};
use maintenance_os::tenancy::redis::RedisSettings;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::house::{House, Nap, Note, Trace, settings};
use crate::redis::{Hanging, Own, ask, entry, eventually, raw};

/// Where a worker process dies.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq)]
enum Step {
    Nowhere,
    /// The job was reserved and did nothing yet.
    Start,
    /// Its lease was renewed.
    Heartbeat,
    /// It did what it does, and nobody knows.
    Finish,
}

/// A job with an effect that is counted, in a process that may die of it, once.
#[derive(Serialize, Deserialize)]
struct Deadly {
    number: u32,
    step: Step,
    milliseconds: u64,
}

/// A connection past the library.
type Raw = RedisSettings;

impl TenantJob for Deadly {
    const NAME: &'static str = "test.deadly";
    type State = Raw;

    async fn run(&self, _: &TenantContext, task: &Task<Raw>) -> Result<Value, JobError> {
        let mut redis = raw(task.state(), 3).await;
        let number = self.number.to_string();
        let mut killer = raw(task.state(), 3).await;
        let mut die = async |step| {
            if self.step == step && ask(&mut *killer, &["SETNX", &format!("killed:{number}"), "1"]).await {
                Command::new("kill").args(["-9", &std::process::id().to_string()]).status().unwrap();
                // The signal is on its way.
                std::future::pending::<()>().await;
            }
        };
        die(Step::Start).await;
        // While it works it says so, far more often than leases run out.
        let beat = format!("beat:{number}");
        if ask::<Option<String>>(&mut *redis, &["SET", &beat, "1", "NX", "PX", "400"]).await.is_none() {
            let _: u64 = ask(&mut *redis, &["INCR", "twice-at-once"]).await;
        }
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(self.milliseconds) {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let _: String = ask(&mut *redis, &["SET", &beat, "1", "PX", "400"]).await;
        }
        die(Step::Heartbeat).await;
        let _: u64 = ask(&mut *redis, &["HINCRBY", "effects", &number, "1"]).await;
        let _: u64 = ask(&mut *redis, &["DEL", &beat]).await;
        die(Step::Finish).await;
        Ok(Value::Null)
    }
}

/// A worker in a process of its own: this test program again, with one test that is the worker.
struct Process(Child);

impl Process {
    fn start(settings: &RedisSettings, tenant: Uuid) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "faults::a_worker_process", "--ignored", "--nocapture"])
            .env("MOS_TEST_WORKER", format!("{} {tenant}", settings.nodes[0].1))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn is_dead(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn tenant_of(uuid: Uuid) -> maintenance_os::api::routing::RoutingEntry {
    let mut tenant = entry();
    tenant.uuid = uuid;
    tenant.queue.name = format!("tenant-{uuid}");
    tenant
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "is no test: other tests start it as a worker"]
async fn a_worker_process() {
    let Ok(what) = std::env::var("MOS_TEST_WORKER") else { return };
    let (port, tenant) = what.split_once(' ').unwrap();
    let mut redis = RedisSettings::new("127.0.0.1", port.parse().unwrap());
    redis.password = Some("own".into());
    let house = House::new(&redis, &[tenant_of(tenant.parse().unwrap())]).await;
    let registry = Registry::default().with::<Deadly>();
    let worker = Worker::new(&house.tenancy, registry, redis, settings(4)).unwrap();
    worker.run(CancellationToken::new()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_are_killed_at_any_step_lose_nothing_and_do_nothing_twice_at_once() {
    let (server, tenant) = (Own::start().await, tenant_of(Uuid::new_v4()));
    let house = House::new(&server.settings, std::slice::from_ref(&tenant)).await;
    let context = house.context(&tenant).await;
    let steps = [Step::Nowhere, Step::Start, Step::Nowhere, Step::Heartbeat, Step::Nowhere, Step::Finish];
    let jobs = 24_u32;
    for number in 0..jobs {
        let step = steps[number as usize % steps.len()];
        // Those that die after their lease was renewed live for longer than a third of it.
        let milliseconds = if step == Step::Heartbeat { 1400 } else { 200 };
        context.queue().push(&Deadly { number, step, milliseconds }).await.unwrap();
    }
    let mut workers = [Process::start(&server.settings, tenant.uuid), Process::start(&server.settings, tenant.uuid)];
    let view = context.queue().view().unwrap();
    let (begun, mut deaths) = (Instant::now(), 0);
    loop {
        let held = view.held().await.unwrap();
        if held == Held::default() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(150), "still {held:?} after {deaths} deaths");
        // A job that was begun with one that died has lost an attempt, at most as often as workers die: people try it again.
        let failed: Vec<_> = view.failed(100).await.unwrap().into_iter().map(|job| job.id).collect();
        view.retry(&failed).await.unwrap();
        for worker in &mut workers {
            if worker.is_dead() {
                deaths += 1;
                *worker = Process::start(&server.settings, tenant.uuid);
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut redis = raw(&server.settings, 3).await;
    let effects: BTreeMap<u32, u32> = ask(&mut *redis, &["HGETALL", "effects"]).await;
    assert_eq!(effects.len(), jobs as usize, "every job had its effect: {effects:?}");
    for (number, count) in &effects {
        let step = steps[*number as usize % steps.len()];
        // Its effect was there and nobody knew: at least once means twice here.
        assert!(*count >= if step == Step::Finish { 2 } else { 1 }, "{number} {step:?}: {count}");
    }
    let twice: Option<u64> = ask(&mut *redis, &["GET", "twice-at-once"]).await;
    assert_eq!(twice, None, "two workers had one job at once");
    assert!(deaths >= 6, "only {deaths} workers died");
}

#[tokio::test]
async fn a_worker_whose_redis_was_away_and_came_back_empty_goes_on_by_itself() {
    let (mut server, acme) = (Own::start().await, entry());
    let house = House::new(&server.settings, std::slice::from_ref(&acme)).await;
    let (trace, tenant) = (Trace::default(), house.context(&acme).await);
    let worker = house.worker(&trace, settings(2));
    tenant.queue().push(&Nap { text: "through it".into(), milliseconds: 1500 }).await.unwrap();
    trace.has(1).await;
    server.stop();
    assert!(tenant.queue().push(&Note::of("while away")).await.is_err(), "who queues is told");
    server.run().await;
    eventually("it is taken again", async || tenant.queue().push(&Note::of("after")).await.is_ok()).await;
    trace.has(3).await;
    let mut lines = trace.lines();
    lines.sort();
    assert_eq!(lines, ["after for acme", "begin through it", "end through it"]);
    worker.stop().await;
}

#[tokio::test]
async fn a_job_whose_lease_cannot_be_renewed_is_stopped_before_another_worker_has_it() {
    let (server, acme) = (Own::start().await, entry());
    let house = House::new(&server.settings, std::slice::from_ref(&acme)).await;
    let (trace, tenant) = (Trace::default(), house.context(&acme).await);
    let worker = house.worker(&trace, settings(2));
    tenant.queue().push(&Nap { text: "long".into(), milliseconds: 6000 }).await.unwrap();
    trace.has(1).await;
    let hanging = Hanging::server(&mut *raw(&server.settings, 0).await).await;
    // Twice the lease.
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(trace.lines(), ["begin long"], "it was stopped when its lease could not be certain any more");
    drop(hanging);
    trace.has(3).await;
    assert_eq!(trace.lines(), ["begin long", "begin long", "end long"]);
    let view = tenant.queue().view().unwrap();
    eventually("nothing is left", async || view.held().await.unwrap() == Held::default()).await;
    worker.stop().await;
}

#[tokio::test]
async fn a_redis_that_is_full_refuses_new_jobs_and_lets_those_that_it_has_be_done() {
    let (server, acme) = (Own::start().await, entry());
    let house = House::new(&server.settings, std::slice::from_ref(&acme)).await;
    let (trace, tenant) = (Trace::default(), house.context(&acme).await);
    for number in 0..20 {
        tenant.queue().push(&Note::of(&number.to_string())).await.unwrap();
    }
    let mut raw = raw(&server.settings, 0).await;
    let _: String = ask(&mut *raw, &["CONFIG", "SET", "maxmemory", "1"]).await;
    let refused = tenant.queue().push(&Note::of("too much")).await.unwrap_err();
    let cause = std::error::Error::source(&refused).unwrap().to_string();
    assert!(cause.contains("OOM"), "{cause}");
    let worker = house.worker(&trace, settings(4));
    trace.has(20).await;
    let view = tenant.queue().view().unwrap();
    eventually("nothing is left", async || view.held().await.unwrap() == Held::default()).await;
    worker.stop().await;
}
