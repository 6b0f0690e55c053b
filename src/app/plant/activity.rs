//! Who did what: every change writes a line, and nobody changes lines.

use askama::Template;
use axum::Json;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgConnection;

use super::asked::{Asked, base, plain};
use super::day::Moment;
use super::people::{self, Person};
use super::show::Choice;
use super::{no_store, private_page};
use crate::app::accounts::CurrentUser;
use crate::app::problem::Problem;
use crate::app::shell::Shell;
use crate::tenancy::TenantContext;

/// Lines on one page.
const PAGE: i64 = 50;

/// What a line is about, as the table names it and as people filter by it.
const SUBJECTS: [(&str, &str); 5] = [
    ("", "Everything"),
    ("asset", "Assets"),
    ("routine", "Routines"),
    ("routine_execution", "Work"),
    ("user", "People"),
];

/// One line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Activity {
    pub id: i64,
    /// `asset.created`
    pub kind: String,
    pub subject_type: String,
    pub subject_id: i64,
    pub summary: String,
    pub created_at: Moment,
    pub user_id: Option<i64>,
    /// Absent: the system.
    pub user_name: Option<String>,
}

impl Activity {
    /// Who did it.
    pub fn who(&self) -> &str {
        self.user_name.as_deref().unwrap_or("The system")
    }

    /// What was done, as it follows the name.
    pub fn did(&self) -> String {
        let known = match self.kind.as_str() {
            "asset.created" => "added the asset",
            "asset.updated" => "changed the asset",
            "asset.retired" => "retired the asset",
            "asset.restored" => "put the asset back in use",
            "routine.created" => "added the routine",
            "routine.updated" => "changed the routine",
            "routine.paused" => "paused the routine",
            "routine.resumed" => "resumed the routine",
            "routine_execution.planned" => "planned",
            "routine_execution.started" => "started",
            "routine_execution.completed" => "completed",
            "routine_execution.skipped" => "skipped",
            _ => "",
        };
        if known.is_empty() { format!("({})", self.kind.replace(['.', '_'], " ")) } else { known.into() }
    }

    /// The page of what it is about.
    pub fn link(&self) -> Option<String> {
        let page = match self.subject_type.as_str() {
            "asset" => "assets",
            "routine" => "routines",
            "routine_execution" => "executions",
            _ => return None,
        };
        Some(format!("/{page}/{}", self.subject_id))
    }
}

