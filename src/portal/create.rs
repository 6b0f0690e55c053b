//! A new tenant.

use askama::Template;
use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde::Deserialize;
use serde_json::json;

use super::change::noted;
use super::cluster::ClusterError;
use super::form::Sent;
use super::gate::Noted;
use super::problem::{Problem, html};
use super::rights::{Allowed, ManageTenants};
use super::shell::Shell;
use super::show;
use super::state::Portal;
use super::visitor::{Admin, Caller};
use crate::api::tenant::{DeletionPolicy, TenantSpec};
use crate::api::{NameRef, Tenant};
use crate::central::AuditEntry;

/// The form. Whatever else is sent goes nowhere: a uuid would adopt somebody's data.
#[derive(Debug, Default, Deserialize)]
pub struct Form {
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
    #[serde(default)]
    display_name: String,
    #[serde(default)]
    plan: String,
    #[serde(default)]
    trial_ends: String,
    #[serde(default)]
    deletion_policy: String,
}

#[derive(Template)]
#[template(path = "portal/create.html")]
struct CreatePage {
    shell: Shell,
    form: Form,
    namespaces: Vec<String>,
    plans: Vec<(String, String)>,
    base_domain: String,
    wrong: Option<String>,
}

fn page(portal: &Portal, shell: Shell, form: Form, wrong: Option<String>) -> CreatePage {
    let plans = portal.directory().plans();
    let sold = plans.iter().filter(|plan| plan.spec.active);
    CreatePage {
        shell,
        form,
        namespaces: portal.config().namespaces.clone(),
        plans: sold
            .map(|plan| {
                (plan.name_any(), format!("{} ({} {})", plan.spec.display_name, plan.spec.price, plan.spec.currency))
            })
            .collect(),
        base_domain: portal.config().base_domain.clone(),
        wrong,
    }
}

/// Asks what it is to be.
pub async fn ask(
    State(portal): State<Portal>,
    Allowed(..): Allowed<ManageTenants>,
    shell: Shell,
) -> Result<Response, Problem> {
    html(&page(&portal, shell, Form::default(), None))
}

/// Makes it.
pub async fn create(
    State(portal): State<Portal>,
    Allowed(admin, _): Allowed<ManageTenants>,
    Extension(caller): Extension<Caller>,
    shell: Shell,
    Sent(form): Sent<Form>,
) -> Result<Response, Problem> {
    let tenant = match made(&form, &portal.config().namespaces) {
        Ok(tenant) => tenant,
        Err(wrong) => {
            note(&portal, &admin, &caller, &form, "refused", Some(&wrong)).await?;
            let page = page(&portal, shell, form, Some(wrong));
            return Ok(noted(html(&page)?, StatusCode::UNPROCESSABLE_ENTITY, "the form was not filled in rightly"));
        }
    };
    note(&portal, &admin, &caller, &form, "asked", None).await?;
    match portal.cluster().create_tenant(&form.namespace, &tenant).await {
        Ok(_) => {
            note(&portal, &admin, &caller, &form, "done", None).await?;
            let to = format!("/tenants/{}/{}?done=created", form.namespace, tenant.name_any());
            let mut response = Redirect::to(&to).into_response();
            response.extensions_mut().insert(Noted);
            Ok(response)
        }
        Err(error) => {
            note(&portal, &admin, &caller, &form, "failed", Some(&error.to_string())).await?;
            let wrong = match error {
                ClusterError::Exists => format!("There is a tenant {} in {} already.", form.name, form.namespace),
                ClusterError::Refused(why) => format!("The cluster refuses it: {why}."),
                error => return Err(Problem::of_cluster(error, "/tenants/new")),
            };
            let page = page(&portal, shell, form, Some(wrong));
            Ok(noted(html(&page)?, StatusCode::UNPROCESSABLE_ENTITY, "the cluster refuses it"))
        }
    }
}

/// The object, or what is wrong with the form. What the API checks itself is left to it.
fn made(form: &Form, namespaces: &[String]) -> Result<Tenant, String> {
    if !namespaces.contains(&form.namespace) {
        return Err("Choose one of the namespaces.".into());
    }
    let name = form.name.trim();
    let is_label =
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    if !is_label {
        return Err("The name is the first part of the host: use lower-case letters, digits and hyphens.".into());
    }
    let trial_ends_at = match form.trial_ends.trim() {
        "" => None,
        text => Some(Time(show::day(text).ok_or("Write the end of the trial as a date, as 2026-12-31.")?)),
    };
    let deletion_policy = match form.deletion_policy.as_str() {
        "" | "Retain" => DeletionPolicy::Retain,
        "BackupThenDelete" => DeletionPolicy::BackupThenDelete,
        "Delete" => DeletionPolicy::Delete,
        _ => return Err("Choose what happens to the data.".into()),
    };
    let spec = TenantSpec {
        display_name: form.display_name.trim().to_owned(),
        plan_ref: NameRef { name: form.plan.clone() },
        trial_ends_at,
        deletion_policy,
        ..TenantSpec::default()
    };
    Ok(Tenant::new(name, spec))
}

async fn note(
    portal: &Portal,
    admin: &Admin,
    caller: &Caller,
    form: &Form,
    outcome: &str,
    why: Option<&str>,
) -> Result<(), Problem> {
    let entry = AuditEntry {
        resource_type: Some("Tenant".into()),
        resource_id: Some(format!("{}/{}", form.namespace, form.name.trim()).chars().take(255).collect()),
        changes: Some(json!({
            "after": { "displayName": form.display_name, "plan": form.plan, "trialEnds": form.trial_ends, "deletionPolicy": form.deletion_policy },
            "why": why,
        })),
        ..caller.entry(Some(admin), "", &format!("tenant.create.{outcome}"))
    };
    portal.note(&entry).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_becomes_a_tenant_and_says_what_is_wrong_with_it() {
        let namespaces = ["customers".to_owned()];
        let form = |namespace: &str, name: &str, trial: &str, policy: &str| Form {
            namespace: namespace.into(),
            name: name.into(),
            display_name: " Acme GmbH ".into(),
            plan: "pro".into(),
            trial_ends: trial.into(),
            deletion_policy: policy.into(),
        };
        let tenant = made(&form("customers", " acme ", "2026-12-31", "Delete"), &namespaces).unwrap();
        assert_eq!(tenant.name_any(), "acme");
        assert_eq!(tenant.spec.display_name, "Acme GmbH");
        assert_eq!(tenant.spec.deletion_policy, DeletionPolicy::Delete);
        assert!(tenant.spec.trial_ends_at.is_some() && tenant.spec.uuid.is_none());
        for wrong in [
            form("kube-system", "acme", "", ""),
            form("customers", "", "", ""),
            form("customers", "../x", "", ""),
            form("customers", "acme", "tomorrow", ""),
            form("customers", "acme", "", "Burn"),
        ] {
            assert!(made(&wrong, &namespaces).is_err(), "{wrong:?}");
        }
    }
}
