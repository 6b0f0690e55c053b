//! Tenants: applied, waited for, deleted.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::{Value, json};

use maintenance_os::api::Tenant;

use crate::wait::within;
use crate::world::{CUSTOMERS, LABEL, World};

/// The condition `Ready`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// True, False or Unknown.
    pub status: String,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
}

impl World {
    /// A name that no other test and no earlier run has had.
    pub fn name(what: &str) -> String {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map(|time| time.as_millis()).unwrap_or_default();
        format!("e2e-{what}-{}-{}", now % 10_000_000_000, NUMBER.fetch_add(1, Ordering::Relaxed))
    }

    /// A Tenant as it is applied; `spec` is merged over the smallest one.
    pub fn tenant(name: &str, spec: Value) -> Tenant {
        let mut all = json!({ "displayName": format!("Tenant {name}"), "planRef": { "name": "pro" } });
        if let (Some(all), Value::Object(spec)) = (all.as_object_mut(), spec) {
            all.extend(spec);
        }
        let metadata = json!({ "name": name, "namespace": CUSTOMERS, "labels": { LABEL: "true" } });
        serde_json::from_value(json!({
            "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Tenant", "metadata": metadata, "spec": all,
        }))
        .expect("a Tenant as the API has it")
    }

    /// Creates a Tenant.
    pub async fn create(&self, name: &str, spec: Value) -> Tenant {
        let created = self.tenants().create(&PostParams::default(), &Self::tenant(name, spec)).await;
        created.unwrap_or_else(|error| panic!("creating Tenant {name}: {error}"))
    }

    /// Creates a Plan; `spec` is merged over the smallest one.
    pub async fn plan(&self, name: &str, spec: Value) {
        let mut all = json!({ "displayName": "Of a test", "price": "1.00", "features": ["assets", "routines", "api"] });
        if let (Some(all), Value::Object(spec)) = (all.as_object_mut(), spec) {
            all.extend(spec);
        }
        let plan = json!({
            "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Plan",
            "metadata": { "name": name, "labels": { LABEL: "true" } }, "spec": all,
        });
        let plan = serde_json::from_value(plan).expect("a Plan as the API has it");
        self.plans()
            .create(&PostParams::default(), &plan)
            .await
            .unwrap_or_else(|error| panic!("creating Plan {name}: {error}"));
    }

    /// Creates a Tenant and waits until it is Ready; its uuid.
    pub async fn ready(&self, name: &str, spec: Value) -> String {
        self.create(name, spec).await;
        self.becomes_ready(30, name).await
    }

    /// Waits until a Tenant is Ready; its uuid.
    pub async fn becomes_ready(&self, seconds: u64, name: &str) -> String {
        self.becomes(seconds, name, "True", "Active").await;
        self.tenants().get(name).await.ok().and_then(|tenant| tenant.status?.uuid).expect("a Ready Tenant has a uuid")
    }

    /// Waits until the condition `Ready` of a Tenant has this status and reason.
    pub async fn becomes(&self, seconds: u64, name: &str, status: &str, reason: &str) -> Ready {
        within(seconds, &format!("Tenant {name} is Ready={status} {reason}"), async || {
            let tenant = self.tenants().get(name).await.map_err(|error| error.to_string())?;
            let current = tenant.status.as_ref().and_then(|status| status.observed_generation);
            let ready = ready(&tenant).ok_or("no condition Ready")?;
            let is_current = current == tenant.metadata.generation;
            if is_current && ready.status == status && ready.reason == reason {
                Ok(ready)
            } else {
                Err(format!("{ready:?} of generation {current:?}"))
            }
        })
        .await
    }

    /// The reason of the first verdict on a Tenant that says more than that work goes on.
    pub async fn condition_reason(&self, name: &str) -> String {
        within(30, &format!("a verdict on Tenant {name}"), async || {
            let tenant = self.tenants().get(name).await.map_err(|error| error.to_string())?;
            let ready = ready(&tenant).ok_or("no condition Ready")?;
            if ready.reason == "Provisioning" { Err(format!("{ready:?}")) } else { Ok(ready.reason) }
        })
        .await
    }

    /// A condition of a Tenant.
    pub async fn condition(&self, name: &str, kind: &str) -> Option<Condition> {
        let tenant = self.tenants().get(name).await.expect("the Tenant is there");
        tenant.status?.conditions.into_iter().find(|condition| condition.type_ == kind)
    }

    /// Asks for a delete.
    pub async fn delete(&self, name: &str) {
        match self.tenants().delete(name, &DeleteParams::default()).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("deleting Tenant {name}: {error}"),
        }
    }

    /// Waits until a Tenant is gone.
    pub async fn goes(&self, seconds: u64, name: &str) {
        within(seconds, &format!("Tenant {name} goes"), async || {
            match self.tenants().get_opt(name).await.map_err(|error| error.to_string())? {
                None => Ok(()),
                Some(tenant) => Err(format!("finalizers {:?}, {:?}", tenant.finalizers(), ready(&tenant))),
            }
        })
        .await;
    }

    /// Deletes a Tenant and waits until it is gone.
    pub async fn delete_wholly(&self, name: &str) {
        self.delete(name).await;
        self.goes(30, name).await;
    }

    /// Tenants that tests made.
    pub async fn made_by_tests(&self) -> Vec<Tenant> {
        let parameters = ListParams::default().labels(LABEL);
        self.tenants().list(&parameters).await.expect("listing Tenants").items
    }

    /// The samples that the demo made are served: what tests do to the cluster must not touch them.
    pub async fn others_are_served(&self) {
        for slug in ["acme", "globex", "hooli"] {
            let answer = self.get(slug, "/api/tenant").await;
            assert_eq!(answer.status, 200, "another tenant's host answers: {slug}: {}", answer.body);
        }
    }
}

/// The condition `Ready` of a Tenant.
pub fn ready(tenant: &Tenant) -> Option<Ready> {
    let conditions = &tenant.status.as_ref()?.conditions;
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready")?;
    Some(Ready { status: ready.status.clone(), reason: ready.reason.clone(), message: ready.message.clone() })
}
