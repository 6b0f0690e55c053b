//! Remembers which parts of a cluster did not answer, so that not every request finds it out by waiting.
//!
//! A part that failed is left alone for [`HOLD`]. The next request for it after that sets off a question in the background,
//! which closes the circuit or opens it again, and is refused at once like all others until then. So a node that hangs costs
//! those who find it out one wait per part, and nobody after them, however long it hangs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::slot::GROUPS;

/// How long a part that failed is left alone.
const HOLD: Duration = Duration::from_secs(1);

/// What becomes of a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Admission {
    /// It goes out.
    Granted,
    /// It does not.
    Refused,
    /// It does not, and whoever sent it sees to it that the part is asked whether it answers again.
    Ask,
}

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
    /// Whether a command may go out. Where the time to leave the group alone is over, it begins anew with this answer.
    pub(super) fn admit(&self, group: usize, now: Instant) -> Admission {
        let mut groups = self.lock();
        match groups[group] {
            Some(until) if now < until => Admission::Refused,
            Some(_) => {
                groups[group] = Some(now + HOLD);
                Admission::Ask
            }
            None => Admission::Granted,
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

    /// Whether every group answers as far as is known. A group that failed and that nobody has asked for since counts as
    /// answering again after a while: it would look away for ever otherwise.
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
    fn a_part_that_failed_is_left_alone_and_then_asked_about_by_one_request_at_a_time() {
        let (circuits, start) = (Circuits::default(), Instant::now());
        assert_eq!(circuits.admit(3, start), Admission::Granted);
        assert!(circuits.open(3, start) && !circuits.open(3, start), "news only once");
        assert_eq!(circuits.admit(3, start + HOLD / 2), Admission::Refused);
        assert_eq!(circuits.admit(4, start), Admission::Granted, "the other parts are not touched");
        assert!(!circuits.all_closed(start));
        let later = start + HOLD;
        assert_eq!(circuits.admit(3, later), Admission::Ask, "one has it asked");
        assert_eq!(circuits.admit(3, later), Admission::Refused, "the others wait for how that goes");
        circuits.close(3);
        assert_eq!(circuits.admit(3, later), Admission::Granted);
        assert!(circuits.all_closed(later));
    }

    #[test]
    fn a_question_that_was_never_answered_does_not_keep_the_part_closed() {
        let (circuits, start) = (Circuits::default(), Instant::now());
        circuits.open(3, start);
        assert_eq!(circuits.admit(3, start + HOLD), Admission::Ask);
        assert_eq!(circuits.admit(3, start + 2 * HOLD), Admission::Ask);
    }
}
