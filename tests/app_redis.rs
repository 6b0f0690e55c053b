//! Cache, limits and queues on real Redis servers: alone, behind Sentinels, as a cluster, and away.

#![allow(clippy::unwrap_used, reason = "a failed test may say so at once")]

mod redis;

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use ::redis::aio::ConnectionLike;
use axum::Router;
use axum::routing::get;
use http::StatusCode;
use jiff::Timestamp;
use maintenance_os::api::routing::{RoutingEntry, Subscription};
use maintenance_os::tenancy::clock::Clock;
use maintenance_os::tenancy::layers::subscription::OpenPaths;
use maintenance_os::tenancy::limits::{Limit, Verdict};
use maintenance_os::tenancy::queue::{JobError, Task, TenantJob};
use maintenance_os::tenancy::redis::{Purpose, RedisMode, RedisSettings};
use maintenance_os::tenancy::{Tenancy, TenancySettings, TenantContext, layers};
use redis::{
    Hanging, Own, alone, ask, behind_sentinels, cluster, context, entry, eventually, figure, process, process_with,
    raw, request,
};
use tokio::sync::{Barrier, Notify};

/// A job that nobody does here.
#[derive(serde::Serialize, serde::Deserialize)]
struct Read {
    file: String,
}

impl TenantJob for Read {
    const NAME: &'static str = "import.csv";
    type State = ();

    async fn run(&self, _: &TenantContext, _: &Task<()>) -> Result<serde_json::Value, JobError> {
        unreachable!("there is no worker")
    }
}

const MINUTE: Duration = Duration::from_mins(1);

/// What the cache says; counts how often it was made.
async fn made(tenant: &TenantContext, key: &str, made: &AtomicUsize) -> usize {
    let make = async || Ok::<_, Infallible>(made.fetch_add(1, Ordering::SeqCst) + 1);
    tenant.cache().remember(key, MINUTE, make).await.unwrap()
}

/// Whether Redis has the key.
async fn has(settings: &RedisSettings, database: i64, key: &str) -> bool {
    ask(&mut *raw(settings, database).await, &["EXISTS", key]).await
}

async fn works_in_every_part(settings: RedisSettings) {
    let (acme, other) = (entry(), entry());
    let tenants = [acme.clone(), other.clone()];
    let tenancy = process(Some(settings.clone()), &tenants).await;
    let (tenant, neighbour) = (context(&tenancy, &acme).await, context(&tenancy, &other).await);
    let count = AtomicUsize::new(0);

    // Kept, for this tenant alone, under the promised name.
    assert_eq!((made(&tenant, "dashboard", &count).await, made(&tenant, "dashboard", &count).await), (1, 1));
    assert_eq!(made(&neighbour, "dashboard", &count).await, 2, "another tenant's is another one");
    let (key, database) = match settings.mode {
        RedisMode::Cluster => (format!("cache:{{tenant:{}}}:dashboard", acme.uuid), 0),
        _ => (format!("tenant:{}:dashboard", acme.uuid), 1),
    };
    assert!(has(&settings, database, &key).await, "{key}");

    // Another process sees it, and what the first one forgets or flushes.
    let second = process(Some(settings.clone()), &tenants).await;
    let elsewhere = context(&second, &acme).await;
    assert_eq!(made(&elsewhere, "dashboard", &count).await, 1);
    tenant.cache().forget("dashboard").await;
    assert_eq!(made(&elsewhere, "dashboard", &count).await, 3);
    assert_eq!(made(&elsewhere, "assets", &count).await, 4);
    tenant.cache().flush().await;
    assert_eq!((made(&elsewhere, "dashboard", &count).await, made(&elsewhere, "assets", &count).await), (5, 6));
    assert_eq!(made(&neighbour, "dashboard", &count).await, 2, "another tenant's is not flushed");
    elsewhere.cache().flush().await;
    assert_eq!(made(&tenant, "dashboard", &count).await, 7);

    // What was made of data that a restore has replaced is not read, and nobody flushed anything.
    let restored = RoutingEntry { incarnation: Some(uuid::Uuid::new_v4()), ..acme.clone() };
    let third = process(Some(settings.clone()), &[restored.clone(), other.clone()]).await;
    let after = context(&third, &restored).await;
    assert_eq!(made(&after, "dashboard", &count).await, 8);
    assert_eq!((made(&after, "dashboard", &count).await, made(&after, "assets", &count).await), (8, 9));
    assert_eq!(made(&neighbour, "dashboard", &count).await, 2, "another tenant's is its own");

    // Counted together.
    let limit = Limit { most: 3, window: MINUTE };
    for tenant in [&tenant, &elsewhere, &tenant] {
        assert_eq!(tenant.limits().count("things", limit).await, Verdict::Allowed);
    }
    let Verdict::Refused { retry_after } = elsewhere.limits().count("things", limit).await else { panic!("too many") };
    assert!(retry_after > MINUTE / 2 && retry_after <= MINUTE, "{retry_after:?}");
    assert_eq!(neighbour.limits().count("things", limit).await, Verdict::Allowed);
    tenant.limits().forgive("things").await;
    assert_eq!(elsewhere.limits().count("things", limit).await, Verdict::Allowed);

    // Queued where a worker looks.
    let id = tenant.queue().push(&Read { file: "a.csv".into() }).await.unwrap().id.to_string();
    let list = match settings.mode {
        RedisMode::Cluster => format!("{{tenant-{}}}", acme.uuid),
        _ => format!("tenant-{}", acme.uuid),
    };
    let mut raw = raw(&settings, 0).await;
    assert_eq!(ask::<String>(&mut *raw, &["LPOP", &list]).await, id);
    let job: String = ask(&mut *raw, &["HGET", &format!("{list}:jobs"), &id]).await;
    let job: serde_json::Value = serde_json::from_str(&job).unwrap();
    assert_eq!((job["id"].as_str(), job["tenant"].as_str()), (Some(&*id), Some(&*acme.uuid.to_string())));
    assert_eq!((job["kind"].as_str(), job["payload"]["file"].as_str()), (Some("import.csv"), Some("a.csv")));
    job["queuedAt"].as_str().unwrap().parse::<Timestamp>().unwrap();
}

