//! Who is signed in: sessions kept in Redis, found by a cookie, bound to one tenant.
//!
//! Why not the session layer of a crate: the ones there are keep all sessions in one flat space of ids, so that a store
//! cannot know whose tenant's session it looks for; here the tenant is part of the key, and a session of another tenant
//! is not found at all. They also cannot tell "no such session" from "Redis is away", and an outage would sign people
//! out. What is left of such a layer, once both are taken care of, is less than an adapter would be.
//!
//! ```text
//! cookie mo_session = <tenant's uuid>.<secret>          only the browser has the secret
//! tenant:{uuid}:session:{sha256 of the secret}           "<epoch> <record>", expires when nobody used it for a while
//! tenant:{uuid}:sessions                                 the epoch; without it, or with another, no session is valid
//! ```
//!
//! A session ends when it is idle for [`SessionSettings::idle`], when it is [`SessionSettings::lifetime`] old, when its
//! user signs out ([`Sessions::end`]), when its user's generation is raised (the app's part: see
//! [`Holder::generation`]), or with all others of its tenant ([`Sessions::end_all`]): then the epoch is deleted, and
//! the next sign-in draws a new one. Deleting it twice, from several processes, or long before it is asked for does no
//! harm, and no session comes back by it: that is why it is a random word and not a number that is counted up.

pub use crate::web::cookie;
mod ending;
mod id;

use std::time::Duration;

use jiff::Timestamp;
use redis::RedisError;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use self::id::{SessionId, derived};

pub(super) use self::ending::Ending;
use super::redis::{Purpose, Redis};

/// How long sessions live, and where their cookie is sent.
#[derive(Debug, Clone, Copy)]
pub struct SessionSettings {
    /// A session that nobody uses for so long ends.
    pub idle: Duration,
    /// A session ends at this age, however much it is used.
    pub lifetime: Duration,
    /// Whether browsers send the cookie over TLS alone. Off only where there is no TLS at all.
    pub secure: bool,
}

impl Default for SessionSettings {
    /// A working day without use, and a week in all.
    fn default() -> Self {
        Self { idle: Duration::from_hours(12), lifetime: Duration::from_hours(7 * 24), secure: true }
    }
}

/// Why it cannot be said who is signed in. Never a reason to sign anybody out.
#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    /// The app runs without Redis.
    #[error("sessions need Redis, and none is configured")]
    NotConfigured,
    /// The tenant is not served any more.
    #[error("beginning a session: the tenant is not served any more")]
    NotServed,
    /// Redis is away or refuses.
    #[error("{doing}: Redis does not answer")]
    Away {
        /// What we were doing.
        doing: &'static str,
        /// What Redis or the way to it said.
        #[source]
        source: RedisError,
    },
}

/// Whom a session belongs to, in the app's own terms.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The app's name of the user.
    pub user: String,
    /// The user's generation when the session began. The app compares it with the one in its database and takes the
    /// session for ended when they differ: raising it ends all sessions of one user, in the transaction of whatever was
    /// the reason, and without Redis.
    pub generation: i64,
    /// The tenant's data when the session began, see the routing entry. In other data the user's name may be another person's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incarnation: Option<Uuid>,
    /// By what the app knows the person again in other data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub person: Option<String>,
}

/// What Redis keeps of a session beside the epoch.
#[derive(Serialize, Deserialize)]
struct Record {
    #[serde(flatten)]
    holder: Holder,
    /// Second since 1970 at which somebody signed in.
    began: i64,
}

/// Every tenant's sessions. Clones share the connection.
#[derive(Clone)]
pub struct Sessions {
    /// Shared with the caches; absent where the app runs without one.
    redis: Option<Redis>,
    settings: SessionSettings,
}

/// Keys: the session, its tenant's epoch. Arguments: an epoch in case there is none, the record, seconds until the
/// session is idle, seconds that the epoch is kept at least.
const BEGIN: &str = "
local epoch = redis.call('GET', KEYS[2]) or ARGV[1]
redis.call('SET', KEYS[2], epoch, 'EX', ARGV[4])
redis.call('SET', KEYS[1], epoch .. ' ' .. ARGV[2], 'EX', ARGV[3])";

