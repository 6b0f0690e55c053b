//! The pages of attachments.

use askama::Template;
use axum::extract::{Path, Request, State};
use axum::response::{IntoResponse, Redirect, Response};
use http::StatusCode;
use serde::Deserialize;

use super::attachments::{self, Attachments, Subject};
use super::download;
use super::ledger;
use super::upload::{FileForm, to_the_end};
use crate::app::accounts::{CurrentUser, Role};
use crate::app::form::CheckedForm;
use crate::app::problem::Problem;
use crate::app::product::Product;
use crate::app::render::page;
use crate::app::shell::Shell;
use crate::tenancy::TenantContext;

#[derive(Template)]
#[template(path = "attachments.html")]
struct AttachmentsPage {
    shell: Shell,
    /// Name of the asset or of the routine.
    subject: String,
    /// Where it is.
    back: String,
    attachments: Attachments,
    /// What all files take, where the plan has a limit, and that limit in GiB.
    usage: Option<(String, i32)>,
}

/// A form that has nothing but its secret.
#[derive(Deserialize)]
pub struct Nothing {}

/// `GET /assets/{id}/attachments`
pub async fn of_asset(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    State(product): State<Product>,
    Path(id): Path<i64>,
) -> Result<Response, Problem> {
    show(&product, &tenant, &user, shell, Subject::Asset(id), None).await
}

/// `GET /executions/{id}/attachments`
pub async fn of_execution(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    State(product): State<Product>,
    Path(id): Path<i64>,
) -> Result<Response, Problem> {
    show(&product, &tenant, &user, shell, Subject::Execution(id), None).await
}

/// `POST /assets/{id}/attachments`
pub async fn add_to_asset(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    State(product): State<Product>,
    Path(id): Path<i64>,
    request: Request,
) -> Result<Response, Problem> {
    add(product, tenant, user, shell, Subject::Asset(id), request).await
}

/// `POST /executions/{id}/attachments`
pub async fn add_to_execution(
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    State(product): State<Product>,
    Path(id): Path<i64>,
    request: Request,
) -> Result<Response, Problem> {
    add(product, tenant, user, shell, Subject::Execution(id), request).await
}

async fn show(
    product: &Product,
    tenant: &TenantContext,
    user: &CurrentUser,
    shell: Shell,
    subject: Subject,
    error: Option<String>,
) -> Result<Response, Problem> {
    let name = subject.name(tenant).await?;
    let attachments = Attachments { error, ..Attachments::of(product, tenant, user, subject).await? };
    let usage = match tenant.entry().plan.limits.storage_gib {
        Some(max) => Some((attachments::size(ledger::used(tenant).await?), max)),
        None => None,
    };
    let status = if attachments.error.is_some() { StatusCode::BAD_REQUEST } else { StatusCode::OK };
    let shown = AttachmentsPage { shell, subject: name, back: subject.page(), attachments, usage };
    Ok((status, page(&shown)?).into_response())
}

async fn add(
    product: Product,
    tenant: TenantContext,
    user: CurrentUser,
    shell: Shell,
    subject: Subject,
    request: Request,
) -> Result<Response, Problem> {
    user.require(Role::Technician)?;
    // Before the file is read: nobody should send 25 MiB to hear that there is no such asset.
    subject.name(&tenant).await?;
    let form = FileForm::open(request, product.files()).await?;
    let added = {
        let (product, context, user) = (product.clone(), tenant.clone(), user.clone());
        to_the_end(&tenant, async move { attachments::add(product.files(), &context, &user, subject, form).await })
            .await
    };
    product.files().sweep_if_due(&tenant);
    match added {
        Ok(()) => Ok(Redirect::to(&subject.attachments_page()).into_response()),
        Err(Problem::Invalid(error)) => show(&product, &tenant, &user, shell, subject, Some(error)).await,
        Err(problem) => Err(problem),
    }
}

/// `GET /attachments/{id}`: on to a link that is valid for a few minutes.
pub async fn download(
    tenant: TenantContext,
    _user: CurrentUser,
    State(product): State<Product>,
    Path(id): Path<i64>,
) -> Result<Redirect, Problem> {
    let path = attachments::path_of(&tenant, id).await?;
    Ok(Redirect::to(&download::link(&product, &tenant, &path)?))
}

/// `POST /attachments/{id}/delete`
pub async fn delete(
    tenant: TenantContext,
    user: CurrentUser,
    State(product): State<Product>,
    Path(id): Path<i64>,
    _form: CheckedForm<Nothing>,
) -> Result<Redirect, Problem> {
    user.require(Role::Technician)?;
    let subject = attachments::remove(&tenant, &user, id).await?;
    product.files().sweep_soon(&tenant);
    Ok(Redirect::to(&subject.attachments_page()))
}
