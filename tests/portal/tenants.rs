//! Tenants: made, changed, deleted, and what is refused.

use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use maintenance_os::api::tenant::TenantState;
use maintenance_os::portal::Right;
use serde_json::json;

use crate::house::{House, all, only, plan};

#[tokio::test]
async fn a_tenant_is_made_and_fields_that_the_form_does_not_have_go_nowhere() {
    let house = House::new().await;
    let mut browser = house.signed_in("jo@example.com", only(&[Right::ManageTenants])).await;
    let form = [
        ("namespace", house.namespace.as_str()),
        ("name", "acme"),
        ("display_name", "Acme GmbH"),
        ("plan", "pro"),
        ("trial_ends", "2030-12-31"),
        ("deletion_policy", "Retain"),
        // Somebody's data, a server, a way around protection.
        ("uuid", "7b0f3c52-5d0e-4b9e-9a55-0d1a2c7f1e11"),
        ("spec.uuid", "7b0f3c52-5d0e-4b9e-9a55-0d1a2c7f1e11"),
        ("slug", "other"),
        ("deletionProtection", "true"),
        ("server", "pg-1"),
    ];
    let made = browser.fill("/tenants/new", &form).await.is(303);
    assert_eq!(made.location(), format!("{}?done=created", house.path("acme")));
    let tenant = house.now("acme").await;
    assert_eq!(
        (tenant.spec.uuid.as_ref(), tenant.spec.slug.as_ref(), tenant.spec.database.as_ref()),
        (None, None, None)
    );
    assert!(!tenant.spec.deletion_protection);
    assert_eq!(tenant.managed_fields()[0].manager.as_deref(), Some("maintenance-os-portal"));
    browser.get(&house.path("acme")).await.is(200).says("Acme GmbH").says("The operator has not seen it yet");
    browser.fill("/tenants/new", &form).await.is(422).says("There is a tenant acme");
    let wrong = |field: &'static str, value: &'static str| {
        let other = form.iter().map(|(name, kept)| (*name, if *name == field { value } else { *kept }));
        other.collect::<Vec<_>>()
    };
    browser.fill("/tenants/new", &wrong("name", "admin")).await.is(422).says("reserved").says("value=\"Acme GmbH\"");
    browser.fill("/tenants/new", &wrong("namespace", "kube-system")).await.is(422).says("Choose one of the namespaces");
    browser.fill("/tenants/new", &wrong("display_name", "")).await.is(422);
    let actions: Vec<_> =
        house.actions().await.into_iter().filter(|action| action.starts_with("tenant.create")).collect();
    assert_eq!(actions.iter().filter(|action| *action == "tenant.create.done").count(), 1, "{actions:?}");
    assert!(actions.contains(&"tenant.create.failed".into()) && actions.contains(&"tenant.create.refused".into()));
}

#[tokio::test]
async fn plan_and_state_are_changed_and_written_down_with_before_and_after() {
    let house = House::new().await;
    house.tenant("acme", json!({})).await;
    house.status("acme", json!({"uuid": "7b0f3c52-5d0e-4b9e-9a55-0d1a2c7f1e11"})).await;
    let mut browser = house.signed_in("jo@example.com", only(&[Right::ManageTenants])).await;
    browser.headers = vec![("user-agent", "a browser/1".into()), ("x-forwarded-for", "203.0.113.9".into())];
    browser.address = "10.1.2.3".into();
    let path = house.path("acme");
    browser.fill_seen(&format!("{path}/plan"), &[("plan", "free")]).await.is(303);
    assert_eq!(house.now("acme").await.spec.plan_ref.name, "free");
    browser.fill_seen(&format!("{path}/plan"), &[("plan", "../x")]).await.is(422).says("no such plan");
    browser.fill_seen(&format!("{path}/suspend"), &[("reason", "  ")]).await.is(422).says("Give a reason");
    assert_eq!(house.now("acme").await.spec.state, TenantState::Active);
    browser.fill_seen(&format!("{path}/suspend"), &[("reason", "unpaid <bills>")]).await.is(303);
    assert_eq!(house.now("acme").await.spec.state, TenantState::Suspended);
    let entry = house.last("tenant.suspend.done").await;
    let changes = entry.changes.unwrap();
    assert_eq!(changes["before"], json!({"plan": "free", "state": "Active"}));
    assert_eq!(changes["after"], json!({"state": "Suspended"}));
    assert_eq!(changes["reason"], "unpaid <bills>");
    assert_eq!(entry.actor, "jo@example.com");
    assert_eq!(entry.ip_address.as_deref(), Some("203.0.113.9"), "the word of a trusted proxy");
    assert_eq!(entry.user_agent.as_deref(), Some("a browser/1"));
    assert_eq!(entry.tenant.unwrap().to_string(), "7b0f3c52-5d0e-4b9e-9a55-0d1a2c7f1e11");
    let asked = house.last("tenant.suspend.asked").await;
    assert!(asked.id < entry.id && asked.correlation_id == entry.correlation_id && asked.correlation_id.is_some());
    browser.get(&path).await.is(200).says("tenant.suspend.done").says("unpaid &#60;bills&#62;").says("Resume");
    browser.fill_seen(&format!("{path}/resume"), &[]).await.is(303);
    assert_eq!(house.now("acme").await.spec.state, TenantState::Active);
    assert_eq!(house.db.central.verify_trail(&Default::default()).await.unwrap().findings, []);
}

