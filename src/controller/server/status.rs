//! The status of a DatabaseServer.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use serde_json::json;

use super::Trouble;
use crate::api::condition::{ConditionType, Reason};
use crate::api::server::DatabaseServerStatus;
use crate::api::{DatabaseServer, GROUP, VERSION};
use crate::apply::ApplyError;
use crate::controller::context::Context;
use crate::controller::servers::Server;
use crate::desired::names;

/// Field manager of the server controller.
const MANAGER: &str = "maintenance-os-server";

/// Writes the status when it says something new.
///
/// # Errors
/// The API server refused it or did not answer.
pub async fn write(
    context: &Context,
    object: &DatabaseServer,
    server: Option<&Server>,
    trouble: Option<&Trouble>,
) -> Result<(), ApplyError> {
    let name = object.name_any();
    let before = object.status.clone().unwrap_or_default();
    let mut status = before.clone();
    status.observed_generation = object.metadata.generation;
    status.tenants = i32::try_from(context.ledger.tenants_on(&name)).ok();
    if let Some(server) = server {
        status.warm = i32::try_from(server.warm()).ok();
        status.schema_version =
            server.facts(0).schema.as_deref().map(|schema| names::schema_version(schema).to_owned());
        if let Some((version, identifier)) = server.identity() {
            status.version = Some(version);
            // Kept once known: it is how another server under the same address is noticed.
            status.system_identifier.get_or_insert(identifier);
        }
    }
    status.conditions = conditions(object, &before, server, trouble);
    if status == before {
        return Ok(());
    }
    let patch = json!({ "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "DatabaseServer", "metadata": { "name": name }, "status": status });
    let api: Api<DatabaseServer> = Api::all(context.client.clone());
    let written = api.patch_status(&name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(patch)).await;
    match written {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        Err(source) => Err(ApplyError::kubernetes(format!("write the status of DatabaseServer {name}"), source)),
    }
}

fn conditions(
    object: &DatabaseServer,
    before: &DatabaseServerStatus,
    server: Option<&Server>,
    trouble: Option<&Trouble>,
) -> Vec<Condition> {
    let open = server
        .and_then(Server::catalogue)
        .map(|catalogue| catalogue.open_to_public().into_iter().map(str::to_owned).collect::<Vec<_>>());
    let isolated = match &open {
        None => ("Unknown", Reason::DatabaseUnreachable, "not seen yet".to_owned()),
        Some(open) if open.is_empty() => ("True", Reason::Active, "no database lets PUBLIC connect".to_owned()),
        Some(open) => (
            "False",
            Reason::PermissionDenied,
            format!("PUBLIC may connect to {}: REVOKE CONNECT ON DATABASE … FROM PUBLIC", open.join(", ")),
        ),
    };
    let ready = trouble.map_or_else(
        || ("True", Reason::Active, "tenants are placed on it".to_owned()),
        |trouble| ("False", trouble.reason, trouble.message.clone()),
    );
    [(ConditionType::Ready, ready), (ConditionType::Isolated, isolated)]
        .into_iter()
        .map(|(kind, (status, reason, message))| {
            let same = before
                .conditions
                .iter()
                .find(|condition| condition.type_ == kind.as_str() && condition.status == status);
            Condition {
                type_: kind.as_str().into(),
                status: status.into(),
                reason: reason.as_str().into(),
                message,
                last_transition_time: same
                    .map_or_else(|| Time(Timestamp::now()), |same| same.last_transition_time.clone()),
                observed_generation: object.metadata.generation,
            }
        })
        .collect()
}
