//! One tenant's data, back as a backup has it: which step of a TenantRestore comes next.
//!
//! From      `TenantRestore.spec`, the databases and their marks on the tenant's server, what the Job told
//! Makes     a database beside the live one, a login and a Job that fill it; on approval it takes the place of the live one
//! Ready     when it has
//! Teardown  database, login, Job and Secret go, at whatever step it ends; the live database is not touched
//!
//! ```text
//! create ─▶ claim ─▶ Secret ─▶ let in ─▶ Job ─▶ seal ─▶ (migrate) ─▶ login goes ─▶ approval ─▶ nobody is served ─▶ close ─▶ SWAP
//! ```
//!
//! How far it is stands in the marks of the databases. The swap is one transaction: before it everything can be taken back,
//! after it nothing is left to do but to note it. So an operator may end between any two steps.

pub mod marks;
pub mod objects;
pub mod statements;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use uuid::Uuid;

use crate::api::TenantRestore;
use crate::api::condition::Reason;
use crate::api::tenant_restore::{ReplacedDatabase, RestorePhase, RestoreReport, Restored};

use super::catalogue::{Catalogue, Database};
use super::database::mark_of;
use super::facts::Seen;
use super::names;
use super::sql::Batch;
use marks::{BesideMark, ReplacedMark};
use statements::Swap;

/// The Tenant of a restore, as far as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Whose {
    /// It has a database, or is to have one, on a server.
    Known(Target),
    /// Not known yet, and may be later; why.
    NotYet(String),
    /// There is nothing to restore for; why.
    Nobody(String),
}

/// A tenant whose data is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The tenant.
    pub uuid: Uuid,
    /// The Tenant object.
    pub object_uid: Uuid,
    /// The server that the ledger names.
    pub server: String,
    /// How long what was there before is kept.
    pub quarantine: SignedDuration,
}

/// How the Job of a restore stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobFact {
    /// There is none.
    Absent,
    /// It waits or works.
    Running,
    /// It has ended, with what it told, if it told anything.
    Ended(Option<RestoreReport>),
}

/// Everything that is seen of one TenantRestore.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The object.
    pub object: TenantRestore,
    /// The time.
    pub now: Timestamp,
    /// The leadership term.
    pub epoch: u64,
    /// Its Tenant.
    pub whose: Whose,
    /// A restore of the same tenant that began before it and has not ended.
    pub first: Option<String>,
    /// Of the tenant's server: the live database, the one beside, the one that was replaced, the login.
    pub catalogue: Seen<Catalogue>,
    /// The template without tables on that server.
    pub bare: Option<String>,
    /// The login's password, where its Secret is there.
    pub password: Option<String>,
    /// The Job.
    pub job: JobFact,
    /// Nobody routes the tenant to its database any more, and nobody migrates it.
    pub closed: bool,
    /// Why its database could not be brought up to the live one's schema, if that was tried.
    pub migration_failed: Option<String>,
}

/// One write of a restore.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Runs statements on the tenant's server.
    Sql(Batch),
    /// Makes the Secret with the login's password.
    WriteSecret,
    /// Makes the Job.
    CreateJob,
    /// Removes Job and Secret.
    RemoveObjects,
    /// Brings the database beside up to this version, and seals it again.
    Migrate(String),
    /// Asks the API server whether it is still to be, and swaps the databases.
    Swap(Batch),
    /// Notes in the ledger that a database was replaced.
    Note(ReplacedMark),
}

/// What is to be done next, and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outlook {
    /// To be done now, in order.
    pub effects: Vec<Effect>,
    /// How far it is.
    pub phase: RestorePhase,
    /// Why, for the condition.
    pub reason: Reason,
    /// The same for people.
    pub message: String,
    /// What was restored, once it is known.
    pub restored: Option<Restored>,
    /// Schema of the database beside.
    pub schema: Option<String>,
    /// The database that was replaced.
    pub replaced: Option<ReplacedDatabase>,
    /// Nobody may be served the tenant until it is over.
    pub holds: bool,
}

impl Outlook {
    fn new(phase: RestorePhase, reason: Reason, message: impl Into<String>) -> Self {
        Self {
            effects: Vec::new(),
            phase,
            reason,
            message: message.into(),
            restored: None,
            schema: None,
            replaced: None,
            holds: false,
        }
    }

