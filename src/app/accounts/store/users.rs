//! The table `users`.

use jiff::Timestamp;
use sqlx::postgres::PgConnection;

use crate::app::accounts::current::{CurrentUser, Role};

/// A user as found for a request.
#[derive(Debug, Clone)]
pub struct Found {
    /// Whom handlers see.
    pub user: CurrentUser,
    /// Whether the address is known to be the user's.
    pub verified: bool,
    /// Raised when all sessions of the user end.
    pub generation: i64,
}

/// What signing in needs to know.
#[derive(Debug)]
pub struct Account {
    pub id: i64,
    pub name: String,
    pub email: String,
    pub password_hash: Option<String>,
    pub generation: i64,
    pub disabled: bool,
}

/// One user in the list of users.
#[derive(Debug)]
pub struct Listed {
    pub id: i64,
    pub name: String,
    pub email: String,
    pub role: Role,
    pub disabled: bool,
    /// Has never set a password.
    pub invited: bool,
    pub verified: bool,
    pub last_sign_in_at: Option<Timestamp>,
}

impl Listed {
    /// What is the matter with the account, in one word.
    pub fn status(&self) -> &'static str {
        match self {
            Self { disabled: true, .. } => "disabled",
            Self { invited: true, .. } => "invited",
            Self { verified: false, .. } => "unverified",
            _ => "active",
        }
    }

    /// The look of that word.
    pub fn badge(&self) -> &'static str {
        match self.status() {
            "active" => "good",
            "disabled" => "soft",
            _ => "warn",
        }
    }

    /// The day of the last sign-in.
    pub fn last_day(&self) -> Option<String> {
        self.last_sign_in_at.map(|at| at.strftime("%Y-%m-%d").to_string())
    }
}

/// Somebody who shall become a user.
pub struct NewUser<'a> {
    pub email: &'a str,
    pub name: &'a str,
    pub role: Role,
}

/// Why a user was not stored.
#[derive(Debug, PartialEq, Eq)]
pub enum NotAdded {
    /// The plan allows no more.
    Limit(i32),
    /// There is one with that address.
    Taken,
}

