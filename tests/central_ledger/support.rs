//! A database for each test, and short words for what the tests do.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use jiff::SignedDuration;
use maintenance_os::api::tenant::TenantState;
use maintenance_os::central::{
    Central, Marked, PlanRow, Proof, RegisterError, Registered, Registration, Room, TenantRow,
};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use uuid::Uuid;

const PREFIX: &str = "mos_central_test_";
const LEFTOVER_SECONDS: u64 = 3600;

static NO_METADATA: LazyLock<BTreeMap<String, String>> = LazyLock::new(BTreeMap::new);

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set: these tests need a real PostgreSQL 17. Run `e2e/cluster/postgres-local.sh start`, \
             then `. ~/.cache/maintenance-os/postgres-local/env`"
        )
    })
}

pub fn server_url() -> String {
    variable("MOS_TEST_POSTGRES_URL")
}

pub fn ca() -> PathBuf {
    variable("MOS_TEST_POSTGRES_CA").into()
}

pub fn options() -> PgConnectOptions {
    PgConnectOptions::from_str(&server_url())
        .expect("MOS_TEST_POSTGRES_URL is not a URL")
        .ssl_mode(PgSslMode::VerifyFull)
        .ssl_root_cert(ca())
}

async fn administrator() -> PgConnection {
    options().connect().await.expect("cannot connect to MOS_TEST_POSTGRES_URL")
}

/// The server's URL with another database.
pub fn url_of(database: &str) -> String {
    let url = server_url();
    let base = url.split('?').next().unwrap();
    format!("{}/{database}", base.rsplit_once('/').unwrap().0)
}

/// A database of the test's own, gone when this goes, also when the test panics.
pub struct Database {
    pub central: Central,
    /// For what only the test may do.
    pub pool: PgPool,
    pub name: String,
}

impl Database {
    pub async fn new() -> Self {
        let database = Self::empty().await;
        database.central.migrate().await.unwrap();
        database.central.upsert_plan(&plan("pro", "49.00")).await.unwrap();
        database.central.upsert_plan(&plan("free", "0")).await.unwrap();
        database
    }

    pub async fn empty() -> Self {
        let mut connection = administrator().await;
        drop_leftovers(&mut connection).await;
        let name = format!("{PREFIX}{}_{}", seconds(), &Uuid::new_v4().simple().to_string()[..12]);
        execute(&mut connection, format!("CREATE DATABASE {name}")).await;
        connection.close().await.unwrap();
        let central = Central::connect(&url_of(&name), Some(&ca())).await.unwrap();
        let pool = PgPoolOptions::new().max_connections(3).connect_lazy_with(options().database(&name));
        Self { central, pool, name }
    }

