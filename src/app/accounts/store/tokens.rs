//! The table `api_tokens`.

use jiff::Timestamp;
use sqlx::postgres::PgConnection;

use super::links::{hashed, new_token};
use super::users::{self, Found};

/// How a token begins, so that scanners for leaked secrets and people know one when they see it.
const BEGINNING: &str = "mos_";
/// How much of it is shown afterwards.
const SHOWN: usize = 10;

/// One token in the list.
#[derive(Debug)]
pub struct Listed {
    pub id: i64,
    pub name: String,
    pub prefix: String,
    pub created_at: Timestamp,
    pub expires_at: Option<Timestamp>,
    pub last_used_at: Option<Timestamp>,
    pub expired: bool,
}

impl Listed {
    /// The day it was made.
    pub fn made(&self) -> String {
        day(self.created_at)
    }

    /// The day it ends; never, where there is none.
    pub fn until(&self) -> Option<String> {
        self.expires_at.map(day)
    }

    /// The day it was last used.
    pub fn used(&self) -> Option<String> {
        self.last_used_at.map(day)
    }
}

fn day(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d").to_string()
}

/// Makes a token for a user; returns it, and it is kept nowhere.
pub async fn add(db: &mut PgConnection, user: i64, name: &str, days: Option<i32>) -> Result<String, sqlx::Error> {
    let token = format!("{BEGINNING}{}", new_token());
    sqlx::query!(
        "INSERT INTO api_tokens (user_id, name, prefix, token_sha256, expires_at)
         VALUES ($1, $2, $3, $4, now() + make_interval(days => $5::integer))",
        user,
        name,
        &token[..SHOWN],
        &hashed(&token)[..],
        days
    )
    .execute(db)
    .await?;
    Ok(token)
}

/// The tokens of a user that are not revoked, newest first.
pub async fn list(db: &mut PgConnection, user: i64) -> Result<Vec<Listed>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"SELECT id, name, prefix, created_at AS "created_at: jiff_sqlx::Timestamp",
                  expires_at AS "expires_at: jiff_sqlx::Timestamp", last_used_at AS "last_used_at: jiff_sqlx::Timestamp",
                  coalesce(expires_at <= now(), false) AS "expired!"
           FROM api_tokens WHERE user_id = $1 AND revoked_at IS NULL ORDER BY id DESC"#,
        user
    )
    .fetch_all(db)
    .await?;
    let listed = rows.into_iter().map(|row| Listed {
        id: row.id,
        name: row.name,
        prefix: row.prefix,
        created_at: row.created_at.to_jiff(),
        expires_at: row.expires_at.map(jiff_sqlx::Timestamp::to_jiff),
        last_used_at: row.last_used_at.map(jiff_sqlx::Timestamp::to_jiff),
        expired: row.expired,
    });
    Ok(listed.collect())
}

/// How many a user has that are not revoked.
pub async fn count(db: &mut PgConnection, user: i64) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT count(*) AS "count!" FROM api_tokens WHERE user_id = $1 AND revoked_at IS NULL"#,
        user
    )
    .fetch_one(db)
    .await
}

/// Ends one of the user's own tokens. Returns its name, or nothing where the user has no such token.
pub async fn revoke(db: &mut PgConnection, user: i64, id: i64) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "UPDATE api_tokens SET revoked_at = now() WHERE id = $1 AND user_id = $2 AND revoked_at IS NULL RETURNING name",
        id,
        user
    )
    .fetch_optional(db)
    .await
}

/// A token that works, and whose.
pub struct Used {
    pub found: Found,
    /// Its use was noted a while ago or never.
    stale: bool,
    id: i64,
}

/// The user of a token, if it is neither revoked nor expired and the user may work.
pub async fn find(db: &mut PgConnection, token: &str) -> Result<Option<Used>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT id, user_id, coalesce(last_used_at < now() - interval '1 minute', true) AS "stale!"
           FROM api_tokens WHERE token_sha256 = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())"#,
        &hashed(token)[..]
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let found = users::find(db, row.user_id).await?;
    Ok(found.map(|found| Used { found, stale: row.stale, id: row.id }))
}

/// Notes that a token is in use, to the minute, so that a busy program does not write at each request.
pub async fn note_use(db: &mut PgConnection, used: &Used) -> Result<(), sqlx::Error> {
    if used.stale {
        sqlx::query!("UPDATE api_tokens SET last_used_at = now() WHERE id = $1", used.id).execute(db).await?;
    }
    Ok(())
}
