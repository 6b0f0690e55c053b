//! `make bench-queue`: what fairness and leases cost a job, beside a bare list in the same Redis, in the same run.
//!
//! Needs Redis (`redis-local.sh`) and no cluster; uses one of its databases, which it empties.

// Counts and times are printed with three digits.
#![allow(clippy::cast_precision_loss)]

mod fleet;

use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use fleet::{entry, nowhere, slices};
use futures::{StreamExt, TryStreamExt, stream};
use http::Request;
use maintenance_os::api::routing::RoutingEntry;
use maintenance_os::api::slices::SLICE_COUNT;
use maintenance_os::slices::Change;
use maintenance_os::tenancy::queue::balance::Balance;
use maintenance_os::tenancy::queue::{JobError, Registry, Task, TenantJob, Worker, WorkerSettings};
use maintenance_os::tenancy::redis::{Purpose, Redis, RedisSettings};
use maintenance_os::tenancy::{Tenancy, TenancySettings, TenantContext, layers};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

/// Jobs of one tenant.
const JOBS: usize = 20_000;
/// Tenants with one job each.
const QUIET: usize = 9_999;
/// Pops from all lists at once that are measured; more take minutes.
const POPS: usize = 1_000;
/// Jobs at once, and pops at once.
const PROCESSES: usize = 10;
/// Redis's database.
const DATABASE: i64 = 9;

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[tokio::main]
async fn main() -> Outcome<()> {
    maintenance_os::telemetry::install_crypto_provider();
    let settings = settings()?;
    let redis = Redis::new(settings.clone());
    println!("| what | measured | raw | ratio | to reach |\n|---|---|---|---|---|");
    one_tenant(&settings, &redis).await?;
    many_tenants(&settings, &redis).await?;
    at_rest(&settings, &redis).await?;
    empty(&redis).await
}

fn row(what: &str, measured: &str, raw: &str, ratio: &str, goal: &str) {
    println!("| {what} | {measured} | {raw} | {ratio} | {goal} |");
}

fn settings() -> Outcome<RedisSettings> {
    let (host, port) = (std::env::var("MOS_TEST_REDIS_HOST")?, std::env::var("MOS_TEST_REDIS_PORT")?);
    let password = std::env::var("MOS_TEST_REDIS_PASSWORD").ok().map(Into::into);
    let answer = Duration::from_secs(30);
    Ok(RedisSettings { password, databases: [DATABASE; 3], answer, ..RedisSettings::new(&host, port.parse()?) })
}

async fn empty(redis: &Redis) -> Outcome<()> {
    Ok(redis.query(Purpose::Default, redis::cmd("FLUSHDB").arg("SYNC")).await?)
}

/// Who was served, in order.
#[derive(Default)]
struct Served {
    tenants: Mutex<Vec<Uuid>>,
    count: AtomicUsize,
    wanted: AtomicUsize,
    all: Notify,
}

#[derive(Serialize, Deserialize)]
struct Nothing;

impl TenantJob for Nothing {
    const NAME: &'static str = "bench.nothing";
    type State = Arc<Served>;

    async fn run(&self, tenant: &TenantContext, task: &Task<Arc<Served>>) -> Result<serde_json::Value, JobError> {
        let served = task.state();
        served.tenants.lock().expect("nobody panics").push(tenant.entry().uuid);
        if served.count.fetch_add(1, Ordering::SeqCst) + 1 == served.wanted.load(Ordering::SeqCst) {
            served.all.notify_one();
        }
        Ok(serde_json::Value::Null)
    }
}

fn tenants(count: usize) -> Vec<RoutingEntry> {
    let access = nowhere();
    (0..count).map(|number| entry(number, &access)).collect()
}

async fn tenancy(settings: &RedisSettings, tenants: &[RoutingEntry]) -> Outcome<Tenancy> {
    let tenancy =
        Tenancy::new(&TenancySettings { redis: Some(settings.clone()), ..TenancySettings::new("maintenance-os.com") })?;
    let changes = slices(tenants, 1).into_iter().map(|(slice, content)| Change { slice, content: Some(content) });
    tenancy.follow(stream::iter(changes), SLICE_COUNT as usize).await;
    Ok(tenancy)
}

