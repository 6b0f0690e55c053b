//! Rules of a SchemaRollout.

use serde_json::{Value, json};

use super::rules::{Kind, Line, assert_complete, line, range};
use super::support::administrator;

pub fn kind() -> Kind {
    Kind {
        plural: "schemarollouts",
        smallest: json!({
            "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "SchemaRollout", "metadata": {"name": "next"}, "spec": {}
        }),
    }
}

const DURATION: &str = "should match '^([0-9]{1,6}h)?([0-9]{1,6}m)?([0-9]{1,8}s)?$'";

#[rustfmt::skip] // A line a rule.
fn lines() -> Vec<Line> {
    let (short, long) = ("should be at least", "Too long: may not be more than");
    let waves = |count: i32| (0..count).map(|number| json!({"name": format!("w{number}")})).collect::<Value>();
    let mut lines = vec![
        line("metadata.name", "rule", json!("r".repeat(63)), json!("r".repeat(64)), "metadata.name has more than 63 characters: choose a shorter one"),
        line("spec", "required", json!({}), Value::Null, "spec: Required value"),
        line("spec.targetVersion", "minLength", json!("0006"), json!("6"), short),
        line("spec.targetVersion", "maxLength", json!("0006"), json!("00006"), long),
        line("spec.targetVersion", "pattern", json!("0006"), json!("v006"), "should match '^[0-9]{4}$'"),
        line("spec.waves", "maxItems", waves(16), waves(17), "must have at most 16 items"),
        line("spec.waves", "unique", json!([{"name": "a"}, {"name": "b"}]), json!([{"name": "a"}, {"name": "a"}]), "Duplicate value"),
        line("spec.waves", "rule", json!([{"name": "a", "ring": "r"}]), json!([{"name": "a", "ring": "r", "percent": 5}]), "a wave takes either spec.waves[].ring or spec.waves[].percent, not both: remove one"),
        line("spec.waves", "rule", json!([{"name": "canary"}]), json!([{"name": "rest"}]), "spec.waves[].name: rest is the wave of those that no other takes, choose another name"),
        line("spec.waves[].name", "required", json!("canary"), Value::Null, "name: Required value"),
        line("spec.waves[].name", "minLength", json!("c"), json!(""), short),
        line("spec.waves[].name", "maxLength", json!("c".repeat(63)), json!("c".repeat(64)), long),
        line("spec.waves[].name", "pattern", json!("canary-1"), json!("Canary"), "should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'"),
        line("spec.lockTimeout", "minLength", json!("2s"), json!("s"), short),
        line("spec.lockTimeout", "maxLength", json!("10s"), json!("1s".repeat(13)), long),
        line("spec.lockTimeout", "pattern", json!("2s"), json!("2 s"), DURATION),
        line("spec.lockTimeout", "rule", json!("60s"), json!("61s"), "spec.lockTimeout must be from 1s to 60s: behind a migration that waits for a lock, customers wait too"),
        line("spec.statementTimeout", "minLength", json!("9m"), json!("m"), short),
        line("spec.statementTimeout", "maxLength", json!("10m"), json!("1s".repeat(13)), long),
        line("spec.statementTimeout", "pattern", json!("30m"), json!("30 m"), DURATION),
        line("spec.statementTimeout", "rule", json!("24h"), json!("25h"), "spec.statementTimeout must be from 1s to 24h"),
    ];
    let of_wave = [
        line("spec.waves", "ring", json!([{"name": "a", "ring": "r"}]), json!([{"name": "a", "ring": ""}]), short),
        line("spec.waves", "ring", json!([{"name": "a", "ring": "r".repeat(63)}]), json!([{"name": "a", "ring": "r".repeat(64)}]), long),
        line("spec.waves", "ring", json!([{"name": "a", "ring": "r_1.b"}]), json!([{"name": "a", "ring": "-r"}]), "should match"),
        line("spec.waves", "percent", json!([{"name": "a", "percent": 1}]), json!([{"name": "a", "percent": 0}]), "should be greater than or equal to"),
        line("spec.waves", "percent", json!([{"name": "a", "percent": 100}]), json!([{"name": "a", "percent": 101}]), "should be less than or equal to"),
        line("spec.waves", "soak", json!([{"name": "a", "soak": "5m"}]), json!([{"name": "a", "soak": "m"}]), short),
        line("spec.waves", "soak", json!([{"name": "a", "soak": "30m"}]), json!([{"name": "a", "soak": "1s".repeat(13)}]), long),
        line("spec.waves", "soak", json!([{"name": "a", "soak": "30m"}]), json!([{"name": "a", "soak": "30 m"}]), DURATION),
    ];
    lines.extend(of_wave);
    lines.extend([range("spec.maxParallel", 1, 64), range("spec.maxFailures", 0, 10_000)].into_iter().flatten());
    lines
}

/// Covered by whole waves above: a wave without its name is no wave.
#[rustfmt::skip] // A line a rule.
fn of_waves() -> Vec<Line> {
    let covered = |at: &'static str, kind: &'static str| line(at, kind, Value::Null, Value::Null, "");
    vec![
        covered("spec.waves[].ring", "minLength"), covered("spec.waves[].ring", "maxLength"), covered("spec.waves[].ring", "pattern"),
        covered("spec.waves[].percent", "minimum"), covered("spec.waves[].percent", "maximum"),
        covered("spec.waves[].soak", "minLength"), covered("spec.waves[].soak", "maxLength"), covered("spec.waves[].soak", "pattern"),
    ]
}

#[rustfmt::skip] // A line a rule.
fn immutable() -> Vec<Line> {
    vec![
        line("spec.targetVersion", "rule", json!("0005"), json!("0006"), "spec.targetVersion is immutable: create another SchemaRollout instead"),
        line("spec.waves", "rule", json!([{"name": "a"}]), json!([{"name": "b"}]), "spec.waves is immutable, because tenants of earlier waves are done already: abort this SchemaRollout and create another one"),
        line("spec.aborted", "rule", json!(true), json!(false), "an aborted SchemaRollout stays aborted: create another one, which goes on where this one ended"),
    ]
}

#[tokio::test]
async fn every_rule_of_a_schema_rollout_accepts_and_refuses_with_words_that_help() {
    kind().creations(&administrator().await, None, &lines()).await;
}

#[tokio::test]
async fn what_is_immutable_in_a_schema_rollout_cannot_be_changed() {
    kind().changes(&administrator().await, None, &immutable()).await;
}

#[test]
fn every_rule_of_the_definition_of_schema_rollouts_has_its_line() {
    assert_complete("schemarollouts", &[&lines(), &of_waves(), &immutable()]);
}
