//! Objects that vanished without their finalizer: somebody stripped it, or the cluster was restored. A new object of
//! the same name is another object. The old one's data is kept, and the new one is told so; it never gets the data
//! without asking.

use sqlx::Row;

use super::register::{Failure, Registration};
use super::release::{self, DatabaseFact, Give};
use super::{Central, RegisterError};

impl Central {
    /// Releases the row that an object of the same name and another uid still holds.
    pub(super) async fn release_superseded(&self, request: &Registration<'_>) -> Result<(), Failure> {
        // Nearly always there is nobody, which one question tells.
        let found = sqlx::query(
            "SELECT (SELECT tenant_id FROM releases WHERE object_uid = $3) AS released,
                    (SELECT id FROM tenants WHERE namespace = $1 AND object_name = $2 AND object_uid <> $3) AS holder",
        )
        .bind(request.namespace)
        .bind(request.name)
        .bind(request.object_uid)
        .fetch_one(&self.pool)
        .await?;
        if let Some(tenant) = found.try_get("released")? {
            return Err(RegisterError::Released(tenant).into());
        }
        let Some(uuid) = found.try_get("holder")? else {
            return Ok(());
        };
        let mut transaction = self.pool.begin().await?;
        let Some(held) = release::lock(&mut transaction, uuid).await? else {
            return Err(Failure::Race);
        };
        if held.object_uid.is_none_or(|uid| uid == request.object_uid) || held.name != request.name {
            return Err(Failure::Race);
        }
        // Nobody looked at the server, so a database that may be there is taken to be there.
        release::give_up(&mut transaction, &held, DatabaseFact::Unknown, Give::Superseded).await?;
        transaction.commit().await?;
        Ok(())
    }
}
