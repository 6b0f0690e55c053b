//! Counting in this process alone, while Redis is away.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use uuid::Uuid;

/// Counters at most. Names can come from visitors (addresses), so there must be a bound.
const MOST: usize = 50_000;

/// Counters with their ends.
#[derive(Default)]
pub(super) struct LocalWindows {
    counters: HashMap<(Uuid, String), Window>,
}

struct Window {
    count: u64,
    end: Instant,
}

impl LocalWindows {
    /// Counts one event; returns the count and what is left of the window.
    pub(super) fn count(&mut self, tenant: Uuid, name: &str, length: Duration, now: Instant) -> (u64, Duration) {
        if self.counters.len() >= MOST {
            self.make_room(now);
        }
        let fresh = || Window { count: 0, end: now + length };
        let window = self.counters.entry((tenant, name.to_owned())).or_insert_with(fresh);
        if window.end <= now {
            *window = fresh();
        }
        window.count += 1;
        (window.count, window.end - now)
    }

    pub(super) fn forgive(&mut self, tenant: Uuid, name: &str) {
        self.counters.remove(&(tenant, name.to_owned()));
    }

    /// Ended windows go. Where none has ended, those with the least go: who floods us with names has many small counters,
    /// and the one that matters is the one that grows.
    fn make_room(&mut self, now: Instant) {
        self.counters.retain(|_, window| window.end > now);
        if self.counters.len() >= MOST {
            self.counters.retain(|_, window| window.count > 1);
        }
        if self.counters.len() >= MOST {
            self.counters.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    #[test]
    fn a_window_begins_with_its_first_event_and_then_counts_anew() {
        let (mut windows, start) = (LocalWindows::default(), Instant::now());
        let (one, two) = (Uuid::from_u128(1), Uuid::from_u128(2));
        assert_eq!(windows.count(one, "a", MINUTE, start), (1, MINUTE));
        assert_eq!(windows.count(one, "a", MINUTE, start + MINUTE / 4), (2, MINUTE * 3 / 4));
        assert_eq!(windows.count(two, "a", MINUTE, start), (1, MINUTE), "another tenant's");
        assert_eq!(windows.count(one, "b", MINUTE, start), (1, MINUTE), "another name's");
        assert_eq!(windows.count(one, "a", MINUTE, start + MINUTE), (1, MINUTE));
        windows.forgive(one, "a");
        assert_eq!(windows.count(one, "a", MINUTE, start + MINUTE).0, 1);
    }

    #[test]
    fn a_flood_of_names_is_bounded_and_does_not_drown_the_counter_that_matters() {
        let (mut windows, start) = (LocalWindows::default(), Instant::now());
        let tenant = Uuid::from_u128(1);
        windows.count(tenant, "account", MINUTE, start);
        windows.count(tenant, "account", MINUTE, start);
        for number in 0..2 * MOST {
            windows.count(tenant, &format!("address {number}"), MINUTE, start);
        }
        assert!(windows.counters.len() <= MOST);
        assert_eq!(windows.count(tenant, "account", MINUTE, start).0, 3);
    }
}
