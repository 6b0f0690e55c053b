//! What all handlers share and no tenant owns.

use std::sync::Arc;

use super::files::{FileSettings, Files};
use crate::tenancy::Tenancy;

/// The product's own state: the routers' axum state. Clones share it.
#[derive(Clone)]
pub struct Product(Arc<Inner>);

struct Inner {
    tenancy: Tenancy,
    files: Files,
}

impl Product {
    /// Of an app that serves the tenants of `tenancy`.
    pub fn new(tenancy: &Tenancy) -> Self {
        Self::with_files(tenancy, FileSettings::default())
    }

    /// The same, with other limits for files.
    pub fn with_files(tenancy: &Tenancy, files: FileSettings) -> Self {
        Self(Arc::new(Inner { tenancy: tenancy.clone(), files: Files::new(files) }))
    }

    /// What all uploads share.
    pub fn files(&self) -> &Files {
        &self.0.files
    }

    /// The request side.
    pub fn tenancy(&self) -> &Tenancy {
        &self.0.tenancy
    }
}
