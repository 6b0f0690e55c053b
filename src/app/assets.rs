//! Assets: the machines, rooms and vehicles that are looked after.

use serde::Serialize;
use sqlx::FromRow;
use sqlx::postgres::PgConnection;

use super::problem::Problem;
use crate::tenancy::TenantContext;

/// Longest name and location, in characters; the table's CHECKs say the same.
const MAX_TEXT: usize = 255;
/// How many of the newest a page shows.
const NEWEST: i64 = 20;

/// One asset in a list.
#[derive(Debug, Clone, FromRow, Serialize)]
pub struct Asset {
    pub id: i64,
    pub name: String,
    pub location: Option<String>,
    /// `operational`, `degraded`, `down` or `retired`.
    pub status: String,
    /// RFC 3339, in UTC.
    pub created_at: String,
}

impl Asset {
    /// The day, as a list shows it.
    pub fn day(&self) -> &str {
        self.created_at.split('T').next().unwrap_or_default()
    }
}

/// What the start page shows.
pub struct Overview {
    pub count: i64,
    pub newest: Vec<Asset>,
}

/// An asset that may be stored.
#[derive(Debug)]
pub struct NewAsset {
    name: String,
    location: Option<String>,
}

impl NewAsset {
    /// Checks what somebody typed.
    ///
    /// # Errors
    /// What to change, for the person who typed it.
    pub fn new(name: &str, location: Option<&str>) -> Result<Self, String> {
        let name = checked("The name", name)?.ok_or("The name is missing.")?;
        let location = location.map(|location| checked("The location", location)).transpose()?.flatten();
        Ok(Self { name, location })
    }
}

fn checked(what: &str, text: &str) -> Result<Option<String>, String> {
    let text = text.trim();
    if text.chars().any(char::is_control) {
        return Err(format!("{what} contains a line break or another control character. Remove it."));
    }
    let length = text.chars().count();
    if length > MAX_TEXT {
        return Err(format!("{what} has {length} characters. Shorten it to {MAX_TEXT}."));
    }
    Ok((!text.is_empty()).then(|| text.to_owned()))
}

/// How many there are.
pub async fn count(tenant: &TenantContext) -> Result<i64, Problem> {
    tenant.database().run(async |db: &mut PgConnection| Ok(count_in(db).await?)).await
}

/// How many there are, and the newest.
pub async fn overview(tenant: &TenantContext) -> Result<Overview, Problem> {
    tenant
        .database()
        .run(async |db: &mut PgConnection| {
            let newest = sqlx::query_as(
                "SELECT id, name, location, status, \
                 to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') AS created_at \
                 FROM assets ORDER BY id DESC LIMIT $1",
            )
            .bind(NEWEST)
            .fetch_all(&mut *db)
            .await?;
            Ok(Overview { count: count_in(db).await?, newest })
        })
        .await
}

/// Stores an asset within the plan's limit; returns its id.
pub async fn add(tenant: &TenantContext, asset: &NewAsset) -> Result<i64, Problem> {
    let plan = &tenant.entry().plan;
    let max = plan.limits.assets;
    let added: Option<i64> = tenant
        .database()
        .transaction(async |db: &mut PgConnection| Ok::<_, Problem>(add_within(db, asset, max).await?))
        .await?;
    match (added, max) {
        (Some(id), _) => Ok(id),
        (None, max) => {
            Err(Problem::LimitReached { limit: "assets", max: max.unwrap_or_default(), plan: plan.name.clone() })
        }
    }
}

async fn count_in(db: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar("SELECT count(*) FROM assets").fetch_one(db).await
}

/// `None` where the limit is reached.
async fn add_within(db: &mut PgConnection, asset: &NewAsset, max: Option<i32>) -> Result<Option<i64>, sqlx::Error> {
    if let Some(max) = max {
        // Two requests that count at the same time would both find room for the last one. The lock ends with the
        // transaction, so it is safe behind a transaction-mode pooler.
        sqlx::query("SELECT pg_advisory_xact_lock(hashtext('limit:assets'))").execute(&mut *db).await?;
        if count_in(db).await? >= i64::from(max) {
            return Ok(None);
        }
    }
    let id: i64 = sqlx::query_scalar("INSERT INTO assets (name, location) VALUES ($1, $2) RETURNING id")
        .bind(&asset.name)
        .bind(&asset.location)
        .fetch_one(&mut *db)
        .await?;
    sqlx::query("INSERT INTO activities (kind, subject_type, subject_id, summary) VALUES ($1, $2, $3, $4)")
        .bind("asset.created")
        .bind("asset")
        .bind(id)
        .bind(&asset.name)
        .execute(db)
        .await?;
    Ok(Some(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_trimmed_and_checked_as_people_count() {
        assert_eq!(NewAsset::new("  Pump 7  ", None).unwrap().name, "Pump 7");
        assert_eq!(NewAsset::new("Pump", Some("  ")).unwrap().location, None);
        assert!(NewAsset::new(&"ü".repeat(255), None).is_ok(), "characters, not bytes");
        let rows = [
            ("   ".to_owned(), "missing"),
            ("ü".repeat(256), "256 characters"),
            ("Pump\u{0}".to_owned(), "control character"),
            ("Pump\n7".to_owned(), "control character"),
            ("Pump\u{85}7".to_owned(), "control character"),
        ];
        for (name, expected) in rows {
            let error = NewAsset::new(&name, None).unwrap_err();
            assert!(error.contains(expected), "{name:?}: {error}");
        }
        assert!(NewAsset::new("Pump", Some("Hall\t3")).unwrap_err().contains("location"));
    }
}
