//! Writes to the ledger, with what is known of it kept up to date.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use uuid::Uuid;

use super::ApplyError;
use crate::api::Tenant;
use crate::api::condition::Reason;
use crate::api::plan::PlanSpec;
use crate::central::{
    self, Central, CentralError, DatabaseFact, Holder, LedgerState, Placement, PlanRow, Proof, Quarantine,
    RegisterError, Registration, Room, TenantRow,
};
use crate::desired::effect::DatabaseSeen;
use crate::desired::facts::{MarkedData, Refusal};
use crate::desired::registration::no_connections;
use crate::observe::ledger::{Ledger, uid};

fn failed(doing: impl Into<String>) -> impl FnOnce(CentralError) -> ApplyError {
    let doing = doing.into();
    move |source| ApplyError::Central { doing, source }
}

fn title(tenant: &Tenant) -> String {
    format!("Tenant {}/{}", tenant.namespace().unwrap_or_default(), tenant.name_any())
}

/// Registers a Tenant, or brings its row up to date; Some: refused. `plan`: name and text of the one that counts. `place`:
/// where a tenant that is minted is to lie, and how much that may hold. `marked`: the database that is this object's although
/// the ledger may not know it.
///
/// # Errors
/// The central database refused it or did not answer.
pub async fn register(
    central: &Central,
    ledger: &Ledger,
    tenant: &Tenant,
    plan: (&str, Option<&PlanSpec>),
    place: Option<(&str, Room)>,
    marked: Option<&MarkedData>,
) -> Result<Option<Refusal>, ApplyError> {
    let doing = format!("register {}", title(tenant));
    let (name, spec) = (tenant.name_any(), &tenant.spec);
    let (plan_name, plan) = plan;
    if let Some(plan) = plan {
        write_plan(central, ledger, PlanRow::of(plan_name, plan)).await?;
    }
    let request = Registration {
        namespace: &tenant.namespace().unwrap_or_default(),
        name: &name,
        object_uid: uid(tenant),
        slug: spec.slug.as_deref().unwrap_or(&name),
        display_name: &spec.display_name,
        plan: plan.map(|_| plan_name),
        state: spec.state,
        trial_ends_at: spec.trial_ends_at.as_ref().map(|time| time.0),
        metadata: &spec.metadata,
        adopt: spec.uuid.as_deref().and_then(|uuid| uuid.parse().ok()),
        known: tenant.status.as_ref().and_then(|status| status.uuid.as_deref()).and_then(|uuid| uuid.parse().ok()),
        hosts: spec.domains.iter().map(|domain| (domain.host.clone(), domain.primary)).collect(),
        place,
        marked: marked.map(|marked| central::Marked { server: &marked.server, schema: &marked.schema }),
    };
    match central.register(&request).await {
        Ok(registered) => {
            ledger.keep(registered.row);
            ledger.note_generation(uid(tenant), tenant.metadata.generation.unwrap_or_default());
            Ok(None)
        }
        Err(RegisterError::Central(source)) => Err(ApplyError::Central { doing, source }),
        Err(RegisterError::PlanUnknown(_)) if plan.is_some() => {
            // Somebody took it out of the central database after it was written.
            ledger.forget_plan(plan_name);
            Err(ApplyError::Stale(format!("the central database has lost Plan {plan_name}")))
        }
        Err(error) => Ok(Some(refusal(error)?)),
    }
}

/// Writes a Plan unless it is known to stand like this: a burst of Tenants has it in common.
async fn write_plan(central: &Central, ledger: &Ledger, plan: PlanRow) -> Result<(), ApplyError> {
    if !ledger.has_plan(&plan) {
        let doing = format!("write Plan {} into the central database", plan.slug);
        central.upsert_plan(&plan).await.map_err(failed(doing))?;
        ledger.note_plan(plan);
    }
    Ok(())
}

fn refusal(error: RegisterError) -> Result<Refusal, ApplyError> {
    let why = error.to_string();
    Ok(match error {
        RegisterError::SlugConflict { slug, holder: Holder::Live { namespace, name } } => {
            Refusal::SlugTaken { slug, holder: format!("{namespace}/{name}") }
        }
        RegisterError::SlugConflict { slug, holder: Holder::Kept { uuid, .. } } => Refusal::SlugKept { slug, uuid },
        RegisterError::LedgerLost(uuid) => Refusal::LedgerLost { uuid },
        RegisterError::AlreadyClaimed { uuid, .. }
        | RegisterError::UnknownData(uuid)
        | RegisterError::Dropped(uuid) => Refusal::NotAdoptable { uuid, why },
        RegisterError::OtherData { asked, .. } => Refusal::NotAdoptable { uuid: asked, why },
        other => return Err(ApplyError::Held { reason: Reason::Conflict, message: other.to_string() }),
    })
}

/// Reads a tenant's row again after it was written.
async fn reread(central: &Central, ledger: &Ledger, uuid: Uuid) -> Result<(), ApplyError> {
    match central.row(uuid).await.map_err(failed(format!("read the row of tenant {uuid}")))? {
        Some(row) => ledger.keep(row),
        None => ledger.forget(uuid),
    }
    Ok(())
}

