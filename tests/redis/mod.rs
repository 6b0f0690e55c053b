//! Real Redis servers in all three modes, and tenants that use them.

#![allow(dead_code, reason = "each test uses some of it")]

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use futures::stream;
use http::{HeaderMap, Request, StatusCode};
use maintenance_os::api::routing::{DatabaseAccess, Queue, RoutingEntry, RoutingPlan, RoutingSlice, Subscription};
use maintenance_os::api::slices::SCHEMA;
use maintenance_os::api::tenant::TenantState;
use maintenance_os::slices::Change;
use maintenance_os::tenancy::redis::{RedisMode, RedisSettings};
use maintenance_os::tenancy::{Tenancy, TenancySettings, TenantContext, layers};
use redis::FromRedisValue;
use redis::aio::ConnectionLike;
use secrecy::ExposeSecret;
use tower::ServiceExt;
use uuid::Uuid;

/// Longest wait for anything.
pub const DEADLINE: Duration = Duration::from_secs(40);

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| {
        panic!(
            "{name} is not set. These tests need Redis: run `e2e/cluster/redis-local.sh start`, then \
             `source ~/.cache/maintenance-os/redis-local/env`"
        )
    })
}

fn nodes(name: &str) -> Vec<(String, u16)> {
    let node = |node: &str| node.rsplit_once(':').map(|(host, port)| (host.to_owned(), port.parse().unwrap())).unwrap();
    variable(name).split(',').map(node).collect()
}

fn with_password(settings: RedisSettings) -> RedisSettings {
    let password = Some(variable("MOS_TEST_REDIS_PASSWORD").into());
    RedisSettings { password: password.clone(), sentinel_password: password, ..settings }
}

/// The server that stands alone.
pub fn alone() -> RedisSettings {
    let port = variable("MOS_TEST_REDIS_PORT").parse().unwrap();
    with_password(RedisSettings::new(&variable("MOS_TEST_REDIS_HOST"), port))
}

/// The primary that the Sentinels name.
pub fn behind_sentinels() -> RedisSettings {
    let mode = RedisMode::Sentinel { master: variable("MOS_TEST_SENTINEL_MASTER") };
    with_password(RedisSettings { mode, nodes: nodes("MOS_TEST_SENTINELS"), ..RedisSettings::new("", 0) })
}

/// The cluster of three nodes.
pub fn cluster() -> RedisSettings {
    let nodes = nodes("MOS_TEST_REDIS_CLUSTER");
    with_password(RedisSettings { mode: RedisMode::Cluster, nodes, ..RedisSettings::new("", 0) })
}

/// A connection past the library, to look at what it wrote.
pub async fn raw(settings: &RedisSettings, database: i64) -> Box<dyn ConnectionLike + Send> {
    let password = settings.password.as_ref().unwrap().expose_secret();
    let url = |(host, port): &(String, u16)| format!("redis://:{password}@{host}:{port}/{database}");
    let url_of_sentinel = |(host, port): &(String, u16)| format!("redis://:{password}@{host}:{port}");
    match &settings.mode {
        RedisMode::Cluster => {
            let client = redis::cluster::ClusterClient::new(settings.nodes.iter().map(url)).unwrap();
            Box::new(client.get_async_connection().await.unwrap())
        }
        RedisMode::StandAlone => {
            let client = redis::Client::open(url(&settings.nodes[0])).unwrap();
            Box::new(client.get_multiplexed_async_connection().await.unwrap())
        }
        RedisMode::Sentinel { master } => {
            let client = redis::Client::open(url_of_sentinel(&settings.nodes[0])).unwrap();
            let mut sentinel = client.get_multiplexed_async_connection().await.unwrap();
            let (host, port): (String, u16) = redis::cmd("SENTINEL")
                .arg("GET-MASTER-ADDR-BY-NAME")
                .arg(master)
                .query_async(&mut sentinel)
                .await
                .unwrap();
            let client = redis::Client::open(url(&(host, port))).unwrap();
            Box::new(client.get_multiplexed_async_connection().await.unwrap())
        }
    }
}

pub async fn ask<T: FromRedisValue>(connection: &mut (dyn ConnectionLike + Send), command: &[&str]) -> T {
    let mut words = command.iter();
    let mut query = redis::cmd(words.next().unwrap());
    for word in words {
        query.arg(*word);
    }
    let value = connection.req_packed_command(&query).await.unwrap();
    redis::from_redis_value(value).unwrap()
}

/// A process that hangs: it is there, and answers nothing. Goes on when this is dropped.
pub struct Hanging(u32);

