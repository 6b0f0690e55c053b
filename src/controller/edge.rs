//! Keeps the edge objects of the customers' own hosts: the whole of them is compared when hosts came or went, and at every
//! resync. At rest nothing is written.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ApiResource, DynamicObject, GroupVersionKind, ListParams, PartialObjectMeta};
use kube::runtime::reflector::ObjectRef;
use kube::{Client, ResourceExt};
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::fleet::Wake;
use crate::api::{ANNOTATION_HASH, Tenant};
use crate::apply::{self, ApplyError};
use crate::desired::edge::{self, Edge, Kind, LABEL, Listeners, MOST_LISTENERS, Mode};
use crate::desired::facts::EdgeTrouble;
use crate::error::chain;

/// When it is looked again whether a certificate has come, and what failed is tried again; twice as long each time, up to a
/// resync.
const SOON: Duration = Duration::from_secs(5);

/// What is not right at the edge, by host.
#[derive(Default)]
pub struct Troubles {
    /// None: the edge was never compared, or there is none; nothing is known against any host.
    seen: Mutex<Option<Seen>>,
}

#[derive(Default)]
struct Seen {
    compared: BTreeSet<String>,
    troubles: HashMap<String, EdgeTrouble>,
}

impl Seen {
    fn of(&self, host: &str) -> Option<EdgeTrouble> {
        let unseen = || (!self.compared.contains(host)).then_some(EdgeTrouble::NotYet);
        self.troubles.get(host).cloned().or_else(unseen)
    }
}

impl Troubles {
    /// Of one host; None: its objects are in place, or it is not at the edge.
    pub fn of(&self, host: &str) -> Option<EdgeTrouble> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.of(host)
    }

    /// Notes what was found of all hosts, and says which of them have another word than before.
    fn replace(&self, compared: BTreeSet<String>, troubles: HashMap<String, EdgeTrouble>) -> Vec<String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Seen { compared, troubles };
        let word = |host: &String| seen.as_ref().and_then(|before| before.of(host));
        let changed = now.compared.iter().filter(|host| word(host) != now.of(host)).cloned().collect();
        *seen = Some(now);
        changed
    }
}

/// Keeps the edge.
pub struct Keeper {
    edge: Edge,
    hosts: Option<BTreeMap<String, ObjectRef<Tenant>>>,
    pause: Duration,
    next: Instant,
}

impl Keeper {
    /// The edge as the settings say it.
    pub fn new(context: &Context) -> Self {
        let edge = context.settings.edge.edge(&context.settings.app_service);
        Self { edge, hosts: None, pause: SOON, next: Instant::now() }
    }

    /// Compares the edge when hosts came or went, or when it is time.
    pub async fn turn(&mut self, context: &Context) {
        let now = context.fleet.own_hosts();
        let is_news = !self.hosts.as_ref().is_some_and(|before| before.keys().eq(now.keys()));
        if is_news {
            self.pause = SOON;
        }
        if is_news || self.next <= Instant::now() {
            let wait = match compare(context, &self.edge, &now).await {
                Ok(true) => context.settings.resync,
                Ok(false) => self.pause,
                Err(error) => {
                    tracing::warn!(error = chain(&error), "could not compare the edge, trying again");
                    self.pause
                }
            };
            self.pause = (self.pause * 2).min(context.settings.resync);
            self.next = Instant::now() + wait;
        }
        self.hosts = Some(now);
    }

    /// Keeps it until `stop`.
    pub async fn run(mut self, context: Arc<Context>, stop: CancellationToken) {
        loop {
            self.turn(&context).await;
            tokio::select! {
                () = stop.cancelled() => return,
                () = context.fleet.own_hosts_changed() => {}
                // Not for a while from now: routing changes would put it off for ever.
                () = tokio::time::sleep_until(self.next.into()) => {}
            }
        }
    }
}