/// Keys as above. Arguments: seconds until the session is idle, seconds left at which that begins anew; so most looks
/// only read. Returns the record.
const LOOK: &str = "
local record, epoch = redis.call('GET', KEYS[1]), redis.call('GET', KEYS[2])
if not record then return false end
if not epoch or record:sub(1, #epoch + 1) ~= epoch .. ' ' then
  redis.call('DEL', KEYS[1])
  return false
end
if redis.call('TTL', KEYS[1]) <= tonumber(ARGV[2]) then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return record:sub(#epoch + 2)";

/// What Redis calls the epoch, below its tenant.
const EPOCH: &str = "sessions";

impl Sessions {
    pub(super) fn new(redis: Option<Redis>, settings: SessionSettings) -> Self {
        Self { redis, settings }
    }

    /// How long sessions live, and where their cookie is sent.
    pub fn settings(&self) -> &SessionSettings {
        &self.settings
    }

    /// Begins a session under a new id. There is no way to begin one under an id that somebody brought along.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn begin(&self, tenant: Uuid, holder: Holder) -> Result<SessionId, SessionError> {
        let id = SessionId::random(tenant);
        let record = Record { holder, began: Timestamp::now().as_second() };
        let record = serde_json::to_string(&record).expect("a record is plain data");
        let idle = self.settings.idle.as_secs().max(1);
        let mut begin = redis::cmd("EVAL");
        begin.arg(BEGIN).arg(2).arg(self.key(tenant, &id.name())?).arg(self.key(tenant, EPOCH)?);
        begin.arg(Uuid::new_v4().simple().to_string()).arg(record);
        begin.arg(idle).arg(self.settings.lifetime.as_secs().saturating_add(idle));
        self.ask::<()>("beginning a session", &begin).await?;
        Ok(id)
    }

    /// Whose session it is, if it is one, and counts that as use.
    ///
    /// # Errors
    /// Redis is away, so nobody knows.
    pub async fn find(&self, id: &SessionId) -> Result<Option<Holder>, SessionError> {
        let idle = self.settings.idle.as_secs().max(1);
        let mut look = redis::cmd("EVAL");
        let tenant = id.tenant();
        look.arg(LOOK)
            .arg(2)
            .arg(self.key(tenant, &id.name())?)
            .arg(self.key(tenant, EPOCH)?)
            .arg(idle)
            .arg(idle - idle.div_ceil(10));
        let record: Option<String> = self.ask("looking for a session", &look).await?;
        let record = record.and_then(|record| serde_json::from_str::<Record>(&record).ok());
        let Some(record) = record else { return Ok(None) };
        let age = Timestamp::now().as_second().saturating_sub(record.began);
        if u64::try_from(age).is_ok_and(|age| age >= self.settings.lifetime.as_secs()) {
            self.end(id).await?;
            return Ok(None);
        }
        Ok(Some(record.holder))
    }

    /// Ends one session.
    ///
    /// # Errors
    /// Redis is away, and the session goes on.
    pub async fn end(&self, id: &SessionId) -> Result<(), SessionError> {
        self.ask("ending a session", redis::cmd("DEL").arg(self.key(id.tenant(), &id.name())?)).await
    }

    /// Ends all sessions of a tenant.
    ///
    /// # Errors
    /// Redis is away, and they go on.
    pub async fn end_all(&self, tenant: Uuid) -> Result<(), SessionError> {
        self.ask("ending a tenant's sessions", redis::cmd("DEL").arg(self.key(tenant, EPOCH)?)).await
    }

    fn key(&self, tenant: Uuid, name: &str) -> Result<String, SessionError> {
        let redis = self.redis.as_ref().ok_or(SessionError::NotConfigured)?;
        Ok(redis.key(Purpose::Sessions, tenant, name))
    }

    async fn ask<T: redis::FromRedisValue>(
        &self,
        doing: &'static str,
        command: &redis::Cmd,
    ) -> Result<T, SessionError> {
        let redis = self.redis.as_ref().ok_or(SessionError::NotConfigured)?;
        redis.query(Purpose::Sessions, command).await.map_err(|source| SessionError::Away { doing, source })
    }
}