#[tokio::test]
async fn everything_works_on_one_server() {
    works_in_every_part(alone()).await;
}

#[tokio::test]
async fn everything_works_behind_sentinels() {
    works_in_every_part(behind_sentinels()).await;
}

#[tokio::test]
async fn everything_works_on_a_cluster() {
    works_in_every_part(cluster()).await;
}

#[tokio::test]
async fn in_a_cluster_operations_on_several_keys_of_one_tenant_stay_in_one_slot() {
    let settings = cluster();
    let tenancy = process(Some(settings.clone()), &[]).await;
    let redis = tenancy.redis().unwrap();
    // A node refuses what does not lie in one slot (CROSSSLOT), so asking for twenty keys at once proves it.
    let mut connection = raw(&settings, 0).await;
    for _ in 0..20 {
        let tenant = uuid::Uuid::new_v4();
        let key = |purpose, number| redis.key(purpose, tenant, &format!("key-{number}"));
        let keys: Vec<String> = [Purpose::Default, Purpose::Cache, Purpose::Sessions]
            .into_iter()
            .flat_map(|purpose| (0..20).map(move |number| (purpose, number)))
            .map(|(purpose, number)| key(purpose, number))
            .collect();
        let script = "for _, key in ipairs(KEYS) do redis.call('SET', key, 1, 'EX', 60) end return #KEYS";
        let count = keys.len().to_string();
        let words: Vec<&str> = ["EVAL", script, &count].into_iter().chain(keys.iter().map(String::as_str)).collect();
        assert_eq!(ask::<usize>(&mut *connection, &words).await, keys.len());
    }
}

/// An app of one page, which caches what it shows.
fn page(tenancy: &Tenancy, count: &Arc<AtomicUsize>) -> Router {
    let count = count.clone();
    let show = async move |tenant: TenantContext| made(&tenant, "page", &count).await.to_string();
    layers::tenant(Router::new().route("/", get(show)), tenancy)
}

