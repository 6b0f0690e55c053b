//! Rules of a Plan.

use serde_json::{Value, json};

use super::rules::{Kind, Line, assert_complete, line, range};
use super::support::administrator;

pub fn kind() -> Kind {
    Kind {
        plural: "plans",
        smallest: json!({
            "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Plan", "metadata": {"name": "pro"},
            "spec": {"displayName": "Professional", "price": "49.00"}
        }),
    }
}

#[rustfmt::skip] // A line a rule.
fn lines() -> Vec<Line> {
    let features = |count: i32| (0..count).map(|number| json!(format!("f{number}"))).collect::<Value>();
    let database = |pool: i32, connections: i32| json!({"poolSize": pool, "maxConnections": connections});
    let workers = |least: i32, most: i32| json!({"minProcesses": least, "maxProcesses": most});
    let (short, long) = ("should be at least", "Too long: may not be more than");
    let mut lines = vec![
        line("metadata.name", "rule", json!("p".repeat(50)), json!("p".repeat(51)), "metadata.name has more than 50 characters: it is the plan's slug, choose a shorter one"),
        line("spec", "required", json!({"displayName": "Pro", "price": "0"}), json!({}), "Required value"),
        line("spec.displayName", "required", json!("Pro"), Value::Null, "spec.displayName: Required value"),
        line("spec.displayName", "minLength", json!("P"), json!(""), short),
        line("spec.displayName", "maxLength", json!("ü".repeat(100)), json!("ü".repeat(101)), long),
        line("spec.displayName", "pattern", json!("Größer"), json!("tab\there"), "spec.displayName in body should match '^[^\\x00-\\x1f"),
        line("spec.price", "required", json!("0"), Value::Null, "spec.price: Required value"),
        line("spec.price", "minLength", json!("1"), json!(""), short),
        line("spec.price", "maxLength", json!("99999999.99"), json!("999999999.99"), long),
        line("spec.price", "pattern", json!("49.9"), json!("49,90"), "spec.price in body should match '^[0-9]{1,8}"),
        line("spec.price", "pattern", json!("49"), json!("-1.00"), "spec.price in body should match '^[0-9]{1,8}"),
        line("spec.currency", "minLength", json!("EUR"), json!("E"), short),
        line("spec.currency", "maxLength", json!("CHF"), json!("EURO"), long),
        line("spec.currency", "pattern", json!("USD"), json!("usd"), "spec.currency in body should match '^[A-Z]{3}$'"),
        line("spec.features", "maxItems", features(64), features(65), "must have at most 64 items"),
        line("spec.features", "unique", json!(["api", "assets"]), json!(["api", "api"]), "Duplicate value"),
        line("spec.features[]", "minLength", json!("a"), json!(""), short),
        line("spec.features[]", "maxLength", json!("a".repeat(63)), json!("a".repeat(64)), long),
        line("spec.features[]", "pattern", json!("custom-domains"), json!("custom_domains"), "should match '^[a-z0-9]([-a-z0-9]*[a-z0-9])?$'"),
        line("spec.limits.users", "minimum", json!(0), json!(-1), "should be greater than or equal to 0"),
        line("spec.limits.assets", "minimum", json!(0), json!(-1), "should be greater than or equal to 0"),
        line("spec.limits.storageGiB", "minimum", json!(0), json!(-1), "should be greater than or equal to 0"),
        line("spec.limits.requestsPerMinute", "minimum", json!(1), json!(0), "should be greater than or equal to 1"),
        line("spec.limits.users", "format", json!(2_147_483_647), json!(3_000_000_000_u32), "int32"),
        line("spec.database", "rule", database(1, 4), database(1, 3), "database.maxConnections must be at least 4: three are kept for rotation, backup and migration"),
        line("spec.database", "rule", database(22, 25), database(23, 25), "database.poolSize must be at most maxConnections - 3"),
        line("spec.database.maxConnections", "minimum", json!(4), json!(0), "should be greater than or equal to 1")
            .beside(json!({"spec": {"database": {"poolSize": 1}}})),
        line("spec.database.maxConnections", "maximum", json!(1000), json!(1001), "should be less than or equal to 1000"),
        line("spec.database.statementTimeout", "minLength", json!("1s"), json!("s"), short),
        line("spec.database.statementTimeout", "maxLength", json!("23h59m60s"), json!("1h".repeat(13)), long),
        line("spec.database.statementTimeout", "pattern", json!("1m30s"), json!("1.5m"), "should match '^([0-9]{1,6}h)?"),
        line("spec.database.statementTimeout", "rule", json!("1s"), json!("0s"), "database.statementTimeout must be from 1s to 24h: every plan has a limit"),
        line("spec.database.statementTimeout", "rule", json!("24h"), json!("24h1s"), "database.statementTimeout must be from 1s to 24h: every plan has a limit"),
        line("spec.workers", "rule", workers(3, 3), workers(4, 3), "workers.minProcesses must not exceed workers.maxProcesses"),
        line("spec.workers.mode", "enum", json!("Dedicated"), json!("Own"), "supported values: \"Shared\", \"Dedicated\""),
        line("spec.backup.mode", "enum", json!("Shared"), json!("None"), "supported values: \"PerTenant\", \"Shared\""),
        line("spec.backup.schedule", "minLength", json!("H 2 * * *"), json!("@daily"), short),
        line("spec.backup.schedule", "maxLength", json!("H 2 * * *"), json!("H".repeat(65)), long),
        line("spec.backup.schedule", "rule", json!("H H(1-3) * * *"), json!("H 25 * * *"), "backup.schedule must be a cron schedule of five fields, as H 2 * * *"),
        line("spec.backup.verify.schedule", "required", json!("H 5 * * 0"), Value::Null, "schedule: Required value"),
        line("spec.backup.verify.schedule", "minLength", json!("H 5 * * 0"), json!("@weekly"), short),
        line("spec.backup.verify.schedule", "maxLength", json!("H 5 * * 0"), json!("H".repeat(65)), long),
        line("spec.backup.verify.schedule", "rule", json!("H H(4-6) * * H"), json!("H 5 * * 8"), "backup.verify.schedule must be a cron schedule of five fields, as H 5 * * 0"),
        line("spec.backup.schedule", "rule", json!("30 */6 * * 1-5"), json!("every night"), "backup.schedule must be a cron schedule of five fields, as H 2 * * *"),
        line("spec.billing.gracePeriod", "minLength", json!("0s"), json!("s"), short),
        line("spec.billing.gracePeriod", "maxLength", json!("336h"), json!("1h".repeat(13)), long),
        line("spec.billing.gracePeriod", "pattern", json!("1h30m"), json!("14d"), "should match '^([0-9]{1,6}h)?"),
        line("spec.billing.gracePeriod", "rule", json!("8760h"), json!("8760h1s"), "billing.gracePeriod must be at most 8760h, a year; 336h is usual"),
    ];
    for line in range("spec.database.poolSize", 1, 500) {
        lines.push(line.beside(json!({"spec": {"database": {"maxConnections": 1000}}})));
    }
    lines.extend(range("spec.workers.weight", 1, 100));
    lines.extend(range("spec.workers.minProcesses", 0, 10));
    for line in range("spec.workers.maxProcesses", 1, 10) {
        lines.push(line.beside(json!({"spec": {"workers": {"minProcesses": 0}}})));
    }
    lines.extend(range("spec.backup.retention.daily", 0, 366));
    lines.extend(range("spec.backup.retention.weekly", 0, 520));
    lines.extend(range("spec.backup.retention.monthly", 0, 240));
    lines
}

#[tokio::test]
async fn every_rule_of_a_plan_accepts_and_refuses_with_words_that_help() {
    kind().creations(&administrator().await, None, &lines()).await;
}

#[test]
fn every_rule_of_the_definition_of_plans_has_its_line() {
    assert_complete("plans", &[&lines()]);
}
