//! Which connections are idle, and how many are open: the bookkeeping, without any connecting.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::api::routing::RoutingEntry;

/// Idle connections of all tenants. Generic, so that its tests need no database.
pub(super) struct Shelf<C> {
    tenants: HashMap<Uuid, Tenant<C>>,
    /// Connections on the shelf and in use.
    open: usize,
    max: usize,
    max_per_tenant: usize,
}

/// One tenant's part.
struct Tenant<C> {
    /// What the idle connections were made with. The whole of it is compared, not only user and password: another
    /// host, another certificate authority or a stricter mode must not meet a connection made under the old ones.
    entry: Arc<RoutingEntry>,
    /// The tenant's own limit.
    permits: Arc<Semaphore>,
    /// Oldest first. Taken from the back: the one used last is the warmest, and the others get the chance to expire.
    idle: VecDeque<Idle<C>>,
}

struct Idle<C> {
    connection: C,
    since: Instant,
}

/// What a check-out gets.
pub(super) enum Taken<C> {
    /// A connection that was idle.
    Idle(C),
    /// The right to open one; `evicted` had to make room and is to be closed.
    Room { evicted: Option<C> },
}

impl<C> Shelf<C> {
    pub(super) fn new(max: usize, max_per_tenant: usize) -> Self {
        Self { tenants: HashMap::new(), open: 0, max, max_per_tenant }
    }

    pub(super) fn open(&self) -> usize {
        self.open
    }

    pub(super) fn permits(&mut self, entry: &Arc<RoutingEntry>) -> Arc<Semaphore> {
        self.tenant(entry).permits.clone()
    }

    /// The caller holds one of `max` permits, so that less than `max` others are in use and, when the shelf is full,
    /// something on it is idle.
    pub(super) fn take(&mut self, entry: &Arc<RoutingEntry>) -> Taken<C> {
        let tenant = self.tenant(entry);
        if same_access(&tenant.entry, entry)
            && let Some(idle) = tenant.idle.pop_back()
        {
            return Taken::Idle(idle.connection);
        }
        let evicted = if self.open >= self.max { self.evict() } else { None };
        self.open += 1;
        Taken::Room { evicted }
    }

    /// Takes a connection back, or refuses it because the tenant's access changed while it was in use. A refused one
    /// still counts as open until [`Self::closed`].
    pub(super) fn put(&mut self, entry: &Arc<RoutingEntry>, connection: C) -> Option<C> {
        match self.tenants.get_mut(&entry.uuid) {
            Some(tenant) if same_access(&tenant.entry, entry) => {
                tenant.idle.push_back(Idle { connection, since: Instant::now() });
                None
            }
            _ => Some(connection),
        }
    }

    /// A connection that was in use is no more.
    pub(super) fn closed(&mut self) {
        self.open -= 1;
    }

    /// The tenant is reached like this from now on. Returns what is to be closed.
    pub(super) fn route(&mut self, entry: &Arc<RoutingEntry>) -> Vec<C> {
        let Some(tenant) = self.tenants.get_mut(&entry.uuid) else { return Vec::new() };
        let same = same_access(&tenant.entry, entry);
        tenant.entry = entry.clone();
        if same {
            return Vec::new();
        }
        let stale = std::mem::take(&mut tenant.idle);
        self.off_the_shelf(stale)
    }

    /// The tenant is gone. Returns what is to be closed.
    pub(super) fn forget(&mut self, tenant: Uuid) -> Vec<C> {
        let idle = self.tenants.remove(&tenant).map(|tenant| tenant.idle).unwrap_or_default();
        self.off_the_shelf(idle)
    }

    /// Returns every connection that has been idle since `before` or longer.
    pub(super) fn expire(&mut self, before: Instant) -> Vec<C> {
        let mut expired = VecDeque::new();
        for tenant in self.tenants.values_mut() {
            while tenant.idle.front().is_some_and(|idle| idle.since <= before) {
                expired.extend(tenant.idle.pop_front());
            }
        }
        // A tenant that nobody uses costs nothing but its entry in routing.
        self.tenants.retain(|_, tenant| !tenant.idle.is_empty() || Arc::strong_count(&tenant.permits) > 1);
        self.off_the_shelf(expired)
    }

    fn tenant(&mut self, entry: &Arc<RoutingEntry>) -> &mut Tenant<C> {
        let max = self.max_per_tenant;
        self.tenants.entry(entry.uuid).or_insert_with(|| Tenant {
            entry: entry.clone(),
            permits: Arc::new(Semaphore::new(max)),
            idle: VecDeque::new(),
        })
    }

