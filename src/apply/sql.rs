//! Runs statements on a server.

use std::time::Duration;

use sqlx::postgres::PgPool;
use sqlx::{AssertSqlSafe, Executor};

use super::ApplyError;
use crate::desired::sql::Batch;

/// Longest that a batch may take: a clone of a large template takes seconds, a rename waits up to five for sessions.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Runs a batch as one transaction, or as one statement outside of one.
///
/// # Errors
/// The server refused it, or did not answer in time; then it may have happened nevertheless.
pub async fn run(pool: &PgPool, server: &str, batch: &Batch) -> Result<(), ApplyError> {
    let doing = || format!("run on server {server}: {}", batch.summary());
    let work = async {
        let mut connection = pool.acquire().await?;
        // One message: PostgreSQL runs several statements of one message in one transaction.
        connection.execute(sqlx::raw_sql(AssertSqlSafe(batch.text()))).await.map(drop)
    };
    match tokio::time::timeout(TIMEOUT, work).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(source)) => Err(ApplyError::Sql { doing: doing(), source }),
        Err(_) => Err(ApplyError::Sql { doing: doing(), source: sqlx::Error::PoolTimedOut }),
    }
}

/// The server cannot be talked to, as opposed to having refused a statement.
pub fn is_away(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) => true,
        // Connection lost, or it has crashed or is starting. Not a session that somebody ended, nor a pool that is busy.
        sqlx::Error::Database(error) => {
            error.code().is_some_and(|code| code.starts_with("08") || code == "57P02" || code == "57P03")
        }
        _ => false,
    }
}

/// The server refuses the login or the right.
pub fn is_denied(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
    code.is_some_and(|code| code == "42501" || code.starts_with("28"))
}
