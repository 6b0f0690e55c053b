//! The audit trail: written as a chain, kept as it is, and what shows when somebody changes it all the same.

use std::time::Duration;

use maintenance_os::central::chain::{Finding, Heads, note, read_note};
use maintenance_os::central::{AuditEntry, TrailFilter, TrailFrom, Verified};
use sqlx::{AssertSqlSafe, Connection, Executor};
use uuid::Uuid;

use crate::support::{Database, Object, ca, url_of};

fn entry(action: &str) -> AuditEntry {
    AuditEntry { action: action.into(), ..AuditEntry::default() }
}

async fn verified(db: &Database) -> Verified {
    db.central.verify_trail(&Heads::new()).await.unwrap()
}

async fn findings(db: &Database) -> Vec<Finding> {
    verified(db).await.findings
}

/// Writes `count` entries one after the other in one transaction, so that they are in one lane.
async fn in_one_lane(db: &Database, count: i64) -> i16 {
    let sql = format!(
        "INSERT INTO audit_logs (actor, action) SELECT 'somebody', 'did.' || n FROM generate_series(1, {count}) n"
    );
    db.execute(&sql).await;
    sqlx::query_scalar("SELECT lane FROM audit_logs WHERE actor = 'somebody' LIMIT 1")
        .fetch_one(&db.pool)
        .await
        .unwrap()
}

/// As the owner of the table can: past what keeps the trail.
async fn past_the_triggers(db: &Database, sql: &str) {
    db.execute(&format!(
        "BEGIN; ALTER TABLE audit_logs DISABLE TRIGGER USER; ALTER TABLE audit_lanes DISABLE TRIGGER USER; {sql};
         ALTER TABLE audit_logs ENABLE TRIGGER USER; ALTER TABLE audit_lanes ENABLE TRIGGER USER; COMMIT"
    ))
    .await;
}

#[tokio::test]
async fn what_the_operator_writes_is_chained_and_found_as_it_was_written() {
    let db = Database::new().await;
    db.provisioned(&Object::new("acme").host("a.example", true)).await;
    let full = AuditEntry {
        admin_id: None,
        actor: "jo@example.com".into(),
        resource_type: Some("Tenant".into()),
        resource_id: Some("customers/ä \"quoted\" 7:x".into()),
        changes: Some(serde_json::json!({ "z": 1.50, "a": ["ü\n", null], "Z": { "b": true } })),
        ip_address: Some("2001:db8::1".parse().unwrap()),
        user_agent: Some("curl/8\\".into()),
        correlation_id: Some(Uuid::new_v4()),
        ..entry("tenant.suspended")
    };
    db.central.audit(&full).await.unwrap();
    let verified = verified(&db).await;
    assert_eq!(verified.findings, []);
    assert_eq!(verified.entries, 3);
    assert_eq!(verified.heads.values().map(|head| head.seq).sum::<i64>(), 3);
    assert_eq!(
        read_note(&note(&verified.heads)).unwrap().len(),
        verified.heads.values().filter(|head| head.seq > 0).count()
    );
}

#[tokio::test]
async fn nobody_changes_or_removes_an_entry_by_an_ordinary_statement() {
    let db = Database::new().await;
    in_one_lane(&db, 3).await;
    for sql in [
        "DELETE FROM audit_logs",
        "DELETE FROM audit_logs WHERE action = 'did.2'",
        "UPDATE audit_logs SET actor = 'nobody'",
        "UPDATE audit_logs SET created_at = created_at - interval '1 day'",
        "UPDATE audit_logs SET admin_id = 7",
        "TRUNCATE audit_logs",
        "TRUNCATE audit_lanes",
        "DELETE FROM audit_lanes",
        "UPDATE audit_lanes SET seq = 0, hash = ''",
    ] {
        let refused = db.pool.execute(AssertSqlSafe(sql.to_owned())).await.expect_err(sql);
        assert_eq!(refused.as_database_error().unwrap().code().as_deref(), Some("23001"), "{sql}: {refused}");
    }
    assert_eq!(findings(&db).await, []);
}

