//! Do: one effect after the other, each through the gate.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use uuid::Uuid;

use super::{Gone, Visit};
use crate::api::welcome::{self, Welcome};
use crate::apply::kubernetes::Beside;
use crate::apply::{self, ApplyError, kubernetes};
use crate::central::Room;
use crate::controller::backup;
use crate::controller::server::pool;
use crate::controller::servers::Server;
use crate::desired::effect::Effect;
use crate::desired::facts::{Facts, Seen};
use crate::error::chain;
use crate::observe::ledger::uid;

impl Visit<'_> {
    /// Executes effects in order, until one fails or the object is gone.
    ///
    /// # Errors
    /// Of the first effect that failed; what comes after it was not begun.
    pub(super) async fn execute(&mut self, facts: &Facts, effects: &[Effect]) -> Result<Gone, ApplyError> {
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
            Effect::Register { server } => {
                let place = server.as_deref().map(|server| (server, self.room_on(server)));
                let (central, ledger) = (&context.central, &context.ledger);
                self.refused = apply::ledger::register(
                    central,
                    ledger,
                    &self.tenant,
                    (&facts.plan_name, facts.plan.as_ref()),
                    place,
                    facts.marked.as_ref(),
                )
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
            Effect::Place { server } => apply::ledger::place(central, ledger, uuid, server, self.room_on(server)).await,
            Effect::Sql { server, batch } => {
                let known = self.server(server)?;
                let result = known.run(batch, Some(uuid)).await;
                context.refill.notify_one();
                if let Err(ApplyError::Sql { source, .. }) = &result
                    && apply::sql::is_away(source)
                {
                    // Not only this Tenant's affair: nobody is placed there before it was seen again.
                    known.set_problem(chain(source));
                    // A closed channel: the operator is stopping.
                    let _ = context.wake_server.send(ObjectRef::new(server));
                }
                result
            }
            Effect::Clone { server } => pool::clone_for_tenant(&*self.server(server)?).await,
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
            Effect::ApplyWorkers { objects, hash } => {
                let written =
                    apply::workers::apply(&context.client, &context.settings.namespace, objects, hash).await?;
                context.workers.note(uuid, Some(&written));
                Ok(())
            }
            Effect::DeleteWorkers { name } => {
                apply::workers::delete(&context.client, &context.settings.namespace, name).await?;
                context.workers.note(uuid, None);
                Ok(())
            }
            Effect::LastBackup { .. } => backup::make_last(context, &self.tenant, uuid).await,
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
            | Effect::Register { .. }
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
            // As it was decided by: a backup that is asked for meanwhile has to be there first.
            let policy = fresh.spec.deletion_policy;
            fresh.metadata.deletion_timestamp.is_some()
                && policy.destroys()
                && policy == self.tenant.spec.deletion_policy
        });
        agreed.then_some(()).ok_or_else(|| ApplyError::Stale(format!("Tenant {} has changed", self.tenant.name_any())))
    }

    /// What a server may hold; one that is not known any more, or was not seen yet, takes nobody.
    fn room_on(&self, server: &str) -> Room {
        self.context.servers.get(server).map_or(Room { tenants: 0, connections: 0 }, |server| {
            let facts = server.facts(0, 0);
            Room { tenants: facts.spec.capacity.max_tenants.into(), connections: facts.budget.unwrap_or_default() }
        })
    }

    fn server(&self, name: &str) -> Result<Arc<Server>, ApplyError> {
        self.context.servers.get(name).ok_or_else(|| ApplyError::Stale(format!("DatabaseServer {name} has gone")))
    }
}

fn uuid(facts: &Facts) -> Result<Uuid, ApplyError> {
    facts.row().map(|row| row.uuid).ok_or_else(|| {
        ApplyError::Stale(format!("the ledger has no row for Tenant {} any more", facts.tenant.name_any()))
    })
}
