//! Changing a tenant: another plan, suspend, resume, delete.
//!
//! First the wish is written to the audit trail, then it is done through the Kubernetes API, then what became of it is
//! written. So nothing is done that was not noted, and an entry without its outcome says that nobody knows.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use kube::ResourceExt;
use serde::Deserialize;
use serde_json::{Value, json};

use super::cluster::{ClusterError, Seen};
use super::form::Sent;
use super::gate::Noted;
use super::gitops::{self, Owner};
use super::look;
use super::problem::{Problem, Refused, html};
use super::rights::{Allowed, DestroyTenants, ManageTenants};
use super::shell::Shell;
use super::state::Portal;
use super::visitor::{Admin, Caller};
use crate::api::tenant::TenantState;
use crate::api::{Plan, Tenant};
use crate::central::AuditEntry;

/// Shortest and longest reason, in characters.
const REASON: std::ops::RangeInclusive<usize> = 3..=500;

/// Another plan.
#[derive(Deserialize)]
pub struct PlanForm {
    uid: String,
    generation: i64,
    plan: String,
    #[serde(default)]
    reason: String,
}

/// Another state, or a delete.
#[derive(Deserialize)]
pub struct ReasonForm {
    uid: String,
    generation: i64,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    name: String,
}

#[derive(Template)]
#[template(path = "portal/change.html")]
struct ChangePage {
    shell: Shell,
    kind: Kind,
    path: String,
    name: String,
    display_name: String,
    seen: Seen,
    owner: Option<Owner>,
    plan: String,
    plans: Vec<(String, String)>,
    sentences: Vec<String>,
    reason: String,
    wrong: Option<String>,
}

/// What to commit, where somebody else's tool writes the object.
#[derive(Template)]
#[template(path = "portal/commit.html")]
pub(super) struct CommitPage {
    pub(super) shell: Shell,
    pub(super) back: String,
    pub(super) name: String,
    pub(super) owner: Owner,
    /// The patch; none: the document is to be removed.
    pub(super) patch: Option<String>,
}

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Another plan.
    Plan,
    /// `spec.state: Suspended`
    Suspend,
    /// `spec.state: Active`
    Resume,
    /// A delete.
    Delete,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Suspend => "suspend",
            Self::Resume => "resume",
            Self::Delete => "delete",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Self::Plan => "Change plan",
            Self::Suspend => "Suspend",
            Self::Resume => "Resume",
            Self::Delete => "Delete",
        }
    }

    const fn done(self) -> &'static str {
        match self {
            Self::Plan => "plan",
            Self::Suspend => "suspended",
            Self::Resume => "resumed",
            Self::Delete => "deleted",
        }
    }

    const fn needs_reason(self) -> bool {
        matches!(self, Self::Suspend | Self::Delete)
    }
}

/// Which tenant.
type At = Path<(String, String)>;

/// Asks for another plan.
pub async fn ask_plan(
    portal: State<Portal>,
    _: Allowed<ManageTenants>,
    at: At,
    shell: Shell,
) -> Result<Response, Problem> {
    ask(&portal, &at, shell, Kind::Plan).await
}

/// Asks whether to suspend.
pub async fn ask_suspend(
    portal: State<Portal>,
    _: Allowed<ManageTenants>,
    at: At,
    shell: Shell,
) -> Result<Response, Problem> {
    ask(&portal, &at, shell, Kind::Suspend).await
}

/// Asks whether to resume.
pub async fn ask_resume(
    portal: State<Portal>,
    _: Allowed<ManageTenants>,
    at: At,
    shell: Shell,
) -> Result<Response, Problem> {
    ask(&portal, &at, shell, Kind::Resume).await
}

/// Asks whether to delete.
pub async fn ask_delete(
    portal: State<Portal>,
    _: Allowed<DestroyTenants>,
    at: At,
    shell: Shell,
) -> Result<Response, Problem> {
    ask(&portal, &at, shell, Kind::Delete).await
}

async fn ask(portal: &Portal, at: &At, shell: Shell, kind: Kind) -> Result<Response, Problem> {
    let tenant = current(portal, at).await?;
    html(&change_page(portal, shell, &tenant, kind))
}

async fn current(portal: &Portal, Path((namespace, name)): &At) -> Result<Tenant, Problem> {
    let tenant = portal.cluster().tenant(namespace, name).await;
    tenant.map_err(|error| Problem::of_cluster(error, "/tenants"))
}

fn path(tenant: &Tenant) -> String {
    format!("/tenants/{}/{}", tenant.namespace().unwrap_or_default(), tenant.name_any())
}

