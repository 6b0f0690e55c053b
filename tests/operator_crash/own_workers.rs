//! A tenant's own workers from their beginning to their end, on a real API server. It runs no controllers: what those of
//! Deployments and autoscalers do, the test does.

use std::time::Duration;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::{Secret, Service};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams};
use kube::core::PartialObjectMeta;
use kube::{Resource, ResourceExt};
use maintenance_os::api::Plan;
use maintenance_os::api::routing::{RoutingSlice, WorkerPool};
use maintenance_os::api::slices::{SLICE_KEY, routing_slice, slice_of};
use maintenance_os::api::tenant::DeletionPolicy;
use maintenance_os::apply::gate::Gate;
use serde_json::{Value, json};

use crate::operator::Operator;
use crate::world::{World, until};

const TENANT: &str = "acme";
const SHARED: &str = "maintenance-os-worker";

struct Own<'w> {
    world: &'w World,
    uuid: uuid::Uuid,
}

fn deployments(world: &World) -> Api<Deployment> {
    Api::namespaced(world.client.clone(), &world.namespace)
}

/// The shared pool's Deployment with this image, as the chart makes it.
async fn put_shared_pool(world: &World, image: &str) {
    let labels = json!({ "app.kubernetes.io/name": "maintenance-os", "app.kubernetes.io/component": "worker" });
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": SHARED, "labels": labels },
        "spec": { "selector": { "matchLabels": labels }, "template": { "metadata": { "labels": labels }, "spec": {
            "containers": [{ "name": "worker", "image": image, "args": ["worker"], "env": [{ "name": "REDIS_HOST", "value": "r" }],
                "ports": [{ "name": "ack", "containerPort": 8082 }] }] } } },
    });
    let apply = PatchParams::apply("test").force();
    deployments(world).patch(SHARED, &apply, &Patch::Apply(deployment)).await.unwrap();
}

/// What the garbage collector would do, and what an earlier run left.
async fn clean(world: &World) {
    let ours = ListParams::default().labels("tenancy.maintenance-os.com/tenant");
    let now = DeleteParams::default();
    deployments(world).delete_collection(&now, &ours).await.unwrap();
    let scalers: Api<HorizontalPodAutoscaler> = Api::namespaced(world.client.clone(), &world.namespace);
    scalers.delete_collection(&now, &ours).await.unwrap();
    let services: Api<Service> = Api::namespaced(world.client.clone(), &world.namespace);
    for service in services.list(&ours).await.unwrap() {
        services.delete(&service.name_any(), &now).await.unwrap();
    }
}

