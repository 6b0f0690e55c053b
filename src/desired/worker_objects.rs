//! The objects of a tenant's own workers, made from the pod template of the shared pool's Deployment: the chart stays the one
//! source of image, variables, Secrets and sizes.

use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::api::plan::PlanWorkers;
use crate::api::{ANNOTATION_SCALER, LABEL_TENANT, MANAGED_BY};

use super::{credentials, names};

/// `app.kubernetes.io/component` of the pods. Not the shared pool's, whose Deployment would take them for its own.
const COMPONENT: &str = "dedicated-worker";
/// Share of the requested CPU, in percent, from which on more pods come.
const BUSY: i32 = 80;

/// What decides how they look, beside the template.
pub struct Wanted<'a> {
    /// The tenant.
    pub uuid: Uuid,
    /// How many.
    pub plan: &'a PlanWorkers,
    /// None is to run now.
    pub asleep: bool,
    /// ScaledObjects can be used.
    pub keda: bool,
}

/// Everything that a tenant's own workers are made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerObjects {
    /// Name of each.
    pub name: String,
    /// The pods.
    pub deployment: Value,
    /// Where they acknowledge routing and show metrics.
    pub service: Value,
    /// What decides how many; None: there are none.
    pub scaler: Option<Scaler>,
}

/// What decides how many pods there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scaler {
    /// By CPU, at least one.
    Horizontal(Value),
    /// KEDA's ScaledObject: by the jobs that wait, also none.
    Keda(Value),
}

impl Scaler {
    /// Its kind.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Horizontal(_) => "HorizontalPodAutoscaler",
            Self::Keda(_) => "ScaledObject",
        }
    }
}

/// The objects and their hash. A plan's processes bound the pods; one pod does as many jobs at once as the plan allows, so
/// that more of them come for the sake of CPU alone, and over all of them the plan's bound is kept by the queue.
pub fn objects(wanted: &Wanted<'_>, template: &Value) -> (WorkerObjects, String) {
    let name = names::workers(wanted.uuid);
    let selector = json!({ "app.kubernetes.io/component": COMPONENT, LABEL_TENANT: wanted.uuid.to_string() });
    let mut labels = selector.clone();
    labels["app.kubernetes.io/name"] = "maintenance-os".into();
    labels["app.kubernetes.io/managed-by"] = MANAGED_BY.into();
    let metadata = json!({ "name": name, "labels": labels });
    let template = pod(wanted, template, &selector);
    let scaler = (!wanted.asleep).then(|| scaler(wanted, &template, &metadata));
    let mut spec = json!({
        "selector": { "matchLabels": selector },
        // A new pod is ready before an old one goes.
        "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxUnavailable": 0, "maxSurge": 1 } },
        "template": template,
    });
    if wanted.asleep {
        // While it is awake, how many is the autoscaler's word.
        spec["replicas"] = 0.into();
    }
    let mut deployment = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata, "spec": spec });
    if let Some(scaler) = &scaler {
        deployment["metadata"]["annotations"] = json!({ ANNOTATION_SCALER: scaler.kind() });
    }
    let objects = WorkerObjects {
        name,
        deployment,
        service: json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {
                "clusterIP": "None",
                "selector": selector,
                "ports": [{ "name": "ack", "port": 8082, "targetPort": "ack" }, { "name": "metrics", "port": 9090, "targetPort": "metrics" }],
            },
        }),
        scaler,
    };
    let hash = hash(&objects);
    (objects, hash)
}

fn hash(objects: &WorkerObjects) -> String {
    let scaler = match &objects.scaler {
        Some(Scaler::Horizontal(scaler) | Scaler::Keda(scaler)) => scaler.to_string(),
        None => String::new(),
    };
    let parts =
        [("deployment", objects.deployment.to_string()), ("service", objects.service.to_string()), ("scaler", scaler)];
    credentials::hash(&parts.map(|(part, text)| (part.to_owned(), text)).into())
}

