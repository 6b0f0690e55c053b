//! The page of jobs: what runs, what waits, what failed and can be tried again or discarded.

use askama::Template;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use serde::Deserialize;

use crate::app::accounts::{CurrentUser, Role};
use crate::app::form::CheckedForm;
use crate::app::problem::Problem;
use crate::app::product::Product;
use crate::app::render::page;
use crate::app::shell::Shell;
use crate::tenancy::TenantContext;
use crate::tenancy::queue::look::Held;
use crate::tenancy::queue::{QueueView, QueuedJob};

/// Rows of each table.
const MOST: usize = 50;
/// As many failed jobs as are kept.
const ALL: usize = 1000;

#[derive(Template)]
#[template(path = "jobs.html")]
struct JobsPage {
    shell: Shell,
    /// None: what is in the queue cannot be seen right now.
    queue: Option<Queue>,
}

struct Queue {
    held: Held,
    running: Vec<Row>,
    waiting: Vec<Row>,
    failed: Vec<Row>,
}

/// A job as the page shows it.
struct Row {
    id: String,
    what: &'static str,
    when: String,
    attempts: u32,
    why: String,
    progress: String,
}

impl From<QueuedJob> for Row {
    fn from(job: QueuedJob) -> Self {
        let progress = job.progress.map(|progress| match progress.of {
            Some(of) => format!("{} of {of}", progress.done),
            None => progress.done.to_string(),
        });
        Self {
            what: title(&job.kind),
            when: job.queued_at.map(|at| at.strftime("%-d %b %Y, %H:%M UTC").to_string()).unwrap_or_default(),
            id: job.id,
            attempts: job.attempts,
            why: job.error.unwrap_or_default(),
            progress: progress.unwrap_or_default(),
        }
    }
}

/// What people call it.
fn title(kind: &str) -> &'static str {
    match kind {
        "import.apply" => "Import of a table",
        "mail.send" => "Mail",
        "routines.plan" => "Planning what is due",
        _ => "Something that this version does not know",
    }
}

/// `GET /jobs`
pub async fn list(tenant: TenantContext, user: CurrentUser, shell: Shell) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let queue = match tenant.queue().view() {
        Some(view) => look(&view).await.map_err(|error| {
            tracing::warn!(target: "tenant", %error, "the queue cannot be looked at");
        }),
        None => Err(()),
    };
    let page = page(&JobsPage { shell, queue: queue.ok() })?;
    Ok(([(http::header::CACHE_CONTROL, "no-store")], page).into_response())
}

async fn look(view: &QueueView) -> redis::RedisResult<Queue> {
    let (held, running, ready, later, failed) =
        tokio::try_join!(view.held(), view.running(MOST), view.waiting(MOST), view.later(MOST), view.failed(MOST))?;
    let rows = |jobs: Vec<QueuedJob>| jobs.into_iter().map(Row::from);
    Ok(Queue {
        held,
        running: rows(running).collect(),
        waiting: rows(ready).chain(rows(later)).take(MOST).collect(),
        failed: rows(failed).collect(),
    })
}

/// Which job; empty: all that failed.
#[derive(Deserialize)]
pub struct Which {
    #[serde(default)]
    job: String,
}

/// `POST /jobs/retry`
pub async fn retry(
    tenant: TenantContext,
    user: CurrentUser,
    State(_): State<Product>,
    CheckedForm(which): CheckedForm<Which>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let view = tenant.queue().view().ok_or_else(unavailable)?;
    let retried = async {
        let ids = if which.job.is_empty() {
            view.failed(ALL).await?.into_iter().map(|job| job.id).collect()
        } else {
            vec![which.job]
        };
        view.retry(&ids).await
    };
    let count = retried.await.map_err(|error| {
        tracing::warn!(target: "tenant", %error, "jobs were not tried again");
        unavailable()
    })?;
    Ok(Redirect::to(if count > 0 { "/jobs?done=retried" } else { "/jobs?done=unchanged" }).into_response())
}

/// `POST /jobs/discard`
pub async fn discard(
    tenant: TenantContext,
    user: CurrentUser,
    State(_): State<Product>,
    CheckedForm(which): CheckedForm<Which>,
) -> Result<Response, Problem> {
    user.require(Role::Manager)?;
    let view = tenant.queue().view().ok_or_else(unavailable)?;
    let discarded = if which.job.is_empty() { view.discard_all().await } else { view.discard(&which.job).await };
    let count = discarded.map_err(|error| {
        tracing::warn!(target: "tenant", %error, "jobs were not discarded");
        unavailable()
    })?;
    tracing::info!(target: "tenant", count, "failed jobs were discarded");
    Ok(Redirect::to(if count > 0 { "/jobs?done=discarded" } else { "/jobs?done=unchanged" }).into_response())
}

fn unavailable() -> Problem {
    Problem::Conflict("The queue cannot be reached right now. Try again in a moment.".into())
}
