//! The objects of one server's pooler: a Deployment of PgBouncer with its agent beside it, and what they need.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Service, ServiceAccount};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::api::server::DatabaseServerSpec;
use crate::api::slices::pooler_slices;
use crate::api::{LABEL_SERVER, MANAGED_BY};

use super::names;

/// PgBouncer's port.
pub const PORT: u16 = 6432;
/// Where the agent's files lie, in both containers.
const DIRECTORY: &str = "/run/pooler";
/// The image's user: the agent and PgBouncer share it, which is what opens the admin console to the agent alone.
const USER: i64 = 65532;

/// Everything that one server's pooler is made of.
pub struct PoolerObjects {
    /// Who the pods are.
    pub account: ServiceAccount,
    /// What they may read: this server's slices, by name.
    pub role: Role,
    /// Gives it to them.
    pub binding: RoleBinding,
    /// What the app connects to, and where acknowledgements are heard.
    pub service: Service,
    /// The pods.
    pub deployment: Deployment,
    /// Keeps one of several up during a drain.
    pub budget: Option<PodDisruptionBudget>,
}

/// The pooler of a server. `owner`: the DatabaseServer, so that they go with it.
pub fn objects(server: &str, spec: &DatabaseServerSpec, namespace: &str, image: &str, owner: &Value) -> PoolerObjects {
    let name = names::pooler(server);
    let labels = labels(server);
    let metadata = json!({ "name": name, "namespace": namespace, "labels": labels, "ownerReferences": [owner] });
    PoolerObjects {
        account: object(json!({ "metadata": metadata, "automountServiceAccountToken": false })),
        role: object(json!({
            "metadata": metadata,
            "rules": [{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch"], "resourceNames": pooler_slices(server) }],
        })),
        binding: object(json!({
            "metadata": metadata,
            "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name },
            "subjects": [{ "kind": "ServiceAccount", "name": name, "namespace": namespace }],
        })),
        service: object(json!({
            "metadata": metadata,
            "spec": {
                "selector": selector(server),
                "ports": [
                    { "name": "pgbouncer", "port": PORT, "targetPort": "pgbouncer" },
                    { "name": "ack", "port": 8082, "targetPort": "ack" },
                ],
            },
        })),
        deployment: object(json!({
            "metadata": metadata,
            "spec": {
                "replicas": spec.pooler.replicas,
                "selector": { "matchLabels": selector(server) },
                // A new pod serves before an old one goes.
                "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
                "template": { "metadata": { "labels": labels }, "spec": pod(server, &name, image) },
            },
        })),
        budget: (spec.pooler.replicas > 1).then(|| {
            object(json!({ "metadata": metadata, "spec": { "maxUnavailable": 1, "selector": { "matchLabels": selector(server) } } }))
        }),
    }
}

fn pod(server: &str, account: &str, image: &str) -> Value {
    let mounts = json!([{ "name": "pooler", "mountPath": DIRECTORY }]);
    let container_security = json!({ "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true, "capabilities": { "drop": ["ALL"] } });
    json!({
        "serviceAccountName": account,
        "automountServiceAccountToken": true,
        "terminationGracePeriodSeconds": 60,
        "securityContext": { "runAsNonRoot": true, "runAsUser": USER, "runAsGroup": USER, "fsGroup": USER, "seccompProfile": { "type": "RuntimeDefault" } },
        "volumes": [{ "name": "pooler", "emptyDir": { "medium": "Memory", "sizeLimit": "64Mi" } }],
        // A sidecar: PgBouncer starts once its files are written, and the agent outlives it.
        "initContainers": [{
            "name": "agent",
            "image": image,
            "restartPolicy": "Always",
            "args": ["pooler-agent"],
            "env": [
                { "name": "MOS_NAMESPACE", "valueFrom": { "fieldRef": { "fieldPath": "metadata.namespace" } } },
                { "name": "MOS_SERVER", "value": server },
                { "name": "MOS_POOLER_DIRECTORY", "value": DIRECTORY },
                { "name": "MOS_POOLER_LISTEN", "value": format!("0.0.0.0:{PORT}") },
            ],
            "ports": [{ "name": "ack", "containerPort": 8082 }, { "name": "health", "containerPort": 8081 }, { "name": "metrics", "containerPort": 9090 }],
            "startupProbe": { "httpGet": { "path": "/startupz", "port": "health" }, "periodSeconds": 1, "failureThreshold": 300 },
            "readinessProbe": { "httpGet": { "path": "/readyz", "port": "health" }, "periodSeconds": 2, "failureThreshold": 2 },
            "livenessProbe": { "httpGet": { "path": "/healthz", "port": "health" }, "periodSeconds": 10, "failureThreshold": 6 },
            "resources": { "requests": { "cpu": "20m", "memory": "32Mi" }, "limits": { "memory": "128Mi" } },
            "securityContext": container_security,
            "volumeMounts": mounts,
        }],
        "containers": [{
            "name": "pgbouncer",
            "image": image,
            "command": ["pgbouncer", format!("{DIRECTORY}/pgbouncer.ini")],
            "ports": [{ "name": "pgbouncer", "containerPort": PORT }],
            "readinessProbe": { "tcpSocket": { "port": "pgbouncer" }, "periodSeconds": 2, "failureThreshold": 2 },
            "livenessProbe": { "tcpSocket": { "port": "pgbouncer" }, "periodSeconds": 10, "failureThreshold": 6 },
            // Lets endpoints learn that the pod goes before it does; SIGINT then waits for transactions in flight.
            "lifecycle": { "preStop": { "sleep": { "seconds": 3 } } },
            "resources": { "requests": { "cpu": "50m", "memory": "32Mi" }, "limits": { "memory": "256Mi" } },
            "securityContext": container_security,
            "volumeMounts": mounts,
        }],
    })
}

fn selector(server: &str) -> BTreeMap<String, String> {
    [("app.kubernetes.io/name".to_owned(), "pooler".to_owned()), (LABEL_SERVER.to_owned(), server.to_owned())].into()
}

fn labels(server: &str) -> BTreeMap<String, String> {
    let mut labels = selector(server);
    labels.insert("app.kubernetes.io/managed-by".into(), MANAGED_BY.into());
    labels.insert("app.kubernetes.io/part-of".into(), "maintenance-os".into());
    labels
}

fn object<K: DeserializeOwned>(value: Value) -> K {
    serde_json::from_value(value).expect("the objects of the pooler are written as the API has them")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_objects_are_of_their_kinds_and_the_role_names_this_servers_slices_only() {
        let objects = objects(
            "pg-1",
            &DatabaseServerSpec::default(),
            "ns",
            "image",
            &json!({ "apiVersion": "v1", "kind": "Node", "name": "x", "uid": "y" }),
        );
        let rules = objects.role.rules.expect("rules");
        assert!(rules[0].resource_names.as_ref().expect("by name").iter().all(|name| name.starts_with("pooler-pg-1-")));
        assert!(objects.budget.is_some());
        assert_eq!(objects.deployment.spec.replicas, Some(2));
    }
}