#[tokio::test]
async fn a_delete_needs_the_name_and_a_reason_and_says_what_becomes_of_the_data() {
    let house = House::new().await;
    house.tenant("acme", json!({"spec": {"deletionPolicy": "Delete", "quarantine": "24h"}})).await;
    house
        .status(
            "acme",
            json!({"uuid": "7b0f3c52-5d0e-4b9e-9a55-0d1a2c7f1e11", "database": {"name": "tenant_x", "server": "pg-1"}}),
        )
        .await;
    let mut browser = house.signed_in("jo@example.com", only(&[Right::ManageTenants])).await;
    let delete = format!("{}/delete", house.path("acme"));
    browser.get(&delete).await.is(200).says("DROPPED FOR GOOD after 24h").says("spec.uuid: 7b0f3c52");
    browser.fill_seen(&delete, &[("name", "acm"), ("reason", "they left")]).await.is(422).says("Type the name acme");
    browser.fill_seen(&delete, &[("name", "acme"), ("reason", "")]).await.is(422).says("Give a reason");
    house.now("acme").await;
    let done = browser.fill_seen(&delete, &[("name", "acme"), ("reason", "they left")]).await.is(303);
    browser.get(done.location()).await.is(200).says("The delete was asked for");
    assert!(house.tenants().get_opt("acme").await.unwrap().is_none());
    let actions = house.actions().await;
    assert_eq!(actions[..2], ["tenant.delete.done", "tenant.delete.asked"]);
    // Another tenant of that name is another tenant.
    let page = {
        house.tenant("acme", json!({})).await;
        browser.get(&delete).await.is(200)
    };
    house.tenants().delete("acme", &Default::default()).await.unwrap();
    house.tenant("acme", json!({})).await;
    let seen = [
        ("uid", page.field("uid")),
        ("generation", page.field("generation")),
        ("name", "acme".into()),
        ("reason", "they left".into()),
    ];
    let seen: Vec<_> = seen.iter().map(|(name, value)| (*name, value.as_str())).collect();
    browser.post(&delete, &seen).await.is(404);
    house.now("acme").await;
}

