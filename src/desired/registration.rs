//! Registration and placement: which uuid and which server the tenant has.
//!
//! From      the object's name, uid and `spec`; the ledger
//! Makes     the tenant's row in the ledger, the server in it; both at once where a server has room
//! Ready     when the ledger has a row for this very object and names its server
//! Teardown  the row is released or quarantined, see `teardown`

use crate::api::condition::Reason;

use super::effect::{Effect, PartPlan};
use super::facts::{Facts, LedgerFact, LedgerRow, LedgerState, Refusal, Seen, ServerFacts};

/// The ledger's row.
pub fn plan(facts: &Facts) -> PartPlan {
    if !facts.namespace_served {
        return PartPlan::blocked(
            Reason::PermissionDenied,
            "Tenants in this namespace are not served and customers get nothing: add the namespace to the chart's tenantNamespaces",
        );
    }
    match &facts.ledger {
        Seen::Unreachable(why) => PartPlan::wait(
            Reason::DatabaseUnreachable,
            format!("the central database does not answer; customers are served as before: {why}"),
        ),
        // The uuid is not minted anew, and nothing is made: the row says again what the mark on the server says.
        Seen::Known(LedgerFact::Refused(Refusal::LedgerLost { .. })) if facts.marked.is_some() => {
            PartPlan::act(vec![Effect::Register { server: None }], "its lost row in the ledger is being written again")
        }
        Seen::Known(LedgerFact::Refused(refusal)) => {
            let (reason, message) = refused(refusal);
            PartPlan::blocked(reason, message)
        }
        Seen::Known(LedgerFact::Unregistered) => match may_begin(facts) {
            Ok(()) => {
                let server = facts.tenant.spec.uuid.is_none().then(|| choose(facts).ok()).flatten();
                let effect = Effect::Register { server: server.map(|server| server.name.clone()) };
                PartPlan::act(vec![effect], "being registered")
            }
            Err(blocked) => blocked,
        },
        Seen::Known(LedgerFact::Row(row)) if !row.current || has_another_plan(facts, row) => {
            PartPlan::act(vec![Effect::Register { server: None }], "being updated in the ledger")
        }
        Seen::Known(LedgerFact::Row(row)) => PartPlan::ready(format!("tenant {}", row.uuid)),
    }
}

/// The Plan that counts became another although the object is the same: it is sold again.
fn has_another_plan(facts: &Facts, row: &LedgerRow) -> bool {
    facts.plan.is_some() && row.plan.as_ref().is_some_and(|plan| *plan != facts.plan_name)
}

/// The server.
pub fn placement(facts: &Facts, row: &LedgerRow) -> PartPlan {
    if let Some(server) = &row.server {
        return match facts.server() {
            Some(_) => PartPlan::ready(format!("on {server}")),
            None => PartPlan::blocked(
                Reason::ServerNotFound,
                format!(
                    "the data lies on DatabaseServer {server}, which does not exist any more: create it again with the same server behind it"
                ),
            ),
        };
    }
    match choose(facts) {
        Ok(server) => PartPlan::act(
            vec![Effect::Place { server: server.name.clone() }],
            format!("being placed on {}", server.name),
        ),
        Err(plan) => plan,
    }
}

/// The server that the object names.
fn asked(facts: &Facts) -> Option<&str> {
    let database = facts.tenant.spec.database.as_ref()?;
    Some(database.server_ref.as_ref()?.name.as_str())
}

/// A new Tenant needs a Plan that is sold; one that has data keeps it whatever becomes of its Plan.
fn may_begin(facts: &Facts) -> Result<(), PartPlan> {
    let name = &facts.tenant.spec.plan_ref.name;
    match &facts.plan {
        None => Err(PartPlan::blocked(Reason::PlanNotFound, plan_not_found(name))),
        Some(plan) if !plan.active && facts.tenant.spec.uuid.is_none() => Err(PartPlan::blocked(
            Reason::PlanInactive,
            format!("Plan {name} is not sold any more: set spec.planRef.name to an active Plan (kubectl get plans)"),
        )),
        Some(_) => Ok(()),
    }
}

/// The message where a Plan is missing.
pub fn plan_not_found(name: &str) -> String {
    format!("there is no Plan {name}: create it, or set spec.planRef.name to one of kubectl get plans")
}

