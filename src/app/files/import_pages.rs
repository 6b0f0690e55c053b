//! The pages of imports and exports.

use askama::Template;
use axum::body::Body;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use sqlx::postgres::PgConnection;

use super::import::{self, Outcome};
use super::name::ShownName;
use super::pages::Nothing;
use super::upload::{FileForm, not_stored, to_the_end};
use super::{Files, export, ledger};
use crate::app::accounts::{CurrentUser, Role};
use crate::app::form::CheckedForm;
use crate::app::jobs::ApplyImport;
use crate::app::problem::Problem;
use crate::app::product::Product;
use crate::app::render::page;
use crate::app::shell::Shell;
use crate::tenancy::TenantContext;
use crate::tenancy::queue::look::Place;
use crate::tenancy::storage::{Area, Extension, ObjectPath};

/// Imports in the list.
const NEWEST: i64 = 20;

/// One import, as the pages show it.
struct Import {
    id: i64,
    name: String,
    day: String,
    applied: bool,
    outcome: Outcome,
}

#[derive(Template)]
#[template(path = "imports.html")]
struct ImportsPage {
    shell: Shell,
    imports: Vec<Import>,
    max_mib: u64,
    max_rows: u64,
    error: Option<String>,
}

#[derive(Template)]
#[template(path = "import.html")]
struct ImportPage {
    shell: Shell,
    import: Import,
    error: Option<String>,
    /// A worker has it, or will: what the page says of it. The page then looks again by itself.
    under_way: Option<String>,
}

impl ImportPage {
    /// What pressing the button would store.
    fn to_store(&self) -> u64 {
        self.import.outcome.new + self.import.outcome.changed
    }

    fn not_shown(&self) -> u64 {
        self.import.outcome.faults - self.import.outcome.shown.len() as u64
    }
}

/// `GET /imports`
pub async fn list(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    State(product): State<Product>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    show_list(&tenant, &product, shell, None).await
}

async fn show_list(
    tenant: &TenantContext,
    product: &Product,
    shell: Shell,
    error: Option<String>,
) -> Result<Response, Problem> {
    let query = async |db: &mut PgConnection| {
        let rows = sqlx::query!(
            r#"SELECT id, name, outcome, applied_at IS NOT NULL AS "applied!",
                      to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS "day!"
               FROM imports ORDER BY id DESC LIMIT $1"#,
            NEWEST
        );
        Ok::<_, Problem>(rows.fetch_all(db).await?)
    };
    let imports = tenant.database().run(query).await?.into_iter().map(|row| {
        let outcome = serde_json::from_value(row.outcome).unwrap_or_default();
        Import { id: row.id, name: row.name, day: row.day, applied: row.applied, outcome }
    });
    let status = if error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let shown = ImportsPage {
        shell,
        imports: imports.collect(),
        max_mib: product.files().max_mib(),
        max_rows: import::read::MAX_ROWS,
        error,
    };
    Ok((status, page(&shown)?).into_response())
}

/// `POST /imports`: takes the file and says what it would do.
pub async fn check(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    State(product): State<Product>,
    request: Request,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let form = FileForm::open(request, product.files()).await?;
    let checked = {
        let (product, context) = (product.clone(), tenant.clone());
        to_the_end(&tenant, async move { take(product.files(), &context, &user, form).await }).await
    };
    product.files().sweep_if_due(&tenant);
    match checked {
        Ok(id) => Ok(Redirect::to(&format!("/imports/{id}")).into_response()),
        Err(Problem::Invalid(error)) => show_list(&tenant, &product, shell, Some(error)).await,
        Err(problem) => Err(problem),
    }
}

async fn take(files: &Files, tenant: &TenantContext, user: &CurrentUser, mut form: FileForm) -> Result<i64, Problem> {
    let (settings, at_most) = (files.settings(), form.at_most);
    let mut head = Vec::new();
    let (name, content) = form.file(settings, &mut head).await?;
    let path = ObjectPath::new(Area::Imports, Extension::new("csv").ok());
    ledger::reserve(tenant, &path, at_most).await?;
    let stored = tenant.storage().put(&path, content, at_most).await;
    let checked = async {
        let stored = stored.map_err(|error| not_stored(error, settings.max_upload))?;
        let outcome = import::check(tenant, tenant.storage().get(&path).await?).await?;
        let document = serde_json::to_value(&outcome).map_err(|error| Problem::Internal(error.to_string()))?;
        let insert = async |db: &mut PgConnection| {
            ledger::settle(db, &path, &stored).await?;
            insert(db, user, &name, &path, document).await
        };
        tenant.database().transaction(insert).await
    }
    .await;
    if let Err(problem) = &checked {
        ledger::give_up(tenant, &path, problem).await;
    }
    checked
}

