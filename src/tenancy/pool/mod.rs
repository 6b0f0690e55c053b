//! Connections to tenants' databases, through the pooler, bounded over all tenants.
//!
//! Why not one `sqlx::PgPool` per tenant: the bound that matters is the one over all tenants, and when it is reached
//! the connection to close is the one that *any* tenant has left idle the longest. A `PgPool` neither shares its bound
//! nor gives up a connection to another pool. And a `PgPool` takes back a connection whose request was cancelled in
//! the middle of a query, trusting that it can be brought in order again. Here the rule is simpler: **only a
//! connection whose work ran to its end, and ended well, is used again.** Everything else is closed; a connection to a
//! pooler in the same cluster costs a few milliseconds.
//!
//! That rule is why work is passed in as a closure ([`TenantPool::run`], [`TenantPool::transaction`]) and there is no
//! guard to hold on to: a guard that is dropped cannot tell a finished request from a cancelled one.
//!
//! Limits, from the outside in: so many connections per tenant, so that a slow tenant waits for itself; so many over
//! all tenants; idle ones closed after [`PoolSettings::idle`], the least recently used first when room is needed.

mod connect;
mod error;
mod shelf;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use sqlx::Connection;
use sqlx::postgres::PgConnection;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use uuid::Uuid;

use self::connect::{check, open};
pub use self::error::PoolError;
use self::shelf::{Shelf, Taken};
use crate::api::routing::RoutingEntry;

/// How many connections, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct PoolSettings {
    /// Most connections over all tenants, idle ones included.
    pub max: usize,
    /// Most connections of one tenant.
    pub max_per_tenant: usize,
    /// An idle connection is closed after this.
    pub idle: Duration,
    /// Longest wait for a connection to become free, and then for one to be opened.
    pub wait: Duration,
    /// Longest that one piece of work may take; the server's `statement_timeout` normally ends it earlier, this is for
    /// a network that swallows the answer.
    pub work: Duration,
}

impl PoolSettings {
    /// `max` connections in all, and the defaults for the rest.
    pub fn new(max: usize) -> Self {
        let max = max.max(1);
        Self {
            max,
            // A tenant whose database hangs holds a quarter at most.
            max_per_tenant: (max / 4).clamp(max.min(4), 25),
            idle: Duration::from_secs(30),
            wait: Duration::from_secs(5),
            work: Duration::from_mins(1),
        }
    }
}

/// All tenants' connections. Clones share them.
#[derive(Clone)]
pub struct TenantPools(Arc<Inner>);

struct Inner {
    settings: PoolSettings,
    /// One permit per connection in use. Idle connections hold none: they are closed when somebody needs their room.
    in_use: Arc<Semaphore>,
    /// A `std` mutex: nothing is awaited while it is held.
    shelf: Mutex<Shelf<PgConnection>>,
}

impl TenantPools {
    /// Starts without connections. Idle ones are closed in the background until the last clone is dropped.
    pub fn new(settings: PoolSettings) -> Self {
        let inner = Arc::new(Inner {
            in_use: Arc::new(Semaphore::new(settings.max)),
            shelf: Mutex::new(Shelf::new(settings.max, settings.max_per_tenant)),
            settings,
        });
        tokio::spawn(close_idle(Arc::downgrade(&inner), settings.idle));
        Self(inner)
    }

    /// The way to one tenant's database.
    pub(super) fn of(&self, entry: Arc<RoutingEntry>) -> TenantPool {
        TenantPool { pools: self.clone(), entry }
    }

    /// Routing says so from now on: connections made with other credentials or to another server are closed, those in
    /// use when they come back.
    pub fn route(&self, entry: &Arc<RoutingEntry>) {
        close(self.0.shelf().route(entry));
    }

    /// The tenant is not routed any more; its connections are closed.
    pub fn forget(&self, tenant: Uuid) {
        close(self.0.shelf().forget(tenant));
    }

    /// Connections that are open, in use or idle.
    pub fn open(&self) -> usize {
        self.0.shelf().open()
    }

    /// Closes every idle connection, as before the process ends.
    pub fn close_all_idle(&self) {
        close(self.0.shelf().expire(Instant::now()));
    }
}

impl Inner {
    fn shelf(&self) -> MutexGuard<'_, Shelf<PgConnection>> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn close_idle(pools: Weak<Inner>, idle: Duration) {
    let mut tick = tokio::time::interval((idle / 6).max(Duration::from_millis(10)));
    loop {
        tick.tick().await;
        let Some(pools) = pools.upgrade() else { return };
        if let Some(before) = Instant::now().checked_sub(idle) {
            close(pools.shelf().expire(before));
        }
    }
}

/// Says goodbye to the server, without anybody waiting for it.
fn close(connections: Vec<PgConnection>) {
    if connections.is_empty() {
        return;
    }
    tokio::spawn(async move {
        let goodbye = futures::future::join_all(connections.into_iter().map(Connection::close));
        // Whether the other end heard it does not matter: dropping the socket closes the connection too.
        let _ = timeout(Duration::from_secs(1), goodbye).await;
    });
}

/// One tenant's database. Holds no connection; borrows one for each piece of work.
#[derive(Clone)]
pub struct TenantPool {
    pools: TenantPools,
    entry: Arc<RoutingEntry>,
}

impl std::fmt::Debug for TenantPool {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("TenantPool").field("database", &self.entry.database.name).finish_non_exhaustive()
    }
}

