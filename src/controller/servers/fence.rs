//! The fence on a server: whoever led before this process can do nothing on it any more (decision D17).

use std::time::Duration;

use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, Executor, PgConnection};

use super::Connection;
use crate::desired;
use crate::observe::inventory;

/// Why a server was not taken over.
#[derive(Debug)]
pub enum TakeError {
    /// It did not answer.
    Server(sqlx::Error),
    /// This DatabaseServer stands for it.
    Held(String),
}

impl From<sqlx::Error> for TakeError {
    fn from(error: sqlx::Error) -> Self {
        Self::Server(error)
    }
}

/// Takes a server over for this term of leadership. The term that is written is higher than any before it, also when the
/// Lease was deleted and counts anew.
///
/// `claim` is asked first, with the server's system identifier: two objects that stand for one server would end each
/// other's sessions in turn.
///
/// # Errors
/// The server did not answer; `claim` named another object, and nothing was done.
pub async fn take_over(
    connection: &Connection,
    epoch: u64,
    claim: impl FnOnce(&str) -> Result<(), String>,
) -> Result<i64, TakeError> {
    let work = async {
        let mut session = connection.options("postgres", &connection.username, &connection.password).connect().await?;
        claim(&inventory::system_identifier(&mut session).await?).map_err(TakeError::Held)?;
        for text in desired::server::fence() {
            session.execute(sqlx::raw_sql(AssertSqlSafe(text))).await?;
        }
        let before = stored_epoch(&mut session).await?;
        let catalogue = inventory::all(&mut session).await?.catalogue;
        let epoch = i64::try_from(epoch).unwrap_or(i64::MAX - 1).max(before + 1);
        session.execute(sqlx::raw_sql(AssertSqlSafe(desired::server::set_fence(epoch, &catalogue).text()))).await?;
        session.close().await?;
        Ok(epoch)
    };
    tokio::time::timeout(Duration::from_secs(15), work).await.unwrap_or(Err(sqlx::Error::PoolTimedOut.into()))
}

async fn stored_epoch(session: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(AssertSqlSafe(desired::server::fence_epoch())).fetch_one(session).await
}

/// What every connection of the operator does first: it waits while another leader takes over, and is refused when one has.
pub async fn join(session: &mut PgConnection, epoch: i64) -> Result<(), sqlx::Error> {
    session.execute(sqlx::raw_sql(AssertSqlSafe(desired::server::join_fence()))).await?;
    let now = stored_epoch(session).await?;
    if now == epoch {
        Ok(())
    } else {
        Err(sqlx::Error::Protocol(format!("another operator has taken the server over (term {now}, ours is {epoch})")))
    }
}
