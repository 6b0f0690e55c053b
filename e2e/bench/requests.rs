//! `make bench-requests`: what being multi-tenant costs a request, each figure beside the same without it, in the same run.
//!
//! Needs PostgreSQL (`postgres-local.sh`) and no cluster. PostgreSQL itself stands where the pooler would; both sides speak
//! to it directly.

// Counts and times are printed with three digits.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod fleet;

use std::alloc::System;
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::routing::get;
use fleet::{entry, nowhere, slices};
use futures::{StreamExt, stream};
use http::{Request, StatusCode};
use maintenance_os::api::routing::{DatabaseAccess, RoutingEntry, RoutingSlice};
use maintenance_os::api::slices::{SCHEMA, SLICE_COUNT, routing_slice, slice_of};
use maintenance_os::slices::Change;
use maintenance_os::tenancy::host::HostResolver;
use maintenance_os::tenancy::pool::{PoolError, PoolSettings};
use maintenance_os::tenancy::routing::RoutingTable;
use maintenance_os::tenancy::{Tenancy, TenancySettings, TenantContext, layers};
use rand::distr::Distribution;
use rand::distr::weighted::WeightedIndex;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tower::ServiceExt;

/// Counts allocations.
#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Hosts that are routed.
const HOSTS: usize = 20_000;
/// Look-ups per measurement.
const LOOK_UPS: usize = 4_000_000;
/// Between two updates of routing while look-ups are measured: ten per second.
const UPDATE: Duration = Duration::from_millis(100);
/// Tenants of the endpoint's measurement; the nth is asked for a nth as often as the first.
const TENANTS: usize = 500;
/// Connections, on both sides.
const CONNECTIONS: usize = 250;
/// Requests at a time.
const CROWD: usize = 16;
/// Requests per round, and rounds of each side, taken in turns.
const REQUESTS: usize = 20_000;
const ROUNDS: usize = 5;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    maintenance_os::telemetry::install_crypto_provider();
    println!("| what | measured | raw | ratio | to reach |\n|---|---|---|---|---|");
    look_ups();
    endpoint().await
}

fn row(what: &str, measured: &str, raw: &str, ratio: &str, goal: &str) {
    println!("| {what} | {measured} | {raw} | {ratio} | {goal} |");
}

/// Runs `look_up` over all requests in turn; nanoseconds for one.
fn nanoseconds(requests: &[Request<()>], mut look_up: impl FnMut(&Request<()>)) -> f64 {
    let begun = Instant::now();
    for number in 0..LOOK_UPS {
        // A stride, so that neighbours in memory are not neighbours in time.
        look_up(&requests[number * 7919 % requests.len()]);
    }
    begun.elapsed().as_secs_f64() * 1e9 / LOOK_UPS as f64
}

fn look_ups() {
    let access = nowhere();
    let entries: Vec<_> = (0..HOSTS).map(|number| entry(number, &access)).collect();
    let bare: HashMap<Arc<str>, Arc<RoutingEntry>> =
        entries.iter().map(|entry| (Arc::from(&*entry.primary_host), Arc::new(entry.clone()))).collect();
    let table = Arc::new(RoutingTable::default());
    for (name, content) in slices(&entries, 1) {
        table.update(&name, Some(&content)).expect("a first slice is taken");
    }
    table.settle();
    let request = |entry: &RoutingEntry| Request::get("/").header("host", &entry.primary_host).body(());
    let requests: Vec<_> = entries.iter().map(|entry| request(entry).expect("a host is a header")).collect();
    let resolver = HostResolver::default();
    let bare_read = |request: &Request<()>| {
        let host = request.headers()["host"].to_str().expect("a host is text");
        black_box(bare.get(host));
    };
    let find = |request: &Request<()>| {
        let host = request.headers()["host"].to_str().expect("a host is text");
        black_box(table.find_host(host));
    };
    let resolve_and_find = |request: &Request<()>| {
        let host = resolver.host_of(request).expect("it names one host");
        black_box(table.find_host(&host));
    };

    // Without updates: they allocate, and an allocation counts whoever makes it.
    let region = Region::new(ALLOCATOR);
    let quiet = nanoseconds(&requests, resolve_and_find);
    let allocations = region.change().allocations;
    row("allocations per look-up, host header to entry", &format!("{}", allocations / LOOK_UPS), "0", "", "0");

    let done = Arc::new(AtomicBool::new(false));
    let updates = {
        let (table, done, entries) = (table.clone(), done.clone(), entries);
        std::thread::spawn(move || update(&table, &entries, &done))
    };
    let (mut raw, mut found, mut whole) = (vec![], vec![], vec![]);
    for _ in 0..ROUNDS {
        raw.push(nanoseconds(&requests, bare_read));
        found.push(nanoseconds(&requests, find));
        whole.push(nanoseconds(&requests, resolve_and_find));
    }
    done.store(true, Ordering::Relaxed);
    let updates = updates.join().expect("updating does not panic");
    let [raw, found, whole] = [raw, found, whole].map(median);
    let what = format!("{HOSTS} hosts, 10 updates/s ({updates} in all): look-up; raw: reading a HashMap");
    row(&what, &format!("{found:.0} ns"), &format!("{raw:.0} ns"), &format!("{:.2}", found / raw), "≤ 2");
    let what = "the same, with finding the host in the request and checking it";
    row(what, &format!("{whole:.0} ns"), &format!("{raw:.0} ns"), &format!("{:.2}", whole / raw), "");
    row("the same, without updates", &format!("{quiet:.0} ns"), "", "", "");
}