impl TenantPool {
    /// Does one piece of work on a connection to this tenant's database.
    ///
    /// Behind a transaction-mode pooler, two statements may run on different server connections: use
    /// [`Self::transaction`] where they belong together, and nothing that lives in a session (`SET`, `LISTEN`,
    /// temporary tables, session advisory locks).
    ///
    /// The connection is used again only when `work` returns `Ok`. Return an outcome that is no fault of the database
    /// ("limit reached") as `Ok`, else it costs a new connection.
    ///
    /// # Errors
    /// No connection, or what `work` returns.
    pub async fn run<T, E>(&self, work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>) -> Result<T, E>
    where
        E: From<PoolError>,
    {
        let mut lease = self.check_out().await?;
        let limit = self.pools.0.settings.work;
        let outcome = timeout(limit, work(&mut lease.connection))
            .await
            .map_err(|_| PoolError::TooSlow { database: self.name() })?;
        if outcome.is_ok() && !lease.connection.is_in_transaction() {
            lease.check_in();
        }
        outcome
    }

    /// Does one piece of work in a transaction: `Ok` commits, `Err` and cancellation roll back.
    ///
    /// # Errors
    /// No connection, what `work` returns, or the commit failed.
    pub async fn transaction<T, E>(&self, work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>) -> Result<T, E>
    where
        E: From<PoolError> + From<sqlx::Error>,
    {
        self.run(async |connection: &mut PgConnection| {
            let mut transaction = connection.begin().await?;
            let done = work(&mut transaction).await?;
            transaction.commit().await?;
            Ok(done)
        })
        .await
    }

    fn name(&self) -> String {
        self.entry.database.name.clone()
    }

    /// A connection whose other end said, just now, that it is this tenant's database.
    async fn check_out(&self) -> Result<Lease, PoolError> {
        let expected = format!("tenant_{}", self.entry.uuid);
        if self.entry.database.name != expected {
            return Err(PoolError::WrongDatabase { tenant: self.entry.uuid, expected, found: self.name() });
        }
        let wait = self.pools.0.settings.wait;
        let mut place = self.place().await?;
        loop {
            let taken = self.pools.0.shelf().take(&self.entry);
            // From here on the place counts as an open connection, and gives that back however this ends.
            place.counted = true;
            match taken {
                Taken::Idle(mut connection) => match check(&mut connection, &self.entry, wait).await {
                    Ok(()) => return Ok(Lease { connection, place }),
                    Err(error @ PoolError::WrongDatabase { .. }) => return Err(error),
                    // The pooler restarted, or closed it for its age: try the next one. Each round takes one away.
                    Err(_) => place.release(),
                },
                Taken::Room { evicted } => {
                    close(evicted.into_iter().collect());
                    let mut connection = open(&self.entry, wait).await?;
                    check(&mut connection, &self.entry, wait).await?;
                    return Ok(Lease { connection, place });
                }
            }
        }
    }

    async fn place(&self) -> Result<Place, PoolError> {
        let inner = &self.pools.0;
        let own = inner.shelf().permits(&self.entry);
        let permits = async {
            // First the tenant's own queue, so that those who wait for a slow tenant do not stand in everybody's.
            let own = own.acquire_owned().await;
            let shared = inner.in_use.clone().acquire_owned().await;
            (own.expect("the semaphore is never closed"), shared.expect("the semaphore is never closed"))
        };
        let permits = timeout(inner.settings.wait, permits).await;
        let permits = permits.map_err(|_| PoolError::Busy { database: self.name() })?;
        Ok(Place { pools: inner.clone(), entry: self.entry.clone(), counted: false, _permits: permits })
    }
}

/// The right to one connection. Dropped on every path, cancellation included.
struct Place {
    pools: Arc<Inner>,
    entry: Arc<RoutingEntry>,
    /// Whether the shelf counts an open connection for this place.
    counted: bool,
    /// Declared last, so that the count goes down before somebody else may go ahead.
    _permits: (OwnedSemaphorePermit, OwnedSemaphorePermit),
}

impl Place {
    fn release(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.pools.shelf().closed();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.release();
    }
}

/// A connection in use. Dropping it closes the connection; [`Self::check_in`] is the only way back.
struct Lease {
    connection: PgConnection,
    place: Place,
}

impl Lease {
    fn check_in(self) {
        let Self { connection, mut place } = self;
        let refused = place.pools.shelf().put(&place.entry, connection);
        // On the shelf it is counted as before; refused (the credentials changed meanwhile), the place uncounts it.
        place.counted = refused.is_some();
        close(refused.into_iter().collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tenancy::testing::entry;

    fn pools() -> TenantPools {
        let settings = PoolSettings { wait: Duration::from_millis(50), ..PoolSettings::new(8) };
        TenantPools::new(settings)
    }

    #[tokio::test]
    async fn a_database_that_does_not_answer_is_an_error_and_leaves_nothing_open() {
        let pools = pools();
        let pool = pools.of(Arc::new(entry(Uuid::from_u128(1), &["acme.example"])));
        for _ in 0..20 {
            let error = pool.run(async |_| Ok::<_, PoolError>(())).await.unwrap_err();
            assert!(matches!(error, PoolError::Unreachable { .. }), "{error}");
        }
        assert_eq!(pools.open(), 0);
    }

    #[tokio::test]
    async fn an_entry_that_names_another_tenants_database_is_refused_before_connecting() {
        let mut wrong = entry(Uuid::from_u128(1), &["acme.example"]);
        wrong.database.name = format!("tenant_{}", Uuid::from_u128(2));
        let error = pools().of(Arc::new(wrong)).run(async |_| Ok::<_, PoolError>(())).await.unwrap_err();
        assert!(matches!(error, PoolError::WrongDatabase { .. }), "{error}");
    }

    #[test]
    fn a_tenant_gets_a_quarter_at_most_but_never_nothing() {
        for (max, per_tenant) in [(1, 1), (3, 3), (8, 4), (40, 10), (200, 25)] {
            assert_eq!(PoolSettings::new(max).max_per_tenant, per_tenant, "of {max}");
        }
    }
}
