//! Every statement on the tables of accounts.

pub mod links;
pub mod tokens;
pub mod users;

use sqlx::postgres::PgConnection;

/// Notes what happened to a user. `by` is absent where nobody was signed in.
pub async fn note(
    db: &mut PgConnection,
    by: Option<i64>,
    kind: &str,
    user: i64,
    summary: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "INSERT INTO activities (user_id, kind, subject_type, subject_id, summary) VALUES ($1, $2, 'user', $3, $4)",
        by,
        kind,
        user,
        summary
    )
    .execute(db)
    .await?;
    Ok(())
}
