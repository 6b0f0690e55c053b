//! Tenants on a real PostgreSQL, laid out as the operator does it, an app that serves them, and people who use it.

#![allow(dead_code, reason = "no test file uses all of it")]

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::{FutureExt, StreamExt, stream};
use http::{HeaderMap, Method, Request, StatusCode};
use maintenance_os::api::plan::PlanLimits;
use maintenance_os::api::routing::{DatabaseAccess, Queue, RoutingEntry, RoutingPlan, RoutingSlice, Subscription};
use maintenance_os::api::slices::SCHEMA;
use maintenance_os::api::tenant::TenantState;
use maintenance_os::app;
use maintenance_os::desired::migration;
use maintenance_os::desired::server::Migration;
use maintenance_os::slices::Change;
use maintenance_os::tenancy::pool::PoolSettings;
use maintenance_os::tenancy::redis::RedisSettings;
use maintenance_os::tenancy::session::{Holder, SessionId};
use maintenance_os::tenancy::{Tenancy, TenancySettings};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Executor};
use tower::ServiceExt;
use uuid::Uuid;

/// Longest wait for anything.
pub const DEADLINE: Duration = Duration::from_secs(40);

pub fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set. These tests need PostgreSQL 17 and Redis: run `e2e/cluster/postgres-local.sh start` \
             (`redis-local.sh`), then `source ~/.cache/maintenance-os/postgres-local/env` (`redis-local/env`)"
        )
    })
}

/// The Redis of the tests; each test's tenants have uuids of their own, so they share it.
pub fn redis() -> RedisSettings {
    let port = variable("MOS_TEST_REDIS_PORT").parse().expect("MOS_TEST_REDIS_PORT is a port");
    let password = std::env::var("MOS_TEST_REDIS_PASSWORD").ok().map(Into::into);
    RedisSettings { password, ..RedisSettings::new(&variable("MOS_TEST_REDIS_HOST"), port) }
}

/// The server and its administrator.
pub struct Server {
    pub administrator: PgConnectOptions,
    ca: String,
}

impl Server {
    pub fn from_environment() -> Self {
        let ca = PathBuf::from(variable("MOS_TEST_POSTGRES_CA"));
        Self {
            administrator: variable("MOS_TEST_POSTGRES_URL").parse().expect("MOS_TEST_POSTGRES_URL is an address"),
            ca: std::fs::read_to_string(&ca).unwrap_or_else(|error| panic!("reading {}: {error}", ca.display())),
        }
    }

    async fn connect(&self, database: &str) -> PgConnection {
        let options = self.administrator.clone().database(database);
        PgConnection::connect_with(&options).await.expect("the administrator can connect to PostgreSQL")
    }

    pub async fn sql(&self, database: &str, statements: &str) {
        let mut connection = self.connect(database).await;
        let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await;
        done.unwrap_or_else(|error| panic!("{error}, in: {statements}"));
        connection.close().await.unwrap();
    }

    pub async fn number(&self, database: &str, query: &str) -> i64 {
        let mut connection = self.connect(database).await;
        sqlx::query_scalar(AssertSqlSafe(query)).fetch_one(&mut connection).await.unwrap()
    }

    /// A connection in a transaction that has done `statement`.
    pub async fn hold(&self, database: &str, statement: &str) -> PgConnection {
        let mut connection = self.connect(database).await;
        connection.execute("BEGIN").await.unwrap();
        connection.execute(sqlx::raw_sql(AssertSqlSafe(statement))).await.unwrap();
        connection
    }

    /// A user of that role who can work at once, and a token of theirs. The same each time it is called.
    pub async fn user(&self, tenant: &RoutingEntry, role: &str) -> (i64, String) {
        let token = format!("mos_{role}-{}", tenant.uuid.simple());
        let statements = format!(
            "INSERT INTO users (email, name, role, email_verified_at) VALUES ('{role}@test.example', 'Test {role}', '{role}', now())
                 ON CONFLICT (lower(email)) DO NOTHING;
             INSERT INTO api_tokens (user_id, name, prefix, token_sha256)
                 SELECT id, 'test', 'mos_', sha256(convert_to('{token}', 'UTF8')) FROM users WHERE email = '{role}@test.example'
                 ON CONFLICT (token_sha256) DO NOTHING;"
        );
        self.sql(&tenant.database.name, &statements).await;
        let id = format!("SELECT id FROM users WHERE email = '{role}@test.example'");
        (self.number(&tenant.database.name, &id).await, token)
    }

