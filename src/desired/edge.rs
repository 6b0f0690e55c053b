//! Edge objects of the customers' own hosts: what brings their requests, and their certificates, to the app.
//!
//! Subdomains need none: one wildcard route of the chart serves them all, and adding a tenant writes nothing here.
//!
//! From      the own hosts in the routing entries, the chart's settings of the edge
//! Makes     in the operator's namespace, for each host: an Ingress; or an HTTPRoute and, for TLS, a ListenerSet or a
//!           listener on the Gateway
//! Ready     when the objects are there and, for TLS, the certificate's Secret
//! Teardown  whatever is ours and not wanted any more goes, also what another mode has left

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::MANAGED_BY;

/// Listeners that a Gateway takes at most, by its definition.
pub const MOST_LISTENERS: usize = 64;
/// Label and value of every edge object.
pub const LABEL: (&str, &str) = ("app.kubernetes.io/component", "edge");
/// Port of the app's Service.
const PORT: u16 = 80;

/// What the edge is made of.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is made: the site brings requests to the app by itself.
    #[default]
    None,
    /// Ingresses.
    Ingress,
    /// Routes of the Gateway API.
    Gateway,
}

/// Where a host's TLS is ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Listeners {
    /// By a ListenerSet of its own.
    #[default]
    Sets,
    /// By a listener on the Gateway; so many more have room there.
    OnGateway(usize),
}

/// The edge, as the chart says it.
#[derive(Clone, Debug, Default)]
pub struct Edge {
    /// What it is made of.
    pub mode: Mode,
    /// Class of the Ingresses; empty: the cluster's default.
    pub class: String,
    /// The Gateway that routes belong to, in the operator's namespace.
    pub gateway: String,
    /// TLS for the customers' own hosts, with certificates from Secrets that somebody (cert-manager) fills.
    pub tls: bool,
    /// Labels of the objects. Never a Tenant's: whoever may write a Tenant must not steer the edge.
    pub labels: BTreeMap<String, String>,
    /// Their annotations, as cert-manager and external-dns want them.
    pub annotations: BTreeMap<String, String>,
    /// The app's Service.
    pub service: String,
}

/// An object to be applied.
#[derive(Clone, Debug, PartialEq)]
pub struct EdgeObject {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// The whole of it.
    pub object: Value,
}

/// Kinds of edge objects, in the order in which they are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// `networking.k8s.io/v1`
    Ingress,
    /// `gateway.networking.k8s.io/v1`
    ListenerSet,
    /// `gateway.networking.k8s.io/v1`
    HttpRoute,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Ingress, Self::ListenerSet, Self::HttpRoute];

    /// Group, kind and plural.
    pub const fn names(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Ingress => ("networking.k8s.io", "Ingress", "ingresses"),
            Self::ListenerSet => ("gateway.networking.k8s.io", "ListenerSet", "listenersets"),
            Self::HttpRoute => ("gateway.networking.k8s.io", "HTTPRoute", "httproutes"),
        }
    }
}

/// `host-<hash>`: the objects of a host. A host can be longer than a name may be.
pub fn name(host: &str) -> String {
    let hash = Sha256::digest(host.as_bytes());
    let text: String = hash.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("host-{text}")
}

/// The Secret with a host's certificate.
pub fn certificate(host: &str) -> String {
    format!("{}-tls", name(host))
}

/// The objects of the hosts, and the hosts that found no room on the Gateway. Those that `placed` names keep their room.
pub fn objects(
    edge: &Edge,
    hosts: &BTreeSet<String>,
    listeners: Listeners,
    placed: &BTreeSet<String>,
) -> (Vec<EdgeObject>, Vec<Value>, BTreeSet<String>) {
    match (edge.mode, listeners) {
        (Mode::None, _) => (Vec::new(), Vec::new(), BTreeSet::new()),
        (Mode::Ingress, _) => (hosts.iter().map(|host| ingress(edge, host)).collect(), Vec::new(), BTreeSet::new()),
        (Mode::Gateway, Listeners::OnGateway(room)) if edge.tls => {
            let (old, new): (Vec<_>, Vec<_>) = hosts.iter().partition(|host| placed.contains(&name(host)));
            let served: BTreeSet<_> = old.into_iter().chain(new).take(room).cloned().collect();
            let left_out = hosts.difference(&served).cloned().collect();
            let routes = served.iter().map(|host| route(edge, host, &on_gateway(edge, host))).collect();
            (routes, served.iter().map(|host| listener(host)).collect(), left_out)
        }
        (Mode::Gateway, Listeners::Sets) if edge.tls => {
            let both = |host: &String| [listener_set(edge, host), route(edge, host, &on_set(host))];
            (hosts.iter().flat_map(both).collect(), Vec::new(), BTreeSet::new())
        }
        (Mode::Gateway, _) => {
            let parent = json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": edge.gateway });
            (hosts.iter().map(|host| route(edge, host, &parent)).collect(), Vec::new(), BTreeSet::new())
        }
    }
}

fn metadata(edge: &Edge, host: &str) -> Value {
    let mut labels = edge.labels.clone();
    labels.insert(LABEL.0.into(), LABEL.1.into());
    labels.insert("app.kubernetes.io/managed-by".into(), MANAGED_BY.into());
    json!({ "name": name(host), "labels": labels, "annotations": edge.annotations })
}

