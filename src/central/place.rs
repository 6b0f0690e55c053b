//! Tenant → server, and what was then made there.

use sqlx::{AssertSqlSafe, PgConnection, Row};
use uuid::Uuid;

use super::model::LedgerState;
use super::release::{self, note};
use super::{Central, CentralError, bounded};

/// First half of the advisory lock's key; the second is a hash of the server's name. Two servers with one hash only
/// wait for each other.
const PLACEMENT_LOCK: i32 = 0x6d6f_7370;

/// Where a tenant lies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Placement {
    /// On this server; not always the one that was asked for, since the ledger's word wins.
    Placed {
        /// The server that stands.
        server: String,
    },
    /// The server is full, and the tenant is nowhere yet.
    Full {
        /// Tenants whose data lies there, kept and quarantined data included: it can be taken over at any time, and
        /// then must fit.
        tenants: i64,
    },
    /// The tenant's plan asks for more connections than the server has left, and the tenant is nowhere yet.
    NoConnections {
        /// What the tenants there may open already.
        promised: i64,
        /// What this one asks for.
        asked: i64,
    },
}

/// How much a server may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Tenants.
    pub tenants: i64,
    /// Connections that their plans promise them in sum.
    pub connections: i64,
}

impl From<i64> for Room {
    /// So many tenants, whatever their plans promise.
    fn from(tenants: i64) -> Self {
        Self { tenants, connections: i64::MAX }
    }
}

/// What the plans of the tenants on server $2 promise them: kept data has nobody who connects.
const PROMISED: &str = "SELECT coalesce(sum((p.limits->>'maxConnections')::bigint), 0)::bigint FROM tenants o
    JOIN plans p ON p.id = o.plan_id WHERE o.server = $2 AND o.object_uid IS NOT NULL AND o.dropped_at IS NULL";

/// What the plan of tenant $1 promises.
const ASKED: &str = "SELECT coalesce(max((p.limits->>'maxConnections')::bigint), 0) FROM tenants t JOIN plans p ON p.id = t.plan_id WHERE t.id = $1";

/// More placements than can ever be on their way at once: each holds a connection, and an operator has few.
const MARGIN: i64 = 64;

/// Places a tenant whose row this transaction has made, if the server has more room than all placements that are on their
/// way could take. Those do not wait for one another: an exclusive lock is held until the commit is on the disk, which
/// would make a burst of Tenants as slow as its commits one by one. Where room is short, nothing is done.
///
/// Never too many: whoever is on his way holds the lock shared, so that there are fewer than [`MARGIN`] beside those that
/// are counted; and [`put`], which counts to the last place, waits for all of them.
pub(super) async fn put_where_roomy(
    connection: &mut PgConnection,
    uuid: Uuid,
    server: &str,
    room: Room,
) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock_shared($1, hashtext($2))")
        .bind(PLACEMENT_LOCK)
        .bind(server)
        .execute(&mut *connection)
        .await?;
    let largest: i64 = sqlx::query_scalar("SELECT coalesce(max((limits->>'maxConnections')::bigint), 0) FROM plans")
        .fetch_one(&mut *connection)
        .await?;
    let room = Room {
        tenants: room.tenants - MARGIN,
        connections: room.connections.saturating_sub(largest.saturating_mul(MARGIN)),
    };
    fill(connection, uuid, server, room).await.map(drop)
}

/// Puts the tenant there while there is room; says whether it did. A statement of its own after the lock, so that it counts
/// what was committed while we waited.
async fn fill(connection: &mut PgConnection, uuid: Uuid, server: &str, room: Room) -> Result<bool, sqlx::Error> {
    let placed = sqlx::query(AssertSqlSafe(format!(
        "UPDATE tenants SET server = $2
         WHERE id = $1 AND (SELECT count(*) FROM tenants WHERE server = $2 AND dropped_at IS NULL) < $3
           AND ({PROMISED}) + ({ASKED}) <= $4"
    )))
    .bind(uuid)
    .bind(server)
    .bind(room.tenants)
    .bind(room.connections)
    .execute(connection)
    .await?;
    Ok(placed.rows_affected() == 1)
}

