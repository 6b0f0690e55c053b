//! What a delete does, in the reverse order of what a create did.
//!
//! Routing goes first, then workers of its own, then the pooler entry, then the logins, then the ledger's row is released or put into quarantine,
//! and last the finalizer. Data is never dropped here: `Retain` keeps it, `Delete` puts it into quarantine, and only the
//! ledger's own clock ends a quarantine (decision D12).

use kube::ResourceExt;

use crate::api::condition::{ConditionType, Reason};
use crate::api::tenant::DeletionPolicy;
use crate::api::{ANNOTATION_CONFIRM_DELETE, Tenant};
use crate::settings::parse_duration;

use super::database;
use super::effect::{DatabaseSeen, Effect, Health};
use super::facts::{Facts, LedgerFact, LedgerRow, LedgerState, Refusal, Seen};
use super::sql::Batch;
use super::tenant::Outlook;
use super::{names, registration};

/// How long deleted data can be had back where the Tenant says nothing: seven days.
const QUARANTINE_SECONDS: i64 = 7 * 24 * 3600;

/// What is to be done next for a Tenant that is being deleted.
pub fn plan(facts: &Facts) -> Outlook {
    let row = match &facts.ledger {
        Seen::Unreachable(why) => {
            return hold(
                Reason::DatabaseUnreachable,
                format!("the delete waits for the central database, which does not answer: {why}"),
            );
        }
        Seen::Known(LedgerFact::Refused(Refusal::LedgerLost { .. })) if facts.marked.is_some() => {
            return act(vec![Effect::Register { server: None }]);
        }
        Seen::Known(LedgerFact::Refused(Refusal::LedgerLost { uuid })) => {
            return hold(
                Reason::LedgerLost,
                format!(
                    "the ledger has no row for {uuid}, so that nothing can be released safely: restore the central database, or remove the finalizer by hand; the data stays on its server"
                ),
            );
        }
        // It had a tenant before, whose row cannot be written again: what is left of it is not this object's to forget.
        Seen::Known(LedgerFact::Refused(refusal)) if facts.status().uuid.is_some() => {
            let (reason, message) = registration::refused(refusal);
            return hold(reason, format!("{message}. The delete waits: the data stays on its server"));
        }
        // It never got anything: nothing to undo.
        Seen::Known(LedgerFact::Unregistered | LedgerFact::Refused(_)) => return act(vec![Effect::RemoveFinalizer]),
        Seen::Known(LedgerFact::Row(row)) => row,
    };
    if facts.routing.entry.is_some() {
        return act(vec![Effect::WithdrawRouting]);
    }
    if facts.routing.reach.is_behind() {
        return wait("waiting until no app endpoint routes it any more");
    }
    if facts.workers.deployment.is_some() {
        return act(vec![Effect::DeleteWorkers { name: names::workers(row.uuid) }]);
    }
    if let (Some(_), Some(server)) = (&facts.pooler.entry, &row.server) {
        return act(vec![Effect::WithdrawPooler { server: server.clone() }]);
    }
    if facts.pooler.reach.is_behind() {
        return wait("waiting until no pooler serves it any more");
    }
    match facts.tenant.spec.deletion_policy {
        DeletionPolicy::Retain => retain(facts, row),
        DeletionPolicy::Delete => delete(facts, row),
    }
}

fn retain(facts: &Facts, row: &LedgerRow) -> Outlook {
    if matches!(row.state, LedgerState::Retained | LedgerState::Dropped) {
        return act(vec![Effect::RemoveFinalizer]);
    }
    let Some(server) = &row.server else { return act(vec![release(DatabaseSeen::Absent)]) };
    let Seen::Known(catalogue) = &facts.catalogue else {
        // Released now; the logins are revoked from the ledger once the server answers again.
        return act(vec![release(DatabaseSeen::Unknown)]);
    };
    let statements = database::release(row.uuid, catalogue);
    if !statements.is_empty() {
        return act(vec![Effect::Sql { server: server.clone(), batch: Batch::transaction(statements) }]);
    }
    let present = catalogue.databases.contains_key(&names::database(row.uuid));
    act(vec![release(if present { DatabaseSeen::Present } else { DatabaseSeen::Absent })])
}

const fn release(database: DatabaseSeen) -> Effect {
    Effect::Release { database }
}

fn delete(facts: &Facts, row: &LedgerRow) -> Outlook {
    let Some(server) = &row.server else { return act(vec![release(DatabaseSeen::Absent)]) };
    let catalogue = match &facts.catalogue {
        Seen::Known(catalogue) => catalogue,
        Seen::Unreachable(why) => {
            return hold(
                Reason::DeletionBlocked,
                format!("the delete waits for server {server}, which does not answer; the data is untouched: {why}"),
            );
        }
    };
    if row.state != LedgerState::Quarantined {
        let Some(database) = catalogue.databases.get(&names::database(row.uuid)) else {
            // Never made, or missing: nothing to put into quarantine; a missing database keeps its row.
            return act(vec![release(DatabaseSeen::Absent)]);
        };
        let mark = database::mark_of(database);
        if mark.as_ref().is_none_or(|mark| mark.uuid != row.uuid || Some(mark.object_uid) != row.object_uid) {
            return hold(
                Reason::DeletionBlocked,
                format!(
                    "database {} does not carry this Tenant's mark and is not touched: set spec.deletionPolicy to Retain to let the Tenant go",
                    names::database(row.uuid)
                ),
            );
        }
        if let Some(effect) = note(row, catalogue) {
            return act(vec![effect]);
        }
        return act(vec![Effect::Quarantine { seconds: quarantine_seconds(facts), confirmed: confirmed(facts) }]);
    }
    let batches = database::quarantine(row.uuid, catalogue);
    if batches.is_empty() {
        return act(vec![Effect::RemoveFinalizer]);
    }
    act(batches.into_iter().map(|batch| Effect::Sql { server: server.clone(), batch }).collect())
}

/// A claim whose answer was lost has made a database that the ledger does not know of yet.
fn note(row: &LedgerRow, catalogue: &super::catalogue::Catalogue) -> Option<Effect> {
    let mark = super::provisioning::schema_of(row, catalogue).filter(|mark| mark.uuid == row.uuid)?;
    (row.state == LedgerState::Registered).then_some(Effect::MarkProvisioned { schema: mark.schema })
}

fn quarantine_seconds(facts: &Facts) -> i64 {
    quarantine_of(&facts.tenant)
}

/// How long data of a Tenant can be had back, in seconds.
pub fn quarantine_of(tenant: &Tenant) -> i64 {
    let text = tenant.spec.quarantine.as_deref();
    text.and_then(|text| parse_duration(text).ok())
        .and_then(|duration| i64::try_from(duration.as_secs()).ok())
        .unwrap_or(QUARANTINE_SECONDS)
}

fn confirmed(facts: &Facts) -> bool {
    facts.tenant.annotations().get(ANNOTATION_CONFIRM_DELETE).is_some_and(|name| *name == facts.tenant.name_any())
}

fn act(effects: Vec<Effect>) -> Outlook {
    Outlook { effects, ..Outlook::default() }
}

fn wait(message: &str) -> Outlook {
    outlook(Health::Progressing(Reason::Provisioning, message.into()))
}

fn hold(reason: Reason, message: String) -> Outlook {
    outlook(Health::Blocked(reason, message))
}

fn outlook(health: Health) -> Outlook {
    Outlook { health: [(ConditionType::Registered, health)].into(), ..Outlook::default() }
}
