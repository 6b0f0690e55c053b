//! Remembers which parts of a cluster did not answer, so that not every request finds it out by waiting.
//!
//! A part that failed is left alone for [`HOLD`]. Then one request may try, and while it does the others are still
//! refused; it closes the circuit or opens it again. So a node that is away costs one request per part and second.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::slot::GROUPS;

/// How long a part that failed is left alone.
const HOLD: Duration = Duration::from_secs(1);

/// One circuit per group of slots.
pub(super) struct Circuits(
    /// Until when a group is left alone; none: it answers. Held for one comparison, never across a wait.
    Mutex<[Option<Instant>; GROUPS]>,
);

impl Default for Circuits {
    fn default() -> Self {
        Self(Mutex::new([None; GROUPS]))
    }
}

impl Circuits {
    /// Whether a command may go out. Where the time to leave the group alone is over, it begins anew with this command.
    pub(super) fn admit(&self, group: usize, now: Instant) -> bool {
        let mut groups = self.lock();
        match groups[group] {
            Some(until) if now < until => false,
            Some(_) => {
                groups[group] = Some(now + HOLD);
                true
            }
            None => true,
        }
    }

    /// It did not answer. Returns whether that is news.
    pub(super) fn open(&self, group: usize, now: Instant) -> bool {
        self.lock()[group].replace(now + HOLD).is_none()
    }

    /// It answered.
    pub(super) fn close(&self, group: usize) {
        self.lock()[group] = None;
    }

    /// Whether no group is left alone or has been and was not tried since. A group that nobody has asked for during three
    /// more times of [`HOLD`] counts as well again: it would look away for ever otherwise.
    pub(super) fn all_closed(&self, now: Instant) -> bool {
        self.lock().iter().flatten().all(|until| *until + 3 * HOLD < now)
    }

    fn lock(&self) -> MutexGuard<'_, [Option<Instant>; GROUPS]> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_failed_is_left_alone_and_then_tried_by_one_request_at_a_time() {
        let (circuits, start) = (Circuits::default(), Instant::now());
        assert!(circuits.admit(3, start));
        assert!(circuits.open(3, start) && !circuits.open(3, start), "news only once");
        assert!(!circuits.admit(3, start + HOLD / 2));
        assert!(circuits.admit(4, start), "the other parts are not touched");
        assert!(!circuits.all_closed(start));
        let later = start + HOLD;
        assert!(circuits.admit(3, later), "one may try");
        assert!(!circuits.admit(3, later), "the others wait for how it went");
        circuits.close(3);
        assert!(circuits.admit(3, later) && circuits.admit(3, later) && circuits.all_closed(later));
    }

    #[test]
    fn a_request_that_tried_and_was_cancelled_does_not_keep_the_part_closed_to_all() {
        let (circuits, start) = (Circuits::default(), Instant::now());
        circuits.open(3, start);
        assert!(circuits.admit(3, start + HOLD));
        assert!(circuits.admit(3, start + 2 * HOLD));
    }
}