/// Writes a line, in the transaction of the change itself. A summary that is too long is cut.
pub async fn record(
    db: &mut PgConnection,
    user: Option<i64>,
    kind: &str,
    subject: (&str, i64),
    summary: &str,
) -> Result<(), sqlx::Error> {
    let summary: String = summary.chars().take(1000).collect();
    sqlx::query!(
        "INSERT INTO activities (user_id, kind, subject_type, subject_id, summary) VALUES ($1, $2, $3, $4, $5)",
        user,
        kind,
        subject.0,
        subject.1,
        summary,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Which lines are wanted, newest first.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Of one kind of thing; empty for all.
    pub subject: String,
    /// Of one thing.
    pub subject_id: Option<i64>,
    pub user: Option<i64>,
    /// Older than this line.
    pub before: Option<i64>,
    pub limit: i64,
}

/// The lines.
pub async fn list(db: &mut PgConnection, wanted: &Wanted) -> Result<Vec<Activity>, sqlx::Error> {
    sqlx::query_as!(
        Activity,
        r#"SELECT a.id, a.kind, a.subject_type, a.subject_id, a.summary, a.created_at AS "created_at: Moment",
                  a.user_id, u.name AS "user_name?"
           FROM activities a LEFT JOIN users u ON u.id = a.user_id
           WHERE ($1 = '' OR a.subject_type = $1) AND ($2::bigint IS NULL OR a.subject_id = $2)
             AND ($3::bigint IS NULL OR a.user_id = $3) AND ($4::bigint IS NULL OR a.id < $4)
           ORDER BY a.id DESC LIMIT $5"#,
        wanted.subject,
        wanted.subject_id,
        wanted.user,
        wanted.before,
        wanted.limit,
    )
    .fetch_all(db)
    .await
}

/// Lines about an asset, its routines and their executions.
pub async fn of_asset(db: &mut PgConnection, asset: i64, limit: i64) -> Result<Vec<Activity>, sqlx::Error> {
    sqlx::query_as!(
        Activity,
        r#"SELECT a.id AS "id!", a.kind AS "kind!", a.subject_type AS "subject_type!", a.subject_id AS "subject_id!",
                  a.summary AS "summary!", a.created_at AS "created_at!: Moment", a.user_id, u.name AS "user_name?"
           FROM (
               SELECT * FROM activities WHERE subject_type = 'asset' AND subject_id = $1
               UNION ALL
               SELECT * FROM activities WHERE subject_type = 'routine'
                   AND subject_id IN (SELECT id FROM routines WHERE asset_id = $1)
               UNION ALL
               SELECT * FROM activities WHERE subject_type = 'routine_execution' AND subject_id IN
                   (SELECT e.id FROM routine_executions e JOIN routines r ON r.id = e.routine_id WHERE r.asset_id = $1)
           ) a LEFT JOIN users u ON u.id = a.user_id
           ORDER BY a.id DESC LIMIT $2"#,
        asset,
        limit,
    )
    .fetch_all(db)
    .await
}

/// The query of the page.
#[derive(Deserialize, Default)]
pub struct Query {
    #[serde(default)]
    about: String,
    #[serde(default)]
    user: String,
    #[serde(default)]
    before: String,
}

#[derive(Template)]
#[template(path = "plant/activities.html")]
struct ActivitiesPage {
    shell: Shell,
    activities: Vec<Activity>,
    subjects: Vec<Choice>,
    people: Vec<Choice>,
    /// Link to the older ones.
    older: Option<String>,
    filtered: bool,
}

/// `GET /activities`
pub async fn page(
    tenant: TenantContext,
    _: CurrentUser,
    shell: Shell,
    Asked(query): Asked<Query>,
) -> Result<Response, Problem> {
    let about = plain(&query.about);
    let (user, before) = (query.user.parse().ok(), query.before.parse().ok());
    let wanted = Wanted { subject: about.clone(), user, before, limit: PAGE + 1, ..Wanted::default() };
    let (mut activities, people): (_, Vec<Person>) = tenant
        .database()
        .run(async |db: &mut PgConnection| Ok::<_, Problem>((list(db, &wanted).await?, people::all(db).await?)))
        .await?;
    let more = activities.len() > usize::try_from(PAGE).unwrap_or_default();
    activities.truncate(usize::try_from(PAGE).unwrap_or_default());
    let user = user.map(|user: i64| user.to_string()).unwrap_or_default();
    let older = activities
        .last()
        .filter(|_| more)
        .map(|last| format!("{}before={}", base("/activities", &[("about", &about), ("user", &user)]), last.id));
    private_page(&ActivitiesPage {
        shell,
        activities,
        subjects: Choice::of(&SUBJECTS, &about),
        people: people::choices(&people, "Everybody", &user),
        older,
        filtered: !about.is_empty() || !user.is_empty() || before.is_some(),
    })
}

/// The query of the list for programs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApiQuery {
    subject_type: Option<String>,
    subject_id: Option<i64>,
    user_id: Option<i64>,
    cursor: Option<i64>,
    limit: Option<i64>,
}

/// `GET /api/activities`: newest first.
pub async fn api_list(
    tenant: TenantContext,
    _: CurrentUser,
    Asked(query): Asked<ApiQuery>,
) -> Result<Response, Problem> {
    let limit = query.limit.unwrap_or(100);
    if !(1..=500).contains(&limit) {
        return Err(Problem::Invalid("`limit` is a number from 1 to 500.".into()));
    }
    let wanted = Wanted {
        subject: plain(&query.subject_type.unwrap_or_default()),
        subject_id: query.subject_id,
        user: query.user_id,
        before: query.cursor,
        limit: limit + 1,
    };
    let mut rows =
        tenant.database().run(async |db: &mut PgConnection| Ok::<_, Problem>(list(db, &wanted).await?)).await?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|last| last.id.to_string());
    Ok((no_store(), Json(serde_json::json!({ "items": rows, "next": next }))).into_response())
}
