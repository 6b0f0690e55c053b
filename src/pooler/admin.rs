//! PgBouncer's admin console, over the Unix socket in the shared directory.
//!
//! PgBouncer lets the user `pgbouncer` in there without a password when the peer has its own uid, and nobody else.

use std::future::Future;
use std::time::Duration;

use anyhow::{Context, bail};
use sqlx::postgres::{PgConnectOptions, PgRow, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, ValueRef};

use super::render::Place;

/// The longest an answer may take; a RELOAD of 1,000 entries takes 30 ms.
const ANSWER: Duration = Duration::from_secs(5);
/// The database of the console itself.
pub const CONSOLE: &str = "pgbouncer";
/// `KILL_CLIENT` and client numbers came with it.
const OLDEST: (u32, u32) = (1, 24);

/// A connection to the console.
pub struct Admin(PgConnection);

/// A line of `SHOW DATABASES`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Database {
    /// The entry's name.
    pub name: String,
    /// The server's host.
    pub host: String,
    /// The server's port.
    pub port: String,
    /// `dbname`, the database on the server.
    pub dbname: String,
    /// The user that every client would become; must be empty.
    pub force_user: String,
    /// `pool_size`.
    pub pool_size: String,
    /// `reserve_pool`.
    pub reserve_pool: String,
    /// `max_db_connections`.
    pub max_connections: String,
    /// Clients are made to wait.
    pub paused: bool,
}

/// A line of `SHOW CLIENTS`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// Grows with every connection.
    pub id: u64,
    /// The login.
    pub user: String,
    /// The entry.
    pub database: String,
}

impl Admin {
    /// Connects.
    ///
    /// # Errors
    /// PgBouncer does not run, does not answer or is too old.
    pub async fn connect(place: &Place) -> anyhow::Result<Self> {
        let options = PgConnectOptions::new_without_pgpass()
            .socket(&place.directory)
            .port(place.listen.port())
            .username("pgbouncer")
            .database(CONSOLE)
            .ssl_mode(PgSslMode::Disable)
            .statement_cache_capacity(0)
            .disable_statement_logging();
        let connecting = async { Ok(PgConnection::connect_with(&options).await?) };
        let mut admin = Self(answer("connecting to PgBouncer's admin console", connecting).await?);
        admin.version().await?;
        Ok(admin)
    }

    /// Ends the connection.
    pub async fn close(self) {
        // It is over either way.
        let _ = tokio::time::timeout(ANSWER, self.0.close()).await;
    }

    async fn version(&mut self) -> anyhow::Result<()> {
        let rows = self.show("SHOW VERSION").await?;
        let text = rows.first().map(|row| text(row, "version")).transpose()?.unwrap_or_default();
        let mut numbers = text.trim_start_matches("PgBouncer ").split('.').map(str::parse::<u32>);
        let (Some(Ok(major)), Some(Ok(minor))) = (numbers.next(), numbers.next()) else {
            bail!("PgBouncer calls itself {text:?}, which is no version");
        };
        if (major, minor) < OLDEST {
            bail!("{text} is too old, {}.{} is the oldest that will do", OLDEST.0, OLDEST.1);
        }
        Ok(())
    }

    /// Makes PgBouncer read its files.
    pub async fn reload(&mut self) -> anyhow::Result<()> {
        self.command("RELOAD").await
    }

    /// Has the connections to an entry's server closed as soon as nobody uses them, so that the next ones have its settings.
    pub async fn reconnect(&mut self, database: &str) -> anyhow::Result<()> {
        match self.command(&format!("RECONNECT \"{database}\"")).await {
            // Nobody has connected yet, or not any more.
            Err(error) if format!("{error:#}").contains("no such database") => Ok(()),
            result => result,
        }
    }

    /// Ends every connection to an entry that should be gone.
    pub async fn kill(&mut self, database: &str) -> anyhow::Result<()> {
        // Names that are ours have no quote; one that is not ours may.
        match self.command(&format!("KILL \"{}\"", database.replace('"', "\"\""))).await {
            Err(error) if format!("{error:#}").contains("no such database") => Ok(()),
            result => result,
        }
    }

    /// Ends one client.
    pub async fn kill_client(&mut self, id: u64) -> anyhow::Result<()> {
        match self.command(&format!("KILL_CLIENT {id}")).await {
            // It went by itself.
            Err(error) if format!("{error:#}").contains("client not found") => Ok(()),
            result => result,
        }
    }

    /// `SHOW DATABASES` without the console's own.
    pub async fn databases(&mut self) -> anyhow::Result<Vec<Database>> {
        let rows = self.show("SHOW DATABASES").await?;
        let databases = rows.iter().map(|row| {
            Ok(Database {
                name: text(row, "name")?,
                host: text(row, "host")?,
                port: text(row, "port")?,
                dbname: text(row, "database")?,
                force_user: text(row, "force_user")?,
                pool_size: text(row, "pool_size")?,
                reserve_pool: text(row, "reserve_pool_size")?,
                max_connections: text(row, "max_connections")?,
                paused: text(row, "paused")? != "0",
            })
        });
        let databases: anyhow::Result<Vec<_>> = databases.collect();
        Ok(databases?.into_iter().filter(|database| database.name != CONSOLE).collect())
    }

    /// `SHOW CLIENTS`, the console's own included.
    pub async fn clients(&mut self) -> anyhow::Result<Vec<Client>> {
        let rows = self.show("SHOW CLIENTS").await?;
        let client = |row: &PgRow| {
            let id = text(row, "id")?.parse().context("reading a client's number")?;
            Ok(Client { id, user: text(row, "user")?, database: text(row, "database")? })
        };
        rows.iter().map(client).collect()
    }

    async fn command(&mut self, command: &str) -> anyhow::Result<()> {
        self.show(command).await.map(drop)
    }

    async fn show(&mut self, command: &str) -> anyhow::Result<Vec<PgRow>> {
        // The console knows the simple protocol only, which is what a raw query uses.
        let query = sqlx::raw_sql(AssertSqlSafe(command.to_owned()));
        let rows = async { Ok(query.fetch_all(&mut self.0).await?) };
        answer(&format!("PgBouncer's {command}"), rows).await
    }
}

async fn answer<T>(what: &str, future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    match tokio::time::timeout(ANSWER, future).await {
        Ok(result) => result.with_context(|| what.to_owned()),
        Err(_) => bail!("{what}: no answer within {} s", ANSWER.as_secs()),
    }
}

/// A column as text, empty for null: the simple protocol sends text, whatever the type.
fn text(row: &PgRow, column: &str) -> anyhow::Result<String> {
    let value = row.try_get_raw(column).with_context(|| format!("PgBouncer shows no column {column}"))?;
    if value.is_null() {
        return Ok(String::new());
    }
    Ok(value.as_str().map_err(|error| anyhow::anyhow!("reading column {column}: {error}"))?.to_owned())
}
