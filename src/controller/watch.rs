//! Watches, and what their events wake.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::core::error_boundary::InvalidObject;
use kube::core::{DeserializeGuard, PartialObjectMeta};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::Event;
use kube::runtime::{Predicate, WatchStreamExt, predicates, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;
use tokio::task::{AbortHandle, JoinSet};

use super::context::Context;
use super::fleet::Wake;
use crate::api::plan::PlanSpec;
use crate::api::{DatabaseServer, LABEL_TENANT, Plan, SchemaRollout, Tenant, TenantBackup, TenantRestore};
use crate::error::chain;
use crate::observe::ledger::uid;

type Events<K> = futures::stream::BoxStream<'static, Result<K, watcher::Error>>;

/// Every Tenant; events are those that change what is asked for, not our own writes of status. Those that do not decode
/// go to `undecodable`.
pub fn tenants(client: &Client, undecodable: mpsc::UnboundedSender<InvalidObject>) -> (Store<Tenant>, Events<Tenant>) {
    let (store, writer) = reflector::store();
    let changed = predicates::generation.combine(predicates::annotations).combine(predicates::finalizers);
    // A closed channel: the operator is stopping.
    let tell = move |object| drop(undecodable.send(object));
    let events = decoded(watcher(Api::all(client.clone()), watcher::Config::default()), tell)
        .modify(|tenant: &mut Tenant| {
            tenant.managed_fields_mut().clear();
            // A second copy of the object, for kubectl alone.
            tenant.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
        })
        .default_backoff()
        .reflect(writer);
    let events = applied(events).predicate_filter(changed, kube::runtime::PredicateConfig::default());
    (store, events.boxed())
}

/// Every Plan.
pub fn plans(client: &Client) -> (Store<Plan>, Events<Plan>) {
    let (store, writer) = reflector::store();
    let events = decoded(watcher(Api::all(client.clone()), watcher::Config::default()), |_| {})
        .default_backoff()
        .reflect(writer)
        .touched_objects();
    (store, events.boxed())
}

/// Every SchemaRollout. Nobody is woken: whoever works on them looks at the store.
pub fn rollouts(client: &Client) -> (Store<SchemaRollout>, Events<SchemaRollout>) {
    let (store, writer) = reflector::store();
    let events = watcher(Api::all(client.clone()), watcher::Config::default())
        .modify(|rollout: &mut SchemaRollout| rollout.managed_fields_mut().clear())
        .default_backoff()
        .reflect(writer)
        .touched_objects();
    (store, events.boxed())
}

/// Every TenantRestore. Nobody is woken: whoever works on them looks at the store.
pub fn restores(client: &Client) -> (Store<TenantRestore>, Events<TenantRestore>) {
    watched(client)
}

/// Every TenantBackup. Nobody is woken: whoever works on them looks at the store.
pub fn backups_now(client: &Client) -> (Store<TenantBackup>, Events<TenantBackup>) {
    watched(client)
}

fn watched<K>(client: &Client) -> (Store<K>, Events<K>)
where
    K: Resource<DynamicType = ()> + Default + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let events = decoded(watcher(Api::all(client.clone()), watcher::Config::default()), |_| {})
        .modify(|object: &mut K| object.managed_fields_mut().clear())
        .default_backoff()
        .reflect(writer)
        .touched_objects();
    (store, events.boxed())
}

/// Keeps a store up to date that nobody is woken for.
pub async fn drive<K>(what: &'static str, mut events: Events<K>) {
    while let Some(event) = events.next().await {
        if let Err(error) = event {
            tracing::warn!(error = chain(&error), "the watch of the {what} broke, trying again");
        }
    }
}

/// Every DatabaseServer; events are those that change what is asked for, not our own writes of status: each of those
/// would be another visit, which counts anew and writes again for as long as Tenants come.
pub fn servers(client: &Client) -> (Store<DatabaseServer>, Events<DatabaseServer>) {
    let (store, writer) = reflector::store();
    let changed = predicates::generation.combine(predicates::annotations);
    let events = decoded(watcher(Api::all(client.clone()), watcher::Config::default()), |_| {})
        .modify(|server: &mut DatabaseServer| server.managed_fields_mut().clear())
        .default_backoff()
        .reflect(writer);
    let events = applied(events).predicate_filter(changed, kube::runtime::PredicateConfig::default());
    (store, events.boxed())
}

