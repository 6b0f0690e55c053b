//! Another app beside the installed one, with other settings: it serves the same tenants and is no endpoint of the Service.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::EnvVar;
use kube::api::{Api, DeleteParams, ListParams, ObjectMeta, PostParams};

use crate::wait::within;
use crate::world::{OPERATOR, World};

/// The installed one.
const APP: &str = "maintenance-os-app";

impl World {
    /// Starts one pod of the installed app's image with these variables instead of the ones of that name; the world as
    /// it is seen through it. An empty value leaves the variable out.
    pub async fn app_with(&self, name: &str, variables: &[(&str, &str)]) -> Self {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), OPERATOR);
        let mut deployment = api.get(APP).await.expect("the app is installed");
        let labels = BTreeMap::from([("app".to_owned(), name.to_owned())]);
        deployment.metadata =
            ObjectMeta { name: Some(name.to_owned()), labels: Some(labels.clone()), ..ObjectMeta::default() };
        deployment.status = None;
        let spec = &mut deployment.spec;
        spec.replicas = Some(1);
        spec.selector.match_labels = Some(labels.clone());
        spec.template.metadata = Some(ObjectMeta { labels: Some(labels), ..ObjectMeta::default() });
        let pod = spec.template.spec.as_mut().expect("a pod");
        pod.topology_spread_constraints = None;
        let environment = pod.containers[0].env.get_or_insert_default();
        environment.retain(|variable| !variables.iter().any(|(name, _)| *name == variable.name));
        environment.extend(variables.iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| EnvVar {
            name: (*name).to_owned(),
            value: Some((*value).to_owned()),
            value_from: None,
        }));
        self.stop_app(name).await;
        api.create(&PostParams::default(), &deployment).await.expect("making another app");
        let address = within(60, &format!("{name} is ready"), async || {
            let pods = self.pods(OPERATOR).list(&ListParams::default().labels(&format!("app={name}"))).await;
            let pod = pods.map_err(|error| error.to_string())?.items.pop().ok_or("no pod")?;
            let status = pod.status.unwrap_or_default();
            let is_ready = status.conditions.iter().flatten().any(|one| one.type_ == "Ready" && one.status == "True");
            if is_ready { status.pod_ip.ok_or_else(|| "no address".to_owned()) } else { Err(format!("{status:?}")) }
        })
        .await;
        Self { entry: format!("http://{address}:9000"), ..Self::open().await }
    }

    /// Ends it.
    pub async fn stop_app(&self, name: &str) {
        let api: Api<Deployment> = Api::namespaced(self.client.clone(), OPERATOR);
        let _ = api.delete(name, &DeleteParams::foreground()).await;
        within(60, &format!("{name} is gone"), async || match api.get_opt(name).await {
            Ok(None) => Ok(()),
            other => Err(format!("{:?}", other.map(|found| found.map(|found| found.metadata.name)))),
        })
        .await;
    }
}
