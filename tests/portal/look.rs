//! Pages that people open.

use serde_json::json;

use crate::house::{House, all};

#[tokio::test]
async fn the_overview_begins_with_what_is_not_right() {
    let house = House::new().await;
    house.tenant("broken", json!({})).await;
    house.status("broken", json!({"conditions": [
        {"type": "Ready", "status": "False", "reason": "SlugConflict", "message": "The slug belongs to another tenant. Choose another.", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "Stalled", "status": "True", "reason": "SlugConflict", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z"}]})).await;
    crate::cluster::until("the portal knows its status", async || {
        let tenant = house.directory.tenant(&house.namespace, "broken").unwrap();
        tenant.status.as_ref().map(drop).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    let mut browser = house.signed_in("jo@example.com", all()).await;
    browser.get("/").await.is(200).says("Tenants that need attention");
    browser
        .get(&format!("/tenants?status=SlugConflict&q={}", house.namespace))
        .await
        .is(200)
        .says("broken GmbH")
        .says("SlugConflict");
    browser.get("/tenants?q=nobody-has-this").await.is(200).says("Nothing matches");
    browser
        .get(&house.path("broken"))
        .await
        .is(200)
        .says("Work cannot go on until somebody changes something")
        .says("Choose another.");
}

#[tokio::test]
async fn a_tenants_page_has_the_dns_record_that_its_customer_has_to_add() {
    let house = House::new().await;
    house.tenant("acme", json!({"spec": {"domains": [{"host": "wartung.acme.example"}]}})).await;
    house
        .status(
            "acme",
            json!({"domains": [{"host": "wartung.acme.example", "verified": false, "message": "The record is missing.",
        "challenge": {"record": "_maintenance-os-challenge.wartung.acme.example", "type": "TXT", "value": "abc123"}}],
        "backup": {"lastSuccess": "2026-01-01T00:00:00Z", "size": 1_500_000}}),
        )
        .await;
    let mut browser = house.signed_in("jo@example.com", all()).await;
    let page = browser.get(&house.path("acme")).await.is(200);
    page.says("_maintenance-os-challenge.wartung.acme.example")
        .says("TXT")
        .says("abc123")
        .says("Not proved")
        .says("1.5 MB")
        .says("kind: Tenant")
        .does_not_say("managedFields");
    browser.get(&house.path("nobody")).await.is(404).says("There is no such page");
}

#[tokio::test]
async fn every_page_is_there_and_the_style_is_kept_by_browsers() {
    let house = House::new().await;
    let mut browser = house.signed_in("jo@example.com", all()).await;
    for path in [
        "/",
        "/tenants",
        "/tenants/new",
        "/plans",
        "/plans/pro",
        "/servers",
        "/log",
        "/admins",
        "/admins/new",
        "/account",
        "/account/password",
        "/account/codes",
        "/prove",
    ] {
        browser.get(path).await.is(200).says("<main");
    }
    let page = browser.get("/").await;
    let (_, rest) = page.body.split_once("stylesheet\" href=\"").unwrap();
    let sheet = browser.get(rest.split('"').next().unwrap()).await.is(200);
    assert!(sheet.headers["cache-control"].to_str().unwrap().contains("immutable"));
    browser.get("/nothing").await.is(404);
}