/// Queues so many jobs of each tenant, as handlers do.
async fn queue(tenancy: &Tenancy, jobs: &[(&RoutingEntry, usize)]) -> Outcome<()> {
    let caught: Arc<Mutex<Option<TenantContext>>> = Arc::default();
    let handler = {
        let caught = caught.clone();
        async move |context: TenantContext| drop(caught.lock().expect("nobody panics").replace(context))
    };
    let router = layers::tenant(Router::new().route("/", get(handler)), tenancy);
    for (tenant, count) in jobs {
        let request = Request::get("/").header("host", &tenant.primary_host).body(Body::empty())?;
        router.clone().oneshot(request).await?;
        let context = caught.lock().expect("nobody panics").take().ok_or("the tenant is not served")?;
        let pushes = (0..*count).map(|_| context.queue().push(&Nothing));
        stream::iter(pushes).buffer_unordered(64).try_for_each(async |_| Ok(())).await?;
    }
    Ok(())
}

/// A worker does `count` jobs; returns how long it took.
async fn work(tenancy: &Tenancy, served: &Arc<Served>, count: usize) -> Outcome<Duration> {
    served.wanted.store(count, Ordering::SeqCst);
    let balance = Balance { min_processes: PROCESSES, max_processes: PROCESSES, ..Balance::default() };
    let worker = WorkerSettings { balance, memory: None, ..WorkerSettings::default() };
    let registry = Registry::default().with::<Nothing>();
    let worker = Worker::new(tenancy, registry, served.clone(), worker).ok_or("there is no Redis")?;
    let stop = CancellationToken::new();
    let begun = Instant::now();
    let running = tokio::spawn(worker.run(stop.clone()));
    tokio::time::timeout(Duration::from_secs(300), served.all.notified()).await?;
    let took = begun.elapsed();
    stop.cancel();
    running.await?;
    Ok(took)
}

/// Pops from `lists` until `count` came; returns how long it took.
async fn pop(redis: &Redis, command: &redis::Cmd, count: usize) -> Outcome<Duration> {
    let left = AtomicUsize::new(count);
    let begun = Instant::now();
    let poppers = (0..PROCESSES).map(async |_| {
        while left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok() {
            let _: redis::Value = redis.query(Purpose::Default, command).await?;
        }
        Outcome::Ok(())
    });
    futures::future::try_join_all(poppers).await?;
    Ok(begun.elapsed())
}

fn rate(count: usize, took: Duration) -> f64 {
    count as f64 / took.as_secs_f64()
}

async fn one_tenant(settings: &RedisSettings, redis: &Redis) -> Outcome<()> {
    empty(redis).await?;
    let tenants = tenants(1);
    let tenancy = tenancy(settings, &tenants).await?;
    queue(&tenancy, &[(&tenants[0], JOBS)]).await?;
    let ours = rate(JOBS, work(&tenancy, &Arc::default(), JOBS).await?);
    empty(redis).await?;
    for _ in 0..JOBS / 1000 {
        let mut push = redis::cmd("RPUSH");
        push.arg("fifo").arg((0..1000).collect::<Vec<_>>());
        let _: u64 = redis.query(Purpose::Default, &push).await?;
    }
    let raw = rate(JOBS, pop(redis, redis::cmd("LPOP").arg("fifo"), JOBS).await?);
    row(
        &format!(
            "{JOBS} empty jobs of one tenant, one worker, {PROCESSES} at once; raw: LPOP from one list, {PROCESSES} at once"
        ),
        &format!("{ours:.0}/s"),
        &format!("{raw:.0}/s"),
        &format!("{:.2}", ours / raw),
        "≥ 0.5×",
    );
    Ok(())
}

