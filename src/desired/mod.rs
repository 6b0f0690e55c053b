//! What should exist. Pure: facts in, effects and health out; no client, no clock, no randomness, no environment.
//!
//! One file per part of a tenant, all of one shape: `plan(facts, …) -> PartPlan`. [`tenant`] puts them in order.

pub mod backup;
pub mod backup_now;
pub mod budget;
pub mod catalogue;
pub mod credentials;
pub mod database;
pub mod drill;
pub mod edge;
pub mod effect;
pub mod facts;
pub mod hosts;
pub mod migration;
pub mod names;
pub mod plan;
pub mod pooler;
pub mod pooler_objects;
pub mod provisioning;
pub mod registration;
pub mod restore;
pub mod retire;
pub mod rollout;
pub mod rotation;
pub mod routing;
pub mod scram;
pub mod scratch;
pub mod server;
pub mod shared_backup;
pub mod sql;
pub mod status;
pub mod teardown;
pub mod tenant;
pub mod welcome;
pub mod worker_objects;
pub mod workers;

use crate::api::condition::{ConditionType, Reason};

use effect::PartPlan;
use facts::{Facts, Reach};

/// Whether a part was ready when the status was last written. Readers that were scaled away since, also to none, change
/// `Serving` and not whether what is asked for is in place (decision D7).
fn was_ready(facts: &Facts, part: ConditionType) -> bool {
    facts.status().conditions.iter().any(|condition| condition.type_ == part.as_str() && condition.status == "True")
}

/// Ready when every reader serves the entry; one that has been behind too long is named and not waited for.
fn wait_for_readers(reach: &Reach, what: &str) -> PartPlan {
    match reach {
        Reach::All => PartPlan::ready(format!("served by every {what}")),
        Reach::Behind { readers, .. } if reach.is_settled() => {
            PartPlan::ready(format!("served; {what} {} is behind", readers.join(", ")))
        }
        Reach::Behind { readers, .. } => {
            PartPlan::wait(Reason::Provisioning, format!("{what} {} does not serve it yet", readers.join(", ")))
        }
        Reach::NoReaders => PartPlan::wait(Reason::NoReaders, format!("no {what} is ready")),
    }
}

#[cfg(test)]
mod convergence;
