//! Whose turn it is, over all workers of a pool: the shared one, or a tenant's own.
//!
//! A tenant is in one of three places: in the ring, where it has work; among the due, where it will have; or held by a worker
//! that looks at it. Held too long means that the worker was lost. All of it can be made again from the queues (`sweep` of
//! [`super::worker`]), so it is never the truth about a job.

use std::sync::LazyLock;
use std::time::Duration;

use ::redis::{RedisResult, Script, Value};
use uuid::Uuid;

use super::keys::RingKeys;
use crate::api::routing::{RoutingEntry, WorkerPool};
use crate::tenancy::redis::{Purpose, Redis};

static WAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/wake.lua")));
static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/take.lua")));
static GIVE_BACK: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/give_back.lua")));

/// A worker looks at a tenant for a moment only; one that does not give it back within this time is lost.
const HELD: Duration = Duration::from_secs(10);

/// The order of the tenants of one pool.
#[derive(Clone)]
pub(super) struct Ring {
    redis: Redis,
    /// The tenant whose own ring it is; None: the shared one.
    own: Option<Uuid>,
}

/// The tenant, where workers of its own serve it.
pub(super) fn own_of(entry: &RoutingEntry) -> Option<Uuid> {
    (entry.queue.pool == WorkerPool::Dedicated).then_some(entry.uuid)
}

/// What one look at the ring brought.
pub(super) struct Taken {
    /// To give them back with.
    deadline: i64,
    /// When there is something to do even if nobody is woken (ms of Redis's clock).
    pub(super) again: Option<i64>,
    /// How many wait behind these.
    pub(super) waiting: usize,
    pub(super) turns: Vec<Turn>,
}

/// A tenant that is held.
pub(super) struct Turn {
    pub(super) tenant: Uuid,
    /// Its start tag, as Redis writes it: it goes back unchanged.
    tag: String,
    /// The same as a number.
    pub(super) start: f64,
}

/// When a tenant has something to do again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Again {
    AtOnce,
    /// At that time of Redis's clock (ms).
    At(i64),
    /// When it is woken.
    Never,
}

/// A tenant after its turn.
pub(super) struct Served<'t> {
    pub(super) turn: &'t Turn,
    /// In units of virtual time.
    pub(super) cost: f64,
    pub(super) again: Again,
}

impl Taken {
    /// That much time from when they were taken, on Redis's clock (ms).
    pub(super) fn after(&self, time: Duration) -> i64 {
        self.now() + i64::try_from(time.as_millis()).unwrap_or(i64::MAX / 2)
    }

    /// How long there is nothing to do unless somebody is woken.
    pub(super) fn pause(&self) -> Duration {
        let pause = self.again.map(|again| u64::try_from(again - self.now()).unwrap_or_default());
        pause.map_or(Duration::MAX, Duration::from_millis)
    }

    fn now(&self) -> i64 {
        self.deadline - i64::try_from(HELD.as_millis()).unwrap_or_default()
    }
}

impl Ring {
    /// That of the workers of a tenant's own, or without a tenant the shared one.
    pub(super) fn of_pool(redis: Redis, own: Option<Uuid>) -> Self {
        Self { redis, own }
    }

    /// The one that this tenant belongs into.
    pub(super) fn of(redis: Redis, entry: &RoutingEntry) -> Self {
        Self { redis, own: own_of(entry) }
    }

    fn keys(&self) -> RingKeys {
        RingKeys::new(&self.redis, self.own)
    }

    /// These have something to do after these delays.
    pub(super) async fn wake(&self, tenants: &[(Uuid, Duration)]) -> RedisResult<()> {
        let keys = self.keys();
        let mut call = WAKE.key(keys.ring());
        call.key(keys.due()).key(keys.held()).key(keys.woken()).key(keys.bell());
        for (tenant, delay) in tenants {
            call.arg(tenant.to_string()).arg(u64::try_from(delay.as_millis()).unwrap_or(u64::MAX));
        }
        call.invoke_async(&mut self.redis.line(Purpose::Default)).await
    }