fn choose(facts: &Facts) -> Result<&ServerFacts, PartPlan> {
    let servers = &facts.servers;
    let connections = facts.plan.as_ref().map_or(0, |plan| i64::from(plan.database.max_connections));
    if let Some(name) = asked(facts) {
        let server = servers.iter().find(|server| server.name == name).ok_or_else(|| {
            PartPlan::blocked(
                Reason::ServerNotFound,
                format!("there is no DatabaseServer {name}: create it, or create the Tenant again with another spec.database.serverRef (kubectl get databaseservers)"),
            )
        })?;
        if is_full(server) {
            return Err(PartPlan::blocked(
                Reason::CapacityExceeded,
                format!(
                    "DatabaseServer {name} is full ({} tenants): raise spec.capacity.maxTenants or choose another server",
                    server.tenants
                ),
            ));
        }
        if !has_connections(server, connections) {
            let message = no_connections(name, server.promised, connections, server.budget.unwrap_or_default());
            return Err(PartPlan::blocked(Reason::CapacityExceeded, message));
        }
        return server
            .open
            .as_ref()
            .map(|()| server)
            .map_err(|why| closed(&format!("DatabaseServer {name} takes no tenants yet: {why}")));
    }
    if servers.is_empty() {
        return Err(PartPlan::blocked(
            Reason::ServerNotFound,
            "there is no DatabaseServer: create one (see manifests/samples)",
        ));
    }
    let roomy: Vec<_> = servers.iter().filter(|server| !is_full(server)).collect();
    if roomy.is_empty() {
        return Err(PartPlan::blocked(
            Reason::CapacityExceeded,
            "every DatabaseServer is full: raise spec.capacity.maxTenants or create another DatabaseServer",
        ));
    }
    let able: Vec<_> = roomy.iter().filter(|server| has_connections(server, connections)).collect();
    if able.is_empty() {
        let why: Vec<_> = roomy
            .iter()
            .map(|server| no_connections(&server.name, server.promised, connections, server.budget.unwrap_or_default()))
            .collect();
        return Err(PartPlan::blocked(Reason::CapacityExceeded, why.join("; ")));
    }
    able.iter()
        .copied()
        .filter(|server| server.open.is_ok())
        .min_by_key(|server| (server.tenants, server.name.clone()))
        .copied()
        .ok_or_else(|| {
            let why: Vec<_> = roomy
                .iter()
                .filter_map(|server| server.open.as_ref().err().map(|why| format!("{}: {why}", server.name)))
                .collect();
            closed(&format!("no DatabaseServer takes tenants yet: {}", why.join("; ")))
        })
}

fn closed(message: &str) -> PartPlan {
    PartPlan::wait(Reason::DatabaseUnreachable, message)
}

/// Whether a server has so many connections left; one that was not seen yet is not open anyway.
fn has_connections(server: &ServerFacts, wanted: i64) -> bool {
    server.budget.is_none_or(|budget| server.promised + wanted <= budget)
}

/// The message where a server has too few connections left.
pub fn no_connections(server: &str, promised: i64, asked: i64, budget: i64) -> String {
    format!(
        "DatabaseServer {server} has promised {promised} of the {budget} connections that it may, and the plan asks for {asked} more: raise spec.capacity.connectionOvercommit or maxConnections (and max_connections of PostgreSQL), lower spec.database.maxConnections of the Plan, or create another DatabaseServer"
    )
}

fn is_full(server: &ServerFacts) -> bool {
    usize::try_from(server.spec.capacity.max_tenants).is_ok_and(|most| server.tenants >= most)
}

/// The reason and what there is to say.
pub(super) fn refused(refusal: &Refusal) -> (Reason, String) {
    match refusal {
        Refusal::SlugTaken { slug, holder } => (
            Reason::SlugConflict,
            format!(
                "slug {slug} belongs to Tenant {holder}, whose customers are not affected: delete this Tenant and create it with another spec.slug"
            ),
        ),
        Refusal::SlugKept { slug, uuid } => (
            Reason::SlugConflict,
            format!(
                "slug {slug} belongs to data that was kept: to take it over create this Tenant again with spec.uuid: {uuid}, else with another spec.slug"
            ),
        ),
        Refusal::NotAdoptable { uuid, why } => (
            Reason::Conflict,
            format!(
                "data {uuid} cannot be adopted: {why}. Create this Tenant again with the right spec.uuid, or without"
            ),
        ),
        Refusal::LedgerLost { uuid } => (
            Reason::LedgerLost,
            format!(
                "the ledger has no row for {uuid}, which this Tenant was given: nothing is made or dropped until the central database is restored"
            ),
        ),
    }
}

/// Whether a database may be made for the row: only before one was ever made.
pub const fn may_make_database(row: &LedgerRow) -> bool {
    matches!(row.state, LedgerState::Registered)
}