#[tokio::test]
async fn a_page_works_while_redis_is_away_without_waiting_and_caches_again_by_itself() {
    let mut server = Own::start().await;
    let acme = entry();
    let tenancy = process(Some(server.settings.clone()), std::slice::from_ref(&acme)).await;
    let count = Arc::new(AtomicUsize::new(0));
    let router = page(&tenancy, &count);
    assert_eq!(request(&router, &acme, "/").await.body, "1");
    assert_eq!(request(&router, &acme, "/").await.body, "1");
    let up = "maintenance_os_redis_up{purpose=\"cache\"}";
    let errors = "maintenance_os_redis_errors_total{purpose=\"cache\"}";
    assert_eq!((figure(&tenancy, up), figure(&tenancy, errors)), (1, 0));

    server.stop();
    let begun = Instant::now();
    for _ in 0..100 {
        let answer = request(&router, &acme, "/").await;
        assert_eq!(answer.status, StatusCode::OK);
        assert_ne!(answer.body, "1", "made anew each time");
    }
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(2), "a hundred pages took {took:?}");
    assert_eq!(figure(&tenancy, up), 0);
    assert!(figure(&tenancy, errors) >= 100);

    server.run().await;
    eventually("it is found again", async || figure(&tenancy, up) == 1).await;
    let first = request(&router, &acme, "/").await.body;
    assert_eq!(request(&router, &acme, "/").await.body, first, "and kept again");
}

#[tokio::test]
async fn a_redis_that_hangs_costs_one_wait_and_not_one_per_request() {
    let server = Own::start().await;
    let acme = entry();
    let tenancy = process(Some(server.settings.clone()), std::slice::from_ref(&acme)).await;
    let router = page(&tenancy, &Arc::default());
    request(&router, &acme, "/").await;
    let hanging = Hanging::server(&mut *raw(&server.settings, 0).await).await;
    let begun = Instant::now();
    for _ in 0..50 {
        assert_eq!(request(&router, &acme, "/").await.status, StatusCode::OK);
    }
    let took = begun.elapsed();
    assert!(took >= Duration::from_millis(500), "the first one finds it out: {took:?}");
    assert!(took < Duration::from_secs(3), "fifty pages took {took:?}");
    drop(hanging);
    eventually("it is found again", async || tenancy.redis().unwrap().is_up(Purpose::Cache)).await;
}

#[tokio::test]
async fn what_was_forgotten_while_redis_was_away_is_not_shown_when_it_is_back() {
    let server = Own::start().await;
    let acme = entry();
    let tenancy = process(Some(server.settings.clone()), std::slice::from_ref(&acme)).await;
    let tenant = context(&tenancy, &acme).await;
    let count = AtomicUsize::new(0);
    assert_eq!(made(&tenant, "dashboard", &count).await, 1);
    let hanging = Hanging::server(&mut *raw(&server.settings, 0).await).await;
    tenant.cache().forget("dashboard").await;
    drop(hanging);
    eventually("it is found again", async || tenancy.redis().unwrap().is_up(Purpose::Cache)).await;
    assert_eq!(made(&tenant, "dashboard", &count).await, 2);
    assert_eq!(made(&tenant, "dashboard", &count).await, 2);
}

#[tokio::test]
async fn when_the_primary_hangs_the_next_one_is_found() {
    let settings = behind_sentinels();
    let acme = entry();
    let tenancy = process(Some(settings.clone()), std::slice::from_ref(&acme)).await;
    let tenant = context(&tenancy, &acme).await;
    let job = Read { file: "a.csv".into() };
    tenant.queue().push(&job).await.unwrap();
    let mut sentinel = sentinel(&settings).await;
    let before = primary(&mut *sentinel, &settings).await;
    let hanging = Hanging::server(&mut *raw(&settings, 0).await).await;
    eventually("jobs are queued again", async || tenant.queue().push(&job).await.is_ok()).await;
    assert_ne!(primary(&mut *sentinel, &settings).await, before, "on another server");
    drop(hanging);
    // For the tests that come after: a replica again.
    let RedisMode::Sentinel { master } = &settings.mode else { unreachable!() };
    eventually("the old primary follows", async || {
        let replicas: Vec<std::collections::HashMap<String, String>> =
            ask(&mut *sentinel, &["SENTINEL", "REPLICAS", master]).await;
        replicas.iter().any(|replica| replica["flags"] == "slave" && replica["master-link-status"] == "ok")
    })
    .await;
}

async fn sentinel(settings: &RedisSettings) -> Box<dyn ConnectionLike + Send> {
    let settings = RedisSettings { mode: RedisMode::StandAlone, ..settings.clone() };
    raw(&settings, 0).await
}

async fn primary(sentinel: &mut (dyn ConnectionLike + Send), settings: &RedisSettings) -> (String, u16) {
    let RedisMode::Sentinel { master } = &settings.mode else { unreachable!() };
    ask(sentinel, &["SENTINEL", "GET-MASTER-ADDR-BY-NAME", master]).await
}

