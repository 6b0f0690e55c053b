//! The same login at PgBouncer: the lines of the matrix that are about connecting, the statements that it must not let through
//! either, and the pooler's own lines B1 to B10.

use sqlx::ConnectOptions;
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

use super::attacks::{ATTACKS, At};
use super::fleet::{Fleet, execute};
use super::instance::Instance;
use super::judge::{Expected, Verdict, attempt, judge, state};
use super::pooler::{Pooler, entry, until};

#[tokio::test]
async fn no_attack_of_the_matrix_has_an_effect_through_pgbouncer() {
    let mut fleet = Fleet::start().await;
    let pooler = Pooler::start(&fleet).await;
    // Lines that change something of the tenant's own are the server's business; PgBouncer's sessions are shared, so that a
    // role that is taken on would be the next client's.
    let lines: Vec<_> = ATTACKS.iter().filter(|attack| attack.expected != Expected::Own).collect();
    assert!(lines.iter().filter(|attack| attack.at != At::OwnDatabase).count() >= 10);
    let mut verdict = Verdict::default();
    for attacker in [0, 1] {
        let mut before = state(&mut fleet).await;
        for attack in &lines {
            let (own, other) = fleet.pair(attacker);
            let options = pooler.options(&own.login(), &own.password, &attack.database(own, other));
            let answer = attempt(options, &attack.sql(own, other, 0)).await;
            let after = state(&mut fleet).await;
            let (own, other) = fleet.pair(attacker);
            // There is no such session to be ended.
            let expected = if attack.id == "P18" || attack.id == "P19" { Expected::Nothing } else { attack.expected };
            let line = format!("{} through PgBouncer ({})", attack.id, attack.attempt);
            verdict.note(&line, judge(expected, own, other, &answer, &before, &after));
            before = after;
        }
    }
    verdict.give();
}

#[tokio::test]
async fn a_login_opens_its_own_entry_and_no_other_name_that_pgbouncer_knows_or_not() {
    let fleet = Fleet::start().await;
    let pooler = Pooler::start(&fleet).await;
    for attacker in [0, 1] {
        let (own, other) = fleet.pair(attacker);
        // B1 and B4.
        for database in [
            &*other.name(),
            "pgbouncer",
            "central",
            "maintenance_os_central",
            "postgres",
            "template1",
            "*",
            "",
            &own.login(),
            "any",
        ] {
            let answer =
                attempt(pooler.options(&own.login(), &own.password, database), "SELECT name FROM assets").await;
            assert!(answer.as_ref().is_err_and(|(code, _)| code.is_empty()), "{database}: {answer:?}");
        }
        // B5, also under the console's own names.
        for login in ["pgbouncer", "postgres", "maintenance_os_provisioner", &own.name(), &other.login()] {
            for database in ["pgbouncer", &*own.name(), &*other.name()] {
                let answer = attempt(pooler.options(login, &own.password, database), "SHOW CLIENTS").await;
                assert!(answer.is_err(), "{login} with the attacker's password opens {database}");
            }
        }
        let answer = attempt(pooler.options(&own.login(), &own.password, &own.name()), "SELECT name FROM assets").await;
        assert_eq!(answer.unwrap().trim(), own.secret, "the own entry serves the own data");
    }
}

#[tokio::test]
async fn start_up_parameters_reach_no_server_session() {
    let fleet = Fleet::start().await;
    let pooler = Pooler::start(&fleet).await;
    let (own, _) = fleet.pair(0);
    let connection = |extra: &str| {
        format!(
            "host=127.0.0.1 port={} user={} dbname={} sslmode=disable {extra}",
            pooler.port,
            own.login(),
            own.name()
        )
    };
    let shown = Instance::psql(&connection(""), &own.password, "SHOW search_path").unwrap();
    for extra in
        ["options='-c search_path=evil'", "options='-c session_replication_role=replica'", "options='-c role=postgres'"]
    {
        let refused = Instance::psql(&connection(extra), &own.password, "SELECT 1").expect_err(extra);
        assert!(refused.contains("unsupported startup parameter"), "{extra}: {refused}");
    }
    let refused =
        Instance::psql(&connection("replication=database"), &own.password, "IDENTIFY_SYSTEM").expect_err("replication");
    assert!(!refused.contains("systemid"), "{refused}");
    assert_eq!(Instance::psql(&connection(""), &own.password, "SHOW search_path").unwrap(), shown);
}

