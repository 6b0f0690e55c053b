//! The loop of a Tenant: see, decide, do, and say how it stands.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::runtime::controller::Action;
use kube::runtime::events::{Event, EventType};
use kube::runtime::reflector::ObjectRef;
use kube::{Resource, ResourceExt};
use uuid::Uuid;

use super::context::{Context, Written};
use crate::api::condition::{ConditionType, Reason};
use crate::api::tenant::{DeletionPolicy, TenantStatus};
use crate::api::welcome::{self, Welcome};
use crate::api::{ANNOTATION_HASH, Tenant};
use crate::apply::kubernetes::Beside;
use crate::apply::{self, ApplyError, kubernetes};
use crate::desired::effect::{Effect, Health};
use crate::desired::facts::{Facts, LedgerFact, PATIENCE, Published, Reach, Refusal, SecretFact, Seen};
use crate::desired::registration::may_make_database;
use crate::desired::scram::Credential;
use crate::desired::tenant::Outlook;
use crate::desired::{self, names, status};
use crate::error::chain;
use crate::observe::ledger::uid;

/// More rounds than any way from nothing to ready has; a bound for what should not happen.
const MOST_ROUNDS: usize = 24;

/// Steps of provisioning are told apart in the status only when they take longer than this.
const DETAIL: Duration = Duration::from_secs(1);
/// How long the watch may lag behind a write of our own.
const WATCH_LAG: Duration = Duration::from_secs(1);

/// Why a visit has to be made again.
#[derive(Debug, thiserror::Error)]
#[error("Tenant {tenant}: {source}")]
pub struct Failure {
    tenant: String,
    source: ApplyError,
}

impl Failure {
    /// What it is about.
    pub const fn source(&self) -> &ApplyError {
        &self.source
    }
}

/// One visit: rounds of see, decide and do until nothing is planned, then the status.
///
/// # Errors
/// An effect failed; the status says so, and the visit is made again.
pub async fn reconcile(tenant: Arc<Tenant>, context: Arc<Context>) -> Result<Action, Failure> {
    let result = visit(&tenant, &context).await;
    context.metrics.visited(result.is_err());
    result
}

