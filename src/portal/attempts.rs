//! How often somebody may guess.
//!
//! Counted over a quarter of an hour: one account from one place, one place over all accounts, and one account from
//! anywhere. The last can be used up by anybody, so it does not hold where the account has signed in from before: nobody
//! can keep somebody else out. The counts are in the central database, because there are several portals and a guesser
//! asks all of them; signing in needs that database anyway.
//!
//! They go by what was typed and not by whether there is such an account.

use std::net::IpAddr;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::problem::Problem;
use super::state::Portal;
use crate::web::client::network_of;

/// The time that attempts are counted over.
const WINDOW: Duration = Duration::from_mins(15);

/// What is being tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A password.
    Password,
    /// A second factor. Only who knows the password gets so far.
    Code,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Code => "code",
        }
    }

    /// Of one account from one place; from one place; of one account from anywhere.
    const fn limits(self) -> [i32; 3] {
        match self {
            Self::Password => [6, 60, 100],
            // Of a million codes three are right at a time: twenty guesses in a quarter of an hour are one chance in two hundred a
            // day.
            Self::Code => [6, 60, 20],
        }
    }
}

/// Who tries.
#[derive(Clone, Debug)]
pub struct Attempt {
    kind: Kind,
    email: String,
    place: [u8; 32],
    keys: [[u8; 32]; 3],
}

impl Attempt {
    /// `email` as typed.
    pub fn new(kind: Kind, email: &str, address: Option<IpAddr>) -> Self {
        let email = email.trim().to_lowercase();
        let from = address.map_or_else(|| "unknown".to_owned(), |address| network_of(address).to_string());
        let key = |parts: &[&str]| {
            let mut hash = Sha256::new();
            for part in parts {
                hash.update((part.len() as u64).to_be_bytes());
                hash.update(part);
            }
            hash.finalize().into()
        };
        let name = kind.name();
        let keys = [key(&[name, "here", &email, &from]), key(&[name, "place", &from]), key(&[name, "account", &email])];
        Self { kind, place: key(&["place", &from]), keys, email }
    }

    /// Counts the attempt before it is made, so that many at once do not slip through together.
    ///
    /// # Errors
    /// It is one too many, or the central database does not answer.
    pub async fn begin(&self, portal: &Portal) -> Result<(), Problem> {
        let known = portal.patiently(portal.central().is_known_place(&self.email, &self.place)).await?;
        for (index, (key, limit)) in self.keys.iter().zip(self.kind.limits()).enumerate() {
            if index == 2 && known && self.kind == Kind::Password {
                continue;
            }
            let (count, left) = portal.patiently(portal.central().count_attempt(key, WINDOW)).await?;
            // Not counted any further: else one place alone could use up the account's count for everybody.
            if count > limit {
                return Err(Problem::TooMany(left));
            }
        }
        Ok(())
    }

    /// It was the right one.
    ///
    /// # Errors
    /// The central database does not answer.
    pub async fn succeeded(&self, portal: &Portal, admin: i32) -> Result<(), Problem> {
        portal.patiently(portal.central().forgive_attempts(&self.keys)).await?;
        if self.kind == Kind::Code {
            portal.patiently(portal.central().remember_place(admin, &self.place)).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counts_are_apart_by_account_and_by_place_and_ipv6_counts_by_network() {
        let keys = |email: &str, address: &str| Attempt::new(Kind::Password, email, address.parse().ok()).keys;
        let (one, two) = (keys("jo@x", "192.0.2.1"), keys("jo@x", "192.0.2.2"));
        assert!(one[0] != two[0] && one[1] != two[1] && one[2] == two[2]);
        let other = keys("mo@x", "192.0.2.1");
        assert!(one[0] != other[0] && one[1] == other[1] && one[2] != other[2]);
        assert_eq!(keys(" JO@x ", "2001:db8::1"), keys("jo@x", "2001:db8::2"));
        let code = Attempt::new(Kind::Code, "jo@x", "192.0.2.1".parse().ok()).keys;
        assert!(code.iter().all(|key| !one.contains(key)));
    }
}
