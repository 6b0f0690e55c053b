//! What the app needs, stopped and started again.

use k8s_openapi::api::apps::v1::StatefulSet;
use kube::api::{Api, ListParams};
use serde_json::json;

use crate::wait::within;
use crate::world::{DATABASES, OPERATOR, PLATFORM, SERVER, World};

/// A part of the demo that can be away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// Cache, sessions, limits.
    Redis,
    /// Files.
    S3,
    /// The way to the databases.
    Pooler,
    /// The databases.
    Postgres,
}

impl Outage {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Redis, Self::S3, Self::Pooler, Self::Postgres];

    /// Namespace, and label of the pods.
    fn pods(self) -> (&'static str, String) {
        match self {
            Self::Redis => (DATABASES, "app=redis".into()),
            Self::S3 => (PLATFORM, "app=s3".into()),
            Self::Pooler => {
                (OPERATOR, format!("app.kubernetes.io/name=pooler,tenancy.maintenance-os.com/server={SERVER}"))
            }
            Self::Postgres => (DATABASES, format!("app={SERVER}")),
        }
    }
}

impl World {
    /// Stops a part, and waits until none of its pods is left.
    pub async fn begin_outage(&self, outage: Outage) {
        self.set_replicas(outage, 0).await;
        within(60, &format!("{outage:?} is stopped"), async || {
            let (namespace, label) = outage.pods();
            let pods = self.pods(namespace).list(&ListParams::default().labels(&label)).await;
            let left = pods.map_err(|error| error.to_string())?.items.len();
            if left == 0 { Ok(()) } else { Err(format!("{left} pods")) }
        })
        .await;
    }

    /// Starts it again; nobody waits for it here.
    pub async fn end_outage(&self, outage: Outage) {
        self.set_replicas(outage, 1).await;
    }

    async fn set_replicas(&self, outage: Outage, replicas: u32) {
        let set = |namespace| -> Api<StatefulSet> { Api::namespaced(self.client.clone(), namespace) };
        let replicas = json!({ "spec": { "replicas": replicas } });
        match outage {
            Outage::Redis => self.merge(&set(DATABASES), "redis", &replicas).await,
            Outage::S3 => self.merge(&set(PLATFORM), "s3", &replicas).await,
            Outage::Postgres => self.merge(&set(DATABASES), SERVER, &replicas).await,
            // The operator runs it, and would put its Deployment right.
            Outage::Pooler => {
                let replicas = json!({ "spec": { "pooler": { "replicas": replicas["spec"]["replicas"] } } });
                self.merge(&self.servers(), SERVER, &replicas).await;
            }
        }
    }

    /// How often the app's containers were started anew.
    pub async fn app_restarts(&self) -> i32 {
        let labels = ListParams::default().labels("app.kubernetes.io/component=app");
        let pods = self.pods(OPERATOR).list(&labels).await.expect("listing pods");
        let statuses = pods.into_iter().filter_map(|pod| pod.status?.container_statuses).flatten();
        statuses.map(|status| status.restart_count).sum()
    }
}
