//! Who has a slug, a host or a tenant.

use sqlx::postgres::PgRow;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::RegisterError;
use super::error::Holder;
use super::model::{LedgerState, UnknownState};
use super::register::{Failure, Registration};
use super::rows::row_of_object;

/// Who has the slug, other than `but`.
pub(super) async fn slug_holder(
    connection: &mut PgConnection,
    slug: &str,
    but: Option<Uuid>,
) -> Result<Option<PgRow>, sqlx::Error> {
    sqlx::query(
        "SELECT id, namespace, object_name, ledger_state FROM tenants
         WHERE slug = $1 AND ledger_state <> 'Dropped' AND id IS DISTINCT FROM $2",
    )
    .bind(slug)
    .bind(but)
    .fetch_optional(connection)
    .await
}

/// Says who has the slug; nobody any more, or an index other than the slug's: look again.
pub(super) async fn refuse_slug(
    connection: &mut PgConnection,
    request: &Registration<'_>,
    but: Option<Uuid>,
) -> Result<Failure, Failure> {
    if row_of_object(&mut *connection, request.object_uid).await?.is_some() {
        return Ok(Failure::Race);
    }
    let Some(found) = slug_holder(connection, request.slug, but).await? else {
        return Ok(Failure::Race);
    };
    let slug = request.slug.to_owned();
    Ok(Failure::Answer(RegisterError::SlugConflict { slug, holder: holder_of(&found)? }))
}

pub(super) fn holder_of(row: &PgRow) -> Result<Holder, sqlx::Error> {
    let state = ledger_state(row)?;
    if state.is_live() {
        return Ok(Holder::Live { namespace: row.try_get("namespace")?, name: row.try_get("object_name")? });
    }
    Ok(Holder::Kept { uuid: row.try_get("id")?, state })
}

pub(super) fn ledger_state(row: &PgRow) -> Result<LedgerState, sqlx::Error> {
    let state: String = row.try_get("ledger_state")?;
    state.parse().map_err(|error: UnknownState| sqlx::Error::Decode(Box::new(error)))
}
