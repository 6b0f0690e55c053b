//! The tenant's entry at the pooler.
//!
//! From      `Plan.spec.database`, `DatabaseServer.spec.pooler`, the login in use
//! Makes     an entry in slice `pooler-<server>-NN`
//! Ready     when every ready pooler serves it
//! Teardown  after the route is gone, before the logins go

use uuid::Uuid;

use crate::api::condition::{ConditionType, Reason};
use crate::api::plan::PlanDatabase;
use crate::api::pooler::{PoolerEntry, PoolerUser};
use crate::api::server::Pooler;
use crate::api::tenant::TenantState;

use super::effect::{Effect, PartPlan};
use super::facts::{Facts, Reach, ServerFacts};
use super::{names, wait_for_readers, was_ready};

/// Connections to a tenant's database that are kept for rotation, backup and migration.
const RESERVED: i32 = 3;

/// The pooler entry. Suspended tenants have none.
pub fn plan(facts: &Facts, server: &ServerFacts, wanted: &PoolerEntry) -> PartPlan {
    if facts.tenant.spec.state == TenantState::Suspended {
        return match &facts.pooler.entry {
            Some(_) => PartPlan::act(
                vec![Effect::WithdrawPooler { server: server.name.clone() }],
                "the pooler entry is being taken out",
            ),
            None => PartPlan::ready("no entry: suspended"),
        };
    }
    if facts.pooler.entry.as_ref() != Some(wanted) {
        let effect = Effect::PublishPooler { server: server.name.clone(), entry: wanted.clone() };
        return PartPlan::act(vec![effect], "the pooler entry is being written");
    }
    if facts.pooler.reach == Reach::NoReaders {
        if was_ready(facts, ConditionType::PoolReady) {
            return PartPlan::ready("published; no pooler is ready");
        }
        let server = &server.name;
        let message =
            format!("no pooler of {server} is ready: kubectl get pods -l tenancy.maintenance-os.com/server={server}");
        return PartPlan::wait(Reason::NoReaders, message);
    }
    wait_for_readers(&facts.pooler.reach, "pooler")
}

/// The entry that a tenant is to have. Sizes are those of one replica, so that all replicas together stay within the
/// database's limit, with [`RESERVED`] connections to spare (decision D8).
pub fn entry(uuid: Uuid, plan: &PlanDatabase, pooler: &Pooler, login: &str, verifier: &str) -> PoolerEntry {
    let replicas = pooler.replicas.max(1);
    let most = ((plan.max_connections - RESERVED) / replicas).max(1);
    let pool_size = (plan.pool_size / replicas).clamp(1, most);
    PoolerEntry {
        uuid,
        database: names::database(uuid),
        pool_size,
        reserve_pool: pooler.reserve_pool_size.min(most - pool_size),
        max_db_connections: most,
        users: vec![PoolerUser { name: login.to_owned(), verifier: verifier.to_owned() }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_replicas_together_stay_within_the_databases_limit() {
        for replicas in 1..=20 {
            for (pool_size, max_connections) in [(1, 4), (10, 25), (22, 25), (100, 103)] {
                let plan = PlanDatabase { pool_size, max_connections, ..PlanDatabase::default() };
                let pooler = Pooler { replicas, ..Pooler::default() };
                let entry = entry(Uuid::nil(), &plan, &pooler, "l", "v");
                assert!(entry.pool_size >= 1 && entry.pool_size + entry.reserve_pool <= entry.max_db_connections);
                assert!(
                    replicas > max_connections - RESERVED
                        || entry.max_db_connections * replicas <= max_connections - RESERVED
                );
            }
        }
    }
}
