//! Tenants, jobs that leave a trace, and workers.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;

use futures::channel::mpsc::{UnboundedSender, unbounded};
use maintenance_os::api::routing::{RoutingEntry, RoutingSlice};
use maintenance_os::api::slices::SCHEMA;
use maintenance_os::slices::Change;
use maintenance_os::tenancy::queue::balance::Balance;
use maintenance_os::tenancy::queue::{JobError, Registry, Task, TenantJob, Worker, WorkerSettings};
use maintenance_os::tenancy::redis::RedisSettings;
use maintenance_os::tenancy::{Tenancy, TenancySettings, TenantContext};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::redis::{context, eventually};

/// What jobs did, in order.
#[derive(Clone, Default)]
pub struct Trace(Arc<Mutex<Vec<String>>>);

impl Trace {
    pub fn add(&self, line: impl Into<String>) {
        self.0.lock().unwrap().push(line.into());
    }

    pub fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    pub async fn has(&self, count: usize) {
        eventually(&format!("{count} lines in the trace"), async || self.len() >= count).await;
    }
}

/// A job that leaves its text and its tenant in the trace.
#[derive(Serialize, Deserialize, Default)]
pub struct Note {
    pub text: String,
    pub key: Option<String>,
}

impl Note {
    pub fn of(text: &str) -> Self {
        Self { text: text.to_owned(), key: None }
    }
}

impl TenantJob for Note {
    const NAME: &'static str = "test.note";
    type State = Trace;

    fn unique_key(&self) -> Option<String> {
        self.key.clone()
    }

    async fn run(&self, tenant: &TenantContext, task: &Task<Trace>) -> Result<Value, JobError> {
        task.state().add(format!("{} for {}", self.text, tenant.entry().name));
        Ok(Value::Null)
    }
}

/// A job that takes as long as it says.
#[derive(Serialize, Deserialize)]
pub struct Nap {
    pub text: String,
    pub milliseconds: u64,
}

impl TenantJob for Nap {
    const NAME: &'static str = "test.nap";
    type State = Trace;

    async fn run(&self, _: &TenantContext, task: &Task<Trace>) -> Result<Value, JobError> {
        task.state().add(format!("begin {}", self.text));
        task.progress(1, Some(2)).await;
        tokio::time::sleep(Duration::from_millis(self.milliseconds)).await;
        task.state().add(format!("end {}", self.text));
        Ok(serde_json::json!({ "slept": self.milliseconds }))
    }
}

/// A job that ends as it says.
#[derive(Serialize, Deserialize)]
pub enum Fail {
    Again,
    Hopeless,
    Panic,
    /// Works from this attempt on.
    Until(u32),
}

impl TenantJob for Fail {
    const NAME: &'static str = "test.fail";
    type State = Trace;

    fn unique_key(&self) -> Option<String> {
        Some("one".into())
    }

    async fn run(&self, _: &TenantContext, task: &Task<Trace>) -> Result<Value, JobError> {
        task.state().add(format!("attempt {}", task.attempt));
        match self {
            Self::Again => Err(JobError::Again("not today".into())),
            Self::Hopeless => Err(JobError::Hopeless("never".into())),
            Self::Panic => panic!("out of paper"),
            Self::Until(attempt) if task.attempt >= *attempt => Ok(Value::Null),
            Self::Until(_) => Err(JobError::Again("not yet".into())),
        }
    }
}

pub fn registry() -> Registry<Trace> {
    Registry::default().with::<Note>().with::<Nap>().with::<Fail>()
}

/// The app's side and the workers' routing, which tests change.
pub struct House {
    pub tenancy: Tenancy,
    changes: UnboundedSender<Change>,
    generation: u64,
}

impl House {
    pub async fn new(settings: &RedisSettings, tenants: &[RoutingEntry]) -> Self {
        let tenancy = Tenancy::new(&TenancySettings {
            redis: Some(settings.clone()),
            ..TenancySettings::new("maintenance-os.com")
        })
        .unwrap();
        let (changes, news) = unbounded();
        let following = tenancy.clone();
        tokio::spawn(async move { following.follow(news, 1).await });
        let mut house = Self { tenancy, changes, generation: 0 };
        house.route(tenants).await;
        house
    }

    /// These are routed from now on.
    pub async fn route(&mut self, tenants: &[RoutingEntry]) {
        self.route_and_drop(tenants, &[]).await;
    }

    /// The same, and the data of these is gone for good.
    pub async fn route_and_drop(&mut self, tenants: &[RoutingEntry], dropped: &[uuid::Uuid]) {
        self.generation += 1;
        let dropped = dropped.iter().map(|uuid| (*uuid, 1)).collect();
        let tenants_now = tenants.to_vec();
        let slice =
            RoutingSlice { schema: SCHEMA, generation: self.generation, epoch: 1, tenants: tenants_now, dropped };
        let change = Change { slice: "routing-00".into(), content: Some(serde_json::to_vec(&slice).unwrap()) };
        self.changes.unbounded_send(change).unwrap();
        let count = tenants.len();
        let same = || {
            tenants.iter().all(|entry| self.tenancy.routing().tenant(entry.uuid).is_some_and(|found| *found == *entry))
        };
        eventually("routing is followed", async || self.tenancy.routing().tenants().len() == count && same()).await;
    }

    /// A slice that nobody can read.
    pub async fn break_slice(&mut self, name: &str) {
        self.changes.unbounded_send(Change { slice: name.into(), content: Some(b"{".to_vec()) }).unwrap();
        eventually("it is refused", async || !self.tenancy.routing_is_whole()).await;
    }

    /// The same, empty.
    pub async fn mend_slice(&mut self, name: &str) {
        let slice = RoutingSlice { schema: SCHEMA, generation: 1, epoch: 1, ..RoutingSlice::default() };
        let change = Change { slice: name.into(), content: Some(serde_json::to_vec(&slice).unwrap()) };
        self.changes.unbounded_send(change).unwrap();
        eventually("it is read", async || self.tenancy.routing_is_whole()).await;
    }

    pub async fn context(&self, tenant: &RoutingEntry) -> TenantContext {
        context(&self.tenancy, tenant).await
    }

    /// A worker of this process.
    pub fn worker(&self, trace: &Trace, settings: WorkerSettings) -> Running {
        let worker = Worker::new(&self.tenancy, registry(), trace.clone(), settings).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(worker.run(stop.clone()));
        Running { stop, task }
    }
}

pub struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }

    pub async fn ended(self) {
        tokio::time::timeout(crate::redis::DEADLINE, self.task).await.expect("the worker ends").unwrap();
    }
}

/// A worker that does `count` jobs at once from the start, and whose leases are short.
pub fn settings(count: usize) -> WorkerSettings {
    WorkerSettings {
        balance: Balance { min_processes: count, max_processes: count, ..Balance::default() },
        memory: None,
        lease: Duration::from_secs(3),
        ..WorkerSettings::default()
    }
}
