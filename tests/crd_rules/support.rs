//! The API server, and waiting for it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};

/// For everything that takes effect some time after it was written: definitions, policies, roles.
const DEADLINE: Duration = Duration::from_secs(30);

pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `make test-code`, or `e2e/cluster/apiserver-local.sh start` and source the file it names")
    })
}

pub fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Asks until there is an answer; what was in the way last is told when the time is up.
pub async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(why) => assert!(Instant::now() < deadline, "not within {} s: {what}: {why}", DEADLINE.as_secs()),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn config() -> Config {
    let kubeconfig = Kubeconfig::read_from(variable("MOS_TEST_KUBECONFIG")).unwrap();
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

/// The administrator of a server that serves this repository's definitions.
pub async fn administrator() -> Client {
    let client = Client::try_from(config().await).unwrap();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in ["tenants", "plans", "databaseservers", "schemarollouts", "tenantbackups", "tenantrestores"] {
        let definition = definition(name);
        let name = definition.metadata.name.clone().unwrap();
        let apply = PatchParams::apply("crd-rules").force();
        definitions.patch(&name, &apply, &Patch::Apply(&definition)).await.unwrap();
        until("the definition is established", async || {
            let conditions = definitions.get(&name).await.unwrap().status.and_then(|status| status.conditions);
            let established = |condition: &&_| is_established(condition);
            conditions.iter().flatten().find(established).map(drop).ok_or_else(|| format!("{conditions:?}"))
        })
        .await;
    }
    client
}

fn is_established(
    condition: &k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinitionCondition,
) -> bool {
    condition.type_ == "Established" && condition.status == "True"
}

/// Somebody without any right but those that are bound to the name.
pub async fn user(name: &str) -> Client {
    let mut config = config().await;
    config.auth_info.impersonate = Some(name.to_owned());
    Client::try_from(config).unwrap()
}

/// The definition in this repository.
pub fn definition(plural: &str) -> CustomResourceDefinition {
    let path = repository(&format!("crds/{plural}.tenancy.maintenance-os.com.yaml"));
    serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap()
}

/// A namespace that no other run has. Nothing ends namespaces on this server; they go with its data.
pub async fn namespace(client: &Client, prefix: &str) -> String {
    let name = format!("{prefix}-{}", uuid::Uuid::new_v4().simple());
    let namespace = Namespace {
        metadata: kube::core::ObjectMeta { name: Some(name.clone()), ..Default::default() },
        ..Default::default()
    };
    Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
    name
}

/// Message of a refusal; an error that is none fails the test.
pub fn refusal(error: kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => panic!("the API server did not answer: {other}"),
    }
}
