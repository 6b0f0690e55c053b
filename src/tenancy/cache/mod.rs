//! What a tenant's pages need not make again: Redis, under `tenant:{uuid}:…`.
//!
//! | promise | how |
//! |---|---|
//! | a Redis that is away makes pages slower, never wrong and never an error | every error is a miss; [`super::redis`] makes it a quick one |
//! | many who miss the same key at the same time make it once (per process) | [`flight`] |
//! | flushing a tenant costs the same however much it keeps | entries carry the tenant's *generation*; a flush writes a new one |
//! | what was made before a [`TenantCache::forget`] is never kept after it | an entry is only replaced by whoever saw it; see [`entry`] |
//!
//! A generation is a random number and no counter: Redis may evict it, and a counter that begins anew would some day reach
//! the value that old entries carry.

mod entry;
mod flight;

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::{RedisResult, Script};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use self::entry::{Generation, Id, Kept};
use self::flight::{Flights, Turn};
use super::redis::{Purpose, Redis};

/// Largest entry that is kept, in bytes of JSON. What is larger is made anew each time; it would hold up everybody else's
/// answers on the same connection.
pub const MAX_VALUE: usize = 1024 * 1024;
/// How long a forgotten key refuses what was made before it was forgotten; longer than making anything may take.
const GRAVE: Duration = Duration::from_mins(2);
/// The key of the tenant's generation. A key of that name cannot be cached.
const GENERATION: &str = "gen";

/// Replaces an entry by whoever saw it: KEYS\[1\] is the entry, ARGV its id as seen, the new entry, its life in ms.
static REPLACE: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "if redis.call('GETRANGE', KEYS[1], 0, 15) ~= ARGV[1] then return 0 end \
         redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) return 1",
    )
});

/// What all tenants' caches share. Clones share it.
#[derive(Clone)]
pub struct Cache(Arc<Shared>);

struct Shared {
    /// Absent where the app runs without one.
    redis: Option<Redis>,
    /// What is being made right now.
    flights: Flights,
    /// Tenants whose flush did not reach Redis. Nothing of theirs is read before it did.
    unflushed: Mutex<HashSet<Uuid>>,
}

impl Cache {
    pub(super) fn new(redis: Option<Redis>) -> Self {
        Self(Arc::new(Shared { redis, flights: Flights::default(), unflushed: Mutex::default() }))
    }

    /// `incarnation`: which data of the tenant's it is, see the routing entry. What was made of earlier data is not read.
    pub(super) fn of(&self, tenant: Uuid, incarnation: Option<Uuid>) -> TenantCache {
        TenantCache { tenant, incarnation, cache: self.clone() }
    }

    fn unflushed(&self) -> MutexGuard<'_, HashSet<Uuid>> {
        self.0.unflushed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One tenant's cache.
#[derive(Clone)]
pub struct TenantCache {
    /// The tenant that every key starts with.
    tenant: Uuid,
    /// Which data of the tenant's it is.
    incarnation: Option<Uuid>,
    /// Shared with everybody.
    cache: Cache,
}

/// What Redis said about a key.
#[derive(Default)]
struct Seen {
    /// The entry's id; none where there is no entry.
    id: Option<Id>,
    /// The tenant's generation, which a new entry will carry.
    generation: Generation,
    /// Its value, if it may be served.
    value: Option<Arc<[u8]>>,
}

impl TenantCache {
    /// What is kept under `key`, or what `make` makes, kept for `ttl`.
    ///
    /// While one caller makes it, others of the same process wait for it. When making it fails, nothing is kept, and those
    /// who waited make it themselves; when the one who makes it is cancelled, the next one does.
    ///
    /// # Errors
    /// What `make` returns.
    pub async fn remember<T, E>(
        &self,
        key: &str,
        ttl: Duration,
        make: impl AsyncFnOnce() -> Result<T, E>,
    ) -> Result<T, E>
    where
        T: Serialize + DeserializeOwned + Send,
    {
        let seen = self.look(key).await;
        if let Some(value) = seen.as_ref().and_then(|seen| parse(seen.value.as_deref()?)) {
            return Ok(value);
        }
        let basis = seen.as_ref().map(|seen| (seen.id, seen.generation));
        let flight = self.cache.0.flights.join(self.tenant, key, basis);
        let mut turn = flight.turn().await;
        match &*turn {
            Turn::Made(value) => match parse(value) {
                Some(value) => return Ok(value),
                // Made as another type under the same key, which is a fault of the app's; each gets its own.
                None => return make().await,
            },
            Turn::Failed => {
                // Not one after the other: whatever it fails on may take its time.
                drop(turn);
                return make().await;
            }
            Turn::Open => {}
        }
        // Whoever made it between our look and our turn has kept it by now.
        let seen = if seen.is_some() { self.look(key).await } else { None };
        if let Some(value) = seen.as_ref().and_then(|seen| parse(seen.value.as_deref()?)) {
            return Ok(value);
        }
        let made = make().await;
        let Ok(value) = &made else {
            *turn = Turn::Failed;
            flight.end();
            return made;
        };
        if let Ok(text) = serde_json::to_vec(value) {
            let text: Arc<[u8]> = text.into();
            *turn = Turn::Made(text.clone());
            // Those who wait go on; the flight itself lasts until it is kept, so that nobody begins another one.
            drop(turn);
            if let Some(seen) = seen {
                self.keep(key, ttl, &seen, &text).await;
            }
        }
        made
    }

