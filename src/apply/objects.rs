//! Writes to the operator's own objects: whatever has a name in its namespace.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ApplyError;
use crate::api::ANNOTATION_HASH;
use crate::desired::credentials;

/// Field manager of everything that is not a tenant's.
const MANAGER: &str = "maintenance-os-fleet";

/// Applies an object of the operator's namespace, unless one with the same hash is there already.
///
/// # Errors
/// The API server refused it or did not answer.
pub async fn apply<K>(client: &Client, namespace: &str, mut object: K) -> Result<(), ApplyError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let name = object.name_any();
    let kind = K::kind(&()).into_owned();
    let hash = hash(&object)?;
    let found = api
        .get_metadata_opt(&name)
        .await
        .map_err(|source| ApplyError::kubernetes(format!("read {kind} {namespace}/{name}"), source))?;
    if found.is_some_and(|found| found.annotations().get(ANNOTATION_HASH) == Some(&hash)) {
        return Ok(());
    }
    object.annotations_mut().insert(ANNOTATION_HASH.into(), hash);
    let applied = api.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&object)).await;
    applied.map(drop).map_err(|source| ApplyError::kubernetes(format!("apply {kind} {namespace}/{name}"), source))
}

/// Creates an object of the operator's namespace whose name says all that it is for; one of that name is left as it is.
///
/// # Errors
/// The API server refused it or did not answer.
pub async fn create<K>(client: &Client, namespace: &str, object: &K) -> Result<(), ApplyError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + Serialize
        + DeserializeOwned,
{
    let parameters = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
    match Api::<K>::namespaced(client.clone(), namespace).create(&parameters, object).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(source) => {
            let name = object.name_any();
            Err(ApplyError::kubernetes(format!("create {} {namespace}/{name}", K::kind(&())), source))
        }
    }
}

/// Whether an object is there as we would write it, as far as its note says.
pub fn is_same<K: Resource<DynamicType = ()> + Serialize>(known: &ObjectMeta, object: &K) -> bool {
    let noted = known.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION_HASH));
    hash(object).is_ok_and(|hash| noted == Some(&hash))
}

fn hash<K: Resource<DynamicType = ()> + Serialize>(object: &K) -> Result<String, ApplyError> {
    let text = serde_json::to_string(object).map_err(|source| {
        let (kind, name) = (K::kind(&()), object.meta().name.as_deref().unwrap_or_default());
        ApplyError::kubernetes(format!("write {kind} {name} as JSON"), kube::Error::SerdeError(source))
    })?;
    Ok(credentials::hash(&[("object".to_owned(), text)].into()))
}

/// Removes an object of the operator's namespace; one that is gone is no error.
///
/// # Errors
/// The API server refused it or did not answer.
pub async fn remove<K>(client: &Client, namespace: &str, name: &str, how: &DeleteParams) -> Result<(), ApplyError>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned,
{
    match Api::<K>::namespaced(client.clone(), namespace).delete(name, how).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(ApplyError::kubernetes(format!("remove {} {namespace}/{name}", K::kind(&())), source)),
    }
}

/// Creates a Secret of the operator's namespace or, where it carries the version that was read, replaces it.
///
/// # Errors
/// Somebody else was faster; the API server refused it or did not answer.
pub async fn put_secret(client: &Client, namespace: &str, secret: &Secret) -> Result<Secret, ApplyError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let name = secret.name_any();
    let parameters = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
    let written = match secret.metadata.resource_version {
        None => api.create(&parameters, secret).await,
        Some(_) => api.replace(&name, &parameters, secret).await,
    };
    written.map_err(|source| ApplyError::kubernetes(format!("write Secret {namespace}/{name}"), source))
}
