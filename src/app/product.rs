//! What all handlers share and no tenant owns.

use std::sync::Arc;

use super::accounts::Passwords;
use super::files::{FileSettings, Files};
use super::mail::Mailer;
use crate::tenancy::Tenancy;

/// The product's own state: the routers' axum state. Clones share it.
#[derive(Clone)]
pub struct Product(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    tenancy: Tenancy,
    files: Arc<Files>,
    mailer: Mailer,
    passwords: Passwords,
}

impl Product {
    /// Of an app that serves the tenants of `tenancy`, and sends no mail.
    pub fn new(tenancy: &Tenancy) -> Self {
        let files = Arc::new(Files::new(FileSettings::default()));
        let (mailer, passwords) = (Mailer::default(), Passwords::default());
        Self(Arc::new(Inner { tenancy: tenancy.clone(), files, mailer, passwords }))
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