/// The events of what decodes. One object that does not would otherwise fail every list that it is in, and with it the
/// watch of all others.
fn decoded<K: Resource<DynamicType = ()> + Default>(
    events: impl Stream<Item = Result<Event<DeserializeGuard<K>>, watcher::Error>>,
    undecodable: impl Fn(InvalidObject),
) -> impl Stream<Item = Result<Event<K>, watcher::Error>> {
    let decode = move |guard: DeserializeGuard<K>| {
        guard.0.map_err(|invalid| {
            let (kind, metadata) = (K::kind(&()), &invalid.metadata);
            let name =
                [metadata.namespace.as_deref(), metadata.name.as_deref()].map(Option::unwrap_or_default).join("/");
            tracing::warn!(%kind, name, error = invalid.error, "an object cannot be read and is passed over");
            undecodable(invalid);
        })
    };
    events.filter_map(move |event| {
        let event = match event {
            Err(error) => Some(Err(error)),
            Ok(Event::Init) => Some(Ok(Event::Init)),
            Ok(Event::InitDone) => Some(Ok(Event::InitDone)),
            Ok(Event::InitApply(guard)) => decode(guard).ok().map(|object| Ok(Event::InitApply(object))),
            // What was known of it before it became unreadable stands.
            Ok(Event::Apply(guard)) => decode(guard).ok().map(|object| Ok(Event::Apply(object))),
            // Its name is enough to forget it.
            Ok(Event::Delete(guard)) => Some(Ok(Event::Delete(guard.0.unwrap_or_else(|invalid| {
                let mut object = K::default();
                *object.meta_mut() = invalid.metadata;
                object
            })))),
        };
        std::future::ready(event)
    })
}

/// Objects that came or changed; those of a list once it is whole, because only then the store shows them: a visit of
/// one that the store does not know is not made again.
fn applied<K>(
    events: impl Stream<Item = Result<Event<K>, watcher::Error>>,
) -> impl Stream<Item = Result<K, watcher::Error>> {
    let mut listed = Vec::new();
    events.flat_map(move |event| {
        let objects = match event {
            Err(error) => vec![Err(error)],
            Ok(Event::Init) => {
                listed.clear();
                Vec::new()
            }
            Ok(Event::InitApply(object)) => {
                listed.push(Ok(object));
                Vec::new()
            }
            Ok(Event::InitDone) => std::mem::take(&mut listed),
            Ok(Event::Apply(object)) => vec![Ok(object)],
            Ok(Event::Delete(_)) => Vec::new(),
        };
        futures::stream::iter(objects)
    })
}

/// The binding Secrets of a namespace, without their data.
pub fn bindings(
    client: &Client,
    namespace: &str,
) -> (Store<PartialObjectMeta<Secret>>, Events<PartialObjectMeta<Secret>>) {
    let (store, writer) = reflector::store();
    let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(client.clone(), namespace);
    let events = watcher(api, watcher::Config::default().labels(LABEL_TENANT))
        .modify(|secret| secret.managed_fields_mut().clear())
        .default_backoff()
        .reflect(writer)
        .touched_objects();
    (store, events.boxed())
}

/// Lets a store fill before somebody takes the events: the stream that is given back, and the task that drives it.
pub fn share<K: Send + 'static>(
    mut events: Events<K>,
) -> (impl Stream<Item = Result<K, watcher::Error>> + Send, impl Future<Output = ()> + Send) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let drive = async move {
        while let Some(event) = events.next().await {
            if let Err(error) = &event {
                tracing::warn!(error = chain(error), "a watch broke, trying again");
            }
            if sender.send(event).is_err() {
                return;
            }
        }
    };
    (
        futures::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|event| (event, receiver))
        }),
        drive,
    )
}

/// Between two Tenants that are woken because of their Plan: ten thousand of them are spread over a minute, and few are
/// not kept waiting.
const PACE: Duration = Duration::from_millis(5);
/// Longest that the last one waits.
const SPREAD: Duration = Duration::from_secs(60);

