//! Rules of a Tenant.

use kube::api::PostParams;
use serde_json::{Value, json};

use super::rules::{Kind, Line, assert_complete, line, range};
use super::support::{administrator, namespace, refusal};

pub fn kind() -> Kind {
    Kind {
        plural: "tenants",
        smallest: json!({
            "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"},
            "spec": {"displayName": "Acme GmbH", "planRef": {"name": "pro"}}
        }),
    }
}

const UUID: &str = "7b0f3c52-5d0e-4b9e-9a55-0d1a2c7f1e11";
const DURATION: &str = "should match '^([0-9]{1,6}h)?";
const NAME: &str = "should match '^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$'";
const SHORT: &str = "should be at least";
const LONG: &str = "Too long: may not be more than";

#[rustfmt::skip] // A line a rule.
fn names() -> Vec<Line> {
    vec![
        line("metadata.name", "rule", json!("n".repeat(50)), json!("n".repeat(51)), "choose a shorter one, the binding Secret"),
        line("metadata.name", "rule", json!("4-you"), json!("for.you"), "must be one DNS label (no dots), because it is the first label of the host: rename the Tenant"),
        line("metadata.name", "rule", json!("adminton"), json!("admin"), "metadata.name is a reserved host label and would be the slug: set spec.slug to another one"),
        line("spec.slug", "rule", json!("blog"), json!("www"), "spec.slug is a reserved host label: choose another one"),
        line("spec.slug", "minLength", json!("a"), json!(""), SHORT),
        line("spec.slug", "maxLength", json!("s".repeat(63)), json!("s".repeat(64)), LONG),
        line("spec.slug", "pattern", json!("acme-2"), json!("Acme_2"), "spec.slug in body should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'"),
        line("spec.displayName", "required", json!("Acme"), Value::Null, "spec.displayName: Required value"),
        line("spec.displayName", "minLength", json!("A"), json!(""), SHORT),
        line("spec.displayName", "maxLength", json!("ü".repeat(255)), json!("ü".repeat(256)), LONG),
        line("spec.displayName", "pattern", json!("Ümläut & <Söhne> \u{a0}"), json!("two\nlines"), "spec.displayName in body should match '^[^\\x00-\\x1f"),
        line("spec.displayName", "pattern", json!("„Acme“"), json!("next\u{85}line"), "spec.displayName in body should match '^[^\\x00-\\x1f"),
        line("spec.uuid", "pattern", json!(UUID), json!(UUID.to_uppercase()), "spec.uuid in body should match '^[0-9a-f]{8}-"),
        line("spec.planRef", "required", json!({"name": "pro"}), Value::Null, "spec.planRef: Required value"),
        line("spec.planRef.name", "required", json!("pro"), Value::Null, "spec.planRef.name: Required value"),
        line("spec.planRef.name", "minLength", json!("p"), json!(""), SHORT),
        line("spec.planRef.name", "maxLength", json!("p".repeat(63)), json!("p".repeat(64)), LONG),
        line("spec.planRef.name", "pattern", json!("pro.2026"), json!("../pro"), NAME),
        line("spec.database.serverRef.name", "required", json!("pg-eu-1"), Value::Null, "serverRef.name: Required value"),
        line("spec.database.serverRef.name", "minLength", json!("p"), json!(""), SHORT),
        line("spec.database.serverRef.name", "maxLength", json!("p".repeat(63)), json!("p".repeat(64)), LONG),
        line("spec.database.serverRef.name", "pattern", json!("pg-eu-1"), json!("pg/eu"), NAME),
    ]
}

