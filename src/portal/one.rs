//! One tenant: what it is, how it is, and what can be done.

use askama::Template;
use axum::extract::{Path, State};
use axum::response::Response;
use kube::ResourceExt;

use super::cluster::{ClusterError, told_at};
use super::gitops::{self, Owner};
use super::log::{Line, line};
use super::look::{self, Sentence};
use super::problem::{Problem, html};
use super::rights::{Allowed, View};
use super::shell::Shell;
use super::show;
use super::state::Portal;
use crate::api::Tenant;
use crate::api::tenant::DeletionPolicy;
use crate::central::{TrailFilter, TrailFrom};

/// Entries of the audit trail on the page.
const TRAIL: i64 = 8;
/// Events on the page.
const EVENTS: usize = 8;

struct Host {
    name: String,
    verified: bool,
    message: String,
    /// Name, type and value of the DNS record that proves it.
    record: Option<[String; 3]>,
}

struct Told {
    at: String,
    kind: String,
    reason: String,
    message: String,
}

#[derive(Template)]
#[template(path = "portal/tenant.html")]
#[allow(clippy::struct_excessive_bools, reason = "each is a line of the page, and any of them goes with any other")]
struct TenantPage {
    shell: Shell,
    path: String,
    namespace: String,
    name: String,
    display_name: String,
    status: String,
    class: &'static str,
    message: String,
    sentences: Vec<Sentence>,
    facts: Vec<(&'static str, String)>,
    /// The host that links use; a link where it is served.
    host: Option<String>,
    hosts: Vec<Host>,
    backup: Vec<(&'static str, String)>,
    trail: Option<Vec<Line>>,
    uuid: Option<String>,
    events: Vec<Told>,
    yaml: String,
    owner: Option<Owner>,
    suspended: bool,
    going: bool,
    elsewhere: bool,
    /// The API did not answer: this is from memory.
    remembered: bool,
}

/// The page.
pub async fn tenant(
    State(portal): State<Portal>,
    Allowed(..): Allowed<View>,
    Path((namespace, name)): Path<(String, String)>,
    shell: Shell,
) -> Result<Response, Problem> {
    let (tenant, remembered) = match portal.cluster().tenant(&namespace, &name).await {
        Ok(tenant) => (tenant, false),
        Err(ClusterError::Away(why)) => {
            let known = portal.directory().tenant(&namespace, &name).ok_or(Problem::ClusterAway(why))?;
            ((*known).clone(), true)
        }
        Err(error) => return Err(Problem::of_cluster(error, "/tenants")),
    };
    let uid = tenant.uid().unwrap_or_default();
    let (trail, events) = futures::join!(trail(&portal, &tenant), events(&portal, &namespace, &uid, remembered));
    html(&page(&portal, shell, tenant, (trail, events), remembered))
}

fn page(
    portal: &Portal,
    shell: Shell,
    mut tenant: Tenant,
    (trail, events): (Option<Vec<Line>>, Vec<Told>),
    remembered: bool,
) -> TenantPage {
    let owner = gitops::owner(&tenant);
    let (namespace, name) = (tenant.namespace().unwrap_or_default(), tenant.name_any());
    let status = look::tenant(&tenant);
    let (word, class, message) = (status.word.to_owned(), status.level.class(), status.message.to_owned());
    let own = tenant.status.clone().unwrap_or_default();
    tenant.metadata.managed_fields = None;
    TenantPage {
        path: format!("/tenants/{namespace}/{name}"),
        display_name: tenant.spec.display_name.clone(),
        status: word,
        class,
        message,
        sentences: look::sentences(&own.conditions),
        facts: facts(&tenant),
        host: own.primary_host.clone(),
        hosts: hosts(&tenant),
        backup: backup(&tenant),
        trail,
        uuid: own.uuid.clone(),
        events,
        owner,
        suspended: tenant.spec.state == crate::api::tenant::TenantState::Suspended,
        going: tenant.metadata.deletion_timestamp.is_some(),
        elsewhere: !portal.config().namespaces.contains(&namespace),
        yaml: gitops::yaml(&tenant),
        remembered,
        shell,
        namespace,
        name,
    }
}

fn facts(tenant: &Tenant) -> Vec<(&'static str, String)> {
    let own = tenant.status.clone().unwrap_or_default();
    let database = own.database.unwrap_or_default();
    let none = || "–".to_owned();
    let mut facts = vec![
        ("Plan", tenant.spec.plan_ref.name.clone()),
        ("State", format!("{}. {}", look::state(tenant.spec.state), look::means(tenant.spec.state))),
        ("Slug", look::slug(tenant)),
        ("Uuid", own.uuid.unwrap_or_else(none)),
        ("Database", database.name.unwrap_or_else(none)),
        ("Server", database.server.unwrap_or_else(none)),
        ("Schema", database.schema_version.unwrap_or_else(none)),
        (
            "When deleted",
            match tenant.spec.deletion_policy {
                DeletionPolicy::Retain => "Its data is kept (Retain).".to_owned(),
                policy => {
                    let quarantine = tenant.spec.quarantine.as_deref().unwrap_or("168h");
                    format!("Its data is dropped after {quarantine} ({policy:?}).")
                }
            },
        ),
        ("Protected", if tenant.spec.deletion_protection { "Yes: deletes are refused." } else { "No" }.to_owned()),
        ("Created", tenant.creation_timestamp().map_or_else(none, |time| show::time(time.0))),
    ];
    if let Some(trial) = &tenant.spec.trial_ends_at {
        facts.insert(2, ("Trial ends", show::time(trial.0)));
    }
    for (key, value) in tenant.spec.metadata.iter().take(8) {
        facts.push(("Note", format!("{key}: {value}")));
    }
    facts
}

fn hosts(tenant: &Tenant) -> Vec<Host> {
    let known = tenant.status.as_ref().map(|status| status.domains.as_slice()).unwrap_or_default();
    let host = |host: &str| {
        let found = known.iter().find(|domain| domain.host == host);
        let challenge = found.and_then(|domain| domain.challenge.as_ref());
        Host {
            name: host.to_owned(),
            verified: found.is_some_and(|domain| domain.verified),
            message: found.and_then(|domain| domain.message.clone()).unwrap_or_default(),
            record: challenge.map(|record| [record.record.clone(), record.type_.clone(), record.value.clone()]),
        }
    };
    tenant.spec.domains.iter().map(|domain| host(&domain.host)).collect()
}

fn backup(tenant: &Tenant) -> Vec<(&'static str, String)> {
    let Some(backup) = tenant.status.as_ref().and_then(|status| status.backup.clone()) else { return Vec::new() };
    let texts = [
        ("Newest", backup.last_success.as_deref().map(show::instant)),
        ("Name", backup.name),
        ("Size", backup.size.map(show::bytes)),
        ("SHA-256", backup.sha256),
        ("Restored", backup.verified.map(|verified| format!("{}, in {}", show::instant(&verified.at), verified.took))),
    ];
    texts.into_iter().filter_map(|(label, text)| Some((label, text?))).collect()
}

async fn trail(portal: &Portal, tenant: &Tenant) -> Option<Vec<Line>> {
    let uuid = tenant.status.as_ref().and_then(|status| status.uuid.as_ref()?.parse().ok());
    let filter = match uuid {
        Some(uuid) => TrailFilter { tenant: Some(uuid), ..TrailFilter::default() },
        None => TrailFilter {
            resource: Some(format!("{}/{}", tenant.namespace().unwrap_or_default(), tenant.name_any())),
            ..TrailFilter::default()
        },
    };
    let rows = portal.patiently(portal.central().trail(&filter, TrailFrom::Newest, TRAIL)).await.ok()?;
    Some(rows.iter().map(line).collect())
}

async fn events(portal: &Portal, namespace: &str, uid: &str, remembered: bool) -> Vec<Told> {
    if remembered {
        return Vec::new();
    }
    let events = portal.cluster().events(namespace, uid).await.unwrap_or_default();
    let told = |event: &k8s_openapi::api::core::v1::Event| Told {
        at: told_at(event).map(|at| show::ago(at, portal.now())).unwrap_or_default(),
        kind: event.type_.clone().unwrap_or_default(),
        reason: event.reason.clone().unwrap_or_default(),
        message: event.message.clone().unwrap_or_default(),
    };
    events.iter().take(EVENTS).map(told).collect()
}