    fn act(phase: RestorePhase, effects: Vec<Effect>, message: impl Into<String>) -> Self {
        Self { effects, ..Self::new(phase, Reason::Restoring, message) }
    }
}

/// The uid of a TenantRestore.
pub fn uid(object: &TenantRestore) -> Uuid {
    object.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()).unwrap_or_default()
}

/// The tenant whose backup is restored.
pub fn source(object: &TenantRestore, tenant: Uuid) -> Uuid {
    object.spec.source_tenant.as_deref().and_then(|uuid| uuid.parse().ok()).unwrap_or(tenant)
}

/// What is to be done next.
pub fn plan(facts: &Facts) -> Outlook {
    let phase = facts.object.status.as_ref().map(|status| status.phase).unwrap_or_default();
    let restore = uid(&facts.object);
    if let (Whose::Known(target), Seen::Known(catalogue)) = (&facts.whose, &facts.catalogue)
        && live(target, catalogue).and_then(mark_of).is_some_and(|mark| mark.restore == Some(restore))
    {
        return swapped(restore, catalogue);
    }
    let target = match &facts.whose {
        Whose::Known(target) => target,
        Whose::Nobody(why) => return failed(Reason::InvalidSpec, why),
        // Whoever says that nothing is to happen need not be known for it.
        Whose::NotYet(_) if facts.object.spec.abort => return aborted(),
        Whose::NotYet(why) => return Outlook::new(phase, Reason::Provisioning, why),
    };
    if facts.object.spec.abort {
        // What the server says is what tells a restore that is over from one that is not.
        return match &facts.catalogue {
            Seen::Known(_) => aborted(),
            Seen::Unreachable(why) => away(phase, target, why),
        };
    }
    if source(&facts.object, target.uuid) != target.uuid && !facts.object.spec.clone {
        return failed(
            Reason::InvalidSpec,
            &format!(
                "spec.sourceTenant is another tenant than {}, whose data this would replace: create a TenantRestore with spec.clone: true if that is meant",
                target.uuid
            ),
        );
    }
    if let Some(first) = &facts.first {
        let message = format!("waits for TenantRestore {first}, which began before it and has not ended");
        return Outlook::new(RestorePhase::Pending, Reason::Restoring, message);
    }
    match &facts.catalogue {
        Seen::Known(catalogue) => beside(facts, phase, target, catalogue),
        Seen::Unreachable(why) => away(phase, target, why),
    }
}

fn live<'a>(target: &Target, catalogue: &'a Catalogue) -> Option<&'a Database> {
    catalogue.databases.get(&names::database(target.uuid))
}

/// Makes and fills the database beside, and sees to it when it is filled.
fn beside(facts: &Facts, phase: RestorePhase, target: &Target, catalogue: &Catalogue) -> Outlook {
    let restore = uid(&facts.object);
    let name = names::beside(restore);
    if let Some(database) = live(target, catalogue)
        && mark_of(database).is_none_or(|mark| mark.uuid != target.uuid)
    {
        let what = format!("database {} does not carry this Tenant's mark", names::database(target.uuid));
        return failed(Reason::Conflict, &what);
    }
    let Some(database) = catalogue.databases.get(&name) else {
        if phase > RestorePhase::Preparing {
            return failed(Reason::DataMissing, &format!("database {name} is gone, somebody removed it"));
        }
        let Some(bare) = &facts.bare else {
            let message = format!("the template of server {} is being built", target.server);
            return Outlook::new(RestorePhase::Pending, Reason::Provisioning, message);
        };
        let effects =
            vec![Effect::Sql(statements::create(restore, bare)), Effect::Sql(statements::claim(restore, target.uuid))];
        return Outlook::act(RestorePhase::Preparing, effects, format!("database {name} is being made"));
    };
    let Some(comment) = &database.comment else {
        let effects = vec![Effect::Sql(statements::claim(restore, target.uuid))];
        return Outlook::act(RestorePhase::Preparing, effects, format!("database {name} is being made"));
    };
    match BesideMark::parse(comment).filter(|mark| mark.restore == restore && mark.tenant == target.uuid) {
        None => failed(Reason::Conflict, &format!("database {name} is not this restore's")),
        Some(BesideMark { schema: None, .. }) => filling(facts, phase, target, catalogue),
        Some(BesideMark { schema: Some(schema), .. }) => filled(facts, target, catalogue, &schema),
    }
}

