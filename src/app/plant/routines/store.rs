//! Every statement about routines.

use sqlx::postgres::PgConnection;

use super::Routine;
use super::form::NewRoutine;
use crate::app::plant::day::{Day, Moment};
use crate::app::plant::schedule::{Schedule, Unit};
use crate::app::plant::work::store::{plan, put_away};
use crate::app::plant::{activity, people};
use crate::tenancy::repository::{Create, Model};

impl Model for Routine {
    type Id = i64;

    async fn find(connection: &mut PgConnection, id: i64) -> Result<Option<Self>, sqlx::Error> {
        find(connection, id).await
    }
}

impl Create for Routine {
    /// Whose it is to be, what it is.
    type New = (i64, NewRoutine);
    type Made = Stored;

    async fn create(connection: &mut PgConnection, new: Self::New) -> Result<Stored, sqlx::Error> {
        let (user, routine) = new;
        add(connection, user, &routine).await
    }
}

/// Which routines a list shows.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Part of the name or of the asset's.
    pub search: String,
    /// `active`, `paused` or empty.
    pub state: String,
    pub assigned_to: Option<i64>,
    pub asset: Option<i64>,
    /// With a higher id; then the list is by id, else by due date.
    pub after: Option<i64>,
}

/// One page of the list.
pub async fn list(
    db: &mut PgConnection,
    wanted: &Wanted,
    limit: i64,
    offset: i64,
) -> Result<Vec<Routine>, sqlx::Error> {
    sqlx::query_as!(
        Routine,
        r#"SELECT r.id, r.name, r.asset_id, a.name AS asset_name, a.status AS asset_status, r.instructions,
                  r.interval_count, r.interval_unit, r.estimated_minutes, r.active,
                  r.next_due_on AS "next_due_on: Day", r.assigned_to, u.name AS "assignee_name?",
                  r.created_at AS "created_at: Moment", r.updated_at AS "updated_at: Moment",
                  count(*) OVER () AS "total!"
           FROM routines r JOIN assets a ON a.id = r.asset_id LEFT JOIN users u ON u.id = r.assigned_to
           WHERE ($1 = '' OR strpos(lower(r.name || ' ' || a.name), lower($1)) > 0)
             AND CASE $2 WHEN 'active' THEN r.active WHEN 'paused' THEN NOT r.active ELSE true END
             AND ($3::bigint IS NULL OR r.assigned_to = $3) AND ($4::bigint IS NULL OR r.asset_id = $4)
             AND ($5::bigint IS NULL OR r.id > $5)
           ORDER BY CASE WHEN $5::bigint IS NOT NULL THEN r.id END, NOT r.active, r.next_due_on, r.id
           LIMIT $6 OFFSET $7"#,
        wanted.search,
        wanted.state,
        wanted.assigned_to,
        wanted.asset,
        wanted.after,
        limit,
        offset,
    )
    .fetch_all(db)
    .await
}

/// An asset's routines, those that are active first.
pub async fn of_asset(db: &mut PgConnection, asset: i64) -> Result<Vec<Routine>, sqlx::Error> {
    list(db, &Wanted { asset: Some(asset), ..Wanted::default() }, 200, 0).await
}

/// One routine.
pub async fn find(db: &mut PgConnection, id: i64) -> Result<Option<Routine>, sqlx::Error> {
    sqlx::query_as!(
        Routine,
        r#"SELECT r.id, r.name, r.asset_id, a.name AS asset_name, a.status AS asset_status, r.instructions,
                  r.interval_count, r.interval_unit, r.estimated_minutes, r.active,
                  r.next_due_on AS "next_due_on: Day", r.assigned_to, u.name AS "assignee_name?",
                  r.created_at AS "created_at: Moment", r.updated_at AS "updated_at: Moment", 1::bigint AS "total!"
           FROM routines r JOIN assets a ON a.id = r.asset_id LEFT JOIN users u ON u.id = r.assigned_to
           WHERE r.id = $1"#,
        id
    )
    .fetch_optional(db)
    .await
}

