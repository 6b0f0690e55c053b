//! The pages about executions.

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use serde::Deserialize;
use sqlx::postgres::PgConnection;

use super::store::{self, Step};
use super::{Counts, Detail, VIEWS, Wanted, Work};
use crate::app::accounts::{CurrentUser, Role};
use crate::app::files::{Attachments, Subject};
use crate::app::form::CheckedForm;
use crate::app::plant::activity::{self, Activity};
use crate::app::plant::asked::{Asked, Id, Nothing, base, plain};
use crate::app::plant::assets;
use crate::app::plant::day::{Day, Moment};
use crate::app::plant::show::{Choice, Field, Kind, Pages};
use crate::app::plant::typed::Errors;
use crate::app::plant::{change, plan_due, private_page};
use crate::app::problem::Problem;
use crate::app::product::Product;
use crate::app::shell::Shell;
use crate::tenancy::TenantContext;
use crate::tenancy::repository::TenantRepository;

/// Rows on one page.
const PAGE: i64 = 50;

/// The filters of the list.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Query {
    view: String,
    q: String,
    page: String,
}

/// One of the views, as a link.
struct Tab {
    view: &'static str,
    text: &'static str,
    count: Option<i64>,
    chosen: bool,
}

#[derive(Template)]
#[template(path = "plant/work.html")]
struct WorkPage {
    shell: Shell,
    tabs: Vec<Tab>,
    view: &'static str,
    q: String,
    rows: Vec<Work>,
    pages: Pages,
    counts: Counts,
    today: Day,
}

/// `GET /executions`
pub async fn list(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    Asked(query): Asked<Query>,
) -> Result<Response, Problem> {
    plan_due(&tenant).await?;
    let number = query.page.parse::<i64>().unwrap_or(1).clamp(1, 1_000_000);
    let view = VIEWS.iter().find(|(view, _)| *view == query.view).map_or("open", |(view, _)| view);
    let wanted = Wanted { view: view.into(), user: user.id, search: plain(&query.q), ..Wanted::default() };
    let (rows, counts) = tenant
        .database()
        .run(async |db: &mut PgConnection| {
            let rows = store::list(db, &wanted, PAGE, (number - 1) * PAGE).await?;
            Ok::<_, Problem>((rows, store::counts(db, user.id).await?))
        })
        .await?;
    let tab = |(name, text): &(&'static str, &'static str)| Tab {
        view: name,
        text,
        count: counts.of(name),
        chosen: *name == view,
    };
    private_page(&WorkPage {
        shell,
        tabs: VIEWS.iter().map(tab).collect(),
        view,
        pages: Pages {
            number,
            size: PAGE,
            total: rows.first().map_or(0, |row| row.total),
            what: "in this list",
            base: base("/executions", &[("view", view), ("q", &wanted.search)]),
        },
        q: wanted.search,
        rows,
        counts,
        today: Day::today(),
    })
}

/// `POST /executions/generate`: plans what is due. Opening a list does the same; the button is for those who want to be
/// sure.
pub async fn generate(tenant: TenantContext, user: CurrentUser, _: CheckedForm<Nothing>) -> Result<Response, Problem> {
    user.require(Role::Technician)?;
    plan_due(&tenant).await?;
    Ok(Redirect::to("/executions?done=planned").into_response())
}

/// What is typed when work is completed or skipped.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct StepForm {
    notes: String,
    asset_status: String,
    reason: String,
    missed: String,
}

#[derive(Template)]
#[template(path = "plant/execution.html")]
struct ExecutionPage {
    shell: Shell,
    work: Detail,
    activities: Vec<Activity>,
    attachments: Attachments,
    /// What came in between.
    conflict: Option<String>,
    notes: Field,
    asset_status: Field,
    reason: Field,
    /// Whether the form to skip it stands open.
    skipping: bool,
    /// The date is so far back that others passed since.
    may_have_missed: bool,
}

/// `GET /executions/{id}`
pub async fn show(
    tenant: TenantContext,
    State(product): State<Product>,
    shell: Shell,
    Id(id): Id,
) -> Result<Response, Problem> {
    execution_page(&product, &tenant, shell, id, &StepForm::default(), &Errors::default(), false).await
}