#[tokio::test]
async fn a_node_of_a_cluster_that_hangs_costs_only_its_own_tenants_their_cache() {
    let settings = cluster();
    let tenants: Vec<RoutingEntry> = (0..24).map(|_| entry()).collect();
    let tenancy = process(Some(settings.clone()), &tenants).await;
    let count = Arc::new(AtomicUsize::new(0));
    let router = page(&tenancy, &count);
    for tenant in &tenants {
        request(&router, tenant, "/").await;
    }
    let node = RedisSettings { mode: RedisMode::StandAlone, nodes: settings.nodes[..1].to_vec(), ..settings.clone() };
    let hanging = Hanging::server(&mut *raw(&node, 0).await).await;
    // The first round finds it out.
    for tenant in &tenants {
        assert_eq!(request(&router, tenant, "/").await.status, StatusCode::OK);
    }
    let (begun, before) = (Instant::now(), count.load(Ordering::SeqCst));
    for tenant in &tenants {
        assert_eq!(request(&router, tenant, "/").await.status, StatusCode::OK);
    }
    let (took, made) = (begun.elapsed(), count.load(Ordering::SeqCst) - before);
    assert!(made > 0 && made < tenants.len(), "some of {} have no cache: {made}", tenants.len());
    assert!(took < Duration::from_secs(2), "nobody waits for what is known: {took:?}");
    assert_eq!(figure(&tenancy, "maintenance_os_redis_up{purpose=\"cache\"}"), 0);
    drop(hanging);
    eventually("all have their cache again", async || {
        let before = count.load(Ordering::SeqCst);
        for tenant in &tenants {
            request(&router, tenant, "/").await;
        }
        count.load(Ordering::SeqCst) == before
    })
    .await;
    eventually("it says so", async || figure(&tenancy, "maintenance_os_redis_up{purpose=\"cache\"}") == 1).await;
}

/// Callers that all miss before the first of them has made the value: making waits until it is told.
struct Crowd {
    count: Arc<AtomicUsize>,
    go: Arc<Notify>,
}

impl Crowd {
    fn of(
        tenant: &TenantContext,
        callers: usize,
        succeeds: bool,
    ) -> (Self, Vec<tokio::task::JoinHandle<Result<usize, String>>>) {
        let crowd = Self { count: Arc::default(), go: Arc::default() };
        let start = Arc::new(Barrier::new(callers));
        let call = |_| {
            let (tenant, count, go, start) = (tenant.clone(), crowd.count.clone(), crowd.go.clone(), start.clone());
            tokio::spawn(async move {
                start.wait().await;
                let make = async || {
                    let number = count.fetch_add(1, Ordering::SeqCst) + 1;
                    if number == 1 {
                        go.notified().await;
                    }
                    if succeeds { Ok(number) } else { Err(format!("fault {number}")) }
                };
                tenant.cache().remember("crowd", MINUTE, make).await
            })
        };
        let calls = (0..callers).map(call).collect();
        (crowd, calls)
    }

    async fn is_being_made(&self) {
        eventually("somebody makes it", async || self.count.load(Ordering::SeqCst) == 1).await;
    }
}