#[rustfmt::skip] // A line a rule.
fn values() -> Vec<Line> {
    let hosts = |count: i32| (0..count).map(|number| json!({"host": format!("h{number}.example")})).collect::<Value>();
    let notes = |count: i32| (0..count).map(|number| (format!("k{number}"), json!("v"))).collect::<Value>();
    let label = "a".repeat(63);
    let mut lines = vec![
        line("spec.state", "enum", json!("Hibernated"), json!("Asleep"), "supported values: \"Active\", \"ReadOnly\", \"Suspended\", \"Hibernated\""),
        line("spec.deletionPolicy", "enum", json!("Delete"), json!("Destroy"), "supported values: \"Retain\", \"BackupThenDelete\", \"Delete\""),
        line("spec.trialEndsAt", "format", json!("2026-12-31T23:59:59Z"), json!("2026-12-31"), "must be of type date-time"),
        line("spec.quarantine", "minLength", json!("0s"), json!("h"), SHORT),
        line("spec.quarantine", "maxLength", json!("720h"), json!("1h".repeat(13)), LONG),
        line("spec.quarantine", "pattern", json!("1h30m"), json!("7 days"), DURATION),
        line("spec.credentials.rotateEvery", "minLength", json!("9m"), json!("9"), SHORT),
        line("spec.credentials.rotateEvery", "maxLength", json!("999999h999999m99999999s"), json!("1h".repeat(13)), LONG),
        line("spec.credentials.rotateEvery", "pattern", json!("720h"), json!("-720h"), DURATION),
        line("spec.credentials.rotateEvery", "rule", json!("1m"), json!("59s"), "spec.credentials.rotateEvery must be at least 1m: 720h is usual; to renew the password now, annotate the Tenant with tenancy.maintenance-os.com/rotate"),
        line("spec.metadata", "rule", notes(64), notes(65), "spec.metadata has more than 64 entries: keep long data elsewhere"),
        line("spec.domains", "maxItems", hosts(16), hosts(17), "must have at most 16 items"),
        line("spec.domains", "unique", json!([{"host": "a.example"}, {"host": "b.example"}]), json!([{"host": "a.example"}, {"host": "a.example"}]), "Duplicate value"),
        line("spec.domains", "rule", json!([{"host": "a.example", "primary": true}, {"host": "b.example"}]), json!([{"host": "a.example", "primary": true}, {"host": "b.example", "primary": true}]), "more than one domain is primary: keep primary: true on one of spec.domains"),
        line("spec.domains", "rule", json!([{"host": "10.0.0.12.example"}]), json!([{"host": "10.0.0.12"}]), "spec.domains has an address: write the name of a host"),
        line("spec.domains[].host", "required", json!("a.example"), Value::Null, "host: Required value"),
        line("spec.domains[].host", "minLength", json!("a.de"), json!("a"), SHORT),
        line("spec.domains[].host", "maxLength", json!(format!("{label}.{label}.{label}.{}", "a".repeat(61))), json!(format!("{label}.{label}.{label}.{label}")), LONG),
        line("spec.domains[].host", "pattern", json!("maintenance.acme.example"), json!("*.acme.example"), "host in body should match"),
        line("spec.domains[].host", "pattern", json!("xn--mnchen-3ya.example"), json!("Acme.example"), "host in body should match"),
        line("spec.backup.schedule", "minLength", json!("H 2 * * *"), json!("@daily"), SHORT),
        line("spec.backup.schedule", "maxLength", json!("H 2 * * *"), json!("H".repeat(65)), LONG),
        line("spec.backup.schedule", "rule", json!("H 2 * * *"), json!("H 2 * *  "), "spec.backup.schedule must be a cron schedule of five fields, as H 2 * * *"),
        line("spec.backup.verify.schedule", "required", json!("H 5 * * 0"), Value::Null, "schedule: Required value"),
        line("spec.backup.verify.schedule", "minLength", json!("H 5 * * 0"), json!("@weekly"), SHORT),
        line("spec.backup.verify.schedule", "rule", json!("H H(4-6) * * H"), json!("H 5 * * 8"), "backup.verify.schedule must be a cron schedule of five fields, as H 5 * * 0"),
        line("spec.backup.verify.schedule", "maxLength", json!("H 5 * * 0"), json!("H".repeat(65)), LONG),
    ];
    lines.extend(range("spec.backup.retention.daily", 0, 366));
    lines.extend(range("spec.backup.retention.weekly", 0, 520));
    lines.extend(range("spec.backup.retention.monthly", 0, 240));
    lines
}

/// The value that stays, and the one it must not become; null: the field is not there.
#[rustfmt::skip] // A line a rule.
fn immutable() -> Vec<Line> {
    let other = UUID.replace('7', "8");
    let (slug, uuid, server) = ("spec.slug", "spec.uuid", "spec.database.serverRef");
    vec![
        line(slug, "rule", json!("first"), json!("second"), "spec.slug is immutable: create another Tenant instead"),
        line(slug, "rule", json!("first"), Value::Null, "spec.slug can be set only at creation: create another Tenant instead"),
        line(slug, "rule", Value::Null, json!("late"), "spec.slug can be set only at creation: create another Tenant instead"),
        line(uuid, "rule", json!(UUID), json!(other), "spec.uuid is immutable: delete this Tenant (its data is kept)"),
        line(uuid, "rule", json!(UUID), Value::Null, "spec.uuid can be set only at creation: delete this Tenant (its data is kept)"),
        line(uuid, "rule", Value::Null, json!(UUID), "spec.uuid can be set only at creation: delete this Tenant (its data is kept)"),
        line(server, "rule", json!({"name": "pg-1"}), json!({"name": "pg-2"}), "spec.database.serverRef is immutable: to move the data create a TenantMove"),
        line(server, "rule", json!({"name": "pg-1"}), Value::Null, "spec.database.serverRef can be set only at creation: to move the data create a TenantMove"),
        line(server, "rule", Value::Null, json!({"name": "pg-1"}), "spec.database.serverRef can be set only at creation: to move the data create a TenantMove"),
    ]
}

#[tokio::test]
async fn every_rule_of_a_tenants_names_accepts_and_refuses_with_words_that_help() {
    kind().creations(&administrator().await, Some("default"), &names()).await;
}

#[tokio::test]
async fn every_rule_of_a_tenants_values_accepts_and_refuses_with_words_that_help() {
    kind().creations(&administrator().await, Some("default"), &values()).await;
}

#[tokio::test]
async fn what_is_immutable_in_a_tenant_cannot_be_changed_taken_away_or_added_later() {
    let client = administrator().await;
    let namespace = namespace(&client, "immutable").await;
    kind().changes(&client, Some(&namespace), &immutable()).await;
}

#[tokio::test]
async fn a_reserved_name_needs_a_slug_of_its_own_and_a_null_slug_is_none() {
    let client = administrator().await;
    let api = kind().api(&client, Some("default"));
    let create = async |slug: Value| {
        let mut object = kind().smallest;
        object["metadata"]["name"] = json!("www");
        object["spec"]["slug"] = slug;
        let object = serde_json::from_value(object).unwrap();
        api.create(&PostParams { dry_run: true, field_manager: None }, &object).await.map(drop)
    };
    create(json!("acme")).await.unwrap();
    let refused = refusal(create(Value::Null).await.unwrap_err());
    assert!(refused.contains("set spec.slug to another one"), "{refused}");
}

#[test]
fn every_rule_of_the_definition_of_tenants_has_its_line() {
    let spec = line("spec", "required", Value::Null, Value::Null, "");
    assert_complete("tenants", &[&[spec], &names(), &values(), &immutable()]);
}
