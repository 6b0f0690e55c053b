//! One attempt at one job.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use serde_json::Value;
use tokio::sync::watch;
use tracing::Instrument;

use super::job::{Document, JobError, Registry, Task, pause_after};
use super::store::{Fate, Leased, Store};
use crate::api::routing::RoutingEntry;
use crate::tenancy::{Tenancy, TenantContext};

/// Longest reason that is kept, in bytes.
const LONGEST_REASON: usize = 2000;
/// A job of a kind that this worker does not know waits so long for one that does, each time.
const UNKNOWN: Duration = Duration::from_mins(2);
/// Largest result that is kept, in bytes.
const LARGEST_RESULT: usize = 64 * 1024;

/// What all attempts share.
pub(super) struct Runner<S> {
    pub(super) tenancy: Tenancy,
    pub(super) registry: Registry<S>,
    pub(super) state: Arc<S>,
    pub(super) tries: u32,
    pub(super) timeout: Duration,
}

/// A lease as the job's own task sees it: until when it is certain that nobody else has the job.
pub(super) type Certain = watch::Receiver<Instant>;

/// How an attempt ended.
pub(super) struct Ended {
    /// None: the lease could not be kept, the job was stopped and is not ours any more.
    pub(super) fate: Option<Fate>,
    /// Name under which the job is unique.
    pub(super) unique: Option<String>,
    /// What it was, where a worker knows such jobs.
    pub(super) kind: Option<&'static str>,
    /// How long it had waited, where that is known.
    pub(super) waited: Option<Duration>,
}

impl<S: Send + Sync + 'static> Runner<S> {
    /// Runs it to its end, its time, its lease's end or its panic. The tenant's context lives exactly as long.
    pub(super) async fn run(
        &self,
        entry: &Arc<RoutingEntry>,
        leased: &Leased,
        store: &Store,
        certain: Certain,
    ) -> Ended {
        let document = match read(entry, leased) {
            Ok(document) => document,
            Err(why) => return Ended { fate: Some(Fate::Dead(why)), unique: None, kind: None, waited: None },
        };
        let kind = self.registry.known(&document.kind);
        let unique = document.unique.clone();
        let waited = (leased.attempt == 1)
            .then(|| self.tenancy.clock().now().duration_since(document.queued_at))
            .and_then(|waited| Duration::try_from(waited).ok());
        let span = tracing::info_span!(
            target: "tenant",
            "job",
            tenant_id = %entry.uuid,
            tenant_domain = entry.primary_host,
            // What nobody knows may be anything.
            kind = kind.unwrap_or("_unknown"),
            job = %document.id,
            attempt = leased.attempt,
        );
        let fate = self.attempt(entry, leased.attempt, document, store, certain, &span).instrument(span.clone()).await;
        Ended { fate, unique, kind, waited }
    }

    async fn attempt(
        &self,
        entry: &Arc<RoutingEntry>,
        attempt: u32,
        document: Document,
        store: &Store,
        certain: Certain,
        span: &tracing::Span,
    ) -> Option<Fate> {
        let is_known = self.registry.known(&document.kind).is_some();
        let tenant = TenantContext::of_job(entry.clone(), &self.tenancy, span.clone());
        let task = Task::new(document.id, attempt, self.state.clone(), store.clone());
        let work = AssertUnwindSafe(self.registry.run(document, tenant, task)).catch_unwind();
        let outcome = tokio::select! {
            () = over(certain) => {
                tracing::error!(target: "tenant", "its lease could not be renewed: the job was stopped, and another worker will have it");
                return None;
            }
            outcome = tokio::time::timeout(self.timeout, work) => outcome,
        };
        let outcome = match outcome {
            Err(_) => Err(JobError::Again(format!("it was not done within {} s", self.timeout.as_secs()))),
            Ok(Err(panic)) => Err(JobError::Again(format!("it panicked: {}", said(&*panic)))),
            Ok(Ok(outcome)) => outcome,
        };
        let pause = if is_known { pause_after(attempt) } else { UNKNOWN };
        Some(self.judge(attempt, pause, outcome))
    }

    fn judge(&self, attempt: u32, pause: Duration, outcome: Result<Value, JobError>) -> Fate {
        match outcome {
            Ok(Value::Null) => Fate::Done(String::new()),
            Ok(result) => {
                let text = result.to_string();
                Fate::Done(if text.len() <= LARGEST_RESULT { text } else { String::new() })
            }
            Err(JobError::Again(why)) if attempt < self.tries => {
                tracing::warn!(target: "tenant", why, "a job failed and is tried again");
                Fate::Again(shortened(why), pause)
            }
            Err(JobError::Again(why) | JobError::Hopeless(why)) => {
                tracing::error!(target: "tenant", why, "a job failed for good");
                Fate::Dead(shortened(why))
            }
        }
    }
}

fn read(entry: &RoutingEntry, leased: &Leased) -> Result<Document, String> {
    let document: Document =
        serde_json::from_slice(&leased.text).map_err(|error| format!("it cannot be read: {error}"))?;
    if document.tenant != entry.uuid {
        return Err("it is another tenant's".into());
    }
    if document.id.to_string() != leased.id {
        return Err("it says that it is another job".into());
    }
    Ok(document)
}

/// Returns when the lease was not renewed in time.
async fn over(mut certain: Certain) {
    loop {
        let until = *certain.borrow_and_update();
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => return,
            changed = certain.changed() => if changed.is_err() {
                // Nobody renews it any more.
                return tokio::time::sleep_until(until.into()).await;
            }
        }
    }
}

fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without a message")
}

fn shortened(mut why: String) -> String {
    if why.len() > LONGEST_REASON {
        let end = (0..=LONGEST_REASON).rev().find(|&end| why.is_char_boundary(end)).unwrap_or_default();
        why.truncate(end);
        why.push('…');
    }
    why
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_reason_is_cut_between_characters() {
        assert_eq!(shortened("short".into()), "short");
        let long = shortened("ä".repeat(2000));
        assert!(long.len() <= LONGEST_REASON + '…'.len_utf8() && long.ends_with("ä…"));
    }

    #[tokio::test]
    async fn a_lease_is_over_when_it_was_not_renewed_in_time() {
        let begun = Instant::now();
        let (renewed, certain) = watch::channel(begun + Duration::from_millis(40));
        let mut watching = std::pin::pin!(over(certain));
        assert!(futures::poll!(watching.as_mut()).is_pending());
        renewed.send_replace(begun + Duration::from_millis(120));
        watching.await;
        assert!(begun.elapsed() >= Duration::from_millis(120), "{:?}", begun.elapsed());
    }
}
