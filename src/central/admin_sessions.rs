//! Who is signed in at the admin portal, and how often somebody may try to.

use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use sqlx::{FromRow, Row};

use super::admins::{AdminRow, admin_columns};
use super::rows::instant;
use super::{Central, CentralError, bounded};

/// A session whose password was right and whose second factor is missing ends after so long.
const HALF: f64 = 900.0;

/// How long sessions live.
#[derive(Clone, Copy, Debug)]
pub struct Lifetimes {
    /// Without use.
    pub idle: Duration,
    /// At all.
    pub lifetime: Duration,
}

/// A session.
#[derive(Clone, Debug)]
pub struct SessionRow {
    /// Hash of its token.
    pub hash: Vec<u8>,
    /// Password and second factor were shown; else the password alone.
    pub full: bool,
    /// A second factor that is being set up, encrypted.
    pub pending_secret: Option<String>,
    /// When password and second factor were shown last.
    pub proved_at: Timestamp,
    /// Who.
    pub admin: AdminRow,
}

/// What a session is begun with.
#[derive(Clone, Debug)]
pub struct NewSession<'a> {
    /// Hash of its token.
    pub hash: [u8; 32],
    /// Whose.
    pub admin_id: i32,
    /// Password and second factor were shown; else the password alone.
    pub full: bool,
    /// From where.
    pub ip_address: Option<IpAddr>,
    /// With what.
    pub user_agent: Option<&'a str>,
}

