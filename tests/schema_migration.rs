//! One database's migrations on a real PostgreSQL: the app's own, while it is used, and everything that can be in their way.
//!
//! Needs the environment that `e2e/cluster/postgres-local.sh start` writes; `make test-code` sees to it.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use futures::FutureExt;
use maintenance_os::app;
use maintenance_os::apply::migrate::{MigrateError, Patience, bring_up};
use maintenance_os::desired::migration::steps;
use maintenance_os::desired::server::Migration;
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};
use uuid::Uuid;

const PATIENCE: Patience = Patience { lock: Duration::from_secs(1), statement: Duration::from_secs(60) };

const LAYOUT: &str = "
SET ROLE maintenance_os_schema;
CREATE TABLE public.maintenance_os_migrations (
  version text PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())";

/// A database with a tenant's tables up to a version.
struct Database(PgConnectOptions, String);

impl Database {
    async fn with(name: &str, migrations: &[Migration<'_>]) -> Self {
        let server: PgConnectOptions = std::env::var("MOS_TEST_POSTGRES_URL")
            .expect("MOS_TEST_POSTGRES_URL: run `make test-code`, or e2e/cluster/postgres-local.sh start")
            .parse()
            .unwrap();
        let name = format!("mos_migration_{name}_{}", Uuid::new_v4().simple());
        let mut administrator = server.connect().await.unwrap();
        let role = "DO $$ BEGIN CREATE ROLE maintenance_os_schema NOLOGIN; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$";
        administrator.execute(role).await.unwrap();
        administrator
            .execute(AssertSqlSafe(format!("CREATE DATABASE {name} TEMPLATE template0 ENCODING 'UTF8'")))
            .await
            .unwrap();
        let database = Self(server.database(&name), name);
        let mut session = database.session().await;
        run(&mut session, "GRANT CREATE ON SCHEMA public TO maintenance_os_schema").await;
        run(&mut session, LAYOUT).await;
        for step in migrations.iter().flat_map(steps) {
            run(&mut session, &step.text).await;
        }
        database
    }

    async fn session(&self) -> PgConnection {
        self.0.connect().await.unwrap()
    }

    async fn number(&self, query: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(query.to_owned())).fetch_one(&mut self.session().await).await.unwrap()
    }

