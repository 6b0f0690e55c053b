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
use super::rotation::Logins;
use super::{names, wait_for_readers, was_ready};

/// Connections to a tenant's database that are kept for rotation, backup and migration.
pub const RESERVED: i32 = 3;

/// The pooler entry. Tenants that are suspended or asleep have none.
pub fn plan(facts: &Facts, server: &ServerFacts, wanted: &PoolerEntry) -> PartPlan {
    if let state @ (TenantState::Suspended | TenantState::Hibernated) = facts.state() {
        return match &facts.pooler.entry {
            Some(_) => PartPlan::act(
                vec![Effect::WithdrawPooler { server: server.name.clone() }],
                "the pooler entry is being taken out",
            ),
            None if state == TenantState::Hibernated => PartPlan::ready("no entry: asleep"),
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
pub fn entry(uuid: Uuid, plan: &PlanDatabase, pooler: &Pooler, logins: &Logins, read_only: bool) -> PoolerEntry {
    let replicas = pooler.replicas.max(1);
    let most = most_per_replica(plan.max_connections, pooler);
    let pool_size = (plan.pool_size / replicas).clamp(1, most);
    PoolerEntry {
        uuid,
        database: names::database(uuid),
        pool_size,
        reserve_pool: pooler.reserve_pool_size.min(most - pool_size),
        max_db_connections: most,
        read_only,
        users: std::iter::once(active(uuid, logins)).chain(logins.kept_at_pooler.clone()).collect(),
    }
}

/// Most connections that one replica may open to a database.
pub fn most_per_replica(max_connections: i32, pooler: &Pooler) -> i32 {
    ((max_connections - RESERVED) / pooler.replicas.max(1)).max(1)
}

fn active(uuid: Uuid, logins: &Logins) -> PoolerUser {
    PoolerUser { name: names::login(uuid, logins.active), verifier: logins.credential.verifier.clone() }
}

/// The connection limit that the database is to have: the plan's. One that grows does so before the poolers hear of it; one
/// that shrinks does so after they have, and once no more sessions are open than it allows, so that nobody who may connect is
/// refused.
pub fn connection_limit(facts: &Facts, plan: &PlanDatabase, wanted: &PoolerEntry, current: Option<i32>) -> i32 {
    let Some(current) = current.filter(|current| *current > plan.max_connections) else { return plan.max_connections };
    let published = facts.pooler.entry.as_ref().map_or(0, |entry| entry.max_db_connections);
    let poolers_use_more = published > wanted.max_db_connections || facts.pooler.reach.is_behind();
    let too_many = facts.sessions.is_some_and(|sessions| sessions > i64::from(plan.max_connections - RESERVED));
    if poolers_use_more || too_many { current } else { plan.max_connections }
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
                let entry = entry(Uuid::nil(), &plan, &pooler, &Logins::default(), false);
                assert!(entry.pool_size >= 1 && entry.pool_size + entry.reserve_pool <= entry.max_db_connections);
                assert!(
                    replicas > max_connections - RESERVED
                        || entry.max_db_connections * replicas <= max_connections - RESERVED
                );
            }
        }
    }
}
