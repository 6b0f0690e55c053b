//! What answers where, and what every request passes on its way.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware::from_fn;
use axum::routing::{get, post};

use super::problem::Problem;
use super::{api, home, render, same_origin};
use crate::tenancy::{Tenancy, layers};

/// Largest body that is read: forms and small JSON documents.
const MAX_BODY: usize = 64 * 1024;

/// The whole product.
pub fn router(tenancy: &Tenancy) -> Router {
    let routes = Router::new()
        .route("/", get(home::show))
        .route("/assets", post(home::add_asset))
        .route("/api/tenant", get(api::tenant))
        .route("/api/assets", post(api::add_asset))
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::MethodNotAllowed)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn(same_origin::require_same_origin));
    layers::tenant(routes, tenancy)
        // Around everything, so that refusals of the layers get a page too.
        .layer(from_fn(render::render_problems))
        .layer(from_fn(render::set_security_headers))
}