#[tokio::test]
async fn a_changed_a_removed_and_an_inserted_row_show() {
    let db = Database::new().await;
    let lane = in_one_lane(&db, 9).await;
    past_the_triggers(&db, "UPDATE audit_logs SET actor = 'nobody' WHERE action = 'did.3'").await;
    past_the_triggers(&db, "DELETE FROM audit_logs WHERE action IN ('did.5', 'did.6')").await;
    past_the_triggers(&db, "DELETE FROM audit_logs WHERE action = 'did.9'").await;
    past_the_triggers(
        &db,
        "INSERT INTO audit_logs (actor, action, lane, seq, previous_hash, hash) VALUES ('x', 'forged', 15, 1000, '', '')",
    )
    .await;
    let found = findings(&db).await;
    let id: i64 =
        sqlx::query_scalar("SELECT id FROM audit_logs WHERE action = 'did.3'").fetch_one(&db.pool).await.unwrap();
    assert!(found.contains(&Finding::Changed { lane, seq: 3, id }), "{found:?}");
    assert!(found.contains(&Finding::Missing { lane, from: 5, to: 6 }), "{found:?}");
    assert!(found.iter().any(|finding| matches!(finding, Finding::Beyond { seq: 1000, .. })), "{found:?}");
    if lane != 15 {
        assert!(found.contains(&Finding::Missing { lane, from: 9, to: 9 }), "the end of the trail is cut: {found:?}");
    }
}

#[tokio::test]
async fn a_row_that_was_inserted_into_no_chain_shows() {
    let db = Database::new().await;
    in_one_lane(&db, 2).await;
    let insert = "ALTER TABLE audit_logs ALTER lane DROP NOT NULL, ALTER seq DROP NOT NULL;
                  INSERT INTO audit_logs (actor, action, previous_hash, hash) VALUES ('x', 'forged', '', '')";
    past_the_triggers(&db, insert).await;
    let id: i64 =
        sqlx::query_scalar("SELECT id FROM audit_logs WHERE action = 'forged'").fetch_one(&db.pool).await.unwrap();
    assert_eq!(findings(&db).await, [Finding::Unchained { id }]);
}

#[tokio::test]
async fn an_end_that_was_cut_together_with_its_head_shows_beside_the_noted_head() {
    let db = Database::new().await;
    let lane = in_one_lane(&db, 5).await;
    let noted = verified(&db).await.heads;
    past_the_triggers(
        &db,
        &format!(
            "DELETE FROM audit_logs WHERE lane = {lane} AND seq > 3;
             UPDATE audit_lanes SET seq = 3, hash = (SELECT hash FROM audit_logs WHERE lane = {lane} AND seq = 3)
             WHERE lane = {lane}"
        ),
    )
    .await;
    assert_eq!(findings(&db).await, [], "what was written anew as a whole tells nothing by itself");
    let found = db.central.verify_trail(&noted).await.unwrap().findings;
    assert_eq!(found, [Finding::Cut { lane, noted: 5, found: 3 }]);
}

#[tokio::test]
async fn many_writers_at_once_neither_wait_for_each_other_nor_break_a_chain() {
    let db = Database::new().await;
    // Somebody who writes an entry and does not come to an end holds nobody up.
    let mut slow = db.pool.acquire().await.unwrap();
    let mut open = slow.begin().await.unwrap();
    open.execute("INSERT INTO audit_logs (actor, action) VALUES ('slow', 'did')").await.unwrap();
    let writers = (0..40).map(|writer| {
        let central = db.central.clone();
        tokio::spawn(async move {
            for _ in 0..5 {
                central.audit(&entry(&format!("did.{writer}"))).await.unwrap();
            }
        })
    });
    let all = futures::future::join_all(writers);
    for done in tokio::time::timeout(Duration::from_secs(30), all).await.expect("they wait for the slow one") {
        done.unwrap();
    }
    let meanwhile = verified(&db).await;
    assert_eq!((meanwhile.findings, meanwhile.entries), (vec![], 200));
    open.commit().await.unwrap();
    let verified = verified(&db).await;
    assert_eq!((verified.findings, verified.entries), (vec![], 201));
    assert!(verified.heads.values().filter(|head| head.seq > 0).count() > 1, "they all went into one lane");
}

