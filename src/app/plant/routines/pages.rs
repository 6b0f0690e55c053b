//! The pages about routines.

use askama::Template;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;
use sqlx::postgres::PgConnection;

use super::Routine;
use super::store::{self, Resumed, Wanted};
use crate::app::accounts::{CurrentUser, Role};
use crate::app::form::CheckedForm;
use crate::app::plant::activity::{self, Activity};
use crate::app::plant::asked::{Asked, Id, Nothing, base, plain};
use crate::app::plant::people::{self, Person};
use crate::app::plant::show::{Choice, Pages};
use crate::app::plant::work::{self, Work};
use crate::app::plant::{change, plan_due, private_page};
use crate::app::problem::Problem;
use crate::app::shell::Shell;
use crate::tenancy::TenantContext;

/// Rows on one page.
const PAGE: i64 = 50;
const STATES: [(&str, &str); 3] = [("", "Active and paused"), ("active", "Active"), ("paused", "Paused")];

/// The filters of the list.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Query {
    q: String,
    state: String,
    assigned_to: String,
    page: String,
}

#[derive(Template)]
#[template(path = "plant/routines.html")]
struct RoutinesPage {
    shell: Shell,
    q: String,
    states: Vec<Choice>,
    people: Vec<Choice>,
    filtered: bool,
    routines: Vec<Routine>,
    pages: Pages,
}

/// `GET /routines`
pub async fn list(
    tenant: TenantContext,
    _: CurrentUser,
    shell: Shell,
    Asked(query): Asked<Query>,
) -> Result<Response, Problem> {
    let number = query.page.parse::<i64>().unwrap_or(1).clamp(1, 1_000_000);
    let wanted = Wanted {
        search: plain(&query.q),
        state: plain(&query.state),
        assigned_to: query.assigned_to.parse().ok(),
        ..Wanted::default()
    };
    let (routines, people): (Vec<Routine>, Vec<Person>) = tenant
        .database()
        .run(async |db: &mut PgConnection| {
            let routines = store::list(db, &wanted, PAGE, (number - 1) * PAGE).await?;
            Ok::<_, Problem>((routines, people::all(db).await?))
        })
        .await?;
    let assigned_to = wanted.assigned_to.map(|user| user.to_string()).unwrap_or_default();
    let filters = [("q", wanted.search.as_str()), ("state", &wanted.state), ("assigned_to", &assigned_to)];
    private_page(&RoutinesPage {
        shell,
        states: Choice::of(&STATES, &wanted.state),
        people: people::choices(&people, "Anybody", &assigned_to),
        filtered: number > 1 || filters.iter().any(|(_, value)| !value.is_empty()),
        pages: Pages {
            number,
            size: PAGE,
            total: routines.first().map_or(0, |routine| routine.total),
            what: "routines",
            base: base("/routines", &filters),
        },
        routines,
        q: wanted.search.clone(),
    })
}

#[derive(Template)]
#[template(path = "plant/routine.html")]
struct RoutinePage {
    shell: Shell,
    routine: Routine,
    open: Vec<Work>,
    done: Vec<Work>,
    activities: Vec<Activity>,
}

/// `GET /routines/{id}`
pub async fn show(tenant: TenantContext, _: CurrentUser, shell: Shell, Id(id): Id) -> Result<Response, Problem> {
    plan_due(&tenant).await?;
    let found = tenant
        .database()
        .run(async |db: &mut PgConnection| {
            let Some(routine) = store::find(db, id).await? else { return Ok::<_, Problem>(None) };
            let of = |view: &str| work::Wanted { view: view.into(), routine: Some(id), ..work::Wanted::default() };
            let about = activity::Wanted {
                subject: "routine".into(),
                subject_id: Some(id),
                limit: 10,
                ..activity::Wanted::default()
            };
            Ok(Some((
                routine,
                work::store::list(db, &of("open"), 5, 0).await?,
                work::store::list(db, &of("done"), 30, 0).await?,
                activity::list(db, &about).await?,
            )))
        })
        .await?;
    let (routine, open, done, activities) = found.ok_or(Problem::NotFound)?;
    private_page(&RoutinePage { shell, routine, open, done, activities })
}

/// `POST /routines/{id}/pause`
pub async fn pause(
    tenant: TenantContext,
    user: CurrentUser,
    Id(id): Id,
    _: CheckedForm<Nothing>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let done = change(&tenant, async |db: &mut PgConnection| Ok(store::pause(db, user.id, id).await?)).await?;
    Ok(Redirect::to(&format!("/routines/{id}?done={}", if done { "paused" } else { "unchanged" })).into_response())
}

/// `POST /routines/{id}/resume`
pub async fn resume(
    tenant: TenantContext,
    user: CurrentUser,
    Id(id): Id,
    _: CheckedForm<Nothing>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let done = match change(&tenant, async |db: &mut PgConnection| Ok(store::resume(db, user.id, id).await?)).await? {
        Resumed::Done => "resumed",
        Resumed::AlreadyActive => "unchanged",
        Resumed::AssetRetired => return Err(asset_retired()),
        Resumed::Missing => return Err(Problem::NotFound),
    };
    Ok(Redirect::to(&format!("/routines/{id}?done={done}")).into_response())
}

/// Why a routine is not resumed.
pub fn asset_retired() -> Problem {
    Problem::Conflict("Its asset is retired. Put the asset back in use first.".into())
}
