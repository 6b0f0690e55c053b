//! One Tenant as a whole: the parts in their order, and what is to be done next.

use std::collections::BTreeMap;

use crate::api::FINALIZER;
use crate::api::condition::{ConditionType, Reason};
use crate::api::plan::PlanSpec;
use crate::api::pooler::PoolerEntry;
use crate::api::routing::{DatabaseAccess, RoutingEntry};
use crate::api::tenant::TenantState;

use super::database::Wanted;
use super::effect::{Effect, Health, PartPlan};
use super::facts::{Attempt, Facts, LedgerRow, LedgerState, PoolerAddress, Seen, ServerFacts};
use super::rotation::{self, Logins};
use super::{
    budget, credentials, hosts, names, plan, pooler, provisioning, registration, routing, status, teardown, welcome,
    workers,
};

/// What is to be done next for a Tenant, and how it stands.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Outlook {
    /// To be done now, in order; what follows from them is decided anew afterwards. Empty: at rest, or waiting.
    pub effects: Vec<Effect>,
    /// One per part that was reached, in the order of the parts.
    pub health: BTreeMap<ConditionType, Health>,
}

impl Outlook {
    fn take(&mut self, condition: ConditionType, plan: PartPlan) -> bool {
        let ready = plan.health.is_ready();
        self.effects.extend(plan.effects);
        self.health.insert(condition, plan.health);
        ready
    }

    /// The first part that is not as it should be.
    pub fn trouble(&self) -> Option<&Health> {
        // A part that needs somebody is what the reader has to know first; the order of the parts decides the rest.
        let unready =
            || ORDER.iter().filter_map(|condition| self.health.get(condition)).filter(|health| !health.is_ready());
        unready().find(|health| matches!(health, Health::Blocked(..))).or_else(|| unready().next())
    }
}

/// The parts in the order in which they come into being.
pub const ORDER: &[ConditionType] = &[
    ConditionType::Registered,
    ConditionType::DatabaseReady,
    ConditionType::SchemaCurrent,
    ConditionType::PoolReady,
    ConditionType::RouteReady,
    ConditionType::DomainsVerified,
    ConditionType::WorkersReady,
];

/// What is to be done next.
pub fn plan(facts: &Facts) -> Outlook {
    let metadata = &facts.tenant.metadata;
    let held = metadata.finalizers.iter().flatten().any(|finalizer| finalizer == FINALIZER);
    if metadata.deletion_timestamp.is_some() {
        return if held { teardown::plan(facts) } else { Outlook::default() };
    }
    let mut outlook = Outlook::default();
    if !held && facts.namespace_served {
        // Before anything exists that a delete would have to undo.
        outlook.effects.push(Effect::AddFinalizer);
        return outlook;
    }
    if outlook.take(ConditionType::Registered, registration::plan(facts))
        && let Some(row) = facts.row()
    {
        parts(facts, row, &mut outlook);
        if !outlook.health.contains_key(&ConditionType::RouteReady) {
            // The route was not reached, and what is published stays; but for hosts that somebody else may have by now.
            let entry = hosts::without_lost(facts, row).map(Box::new);
            outlook.effects.extend(entry.map(|entry| Effect::PublishRouting { entry }));
        }
        if let Some(refusal) = plan::refusal(facts) {
            outlook.take(ConditionType::Registered, refusal);
        }
    }
    outlook
}

fn parts(facts: &Facts, row: &LedgerRow, outlook: &mut Outlook) {
    // How they stand is said by `hosts::condition`, and keeps nothing waiting.
    outlook.take(ConditionType::DomainsVerified, PartPlan::ready("see the status"));
    let placement = registration::placement(facts, row);
    let Some(server) = facts.server() else {
        outlook.take(ConditionType::DatabaseReady, placement);
        return;
    };
    let Some(plan) = &facts.plan else {
        let message = format!(
            "{}; customers are served as before",
            registration::plan_not_found(&facts.tenant.spec.plan_ref.name)
        );
        outlook.take(ConditionType::DatabaseReady, PartPlan::blocked(Reason::PlanNotFound, message));
        return;
    };
    serve(facts, row, server, plan, outlook);
    // Last, and not before customers are routed: nobody goes unserved because of them.
    if facts.restoring {
        // They find no work while it is not served, and are not taken away for seconds.
        outlook.take(ConditionType::WorkersReady, PartPlan::ready("its jobs wait until it is served again"));
    } else if facts.routing.entry.is_some() {
        outlook.take(ConditionType::WorkersReady, workers::plan(facts, row, plan));
    }
}

