//! The pages about assets.

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use serde::Deserialize;
use sqlx::postgres::PgConnection;

use super::form::{AssetForm, Known};
use super::store::{self, Stored, Wanted};
use super::{Asset, CRITICALITIES, Listed, STATUSES};
use crate::app::accounts::{CurrentUser, Role};
use crate::app::files::{Attachments, Subject};
use crate::app::form::CheckedForm;
use crate::app::plant::activity::{self, Activity};
use crate::app::plant::asked::{Asked, Id, Nothing, base, plain};
use crate::app::plant::routines::{self, Routine};
use crate::app::plant::show::{Choice, Conflict, FormPage, Pages};
use crate::app::plant::typed::Errors;
use crate::app::plant::work::{self, Work};
use crate::app::plant::{change, changed, limit_reached, plan_due, private_page};
use crate::app::problem::Problem;
use crate::app::product::Product;
use crate::app::shell::Shell;
use crate::tenancy::TenantContext;
use crate::tenancy::repository::TenantRepository;

/// Rows on one page.
const PAGE: i64 = 50;
const SORTS: [(&str, &str); 5] = [
    ("name", "Name"),
    ("criticality", "Criticality"),
    ("status", "Status"),
    ("location", "Location"),
    ("newest", "Newest first"),
];

/// The filters of the list.
#[derive(Deserialize, Default)]
#[serde(default)]
pub struct Query {
    q: String,
    status: String,
    criticality: String,
    category: String,
    location: String,
    sort: String,
    page: String,
}

#[derive(Template)]
#[template(path = "plant/assets.html")]
struct AssetsPage {
    shell: Shell,
    q: String,
    statuses: Vec<Choice>,
    criticalities: Vec<Choice>,
    categories: Vec<Choice>,
    locations: Vec<Choice>,
    sorts: Vec<Choice>,
    filtered: bool,
    assets: Vec<Listed>,
    pages: Pages,
}

/// `GET /assets`
pub async fn list(
    tenant: TenantContext,
    _: CurrentUser,
    shell: Shell,
    Asked(query): Asked<Query>,
) -> Result<Response, Problem> {
    let number = query.page.parse::<i64>().unwrap_or(1).clamp(1, 1_000_000);
    let wanted = Wanted {
        search: plain(&query.q),
        status: plain(&query.status),
        criticality: plain(&query.criticality),
        category: plain(&query.category),
        location: plain(&query.location),
        sort: plain(&query.sort),
    };
    let (assets, known): (Vec<Listed>, Known) = tenant
        .database()
        .run(async |db: &mut PgConnection| {
            let assets = store::list(db, &wanted, PAGE, (number - 1) * PAGE).await?;
            Ok::<_, Problem>((assets, store::known(db).await?))
        })
        .await?;
    let filters = [
        ("q", wanted.search.as_str()),
        ("status", &wanted.status),
        ("criticality", &wanted.criticality),
        ("category", &wanted.category),
        ("location", &wanted.location),
    ];
    let filtered = number > 1 || filters.iter().any(|(_, value)| !value.is_empty());
    let all: Vec<_> = filters.into_iter().chain([("sort", wanted.sort.as_str())]).collect();
    let total = assets.first().map_or(0, |asset| asset.total);
    let mut statuses = Choice::of(&[("", "In use"), ("all", "All, with retired ones")], &wanted.status);
    statuses.extend(Choice::of(&STATUSES, &wanted.status));
    let mut criticalities = Choice::of(&[("", "Any")], &wanted.criticality);
    criticalities.extend(Choice::of(&CRITICALITIES, &wanted.criticality));
    private_page(&AssetsPage {
        shell,
        statuses,
        criticalities,
        categories: Choice::texts("Any", &known.categories, &wanted.category),
        locations: Choice::texts("Any", &known.locations, &wanted.location),
        sorts: Choice::of(&SORTS, &wanted.sort),
        filtered,
        assets,
        pages: Pages { number, size: PAGE, total, what: "assets", base: base("/assets", &all) },
        q: wanted.search,
    })
}

#[derive(Template)]
#[template(path = "plant/asset.html")]
struct AssetPage {
    shell: Shell,
    asset: Asset,
    routines: Vec<Routine>,
    /// What is to be done.
    open: Vec<Work>,
    /// What was done.
    done: Vec<Work>,
    attachments: Attachments,
    activities: Vec<Activity>,
}

/// `GET /assets/{id}`
pub async fn show(
    tenant: TenantContext,
    user: CurrentUser,
    State(product): State<Product>,
    shell: Shell,
    Id(id): Id,
) -> Result<Response, Problem> {
    plan_due(&tenant).await?;
    let found = tenant
        .database()
        .run(async |db: &mut PgConnection| {
            let Some(asset) = store::find(db, id).await? else { return Ok::<_, Problem>(None) };
            let of = |view: &str| work::Wanted { view: view.into(), asset: Some(id), ..work::Wanted::default() };
            Ok(Some((
                asset,
                routines::store::of_asset(db, id).await?,
                work::store::list(db, &of("open"), 20, 0).await?,
                work::store::list(db, &of("done"), 20, 0).await?,
                activity::of_asset(db, id, 15).await?,
            )))
        })
        .await?;
    let (asset, routines, open, done, activities) = found.ok_or(Problem::NotFound)?;
    let attachments = Attachments::of(&product, &tenant, &user, Subject::Asset(id)).await?;
    private_page(&AssetPage { shell, asset, routines, open, done, attachments, activities })
}

