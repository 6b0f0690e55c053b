//! Writes to the edge: Ingresses, routes and listeners of the customers' own hosts.

use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, Preconditions};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use super::ApplyError;
use crate::api::ANNOTATION_HASH;
use crate::desired::credentials;
use crate::desired::edge::{EdgeObject, Kind};

/// Field manager of the edge.
const MANAGER: &str = "maintenance-os-edge";

/// A kind, for clients that know no types of it.
pub fn resource(kind: Kind) -> ApiResource {
    let (group, name, plural) = kind.names();
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, "v1", name), plural)
}

/// The Gateway's.
pub fn gateway_resource() -> ApiResource {
    ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("gateway.networking.k8s.io", "v1", "Gateway"), "gateways")
}

/// Hash of an object as it is wanted, which is noted on it.
pub fn hash(object: &Value) -> String {
    credentials::hash(&[("object".to_owned(), object.to_string())].into())
}

/// Applies an object.
///
/// # Errors
/// The API server refused it or did not answer.
pub async fn apply(client: &Client, namespace: &str, wanted: &EdgeObject, hash: &str) -> Result<(), ApplyError> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource(wanted.kind));
    let mut object = wanted.object.clone();
    object["metadata"]["annotations"][ANNOTATION_HASH] = json!(hash);
    let applied = api.patch(&wanted.name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await;
    let (_, kind, _) = wanted.kind.names();
    applied
        .map(drop)
        .map_err(|source| ApplyError::kubernetes(format!("apply {kind} {namespace}/{}", wanted.name), source))
}

/// Removes an object of ours that is not wanted any more; none of that uid any more: it is done.
///
/// # Errors
/// The API server refused it or did not answer.
pub async fn remove(client: &Client, namespace: &str, kind: Kind, found: &impl ResourceExt) -> Result<(), ApplyError> {
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource(kind));
    let parameters = DeleteParams {
        preconditions: Some(Preconditions { uid: found.uid(), resource_version: None }),
        ..DeleteParams::default()
    };
    let name = found.name_any();
    match api.delete(&name, &parameters).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
        Err(source) => Err(ApplyError::kubernetes(format!("remove {} {namespace}/{name}", kind.names().1), source)),
    }
}

/// Makes these the listeners of ours on the Gateway; those of others stay.
///
/// # Errors
/// The API server refused it or did not answer.
pub async fn set_listeners(
    client: &Client,
    namespace: &str,
    gateway: &DynamicObject,
    listeners: &[Value],
) -> Result<(), ApplyError> {
    let name = gateway.name_any();
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &gateway_resource());
    // The uid, so that a Gateway that was taken away meanwhile is not made anew with nothing but these.
    let object = json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
        "metadata": { "name": name, "uid": gateway.uid() }, "spec": { "listeners": listeners },
    });
    let applied = api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await;
    applied
        .map(drop)
        .map_err(|source| ApplyError::kubernetes(format!("set the listeners of Gateway {namespace}/{name}"), source))
}

/// The listeners on a Gateway that are not ours. Ours are named like their hosts' objects.
pub fn foreign_listeners(gateway: &DynamicObject) -> (usize, Vec<String>) {
    let listeners = gateway.data.pointer("/spec/listeners").and_then(Value::as_array);
    let names = listeners.into_iter().flatten().filter_map(|listener| listener["name"].as_str());
    let (ours, others): (Vec<_>, Vec<_>) = names.partition(|name| name.starts_with("host-"));
    (others.len(), ours.into_iter().map(str::to_owned).collect())
}
