//! Against guessing passwords, without handing anybody the means to lock others out.
//!
//! Three counters, all of one tenant:
//!
//! | counter | stops | whom it could hurt |
//! |---|---|---|
//! | address and account | one machine that tries one account | only that machine, at that account |
//! | address | one machine that tries many accounts | those who share its address, for a quarter of an hour |
//! | account | many machines that try one account | nobody who has signed in from their address before: they are let past it |
//!
//! Counting an account's failures alone, as is often done, would let anybody keep its owner out by guessing badly.

use std::net::{IpAddr, Ipv6Addr};
use std::time::Duration;

use ::redis::RedisResult;
use sha2::{Digest, Sha256};

use super::{Limit, TenantLimits, Verdict};
use crate::tenancy::redis::Purpose;

const WINDOW: Duration = Duration::from_mins(15);
/// One machine at one account.
const PAIR: Limit = Limit { most: 10, window: WINDOW };
/// One machine. A company behind one address has many people, some of whom mistype.
const ADDRESS: Limit = Limit { most: 100, window: WINDOW };
/// All machines at one account.
const ACCOUNT: Limit = Limit { most: 50, window: WINDOW };
/// How long an address is known to an account after a sign-in.
const KNOWN: Duration = Duration::from_hours(24 * 90);

/// One attempt to prove who one is: a password, a code from a link.
pub struct Guess<'g> {
    limits: &'g TenantLimits,
    /// Names of counters. Accounts are hashed: an e-mail address has no place in a key.
    pair: String,
    address: String,
    account: String,
}

impl TenantLimits {
    /// An attempt at `account` from `address`. `kind` keeps sign-in apart from, say, password reset.
    pub fn guess(&self, kind: &str, account: &str, address: Option<IpAddr>) -> Guess<'_> {
        let account = hash(&account.trim().to_lowercase());
        // Without an address (a test, a wiring mistake) everybody is the same machine: strict, and never no limit.
        let address = address.map_or_else(|| "unknown".into(), network);
        Guess {
            limits: self,
            pair: format!("{kind}:{account}:{address}"),
            address: format!("{kind}:from:{address}"),
            account: format!("{kind}:at:{account}"),
        }
    }
}

impl Guess<'_> {
    /// Counts it, and says whether it may be tried. Asked before the password is looked at, so that many at once are counted
    /// as many.
    pub async fn admit(&self) -> Verdict {
        for (name, limit) in [(&self.pair, PAIR), (&self.address, ADDRESS)] {
            let verdict = self.limits.count(name, limit).await;
            if verdict != Verdict::Allowed {
                return verdict;
            }
        }
        match self.limits.count(&self.account, ACCOUNT).await {
            Verdict::Refused { .. } if self.is_known().await => Verdict::Allowed,
            verdict => verdict,
        }
    }

    /// It was right: the machine may err again, and is known to the account from now on.
    pub async fn succeeded(&self) {
        self.limits.forgive(&self.pair).await;
        if let Some(redis) = &self.limits.limits.0.redis {
            let set = ::redis::cmd("SET").arg(self.known(redis)).arg(1).arg("EX").arg(KNOWN.as_secs()).to_owned();
            let _: RedisResult<()> = redis.query(Purpose::Default, &set).await;
        }
    }

    async fn is_known(&self) -> bool {
        // While Redis is away nobody is known, but then the count is this process's alone as well.
        let Some(redis) = &self.limits.limits.0.redis else { return false };
        let exists = ::redis::cmd("EXISTS").arg(self.known(redis)).to_owned();
        redis.query(Purpose::Default, &exists).await.unwrap_or(false)
    }

    fn known(&self, redis: &crate::tenancy::redis::Redis) -> String {
        redis.key(Purpose::Default, self.limits.tenant, &format!("known:{}", self.pair))
    }
}

fn hash(account: &str) -> String {
    let digest = Sha256::digest(account);
    digest[..16].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What one customer of an internet provider has: one IPv4 address, but 2⁶⁴ IPv6 addresses.
fn network(address: IpAddr) -> String {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{}/64", Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::tenancy::limits::Limits;

    fn limits() -> TenantLimits {
        Limits::new(None).of(Uuid::from_u128(1))
    }

    fn address(number: u8) -> Option<IpAddr> {
        Some(IpAddr::from([192, 0, 2, number]))
    }

    async fn admitted(limits: &TenantLimits, account: &str, from: Option<IpAddr>, times: usize) -> usize {
        let mut admitted = 0;
        for _ in 0..times {
            admitted += usize::from(limits.guess("sign-in", account, from).admit().await == Verdict::Allowed);
        }
        admitted
    }

    #[tokio::test]
    async fn one_machine_is_stopped_at_one_account_and_its_owner_elsewhere_is_not() {
        let limits = limits();
        assert_eq!(admitted(&limits, "ann@acme.example", address(1), 30).await, 10);
        assert_eq!(admitted(&limits, " Ann@ACME.example", address(1), 1).await, 0, "written otherwise, still the same");
        assert_eq!(admitted(&limits, "ann@acme.example", address(2), 5).await, 5, "the owner, at another address");
        assert_eq!(admitted(&limits, "bob@acme.example", address(1), 5).await, 5, "a colleague at the same address");
    }

    #[tokio::test]
    async fn one_machine_is_stopped_after_many_accounts() {
        let limits = limits();
        let mut all = 0;
        for number in 0..60 {
            all += admitted(&limits, &format!("user{number}@acme.example"), address(1), 2).await;
        }
        assert_eq!(all, 100);
    }

    #[tokio::test]
    async fn who_got_it_right_may_err_again() {
        let limits = limits();
        admitted(&limits, "ann@acme.example", address(1), 10).await;
        limits.guess("sign-in", "ann@acme.example", address(1)).succeeded().await;
        assert_eq!(admitted(&limits, "ann@acme.example", address(1), 20).await, 10);
    }

    #[tokio::test]
    async fn the_ipv6_network_of_one_customer_is_one_machine() {
        let limits = limits();
        let mut all = 0;
        for number in 0..30_u16 {
            let address = IpAddr::from([0x2001, 0xdb8, 1, 2, number, 0, 0, 1]);
            all += admitted(&limits, "ann@acme.example", Some(address), 1).await;
        }
        assert_eq!(all, 10);
    }
}