impl Central {
    /// Begins a session, in place of `before` where there is one, and forgets those that have ended.
    pub async fn begin_session(
        &self,
        new: &NewSession<'_>,
        before: Option<&[u8]>,
        lifetimes: Lifetimes,
    ) -> Result<(), CentralError> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            sqlx::query(
                "DELETE FROM admin_sessions WHERE hash = $1 OR created_at < now() - make_interval(secs => $2)
                    OR seen_at < now() - make_interval(secs => $3)",
            )
            .bind(before)
            .bind(lifetimes.lifetime.as_secs_f64())
            .bind(lifetimes.idle.as_secs_f64())
            .execute(&mut *transaction)
            .await?;
            sqlx::query("DELETE FROM admin_attempts WHERE until < now()").execute(&mut *transaction).await?;
            sqlx::query(
                "INSERT INTO admin_sessions (hash, admin_id, stage, ip_address, user_agent)
                 VALUES ($1, $2, $3, $4::text::inet, left($5, 255))",
            )
            .bind(&new.hash[..])
            .bind(new.admin_id)
            .bind(if new.full { "full" } else { "password" })
            .bind(new.ip_address.map(|address| address.to_string()))
            .bind(new.user_agent)
            .execute(&mut *transaction)
            .await?;
            if new.full {
                let sql = "UPDATE system_admins SET last_login_at = now() WHERE id = $1";
                sqlx::query(sql).bind(new.admin_id).execute(&mut *transaction).await?;
            }
            transaction.commit().await
        };
        bounded("begin a session", work).await
    }

    /// The session of a token, unless it has ended; notes that it is used.
    pub async fn session(&self, hash: &[u8], lifetimes: Lifetimes) -> Result<Option<SessionRow>, CentralError> {
        let work = async {
            let row = sqlx::query(concat!(
                "SELECT s.hash, s.stage, s.pending_secret, (extract(epoch FROM s.proved_at) * 1000000)::bigint AS proved_at,
                        s.seen_at < now() - interval '30 seconds' AS stale, ",
                admin_columns!(),
                " FROM admin_sessions s JOIN system_admins a ON a.id = s.admin_id
                  WHERE s.hash = $1 AND s.seen_at > now() - make_interval(secs => $2)
                    AND s.created_at > now() - make_interval(secs => CASE s.stage WHEN 'full' THEN $3 ELSE $4 END)"
            ))
            .bind(hash)
            .bind(lifetimes.idle.as_secs_f64())
            .bind(lifetimes.lifetime.as_secs_f64())
            .bind(HALF)
            .fetch_optional(&self.pool)
            .await?;
            let Some(row) = row else { return Ok(None) };
            // Not at every request: a page that is looked at would be a write each time.
            if row.try_get("stale")? {
                let sql = "UPDATE admin_sessions SET seen_at = now() WHERE hash = $1";
                sqlx::query(sql).bind(hash).execute(&self.pool).await?;
            }
            Ok(Some(SessionRow {
                hash: row.try_get("hash")?,
                full: row.try_get::<String, _>("stage")? == "full",
                pending_secret: row.try_get("pending_secret")?,
                proved_at: instant(&row, "proved_at")?.unwrap_or_default(),
                admin: AdminRow::from_row(&row)?,
            }))
        };
        bounded("look for a session", work).await
    }

    /// Keeps a second factor that is being set up until it is confirmed.
    pub async fn set_pending_secret(&self, hash: &[u8], secret: &str) -> Result<(), CentralError> {
        let sql = "UPDATE admin_sessions SET pending_secret = $2 WHERE hash = $1";
        bounded("keep a pending second factor", sqlx::query(sql).bind(hash).bind(secret).execute(&self.pool))
            .await
            .map(drop)
    }

    /// Ends a session.
    pub async fn end_session(&self, hash: &[u8]) -> Result<(), CentralError> {
        let query = sqlx::query("DELETE FROM admin_sessions WHERE hash = $1").bind(hash);
        bounded("end a session", query.execute(&self.pool)).await.map(drop)
    }

    /// Adds one to a count of attempts, which is forgotten `window` after the first. Returns the count, and the seconds
    /// until it is forgotten.
    pub async fn count_attempt(&self, key: &[u8; 32], window: Duration) -> Result<(i32, i64), CentralError> {
        let query = sqlx::query_as(
            "INSERT INTO admin_attempts AS a (key, count, until) VALUES ($1, 1, now() + make_interval(secs => $2))
             ON CONFLICT (key) DO UPDATE SET
                count = CASE WHEN a.until < now() THEN 1 ELSE a.count + 1 END,
                until = CASE WHEN a.until < now() THEN excluded.until ELSE a.until END
             RETURNING count, ceil(extract(epoch FROM until - now()))::bigint",
        );
        let query = query.bind(&key[..]).bind(window.as_secs_f64());
        bounded("count an attempt", query.fetch_one(&self.pool)).await
    }

    /// Takes attempts back: all of the first count, one of each other.
    pub async fn forgive_attempts(&self, keys: &[[u8; 32]]) -> Result<(), CentralError> {
        let work = async {
            for (index, key) in keys.iter().enumerate() {
                let sql = match index {
                    0 => "DELETE FROM admin_attempts WHERE key = $1",
                    _ => "UPDATE admin_attempts SET count = greatest(count - 1, 0) WHERE key = $1",
                };
                sqlx::query(sql).bind(&key[..]).execute(&self.pool).await?;
            }
            Ok(())
        };
        bounded("take attempts back", work).await
    }

    /// Whether the administrator with this address has signed in from there before.
    pub async fn is_known_place(&self, email: &str, place: &[u8; 32]) -> Result<bool, CentralError> {
        let query = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM admin_places p JOIN system_admins a ON a.id = p.admin_id
                            WHERE lower(a.email) = lower($1) AND p.place = $2
                              AND p.seen_at > now() - interval '90 days')",
        );
        bounded("look for a known place", query.bind(email).bind(&place[..]).fetch_one(&self.pool)).await
    }

    /// Remembers that the administrator has signed in from there.
    pub async fn remember_place(&self, id: i32, place: &[u8; 32]) -> Result<(), CentralError> {
        let query = sqlx::query(
            "INSERT INTO admin_places (admin_id, place) VALUES ($1, $2)
             ON CONFLICT (admin_id, place) DO UPDATE SET seen_at = now()",
        );
        bounded("remember a place", query.bind(id).bind(&place[..]).execute(&self.pool)).await.map(drop)
    }
}
