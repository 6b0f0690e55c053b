//! See: everything that is known of one Tenant, gathered from what the watches, the ledger and the servers have shown.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use uuid::Uuid;

use super::{Visit, WATCH_LAG};
use crate::api::plan::PlanSpec;
use crate::api::tenant::{DeletionPolicy, TenantState};
use crate::api::{ANNOTATION_CHECK_DOMAINS, ANNOTATION_HASH};
use crate::controller::backup;
use crate::controller::context::Written;
use crate::controller::servers::Server;
use crate::desired::catalogue::Catalogue;
use crate::desired::facts::{
    DomainFact, Facts, LastJob, LedgerFact, Look, MarkedData, Published, Reach, Refusal, SecretFact, Seen,
};
use crate::desired::registration::may_make_database;
use crate::desired::scram::Credential;
use crate::desired::{database, drill, hosts, names, plan, rotation};
use crate::observe::ledger::uid;

impl Visit<'_> {
    pub(super) async fn facts(&self) -> Facts {
        let context = self.context;
        // Whole seconds, as the API server keeps them: else what was written never equals what is seen.
        let now = Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default();
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
        let (catalogue, warm) = match (uuid, &known) {
            (Some(uuid), Some(known)) => known.view(uuid, reserve).await,
            (Some(_), None) if server.is_some() => {
                (Seen::Unreachable(unreached.unwrap_or_else(|| "there is no such DatabaseServer".into())), None)
            }
            _ => (Seen::Known(Catalogue::default()), None),
        };
        let marked = match &ledger {
            Seen::Known(LedgerFact::Refused(Refusal::LedgerLost { uuid })) => self.marked(*uuid).await,
            _ => None,
        };
        let nothing = Published { entry: None, reach: Reach::All };
        let routing = uuid.map_or(Published { entry: None, reach: Reach::All }, |uuid| context.fleet.routing(uuid));
        let pooler = uuid.zip(server.as_deref()).map_or(nothing, |(uuid, server)| context.fleet.pooler(server, uuid));
        let next = match (uuid, &routing.entry) {
            (Some(uuid), Some(published)) if rotation::is_due(&self.tenant, published, now) => {
                Some(context.memory.next_credential(uuid))
            }
            _ => None,
        };
        let awake = uuid
            .filter(|_| self.tenant.spec.state == TenantState::Hibernated)
            .and_then(|uuid| context.fleet.awake(uuid, routing.entry.as_ref(), context.settings.sleep_after));
        let kept = match &ledger {
            Seen::Known(LedgerFact::Row(row)) => row.plan.as_deref(),
            _ => None,
        };
        let look = |name: &str| context.plans.get(&ObjectRef::new(name)).map(|plan| plan.spec.clone());
        let plan = plan::effective(&self.tenant.spec.plan_ref.name, kept, look);
        let sessions = self.sessions(uuid, known.as_deref(), plan.spec.as_ref(), &catalogue).await;
        let password = routing.entry.as_ref().map(|entry| entry.database.password.as_str());
        let mut tenant = self.tenant.clone();
        if let Some(written) = context.memory.status(uid(&tenant), tenant.status.as_ref()) {
            tenant.status = Some(written);
        }
        let domains = uuid.map_or_else(BTreeMap::new, |uuid| self.domains(uuid));
        Facts {
            now,
            domains,
            domain_grace: SignedDuration::try_from(context.settings.domain_grace).unwrap_or(SignedDuration::MAX),
            admin_host: context.settings.admin_host.clone(),
            next,
            overlap: SignedDuration::try_from(context.settings.rotation_overlap).unwrap_or(SignedDuration::MAX),
            restoring: uuid.is_some_and(|uuid| context.restores.is_held(uuid)),
            awake_until: awake.map(|left| now + left),
            sessions,
            backup: context.backups.heard(uuid),
            last_job: self.last_job(uuid, server.as_deref()).await,
            attempt: uuid.map(|uuid| context.memory.attempt(uuid)).unwrap_or_default(),
            plan_name: plan.name,
            plan: plan.spec,
            epoch: context.epoch(),
            base_domain: context.settings.base_domain.clone(),
            namespace_served: context.settings.tenant_namespaces.contains(&namespace),
            servers: context.servers.facts(&context.ledger, &context.plans),
            credential: uuid.map_or_else(Credential::default, |uuid| context.memory.credential(uuid, password)),
            binding: self.secret(&namespace, &names::binding(&self.tenant.name_any())),
            welcome: self.secret(&namespace, &names::welcome(&self.tenant.name_any())),
            workers: uuid.map(|uuid| context.workers.facts(uuid)).unwrap_or_default(),
            ledger,
            marked,
            catalogue,
            warm,
            pooler,
            routing,
            tenant,
        }
    }

    /// The hosts that the object asks for; from now on they are looked at, and those of before are not.
    fn domains(&self, uuid: Uuid) -> BTreeMap<String, DomainFact> {
        let context = self.context;
        let (Some(keys), None) = (context.keys.get(), &self.tenant.metadata.deletion_timestamp) else {
            context.domains.give_up(uuid);
            return BTreeMap::new();
        };
        let asked = self.tenant.spec.domains.iter().map(|domain| {
            let (claim, proved) = context.ledger.claim_and_proof(uuid, &domain.host);
            let values = hosts::values(&keys.tokens(uuid, hosts::PURPOSE, &domain.host));
            (
                domain.host.clone(),
                (DomainFact { values, claim, look: Look::NotYet, edge: context.edge.of(&domain.host) }, proved),
            )
        });
        let mut asked: BTreeMap<_, _> = asked.collect();
        let wanted = asked.iter().filter(|(host, _)| {
            hosts::refusal(&context.settings.base_domain, context.settings.admin_host.as_deref(), host).is_none()
        });
        let wanted = wanted.map(|(host, fact)| (host.clone(), fact.clone())).collect();
        let nudge = self.tenant.annotations().get(ANNOTATION_CHECK_DOMAINS);
        let recheck = SignedDuration::try_from(context.settings.domain_recheck).unwrap_or(SignedDuration::MAX);
        for (host, look) in context.domains.follow(uuid, self.reference(), nudge, wanted, recheck) {
            if let Some((fact, _)) = asked.get_mut(&host) {
                fact.look = look;
            }
        }
        asked.into_iter().map(|(host, (fact, _))| (host, fact)).collect()
    }

    /// The Job of a last backup, where one is asked for: nobody else asks.
    async fn last_job(&self, uuid: Option<Uuid>, server: Option<&str>) -> LastJob {
        let is_asked_for = self.tenant.metadata.deletion_timestamp.is_some()
            && self.tenant.spec.deletion_policy == DeletionPolicy::BackupThenDelete;
        let (Some(uuid), Some(server)) = (uuid, server) else { return LastJob::Absent };
        let turns = &self.context.backups.turns;
        if !is_asked_for {
            turns.give_back(uuid);
            return LastJob::Absent;
        }
        let job = backup::last_job(self.context, &drill::last_name(uuid, uid(&self.tenant))).await;
        match &job {
            LastJob::Absent if !turns.take(uuid, server) => return LastJob::NotYet,
            // An operator before this one made it.
            LastJob::Running => drop(turns.take(uuid, server)),
            LastJob::Succeeded | LastJob::Failed(_) => turns.give_back(uuid),
            _ => {}
        }
        job
    }

    /// Sessions in the tenant's database, where its limit is to shrink: nobody else asks.
    async fn sessions(
        &self,
        uuid: Option<Uuid>,
        server: Option<&Server>,
        plan: Option<&PlanSpec>,
        catalogue: &Seen<Catalogue>,
    ) -> Option<i64> {
        let Seen::Known(catalogue) = catalogue else { return None };
        let name = names::database(uuid?);
        let shrinks = catalogue.databases.get(&name)?.connection_limit > plan?.database.max_connections;
        if !shrinks {
            return None;
        }
        // Not known: as many as there can be.
        Some(server?.sessions(&name).await.unwrap_or(i64::MAX))
    }

    /// The database of a uuid that the ledger lost. Every server must have been seen, because one that was not may have
    /// it too; and the mark must name this object, because `status.uuid` is what anybody wrote there.
    async fn marked(&self, uuid: Uuid) -> Option<MarkedData> {
        let servers = &self.context.servers;
        let mut found = Vec::new();
        for facts in servers.facts(&self.context.ledger, &self.context.plans) {
            let server = servers.get(&facts.name)?;
            let (Seen::Known(catalogue), _) = server.view(uuid, false).await else { return None };
            let mark = catalogue.databases.get(&names::database(uuid)).and_then(database::mark_of);
            let ours = mark.filter(|mark| mark.uuid == uuid && mark.object_uid == uid(&self.tenant));
            found.extend(ours.map(|mark| MarkedData { server: facts.name, schema: mark.schema }));
        }
        if found.len() == 1 { found.pop() } else { None }
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
}

/// For a moment after our own write the watch may still show what was there before, or already what somebody else wrote
/// after us: which of the two, the next look tells.
pub(in crate::controller) fn is_unseen(written: &Written, version: Option<&String>) -> bool {
    written.resource_version.as_ref() != version && written.at.elapsed() < WATCH_LAG
}