    async fn bring_up(&self, known: &[Migration<'_>]) -> Result<usize, MigrateError> {
        let target = known.last().unwrap().version.to_owned();
        bring_up(self.0.clone(), known, &target, PATIENCE).await
    }

    async fn versions(&self) -> String {
        let query = "SELECT string_agg(version, ' ' ORDER BY version) FROM maintenance_os_migrations";
        sqlx::query_scalar(query).fetch_one(&mut self.session().await).await.unwrap()
    }
}

/// Makes a database, runs the test, and drops it whether it passed or not.
async fn with(name: &str, migrations: &[Migration<'_>], test: impl AsyncFnOnce(&Database)) {
    let database = Database::with(name, migrations).await;
    let outcome = std::panic::AssertUnwindSafe(test(&database)).catch_unwind().await;
    let mut administrator = database.0.clone().database("postgres").connect().await.unwrap();
    administrator.execute(AssertSqlSafe(format!("DROP DATABASE {} WITH (FORCE)", database.1))).await.unwrap();
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

async fn run(session: &mut PgConnection, text: &str) {
    let done = session.execute(sqlx::raw_sql(AssertSqlSafe(text.to_owned()))).await;
    done.unwrap_or_else(|error| panic!("{error}, in: {text}"));
}

fn of_the_app() -> Vec<Migration<'static>> {
    let known = app::migrations().iter();
    known.map(|known| Migration { version: known.version, name: known.name, sql: known.sql }).collect()
}

async fn add_assets(database: &Database, count: i64) {
    let text = format!(
        "INSERT INTO assets (name, tag, updated_at) SELECT 'Pump ' || n, 'P-' || n, '2020-01-01' FROM generate_series(1, {count}) n"
    );
    run(&mut database.session().await, &text).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_assets_are_brought_up_while_people_work_and_nobody_sees_an_error() {
    let all = of_the_app();
    with("load", &all[..4], async |database| {
        add_assets(database, 100_000).await;
        let stop = std::sync::atomic::AtomicBool::new(false);
        let work = async |worker: i64| {
            let (mut session, mut slowest, mut done) = (database.session().await, Duration::ZERO, 0);
            // As the app of the release before: it knows nothing of the new column.
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                let begun = Instant::now();
                let number = worker * 10_000_000 + done;
                run(&mut session, &format!("INSERT INTO assets (name, tag) VALUES ('New {number}', 'N-{number}')")).await;
                run(&mut session, &format!("UPDATE assets SET location = 'Hall {number}' WHERE id = {}", 1 + number % 90_000)).await;
                run(&mut session, "SELECT * FROM assets WHERE tag = 'P-77'").await;
                slowest = slowest.max(begun.elapsed());
                done += 1;
            }
            (slowest, done)
        };
        let migrate = async {
            let applied = database.bring_up(&all).await;
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            applied
        };
        let (applied, one, two) = tokio::join!(migrate, work(1), work(2));
        assert_eq!(applied.unwrap(), all.len());
        assert!(one.1 > 50 && two.1 > 50, "{one:?} {two:?}");
        assert!(one.0.max(two.0) < Duration::from_secs(3), "somebody waited {one:?} {two:?}");
        println!("slowest of {} rounds while 100,000 rows were filled: {:?}", one.1 + two.1, one.0.max(two.0));
        let wrong = "SELECT count(*) FROM assets WHERE search IS DISTINCT FROM asset_search(name, tag, location, manufacturer, model, serial_number)";
        assert_eq!(database.number(wrong).await, 0);
        let untouched = "SELECT count(*) FROM assets WHERE updated_at = '2020-01-01'";
        assert!(database.number(untouched).await > 50_000, "filling a column is no change of an asset");
        let valid = "SELECT count(*) FROM pg_index WHERE indexrelid = 'assets_name_idx'::regclass AND indisvalid";
        assert_eq!(database.number(valid).await, 1);
        assert_eq!(database.number("SELECT count(*) FROM pg_attribute WHERE attrelid = 'assets'::regclass AND attname = 'search' AND attnotnull").await, 1);
        assert_eq!(database.bring_up(&all).await.unwrap(), all.len(), "nothing is left to do");
    })
    .await;
}

const ONE: Migration<'static> = Migration { version: "0001", name: "one", sql: "CREATE TABLE a (id int);\n" };
const TWO: Migration<'static> = Migration {
    version: "0002",
    name: "two",
    sql: "-- what for\nALTER TABLE a ADD COLUMN b int;\nALTER TABLE a ADD COLUMN c nonsense;\n",
};

#[tokio::test]
async fn a_migration_that_fails_names_its_file_and_line_and_leaves_nothing_half_done() {
    with("fails", &[ONE], async |database| {
        let error = database.bring_up(&[ONE, TWO]).await.unwrap_err();
        assert!(!error.is_transient());
        assert_eq!(error.to_string(), "0002_two.sql, line 3: type \"nonsense\" does not exist [42704]");
        assert_eq!(database.versions().await, "0001");
        assert_eq!(
            database.number("SELECT count(*) FROM pg_attribute WHERE attrelid = 'a'::regclass AND attname = 'b'").await,
            0
        );
    })
    .await;
}

#[tokio::test]
async fn a_changed_file_and_a_database_that_is_ahead_are_said_and_nothing_is_done() {
    let mended = Migration { sql: "ALTER TABLE a ADD COLUMN b int;\n", ..TWO };
    with("drift", &[ONE, mended], async |database| {
        let changed = Migration { sql: "CREATE TABLE a (id bigint);\n", ..ONE };
        let third = Migration { version: "0003", name: "three", sql: "CREATE TABLE c (id int);\n" };
        let drift = database.bring_up(&[changed, mended, third]).await.unwrap_err();
        assert!(drift.to_string().starts_with("migration 0001 was applied here from another file"), "{drift}");
        let ahead = database.bring_up(&[ONE]).await.unwrap_err();
        assert!(
            ahead.to_string().starts_with("the database has migration 0002, which this operator does not know"),
            "{ahead}"
        );
        assert_eq!(database.versions().await, "0001 0002");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_waits_for_a_lock_keeps_nobody_waiting_behind_it_for_long() {
    let mended = Migration { sql: "ALTER TABLE a ADD COLUMN b int;\n", ..TWO };
    with("lock", &[ONE], async |database| {
        let mut holder = database.session().await;
        run(&mut holder, "BEGIN; SELECT * FROM a").await;
        let release = async {
            let mut reader = database.session().await;
            let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
            while begun.elapsed() < Duration::from_secs(4) {
                let read = Instant::now();
                run(&mut reader, "SELECT count(*) FROM a").await;
                slowest = slowest.max(read.elapsed());
            }
            run(&mut holder, "COMMIT").await;
            slowest
        };
        let both = [ONE, mended];
        let (migrated, slowest) = tokio::join!(database.bring_up(&both), release);
        assert_eq!(migrated.unwrap(), 2);
        assert!(slowest > Duration::from_millis(300), "the migration never waited in front of anybody");
        assert!(
            slowest < Duration::from_millis(1500),
            "somebody waited {slowest:?} behind a lock time-out of one second"
        );
    })
    .await;
}

#[tokio::test]
async fn an_index_that_an_attempt_left_broken_is_made_anew() {
    let index = Migration {
        version: "0002",
        name: "index",
        sql: "-- no transaction\nCREATE INDEX CONCURRENTLY a_id_idx ON a (id);\n",
    };
    with("index", &[ONE], async |database| {
        let mut session = database.session().await;
        run(&mut session, "SET ROLE maintenance_os_schema").await;
        run(&mut session, "INSERT INTO a VALUES (1), (1)").await;
        let broken = session.execute("CREATE UNIQUE INDEX CONCURRENTLY a_id_idx ON a (id)").await;
        assert!(broken.is_err());
        let state =
            "SELECT count(*) FROM pg_index WHERE indexrelid = 'a_id_idx'::regclass AND indisvalid AND NOT indisunique";
        assert_eq!(database.number(state).await, 0);
        assert_eq!(database.bring_up(&[ONE, index]).await.unwrap(), 2);
        assert_eq!(database.number(state).await, 1);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migration_that_is_cut_off_at_any_moment_is_finished_by_the_next_attempt() {
    let all = of_the_app();
    with("cut", &all[..4], async |database| {
        add_assets(database, 20_000).await;
        let mut cuts = 0;
        for milliseconds in (1..).map(|number| number * 15) {
            match tokio::time::timeout(Duration::from_millis(milliseconds), database.bring_up(&all)).await {
                Err(_) => {
                    cuts += 1;
                    // As when the operator's machine is gone: the server notices, and whatever was not committed is not there.
                    let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}' AND pid <> pg_backend_pid()", database.1);
                    run(&mut database.session().await, &end).await;
                }
                // The session of the attempt before has not ended yet.
                Ok(Err(error)) => assert!(error.is_transient(), "{error}"),
                Ok(Ok(count)) => {
                    assert_eq!(count, all.len());
                    break;
                }
            }
        }
        assert!(cuts >= 3, "cut off {cuts} times only");
        assert_eq!(database.number("SELECT count(*) FROM assets WHERE search IS NULL").await, 0);
        assert_eq!(database.versions().await, "0001 0002 0003 0004 0005 0006");
    })
    .await;
}
