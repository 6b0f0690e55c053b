//! What a job is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use super::store::Store;
use crate::tenancy::TenantContext;
use crate::tenancy::clock::Clock;

/// Work that is done for one tenant, later and elsewhere.
///
/// The value is the payload: it is written as JSON when it is queued and read again by the worker, which may be of another
/// version of the program. It may be run twice ([`super`]), so what it does must bear that.
pub trait TenantJob: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// What it is called, for ever: jobs in queues carry it.
    const NAME: &'static str;
    /// What jobs of the app need beside the tenant.
    type State: Send + Sync;

    /// While a job with the same name and key waits or runs, another one is not queued. One that was given up makes room
    /// for it.
    fn unique_key(&self) -> Option<String> {
        None
    }

    /// Does it. What it returns is kept for a day.
    fn run(
        &self,
        tenant: &TenantContext,
        task: &Task<Self::State>,
    ) -> impl Future<Output = Result<Value, JobError>> + Send;
}

/// Why a job did not end well.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JobError {
    /// It may work the next time.
    #[error("{0}")]
    Again(String),
    /// It will not: it is not tried again.
    #[error("{0}")]
    Hopeless(String),
}

impl JobError {
    /// With the causes of an error, one after the other.
    pub fn again(error: &dyn std::error::Error) -> Self {
        Self::Again(crate::error::chain(error))
    }
}

/// One attempt at a job, as the job sees it.
pub struct Task<S> {
    /// The same for every attempt.
    pub id: Uuid,
    /// Counts from 1.
    pub attempt: u32,
    state: Arc<S>,
    store: Store,
}

impl<S> Task<S> {
    pub(super) fn new(id: Uuid, attempt: u32, state: Arc<S>, store: Store) -> Self {
        Self { id, attempt, state, store }
    }

    /// What jobs of the app need beside the tenant.
    pub fn state(&self) -> &S {
        &self.state
    }

    /// Says how far it is, for people. Where it cannot be said the job goes on.
    pub async fn progress(&self, done: u64, of: Option<u64>) {
        let text = serde_json::json!({ "done": done, "of": of }).to_string();
        if let Err(error) = self.store.progress(self.id, &text).await {
            tracing::debug!(target: "tenant", job = %self.id, %error, "progress is not shown");
        }
    }
}

/// A job as it lies in Redis.
#[derive(Debug, Clone, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Document {
    /// Its own, so that it is known again.
    pub id: Uuid,
    /// A worker refuses a job that lies in another tenant's queue.
    pub tenant: Uuid,
    /// [`TenantJob::NAME`].
    pub kind: String,
    /// RFC 3339.
    pub queued_at: jiff::Timestamp,
    /// Name and [`TenantJob::unique_key`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unique: Option<String>,
    /// The job.
    pub payload: Value,
}

impl Document {
    pub(super) fn new<J: TenantJob>(tenant: Uuid, job: &J, clock: &Clock) -> Result<Self, serde_json::Error> {
        Ok(Self {
            id: Uuid::new_v4(),
            tenant,
            kind: J::NAME.to_owned(),
            queued_at: clock.now(),
            unique: job.unique_key().map(|key| unique_name::<J>(&key)),
            payload: serde_json::to_value(job)?,
        })
    }
}

/// Under which no other job is queued.
pub(super) fn unique_name<J: TenantJob>(key: &str) -> String {
    format!("{}:{key}", J::NAME)
}

type Run<S> = Box<dyn Fn(Value, TenantContext, Task<S>) -> BoxFuture<'static, Result<Value, JobError>> + Send + Sync>;

/// The jobs that a worker knows.
pub struct Registry<S> {
    jobs: BTreeMap<&'static str, Run<S>>,
}

impl<S> Default for Registry<S> {
    fn default() -> Self {
        Self { jobs: BTreeMap::new() }
    }
}

impl<S: Send + Sync + 'static> Registry<S> {
    /// The same, and this kind of job.
    #[must_use]
    pub fn with<J: TenantJob<State = S>>(mut self) -> Self {
        let run: Run<S> = Box::new(|payload, tenant, task| {
            async move {
                let job: J = serde_json::from_value(payload)
                    .map_err(|error| JobError::Hopeless(format!("its payload cannot be read: {error}")))?;
                job.run(&tenant, &task).await
            }
            .boxed()
        });
        let before = self.jobs.insert(J::NAME, run);
        assert!(before.is_none(), "two kinds of job are called {}", J::NAME);
        self
    }

    /// The name, if it is known here: what may be a label of a metric.
    pub(super) fn known(&self, kind: &str) -> Option<&'static str> {
        self.jobs.get_key_value(kind).map(|(name, _)| *name)
    }

    pub(super) fn run(
        &self,
        document: Document,
        tenant: TenantContext,
        task: Task<S>,
    ) -> BoxFuture<'static, Result<Value, JobError>> {
        if let Some(run) = self.jobs.get(document.kind.as_str()) {
            return run(document.payload, tenant, task);
        }
        let known: Vec<_> = self.jobs.keys().copied().collect();
        let why = format!("no worker knows jobs called {}; known are: {}", document.kind, known.join(", "));
        // Another worker may, while one release takes another's place.
        async move { Err(JobError::Again(why)) }.boxed()
    }
}

/// Before the second attempt.
const FIRST_PAUSE: Duration = Duration::from_secs(5);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// How long to wait after an attempt that failed, counted from 1: five seconds, then five times as long each time.
pub(super) fn pause_after(attempt: u32) -> Duration {
    let factor = 5_u32.saturating_pow(attempt.saturating_sub(1));
    FIRST_PAUSE.saturating_mul(factor).min(LONGEST_PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pause_grows_and_has_an_end() {
        let pauses: Vec<_> = (1..=6).map(|attempt| pause_after(attempt).as_secs()).collect();
        assert_eq!(pauses, [5, 25, 125, 600, 600, 600]);
        assert_eq!(pause_after(u32::MAX), LONGEST_PAUSE);
    }
}
