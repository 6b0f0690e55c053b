//! One queue as it lies in Redis, and the one way to change it: each change is one script, so that it happens whole.

use std::sync::LazyLock;
use std::time::Duration;

use ::redis::{RedisResult, Script, Value, from_redis_value};
use uuid::Uuid;

use super::MAX_JOB;
use super::job::Document;
use super::keys::QueueKeys;
use super::ring::Again;
use crate::tenancy::redis::{Purpose, Redis};

static PUSH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/push.lua")));
static RESERVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/reserve.lua")));
static RENEW: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/renew.lua")));
static FINISH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/finish.lua")));
static REVIVE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/revive.lua")));
static DISCARD: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/discard.lua")));
static BURY: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("scripts/bury.lua")));

/// A queue.
#[derive(Clone)]
pub(super) struct Store {
    redis: Redis,
    queue: String,
}

/// How jobs are leased.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// At most so many now.
    pub(super) most: usize,
    /// At most so many of this tenant at a time, over all workers.
    pub(super) cap: usize,
    pub(super) lease: Duration,
    pub(super) tries: u32,
}

/// What a look at a queue brought.
pub(super) struct Reserved {
    pub(super) again: Again,
    /// Jobs that wait behind these.
    pub(super) left: u64,
    /// Leases that ran out.
    pub(super) lost: u64,
    /// Jobs that were queued and are not there any more.
    pub(super) vanished: u64,
    /// Jobs that were given up without being begun again.
    pub(super) given_up: u64,
    pub(super) jobs: Vec<Leased>,
}

/// A job that this worker has.
pub(super) struct Leased {
    /// As it stands in Redis, whatever it says itself.
    pub(super) id: String,
    pub(super) attempt: u32,
    pub(super) text: Vec<u8>,
}

/// What became of a job.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Fate {
    /// With this result, or none.
    Done(String),
    /// It failed and is tried again after that time.
    Again(String, Duration),
    /// It failed and is not.
    Dead(String),
}

/// What Redis says to the end of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Noted,
    /// The lease ran out: whoever has it now does it again.
    SomebodyElses,
    /// There is no such job: this was told already and the answer was lost, or Redis came back empty.
    Gone,
}

impl Store {
    pub(super) fn new(redis: Redis, queue: &str) -> Self {
        Self { redis, queue: queue.to_owned() }
    }

    pub(super) fn redis(&self) -> &Redis {
        &self.redis
    }

    pub(super) fn keys(&self) -> QueueKeys {
        QueueKeys::new(&self.redis, &self.queue)
    }

    /// Returns the id that the job has, and whether it is new.
    pub(super) async fn push(&self, job: &Document, text: &[u8], delay: Duration) -> RedisResult<(Uuid, bool)> {
        let keys = self.keys();
        let mut call = PUSH.key(keys.ready());
        call.key(keys.jobs()).key(keys.later()).key(keys.unique());
        call.key(keys.attempts()).key(keys.errors()).key(keys.dead());
        call.arg(job.id.to_string()).arg(text).arg(milliseconds(delay)).arg(job.unique.as_deref().unwrap_or_default());
        let (id, new): (String, bool) = call.invoke_async(&mut self.redis.line(Purpose::Default)).await?;
        Ok((id.parse().unwrap_or(job.id), new))
    }

    /// Takes jobs; `token` is the lease's.
    pub(super) async fn reserve(&self, terms: Terms, token: &str) -> RedisResult<Reserved> {
        let keys = self.keys();
        let mut call = RESERVE.key(keys.ready());
        call.key(keys.jobs()).key(keys.later()).key(keys.running()).key(keys.leases());
        call.key(keys.attempts()).key(keys.errors()).key(keys.dead());
        call.arg(terms.most).arg(terms.cap).arg(milliseconds(terms.lease)).arg(token).arg(terms.tries).arg(MAX_JOB);
        let answer: Vec<Value> = call.invoke_async(&mut self.redis.line(Purpose::Default)).await?;
        let mut answer = answer.into_iter();
        let mut number = || answer.next().map(from_redis_value::<i64>).transpose().map(Option::unwrap_or_default);
        let (again, left, lost, given_up, vanished) = (number()?, number()?, number()?, number()?, number()?);
        let mut jobs = Vec::new();
        while let (Some(id), Some(attempt), Some(text)) = (answer.next(), answer.next(), answer.next()) {
            jobs.push(Leased {
                id: from_redis_value(id)?,
                attempt: from_redis_value(attempt)?,
                text: from_redis_value(text)?,
            });
        }
        let again = match again {
            0 => Again::AtOnce,
            at if at > 0 => Again::At(at),
            _ => Again::Never,
        };
        let count = |number: i64| u64::try_from(number).unwrap_or_default();
        Ok(Reserved {
            again,
            left: count(left),
            lost: count(lost),
            given_up: count(given_up),
            vanished: count(vanished),
            jobs,
        })
    }

