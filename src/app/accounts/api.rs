//! Accounts for programs.

use axum::Json;
use axum::response::{IntoResponse, Response};
use http::header::CACHE_CONTROL;
use serde_json::{Value, json};
use sqlx::postgres::PgConnection;

use super::current::{CurrentUser, Role};
use super::store::users;
use crate::app::problem::Problem;
use crate::tenancy::TenantContext;

/// `GET /api/me`: whose token it is.
pub async fn me(user: CurrentUser) -> Response {
    no_store(json!({ "id": user.id, "name": user.name, "email": user.email, "role": user.role }))
}

/// `GET /api/users`
pub async fn list(tenant: TenantContext, user: CurrentUser) -> Result<Response, Problem> {
    user.require(Role::Admin)?;
    let users = tenant.database().run(async |db: &mut PgConnection| Ok::<_, Problem>(users::list(db).await?)).await?;
    let users = users.into_iter().map(|user| {
        json!({
            "id": user.id, "name": user.name, "email": user.email, "role": user.role, "status": user.status(),
            "last_sign_in_at": user.last_sign_in_at,
        })
    });
    Ok(no_store(json!({ "users": users.collect::<Vec<_>>() })))
}

fn no_store(document: Value) -> Response {
    ([(CACHE_CONTROL, "no-store")], Json(document)).into_response()
}