#[tokio::test]
async fn an_entry_that_was_rolled_back_leaves_no_gap() {
    let db = Database::new().await;
    db.execute("BEGIN; INSERT INTO audit_logs (actor, action) VALUES ('x', 'y'); ROLLBACK").await;
    db.execute("BEGIN; SAVEPOINT a; INSERT INTO audit_logs (actor, action) VALUES ('x', 'y'); ROLLBACK TO a; INSERT INTO audit_logs (actor, action) VALUES ('x', 'z'); COMMIT").await;
    let verified = verified(&db).await;
    assert_eq!((verified.findings, verified.entries), (vec![], 1));
}

#[tokio::test]
async fn a_tenant_and_an_administrator_can_be_deleted_and_their_trail_stays_whole_and_is_found() {
    let db = Database::new().await;
    let uuid = db.provisioned(&Object::new("acme")).await;
    db.execute("INSERT INTO system_admins (email, password) VALUES ('jo@example.com', '$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHQ$aGFzaA')").await;
    let admin: i32 = sqlx::query_scalar("SELECT id FROM system_admins").fetch_one(&db.pool).await.unwrap();
    let by = AuditEntry {
        admin_id: Some(admin),
        actor: "jo@example.com".into(),
        tenant: Some(uuid),
        ..entry("tenant.seen")
    };
    db.central.audit(&by).await.unwrap();
    db.execute("DELETE FROM tenants; DELETE FROM system_admins").await;
    // Somebody writes about it after it has gone.
    db.central.audit(&AuditEntry { tenant: Some(uuid), ..entry("tenant.late") }).await.unwrap();
    assert_eq!(findings(&db).await, []);
    let filter = TrailFilter { tenant: Some(uuid), ..TrailFilter::default() };
    let rows = db.central.trail(&filter, TrailFrom::Newest, 50).await.unwrap();
    let actions: Vec<_> = rows.iter().map(|row| row.action.as_str()).collect();
    assert_eq!(actions, ["tenant.late", "tenant.seen", "tenant.provisioned", "tenant.registered"]);
    assert_eq!(rows[1].actor, "jo@example.com");
    assert_eq!(rows[1].slug.as_deref(), Some("acme"));
}

#[tokio::test]
async fn entries_from_before_the_chain_are_chained_by_the_migration() {
    let db = Database::empty().await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/src/central/migrations");
    for file in ["0001_seed.sql", "0002_ledger.sql", "0003_domains.sql"] {
        db.execute(&std::fs::read_to_string(format!("{folder}/{file}")).unwrap()).await;
    }
    db.execute("INSERT INTO audit_logs (actor, action, created_at) SELECT 'old', 'did.' || n, '2020-01-01Z' FROM generate_series(1, 20) n").await;
    db.execute(&std::fs::read_to_string(format!("{folder}/0004_portal.sql")).unwrap()).await;
    db.central.audit(&entry("did.since")).await.unwrap();
    let verified = verified(&db).await;
    assert_eq!((verified.findings, verified.entries), (vec![], 21));
    assert!(verified.heads[&0].seq >= 20);
    let old = db.number("SELECT count(*) FROM audit_logs WHERE created_at = '2020-01-01Z'").await;
    assert_eq!(old, 20, "they keep their times");
}

