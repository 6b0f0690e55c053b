//! How long something that failed is left alone: longer each time, for each object by itself, so that what cannot work is
//! not tried all the time and holds nobody else up.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// After the first failure.
const FIRST: Duration = Duration::from_secs(1);
/// At most.
const LONGEST: Duration = Duration::from_secs(30);

/// Failures in a row, by what failed.
pub struct Backoff<K>(Mutex<HashMap<K, u32>>);

impl<K> Default for Backoff<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Eq + Hash> Backoff<K> {
    /// Notes a failure; how long to wait before the next attempt. Not in step with others that failed at the same time.
    pub fn failed(&self, who: K) -> Duration {
        let mut failures = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = failures.entry(who).or_default();
        *count = count.saturating_add(1);
        delay(*count).mul_f64(0.75 + rand::random::<f64>() / 4.0)
    }

    /// Notes that it worked: the next failure is a first one.
    pub fn succeeded(&self, who: &K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(who);
    }
}

/// After so many failures in a row.
fn delay(failures: u32) -> Duration {
    let doubled = 1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX);
    FIRST.checked_mul(doubled).unwrap_or(LONGEST).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let seconds: Vec<_> = (1..=7).map(|count| delay(count).as_secs()).collect();
        assert_eq!(seconds, [1, 2, 4, 8, 16, 30, 30]);
        assert_eq!(delay(u32::MAX), LONGEST);
    }

    #[test]
    fn each_fails_by_itself_and_begins_anew_when_it_worked() {
        let backoff = Backoff::default();
        let later = (0..6).map(|_| backoff.failed("a")).last().expect("six");
        assert!(later > Duration::from_secs(22) && later <= LONGEST, "{later:?}");
        assert!(backoff.failed("b") <= FIRST, "another one's failures count");
        backoff.succeeded(&"a");
        assert!(backoff.failed("a") <= FIRST);
    }
}