fn change_page(portal: &Portal, shell: Shell, tenant: &Tenant, kind: Kind) -> ChangePage {
    let plan = tenant.spec.plan_ref.name.clone();
    let offered = |plan: &&std::sync::Arc<Plan>| plan.spec.active || plan.name_any() == tenant.spec.plan_ref.name;
    let title = |plan: &std::sync::Arc<Plan>| {
        (plan.name_any(), format!("{} ({} {})", plan.spec.display_name, plan.spec.price, plan.spec.currency))
    };
    let sentences = match kind {
        Kind::Plan => vec!["The new plan's features and limits apply at once, without interruption. Nothing is deleted when it allows less.".to_owned()],
        Kind::Suspend => vec![look::means(TenantState::Suspended).to_owned()],
        Kind::Resume => vec![format!("{} It is {} now.", look::means(TenantState::Active), look::state(tenant.spec.state))],
        Kind::Delete => look::fate(tenant),
    };
    ChangePage {
        kind,
        path: path(tenant),
        name: tenant.name_any(),
        display_name: tenant.spec.display_name.clone(),
        seen: Seen::of(tenant),
        owner: gitops::owner(tenant),
        plans: portal.directory().plans().iter().filter(offered).map(title).collect(),
        plan,
        sentences,
        reason: String::new(),
        wrong: None,
        shell,
    }
}

/// Gives it another plan.
pub async fn plan(
    State(portal): State<Portal>,
    Allowed(admin, _): Allowed<ManageTenants>,
    Extension(caller): Extension<Caller>,
    at: At,
    shell: Shell,
    Sent(form): Sent<PlanForm>,
) -> Result<Response, Problem> {
    let seen = Seen { uid: form.uid, generation: form.generation };
    let wish = Wish { kind: Kind::Plan, seen, reason: form.reason, plan: form.plan, name: String::new() };
    Work { portal: &portal, admin: &admin, caller: &caller }.carry_out(&at, shell, wish).await
}

/// Suspends it.
pub async fn suspend(
    State(portal): State<Portal>,
    Allowed(admin, _): Allowed<ManageTenants>,
    Extension(caller): Extension<Caller>,
    at: At,
    shell: Shell,
    Sent(form): Sent<ReasonForm>,
) -> Result<Response, Problem> {
    Work { portal: &portal, admin: &admin, caller: &caller }.carry_out(&at, shell, form.wish(Kind::Suspend)).await
}

/// Resumes it.
pub async fn resume(
    State(portal): State<Portal>,
    Allowed(admin, _): Allowed<ManageTenants>,
    Extension(caller): Extension<Caller>,
    at: At,
    shell: Shell,
    Sent(form): Sent<ReasonForm>,
) -> Result<Response, Problem> {
    Work { portal: &portal, admin: &admin, caller: &caller }.carry_out(&at, shell, form.wish(Kind::Resume)).await
}

/// Deletes it.
pub async fn delete(
    State(portal): State<Portal>,
    Allowed(admin, _): Allowed<DestroyTenants>,
    Extension(caller): Extension<Caller>,
    at: At,
    shell: Shell,
    Sent(form): Sent<ReasonForm>,
) -> Result<Response, Problem> {
    Work { portal: &portal, admin: &admin, caller: &caller }.carry_out(&at, shell, form.wish(Kind::Delete)).await
}

impl ReasonForm {
    fn wish(self, kind: Kind) -> Wish {
        let seen = Seen { uid: self.uid, generation: self.generation };
        Wish { kind, seen, reason: self.reason, plan: String::new(), name: self.name }
    }
}

/// What somebody wants.
struct Wish {
    kind: Kind,
    seen: Seen,
    reason: String,
    plan: String,
    /// As it was typed, for a delete.
    name: String,
}

impl Wish {
    /// What is merged into the Tenant; none: it is deleted.
    fn patch(&self) -> Option<Value> {
        match self.kind {
            Kind::Plan => Some(json!({ "spec": { "planRef": { "name": self.plan } } })),
            Kind::Suspend => Some(json!({ "spec": { "state": "Suspended" } })),
            Kind::Resume => Some(json!({ "spec": { "state": "Active" } })),
            Kind::Delete => None,
        }
    }

    /// What is wrong with it, for who wants it.
    fn fault(&self, portal: &Portal, tenant: &Tenant) -> Option<String> {
        let namespace = tenant.namespace().unwrap_or_default();
        if !portal.config().namespaces.contains(&namespace) {
            return Some(format!(
                "The portal changes nothing in the namespace {namespace}: it is not among the chart's tenantNamespaces."
            ));
        }
        if self.kind == Kind::Plan && !portal.directory().plans().iter().any(|plan| plan.name_any() == self.plan) {
            return Some("There is no such plan. Choose another.".into());
        }
        if self.kind == Kind::Delete && self.name != tenant.name_any() {
            return Some(format!("Type the name {} to confirm.", tenant.name_any()));
        }
        let length = self.reason.trim().chars().count();
        let too_short = self.kind.needs_reason() && length < *REASON.start();
        (too_short || length > *REASON.end()).then(|| {
            format!("Give a reason of {} to {} characters: it is kept in the audit log.", REASON.start(), REASON.end())
        })
    }
}

