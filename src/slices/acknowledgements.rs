//! What a reader serves, for the operator that holds a long poll open to it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{Query, State};
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use tokio::sync::watch;
use uuid::Uuid;

use crate::api::slices::Acknowledgement;

/// The longest a poll is held open.
const POLL: Duration = Duration::from_secs(25);

/// How long a tenant counts as wanted after somebody asked for it. Longer than a poll, so that each poll finds whoever is
/// asked for all the time.
const WANTED: Duration = Duration::from_secs(35);

/// What a reader serves right now, and for whom it is asked. Clones share it.
#[derive(Clone)]
pub struct Acknowledgements(Arc<Shared>);

struct Shared {
    served: watch::Sender<Acknowledgement>,
    /// When a tenant was last asked for.
    wanted: Mutex<HashMap<Uuid, Instant>>,
}

#[derive(Deserialize)]
struct Poll {
    version: Option<u64>,
}

impl Default for Acknowledgements {
    fn default() -> Self {
        Self::new()
    }
}

impl Acknowledgements {
    /// Serves nothing yet.
    pub fn new() -> Self {
        // A random start: a poll that comes back after a restart must not meet the old version by accident and be held
        // open. 32 bits, so that every JSON reader keeps the number exact.
        let version = u64::from(rand::random::<u32>());
        let served = watch::Sender::new(Acknowledgement { version, ..Acknowledgement::default() });
        Self(Arc::new(Shared { served, wanted: Mutex::default() }))
    }

    /// Somebody asks for a tenant that sleeps, or would if nobody did. The first time a poll is answered at once.
    pub fn want(&self, tenant: Uuid) {
        let now = Instant::now();
        let before = self.wanted().insert(tenant, now);
        if before.is_none_or(|before| now.duration_since(before) > WANTED) {
            self.0.served.send_modify(|acknowledgement| acknowledgement.version += 1);
        }
    }

    fn wanted(&self) -> MutexGuard<'_, HashMap<Uuid, Instant>> {
        self.0.wanted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `generation` of `slice` is served from now on.
    pub fn serve(&self, slice: &str, generation: u64) {
        self.0.served.send_if_modified(|acknowledgement| {
            if acknowledgement.slices.get(slice) == Some(&generation) {
                return false;
            }
            acknowledgement.slices.insert(slice.to_owned(), generation);
            acknowledgement.version += 1;
            true
        });
    }

    /// `slice` is no longer served.
    pub fn forget(&self, slice: &str) {
        self.0.served.send_if_modified(|acknowledgement| {
            let changed = acknowledgement.slices.remove(slice).is_some();
            acknowledgement.version += u64::from(changed);
            changed
        });
    }

    /// `GET /acks`, see [`Acknowledgement`].
    pub fn router(&self) -> Router {
        Router::new().route("/acks", get(poll)).with_state(self.clone())
    }

    async fn after(&self, version: Option<u64>, longest: Duration) -> Acknowledgement {
        let mut receiver = self.0.served.subscribe();
        // Either way the newest state is the answer: a time-out is no error of a long poll, and the sender lives in `self`.
        let _ = tokio::time::timeout(longest, receiver.wait_for(|now| Some(now.version) != version)).await;
        let mut answer = receiver.borrow().clone();
        let mut wanted = self.wanted();
        wanted.retain(|_, asked| asked.elapsed() <= WANTED);
        answer.wanted = wanted.keys().copied().collect();
        answer.wanted.sort_unstable();
        answer
    }
}

async fn poll(State(acknowledgements): State<Acknowledgements>, Query(poll): Query<Poll>) -> Json<Acknowledgement> {
    Json(acknowledgements.after(poll.version, POLL).await)
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_poll_without_a_version_is_answered_at_once() {
        let acknowledgements = Acknowledgements::new();
        acknowledgements.serve("routing-00", 4);
        let answer = acknowledgements.after(None, POLL).now_or_never().expect("an answer at once");
        assert_eq!(answer.slices.get("routing-00"), Some(&4));
    }

    #[tokio::test]
    async fn a_poll_with_the_current_version_waits_for_a_change() {
        let acknowledgements = Acknowledgements::new();
        let first = acknowledgements.after(None, POLL).now_or_never().expect("an answer at once");
        let ended = acknowledgements.after(Some(first.version), Duration::from_millis(20)).await;
        assert_eq!(ended, first, "the time of a poll is over");

        let mut held = std::pin::pin!(acknowledgements.after(Some(first.version), Duration::from_secs(20)));
        assert!(futures::poll!(held.as_mut()).is_pending(), "nothing changed yet");
        acknowledgements.serve("routing-00", 1);
        let answer = held.await;
        assert_eq!((answer.version, answer.slices.get("routing-00")), (first.version + 1, Some(&1)));
    }

    #[test]
    fn the_version_changes_only_when_a_generation_does() {
        let acknowledgements = Acknowledgements::new();
        let version = || acknowledgements.0.served.borrow().version;
        let start = version();
        acknowledgements.forget("routing-00");
        assert_eq!(version(), start);
        acknowledgements.serve("routing-00", 1);
        acknowledgements.serve("routing-00", 1);
        assert_eq!(version(), start + 1);
        acknowledgements.forget("routing-00");
        assert_eq!(version(), start + 2);
    }

    #[tokio::test]
    async fn a_tenant_that_is_asked_for_is_told_at_once_and_again_in_each_poll() {
        let acknowledgements = Acknowledgements::new();
        let first = acknowledgements.after(None, POLL).now_or_never().expect("an answer at once");
        assert!(first.wanted.is_empty());
        let mut held = std::pin::pin!(acknowledgements.after(Some(first.version), Duration::from_secs(20)));
        assert!(futures::poll!(held.as_mut()).is_pending(), "nobody asked yet");
        acknowledgements.want(Uuid::from_u128(7));
        let answer = held.await;
        assert_eq!(answer.wanted, [Uuid::from_u128(7)]);
        acknowledgements.want(Uuid::from_u128(7));
        let again = acknowledgements.after(Some(answer.version), Duration::from_millis(20)).await;
        assert_eq!((again.version, again.wanted), (answer.version, answer.wanted), "no answer for each request");
    }
}
