//! Writes to the objects of a tenant's own workers.

use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::{Client, Resource, ResourceExt};
use serde_json::{Value, json};

use super::ApplyError;
use crate::api::condition::Reason;
use crate::api::{ANNOTATION_HASH, ANNOTATION_SCALER, LABEL_TENANT};
use crate::desired::worker_objects::{Scaler, WorkerObjects};

/// Field manager of the tenant controller.
const MANAGER: &str = super::kubernetes::MANAGER;

/// Writes all of them, and last the hash that says so: whoever stops in between begins anew. The Deployment owns the others.
///
/// # Errors
/// A Deployment of that name is not ours; the API server refused it or did not answer.
pub async fn apply(
    client: &Client,
    namespace: &str,
    objects: &WorkerObjects,
    hash: &str,
) -> Result<Deployment, ApplyError> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    let name = &objects.name;
    let failed = |source| ApplyError::kubernetes(format!("write Deployment {namespace}/{name}"), source);
    let found = deployments.get_metadata_opt(name).await.map_err(failed)?;
    if found.is_some_and(|found| !found.labels().contains_key(LABEL_TENANT)) {
        return Err(ApplyError::Held {
            reason: Reason::Conflict,
            message: format!(
                "Deployment {namespace}/{name} exists and was not made for this Tenant: delete or rename it; it is never overwritten. Customers are served, and the shared pool does their jobs"
            ),
        });
    }
    // Before it is scaled away: an autoscaler would start it again.
    for kind in [horizontal(), keda()] {
        if objects.scaler.as_ref().is_none_or(|scaler| scaler.kind() != kind.kind) {
            remove(client, namespace, &kind, name).await?;
        }
    }
    let parameters = PatchParams::apply(MANAGER).force();
    let written = deployments.patch(name, &parameters, &Patch::Apply(&objects.deployment)).await.map_err(failed)?;
    let owner = json!(written.controller_owner_ref(&()));
    put(client, namespace, &service(), name, &objects.service, &owner).await?;
    match &objects.scaler {
        Some(Scaler::Horizontal(scaler)) => put(client, namespace, &horizontal(), name, scaler, &owner).await?,
        Some(Scaler::Keda(scaler)) => put(client, namespace, &keda(), name, scaler, &owner).await?,
        None => {}
    }
    let mut complete = objects.deployment.clone();
    complete["metadata"]["annotations"][ANNOTATION_HASH] = hash.into();
    deployments.patch(name, &parameters, &Patch::Apply(&complete)).await.map_err(failed)
}

/// Forgets the hash of a Deployment whose Service or autoscaler somebody removed: the next visit writes all of them again.
/// Whether something was missing.
///
/// # Errors
/// The API server refused it or did not answer.
pub async fn notice_missing(client: &Client, namespace: &str, deployment: &Deployment) -> Result<bool, ApplyError> {
    let name = deployment.name_any();
    let scaler = deployment.annotations().get(ANNOTATION_SCALER);
    let beside = [service(), horizontal(), keda()];
    let expected = beside.iter().filter(|kind| kind.kind == "Service" || scaler == Some(&kind.kind));
    for kind in expected {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, kind);
        let found = api.get_metadata_opt(&name).await;
        let doing = format!("read {} {namespace}/{name}", kind.kind);
        if found.map_err(|source| ApplyError::kubernetes(doing, source))?.is_none() {
            let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
            let forget = Patch::Merge(
                json!({ "metadata": { "uid": deployment.metadata.uid, "annotations": { ANNOTATION_HASH: null } } }),
            );
            let forgotten = deployments.patch(&name, &PatchParams::default(), &forget).await;
            let doing = format!("note on Deployment {namespace}/{name} that its {} is missing", kind.kind);
            forgotten.map_err(|source| ApplyError::kubernetes(doing, source))?;
            return Ok(true);
        }
    }
    Ok(false)
}

/// Removes them: the Deployment, and what it owns goes with it. Jobs that have begun end, for as long as the pods may take.
///
/// # Errors
/// The API server refused it or did not answer; what is gone is no error.
pub async fn delete(client: &Client, namespace: &str, name: &str) -> Result<(), ApplyError> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), namespace);
    match deployments.delete(name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(ApplyError::kubernetes(format!("delete Deployment {namespace}/{name}"), source)),
    }
}

fn service() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Service"))
}

fn horizontal() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("autoscaling", "v2", "HorizontalPodAutoscaler"))
}

fn keda() -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk("keda.sh", "v1alpha1", "ScaledObject"))
}

async fn put(
    client: &Client,
    namespace: &str,
    kind: &ApiResource,
    name: &str,
    object: &Value,
    owner: &Value,
) -> Result<(), ApplyError> {
    let mut object = object.clone();
    object["metadata"]["ownerReferences"] = json!([owner]);
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, kind);
    let applied = api.patch(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await;
    applied
        .map(drop)
        .map_err(|source| ApplyError::kubernetes(format!("write {} {namespace}/{name}", kind.kind), source))
}

/// What is not there, or whose kind is not, is removed.
async fn remove(client: &Client, namespace: &str, kind: &ApiResource, name: &str) -> Result<(), ApplyError> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, kind);
    match api.delete(name, &DeleteParams::background()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(ApplyError::kubernetes(format!("delete {} {namespace}/{name}", kind.kind), source)),
    }
}
