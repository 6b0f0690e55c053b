//! The agent beside a real PgBouncer, in front of a real PostgreSQL.
//!
//! Needs root (PgBouncer runs by chroot as a user of its own, as in the pod) and the environment that
//! `e2e/cluster/postgres-local.sh start` writes.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use maintenance_os::api::pooler::{PoolerEntry, PoolerSettings, PoolerSlice, PoolerUser};
use maintenance_os::api::server::{PoolMode, SslMode};
use maintenance_os::api::slices::{Acknowledgement, SCHEMA, SLICE_COUNT, pooler_settings, pooler_slice, slice_of};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection, Row};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use uuid::Uuid;

const SERVER: &str = "pg1";
/// The user of the agent and of PgBouncer.
const USER: u32 = 65532;
const DEADLINE: Duration = Duration::from_secs(60);

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `e2e/cluster/postgres-local.sh start` and source the file it names")
    })
}

/// Asks until there is an answer.
async fn until<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(Instant::now() < deadline, "not within {} s: {what}", DEADLINE.as_secs());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn free_port() -> u16 {
    // Below the ports that the kernel gives to outgoing connections, which could take one before the server binds it, and
    // in a block of this process's own, since tests run in several.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let block = 18_000 + u16::try_from(std::process::id() % 700).unwrap() * 20;
    let ports = std::iter::repeat_with(|| block + NEXT.fetch_add(1, Ordering::Relaxed) % 20).take(20);
    ports.into_iter().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("one of twenty ports is free")
}

/// Body of an answer and its status.
async fn get(port: u16, path: &str) -> Option<(u16, String)> {
    let mut stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.ok()?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.ok()?;
    let mut text = String::new();
    stream.read_to_string(&mut text).await.ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}

/// A tenant's database and roles on the server, as `tenant-database.sql` makes them.
struct Tenant {
    uuid: Uuid,
    name: String,
    password: &'static str,
}

