//! Brings one database's schema up: as the migrator, at the server itself, one migration after the other.

use std::time::Duration;

use futures::TryStreamExt;
use sqlx::postgres::{PgDatabaseError, PgErrorPosition};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, Executor, PgConnection, Row};

use crate::desired::migration::{self, APPLIED, Applied, INDEX, LOCK, Refused, Step};
use crate::desired::names;
use crate::desired::server::Migration;
use crate::desired::sql::identifier;

/// Attempts to get a lock, before somebody has to look.
const ATTEMPTS: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// How careful a migration is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// Longest wait for a lock.
    pub lock: Duration,
    /// Longest statement.
    pub statement: Duration,
}

/// Why a database was not brought up.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// What it has is not what we have.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The server refused a statement.
    #[error("{file}, line {line}: {said}")]
    Statement {
        /// Version and name.
        file: String,
        /// Line of the file.
        line: usize,
        /// What the server said.
        said: String,
    },
    /// Another operator is at it.
    #[error("somebody else is migrating this database")]
    Busy,
    /// It did not answer.
    #[error("the server did not answer")]
    Server(#[source] sqlx::Error),
}

impl MigrateError {
    /// Whether the same may go well a moment later.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Busy | Self::Server(_))
    }
}

/// Connects with `options` and applies what is missing up to `target`. Returns how many it has now.
///
/// # Errors
/// See [`MigrateError`]. What was applied before the failure stays and is not applied again.
pub async fn bring_up(
    options: sqlx::postgres::PgConnectOptions,
    known: &[Migration<'_>],
    target: &str,
    patience: Patience,
) -> Result<usize, MigrateError> {
    // Tables are made where the search path begins.
    let options = options.options([
        ("search_path", "public,pg_temp".to_owned()),
        ("lock_timeout", format!("{}ms", patience.lock.as_millis())),
        ("statement_timeout", format!("{}ms", patience.statement.as_millis())),
        ("idle_in_transaction_session_timeout", "60s".to_owned()),
    ]);
    let mut session = options.connect().await.map_err(MigrateError::Server)?;
    let applied = apply(&mut session, known, target).await;
    // It is over either way.
    let _ = session.close().await;
    applied
}

async fn apply(session: &mut PgConnection, known: &[Migration<'_>], target: &str) -> Result<usize, MigrateError> {
    let role = format!("SET ROLE {}", identifier(names::SCHEMA_ROLE));
    execute(session, &role).await.map_err(MigrateError::Server)?;
    let free: bool = sqlx::query_scalar(LOCK).fetch_one(&mut *session).await.map_err(MigrateError::Server)?;
    if !free {
        return Err(MigrateError::Busy);
    }
    let rows = sqlx::query(APPLIED).fetch_all(&mut *session).await.map_err(MigrateError::Server)?;
    let applied: Vec<_> =
        rows.iter().map(|row| Applied { version: row.get("version"), checksum: row.get("checksum") }).collect();
    let pending = migration::pending(known, &applied, target)?;
    for migration in pending {
        for step in migration::steps(migration) {
            run(session, migration, &step).await?;
        }
    }
    Ok(applied.len() + pending.len())
}

/// Runs a step; one that waited too long for a lock is tried again, because whoever held it may be gone.
async fn run(session: &mut PgConnection, migration: &Migration<'_>, step: &Step) -> Result<(), MigrateError> {
    let mut pause = FIRST_PAUSE;
    for attempt in 1.. {
        let mut done = 0;
        let result = match &step.index {
            Some(index) => make_index(session, index, &step.text).await,
            None => execute_counting(session, &step.text, &mut done).await,
        };
        let Err(error) = result else { return Ok(()) };
        // Of a failed transaction nothing is left; outside of one there is nothing to roll back.
        let is_locked = code(&error).as_deref() == Some("55P03");
        if !is_locked || attempt == ATTEMPTS {
            return Err(failed(migration, step, done, error));
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
    unreachable!("the loop ends by itself")
}

/// An index that is made beside the traffic leaves a broken one behind when it fails, which has to go first.
async fn make_index(session: &mut PgConnection, name: &str, text: &str) -> Result<(), sqlx::Error> {
    let valid: Option<bool> = sqlx::query_scalar(INDEX).bind(name).fetch_optional(&mut *session).await?;
    match valid {
        Some(true) => return Ok(()),
        Some(false) => execute(session, &format!("DROP INDEX CONCURRENTLY public.{}", identifier(name))).await?,
        None => {}
    }
    execute(session, text).await
}

async fn execute(session: &mut PgConnection, text: &str) -> Result<(), sqlx::Error> {
    session.execute(sqlx::raw_sql(AssertSqlSafe(text.to_owned()))).await.map(drop)
}

/// `done`: statements of the text that went well.
async fn execute_counting(session: &mut PgConnection, text: &str, done: &mut usize) -> Result<(), sqlx::Error> {
    let mut results = session.fetch_many(sqlx::raw_sql(AssertSqlSafe(text.to_owned())));
    while let Some(result) = results.try_next().await? {
        *done += usize::from(result.is_left());
    }
    Ok(())
}

fn code(error: &sqlx::Error) -> Option<String> {
    error.as_database_error().and_then(sqlx::error::DatabaseError::code).map(std::borrow::Cow::into_owned)
}

fn failed(migration: &Migration<'_>, step: &Step, done: usize, error: sqlx::Error) -> MigrateError {
    let Some(database) = error.as_database_error().and_then(|error| error.try_downcast_ref::<PgDatabaseError>()) else {
        return MigrateError::Server(error);
    };
    // Somebody ended the session, or the server is going down.
    if database.code().starts_with("57P") {
        return MigrateError::Server(error);
    }
    let line = match database.position() {
        Some(PgErrorPosition::Original(position)) => migration::line_at(step, position),
        _ => migration::line_of(step, done),
    };
    let detail = database.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
    MigrateError::Statement {
        file: format!("{}_{}.sql", migration.version, migration.name),
        line,
        said: format!("{} [{}]{detail}", database.message(), database.code()),
    }
}
