//! `EnsureValidSubscription`: a tenant whose trial or subscription has ended gets the pages that mend it, and no others.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

pub use crate::api::subscription::Lapse;
use crate::api::subscription::{Standing, standing};
use crate::tenancy::{Refusal, TenantContext};

/// The paths that stay open, for people to sign in and to pay. Clones share them.
#[derive(Debug, Clone)]
pub struct OpenPaths(Arc<[String]>);

impl OpenPaths {
    /// Each of them, and what lies below it.
    pub fn new(paths: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self(paths.into_iter().map(Into::into).collect())
    }

    fn contains(&self, path: &str) -> bool {
        self.0.iter().any(|open| {
            path.strip_prefix(open.trim_end_matches('/')).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        })
    }
}

impl Default for OpenPaths {
    /// Signing in and out, and settings, where the subscription is.
    fn default() -> Self {
        Self::new(["/sign-in", "/sign-out", "/billing", "/settings"])
    }
}

/// The layer. Decides anew for each request, so that a trial and its grace end at their instants, however old the routing entry is.
pub async fn ensure_valid_subscription(
    State(open): State<OpenPaths>,
    tenant: TenantContext,
    request: Request,
    next: Next,
) -> Response {
    match standing(&tenant.entry().subscription, tenant.clock().now()) {
        Standing::Lapsed(lapse) if !open.contains(request.uri().path()) => {
            Refusal::NoSubscription(lapse).into_response()
        }
        _ => next.run(request).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_open_with_what_lies_below_it_and_not_with_what_only_begins_alike() {
        let open = OpenPaths::new(["/settings", "/billing/"]);
        for path in ["/settings", "/settings/plan", "/billing", "/billing/invoices"] {
            assert!(open.contains(path), "{path}");
        }
        for path in ["/", "/settings-of-all", "/assets/settings", "/Settings", "//settings"] {
            assert!(!open.contains(path), "{path}");
        }
    }
}