/// Renames one tenant ten times a second, as an operator would write it; returns how often.
fn update(table: &RoutingTable, entries: &[RoutingEntry], done: &AtomicBool) -> u64 {
    let mut generation = 1;
    while !done.load(Ordering::Relaxed) {
        let begun = Instant::now();
        generation += 1;
        let number = (generation % u64::from(SLICE_COUNT)) as u32;
        let mut tenants: Vec<_> = entries.iter().filter(|entry| slice_of(entry.uuid) == number).cloned().collect();
        if let Some(first) = tenants.first_mut() {
            first.display_name = format!("Company {generation}");
        }
        let slice = RoutingSlice { schema: SCHEMA, generation, epoch: 1, tenants, ..RoutingSlice::default() };
        let content = serde_json::to_vec(&slice).expect("a slice is plain data");
        table.update(&routing_slice(number), Some(&content)).expect("a newer slice is taken");
        std::thread::sleep(UPDATE.saturating_sub(begun.elapsed()));
    }
    generation - 1
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[derive(Debug)]
struct Fault(String);

impl From<PoolError> for Fault {
    fn from(error: PoolError) -> Self {
        Self(error.to_string())
    }
}

impl From<sqlx::Error> for Fault {
    fn from(error: sqlx::Error) -> Self {
        Self(error.to_string())
    }
}

impl axum::response::IntoResponse for Fault {
    fn into_response(self) -> axum::response::Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0).into_response()
    }
}

async fn count(connection: &mut PgConnection) -> Result<i64, Fault> {
    Ok(sqlx::query_scalar("SELECT count(*) FROM assets").fetch_one(connection).await?)
}

/// The endpoint with one query, for whichever tenant the host names.
async fn of_tenant(tenant: TenantContext) -> Result<String, Fault> {
    tenant.database().run(count).await.map(|count| count.to_string())
}

/// The same, hard-wired to one database.
async fn of_one(State(pool): State<PgPool>) -> Result<String, Fault> {
    let mut connection = pool.acquire().await?;
    count(&mut connection).await.map(|count| count.to_string())
}

async fn endpoint() -> Outcome<()> {
    let server: PgConnectOptions = std::env::var("MOS_TEST_POSTGRES_URL")?.parse()?;
    let url = std::env::var("MOS_TEST_POSTGRES_URL")?;
    let password = url.split(['@', ':']).nth(2).ok_or("MOS_TEST_POSTGRES_URL has no password")?;
    let access = DatabaseAccess {
        host: server.get_host().to_owned(),
        port: server.get_port(),
        name: String::new(),
        username: server.get_username().to_owned(),
        password: password.to_owned(),
        sslmode: "disable".into(),
        ..DatabaseAccess::default()
    };
    let entries: Vec<_> = (0..TENANTS).map(|number| entry(number, &access)).collect();
    let made = stream::iter(&entries).map(|entry| create(&server, &entry.database.name)).buffer_unordered(4);
    let made: Vec<Outcome<()>> = made.collect().await;
    let measured = match made.into_iter().collect::<Outcome<Vec<()>>>() {
        Ok(_) => measure(&server, &entries).await,
        Err(error) => Err(error),
    };
    let dropped = stream::iter(&entries).map(|entry| drop_database(&server, &entry.database.name)).buffer_unordered(4);
    let dropped: Vec<Outcome<()>> = dropped.collect().await;
    measured.and(dropped.into_iter().collect())
}

async fn sql(server: &PgConnectOptions, database: &str, statements: String) -> Outcome<()> {
    let mut connection = PgConnection::connect_with(&server.clone().database(database)).await?;
    connection.execute(sqlx::raw_sql(AssertSqlSafe(statements))).await?;
    connection.close().await?;
    Ok(())
}