/// B2, B3, B4, B7: what must not stand in the files.
#[tokio::test]
async fn the_files_force_no_user_ask_no_query_and_know_no_wildcard() {
    let fleet = Fleet::start().await;
    let pooler = Pooler::start(&fleet).await;
    let (ini, databases, hba) = (pooler.file("pgbouncer.ini"), pooler.file("databases.ini"), pooler.file("hba.conf"));
    let option =
        |name: &str| ini.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_prefix('=')).map(str::trim);
    assert_eq!(option("auth_type"), Some("hba"));
    for forbidden in ["auth_query", "auth_user", "admin_users", "stats_users", "auth_dbname", "track_extra_parameters"]
    {
        assert_eq!(option(forbidden), None);
    }
    for line in databases.lines() {
        assert!(!line.trim_start().starts_with('*'), "{line}");
        assert!(
            [" user=", " password=", " auth_user=", " connect_query="].iter().all(|word| !line.contains(word)),
            "{line}"
        );
    }
    let lines: Vec<_> = hba.lines().collect();
    assert_eq!(lines.len(), 2, "a line a tenant and no other: {lines:?}");
    for tenant in &fleet.tenants {
        assert!(
            lines.contains(&&*format!("host \"{}\" \"{}\" all scram-sha-256", tenant.name(), tenant.login())),
            "{lines:?}"
        );
    }
    let users = pooler.file("userlist.txt");
    for tenant in &fleet.tenants {
        assert!(!users.contains(&tenant.password) && users.contains(&tenant.wanted.verifier), "verifiers only");
    }
}

/// B8: a name or a verifier that would begin a line of its own.
#[tokio::test]
async fn an_entry_with_a_line_break_or_a_quote_in_it_reaches_no_file() {
    let fleet = Fleet::start().await;
    let pooler = Pooler::start(&fleet).await;
    let files = || ["databases.ini", "hba.conf", "userlist.txt"].map(|name| pooler.file(name));
    let before = files();
    let (own, other) = fleet.pair(0);
    let injected = format!("x\nstolen = host=127.0.0.1 dbname={} user={}", other.name(), other.login());
    for (database, login, verifier) in [
        (injected.clone(), own.login(), own.wanted.verifier.clone()),
        (own.name(), format!("{}\" \"SCRAM\n\"{}", own.login(), other.login()), own.wanted.verifier.clone()),
        (own.name(), own.login(), format!("{}\"\n\"postgres\" \"x", own.wanted.verifier)),
        // Well-formed, and not its own.
        (other.name(), own.login(), own.wanted.verifier.clone()),
    ] {
        let mut entry = entry(own);
        entry.uuid = Uuid::new_v4();
        entry.database = database;
        entry.users[0].name = login;
        entry.users[0].verifier = verifier;
        pooler.write(entry);
    }
    until("the agent has refused every one", async || pooler.refused_slices().await >= 4).await;
    let answer = attempt(pooler.options(&own.login(), &own.password, "stolen"), "SELECT name FROM assets").await;
    assert!(answer.is_err(), "{answer:?}");
    assert_eq!(files(), before);
}

/// B10: a cancel request needs the key of the session that it is about.
#[tokio::test]
async fn guessed_cancel_requests_end_nobodys_statement() {
    let fleet = Fleet::start().await;
    let pooler = Pooler::start(&fleet).await;
    let (victim, _) = fleet.pair(1);
    let mut session = pooler.options(&victim.login(), &victim.password, &victim.name()).connect().await.unwrap();
    execute(&mut session, "BEGIN").await;
    for guess in 0_u32..300 {
        let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", pooler.port)).await.unwrap();
        let mut request = Vec::new();
        for word in [16, 80_877_102, guess, guess.wrapping_mul(2_654_435_761)] {
            request.extend(word.to_be_bytes());
        }
        stream.write_all(&request).await.unwrap();
    }
    let rows: i64 = sqlx::query_scalar("SELECT count(*) FROM assets, generate_series(1, 100000)")
        .fetch_one(&mut session)
        .await
        .unwrap();
    assert_eq!(rows, 100_000);
    execute(&mut session, "COMMIT").await;
}
