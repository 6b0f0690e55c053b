//! What people see of a tenant's queue, and what they can do about jobs that failed.

use std::time::Duration;

use ::redis::RedisResult;
use jiff::Timestamp;
use serde::Deserialize;
use uuid::Uuid;

use super::job::{Document, TenantJob, unique_name};
use super::ring::Ring;
use super::store::Store;
use crate::tenancy::redis::Purpose;

/// One tenant's queue, to be looked at.
pub struct QueueView {
    tenant: Uuid,
    store: Store,
    ring: Ring,
}

/// What a queue holds.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Held {
    /// Jobs that wait for their turn.
    pub waiting: u64,
    /// Jobs that wait for their time.
    pub later: u64,
    /// Jobs that are being done.
    pub running: u64,
    /// Jobs that were given up.
    pub failed: u64,
}

/// One job, as people see it.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedJob {
    /// Its id.
    pub id: String,
    /// What it is called; empty where that cannot be read.
    pub kind: String,
    /// When it was queued.
    pub queued_at: Option<Timestamp>,
    /// How often it was begun.
    pub attempts: u32,
    /// Why it failed last.
    pub error: Option<String>,
    /// When it was given up, or when it is due.
    pub at: Option<Timestamp>,
    /// How far it is.
    pub progress: Option<Progress>,
}

/// How far a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct Progress {
    /// So much is done,
    pub done: u64,
    /// of so much, where that is known.
    pub of: Option<u64>,
}

/// Where a job is.
#[derive(Debug, Clone, PartialEq)]
pub enum Place {
    /// It waits, or is tried again: because of that error.
    Waiting(Option<String>),
    /// It is being done.
    Running(Option<Progress>),
    /// It was given up.
    Failed(String),
    /// It is done, was never queued, or Redis lost it.
    Gone,
}

impl QueueView {
    pub(super) fn new(tenant: Uuid, store: Store, ring: Ring) -> Self {
        Self { tenant, store, ring }
    }

