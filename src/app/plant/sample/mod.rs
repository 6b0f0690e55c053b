//! Fills an empty tenant with a bottling plant, so that somebody who looks at the product has something to look at.
//!
//! The same every time but for the dates, which are counted from today. Offered only where there is no asset yet, to
//! administrators, and stored in one transaction.

mod data;

use axum::response::{IntoResponse, Redirect, Response};
use jiff::{Span, Timestamp, ToSpan};
use sqlx::postgres::PgConnection;

use self::data::{ASSETS, NOTES, ROUTINES, SampleAsset, SampleRoutine};
use super::asked::Nothing;
use super::day::{Day, Moment};
use super::schedule::{Schedule, Unit};
use super::work::store::HORIZON;
use super::{assets, change, limit_reached, people};
use crate::app::accounts::{CurrentUser, Role};
use crate::app::form::CheckedForm;
use crate::app::problem::Problem;
use crate::tenancy::TenantContext;

/// How far back work was done.
const DAYS: i64 = 60;

/// `POST /sample-data`
pub async fn fill(tenant: TenantContext, user: CurrentUser, _: CheckedForm<Nothing>) -> Result<Response, Problem> {
    user.require(Role::Admin)?;
    let max = tenant.entry().plan.limits.assets;
    let filled = change(&tenant, async |db: &mut PgConnection| {
        // The limit's lock also keeps a second click from filling it twice.
        let count = i64::try_from(ASSETS.len()).unwrap_or(i64::MAX);
        let has_room = assets::store::has_room(db, Some(max.unwrap_or(i32::MAX)), count).await?;
        if assets::store::count(db).await? > 0 {
            return Err(Problem::Conflict("There are assets already. Sample data is for an empty site.".into()));
        }
        if has_room {
            Filler::new(db, user.id).await?.fill(db).await?;
        }
        Ok(has_room)
    })
    .await?;
    if filled { Ok(Redirect::to("/?done=sample").into_response()) } else { Err(limit_reached(&tenant, "assets", max)) }
}

/// Collects the activities, which are stored last and in the order of their time.
struct Filler {
    today: Day,
    /// Who does the work, in turn; the first is who filled it.
    people: Vec<i64>,
    activities: Vec<Line>,
}

struct Line {
    at: Moment,
    user: i64,
    kind: &'static str,
    subject: (&'static str, i64),
    summary: String,
}

impl Filler {
    async fn new(db: &mut PgConnection, user: i64) -> Result<Self, sqlx::Error> {
        let others = people::all(db).await?.into_iter().map(|person| person.id).filter(|id| *id != user);
        Ok(Self {
            today: Day::today(),
            people: std::iter::once(user).chain(others).take(5).collect(),
            activities: vec![],
        })
    }

    async fn fill(mut self, db: &mut PgConnection) -> Result<(), sqlx::Error> {
        let mut ids = Vec::new();
        for (number, asset) in ASSETS.iter().enumerate() {
            ids.push((asset.0, self.asset(db, number, asset).await?));
        }
        for (number, routine) in ROUTINES.iter().enumerate() {
            if let Some((_, asset)) = ids.iter().find(|(tag, _)| *tag == routine.0) {
                self.routine(db, number, *asset, routine).await?;
            }
        }
        // Without lines of their own: that work was planned is no news on a site that is this new.
        sqlx::query!(
            "INSERT INTO routine_executions (routine_id, due_on) SELECT id, next_due_on FROM routines WHERE next_due_on <= $1",
            self.today.plus(HORIZON) as _,
        )
        .execute(&mut *db)
        .await?;
        self.record(db).await
    }

    fn person(&self, number: usize) -> i64 {
        self.people[number % self.people.len()]
    }

    /// A moment during the day shift.
    fn at(day: Day, number: usize) -> Moment {
        let minutes = i64::try_from(number * 53 % 540).unwrap_or_default();
        let morning = day.civil().at(6, 10, 0, 0).to_zoned(jiff::tz::TimeZone::UTC);
        let moment = morning.map_or_else(|_| Timestamp::now(), |morning| morning.timestamp());
        moment.checked_add(Span::new().minutes(minutes)).unwrap_or(moment).min(Timestamp::now()).into()
    }

    async fn asset(&mut self, db: &mut PgConnection, number: usize, asset: &SampleAsset) -> Result<i64, sqlx::Error> {
        let SampleAsset(tag, name, category, location, manufacturer, model, criticality, status, years) = *asset;
        let (number_of_days, user) = (i64::try_from(number).unwrap_or_default(), self.people[0]);
        let since = self.today.plus(-i64::from(years) * 365 - number_of_days * 3);
        let at = Self::at(self.today.plus(-DAYS - 3), number);
        let serial_number = format!("{}-{:05}", since.civil().year(), 10_300 + number * 977);
        let id = sqlx::query_scalar!(
            "INSERT INTO assets (name, tag, category, location, manufacturer, model, serial_number, criticality, status,
                                 commissioned_on, created_by, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) RETURNING id",
            name,
            tag,
            category,
            location,
            manufacturer,
            model,
            serial_number,
            criticality,
            status,
            since as _,
            user,
            at as _,
        )
        .fetch_one(db)
        .await?;
        self.line(at, user, "asset.created", ("asset", id), name);
        Ok(id)
    }

