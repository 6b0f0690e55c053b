//! Refuses writes that another site's page makes a visitor's browser send.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::Method;

use super::problem::Problem;
use crate::tenancy::TenantContext;
use crate::web::origin::is_same_origin;

/// The layer.
pub async fn require_same_origin(tenant: TenantContext, request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if !is_read && !is_same_origin(request.headers(), tenant.host()) {
        return Problem::CrossSite.into_response();
    }
    next.run(request).await
}