    /// How many.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn held(&self) -> RedisResult<Held> {
        let keys = self.store.keys();
        let mut ask = ::redis::pipe();
        ask.cmd("LLEN").arg(keys.ready());
        for key in [keys.later(), keys.running(), keys.dead()] {
            ask.cmd("ZCARD").arg(key);
        }
        let (waiting, later, running, failed) = ask.query_async(&mut self.line()).await?;
        Ok(Held { waiting, later, running, failed })
    }

    /// Those that are being done.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn running(&self, most: usize) -> RedisResult<Vec<QueuedJob>> {
        self.of(&self.store.keys().running(), "ZRANGE", most).await
    }

    /// Those that wait for their turn, the next one first.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn waiting(&self, most: usize) -> RedisResult<Vec<QueuedJob>> {
        self.of(self.store.keys().ready(), "LRANGE", most).await
    }

    /// Those that wait for their time, the next one first.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn later(&self, most: usize) -> RedisResult<Vec<QueuedJob>> {
        self.of(&self.store.keys().later(), "ZRANGE", most).await
    }

    /// Those that were given up, the last one first.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn failed(&self, most: usize) -> RedisResult<Vec<QueuedJob>> {
        self.of(&self.store.keys().dead(), "ZREVRANGE", most).await
    }

    /// Lets failed jobs be tried again, from their first attempt; returns how many.
    ///
    /// # Errors
    /// Redis is away, or refuses to take more.
    pub async fn retry(&self, ids: &[String]) -> RedisResult<u64> {
        if ids.is_empty() {
            return Ok(0);
        }
        let count = self.store.revive(ids).await?;
        self.ring.wake(&[(self.tenant, Duration::ZERO)]).await?;
        Ok(count)
    }

    /// Removes a failed job for good; returns how many there were, which is 0 where it is no failed one any more.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn discard(&self, id: &str) -> RedisResult<u64> {
        self.store.discard(&[id.to_owned()]).await
    }

    /// The same for all that failed.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn discard_all(&self) -> RedisResult<u64> {
        self.store.discard(&[]).await
    }

    /// Where the job of that kind and [`TenantJob::unique_key`] is.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn find<J: TenantJob>(&self, key: &str) -> RedisResult<Place> {
        let keys = self.store.keys();
        let ask = ::redis::cmd("HGET").arg(keys.unique()).arg(unique_name::<J>(key)).to_owned();
        let id: Option<String> = self.store.redis().query(Purpose::Default, &ask).await?;
        let Some(id) = id else { return Ok(Place::Gone) };
        let mut ask = ::redis::pipe();
        ask.cmd("HEXISTS").arg(keys.jobs()).arg(&id).cmd("ZSCORE").arg(keys.dead()).arg(&id);
        ask.cmd("ZSCORE").arg(keys.running()).arg(&id).cmd("HGET").arg(keys.errors()).arg(&id);
        ask.cmd("HGET").arg(keys.progress()).arg(&id);
        let (exists, dead, running, error, progress): Answers = ask.query_async(&mut self.line()).await?;
        Ok(match (exists, dead, running) {
            (false, ..) => Place::Gone,
            (_, Some(_), _) => Place::Failed(error.unwrap_or_default()),
            (_, _, Some(_)) => Place::Running(progress.as_deref().and_then(read_progress)),
            _ => Place::Waiting(error),
        })
    }

    async fn of(&self, key: &str, command: &str, most: usize) -> RedisResult<Vec<QueuedJob>> {
        let last = i64::try_from(most).unwrap_or(i64::MAX) - 1;
        let mut range = ::redis::cmd(command);
        range.arg(key).arg(0).arg(last);
        let scored: Vec<(String, Option<f64>)> = if command == "LRANGE" {
            let ids: Vec<String> = self.store.redis().query(Purpose::Default, &range).await?;
            ids.into_iter().map(|id| (id, None)).collect()
        } else {
            let scored: Vec<(String, f64)> =
                self.store.redis().query(Purpose::Default, range.arg("WITHSCORES")).await?;
            scored.into_iter().map(|(id, at)| (id, Some(at))).collect()
        };
        if scored.is_empty() {
            return Ok(vec![]);
        }
        let (keys, ids) = (self.store.keys(), scored.iter().map(|(id, _)| id.as_str()).collect::<Vec<_>>());
        let mut ask = ::redis::pipe();
        for key in [keys.jobs(), keys.attempts(), keys.errors(), keys.progress()] {
            ask.cmd("HMGET").arg(key).arg(&ids);
        }
        let columns: (Column<Vec<u8>>, Column<u32>, Column<String>, Column<String>) =
            ask.query_async(&mut self.line()).await?;
        let rows = scored.into_iter().zip(columns.0).zip(columns.1).zip(columns.2).zip(columns.3);
        Ok(rows
            .map(|(((((id, at), document), attempts), error), progress)| {
                let document = document.and_then(|text| serde_json::from_slice::<Document>(&text).ok());
                QueuedJob {
                    id,
                    queued_at: document.as_ref().map(|document| document.queued_at),
                    kind: document.map(|document| document.kind).unwrap_or_default(),
                    attempts: attempts.unwrap_or_default(),
                    error,
                    at: at.and_then(moment),
                    progress: progress.as_deref().and_then(read_progress),
                }
            })
            .collect())
    }

    fn line(&self) -> crate::tenancy::redis::RedisLine {
        self.store.redis().line(Purpose::Default)
    }
}

/// What is asked of one job.
type Answers = (bool, Option<f64>, Option<f64>, Option<String>, Option<String>);
/// What is asked of many.
type Column<T> = Vec<Option<T>>;

fn read_progress(text: &str) -> Option<Progress> {
    serde_json::from_str(text).ok()
}

#[allow(clippy::cast_possible_truncation, reason = "milliseconds of a date are far from what a float can hold")]
fn moment(milliseconds: f64) -> Option<Timestamp> {
    Timestamp::from_millisecond(milliseconds as i64).ok()
}
