//! Tenants that cannot be read: stored under another schema than this operator's. They are told so and left alone.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::api::{Api, Patch, PatchParams};
use kube::core::error_boundary::InvalidObject;
use kube::core::{ApiResource, DynamicObject};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::sync::mpsc;

use super::context::Context;
use crate::api::Tenant;
use crate::api::condition::{ConditionType, Reason};
use crate::apply::ApplyError;
use crate::apply::kubernetes::MANAGER;
use crate::error::chain;

/// Tells each of them, until the operator ends.
pub async fn tell(context: Arc<Context>, mut undecodable: mpsc::UnboundedReceiver<InvalidObject>) {
    while let Some(object) = undecodable.recv().await {
        let written = tell_one(&context.client, &object);
        if let Err(error) = context.gate.pass("write the status of a Tenant that cannot be read", written).await {
            tracing::warn!(error = chain(&error), "could not tell a Tenant that it cannot be read");
        }
    }
}

async fn tell_one(client: &Client, invalid: &InvalidObject) -> Result<(), ApplyError> {
    let (namespace, name) =
        (invalid.metadata.namespace.clone().unwrap_or_default(), invalid.metadata.name.clone().unwrap_or_default());
    let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), &namespace, &ApiResource::erase::<Tenant>(&()));
    let failed = |source| ApplyError::kubernetes(format!("write the status of Tenant {namespace}/{name}"), source);
    let Some(found) = api.get_opt(&name).await.map_err(failed)? else { return Ok(()) };
    let before = found.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
    let wanted = conditions(invalid, &namespace, &name);
    // Our own write comes back by the watch: what is said already is not said again.
    let said = |condition: &Condition| {
        before.iter().any(|before| {
            before["type"] == condition.type_
                && before["message"] == condition.message
                && before["status"] == condition.status
        })
    };
    if found.metadata.uid != invalid.metadata.uid || wanted.iter().all(said) {
        return Ok(());
    }
    let others = before.into_iter().filter(|before| wanted.iter().all(|condition| before["type"] != condition.type_));
    let all: Vec<_> = wanted.iter().map(|condition| json!(condition)).chain(others).collect();
    let patch = json!({
        "metadata": { "uid": found.metadata.uid, "resourceVersion": found.resource_version() },
        "status": { "conditions": all, "observedGeneration": invalid.metadata.generation },
    });
    let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
    match api.patch_status(&name, &parameters, &Patch::Merge(patch)).await {
        Ok(_) => Ok(()),
        // Gone, or changed: then the watch shows it again.
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(source) => Err(failed(source)),
    }
}

fn conditions(invalid: &InvalidObject, namespace: &str, name: &str) -> Vec<Condition> {
    let message = format!(
        "this Tenant cannot be read; nothing is changed for it and its customers are served as before. Put it right (kubectl edit tenants.tenancy.maintenance-os.com {name} -n {namespace}): {}",
        invalid.error
    );
    [(ConditionType::Ready, false), (ConditionType::Reconciling, false), (ConditionType::Stalled, true)]
        .map(|(kind, status)| Condition {
            type_: kind.as_str().into(),
            status: if status { "True" } else { "False" }.into(),
            reason: Reason::InvalidSpec.as_str().into(),
            message: if kind == ConditionType::Reconciling { String::new() } else { message.clone() },
            last_transition_time: Time(Timestamp::now()),
            observed_generation: invalid.metadata.generation,
        })
        .into()
}
