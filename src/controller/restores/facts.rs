//! See: everything that is known of one restore. The server, the Job and the Secret are asked now, not remembered.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use kube::runtime::reflector::ObjectRef;
use uuid::Uuid;

use crate::api::tenant::TenantState;
use crate::api::tenant_restore::{RestorePhase, RestoreReport};
use crate::api::{LABEL_RESTORE, Tenant, TenantRestore};
use crate::apply::ApplyError;
use crate::controller::context::Context;
use crate::desired::facts::{LedgerFact, LedgerState, Seen};
use crate::desired::restore::{self, Facts, JobFact, Target, Whose, objects};
use crate::desired::{names, server, teardown};
use crate::error::chain;
use crate::observe::jobs::{self, Standing};

/// `migration_failed`: why its database could not be brought up in the round before.
pub async fn facts(
    context: &Context,
    object: &TenantRestore,
    first: Option<String>,
    migration_failed: Option<String>,
) -> Facts {
    let uid = restore::uid(object);
    let phase = object.status.as_ref().map(|status| status.phase).unwrap_or_default();
    let whose = whose(context, object, phase);
    let mut facts = Facts {
        object: object.clone(),
        // Whole seconds, as marks and statuses say them.
        now: Timestamp::from_second(Timestamp::now().as_second()).unwrap_or_default(),
        epoch: context.epoch(),
        first,
        catalogue: Seen::Unreachable("it was not asked yet".into()),
        bare: None,
        password: None,
        job: JobFact::Running,
        closed: false,
        migration_failed,
        whose,
    };
    let Whose::Known(target) = &facts.whose else { return facts };
    let Some(known) = context.servers.get(&target.server) else { return facts };
    // Before the server is asked: whatever ends between the two shows in what the server says.
    let closed = is_closed(context, target);
    facts.catalogue = match known.of_restore(uid, target.uuid).await {
        Ok(catalogue) => Seen::Known(catalogue),
        Err(error) => Seen::Unreachable(chain(&error)),
    };
    let bare = server::bare();
    facts.bare = known.look(|catalogue| catalogue.databases.contains_key(&bare)).unwrap_or_default().then_some(bare);
    facts.closed = closed;
    // Kubernetes not answering is no reason to take anything for absent.
    match objects_of(context, uid).await {
        Ok((password, job)) => (facts.password, facts.job) = (password, job),
        Err(error) => facts.catalogue = Seen::Unreachable(chain(&error)),
    }
    facts
}

fn whose(context: &Context, object: &TenantRestore, phase: RestorePhase) -> Whose {
    let name = &object.spec.tenant_ref.name;
    if context.settings.backup.wanted().is_none() {
        return Whose::Nobody("there are no backups here: set backup.bucket of the chart".into());
    }
    let namespace = object.namespace().unwrap_or_default();
    let Some(tenant) = context.tenants.get(&ObjectRef::new(name).within(&namespace)) else {
        return match phase {
            RestorePhase::Pending => Whose::NotYet(format!("there is no Tenant {name} in namespace {namespace}")),
            _ => Whose::Nobody(format!("Tenant {name} is gone")),
        };
    };
    if tenant.metadata.deletion_timestamp.is_some() {
        return Whose::Nobody(format!("Tenant {name} is being deleted"));
    }
    if let Some(source) = object.spec.source_tenant.as_deref().and_then(|uuid| uuid.parse::<Uuid>().ok()) {
        // The right to clone is of one namespace, and so are the tenants that it is about.
        match context.ledger.namespace_of(source) {
            Some(found) if found == namespace => {}
            _ => {
                return Whose::Nobody(format!(
                    "spec.sourceTenant: no tenant {source} is or was in namespace {namespace}"
                ));
            }
        }
    }
    match context.ledger.fact(&tenant) {
        Seen::Known(LedgerFact::Row(row)) if row.state == LedgerState::Provisioned => match &row.server {
            Some(server) => Whose::Known(target(&tenant, row.uuid, server)),
            None => Whose::NotYet(format!("Tenant {name} has no server yet")),
        },
        Seen::Known(_) => Whose::NotYet(format!("Tenant {name} has no database yet")),
        Seen::Unreachable(why) => Whose::NotYet(format!("the central database does not answer: {why}")),
    }
}

fn target(tenant: &Tenant, uuid: Uuid, server: &str) -> Target {
    Target {
        uuid,
        object_uid: crate::observe::ledger::uid(tenant),
        server: server.to_owned(),
        quarantine: SignedDuration::from_secs(teardown::quarantine_of(tenant)),
    }
}

/// Nobody routes the tenant to its database any more, and nobody migrates it.
fn is_closed(context: &Context, target: &Target) -> bool {
    let routing = context.fleet.routing(target.uuid);
    let pooler = context.fleet.pooler(&target.server, target.uuid);
    let is_shown = routing
        .entry
        .as_ref()
        .is_some_and(|entry| !matches!(entry.state, TenantState::Hibernated | TenantState::Suspended));
    context.restores.is_held(target.uuid)
        && !context.restores.is_migrating(target.uuid)
        && !is_shown
        && pooler.entry.is_none()
        && !routing.reach.is_behind()
        && !pooler.reach.is_behind()
}

/// The login's password, and how the Job stands.
async fn objects_of(context: &Context, uid: Uuid) -> Result<(Option<String>, JobFact), ApplyError> {
    let (client, namespace, name) = (context.client.clone(), &context.settings.namespace, names::restore(uid));
    let secret = Api::<Secret>::namespaced(client.clone(), namespace).get_opt(&name).await;
    let secret = secret.map_err(|source| ApplyError::kubernetes(format!("read Secret {namespace}/{name}"), source))?;
    let password = secret.and_then(|secret| String::from_utf8(secret.data?.remove(objects::KEY)?.0).ok());
    let job = Api::<Job>::namespaced(client.clone(), namespace).get_opt(&name).await;
    let job = job.map_err(|source| ApplyError::kubernetes(format!("read Job {namespace}/{name}"), source))?;
    let Some(job) = job else { return Ok((password, JobFact::Absent)) };
    let pods = ListParams::default().labels(&format!("{LABEL_RESTORE}={uid},{}", objects::SELECTOR));
    let pods = Api::<Pod>::namespaced(client, namespace).list(&pods).await;
    let pods =
        pods.map_err(|source| ApplyError::kubernetes(format!("list the pods of Job {namespace}/{name}"), source))?;
    let report = pods.items.iter().flat_map(reports).find(|report| report.restore == uid);
    let is_over = jobs::standing(&job) != Standing::Running;
    Ok((password, if report.is_some() || is_over { JobFact::Ended(report) } else { JobFact::Running }))
}

fn reports(pod: &Pod) -> Vec<RestoreReport> {
    jobs::messages(pod).filter_map(|message| serde_json::from_str(message).ok()).collect()
}

/// Name and namespace of the Tenant of a restore.
pub fn reference(object: &TenantRestore) -> ObjectRef<Tenant> {
    ObjectRef::new(&object.spec.tenant_ref.name).within(&object.namespace().unwrap_or_default())
}