/// Database, pooler, routing and binding of a tenant that has a server and a plan.
fn serve(facts: &Facts, row: &LedgerRow, server: &ServerFacts, plan: &PlanSpec, outlook: &mut Outlook) {
    let Some(pooler) = pooler_address(facts, server) else {
        let message = format!("the pooler of server {} is not put up yet", server.name);
        outlook.take(ConditionType::DatabaseReady, PartPlan::wait(Reason::DatabaseUnreachable, message));
        return;
    };
    let (logins, wanted, entry, database) = database(facts, row, server, plan);
    let access = DatabaseAccess {
        host: pooler.host,
        port: pooler.port,
        name: names::database(row.uuid),
        username: wanted.login_name(),
        password: logins.credential.password.clone(),
        sslmode: pooler.sslmode,
        ca: pooler.ca,
        issued_at: logins.issued_at.clone(),
        rotation: logins.rotation.clone(),
    };
    let route = routing::entry(facts, row, plan, access.clone());
    if facts.restoring {
        return restoring(facts, server, &route, &entry, outlook);
    }
    if facts.tenant.spec.state == TenantState::Suspended {
        // The reverse order: no new requests, then no pooler, then no login.
        outlook.take(ConditionType::RouteReady, routing::plan(facts, &route));
        outlook.take(ConditionType::PoolReady, pooler::plan(facts, server, &entry));
        made(facts, row, database, outlook);
        return;
    }
    let made = made(facts, row, database, outlook);
    if !made && (row.state == LedgerState::Registered || logins.switching) {
        return;
    }
    let routed = || {
        let welcome = welcome::plan(facts, &route.primary_host);
        with_secrets(credentials::plan(facts, &access), routing::plan(facts, &route), welcome)
    };
    if facts.state() == TenantState::Hibernated {
        // Requests that are on their way keep their connections until every app endpoint shows the waiting page.
        let asleep = outlook.take(ConditionType::RouteReady, routed());
        if asleep || facts.pooler.entry.is_none() {
            outlook.take(ConditionType::PoolReady, pooler::plan(facts, server, &entry));
        }
        return;
    }
    // Changes to a tenant that is served go on although its server does not answer; a missing database is published nowhere anew.
    if !made && facts.pooler.entry.is_none() {
        return;
    }
    let pooled = outlook.take(ConditionType::PoolReady, pooler::plan(facts, server, &entry));
    let same_access = facts.routing.entry.as_ref().is_some_and(|published| published.database == access);
    let goes_on = pooled || (same_access && is_pooled(facts));
    if !goes_on {
        return;
    }
    outlook.take(ConditionType::RouteReady, routed());
}

/// Whether requests that are routed find the tenant at the pooler: what wakes up is routed only then.
/// A restored database takes the place of the live one: no requests, then no pooler. What is on the server is the restore's
/// meanwhile.
fn restoring(facts: &Facts, server: &ServerFacts, route: &RoutingEntry, entry: &PoolerEntry, outlook: &mut Outlook) {
    // Also where no app endpoint is ready that could say so.
    let closed = facts.routing.entry.as_ref() == Some(route) && !facts.routing.reach.is_behind();
    outlook.take(ConditionType::RouteReady, routing::plan(facts, route));
    if closed || facts.pooler.entry.is_none() {
        outlook.take(ConditionType::PoolReady, pooler::plan(facts, server, entry));
    }
    let message = "a restored database takes the place of this one; customers see a page that asks for a moment: kubectl get tenantrestores";
    outlook.take(ConditionType::DatabaseReady, PartPlan::wait(Reason::Restoring, message));
}