    async fn routine(
        &mut self,
        db: &mut PgConnection,
        number: usize,
        asset: i64,
        routine: &SampleRoutine,
    ) -> Result<(), sqlx::Error> {
        let SampleRoutine(_, name, every, unit, minutes, due_in, instructions) = *routine;
        let due = self.today.plus(due_in);
        let schedule = schedule(due, every, Unit::parse(unit).unwrap_or(Unit::Month));
        let (user, assigned_to) = (self.people[0], self.person(number));
        let at = Self::at(self.today.plus(-DAYS - 2), number);
        let done = schedule.between(schedule.first.plus(-1), due, 100);
        // Where a month's end is in the way, the dates are those that the schedule counts.
        let due = done.last().and_then(|last| schedule.next_after(*last)).unwrap_or(due);
        let id = sqlx::query_scalar!(
            "INSERT INTO routines (asset_id, name, instructions, interval_count, interval_unit, starts_on, next_due_on,
                                   estimated_minutes, assigned_to, created_by, created_at)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING id",
            asset,
            name,
            instructions,
            every,
            unit,
            schedule.first as _,
            due as _,
            minutes,
            assigned_to,
            user,
            at as _,
        )
        .fetch_one(&mut *db)
        .await?;
        self.line(at, user, "routine.created", ("routine", id), name);
        for (index, day) in done.into_iter().enumerate() {
            self.execution(db, id, name, day, number * 7 + index).await?;
        }
        Ok(())
    }

    /// One that was done on its day or the day after; one in seventeen was skipped.
    async fn execution(
        &mut self,
        db: &mut PgConnection,
        routine: i64,
        name: &str,
        due: Day,
        number: usize,
    ) -> Result<(), sqlx::Error> {
        let late = i64::from(number % 5 == 3);
        let at = Self::at(due.plus(late).min(self.today), number);
        let (user, skipped) = (self.person(number), number % 17 == 11);
        let (status, kind) = if skipped {
            ("skipped", "routine_execution.skipped")
        } else {
            ("completed", "routine_execution.completed")
        };
        let started = (!skipped).then_some(at);
        let notes = (!skipped).then_some(NOTES[number % NOTES.len()]);
        let reason = skipped.then_some("The line was standing still.");
        let id = sqlx::query_scalar!(
            "INSERT INTO routine_executions (routine_id, due_on, status, started_at, completed_at, performed_by, notes,
                                             skip_reason, created_at)
             VALUES ($1, $2, $3, $4::timestamptz - interval '25 minutes', $5, $6, $7, $8, $5::timestamptz - interval '1 day')
             RETURNING id",
            routine,
            due as _,
            status,
            started as _,
            at as _,
            user,
            notes,
            reason,
        )
        .fetch_one(db)
        .await?;
        self.line(at, user, kind, ("routine_execution", id), name);
        Ok(())
    }

    fn line(&mut self, at: Moment, user: i64, kind: &'static str, subject: (&'static str, i64), summary: &str) {
        self.activities.push(Line { at, user, kind, subject, summary: summary.into() });
    }

    async fn record(mut self, db: &mut PgConnection) -> Result<(), sqlx::Error> {
        self.activities.sort_by_key(|line| line.at);
        for line in self.activities {
            sqlx::query!(
                "INSERT INTO activities (user_id, kind, subject_type, subject_id, summary, created_at)
                 VALUES ($1, $2, $3, $4, $5, $6)",
                line.user,
                line.kind,
                line.subject.0,
                line.subject.1,
                line.summary,
                line.at as _,
            )
            .execute(&mut *db)
            .await?;
        }
        Ok(())
    }
}

/// A schedule that has a date at `due` and began some [`DAYS`] earlier.
fn schedule(due: Day, every: i32, unit: Unit) -> Schedule {
    let days = match unit {
        Unit::Day => 1,
        Unit::Week => 7,
        Unit::Month => 30,
        Unit::Year => 365,
    };
    let count = i64::from(every) * (DAYS / (days * i64::from(every)));
    let span = match unit {
        Unit::Day => count.days(),
        Unit::Week => count.weeks(),
        Unit::Month => count.months(),
        Unit::Year => count.years(),
    };
    Schedule { first: due.civil().saturating_sub(span).into(), every, unit }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_routine_has_its_asset_and_tags_are_used_once() {
        let tags: HashSet<_> = ASSETS.iter().map(|asset| asset.0).collect();
        assert_eq!(tags.len(), ASSETS.len());
        for routine in &ROUTINES {
            assert!(tags.contains(routine.0), "{}", routine.0);
            assert!(Unit::parse(routine.3).is_some(), "{}", routine.3);
        }
    }

    #[test]
    fn a_sample_schedule_leads_to_its_due_date() {
        let due = Day::parse("2026-11-25").unwrap();
        for routine in &ROUTINES {
            let schedule = schedule(due, routine.2, Unit::parse(routine.3).unwrap());
            assert_eq!(schedule.next_from(due), Some(due), "{}", routine.1);
            assert!(schedule.first <= due && schedule.first >= due.plus(-63), "{}", routine.1);
        }
    }
}
