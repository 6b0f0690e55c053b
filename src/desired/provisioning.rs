//! From no database to the tenant's database: which statements come next.
//!
//! From      how the server stands to what is wanted (`database`), the ledger's word on whether a database was ever made
//! Makes     a claim of a warm database, a clone where there is none, repairs; the note in the ledger
//! Ready     when the server has what is wanted and the ledger knows
//! Teardown  see `teardown`

use crate::api::condition::Reason;
use crate::api::plan::PlanSpec;
use crate::api::tenant::TenantState;
use crate::settings::parse_duration;

use super::catalogue::Catalogue;
use super::database::{self, Mark, Standing, Wanted};
use super::effect::{Effect, PartPlan};
use super::facts::{Facts, LedgerRow, LedgerState, Seen, ServerFacts};
use super::names;
use super::registration::may_make_database;
use super::rotation::Logins;
use super::sql::Batch;

/// What the tenant is to have on its server.
pub fn wanted(facts: &Facts, row: &LedgerRow, plan: &PlanSpec, logins: &Logins, connection_limit: i32) -> Wanted {
    Wanted {
        uuid: row.uuid,
        object_uid: object_uid(facts),
        epoch: facts.epoch,
        connection_limit,
        // The API server has checked the text by the pattern of the field.
        statement_timeout: parse_duration(&plan.database.statement_timeout)
            .unwrap_or(std::time::Duration::from_secs(30)),
        login: facts.tenant.spec.state != TenantState::Suspended,
        read_only: facts.tenant.spec.state == TenantState::ReadOnly,
        slot: logins.active,
        verifier: logins.credential.verifier.clone(),
        kept: logins.kept,
    }
}

/// The uid of the Tenant object.
pub fn object_uid(facts: &Facts) -> uuid::Uuid {
    facts.tenant.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()).unwrap_or_default()
}

/// The database.
pub fn plan(facts: &Facts, row: &LedgerRow, server: &ServerFacts, wanted: &Wanted) -> PartPlan {
    let catalogue = match &facts.catalogue {
        Seen::Known(catalogue) => catalogue,
        Seen::Unreachable(why) => {
            return PartPlan::wait(
                Reason::DatabaseUnreachable,
                format!("server {} does not answer; nothing is changed on it: {why}", server.name),
            );
        }
    };
    let sql = |batch: Batch| Effect::Sql { server: server.name.clone(), batch };
    match database::standing(wanted, catalogue) {
        Standing::InPlace => match noted(row, catalogue) {
            Some(effect) => PartPlan::act(vec![effect], "the database is there and is being noted in the ledger"),
            None => PartPlan::ready(format!("{} on {}", names::database(row.uuid), server.name)),
        },
        Standing::Differs(batch) => PartPlan::act(vec![sql(batch)], "database and logins are being put right"),
        Standing::Quarantined if row.state == LedgerState::Provisioned => PartPlan::act(
            vec![sql(database::recall(wanted, catalogue))],
            "the database is being brought back from quarantine",
        ),
        Standing::Absent if may_make_database(row) => make(facts, server, wanted, catalogue),
        Standing::Quarantined | Standing::Absent => PartPlan::blocked(
            Reason::DataMissing,
            format!(
                "database {} is not on server {} although it was made there; customers get errors and nothing is made in its place: restore it from a backup or bring it back under that name",
                names::database(row.uuid),
                server.name
            ),
        ),
        Standing::Foreign(what) => PartPlan::blocked(
            Reason::Conflict,
            format!("{what}; it is neither altered nor dropped: find out whose it is, then rename it"),
        ),
    }
}

fn make(facts: &Facts, server: &ServerFacts, wanted: &Wanted, catalogue: &Catalogue) -> PartPlan {
    let Some(schema) = &server.schema else {
        return PartPlan::wait(Reason::Provisioning, format!("the template on server {} is being built", server.name));
    };
    match &facts.warm {
        Some(warm) => {
            let batch = database::claim(wanted, catalogue, warm, schema);
            PartPlan::act(vec![Effect::Sql { server: server.name.clone(), batch }], "a database is being claimed")
        }
        None => PartPlan::act(
            vec![Effect::Clone { server: server.name.clone() }],
            "a database is being cloned from the template",
        ),
    }
}

/// The ledger has to know that a database was made, so that its absence is noticed ever after.
fn noted(row: &LedgerRow, catalogue: &Catalogue) -> Option<Effect> {
    let schema = schema_of(row, catalogue)?.schema;
    (row.state == LedgerState::Registered || row.schema.as_ref() != Some(&schema))
        .then_some(Effect::MarkProvisioned { schema })
}

/// The connection limit that the tenant's database has now.
pub fn connection_limit(facts: &Facts, row: &LedgerRow) -> Option<i32> {
    let Seen::Known(catalogue) = &facts.catalogue else { return None };
    catalogue.databases.get(&names::database(row.uuid)).map(|database| database.connection_limit)
}

/// The mark on the tenant's database.
pub fn schema_of(row: &LedgerRow, catalogue: &Catalogue) -> Option<Mark> {
    catalogue.databases.get(&names::database(row.uuid)).and_then(database::mark_of)
}
