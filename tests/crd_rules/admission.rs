//! The chart's admission policies and roles, rendered by Helm, as the API server applies them.

use std::process::Command;

use kube::api::{
    ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Api, Client};
use serde_json::{Value, json};

use super::support::{administrator, namespace, refusal, repository, until, user, variable};
use super::{restore, tenant};

const UUID: &str = "7b0f3c52-5d0e-4b9e-9a55-0d1a2c7f1e11";

/// What a template of the chart renders to, with the chart's own values.
fn rendered(template: &str) -> Vec<DynamicObject> {
    let helm = Command::new(variable("MOS_TEST_HELM"))
        .args(["template", "maintenance-os"])
        .arg(repository("charts/maintenance-os"))
        .args(["--namespace", "maintenance-os", "--show-only", &format!("templates/{template}")])
        .output()
        .unwrap();
    assert!(helm.status.success(), "{}", String::from_utf8_lossy(&helm.stderr));
    let text = String::from_utf8(helm.stdout).unwrap();
    let documents = text.split("\n---").filter(|document| document.lines().any(|line| line.starts_with("kind:")));
    documents.map(|document| serde_saphyr::from_str(document.trim_start_matches("---")).unwrap()).collect()
}

/// A server with the definitions, the policies and the roles that people get.
async fn guarded() -> Client {
    let client = administrator().await;
    let objects: Vec<_> = ["admission-policies.yaml", "user-roles.yaml"].into_iter().flat_map(rendered).collect();
    assert_eq!(objects.len(), 6 + 3, "three policies with their bindings, three roles");
    for object in objects {
        let types = object.types.clone().unwrap();
        let (group, version) = types.api_version.split_once('/').unwrap();
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, &types.kind));
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let name = object.metadata.name.clone().unwrap();
        api.patch(&name, &PatchParams::apply("crd-rules").force(), &Patch::Apply(&object)).await.unwrap();
    }
    client
}

async fn create(client: &Client, namespace: &str, name: &str, spec: Value) -> Result<(), String> {
    let mut object = tenant::kind().smallest;
    object["metadata"]["name"] = json!(name);
    object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let object = serde_json::from_value(object).unwrap();
    tenant::kind().api(client, Some(namespace)).create(&PostParams::default(), &object).await.map(drop).map_err(refusal)
}

async fn bind(client: &Client, namespace: &str, role: &str, user: &str) {
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": format!("{role}-{user}")},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}]
    });
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("rbac.authorization.k8s.io", "v1", "RoleBinding"));
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
    api.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
}

#[tokio::test]
async fn a_protected_tenant_is_deleted_only_after_the_protection_was_taken_off() {
    let client = guarded().await;
    let space = namespace(&client, "protected").await;
    let api = tenant::kind().api(&client, Some(&space));
    let dry = DeleteParams { dry_run: true, ..DeleteParams::default() };
    create(&client, &space, "kept", json!({"deletionProtection": true})).await.unwrap();
    create(&client, &space, "plain", json!({})).await.unwrap();

    // A policy that was just written takes effect a moment later.
    let message = until("the delete is refused", async || match api.delete("kept", &dry).await {
        Ok(_) => Err("accepted".to_owned()),
        Err(error) => Ok(refusal(error)),
    })
    .await;
    let says = [
        format!("Tenant {space}/kept is protected; nothing was deleted and its customers are not affected"),
        format!(
            "kubectl patch tenants.tenancy.maintenance-os.com kept -n {space} --type=merge -p '{{\"spec\":{{\"deletionProtection\":false}}}}'"
        ),
    ];
    assert!(says.iter().all(|words| message.contains(words)), "{message}");

    // As the controller of namespaces does it when a namespace goes.
    let all = api.delete_collection(&DeleteParams::default(), &ListParams::default()).await.map(drop);
    assert!(refusal(all.unwrap_err()).contains("is protected"));
    api.get("kept").await.unwrap();

    let unprotect = json!({"spec": {"deletionProtection": false}});
    api.patch("kept", &PatchParams::default(), &Patch::Merge(unprotect)).await.unwrap();
    api.delete("kept", &DeleteParams::default()).await.unwrap();
    assert_eq!(api.get_opt("kept").await.unwrap(), None);
}

#[tokio::test]
async fn data_is_taken_over_only_with_the_right_to_adopt_in_that_namespace() {
    let client = guarded().await;
    let (own, other) = (namespace(&client, "adopting").await, namespace(&client, "foreign").await);
    let name = format!("alice-{own}");
    let alice = user(&name).await;
    for namespace in [&own, &other] {
        bind(&client, namespace, "maintenance-os-edit", &name).await;
    }
    until("the role to edit is bound", async || {
        create(&alice, &other, "fresh", json!({})).await?;
        create(&alice, &own, "fresh", json!({})).await
    })
    .await;

    let adopt = json!({"uuid": UUID});
    let refused = async |namespace: &str, name: &str| {
        create(&alice, namespace, name, adopt.clone()).await.err().ok_or_else(|| "accepted".to_owned())
    };
    let attempt = std::sync::atomic::AtomicU32::new(0);
    let message = until("adoption without the right is refused", async || {
        let number = attempt.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        refused(&own, &format!("stolen-{number}")).await
    })
    .await;
    let says = [
        format!(
            "spec.uuid takes over data that is already there, and {name} has no right to the verb adopt on tenants.tenancy.maintenance-os.com in namespace {own}"
        ),
        "Leave spec.uuid out for a new, empty tenant".to_owned(),
        format!("kubectl create rolebinding adopt -n {own} --clusterrole=maintenance-os-adopt --user={name}"),
    ];
    assert!(says.iter().all(|words| message.contains(words)), "{message}");

    bind(&client, &own, "maintenance-os-adopt", &name).await;
    until("adoption with the right is accepted", async || create(&alice, &own, "adopted", adopt.clone()).await).await;
    let message = refused(&other, "stolen").await.unwrap();
    assert!(
        message.contains(&format!("in namespace {other}")),
        "a right in one namespace is none in another: {message}"
    );
}

#[tokio::test]
async fn another_tenants_backup_is_cloned_only_with_the_right_to_adopt_in_that_namespace() {
    let client = guarded().await;
    let own = namespace(&client, "cloning").await;
    let name = format!("alice-{own}");
    let alice = user(&name).await;
    bind(&client, &own, "maintenance-os-edit", &name).await;
    let create = async |name: &str, spec: Value| {
        let mut object = restore::kind().smallest;
        object["metadata"]["name"] = json!(name);
        object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        let object = serde_json::from_value(object).unwrap();
        let api = restore::kind().api(&alice, Some(&own));
        api.create(&PostParams { dry_run: true, field_manager: None }, &object).await.map(drop).map_err(refusal)
    };
    let clone = json!({"clone": true, "sourceTenant": UUID});
    until("the role to edit is bound", async || create("own", json!({})).await).await;
    let message = until("a clone without the right is refused", async || {
        create("clone", clone.clone()).await.err().ok_or_else(|| "accepted".to_owned())
    })
    .await;
    assert!(
        message.contains(&format!("spec.clone restores another tenant's backup, and {name} has no right")),
        "{message}"
    );
    create("own", json!({})).await.unwrap();
    bind(&client, &own, "maintenance-os-adopt", &name).await;
    until("a clone with the right is accepted", async || create("clone", clone.clone()).await).await;
}
