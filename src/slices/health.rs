//! Whether every slice was seen, and how long a watch has been failing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A reader whose watch has been failing this long turns unready, so that nobody waits for it or sends it work.
const BROKEN: Duration = Duration::from_secs(30);

/// What the watches of a reader's slices are doing. Clones share it.
#[derive(Clone)]
pub struct Health(Arc<Mutex<State>>);

struct State {
    total: usize,
    seen: BTreeSet<String>,
    failing: BTreeMap<String, Failure>,
}

struct Failure {
    since: Instant,
    reason: String,
}

impl Health {
    /// Nothing of `total` slices was seen yet.
    pub fn new(total: usize) -> Self {
        Self(Arc::new(Mutex::new(State { total, seen: BTreeSet::new(), failing: BTreeMap::new() })))
    }

    /// Every slice was seen once, present or absent.
    pub fn is_loaded(&self) -> bool {
        let state = self.lock();
        state.seen.len() >= state.total
    }

    /// The longest time that any slice's watch has been failing; `None` while all work.
    pub fn broken_for(&self) -> Option<Duration> {
        self.lock().failing.values().map(|failure| failure.since.elapsed()).max()
    }

    /// Whether readers can trust what they have.
    ///
    /// # Errors
    /// Some slice was never seen, or its watch has been failing for 30 seconds; the message says which.
    pub fn ready(&self) -> Result<(), String> {
        self.ready_at(Instant::now())
    }

    fn ready_at(&self, now: Instant) -> Result<(), String> {
        let state = self.lock();
        if state.seen.len() < state.total {
            let reason = state.failing.iter().next().map(|(slice, failure)| format!(", {slice}: {}", failure.reason));
            return Err(format!(
                "{} of {} slices were read so far{}",
                state.seen.len(),
                state.total,
                reason.unwrap_or_default()
            ));
        }
        let longest = state.failing.iter().min_by_key(|(_, failure)| failure.since);
        match longest.map(|(slice, failure)| (slice, failure, now.saturating_duration_since(failure.since))) {
            Some((slice, failure, time)) if time >= BROKEN => {
                Err(format!("the watch of {slice} has been failing for {} s: {}", time.as_secs(), failure.reason))
            }
            _ => Ok(()),
        }
    }

    /// A [`super::Change`] of `slice` is on its way.
    pub(super) fn seen(&self, slice: &str) {
        let mut state = self.lock();
        if !state.seen.contains(slice) {
            state.seen.insert(slice.to_owned());
        }
    }

    /// The watch of `slice` works.
    pub(super) fn working(&self, slice: &str) {
        self.lock().failing.remove(slice);
    }

    /// The watch of `slice` failed; the time counts from its first failure in a row.
    pub(super) fn failing(&self, slice: &str, reason: String) {
        let mut state = self.lock();
        let since = state.failing.get(slice).map_or_else(Instant::now, |failure| failure.since);
        state.failing.insert(slice.to_owned(), Failure { since, reason });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_is_ready_once_every_slice_was_seen() {
        let health = Health::new(2);
        health.seen("a");
        health.seen("a");
        assert!(!health.is_loaded());
        assert_eq!(health.ready(), Err("1 of 2 slices were read so far".to_owned()));
        health.seen("b");
        assert!(health.is_loaded());
        assert_eq!(health.ready(), Ok(()));
    }

    #[test]
    fn a_watch_that_fails_for_thirty_seconds_makes_the_reader_unready_until_it_works_again() {
        let health = Health::new(1);
        health.seen("a");
        health.failing("a", "connection refused".to_owned());
        let start = Instant::now();
        health.failing("a", "still refused".to_owned());
        assert_eq!(health.ready_at(start + Duration::from_secs(20)), Ok(()));
        let reason = health.ready_at(start + Duration::from_secs(31)).unwrap_err();
        assert!(reason.contains("the watch of a") && reason.contains("still refused"), "{reason}");
        assert!(health.broken_for().is_some());
        health.working("a");
        assert_eq!(health.ready_at(start + Duration::from_secs(31)), Ok(()));
        assert_eq!(health.broken_for(), None);
    }
}
