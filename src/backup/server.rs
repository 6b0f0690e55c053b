//! PostgreSQL's side of a backup: who answers, whose database it is, and how many rows each table has.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, bail, ensure};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, PgConnection, Row};
use uuid::Uuid;

use crate::api::server::SslMode;
use crate::desired::database::Mark;
use crate::desired::sql::identifier;

/// Said when a connection begins, because it wins over what somebody set for the database or the role: limits that would cut
/// a long read short, already at its first question, and what would show less than all.
const CALM: [(&str, &str); 5] = [
    ("statement_timeout", "0"),
    ("lock_timeout", "0"),
    ("idle_in_transaction_session_timeout", "0"),
    ("idle_session_timeout", "0"),
    ("row_security", "off"),
];

/// A server, reached directly and not by its pooler.
#[derive(Clone, Debug)]
pub struct Server {
    /// Name of the DatabaseServer.
    pub name: String,
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// PEM file with its certificate authority.
    pub ca: Option<PathBuf>,
    /// How the connection is encrypted.
    pub ssl_mode: SslMode,
    /// Which PostgreSQL must answer.
    pub system_identifier: Option<String>,
}

/// Who connects.
#[derive(Clone)]
pub struct Login {
    /// The role.
    pub username: String,
    /// Its password.
    pub password: String,
}

impl Server {
    /// Connects; the search path is pinned, so that nothing in a database can stand in for PostgreSQL's own functions.
    ///
    /// # Errors
    /// The server is away or refuses.
    pub async fn connect(&self, login: &Login, database: &str) -> anyhow::Result<PgConnection> {
        let mode = match self.ssl_mode {
            SslMode::VerifyFull => PgSslMode::VerifyFull,
            SslMode::VerifyCa => PgSslMode::VerifyCa,
            SslMode::Require => PgSslMode::Require,
            SslMode::Prefer => PgSslMode::Prefer,
        };
        let options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(&login.username)
            .password(&login.password)
            .database(database)
            .ssl_mode(mode)
            .application_name("maintenance-os backup")
            .options(CALM)
            .options([("search_path", "pg_catalog,pg_temp")]);
        let options = if let Some(ca) = &self.ca { options.ssl_root_cert(ca) } else { options };
        let connected = options.connect().await;
        connected.with_context(|| {
            format!("connecting to database {database} on {}:{} as {}", self.host, self.port, login.username)
        })
    }

    /// The same for PostgreSQL's own programs. The password goes by the environment: a command line can be read by everybody.
    pub fn environment(&self, login: &Login, database: &str) -> Vec<(&'static str, String)> {
        let mut variables = vec![
            ("PGHOST", self.host.clone()),
            ("PGPORT", self.port.to_string()),
            ("PGUSER", login.username.clone()),
            ("PGPASSWORD", login.password.clone()),
            ("PGDATABASE", database.to_owned()),
            ("PGSSLMODE", self.ssl_mode.as_str().to_owned()),
            ("PGAPPNAME", "maintenance-os backup".to_owned()),
            ("PGCONNECT_TIMEOUT", "10".to_owned()),
            ("PGOPTIONS", CALM.map(|(name, value)| format!("-c {name}={value}")).join(" ")),
        ];
        match (&self.ca, self.ssl_mode) {
            (Some(ca), _) => variables.push(("PGSSLROOTCERT", ca.display().to_string())),
            (None, SslMode::VerifyFull | SslMode::VerifyCa) => variables.push(("PGSSLROOTCERT", "system".to_owned())),
            (None, SslMode::Require | SslMode::Prefer) => {}
        }
        variables
    }

    /// Which PostgreSQL this is, as (system identifier, version).
    ///
    /// # Errors
    /// It does not answer, or another one answers than the one that is meant.
    pub async fn identify(&self, connection: &mut PgConnection) -> anyhow::Result<(String, String)> {
        let row = sqlx::query(
            "SELECT system_identifier::text AS identifier, current_setting('server_version') AS version FROM pg_control_system()",
        );
        let row = row.fetch_one(connection).await.context("asking PostgreSQL for its identity")?;
        let (found, version): (String, String) = (row.try_get("identifier")?, row.try_get("version")?);
        if let Some(expected) = &self.system_identifier {
            ensure!(
                *expected == found,
                "another PostgreSQL answers under the name {}:{}: its system identifier is {found} and not {expected}. \
                 Nothing was read from it. If the server was restored or replaced on purpose, the DatabaseServer has to be \
                 told first",
                self.host,
                self.port
            );
        }
        Ok((found, version.split(' ').next().unwrap_or_default().to_owned()))
    }
}