/// Has it filled.
fn filling(facts: &Facts, phase: RestorePhase, target: &Target, catalogue: &Catalogue) -> Outlook {
    let restore = uid(&facts.object);
    match &facts.job {
        JobFact::Absent if phase >= RestorePhase::Restoring => failed(
            Reason::BackupFailed,
            "its Job is gone without a word of what came of it: somebody removed it, or its node went away",
        ),
        JobFact::Absent => {
            let preparing = |effects| {
                Outlook::act(RestorePhase::Preparing, effects, "the login and the Job that restore it are being made")
            };
            let Some(password) = &facts.password else { return preparing(vec![Effect::WriteSecret]) };
            let let_in = statements::let_in(restore, password, catalogue).map(Effect::Sql);
            preparing(let_in.into_iter().chain([Effect::CreateJob]).collect())
        }
        JobFact::Running => {
            let message =
                format!("Job {} is restoring; the live database is served as before", names::restore(restore));
            Outlook::new(RestorePhase::Restoring, Reason::Restoring, message)
        }
        JobFact::Ended(None) => failed(
            Reason::BackupFailed,
            &format!(
                "Job {} ended without a word of what came of it: it was killed, ran out of memory or out of time",
                names::restore(restore)
            ),
        ),
        JobFact::Ended(Some(report)) => match &report.restored {
            None => failed(Reason::BackupFailed, report.error.as_deref().unwrap_or("the Job says no why")),
            Some(restored) => {
                let seal = statements::seal(restore, target.uuid, &restored.schema);
                let mut outlook = Outlook::act(
                    RestorePhase::Restoring,
                    vec![Effect::Sql(seal)],
                    "it is restored and compared, and is being closed",
                );
                outlook.restored = Some(restored.clone());
                outlook
            }
        },
    }
}

/// It is filled: in the end it waits for approval, and takes the place of the live one.
fn filled(facts: &Facts, target: &Target, catalogue: &Catalogue, schema: &str) -> Outlook {
    let restore = uid(&facts.object);
    let told = facts.object.status.as_ref().is_some_and(|status| status.rows.is_some());
    let reported = match &facts.job {
        JobFact::Ended(Some(report)) => report.restored.clone(),
        _ => None,
    };
    let with = |mut outlook: Outlook| {
        outlook.restored.clone_from(&reported);
        outlook.schema = Some(schema.to_owned());
        outlook
    };
    // The Job is what knows what was restored until the status says so.
    if !told && reported.is_some() {
        return with(Outlook::new(RestorePhase::Restoring, Reason::Restoring, "it is restored and compared"));
    }
    let has_login = catalogue.roles.contains_key(&names::beside(restore));
    if has_login || facts.job != JobFact::Absent {
        if catalogue.roles.get(&names::beside(restore)).is_some_and(|role| role.holds) {
            return failed(Reason::Conflict, "something in the restored database belongs to the login that filled it");
        }
        // The login last: whoever finds it knows that there may be more.
        let login = statements::drop_login(restore, catalogue);
        let login = (!login.is_empty()).then(|| Effect::Sql(Batch::transaction(login)));
        let effects = [Effect::RemoveObjects].into_iter().chain(login).collect();
        return with(Outlook::act(RestorePhase::Restoring, effects, "what restored it is being removed"));
    }
    let version = names::schema_version(schema);
    let live_schema = live(target, catalogue).and_then(mark_of).map(|mark| mark.schema);
    let live_version = live_schema.as_deref().map(names::schema_version);
    if live_version.is_some_and(|live| version < live) {
        let live = live_version.unwrap_or_default();
        if let Some(why) = &facts.migration_failed {
            return failed(
                Reason::MigrationFailed,
                &format!(
                    "the backup has schema {version} and could not be brought up to the live database's {live}: {why}"
                ),
            );
        }
        let effects = vec![Effect::Sql(statements::open_to_migrator(restore)), Effect::Migrate(live.to_owned())];
        let message = format!("the backup has schema {version} and is being brought up to {live}");
        return with(Outlook::act(RestorePhase::Restoring, effects, message));
    }
    if !facts.object.spec.approve {
        return with(awaiting(facts, version, live_version));
    }
    with(swap(facts, target, catalogue, schema))
}

