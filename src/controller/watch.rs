//! Watches, and what their events wake.

use std::sync::Arc;

use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::Secret;
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{Predicate, WatchStreamExt, predicates, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::mpsc;

use super::context::Context;
use super::fleet::Wake;
use crate::api::{LABEL_TENANT, Plan, Tenant};
use crate::error::chain;

type Events<K> = futures::stream::BoxStream<'static, Result<K, watcher::Error>>;

/// Every Tenant; events are those that change what is asked for, not our own writes of status.
pub fn tenants(client: &Client) -> (Store<Tenant>, Events<Tenant>) {
    let (store, writer) = reflector::store();
    let changed = predicates::generation.combine(predicates::annotations).combine(predicates::finalizers);
    let events = watcher(Api::<Tenant>::all(client.clone()), watcher::Config::default())
        .modify(|tenant| tenant.managed_fields_mut().clear())
        .default_backoff()
        .reflect(writer)
        .applied_objects()
        .predicate_filter(changed, kube::runtime::PredicateConfig::default());
    (store, events.boxed())
}

/// Every Plan.
pub fn plans(client: &Client) -> (Store<Plan>, Events<Plan>) {
    let (store, writer) = reflector::store();
    let events = watcher(Api::<Plan>::all(client.clone()), watcher::Config::default())
        .default_backoff()
        .reflect(writer)
        .touched_objects();
    (store, events.boxed())
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

/// Wakes the Tenants of a Plan that changed.
pub async fn follow_plans(context: Arc<Context>, mut events: Events<Plan>) {
    while let Some(event) = events.next().await {
        let plan = match event {
            Ok(plan) => plan.name_any(),
            Err(error) => {
                tracing::warn!(error = chain(&error), "the watch of the Plans broke, trying again");
                continue;
            }
        };
        for tenant in context.tenants.state().iter().filter(|tenant| tenant.spec.plan_ref.name == plan) {
            let _ = context.wake.send(Wake::One(ObjectRef::from_obj(tenant.as_ref())));
        }
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