impl Tenant {
    async fn create() -> Self {
        let uuid = Uuid::new_v4();
        let name = format!("tenant_{uuid}");
        let tenant = Self { uuid, password: "not a secret", name };
        let (name, password) = (&tenant.name, tenant.password);
        let mut server = administrator().await;
        let exists = "DO $$ BEGIN CREATE ROLE maintenance_os_tenants NOLOGIN; \
                      EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$";
        server.execute(exists).await.unwrap();
        for statement in [
            format!(r#"CREATE DATABASE "{name}""#),
            format!(r#"REVOKE ALL ON DATABASE "{name}" FROM PUBLIC"#),
            format!(r#"CREATE ROLE "{name}" NOLOGIN IN ROLE maintenance_os_tenants"#),
            format!(r#"GRANT CONNECT, TEMP ON DATABASE "{name}" TO "{name}""#),
            format!(r#"CREATE ROLE "{name}_a" LOGIN PASSWORD '{password}' IN ROLE "{name}""#),
            format!(r#"CREATE ROLE "{name}_b" LOGIN PASSWORD '{password}' IN ROLE "{name}""#),
        ] {
            server.execute(AssertSqlSafe(statement)).await.unwrap();
        }
        tenant
    }

    async fn remove(name: String) {
        let mut server = administrator().await;
        for statement in [
            format!(r#"DROP DATABASE IF EXISTS "{name}" WITH (FORCE)"#),
            format!(r#"DROP ROLE IF EXISTS "{name}_a", "{name}_b", "{name}""#),
        ] {
            server.execute(AssertSqlSafe(statement)).await.unwrap();
        }
    }

    fn login(&self, letter: char) -> String {
        format!("{}_{letter}", self.name)
    }

    async fn entry(&self) -> PoolerEntry {
        let mut server = administrator().await;
        let mut users = Vec::new();
        for name in ['a', 'b'].map(|letter| self.login(letter)) {
            let verifier: String = sqlx::query_scalar("SELECT rolpassword FROM pg_authid WHERE rolname = $1")
                .bind(&name)
                .fetch_one(&mut server)
                .await
                .unwrap();
            users.push(PoolerUser { name, verifier });
        }
        let (uuid, database) = (self.uuid, self.name.clone());
        PoolerEntry { uuid, database, pool_size: 5, reserve_pool: 1, max_db_connections: 6, read_only: false, users }
    }

    fn slice(&self) -> String {
        pooler_slice(SERVER, slice_of(self.uuid))
    }

    /// A slice that is not this tenant's.
    fn other_slice(&self) -> String {
        pooler_slice(SERVER, (slice_of(self.uuid) + 1) % SLICE_COUNT)
    }
}

impl Drop for Tenant {
    /// Also when the test fails: the server is shared with other tests.
    fn drop(&mut self) {
        let name = self.name.clone();
        let removing = std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(Self::remove(name));
        });
        if removing.join().is_err() {
            eprintln!("{} stays on the server", self.name);
        }
    }
}

async fn administrator() -> PgConnection {
    let options: PgConnectOptions = variable("MOS_TEST_POSTGRES_URL").parse().unwrap();
    let options = options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert(variable("MOS_TEST_POSTGRES_CA"));
    options.connect().await.unwrap()
}

/// The agent and PgBouncer, both as the user of the pod, sharing a directory under the same path.
struct Pooler {
    agent: Child,
    pgbouncer: Option<Child>,
    port: u16,
    health: u16,
    metrics: u16,
    acks: u16,
    rootfs: PathBuf,
    directory: TempDir,
}

impl Pooler {
    async fn start() -> Self {
        let rootfs = PathBuf::from(variable("MOS_TEST_ROOTFS"));
        // Short: a Unix socket's path ends at 107 characters.
        let directory = tempfile::Builder::new().prefix("mos-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["slices", "run"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        std::os::unix::fs::chown(directory.path().join("run"), Some(USER), Some(USER)).unwrap();
        // The build directory may be closed to other users.
        fs::copy(env!("CARGO_BIN_EXE_maintenance-os"), directory.path().join("maintenance-os")).unwrap();
        let [port, health, metrics, acks] = [(); 4].map(|()| free_port());
        let agent = agent(directory.path(), [port, health, metrics, acks]);
        let mut pooler = Self { agent, pgbouncer: None, port, health, metrics, acks, rootfs, directory };
        pooler.put(&pooler_settings(SERVER), &serde_json::to_vec(&settings()).unwrap());
        until("/startupz", async || (get(health, "/startupz").await?.0 == 200).then_some(())).await;
        assert_eq!(pooler.acknowledged().await, BTreeMap::new(), "PgBouncer does not run yet");
        assert_eq!(get(health, "/readyz").await.unwrap().0, 503, "PgBouncer does not run yet");
        pooler.start_pgbouncer();
        pooler.acknowledges(&pooler_settings(SERVER), 1).await;
        until("/readyz", async || (get(health, "/readyz").await?.0 == 200).then_some(())).await;
        pooler
    }

    fn restart_agent(&mut self) {
        self.agent.kill().unwrap();
        self.agent.wait().unwrap();
        self.agent = agent(self.directory.path(), [self.port, self.health, self.metrics, self.acks]);
    }

    fn start_pgbouncer(&mut self) {
        let script = r#"mkdir -p "$1$2" && mount --bind "$2" "$1$2" &&
            exec chroot --userspec="$3:$3" "$1" pgbouncer "$2/pgbouncer.ini""#;
        let log = fs::File::create(self.directory.path().join("pgbouncer.log")).unwrap();
        let pgbouncer = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-euc", script, "sh"])
            .args([&self.rootfs, &self.run()])
            .arg(USER.to_string())
            .stdin(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.pgbouncer = Some(pgbouncer);
    }

    fn kill_pgbouncer(&mut self) {
        if let Some(mut pgbouncer) = self.pgbouncer.take() {
            pgbouncer.kill().unwrap();
            pgbouncer.wait().unwrap();
        }
    }

    fn run(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    fn file(&self, slice: &str) -> PathBuf {
        self.directory.path().join("slices").join(format!("{slice}.json"))
    }

    fn put(&self, slice: &str, content: &[u8]) {
        let temporary = self.directory.path().join("slices/temporary");
        fs::write(&temporary, content).unwrap();
        fs::rename(temporary, self.file(slice)).unwrap();
    }

    fn write(&self, slice: &str, generation: u64, entries: Vec<PoolerEntry>) {
        let document = PoolerSlice { schema: SCHEMA, generation, epoch: 1, entries };
        self.put(slice, &serde_json::to_vec(&document).unwrap());
    }

    /// Writes the slice and waits until its generation is acknowledged.
    async fn serve(&self, slice: &str, generation: u64, entries: Vec<PoolerEntry>) {
        self.write(slice, generation, entries);
        self.acknowledges(slice, generation).await;
    }

    async fn acknowledged(&self) -> BTreeMap<String, u64> {
        self.poll("/acks").await.slices
    }

    async fn poll(&self, path: &str) -> Acknowledgement {
        let (status, body) = get(self.acks, path).await.unwrap();
        assert_eq!(status, 200);
        serde_json::from_str(&body).unwrap()
    }

    /// Holds a long poll, as the operator does.
    async fn acknowledges(&self, slice: &str, generation: u64) {
        let wait = async {
            let mut answer = Acknowledgement::default();
            while answer.slices.get(slice) != Some(&generation) {
                answer = self.poll(&format!("/acks?version={}", answer.version)).await;
            }
        };
        let log = || fs::read_to_string(self.directory.path().join("pgbouncer.log")).unwrap_or_default();
        let waited = tokio::time::timeout(DEADLINE, wait).await;
        assert!(waited.is_ok(), "{slice} generation {generation} is not acknowledged\n{}", log());
    }

    /// One attempt, without TLS.
    async fn connect(&self, login: &str, password: &str, database: &str) -> Result<PgConnection, String> {
        self.attempt(self.options(login, password, database)).await
    }

    fn options(&self, login: &str, password: &str, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username(login)
            .password(password)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
    }

    async fn attempt(&self, options: PgConnectOptions) -> Result<PgConnection, String> {
        let connection = async {
            let mut connection = options.connect().await?;
            connection.execute("SELECT 1").await?;
            Ok(connection)
        };
        let result: Result<_, sqlx::Error> = tokio::time::timeout(DEADLINE, connection).await.expect("a login hangs");
        result.map_err(|error| error.to_string())
    }

    async fn login(&self, tenant: &Tenant, letter: char) -> Result<PgConnection, String> {
        self.connect(&tenant.login(letter), tenant.password, &tenant.name).await
    }

    async fn refused_slices(&self) -> f64 {
        let (_, text) = get(self.metrics, "/metrics").await.unwrap();
        let line = text.lines().find(|line| line.starts_with("maintenance_os_pooler_refused_slices_total ")).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        let _ = self.agent.kill();
        let _ = self.agent.wait();
        self.kill_pgbouncer();
        // The mount went with PgBouncer's namespace; what is left is where it was.
        let inside = self.rootfs.join(self.run().strip_prefix("/").unwrap());
        let _ = fs::remove_dir(&inside);
        let _ = inside.parent().map(fs::remove_dir);
    }
}

fn agent(directory: &Path, [port, health, metrics, acks]: [u16; 4]) -> Child {
    let address = |port: u16| format!("127.0.0.1:{port}");
    let path = |name: &str| directory.join(name).display().to_string();
    Command::new(directory.join("maintenance-os"))
        .arg("pooler-agent")
        .args(["--server", SERVER, "--slices-directory", &path("slices"), "--directory", &path("run")])
        .args(["--listen", &address(port), "--health-addr", &address(health)])
        .args(["--metrics-addr", &address(metrics), "--ack-addr", &address(acks)])
        .uid(USER)
        .gid(USER)
        .stdin(Stdio::null())
        .spawn()
        .unwrap()
}

fn settings() -> PoolerSettings {
    let server: PgConnectOptions = variable("MOS_TEST_POSTGRES_URL").parse().unwrap();
    PoolerSettings {
        schema: SCHEMA,
        generation: 1,
        epoch: 1,
        host: server.get_host().to_owned(),
        port: server.get_port(),
        ssl_mode: SslMode::VerifyFull,
        ca: fs::read_to_string(variable("MOS_TEST_POSTGRES_CA")).unwrap(),
        pool_mode: PoolMode::Transaction,
        max_client_conn: 100,
        default_pool_size: 5,
        reserve_pool_size: 1,
        reserve_pool_timeout: 3,
        server_lifetime: 3600,
        client_certificate: String::new(),
        client_key: String::new(),
    }
}

/// A certificate that signs itself, and its key.
fn certificate() -> (String, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).display().to_string();
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=pooler", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE"])
        .args(["-keyout", &path("key"), "-out", &path("certificate")])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    (fs::read_to_string(path("certificate")).unwrap(), fs::read_to_string(path("key")).unwrap())
}

/// Whether a session was ended: its next statement fails.
async fn is_ended(mut session: PgConnection) -> bool {
    let answer = tokio::time::timeout(DEADLINE, session.execute("SELECT 1")).await.expect("a session hangs");
    answer.is_err()
}

#[tokio::test]
async fn a_new_entry_serves_logins_before_it_is_acknowledged_and_a_removed_one_none_after() {
    let (pooler, tenant) = (Pooler::start().await, Tenant::create().await);
    assert!(pooler.login(&tenant, 'a').await.is_err(), "not there yet");
    pooler.serve(&tenant.slice(), 1, vec![tenant.entry().await]).await;

    let mut idle = pooler.login(&tenant, 'a').await.expect("acknowledged entries serve logins");
    let database: String = sqlx::query_scalar("SELECT current_database()").fetch_one(&mut idle).await.unwrap();
    assert_eq!(database, tenant.name);
    let mut busy = pooler.login(&tenant, 'b').await.unwrap();
    busy.execute("BEGIN").await.unwrap();

    pooler.serve(&tenant.slice(), 2, vec![]).await;
    assert!(is_ended(idle).await, "an idle session goes on");
    assert!(is_ended(busy).await, "a session in a transaction goes on");
    assert!(pooler.login(&tenant, 'a').await.is_err(), "a removed entry still serves logins");
}

#[tokio::test]
async fn sessions_of_a_removed_or_changed_login_end_before_it_is_acknowledged() {
    let (pooler, tenant) = (Pooler::start().await, Tenant::create().await);
    let mut entry = tenant.entry().await;
    pooler.serve(&tenant.slice(), 1, vec![entry.clone()]).await;
    let (a, mut b) = (pooler.login(&tenant, 'a').await.unwrap(), pooler.login(&tenant, 'b').await.unwrap());

    let mut server = administrator().await;
    let statement = format!(r#"ALTER ROLE "{}" PASSWORD 'another'"#, tenant.login('a'));
    server.execute(AssertSqlSafe(statement)).await.unwrap();
    entry.clone_from(&tenant.entry().await);
    pooler.serve(&tenant.slice(), 2, vec![entry.clone()]).await;
    assert!(is_ended(a).await, "a session with the old password goes on");
    assert!(pooler.login(&tenant, 'a').await.is_err(), "the old password still works");
    let a = pooler.connect(&tenant.login('a'), "another", &tenant.name).await.expect("the new password");
    b.execute("SELECT 1").await.expect("the other login's session is left alone");

    entry.users.remove(0);
    pooler.serve(&tenant.slice(), 3, vec![entry]).await;
    assert!(is_ended(a).await, "a session of a removed login goes on");
    assert!(pooler.connect(&tenant.login('a'), "another", &tenant.name).await.is_err());
    b.execute("SELECT 1").await.expect("the other login's session is left alone");
}

#[tokio::test]
async fn a_tenant_that_becomes_read_only_is_so_for_clients_that_are_connected_already() {
    let (pooler, tenant) = (Pooler::start().await, Tenant::create().await);
    let entry = tenant.entry().await;
    pooler.serve(&tenant.slice(), 1, vec![entry.clone()]).await;
    pooler.acknowledges(&tenant.slice(), 1).await;
    let mut session = pooler.login(&tenant, 'a').await.unwrap();
    let mut read_only = async || -> String {
        sqlx::raw_sql("SHOW transaction_read_only").fetch_one(&mut session).await.unwrap().get(0)
    };
    assert_eq!(read_only().await, "off");
    for (generation, value) in [(2, "on"), (3, "off")] {
        let set = format!(r#"ALTER DATABASE "{}" SET default_transaction_read_only = {value}"#, tenant.name);
        administrator().await.execute(AssertSqlSafe(set)).await.unwrap();
        let entry = PoolerEntry { read_only: value == "on", ..entry.clone() };
        pooler.serve(&tenant.slice(), generation, vec![entry]).await;
        pooler.acknowledges(&tenant.slice(), generation).await;
        assert_eq!(read_only().await, value, "on a client's old session");
    }
}

#[tokio::test]
async fn a_slice_that_is_absent_older_or_does_not_decode_changes_nothing_and_is_not_acknowledged() {
    let (mut pooler, tenant) = (Pooler::start().await, Tenant::create().await);
    let entry = tenant.entry().await;
    pooler.serve(&tenant.slice(), 5, vec![entry.clone()]).await;
    let mut session = pooler.login(&tenant, 'a').await.unwrap();

    let mut generation = 0;
    let mut nothing_changes = async |pooler: &Pooler| {
        // Another slice's change that comes later is served, so this one was looked at.
        generation += 1;
        pooler.serve(&tenant.other_slice(), generation, vec![]).await;
        assert_eq!(pooler.acknowledged().await.get(&tenant.slice()), Some(&5));
        session.execute("SELECT 1").await.unwrap();
        pooler.login(&tenant, 'b').await.unwrap().close().await.unwrap();
    };
    let refused = async |pooler: &Pooler, count: f64| {
        until("the slice is refused", async || (pooler.refused_slices().await >= count).then_some(())).await;
    };
    pooler.put(&tenant.slice(), b"{\"schema\":1,\"generation\":6,\"epo");
    refused(&pooler, 1.0).await;
    nothing_changes(&pooler).await;

    let mut hostile = entry.clone();
    hostile.users[0].verifier += "\"\n\"postgres\" \"SCRAM";
    pooler.write(&tenant.slice(), 6, vec![hostile]);
    refused(&pooler, 2.0).await;
    nothing_changes(&pooler).await;

    pooler.write(&tenant.slice(), 4, vec![]);
    refused(&pooler, 3.0).await;
    nothing_changes(&pooler).await;

    // What was good lives on in an agent that starts while the slice is gone.
    fs::remove_file(pooler.file(&tenant.slice())).unwrap();
    nothing_changes(&pooler).await;
    pooler.restart_agent();
    until("the agent is back", async || get(pooler.acks, "/acks").await).await;
    nothing_changes(&pooler).await;
}

#[tokio::test]
async fn a_tenants_login_opens_its_own_database_and_nothing_else() {
    let (pooler, one, two) = (Pooler::start().await, Tenant::create().await, Tenant::create().await);
    let entries = [&one, &two].map(|tenant| (tenant.slice(), tenant));
    let mut slices = BTreeMap::<_, Vec<_>>::new();
    for (slice, tenant) in entries {
        slices.entry(slice).or_default().push(tenant.entry().await);
    }
    for (slice, entries) in slices {
        pooler.serve(&slice, 1, entries).await;
    }
    pooler.login(&one, 'a').await.unwrap();
    pooler.login(&two, 'a').await.unwrap();
    for database in [&*two.name, "pgbouncer", "central", "postgres", "template1", "*", &one.login('a')] {
        let result = pooler.connect(&one.login('a'), one.password, database).await;
        assert!(result.is_err(), "a tenant's login opened {database}");
    }
    for login in ["pgbouncer", "postgres", &one.name] {
        for database in ["pgbouncer", "central", &one.name] {
            assert!(pooler.connect(login, one.password, database).await.is_err(), "{login} opened {database}");
        }
    }
    // The refusal is PgBouncer's own: at PostgreSQL it would take up the other tenant's connections.
    let refusal = pooler.connect(&one.login('a'), one.password, &two.name).await.map(drop).unwrap_err();
    assert!(refusal.contains("no authentication method is found"), "{refusal}");
    // The console answers the pod's own user, but not another over the same socket.
    let console = PgConnectOptions::new_without_pgpass().socket(pooler.run()).port(pooler.port);
    let console = console.username("pgbouncer").database("pgbouncer").ssl_mode(PgSslMode::Disable);
    assert!(console.connect().await.is_err(), "root is not the pod's user");
}

#[tokio::test]
async fn pgbouncer_and_the_agent_may_restart_alone() {
    let (mut pooler, tenant) = (Pooler::start().await, Tenant::create().await);
    let entry = tenant.entry().await;
    pooler.serve(&tenant.slice(), 1, vec![entry.clone()]).await;

    pooler.kill_pgbouncer();
    pooler.start_pgbouncer();
    until("PgBouncer serves from its files", async || pooler.login(&tenant, 'a').await.ok()).await;

    let session = pooler.login(&tenant, 'a').await.unwrap();
    pooler.restart_agent();
    until("the agent is back", async || get(pooler.acks, "/acks").await).await;
    pooler.acknowledges(&tenant.slice(), 1).await;
    assert!(!is_ended(session).await, "a restart of the agent is not seen by clients");

    // Nothing is acknowledged while PgBouncer is away, and everything once it is back.
    pooler.kill_pgbouncer();
    pooler.write(&tenant.slice(), 2, vec![]);
    let health = pooler.health;
    until("unready", async || (get(health, "/readyz").await?.0 == 503).then_some(())).await;
    assert_eq!(pooler.acknowledged().await.get(&tenant.slice()), Some(&1));
    pooler.start_pgbouncer();
    pooler.acknowledges(&tenant.slice(), 2).await;
    assert!(pooler.login(&tenant, 'a').await.is_err());
}

#[tokio::test]
async fn a_certificate_makes_tls_compulsory_and_its_renewal_is_served_before_it_is_acknowledged() {
    let (pooler, tenant) = (Pooler::start().await, Tenant::create().await);
    pooler.serve(&tenant.slice(), 1, vec![tenant.entry().await]).await;
    let [old, new] = [certificate(), certificate()];
    let trusting = |(certificate, _): &(String, String)| {
        let options = pooler.options(&tenant.login('a'), tenant.password, &tenant.name);
        options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert_from_pem(certificate.clone().into_bytes())
    };
    for (generation, (client_certificate, client_key)) in [(2, old.clone()), (3, new.clone())] {
        let settings = PoolerSettings { generation, client_certificate, client_key, ..settings() };
        pooler.put(&pooler_settings(SERVER), &serde_json::to_vec(&settings).unwrap());
        pooler.acknowledges(&pooler_settings(SERVER), generation).await;
        let trusted = if generation == 2 { &old } else { &new };
        pooler.attempt(trusting(trusted)).await.expect("the certificate that was acknowledged");
        assert!(pooler.login(&tenant, 'a').await.is_err(), "a login without TLS");
    }
    assert!(pooler.attempt(trusting(&old)).await.is_err(), "the old certificate is still served");

    // One that PgBouncer could not load never reaches it.
    let broken = PoolerSettings { generation: 4, client_certificate: new.0.clone(), client_key: old.1, ..settings() };
    pooler.put(&pooler_settings(SERVER), &serde_json::to_vec(&broken).unwrap());
    until("the settings are refused", async || (pooler.refused_slices().await >= 1.0).then_some(())).await;
    pooler.attempt(trusting(&new)).await.expect("the last good certificate");
}

#[tokio::test]
async fn a_pgbouncer_that_is_not_what_the_slices_say_is_put_right() {
    let (pooler, tenant) = (Pooler::start().await, Tenant::create().await);
    pooler.serve(&tenant.slice(), 1, vec![tenant.entry().await]).await;
    fs::write(pooler.run().join("databases.ini"), "[databases]\n").unwrap();
    let pgbouncer = pooler.pgbouncer.as_ref().unwrap().id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pgbouncer]).status().unwrap().success());
    until("the entry is gone", async || pooler.login(&tenant, 'a').await.err()).await;
    until("the entry is back", async || pooler.login(&tenant, 'a').await.ok()).await;
}