fn awaiting(facts: &Facts, version: &str, live: Option<&str>) -> Outlook {
    let status = facts.object.status.clone().unwrap_or_default();
    let live_rows = status.live_rows.map_or_else(|| "no database".to_owned(), |rows| format!("{rows} rows"));
    let newer = if live.is_some_and(|live| live < version) {
        format!(" Its schema {version} is newer than the live one's.")
    } else {
        String::new()
    };
    let name = facts.object.name_any();
    let namespace = facts.object.namespace().unwrap_or_default();
    let message = format!(
        "backup {} is restored beside the live database, which is served as before: {} rows, and {live_rows} live (status.tables).{newer} To put it in its place: kubectl patch tenantrestore {name} -n {namespace} --type=merge -p '{{\"spec\":{{\"approve\":true}}}}'; to drop it: kubectl delete tenantrestore {name} -n {namespace}",
        status.backup.unwrap_or_default(),
        status.rows.unwrap_or_default(),
    );
    Outlook::new(RestorePhase::AwaitingApproval, Reason::Restoring, message)
}

fn swap(facts: &Facts, target: &Target, catalogue: &Catalogue, schema: &str) -> Outlook {
    let swap = Swap {
        restore: uid(&facts.object),
        tenant: target.uuid,
        object_uid: target.object_uid,
        epoch: facts.epoch,
        schema: schema.to_owned(),
        drop_after: facts.now + target.quarantine,
    };
    let mut outlook = Outlook::new(
        RestorePhase::Swapping,
        Reason::Restoring,
        "customers see a page that asks for a moment; waiting until no app endpoint and no pooler serves the live database any more",
    );
    outlook.holds = true;
    // That it began stands in the status before anything is done: whoever begins anew keeps the tenant closed.
    let is_said = facts.object.status.as_ref().is_some_and(|status| status.phase == RestorePhase::Swapping);
    if facts.closed && is_said {
        outlook.effects = statements::close(&swap, catalogue).into_iter().map(Effect::Sql).collect();
        outlook.effects.push(Effect::Swap(statements::swap(&swap, catalogue)));
        "the restored database takes the place of the live one".clone_into(&mut outlook.message);
    }
    outlook
}

/// The restored database is the live one. What is left is to note which one it took the place of.
fn swapped(restore: Uuid, catalogue: &Catalogue) -> Outlook {
    let name = names::replaced(restore);
    let mark = catalogue.databases.get(&name).and_then(|database| database.comment.as_deref());
    let mark = mark.and_then(ReplacedMark::parse);
    let kept = mark.as_ref().map_or_else(String::new, |mark| {
        format!("; the database that was there before is kept as {name} until {}", mark.drop_after)
    });
    let message = format!("the restored database has taken the place of the live one{kept}");
    let mut outlook = Outlook::new(RestorePhase::Done, Reason::Active, message);
    outlook.replaced =
        mark.as_ref().map(|mark| ReplacedDatabase { database: name.clone(), drop_after: mark.drop_after.to_string() });
    outlook.effects = mark.into_iter().map(Effect::Note).collect();
    outlook
}

fn failed(reason: Reason, why: &str) -> Outlook {
    let message = format!(
        "{why}. The live database is untouched and served as before; create another TenantRestore to try again"
    );
    Outlook::new(RestorePhase::Failed, reason, message)
}

fn aborted() -> Outlook {
    Outlook::new(RestorePhase::Aborted, Reason::Aborted, "ended by spec.abort; the live database is as it was")
}

fn away(phase: RestorePhase, target: &Target, why: &str) -> Outlook {
    let message = format!("server {} does not answer; nothing is done until it does: {why}", target.server);
    let mut outlook = Outlook::new(phase, Reason::DatabaseUnreachable, message);
    // Whether they were swapped is not known.
    outlook.holds = phase == RestorePhase::Swapping;
    outlook
}

#[cfg(test)]
mod tests;
