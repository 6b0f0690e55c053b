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
        let mut transaction = self.pool.begin().await?;
        let released = sqlx::query("SELECT tenant_id FROM releases WHERE object_uid = $1")
            .bind(request.object_uid)
            .fetch_optional(&mut *transaction)
            .await?;
        if let Some(row) = released {
            return Err(RegisterError::Released(row.try_get("tenant_id")?).into());
        }
        let holder =
            sqlx::query_scalar("SELECT id FROM tenants WHERE namespace = $1 AND object_name = $2 AND object_uid <> $3")
                .bind(request.namespace)
                .bind(request.name)
                .bind(request.object_uid)
                .fetch_optional(&mut *transaction)
                .await?;
        let Some(uuid) = holder else {
            return Ok(());
        };
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
