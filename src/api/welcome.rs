//! The welcome link: how a tenant's first user comes to be. The operator signs it and writes it into the Secret
//! `<tenant>-welcome`; the app checks it and makes the user. It is good for one user: the first.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What the link is signed for ([`crate::signing`]).
pub const PURPOSE: &str = "welcome";
/// How long a link is valid, in days. A new one is written when the Secret is deleted.
pub const DAYS: i64 = 30;
/// Key of the Secret that holds the link.
pub const KEY: &str = "link";
/// Version of [`Welcome`].
pub const VERSION: u32 = 1;

/// What is signed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// [`VERSION`].
    pub version: u32,
    /// Tells one link from the next.
    pub nonce: Uuid,
}

/// The address that a person opens. `public_url` is where hosts are reached, with `{host}` in it: `https://{host}`.
pub fn link(public_url: &str, host: &str, signed: &str) -> String {
    // A signed text consists of characters that need no escaping in a query.
    format!("{}/welcome?token={signed}", public_url.replace("{host}", host).trim_end_matches('/'))
}
