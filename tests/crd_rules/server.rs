//! Rules of a DatabaseServer.

use serde_json::{Value, json};

use super::rules::{Kind, Line, assert_complete, line, range};
use super::support::administrator;

pub fn kind() -> Kind {
    Kind {
        plural: "databaseservers",
        smallest: json!({
            "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "DatabaseServer", "metadata": {"name": "pg-eu-1"},
            "spec": {"connectionSecretRef": {"name": "pg-eu-1"}}
        }),
    }
}

#[rustfmt::skip] // A line a rule.
fn lines() -> Vec<Line> {
    let mut lines = vec![
        line("metadata.name", "rule", json!("p".repeat(40)), json!("p".repeat(41)), "metadata.name has more than 40 characters: pooler and Secret names derive from it, choose a shorter one"),
        line("metadata.name", "rule", json!("p-1"), json!("1-p"), "metadata.name must be one DNS label that begins with a letter, because the pooler's Service is named after it"),
        line("metadata.name", "rule", json!("pg-eu"), json!("pg.eu"), "metadata.name must be one DNS label that begins with a letter, because the pooler's Service is named after it"),
        line("spec", "required", json!({"connectionSecretRef": {"name": "s"}}), json!({}), "Required value"),
        line("spec.connectionSecretRef", "required", json!({"name": "s"}), Value::Null, "spec.connectionSecretRef: Required value"),
        line("spec.connectionSecretRef.name", "required", json!("s"), Value::Null, "spec.connectionSecretRef.name: Required value"),
        line("spec.connectionSecretRef.name", "minLength", json!("s"), json!(""), "should be at least 1"),
        line("spec.connectionSecretRef.name", "maxLength", json!("s".repeat(63)), json!("s".repeat(64)), "Too long: may not be more than 63"),
        // A way out of the operator's namespace.
        line("spec.connectionSecretRef.name", "pattern", json!("pg-eu-1.login"), json!("a/../../kube-system/secrets/b"), "should match '^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$'"),
        line("spec.sslMode", "enum", json!("prefer"), json!("disable"), "supported values: \"verify-full\", \"verify-ca\", \"require\", \"prefer\""),
        line("spec.pooler.poolMode", "enum", json!("session"), json!("statement"), "supported values: \"transaction\", \"session\""),
    ];
    lines.extend([
        range("spec.capacity.maxTenants", 0, 5000),
        range("spec.capacity.maxConnections", 10, 100_000),
        range("spec.capacity.connectionOvercommit", 1, 1000),
        range("spec.warmPool.size", 0, 500),
        range("spec.pooler.replicas", 0, 20),
        range("spec.pooler.maxClientConn", 10, 100_000),
        range("spec.pooler.defaultPoolSize", 1, 1000),
        range("spec.pooler.reservePoolSize", 0, 1000),
        range("spec.pooler.reservePoolTimeout", 0, 3600),
        range("spec.pooler.serverLifetime", 1, 86_400),
    ].into_iter().flatten());
    lines
}

#[tokio::test]
async fn every_rule_of_a_database_server_accepts_and_refuses_with_words_that_help() {
    kind().creations(&administrator().await, None, &lines()).await;
}

#[test]
fn every_rule_of_the_definition_of_database_servers_has_its_line() {
    assert_complete("databaseservers", &[&lines()]);
}
