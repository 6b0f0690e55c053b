//! Making a value once for all who want it at the same moment.
//!
//! A flight is a mutex around its outcome: whoever locks it first makes the value, with its own means; the others wait for
//! the lock and find it made. Nothing is spawned and nothing is shared but bytes, so what is made may borrow from the
//! request, and a request that is cancelled lets the lock go as it leaves: the next one finds it open and takes over.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use tokio::sync::MutexGuard as AsyncMutexGuard;
use uuid::Uuid;

use super::entry::Id;

/// How a flight stands, seen by whoever holds its lock.
pub(super) enum Turn {
    /// Nobody has made it: whoever sees this does.
    Open,
    /// It is made.
    Made(Arc<[u8]>),
    /// Making it failed.
    Failed,
}

/// A tenant and a key.
type Name = (Uuid, String);

/// The flights that can be joined.
#[derive(Clone, Default)]
pub(super) struct Flights(Arc<Mutex<HashMap<Name, Joinable>>>);

struct Joinable {
    /// What was in Redis when it began. Whoever saw something else (a grave, say) needs another flight: this one may be
    /// making its value from data that has changed since.
    seen: Option<Id>,
    /// Held by those on board.
    turn: Weak<tokio::sync::Mutex<Turn>>,
}

/// A place in a flight.
pub(super) struct Flight {
    flights: Flights,
    name: Name,
    turn: Arc<tokio::sync::Mutex<Turn>>,
}

impl Flights {
    /// Joins the flight of that key, or begins one.
    pub(super) fn join(&self, tenant: Uuid, key: &str, seen: Option<Id>) -> Flight {
        let name = (tenant, key.to_owned());
        let mut joinable = self.lock();
        let current = joinable.get(&name).filter(|flight| flight.seen == seen).and_then(|flight| flight.turn.upgrade());
        let turn = current.unwrap_or_else(|| {
            let turn = Arc::new(tokio::sync::Mutex::new(Turn::Open));
            joinable.insert(name.clone(), Joinable { seen, turn: Arc::downgrade(&turn) });
            turn
        });
        Flight { flights: self.clone(), name, turn }
    }

    /// Nobody joins the flights of that tenant, or of that one key, any more.
    pub(super) fn leave(&self, tenant: Uuid, key: Option<&str>) {
        match key {
            Some(key) => drop(self.lock().remove(&(tenant, key.to_owned()))),
            None => self.lock().retain(|(of, _), _| *of != tenant),
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Name, Joinable>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Flight {
    /// Waits for those before us.
    pub(super) async fn turn(&self) -> AsyncMutexGuard<'_, Turn> {
        self.turn.lock().await
    }

    /// Nobody joins this flight any more.
    pub(super) fn end(&self) {
        let mut joinable = self.flights.lock();
        if joinable.get(&self.name).is_some_and(|flight| flight.turn.as_ptr() == Arc::as_ptr(&self.turn)) {
            joinable.remove(&self.name);
        }
    }
}

impl Drop for Flight {
    /// The last one off board takes the entry along, so that the map holds what is in the air and nothing else.
    fn drop(&mut self) {
        let mut joinable = self.flights.lock();
        // Counted under the lock: nobody joins meanwhile.
        let last = Arc::strong_count(&self.turn) == 1;
        if last && joinable.get(&self.name).is_some_and(|flight| flight.turn.as_ptr() == Arc::as_ptr(&self.turn)) {
            joinable.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_map_holds_only_flights_that_somebody_is_on() {
        let flights = Flights::default();
        let tenant = Uuid::from_u128(1);
        let one = flights.join(tenant, "key", None);
        let two = flights.join(tenant, "key", None);
        assert!(Arc::ptr_eq(&one.turn, &two.turn));
        drop(one);
        assert_eq!(flights.lock().len(), 1);
        let after_a_change = flights.join(tenant, "key", Some(Id::random()));
        assert!(!Arc::ptr_eq(&two.turn, &after_a_change.turn));
        drop(two);
        assert_eq!(flights.lock().len(), 1, "the older flight does not take the newer one's entry along");
        drop(after_a_change);
        assert!(flights.lock().is_empty());
    }

    #[test]
    fn a_flight_that_was_left_is_not_joined() {
        let flights = Flights::default();
        let (tenant, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let old = flights.join(tenant, "key", None);
        let others = flights.join(other, "key", None);
        flights.leave(tenant, None);
        assert!(!Arc::ptr_eq(&old.turn, &flights.join(tenant, "key", None).turn));
        assert!(Arc::ptr_eq(&others.turn, &flights.join(other, "key", None).turn), "another tenant's is untouched");
    }
}
