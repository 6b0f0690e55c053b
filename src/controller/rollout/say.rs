//! Say: how far a rollout is, in its status, in Events and in the figures.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use serde_json::json;

use super::{ANNOTATION_RETRY, members};
use crate::api::condition::{ConditionType, Reason};
use crate::api::rollout::{RolloutPhase, SchemaRollout, SchemaRolloutStatus, TenantFailure, WaveDone};
use crate::api::{GROUP, VERSION};
use crate::apply::ApplyError;
use crate::controller::context::Context;
use crate::desired::rollout::Progress;
use crate::desired::status::condition;
use crate::error::chain;

/// Field manager of the rollouts.
const MANAGER: &str = "maintenance-os-rollout";
/// A status is no list of a fleet.
const FAILURES: usize = 20;

/// The status of the rollout that is worked on.
pub fn status(
    context: &Context,
    rollout: &SchemaRollout,
    target: &str,
    progress: &Progress,
    per_minute: usize,
    now: Timestamp,
) -> SchemaRolloutStatus {
    let before = rollout.status.clone().unwrap_or_default();
    let has_ended = matches!(progress.phase, RolloutPhase::Complete | RolloutPhase::Failed | RolloutPhase::Aborted);
    let left = progress.total - progress.done - progress.failed;
    let number = |count: usize| i32::try_from(count).unwrap_or(i32::MAX);
    let mut waves = before.waves.clone();
    waves.extend(progress.ended.iter().map(|name| WaveDone { name: name.clone(), at: Time(now) }));
    let mut status = SchemaRolloutStatus {
        observed_generation: rollout.metadata.generation,
        target_version: Some(target.to_owned()),
        phase: progress.phase,
        wave: wave(progress),
        total: number(progress.total),
        done: number(progress.done),
        failed: number(progress.failed),
        per_minute: (!has_ended).then(|| number(per_minute)),
        time_left: (progress.phase == RolloutPhase::Running && per_minute > 0).then(|| time_left(left, per_minute)),
        started_at: before.started_at.clone().or(Some(Time(now))),
        ended_at: has_ended.then(|| before.ended_at.clone().unwrap_or(Time(now))),
        waves,
        failures: failures(context, target),
        retried: rollout.annotations().get(ANNOTATION_RETRY).cloned().or_else(|| before.retried.clone()),
        conditions: Vec::new(),
    };
    let (reason, message) = words(&status, progress);
    conditions(rollout, &mut status, reason, &message, now);
    status
}

/// The wave that is under way, as `canary (1/3)`.
pub fn wave(progress: &Progress) -> Option<String> {
    progress.wave.as_ref().map(|(number, name)| format!("{name} ({}/{})", number + 1, progress.waves))
}

/// The status of one that waits for another.
pub fn waiting(rollout: &SchemaRollout, first: &str) -> SchemaRolloutStatus {
    let mut status = rollout.status.clone().unwrap_or_default();
    status.observed_generation = rollout.metadata.generation;
    status.phase = RolloutPhase::Pending;
    let message = format!("waits for SchemaRollout {first}, which began before it and has not ended");
    conditions(rollout, &mut status, Reason::Migrating, &message, Timestamp::now());
    status
}

/// The status of one whose version nobody knows.
pub fn unknown(rollout: &SchemaRollout, target: &str, newest: &str) -> SchemaRolloutStatus {
    let mut status = rollout.status.clone().unwrap_or_default();
    status.observed_generation = rollout.metadata.generation;
    status.target_version = Some(target.to_owned());
    status.phase = RolloutPhase::Pending;
    let message = format!(
        "this operator has migrations up to {newest} and none of version {target}: upgrade the operator first, or create a SchemaRollout with another spec.targetVersion"
    );
    conditions(rollout, &mut status, Reason::InvalidSpec, &message, Timestamp::now());
    status
}

fn failures(context: &Context, target: &str) -> Vec<TenantFailure> {
    let mut failures: Vec<_> = context
        .ledger
        .rows()
        .iter()
        .filter_map(|row| {
            let version = crate::desired::names::schema_version(row.schema_version.as_deref()?);
            if version >= target {
                return None;
            }
            let tenant = context.tenants.get(&ObjectRef::new(&row.name).within(&row.namespace));
            let message = members::failure(context, row.uuid, tenant.as_deref(), version)?;
            Some(TenantFailure { tenant: format!("{}/{}", row.namespace, row.name), message })
        })
        .collect();
    failures.sort_by(|one, other| one.tenant.cmp(&other.tenant));
    failures.truncate(FAILURES);
    failures
}

fn time_left(left: usize, per_minute: usize) -> String {
    match (left * 60).div_ceil(per_minute) {
        seconds @ 0..=90 => format!("{seconds}s"),
        seconds @ 91..=5400 => format!("{}m", seconds.div_ceil(60)),
        seconds => format!("{}h", seconds.div_ceil(3600)),
    }
}

