//! What the cluster has, in memory: pages that list thousands of objects ask nobody.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::api::{DatabaseServer, Plan, SchemaRollout, Tenant};
use crate::error::chain;

/// What the cluster has. Objects are without their managed fields.
#[derive(Clone)]
pub struct Directory {
    tenants: Store<Tenant>,
    plans: Store<Plan>,
    servers: Store<DatabaseServer>,
    rollouts: Store<SchemaRollout>,
    /// Since when a watch has been broken.
    broken: Arc<Mutex<Option<Timestamp>>>,
}

/// What fills a [`Directory`].
pub struct Filler {
    tenants: Writer<Tenant>,
    plans: Writer<Plan>,
    servers: Writer<DatabaseServer>,
    rollouts: Writer<SchemaRollout>,
    broken: Arc<Mutex<Option<Timestamp>>>,
}

impl Directory {
    /// An empty one, and what fills it.
    pub fn new() -> (Self, Filler) {
        let ((tenants, tenants_in), (plans, plans_in)) = (reflector::store(), reflector::store());
        let ((servers, servers_in), (rollouts, rollouts_in)) = (reflector::store(), reflector::store());
        let broken = Arc::new(Mutex::new(None));
        let filler = Filler {
            tenants: tenants_in,
            plans: plans_in,
            servers: servers_in,
            rollouts: rollouts_in,
            broken: Arc::clone(&broken),
        };
        (Self { tenants, plans, servers, rollouts, broken }, filler)
    }

    /// Every Tenant, in no order.
    pub fn tenants(&self) -> Vec<Arc<Tenant>> {
        self.tenants.state()
    }

    /// One Tenant.
    pub fn tenant(&self, namespace: &str, name: &str) -> Option<Arc<Tenant>> {
        self.tenants.get(&ObjectRef::new(name).within(namespace))
    }

    /// Every Plan, by name.
    pub fn plans(&self) -> Vec<Arc<Plan>> {
        by_name(self.plans.state())
    }

    /// Every DatabaseServer, by name.
    pub fn servers(&self) -> Vec<Arc<DatabaseServer>> {
        by_name(self.servers.state())
    }

    /// Every SchemaRollout, the newest first.
    pub fn rollouts(&self) -> Vec<Arc<SchemaRollout>> {
        let mut rollouts = self.rollouts.state();
        rollouts.sort_by_key(|rollout| std::cmp::Reverse(rollout.creation_timestamp()));
        rollouts
    }

    /// Since when the Kubernetes API has not answered; what is shown is as it was by then.
    pub fn broken_since(&self) -> Option<Timestamp> {
        *self.broken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything was listed once.
    pub async fn filled(&self) {
        // An error says that the filler has gone, and there is nothing to wait for.
        let _ = futures::join!(
            self.tenants.wait_until_ready(),
            self.plans.wait_until_ready(),
            self.servers.wait_until_ready(),
            self.rollouts.wait_until_ready(),
        );
    }
}

fn by_name<K: ResourceExt>(mut objects: Vec<Arc<K>>) -> Vec<Arc<K>> {
    objects.sort_by_key(|object| object.name_any());
    objects
}

impl Filler {
    /// Fills the directory for ever.
    pub async fn follow(self, client: Client) {
        let mut watches = JoinSet::new();
        watches.spawn(follow(Api::all(client.clone()), self.tenants, Arc::clone(&self.broken)));
        watches.spawn(follow(Api::all(client.clone()), self.plans, Arc::clone(&self.broken)));
        watches.spawn(follow(Api::all(client.clone()), self.servers, Arc::clone(&self.broken)));
        watches.spawn(follow(Api::all(client), self.rollouts, self.broken));
        while watches.join_next().await.is_some() {}
    }

    /// Fills it with these, once.
    pub fn fill(mut self, tenants: Vec<Tenant>, plans: Vec<Plan>) {
        fill(&mut self.tenants, tenants);
        fill(&mut self.plans, plans);
        fill(&mut self.servers, Vec::new());
        fill(&mut self.rollouts, Vec::new());
    }
}

fn fill<K: Resource<DynamicType = ()> + Clone + 'static>(writer: &mut Writer<K>, objects: Vec<K>) {
    writer.apply_watcher_event(&Event::Init);
    for object in objects {
        writer.apply_watcher_event(&Event::InitApply(object));
    }
    writer.apply_watcher_event(&Event::InitDone);
}

async fn follow<K>(api: Api<DeserializeGuard<K>>, writer: Writer<K>, broken: Arc<Mutex<Option<Timestamp>>>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + Sync + 'static,
{
    let events = watcher(api, watcher::Config::default()).default_backoff().filter_map(|event| {
        // One object that cannot be read must not hide all others.
        std::future::ready(match event {
            Ok(event) => readable(event).map(Ok),
            Err(error) => Some(Err(error)),
        })
    });
    let events = events.modify(|object: &mut K| {
        object.managed_fields_mut().clear();
        object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
    });
    let mut events = std::pin::pin!(events.reflect(writer));
    while let Some(event) = events.next().await {
        let mut since = broken.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Ok(_) => *since = None,
            Err(error) => {
                tracing::warn!(kind = %K::kind(&()), error = chain(&error), "a watch is broken");
                since.get_or_insert_with(Timestamp::now);
            }
        }
    }
    tokio::time::sleep(Duration::MAX).await;
}

fn readable<K: Resource<DynamicType = ()>>(event: Event<DeserializeGuard<K>>) -> Option<Event<K>> {
    Some(match event {
        Event::Init => Event::Init,
        Event::InitDone => Event::InitDone,
        Event::InitApply(guard) => Event::InitApply(guard.0.ok()?),
        Event::Apply(guard) => Event::Apply(guard.0.ok()?),
        Event::Delete(guard) => Event::Delete(guard.0.ok()?),
    })
}