async fn visit(tenant: &Arc<Tenant>, context: &Arc<Context>) -> Result<Action, Failure> {
    let mut visit = Visit { context, tenant: (**tenant).clone(), refused: None };
    let title = format!("{}/{}", tenant.namespace().unwrap_or_default(), tenant.name_any());
    let failure = |source| Failure { tenant: title.clone(), source };
    let mut failed = None;
    for _round in 0..MOST_ROUNDS {
        let facts = visit.facts().await;
        let outlook = desired::tenant::plan(&facts);
        if outlook.effects.is_empty() {
            return visit.conclude(&facts, &outlook, None).await.map_err(failure);
        }
        match visit.execute(&facts, &outlook.effects).await {
            Ok(Gone::No) => {}
            Ok(Gone::Yes) => {
                context.memory.forget(uid(tenant));
                return Ok(Action::await_change());
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    let facts = visit.facts().await;
    let outlook = desired::tenant::plan(&facts);
    let Some(error) = failed else {
        tracing::error!(tenant = title, effects = ?outlook.effects.iter().map(Effect::summary).collect::<Vec<_>>(), "a visit does not come to rest");
        return Ok(Action::requeue(Duration::from_secs(30)));
    };
    if matches!(error, ApplyError::Stale(_)) {
        return Ok(Action::requeue(Duration::from_millis(50)));
    }
    visit.conclude(&facts, &outlook, Some(error.health())).await.map_err(failure)?;
    Err(failure(error))
}

enum Gone {
    Yes,
    No,
}

struct Visit<'a> {
    context: &'a Context,
    tenant: Tenant,
    /// The ledger's refusal in this visit; asked again in the next.
    refused: Option<Refusal>,
}

impl Visit<'_> {
    fn reference(&self) -> ObjectRef<Tenant> {
        ObjectRef::from_obj(&self.tenant)
    }

    async fn facts(&self) -> Facts {
        let context = self.context;
        let namespace = self.tenant.namespace().unwrap_or_default();
        let ledger = match &self.refused {
            Some(refusal) => Seen::Known(LedgerFact::Refused(refusal.clone())),
            None => context.ledger.settled_fact(&context.central, &self.tenant).await,
        };
        let (uuid, server) = match &ledger {
            Seen::Known(LedgerFact::Row(row)) => (Some(row.uuid), row.server.clone()),
            _ => (None, None),
        };
        let reserve = matches!(&ledger, Seen::Known(LedgerFact::Row(row)) if may_make_database(row))
            && self.tenant.metadata.deletion_timestamp.is_none();
        let known = server.as_deref().and_then(|server| context.servers.get(server));
        let unreached = server.as_deref().and_then(|server| context.servers.unreached(server));
        let (catalogue, warm) = match (uuid, known) {
            (Some(uuid), Some(known)) => known.view(uuid, reserve).await,
            (Some(_), None) if server.is_some() => {
                (Seen::Unreachable(unreached.unwrap_or_else(|| "there is no such DatabaseServer".into())), None)
            }
            _ => (Seen::Known(crate::desired::catalogue::Catalogue::default()), None),
        };
        let nothing = Published { entry: None, reach: Reach::All };
        let routing = uuid.map_or(Published { entry: None, reach: Reach::All }, |uuid| context.fleet.routing(uuid));
        let pooler = uuid.zip(server.as_deref()).map_or(nothing, |(uuid, server)| context.fleet.pooler(server, uuid));
        let password = routing.entry.as_ref().map(|entry| entry.database.password.as_str());
        let mut tenant = self.tenant.clone();
        if let Some(written) = context.memory.status(uid(&tenant)) {
            tenant.status = Some(written);
        }
        Facts {
            now: Timestamp::now(),
            epoch: context.epoch(),
            base_domain: context.settings.base_domain.clone(),
            namespace_served: context.settings.tenant_namespaces.contains(&namespace),
            plan: context.plans.get(&ObjectRef::new(&tenant.spec.plan_ref.name)).map(|plan| plan.spec.clone()),
            servers: context.servers.facts(&context.ledger),
            credential: uuid.map_or_else(Credential::default, |uuid| context.memory.credential(uuid, password)),
            binding: self.secret(&namespace, &names::binding(&self.tenant.name_any())),
            welcome: self.secret(&namespace, &names::welcome(&self.tenant.name_any())),
            ledger,
            catalogue,
            warm,
            pooler,
            routing,
            tenant,
        }
    }

    /// A Secret beside the Tenant, as the watch shows it, or newer, as we wrote it.
    fn secret(&self, namespace: &str, name: &str) -> Seen<Option<SecretFact>> {
        let Some((_, store)) = self.context.bindings.iter().find(|(watched, _)| watched == namespace) else {
            return Seen::Unreachable(format!("namespace {namespace} is not watched"));
        };
        let secret = store.get(&ObjectRef::new(name).within(namespace));
        let written = self.context.memory.secret(uid(&self.tenant), name);
        let version = secret.as_ref().and_then(|secret| secret.metadata.resource_version.clone());
        if let Some(written) = written.as_ref().filter(|written| is_unseen(written, version.as_ref())) {
            return Seen::Known(Some(SecretFact { ours: true, hash: Some(written.hash.clone()) }));
        }
        let Some(secret) = secret else { return Seen::Known(None) };
        let ours = secret
            .metadata
            .owner_references
            .iter()
            .flatten()
            .any(|owner| Some(&owner.uid) == self.tenant.metadata.uid.as_ref() && owner.controller == Some(true));
        // Another version than the one that we wrote: somebody changed it, whatever its annotation says.
        let changed = written.is_some_and(|written| written.resource_version != version);
        let hash = secret.annotations().get(ANNOTATION_HASH).filter(|_| !changed).cloned();
        Seen::Known(Some(SecretFact { ours, hash }))
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

    async fn execute(&mut self, facts: &Facts, effects: &[Effect]) -> Result<Gone, ApplyError> {
        for effect in effects {
            tracing::debug!(tenant = self.tenant.name_any(), effect = effect.summary(), "executing");
            self.context.metrics.wrote(effect.kind());
            let gone = if matches!(effect, Effect::Sql { .. } | Effect::Clone { .. }) {
                // These pass the gate of their server.
                self.execute_one(facts, effect).await?
            } else {
                let gate = self.context.gate.clone();
                gate.pass(&effect.summary(), self.execute_one(facts, effect)).await?
            };
            if let Gone::Yes = gone {
                return Ok(Gone::Yes);
            }
            if self.refused.is_some() {
                break;
            }
        }
        Ok(Gone::No)
    }

    async fn execute_one(&mut self, facts: &Facts, effect: &Effect) -> Result<Gone, ApplyError> {
        let context = self.context;
        match effect {
            Effect::AddFinalizer => match kubernetes::set_finalizer(&context.client, &self.tenant, true).await? {
                Some(tenant) => self.tenant = tenant,
                None => return Ok(Gone::Yes),
            },
            Effect::RemoveFinalizer => {
                // A cached object may be an older one of the same name: only what the API server says now counts.
                if let Some(fresh) = kubernetes::fresh(&context.client, &self.tenant)
                    .await?
                    .filter(|fresh| fresh.metadata.deletion_timestamp.is_some())
                {
                    kubernetes::set_finalizer(&context.client, &fresh, false).await?;
                }
                return Ok(Gone::Yes);
            }
            Effect::Register => {
                self.refused =
                    apply::ledger::register(&context.central, &context.ledger, &self.tenant, facts.plan.as_ref())
                        .await?;
            }
            Effect::WriteBinding { data, hash } => {
                let is_new = matches!(facts.binding, Seen::Known(None));
                self.write_secret(uuid(facts)?, Beside::binding(&self.tenant, data, hash), is_new).await?;
            }
            Effect::WriteWelcome { host, hash } => {
                let uuid = uuid(facts)?;
                let is_new = matches!(facts.welcome, Seen::Known(None));
                let data = BTreeMap::from([(welcome::KEY.to_owned(), self.welcome_link(uuid, host)?)]);
                self.write_secret(uuid, Beside::welcome(&self.tenant, &data, hash), is_new).await?;
            }
            other => self.execute_known(facts, other, uuid(facts)?).await?,
        }
        Ok(Gone::No)
    }

    async fn write_secret(&self, uuid: Uuid, secret: Beside<'_>, is_new: bool) -> Result<(), ApplyError> {
        let (name, hash) = (secret.name.clone(), secret.hash);
        let written = kubernetes::write_secret(&self.context.client, &self.tenant, uuid, secret, is_new).await?;
        self.context.memory.set_secret(uid(&self.tenant), name, written.metadata.resource_version, hash);
        Ok(())
    }

    /// A new link for the tenant's first user.
    fn welcome_link(&self, uuid: Uuid, host: &str) -> Result<String, ApplyError> {
        let keys =
            self.context.keys.get().ok_or_else(|| ApplyError::Stale("the signing keys are not read yet".into()))?;
        let payload = Welcome { version: welcome::VERSION, nonce: Uuid::new_v4() };
        let payload = serde_json::to_string(&payload).expect("a uuid and a number are JSON");
        let expires = Timestamp::now() + SignedDuration::from_hours(24 * welcome::DAYS);
        let signed = keys.sign(uuid, welcome::PURPOSE, &payload, expires);
        Ok(welcome::link(&self.context.settings.public_url, host, &signed))
    }

    /// Effects of a tenant that the ledger knows.
    async fn execute_known(&self, facts: &Facts, effect: &Effect, uuid: Uuid) -> Result<(), ApplyError> {
        let context = self.context;
        let (central, ledger) = (&context.central, &context.ledger);
        match effect {
            Effect::Place { server } => {
                let most = context.servers.get(server).map_or(0, |server| server.spec().capacity.max_tenants);
                apply::ledger::place(central, ledger, uuid, server, most).await
            }
            Effect::Sql { server, batch } => {
                let result = self.server(server)?.run(batch, Some(uuid)).await;
                context.refill.notify_one();
                result
            }
            Effect::Clone { server } => super::server::pool::clone_one(&*self.server(server)?).await,
            Effect::MarkProvisioned { schema } => apply::ledger::mark_provisioned(central, ledger, uuid, schema).await,
            Effect::PublishPooler { server, entry } => {
                context.fleet.set_pooler(self.reference(), server, uuid, Some(entry.clone()));
                Ok(())
            }
            Effect::WithdrawPooler { server } => {
                context.fleet.set_pooler(self.reference(), server, uuid, None);
                Ok(())
            }
            Effect::PublishRouting { entry } => {
                context.fleet.set_routing(self.reference(), uuid, Some((**entry).clone()));
                Ok(())
            }
            Effect::WithdrawRouting => {
                context.fleet.set_routing(self.reference(), uuid, None);
                Ok(())
            }
            Effect::Release { database } => {
                context.memory.forget_credential(uuid);
                apply::ledger::release(central, ledger, &self.tenant, uuid, *database).await
            }
            Effect::Quarantine { seconds, confirmed } => {
                self.still_to_be_destroyed().await?;
                context.memory.forget_credential(uuid);
                apply::ledger::quarantine(central, ledger, &self.tenant, uuid, *seconds, *confirmed).await
            }
            Effect::AddFinalizer
            | Effect::RemoveFinalizer
            | Effect::Register
            | Effect::WriteBinding { .. }
            | Effect::WriteWelcome { .. } => {
                unreachable!("{} is executed by the caller, facts of {}", effect.summary(), facts.tenant.name_any())
            }
        }
    }

    /// The first of the three yeses (decision D12): the API server itself says that this very object is being deleted and
    /// that its data is to go.
    async fn still_to_be_destroyed(&self) -> Result<(), ApplyError> {
        let fresh = kubernetes::fresh(&self.context.client, &self.tenant).await?;
        let agreed = fresh.is_some_and(|fresh| {
            fresh.metadata.deletion_timestamp.is_some() && fresh.spec.deletion_policy == DeletionPolicy::Delete
        });
        agreed.then_some(()).ok_or_else(|| ApplyError::Stale(format!("Tenant {} has changed", self.tenant.name_any())))
    }

    fn server(&self, name: &str) -> Result<Arc<super::servers::Server>, ApplyError> {
        self.context.servers.get(name).ok_or_else(|| ApplyError::Stale(format!("DatabaseServer {name} has gone")))
    }

    /// Writes the status when it says something new, and decides when to come again without a change.
    async fn conclude(&self, facts: &Facts, outlook: &Outlook, failure: Option<Health>) -> Result<Action, ApplyError> {
        let deleting = self.tenant.metadata.deletion_timestamp.is_some();
        let is_at_work = failure.is_none();
        let status = status::status(facts, outlook, failure);
        let before = facts.tenant.status.clone().unwrap_or_default();
        // An object that is on its way out says something only when it is held.
        if before == status || (deleting && is_at_work && outlook.trouble().is_none()) {
            return Ok(self.next(facts, outlook));
        }
        let object = uid(&self.tenant);
        if is_provisioning(&before)
            && is_provisioning(&status)
            && self.context.memory.wrote_status_within(object, DETAIL)
        {
            // From one step of provisioning to the next within a second: nobody reads that, and each would be a write.
            return Ok(Action::requeue(DETAIL));
        }
        let written = kubernetes::write_status(&self.context.client, &self.tenant, &status);
        self.context.gate.pass("write the status", written).await?;
        self.context.memory.set_status(object, status.clone());
        self.announce(&before, &status).await;
        Ok(self.next(facts, outlook))
    }

    /// Says in an Event, and in the figures, that `Ready` says something else than before.
    async fn announce(&self, before: &TenantStatus, now: &TenantStatus) {
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
        let progressing = ready.reason == Reason::Provisioning.as_str();
        let event = Event {
            type_: if is_ready || progressing { EventType::Normal } else { EventType::Warning },
            reason: ready.reason.clone(),
            note: Some(ready.message.chars().take(1000).collect()),
            action: "Reconcile".into(),
            secondary: None,
        };
        if let Err(error) = self.context.events.publish(&event, &self.tenant.object_ref(&())).await {
            tracing::debug!(error = chain(&error), "could not publish an Event");
        }
    }
}

/// For a moment after our own write the watch may still show what was there before, or already what somebody else wrote
/// after us: which of the two, the next look tells.
fn is_unseen(written: &Written, version: Option<&String>) -> bool {
    written.resource_version.as_ref() != version && written.at.elapsed() < WATCH_LAG
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
    match outlook.trouble() {
        None => Action::requeue(resync),
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

fn uuid(facts: &Facts) -> Result<Uuid, ApplyError> {
    facts.row().map(|row| row.uuid).ok_or_else(|| {
        ApplyError::Stale(format!("the ledger has no row for Tenant {} any more", facts.tenant.name_any()))
    })
}

/// Before a failed visit is made again; longer each time would need a memory of failures, and the servers' own back-off
/// keeps a dead one from being asked too often.
pub fn retry(_tenant: Arc<Tenant>, failure: &Failure, _context: Arc<Context>) -> Action {
    tracing::warn!(error = chain(failure), "a visit failed, trying again");
    match failure.source() {
        ApplyError::Held { .. } => Action::requeue(Duration::from_secs(30)),
        _ => Action::requeue(Duration::from_secs(5)),
    }
}
