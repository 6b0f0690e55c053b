//! Say: how far a restore is, in its status and in Events on its Tenant.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::facts::reference;
use crate::api::condition::{ConditionType, Reason};
use crate::api::tenant_restore::{RestorePhase, TenantRestoreStatus};
use crate::api::{GROUP, TenantRestore, VERSION};
use crate::apply::ApplyError;
use crate::controller::context::Context;
use crate::desired::names;
use crate::desired::restore::{self, Facts, Outlook, Whose};
use crate::desired::status::condition;
use crate::error::chain;

/// Field manager of restores.
const MANAGER: &str = "maintenance-os-restore";

/// The status that it is to have.
fn status(object: &TenantRestore, facts: &Facts, outlook: &Outlook) -> TenantRestoreStatus {
    let mut status = object.status.clone().unwrap_or_default();
    status.observed_generation = object.metadata.generation;
    status.phase = outlook.phase;
    if let Whose::Known(target) = &facts.whose {
        status.tenant = Some(target.uuid.to_string());
    }
    if let Some(restored) = &outlook.restored {
        let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        status.backup = Some(restored.backup.clone());
        status.size = Some(number(restored.size));
        status.sha256 = Some(restored.sha256.clone());
        status.backup_schema_version = Some(names::schema_version(&restored.schema).to_owned());
        status.rows = Some(restored.rows);
        status.live_rows = restored.live_rows;
        status.tables.clone_from(&restored.tables);
        status.tables_left_out = (restored.left_out > 0).then_some(restored.left_out);
    }
    if let Some(schema) = &outlook.schema {
        status.schema_version = Some(names::schema_version(schema).to_owned());
    }
    let is_beside =
        matches!(outlook.phase, RestorePhase::Restoring | RestorePhase::AwaitingApproval | RestorePhase::Swapping);
    status.database = is_beside.then(|| names::beside(restore::uid(object)));
    if outlook.replaced.is_some() {
        status.replaced.clone_from(&outlook.replaced);
    }
    if outlook.phase != RestorePhase::Pending {
        status.started_at = status.started_at.or(Some(Time(facts.now)));
    }
    if outlook.phase.is_over() {
        status.ended_at = status.ended_at.or(Some(Time(facts.now)));
    }
    conditions(object, &mut status, outlook.reason, &outlook.message, facts.now);
    status
}

/// Ready, Reconciling and Stalled, as kstatus reads them.
fn conditions(object: &TenantRestore, status: &mut TenantRestoreStatus, reason: Reason, message: &str, now: Timestamp) {
    let before = object.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    let ready = status.phase == RestorePhase::Done;
    let stalled = matches!(status.phase, RestorePhase::Failed | RestorePhase::Aborted);
    let all = [
        (ConditionType::Ready, ready),
        (ConditionType::Reconciling, !ready && !stalled),
        (ConditionType::Stalled, stalled),
    ];
    let generation = object.metadata.generation;
    let one = |(kind, value)| condition(&before, kind, Some(value), (reason, message), generation, now);
    status.conditions = all.map(one).into();
}

/// Writes the status when it says something new, and tells of a new phase. Whether it did.
///
/// # Errors
/// The API server refused it or did not answer; an object that is gone is no error.
pub async fn write(
    context: &Context,
    object: &TenantRestore,
    facts: &Facts,
    outlook: &Outlook,
) -> Result<bool, ApplyError> {
    let status = status(object, facts, outlook);
    if object.status.as_ref() == Some(&status) {
        return Ok(false);
    }
    if !patch(context, object, &status).await? {
        return Ok(false);
    }
    if object.status.as_ref().map(|status| status.phase) != Some(status.phase) {
        announce(context, object, outlook);
    }
    Ok(true)
}

/// Says why the last step failed, and nothing else than before.
pub async fn trouble(context: &Context, object: &TenantRestore, why: &str) {
    let message = format!("a step failed and is tried again: {why}");
    let mut status = object.status.clone().unwrap_or_default();
    let said = status.conditions.iter().any(|condition| condition.message == message);
    if said || status.phase.is_over() {
        return;
    }
    conditions(object, &mut status, Reason::BackupFailed, &message, Timestamp::now());
    if let Err(error) = patch(context, object, &status).await {
        tracing::debug!(
            restore = object.name_any(),
            error = chain(&error),
            "why a restore did not get on was not said"
        );
    }
}

/// Whether it was written: an object that is gone, or another one of its name, is no error.
async fn patch(context: &Context, object: &TenantRestore, status: &TenantRestoreStatus) -> Result<bool, ApplyError> {
    let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
    let patch = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "TenantRestore",
        "metadata": { "name": name, "uid": object.metadata.uid }, "status": status,
    });
    let api: Api<TenantRestore> = Api::namespaced(context.client.clone(), &namespace);
    let (parameters, patch) = (PatchParams::apply(MANAGER).force(), Patch::Apply(patch));
    let written = api.patch_status(&name, &parameters, &patch);
    match context.gate.pass("write the status of a restore", written).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(false),
        Err(source) => {
            Err(ApplyError::kubernetes(format!("write the status of TenantRestore {namespace}/{name}"), source))
        }
    }
}

/// An Event on the Tenant, and on the restore.
fn announce(context: &Context, object: &TenantRestore, outlook: &Outlook) {
    let is_bad = outlook.phase == RestorePhase::Failed;
    let note = format!("TenantRestore {}: {}", object.name_any(), outlook.message);
    let event = Event {
        type_: if is_bad { EventType::Warning } else { EventType::Normal },
        reason: format!("Restore{}", outlook.phase.as_str()),
        note: Some(note.chars().take(1000).collect()),
        action: "Restore".into(),
        secondary: None,
    };
    let tenant = context.tenants.get(&reference(object)).map(|tenant| tenant.object_ref(&()));
    let references = [Some(object.object_ref(&())), tenant];
    let events = context.events.clone();
    // Nobody waits for it.
    tokio::spawn(async move {
        for reference in references.into_iter().flatten() {
            if let Err(error) = events.publish(&event, &reference).await {
                tracing::debug!(error = chain(&error), "could not publish an Event");
            }
        }
    });
}
