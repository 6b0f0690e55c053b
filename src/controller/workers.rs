//! What is seen of tenants' own workers: their Deployments, the one that they are made from, and whether there is KEDA.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;
use uuid::Uuid;

use super::context::{Context, Written};
use super::fleet::Wake;
use super::tenant::{WATCH_LAG, is_unseen};
use crate::api::plan::WorkerMode;
use crate::api::{ANNOTATION_HASH, LABEL_TENANT};
use crate::apply;
use crate::desired::facts::{DeploymentFact, WorkersFacts};
use crate::desired::names;
use crate::error::chain;
use crate::observe::ledger::uid;

/// Tenants' own workers, as the watch shows them or newer.
pub struct Workers {
    namespace: String,
    /// Name of the shared pool's Deployment.
    shared: String,
    deployments: Store<Deployment>,
    /// The shared pool's pod template, and the version of the Deployment that it was read from.
    template: Mutex<Option<(Option<String>, Arc<Value>)>>,
    /// By tenant, what we wrote last; a fact of None: it was deleted.
    written: Mutex<HashMap<Uuid, (Written, Option<DeploymentFact>)>>,
    /// The cluster has ScaledObjects.
    keda: AtomicBool,
}

/// The Deployments of the operator's namespace; `shared` is the one of the shared pool.
pub fn watch(
    client: &Client,
    namespace: &str,
    shared: &str,
) -> (Workers, impl Stream<Item = Result<Deployment, watcher::Error>> + Send + use<>) {
    let (store, writer) = reflector::store();
    let api: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let kept = shared.to_owned();
    let events = watcher(api, watcher::Config::default())
        .modify(move |deployment: &mut Deployment| {
            deployment.managed_fields_mut().clear();
            if deployment.metadata.name.as_ref() != Some(&kept) {
                // Of the others only numbers are looked at.
                deployment.spec = DeploymentSpec { replicas: deployment.spec.replicas, ..DeploymentSpec::default() };
            }
        })
        .default_backoff()
        .reflect(writer)
        .touched_objects();
    let workers = Workers {
        namespace: namespace.to_owned(),
        shared: shared.to_owned(),
        deployments: store,
        template: Mutex::default(),
        written: Mutex::default(),
        keda: AtomicBool::new(false),
    };
    (workers, events)
}

/// Wakes the Tenant whose own workers changed, and every one that has such when what they are made from did.
pub async fn follow(context: Arc<Context>, events: impl Stream<Item = Result<Deployment, watcher::Error>> + Send) {
    let mut events = std::pin::pin!(events);
    let mut template = None;
    while let Some(event) = events.next().await {
        let deployment = match event {
            Ok(deployment) => deployment,
            Err(error) => {
                tracing::warn!(error = chain(&error), "the watch of the Deployments broke, trying again");
                continue;
            }
        };
        let workers = &context.workers;
        if deployment.metadata.name.as_deref() == Some(&workers.shared) {
            let now = workers.template();
            if now != template {
                template = now;
                wake_all(&context);
            }
        } else if let Some(tenant) = tenant_of(&deployment)
            && let Some((namespace, name)) = context.ledger.holder_of(tenant)
        {
            // A closed channel: the operator is stopping.
            let _ = context.wake.send(Wake::One(ObjectRef::new(&name).within(&namespace)));
        }
    }
}

/// Wakes those that have workers of their own, or shall.
fn wake_all(context: &Context) {
    for tenant in context.tenants.state() {
        let kept = context.ledger.plan_of(uid(&tenant));
        let plans = [Some(tenant.spec.plan_ref.name.clone()), kept];
        let mut plans = plans.into_iter().flatten().filter_map(|plan| context.plans.get(&ObjectRef::new(&plan)));
        if plans.any(|plan| plan.spec.workers.mode == WorkerMode::Dedicated) {
            // A closed channel: the operator is stopping.
            let _ = context.wake.send(Wake::One(ObjectRef::from_obj(tenant.as_ref())));
        }
    }
}