#[tokio::test]
async fn what_somebody_else_changed_meanwhile_is_not_overwritten_and_the_operators_status_is_no_conflict() {
    let house = House::new().await;
    house.tenant("acme", json!({})).await;
    let mut browser = house.signed_in("jo@example.com", only(&[Right::ManageTenants])).await;
    let plan = format!("{}/plan", house.path("acme"));
    let page = browser.get(&plan).await.is(200);
    let (uid, generation) = (page.field("uid"), page.field("generation"));
    let form = [("plan", "free"), ("uid", uid.as_str()), ("generation", generation.as_str())];
    house.status("acme", json!({"primaryHost": "acme.example.com"})).await;
    browser.post(&plan, &form).await.is(303);
    assert_eq!(house.now("acme").await.spec.plan_ref.name, "free");
    // The same form again: by now it was changed, if only by itself; and by somebody with kubectl.
    let patch = json!({"spec": {"state": "ReadOnly", "planRef": {"name": "pro"}}});
    house.tenants().patch("acme", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    browser.post(&plan, &form).await.is(409).says("Somebody else was faster").says("Look again");
    let now = house.now("acme").await;
    assert_eq!((now.spec.plan_ref.name.as_str(), now.spec.state), ("pro", TenantState::ReadOnly));
    assert_eq!(house.actions().await[0], "tenant.plan.failed");
    // Many status writes at the same time as the change.
    let operator = async {
        for n in 0..20 {
            house.status("acme", json!({"primaryHost": format!("h{n}.example.com")})).await;
        }
    };
    let (done, ()) = futures::join!(browser.fill_seen(&plan, &[("plan", "free")]), operator);
    done.is(303);
}

#[tokio::test]
async fn what_comes_from_git_is_not_changed_and_the_page_says_what_to_commit() {
    let house = House::new().await;
    house.tenant("acme", json!({"metadata": {"labels": {"kustomize.toolkit.fluxcd.io/name": "customers"}}})).await;
    let apply = PatchParams::apply("argocd-controller");
    let object = json!({"apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Tenant", "metadata": {"name": "argo"},
        "spec": {"displayName": "Argo", "planRef": {"name": "pro"}}});
    house.tenants().patch("argo", &apply, &Patch::Apply(object)).await.unwrap();
    house.seen("argo").await;
    let mut browser = house.signed_in("jo@example.com", all()).await;
    for (name, tool) in [("acme", "Flux"), ("argo", "Argo CD")] {
        let (path, before) = (house.path(name), house.now(name).await);
        browser.get(&path).await.is(200).says("comes from Git").says(tool);
        let shown = browser.fill_seen(&format!("{path}/suspend"), &[("reason", "unpaid")]).await.is(409);
        shown.says("state: Suspended").says(&format!("name: {name}")).says("kind: Tenant").says("Nothing was changed");
        browser.fill_seen(&format!("{path}/plan"), &[("plan", "free")]).await.is(409).says("name: free");
        browser
            .fill_seen(&format!("{path}/delete"), &[("name", name), ("reason", "they left")])
            .await
            .is(409)
            .says("Remove the file");
        assert_eq!(house.now(name).await.resource_version(), before.resource_version());
    }
    assert!(house.actions().await.iter().filter(|action| action.ends_with(".refused")).count() >= 6);
}

#[tokio::test]
async fn a_tenant_in_a_namespace_that_is_not_the_portals_is_shown_and_not_changed() {
    let house = House::new().await;
    let other = crate::cluster::namespace(&house.client, "elsewhere").await;
    let api: kube::Api<maintenance_os::api::Tenant> = kube::Api::namespaced(house.client.clone(), &other);
    let object = serde_json::from_value(json!({"apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Tenant",
        "metadata": {"name": "acme"}, "spec": {"displayName": "Acme", "planRef": {"name": "pro"}}}))
    .unwrap();
    let before = api.create(&Default::default(), &object).await.unwrap();
    let mut browser = house.signed_in("jo@example.com", all()).await;
    let path = format!("/tenants/{other}/acme");
    browser.get(&path).await.is(200).says("changes nothing in the namespace");
    browser
        .fill_seen(&format!("{path}/suspend"), &[("reason", "unpaid")])
        .await
        .is(422)
        .says("changes nothing in the namespace");
    assert_eq!(api.get("acme").await.unwrap().resource_version(), before.resource_version());
    api.delete("acme", &Default::default()).await.unwrap();
}

#[tokio::test]
async fn a_plan_is_sold_no_more_and_again() {
    let house = House::new().await;
    let name = format!("p{}", &uuid::Uuid::new_v4().simple().to_string()[..12]);
    plan(&house.client, &name, "9.00").await;
    let mut browser = house.signed_in("jo@example.com", only(&[Right::ManagePlans])).await;
    let path = format!("/plans/{name}");
    browser.fill_seen(&path, &[("active", "false")]).await.is(303);
    browser.get(&path).await.is(200).says("Not sold").says("Sell again");
    browser.get("/plans").await.is(200).says(&name);
    browser.fill_seen(&path, &[("active", "true"), ("price", "0.01"), ("spec.price", "0.01")]).await.is(303);
    browser.get(&path).await.is(200).says("9.00");
    let entry = house.last("plan.sell.done").await;
    assert_eq!(entry.resource_id.as_deref(), Some(name.as_str()));
}