/// Counting users and changing their roles happens one after the other: two that count at the same time would both find
/// room for the last one, or both take another one for the administrator who stays. The lock ends with the transaction,
/// so it is safe behind a transaction-mode pooler.
pub async fn lock(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query!(r#"SELECT pg_advisory_xact_lock(hashtext('limit:users')) AS "locked!: ()""#).fetch_one(db).await?;
    Ok(())
}

/// A user who may work, by id.
pub async fn find(db: &mut PgConnection, id: i64) -> Result<Option<Found>, sqlx::Error> {
    let row = sqlx::query!(
        r#"SELECT id, email, name, role, email_verified_at IS NOT NULL AS "verified!", session_generation
           FROM users WHERE id = $1 AND disabled_at IS NULL"#,
        id
    )
    .fetch_optional(db)
    .await?;
    row.map(|row| {
        let role = role(&row.role)?;
        let user = CurrentUser { id: row.id, name: row.name, email: row.email, role };
        Ok(Found { user, verified: row.verified, generation: row.session_generation })
    })
    .transpose()
}

/// A [`Listed`] as the database has it.
struct Row {
    id: i64,
    name: String,
    email: String,
    role: String,
    disabled: bool,
    invited: bool,
    verified: bool,
    last_sign_in_at: Option<jiff_sqlx::Timestamp>,
}

impl Row {
    fn listed(self) -> Result<Listed, sqlx::Error> {
        let Self { id, name, email, disabled, invited, verified, .. } = self;
        let last_sign_in_at = self.last_sign_in_at.map(jiff_sqlx::Timestamp::to_jiff);
        Ok(Listed { id, name, email, role: role(&self.role)?, disabled, invited, verified, last_sign_in_at })
    }
}

/// Any user, by id.
pub async fn get(db: &mut PgConnection, id: i64) -> Result<Option<Listed>, sqlx::Error> {
    let row = sqlx::query_as!(
        Row,
        r#"SELECT id, name, email, role, disabled_at IS NOT NULL AS "disabled!", password_hash IS NULL AS "invited!",
                  email_verified_at IS NOT NULL AS "verified!", last_sign_in_at AS "last_sign_in_at: jiff_sqlx::Timestamp"
           FROM users WHERE id = $1"#,
        id
    );
    row.fetch_optional(db).await?.map(Row::listed).transpose()
}

/// Longest list of users on one page.
const MOST: i64 = 1000;

/// All users by name, those who may work first.
pub async fn list(db: &mut PgConnection) -> Result<Vec<Listed>, sqlx::Error> {
    let rows = sqlx::query_as!(
        Row,
        r#"SELECT id, name, email, role, disabled_at IS NOT NULL AS "disabled!", password_hash IS NULL AS "invited!",
                  email_verified_at IS NOT NULL AS "verified!", last_sign_in_at AS "last_sign_in_at: jiff_sqlx::Timestamp"
           FROM users ORDER BY disabled_at IS NOT NULL, lower(name), id LIMIT $1"#,
        MOST
    );
    rows.fetch_all(db).await?.into_iter().map(Row::listed).collect()
}

/// What there is to know of an address, for signing in and for mails.
pub async fn account(db: &mut PgConnection, email: &str) -> Result<Option<Account>, sqlx::Error> {
    sqlx::query_as!(
        Account,
        r#"SELECT id, name, email, password_hash, session_generation AS generation, disabled_at IS NOT NULL AS "disabled!"
           FROM users WHERE lower(email) = lower($1)"#,
        email
    )
    .fetch_optional(db)
    .await
}

/// The same, by id.
pub async fn account_of(db: &mut PgConnection, id: i64) -> Result<Option<Account>, sqlx::Error> {
    sqlx::query_as!(
        Account,
        r#"SELECT id, name, email, password_hash, session_generation AS generation, disabled_at IS NOT NULL AS "disabled!"
           FROM users WHERE id = $1"#,
        id
    )
    .fetch_optional(db)
    .await
}

/// How many count against the plan: all who are not disabled.
pub async fn count(db: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM users WHERE disabled_at IS NULL"#).fetch_one(db).await
}

/// Whether the plan has room for one more. Takes [`lock`].
pub async fn has_room(db: &mut PgConnection, max: Option<i32>) -> Result<Result<(), NotAdded>, sqlx::Error> {
    lock(db).await?;
    let Some(max) = max else { return Ok(Ok(())) };
    Ok(if count(db).await? >= i64::from(max) { Err(NotAdded::Limit(max)) } else { Ok(()) })
}

/// Stores a user without a password, within the plan's limit.
pub async fn add(
    db: &mut PgConnection,
    new: &NewUser<'_>,
    max: Option<i32>,
) -> Result<Result<i64, NotAdded>, sqlx::Error> {
    if let Err(why) = has_room(db, max).await? {
        return Ok(Err(why));
    }
    let id = sqlx::query_scalar!(
        "INSERT INTO users (email, name, role) VALUES ($1, $2, $3) ON CONFLICT (lower(email)) DO NOTHING RETURNING id",
        new.email,
        new.name,
        new.role.as_str()
    )
    .fetch_optional(db)
    .await?;
    Ok(id.ok_or(NotAdded::Taken))
}

/// Whether nobody can sign in yet, however many names the tenant has already been filled with.
pub async fn has_none_with_password(db: &mut PgConnection) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT NOT EXISTS (SELECT FROM users WHERE password_hash IS NOT NULL) AS "none!""#)
        .fetch_one(db)
        .await
}

/// Makes the first administrator, or gives an existing name of that address the means to be it.
pub async fn add_first(
    db: &mut PgConnection,
    email: &str,
    name: &str,
    password_hash: &str,
) -> Result<Account, sqlx::Error> {
    sqlx::query_as!(
        Account,
        r#"INSERT INTO users (email, name, role, password_hash, email_verified_at) VALUES ($1, $2, 'admin', $3, now())
           ON CONFLICT (lower(email)) DO UPDATE SET email = excluded.email, name = excluded.name, role = 'admin',
               password_hash = excluded.password_hash, email_verified_at = now(), disabled_at = NULL
           RETURNING id, name, email, password_hash, session_generation AS generation,
               disabled_at IS NOT NULL AS "disabled!""#,
        email,
        name,
        password_hash
    )
    .fetch_one(db)
    .await
}

