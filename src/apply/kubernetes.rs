//! Writes to Tenant objects and to the binding Secrets beside them.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::core::PartialObjectMeta;
use kube::{Client, Resource, ResourceExt};
use serde_json::json;

use super::ApplyError;
use crate::api::condition::Reason;
use crate::api::tenant::TenantStatus;
use crate::api::{ANNOTATION_HASH, FINALIZER, GROUP, LABEL_TENANT, MANAGED_BY, Tenant, VERSION};
use crate::desired::names;

/// Field manager of the tenant controller.
pub const MANAGER: &str = "maintenance-os-tenant";

fn api(client: &Client, tenant: &Tenant) -> Api<Tenant> {
    Api::namespaced(client.clone(), &tenant.namespace().unwrap_or_default())
}

fn title(tenant: &Tenant) -> String {
    format!("Tenant {}/{}", tenant.namespace().unwrap_or_default(), tenant.name_any())
}

/// Reads a Tenant from the API server itself; None: it is gone, or another one has its name.
///
/// # Errors
/// The API server did not answer.
pub async fn fresh(client: &Client, tenant: &Tenant) -> Result<Option<Tenant>, ApplyError> {
    let found = api(client, tenant).get_opt(&tenant.name_any()).await;
    let found = found.map_err(|source| ApplyError::kubernetes(format!("read {}", title(tenant)), source))?;
    Ok(found.filter(|found| found.metadata.uid == tenant.metadata.uid))
}

/// Adds or removes our finalizer; None: the object is gone.
///
/// The patch names the uid and the resource version that were seen, so that it can hit neither another object of the
/// same name nor finalizers that somebody else changed meanwhile.
///
/// # Errors
/// The API server refused it or did not answer.
pub async fn set_finalizer(client: &Client, tenant: &Tenant, held: bool) -> Result<Option<Tenant>, ApplyError> {
    let mut finalizers: Vec<_> =
        tenant.finalizers().iter().filter(|finalizer| *finalizer != FINALIZER).cloned().collect();
    if held {
        finalizers.push(FINALIZER.into());
    }
    let patch = json!({ "metadata": {
        "uid": tenant.metadata.uid, "resourceVersion": tenant.metadata.resource_version, "finalizers": finalizers,
    }});
    let doing = format!("{} the finalizer of {}", if held { "set" } else { "remove" }, title(tenant));
    match api(client, tenant).patch(&tenant.name_any(), &PatchParams::default(), &Patch::Merge(patch)).await {
        Ok(tenant) => Ok(Some(tenant)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(kube::Error::Api(status)) if status.code == 409 => {
            Err(ApplyError::Stale(format!("{} has changed", title(tenant))))
        }
        Err(source) => Err(ApplyError::kubernetes(doing, source)),
    }
}

/// Writes the status.
///
/// # Errors
/// The API server refused it or did not answer; an object that is gone is no error.
pub async fn write_status(client: &Client, tenant: &Tenant, status: &TenantStatus) -> Result<(), ApplyError> {
    let patch = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Tenant",
        "metadata": { "name": tenant.name_any(), "uid": tenant.metadata.uid },
        "status": status,
    });
    let parameters = PatchParams::apply(MANAGER).force();
    match api(client, tenant).patch_status(&tenant.name_any(), &parameters, &Patch::Apply(patch)).await {
        Ok(_) => Ok(()),
        // Gone, or another object of the same name.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(source) => Err(ApplyError::kubernetes(format!("write the status of {}", title(tenant)), source)),
    }
}

/// A Secret beside a Tenant.
pub struct Beside<'a> {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_: &'static str,
    /// Its keys.
    pub data: &'a BTreeMap<String, String>,
    /// Hash of what it is for, noted on it.
    pub hash: &'a str,
}

impl<'a> Beside<'a> {
    /// The binding Secret, as servicebinding.io has it.
    pub fn binding(tenant: &Tenant, data: &'a BTreeMap<String, String>, hash: &'a str) -> Self {
        Self { name: names::binding(&tenant.name_any()), type_: "servicebinding.io/postgresql", data, hash }
    }

    /// The welcome Secret.
    pub fn welcome(tenant: &Tenant, data: &'a BTreeMap<String, String>, hash: &'a str) -> Self {
        Self { name: names::welcome(&tenant.name_any()), type_: "Opaque", data, hash }
    }
}

/// Writes a Secret beside a Tenant. `is_new`: none of ours was seen; then one that is there is taken for ours only if it
/// says so.
///
/// # Errors
/// A Secret of that name is not ours; the API server refused it or did not answer.
pub async fn write_secret(
    client: &Client,
    tenant: &Tenant,
    uuid: uuid::Uuid,
    wanted: Beside<'_>,
    is_new: bool,
) -> Result<Secret, ApplyError> {
    let Beside { name, type_, data, hash } = wanted;
    let namespace = tenant.namespace().unwrap_or_default();
    let mut secret = Secret {
        type_: Some(type_.into()),
        data: Some(data.iter().map(|(key, value)| (key.clone(), ByteString(value.clone().into_bytes()))).collect()),
        ..Secret::default()
    };
    secret.metadata.name = Some(name.clone());
    secret.metadata.labels = Some(
        [("app.kubernetes.io/managed-by".into(), MANAGED_BY.into()), (LABEL_TENANT.into(), uuid.to_string())].into(),
    );
    secret.metadata.annotations = Some([(ANNOTATION_HASH.into(), hash.into())].into());
    secret.metadata.owner_references = Some(tenant.controller_owner_ref(&()).into_iter().collect());
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &namespace);
    let failed = |source| ApplyError::kubernetes(format!("write Secret {namespace}/{name}"), source);
    if is_new {
        // The watch shows Secrets with our label only: what else has the name must not be overwritten.
        let parameters = PostParams { field_manager: Some(MANAGER.into()), ..PostParams::default() };
        match secrets.create(&parameters, &secret).await {
            Err(kube::Error::Api(status)) if status.code == 409 => ours_or_conflict(&secrets, tenant, &name).await?,
            other => return other.map_err(failed),
        }
    }
    secrets.patch(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(&secret)).await.map_err(failed)
}

async fn ours_or_conflict(secrets: &Api<Secret>, tenant: &Tenant, name: &str) -> Result<(), ApplyError> {
    let found = secrets.get_metadata_opt(name).await;
    let found = found.map_err(|source| ApplyError::kubernetes(format!("read Secret {name}"), source))?;
    let is_ours = |secret: &PartialObjectMeta<Secret>| {
        let owners = secret.metadata.owner_references.iter().flatten();
        owners
            .into_iter()
            .any(|owner| Some(&owner.uid) == tenant.metadata.uid.as_ref() && owner.controller == Some(true))
    };
    if found.as_ref().is_none_or(is_ours) {
        return Ok(());
    }
    Err(ApplyError::Held {
        reason: Reason::Conflict,
        message: format!(
            "Secret {name} exists and was not made for this Tenant: delete or rename it; it is never overwritten"
        ),
    })
}
