//! Jobs that every tenant has once a day.

use maintenance_os::api::routing::RoutingEntry;
use maintenance_os::tenancy::TenantContext;
use maintenance_os::tenancy::queue::daily::{Daily, DailyJob};
use maintenance_os::tenancy::queue::{JobError, Registry, Task, TenantJob, Worker};
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use crate::house::{House, Trace, settings};
use crate::redis::{Own, ask, entry, raw};

#[derive(Serialize, Deserialize)]
struct Tick {
    day: jiff::civil::Date,
}

impl TenantJob for Tick {
    const NAME: &'static str = "test.tick";
    type State = Trace;

    fn unique_key(&self) -> Option<String> {
        Some(self.day.to_string())
    }

    async fn run(&self, _: &TenantContext, task: &Task<Trace>) -> Result<serde_json::Value, JobError> {
        task.state().add(self.day.to_string());
        Ok(serde_json::Value::Null)
    }
}

impl DailyJob for Tick {
    fn of(day: jiff::civil::Date) -> Self {
        Self { day }
    }
}

#[tokio::test]
async fn each_tenant_has_it_once_a_day_whoever_looks_and_also_when_who_began_is_lost() {
    let server = Own::start().await;
    let [acme, sleeper, claimed] = [entry(), RoutingEntry { sleeps: true, ..entry() }, entry()];
    let house = House::new(&server.settings, &[acme.clone(), sleeper, claimed.clone()]).await;
    let noon = |day: i8| format!("2026-11-{day}T12:00:00Z").parse::<jiff::Timestamp>().unwrap();
    // Another worker has begun to queue it and has not said that it did.
    let mut redis = raw(&server.settings, 0).await;
    let claim = format!("tenant:{}:daily:test.tick:2026-11-26", claimed.uuid);
    let _: String = ask(&mut *redis, &["SET", &claim, "claimed"]).await;
    let (mut one, mut two) = (Daily::<Tick>::new(&house.tenancy), Daily::<Tick>::new(&house.tenancy));
    assert_eq!((one.look(noon(26)).await, two.look(noon(26)).await, one.look(noon(26)).await), (1, 0, 0));
    // The claim has run out.
    let _: u64 = ask(&mut *redis, &["DEL", &claim]).await;
    assert_eq!((two.look(noon(26)).await, one.look(noon(26)).await), (1, 0));
    assert_eq!((one.look(noon(27)).await, two.look(noon(27)).await), (2, 0));

    let trace = Trace::default();
    let registry = Registry::default().with::<Tick>();
    let worker = Worker::new(&house.tenancy, registry, trace.clone(), settings(2)).unwrap();
    let stop = CancellationToken::new();
    let running = tokio::spawn(worker.run(stop.clone()));
    trace.has(4).await;
    let mut lines = trace.lines();
    lines.sort();
    assert_eq!(lines, ["2026-11-26", "2026-11-26", "2026-11-27", "2026-11-27"]);
    stop.cancel();
    running.await.unwrap();
}
