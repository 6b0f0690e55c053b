//! Every statement about assets.

use sqlx::postgres::PgConnection;

use super::form::{Known, NewAsset};
use super::{Asset, Listed};
use crate::app::plant::activity;
use crate::app::plant::day::{Day, Moment};
use crate::app::plant::work::store::put_away;
use crate::tenancy::repository::{Create, Model};

impl Model for Asset {
    type Id = i64;

    async fn find(connection: &mut PgConnection, id: i64) -> Result<Option<Self>, sqlx::Error> {
        find(connection, id).await
    }
}

impl Create for Asset {
    /// Whose it is to be, what it is, and how many the plan allows.
    type New = (i64, NewAsset, Option<i32>);
    type Made = Stored;

    async fn create(connection: &mut PgConnection, new: Self::New) -> Result<Stored, sqlx::Error> {
        let (user, asset, max) = new;
        add(connection, user, &asset, max).await
    }
}

/// Which assets a list shows.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Part of the name, tag, location, manufacturer, model or serial number.
    pub search: String,
    /// Empty: all that are not retired; `all`: those too.
    pub status: String,
    pub criticality: String,
    pub category: String,
    pub location: String,
    /// `name`, `status`, `criticality`, `location` or `newest`.
    pub sort: String,
}

/// One page of the list; `offset` rows are left out in front.
pub async fn list(db: &mut PgConnection, wanted: &Wanted, limit: i64, offset: i64) -> Result<Vec<Listed>, sqlx::Error> {
    // The page is found first and counted into second: what is counted is counted for its rows only.
    sqlx::query_as!(
        Listed,
        r#"WITH page AS (
               SELECT a.*, count(*) OVER () AS total, row_number() OVER (ORDER BY
                   CASE WHEN $6 = 'newest' THEN -a.id END,
                   CASE $6 WHEN 'status' THEN array_position(ARRAY['down', 'degraded', 'operational', 'retired'], a.status)
                           WHEN 'criticality' THEN array_position(ARRAY['critical', 'high', 'normal', 'low'], a.criticality) END,
                   CASE WHEN $6 = 'location' THEN lower(a.location) END,
                   lower(a.name), a.id) AS place
               FROM assets a
               WHERE ($1 = '' OR strpos(lower(concat_ws(' ', a.name, a.tag, a.location, a.manufacturer, a.model, a.serial_number)), lower($1)) > 0)
                 AND CASE $2 WHEN '' THEN a.status <> 'retired' WHEN 'all' THEN true ELSE a.status = $2 END
                 AND ($3 = '' OR a.criticality = $3) AND ($4 = '' OR a.category = $4) AND ($5 = '' OR a.location = $5)
               ORDER BY place LIMIT $7 OFFSET $8)
           SELECT p.id AS "id!", p.name AS "name!", p.tag, p.category, p.location, p.status AS "status!",
                  p.criticality AS "criticality!", p.total AS "total!",
                  (SELECT count(*) FROM routines r WHERE r.asset_id = p.id AND r.active) AS "routines!",
                  (SELECT count(*) FROM routine_executions e JOIN routines r ON r.id = e.routine_id
                   WHERE r.asset_id = p.id AND e.status IN ('pending', 'in_progress') AND e.due_on < $9) AS "overdue!"
           FROM page p ORDER BY p.place"#,
        wanted.search,
        wanted.status,
        wanted.criticality,
        wanted.category,
        wanted.location,
        wanted.sort,
        limit,
        offset,
        Day::today() as _,
    )
    .fetch_all(db)
    .await
}

/// For programs: assets with a higher id than `after`, by id.
pub async fn walk(db: &mut PgConnection, wanted: &Wanted, after: i64, limit: i64) -> Result<Vec<Asset>, sqlx::Error> {
    sqlx::query_as!(
        Asset,
        r#"SELECT id, name, tag, category, location, manufacturer, model, serial_number, status, criticality,
                  commissioned_on AS "commissioned_on: Day", notes, created_at AS "created_at: Moment",
                  updated_at AS "updated_at: Moment"
           FROM assets a
           WHERE id > $1
             AND ($2 = '' OR strpos(lower(concat_ws(' ', a.name, a.tag, a.location, a.manufacturer, a.model, a.serial_number)), lower($2)) > 0)
             AND ($3 IN ('', 'all') OR a.status = $3)
             AND ($4 = '' OR a.criticality = $4) AND ($5 = '' OR a.category = $5) AND ($6 = '' OR a.location = $6)
           ORDER BY id LIMIT $7"#,
        after,
        wanted.search,
        wanted.status,
        wanted.criticality,
        wanted.category,
        wanted.location,
        limit,
    )
    .fetch_all(db)
    .await
}

/// One asset.
pub async fn find(db: &mut PgConnection, id: i64) -> Result<Option<Asset>, sqlx::Error> {
    sqlx::query_as!(
        Asset,
        r#"SELECT id, name, tag, category, location, manufacturer, model, serial_number, status, criticality,
                  commissioned_on AS "commissioned_on: Day", notes, created_at AS "created_at: Moment",
                  updated_at AS "updated_at: Moment"
           FROM assets WHERE id = $1"#,
        id
    )
    .fetch_optional(db)
    .await
}

