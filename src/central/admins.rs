//! `system_admins`: who may use the admin portal, and what they prove it with.
//!
//! Whatever changes somebody's rights or proofs is written to the audit trail in the same transaction.

use jiff::Timestamp;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{FromRow, PgConnection, Row};

use super::audit::{self, AuditEntry};
use super::rows::instant;
use super::{Central, CentralError, bounded};

/// Serialises what changes who may manage administrators: two who remove each other would leave nobody.
const ADMINS_LOCK: i64 = 0x6d6f_735f_6164_6d6e;

/// One administrator.
#[derive(Clone)]
pub struct AdminRow {
    /// The row.
    pub id: i32,
    /// As it was typed when they were invited.
    pub email: String,
    /// A PHC string.
    pub password: String,
    /// Named rights, as `{"view": true}`.
    pub permissions: Value,
    /// The second factor's secret, encrypted.
    pub two_factor_secret: Option<String>,
    /// A new password has to be set before anything else.
    pub must_change_password: bool,
    /// Who invited them.
    pub invited_by: Option<String>,
    /// When they signed in last.
    pub last_login_at: Option<Timestamp>,
    /// When they were invited.
    pub created_at: Timestamp,
}

impl std::fmt::Debug for AdminRow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("AdminRow").field("id", &self.id).field("email", &self.email).finish_non_exhaustive()
    }
}

impl FromRow<'_, PgRow> for AdminRow {
    fn from_row(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            id: row.try_get("id")?,
            email: row.try_get("email")?,
            password: row.try_get("password")?,
            permissions: row.try_get("permissions")?,
            two_factor_secret: row.try_get("two_factor_secret")?,
            must_change_password: row.try_get("must_change_password")?,
            invited_by: row.try_get("invited_by")?,
            last_login_at: instant(row, "last_login_at")?,
            created_at: instant(row, "created_at")?.unwrap_or_default(),
        })
    }
}

/// The columns of an [`AdminRow`], of the table `a`.
macro_rules! admin_columns {
    () => {
        "a.id, a.email, a.password, a.permissions, a.two_factor_secret, a.must_change_password, a.invited_by,
         (extract(epoch FROM a.last_login_at) * 1000000)::bigint AS last_login_at,
         (extract(epoch FROM a.created_at) * 1000000)::bigint AS created_at"
    };
}
pub(super) use admin_columns;

/// What became of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changed {
    /// It was made.
    Yes,
    /// There is no such administrator, or nothing was to be changed.
    No,
    /// Nobody would be left who may manage administrators. Nothing was written.
    Last,
}

impl Central {
    /// All administrators, by address.
    pub async fn admins(&self) -> Result<Vec<AdminRow>, CentralError> {
        let query =
            sqlx::query_as(concat!("SELECT ", admin_columns!(), " FROM system_admins a ORDER BY lower(a.email)"));
        bounded("read the administrators", query.fetch_all(&self.pool)).await
    }

    /// One administrator.
    pub async fn admin(&self, id: i32) -> Result<Option<AdminRow>, CentralError> {
        let query =
            sqlx::query_as(concat!("SELECT ", admin_columns!(), " FROM system_admins a WHERE a.id = $1")).bind(id);
        bounded("read an administrator", query.fetch_optional(&self.pool)).await
    }

    /// One administrator by address, in any case of letters.
    pub async fn admin_by_email(&self, email: &str) -> Result<Option<AdminRow>, CentralError> {
        let query = sqlx::query_as(concat!(
            "SELECT ",
            admin_columns!(),
            " FROM system_admins a WHERE lower(a.email) = lower($1)"
        ));
        bounded("look for an administrator", query.bind(email).fetch_optional(&self.pool)).await
    }

