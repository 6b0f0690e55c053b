//! What all handlers share and no tenant owns.

use std::sync::Arc;

use super::accounts::Passwords;
use super::files::{FileSettings, Files};
use super::jobs::SendLetter;
use super::mail::{Letter, MailError, Mailer};
use crate::error::chain;
use crate::tenancy::{Tenancy, TenantContext};

/// The product's own state: the routers' axum state. Clones share it.
#[derive(Clone)]
pub struct Product(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    tenancy: Tenancy,
    files: Arc<Files>,
    mailer: Mailer,
    passwords: Passwords,
    workers: bool,
}

impl Product {
    /// Of an app that serves the tenants of `tenancy`, and sends no mail.
    pub fn new(tenancy: &Tenancy) -> Self {
        let files = Arc::new(Files::new(FileSettings::default()));
        let (mailer, passwords) = (Mailer::default(), Passwords::default());
        Self(Arc::new(Inner { tenancy: tenancy.clone(), files, mailer, passwords, workers: false }))
    }

    /// The same, with other limits for files.
    #[must_use]
    pub fn with_files(self, settings: FileSettings) -> Self {
        Self(Arc::new(Inner { files: Arc::new(Files::new(settings)), ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The same, with a way to send mail.
    #[must_use]
    pub fn with_mailer(self, mailer: Mailer) -> Self {
        Self(Arc::new(Inner { mailer, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// The same, with workers that do what can be done later.
    #[must_use]
    pub fn with_workers(self) -> Self {
        Self(Arc::new(Inner { workers: true, ..Arc::unwrap_or_clone(self.0) }))
    }

    /// Whether there are workers that do what can be done later.
    pub fn leaves_to_workers(&self) -> bool {
        self.0.workers
    }

    /// Sends a mail: by a worker, who tries again where it fails, or else at once.
    ///
    /// # Errors
    /// It was neither left to a worker nor sent.
    pub async fn post(&self, tenant: &TenantContext, letter: Letter) -> Result<(), MailError> {
        if self.leaves_to_workers() && self.mailer().is_configured() {
            let job = SendLetter(letter);
            let Err(error) = tenant.queue().push(&job).await else { return Ok(()) };
            tracing::warn!(target: "tenant", error = chain(&error), "a mail is sent at once, because it was not queued");
            return self.mailer().send(&job.0).await;
        }
        self.mailer().send(&letter).await
    }

    /// The request side.
    pub fn tenancy(&self) -> &Tenancy {
        &self.0.tenancy
    }

    /// What all uploads share.
    pub fn files(&self) -> &Files {
        &self.0.files
    }

    /// Sends mail.
    pub fn mailer(&self) -> &Mailer {
        &self.0.mailer
    }

    /// Hashes and compares passwords.
    pub fn passwords(&self) -> &Passwords {
        &self.0.passwords
    }
}