/// The template with the tenant in it.
fn pod(wanted: &Wanted<'_>, template: &Value, selector: &Value) -> Value {
    let mut pod = template.clone();
    if let Some(metadata) = pod["metadata"].as_object_mut() {
        // What the API server adds to a template is no part of what is asked for.
        metadata.retain(|key, _| key == "labels" || key == "annotations");
    }
    for (label, value) in selector.as_object().into_iter().flatten() {
        pod["metadata"]["labels"][label] = value.clone();
    }
    let own = [
        ("MOS_TENANT", wanted.uuid.to_string()),
        ("MOS_MIN_PROCESSES", "1".to_owned()),
        ("MOS_MAX_PROCESSES", wanted.plan.max_processes.to_string()),
    ];
    let container = &mut pod["spec"]["containers"][0];
    let mut variables = container["env"].as_array().cloned().unwrap_or_default();
    variables.retain(|variable| own.iter().all(|(name, _)| variable["name"] != *name));
    variables.extend(own.iter().map(|(name, value)| json!({ "name": name, "value": value })));
    container["env"] = variables.into();
    pod
}

fn scaler(wanted: &Wanted<'_>, template: &Value, metadata: &Value) -> Scaler {
    let (fewest, most) = (wanted.plan.min_processes, wanted.plan.max_processes);
    if let Some(trigger) = Some(template).filter(|_| wanted.keda).and_then(|template| trigger(wanted, template)) {
        return Scaler::Keda(json!({
            "apiVersion": "keda.sh/v1alpha1", "kind": "ScaledObject", "metadata": metadata,
            "spec": {
                "scaleTargetRef": { "name": metadata["name"] },
                "minReplicaCount": fewest, "maxReplicaCount": most,
                "triggers": [trigger],
            },
        }));
    }
    Scaler::Horizontal(json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "metadata": metadata,
        "spec": {
            "scaleTargetRef": { "apiVersion": "apps/v1", "kind": "Deployment", "name": metadata["name"] },
            // It cannot scale to none.
            "minReplicas": fewest.max(1), "maxReplicas": most.max(1),
            "metrics": [{ "type": "Resource", "resource": { "name": "cpu", "target": { "type": "Utilization", "averageUtilization": BUSY } } }],
        },
    }))
}

