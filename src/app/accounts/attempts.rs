//! How often somebody may guess.
//!
//! Three counts, each over a quarter of an hour. One account from one place: few, which is what an ordinary guesser
//! meets. One place over all accounts: more, because a company may sit behind one address. One account from anywhere:
//! many, against guessing from everywhere at once; and since anybody can use that one up, it does not hold for a browser
//! that the account has signed in with before. So nobody can lock out somebody else.
//!
//! The counts go by what was typed and not by whether there is such an account, and are kept by hash: Redis lists no
//! addresses.

use std::net::IpAddr;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use redis::RedisError;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::sign_in::away;
use crate::app::problem::Problem;
use crate::app::product::Product;
use crate::tenancy::client::network_of;
use crate::tenancy::redis::{Purpose, Redis};
use crate::tenancy::{Refusal, TenantContext};

/// The time that attempts are counted over.
const WINDOW: Duration = Duration::from_mins(15);
/// One account from one place.
const HERE: u64 = 6;
/// One place, all accounts.
const PLACE: u64 = 60;
/// One account, all places.
const EVERYWHERE: u64 = 100;
/// How long a browser is remembered that somebody signed in with.
pub const DEVICE_AGE: Duration = Duration::from_hours(90 * 24);

/// What is being tried. Each has counts of its own.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// A password.
    SignIn,
    /// A mail that somebody gets for the asking.
    Mail,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::SignIn => "sign-in",
            Self::Mail => "mail",
        }
    }
}

/// Whether it may be tried.
#[derive(Debug, PartialEq, Eq)]
pub enum Allowed {
    /// It may, and has been counted.
    Yes,
    /// Not before this many seconds have passed.
    After(u64),
}

/// Who tries.
pub struct Attempt {
    /// Whose account, hashed with the tenant.
    account: String,
    /// From where, hashed with the tenant.
    place: String,
    /// The secret of a browser that somebody has signed in with, hashed.
    device: Option<String>,
    kind: Kind,
    tenant: Uuid,
}

/// Counts a mail that somebody who is signed in has sent to an address; the answer, where it is one too many. They count
/// against the address and against the tenant, whoever of its people asks.
///
/// # Errors
/// Redis is away.
pub async fn too_many_mails(
    product: &Product,
    tenant: &TenantContext,
    email: &str,
) -> Result<Option<Response>, Problem> {
    let redis = product.tenancy().redis().ok_or(Problem::SignInUnavailable)?;
    let attempt = Attempt::new(tenant.entry().uuid, Kind::Mail, email, None, None);
    Ok(match attempt.begin(redis).await.map_err(away)? {
        Allowed::Yes => None,
        Allowed::After(seconds) => Some(Refusal::too_many(Duration::from_secs(seconds)).into_response()),
    })
}

/// Adds one to a count that is forgotten after a while; returns it and the seconds that are left.
const COUNT: &str = "
local count = redis.call('INCR', KEYS[1])
if redis.call('TTL', KEYS[1]) < 0 then redis.call('EXPIRE', KEYS[1], ARGV[1]) end
return {count, redis.call('TTL', KEYS[1])}";

/// Takes one back from a count that is still there.
const GIVE_BACK: &str = "if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('DECR', KEYS[1]) end";

impl Attempt {
    /// `email` as typed. `device` is the value of the browser's cookie, if it has one.
    pub fn new(tenant: Uuid, kind: Kind, email: &str, address: Option<IpAddr>, device: Option<&str>) -> Self {
        let place = address.map(network_of).map_or_else(|| "unknown".to_owned(), |address| address.to_string());
        Self {
            account: hashed(tenant, &email.trim().to_lowercase()),
            place: hashed(tenant, &place),
            device: device.map(|device| hashed(tenant, device)),
            kind,
            tenant,
        }
    }

