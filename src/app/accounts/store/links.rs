//! The table `account_links`: links that are good once.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use rand::RngCore;
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnection;

/// What a link is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Sets the first password.
    Invite,
    /// Sets another password.
    Reset,
    /// Shows that an address is the user's.
    Verify,
}

impl Purpose {
    fn as_str(self) -> &'static str {
        match self {
            Self::Invite => "invite",
            Self::Reset => "reset",
            Self::Verify => "verify",
        }
    }

    /// How long a link is good.
    fn hours(self) -> i32 {
        match self {
            Self::Invite => 7 * 24,
            Self::Reset => 1,
            Self::Verify => 24,
        }
    }

    /// Where it leads.
    pub fn path(self) -> &'static str {
        match self {
            Self::Invite => "/invitation",
            Self::Reset => "/reset-password",
            Self::Verify => "/verify-email",
        }
    }
}

/// A link that is good.
#[derive(Debug)]
pub struct Link {
    pub user_id: i64,
    /// The user's name.
    pub name: String,
    /// The address it was made for.
    pub email: String,
    /// It came by mail, so whoever has it reads that address.
    pub mailed: bool,
}

/// Makes a link; returns its token, which is kept nowhere.
pub async fn add(
    db: &mut PgConnection,
    user: i64,
    purpose: Purpose,
    email: &str,
    mailed: bool,
) -> Result<String, sqlx::Error> {
    let token = new_token();
    sqlx::query!(
        "INSERT INTO account_links (user_id, purpose, token_sha256, email, mailed, expires_at)
         VALUES ($1, $2, $3, $4, $5, now() + make_interval(hours => $6))",
        user,
        purpose.as_str(),
        &hashed(&token)[..],
        email,
        mailed,
        purpose.hours()
    )
    .execute(db)
    .await?;
    Ok(token)
}

/// The link of that token, if it is good; it stays so.
pub async fn find(db: &mut PgConnection, purpose: Purpose, token: &str) -> Result<Option<Link>, sqlx::Error> {
    sqlx::query_as!(
        Link,
        "SELECT link.user_id, users.name, link.email, link.mailed FROM account_links link JOIN users ON users.id = link.user_id
         WHERE token_sha256 = $1 AND purpose = $2 AND used_at IS NULL AND expires_at > now() AND disabled_at IS NULL",
        &hashed(token)[..],
        purpose.as_str()
    )
    .fetch_optional(db)
    .await
}

/// Uses the link of that token up, and with it all others of the same purpose that the user has. Of two who do so at the
/// same time, one gets it.
pub async fn spend(db: &mut PgConnection, purpose: Purpose, token: &str) -> Result<Option<Link>, sqlx::Error> {
    let link = sqlx::query_as!(
        Link,
        "UPDATE account_links link SET used_at = now() FROM users
         WHERE users.id = link.user_id AND token_sha256 = $1 AND purpose = $2 AND used_at IS NULL AND expires_at > now()
           AND disabled_at IS NULL
         RETURNING link.user_id, users.name, link.email, link.mailed",
        &hashed(token)[..],
        purpose.as_str()
    )
    .fetch_optional(&mut *db)
    .await?;
    if let Some(link) = &link {
        end(db, link.user_id, purpose).await?;
    }
    Ok(link)
}

/// Uses up all links of one purpose that a user has.
pub async fn end(db: &mut PgConnection, user: i64, purpose: Purpose) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE account_links SET used_at = now() WHERE user_id = $1 AND purpose = $2 AND used_at IS NULL",
        user,
        purpose.as_str()
    )
    .execute(db)
    .await?;
    Ok(())
}

/// 256 bits of chance, in characters that need no escaping in a link.
pub fn new_token() -> String {
    let mut token = [0; 32];
    rand::rng().fill_bytes(&mut token);
    BASE64_URL_SAFE_NO_PAD.encode(token)
}

/// What is kept of a token. It needs no salt and no slow hash: nobody can guess 256 bits.
pub fn hashed(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}
