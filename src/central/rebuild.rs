//! A tenant whose row the ledger lost (a backup that was restored is older than the tenant) and whose database says on
//! its server that it is this object's: the row is written again, with the uuid that was given out.

use sqlx::PgConnection;
use sqlx::types::Json;
use uuid::Uuid;

use super::RegisterError;
use super::holder::{refuse_slug, slug_holder};
use super::model::status_of;
use super::register::{Failure, Marked, Outcome, Registration, plan_id, trial_text};

/// Writes the row of a tenant that has none. Nothing is taken from anybody: a slug that another has by now is refused,
/// and of two that do this at once one finds the other's row.
pub(super) async fn rebuild(
    connection: &mut PgConnection,
    request: &Registration<'_>,
    uuid: Uuid,
    marked: Marked<'_>,
) -> Result<Outcome, Failure> {
    let given_up: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM releases WHERE object_uid = $1)")
        .bind(request.object_uid)
        .fetch_one(&mut *connection)
        .await?;
    if given_up {
        return Err(RegisterError::Released(uuid).into());
    }
    if slug_holder(connection, request.slug, Some(uuid)).await?.is_some() {
        return Err(refuse_slug(connection, request, Some(uuid)).await?);
    }
    let plan = plan_id(connection, request.plan).await?;
    let written = sqlx::query(
        "INSERT INTO tenants (id, namespace, object_name, object_uid, slug, name, plan_id, status, trial_ends_at,
                metadata, ledger_state, server, schema_version)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9::text::timestamptz, $10, 'Provisioned', $11, $12)
         ON CONFLICT DO NOTHING",
    )
    .bind(uuid)
    .bind(request.namespace)
    .bind(request.name)
    .bind(request.object_uid)
    .bind(request.slug)
    .bind(request.display_name)
    .bind(plan)
    .bind(status_of(request.state))
    .bind(trial_text(request))
    .bind(Json(request.metadata))
    .bind(marked.server)
    .bind(marked.schema)
    .execute(connection)
    .await?;
    if written.rows_affected() == 1 { Ok(Outcome::Rebuilt) } else { Err(Failure::Race) }
}