async fn crowds(redis: Option<RedisSettings>) {
    let acme = entry();
    let tenancy = process(redis, std::slice::from_ref(&acme)).await;
    let tenant = context(&tenancy, &acme).await;

    let (crowd, calls) = Crowd::of(&tenant, 100, true);
    crowd.is_being_made().await;
    crowd.go.notify_one();
    for call in calls {
        assert_eq!(call.await.unwrap(), Ok(1));
    }
    assert_eq!(crowd.count.load(Ordering::SeqCst), 1, "a hundred callers made it once");

    // Errors are told to each and kept for nobody.
    tenant.cache().flush().await;
    let (crowd, calls) = Crowd::of(&tenant, 20, false);
    crowd.is_being_made().await;
    crowd.go.notify_one();
    for call in calls {
        assert!(call.await.unwrap().is_err());
    }
    let make = async || Ok::<_, Infallible>(77);
    assert_eq!(tenant.cache().remember("crowd", MINUTE, make).await, Ok(77));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_who_miss_at_the_same_time_make_it_once() {
    crowds(Some(alone())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_who_miss_at_the_same_time_make_it_once_without_redis_too() {
    crowds(None).await;
}

#[tokio::test]
async fn a_caller_that_is_cancelled_while_it_makes_the_value_leaves_that_to_the_next() {
    let acme = entry();
    let tenancy = process(Some(alone()), std::slice::from_ref(&acme)).await;
    let tenant = context(&tenancy, &acme).await;
    let (begun, never) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let first = {
        let (tenant, begun, never) = (tenant.clone(), begun.clone(), never.clone());
        tokio::spawn(async move {
            let make = async || {
                begun.notify_one();
                never.notified().await;
                Ok::<_, Infallible>(1)
            };
            tenant.cache().remember("key", MINUTE, make).await
        })
    };
    begun.notified().await;
    let waiting: Vec<_> = (2..12)
        .map(|number| {
            let tenant = tenant.clone();
            tokio::spawn(
                async move { tenant.cache().remember("key", MINUTE, async || Ok::<_, Infallible>(number)).await },
            )
        })
        .collect();
    tokio::task::yield_now().await;
    assert!(waiting.iter().all(|waiting| !waiting.is_finished()), "they wait");
    first.abort();
    let mut values = std::collections::HashSet::new();
    for waiting in waiting {
        values.insert(tokio::time::timeout(redis::DEADLINE, waiting).await.unwrap().unwrap().unwrap());
    }
    assert_eq!(values.len(), 1, "one of them made it, for all: {values:?}");
}

type Change = fn(TenantContext) -> std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

#[tokio::test]
async fn what_was_made_from_older_data_is_not_kept_after_a_change() {
    let acme = entry();
    let tenants = std::slice::from_ref(&acme);
    let (here, there) = (process(Some(alone()), tenants).await, process(Some(alone()), tenants).await);
    let (here, there) = (context(&here, &acme).await, context(&there, &acme).await);
    let changes: [Change; 2] = [
        |tenant| Box::pin(async move { tenant.cache().forget("key").await }),
        |tenant| Box::pin(async move { tenant.cache().flush().await }),
    ];
    for change in changes {
        let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let reading = {
            let (here, begun, go) = (here.clone(), begun.clone(), go.clone());
            tokio::spawn(async move {
                let make = async || {
                    begun.notify_one();
                    go.notified().await;
                    Ok::<_, Infallible>("old".to_owned())
                };
                here.cache().remember("key", MINUTE, make).await
            })
        };
        begun.notified().await;
        // In another process, the data is changed and the key forgotten.
        change(there.clone()).await;
        // Who asks now, in the same process, must not be given what the first one is still making.
        let fresh = async || Ok::<_, Infallible>("new".to_owned());
        let asked = tokio::time::timeout(redis::DEADLINE, here.cache().remember("key", MINUTE, fresh)).await;
        assert_eq!(asked.expect("it does not wait for the first one").unwrap(), "new");
        go.notify_one();
        assert_eq!(reading.await.unwrap().unwrap(), "old", "it was asked before");
        let unused = async || Ok::<_, Infallible>("not asked".to_owned());
        assert_eq!(there.cache().remember("key", MINUTE, unused).await.unwrap(), "new", "kept is the newer one");
        here.cache().flush().await;
    }
}

#[tokio::test]
async fn what_is_too_large_is_served_and_not_kept_and_ends_end() {
    let acme = entry();
    let tenancy = process(Some(alone()), std::slice::from_ref(&acme)).await;
    let tenant = context(&tenancy, &acme).await;
    let count = AtomicUsize::new(0);
    let large = async |size: usize| {
        let make = async || {
            count.fetch_add(1, Ordering::SeqCst);
            Ok::<_, Infallible>("x".repeat(size))
        };
        tenant.cache().remember(&format!("large-{size}"), MINUTE, make).await.unwrap().len()
    };
    let most = maintenance_os::tenancy::cache::MAX_VALUE - 2;
    for size in [most, most, most + 1, most + 1] {
        assert_eq!(large(size).await, size);
    }
    assert_eq!(count.load(Ordering::SeqCst), 3, "the one that just fits was kept");
    let short = async || Ok::<_, Infallible>(count.fetch_add(1, Ordering::SeqCst));
    tenant.cache().remember("short", Duration::from_millis(20), short).await.unwrap();
    eventually("it ended", async || {
        let before = count.load(Ordering::SeqCst);
        tenant.cache().remember("short", Duration::from_millis(20), short).await.unwrap();
        count.load(Ordering::SeqCst) > before
    })
    .await;
}

/// An app whose page and settings stand behind the plan.
fn planned(tenancy: &Tenancy) -> Router {
    let routes = Router::new().route("/", get(async || "page")).route("/settings", get(async || "settings"));
    layers::tenant(layers::within_plan(routes, OpenPaths::default()), tenancy)
}

#[tokio::test]
async fn requests_per_minute_are_counted_over_all_pods_and_per_pod_while_redis_is_away() {
    let mut server = Own::start().await;
    let (mut acme, unlimited) = (entry(), entry());
    acme.plan.limits.requests_per_minute = Some(10);
    let tenants = [acme.clone(), unlimited.clone()];
    let pods = [
        process(Some(server.settings.clone()), &tenants).await,
        process(Some(server.settings.clone()), &tenants).await,
    ];
    let routers = [planned(&pods[0]), planned(&pods[1])];
    let answered = async |count: usize| {
        let mut good = 0;
        for number in 0..count {
            let answer = request(&routers[number % 2], &acme, "/").await;
            good += usize::from(answer.status == StatusCode::OK);
            if answer.status != StatusCode::OK {
                assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS);
                let seconds: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
                assert!((1..=60).contains(&seconds), "{seconds}");
            }
        }
        good
    };
    assert_eq!(answered(30).await, 10, "both pods together");
    for router in &routers {
        assert_eq!(request(router, &unlimited, "/").await.status, StatusCode::OK, "another tenant is not concerned");
    }
    server.stop();
    assert_eq!(answered(60).await, 20, "each pod for itself");
    server.run().await;
    for pod in &pods {
        eventually("it is found again", async || pod.redis().unwrap().is_up(Purpose::Default)).await;
    }
    assert_eq!(answered(30).await, 10, "together again, and counted anew, since it came back empty");
}

#[tokio::test]
async fn a_trial_ends_at_its_instant_and_leaves_the_settings_open() {
    let end: Timestamp = "2026-12-31T23:59:59Z".parse().unwrap();
    let mut acme = entry();
    acme.subscription =
        Subscription { status: "none".into(), trial_ends_at: Some(end.to_string()), ..Default::default() };
    let now = Arc::new(std::sync::Mutex::new(end));
    let clock = {
        let now = now.clone();
        Clock::of(move || *now.lock().unwrap())
    };
    let settings = TenancySettings { clock, ..TenancySettings::new("maintenance-os.com") };
    let router = planned(&process_with(settings, std::slice::from_ref(&acme)).await);
    let page_at = async |nanoseconds: i64| {
        *now.lock().unwrap() = end + jiff::SignedDuration::from_nanos(nanoseconds);
        assert_eq!(request(&router, &acme, "/settings").await.body, "settings");
        request(&router, &acme, "/").await
    };
    assert_eq!(page_at(-1).await.body, "page");
    for after in [0, 1] {
        let answer = page_at(after).await;
        assert_eq!(answer.status, StatusCode::PAYMENT_REQUIRED);
        assert!(answer.body.contains("trial has ended"), "{}", answer.body);
    }
    assert_eq!(page_at(-1).await.body, "page");
}

#[tokio::test]
async fn after_a_trial_everything_is_open_until_the_instant_at_which_the_grace_ends() {
    let end: Timestamp = "2026-12-31T23:59:59Z".parse().unwrap();
    let over = end + jiff::SignedDuration::from_secs(3600);
    let mut acme = entry();
    acme.subscription = Subscription {
        status: "none".into(),
        trial_ends_at: Some(end.to_string()),
        grace_until: Some(over.to_string()),
        ..Default::default()
    };
    let now = Arc::new(std::sync::Mutex::new(end));
    let clock = {
        let now = now.clone();
        Clock::of(move || *now.lock().unwrap())
    };
    let settings = TenancySettings { clock, ..TenancySettings::new("maintenance-os.com") };
    let router = planned(&process_with(settings, std::slice::from_ref(&acme)).await);
    let just_before = over - jiff::SignedDuration::from_nanos(1);
    for (at, status) in [(end, StatusCode::OK), (just_before, StatusCode::OK), (over, StatusCode::PAYMENT_REQUIRED)] {
        *now.lock().unwrap() = at;
        assert_eq!(request(&router, &acme, "/").await.status, status, "{at}");
        assert_eq!(request(&router, &acme, "/settings").await.body, "settings");
    }
}