/// Makes the edge what it should be. False: something is still to come.
async fn compare(
    context: &Context,
    edge: &Edge,
    tenants: &BTreeMap<String, ObjectRef<Tenant>>,
) -> Result<bool, ApplyError> {
    let (client, namespace) = (&context.client, &context.settings.namespace);
    let hosts: BTreeSet<String> = tenants.keys().cloned().collect();
    let found = found(client, namespace).await?;
    // Also in other modes: listeners of ours may be left on it.
    let gateway = gateway(client, namespace, &edge.gateway).await?;
    let (listeners, placed) = match &gateway {
        Some(gateway) => listeners(client, gateway).await?,
        None => (Listeners::Sets, BTreeSet::new()),
    };
    let (objects, on_gateway, left_out) = edge::objects(edge, &hosts, listeners, &placed);
    let mut troubles: HashMap<String, EdgeTrouble> =
        left_out.into_iter().map(|host| (host, EdgeTrouble::NoRoom { most: MOST_LISTENERS })).collect();
    if edge.mode == Mode::Gateway && gateway.is_none() {
        let why = format!("there is no Gateway {namespace}/{}", edge.gateway);
        troubles.extend(hosts.iter().map(|host| (host.clone(), EdgeTrouble::Failed(why.clone()))));
    }
    if let Some(gateway) = gateway.filter(|_| !on_gateway.is_empty() || !placed.is_empty()) {
        let wanted: BTreeSet<_> = on_gateway.iter().filter_map(|listener| listener["name"].as_str()).collect();
        if !wanted.iter().copied().eq(placed.iter().map(String::as_str)) {
            let set = apply::edge::set_listeners(client, namespace, &gateway, &on_gateway);
            context.gate.pass("set the listeners of the Gateway", set).await?;
        }
    }
    let failures = apply_all(context, namespace, &objects, &found).await;
    let by_name: HashMap<_, _> = hosts.iter().map(|host| (edge::name(host), host)).collect();
    for (name, why) in failures {
        if let Some(host) = by_name.get(&name) {
            troubles.insert((*host).clone(), EdgeTrouble::Failed(why));
        }
    }
    for ((kind, name), object) in &found {
        if !objects.iter().any(|wanted| wanted.kind == *kind && wanted.name == *name) {
            context.gate.pass("remove an edge object", apply::edge::remove(client, namespace, *kind, object)).await?;
        }
    }
    if edge.mode != Mode::None && edge.tls {
        certificates(client, namespace, &hosts, &mut troubles).await?;
    }
    let done = troubles.is_empty();
    if edge.mode == Mode::None {
        return Ok(true);
    }
    for host in context.edge.replace(hosts, troubles) {
        if let Some(tenant) = tenants.get(&host) {
            // A closed channel: the operator is stopping.
            let _ = context.wake.send(Wake::One(tenant.clone()));
        }
    }
    Ok(done)
}

type Found = BTreeMap<(Kind, String), PartialObjectMeta<DynamicObject>>;

/// The edge objects that are there, of every kind that the cluster has.
async fn found(client: &Client, namespace: &str) -> Result<Found, ApplyError> {
    let mut found = Found::new();
    let ours = ListParams::default().labels(&format!(
        "{}={},app.kubernetes.io/managed-by={}",
        LABEL.0,
        LABEL.1,
        crate::api::MANAGED_BY
    ));
    for kind in Kind::ALL {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &apply::edge::resource(kind));
        match api.list_metadata(&ours).await {
            Ok(list) => found.extend(list.items.into_iter().map(|object| ((kind, object.name_any()), object))),
            // The cluster has no such kind.
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(source) => return Err(ApplyError::kubernetes(format!("list {}", kind.names().2), source)),
        }
    }
    Ok(found)
}