impl Hanging {
    /// The server behind that connection.
    pub async fn server(connection: &mut (dyn ConnectionLike + Send)) -> Self {
        let info: String = ask(connection, &["INFO", "server"]).await;
        let pid = info.lines().find_map(|line| line.strip_prefix("process_id:")).unwrap().trim().parse().unwrap();
        signal("-STOP", pid);
        Self(pid)
    }
}

impl Drop for Hanging {
    fn drop(&mut self) {
        signal("-CONT", self.0);
    }
}

fn signal(name: &str, pid: u32) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// A server of the test's own, to be stopped and started.
pub struct Own {
    pub settings: RedisSettings,
    port: u16,
    process: Option<Child>,
}

impl Own {
    pub async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let mut own = Self { settings: RedisSettings::new("127.0.0.1", port), port, process: None };
        own.settings.password = Some("own".into());
        own.run().await;
        own
    }

    /// Starts it again, empty.
    pub async fn run(&mut self) {
        let rootfs = PathBuf::from(variable("MOS_TEST_ROOTFS"));
        let process = Command::new("chroot")
            .args(["--userspec=redis:redis".as_ref(), rootfs.as_os_str()])
            .args(["redis-server", "--bind", "127.0.0.1", "--port", &self.port.to_string()])
            .args(["--requirepass", "own", "--save", "", "--appendonly", "no"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        let port = self.port;
        eventually("the server accepts", async || tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_ok())
            .await;
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A tenant without a database.
pub fn entry() -> RoutingEntry {
    let uuid = Uuid::new_v4();
    let host = format!("t{}.maintenance-os.com", uuid.simple());
    RoutingEntry {
        uuid,
        namespace: "customers".into(),
        name: "acme".into(),
        slug: format!("t{}", uuid.simple()),
        display_name: "Acme GmbH".into(),
        state: TenantState::Active,
        hosts: vec![host.clone()],
        primary_host: host,
        plan: RoutingPlan { name: "pro".into(), ..RoutingPlan::default() },
        subscription: Subscription::default(),
        database: DatabaseAccess {
            host: "127.0.0.1".into(),
            port: 1,
            name: format!("tenant_{uuid}"),
            username: format!("tenant_{uuid}_a"),
            password: "secret".into(),
            sslmode: "disable".into(),
            ..DatabaseAccess::default()
        },
        queue: Queue { name: format!("tenant-{uuid}"), weight: 1, max_processes: 10, ..Queue::default() },
        storage_prefix: format!("tenants/{uuid}/"),
        sleeps: false,
        incarnation: None,
        schema_version: None,
    }
}

/// One process of the app: its own connections, its own memory.
pub async fn process(redis: Option<RedisSettings>, tenants: &[RoutingEntry]) -> Tenancy {
    process_with(TenancySettings { redis, ..TenancySettings::new("maintenance-os.com") }, tenants).await
}

pub async fn process_with(settings: TenancySettings, tenants: &[RoutingEntry]) -> Tenancy {
    let tenancy = Tenancy::new(&settings).unwrap();
    let slice =
        RoutingSlice { schema: SCHEMA, generation: 1, epoch: 1, tenants: tenants.to_vec(), ..RoutingSlice::default() };
    let change = Change { slice: "routing-00".into(), content: Some(serde_json::to_vec(&slice).unwrap()) };
    tenancy.follow(stream::iter([change]), 1).await;
    tenancy
}

/// A context as a handler gets it: there is no other way to one.
pub async fn context(tenancy: &Tenancy, tenant: &RoutingEntry) -> TenantContext {
    let caught = Arc::new(Mutex::new(None));
    let handler = {
        let caught = caught.clone();
        async move |context: TenantContext| drop(caught.lock().unwrap().replace(context))
    };
    let router = layers::tenant(Router::new().route("/", get(handler)), tenancy);
    assert_eq!(request(&router, tenant, "/").await.status, StatusCode::OK);
    let context = caught.lock().unwrap().take();
    context.unwrap()
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

pub async fn request(router: &Router, tenant: &RoutingEntry, path: &str) -> Answer {
    let request = Request::get(path).header("host", &tenant.primary_host).body(Body::empty()).unwrap();
    let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    Answer { status: parts.status, headers: parts.headers, body: String::from_utf8(body.to_vec()).unwrap() }
}

/// The value of one of the app's figures.
pub fn figure(tenancy: &Tenancy, line: &str) -> u64 {
    let mut registry = prometheus_client::registry::Registry::default();
    tenancy.register_metrics(&mut registry);
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let found =
        text.lines().find_map(|found| found.strip_prefix(line)).unwrap_or_else(|| panic!("no {line} in {text}"));
    found.trim().parse().unwrap()
}

/// Waits until it is so.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "not within {DEADLINE:?}: {what}");
}
