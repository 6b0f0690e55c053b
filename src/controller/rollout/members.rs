//! See: every tenant that has a database, with the version that it has. Nobody's database is entered for it.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use kube::ResourceExt;
use kube::runtime::reflector::ObjectRef;
use uuid::Uuid;

use crate::api::{LABEL_RING, Tenant};
use crate::central::{LedgerState, TenantRow};
use crate::controller::context::Context;
use crate::controller::fleet::Wake;
use crate::desired::facts::Attempt;
use crate::desired::rollout::{Member, MemberState};
use crate::desired::{database, names, status};

/// Every member.
pub fn members(
    context: &Context,
    running: &HashSet<Uuid>,
    later: &HashMap<Uuid, (usize, Instant)>,
    target: &str,
) -> Vec<Member> {
    let rows = context.ledger.rows();
    let is_member = |row: &&TenantRow| row.ledger_state == LedgerState::Provisioned && row.object_uid.is_some();
    let member = |row: &TenantRow| {
        let server = row.server.clone()?;
        let tenant = context.tenants.get(&ObjectRef::new(&row.name).within(&row.namespace));
        // One that is being deleted may wait for its last backup for long: nobody waits for it. Had back, it is behind, and
        // the next turn sees it.
        if tenant.as_ref().is_some_and(|tenant| tenant.metadata.deletion_timestamp.is_some()) {
            return None;
        }
        let version = version(context, row);
        let state = if running.contains(&row.uuid) {
            MemberState::Running
        } else if version.as_str() < target && failure(context, row.uuid, tenant.as_deref(), &version).is_some() {
            MemberState::Failed
        } else if !is_reachable(context, &server)
            || later.get(&row.uuid).is_some_and(|(_, next)| *next > Instant::now())
        {
            MemberState::Unreachable
        } else {
            MemberState::Idle
        };
        let ring = tenant.and_then(|tenant| tenant.labels().get(LABEL_RING).cloned());
        Some(Member { uuid: row.uuid, ring, server, version, state })
    };
    rows.iter().filter(is_member).filter_map(member).collect()
}

/// As the mark on the database says; the ledger's word where its server was not seen.
fn version(context: &Context, row: &TenantRow) -> String {
    let server = row.server.as_deref().and_then(|server| context.servers.get(server));
    let mark = server.and_then(|server| {
        server
            .look(|catalogue| catalogue.databases.get(&names::database(row.uuid)).and_then(database::mark_of))
            .flatten()
    });
    let schema = mark.map(|mark| mark.schema).or_else(|| row.schema_version.clone()).unwrap_or_default();
    names::schema_version(&schema).to_owned()
}

/// Why the migration of a tenant failed; also what an operator before this one said of the version that it still has.
pub fn failure(context: &Context, uuid: Uuid, tenant: Option<&Tenant>, version: &str) -> Option<String> {
    match context.memory.attempt(uuid) {
        Attempt::Failed(why) => Some(why),
        Attempt::Clean => None,
        Attempt::Unknown => status::schema_failure(tenant?.status.as_ref()?, version).map(str::to_owned),
    }
}

fn is_reachable(context: &Context, server: &str) -> bool {
    context.servers.get(server).is_some_and(|server| server.is_open())
}

/// Has a Tenant say what its database is now.
pub fn wake(context: &Context, uuid: Uuid) {
    if let Some((namespace, name)) = context.ledger.holder_of(uuid) {
        // A closed channel: the operator is stopping.
        let _ = context.wake.send(Wake::One(ObjectRef::new(&name).within(&namespace)));
    }
}