impl Own<'_> {
    fn name(&self) -> String {
        format!("worker-{}", self.uuid)
    }

    async fn deployment(&self) -> Option<Value> {
        let found = deployments(self.world).get_opt(&self.name()).await.unwrap();
        found.map(|found| serde_json::to_value(found).unwrap())
    }

    async fn scaler(&self) -> Option<HorizontalPodAutoscaler> {
        let scalers: Api<HorizontalPodAutoscaler> = Api::namespaced(self.world.client.clone(), &self.world.namespace);
        scalers.get_opt(&self.name()).await.unwrap()
    }

    /// Waits until the Deployment is complete and says this.
    async fn becomes(&self, what: &str, is: impl Fn(&Value) -> bool) {
        until(what, async || {
            let found = self.deployment().await.unwrap_or_default();
            let complete = found["metadata"]["annotations"]["tenancy.maintenance-os.com/desired-hash"].is_string();
            (complete && is(&found)).then_some(()).ok_or_else(|| found.to_string())
        })
        .await;
    }

    async fn is_gone(&self) {
        until("the Deployment is gone", async || {
            self.deployment().await.map_or(Ok(()), |found| Err(found.to_string()))
        })
        .await;
    }

    /// As the controller of Deployments says it.
    async fn set_available(&self, count: i32) {
        let status = json!({ "status": { "availableReplicas": count, "readyReplicas": count, "replicas": count } });
        let patch = Patch::Merge(status);
        deployments(self.world).patch_status(&self.name(), &PatchParams::default(), &patch).await.unwrap();
    }

    /// As an autoscaler does it.
    async fn scale(&self, count: i32) {
        let patch = Patch::Merge(json!({ "spec": { "replicas": count } }));
        let scaler = PatchParams { field_manager: Some("scaler".into()), ..PatchParams::default() };
        deployments(self.world).patch_scale(&self.name(), &scaler, &patch).await.unwrap();
    }

    async fn pool(&self) -> Option<WorkerPool> {
        let secrets: Api<Secret> = Api::namespaced(self.world.client.clone(), &self.world.namespace);
        let slice = secrets.get_opt(&routing_slice(slice_of(self.uuid))).await.unwrap()?;
        let slice: RoutingSlice = serde_json::from_slice(&slice.data?[SLICE_KEY].0).unwrap();
        slice.tenants.into_iter().find(|entry| entry.uuid == self.uuid).map(|entry| entry.queue.pool)
    }

    async fn is_served_by(&self, pool: WorkerPool) {
        until(&format!("{pool:?} serves it"), async || {
            let now = self.pool().await;
            (now == Some(pool)).then_some(()).ok_or_else(|| format!("{now:?}"))
        })
        .await;
    }

    async fn says(&self, kind: &str, value: &str, reason: &str) {
        until(&format!("{kind} is {value} {reason}"), async || {
            let status = self.world.tenants().get(TENANT).await.unwrap().status.unwrap_or_default();
            let found = status.conditions.iter().find(|condition| condition.type_ == kind);
            let is = found.is_some_and(|found| found.status == value && found.reason == reason);
            is.then_some(()).ok_or_else(|| format!("{found:?}"))
        })
        .await;
    }

    async fn change(&self, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.world.tenants().patch(TENANT, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Versions of everything that the operator could write at rest.
    async fn versions(&self) -> Vec<String> {
        async fn of<K>(own: &Own<'_>, name: &str) -> String
        where
            K: Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
                + Clone
                + std::fmt::Debug
                + serde::de::DeserializeOwned,
        {
            let api: Api<K> = Api::namespaced(own.world.client.clone(), &own.world.namespace);
            let found: PartialObjectMeta<K> = api.get_metadata(name).await.unwrap();
            format!("{name} {}", found.metadata.resource_version.unwrap())
        }
        let name = self.name();
        vec![
            of::<Deployment>(self, &name).await,
            of::<Service>(self, &name).await,
            of::<HorizontalPodAutoscaler>(self, &name).await,
            of::<Secret>(self, &routing_slice(slice_of(self.uuid))).await,
            of::<maintenance_os::api::Tenant>(self, TENANT).await,
        ]
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_of_a_tenants_own_follow_their_plan_their_template_and_the_tenants_state() {
    let world = World::new("own").await;
    clean(&world).await;
    put_shared_pool(&world, "maintenance-os:1").await;
    let plan = json!({ "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Plan", "metadata": { "name": "own" },
        "spec": { "displayName": "Own", "price": "1.00", "workers": { "mode": "Dedicated", "minProcesses": 2, "maxProcesses": 6 } } });
    world.apply_global::<Plan>(&plan, "own").await;
    let operator = Operator::start(&world, Gate::default()).await;
    world.wait_for_server().await;
    world.create_with("own", None).await;
    until("it has a uuid", async || {
        let status = world.tenants().get(TENANT).await.unwrap().status.unwrap_or_default();
        status.uuid.map(|_| ()).ok_or_else(|| "none yet".into())
    })
    .await;
    let uuid = world.tenants().get(TENANT).await.unwrap().status.unwrap().uuid.unwrap().parse().unwrap();
    let own = Own { world: &world, uuid };
    own.becomes("it is made from the template", |found| {
        let container = &found["spec"]["template"]["spec"]["containers"][0];
        let tenant = json!({ "name": "MOS_TENANT", "value": uuid.to_string() });
        container["image"] == "maintenance-os:1" && container["env"].as_array().unwrap().contains(&tenant)
    })
    .await;
    own.says("WorkersReady", "False", "Provisioning").await;
    own.says("Serving", "True", "Provisioning").await;
    assert_eq!(own.pool().await, Some(WorkerPool::Shared), "nobody of its own is there yet");
    own.set_available(1).await;
    own.is_served_by(WorkerPool::Dedicated).await;
    own.says("WorkersReady", "True", "Active").await;
    world.wait_until_ready().await;
    let scaler = own.scaler().await.expect("an autoscaler");
    let owner = scaler.owner_references().first().map(|owner| owner.uid.clone());
    assert_eq!(owner, deployments(&world).get(&own.name()).await.unwrap().uid(), "it goes with the Deployment");

    // At rest, over two resyncs and after an operator that begins anew.
    let before = own.versions().await;
    operator.kill();
    let operator = Operator::start(&world, Gate::default()).await;
    world.wait_for_server().await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(own.versions().await, before, "something was written at rest");

    // What no watch shows is put right at a resync.
    let scalers: Api<HorizontalPodAutoscaler> = Api::namespaced(world.client.clone(), &world.namespace);
    let removed = own.scaler().await.unwrap().uid();
    scalers.delete(&own.name(), &DeleteParams::default()).await.unwrap();
    until("the autoscaler is there again", async || {
        let found = own.scaler().await.and_then(|found| found.uid());
        (found.is_some() && found != removed).then_some(()).ok_or_else(|| format!("{found:?}"))
    })
    .await;
    own.becomes("it is complete again", |_| true).await;

    own.scale(3).await;
    put_shared_pool(&world, "maintenance-os:2").await;
    own.becomes("the template has changed", |found| {
        found["spec"]["template"]["spec"]["containers"][0]["image"] == "maintenance-os:2"
    })
    .await;
    assert_eq!(own.deployment().await.unwrap()["spec"]["replicas"], 3, "how many is the autoscaler's word");

    own.change(json!({ "state": "Suspended" })).await;
    own.becomes("it is scaled away", |found| found["spec"]["replicas"] == 0).await;
    own.says("WorkersReady", "True", "Suspended").await;
    assert!(own.scaler().await.is_none(), "an autoscaler would start it again");
    own.set_available(0).await;
    own.change(json!({ "state": "Active" })).await;
    own.becomes("it is there again", |found| found["spec"]["replicas"] == 1).await;
    own.says("WorkersReady", "False", "NoWorkers").await;
    own.says("Ready", "True", "Active").await;
    assert!(own.scaler().await.is_some());
    own.set_available(2).await;
    own.is_served_by(WorkerPool::Dedicated).await;

    own.change(json!({ "planRef": { "name": "pro" } })).await;
    own.is_gone().await;
    assert_eq!(own.pool().await, Some(WorkerPool::Shared));
    own.says("WorkersReady", "True", "Active").await;

    own.change(json!({ "planRef": { "name": "own" } })).await;
    own.becomes("it is made again", |_| true).await;
    world.delete(DeletionPolicy::Retain).await;
    world.wait_until_gone().await;
    own.is_gone().await;
    operator.kill();
    clean(&world).await;
    deployments(&world).delete(SHARED, &DeleteParams::default()).await.unwrap();
    world.remove().await;
}
