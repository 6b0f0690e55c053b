//! The connection budget of a server, for a tenant that is there already: a larger plan gets its connections only where
//! they are left.
//!
//! From      `Plan.spec.database`, what the server has promised and may promise (`registration` asks it before placing)
//! Makes     nothing: the sizes that `database` and `pooler` go by
//! Ready     when the plan's sizes are granted

use crate::api::condition::Reason;
use crate::api::plan::PlanDatabase;

use super::effect::Health;
use super::facts::{Facts, LedgerRow, ServerFacts};
use super::provisioning;
use super::registration::no_connections;

/// The sizes that a tenant gets, and what is the matter where they are not its plan's. A tenant is never made smaller by
/// this, and never kept from becoming smaller.
pub fn granted(
    facts: &Facts,
    row: &LedgerRow,
    server: &ServerFacts,
    plan: &PlanDatabase,
) -> (PlanDatabase, Option<Health>) {
    let Some(budget) = server.budget.filter(|budget| server.promised > *budget) else { return (plan.clone(), None) };
    let current =
        provisioning::connection_limit(facts, row).filter(|current| (1..plan.max_connections).contains(current));
    // A limit that somebody lowered on the server is put right all the same: there the pooler has what the plan says.
    let published = facts.pooler.entry.as_ref().map(|entry| entry.max_db_connections);
    let most = super::pooler::most_per_replica(plan.max_connections, &server.spec.pooler);
    let Some(current) = current.filter(|_| published.is_some_and(|published| published < most)) else {
        return (plan.clone(), None);
    };
    let sizes = PlanDatabase {
        max_connections: current,
        pool_size: plan.pool_size.min(current - super::pooler::RESERVED).max(1),
        ..plan.clone()
    };
    let asked = i64::from(plan.max_connections);
    let why = no_connections(&server.name, server.promised - asked, asked, budget);
    let message = format!("customers are served with {current} connections as before: {why}");
    (sizes, Some(Health::Blocked(Reason::CapacityExceeded, message)))
}