#[tokio::test]
async fn pages_and_filters_show_each_entry_once() {
    let db = Database::new().await;
    in_one_lane(&db, 120).await;
    db.central.audit(&AuditEntry { actor: "Jo@Example.com".into(), ..entry("tenant.seen") }).await.unwrap();
    let all = TrailFilter::default();
    let (mut ids, mut from) = (Vec::new(), TrailFrom::Newest);
    loop {
        let rows = db.central.trail(&all, from, 50).await.unwrap();
        let Some(last) = rows.last() else { break };
        from = TrailFrom::Before(last.id);
        ids.extend(rows.iter().map(|row| row.id));
    }
    assert_eq!(ids.len(), 121);
    assert!(ids.windows(2).all(|pair| pair[0] > pair[1]), "newest first");
    let newer = db.central.trail(&all, TrailFrom::After(ids[60]), 50).await.unwrap();
    assert_eq!(newer.iter().map(|row| row.id).collect::<Vec<_>>(), ids[10..60], "the next newer ones, newest first");
    let central = &db.central;
    let of = async |filter: TrailFilter| central.trail(&filter, TrailFrom::Newest, 50).await.unwrap().len();
    assert_eq!(of(TrailFilter { actor: Some("jo@example.COM".into()), ..all.clone() }).await, 1);
    assert_eq!(of(TrailFilter { action: Some("did.7".into()), ..all.clone() }).await, 1);
    let now = jiff::Timestamp::now();
    let hour = jiff::SignedDuration::from_hours(1);
    assert_eq!(of(TrailFilter { since: Some(now - hour), until: Some(now + hour), ..all.clone() }).await, 50);
    assert_eq!(of(TrailFilter { since: Some(now + hour), ..all.clone() }).await, 0);
    assert_eq!(of(TrailFilter { until: Some(now - hour), ..all.clone() }).await, 0);
    for hostile in ["' OR true --", "%", "did.1'; DROP TABLE audit_logs; --", "\\", "$1"] {
        let text = Some(hostile.to_owned());
        for filter in [
            TrailFilter { slug: text.clone(), ..all.clone() },
            TrailFilter { actor: text.clone(), ..all.clone() },
            TrailFilter { action: text.clone(), ..all.clone() },
            TrailFilter { resource: text.clone(), ..all.clone() },
        ] {
            assert_eq!(of(filter).await, 0, "{hostile}");
        }
    }
}

/// Runs `maintenance-os audit`; whether it ended well, and what it printed.
async fn command(db: &Database, arguments: &[&str]) -> (bool, String) {
    let ran = tokio::process::Command::new(env!("CARGO_BIN_EXE_maintenance-os"))
        .arg("audit")
        .args(["--central-url", &url_of(&db.name), "--central-ca", ca().to_str().unwrap()])
        .args(arguments)
        .output()
        .await
        .unwrap();
    (ran.status.success(), String::from_utf8(ran.stdout).unwrap())
}

#[tokio::test]
async fn the_command_tells_what_it_found_ends_accordingly_and_takes_back_what_it_printed() {
    let db = Database::new().await;
    let lane = in_one_lane(&db, 3).await;
    let (good, printed) = command(&db, &["verify"]).await;
    assert!(good && printed.contains("3 entries, as they were written"), "{printed}");
    let noted = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(noted.path(), &printed).unwrap();
    let again = ["verify", "--noted", noted.path().to_str().unwrap()];
    assert!(command(&db, &again).await.0);
    let (good, listed) = command(&db, &["list", "--csv", "--limit", "2"]).await;
    assert!(good && listed.lines().count() == 3 && listed.contains("did.3"), "{listed}");
    past_the_triggers(&db, "UPDATE audit_logs SET actor = 'nobody' WHERE action = 'did.2'").await;
    let (good, printed) = command(&db, &["verify"]).await;
    assert!(!good && printed.contains(&format!("(lane {lane}, 2) was changed")), "{printed}");
    std::fs::write(noted.path(), "nothing of ours").unwrap();
    assert!(!command(&db, &again).await.0);
}