    /// Counts the attempt before it is made, so that many at once do not slip through together.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn begin(&self, redis: &Redis) -> Result<Allowed, RedisError> {
        let known = self.is_known_device(redis).await?;
        let mut longest = None;
        for (name, limit) in self.counts(known) {
            let key = self.key(redis, &name);
            let mut count = redis::cmd("EVAL");
            count.arg(COUNT).arg(1).arg(key).arg(WINDOW.as_secs());
            let (count, left): (u64, i64) = redis.query(Purpose::Default, &count).await?;
            if count > limit {
                longest = longest.max(Some(u64::try_from(left).unwrap_or(WINDOW.as_secs()).max(1)));
            }
        }
        Ok(longest.map_or(Allowed::Yes, Allowed::After))
    }

    /// It was the right one: what was counted is taken back, except for what others have used up.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn succeeded(&self, redis: &Redis) -> Result<(), RedisError> {
        let known = self.is_known_device(redis).await?;
        let [here, others @ ..] = &self.counts(known)[..] else { return Ok(()) };
        redis.query::<()>(Purpose::Default, redis::cmd("DEL").arg(self.key(redis, &here.0))).await?;
        for (name, _) in others {
            let key = self.key(redis, name);
            redis.query::<()>(Purpose::Default, redis::cmd("EVAL").arg(GIVE_BACK).arg(1).arg(key)).await?;
        }
        Ok(())
    }

    /// Remembers the browser whose cookie has the value `device` as one that this account signs in with.
    ///
    /// # Errors
    /// Redis is away.
    pub async fn remember_device(&self, redis: &Redis, device: &str) -> Result<(), RedisError> {
        let mut set = redis::cmd("SET");
        set.arg(self.device_key(redis, &hashed(self.tenant, device)))
            .arg(&self.account)
            .arg("EX")
            .arg(DEVICE_AGE.as_secs());
        redis.query(Purpose::Sessions, &set).await
    }

    async fn is_known_device(&self, redis: &Redis) -> Result<bool, RedisError> {
        let Some(device) = &self.device else { return Ok(false) };
        let account: Option<String> =
            redis.query(Purpose::Sessions, redis::cmd("GET").arg(self.device_key(redis, device))).await?;
        Ok(account.as_ref() == Some(&self.account))
    }

    fn key(&self, redis: &Redis, name: &str) -> String {
        redis.key(Purpose::Default, self.tenant, name)
    }

    /// Names and limits, the narrowest first.
    fn counts(&self, known_device: bool) -> Vec<(String, u64)> {
        let key = |what: &str| format!("attempts:{}:{what}", self.kind.name());
        let (account, place) = (&self.account, &self.place);
        match self.device.as_ref().filter(|_| known_device) {
            // Counted by the browser instead of the place: guesses made from the same place are not its fault.
            Some(device) => vec![(key(&format!("{account}:{device}")), HERE)],
            None => vec![
                (key(&format!("{account}:{place}")), HERE),
                (key(&format!("place:{place}")), PLACE),
                (key(&format!("account:{account}")), EVERYWHERE),
            ],
        }
    }

    fn device_key(&self, redis: &Redis, device: &str) -> String {
        redis.key(Purpose::Sessions, self.tenant, &format!("device:{device}"))
    }
}

/// Of every tenant, the same text has another hash.
fn hashed(tenant: Uuid, text: &str) -> String {
    let hash = Sha256::new().chain_update(tenant.as_bytes()).chain_update(text.as_bytes()).finalize();
    BASE64_URL_SAFE_NO_PAD.encode(&hash[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(tenant: u128, email: &str, address: &str, device: Option<&str>, known: bool) -> Vec<String> {
        let attempt = Attempt::new(Uuid::from_u128(tenant), Kind::SignIn, email, address.parse().ok(), device);
        attempt.counts(known).into_iter().map(|(key, _)| key).collect()
    }

    #[test]
    fn an_account_is_counted_however_it_is_typed_and_apart_for_each_place_and_tenant() {
        let first = keys(1, "jo@acme.example", "192.0.2.1", None, false);
        assert_eq!(first, keys(1, " JO@acme.example", "192.0.2.1", Some("d"), false));
        let elsewhere = keys(1, "jo@acme.example", "192.0.2.2", None, false);
        assert!(first[0] != elsewhere[0] && first[1] != elsewhere[1] && first[2] == elsewhere[2]);
        let other = keys(2, "jo@acme.example", "192.0.2.1", None, false);
        assert!(first.iter().all(|key| !other.contains(key) && !key.contains("acme")));
    }

    #[test]
    fn a_browser_that_is_known_has_a_count_that_nobody_else_can_use_up() {
        let known = keys(1, "jo@acme.example", "192.0.2.1", Some("device"), true);
        assert_eq!(known.len(), 1);
        assert!(!keys(1, "jo@acme.example", "192.0.2.1", None, false).contains(&known[0]));
    }
}