    pub async fn execute(&self, sql: &str) {
        sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
            .execute(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Which rule refuses the statement.
    pub async fn refusal(&self, sql: &str) -> String {
        let error = sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(&self.pool).await.expect_err(sql);
        let error = error.into_database_error().unwrap();
        error.constraint().unwrap_or_else(|| panic!("{sql}: {error}")).to_owned()
    }

    pub async fn number(&self, sql: &str) -> i64 {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_one(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    pub async fn texts(&self, sql: &str) -> Vec<String> {
        sqlx::query_scalar(AssertSqlSafe(sql.to_owned()))
            .fetch_all(&self.pool)
            .await
            .unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Every row version of every table: equal before and after means that nothing was written.
    pub async fn versions(&self) -> Vec<String> {
        let mut versions = Vec::new();
        for table in ["plans", "tenants", "domains", "subscriptions", "audit_logs", "releases", "replaced_databases"] {
            versions.extend(
                self.texts(&format!("SELECT '{table} ' || ctid::text || ' ' || xmin::text FROM {table} ORDER BY ctid"))
                    .await,
            );
        }
        versions
    }

    pub async fn actions(&self) -> Vec<String> {
        self.texts("SELECT action FROM audit_logs ORDER BY id").await
    }

    pub async fn register(&self, object: &Object) -> Result<Registered, RegisterError> {
        self.central.register(&object.registration()).await
    }

    pub async fn row(&self, uuid: Uuid) -> TenantRow {
        self.central.row(uuid).await.unwrap().expect("the ledger has no such row")
    }

    /// A tenant with a database.
    pub async fn provisioned(&self, object: &Object) -> Uuid {
        let uuid = self.register(object).await.unwrap().row.uuid;
        self.central.place(uuid, "pg-1", 1000).await.unwrap();
        self.central.mark_provisioned(uuid, "0001").await.unwrap();
        uuid
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let name = self.name.clone();
        // A thread with a runtime of its own: the test's may be unwinding.
        let dropper = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut connection = administrator().await;
                execute(&mut connection, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
            });
        });
        if dropper.join().is_err() {
            eprintln!("could not drop {}; a later run will", self.name);
        }
    }
}

pub async fn execute(connection: &mut PgConnection, sql: String) {
    sqlx::raw_sql(AssertSqlSafe(sql.clone()))
        .execute(connection)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

/// Databases of runs that were killed.
async fn drop_leftovers(connection: &mut PgConnection) {
    let names: Vec<String> = sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE starts_with(datname, $1)")
        .bind(PREFIX)
        .fetch_all(&mut *connection)
        .await
        .unwrap();
    for name in names {
        let made = name[PREFIX.len()..].split('_').next().and_then(|text| text.parse::<u64>().ok());
        if made.is_some_and(|made| made + LEFTOVER_SECONDS < seconds()) {
            execute(connection, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
        }
    }
}

fn seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub fn plan(slug: &str, price: &str) -> PlanRow {
    PlanRow {
        slug: slug.into(),
        display_name: slug.to_uppercase(),
        price: price.into(),
        currency: "USD".into(),
        features: vec!["assets".into()],
        limits: serde_json::json!({ "users": 50, "maxConnections": 25 }),
        active: true,
    }
}

/// A Tenant object as the operator sees it.
#[derive(Clone)]
pub struct Object {
    pub name: String,
    pub uid: Uuid,
    pub slug: String,
    pub display_name: String,
    pub plan: Option<&'static str>,
    pub state: TenantState,
    pub trial_ends_at: Option<jiff::Timestamp>,
    pub metadata: BTreeMap<String, String>,
    pub adopt: Option<Uuid>,
    pub known: Option<Uuid>,
    pub hosts: Vec<(String, bool)>,
    pub place: Option<(&'static str, Room)>,
    pub marked: Option<Marked<'static>>,
}

impl Object {
    pub fn new(name: &str) -> Self {
        Self {
            name: name.into(),
            uid: Uuid::new_v4(),
            slug: name.into(),
            display_name: format!("{name} GmbH"),
            plan: Some("pro"),
            state: TenantState::Active,
            trial_ends_at: None,
            metadata: NO_METADATA.clone(),
            adopt: None,
            known: None,
            hosts: Vec::new(),
            place: None,
            marked: None,
        }
    }

    pub fn slug(mut self, slug: &str) -> Self {
        self.slug = slug.into();
        self
    }

    pub fn adopt(mut self, uuid: Uuid) -> Self {
        self.adopt = Some(uuid);
        self
    }

    pub fn known(mut self, uuid: Uuid) -> Self {
        self.known = Some(uuid);
        self
    }

    pub fn host(mut self, host: &str, primary: bool) -> Self {
        self.hosts.push((host.into(), primary));
        self
    }

    pub fn marked(mut self, server: &'static str, schema: &'static str) -> Self {
        self.marked = Some(Marked { server, schema });
        self
    }

    pub fn place(mut self, server: &'static str, room: impl Into<Room>) -> Self {
        self.place = Some((server, room.into()));
        self
    }

    pub fn registration(&self) -> Registration<'_> {
        Registration {
            namespace: "customers",
            name: &self.name,
            object_uid: self.uid,
            slug: &self.slug,
            display_name: &self.display_name,
            plan: self.plan,
            state: self.state,
            trial_ends_at: self.trial_ends_at,
            metadata: &self.metadata,
            adopt: self.adopt,
            known: self.known,
            hosts: self.hosts.clone(),
            place: self.place,
            marked: self.marked,
        }
    }
}

/// How long a missing proof counts, in these tests.
pub const GRACE: SignedDuration = SignedDuration::from_hours(168);

impl Database {
    pub async fn proof(&self, uuid: Uuid, host: &str) -> Proof {
        self.central.prove_host(uuid, host, GRACE).await.unwrap()
    }

    pub async fn prove(&self, uuid: Uuid, host: &str) {
        assert!(matches!(self.proof(uuid, host).await, Proof::Taken { .. }));
    }
}

pub fn in_the_past() -> jiff::Timestamp {
    "2020-01-01T00:00:00Z".parse().unwrap()
}

pub fn in_the_future() -> jiff::Timestamp {
    "2999-01-01T00:00:00Z".parse().unwrap()
}
