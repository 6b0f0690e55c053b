//! Every statement that plans an execution or moves it on; what only reads lists is in [`super::lists`].

use sqlx::postgres::PgConnection;

use super::Detail;
pub use super::lists::{Walked, counts, list, walk};
use crate::app::plant::activity;
use crate::app::plant::day::{Day, Moment};
use crate::app::plant::routines::store::{Locked, lock};
use crate::tenancy::repository::Model;

impl Model for Detail {
    type Id = i64;

    async fn find(connection: &mut PgConnection, id: i64) -> Result<Option<Self>, sqlx::Error> {
        find(connection, id).await
    }
}

/// How many days ahead work is planned, so that it can be seen coming.
pub const HORIZON: i64 = 14;
/// Most missed dates that are skipped at once.
const MOST_MISSED: usize = 400;

/// Makes the executions that are due soon and not there yet; returns how many. Running it twice, or in two places at
/// once, makes each of them once. Always in the order of ids, so that two that wait for each other do not wait in a circle.
pub async fn plan(db: &mut PgConnection, today: Day) -> Result<u64, sqlx::Error> {
    let planned = sqlx::query!(
        "WITH planned AS (
             INSERT INTO routine_executions (routine_id, due_on)
             SELECT r.id, r.next_due_on FROM routines r JOIN assets a ON a.id = r.asset_id
             WHERE r.active AND r.next_due_on <= $1 AND a.status <> 'retired' AND NOT EXISTS (
                 SELECT FROM routine_executions e WHERE e.routine_id = r.id AND e.status IN ('pending', 'in_progress'))
             ORDER BY r.id
             ON CONFLICT DO NOTHING RETURNING id, routine_id, due_on)
         INSERT INTO activities (kind, subject_type, subject_id, summary)
         SELECT 'routine_execution.planned', 'routine_execution', p.id, r.name || ', due on ' || p.due_on
         FROM planned p JOIN routines r ON r.id = p.routine_id ORDER BY p.due_on, p.id",
        today.plus(HORIZON) as _,
    );
    Ok(planned.execute(db).await?.rows_affected())
}

/// One execution.
pub async fn find(db: &mut PgConnection, id: i64) -> Result<Option<Detail>, sqlx::Error> {
    sqlx::query_as!(
        Detail,
        r#"SELECT e.id, e.status, e.due_on AS "due_on: Day", e.started_at AS "started_at: Moment",
                  e.completed_at AS "completed_at: Moment", e.performed_by, p.name AS "performer_name?", e.notes,
                  e.skip_reason, e.updated_at AS "updated_at: Moment", e.routine_id, r.name AS routine_name,
                  r.instructions, r.interval_count, r.interval_unit, r.estimated_minutes, r.assigned_to,
                  u.name AS "assignee_name?", a.id AS asset_id, a.name AS asset_name, a.tag AS asset_tag,
                  a.location AS asset_location, a.status AS asset_status, a.criticality AS asset_criticality,
                  a.manufacturer AS asset_manufacturer, a.model AS asset_model, a.serial_number AS asset_serial_number
           FROM routine_executions e JOIN routines r ON r.id = e.routine_id JOIN assets a ON a.id = r.asset_id
               LEFT JOIN users u ON u.id = r.assigned_to LEFT JOIN users p ON p.id = e.performed_by
           WHERE e.id = $1"#,
        id
    )
    .fetch_optional(db)
    .await
}

/// What became of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Done,
    /// It is not in the status that the step starts from: somebody was faster.
    TooLate,
    /// There is no such execution.
    Missing,
}

/// Its routine, locked; each step begins with it.
async fn locked(db: &mut PgConnection, id: i64) -> Result<Option<(i64, Locked)>, sqlx::Error> {
    let routine = sqlx::query_scalar!("SELECT routine_id FROM routine_executions WHERE id = $1", id);
    let Some(routine) = routine.fetch_optional(&mut *db).await? else { return Ok(None) };
    Ok(lock(db, routine).await?.map(|locked| (routine, locked)))
}

/// pending → in progress, by `user`.
pub async fn start(db: &mut PgConnection, user: i64, id: i64) -> Result<Step, sqlx::Error> {
    let Some((_, routine)) = locked(db, id).await? else { return Ok(Step::Missing) };
    let started = sqlx::query!(
        "UPDATE routine_executions SET status = 'in_progress', started_at = now(), performed_by = $2
         WHERE id = $1 AND status = 'pending'",
        id,
        user,
    );
    if started.execute(&mut *db).await?.rows_affected() == 0 {
        return Ok(Step::TooLate);
    }
    activity::record(db, Some(user), "routine_execution.started", ("routine_execution", id), &routine.name).await?;
    Ok(Step::Done)
}

