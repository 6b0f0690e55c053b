//! The tenant's own workers, where its plan has them.
//!
//! From      `Plan.spec.workers`, the state, the pod template of the shared pool's Deployment
//! Makes     Deployment, Service and an autoscaler `worker-<uuid>` in the app's namespace; which pool the routing entry says
//! Ready     when one of them was available; the shared pool does the jobs until then, and whenever none is
//! Teardown  once nobody routes the tenant to them any more, before its database goes

use jiff::{SignedDuration, Timestamp};
use uuid::Uuid;

use crate::api::condition::{ConditionType, Reason};
use crate::api::plan::{PlanSpec, WorkerMode};
use crate::api::routing::WorkerPool;
use crate::api::tenant::TenantState;

use super::effect::{Effect, PartPlan};
use super::facts::{DeploymentFact, Facts, LedgerRow};
use super::names;
use super::worker_objects::{self, Wanted};

/// Own workers that are not available for so long leave the jobs to the shared pool: longer than a pod takes to start anew,
/// because each change is two writes of a slice that every reader reads.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// The workers.
pub fn plan(facts: &Facts, row: &LedgerRow, plan: &PlanSpec) -> PartPlan {
    let Some(template) = facts.workers.template.as_deref().filter(|_| has_own(plan)) else {
        return shared(facts, row);
    };
    let wanted = Wanted { uuid: row.uuid, plan: &plan.workers, asleep: !is_awake(facts), keda: facts.workers.keda };
    let (objects, hash) = worker_objects::objects(&wanted, template);
    let name = names::workers(row.uuid);
    let Some(there) = facts.workers.deployment.as_ref().filter(|there| there.hash.as_ref() == Some(&hash)) else {
        let message = format!("its own workers, Deployment {name}, are being written; the shared pool does its jobs");
        return PartPlan::act(vec![Effect::ApplyWorkers { objects: Box::new(objects), hash }], message);
    };
    if wanted.asleep {
        return PartPlan::ready("its own workers are scaled to zero: its jobs wait until it is served again");
    }
    if there.available > 0 {
        return PartPlan::ready(format!("its own workers do its jobs: Deployment {name}"));
    }
    if there.replicas == 0 {
        return PartPlan::ready(format!(
            "its own workers, Deployment {name}, are scaled to zero; the shared pool does its jobs meanwhile"
        ));
    }
    let pods = look(row.uuid);
    if were_in_place(facts) {
        return PartPlan::ready(format!(
            "none of its own workers is available; customers are served, and the shared pool does its jobs within a minute: {pods}"
        ));
    }
    PartPlan::wait(
        Reason::Provisioning,
        format!(
            "its own workers are starting; customers are served, and the shared pool does its jobs meanwhile: {pods}"
        ),
    )
}

/// What is left of its own workers goes when every reader knows that the shared pool serves it: who queues a job says so
/// there, and theirs have handed over what waits.
fn shared(facts: &Facts, row: &LedgerRow) -> PartPlan {
    if facts.workers.deployment.is_some() {
        let published = facts.routing.entry.as_ref().is_some_and(|entry| !entry.queue.pool.is_shared());
        if published || facts.routing.reach.is_behind() {
            return PartPlan::wait(Reason::Provisioning, "its jobs are being handed over to the shared pool");
        }
        let message = "the shared pool does its jobs; its own workers are being removed";
        return PartPlan::act(vec![Effect::DeleteWorkers { name: names::workers(row.uuid) }], message);
    }
    if facts.workers.template.is_some() {
        PartPlan::ready("the shared pool does its jobs")
    } else {
        PartPlan::ready("there are no workers: requests do its imports and mails themselves")
    }
}

/// Who drains the queue: its own workers while one is available, the shared pool otherwise. So that jobs wait for nobody who
/// is not there, be it the first pod, one that cannot start, or none because there was nothing to do.
pub fn pool(facts: &Facts, plan: &PlanSpec) -> WorkerPool {
    let serves = |there: &DeploymentFact| match (there.available, there.replicas) {
        (1.., _) => true,
        (_, 0) => false,
        _ => is_published(facts) && facts.now < there.since.checked_add(PATIENCE).unwrap_or(Timestamp::MAX),
    };
    let own = has_own(plan) && facts.workers.template.is_some() && is_awake(facts);
    if own && facts.workers.deployment.as_ref().is_some_and(serves) {
        WorkerPool::Dedicated
    } else {
        WorkerPool::Shared
    }
}

/// When its own workers count as gone because none came back.
pub fn next_change(facts: &Facts) -> Option<Timestamp> {
    let there = facts.workers.deployment.as_ref().filter(|there| there.available == 0 && is_published(facts))?;
    there.since.checked_add(PATIENCE).ok().filter(|time| *time > facts.now)
}

/// What the condition says of workers that nobody has to be waited for. That none of its own is available is said here and not
/// in `Ready`, as with endpoints of the app (decision D7).
pub fn word(facts: &Facts) -> (bool, Reason) {
    let down = |there: &DeploymentFact| there.hash.is_some() && there.available == 0 && there.replicas > 0;
    match facts.state() {
        _ if !facts.plan.as_ref().is_some_and(has_own) || facts.workers.template.is_none() => (true, Reason::Active),
        TenantState::Suspended => (true, Reason::Suspended),
        TenantState::Hibernated => (true, Reason::Hibernated),
        _ if facts.workers.deployment.as_ref().is_some_and(down) => (false, Reason::NoWorkers),
        _ => (true, Reason::Active),
    }
}

/// Whether one of its own workers was available before: routing says so, or the condition does, which says only of workers
/// that were in place that they are scaled away or missed.
fn were_in_place(facts: &Facts) -> bool {
    let known = [Reason::NoWorkers, Reason::Suspended, Reason::Hibernated];
    let noted = facts.status().conditions.into_iter().any(|condition| {
        condition.type_ == ConditionType::WorkersReady.as_str()
            && known.iter().any(|reason| condition.reason == reason.as_str())
    });
    is_published(facts) || noted
}

fn is_published(facts: &Facts) -> bool {
    facts.routing.entry.as_ref().is_some_and(|entry| entry.queue.pool == WorkerPool::Dedicated)
}

fn has_own(plan: &PlanSpec) -> bool {
    plan.workers.mode == WorkerMode::Dedicated
}

fn is_awake(facts: &Facts) -> bool {
    !matches!(facts.state(), TenantState::Suspended | TenantState::Hibernated)
}

fn look(uuid: Uuid) -> String {
    format!("kubectl get pods -A -l {}={uuid}", crate::api::LABEL_TENANT)
}
