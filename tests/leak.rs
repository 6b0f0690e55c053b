//! No answer ever carries another tenant's marker: many tenants, many requests, more than one in ten cut off somewhere in its middle,
//! while routing changes all the time.
//!
//! `MOS_LEAK_REQUESTS` and `MOS_LEAK_TENANTS` say how many; `make soak` asks for a million.

#![allow(clippy::unwrap_used, reason = "a failed test may say so at once")]

mod tenants;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse;
use axum::routing::get;
use futures::channel::mpsc::{UnboundedSender, unbounded};
use futures::{StreamExt, stream};
use http::{Request, StatusCode};
use maintenance_os::api::routing::{RoutingEntry, RoutingSlice};
use maintenance_os::api::slices::SCHEMA;
use maintenance_os::slices::Change;
use maintenance_os::tenancy::pool::{PoolError, PoolSettings};
use maintenance_os::tenancy::redis::RedisSettings;
use maintenance_os::tenancy::{Tenancy, TenancySettings, TenantContext, layers};
use rand::Rng;
use sqlx::postgres::PgConnection;
use tenants::{Answer, DEADLINE, answer, eventually, with_many_tenants};

/// Slices of routing, each with its share of the tenants.
const SLICES: usize = 10;
/// Requests at the same time.
const CROWD: usize = 48;
/// Fewer connections than tenants, so that they are closed and opened all the time, and reused too.
const CONNECTIONS: usize = 150;
/// Between two changes of routing. Each closes the connections of a tenant or two.
const CHURN: Duration = Duration::from_millis(250);

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
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

impl IntoResponse for Fault {
    fn into_response(self) -> axum::response::Response {
        (StatusCode::INTERNAL_SERVER_ERROR, self.0).into_response()
    }
}

/// What this tenant's database says that it is, twice: what was stored in it, and its name.
async fn markers(db: &mut PgConnection) -> Result<String, Fault> {
    let query = "SELECT marker || ' ' || substr(current_database(), 8) FROM leak ORDER BY marker LIMIT 1";
    Ok(sqlx::query_scalar(query).fetch_one(db).await?)
}

async fn read(tenant: TenantContext) -> Result<String, Fault> {
    let stored = tenant.database().run(markers).await?;
    Ok(format!("{stored} {}", tenant.entry().uuid))
}

async fn cached(tenant: TenantContext) -> Result<String, Fault> {
    let ttl = Duration::from_mins(1);
    let kept = tenant.cache().remember("markers", ttl, async || tenant.database().run(markers).await).await?;
    Ok(format!("{kept} {}", tenant.entry().uuid))
}

/// Two statements with a pause between, to be cut off there.
async fn write(tenant: TenantContext) -> Result<String, Fault> {
    let marker = tenant.entry().uuid.to_string();
    let work = async |db: &mut PgConnection| {
        sqlx::query("INSERT INTO leak (marker) VALUES ($1)").bind(&marker).execute(&mut *db).await?;
        tokio::task::yield_now().await;
        sqlx::query("INSERT INTO leak_twin (marker) VALUES ($1)").bind(&marker).execute(&mut *db).await?;
        markers(db).await
    };
    let stored = tenant.database().transaction(work).await?;
    Ok(format!("{stored} {marker}"))
}

async fn flush(tenant: TenantContext) -> String {
    tenant.cache().flush().await;
    tenant.entry().uuid.to_string()
}

struct Fleet {
    tenancy: Tenancy,
    router: Router,
    changes: UnboundedSender<Change>,
    tenants: Vec<RoutingEntry>,
    generation: AtomicUsize,
}