/// Places a tenant whose row this transaction has locked, if the server has room.
async fn put(connection: &mut PgConnection, uuid: Uuid, server: &str, room: Room) -> Result<Placement, sqlx::Error> {
    // After the row's lock, always: who holds this one waits for no row, so nobody waits in a circle.
    sqlx::query("SELECT pg_advisory_xact_lock($1, hashtext($2))")
        .bind(PLACEMENT_LOCK)
        .bind(server)
        .execute(&mut *connection)
        .await?;
    if fill(&mut *connection, uuid, server, room).await? {
        return Ok(Placement::Placed { server: server.to_owned() });
    }
    let (tenants, promised, asked): (i64, i64, i64) = sqlx::query_as(AssertSqlSafe(format!(
        "SELECT (SELECT count(*) FROM tenants WHERE server = $2 AND dropped_at IS NULL), ({PROMISED}), ({ASKED})"
    )))
    .bind(uuid)
    .bind(server)
    .fetch_one(connection)
    .await?;
    Ok(if tenants >= room.tenants { Placement::Full { tenants } } else { Placement::NoConnections { promised, asked } })
}

impl Central {
    /// Places a tenant that has no server yet, if the server has room.
    pub async fn place(&self, uuid: Uuid, server: &str, room: impl Into<Room>) -> Result<Placement, CentralError> {
        let room = room.into();
        let doing = format!("place tenant {uuid} on {server}");
        let work = async {
            let mut transaction = self.pool.begin().await?;
            let Some(held) = release::lock(&mut transaction, uuid).await? else {
                return Ok(None);
            };
            if let Some(server) = held.server {
                return Ok(Some(Placement::Placed { server }));
            }
            let placement = put(&mut transaction, uuid, server, room).await?;
            transaction.commit().await?;
            Ok(Some(placement))
        };
        bounded(&doing, work).await?.ok_or(CentralError::Refused { doing, uuid, state: None })
    }

    /// A database was made, or its schema brought to another version. Refused unless a Tenant holds the row and it
    /// has a server.
    pub async fn mark_provisioned(&self, uuid: Uuid, schema_version: &str) -> Result<(), CentralError> {
        let doing = format!("note the database of tenant {uuid}");
        let work = async {
            let mut transaction = self.pool.begin().await?;
            let Some(held) = release::lock(&mut transaction, uuid).await? else {
                return Ok(Some(None));
            };
            if !held.state.is_live() || held.server.is_none() {
                return Ok(Some(Some(held.state)));
            }
            sqlx::query(
                "UPDATE tenants SET ledger_state = 'Provisioned', schema_version = $2
                 WHERE id = $1 AND (ledger_state, schema_version) IS DISTINCT FROM ('Provisioned', $2)",
            )
            .bind(uuid)
            .bind(schema_version)
            .execute(&mut *transaction)
            .await?;
            if held.state == LedgerState::Registered {
                note(&mut transaction, &held, "tenant.provisioned").await?;
            }
            transaction.commit().await?;
            Ok(None)
        };
        match bounded(&doing, work).await? {
            None => Ok(()),
            Some(state) => Err(CentralError::Refused { doing, uuid, state }),
        }
    }

    /// The first data is in place.
    pub async fn mark_seeded(&self, uuid: Uuid) -> Result<(), CentralError> {
        let doing = format!("note the first data of tenant {uuid}");
        let work = async {
            sqlx::query("UPDATE tenants SET seeded = true WHERE id = $1 AND NOT seeded")
                .bind(uuid)
                .execute(&self.pool)
                .await?;
            let row =
                sqlx::query("SELECT seeded FROM tenants WHERE id = $1").bind(uuid).fetch_optional(&self.pool).await?;
            row.map(|row| row.try_get::<bool, _>("seeded")).transpose()
        };
        let found = bounded(&doing, work).await?;
        found.map(drop).ok_or(CentralError::Refused { doing, uuid, state: None })
    }
}
