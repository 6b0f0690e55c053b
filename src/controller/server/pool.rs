//! The template and the warm pool of a server.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures::StreamExt;
use futures::future::join_all;
use rand::RngCore;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, Executor, PgConnection};
use tokio_util::sync::CancellationToken;

use crate::apply::ApplyError;
use crate::controller::context::Context;
use crate::controller::servers::Server;
use crate::desired::catalogue::Catalogue;
use crate::desired::server::{self, Migration};
use crate::desired::{migration, names};
use crate::error::chain;

/// As many as one server clones at a time.
const REFILLS_AT_A_TIME: usize = 2;
/// A burst of Tenants is over when nothing was claimed for this time.
const QUIET: Duration = Duration::from_millis(500);
/// The longest that the refill of the pool waits for the end of a burst.
const LONGEST_WAY: Duration = Duration::from_secs(10);
const MIGRATION_TIMEOUT: Duration = Duration::from_secs(300);

/// The app's migrations.
pub fn migrations() -> Vec<Migration<'static>> {
    crate::app::migrations()
        .iter()
        .map(|migration| Migration { version: migration.version, name: migration.name, sql: migration.sql })
        .collect()
}

/// Builds the template of the current schema if it is not there. `password`: the migrator's.
///
/// # Errors
/// The server refused it or did not answer, or a migration failed; the next attempt begins anew.
pub async fn build_template(server: &Server, password: &str) -> anyhow::Result<()> {
    let migrations = migrations();
    let schema = server::schema(&migrations);
    let template = names::template(&schema);
    let begin = |catalogue: &Catalogue| {
        (!catalogue.databases.contains_key(&template)).then(|| server::begin_template(catalogue))
    };
    if let Some(batches) = server.look(begin).context("the server was not asked yet")? {
        tracing::info!(server = server.name, schema, "building the template");
        for batch in batches {
            server.run(&batch, None).await?;
        }
        let work = fill_template(server, password, &migrations);
        tokio::time::timeout(MIGRATION_TIMEOUT, work)
            .await
            .with_context(|| format!("migrating the template on {}: it takes too long", server.name))??;
        server.run(&server::finish_template(&schema), None).await?;
    }
    server.set_schema(Some(schema));
    Ok(())
}

/// Builds the template without tables if it is not there; backups are restored into clones of it. `password`: the migrator's.
///
/// # Errors
/// The server refused it or did not answer; the next attempt begins anew.
pub async fn build_bare(server: &Server, password: &str) -> anyhow::Result<()> {
    let name = server::bare();
    let begin =
        |catalogue: &Catalogue| (!catalogue.databases.contains_key(&name)).then(|| server::begin_template(catalogue));
    let Some(batches) = server.look(begin).context("the server was not asked yet")? else { return Ok(()) };
    tracing::info!(server = server.name, name, "building the template without tables");
    for batch in batches {
        server.run(&batch, None).await?;
    }
    let work = async {
        prepare(server).await?;
        let mut migrator = enter_as_migrator(server, password).await?;
        execute(&mut migrator, server::bare_defaults()).await.context("granting in the template without tables")?;
        migrator.close().await.context("leaving the template without tables")
    };
    tokio::time::timeout(MIGRATION_TIMEOUT, work)
        .await
        .with_context(|| format!("preparing the template without tables on {}: it takes too long", server.name))??;
    for batch in server.look(server::finish_bare).context("the server was not asked yet")? {
        server.run(&batch, None).await?;
    }
    Ok(())
}

