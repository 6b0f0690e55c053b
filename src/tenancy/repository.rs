//! Rows of a tenant's database, found and made through that tenant's context only.
//!
//! The seed's `TenantRepository`, by type instead of by discipline: a [`TenantRepository`] is made from a
//! [`TenantContext`] and from nothing else, so a row can only come from the database of the tenant whose request it is.
//! A [`Model`] says which rows those are; its statements stay ordinary `sqlx` queries, checked when they are compiled.
//!
//! ```ignore
//! let asset = TenantRepository::<Asset>::of(&tenant).find(id).await?; // or the answer is 404
//! ```

use std::future::Future;
use std::marker::PhantomData;

use sqlx::postgres::PgConnection;

use super::TenantContext;
use super::pool::PoolError;

/// A kind of row.
pub trait Model: Sized + Send {
    /// What names one row.
    type Id: Send;

    /// Reads one row, if it is there.
    fn find(
        connection: &mut PgConnection,
        id: Self::Id,
    ) -> impl Future<Output = Result<Option<Self>, sqlx::Error>> + Send;
}

/// A kind of row that can be made.
pub trait Create: Model {
    /// What a new row is made from.
    type New: Send;
    /// What became of a new row: its id, or why there is none.
    type Made: Send;

    /// Makes one row. Runs in a transaction.
    fn create(
        connection: &mut PgConnection,
        new: Self::New,
    ) -> impl Future<Output = Result<Self::Made, sqlx::Error>> + Send;
}

/// There is no such row in this tenant's database. Whether there is one in another's, nobody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no such row")]
pub struct Missing;

/// One tenant's rows of one kind.
pub struct TenantRepository<'t, M> {
    /// The way to the rows; borrowed from the request.
    tenant: &'t TenantContext,
    model: PhantomData<fn() -> M>,
}

impl<'t, M: Model> TenantRepository<'t, M> {
    /// The rows of the tenant whose request it is.
    pub fn of(tenant: &'t TenantContext) -> Self {
        Self { tenant, model: PhantomData }
    }

    /// The row of that id.
    ///
    /// # Errors
    /// [`Missing`], which an app answers with 404, or the database's fault.
    pub async fn find<E>(&self, id: M::Id) -> Result<M, E>
    where
        E: From<Missing> + From<PoolError> + From<sqlx::Error>,
    {
        let found = self
            .tenant
            .database()
            .run(async |connection: &mut PgConnection| Ok::<_, E>(M::find(connection, id).await?));
        found.await?.ok_or_else(|| Missing.into())
    }
}

impl<M: Create> TenantRepository<'_, M> {
    /// Makes a row.
    ///
    /// # Errors
    /// The database's.
    pub async fn create<E>(&self, new: M::New) -> Result<M::Made, E>
    where
        E: From<PoolError> + From<sqlx::Error>,
    {
        let made = self
            .tenant
            .database()
            .transaction(async |connection: &mut PgConnection| Ok::<_, E>(M::create(connection, new).await?));
        made.await
    }
}
