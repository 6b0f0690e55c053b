//! Work for later: each tenant's queue, and the workers that drain all of them fairly.
//!
//! ```text
//!  handler ─▶ TenantQueue::push ─▶ tenant-<uuid> ──┐                        ┌─▶ TenantContext ─▶ TenantJob::run
//!                     │                            ├─ reserve ─▶ Worker ────┤
//!                     └─ wake ─▶ ring of tenants ──┘   ▲                    └─▶ done │ again later │ failed
//!                                                      └── whose turn it is
//! ```
//!
//! | to see … | read |
//! |---|---|
//! | what a job is, and what it is given | [`job`] |
//! | what lies in Redis, and the one way to change it | `store`, `scripts/` |
//! | whose turn it is | `ring` |
//! | who may serve a tenant, and how one pool hands it to the other | `may` |
//! | how many run at once | [`balance`] |
//! | what every tenant has once a day | [`daily`] |
//! | how one job is run | `run` |
//! | the loop, and what it can be told | [`worker`], [`settings`] |
//! | how a job stays its worker's own | `leases` |
//! | what a worker does beside its jobs | `chores` |
//! | what people see of it | [`look`], [`metrics`] |
//!
//! **Delivery** is at least once. A job that is reserved is leased to its worker, who renews the lease while it works; a
//! lease that runs out lets the next worker have the job. A worker that cannot renew stops the job before the lease ends,
//! so that nothing runs twice at once. What a job does must bear being done twice: it may have been done when the worker
//! was lost.
//!
//! **Order** among tenants is start-time fair queueing (Goyal, Vin, Cheng 1996): each tenant's next turn is marked with the
//! virtual time at which its last one ended, a turn of `n` jobs takes `n / weight`, and the lowest mark is next. It keeps the
//! shares of a weighted deficit round robin also where turns are cut short, costs O(log n) of the tenants that have work,
//! and is one for all workers, because the marks lie in Redis.
//!
//! **Why not a library.** `apalis` 1.0 was looked at first. Its backend is one queue with one stream of tasks: fair order
//! over many queues, a tenant's cap over all pods, leases that fence, contexts per tenant and the list of failed jobs would
//! all have been a backend of our own, and what would have remained of the library is the loop around it.

pub mod balance;
mod chores;
pub mod daily;
pub mod job;
mod keys;
mod leases;
pub mod look;
mod may;
pub mod metrics;
mod ring;
mod run;
pub mod settings;
mod store;
pub mod worker;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

pub use self::job::{JobError, Registry, Task, TenantJob};
pub use self::look::{QueueView, QueuedJob};
pub use self::settings::{Trust, WorkerSettings};
pub use self::worker::Worker;

use self::job::Document;
use self::ring::Ring;
use self::store::Store;
use super::clock::Clock;
use super::redis::Redis;
use crate::api::routing::RoutingEntry;

/// Largest job in bytes. What is larger belongs into storage, and its name into the job.
pub const MAX_JOB: usize = 64 * 1024;

/// Why a job was not queued, or a queue not read.
#[derive(Debug, thiserror::Error)]
pub enum QueueError {
    /// The app runs without Redis.
    #[error("queueing job {job}: there is no Redis")]
    NoRedis {
        /// Which work.
        job: &'static str,
    },
    /// It does not become JSON.
    #[error("encoding job {job}")]
    Encode {
        /// Which work.
        job: &'static str,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// Too large.
    #[error("queueing job {job}: {size} bytes are more than {MAX_JOB}")]
    TooLarge {
        /// Which work.
        job: &'static str,
        /// Its size in bytes.
        size: usize,
    },
    /// Redis did not take it, or the answer was lost: then it is queued all the same.
    #[error("queueing job {job}")]
    Redis {
        /// Which work.
        job: &'static str,
        /// Why.
        #[source]
        source: ::redis::RedisError,
    },
}

/// A job that is in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Queued {
    /// The job's id.
    pub id: Uuid,
    /// False where a job of the same key waits or runs already, and its id is what `id` is.
    pub new: bool,
}

/// One tenant's queue.
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

    /// Puts a job at the end of the queue.
    ///
    /// # Errors
    /// It is not queued, except that after [`QueueError::Redis`] it may be.
    pub async fn push<J: TenantJob>(&self, job: &J) -> Result<Queued, QueueError> {
        self.push_later(job, Duration::ZERO).await
    }

    /// The same; no worker takes it before `delay` has passed.
    ///
    /// # Errors
    /// As [`Self::push`].
    pub async fn push_later<J: TenantJob>(&self, job: &J, delay: Duration) -> Result<Queued, QueueError> {
        let redis = self.redis.as_ref().ok_or(QueueError::NoRedis { job: J::NAME })?;
        let document = Document::new(self.entry.uuid, job, &self.clock)
            .map_err(|source| QueueError::Encode { job: J::NAME, source })?;
        let text = serde_json::to_vec(&document).map_err(|source| QueueError::Encode { job: J::NAME, source })?;
        if text.len() > MAX_JOB {
            return Err(QueueError::TooLarge { job: J::NAME, size: text.len() });
        }
        let failed = |source| QueueError::Redis { job: J::NAME, source };
        let store = Store::new(redis.clone(), &self.entry.queue.name);
        let (id, new) = store.push(&document, &text, delay).await.map_err(failed)?;
        // The job first: a tenant that is woken for nothing costs one look, a job that nobody is woken for would wait for
        // the next sweep.
        Ring::of(redis.clone(), &self.entry).wake(&[(self.entry.uuid, delay)]).await.map_err(failed)?;
        Ok(Queued { id, new })
    }

    /// What is in it, for people. None: the app runs without Redis.
    pub fn view(&self) -> Option<QueueView> {
        let redis = self.redis.clone()?;
        let store = Store::new(redis.clone(), &self.entry.queue.name);
        Some(QueueView::new(self.entry.uuid, store, Ring::of(redis, &self.entry)))
    }
}