    /// Forgets one key. What is being made right now, from older data, is not kept under it.
    pub async fn forget(&self, key: &str) {
        self.cache.0.flights.leave(self.tenant, Some(key));
        let Some(redis) = &self.cache.0.redis else { return };
        let grave = entry::grave();
        let set = ::redis::cmd("SET").arg(self.key(redis, key)).arg(grave).arg("PX").arg(millis(GRAVE)).to_owned();
        if redis.query::<()>(Purpose::Cache, &set).await.is_err() {
            self.cache.unflushed().insert(self.tenant);
        }
    }

    /// Forgets everything of this tenant, in one step however much it is.
    ///
    /// While Redis is away, this process reads nothing of the tenant until the flush has reached it.
    pub async fn flush(&self) {
        self.cache.0.flights.leave(self.tenant, None);
        if let Some(redis) = &self.cache.0.redis {
            self.cache.unflushed().insert(self.tenant);
            let _ = self.renew(redis).await;
        }
    }

    /// Writes a new generation, where a flush is due.
    async fn renew(&self, redis: &Redis) -> RedisResult<()> {
        if self.cache.unflushed().contains(&self.tenant) {
            let set = ::redis::cmd("SET").arg(self.key(redis, GENERATION)).arg(&Id::random()[..]).to_owned();
            redis.query::<()>(Purpose::Cache, &set).await?;
            self.cache.unflushed().remove(&self.tenant);
        }
        Ok(())
    }

    /// None: nothing can be read or kept right now.
    async fn look(&self, key: &str) -> Option<Seen> {
        let redis = self.cache.0.redis.as_ref().filter(|_| key != GENERATION)?;
        self.renew(redis).await.ok()?;
        let get = ::redis::cmd("MGET").arg(self.key(redis, GENERATION)).arg(self.key(redis, key)).to_owned();
        let (generation, kept): (Option<Vec<u8>>, Option<Vec<u8>>) = redis.query(Purpose::Cache, &get).await.ok()?;
        let generation = Generation::read(generation.as_deref()).of(self.incarnation);
        let Some(kept) = kept.as_deref().and_then(Kept::read) else {
            return Some(Seen { generation, ..Seen::default() });
        };
        let is_current = kept.generation == generation && !kept.is_grave();
        Some(Seen { id: Some(kept.id), generation, value: is_current.then(|| kept.value.into()) })
    }

    async fn keep(&self, key: &str, ttl: Duration, seen: &Seen, value: &[u8]) {
        let Some(redis) = self.cache.0.redis.as_ref().filter(|_| value.len() <= MAX_VALUE) else { return };
        let mut script = REPLACE.prepare_invoke();
        script.key(self.key(redis, key));
        script.arg(seen.id.as_ref().map_or(&[][..], |id| &id[..]));
        script.arg(entry::write(seen.generation, value)).arg(millis(ttl));
        // Not kept, then: it was forgotten meanwhile, or Redis is away.
        let _: RedisResult<u8> = script.invoke_async(&mut redis.line(Purpose::Cache)).await;
    }

    fn key(&self, redis: &Redis, key: &str) -> String {
        redis.key(Purpose::Cache, self.tenant, key)
    }
}

/// What does not parse (the app was changed since) counts as a miss.
fn parse<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value).ok()
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1)
}