/// One moment of a tenant's database, held for as long as this lives.
pub struct Snapshot {
    connection: PgConnection,
    /// What `pg_dump --snapshot` wants.
    pub id: String,
    /// PostgreSQL's identity.
    pub system_identifier: String,
    /// PostgreSQL's version.
    pub version: String,
    /// The schema in it.
    pub schema: String,
}

impl Snapshot {
    /// Opens `database` and holds the moment. It has to be the tenant's, or the central one where `tenant` is
    /// [`CENTRAL`](super::keys::CENTRAL).
    ///
    /// # Errors
    /// The server is away, is another one, or the database is not what it should be.
    pub async fn open(server: &Server, login: &Login, database: &str, tenant: Uuid) -> anyhow::Result<Self> {
        let mut connection = server.connect(login, database).await?;
        let (system_identifier, version) = server.identify(&mut connection).await?;
        calm(&mut connection).await?;
        let schema = if tenant == super::keys::CENTRAL {
            central(&mut connection, database).await?
        } else {
            marked(&mut connection, database, tenant).await?.schema
        };
        let held = async {
            sqlx::query("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").execute(&mut connection).await?;
            sqlx::query_scalar("SELECT pg_export_snapshot()").fetch_one(&mut connection).await
        };
        let id = held.await.with_context(|| format!("holding a snapshot of database {database}"))?;
        Ok(Self { connection, id, system_identifier, version, schema })
    }

    /// Rows of every table in this moment.
    ///
    /// # Errors
    /// A table cannot be read.
    pub async fn rows(&mut self) -> anyhow::Result<BTreeMap<String, i64>> {
        rows(&mut self.connection).await
    }
}

/// The mark of a tenant's database.
async fn marked(connection: &mut PgConnection, database: &str, tenant: Uuid) -> anyhow::Result<Mark> {
    let comment: Option<String> = sqlx::query_scalar(
        "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = current_database()",
    )
    .fetch_one(connection)
    .await
    .with_context(|| format!("reading the mark of database {database}"))?;
    match comment.as_deref().map(Mark::parse) {
        Some(Some(mark)) if mark.uuid == tenant => Ok(mark),
        Some(Some(mark)) => bail!("database {database} is marked as tenant {}: nothing was read from it", mark.uuid),
        _ => bail!("database {database} carries no mark of ours: nothing was read from it"),
    }
}

/// The schema of the central database: its newest migration.
async fn central(connection: &mut PgConnection, database: &str) -> anyhow::Result<String> {
    let newest = "SELECT max(version)::text FROM public._sqlx_migrations WHERE success AND to_regclass('public.subscriptions') IS NOT NULL";
    let newest: Option<String> = sqlx::query_scalar(newest)
        .fetch_one(connection)
        .await
        .with_context(|| format!("looking whether {database} is a central database"))?;
    newest.with_context(|| format!("database {database} is no central database: nothing was read from it"))
}

/// As [`CALM`], for what PostgreSQL knows since 17 only.
async fn calm(connection: &mut PgConnection) -> anyhow::Result<()> {
    let calm = "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'transaction_timeout'";
    sqlx::query(calm).execute(connection).await.context("lifting time limits for the backup").map(drop)
}

/// Rows of every table in the database that `connection` is in, by `schema.table`. A partitioned table's are its
/// partitions'.
///
/// # Errors
/// A table cannot be read.
pub async fn rows(connection: &mut PgConnection) -> anyhow::Result<BTreeMap<String, i64>> {
    calm(connection).await?;
    let tables = sqlx::query(
        "SELECT n.nspname::text AS schema, c.relname::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
          WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'information_schema'
            AND NOT starts_with(n.nspname, 'pg_')
            AND NOT EXISTS (SELECT FROM pg_depend d
                             WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e')
          ORDER BY 1, 2",
    );
    let tables = tables.fetch_all(&mut *connection).await.context("listing tables")?;
    let mut counts = BTreeMap::new();
    for table in tables {
        let (schema, name): (String, String) = (table.try_get("schema")?, table.try_get("name")?);
        let count = format!("SELECT count(*) FROM ONLY {}.{}", identifier(&schema), identifier(&name));
        let count: i64 = sqlx::query_scalar(AssertSqlSafe(count))
            .fetch_one(&mut *connection)
            .await
            .with_context(|| format!("counting the rows of table {schema}.{name}"))?;
        counts.insert(format!("{schema}.{name}"), count);
    }
    Ok(counts)
}