fn ingress(edge: &Edge, host: &str) -> EdgeObject {
    let backend = json!({ "service": { "name": edge.service, "port": { "number": PORT } } });
    let mut spec = json!({ "rules": [{ "host": host, "http": { "paths": [{ "path": "/", "pathType": "Prefix", "backend": backend }] } }] });
    if !edge.class.is_empty() {
        spec["ingressClassName"] = json!(edge.class);
    }
    if edge.tls {
        spec["tls"] = json!([{ "hosts": [host], "secretName": certificate(host) }]);
    }
    object(Kind::Ingress, &metadata(edge, host), &spec)
}

fn listener_set(edge: &Edge, host: &str) -> EdgeObject {
    let parent = json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": edge.gateway });
    object(Kind::ListenerSet, &metadata(edge, host), &json!({ "parentRef": parent, "listeners": [listener(host)] }))
}

fn listener(host: &str) -> Value {
    json!({
        "name": name(host), "hostname": host, "port": 443, "protocol": "HTTPS",
        "tls": { "mode": "Terminate", "certificateRefs": [{ "group": "", "kind": "Secret", "name": certificate(host) }] },
        "allowedRoutes": { "namespaces": { "from": "Same" } },
    })
}

fn on_set(host: &str) -> Value {
    json!({ "group": "gateway.networking.k8s.io", "kind": "ListenerSet", "name": name(host) })
}

fn on_gateway(edge: &Edge, host: &str) -> Value {
    json!({ "group": "gateway.networking.k8s.io", "kind": "Gateway", "name": edge.gateway, "sectionName": name(host) })
}

fn route(edge: &Edge, host: &str, parent: &Value) -> EdgeObject {
    let backend = json!({ "group": "", "kind": "Service", "name": edge.service, "port": PORT, "weight": 1 });
    let spec = json!({ "parentRefs": [parent], "hostnames": [host], "rules": [{ "matches": [{ "path": { "type": "PathPrefix", "value": "/" } }], "backendRefs": [backend] }] });
    object(Kind::HttpRoute, &metadata(edge, host), &spec)
}

fn object(kind: Kind, metadata: &Value, spec: &Value) -> EdgeObject {
    let (group, name, _) = kind.names();
    let title = metadata["name"].as_str().unwrap_or_default().to_owned();
    let object = json!({ "apiVersion": format!("{group}/v1"), "kind": name, "metadata": metadata, "spec": spec });
    EdgeObject { kind, name: title, object }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edge(mode: Mode, tls: bool) -> Edge {
        Edge { mode, tls, gateway: "front".into(), service: "app".into(), ..Edge::default() }
    }

    fn hosts(count: usize) -> BTreeSet<String> {
        (0..count).map(|number| format!("h{number:03}.acme.test")).collect()
    }

    #[test]
    fn labels_and_annotations_come_from_the_chart_and_cannot_hide_that_an_object_is_ours() {
        let mut edge = edge(Mode::Ingress, true);
        edge.annotations.insert("cert-manager.io/cluster-issuer".into(), "letsencrypt".into());
        edge.labels.insert(LABEL.0.into(), "mine".into());
        let (objects, ..) = objects(&edge, &hosts(1), Listeners::Sets, &BTreeSet::new());
        let object = &objects[0].object;
        assert_eq!(object["metadata"]["annotations"]["cert-manager.io/cluster-issuer"], "letsencrypt");
        assert_eq!(object["metadata"]["labels"][LABEL.0], LABEL.1);
        assert_eq!(object["spec"]["tls"][0]["secretName"], certificate("h000.acme.test"));
        assert_eq!(object["spec"]["rules"][0]["host"], "h000.acme.test");
    }

    #[test]
    fn a_full_gateway_leaves_out_the_newest_hosts_and_takes_no_room_from_those_that_have_it() {
        let edge = edge(Mode::Gateway, true);
        let all = hosts(5);
        // The last in the alphabet was there first.
        let placed = BTreeSet::from([name("h004.acme.test")]);
        let (routes, listeners, left_out) = objects(&edge, &all, Listeners::OnGateway(3), &placed);
        assert_eq!((routes.len(), listeners.len()), (3, 3));
        assert_eq!(left_out, BTreeSet::from(["h002.acme.test".to_owned(), "h003.acme.test".to_owned()]));
        for (route, listener) in routes.iter().zip(&listeners) {
            assert_eq!(route.object["spec"]["parentRefs"][0]["sectionName"], listener["name"]);
        }
    }

    #[test]
    fn a_listener_set_and_its_route_belong_together_and_without_tls_a_route_is_enough() {
        let all = hosts(2);
        let (objects_of, none, _) = objects(&edge(Mode::Gateway, true), &all, Listeners::Sets, &BTreeSet::new());
        let kinds: Vec<_> = objects_of.iter().map(|object| object.kind).collect();
        assert_eq!(kinds, [Kind::ListenerSet, Kind::HttpRoute, Kind::ListenerSet, Kind::HttpRoute]);
        assert_eq!(objects_of[1].object["spec"]["parentRefs"][0]["name"], objects_of[0].name);
        assert!(none.is_empty());
        let (plain, ..) = objects(&edge(Mode::Gateway, false), &all, Listeners::Sets, &BTreeSet::new());
        assert!(plain.iter().all(|object| object.kind == Kind::HttpRoute));
        assert_eq!(objects(&edge(Mode::None, true), &all, Listeners::Sets, &BTreeSet::new()).0, []);
    }

    #[test]
    fn names_are_short_and_differ() {
        let long = format!("{}.example", "a".repeat(63));
        assert!(certificate(&long).len() <= 63);
        assert_ne!(name("a.example"), name("b.example"));
    }
}
