//! Turns of backups that somebody asks for now: last ones before a delete, by tenant, each of which restores a whole copy on its
//! server as well, and TenantBackups, by object. The schedule's are spread; of these, all of many would begin at once.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use uuid::Uuid;

/// Such backups on one server at a time.
const TURNS: usize = 2;
/// A Job ends after six hours.
const LONGEST_TURN: Duration = Duration::from_hours(7);

/// Who has a turn, on which server, and since when.
#[derive(Default)]
pub struct Turns(Mutex<HashMap<Uuid, (String, Instant)>>);

impl Turns {
    /// Takes a turn on a server, or keeps the one that `whose` has. False: others have all.
    pub fn take(&self, whose: Uuid, server: &str) -> bool {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Whose object was let go by hand gives nothing back.
        turns.retain(|_, (_, since)| since.elapsed() < LONGEST_TURN);
        let others = turns.iter().filter(|(uuid, (of, _))| **uuid != whose && of == server).count();
        if others < TURNS {
            turns.entry(whose).or_insert_with(|| (server.to_owned(), Instant::now()));
        }
        others < TURNS
    }

    /// Gives it back.
    pub fn give_back(&self, whose: Uuid) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&whose);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_have_their_turn_on_a_server_and_the_others_when_one_gives_it_back() {
        let turns = Turns::default();
        let of = Uuid::from_u128;
        assert!(turns.take(of(1), "a") && turns.take(of(2), "a"));
        assert!(!turns.take(of(3), "a"), "the third waits");
        assert!(turns.take(of(1), "a"), "whoever has one keeps it");
        assert!(turns.take(of(3), "b"), "another server is not busy");
        turns.give_back(of(3));
        turns.give_back(of(2));
        assert!(turns.take(of(3), "a"));
        assert!(!turns.take(of(2), "a"));
    }
}
