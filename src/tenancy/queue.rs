//! Work for later: the producer's side of a tenant's queue.
//!
//! A queue is a Redis list named like the routing entry's queue, `tenant-<uuid>` (in a cluster the name stands in braces,
//! see [`Redis::queue_key`]), in the database of [`Purpose::Default`]. Jobs are pushed at its right end and taken from its
//! left. Each is a JSON object:
//!
//! | member | what |
//! |---|---|
//! | `id` | a uuid of its own, so that a worker that sees it twice knows |
//! | `tenant` | the tenant's uuid; a worker refuses a job that lies in another tenant's queue |
//! | `kind` | which work, e.g. `import.csv` |
//! | `queuedAt` | RFC 3339 |
//! | `payload` | what the work needs to know |

use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use super::clock::Clock;
use super::redis::{Purpose, Redis};
use crate::api::routing::RoutingEntry;

/// Largest job in bytes. What is larger belongs into storage, and its name into the job.
const MAX_JOB: usize = 64 * 1024;

/// Why a job was not queued.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The app runs without Redis.
    #[error("queueing job {kind}: there is no Redis")]
    NoRedis {
        /// Which work.
        kind: String,
    },
    /// It does not become JSON.
    #[error("encoding job {kind}")]
    Encode {
        /// Which work.
        kind: String,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Too large.
    #[error("queueing job {kind}: {size} bytes are more than {MAX_JOB}")]
    TooLarge {
        /// Which work.
        kind: String,
        /// Its size in bytes.
        size: usize,
    },
    /// Redis did not take it, or the answer was lost: then it is queued all the same.
    #[error("queueing job {kind}")]
    Redis {
        /// Which work.
        kind: String,
        /// Why.
        #[source]
        source: ::redis::RedisError,
    },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Job<'j, T> {
    id: Uuid,
    tenant: Uuid,
    kind: &'j str,
    queued_at: String,
    payload: &'j T,
}

/// One tenant's queue. It can be written to and not read: reading is the workers' side.
#[derive(Clone)]
pub struct TenantQueue {
    /// The queue's name and the tenant's uuid.
    entry: Arc<RoutingEntry>,
    /// Shared with everybody; absent where the app runs without one.
    redis: Option<Redis>,
    /// Shared with everybody.
    clock: Clock,
}

impl TenantQueue {
    pub(super) fn new(entry: Arc<RoutingEntry>, redis: Option<Redis>, clock: Clock) -> Self {
        Self { entry, redis, clock }
    }

    /// Puts a job at the end of the queue; returns its id.
    ///
    /// # Errors
    /// It is not queued, except that after [`QueueError::Redis`] it may be.
    pub async fn push<T: Serialize>(&self, kind: &str, payload: &T) -> Result<Uuid, QueueError> {
        let kind_of = || kind.to_owned();
        let redis = self.redis.as_ref().ok_or_else(|| QueueError::NoRedis { kind: kind_of() })?;
        let job =
            Job { id: Uuid::new_v4(), tenant: self.entry.uuid, kind, queued_at: self.clock.now().to_string(), payload };
        let text = serde_json::to_vec(&job).map_err(|source| QueueError::Encode { kind: kind_of(), source })?;
        if text.len() > MAX_JOB {
            return Err(QueueError::TooLarge { kind: kind_of(), size: text.len() });
        }
        let list = redis.queue_key(&self.entry.queue.name);
        let push = ::redis::cmd("RPUSH").arg(&*list).arg(text).to_owned();
        let pushed: Result<u64, _> = redis.query(Purpose::Default, &push).await;
        pushed.map_err(|source| QueueError::Redis { kind: kind_of(), source })?;
        Ok(job.id)
    }
}