    /// The layout of a tenant's database, as the operator makes it.
    async fn create(&self, uuid: Uuid, password: &str) {
        let name = format!("tenant_{uuid}");
        self.sql("postgres", GROUPS).await;
        self.sql("postgres", &format!("CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING 'UTF8'")).await;
        self.logins(&name, password).await;
        let mut connection = self.connect(&name).await;
        let migrations = app::migrations().iter().map(|known| Migration {
            version: known.version,
            name: known.name,
            sql: known.sql,
        });
        // The records of the migrations are the operator's, whose tests look at them.
        let statements = migrations.flat_map(|migration| migration::steps(&migration)).map(|step| step.text);
        let owner = format!("{SCHEMA_OWNER}{RECORDS}");
        for statement in std::iter::once(owner).chain(statements) {
            let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(statement.clone()))).await;
            done.unwrap_or_else(|error| panic!("{error}, in: {statement}"));
        }
        connection.close().await.unwrap();
    }

    async fn copy(&self, original: Uuid, uuid: Uuid, password: &str) {
        let name = format!("tenant_{uuid}");
        self.sql("postgres", &format!("CREATE DATABASE \"{name}\" TEMPLATE \"tenant_{original}\"")).await;
        self.logins(&name, password).await;
    }

    async fn logins(&self, name: &str, password: &str) {
        let logins = format!(
            "REVOKE ALL ON DATABASE \"{name}\" FROM PUBLIC;
             CREATE ROLE \"{name}\" NOLOGIN IN ROLE maintenance_os_tenants;
             GRANT CONNECT, TEMP ON DATABASE \"{name}\" TO \"{name}\";
             CREATE ROLE \"{name}_a\" LOGIN PASSWORD '{password}' IN ROLE \"{name}\", maintenance_os_app;
             CREATE ROLE \"{name}_b\" LOGIN PASSWORD '{password}-b' IN ROLE \"{name}\", maintenance_os_app;
             ALTER DATABASE \"{name}\" CONNECTION LIMIT 40;"
        );
        self.sql("postgres", &logins).await;
    }

    async fn drop(&self, uuid: Uuid) {
        let name = format!("tenant_{uuid}");
        self.sql("postgres", &format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)")).await;
        let roles = format!("DROP ROLE IF EXISTS \"{name}_a\", \"{name}_b\", \"{name}\"");
        self.sql("postgres", &roles).await;
    }
}

/// The lock, because tests run at the same time and a role can be made once.
const GROUPS: &str = "
DO $$
DECLARE name text;
BEGIN
    PERFORM pg_advisory_xact_lock(20261101);
    FOREACH name IN ARRAY ARRAY['maintenance_os_schema', 'maintenance_os_app', 'maintenance_os_tenants'] LOOP
        IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = name) THEN EXECUTE format('CREATE ROLE %I NOLOGIN', name); END IF;
    END LOOP;
END $$";

const SCHEMA_OWNER: &str = "
GRANT CREATE ON SCHEMA public TO maintenance_os_schema;
SET ROLE maintenance_os_schema;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO maintenance_os_app;
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO maintenance_os_app;
";

