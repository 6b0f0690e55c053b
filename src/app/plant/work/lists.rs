//! Executions in lists.

use sqlx::postgres::PgConnection;

use super::{Counts, Wanted, Work};
use crate::app::plant::day::{Day, Moment};

/// One page of a list.
pub async fn list(db: &mut PgConnection, wanted: &Wanted, limit: i64, offset: i64) -> Result<Vec<Work>, sqlx::Error> {
    // Two statements, because what is open is little and sorted by its day, and what is done grows for ever and is read
    // from its index, newest first.
    if wanted.view == "done" { done(db, wanted, limit, offset).await } else { open(db, wanted, limit, offset).await }
}

async fn open(db: &mut PgConnection, wanted: &Wanted, limit: i64, offset: i64) -> Result<Vec<Work>, sqlx::Error> {
    sqlx::query_as!(
        Work,
        r#"SELECT e.id, e.status, e.due_on AS "due_on: Day", e.routine_id, r.name AS routine_name, r.asset_id,
                  a.name AS asset_name, a.location AS asset_location, a.criticality, r.assigned_to,
                  u.name AS "assignee_name?", e.performed_by, p.name AS "performer_name?",
                  e.completed_at AS "completed_at: Moment", e.notes, e.skip_reason, count(*) OVER () AS "total!"
           FROM routine_executions e JOIN routines r ON r.id = e.routine_id JOIN assets a ON a.id = r.asset_id
               LEFT JOIN users u ON u.id = r.assigned_to LEFT JOIN users p ON p.id = e.performed_by
           WHERE e.status IN ('pending', 'in_progress')
             AND CASE $1 WHEN 'mine' THEN CASE e.status WHEN 'in_progress' THEN e.performed_by = $2 ELSE r.assigned_to = $2 END
                         WHEN 'today' THEN e.due_on = $3 WHEN 'overdue' THEN e.due_on < $3
                         WHEN 'upcoming' THEN e.due_on > $3 ELSE true END
             AND ($4 = '' OR strpos(lower(r.name || ' ' || a.name || ' ' || coalesce(a.location, '')), lower($4)) > 0)
             AND ($5::bigint IS NULL OR r.asset_id = $5) AND ($6::bigint IS NULL OR e.routine_id = $6)
           ORDER BY e.due_on, array_position(ARRAY['critical', 'high', 'normal', 'low'], a.criticality), e.id
           LIMIT $7 OFFSET $8"#,
        wanted.view,
        wanted.user,
        Day::today() as _,
        wanted.search,
        wanted.asset,
        wanted.routine,
        limit,
        offset,
    )
    .fetch_all(db)
    .await
}

async fn done(db: &mut PgConnection, wanted: &Wanted, limit: i64, offset: i64) -> Result<Vec<Work>, sqlx::Error> {
    sqlx::query_as!(
        Work,
        r#"SELECT e.id, e.status, e.due_on AS "due_on: Day", e.routine_id, r.name AS routine_name, r.asset_id,
                  a.name AS asset_name, a.location AS asset_location, a.criticality, r.assigned_to,
                  u.name AS "assignee_name?", e.performed_by, p.name AS "performer_name?",
                  e.completed_at AS "completed_at: Moment", e.notes, e.skip_reason,
                  (SELECT count(*) FROM routine_executions e JOIN routines r ON r.id = e.routine_id
                       JOIN assets a ON a.id = r.asset_id
                   WHERE e.status IN ('completed', 'skipped')
                     AND ($1 = '' OR strpos(lower(r.name || ' ' || a.name || ' ' || coalesce(a.location, '')), lower($1)) > 0)
                     AND ($2::bigint IS NULL OR r.asset_id = $2) AND ($3::bigint IS NULL OR e.routine_id = $3)) AS "total!"
           FROM routine_executions e JOIN routines r ON r.id = e.routine_id JOIN assets a ON a.id = r.asset_id
               LEFT JOIN users u ON u.id = r.assigned_to LEFT JOIN users p ON p.id = e.performed_by
           WHERE e.status IN ('completed', 'skipped')
             AND ($1 = '' OR strpos(lower(r.name || ' ' || a.name || ' ' || coalesce(a.location, '')), lower($1)) > 0)
             AND ($2::bigint IS NULL OR r.asset_id = $2) AND ($3::bigint IS NULL OR e.routine_id = $3)
           ORDER BY e.completed_at DESC, e.id DESC LIMIT $4 OFFSET $5"#,
        wanted.search,
        wanted.asset,
        wanted.routine,
        limit,
        offset,
    )
    .fetch_all(db)
    .await
}

/// For programs: by id, of any status.
#[derive(Debug, Clone, Default)]
pub struct Walked {
    pub status: String,
    pub routine: Option<i64>,
    pub asset: Option<i64>,
    pub assigned_to: Option<i64>,
    pub due_before: Option<Day>,
    pub due_after: Option<Day>,
}

/// Executions with a higher id than `after`, by id.
pub async fn walk(db: &mut PgConnection, wanted: &Walked, after: i64, limit: i64) -> Result<Vec<Work>, sqlx::Error> {
    sqlx::query_as!(
        Work,
        r#"SELECT e.id, e.status, e.due_on AS "due_on: Day", e.routine_id, r.name AS routine_name, r.asset_id,
                  a.name AS asset_name, a.location AS asset_location, a.criticality, r.assigned_to,
                  u.name AS "assignee_name?", e.performed_by, p.name AS "performer_name?",
                  e.completed_at AS "completed_at: Moment", e.notes, e.skip_reason, 0::bigint AS "total!"
           FROM routine_executions e JOIN routines r ON r.id = e.routine_id JOIN assets a ON a.id = r.asset_id
               LEFT JOIN users u ON u.id = r.assigned_to LEFT JOIN users p ON p.id = e.performed_by
           WHERE e.id > $1 AND ($2 = '' OR e.status = $2) AND ($3::bigint IS NULL OR e.routine_id = $3)
             AND ($4::bigint IS NULL OR r.asset_id = $4) AND ($5::bigint IS NULL OR r.assigned_to = $5)
             AND ($6::date IS NULL OR e.due_on < $6) AND ($7::date IS NULL OR e.due_on > $7)
           ORDER BY e.id LIMIT $8"#,
        after,
        wanted.status,
        wanted.routine,
        wanted.asset,
        wanted.assigned_to,
        wanted.due_before as _,
        wanted.due_after as _,
        limit,
    )
    .fetch_all(db)
    .await
}

/// How many there are in each view.
pub async fn counts(db: &mut PgConnection, user: i64) -> Result<Counts, sqlx::Error> {
    sqlx::query_as!(
        Counts,
        r#"SELECT count(*) AS "open!", count(*) FILTER (WHERE e.status = 'pending') AS "pending!",
                  count(*) FILTER (WHERE CASE e.status WHEN 'in_progress' THEN e.performed_by = $1 ELSE r.assigned_to = $1 END) AS "mine!",
                  count(*) FILTER (WHERE e.due_on = $2) AS "today!", count(*) FILTER (WHERE e.due_on < $2) AS "overdue!",
                  count(*) FILTER (WHERE e.due_on > $2) AS "upcoming!"
           FROM routine_executions e JOIN routines r ON r.id = e.routine_id WHERE e.status IN ('pending', 'in_progress')"#,
        user,
        Day::today() as _,
    )
    .fetch_one(db)
    .await
}
