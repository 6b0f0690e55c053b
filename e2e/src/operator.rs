//! The operator's own pods.

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::Api;
use serde_json::json;

use crate::wait::within;
use crate::world::{OPERATOR, World};

const DEPLOYMENT: &str = "maintenance-os-operator";

impl World {
    /// The operator's Deployment.
    pub fn operator(&self) -> Api<Deployment> {
        Api::namespaced(self.client.clone(), OPERATOR)
    }

    /// How often the operator compares everything again, from its Deployment.
    pub(crate) async fn operator_resync(&self) -> u64 {
        let deployment = self.operator().get(DEPLOYMENT).await.expect("the operator is installed");
        let containers = deployment.spec.template.spec.map(|pod| pod.containers).unwrap_or_default();
        let value = containers
            .iter()
            .flat_map(|container| container.env.iter().flatten())
            .find(|variable| variable.name == "MOS_RESYNC");
        let text = value.and_then(|variable| variable.value.clone()).expect("the operator's MOS_RESYNC");
        let resync = maintenance_os::settings::parse_duration(&text).expect("a duration").as_secs();
        assert!(
            resync <= 30,
            "the operator compares everything every {resync} s, too rarely to wait for it: install it with operator.resync=20s"
        );
        resync
    }

    /// Scales the operator, and waits until as many pods run.
    pub async fn scale_operator(&self, replicas: usize) {
        self.merge(&self.operator(), DEPLOYMENT, &json!({ "spec": { "replicas": replicas } })).await;
        within(60, &format!("{replicas} operators run"), async || {
            let pods = self.pods_of("operator").await;
            if pods.len() == replicas { Ok(()) } else { Err(format!("{pods:?}")) }
        })
        .await;
    }

    /// Who leads, and since which term.
    pub async fn leader(&self) -> (String, i32) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), OPERATOR);
        let lease = leases.get(DEPLOYMENT).await.expect("the operator's Lease").spec.unwrap_or_default();
        (lease.holder_identity.unwrap_or_default(), lease.lease_transitions.unwrap_or_default())
    }

    /// Kills every operator without warning.
    pub async fn kill_operators(&self) {
        for pod in self.pods_of("operator").await {
            self.kill(&self.pods(OPERATOR), &pod).await;
        }
    }

    /// Ends the operator in good order, and waits until another one leads.
    pub async fn restart_operator(&self) {
        let (before, _) = self.leader().await;
        self.pods(OPERATOR)
            .delete(&before, &kube::api::DeleteParams::default())
            .await
            .expect("deleting the operator's pod");
        self.another_leads(60, &before).await;
    }

    /// Waits until somebody else than `before` leads.
    pub async fn another_leads(&self, seconds: u64, before: &str) -> String {
        within(seconds, "another operator leads", async || {
            let (leader, _) = self.leader().await;
            if !leader.is_empty() && leader != before { Ok(leader) } else { Err(format!("{leader:?} leads")) }
        })
        .await
    }
}