const RECORDS: &str = "
CREATE TABLE public.maintenance_os_migrations (
  version text PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
";

/// Makes tenants, runs the test, and drops them whether it passed or not.
pub async fn with_tenants(count: usize, test: impl AsyncFnOnce(&Server, Vec<RoutingEntry>)) {
    let server = Server::from_environment();
    let tenants: Vec<RoutingEntry> = (0..count).map(|_| entry(&server, Uuid::new_v4())).collect();
    for tenant in &tenants {
        server.create(tenant.uuid, &tenant.database.password).await;
    }
    let uuids: Vec<Uuid> = tenants.iter().map(|tenant| tenant.uuid).collect();
    let outcome = std::panic::AssertUnwindSafe(test(&server, tenants)).catch_unwind().await;
    for uuid in uuids {
        server.drop(uuid).await;
    }
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// As [`with_tenants`], for many: their databases are copies of one, which has `schema` besides the app's.
pub async fn with_many_tenants(count: usize, schema: &str, test: impl AsyncFnOnce(&Server, Vec<RoutingEntry>)) {
    let server = Server::from_environment();
    let original = Uuid::new_v4();
    server.create(original, "unused").await;
    let owned = format!("SET ROLE maintenance_os_schema; {schema}");
    server.sql(&format!("tenant_{original}"), &owned).await;
    let tenants: Vec<RoutingEntry> = (0..count).map(|_| entry(&server, Uuid::new_v4())).collect();
    let at_a_time = 4;
    let made = stream::iter(&tenants).map(|tenant| server.copy(original, tenant.uuid, &tenant.database.password));
    made.buffer_unordered(at_a_time).collect::<Vec<_>>().await;
    let uuids: Vec<Uuid> = tenants.iter().map(|tenant| tenant.uuid).chain([original]).collect();
    let outcome = std::panic::AssertUnwindSafe(test(&server, tenants)).catch_unwind().await;
    stream::iter(&uuids).map(|uuid| server.drop(*uuid)).buffer_unordered(at_a_time).collect::<Vec<_>>().await;
    if let Err(panic) = outcome {
        std::panic::resume_unwind(panic);
    }
}

/// A tenant's routing entry; PostgreSQL itself stands where the pooler would.
fn entry(server: &Server, uuid: Uuid) -> RoutingEntry {
    let slug = format!("t{}", uuid.simple());
    let host = format!("{slug}.maintenance-os.com");
    RoutingEntry {
        uuid,
        namespace: "customers".into(),
        name: slug.clone(),
        display_name: format!("Company {}", uuid.simple()),
        state: TenantState::Active,
        hosts: vec![host.clone()],
        primary_host: host,
        plan: RoutingPlan { name: "pro".into(), features: vec![], limits: PlanLimits::default() },
        subscription: Subscription::default(),
        database: DatabaseAccess {
            host: server.administrator.get_host().to_owned(),
            port: server.administrator.get_port(),
            name: format!("tenant_{uuid}"),
            username: format!("tenant_{uuid}_a"),
            password: Uuid::new_v4().to_string(),
            sslmode: "verify-full".into(),
            ca: server.ca.clone(),
            ..DatabaseAccess::default()
        },
        queue: Queue::default(),
        storage_prefix: format!("tenants/{uuid}/"),
        sleeps: false,
        incarnation: None,
        schema_version: None,
        slug,
    }
}

/// Somebody who is signed in.
#[derive(Clone)]
pub struct Client {
    pub host: String,
    /// The user's id.
    pub user: i64,
    /// The session's cookie, as a browser sends it.
    pub cookie: String,
    /// The secret of the session's forms.
    pub csrf: String,
    /// A token for `/api`.
    pub token: String,
}

/// The app, and the way to tell it of routing.
pub struct App {
    pub tenancy: Tenancy,
    pub router: Router,
    pub product: app::Product,
    /// Who has been signed in, by tenant and role.
    clients: Mutex<HashMap<(Uuid, String), Client>>,
    changes: UnboundedSender<Change>,
    generation: u64,
}

impl App {
    pub async fn serving(tenants: &[RoutingEntry], pool: PoolSettings) -> Self {
        Self::with(tenants, TenancySettings { pool, ..settings() }, |product| product).await
    }

    /// With other settings than the usual ones.
    pub async fn with(
        tenants: &[RoutingEntry],
        settings: TenancySettings,
        change: impl FnOnce(app::Product) -> app::Product,
    ) -> Self {
        let tenancy = Tenancy::new(&settings).unwrap();
        let (changes, received) = unbounded();
        let follower = tenancy.clone();
        tokio::spawn(async move {
            follower.follow(received, 1).await;
        });
        let product = change(app::Product::new(&tenancy));
        let router = app::router(&product);
        let mut app = Self { router, product, tenancy, clients: Mutex::default(), changes, generation: 0 };
        app.route(tenants);
        for tenant in tenants {
            eventually("the tenant is routed", async || app.tenancy.routing().find(&tenant.primary_host).is_some())
                .await;
        }
        app
    }

    /// Replaces routing by these tenants.
    pub fn route(&mut self, tenants: &[RoutingEntry]) {
        self.generation += 1;
        let slice = RoutingSlice {
            schema: SCHEMA,
            generation: self.generation,
            epoch: 1,
            tenants: tenants.to_vec(),
            ..RoutingSlice::default()
        };
        let content = Some(serde_json::to_vec(&slice).unwrap());
        self.changes.unbounded_send(Change { slice: "routing-00".into(), content }).unwrap();
    }

    /// Signs somebody of that role in (`viewer`, `technician`, `manager` or `admin`), or returns who is already. Passes by
    /// the sign-in page and its slow hash of a password.
    pub async fn client(&self, tenant: &RoutingEntry, role: &str) -> Client {
        let key = (tenant.uuid, role.to_owned());
        if let Some(client) = self.clients.lock().unwrap().get(&key) {
            return client.clone();
        }
        let (user, token) = Server::from_environment().user(tenant, role).await;
        let client = self.session(tenant, user, token).await;
        self.clients.lock().unwrap().entry(key).or_insert(client).clone()
    }

    /// A new session of a user whose generation is 0.
    pub async fn session(&self, tenant: &RoutingEntry, user: i64, token: String) -> Client {
        let holder = Holder { user: user.to_string(), generation: 0, ..Holder::default() };
        let session: SessionId = self.tenancy.sessions().begin(tenant.uuid, holder).await.unwrap();
        Client {
            host: tenant.primary_host.clone(),
            user,
            cookie: format!("mo_session={}", session.text()),
            csrf: session.form_secret(),
            token,
        }
    }

    /// Opens a page, or reads a document with the token.
    pub async fn get_as(&self, client: &Client, path: &str) -> Answer {
        answer(&self.router, client.request(Method::GET, path).body(Body::empty()).unwrap()).await
    }

    /// Sends a form from one of our own pages.
    pub async fn post_as(&self, client: &Client, path: &str, fields: &[(&str, &str)]) -> Answer {
        let mut fields = fields.to_vec();
        fields.push(("csrf", &client.csrf));
        let request = client
            .request(Method::POST, path)
            .header("origin", format!("https://{}", client.host))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(form(&fields)))
            .unwrap();
        answer(&self.router, request).await
    }

    /// Sends a document with the token.
    pub async fn json_as(&self, client: &Client, method: Method, path: &str, document: &serde_json::Value) -> Answer {
        let request = client.request(method, path).header("content-type", "application/json");
        answer(&self.router, request.body(Body::from(document.to_string())).unwrap()).await
    }

    pub async fn get(&self, tenant: &RoutingEntry, path: &str) -> Answer {
        self.get_as(&self.client(tenant, "admin").await, path).await
    }

    pub async fn add_by_form(&self, tenant: &RoutingEntry, name: &str) -> Answer {
        self.post_as(&self.client(tenant, "admin").await, "/assets", &[("name", name)]).await
    }

    pub async fn add_by_json(&self, tenant: &RoutingEntry, name: &str) -> Answer {
        let client = self.client(tenant, "admin").await;
        self.json_as(&client, Method::POST, "/api/assets", &serde_json::json!({ "name": name })).await
    }

    pub async fn assets(&self, tenant: &RoutingEntry) -> i64 {
        let answer = self.get(tenant, "/api/tenant").await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.body);
        serde_json::from_str::<serde_json::Value>(&answer.body).unwrap()["assets"].as_i64().unwrap()
    }
}

impl Client {
    /// A request of theirs: with the token at `/api`, else with the session's cookie.
    pub fn request(&self, method: Method, path: &str) -> http::request::Builder {
        let request = Request::builder().method(method).uri(path).header("host", &self.host);
        if path.starts_with("/api/") {
            request.header("authorization", format!("Bearer {}", self.token))
        } else {
            request.header("cookie", &self.cookie)
        }
    }
}

/// The usual settings.
pub fn settings() -> TenancySettings {
    TenancySettings {
        redis: Some(redis()),
        always_served: app::ALWAYS_SERVED,
        ..TenancySettings::new("maintenance-os.com")
    }
}

/// Fields as a browser sends them.
pub fn form(fields: &[(&str, &str)]) -> String {
    let escaped = |text: &str| -> String {
        text.bytes()
            .map(|byte| {
                let plain = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
                if plain { char::from(byte).to_string() } else { format!("%{byte:02X}") }
            })
            .collect()
    };
    let pairs: Vec<_> = fields.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
    pairs.join("&")
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

pub async fn answer(router: &Router, request: Request<Body>) -> Answer {
    let response = router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

/// Waits until it is so.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "not within {DEADLINE:?}: {what}");
}
