//! The matrix against PostgreSQL itself, from each tenant to the other.

use maintenance_os::desired::database::Standing;
use maintenance_os::desired::names;
use maintenance_os::desired::sql::Statement;
use sqlx::{Connection, PgConnection};

use super::attacks::{ATTACKS, At};
use super::fleet::{Fleet, Tenant, execute};
use super::instance::Instance;
use super::judge::{Answer, Expected, Verdict, attempt, judge, state};

/// A session of the victim's whose last statement names its secret.
async fn bait(fleet: &Fleet, victim: &Tenant) -> (PgConnection, i32) {
    let mut session = fleet.session(victim).await;
    let pid = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut session).await.unwrap();
    execute(&mut session, &format!("SELECT pg_advisory_lock(4711), '{}'", victim.secret)).await;
    (session, pid)
}

#[tokio::test]
async fn no_attack_of_the_matrix_has_an_effect_on_another_tenant_or_the_server() {
    let mut fleet = Fleet::start().await;
    assert!(ATTACKS.len() >= 45);
    let mut verdict = Verdict::default();
    for attacker in [0, 1] {
        let (mut session, pid) = bait(&fleet, &fleet.tenants[1 - attacker]).await;
        let mut before = state(&mut fleet).await;
        for attack in ATTACKS {
            let (own, other) = fleet.pair(attacker);
            let options = fleet.instance.options(&own.login(), &own.password, &attack.database(own, other));
            let answer = attempt(options, &attack.sql(own, other, pid)).await;
            let after = state(&mut fleet).await;
            let (own, other) = fleet.pair(attacker);
            let line = format!("{} ({})", attack.id, attack.attempt);
            verdict.note(&line, judge(attack.expected, own, other, &answer, &before, &after));
            if attack.at == At::OthersDatabase {
                let refused = answer.unwrap_err().1;
                assert!(refused.contains("pg_hba.conf rejects connection"), "{line}: {refused}");
            }
            session.ping().await.unwrap_or_else(|error| panic!("{line} ended the victim's session: {error}"));
            before = after;
        }
        verdict.note("P07 (a replication connection)", replication(&mut fleet, attacker).await);
        verdict.note("P27 (change the own password)", own_password(&mut fleet, attacker).await);
        session.close().await.unwrap();
    }
    verdict.give();
    only_what_is_the_tenants_own_is_put_back(&mut fleet).await;
    for tenant in &fleet.tenants {
        fleet.session(tenant).await.close().await.unwrap();
    }
    the_provisioner_was_in_no_tenants_database(&fleet);
}

/// P07: the driver knows no replication.
async fn replication(fleet: &mut Fleet, attacker: usize) -> Result<(), String> {
    for mode in ["true", "database"] {
        let before = state(fleet).await;
        let (own, _) = fleet.pair(attacker);
        let (port, user, database) = (fleet.instance.port, own.login(), own.name());
        let connection = format!("host=127.0.0.1 port={port} user={user} dbname={database} replication={mode}");
        let answer: Answer =
            Instance::psql(&connection, &own.password, "IDENTIFY_SYSTEM").map_err(|error| (String::new(), error));
        let refused = answer.as_ref().unwrap_err().1.clone();
        // With a database PostgreSQL applies that database's line, and then the role's attribute decides.
        let words = ["no pg_hba.conf entry for replication connection", "permission denied to start WAL sender"];
        assert!(words.iter().any(|words| refused.contains(words)), "{refused}");
        let after = state(fleet).await;
        let (own, other) = fleet.pair(attacker);
        judge(Expected::NoLogin, own, other, &answer, &before, &after)?;
    }
    Ok(())
}

/// P27: nobody can forbid it; the operator sets the verifier again.
async fn own_password(fleet: &mut Fleet, attacker: usize) -> Result<(), String> {
    let before = state(fleet).await;
    let (own, _) = fleet.pair(attacker);
    let options = fleet.instance.options(&own.login(), &own.password, &own.name());
    let answer = attempt(options, &format!("ALTER ROLE \"{}\" PASSWORD 'of my own'", own.login())).await;
    let after = state(fleet).await;
    let (own, other) = fleet.pair(attacker);
    let judged = judge(Expected::Own, own, other, &answer, &before, &after);
    let options = fleet.instance.options(&own.login(), &own.password, &own.name());
    assert!(attempt(options, "SELECT 1").await.is_err(), "the password was not changed: the line tests nothing");
    let statement = Statement::RolePassword { name: own.login(), verifier: own.wanted.verifier.clone() };
    execute(&mut fleet.provisioner, &statement.text()).await;
    let (own, _) = fleet.pair(attacker);
    fleet.session(own).await.close().await.unwrap();
    judged
}

async fn only_what_is_the_tenants_own_is_put_back(fleet: &mut Fleet) {
    for index in 0..2 {
        let Standing::Differs(batch) = fleet.standing(index).await else {
            panic!("settings were changed and it was not noticed")
        };
        for statement in batch.statements() {
            let Statement::ResetRole { name, .. } = statement else {
                panic!("more than settings has to be put back: {batch:?}")
            };
            assert!(name.starts_with(&fleet.tenants[index].name()), "{name} is not the tenant's");
        }
    }
    fleet.repair("after all attacks").await;
}

/// P-1: what a tenant lays in its database, the operator's role never meets.
fn the_provisioner_was_in_no_tenants_database(fleet: &Fleet) {
    let log = fleet.instance.log();
    let logins: Vec<_> =
        log.lines().filter(|line| line.contains("connection authorized: user=maintenance_os_provisioner")).collect();
    let database = |line: &str| {
        line.split("database=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap_or_default().to_owned()
    };
    assert!(logins.iter().any(|line| database(line) == "postgres"), "the log does not show who connects");
    let strange: Vec<_> =
        logins.iter().filter(|line| !["postgres", names::TEMPLATE_BUILD].contains(&&*database(line))).collect();
    assert!(strange.is_empty(), "{strange:?}");
}

#[tokio::test]
async fn the_provisioner_is_kept_out_of_tenants_databases_also_when_it_may_connect() {
    let mut fleet = Fleet::start().await;
    let name = fleet.tenants[0].name();
    fleet.damage(&format!("GRANT CONNECT ON DATABASE \"{name}\" TO maintenance_os_provisioner")).await;
    let options = fleet.instance.options(names::PROVISIONER, &fleet.instance.password("provisioner"), &name);
    let (_, refused) = attempt(options, "SELECT 1").await.unwrap_err();
    assert!(refused.contains("pg_hba.conf rejects connection"), "{refused}");
}