/// KEDA's trigger on the tenant's queue, with the address and the password of the worker's own variables. None: it would need
/// the certificate authority of Redis, which lies in a Secret whose form is not KEDA's.
fn trigger(wanted: &Wanted<'_>, template: &Value) -> Option<Value> {
    let variables = template["spec"]["containers"][0]["env"].as_array()?;
    let find = |name: &str| variables.iter().find(|variable| variable["name"] == name);
    let value = |name: &str| find(name).and_then(|variable| variable["value"].as_str());
    if find("REDIS_CA").is_some() {
        return None;
    }
    let mut metadata = Map::new();
    let mut set = |key: &str, value: &str| metadata.insert(key.to_owned(), value.into());
    let queue = names::queue(wanted.uuid);
    set("listLength", &wanted.plan.max_processes.to_string());
    if value("REDIS_TLS") == Some("true") {
        set("enableTLS", "true");
    }
    if find("REDIS_PASSWORD").is_some() {
        set("passwordFromEnv", "REDIS_PASSWORD");
    }
    let kind = match value("REDIS_MODE").unwrap_or("standalone") {
        "cluster" => {
            set("addressesFromEnv", "REDIS_NODES");
            set("listName", &format!("{{{queue}}}"));
            "redis-cluster"
        }
        "sentinel" => {
            set("addressesFromEnv", "REDIS_NODES");
            set("sentinelMaster", value("REDIS_MASTER_NAME").unwrap_or_default());
            if find("REDIS_SENTINEL_PASSWORD").is_some() {
                set("sentinelPasswordFromEnv", "REDIS_SENTINEL_PASSWORD");
            }
            set("databaseIndex", value("REDIS_DB").unwrap_or("0"));
            set("listName", &queue);
            "redis-sentinel"
        }
        _ => {
            set("hostFromEnv", "REDIS_HOST");
            set("portFromEnv", "REDIS_PORT");
            set("databaseIndex", value("REDIS_DB").unwrap_or("0"));
            set("listName", &queue);
            "redis"
        }
    };
    Some(json!({ "type": kind, "metadata": metadata }))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: Uuid = Uuid::from_u128(0x77);

    fn template(variables: &[(&str, &str)]) -> Value {
        let env: Vec<_> = variables.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect();
        json!({
            "metadata": { "labels": { "app.kubernetes.io/component": "worker", "team": "blue" }, "creationTimestamp": null },
            "spec": { "serviceAccountName": "maintenance-os-app", "containers": [{ "name": "worker", "image": "i:1", "env": env }] },
        })
    }

    fn made(keda: bool, asleep: bool, template: &Value) -> (WorkerObjects, String) {
        let plan = PlanWorkers { min_processes: 0, max_processes: 4, ..PlanWorkers::default() };
        objects(&Wanted { uuid: UUID, plan: &plan, asleep, keda }, template)
    }

    #[test]
    fn they_are_the_shared_pools_pods_with_a_tenant_and_labels_that_its_deployment_does_not_select() {
        let (objects, hash) = made(false, false, &template(&[("MOS_MAX_PROCESSES", "10"), ("REDIS_HOST", "r")]));
        let pod = &objects.deployment["spec"]["template"];
        assert_eq!(pod["metadata"]["labels"]["app.kubernetes.io/component"], COMPONENT);
        assert_eq!(pod["metadata"]["labels"]["team"], "blue");
        assert!(pod["metadata"].get("creationTimestamp").is_none());
        let (container, tenant) = (&pod["spec"]["containers"][0], UUID.to_string());
        assert_eq!(container["image"], "i:1");
        let variables: Vec<_> = container["env"].as_array().expect("variables").iter().collect();
        let value = |name: &str| {
            let found: Vec<_> = variables.iter().filter(|variable| variable["name"] == name).collect();
            assert_eq!(found.len(), 1, "{name} once: a list that is merged by name refuses two");
            found[0]["value"].clone()
        };
        assert_eq!(
            (value("MOS_TENANT"), value("MOS_MAX_PROCESSES"), value("REDIS_HOST")),
            (json!(tenant), json!("4"), json!("r"))
        );
        assert!(objects.deployment["spec"].get("replicas").is_none(), "how many is the autoscaler's word");
        let Some(Scaler::Horizontal(scaler)) = &objects.scaler else { panic!("{:?}", objects.scaler) };
        assert_eq!((&scaler["spec"]["minReplicas"], &scaler["spec"]["maxReplicas"]), (&json!(1), &json!(4)));
        assert_ne!(
            made(false, false, &template(&[("REDIS_HOST", "s")])).1,
            hash,
            "made again when the template changes"
        );
    }

    #[test]
    fn a_tenant_that_is_not_served_has_none_and_nobody_who_would_start_one() {
        let (objects, _) = made(true, true, &template(&[]));
        assert_eq!((&objects.deployment["spec"]["replicas"], objects.scaler), (&json!(0), None));
    }

    #[test]
    fn keda_looks_at_the_tenants_own_list_with_the_workers_own_address() {
        let trigger = |variables: &[(&str, &str)]| match made(true, false, &template(variables)).0.scaler {
            Some(Scaler::Keda(scaler)) => Some(scaler["spec"]["triggers"][0].clone()),
            _ => None,
        };
        let alone = trigger(&[("REDIS_MODE", "standalone"), ("REDIS_DB", "3")]).expect("a trigger");
        assert_eq!((&alone["type"], &alone["metadata"]["databaseIndex"]), (&json!("redis"), &json!("3")));
        assert_eq!(alone["metadata"]["listName"], format!("tenant-{UUID}"));
        let cluster = trigger(&[("REDIS_MODE", "cluster")]).expect("a trigger");
        assert_eq!(cluster["metadata"]["listName"], format!("{{tenant-{UUID}}}"));
        assert!(cluster["metadata"].get("databaseIndex").is_none());
        assert_eq!(trigger(&[("REDIS_CA", "/ca.crt")]), None, "it could not verify the server");
    }
}
