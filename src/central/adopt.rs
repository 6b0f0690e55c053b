//! Kept data and objects that claim a uuid: by `spec.uuid`, which is a request, or by `status.uuid`, which is a memory.

use sqlx::types::Json;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use super::RegisterError;
use super::holder::{holder_of, ledger_state, refuse_slug, slug_holder};
use super::model::{LedgerState, status_of};
use super::register::{Failure, Outcome, Registration, plan_id, trial_text};

/// Hands kept data to the object that named it.
pub(super) async fn adopt(
    connection: &mut PgConnection,
    request: &Registration<'_>,
    uuid: Uuid,
) -> Result<Outcome, Failure> {
    let found = sqlx::query("SELECT id, namespace, object_name, ledger_state FROM tenants WHERE id = $1 FOR UPDATE")
        .bind(uuid)
        .fetch_optional(&mut *connection)
        .await?;
    let Some(found) = found else {
        // An object that had it before and now is not found was lost by the ledger, not mistyped by its author.
        let lost = request.known == Some(uuid);
        return Err(if lost { RegisterError::LedgerLost(uuid) } else { RegisterError::UnknownData(uuid) }.into());
    };
    let state = ledger_state(&found)?;
    match state {
        LedgerState::Registered | LedgerState::Provisioned => {
            return Err(RegisterError::AlreadyClaimed { uuid, holder: holder_of(&found)? }.into());
        }
        LedgerState::Dropped => return Err(RegisterError::Dropped(uuid).into()),
        LedgerState::Retained | LedgerState::Quarantined => {}
    }
    if slug_holder(connection, request.slug, Some(uuid)).await?.is_some() {
        return Err(refuse_slug(connection, request, Some(uuid)).await?);
    }
    let plan = plan_id(connection, request.plan).await?;
    sqlx::query(
        "UPDATE tenants SET namespace = $2, object_name = $3, object_uid = $4, slug = $5, name = $6, plan_id = $7,
                status = $8, trial_ends_at = $9::text::timestamptz, metadata = $10,
                ledger_state = 'Provisioned', drop_after = NULL, epoch = epoch + 1
         WHERE id = $1",
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
    .execute(&mut *connection)
    .await?;
    Ok(Outcome::Adopted { quarantined: state == LedgerState::Quarantined })
}

/// Whether the ledger has no row for a uuid.
pub(super) async fn is_lost(connection: &mut PgConnection, uuid: Uuid) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT NOT EXISTS (SELECT FROM tenants WHERE id = $1)").bind(uuid).fetch_one(connection).await
}

/// What an object is told that was given a uuid and is not found by its uid.
pub(super) async fn never_mint_again(
    connection: &mut PgConnection,
    request: &Registration<'_>,
    uuid: Uuid,
) -> Result<RegisterError, Failure> {
    let found = sqlx::query("SELECT id, namespace, object_name, ledger_state, slug FROM tenants WHERE id = $1")
        .bind(uuid)
        .fetch_optional(connection)
        .await?;
    let Some(found) = found else {
        return Ok(RegisterError::LedgerLost(uuid));
    };
    // The row is there and not this object's. `status` is no proof of a right to it, only `spec.uuid` is.
    let slug: String = found.try_get("slug")?;
    let holder = holder_of(&found)?;
    Ok(match ledger_state(&found)? {
        LedgerState::Dropped => RegisterError::Dropped(uuid),
        _ if slug == request.slug => RegisterError::SlugConflict { slug, holder },
        _ => RegisterError::AlreadyClaimed { uuid, holder },
    })
}
