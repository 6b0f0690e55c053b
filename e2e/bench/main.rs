//! `make bench`: the figures of docs/benchmarks.md, measured on the cluster of `make demo`, each beside a raw driver that
//! makes only the unavoidable calls, in the same run. Bounded in count and time; goes to the cluster only.

// Counts and times are printed with three digits.
#![allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]

mod cluster;
mod life;
mod load;
mod raw;
mod rollout;

use std::time::{Duration, Instant};

use cluster::Cluster;

/// One after the other on an idle system.
const SINGLES: usize = 40;
/// At once.
const BURST: usize = 200;
/// At once, with nothing warm.
const COLD: usize = 40;
/// At rest.
const FLEET: usize = 500;
const REST: Duration = Duration::from_secs(180);

type Outcome<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// What can be asked for by name; without a name, all of it in this order.
const SECTIONS: [&str; 6] = ["singles", "burst", "cold", "rest", "life", "rollout"];

#[tokio::main]
async fn main() -> Outcome<()> {
    maintenance_os::telemetry::install_crypto_provider();
    let asked: Vec<_> = std::env::args().skip(1).collect();
    if let Some(unknown) = asked.iter().find(|name| !SECTIONS.contains(&name.as_str())) {
        return Err(format!("there is no section {unknown}: {}", SECTIONS.join(", ")).into());
    }
    let cluster = Cluster::open().await?;
    cluster.remove_all().await?;
    println!("| what | measured | raw driver | ratio |\n|---|---|---|---|");
    for section in SECTIONS.iter().filter(|name| asked.is_empty() || asked.iter().any(|asked| asked == *name)) {
        match *section {
            "singles" => singles(&cluster).await?,
            "burst" => burst(&cluster).await?,
            "cold" => cold(&cluster).await?,
            "rest" => at_rest(&cluster).await?,
            "life" => life::life(&cluster).await?,
            _ => {
                fleet(&cluster).await?;
                rollout::rollout(&cluster).await?;
            }
        }
    }
    cluster.remove_all().await?;
    cluster.set_pool(5).await
}

fn row(what: &str, measured: &str, raw: &str, ratio: &str) {
    println!("| {what} | {measured} | {raw} | {ratio} |");
}

fn percentile(sorted: &[Duration], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)].as_secs_f64() * 1000.0
}

async fn singles(cluster: &Cluster) -> Outcome<()> {
    cluster.fill_pool(BURST).await?;
    let mut times = Vec::new();
    let mut raw_times = Vec::new();
    for number in 0..SINGLES {
        let name = format!("bench-single-{number}");
        times.push(cluster.create_and_wait(&[name]).await?.since_asked);
        let database = cluster.raw_database(&format!("s{number}")).await?;
        let begun = Instant::now();
        raw::provision(cluster, &database, &format!("bench-raw-single-{number}")).await?;
        raw_times.push(begun.elapsed());
    }
    times.sort();
    raw_times.sort();
    for percent in [50, 99] {
        let (ours, raw) = (percentile(&times, percent), percentile(&raw_times, percent));
        row(
            &format!("one Tenant, apply → Ready and host answers, p{percent} of {SINGLES}"),
            &format!("{ours:.0} ms"),
            &format!("{raw:.0} ms"),
            &format!("{:.2}", ours / raw),
        );
    }
    Ok(())
}