/// in progress → completed, by `user`; the routine's next date follows from its schedule. `asset_status` is what the
/// asset is in afterwards, where that was said.
pub async fn complete(
    db: &mut PgConnection,
    user: i64,
    id: i64,
    notes: Option<&str>,
    asset_status: Option<&str>,
) -> Result<Step, sqlx::Error> {
    let Some((routine_id, routine)) = locked(db, id).await? else { return Ok(Step::Missing) };
    let due_on = sqlx::query_scalar!(
        r#"UPDATE routine_executions SET status = 'completed', completed_at = greatest(now(), started_at),
                                         performed_by = $2, notes = $3
           WHERE id = $1 AND status = 'in_progress' RETURNING due_on AS "due_on: Day""#,
        id,
        user,
        notes,
    );
    let Some(due_on) = due_on.fetch_optional(&mut *db).await? else { return Ok(Step::TooLate) };
    activity::record(db, Some(user), "routine_execution.completed", ("routine_execution", id), &routine.name).await?;
    if let Some(status) = asset_status {
        set_asset_status(db, user, routine.asset_id, status).await?;
    }
    advance(db, routine_id, &routine, due_on).await?;
    plan(db, Day::today()).await?;
    Ok(Step::Done)
}

async fn set_asset_status(db: &mut PgConnection, user: i64, asset: i64, status: &str) -> Result<(), sqlx::Error> {
    let name = sqlx::query_scalar!(
        "UPDATE assets SET status = $2 WHERE id = $1 AND status NOT IN ('retired', $2) RETURNING name",
        asset,
        status,
    );
    if let Some(name) = name.fetch_optional(&mut *db).await? {
        let summary = format!("{name} is {status}");
        activity::record(db, Some(user), "asset.updated", ("asset", asset), &summary).await?;
    }
    Ok(())
}

/// pending or in progress → skipped. With `missed`, the dates that passed since are skipped with it, each on record.
pub async fn skip(db: &mut PgConnection, user: i64, id: i64, reason: &str, missed: bool) -> Result<Step, sqlx::Error> {
    let Some((routine_id, routine)) = locked(db, id).await? else { return Ok(Step::Missing) };
    let due_on = sqlx::query_scalar!(
        r#"UPDATE routine_executions SET status = 'skipped', completed_at = greatest(now(), started_at),
                                         performed_by = $2, skip_reason = $3
           WHERE id = $1 AND status IN ('pending', 'in_progress') RETURNING due_on AS "due_on: Day""#,
        id,
        user,
        reason,
    );
    let Some(mut due_on) = due_on.fetch_optional(&mut *db).await? else { return Ok(Step::TooLate) };
    let mut summary = routine.name.clone();
    let today = Day::today();
    if missed {
        let dates = routine.schedule(due_on).between(due_on, today, MOST_MISSED);
        if let Some(last) = dates.last() {
            sqlx::query!(
                "INSERT INTO routine_executions (routine_id, due_on, status, completed_at, performed_by, skip_reason)
                 SELECT $1, day, 'skipped', now(), $3, $4 FROM unnest($2::date[]) AS day ON CONFLICT DO NOTHING",
                routine_id,
                &dates as _,
                user,
                reason,
            )
            .execute(&mut *db)
            .await?;
            summary = format!("{summary} and {} missed dates", dates.len());
            due_on = *last;
        }
    }
    activity::record(db, Some(user), "routine_execution.skipped", ("routine_execution", id), &summary).await?;
    advance(db, routine_id, &routine, due_on).await?;
    plan(db, today).await?;
    Ok(Step::Done)
}

/// Skips what is pending of a routine that is being put to rest. The caller has locked the routine.
pub async fn put_away(db: &mut PgConnection, user: i64, routine: i64, reason: &str) -> Result<(), sqlx::Error> {
    let skipped = sqlx::query!(
        r#"UPDATE routine_executions SET status = 'skipped', completed_at = now(), performed_by = $2, skip_reason = $3
           WHERE routine_id = $1 AND status = 'pending' RETURNING id, due_on AS "due_on: Day""#,
        routine,
        user,
        reason,
    );
    let Some(skipped) = skipped.fetch_optional(&mut *db).await? else { return Ok(()) };
    let Some(locked) = lock(db, routine).await? else { return Ok(()) };
    let subject = ("routine_execution", skipped.id);
    activity::record(db, Some(user), "routine_execution.skipped", subject, &locked.name).await?;
    advance(db, routine, &locked, skipped.due_on).await
}

/// Sets the routine's next date to the one after `done`. At the end of the calendar it is due no more.
async fn advance(db: &mut PgConnection, id: i64, routine: &Locked, done: Day) -> Result<(), sqlx::Error> {
    let schedule = routine.schedule(done);
    let next = schedule.next_after(done);
    sqlx::query!(
        "UPDATE routines SET starts_on = $2, next_due_on = coalesce($3, next_due_on), active = active AND $3 IS NOT NULL
         WHERE id = $1",
        id,
        schedule.first as _,
        next as _,
    )
    .execute(db)
    .await?;
    Ok(())
}