    /// Renews leases; says which jobs somebody else has by now. A job that Redis has lost nobody else has.
    pub(super) async fn renew(&self, token: &str, lease: Duration, ids: &[String]) -> RedisResult<Vec<String>> {
        let keys = self.keys();
        let mut call = RENEW.key(keys.running());
        call.key(keys.leases()).key(keys.jobs()).arg(token).arg(milliseconds(lease)).arg(ids);
        let kept: Vec<u8> = call.invoke_async(&mut self.redis.line(Purpose::Default)).await?;
        Ok(ids.iter().zip(kept).filter(|(_, kept)| *kept == 0).map(|(id, _)| id.clone()).collect())
    }

    /// Notes what became of a job. Returns how many jobs wait, too.
    pub(super) async fn finish(
        &self,
        token: &str,
        id: &str,
        unique: Option<&str>,
        fate: &Fate,
    ) -> RedisResult<(Told, u64)> {
        let keys = self.keys();
        let mut call = FINISH.key(keys.ready());
        call.key(keys.jobs()).key(keys.later()).key(keys.unique()).key(keys.running()).key(keys.leases());
        call.key(keys.attempts()).key(keys.errors()).key(keys.dead()).key(keys.progress()).key(keys.result(id));
        let (outcome, detail, time) = match fate {
            Fate::Done(result) => ("done", result.as_str(), RESULT_KEPT),
            Fate::Again(why, pause) => ("retry", why.as_str(), *pause),
            Fate::Dead(why) => ("dead", why.as_str(), Duration::ZERO),
        };
        call.arg(token).arg(id).arg(outcome).arg(detail).arg(unique.unwrap_or_default()).arg(milliseconds(time));
        let (told, left): (u8, u64) = call.invoke_async(&mut self.redis.line(Purpose::Default)).await?;
        let told = match told {
            0 => Told::SomebodyElses,
            1 => Told::Noted,
            _ => Told::Gone,
        };
        Ok((told, left))
    }

    /// Lets failed jobs be tried again; returns how many.
    pub(super) async fn revive(&self, ids: &[String]) -> RedisResult<u64> {
        let keys = self.keys();
        let mut call = REVIVE.key(keys.ready());
        call.key(keys.jobs()).key(keys.attempts()).key(keys.errors()).key(keys.dead()).arg(ids);
        call.invoke_async(&mut self.redis.line(Purpose::Default)).await
    }

    /// Removes failed jobs for good, or with no ids all of them; returns how many.
    pub(super) async fn discard(&self, ids: &[String]) -> RedisResult<u64> {
        let keys = self.keys();
        let mut call = DISCARD.key(keys.jobs());
        call.key(keys.attempts()).key(keys.errors()).key(keys.dead()).key(keys.unique()).key(keys.progress()).arg(ids);
        call.invoke_async(&mut self.redis.line(Purpose::Default)).await
    }

    /// Gives up what waits and what lost workers held; returns how many were, and how many are left.
    pub(super) async fn bury(&self, why: &str) -> RedisResult<(u64, u64)> {
        let keys = self.keys();
        let mut call = BURY.key(keys.ready());
        call.key(keys.jobs()).key(keys.later()).key(keys.errors()).key(keys.dead());
        call.key(keys.running()).key(keys.leases());
        call.arg(why).arg(1000);
        call.invoke_async(&mut self.redis.line(Purpose::Default)).await
    }

    /// Removes everything, for a tenant whose data is gone too; returns how many keys there were.
    pub(super) async fn clear(&self) -> RedisResult<u64> {
        let unlink = ::redis::cmd("UNLINK").arg(self.keys().all()).to_owned();
        self.redis.query(Purpose::Default, &unlink).await
    }

    /// Says how far a job is.
    pub(super) async fn progress(&self, id: Uuid, text: &str) -> RedisResult<()> {
        let set = ::redis::cmd("HSET").arg(self.keys().progress()).arg(id.to_string()).arg(text).to_owned();
        self.redis.query(Purpose::Default, &set).await
    }

    /// Whether anything waits or is leased.
    pub(super) async fn has_work(&self) -> RedisResult<bool> {
        let keys = self.keys();
        let mut ask = ::redis::pipe();
        ask.cmd("LLEN").arg(keys.ready()).cmd("ZCARD").arg(keys.later()).cmd("ZCARD").arg(keys.running());
        let counts: (u64, u64, u64) = ask.query_async(&mut self.redis.line(Purpose::Default)).await?;
        Ok(counts != (0, 0, 0))
    }
}

/// How long a result is kept.
const RESULT_KEPT: Duration = Duration::from_hours(24);

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