    /// The connection that has been idle the longest, of whatever tenant.
    fn evict(&mut self) -> Option<C> {
        let since = |tenant: &Tenant<C>| tenant.idle.front().map(|idle| idle.since);
        // At most `max` tenants have anything idle, and this happens only when a connection has to be opened anyway,
        // so looking at all of them costs less than keeping them sorted at every check-in.
        let oldest = self.tenants.values_mut().filter(|tenant| !tenant.idle.is_empty()).min_by_key(|t| since(t))?;
        let idle = oldest.idle.pop_front()?;
        self.open -= 1;
        Some(idle.connection)
    }

    fn off_the_shelf(&mut self, idle: VecDeque<Idle<C>>) -> Vec<C> {
        self.open -= idle.len();
        idle.into_iter().map(|idle| idle.connection).collect()
    }
}

/// The pointer first: an entry that routing did not change is the same allocation.
fn same_access(one: &Arc<RoutingEntry>, two: &Arc<RoutingEntry>) -> bool {
    Arc::ptr_eq(one, two) || one.database == two.database
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::testing;

    fn entry(number: u128) -> Arc<RoutingEntry> {
        Arc::new(testing::entry(Uuid::from_u128(number), &["acme.example"]))
    }

    fn open(shelf: &mut Shelf<&'static str>, entry: &Arc<RoutingEntry>) -> Option<&'static str> {
        match shelf.take(entry) {
            Taken::Room { evicted } => evicted,
            Taken::Idle(connection) => panic!("{connection} was idle"),
        }
    }

    #[test]
    fn a_tenant_gets_its_own_idle_connection_and_nobody_elses() {
        let mut shelf = Shelf::new(10, 5);
        let (one, two) = (entry(1), entry(2));
        open(&mut shelf, &one);
        assert_eq!(shelf.put(&one, "one"), None);
        assert_eq!(open(&mut shelf, &two), None);
        assert!(matches!(shelf.take(&one), Taken::Idle("one")));
        assert_eq!(shelf.open(), 2);
    }

    #[test]
    fn when_all_are_open_the_one_idle_the_longest_is_closed_whoever_it_belongs_to() {
        let mut shelf = Shelf::new(3, 5);
        for (number, name) in [(1, "first"), (2, "second"), (3, "third")] {
            open(&mut shelf, &entry(number));
            shelf.put(&entry(number), name);
        }
        assert_eq!(open(&mut shelf, &entry(4)), Some("first"));
        assert_eq!(shelf.open(), 3, "the bound holds");
        assert!(matches!(shelf.take(&entry(2)), Taken::Idle("second")));
        assert_eq!(open(&mut shelf, &entry(5)), Some("third"));
        assert_eq!(shelf.open(), 3);
    }

    #[test]
    fn another_password_server_or_tls_mode_gets_new_connections_and_old_ones_are_closed() {
        let old = entry(1);
        let changes: [fn(&mut RoutingEntry); 4] = [
            |entry| entry.database.password = "other".into(),
            |entry| entry.database.host = "other".into(),
            |entry| entry.database.username = "other".into(),
            |entry| entry.database.sslmode = "verify-full".into(),
        ];
        for change in changes {
            let mut shelf = Shelf::new(10, 5);
            open(&mut shelf, &old);
            open(&mut shelf, &old);
            shelf.put(&old, "idle");
            let mut new = (*old).clone();
            change(&mut new);
            let new = Arc::new(new);
            assert_eq!(shelf.route(&new), ["idle"]);
            assert_eq!(shelf.put(&old, "in use"), Some("in use"), "what was in use is closed when it comes back");
            shelf.closed();
            assert_eq!(open(&mut shelf, &new), None);
            shelf.put(&new, "new");
            assert_eq!(open(&mut shelf, &old), None, "a request from before the change does not get the new one");
        }
    }

    #[test]
    fn a_change_that_does_not_touch_the_database_keeps_the_connections() {
        let mut shelf = Shelf::new(10, 5);
        let old = entry(1);
        open(&mut shelf, &old);
        shelf.put(&old, "idle");
        let mut new = (*old).clone();
        new.display_name = "New name".into();
        let new = Arc::new(new);
        assert!(shelf.route(&new).is_empty());
        assert!(matches!(shelf.take(&new), Taken::Idle("idle")));
    }

    #[test]
    fn idle_connections_expire_oldest_first_and_unused_tenants_are_forgotten() {
        let mut shelf = Shelf::new(10, 5);
        let one = entry(1);
        open(&mut shelf, &one);
        open(&mut shelf, &one);
        shelf.put(&one, "older");
        let between = Instant::now();
        shelf.put(&one, "newer");
        assert_eq!(shelf.expire(between), ["older"]);
        assert_eq!((shelf.open(), shelf.tenants.len()), (1, 1));
        assert_eq!(shelf.expire(Instant::now()), ["newer"]);
        assert_eq!((shelf.open(), shelf.tenants.len()), (0, 0));
    }
}