    /// Forgets a tenant.
    pub(super) async fn forget(&self, tenant: Uuid) -> RedisResult<()> {
        let (keys, tenant) = (self.keys(), tenant.to_string());
        let mut forget = ::redis::pipe();
        for key in [keys.ring(), keys.due(), keys.held()] {
            forget.cmd("ZREM").arg(key).arg(&tenant).ignore();
        }
        for key in [keys.woken(), keys.finish()] {
            forget.cmd("HDEL").arg(key).arg(&tenant).ignore();
        }
        forget.query_async(&mut self.redis.line(Purpose::Default)).await
    }

    /// Removes the ring itself, of a tenant that is no more.
    pub(super) async fn clear(&self) -> RedisResult<u64> {
        let unlink = ::redis::cmd("UNLINK").arg(self.keys().all()).to_owned();
        self.redis.query(Purpose::Default, &unlink).await
    }

    /// Takes at most so many of those whose turn it is.
    pub(super) async fn take(&self, most: usize) -> RedisResult<Taken> {
        let keys = self.keys();
        let mut call = TAKE.key(keys.ring());
        call.key(keys.due()).key(keys.held()).key(keys.woken()).key(keys.finish()).key(keys.clock());
        call.arg(most).arg(u64::try_from(HELD.as_millis()).unwrap_or(u64::MAX));
        let answer: Vec<Value> = call.invoke_async(&mut self.redis.line(Purpose::Default)).await?;
        let mut answer = answer.into_iter();
        let mut number =
            || answer.next().map(::redis::from_redis_value::<i64>).transpose().map(Option::unwrap_or_default);
        let (deadline, again, waiting) = (number()?, number()?, number()?);
        let mut turns = Vec::new();
        while let (Some(tenant), Some(tag)) = (answer.next(), answer.next()) {
            let (tenant, tag): (String, String) = (::redis::from_redis_value(tenant)?, ::redis::from_redis_value(tag)?);
            if let Ok(tenant) = tenant.parse() {
                turns.push(Turn { tenant, start: tag.parse().unwrap_or_default(), tag });
            } else {
                tracing::error!(tenant, "something that is no tenant stands in the ring and is left out");
            }
        }
        let again = Some(again).filter(|&again| again >= 0);
        Ok(Taken { deadline, again, waiting: usize::try_from(waiting).unwrap_or_default(), turns })
    }

    /// Gives back what was taken.
    pub(super) async fn give_back(&self, taken: &Taken, served: &[Served<'_>]) -> RedisResult<()> {
        if served.is_empty() {
            return Ok(());
        }
        let keys = self.keys();
        let mut call = GIVE_BACK.key(keys.ring());
        call.key(keys.due()).key(keys.held()).key(keys.woken()).key(keys.finish()).key(keys.clock()).key(keys.bell());
        call.arg(taken.deadline);
        for served in served {
            let again = match served.again {
                Again::AtOnce => 0,
                Again::At(at) => at.max(1),
                Again::Never => -1,
            };
            call.arg(served.turn.tenant.to_string()).arg(&served.turn.tag).arg(served.cost).arg(again);
        }
        call.invoke_async(&mut self.redis.line(Purpose::Default)).await
    }

    /// Waits until somebody is woken, at most so long; returns whether somebody was. `redis` is one whose answers may take
    /// that long.
    pub(super) async fn listen(&self, redis: &Redis, longest: Duration) -> RedisResult<bool> {
        let wait = ::redis::cmd("BLPOP").arg(self.keys().bell()).arg(longest.as_secs_f64()).to_owned();
        let rung: Option<(String, String)> = redis.query(Purpose::Default, &wait).await?;
        Ok(rung.is_some())
    }

    /// Lets another worker have the call that this one cannot follow.
    pub(super) async fn pass_on(&self) -> RedisResult<()> {
        let push = ::redis::cmd("LPUSH").arg(self.keys().bell()).arg(1).to_owned();
        self.redis.query(Purpose::Default, &push).await
    }

    /// Whether it is this worker that looks for forgotten queues now; then nobody does for `pause`.
    pub(super) async fn may_sweep(&self, pause: Duration) -> RedisResult<bool> {
        let mut set = ::redis::cmd("SET");
        set.arg(self.keys().sweep()).arg(1).arg("NX").arg("EX").arg(pause.as_secs().max(1));
        let set: Option<String> = self.redis.query(Purpose::Default, &set).await?;
        Ok(set.is_some())
    }
}
