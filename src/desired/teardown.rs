//! What a delete does, in the reverse order of what a create did.
//!
//! Routing goes first, then workers of its own, then the pooler entry, then the logins, then the ledger's row is released or put into quarantine,
//! and last the finalizer. Data is never dropped here: `Retain` keeps it, `Delete` puts it into quarantine, and only the
//! ledger's own clock ends a quarantine (decision D12). `BackupThenDelete` does what `Delete` does, but first the logins are
//! closed, so that nothing changes any more, and a backup is taken and restored in a rehearsal.

use kube::ResourceExt;

use crate::api::condition::{ConditionType, Reason};
use crate::api::tenant::DeletionPolicy;
use crate::api::{ANNOTATION_CONFIRM_DELETE, Tenant};
use crate::settings::parse_duration;

use super::catalogue::Catalogue;
use super::effect::{DatabaseSeen, Effect, Health};
use super::facts::{Facts, LastJob, LedgerFact, LedgerRow, LedgerState, Refusal, Seen};
use super::sql::Batch;
use super::tenant::Outlook;
use super::{database, drill, names, registration};

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
        DeletionPolicy::BackupThenDelete | DeletionPolicy::Delete => delete(facts, row),
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
        if facts.tenant.spec.deletion_policy == DeletionPolicy::BackupThenDelete
            && let Some(outlook) = last_backup(facts, row, server, catalogue)
        {
            return outlook;
        }
        return act(vec![Effect::Quarantine { seconds: quarantine_seconds(facts), confirmed: confirmed(facts) }]);
    }
    let batches = database::quarantine(row.uuid, catalogue);
    if batches.is_empty() {
        return act(vec![Effect::RemoveFinalizer]);
    }
    act(batches.into_iter().map(|batch| Effect::Sql { server: server.clone(), batch }).collect())
}

/// What is still to be done until the last backup is there and known to restore; None: it is.
fn last_backup(facts: &Facts, row: &LedgerRow, server: &str, catalogue: &Catalogue) -> Option<Outlook> {
    if drill::last(facts).is_some() {
        return None;
    }
    let way_out = "To let the Tenant go without it, set spec.deletionPolicy to Retain (the data is kept) or Delete";
    let (Some(heard), Some(object_uid)) = (&facts.backup, drill::object_uid(facts)) else {
        return Some(hold(
            Reason::DeletionBlocked,
            format!(
                "spec.deletionPolicy asks for a last backup, and backups are not switched on in this installation; the data is untouched. {way_out}"
            ),
        ));
    };
    let job = drill::last_name(row.uuid, object_uid);
    if facts.last_job == LastJob::NotYet {
        return Some(waiting(
            "waiting for its turn: the last backups of other tenants on its server are being taken".into(),
        ));
    }
    let closing = database::release(row.uuid, catalogue);
    if !closing.is_empty() {
        let batch = Batch::transaction(closing);
        return Some(act(vec![Effect::Sql { server: server.to_owned(), batch }]));
    }
    Some(match &facts.last_job {
        LastJob::Absent => act(vec![Effect::LastBackup { job }]),
        LastJob::NotYet | LastJob::Running => waiting(format!(
            "waiting for the last backup, which is taken and restored in a rehearsal by Job {job}; if that takes long: kubectl describe job and its pods in the operator's namespace"
        )),
        LastJob::Succeeded => waiting(format!(
            "the last backup was taken and restored by Job {job}, and its pod has not told so; if that stays, another Job is made within minutes"
        )),
        LastJob::Failed(reason) => {
            let asked = facts.tenant.metadata.deletion_timestamp.as_ref().map(|time| time.0);
            let reports = [&heard.failed, &heard.unrestored].into_iter().flatten();
            let reports = reports.filter(|report| asked.is_none_or(|asked| report.ended_at >= asked));
            let newest = reports.max_by_key(|report| report.ended_at).and_then(|report| report.error.as_deref());
            let why = newest.unwrap_or("its pods have not told why");
            hold(
                Reason::DeletionBlocked,
                format!(
                    "the last backup failed (Job {job}, {reason}): {why}. The data is untouched, and it is tried again within minutes. {way_out}"
                ),
            )
        }
        LastJob::Unknown(why) => wait(&format!("looking for Job {job} of the last backup: {why}")),
    })
}

/// Takes as long as the data is large, unlike all other waits of a delete.
fn waiting(message: String) -> Outlook {
    outlook(Health::Progressing(Reason::Deleting, message))
}

/// A claim whose answer was lost has made a database that the ledger does not know of yet.
fn note(row: &LedgerRow, catalogue: &Catalogue) -> Option<Effect> {
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
