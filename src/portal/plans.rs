//! The plans: what is sold, to how many, and whether it still is.

use askama::Template;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use kube::ResourceExt;
use serde::Deserialize;
use serde_json::json;

use super::change::{CommitPage, noted};
use super::cluster::Seen;
use super::form::Sent;
use super::gate::Noted;
use super::gitops::{self, Owner};
use super::problem::{Problem, html};
use super::rights::{Allowed, ManagePlans, View};
use super::shell::Shell;
use super::state::Portal;
use super::visitor::{Admin, Caller};
use crate::api::Plan;
use crate::central::AuditEntry;

struct Row {
    name: String,
    display_name: String,
    price: String,
    active: bool,
    tenants: usize,
    features: String,
    limits: String,
    connections: String,
}

#[derive(Template)]
#[template(path = "portal/plans.html")]
struct PlansPage {
    shell: Shell,
    plans: Vec<Row>,
}

#[derive(Template)]
#[template(path = "portal/plan.html")]
struct PlanPage {
    shell: Shell,
    plan: Row,
    seen: Seen,
    owner: Option<Owner>,
    yaml: String,
}

/// Whether it is sold.
#[derive(Deserialize)]
pub struct Form {
    uid: String,
    generation: i64,
    active: bool,
}

fn row(plan: &Plan, tenants: usize) -> Row {
    let limit = |what: &str, limit: Option<i32>| limit.map(|limit| format!("{limit} {what}"));
    let limits = &plan.spec.limits;
    let texts: Vec<_> = [
        limit("users", limits.users),
        limit("assets", limits.assets),
        limit("GiB", limits.storage_gib),
        limit("requests a minute", limits.requests_per_minute),
    ]
    .into_iter()
    .flatten()
    .collect();
    Row {
        name: plan.name_any(),
        display_name: plan.spec.display_name.clone(),
        price: format!("{} {}", plan.spec.price, plan.spec.currency),
        active: plan.spec.active,
        tenants,
        features: plan.spec.features.join(", "),
        limits: if texts.is_empty() { "None".into() } else { texts.join(", ") },
        connections: format!("{} (pool {})", plan.spec.database.max_connections, plan.spec.database.pool_size),
    }
}

fn tenants_of(portal: &Portal, plan: &str) -> usize {
    portal.directory().tenants().iter().filter(|tenant| tenant.spec.plan_ref.name == plan).count()
}

/// All of them.
pub async fn plans(
    State(portal): State<Portal>,
    Allowed(..): Allowed<View>,
    shell: Shell,
) -> Result<Response, Problem> {
    let plans = portal.directory().plans();
    let rows = plans.iter().map(|plan| row(plan, tenants_of(&portal, &plan.name_any()))).collect();
    html(&PlansPage { shell, plans: rows })
}

async fn current(portal: &Portal, name: &str) -> Result<Plan, Problem> {
    portal.cluster().plan(name).await.map_err(|error| Problem::of_cluster(error, "/plans"))
}

/// One of them.
pub async fn plan(
    State(portal): State<Portal>,
    Allowed(..): Allowed<View>,
    Path(name): Path<String>,
    shell: Shell,
) -> Result<Response, Problem> {
    let mut plan = current(&portal, &name).await?;
    let owner = gitops::owner(&plan);
    plan.metadata.managed_fields = None;
    let row = row(&plan, tenants_of(&portal, &name));
    html(&PlanPage { shell, plan: row, seen: Seen::of(&plan), owner, yaml: gitops::yaml(&plan) })
}

/// Sells it, or sells it no more.
pub async fn sell(
    State(portal): State<Portal>,
    Allowed(admin, _): Allowed<ManagePlans>,
    Extension(caller): Extension<Caller>,
    Path(name): Path<String>,
    shell: Shell,
    Sent(form): Sent<Form>,
) -> Result<Response, Problem> {
    let plan = current(&portal, &name).await?;
    let (back, patch) = (format!("/plans/{name}"), json!({ "spec": { "active": form.active } }));
    let by = (&portal, &admin, &caller);
    if let Some(owner) = gitops::owner(&plan) {
        note(by, &plan, form.active, "refused", Some(owner.by.clone())).await?;
        let patch = Some(gitops::commit("Plan", None, &name, &patch));
        let page = CommitPage { shell, back, name, owner, patch };
        return Ok(noted(html(&page)?, StatusCode::CONFLICT, "the object comes from Git"));
    }
    note(by, &plan, form.active, "asked", None).await?;
    let seen = Seen { uid: form.uid, generation: form.generation };
    let mut response = match portal.cluster().change_plan(&name, &seen, &patch).await {
        Ok(_) => {
            note(by, &plan, form.active, "done", None).await?;
            Redirect::to(&format!("{back}?done={}", if form.active { "sold" } else { "unsold" })).into_response()
        }
        Err(error) => {
            note(by, &plan, form.active, "failed", Some(error.to_string())).await?;
            Problem::of_cluster(error, &back).into_response()
        }
    };
    response.extensions_mut().insert(Noted);
    Ok(response)
}

async fn note(
    (portal, admin, caller): (&Portal, &Admin, &Caller),
    plan: &Plan,
    active: bool,
    outcome: &str,
    why: Option<String>,
) -> Result<(), Problem> {
    let entry = AuditEntry {
        resource_type: Some("Plan".into()),
        resource_id: Some(plan.name_any()),
        changes: Some(json!({ "before": { "active": plan.spec.active }, "after": { "active": active }, "why": why })),
        ..caller.entry(Some(admin), "", &format!("plan.sell.{outcome}"))
    };
    portal.note(&entry).await
}
