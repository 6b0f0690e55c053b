//! The cluster under test.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::{Client, Resource, ResourceExt};
use serde_json::Value;
use tokio::sync::Mutex;

use maintenance_os::api::{DatabaseServer, Plan, Tenant};

use crate::people::Person;

/// The operator's namespace.
pub const OPERATOR: &str = "maintenance-os";
/// The namespace in which Tenants are served.
pub const CUSTOMERS: &str = "customers";
/// Where the demo's PostgreSQL runs.
pub const DATABASES: &str = "databases";
/// Where the demo's S3 and mail servers run.
pub const PLATFORM: &str = "platform";
/// The demo's server.
pub const SERVER: &str = "pg-demo-1";
/// Label on everything that a test makes.
pub const LABEL: &str = "maintenance-os-e2e";

/// The cluster under test.
pub struct World {
    /// The API server, as its administrator.
    pub client: Client,
    /// Where hosts are asked.
    pub entry: String,
    /// Asks them.
    pub http: reqwest::Client,
    /// How often the operator compares everything again, in seconds.
    pub resync: u64,
    /// Who is signed in where, by slug.
    pub(crate) people: Mutex<HashMap<String, Person>>,
}

impl World {
    /// The cluster of `KUBECONFIG`, its hosts at `MOS_ENTRY` (default: the demo's).
    ///
    /// # Panics
    /// There is none.
    pub async fn open() -> Self {
        let client = Client::try_default().await.expect("a cluster that KUBECONFIG names: run e2e/test.sh cluster");
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(std::time::Duration::from_secs(10))
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .expect("a client without TLS can always be made");
        let entry = std::env::var("MOS_ENTRY").unwrap_or_else(|_| "http://10.97.0.1:30080".into());
        let mut world = Self { client, entry, http, resync: 0, people: Mutex::default() };
        world.resync = world.operator_resync().await;
        world
    }

    /// Tenants of the namespace that is served.
    pub fn tenants(&self) -> Api<Tenant> {
        Api::namespaced(self.client.clone(), CUSTOMERS)
    }

    /// Plans.
    pub fn plans(&self) -> Api<Plan> {
        Api::all(self.client.clone())
    }

    /// Servers.
    pub fn servers(&self) -> Api<DatabaseServer> {
        Api::all(self.client.clone())
    }

    /// Secrets of a namespace.
    pub fn secrets(&self, namespace: &str) -> Api<Secret> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Pods of a namespace.
    pub fn pods(&self, namespace: &str) -> Api<Pod> {
        Api::namespaced(self.client.clone(), namespace)
    }

    /// Names of a component's pods that are running and not on their way out.
    pub async fn pods_of(&self, component: &str) -> Vec<String> {
        let labels = format!("app.kubernetes.io/component={component}");
        let pods = self.pods(OPERATOR).list(&ListParams::default().labels(&labels)).await.expect("listing pods");
        pods.iter()
            .filter(|pod| pod.metadata.deletion_timestamp.is_none())
            .filter(|pod| pod.status.as_ref().and_then(|status| status.phase.as_deref()) == Some("Running"))
            .map(ResourceExt::name_any)
            .collect()
    }

    /// Address of a Service inside the cluster.
    pub async fn address(&self, namespace: &str, service: &str) -> String {
        let services: Api<Service> = Api::namespaced(self.client.clone(), namespace);
        let service = services.get(service).await.expect("the Service is there");
        service.spec.and_then(|spec| spec.cluster_ip).expect("a Service with an address")
    }

    /// The keys of a Secret as text.
    pub async fn secret(&self, namespace: &str, name: &str) -> Option<BTreeMap<String, String>> {
        let secret = self.secrets(namespace).get_opt(name).await.expect("reading a Secret")?;
        let text =
            |(key, value): (String, k8s_openapi::ByteString)| (key, String::from_utf8_lossy(&value.0).into_owned());
        Some(secret.data.unwrap_or_default().into_iter().map(text).collect())
    }

    /// Changes keys of a Secret, as somebody else would.
    pub async fn change_secret(&self, namespace: &str, name: &str, keys: &[(&str, &str)]) {
        let data: BTreeMap<_, _> = keys.iter().copied().collect();
        self.merge(&self.secrets(namespace), name, &serde_json::json!({ "stringData": data })).await;
    }

    /// Merges a patch into an object.
    pub async fn merge<K>(&self, api: &Api<K>, name: &str, patch: &Value)
    where
        K: Resource + Clone + serde::de::DeserializeOwned + Debug,
    {
        let patched = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await;
        patched.unwrap_or_else(|error| panic!("patching {name}: {error}"));
    }

    /// Deletes an object at once, if it is there.
    pub async fn kill<K>(&self, api: &Api<K>, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope> + Clone + serde::de::DeserializeOwned + Debug,
    {
        match api.delete(name, &kube::api::DeleteParams::default().grace_period(0)).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 404 => {}
            Err(error) => panic!("deleting {name}: {error}"),
        }
    }
}