/// Has what somebody removed beside a Deployment written again: no watch shows it.
pub async fn repair(context: &Context) {
    let (client, workers) = (&context.client, &context.workers);
    let complete = |deployment: &Deployment| {
        tenant_of(deployment).is_some() && deployment.annotations().contains_key(ANNOTATION_HASH)
    };
    for deployment in workers.deployments.state().into_iter().filter(|deployment| complete(deployment)) {
        let name = deployment.name_any();
        let noticed = apply::workers::notice_missing(client, &workers.namespace, &deployment);
        match context.gate.pass("look beside a Deployment", noticed).await {
            Ok(false) => {}
            Ok(true) => {
                tracing::info!(name, "something beside a tenant's own workers was removed, it is written again");
            }
            Err(error) => tracing::warn!(name, error = chain(&error), "could not look beside a tenant's own workers"),
        }
    }
}

fn tenant_of(deployment: &Deployment) -> Option<Uuid> {
    deployment.labels().get(LABEL_TENANT)?.parse().ok()
}

impl Workers {
    /// Waits until all were listed: a Deployment that is not there yet would count as none.
    ///
    /// # Errors
    /// The watch ended.
    pub async fn wait_until_ready(&self) -> Result<(), reflector::store::WriterDropped> {
        self.deployments.wait_until_ready().await
    }

    /// What is seen of one tenant's.
    pub fn facts(&self, uuid: Uuid) -> WorkersFacts {
        let key = ObjectRef::new(&names::workers(uuid)).within(&self.namespace);
        let seen = self.deployments.get(&key).filter(|seen| tenant_of(seen) == Some(uuid));
        let version = seen.as_ref().and_then(|seen| seen.metadata.resource_version.as_ref());
        let deployment = match self.written().get(&uuid) {
            Some((written, fact)) if is_unseen(written, version) => fact.clone(),
            _ => seen.as_deref().map(fact),
        };
        WorkersFacts { template: self.template(), deployment, keda: self.keda.load(Ordering::Relaxed) }
    }

    /// Notes what was written; None: it was deleted.
    pub fn note(&self, uuid: Uuid, deployment: Option<&Deployment>) {
        let written = Written {
            resource_version: deployment.and_then(|deployment| deployment.metadata.resource_version.clone()),
            hash: String::new(),
            at: Instant::now(),
        };
        let mut all = self.written();
        // What the watch has caught up with long ago.
        all.retain(|_, (written, _)| written.at.elapsed() < WATCH_LAG);
        all.insert(uuid, (written, deployment.map(fact)));
    }

    /// Looks whether the cluster has KEDA; what cannot be seen stays as it was.
    pub async fn discover(&self, client: &Client) {
        match client.list_api_group_resources("keda.sh/v1alpha1").await {
            Ok(kinds) => {
                self.keda.store(kinds.resources.iter().any(|kind| kind.kind == "ScaledObject"), Ordering::Relaxed);
            }
            Err(kube::Error::Api(status)) if status.code == 404 => self.keda.store(false, Ordering::Relaxed),
            Err(error) => tracing::debug!(error = chain(&error), "could not see whether there is KEDA"),
        }
    }

    fn template(&self) -> Option<Arc<Value>> {
        let deployment = self.deployments.get(&ObjectRef::new(&self.shared).within(&self.namespace))?;
        let version = &deployment.metadata.resource_version;
        let mut known = self.template.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, template)) = known.as_ref().filter(|(of, _)| of == version) {
            return Some(Arc::clone(template));
        }
        let template = Arc::new(serde_json::to_value(&deployment.spec.template).ok()?);
        *known = Some((version.clone(), Arc::clone(&template)));
        Some(template)
    }

    fn written(&self) -> MutexGuard<'_, HashMap<Uuid, (Written, Option<DeploymentFact>)>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fact(deployment: &Deployment) -> DeploymentFact {
    let status = deployment.status.as_ref();
    let available = status.and_then(|status| status.available_replicas).unwrap_or_default();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let since = conditions
        .and_then(|conditions| conditions.iter().find(|condition| condition.type_.as_deref() == Some("Available")))
        .and_then(|condition| condition.last_transition_time.as_ref())
        .or(deployment.metadata.creation_timestamp.as_ref())
        .map_or(Timestamp::UNIX_EPOCH, |time| time.0);
    DeploymentFact {
        hash: deployment.annotations().get(ANNOTATION_HASH).cloned(),
        replicas: deployment.spec.replicas.unwrap_or(1),
        available,
        since,
    }
}