fn words(status: &SchemaRolloutStatus, progress: &Progress) -> (Reason, String) {
    let SchemaRolloutStatus { done, total, failed, .. } = status;
    let so_far =
        format!("{done} of {total} tenants have version {}", status.target_version.as_deref().unwrap_or_default());
    let look = "see status.failures and kubectl get tenants -A; those that failed are served as before";
    match progress.phase {
        RolloutPhase::Complete => (Reason::Active, so_far),
        RolloutPhase::Running | RolloutPhase::Pending => (Reason::Migrating, so_far),
        RolloutPhase::Soaking => {
            let until = progress.soaks_until.map(|until| until.to_string()).unwrap_or_default();
            (Reason::Migrating, format!("{so_far}; the wave is watched until {until}"))
        }
        RolloutPhase::Paused => {
            (Reason::Paused, format!("{so_far}; no further one is begun: set spec.paused to false to go on"))
        }
        RolloutPhase::Aborted => {
            (Reason::Aborted, format!("{so_far}; the others keep theirs: another SchemaRollout goes on from here"))
        }
        RolloutPhase::Held => (
            Reason::MigrationFailed,
            format!(
                "{so_far} and {failed} failed, which is more than may: {look}. Mend them and annotate this SchemaRollout with {ANNOTATION_RETRY}=all, or raise spec.maxFailures"
            ),
        ),
        RolloutPhase::Failed => (
            Reason::MigrationFailed,
            format!(
                "{so_far} and {failed} failed: {look}. Mend them and annotate this SchemaRollout with {ANNOTATION_RETRY}=all (or =<namespace>/<name>)"
            ),
        ),
    }
}

/// Ready, Reconciling and Stalled, as kstatus reads them.
fn conditions(
    rollout: &SchemaRollout,
    status: &mut SchemaRolloutStatus,
    reason: Reason,
    message: &str,
    now: Timestamp,
) {
    let before = rollout.status.as_ref().map(|status| status.conditions.clone()).unwrap_or_default();
    let ready = status.phase == RolloutPhase::Complete;
    let stalled = matches!(status.phase, RolloutPhase::Held | RolloutPhase::Failed | RolloutPhase::Aborted)
        || reason == Reason::InvalidSpec;
    let all = [
        (ConditionType::Ready, ready),
        (ConditionType::Reconciling, !ready && !stalled),
        (ConditionType::Stalled, stalled),
    ];
    let generation = rollout.metadata.generation;
    let one = |(kind, value)| condition(&before, kind, Some(value), (reason, message), generation, now);
    status.conditions = all.map(one).into();
}

/// Tells of waves and of the end in Events, and of everything in the figures.
pub async fn announce(context: &Context, rollout: &SchemaRollout, status: &SchemaRolloutStatus, progress: &Progress) {
    let left = progress.total - progress.done - progress.failed;
    context
        .metrics
        .show_rollout(&rollout.name_any(), [("done", progress.done), ("failed", progress.failed), ("left", left)]);
    let before = rollout.status.clone().unwrap_or_default();
    let mut news = Vec::new();
    for wave in &progress.ended {
        news.push((
            EventType::Normal,
            "WaveDone",
            format!("wave {wave} is done: {} of {} tenants", status.done, status.total),
        ));
    }
    if before.wave != status.wave
        && let Some(wave) = &status.wave
    {
        news.push((EventType::Normal, "WaveBegun", format!("wave {wave} begins")));
    }
    if before.phase != status.phase {
        let message = status.conditions.first().map(|ready| ready.message.clone()).unwrap_or_default();
        match status.phase {
            RolloutPhase::Complete => news.push((EventType::Normal, "Complete", message)),
            RolloutPhase::Held | RolloutPhase::Failed => news.push((EventType::Warning, "MigrationFailed", message)),
            RolloutPhase::Paused | RolloutPhase::Aborted => news.push((EventType::Normal, "Stopped", message)),
            _ => {}
        }
    }
    for (type_, reason, note) in news {
        let note = Some(note.chars().take(1000).collect());
        let event = Event { type_, reason: reason.into(), note, action: "Migrate".into(), secondary: None };
        if let Err(error) = context.events.publish(&event, &rollout.object_ref(&())).await {
            tracing::debug!(error = chain(&error), "could not publish an Event");
        }
    }
}

/// Writes the status when it says something new.
///
/// # Errors
/// The API server refused it or did not answer; an object that is gone is no error.
pub async fn write(context: &Context, rollout: &SchemaRollout, status: SchemaRolloutStatus) -> Result<(), ApplyError> {
    if rollout.status.as_ref() == Some(&status) {
        return Ok(());
    }
    let name = rollout.name_any();
    let patch = json!({
        "apiVersion": format!("{GROUP}/{VERSION}"), "kind": "SchemaRollout",
        "metadata": { "name": name, "uid": rollout.metadata.uid }, "status": status,
    });
    let api: Api<SchemaRollout> = Api::all(context.client.clone());
    let parameters = PatchParams::apply(MANAGER).force();
    let patch = Patch::Apply(patch);
    let written = api.patch_status(&name, &parameters, &patch);
    match context.gate.pass("write the status of a rollout", written).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => Ok(()),
        Err(source) => Err(ApplyError::kubernetes(format!("write the status of SchemaRollout {name}"), source)),
    }
}