fn is_pooled(facts: &Facts) -> bool {
    facts.pooler.entry.is_some()
        && facts.routing.entry.as_ref().is_some_and(|published| published.state != TenantState::Hibernated)
}

/// The route and the Secrets beside the Tenant, as one part. The welcome Secret is written last: nobody goes unserved
/// because of it.
fn with_secrets(binding: PartPlan, route: PartPlan, welcome: PartPlan) -> PartPlan {
    let unready = [binding.health, welcome.health].into_iter().find(|health| !health.is_ready());
    let health = match unready {
        Some(unready) if !matches!(route.health, Health::Blocked(..)) => unready,
        _ => route.health,
    };
    let effects = binding.effects.into_iter().chain(route.effects).chain(welcome.effects).collect();
    PartPlan { effects, health }
}

/// Where the pooler answers. An operator that has not put it up yet, because the server does not answer or it has just
/// begun, leaves the address that is published: customers go on being served.
fn pooler_address(facts: &Facts, server: &ServerFacts) -> Option<PoolerAddress> {
    if !server.pooler.host.is_empty() {
        return Some(server.pooler.clone());
    }
    let published = &facts.routing.entry.as_ref()?.database;
    Some(PoolerAddress {
        host: published.host.clone(),
        port: published.port,
        sslmode: published.sslmode.clone(),
        ca: published.ca.clone(),
    })
}

/// What the tenant is to have on its server and at its pooler. A rotation that is due begins only where the server does what
/// it is told: the login in use must not be replaced by one that cannot be made.
fn database(
    facts: &Facts,
    row: &LedgerRow,
    server: &ServerFacts,
    plan: &PlanSpec,
) -> (Logins, Wanted, PoolerEntry, PartPlan) {
    let read_only = facts.tenant.spec.state == TenantState::ReadOnly;
    let (sizes, held) = budget::granted(facts, row, server, &plan.database);
    let with = |logins: Logins| {
        let entry = pooler::entry(row.uuid, &sizes, &server.spec.pooler, &logins, read_only);
        let limit = pooler::connection_limit(facts, &sizes, &entry, provisioning::connection_limit(facts, row));
        let wanted = provisioning::wanted(facts, row, plan, &logins, limit);
        let mut plan = provisioning::plan(facts, row, server, &wanted);
        if let Some(held) = held.clone().filter(|_| plan.health.is_ready()) {
            plan.health = held;
        }
        (logins, wanted, entry, plan)
    };
    let decided = with(rotation::logins(facts));
    let (logins, .., plan) = &decided;
    if logins.switching && !stands(plan) && plan.effects.is_empty() {
        return with(rotation::steady(facts));
    }
    decided
}

/// The schema. A failure stands until another attempt, or as long as the database has the version that it had then.
fn schema(facts: &Facts, version: &str) -> PartPlan {
    let status = facts.status();
    let failure = match &facts.attempt {
        Attempt::Failed(why) => Some(why.as_str()),
        Attempt::Clean => None,
        Attempt::Unknown => status::schema_failure(&status, version),
    };
    match failure {
        Some(why) => PartPlan::blocked(Reason::MigrationFailed, status::schema_message(version, why)),
        None => PartPlan::ready(format!("schema {version}")),
    }
}

/// The database is as it should be, if perhaps smaller than its plan says.
const fn stands(plan: &PartPlan) -> bool {
    matches!(plan.health, Health::Ready(_) | Health::Blocked(Reason::CapacityExceeded, _))
}

/// The database and the schema in it, as parts.
fn made(facts: &Facts, row: &LedgerRow, plan: PartPlan, outlook: &mut Outlook) -> bool {
    let made = stands(&plan);
    outlook.take(ConditionType::DatabaseReady, plan);
    if made {
        let mark = match &facts.catalogue {
            Seen::Known(catalogue) => provisioning::schema_of(row, catalogue),
            Seen::Unreachable(_) => None,
        };
        let version = mark.map(|mark| names::schema_version(&mark.schema).to_owned()).unwrap_or_default();
        outlook.take(ConditionType::SchemaCurrent, schema(facts, &version));
    }
    made
}