struct Work<'a> {
    portal: &'a Portal,
    admin: &'a Admin,
    caller: &'a Caller,
}

impl Work<'_> {
    async fn carry_out(&self, at: &At, shell: Shell, wish: Wish) -> Result<Response, Problem> {
        let tenant = current(self.portal, at).await?;
        let (here, kind) = (path(&tenant), wish.kind);
        if let Some(wrong) = wish.fault(self.portal, &tenant) {
            self.note(&tenant, &wish, "refused", Some(&wrong)).await?;
            let mut page = change_page(self.portal, shell, &tenant, kind);
            if kind == Kind::Plan {
                page.plan = wish.plan;
            }
            (page.reason, page.wrong) = (wish.reason, Some(wrong));
            return Ok(noted(html(&page)?, StatusCode::UNPROCESSABLE_ENTITY, "the form was not filled in rightly"));
        }
        if let Some(owner) = gitops::owner(&tenant) {
            self.note(&tenant, &wish, "refused", Some(&format!("it comes from Git: {}, {}", owner.tool, owner.by)))
                .await?;
            let patch = wish
                .patch()
                .map(|patch| gitops::commit("Tenant", tenant.namespace().as_deref(), &tenant.name_any(), &patch));
            let page = CommitPage { shell, back: here, name: tenant.name_any(), owner, patch };
            return Ok(noted(html(&page)?, StatusCode::CONFLICT, "the object comes from Git"));
        }
        self.note(&tenant, &wish, "asked", None).await?;
        match self.do_it(at, &wish).await {
            Ok(()) => {
                self.note(&tenant, &wish, "done", None).await?;
                // Where the operator has nothing to take down, a deleted one is gone at once.
                let there = if kind == Kind::Delete { "/tenants" } else { &here };
                let to = format!("{there}?done={}", kind.done());
                let mut response = Redirect::to(&to).into_response();
                response.extensions_mut().insert(Noted);
                Ok(response)
            }
            Err(error) => {
                self.note(&tenant, &wish, "failed", Some(&error.to_string())).await?;
                let problem = Problem::of_cluster(error, &here);
                let mut response = problem.into_response();
                response.extensions_mut().insert(Noted);
                Ok(response)
            }
        }
    }

    async fn do_it(&self, Path((namespace, name)): &At, wish: &Wish) -> Result<(), ClusterError> {
        let cluster = self.portal.cluster();
        match wish.patch() {
            Some(patch) => cluster.change_tenant(namespace, name, &wish.seen, &patch).await.map(drop),
            None => cluster.delete_tenant(namespace, name, &wish.seen).await,
        }
    }

    async fn note(&self, tenant: &Tenant, wish: &Wish, outcome: &str, why: Option<&str>) -> Result<(), Problem> {
        let action = format!("tenant.{}.{outcome}", wish.kind.word());
        let before = json!({ "plan": tenant.spec.plan_ref.name, "state": look::state(tenant.spec.state) });
        let after = match wish.kind {
            Kind::Plan => json!({ "plan": wish.plan }),
            Kind::Suspend => json!({ "state": "Suspended" }),
            Kind::Resume => json!({ "state": "Active" }),
            Kind::Delete => Value::Null,
        };
        let entry = AuditEntry {
            tenant: tenant.status.as_ref().and_then(|status| status.uuid.as_ref()?.parse().ok()),
            resource_type: Some("Tenant".into()),
            resource_id: Some(format!("{}/{}", tenant.namespace().unwrap_or_default(), tenant.name_any())),
            changes: Some(json!({ "before": before, "after": after, "reason": wish.reason.trim(), "why": why })),
            ..self.caller.entry(Some(self.admin), "", &action)
        };
        tracing::info!(action, tenant = entry.resource_id, by = self.admin.email, correlation = %self.caller.correlation, "an administrator changes a tenant");
        self.portal.note(&entry).await
    }
}

/// A page that says why nothing was done; its handler has noted it.
pub fn noted(mut response: Response, status: StatusCode, why: &str) -> Response {
    *response.status_mut() = status;
    response.extensions_mut().insert(Refused(why.to_owned()));
    response.extensions_mut().insert(Noted);
    response
}
