//! `EnforceTenantQuotas`: no more requests per minute than the plan has.
//!
//! Only requests by rate are decided here. How many assets, users and bytes there may be is counted where one is added,
//! in the same transaction.

use std::time::Duration;

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::tenancy::limits::{Limit, Verdict};
use crate::tenancy::{Refusal, TenantContext};

/// The layer. It stands around what signed-in people ask for: were it around the sign-in page too, a stranger could use up
/// a tenant's minute.
pub async fn enforce_tenant_quotas(tenant: TenantContext, request: Request, next: Next) -> Response {
    if let Some(most) = tenant.entry().plan.limits.requests_per_minute {
        let limit = Limit { most: u32::try_from(most).unwrap_or(0), window: Duration::from_mins(1) };
        if let Verdict::Refused { retry_after } = tenant.limits().count("requests", limit).await {
            return Refusal::too_many(retry_after).into_response();
        }
    }
    next.run(request).await
}