async fn insert(
    db: &mut PgConnection,
    user: &CurrentUser,
    name: &ShownName,
    path: &ObjectPath,
    outcome: serde_json::Value,
) -> Result<i64, Problem> {
    let id = sqlx::query_scalar!(
        "INSERT INTO imports (path, name, outcome, created_by) VALUES ($1, $2, $3, $4) RETURNING id",
        path.to_string(),
        name.as_str(),
        outcome,
        user.id
    );
    Ok(id.fetch_one(db).await?)
}

async fn find(tenant: &TenantContext, id: i64) -> Result<(Import, ObjectPath), Problem> {
    let query = async |db: &mut PgConnection| {
        let row = sqlx::query!(
            r#"SELECT id, name, path, outcome, applied_at IS NOT NULL AS "applied!",
                      to_char(created_at AT TIME ZONE 'UTC', 'YYYY-MM-DD') AS "day!"
               FROM imports WHERE id = $1"#,
            id
        );
        Ok::<_, Problem>(row.fetch_optional(db).await?)
    };
    let row = tenant.database().run(query).await?.ok_or(Problem::NotFound)?;
    let path = row.path.parse().map_err(|_| Problem::Internal(format!("import {id} has the path {}", row.path)))?;
    let outcome = serde_json::from_value(row.outcome).unwrap_or_default();
    Ok((Import { id: row.id, name: row.name, day: row.day, applied: row.applied, outcome }, path))
}

/// `GET /imports/{id}`
pub async fn show(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    State(product): State<Product>,
    Path(id): Path<i64>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let place = if product.leaves_to_workers() { place(&tenant, id).await } else { Place::Gone };
    // Read after the queue was asked: a job that is gone by then has done what it did.
    let (import, _) = find(&tenant, id).await?;
    let (error, under_way) = match place {
        _ if import.applied => (None, None),
        Place::Gone => (None, None),
        Place::Waiting(None) => (None, Some("Waiting for its turn …".into())),
        Place::Waiting(Some(why)) => (None, Some(format!("It did not work yet and is tried again: {why}"))),
        Place::Running(_) => (None, Some("Being imported …".into())),
        Place::Failed(why) => (Some(why), None),
    };
    let page = page(&ImportPage { shell, import, error, under_way })?;
    Ok(([(http::header::CACHE_CONTROL, "no-store")], page).into_response())
}

/// Where the import's job is. While Redis is away there is none that could be seen.
async fn place(tenant: &TenantContext, id: i64) -> Place {
    let Some(view) = tenant.queue().view() else { return Place::Gone };
    view.find::<ApplyImport>(&id.to_string()).await.unwrap_or_else(|error| {
        tracing::warn!(target: "tenant", %error, "where an import is cannot be said");
        Place::Gone
    })
}

/// Stores what a checked file says; None where that was done already.
///
/// # Errors
/// As [`import::apply`].
pub async fn apply_import(tenant: &TenantContext, user: &CurrentUser, id: i64) -> Result<Option<Outcome>, Problem> {
    let (import, path) = find(tenant, id).await?;
    if import.applied {
        return Ok(None);
    }
    import::apply(tenant, user, id, &path, &import.name).await.map(Some)
}

/// `POST /imports/{id}/apply`
pub async fn apply(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    State(product): State<Product>,
    Path(id): Path<i64>,
    _form: CheckedForm<Nothing>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    if product.leaves_to_workers() {
        match tenant.queue().push(&ApplyImport { import: id, user: user.id }).await {
            Ok(_) => return Ok(Redirect::to(&format!("/imports/{id}")).into_response()),
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(target: "tenant", error, "an import is done at once, because it was not queued");
            }
        }
    }
    let (import, path) = find(&tenant, id).await?;
    match import::apply(&tenant, &user, id, &path, &import.name).await {
        Ok(_) => Ok(Redirect::to(&format!("/imports/{id}")).into_response()),
        Err(Problem::Invalid(error)) => {
            let (import, _) = find(&tenant, id).await?;
            let shown = ImportPage { shell, import, error: Some(error), under_way: None };
            Ok((StatusCode::BAD_REQUEST, page(&shown)?).into_response())
        }
        Err(problem) => Err(problem),
    }
}

/// `GET /imports/{id}/refused.csv`
pub async fn refused(tenant: TenantContext, user: CurrentUser, Path(id): Path<i64>) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let (import, path) = find(&tenant, id).await?;
    let content = tenant.storage().get(&path).await?;
    let table = import::refused(tenant, content).await?;
    Ok(export::csv_response(&format!("refused rows of {}", import.name), Body::from_stream(table)))
}
