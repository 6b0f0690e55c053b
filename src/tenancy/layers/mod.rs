//! The layers between the socket and a tenant's handlers, each in its own file, the stack listed once.

pub mod auth;
pub mod central;
pub mod identify;
pub mod initialize;
pub mod metrics;
pub mod verified;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use tower::ServiceBuilder;

use super::Tenancy;

/// Puts a tenant's routes behind the layers. The first one listed sees the request first.
pub fn tenant(routes: Router, tenancy: &Tenancy) -> Router {
    routes.layer(
        ServiceBuilder::new()
            // Whose host is it? Unknown hosts end here.
            .layer(from_fn_with_state(tenancy.clone(), identify::identify_tenant))
            // Counts what a tenant's host answers, refusals by state included.
            .layer(from_fn_with_state(tenancy.clone(), metrics::record_request))
            // May it be served? Then the handler's context is made.
            .layer(from_fn_with_state(tenancy.clone(), initialize::initialize_tenancy))
            // The last guard: what is left without a tenant is at a central domain and gets no tenant's page.
            .layer(from_fn(central::prevent_access_from_central_domains)),
        // Later, in this order: shared page properties, then for signed-in pages auth, verified,
        // valid subscription, quotas.
    )
}
