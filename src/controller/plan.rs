//! What is counted: how many Tenants have each Plan and lie on each server, written into their status when that has
//! changed for a while.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use kube::api::{Api, Patch, PatchParams};
use kube::runtime::reflector::Store;
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::context::Context;
use super::server::status;
use super::servers;
use crate::api::plan::PlanStatus;
use crate::api::{DatabaseServer, GROUP, Plan, VERSION};
use crate::central::PlanRow;
use crate::error::chain;

/// Field manager of the plan controller.
const MANAGER: &str = "maintenance-os-plan";
/// A burst of Tenants is one or two writes a Plan.
const INTERVAL: Duration = Duration::from_secs(2);

/// Counts until `stop`.
pub async fn count(context: Arc<Context>, objects: Store<DatabaseServer>, stop: CancellationToken) {
    let mut written: HashMap<String, PlanStatus> = HashMap::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(INTERVAL) => {}
            () = stop.cancelled() => return,
        }
        show(&context);
        if let Err(error) = status::count(&context, &objects).await {
            tracing::warn!(error = chain(&error), "could not write how full a DatabaseServer is");
        }
        let mut counts: HashMap<String, i32> = HashMap::new();
        for tenant in context.tenants.state() {
            *counts.entry(tenant.spec.plan_ref.name.clone()).or_default() += 1;
        }
        for plan in context.plans.state() {
            let name = plan.name_any();
            let before = written.get(&name).cloned().or_else(|| plan.status.clone()).unwrap_or_default();
            let mut status = PlanStatus {
                observed_generation: plan.metadata.generation,
                tenants: Some(counts.get(&name).copied().unwrap_or_default()),
                ..before.clone()
            };
            if status == before {
                continue;
            }
            match context.central.upsert_plan(&PlanRow::of(&name, &plan.spec)).await {
                Ok(id) => status.id = Some(id),
                Err(error) => tracing::warn!(
                    plan = name,
                    error = chain(&error),
                    "could not write a Plan into the central database"
                ),
            }
            match write(&context.client, &name, &status).await {
                Ok(()) => drop(written.insert(name, status)),
                Err(error) => {
                    tracing::warn!(plan = name, error = chain(&error), "could not write the status of a Plan");
                }
            }
        }
    }
}

/// Shows the fleet in the operator's figures.
fn show(context: &Context) {
    let mut reasons: HashMap<String, usize> = HashMap::new();
    for tenant in context.tenants.state() {
        let conditions = tenant.status.iter().flat_map(|status| &status.conditions);
        let reason = conditions.filter(|condition| condition.type_ == "Ready").map(|ready| ready.reason.clone()).next();
        *reasons.entry(reason.unwrap_or_else(|| "Unknown".into())).or_default() += 1;
    }
    context.metrics.show_tenants(reasons);
    let mut schemas: HashMap<String, usize> = HashMap::new();
    for tenant in context.tenants.state() {
        let version = tenant.status.as_ref().and_then(|status| status.database.as_ref()?.schema_version.clone());
        if let Some(version) = version {
            *schemas.entry(version).or_default() += 1;
        }
    }
    context.metrics.show_schemas(schemas);
    for server in context.servers.all() {
        let facts = server.facts(
            context.ledger.tenants_on(&server.name),
            servers::promised(&server.name, &context.ledger, &context.plans),
        );
        context.metrics.show_server(&facts, server.warm());
    }
}

async fn write(client: &Client, name: &str, status: &PlanStatus) -> Result<(), kube::Error> {
    let patch = json!({ "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "Plan", "metadata": { "name": name }, "status": status });
    match Api::<Plan>::all(client.clone())
        .patch_status(name, &PatchParams::apply(MANAGER).force(), &Patch::Apply(patch))
        .await
    {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}