/// Notes a sign-in with the password whose hash was `checked`, and keeps it better where there is a better way to, unless
/// another password was set meanwhile.
pub async fn signed_in(
    db: &mut PgConnection,
    id: i64,
    checked: &str,
    rehashed: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE users SET last_sign_in_at = now(),
             password_hash = CASE WHEN password_hash = $2 THEN coalesce($3, password_hash) ELSE password_hash END
         WHERE id = $1",
        id,
        checked,
        rehashed
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Sets a password, which ends all of the user's sessions. Returns the new generation.
///
/// An address that somebody asked for before cannot be confirmed any more: who knew the old password may have asked.
pub async fn set_password(db: &mut PgConnection, id: i64, password_hash: &str) -> Result<i64, sqlx::Error> {
    end_links(db, id, Some("verify")).await?;
    sqlx::query_scalar!(
        "UPDATE users SET password_hash = $2, session_generation = session_generation + 1 WHERE id = $1
         RETURNING session_generation",
        id,
        password_hash
    )
    .fetch_one(db)
    .await
}

/// The user has shown that the address is theirs. `false` where another user has it by now.
pub async fn verify(db: &mut PgConnection, id: i64, email: &str) -> Result<bool, sqlx::Error> {
    let done = sqlx::query!(
        "UPDATE users SET email = $2, email_verified_at = now() WHERE id = $1 AND disabled_at IS NULL
         AND NOT EXISTS (SELECT FROM users other WHERE lower(other.email) = lower($2) AND other.id <> $1)",
        id,
        email
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Gives a user another name.
pub async fn rename(db: &mut PgConnection, id: i64, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE users SET name = $2 WHERE id = $1", id, name).execute(db).await?;
    Ok(())
}

/// Whether the user is the only administrator who can sign in. Take [`lock`] first.
pub async fn is_last_admin(db: &mut PgConnection, id: i64) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT EXISTS (SELECT FROM users WHERE id = $1 AND role = 'admin' AND disabled_at IS NULL
                          AND password_hash IS NOT NULL)
              AND NOT EXISTS (SELECT FROM users WHERE id <> $1 AND role = 'admin' AND disabled_at IS NULL
                              AND password_hash IS NOT NULL) AS "last!""#,
        id
    )
    .fetch_one(db)
    .await
}

/// Gives a user another role.
pub async fn set_role(db: &mut PgConnection, id: i64, role: Role) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE users SET role = $2 WHERE id = $1", id, role.as_str()).execute(db).await?;
    Ok(())
}

/// Ends the links of one purpose, or all, that a user has.
async fn end_links(db: &mut PgConnection, id: i64, purpose: Option<&str>) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "UPDATE account_links SET used_at = now()
         WHERE user_id = $1 AND used_at IS NULL AND ($2::text IS NULL OR purpose = $2)",
        id,
        purpose
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Ends all tokens of a user.
pub async fn revoke_tokens(db: &mut PgConnection, id: i64) -> Result<(), sqlx::Error> {
    sqlx::query!("UPDATE api_tokens SET revoked_at = now() WHERE user_id = $1 AND revoked_at IS NULL", id)
        .execute(db)
        .await?;
    Ok(())
}

/// Shuts a user out, which ends all of the user's sessions, tokens and links, or lets it in again, without them.
pub async fn set_disabled(db: &mut PgConnection, id: i64, disabled: bool) -> Result<(), sqlx::Error> {
    if disabled {
        end_links(db, id, None).await?;
        revoke_tokens(db, id).await?;
    }
    sqlx::query!(
        "UPDATE users SET disabled_at = CASE WHEN $2 THEN now() END,
             session_generation = session_generation + CASE WHEN $2 THEN 1 ELSE 0 END WHERE id = $1",
        id,
        disabled
    )
    .execute(db)
    .await?;
    Ok(())
}

fn role(name: &str) -> Result<Role, sqlx::Error> {
    Role::parse(name).ok_or_else(|| sqlx::Error::Decode(format!("`{name}` is no role").into()))
}
