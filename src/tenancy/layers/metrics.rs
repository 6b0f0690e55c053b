//! Counts and times what each tenant's hosts answer.

use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::identify::Site;
use crate::tenancy::Tenancy;

/// The layer. The time is the one until the response's head is ready; how long a body takes to arrive is up to the
/// reader's line. Requests for no tenant are not counted: their hosts are whatever anybody on the internet types.
pub async fn record_request(State(tenancy): State<Tenancy>, request: Request, next: Next) -> Response {
    let Some(Site::Tenant { entry, .. }) = request.extensions().get::<Site>() else {
        return next.run(request).await;
    };
    let tenant = entry.uuid;
    let start = Instant::now();
    let response = next.run(request).await;
    tenancy.metrics().record(tenant, response.status(), start.elapsed());
    response
}