async fn many_tenants(settings: &RedisSettings, redis: &Redis) -> Outcome<()> {
    empty(redis).await?;
    let all = tenants(QUIET + 1);
    let tenancy = tenancy(settings, &all).await?;
    let busy = &all[0];
    // The busy one came first.
    let jobs: Vec<_> = all.iter().map(|entry| (entry, if entry.uuid == busy.uuid { JOBS } else { 1 })).collect();
    queue(&tenancy, &jobs).await?;
    let served = Arc::new(Served::default());
    let took = work(&tenancy, &served, QUIET + JOBS).await?;
    let order = std::mem::take(&mut *served.tenants.lock().expect("nobody panics"));
    let last = order.iter().rposition(|tenant| *tenant != busy.uuid).map_or(0, |place| place + 1);
    row(
        &format!("{QUIET} tenants with one job, one with {JOBS}: place of the last quiet one; raw: ideal round robin"),
        &last.to_string(),
        &(QUIET + 1).to_string(),
        &format!("{:.2}", last as f64 / (QUIET + 1) as f64),
        "≤ 1.1×",
    );
    empty(redis).await?;
    let mut pipe = redis::pipe();
    for entry in &all {
        pipe.cmd("RPUSH").arg(&entry.queue.name).arg(1).ignore();
    }
    let () = pipe.query_async(&mut redis.line(Purpose::Default)).await?;
    let mut command = redis::cmd("BRPOP");
    command.arg(all.iter().map(|entry| entry.queue.name.as_str()).collect::<Vec<_>>()).arg(1);
    let raw = rate(POPS, pop(redis, &command, POPS).await?);
    let ours = rate(QUIET + JOBS, took);
    row(
        &format!("the same, jobs done; raw: {POPS} × BRPOP over all {} lists", QUIET + 1),
        &format!("{ours:.0}/s"),
        &format!("{raw:.0}/s"),
        &format!("{:.1}", ours / raw),
        "≥ 20×",
    );
    Ok(())
}

/// The worker as it is run, for a thousand tenants without work.
async fn at_rest(settings: &RedisSettings, redis: &Redis) -> Outcome<()> {
    empty(redis).await?;
    let directory = std::env::temp_dir().join(format!("maintenance-os-bench-queue-{}", std::process::id()));
    std::fs::create_dir_all(&directory)?;
    for (name, content) in slices(&tenants(1000), 1) {
        std::fs::write(directory.join(format!("{name}.json")), content)?;
    }
    let program = std::env::current_exe()?.with_file_name("maintenance-os");
    let (host, port) = settings.nodes.first().ok_or("there is no Redis")?;
    let mut worker = tokio::process::Command::new(program)
        .arg("worker")
        .args(["--health-addr", "127.0.0.1:0", "--metrics-addr", "127.0.0.1:0", "--ack-addr", "127.0.0.1:0"])
        .arg("--routing-directory")
        .arg(&directory)
        .env("REDIS_HOST", host)
        .env("REDIS_PORT", port.to_string())
        .env("REDIS_PASSWORD", std::env::var("MOS_TEST_REDIS_PASSWORD").unwrap_or_default())
        .envs(["REDIS_DB", "REDIS_CACHE_DB", "REDIS_SESSION_DB"].map(|name| (name, DATABASE.to_string())))
        .env("RUST_LOG", "warn")
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let pid = worker.id().ok_or("the worker has ended")?;
    // What happens once a day fails here, without databases; at rest is when it has been given up.
    let settled = async {
        // It is on its way by then.
        tokio::time::sleep(Duration::from_secs(5)).await;
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let exists = redis::cmd("EXISTS").arg(&["queues:ring", "queues:due", "queues:held"]).to_owned();
            if redis.query::<u64>(Purpose::Default, &exists).await? == 0 {
                return Outcome::Ok(());
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(240), settled).await??;
    let (before, wait) = (commands(redis).await?, Duration::from_secs(60));
    tokio::time::sleep(wait).await;
    let sent = commands(redis).await? - before;
    let memory = resident(pid)?;
    worker.kill().await?;
    std::fs::remove_dir_all(&directory)?;
    row(
        &format!("1,000 idle tenants: commands of one worker in {} s", wait.as_secs()),
        &format!("{:.2}/s", sent as f64 / wait.as_secs_f64()),
        "",
        "",
        "< 1/s",
    );
    row("resident memory of a worker at rest", &format!("{} MB", memory / 1_000_000), "", "", "< 40 MB");
    Ok(())
}

/// Commands that clients have sent, without those that scripts call and those of this program.
async fn commands(redis: &Redis) -> Outcome<u64> {
    let info: String = redis.query(Purpose::Default, redis::cmd("INFO").arg("commandstats")).await?;
    let sent = ["cmdstat_evalsha:", "cmdstat_eval:", "cmdstat_script", "cmdstat_blpop:", "cmdstat_incr:"];
    let lines = info.lines().filter(|line| sent.iter().any(|sent| line.starts_with(sent)));
    let calls = lines.map(|line| line.split(['=', ',']).nth(1).and_then(|calls| calls.parse::<u64>().ok()));
    Ok(calls.map(Option::unwrap_or_default).sum())
}

fn resident(pid: u32) -> Outcome<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
    let kibibytes: u64 = line.split_whitespace().nth(1).ok_or("no figure")?.parse()?;
    Ok(kibibytes * 1024)
}