/// What became of an attempt to store a routine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    Done(i64),
    /// There is no such routine.
    Missing,
    /// There is no such asset, or it is retired.
    NoAsset,
    /// There is no such person, or they cannot sign in any more.
    NoPerson,
    /// A routine stays with its asset.
    OtherAsset,
    /// Somebody else saved another version meanwhile.
    Changed,
    /// The work is being done; its date stays until it is.
    InProgress,
    /// That date, or a later one, is done already.
    DateTaken(Day),
}

/// Stores a routine, and its first execution if it is due soon.
pub async fn add(db: &mut PgConnection, user: i64, routine: &NewRoutine) -> Result<Stored, sqlx::Error> {
    if !person_exists(db, routine.assigned_to).await? {
        return Ok(Stored::NoPerson);
    }
    // FOR SHARE: the asset is not retired in the meantime.
    let asset =
        sqlx::query_scalar!("SELECT id FROM assets WHERE id = $1 AND status <> 'retired' FOR SHARE", routine.asset_id);
    if asset.fetch_optional(&mut *db).await?.is_none() {
        return Ok(Stored::NoAsset);
    }
    let id = sqlx::query_scalar!(
        "INSERT INTO routines (asset_id, name, instructions, interval_count, interval_unit, starts_on, next_due_on,
                               estimated_minutes, assigned_to, created_by)
         VALUES ($1, $2, $3, $4, $5, $6, $6, $7, $8, $9) RETURNING id",
        routine.asset_id,
        routine.name,
        routine.instructions,
        routine.interval_count,
        routine.interval_unit.as_str(),
        routine.next_due_on as _,
        routine.estimated_minutes,
        routine.assigned_to,
        user,
    )
    .fetch_one(&mut *db)
    .await?;
    activity::record(db, Some(user), "routine.created", ("routine", id), &routine.name).await?;
    plan(db, Day::today()).await?;
    Ok(Stored::Done(id))
}

async fn person_exists(db: &mut PgConnection, person: Option<i64>) -> Result<bool, sqlx::Error> {
    match person {
        Some(person) => people::exists(db, person).await,
        None => Ok(true),
    }
}

/// A routine that nobody else changes until the transaction ends.
pub struct Locked {
    pub asset_id: i64,
    pub name: String,
    pub active: bool,
    pub asset_status: String,
    pub next_due_on: Option<Day>,
    pub starts_on: Option<Day>,
    pub interval_count: i32,
    pub interval_unit: String,
    pub updated_at: Moment,
}

impl Locked {
    /// Its dates, counted from `fallback` where it was never done.
    pub fn schedule(&self, fallback: Day) -> Schedule {
        let unit = Unit::parse(&self.interval_unit).unwrap_or(Unit::Month);
        Schedule { first: self.starts_on.unwrap_or(fallback), every: self.interval_count, unit }
    }
}

/// Locks a routine. Whoever changes an execution locks its routine first, so that nobody waits in a circle.
pub async fn lock(db: &mut PgConnection, id: i64) -> Result<Option<Locked>, sqlx::Error> {
    sqlx::query_as!(
        Locked,
        r#"SELECT r.asset_id, r.name, r.active, a.status AS asset_status, r.next_due_on AS "next_due_on: Day",
                  r.starts_on AS "starts_on: Day", r.interval_count, r.interval_unit, r.updated_at AS "updated_at: Moment"
           FROM routines r JOIN assets a ON a.id = r.asset_id WHERE r.id = $1 FOR NO KEY UPDATE OF r"#,
        id
    )
    .fetch_optional(db)
    .await
}