/// How many there are, retired ones included: this is what the plan's limit counts.
pub async fn count(db: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(r#"SELECT count(*) AS "count!" FROM assets"#).fetch_one(db).await
}

/// What is in use already.
pub async fn known(db: &mut PgConnection) -> Result<Known, sqlx::Error> {
    let known = sqlx::query!(
        r#"SELECT
               ARRAY(SELECT DISTINCT category FROM assets WHERE category IS NOT NULL ORDER BY 1 LIMIT 200) AS "categories!",
               ARRAY(SELECT DISTINCT location FROM assets WHERE location IS NOT NULL ORDER BY 1 LIMIT 500) AS "locations!",
               ARRAY(SELECT DISTINCT manufacturer FROM assets WHERE manufacturer IS NOT NULL ORDER BY 1 LIMIT 500) AS "manufacturers!""#
    )
    .fetch_one(db)
    .await?;
    Ok(Known { categories: known.categories, locations: known.locations, manufacturers: known.manufacturers })
}

/// What became of an attempt to store an asset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    Done(i64),
    /// The plan allows no more.
    LimitReached,
    /// Another asset has the tag.
    TagTaken,
    /// Somebody else saved another version meanwhile.
    Changed,
    /// There is no such asset.
    Missing,
    /// It is retired and cannot be edited.
    Retired,
}

/// Whether `more` assets fit into the plan. Until the transaction ends, nobody else is told so.
pub async fn has_room(db: &mut PgConnection, max: Option<i32>, more: i64) -> Result<bool, sqlx::Error> {
    let Some(max) = max else { return Ok(true) };
    // Two requests that count at the same time would both find room for the last one. The lock ends with the
    // transaction, so it is safe behind a transaction-mode pooler.
    sqlx::query!("SELECT pg_advisory_xact_lock(hashtext('limit:assets'))").execute(&mut *db).await?;
    Ok(count(db).await? + more <= i64::from(max))
}

/// Stores an asset within the plan's limit.
pub async fn add(db: &mut PgConnection, user: i64, asset: &NewAsset, max: Option<i32>) -> Result<Stored, sqlx::Error> {
    if !has_room(db, max, 1).await? {
        return Ok(Stored::LimitReached);
    }
    // Not an error of the database: an error would end the transaction and the connection.
    let id = sqlx::query_scalar!(
        "INSERT INTO assets (name, tag, category, location, manufacturer, model, serial_number, status, criticality,
                             commissioned_on, notes, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (tag) DO NOTHING RETURNING id",
        asset.name,
        asset.tag,
        asset.category,
        asset.location,
        asset.manufacturer,
        asset.model,
        asset.serial_number,
        asset.status,
        asset.criticality,
        asset.commissioned_on as _,
        asset.notes,
        user,
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(id) = id else { return Ok(Stored::TagTaken) };
    activity::record(db, Some(user), "asset.created", ("asset", id), &asset.name).await?;
    Ok(Stored::Done(id))
}

/// Replaces the version of `version` and no other.
pub async fn update(
    db: &mut PgConnection,
    user: i64,
    id: i64,
    asset: &NewAsset,
    version: Moment,
) -> Result<Stored, sqlx::Error> {
    let stored = sqlx::query!(
        r#"SELECT status, updated_at AS "updated_at: Moment",
                  EXISTS (SELECT FROM assets WHERE tag = $2 AND id <> $1) AS "is_taken!"
           FROM assets WHERE id = $1 FOR UPDATE"#,
        id,
        asset.tag,
    )
    .fetch_optional(&mut *db)
    .await?;
    match stored {
        None => return Ok(Stored::Missing),
        Some(stored) if stored.updated_at != version => return Ok(Stored::Changed),
        Some(stored) if stored.status == "retired" => return Ok(Stored::Retired),
        Some(stored) if stored.is_taken => return Ok(Stored::TagTaken),
        Some(_) => {}
    }
    sqlx::query!(
        "UPDATE assets SET name = $2, tag = $3, category = $4, location = $5, manufacturer = $6, model = $7,
                           serial_number = $8, status = $9, criticality = $10, commissioned_on = $11, notes = $12
         WHERE id = $1",
        id,
        asset.name,
        asset.tag,
        asset.category,
        asset.location,
        asset.manufacturer,
        asset.model,
        asset.serial_number,
        asset.status,
        asset.criticality,
        asset.commissioned_on as _,
        asset.notes,
    )
    .execute(&mut *db)
    .await?;
    activity::record(db, Some(user), "asset.updated", ("asset", id), &asset.name).await?;
    Ok(Stored::Done(id))
}

/// Takes it out of use: its routines are paused, what was planned is skipped, everything stays on record. False where
/// it is retired already or not there.
pub async fn retire(db: &mut PgConnection, user: i64, id: i64) -> Result<bool, sqlx::Error> {
    // Routines before their asset, as everywhere: completing work locks its routine and may then set the asset's status.
    sqlx::query!("SELECT id FROM routines WHERE asset_id = $1 ORDER BY id FOR NO KEY UPDATE", id)
        .fetch_all(&mut *db)
        .await?;
    let name = sqlx::query_scalar!(
        "UPDATE assets SET status = 'retired' WHERE id = $1 AND status <> 'retired' RETURNING name",
        id
    );
    let Some(name) = name.fetch_optional(&mut *db).await? else { return Ok(false) };
    let routines =
        sqlx::query_scalar!("UPDATE routines SET active = false WHERE asset_id = $1 AND active RETURNING id", id)
            .fetch_all(&mut *db)
            .await?;
    for routine in routines {
        put_away(db, user, routine, "The asset was retired.").await?;
    }
    activity::record(db, Some(user), "asset.retired", ("asset", id), &name).await?;
    Ok(true)
}

/// Puts it back in use. Its routines stay paused until somebody wants them again.
pub async fn restore(db: &mut PgConnection, user: i64, id: i64) -> Result<bool, sqlx::Error> {
    let name = sqlx::query_scalar!(
        "UPDATE assets SET status = 'operational' WHERE id = $1 AND status = 'retired' RETURNING name",
        id
    );
    let Some(name) = name.fetch_optional(&mut *db).await? else { return Ok(false) };
    activity::record(db, Some(user), "asset.restored", ("asset", id), &name).await?;
    Ok(true)
}