/// Does to what is known of a row what a write just did to it; nothing is asked again.
async fn amend(
    central: &Central,
    ledger: &Ledger,
    uuid: Uuid,
    change: impl FnOnce(&mut TenantRow),
) -> Result<(), ApplyError> {
    if ledger.amend(uuid, change) { Ok(()) } else { reread(central, ledger, uuid).await }
}

/// Places a tenant.
///
/// # Errors
/// The server is full; the central database refused it or did not answer.
pub async fn place(central: &Central, ledger: &Ledger, uuid: Uuid, server: &str, room: Room) -> Result<(), ApplyError> {
    let placed = central.place(uuid, server, room).await.map_err(failed(format!("place tenant {uuid} on {server}")))?;
    match placed {
        Placement::Placed { server } => amend(central, ledger, uuid, |row| row.server = Some(server)).await,
        Placement::NoConnections { promised, asked } => Err(ApplyError::Held {
            reason: Reason::CapacityExceeded,
            message: no_connections(server, promised, asked, room.connections),
        }),
        Placement::Full { tenants } => Err(ApplyError::Held {
            reason: Reason::CapacityExceeded,
            message: format!(
                "DatabaseServer {server} is full ({tenants} tenants, kept data included): raise spec.capacity.maxTenants or create another DatabaseServer"
            ),
        }),
    }
}

/// Notes that a database was made.
///
/// # Errors
/// The central database refused it or did not answer.
pub async fn mark_provisioned(central: &Central, ledger: &Ledger, uuid: Uuid, schema: &str) -> Result<(), ApplyError> {
    central.mark_provisioned(uuid, schema).await.map_err(failed(format!("note the database of tenant {uuid}")))?;
    let noted = |row: &mut TenantRow| {
        row.ledger_state = LedgerState::Provisioned;
        row.schema_version = Some(schema.to_owned());
    };
    amend(central, ledger, uuid, noted).await
}

/// Notes that the ownership of a host was proved for a tenant just now.
///
/// # Errors
/// The central database refused it or did not answer.
pub async fn prove_host(
    central: &Central,
    ledger: &Ledger,
    uuid: Uuid,
    host: &str,
    grace: SignedDuration,
) -> Result<Proof, ApplyError> {
    let proof =
        central.prove_host(uuid, host, grace).await.map_err(failed(format!("note the proof of host {host}")))?;
    let other = match proof {
        Proof::Taken { from } => from,
        Proof::Held { by } => Some(by),
        Proof::NotLive => None,
    };
    // Whoever had it first: a host that is taken over must not be found with both.
    for changed in other.into_iter().chain([uuid]) {
        reread(central, ledger, changed).await?;
    }
    Ok(proof)
}

/// Gives up a host that the tenant's object does not name.
///
/// # Errors
/// The central database refused it or did not answer.
pub async fn drop_host(central: &Central, ledger: &Ledger, uuid: Uuid, host: &str) -> Result<(), ApplyError> {
    central.drop_host(uuid, host).await.map_err(failed(format!("give up host {host}")))?;
    reread(central, ledger, uuid).await
}

/// Notes that the proof of a tenant's host is missing.
///
/// # Errors
/// The central database refused it or did not answer.
pub async fn miss_host(
    central: &Central,
    ledger: &Ledger,
    uuid: Uuid,
    host: &str,
    grace: SignedDuration,
) -> Result<(), ApplyError> {
    let doing = || format!("note the missing proof of host {host}");
    if central.miss_host(uuid, host, grace).await.map_err(failed(doing()))? {
        reread(central, ledger, uuid).await?;
    }
    Ok(())
}

/// Lets the object go of its tenant, whose data is kept.
///
/// # Errors
/// The central database refused it or did not answer.
pub async fn release(
    central: &Central,
    ledger: &Ledger,
    tenant: &Tenant,
    uuid: Uuid,
    database: DatabaseSeen,
) -> Result<(), ApplyError> {
    let fact = match database {
        DatabaseSeen::Present => DatabaseFact::Present,
        DatabaseSeen::Absent => DatabaseFact::Absent,
        DatabaseSeen::Unknown => DatabaseFact::Unknown,
    };
    central.release(uuid, uid(tenant), fact).await.map_err(failed(format!("release tenant {uuid}")))?;
    reread(central, ledger, uuid).await
}

/// Lets the object go of its tenant, whose data will be dropped.
///
/// # Errors
/// The breaker holds it; the central database refused it or did not answer.
pub async fn quarantine(
    central: &Central,
    ledger: &Ledger,
    tenant: &Tenant,
    uuid: Uuid,
    seconds: i64,
    confirmed: bool,
) -> Result<(), ApplyError> {
    let until = Timestamp::now() + SignedDuration::from_secs(seconds);
    let outcome = central
        .quarantine(uuid, uid(tenant), until, confirmed)
        .await
        .map_err(failed(format!("quarantine tenant {uuid}")))?;
    reread(central, ledger, uuid).await?;
    let Quarantine::Blocked { count, limit } = outcome else { return Ok(()) };
    Err(ApplyError::Held {
        reason: Reason::DeletionBlocked,
        message: format!(
            "{count} tenants were destroyed within ten minutes and at most {limit} may be; the data is untouched. To let this one go: kubectl annotate tenant {name} -n {namespace} tenancy.maintenance-os.com/confirm-delete={name}",
            name = tenant.name_any(),
            namespace = tenant.namespace().unwrap_or_default(),
        ),
    })
}
