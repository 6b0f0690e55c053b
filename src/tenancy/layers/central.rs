//! `PreventAccessFromCentralDomains`: a tenant's pages do not exist at the base domain or the admin host.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::tenancy::{Refusal, TenantContext};

/// The layer. It asks for the context and not for the host, so that it also stops whatever came this far without a
/// tenant for a reason that nobody foresaw.
pub async fn prevent_access_from_central_domains(request: Request, next: Next) -> Response {
    if request.extensions().get::<TenantContext>().is_none() {
        return Refusal::Central.into_response();
    }
    next.run(request).await
}