    /// Makes the first administrator, with `permissions`, where there is none. True: made.
    pub async fn first_admin(&self, email: &str, password: &str, permissions: &Value) -> Result<bool, CentralError> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(ADMINS_LOCK).execute(&mut *transaction).await?;
            let made = sqlx::query(
                "INSERT INTO system_admins (email, password, permissions, must_change_password)
                 SELECT $1, $2, $3, true WHERE NOT EXISTS (SELECT FROM system_admins)",
            )
            .bind(email)
            .bind(password)
            .bind(permissions)
            .execute(&mut *transaction)
            .await?;
            if made.rows_affected() == 1 {
                let entry = AuditEntry {
                    action: "admin.first".into(),
                    actor: "portal".into(),
                    resource_type: Some("Admin".into()),
                    resource_id: Some(email.to_owned()),
                    ..AuditEntry::default()
                };
                audit::write(&mut *transaction, &entry).await?;
            }
            transaction.commit().await?;
            Ok(made.rows_affected() == 1)
        };
        bounded("make the first administrator", work).await
    }

    /// Adds an administrator. None: the address has one.
    pub async fn invite_admin(
        &self,
        email: &str,
        password: &str,
        permissions: &Value,
        entry: &AuditEntry,
    ) -> Result<Option<i32>, CentralError> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            let id: Option<i32> = sqlx::query_scalar(
                "INSERT INTO system_admins (email, password, permissions, must_change_password, invited_by)
                 VALUES ($1, $2, $3, true, $4) ON CONFLICT DO NOTHING RETURNING id",
            )
            .bind(email)
            .bind(password)
            .bind(permissions)
            .bind(&entry.actor)
            .fetch_optional(&mut *transaction)
            .await?;
            if id.is_some() {
                audit::write(&mut *transaction, entry).await?;
                transaction.commit().await?;
            }
            Ok(id)
        };
        bounded("add an administrator", work).await
    }

    /// Gives an administrator these rights and no others.
    pub async fn set_permissions(
        &self,
        id: i32,
        permissions: &Value,
        entry: &AuditEntry,
    ) -> Result<Changed, CentralError> {
        let sql = "UPDATE system_admins SET permissions = $2 WHERE id = $1 AND permissions <> $2";
        let query = sqlx::query(sql).bind(id).bind(permissions);
        self.change_admins("change the rights of an administrator", query, entry).await
    }

    /// Removes an administrator with their sessions.
    pub async fn remove_admin(&self, id: i32, entry: &AuditEntry) -> Result<Changed, CentralError> {
        let query = sqlx::query("DELETE FROM system_admins WHERE id = $1").bind(id);
        self.change_admins("remove an administrator", query, entry).await
    }

    async fn change_admins(
        &self,
        doing: &'static str,
        change: sqlx::query::Query<'_, sqlx::Postgres, sqlx::postgres::PgArguments>,
        entry: &AuditEntry,
    ) -> Result<Changed, CentralError> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(ADMINS_LOCK).execute(&mut *transaction).await?;
            if change.execute(&mut *transaction).await?.rows_affected() == 0 {
                return Ok(Changed::No);
            }
            let left: bool = sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM system_admins WHERE permissions -> 'manageAdmins' = 'true')",
            )
            .fetch_one(&mut *transaction)
            .await?;
            // The transaction ends without a commit, and nothing was changed.
            if !left {
                return Ok(Changed::Last);
            }
            audit::write(&mut *transaction, entry).await?;
            transaction.commit().await?;
            Ok(Changed::Yes)
        };
        bounded(doing, work).await
    }

    /// Puts an administrator back to the beginning: a password for one sign-in, no second factor, no sessions.
    pub async fn reset_admin(&self, id: i32, password: &str, entry: &AuditEntry) -> Result<bool, CentralError> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            let reset = sqlx::query(
                "UPDATE system_admins SET password = $2, must_change_password = true, two_factor_secret = NULL
                 WHERE id = $1",
            )
            .bind(id)
            .bind(password)
            .execute(&mut *transaction)
            .await?;
            if reset.rows_affected() == 0 {
                return Ok(false);
            }
            for sql in [
                "DELETE FROM admin_recovery_codes WHERE admin_id = $1",
                "DELETE FROM admin_sessions WHERE admin_id = $1",
            ] {
                sqlx::query(sql).bind(id).execute(&mut *transaction).await?;
            }
            audit::write(&mut *transaction, entry).await?;
            transaction.commit().await?;
            Ok(true)
        };
        bounded("reset an administrator", work).await
    }

    /// Sets a password of the administrator's own, and ends their other sessions. `session`: the hash of the one that goes
    /// on.
    pub async fn set_password(
        &self,
        id: i32,
        password: &str,
        session: &[u8],
        entry: &AuditEntry,
    ) -> Result<(), CentralError> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            let sql = "UPDATE system_admins SET password = $2, must_change_password = false WHERE id = $1";
            sqlx::query(sql).bind(id).bind(password).execute(&mut *transaction).await?;
            let sql = "DELETE FROM admin_sessions WHERE admin_id = $1 AND hash <> $2";
            sqlx::query(sql).bind(id).bind(session).execute(&mut *transaction).await?;
            audit::write(&mut *transaction, entry).await?;
            transaction.commit().await
        };
        bounded("set a password", work).await
    }

    /// Keeps the same password another way. Nothing where it was changed meanwhile.
    pub async fn rehash_password(&self, id: i32, before: &str, after: &str) -> Result<(), CentralError> {
        let sql = "UPDATE system_admins SET password = $3 WHERE id = $1 AND password = $2";
        let query = sqlx::query(sql).bind(id).bind(before).bind(after);
        bounded("keep a password another way", query.execute(&self.pool)).await.map(drop)
    }

    /// Sets the second factor with its recovery codes (as hashes); `step` is the one whose code was shown.
    pub async fn set_two_factor(
        &self,
        id: i32,
        secret: &str,
        step: i64,
        codes: &[[u8; 32]],
        entry: &AuditEntry,
    ) -> Result<(), CentralError> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            let sql = "UPDATE system_admins SET two_factor_secret = $2, two_factor_step = $3 WHERE id = $1";
            sqlx::query(sql).bind(id).bind(secret).bind(step).execute(&mut *transaction).await?;
            replace_codes(&mut transaction, id, codes).await?;
            audit::write(&mut *transaction, entry).await?;
            transaction.commit().await
        };
        bounded("set a second factor", work).await
    }

    /// Gives an administrator other recovery codes (as hashes).
    pub async fn set_recovery_codes(
        &self,
        id: i32,
        codes: &[[u8; 32]],
        entry: &AuditEntry,
    ) -> Result<(), CentralError> {
        let work = async {
            let mut transaction = self.pool.begin().await?;
            replace_codes(&mut transaction, id, codes).await?;
            audit::write(&mut *transaction, entry).await?;
            transaction.commit().await
        };
        bounded("set recovery codes", work).await
    }

    /// Keeps the same second factor under another key. Nothing where it was changed meanwhile.
    pub async fn reseal_two_factor(&self, id: i32, before: &str, after: &str) -> Result<(), CentralError> {
        let sql = "UPDATE system_admins SET two_factor_secret = $3 WHERE id = $1 AND two_factor_secret = $2";
        let query = sqlx::query(sql).bind(id).bind(before).bind(after);
        bounded("keep a second factor under another key", query.execute(&self.pool)).await.map(drop)
    }

    /// The code of this step was shown. False: it, or a later one, was shown before.
    pub async fn take_step(&self, id: i32, step: i64) -> Result<bool, CentralError> {
        let sql = "UPDATE system_admins SET two_factor_step = $2 WHERE id = $1 AND two_factor_step < $2";
        let query = sqlx::query(sql).bind(id).bind(step);
        Ok(bounded("note a second factor's step", query.execute(&self.pool)).await?.rows_affected() == 1)
    }

    /// Uses a recovery code up. False: it is none, or not any more.
    pub async fn take_recovery_code(&self, id: i32, hash: &[u8; 32]) -> Result<bool, CentralError> {
        let sql = "DELETE FROM admin_recovery_codes WHERE admin_id = $1 AND hash = $2";
        let query = sqlx::query(sql).bind(id).bind(&hash[..]);
        Ok(bounded("use a recovery code", query.execute(&self.pool)).await?.rows_affected() == 1)
    }

    /// How many recovery codes an administrator has left.
    pub async fn recovery_codes_left(&self, id: i32) -> Result<i64, CentralError> {
        let sql = "SELECT count(*) FROM admin_recovery_codes WHERE admin_id = $1";
        bounded("count recovery codes", sqlx::query_scalar(sql).bind(id).fetch_one(&self.pool)).await
    }
}

async fn replace_codes(connection: &mut PgConnection, id: i32, codes: &[[u8; 32]]) -> Result<(), sqlx::Error> {
    let sql = "DELETE FROM admin_recovery_codes WHERE admin_id = $1";
    sqlx::query(sql).bind(id).execute(&mut *connection).await?;
    let codes: Vec<&[u8]> = codes.iter().map(|code| &code[..]).collect();
    let sql = "INSERT INTO admin_recovery_codes (admin_id, hash) SELECT $1, unnest($2::bytea[])";
    sqlx::query(sql).bind(id).bind(codes).execute(connection).await.map(drop)
}
