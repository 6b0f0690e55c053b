//! How often something may happen, counted for all pods together.
//!
//! Everything here is one thing: a counter that begins with the first event and ends after its window. Redis counts; while
//! it is away each process counts for itself, so that a limit then means "per pod" and never "none".

mod local;

use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ::redis::{RedisResult, Script};
use uuid::Uuid;

use self::local::LocalWindows;
use super::redis::{Purpose, Redis};

/// Counts one event: KEYS\[1\] is the counter, ARGV\[1\] the window in ms. Returns the count and what is left of the window.
/// A counter without an end would refuse for ever, hence the second look.
static COUNT: LazyLock<Script> = LazyLock::new(|| {
    Script::new(
        "local count = redis.call('INCR', KEYS[1]) \
         if count == 1 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end \
         local left = redis.call('PTTL', KEYS[1]) \
         if left < 0 then redis.call('PEXPIRE', KEYS[1], ARGV[1]) left = tonumber(ARGV[1]) end \
         return {count, left}",
    )
});

/// A limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How often.
    pub most: u32,
    /// In how long. It begins with the first event, not with the clock's minute.
    pub window: Duration,
}

/// What a limit says to one more event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Go on.
    Allowed,
    /// Not before this much time has passed.
    Refused {
        /// The rest of the window, never zero.
        retry_after: Duration,
    },
}

/// All tenants' counters. Clones share them.
#[derive(Clone)]
pub struct Limits(Arc<Shared>);

struct Shared {
    /// Absent where the app runs without one.
    redis: Option<Redis>,
    /// Counts while Redis does not.
    local: Mutex<LocalWindows>,
}

impl Limits {
    pub(super) fn new(redis: Option<Redis>) -> Self {
        Self(Arc::new(Shared { redis, local: Mutex::default() }))
    }

    pub(super) fn of(&self, tenant: Uuid) -> TenantLimits {
        TenantLimits { tenant, limits: self.clone() }
    }
}

/// One tenant's counters: another tenant's events never count here.
#[derive(Clone)]
pub struct TenantLimits {
    /// The tenant that every counter starts with.
    tenant: Uuid,
    /// Shared with everybody.
    limits: Limits,
}

impl TenantLimits {
    /// Counts one event under `name` and says whether it is within the limit. Events that are refused count too, but do not
    /// make the window longer.
    pub async fn count(&self, name: &str, limit: Limit) -> Verdict {
        let (count, left) = match self.count_together(name, limit.window).await {
            Some(counted) => counted,
            None => self.local(|local, now| local.count(self.tenant, name, limit.window, now)),
        };
        if count <= u64::from(limit.most) {
            return Verdict::Allowed;
        }
        Verdict::Refused { retry_after: left.clamp(Duration::from_millis(1), limit.window) }
    }

    /// Begins anew.
    pub async fn forgive(&self, name: &str) {
        self.local(|local, _| local.forgive(self.tenant, name));
        if let Some(redis) = &self.limits.0.redis {
            let delete = ::redis::cmd("DEL").arg(self.key(redis, name)).to_owned();
            let _: RedisResult<()> = redis.query(Purpose::Default, &delete).await;
        }
    }

    async fn count_together(&self, name: &str, window: Duration) -> Option<(u64, Duration)> {
        let redis = self.limits.0.redis.as_ref()?;
        let mut script = COUNT.key(self.key(redis, name));
        script.arg(u64::try_from(window.as_millis()).unwrap_or(u64::MAX).max(1));
        let (count, left): (u64, u64) = script.invoke_async(&mut redis.line(Purpose::Default)).await.ok()?;
        Some((count, Duration::from_millis(left)))
    }

    fn local<T>(&self, work: impl FnOnce(&mut LocalWindows, Instant) -> T) -> T {
        let mut local = self.limits.0.local.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut local, Instant::now())
    }

    fn key(&self, redis: &Redis, name: &str) -> String {
        redis.key(Purpose::Default, self.tenant, &format!("limit:{name}"))
    }
}
