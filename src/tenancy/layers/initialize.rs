//! `InitializeTenancy`: may the tenant be served, and if so, with what.

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::Method;
use tracing::Instrument;

use super::identify::Site;
use crate::api::routing::RoutingEntry;
use crate::api::tenant::TenantState;
use crate::tenancy::{Refusal, Tenancy, TenantContext};

/// The layer. Every log line from here inwards carries `tenant_id` and `tenant_domain`, because they are fields of the
/// span that everything further in runs in.
pub async fn initialize_tenancy(State(tenancy): State<Tenancy>, mut request: Request, next: Next) -> Response {
    let Some(Site::Tenant { entry, host }) = request.extensions().get::<Site>().cloned() else {
        return next.run(request).await;
    };
    let span = tracing::info_span!(
        target: "tenant",
        "request",
        tenant_id = %entry.uuid,
        tenant_domain = %host,
        method = %request.method(),
        // The path alone: a query may carry what does not belong into logs.
        path = request.uri().path(),
    );
    let is_write = !is_read(request.method()) && !tenancy.is_always_served(request.uri().path());
    let refusal = refused(&entry, is_write).or_else(|| (!tenancy.knows_schema(&entry)).then_some(Refusal::Updating));
    if entry.sleeps {
        tenancy.acknowledgements().want(entry.uuid);
    }
    request.extensions_mut().insert(TenantContext::new(entry, host, &tenancy, span.clone()));
    async {
        let response = match refusal {
            Some(refusal) => refusal.into_response(),
            None => next.run(request).await,
        };
        tracing::debug!(target: "tenant", status = response.status().as_u16(), "answered");
        response
    }
    .instrument(span)
    .await
}

/// What a state means for a request. The context is made in every state: an app's own layers further out may want to
/// show the tenant's name, and a pool that is never asked opens no connection.
fn refused(entry: &RoutingEntry, is_write: bool) -> Option<Refusal> {
    match entry.state {
        TenantState::Active => None,
        TenantState::ReadOnly => is_write.then_some(Refusal::ReadOnly),
        TenantState::Suspended => Some(Refusal::Suspended),
        // Whoever asks has been told of, and the tenant is on its way up.
        TenantState::Hibernated if entry.sleeps => Some(Refusal::Hibernated),
        // Closed for a moment, without being asleep.
        TenantState::Hibernated => Some(Refusal::Restoring),
    }
}

/// A list of what is allowed, not of what is forbidden: a method that nobody thought of counts as a write.
fn is_read(method: &Method) -> bool {
    matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS)
}