/// Applies what differs; the names of those that could not be, and why.
async fn apply_all(
    context: &Context,
    namespace: &str,
    objects: &[edge::EdgeObject],
    found: &Found,
) -> Vec<(String, String)> {
    let mut failures = Vec::new();
    for wanted in objects {
        let hash = apply::edge::hash(&wanted.object);
        let there = found.get(&(wanted.kind, wanted.name.clone()));
        if there.is_some_and(|there| there.annotations().get(ANNOTATION_HASH) == Some(&hash)) {
            continue;
        }
        let apply = apply::edge::apply(&context.client, namespace, wanted, &hash);
        if let Err(error) = context.gate.pass("apply an edge object", apply).await {
            tracing::warn!(name = wanted.name, error = chain(&error), "could not apply an edge object");
            failures.push((wanted.name.clone(), chain(&error)));
        }
    }
    failures
}

async fn gateway(client: &Client, namespace: &str, name: &str) -> Result<Option<DynamicObject>, ApplyError> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &apply::edge::gateway_resource());
    match api.get_opt(name).await {
        Ok(found) => Ok(found),
        Err(source) => Err(ApplyError::kubernetes(format!("read Gateway {namespace}/{name}"), source)),
    }
}

/// Where TLS of a host is ended: by a ListenerSet where the cluster knows it and the Gateway's class says that it does.
/// With it, our listeners that are on the Gateway.
async fn listeners(client: &Client, gateway: &DynamicObject) -> Result<(Listeners, BTreeSet<String>), ApplyError> {
    let (others, ours) = apply::edge::foreign_listeners(gateway);
    let ours: BTreeSet<_> = ours.into_iter().collect();
    let kind = GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "GatewayClass");
    let classes: Api<DynamicObject> =
        Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&kind, "gatewayclasses"));
    let name = gateway.data.pointer("/spec/gatewayClassName").and_then(serde_json::Value::as_str).unwrap_or_default();
    let class = classes
        .get_opt(name)
        .await
        .map_err(|source| ApplyError::kubernetes(format!("read GatewayClass {name}"), source))?;
    let features = class.as_ref().and_then(|class| class.data.pointer("/status/supportedFeatures")?.as_array());
    let has_sets = features.into_iter().flatten().any(|feature| feature["name"] == "ListenerSet");
    let listeners =
        if has_sets { Listeners::Sets } else { Listeners::OnGateway(MOST_LISTENERS.saturating_sub(others)) };
    Ok((listeners, ours))
}

/// Notes which hosts have no certificate yet.
async fn certificates(
    client: &Client,
    namespace: &str,
    hosts: &BTreeSet<String>,
    troubles: &mut HashMap<String, EdgeTrouble>,
) -> Result<(), ApplyError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let kind = ListParams::default().fields("type=kubernetes.io/tls");
    let found = secrets
        .list_metadata(&kind)
        .await
        .map_err(|source| ApplyError::kubernetes(format!("list the certificates in {namespace}"), source))?;
    let found: BTreeSet<_> = found.items.iter().map(ResourceExt::name_any).collect();
    for host in hosts {
        let name = edge::certificate(host);
        if !found.contains(&name) {
            troubles.entry(host.clone()).or_insert(EdgeTrouble::NoCertificate { secret: name });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_not_reached_before_the_edge_was_compared_with_it_and_its_tenant_hears_when_it_was() {
        let (troubles, one, two) = (Troubles::default(), "one.acme.test".to_owned(), "two.acme.test".to_owned());
        assert_eq!(troubles.of(&one), None, "nothing is known against anybody before the first comparison");
        assert_eq!(troubles.replace([one.clone()].into(), HashMap::new()), Vec::<String>::new());
        assert_eq!((troubles.of(&one), troubles.of(&two)), (None, Some(EdgeTrouble::NotYet)));
        let both = || BTreeSet::from([one.clone(), two.clone()]);
        assert_eq!(troubles.replace(both(), HashMap::new()), std::slice::from_ref(&two));
        let full = HashMap::from([(one.clone(), EdgeTrouble::NoRoom { most: 64 })]);
        assert_eq!(troubles.replace(both(), full.clone()), std::slice::from_ref(&one));
        assert_eq!(troubles.replace(both(), full), Vec::<String>::new());
    }
}
