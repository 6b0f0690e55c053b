//! The layers between the socket and a tenant's handlers, each in its own file, the stack listed once.

pub mod auth;
pub mod central;
pub mod identify;
pub mod initialize;
pub mod metrics;
pub mod quotas;
pub mod subscription;
pub mod verified;

use axum::Router;
use axum::middleware::{from_fn, from_fn_with_state};
use tower::ServiceBuilder;

use self::subscription::OpenPaths;
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
        // Shared page properties are the app's: what every handler's page has around it.
    )
}

/// Puts pages for signed-in people behind the plan. Whoever wraps this needs to have found out who is signed in first
/// (auth, verified), so that a stranger neither learns that a tenant owes money nor uses up its requests.
pub fn within_plan<S: Clone + Send + Sync + 'static>(routes: Router<S>, open: OpenPaths) -> Router<S> {
    routes.route_layer(
        ServiceBuilder::new()
            // Has the trial ended, or the subscription? Then only the pages that mend it are there.
            .layer(from_fn_with_state(open, subscription::ensure_valid_subscription))
            // How many requests in this minute?
            .layer(from_fn(quotas::enforce_tenant_quotas)),
    )
}