async fn burst(cluster: &Cluster) -> Outcome<()> {
    cluster.fill_pool(BURST).await?;
    cluster.settle().await?;
    let cpu = Cluster::operator_cpu()?;
    let before = cluster.writes().await?;
    let names: Vec<_> = (0..BURST).map(|number| format!("bench-burst-{number}")).collect();
    let took = cluster.create_and_wait(&names).await?;
    let cpu = (Cluster::operator_cpu()? - cpu).as_secs_f64();
    let writes = cluster.writes().await? - before - BURST as u64;
    let mut databases = Vec::new();
    for number in 0..BURST {
        databases.push((cluster.raw_database(&format!("b{number}")).await?, format!("bench-raw-burst-{number}")));
    }
    let raw = raw::provision_all(cluster, &databases).await?;
    for (until, took) in [("all Ready and serving", took.served), ("all Ready", took.ready)] {
        let (rate, raw_rate) = (BURST as f64 / took.as_secs_f64(), BURST as f64 / raw.as_secs_f64());
        row(
            &format!("{BURST} Tenants at once, warm pool, from the first stored until {until}"),
            &format!("{:.2} s, {rate:.0}/s", took.as_secs_f64()),
            &format!("{:.2} s, {raw_rate:.0}/s", raw.as_secs_f64()),
            &format!("{:.2}", rate / raw_rate),
        );
    }
    row(&format!("{BURST} Tenants at once: the operator's processor time"), &format!("{cpu:.2} s"), "", "");
    row(
        &format!("mutating API calls per Tenant until Ready, over {BURST}, without Events"),
        &format!("{:.1}", writes as f64 / BURST as f64),
        "1",
        "",
    );
    Ok(())
}

async fn cold(cluster: &Cluster) -> Outcome<()> {
    cluster.empty_pool().await?;
    let names: Vec<_> = (0..COLD).map(|number| format!("bench-cold-{number}")).collect();
    let took = cluster.create_and_wait(&names).await?.served;
    let raw = raw::clone_all(cluster, COLD).await?;
    let (rate, raw_rate) = (COLD as f64 / took.as_secs_f64(), COLD as f64 / raw.as_secs_f64());
    row(
        &format!("{COLD} Tenants at once, empty pool; raw: CREATE DATABASE … TEMPLATE alone, 2 at a time"),
        &format!("{:.2} s, {rate:.1}/s", took.as_secs_f64()),
        &format!("{:.2} s, {raw_rate:.1}/s", raw.as_secs_f64()),
        &format!("{:.2}", rate / raw_rate),
    );
    Ok(())
}

/// As many Tenants as a fleet has.
async fn fleet(cluster: &Cluster) -> Outcome<()> {
    let there = cluster.count().await?;
    let names: Vec<_> = (there..FLEET).map(|number| format!("bench-fleet-{number}")).collect();
    cluster.create_and_wait(&names).await?;
    cluster.settle().await
}

async fn at_rest(cluster: &Cluster) -> Outcome<()> {
    fleet(cluster).await?;
    let (before, cpu) = (cluster.writes().await?, Cluster::operator_cpu()?);
    let begun = Instant::now();
    tokio::time::sleep(REST).await;
    let used = (Cluster::operator_cpu()? - cpu).as_secs_f64() / begun.elapsed().as_secs_f64() * 100.0;
    let writes = cluster.writes().await? - before;
    let count = cluster.count().await?;
    row(
        &format!("{count} Ready Tenants at rest for {} s: writes to the API but the Lease", REST.as_secs()),
        &writes.to_string(),
        "0",
        "",
    );
    row(&format!("{count} Ready Tenants at rest: operator's share of a core"), &format!("{used:.2} %"), "", "");
    row(
        &format!("operator's resident memory with {count} Tenants"),
        &format!("{} MB", Cluster::operator_memory()? / 1_000_000),
        "",
        "",
    );
    restart(cluster).await
}

async fn restart(cluster: &Cluster) -> Outcome<()> {
    let before = cluster.writes().await?;
    let took = cluster.restart_operator().await?;
    let count = cluster.count().await?;
    row(
        &format!("operator restart with {count} Tenants: writes"),
        &(cluster.writes().await? - before).to_string(),
        "0",
        "",
    );
    row("operator restart: until the next one leads", &format!("{:.1} s", took.as_secs_f64()), "", "");
    row(
        &format!("operator's resident memory after a restart with {count} Tenants"),
        &format!("{} MB", Cluster::operator_memory()? / 1_000_000),
        "",
        "",
    );
    Ok(())
}
