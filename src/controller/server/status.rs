//! The status of a DatabaseServer.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::reflector::Store;
use serde_json::{Value, json};

use super::Trouble;
use crate::api::condition::{ConditionType, Reason};
use crate::api::server::{ConnectionsStatus, DatabaseServerStatus};
use crate::api::{DatabaseServer, GROUP, VERSION};
use crate::apply::ApplyError;
use crate::controller::context::Context;
use crate::controller::servers::{self, Server};
use crate::desired::names;
use crate::desired::status::condition;

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
        status.connections = connections(context, server).or(status.connections);
        status.warm = i32::try_from(server.warm()).ok();
        status.rotated = server.rotated().or(status.rotated);
        status.schema_version =
            server.facts(0, 0).schema.as_deref().map(|schema| names::schema_version(schema).to_owned());
        if let Some(identity) = server.identity() {
            status.version = Some(identity.version);
            // Kept once known: it is how another server under the same address is noticed.
            status.system_identifier.get_or_insert(identity.system_identifier);
        }
    }
    status.conditions = conditions(object, &before, server, trouble);
    if status == before {
        return Ok(());
    }
    let patch = json!({ "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "DatabaseServer", "metadata": { "name": name }, "status": status });
    patch_status(context, &name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(patch)).await
}

/// Writes how many tenants, promised connections and warm databases there are, when that has changed: between two visits, so
/// that neither a burst of Tenants nor the next operator finds old figures.
///
/// # Errors
/// The API server refused it or did not answer.
pub async fn count(context: &Context, servers: &Store<DatabaseServer>) -> Result<(), ApplyError> {
    for object in servers.state() {
        let name = object.name_any();
        let Some(server) = context.servers.get(&name) else { continue };
        // Before its first visit has written the status there is nothing to keep up to date.
        let Some(before) = &object.status else { continue };
        let tenants = i32::try_from(context.ledger.tenants_on(&name)).ok();
        let warm = i32::try_from(server.warm()).ok();
        let connections = connections(context, &server).or(before.connections);
        if (before.tenants, before.warm, before.connections) == (tenants, warm, connections) {
            continue;
        }
        // Only the figures: conditions are the visit's, whose newest word the cache may not show yet.
        let patch = json!({ "status": { "tenants": tenants, "warm": warm, "connections": connections } });
        let parameters = PatchParams { field_manager: Some(MANAGER.into()), ..PatchParams::default() };
        patch_status(context, &name, &parameters, &Patch::Merge(patch)).await?;
    }
    Ok(())
}

/// What its tenants may open, and how much may be promised; None: the server was not seen yet.
fn connections(context: &Context, server: &Server) -> Option<ConnectionsStatus> {
    let promised = servers::promised(&server.name, &context.ledger, &context.plans);
    Some(ConnectionsStatus { promised, budget: server.facts(0, promised).budget? })
}

async fn patch_status(
    context: &Context,
    name: &str,
    parameters: &PatchParams,
    patch: &Patch<Value>,
) -> Result<(), ApplyError> {
    let api: Api<DatabaseServer> = Api::all(context.client.clone());
    match api.patch_status(name, parameters, patch).await {
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
    let open = server.and_then(|server| server.look(|catalogue| catalogue.open_to_public().join(", ")));
    let isolated = match &open {
        None => (None, Reason::DatabaseUnreachable, "not seen yet".to_owned()),
        Some(open) if open.is_empty() => (Some(true), Reason::Active, "no database lets PUBLIC connect".to_owned()),
        Some(open) => (
            Some(false),
            Reason::PermissionDenied,
            format!("PUBLIC may connect to {open}: REVOKE CONNECT ON DATABASE … FROM PUBLIC"),
        ),
    };
    let ready = trouble.map_or_else(
        || (Some(true), Reason::Active, "tenants are placed on it".to_owned()),
        |trouble| (Some(false), trouble.reason, trouble.message.clone()),
    );
    let (generation, now) = (object.metadata.generation, Timestamp::now());
    let one = |(kind, (value, reason, message)): (_, (_, _, String))| {
        condition(&before.conditions, kind, value, (reason, &message), generation, now)
    };
    [(ConditionType::Ready, ready), (ConditionType::Isolated, isolated)].map(one).into()
}