async fn execution_page(
    product: &Product,
    tenant: &TenantContext,
    shell: Shell,
    id: i64,
    form: &StepForm,
    errors: &Errors,
    too_late: bool,
) -> Result<Response, Problem> {
    let about = activity::Wanted {
        subject: "routine_execution".into(),
        subject_id: Some(id),
        limit: 20,
        ..activity::Wanted::default()
    };
    let (work, activities) = tenant
        .database()
        .run(async |db: &mut PgConnection| {
            Ok::<_, Problem>((store::find(db, id).await?, activity::list(db, &about).await?))
        })
        .await?;
    let work = work.ok_or(Problem::NotFound)?;
    let status = match (too_late, errors.is_empty()) {
        (true, _) => StatusCode::CONFLICT,
        (false, true) => StatusCode::OK,
        (false, false) => StatusCode::BAD_REQUEST,
    };
    let mut after =
        vec![Choice { value: String::new(), text: "As it is now".into(), chosen: form.asset_status.is_empty() }];
    after.extend(Choice::of(&assets::STATUSES[..3], &form.asset_status));
    let user = shell.user.as_ref().ok_or(Problem::SignInFirst)?;
    let attachments = Attachments::of(product, tenant, user, Subject::Execution(id)).await?;
    let page = ExecutionPage {
        shell,
        activities,
        attachments,
        conflict: too_late.then(|| work.standing()),
        notes: Field::new("notes", "Notes", Kind::Text, &form.notes, errors)
            .max(10_000)
            .hint("What you found, what you replaced, readings."),
        asset_status: Field::new("asset_status", "The asset is now", Kind::List(after), "", errors).required(),
        reason: Field::new("reason", "Reason", Kind::Line, &form.reason, errors)
            .required()
            .max(1000)
            .hint("As in “Line is standing still until Monday”."),
        skipping: errors.of("reason").is_some(),
        may_have_missed: work.due_on < Day::today(),
        work,
    };
    Ok((status, private_page(&page)?).into_response())
}

/// Leads back to the work, or says who was faster.
async fn after(
    product: &Product,
    tenant: &TenantContext,
    shell: Shell,
    id: i64,
    step: Step,
    done: &str,
    form: &StepForm,
) -> Result<Response, Problem> {
    match step {
        Step::Done => Ok(Redirect::to(&format!("/executions/{id}?done={done}")).into_response()),
        Step::TooLate => execution_page(product, tenant, shell, id, form, &Errors::default(), true).await,
        Step::Missing => Err(Problem::NotFound),
    }
}

/// `POST /executions/{id}/start`
pub async fn start(
    tenant: TenantContext,
    State(product): State<Product>,
    user: CurrentUser,
    shell: Shell,
    Id(id): Id,
    _: CheckedForm<Nothing>,
) -> Result<Response, Problem> {
    user.require(Role::Technician)?;
    let step = change(&tenant, async |db: &mut PgConnection| Ok(store::start(db, user.id, id).await?)).await?;
    after(&product, &tenant, shell, id, step, "started", &StepForm::default()).await
}

/// What was typed about completed work, as it may be stored.
///
/// # Errors
/// What to change.
pub fn checked_notes(notes: &str, asset_status: &str) -> Result<(Option<String>, Option<&'static str>), Errors> {
    let mut errors = Errors::default();
    let notes = errors.text("notes", notes, 10_000);
    let status = errors.choice("asset_status", asset_status, &assets::STATUSES[..3]);
    let status = (!asset_status.is_empty()).then_some(status);
    errors.or((notes, status))
}

/// What was typed about skipped work, as it may be stored.
///
/// # Errors
/// What to change.
pub fn checked_reason(reason: &str) -> Result<String, Errors> {
    let mut errors = Errors::default();
    let reason = errors.required("reason", reason, 1000);
    errors.or(reason)
}

/// `POST /executions/{id}/complete`
pub async fn complete(
    tenant: TenantContext,
    State(product): State<Product>,
    user: CurrentUser,
    shell: Shell,
    Id(id): Id,
    CheckedForm(form): CheckedForm<StepForm>,
) -> Result<Response, Problem> {
    user.require(Role::Technician)?;
    let (notes, status) = match checked_notes(&form.notes, &form.asset_status) {
        Ok(checked) => checked,
        Err(errors) => return execution_page(&product, &tenant, shell, id, &form, &errors, false).await,
    };
    let step = change(&tenant, async |db: &mut PgConnection| {
        Ok(store::complete(db, user.id, id, notes.as_deref(), status).await?)
    })
    .await?;
    after(&product, &tenant, shell, id, step, "completed", &form).await
}

/// `POST /executions/{id}/skip`
pub async fn skip(
    tenant: TenantContext,
    State(product): State<Product>,
    user: CurrentUser,
    shell: Shell,
    Id(id): Id,
    CheckedForm(form): CheckedForm<StepForm>,
) -> Result<Response, Problem> {
    user.require(Role::Technician)?;
    let reason = match checked_reason(&form.reason) {
        Ok(reason) => reason,
        Err(errors) => return execution_page(&product, &tenant, shell, id, &form, &errors, false).await,
    };
    let missed = !form.missed.is_empty();
    let step =
        change(&tenant, async |db: &mut PgConnection| Ok(store::skip(db, user.id, id, &reason, missed).await?)).await?;
    after(&product, &tenant, shell, id, step, "skipped", &form).await
}

#[derive(Template)]
#[template(path = "plant/work_order.html")]
struct WorkOrderPage {
    shell: Shell,
    work: Detail,
    printed: Moment,
}

/// `GET /executions/{id}/print`: the work order.
pub async fn print(tenant: TenantContext, _: CurrentUser, shell: Shell, Id(id): Id) -> Result<Response, Problem> {
    let work = TenantRepository::<Detail>::of(&tenant).find::<Problem>(id).await?;
    private_page(&WorkOrderPage { shell, work, printed: jiff::Timestamp::now().into() })
}