async fn fill_template(server: &Server, password: &str, migrations: &[Migration<'_>]) -> anyhow::Result<()> {
    let doing = |what: &str| format!("{what} the template on server {}", server.name);
    prepare(server).await?;
    let mut migrator = enter_as_migrator(server, password).await?;
    execute(&mut migrator, server::grant_defaults()).await.with_context(|| doing("granting in"))?;
    for migration in migrations {
        for step in migration::steps(migration) {
            execute(&mut migrator, step.text).await.with_context(|| {
                format!("applying migration {}_{}, line {}", migration.version, migration.name, step.line)
            })?;
        }
    }
    migrator.close().await.with_context(|| doing("leaving"))
}

/// What the provisioner says in a template that is being built.
async fn prepare(server: &Server) -> anyhow::Result<()> {
    let connection = server.connection();
    let doing = |what: &str| format!("{what} the template on server {}", server.name);
    let mut provisioner = connection
        .options(names::TEMPLATE_BUILD, &connection.username, &connection.password)
        .connect()
        .await
        .with_context(|| doing("entering"))?;
    execute(&mut provisioner, server::prepare_template()).await.with_context(|| doing("preparing"))?;
    provisioner.close().await.with_context(|| doing("leaving"))
}

/// The migrator in a template that is being built.
async fn enter_as_migrator(server: &Server, password: &str) -> anyhow::Result<PgConnection> {
    // Tables are made where the search path begins; the provisioner's is pinned elsewhere.
    let options = server
        .connection()
        .options(names::TEMPLATE_BUILD, names::MIGRATOR, password)
        .options([("search_path", "public,pg_temp")]);
    options.connect().await.with_context(|| format!("entering the template on server {} as the migrator", server.name))
}

async fn execute(connection: &mut PgConnection, text: String) -> Result<(), sqlx::Error> {
    connection.execute(sqlx::raw_sql(AssertSqlSafe(text))).await.map(drop)
}

/// Clones the template for a tenant that found no warm database; nothing to do when one has come meanwhile.
///
/// # Errors
/// The server refused it or did not answer.
pub async fn clone_for_tenant(server: &Server) -> Result<(), ApplyError> {
    let _turn = server.turn_to_clone().await;
    if server.warm() > 0 { Ok(()) } else { clone_one(server).await }
}

/// Clones the template into one more warm database.
async fn clone_one(server: &Server) -> Result<(), ApplyError> {
    let schema = server
        .facts(0, 0)
        .schema
        .ok_or_else(|| ApplyError::Stale(format!("the template on {} is not there any more", server.name)))?;
    let id = format!("{:08x}", rand::rng().next_u32());
    for batch in server::clone_template(&schema, server.term, &id) {
        server.run(&batch, None).await?;
    }
    Ok(())
}

/// Keeps every server's warm pool full until `stop`.
pub async fn refill(context: Arc<Context>, stop: CancellationToken) {
    while !stop.is_cancelled() {
        tokio::select! {
            () = context.refill.notified() => {}
            () = tokio::time::sleep(Duration::from_secs(30)) => {}
            () = stop.cancelled() => return,
        }
        join_all(context.servers.all().iter().map(|server| refill_one(&context, server, &stop))).await;
    }
}

async fn refill_one(context: &Context, server: &Server, stop: &CancellationToken) {
    let facts = server.facts(0, 0);
    if facts.open.is_err() {
        return;
    }
    let wanted = usize::try_from(facts.spec.warm_pool.size).unwrap_or_default();
    let missing = wanted.saturating_sub(server.warm());
    let clones = futures::stream::iter(0..missing)
        .take_until(stop.cancelled())
        .map(|_| async {
            give_way(context, server).await;
            let _turn = server.turn_to_clone().await;
            clone_one(server).await
        })
        .buffer_unordered(REFILLS_AT_A_TIME);
    let mut clones = std::pin::pin!(clones);
    while let Some(result) = clones.next().await {
        if let Err(error) = result {
            tracing::warn!(
                server = server.name,
                error = chain(&error),
                "could not fill the warm pool, trying again later"
            );
            return;
        }
    }
}

/// Tenants that somebody waits for come before stock: a clone costs the server as much as everything else that a tenant
/// needs. Bounded, so that a steady stream of Tenants does not find the pool empty for ever.
async fn give_way(context: &Context, server: &Server) {
    let begun = Instant::now();
    let busy = || server.was_claimed_within(QUIET) || context.fleet.is_awaited();
    while begun.elapsed() < LONGEST_WAY && busy() {
        tokio::time::sleep(QUIET / 5).await;
    }
}
