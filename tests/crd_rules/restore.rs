//! Rules of a TenantRestore and of a TenantBackup.

use serde_json::{Value, json};

use super::rules::{Kind, Line, assert_complete, line};
use super::support::{administrator, namespace};

const UUID: &str = "7b0f3c52-5d0e-4b9e-9a55-0d1a2c7f1e11";
const BACKUP: &str = "20261231T235959Z-0123456789abcdef0123456789abcdef";

pub fn kind() -> Kind {
    Kind {
        plural: "tenantrestores",
        smallest: json!({
            "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "TenantRestore", "metadata": {"name": "back"},
            "spec": {"tenantRef": {"name": "acme"}}
        }),
    }
}

fn backup() -> Kind {
    Kind {
        plural: "tenantbackups",
        smallest: json!({
            "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "TenantBackup", "metadata": {"name": "now"},
            "spec": {"tenantRef": {"name": "acme"}}
        }),
    }
}

#[rustfmt::skip] // A line a rule.
fn names() -> Vec<Line> {
    let (short, long) = ("should be at least", "Too long: may not be more than");
    vec![
        line("spec", "required", json!({"tenantRef": {"name": "acme"}}), Value::Null, "spec: Required value"),
        line("spec.tenantRef", "required", json!({"name": "acme"}), Value::Null, "tenantRef: Required value"),
        line("spec.tenantRef.name", "required", json!("acme"), Value::Null, "name: Required value"),
        line("spec.tenantRef.name", "minLength", json!("a"), json!(""), short),
        line("spec.tenantRef.name", "maxLength", json!("a".repeat(63)), json!("a".repeat(64)), long),
        line("spec.tenantRef.name", "pattern", json!("acme"), json!("../acme"), "should match"),
    ]
}

#[rustfmt::skip] // A line a rule.
fn values() -> Vec<Line> {
    vec![
        line("spec.backup", "minLength", json!(BACKUP), json!(&BACKUP[1..]), "should be at least 49"),
        line("spec.backup", "maxLength", json!(BACKUP), json!(format!("{BACKUP}0")), "may not be more than 49"),
        line("spec.backup", "pattern", json!(BACKUP), json!(BACKUP.replace('T', "/")), "should match"),
        line("spec.sourceTenant", "pattern", json!(UUID), json!("acme"), "should match"),
        line("spec.clone", "rule", json!(true), json!(true), "").beside(json!({"spec": {"sourceTenant": UUID}})),
    ]
}

#[rustfmt::skip] // A line a rule.
fn immutable() -> Vec<Line> {
    let other = UUID.replace('7', "8");
    vec![
        line("spec.tenantRef", "rule", json!({"name": "acme"}), json!({"name": "globex"}), "spec.tenantRef is immutable: create another TenantRestore instead"),
        line("spec.backup", "rule", json!(BACKUP), json!(BACKUP.replace("2026", "2025")), "spec.backup is immutable: create another TenantRestore instead"),
        line("spec.backup", "rule", Value::Null, json!(BACKUP), "spec.backup is immutable: create another TenantRestore instead"),
        line("spec.sourceTenant", "rule", json!(UUID), json!(other), "spec.sourceTenant is immutable: create another TenantRestore instead"),
        line("spec.approve", "rule", json!(true), json!(false), "spec.approve cannot be taken back: set spec.abort to true, which counts until the databases are swapped"),
        line("spec.abort", "rule", json!(true), json!(false), "an aborted TenantRestore stays aborted: create another one"),
    ]
}

/// Needs two fields, so that it has a test of its own below.
fn of_clone() -> Vec<Line> {
    ["spec.clone is immutable", "spec.clone needs spec.sourceTenant"]
        .map(|says| line("spec.clone", "rule", Value::Null, Value::Null, says))
        .into()
}

#[tokio::test]
async fn every_rule_of_a_restore_accepts_and_refuses_with_words_that_help() {
    let values: Vec<_> = values().into_iter().filter(|line| line.kind != "rule").collect();
    kind().creations(&administrator().await, Some("default"), &names()).await;
    kind().creations(&administrator().await, Some("default"), &values).await;
}

#[tokio::test]
async fn what_is_immutable_in_a_restore_cannot_be_changed() {
    let client = administrator().await;
    let namespace = namespace(&client, "restores").await;
    kind().changes(&client, Some(&namespace), &immutable()).await;
}

#[tokio::test]
async fn a_clone_names_its_source_and_stays_one() {
    use kube::api::{Patch, PatchParams, PostParams};
    let client = administrator().await;
    let namespace = namespace(&client, "clones").await;
    let api = kind().api(&client, Some(&namespace));
    let mut object = kind().smallest;
    object["spec"]["clone"] = json!(true);
    let refused =
        api.create(&PostParams::default(), &serde_json::from_value(object.clone()).unwrap()).await.unwrap_err();
    assert!(refused.to_string().contains("spec.clone needs spec.sourceTenant"), "{refused}");
    object["spec"]["sourceTenant"] = json!(UUID);
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    let patch = Patch::Merge(json!({"spec": {"clone": false}}));
    let refused = api.patch("back", &PatchParams::default(), &patch).await.unwrap_err();
    assert!(refused.to_string().contains("spec.clone is immutable"), "{refused}");
}

#[tokio::test]
async fn every_rule_of_a_backup_accepts_and_refuses_with_words_that_help() {
    let client = administrator().await;
    backup().creations(&client, Some("default"), &names()).await;
    let namespace = namespace(&client, "backups").await;
    let changed = line(
        "spec.tenantRef.name",
        "rule",
        json!("acme"),
        json!("globex"),
        "spec is immutable: create another TenantBackup instead",
    );
    backup().changes(&client, Some(&namespace), &[changed]).await;
}

#[test]
fn every_rule_of_the_definitions_has_its_line() {
    assert_complete("tenantrestores", &[&names(), &values(), &immutable(), &of_clone()]);
    let changed = line("spec", "rule", Value::Null, Value::Null, "spec is immutable");
    assert_complete("tenantbackups", &[&names(), &[changed]]);
}
