//! Files: attachments, CSV import and export.
//!
//! | to see … | read |
//! |---|---|
//! | what is stored, what it takes, what happens to what died half way | `ledger` |
//! | how a file arrives | `upload` |
//! | attachments, their previews, their links | `attachments`, `pages`, `preview`, `download` |
//! | tables in and out | `import`, `import_pages`, `export` |

mod attachments;
mod download;
mod export;
mod import;
mod import_pages;
mod kind;
mod ledger;
mod name;
mod pages;
mod preview;
mod upload;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::response::Redirect;
use axum::routing::{MethodRouter, get, post};
use jiff::SignedDuration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use uuid::Uuid;

pub use self::attachments::{Attachments, Subject};
pub use self::import_pages::apply_import;
pub use self::ledger::used as storage_used;

use super::problem::Problem;
use super::product::Product;
use crate::tenancy::TenantContext;

/// What a form has around its file.
const FORM_OVERHEAD: u64 = 16 * 1024;
/// A tenant's storage is swept at most this often by one process.
const SWEEP: Duration = Duration::from_mins(10);
/// Pictures that are decoded at the same time. One takes up to 360 MiB for a moment (see `preview`), and a pod has 512.
const PICTURES: usize = 1;

/// Files that are taken at the same time. Each holds up to one part of a multipart upload to S3, which is 8 MiB.
const UPLOADS: usize = 12;
/// How long the next one waits for its turn.
const TURN: Duration = Duration::from_secs(10);

/// How much, and for how long.
#[derive(Debug, Clone, Copy)]
pub struct FileSettings {
    /// Largest file that is taken, in bytes.
    pub max_upload: u64,
    /// Longest pause within an upload.
    pub pause: Duration,
    /// Longest upload from its beginning to its end; shorter than `ledger::DEAD`.
    pub upload: Duration,
    /// How long a download link is valid.
    pub link: SignedDuration,
}

impl Default for FileSettings {
    fn default() -> Self {
        Self {
            max_upload: 25 << 20,
            pause: Duration::from_secs(20),
            upload: Duration::from_mins(15),
            link: SignedDuration::from_mins(5),
        }
    }
}

/// What all uploads of this process share.
pub struct Files {
    settings: FileSettings,
    /// One permit per picture that is decoded.
    pictures: Semaphore,
    /// One permit per file that is taken.
    uploads: Arc<Semaphore>,
    /// When each tenant's storage was last swept from here.
    swept: Mutex<HashMap<Uuid, Instant>>,
}

impl Files {
    /// With these settings.
    pub fn new(settings: FileSettings) -> Self {
        Self {
            settings,
            pictures: Semaphore::new(PICTURES),
            uploads: Arc::new(Semaphore::new(UPLOADS)),
            swept: Mutex::default(),
        }
    }

    /// How much, and for how long.
    pub fn settings(&self) -> &FileSettings {
        &self.settings
    }

    /// Largest file in whole MiB, as pages say it.
    pub fn max_mib(&self) -> u64 {
        self.settings.max_upload >> 20
    }

    /// A turn to take a file: memory is bounded by how many have one.
    ///
    /// # Errors
    /// Too many others have one, and none ends.
    async fn turn(&self) -> Result<OwnedSemaphorePermit, Problem> {
        let turn = Arc::clone(&self.uploads).acquire_owned();
        let turn = tokio::time::timeout(TURN, turn).await.map_err(|_| Problem::Busy)?;
        Ok(turn.expect("the semaphore is never closed"))
    }

    /// Sweeps the tenant's storage in the background now: something was removed.
    fn sweep_soon(&self, tenant: &TenantContext) {
        self.swept.lock().unwrap_or_else(PoisonError::into_inner).remove(&tenant.entry().uuid);
        self.sweep_if_due(tenant);
    }

    /// Sweeps the tenant's storage in the background when it is time again. Called where files change, so that a tenant
    /// that nobody works in costs nothing.
    fn sweep_if_due(&self, tenant: &TenantContext) {
        let now = Instant::now();
        {
            let mut swept = self.swept.lock().unwrap_or_else(PoisonError::into_inner);
            swept.retain(|_, last| now.duration_since(*last) < SWEEP);
            if swept.contains_key(&tenant.entry().uuid) {
                return;
            }
            swept.insert(tenant.entry().uuid, now);
        }
        let (tenant, span) = (tenant.clone(), tenant.span().clone());
        tokio::spawn(tracing::Instrument::instrument(async move { ledger::sweep(&tenant).await }, span));
    }
}

/// Download links. They need no session: the signature names the tenant, the file and the time.
pub fn public() -> Router<Product> {
    Router::new().route("/files/{area}/{name}", get(download::show))
}

/// Pages for those who are signed in.
pub fn signed_in(files: &Files) -> Router<Product> {
    let max = usize::try_from(files.settings.max_upload + FORM_OVERHEAD).unwrap_or(usize::MAX);
    let large = |route: MethodRouter<Product>| route.layer(DefaultBodyLimit::max(max));
    Router::new()
        // These alone take files; forms have the limit of forms.
        .route("/assets/{id}/attachments", large(get(pages::of_asset).post(pages::add_to_asset)))
        .route("/executions/{id}/attachments", large(get(pages::of_execution).post(pages::add_to_execution)))
        .route("/attachments/{id}", get(pages::download))
        .route("/attachments/{id}/delete", post(pages::delete))
        .route("/imports", large(get(import_pages::list).post(import_pages::check)))
        .route("/imports/{id}", get(import_pages::show))
        .route("/imports/{id}/apply", post(import_pages::apply))
        .route("/imports/{id}/refused.csv", get(import_pages::refused))
        .route("/exports", get(async || Redirect::to("/imports")))
        .route("/exports/{table}", get(export::download))
}
