//! What all handlers share and no tenant owns.

use std::sync::Arc;

use crate::tenancy::Tenancy;

/// The product's own state: the routers' axum state. Clones share it.
#[derive(Clone)]
pub struct Product(Arc<Inner>);

struct Inner {
    tenancy: Tenancy,
}

impl Product {
    /// Of an app that serves the tenants of `tenancy`.
    pub fn new(tenancy: &Tenancy) -> Self {
        Self(Arc::new(Inner { tenancy: tenancy.clone() }))
    }

    /// The request side.
    pub fn tenancy(&self) -> &Tenancy {
        &self.0.tenancy
    }
}