async fn form_page(
    tenant: &TenantContext,
    shell: Shell,
    id: Option<i64>,
    form: &AssetForm,
    errors: &Errors,
    conflict: Option<Conflict>,
) -> Result<Response, Problem> {
    let known = tenant.database().run(async |db: &mut PgConnection| Ok::<_, Problem>(store::known(db).await?)).await?;
    let status = match (&conflict, errors.is_empty()) {
        (Some(_), _) => StatusCode::CONFLICT,
        (None, true) => StatusCode::OK,
        (None, false) => StatusCode::BAD_REQUEST,
    };
    let mut crumbs = vec![("/assets".to_owned(), "Assets".to_owned())];
    let page = id.map_or_else(|| "/assets".to_owned(), |id| format!("/assets/{id}"));
    if id.is_some() {
        crumbs.push((page.clone(), form.name.clone()));
    }
    let page = FormPage {
        shell,
        title: if id.is_some() { "Edit asset".into() } else { "Add an asset".into() },
        crumbs,
        fields: form.fields(&known, errors),
        submit: if id.is_some() { "Save" } else { "Add asset" },
        cancel: page.clone(),
        action: page,
        error: errors.of("").map(Into::into),
        conflict,
    };
    Ok((status, private_page(&page)?).into_response())
}

/// `GET /assets/new`
pub async fn new(tenant: TenantContext, user: CurrentUser, shell: Shell) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    form_page(&tenant, shell, None, &AssetForm::default(), &Errors::default(), None).await
}

/// `POST /assets`
pub async fn add(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    CheckedForm(form): CheckedForm<AssetForm>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let asset = match form.check() {
        Ok(asset) => asset,
        Err(errors) => return form_page(&tenant, shell, None, &form, &errors, None).await,
    };
    let max = tenant.entry().plan.limits.assets;
    let stored = TenantRepository::<Asset>::of(&tenant).create::<Problem>((user.id, asset, max)).await?;
    changed(&tenant).await;
    match stored {
        Stored::Done(id) => Ok(Redirect::to(&format!("/assets/{id}?done=added")).into_response()),
        Stored::LimitReached => Err(limit_reached(&tenant, "assets", max)),
        _ => form_page(&tenant, shell, None, &form, &tag_taken(), None).await,
    }
}

/// What the form says when another asset has the tag.
pub fn tag_taken() -> Errors {
    Errors::one("tag", "Another asset has this tag. Look at its label again.")
}

/// `GET /assets/{id}/edit`
pub async fn edit(tenant: TenantContext, user: CurrentUser, shell: Shell, Id(id): Id) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let asset = TenantRepository::<Asset>::of(&tenant).find::<Problem>(id).await?;
    if asset.is_retired() {
        return Ok(Redirect::to(&format!("/assets/{id}")).into_response());
    }
    form_page(&tenant, shell, Some(id), &AssetForm::from(&asset), &Errors::default(), None).await
}

/// `POST /assets/{id}`
pub async fn update(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    Id(id): Id,
    CheckedForm(mut form): CheckedForm<AssetForm>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let asset = match form.check() {
        Ok(asset) => asset,
        Err(errors) => return form_page(&tenant, shell, Some(id), &form, &errors, None).await,
    };
    let version = form.version().ok_or_else(|| Problem::Invalid("The form names no version. Open it again.".into()))?;
    let (stored, now) = change(&tenant, async |db: &mut PgConnection| {
        let stored = store::update(db, user.id, id, &asset, version).await?;
        let now = if stored == Stored::Changed { latest(db, id).await? } else { None };
        Ok((stored, now))
    })
    .await?;
    match (stored, now) {
        (Stored::Done(_), _) => Ok(Redirect::to(&format!("/assets/{id}?done=saved")).into_response()),
        (Stored::Changed, Some((now, who))) => {
            let conflict = Conflict { who, when: now.updated_at.ago(), rows: form.differences(&now) };
            // Whoever saves now has seen that version.
            form.updated_at = now.updated_at.to_string();
            form_page(&tenant, shell, Some(id), &form, &Errors::default(), Some(conflict)).await
        }
        (Stored::TagTaken, _) => form_page(&tenant, shell, Some(id), &form, &tag_taken(), None).await,
        (Stored::Retired, _) => {
            Err(Problem::Conflict("It is retired. Put it back in use before you change it.".into()))
        }
        _ => Err(Problem::NotFound),
    }
}

/// The stored version and who made it.
async fn latest(db: &mut PgConnection, id: i64) -> Result<Option<(Asset, String)>, sqlx::Error> {
    let Some(asset) = store::find(db, id).await? else { return Ok(None) };
    let wanted =
        activity::Wanted { subject: "asset".into(), subject_id: Some(id), limit: 1, ..activity::Wanted::default() };
    let who = activity::list(db, &wanted).await?.first().map_or("Somebody", Activity::who).to_owned();
    Ok(Some((asset, who)))
}

/// `POST /assets/{id}/retire`
pub async fn retire(
    tenant: TenantContext,
    user: CurrentUser,
    Id(id): Id,
    _: CheckedForm<Nothing>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let done = change(&tenant, async |db: &mut PgConnection| Ok(store::retire(db, user.id, id).await?)).await?;
    Ok(Redirect::to(&format!("/assets/{id}?done={}", if done { "retired" } else { "unchanged" })).into_response())
}

/// `POST /assets/{id}/restore`
pub async fn restore(
    tenant: TenantContext,
    user: CurrentUser,
    Id(id): Id,
    _: CheckedForm<Nothing>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let done = change(&tenant, async |db: &mut PgConnection| Ok(store::restore(db, user.id, id).await?)).await?;
    Ok(Redirect::to(&format!("/assets/{id}?done={}", if done { "restored" } else { "unchanged" })).into_response())
}