impl Fleet {
    async fn serving(tenants: Vec<RoutingEntry>) -> Self {
        let pool = PoolSettings { max_per_tenant: 4, wait: DEADLINE, ..PoolSettings::new(CONNECTIONS) };
        let redis = RedisSettings {
            password: Some(tenants::variable("MOS_TEST_REDIS_PASSWORD").into()),
            ..RedisSettings::new("127.0.0.1", tenants::variable("MOS_TEST_REDIS_PORT").parse().unwrap())
        };
        let settings = TenancySettings { pool, redis: Some(redis), ..TenancySettings::new("maintenance-os.com") };
        let tenancy = Tenancy::new(&settings).unwrap();
        let routes = Router::new()
            .route("/read", get(read))
            .route("/cached", get(cached))
            .route("/write", get(write))
            .route("/flush", get(flush));
        let router = layers::tenant(routes, &tenancy);
        let (changes, received) = unbounded();
        let follower = tenancy.clone();
        tokio::spawn(async move { follower.follow(received, SLICES).await });
        let fleet = Self { tenancy, router, changes, tenants, generation: AtomicUsize::new(0) };
        for number in 0..SLICES {
            fleet.route(number, |_| {});
        }
        eventually("all are routed", async || fleet.tenancy.routing().is_settled()).await;
        fleet
    }

    /// Writes one slice, changed as told.
    fn route(&self, slice: usize, change: impl FnOnce(&mut Vec<RoutingEntry>)) {
        let of_slice = self.tenants.iter().enumerate().filter(|(index, _)| index % SLICES == slice);
        let mut tenants: Vec<_> = of_slice.map(|(_, tenant)| tenant.clone()).collect();
        change(&mut tenants);
        let generation = self.generation.fetch_add(1, Ordering::SeqCst) as u64 + 1;
        let content = serde_json::to_vec(&RoutingSlice {
            schema: SCHEMA,
            generation,
            epoch: 1,
            tenants,
            ..RoutingSlice::default()
        })
        .unwrap();
        self.changes.unbounded_send(Change { slice: format!("routing-{slice:02}"), content: Some(content) }).unwrap();
    }

    /// What an operator does on a busy day, in one slice: a login is rotated, a tenant goes, a host changes hands.
    fn churn(&self) {
        let slice = rand::rng().random_range(0..SLICES);
        let what = rand::rng().random_range(0..4);
        self.route(slice, |tenants| {
            let some = rand::rng().random_range(0..tenants.len());
            match what {
                0 => drop(tenants.remove(some)),
                1 => {
                    let tenant = &mut tenants[some];
                    tenant.database.username = format!("tenant_{}_b", tenant.uuid);
                    tenant.database.password += "-b";
                }
                2 => tenants[some].hosts.push(moving_host(slice)),
                _ => {}
            }
        });
    }

    async fn get(&self, host: &str, path: &str) -> Answer {
        answer(&self.router, Request::get(path).header("host", host).body(Body::empty()).unwrap()).await
    }
}

/// A host that belongs to one tenant of its slice, then to another, then to nobody.
fn moving_host(slice: usize) -> String {
    format!("moving-{slice}.example")
}

/// The future's outcome, or nothing after that many steps: it is dropped wherever it is then.
async fn cut_off<T>(after: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut left = after;
    std::future::poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        future.as_mut().poll(context).map(Some)
    })
    .await
}

#[derive(Default)]
struct Counts {
    answered: AtomicUsize,
    cut_off: AtomicUsize,
    not_routed: AtomicUsize,
}

