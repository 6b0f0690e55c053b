//! Who work can be given to: everybody who can sign in and do it. Viewers only look.

use sqlx::postgres::PgConnection;

use super::show::Choice;

/// Somebody who does work.
#[derive(Debug, Clone)]
pub struct Person {
    /// `users.id`
    pub id: i64,
    pub name: String,
}

/// All of them, by name.
pub async fn all(db: &mut PgConnection) -> Result<Vec<Person>, sqlx::Error> {
    sqlx::query_as!(
        Person,
        "SELECT id, name FROM users WHERE disabled_at IS NULL AND role <> 'viewer' ORDER BY lower(name), id LIMIT 1000"
    )
    .fetch_all(db)
    .await
}

/// Whether there is such a person.
pub async fn exists(db: &mut PgConnection, id: i64) -> Result<bool, sqlx::Error> {
    let found = sqlx::query_scalar!(
        r#"SELECT true AS "found!" FROM users WHERE id = $1 AND disabled_at IS NULL AND role <> 'viewer'"#,
        id
    );
    Ok(found.fetch_optional(db).await?.is_some())
}

/// For a list in a form, after one for nobody.
pub fn choices(people: &[Person], nobody: &str, chosen: &str) -> Vec<Choice> {
    let first = Choice { value: String::new(), text: nobody.into(), chosen: chosen.is_empty() };
    let rest = people.iter().map(|person| {
        let value = person.id.to_string();
        Choice { chosen: value == chosen, value, text: person.name.clone() }
    });
    std::iter::once(first).chain(rest).collect()
}
