//! A schema rollout over the whole fleet, beside raw drivers that run the same statements.

use std::process::Stdio;
use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt};
use maintenance_os::app;
use maintenance_os::desired::migration::{APPLIED, steps};
use maintenance_os::desired::server::Migration;
use maintenance_os_e2e::schema::{BEFORE, TAKE_BACK};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::cluster::Cluster;
use crate::load::{VISITED, under_load};
use crate::{Outcome, row};

const DEADLINE: Duration = Duration::from_secs(600);
/// What the raw driver is tried with; the best counts.
const CONCURRENCIES: [usize; 3] = [2, 4, 8];

/// The statements of the newest migrations, as they are sent.
fn statements() -> Vec<String> {
    let known = app::migrations().iter().filter(|known| known.version > BEFORE);
    let known = known.map(|known| Migration { version: known.version, name: known.name, sql: known.sql });
    known.flat_map(|migration| steps(&migration)).map(|step| step.text).collect()
}

/// Measures.
pub async fn rollout(cluster: &Cluster) -> Outcome<()> {
    let databases = cluster.tenant_databases().await?;
    let count = databases.len();
    let mut raw: Option<(usize, Duration)> = None;
    for concurrency in CONCURRENCIES {
        take_back(&databases).await?;
        let took = raw_driver(cluster, &databases, concurrency).await?;
        if raw.is_none_or(|(_, best)| took < best) {
            raw = Some((concurrency, took));
        }
    }
    let (concurrency, raw) = raw.ok_or("nothing was measured")?;
    take_back(&databases).await?;
    let serial = psql_loop(&databases).await?;
    take_back(&databases).await?;
    cluster.wait_for_schema(BEFORE, count).await?;
    let alone = cluster.roll_out("bench-rollout-alone", DEADLINE).await?;
    let rate = |took: Duration| count as f64 / took.as_secs_f64();
    row(
        &format!(
            "rollout of two migrations over {count} tenants; raw: the same statements, {concurrency} at a time, its best"
        ),
        &format!("{:.1} s, {:.0}/s", alone.as_secs_f64(), rate(alone)),
        &format!("{:.1} s, {:.0}/s", raw.as_secs_f64(), rate(raw)),
        &format!("{:.2}", rate(alone) / rate(raw)),
    );
    take_back(&databases).await?;
    cluster.wait_for_schema(BEFORE, count).await?;
    let visited = cluster.some_tenants(VISITED).await?;
    let (took, seen) = under_load(cluster, &visited, cluster.roll_out("bench-rollout", DEADLINE)).await;
    let took = took?;
    row(
        &format!(
            "failed requests during another one, {VISITED} of the tenants with a visitor each, {:.1} s",
            took.as_secs_f64()
        ),
        &seen.text(),
        "",
        "",
    );
    row(
        "the same beside one psql after the other",
        &format!("{:.1} s", alone.as_secs_f64()),
        &format!("{:.1} s", serial.as_secs_f64()),
        &format!("{:.2}", serial.as_secs_f64() / alone.as_secs_f64()),
    );
    let idle = cluster.roll_out("bench-rollout-idle", DEADLINE).await?;
    let begun = Instant::now();
    let options = cluster.migrator().await?;
    let ask = futures::stream::iter(&databases).map(|name| ask(options.clone(), name));
    ask.buffer_unordered(concurrency).try_collect::<Vec<_>>().await?;
    let asked = begun.elapsed();
    row(
        &format!("rollout with nothing to do, {count} tenants; raw: asking each, {concurrency} at a time"),
        &format!("{:.2} s", idle.as_secs_f64()),
        &format!("{:.2} s", asked.as_secs_f64()),
        &format!("{:.1}", asked.as_secs_f64() / idle.as_secs_f64()),
    );
    Ok(())
}

async fn raw_driver(cluster: &Cluster, databases: &[String], concurrency: usize) -> Outcome<Duration> {
    let (options, statements) = (cluster.migrator().await?, statements());
    let begun = Instant::now();
    let migrate = futures::stream::iter(databases).map(|name| {
        let (options, statements) = (options.clone().database(name), &statements);
        async move {
            let mut session = options.connect().await?;
            session.execute("SET ROLE maintenance_os_schema").await?;
            for statement in statements {
                session.execute(sqlx::raw_sql(AssertSqlSafe(statement.clone()))).await?;
            }
            session.close().await
        }
    });
    migrate.buffer_unordered(concurrency).try_collect::<Vec<_>>().await?;
    Ok(begun.elapsed())
}

async fn ask(options: PgConnectOptions, name: &str) -> Outcome<()> {
    let mut session = options.database(name).connect().await?;
    session.fetch_all(APPLIED).await?;
    session.close().await?;
    Ok(())
}

/// As people do it without a tool: a loop of psql on the server itself.
async fn psql_loop(databases: &[String]) -> Outcome<Duration> {
    let file = format!("SET ROLE maintenance_os_schema;\n{};\n", statements().join(";\n"));
    let names = databases.iter().map(|name| format!("'{name}'")).collect::<Vec<_>>().join(" ");
    let script = format!(
        "export PGOPTIONS='-c client_min_messages=warning'; file=$(cat); for name in {names}; do printf '%s' \"$file\" | psql -XqAt -v ON_ERROR_STOP=1 -U postgres -d \"$name\" > /dev/null || exit 1; done"
    );
    let begun = Instant::now();
    in_pod(&["sh", "-c", &script], &file).await?;
    Ok(begun.elapsed())
}

/// Every database is what it was under the release before; the marks say so too.
async fn take_back(databases: &[String]) -> Outcome<()> {
    let mut script = String::new();
    for name in databases {
        script.push_str(&format!(
            "\\connect \"{name}\"\n{TAKE_BACK}
             SELECT format('COMMENT ON DATABASE %I IS %L', current_database(), regexp_replace(shobj_description(oid, 'pg_database'), 'schema=.*', 'schema={BEFORE}_00000000')) FROM pg_database WHERE datname = current_database() \\gexec\n"
        ));
    }
    in_pod(&["psql", "-XqAt", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "template1"], &script).await
}

async fn in_pod(command: &[&str], input: &str) -> Outcome<()> {
    let mut child = Command::new("kubectl")
        .args(["-n", "databases", "exec", "-i", "pg-demo-1-0", "--"])
        .args(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let mut stdin = child.stdin.take().ok_or("kubectl has no input")?;
    stdin.write_all(input.as_bytes()).await?;
    drop(stdin);
    let status = tokio::time::timeout(DEADLINE, child.wait()).await??;
    if status.success() { Ok(()) } else { Err(format!("kubectl exec ended with {status}").into()) }
}