/// One request; its kind, host and end are left to chance.
async fn one(fleet: &Fleet, counts: &Counts) {
    let (tenant, path, moving, steps) = {
        let mut chance = rand::rng();
        // Requests of each kind take about that many steps; one that is cut off is cut off after fewer. Many end before, so
        // that one in four makes more than one in ten.
        let (path, most) = match chance.random_range(0..1000) {
            0..880 => ("/cached", 3),
            880..970 => ("/read", 12),
            970..996 => ("/write", 20),
            _ => ("/flush", 2),
        };
        let steps = if chance.random_ratio(1, 4) { chance.random_range(1..most) } else { usize::MAX };
        (chance.random_range(0..fleet.tenants.len()), path, chance.random_ratio(1, 20), steps)
    };
    let slice = tenant % SLICES;
    let tenant = &fleet.tenants[tenant];
    let host = if moving { moving_host(slice) } else { tenant.primary_host.clone() };
    let Some(answer) = cut_off(steps, fleet.get(&host, path)).await else {
        counts.cut_off.fetch_add(1, Ordering::Relaxed);
        return;
    };
    if answer.status == StatusCode::NOT_FOUND {
        counts.not_routed.fetch_add(1, Ordering::Relaxed);
        return;
    }
    assert_eq!(answer.status, StatusCode::OK, "{host}{path}: {}", answer.body);
    let markers: Vec<&str> = answer.body.split_whitespace().collect();
    let whose = if moving { markers[0].to_owned() } else { tenant.uuid.to_string() };
    assert!(markers.iter().all(|marker| *marker == whose), "{host}{path}: {}", answer.body);
    if moving {
        let of_slice = fleet.tenants.iter().enumerate().filter(|(index, _)| index % SLICES == slice);
        assert!(of_slice.map(|(_, tenant)| tenant.uuid.to_string()).any(|uuid| uuid == whose), "{host}: {whose}");
    }
    assert!(fleet.tenancy.pools().open() <= CONNECTIONS, "the bound over all tenants holds");
    counts.answered.fetch_add(1, Ordering::Relaxed);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_answer_of_many_ever_carries_another_tenants_marker() {
    let (requests, count) = (number("MOS_LEAK_REQUESTS", 200_000), number("MOS_LEAK_TENANTS", 200));
    let schema = "CREATE TABLE leak (marker text NOT NULL); CREATE TABLE leak_twin (marker text NOT NULL)";
    let begun = Instant::now();
    with_many_tenants(count, schema, async |server, tenants| {
        let insert = async |tenant: &RoutingEntry| {
            let rows = format!("INSERT INTO leak VALUES ('{0}'); INSERT INTO leak_twin VALUES ('{0}')", tenant.uuid);
            server.sql(&tenant.database.name, &rows).await;
        };
        stream::iter(&tenants).map(insert).buffer_unordered(4).collect::<Vec<_>>().await;
        let fleet = Arc::new(Fleet::serving(tenants).await);
        let (counts, left) = (Arc::new(Counts::default()), Arc::new(AtomicUsize::new(requests)));
        println!("{count} tenants after {:?}", begun.elapsed());
        let begun = Instant::now();
        let done = Arc::new(AtomicBool::new(false));
        let churn = {
            let (fleet, done) = (fleet.clone(), done.clone());
            tokio::spawn(async move {
                let mut changes = 0;
                let mut tick = tokio::time::interval(CHURN);
                while !done.load(Ordering::Relaxed) {
                    tick.tick().await;
                    fleet.churn();
                    changes += 1;
                }
                changes
            })
        };
        let crowd = (0..CROWD).map(|_| {
            let (fleet, counts, left) = (fleet.clone(), counts.clone(), left.clone());
            tokio::spawn(async move {
                while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
                    one(&fleet, &counts).await;
                }
            })
        });
        let outcomes = futures::future::join_all(crowd).await;
        done.store(true, Ordering::Relaxed);
        let changes = churn.await.unwrap();
        for outcome in outcomes {
            outcome.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()));
        }
        let [answered, cut, not_routed] =
            [&counts.answered, &counts.cut_off, &counts.not_routed].map(|count| count.load(Ordering::Relaxed));
        println!(
            "{requests} requests in {:?}: {answered} answered, {cut} cut off, {not_routed} not routed, {changes} changes",
            begun.elapsed()
        );
        assert!(answered > requests / 2 && cut > requests / 10 && changes > 0);
        let check = async |tenant: &RoutingEntry| {
            let wrong = format!(
                "SELECT (SELECT count(*) FROM leak WHERE marker <> '{}')
                      + abs((SELECT count(*) FROM leak) - (SELECT count(*) FROM leak_twin))",
                tenant.uuid
            );
            let wrong = server.number(&tenant.database.name, &wrong).await;
            assert_eq!(wrong, 0, "nothing of another tenant is stored, and nothing half");
        };
        stream::iter(&fleet.tenants).map(check).buffer_unordered(4).collect::<Vec<_>>().await;
    })
    .await;
}