/// Replaces the version of `version` and no other. A new date or interval starts the counting anew and moves what is
/// planned along.
pub async fn update(
    db: &mut PgConnection,
    user: i64,
    id: i64,
    routine: &NewRoutine,
    version: Moment,
) -> Result<Stored, sqlx::Error> {
    let Some(stored) = lock(db, id).await? else { return Ok(Stored::Missing) };
    if stored.updated_at != version {
        return Ok(Stored::Changed);
    }
    if stored.asset_id != routine.asset_id {
        return Ok(Stored::OtherAsset);
    }
    if !person_exists(db, routine.assigned_to).await? {
        return Ok(Stored::NoPerson);
    }
    let moves = stored.next_due_on != Some(routine.next_due_on);
    if moves && let Some(refused) = move_open(db, id, routine.next_due_on).await? {
        return Ok(refused);
    }
    let unit = routine.interval_unit.as_str();
    let counts_anew = moves || stored.interval_count != routine.interval_count || stored.interval_unit != unit;
    sqlx::query!(
        "UPDATE routines SET name = $2, instructions = $3, interval_count = $4, interval_unit = $5, next_due_on = $6,
                             starts_on = CASE WHEN $7 THEN $6 ELSE starts_on END, estimated_minutes = $8, assigned_to = $9
         WHERE id = $1",
        id,
        routine.name,
        routine.instructions,
        routine.interval_count,
        unit,
        routine.next_due_on as _,
        counts_anew,
        routine.estimated_minutes,
        routine.assigned_to,
    )
    .execute(&mut *db)
    .await?;
    activity::record(db, Some(user), "routine.updated", ("routine", id), &routine.name).await?;
    plan(db, Day::today()).await?;
    Ok(Stored::Done(id))
}

/// Gives the planned execution another date, or says why not.
async fn move_open(db: &mut PgConnection, id: i64, day: Day) -> Result<Option<Stored>, sqlx::Error> {
    if let Some(last) = last_closed(db, id).await?
        && last >= day
    {
        return Ok(Some(Stored::DateTaken(last)));
    }
    let in_progress =
        sqlx::query_scalar!("SELECT id FROM routine_executions WHERE routine_id = $1 AND status = 'in_progress'", id);
    if in_progress.fetch_optional(&mut *db).await?.is_some() {
        return Ok(Some(Stored::InProgress));
    }
    sqlx::query!(
        "UPDATE routine_executions SET due_on = $2 WHERE routine_id = $1 AND status = 'pending'",
        id,
        day as _
    )
    .execute(db)
    .await?;
    Ok(None)
}

/// The last date that is done or skipped.
async fn last_closed(db: &mut PgConnection, id: i64) -> Result<Option<Day>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"SELECT max(due_on) AS "day: Day" FROM routine_executions
           WHERE routine_id = $1 AND status IN ('completed', 'skipped')"#,
        id
    )
    .fetch_one(db)
    .await
}

/// Nothing becomes due until it is resumed; what was planned is skipped. False where it is paused already.
pub async fn pause(db: &mut PgConnection, user: i64, id: i64) -> Result<bool, sqlx::Error> {
    let name = sqlx::query_scalar!("UPDATE routines SET active = false WHERE id = $1 AND active RETURNING name", id);
    let Some(name) = name.fetch_optional(&mut *db).await? else { return Ok(false) };
    put_away(db, user, id, "The routine was paused.").await?;
    activity::record(db, Some(user), "routine.paused", ("routine", id), &name).await?;
    Ok(true)
}

/// What became of an attempt to resume a routine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    Done,
    AlreadyActive,
    AssetRetired,
    Missing,
}

/// It becomes due again, from today on: what would have been due during the pause is not made up for.
pub async fn resume(db: &mut PgConnection, user: i64, id: i64) -> Result<Resumed, sqlx::Error> {
    let Some(stored) = lock(db, id).await? else { return Ok(Resumed::Missing) };
    if stored.active {
        return Ok(Resumed::AlreadyActive);
    }
    if stored.asset_status == "retired" {
        return Ok(Resumed::AssetRetired);
    }
    let today = Day::today();
    let from = last_closed(db, id).await?.map_or(today, |last| last.plus(1).max(today));
    let due = stored.next_due_on.unwrap_or(from);
    let open =
        sqlx::query_scalar!("SELECT id FROM routine_executions WHERE routine_id = $1 AND status = 'in_progress'", id);
    let keeps = due >= from || open.fetch_optional(&mut *db).await?.is_some();
    let due = if keeps { due } else { stored.schedule(due).next_from(from).unwrap_or(from) };
    sqlx::query!("UPDATE routines SET active = true, next_due_on = $2 WHERE id = $1", id, due as _)
        .execute(&mut *db)
        .await?;
    activity::record(db, Some(user), "routine.resumed", ("routine", id), &stored.name).await?;
    plan(db, today).await?;
    Ok(Resumed::Done)
}