async fn create(server: &PgConnectOptions, name: &str) -> Outcome<()> {
    sql(server, "postgres", format!("CREATE DATABASE \"{name}\" TEMPLATE template0")).await?;
    let rows = "INSERT INTO assets (name) SELECT 'Asset ' || number FROM generate_series(1, 50) AS number";
    sql(server, name, format!("CREATE TABLE assets (id bigserial PRIMARY KEY, name text); {rows}; ANALYZE assets"))
        .await
}

async fn drop_database(server: &PgConnectOptions, name: &str) -> Outcome<()> {
    sql(server, "postgres", format!("DROP DATABASE IF EXISTS \"{name}\" WITH (FORCE)")).await
}

async fn measure(server: &PgConnectOptions, entries: &[RoutingEntry]) -> Outcome<()> {
    let pool = PoolSettings { idle: Duration::from_mins(10), ..PoolSettings::new(CONNECTIONS) };
    let tenancy = Tenancy::new(&TenancySettings { pool, ..TenancySettings::new("maintenance-os.com") })?;
    let changes: Vec<_> =
        slices(entries, 1).into_iter().map(|(slice, content)| Change { slice, content: Some(content) }).collect();
    tenancy.follow(stream::iter(changes), SLICE_COUNT as usize).await;
    let many = layers::tenant(Router::new().route("/", get(of_tenant)), &tenancy);
    let options = server.clone().database(&entries[0].database.name).ssl_mode(sqlx::postgres::PgSslMode::Disable);
    // As many as it can use; more would only be idle.
    let pool =
        PgPoolOptions::new().max_connections(CROWD as u32).test_before_acquire(true).connect_with(options).await?;
    let one = Router::new().route("/", get(of_one)).with_state(pool.clone());

    let weights = WeightedIndex::new((1..=entries.len()).map(|rank| 1.0 / rank as f64))?;
    let hosts: Arc<Vec<String>> = Arc::new(entries.iter().map(|entry| entry.primary_host.clone()).collect());
    // Warm: every tenant was asked for once.
    for host in hosts.iter() {
        request(&many, host).await?;
    }
    let (mut ours, mut raw) = (vec![], vec![]);
    for _ in 0..ROUNDS {
        ours.push(round(&many, &hosts, &weights).await?);
        raw.push(round(&one, &hosts, &weights).await?);
    }
    pool.close().await;
    tenancy.pools().close_all_idle();
    let rate = |rounds: &[Round]| median(rounds.iter().map(|round| round.rate).collect());
    let p99 = |rounds: &[Round]| median(rounds.iter().map(|round| round.p99).collect());
    let what =
        format!("endpoint with one query, {TENANTS} tenants, zipf; raw: the same app hard-wired to one database");
    let (our, bare) = (rate(&ours), rate(&raw));
    row(&what, &format!("{our:.0}/s"), &format!("{bare:.0}/s"), &format!("{:.2}", our / bare), "≥ 0.9");
    let (our, bare) = (p99(&ours), p99(&raw));
    row("the same, p99", &format!("{our:.2} ms"), &format!("{bare:.2} ms"), &format!("{:.2}", our / bare), "≤ 1.25");
    Ok(())
}

struct Round {
    /// Per second.
    rate: f64,
    /// In milliseconds.
    p99: f64,
}

async fn round(router: &Router, hosts: &Arc<Vec<String>>, weights: &WeightedIndex<f64>) -> Outcome<Round> {
    let begun = Instant::now();
    let crowd = (0..CROWD).map(|_| {
        let (router, hosts, weights) = (router.clone(), hosts.clone(), weights.clone());
        tokio::spawn(async move {
            let mut times = Vec::with_capacity(REQUESTS / CROWD);
            for _ in 0..REQUESTS / CROWD {
                let host = &hosts[weights.sample(&mut rand::rng())];
                let begun = Instant::now();
                request(&router, host).await?;
                times.push(begun.elapsed());
            }
            Outcome::Ok(times)
        })
    });
    let mut times = vec![];
    for one in futures::future::join_all(crowd).await {
        times.extend(one??);
    }
    let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
    times.sort();
    Ok(Round { rate, p99: times[times.len() * 99 / 100].as_secs_f64() * 1000.0 })
}

async fn request(router: &Router, host: &str) -> Outcome<()> {
    let request = Request::get("/").header("host", host).body(Body::empty())?;
    let response = router.clone().oneshot(request).await?;
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), 1 << 16).await?;
    if status == StatusCode::OK {
        Ok(())
    } else {
        Err(format!("{host}: {status} {}", String::from_utf8_lossy(&body)).into())
    }
}
