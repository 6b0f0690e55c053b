//! Say: how the Tenant stands, in its status and in Events, and when it is visited again.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};

use super::{Visit, WATCH_LAG, is_unseen};
use crate::api::condition::{ConditionType, Reason};
use crate::api::tenant::TenantStatus;
use crate::apply::{ApplyError, kubernetes};
use crate::desired::effect::Health;
use crate::desired::facts::{Facts, PATIENCE, Reach};
use crate::desired::tenant::Outlook;
use crate::desired::{names, status};
use crate::error::chain;
use crate::observe::ledger::uid;

/// That a Tenant is being provisioned, and each step of it, is told only when it takes longer than this: in a burst of
/// hundreds it takes seconds, and a word on each of them would take as long as the work.
const FIRST_WORD: Duration = Duration::from_secs(5);
/// That one which is ready is being changed is told only when it takes longer than this.
const DETAIL: Duration = Duration::from_secs(2);

/// How often a database is looked at whose connection limit waits for sessions to end.
const SHRINKING: Duration = Duration::from_secs(15);

impl Visit<'_> {
    /// Writes the status when it says something new, and decides when to come again without a change.
    pub(super) async fn conclude(
        &self,
        facts: &Facts,
        outlook: &Outlook,
        failure: Option<Health>,
    ) -> Result<Action, ApplyError> {
        let deleting = self.tenant.metadata.deletion_timestamp.is_some();
        let is_at_work = failure.is_none();
        let status = status::status(facts, outlook, failure);
        let before = facts.tenant.status.clone().unwrap_or_default();
        // An object that is on its way out says something only when it is held.
        let object = uid(&self.tenant);
        if before == status || (deleting && is_at_work && outlook.trouble().is_none()) {
            self.context.memory.settled(object);
            return Ok(self.next(facts, outlook));
        }
        // The first word on a new Tenant, from one step of provisioning to the next, and that one which is ready is being
        // changed: nobody reads what is replaced within a moment, and each would be a write.
        let is_news = ready(&before).is_some() && !is_provisioning(&before);
        if is_provisioning(&status) {
            let memory = &self.context.memory;
            let rest =
                if is_news { memory.work_rests(object, DETAIL) } else { memory.status_rests(object, FIRST_WORD) };
            if let Some(rest) = rest {
                return Ok(Action::requeue(rest));
            }
        }
        let written = kubernetes::write_status(&self.context.client, &self.tenant, &status);
        self.context.gate.pass("write the status", written).await?;
        self.context.memory.set_status(object, status.clone());
        self.announce(&before, &status);
        Ok(self.next(facts, outlook))
    }

    /// Says in an Event, and in the figures, that `Ready` says something else than before.
    fn announce(&self, before: &TenantStatus, now: &TenantStatus) {
        let Some(ready) = ready(now) else { return };
        if ready_reason(before) == Some((ready.status.as_str(), ready.reason.as_str())) {
            return;
        }
        let is_ready = ready.status == "True";
        if is_ready
            && self::ready(before).is_none_or(|before| before.reason == Reason::Provisioning.as_str())
            && let Some(created) = self.tenant.creation_timestamp()
        {
            let age = Timestamp::now().duration_since(created.0);
            self.context.metrics.provisioning.observe(age.as_secs_f64().max(0.0));
        }
        let progressing = [Reason::Provisioning, Reason::Restoring, Reason::Deleting]
            .iter()
            .any(|reason| ready.reason == reason.as_str());
        let event = Event {
            type_: if is_ready || progressing { EventType::Normal } else { EventType::Warning },
            reason: ready.reason.clone(),
            note: Some(ready.message.chars().take(1000).collect()),
            action: "Reconcile".into(),
            secondary: None,
        };
        // Nobody waits for it, and the next Tenant not either.
        let (events, reference) = (self.context.events.clone(), self.tenant.object_ref(&()));
        tokio::spawn(async move {
            if let Err(error) = events.publish(&event, &reference).await {
                tracing::debug!(error = chain(&error), "could not publish an Event");
            }
        });
    }

    /// When to come again; soon when a Secret was taken for ours on trust.
    fn next(&self, facts: &Facts, outlook: &Outlook) -> Action {
        let namespace = self.tenant.namespace().unwrap_or_default();
        let store = self.context.bindings.iter().find(|(watched, _)| *watched == namespace).map(|(_, store)| store);
        let on_trust = |name: String| {
            let key = ObjectRef::new(&name).within(&namespace);
            let version = store.and_then(|store| store.get(&key)?.metadata.resource_version.clone());
            let written = self.context.memory.secret(uid(&self.tenant), &name);
            written.is_some_and(|written| is_unseen(&written, version.as_ref()))
        };
        let tenant = self.tenant.name_any();
        if on_trust(names::binding(&tenant)) || on_trust(names::welcome(&tenant)) {
            return Action::requeue(WATCH_LAG);
        }
        next_visit(facts, outlook, self.context.settings.resync)
    }
}

fn ready(status: &TenantStatus) -> Option<&Condition> {
    status.conditions.iter().find(|condition| condition.type_ == ConditionType::Ready.as_str())
}

fn ready_reason(status: &TenantStatus) -> Option<(&str, &str)> {
    ready(status).map(|ready| (ready.status.as_str(), ready.reason.as_str()))
}

fn is_provisioning(status: &TenantStatus) -> bool {
    ready_reason(status) == Some(("False", Reason::Provisioning.as_str()))
}

/// When to come again: soon for what waits without anybody telling us, else at the next resync.
fn next_visit(facts: &Facts, outlook: &Outlook, resync: Duration) -> Action {
    let shrinks = facts.sessions.map(|_| SHRINKING);
    let by_clock = status::next_change(facts).map(|time| {
        let left = Duration::try_from(time.duration_since(Timestamp::now())).unwrap_or_default();
        // What is compared are whole seconds.
        left + Duration::from_millis(100)
    });
    match outlook.trouble() {
        None => Action::requeue([shrinks, by_clock].into_iter().flatten().fold(resync, Duration::min)),
        // A pod's word wakes it; this is for what nobody tells.
        Some(Health::Progressing(Reason::Deleting, _)) => Action::requeue(Duration::from_secs(30).min(resync)),
        Some(Health::Blocked(..)) => Action::requeue(Duration::from_secs(15).min(resync)),
        Some(_) => {
            let waits = [&facts.pooler.reach, &facts.routing.reach].into_iter().find_map(|reach| match reach {
                Reach::Behind { waited, .. } if *waited < PATIENCE => Some(PATIENCE - *waited),
                _ => None,
            });
            Action::requeue(waits.unwrap_or(Duration::from_secs(3)))
        }
    }
}