/// Wakes the Tenants of a Plan whose spec changed, one after the other.
pub async fn follow_plans(context: Arc<Context>, mut events: Events<Plan>) {
    let mut known: HashMap<String, Option<PlanSpec>> = HashMap::new();
    let mut waking: HashMap<String, AbortHandle> = HashMap::new();
    let mut tasks = JoinSet::new();
    while let Some(event) = events.next().await {
        let plan = match event {
            Ok(plan) => plan.name_any(),
            Err(error) => {
                tracing::warn!(error = chain(&error), "the watch of the Plans broke, trying again");
                continue;
            }
        };
        // Not what the event says: of an object that is gone it says what was.
        let spec = context.plans.get(&ObjectRef::new(&plan)).map(|plan| plan.spec.clone());
        if known.insert(plan.clone(), spec.clone()) == Some(spec) {
            continue;
        }
        while tasks.try_join_next().is_some() {}
        // Whoever still waits for the change before this one is woken for this one.
        let task = tasks.spawn(wake_tenants_of(Arc::clone(&context), plan.clone()));
        if let Some(before) = waking.insert(plan, task) {
            before.abort();
        }
    }
}

async fn wake_tenants_of(context: Arc<Context>, plan: String) {
    let tenants = context.tenants.state();
    // Those that ask for it, and those that keep it because they ask for one that is not sold.
    let has = |tenant: &Tenant| {
        tenant.spec.plan_ref.name == plan || context.ledger.plan_of(uid(tenant)).as_ref() == Some(&plan)
    };
    let tenants: Vec<_> = tenants.iter().filter(|tenant| has(tenant.as_ref())).collect();
    let pace = PACE.min(SPREAD / u32::try_from(tenants.len().max(1)).unwrap_or(u32::MAX));
    let mut ticks = tokio::time::interval(pace.max(Duration::from_micros(1)));
    for tenant in tenants {
        ticks.tick().await;
        let _ = context.wake.send(Wake::One(ObjectRef::from_obj(tenant.as_ref())));
    }
}

/// Wakes the Tenant whose binding Secret changed or went.
pub async fn follow_bindings(context: Arc<Context>, namespace: String, mut events: Events<PartialObjectMeta<Secret>>) {
    while let Some(event) = events.next().await {
        let secret = match event {
            Ok(secret) => secret,
            Err(error) => {
                tracing::warn!(
                    namespace,
                    error = chain(&error),
                    "the watch of the binding Secrets broke, trying again"
                );
                continue;
            }
        };
        let owner = secret.meta().owner_references.iter().flatten().find(|owner| owner.kind == "Tenant");
        if let Some(owner) = owner {
            let _ = context.wake.send(Wake::One(ObjectRef::new(&owner.name).within(&namespace)));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn guard(name: &str, spec: &Value) -> DeserializeGuard<Tenant> {
        let object = json!({ "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Tenant", "metadata": { "name": name }, "spec": spec });
        serde_json::from_value(object).expect("a guard takes everything with metadata")
    }

    #[tokio::test]
    async fn what_does_not_decode_is_told_and_everything_else_goes_on() {
        let good = json!({ "displayName": "Good", "planRef": { "name": "pro" } });
        let bad = json!({ "displayName": 7 });
        let events = [
            Event::Init,
            Event::InitApply(guard("a", &good)),
            Event::InitApply(guard("b", &bad)),
            Event::InitApply(guard("c", &good)),
            Event::InitDone,
            Event::Apply(guard("d", &bad)),
            Event::Apply(guard("e", &good)),
            Event::Delete(guard("b", &bad)),
        ];
        let told = std::sync::Mutex::new(Vec::new());
        let events = decoded(futures::stream::iter(events.map(Ok)), |invalid| {
            told.lock().expect("no panic").push(invalid.metadata.name.unwrap_or_default());
        });
        let (store, writer) = reflector::store::<Tenant>();
        let seen: Vec<_> = applied(events.reflect(writer))
            .map(|tenant| {
                let tenant = tenant.expect("no error");
                assert!(store.get(&ObjectRef::from_obj(&tenant)).is_some(), "the store shows what was yielded");
                tenant.name_any()
            })
            .collect()
            .await;
        assert_eq!(seen, ["a", "c", "e"]);
        assert_eq!(*told.lock().expect("no panic"), ["b", "d"]);
    }
}
