//! The inventory of a server: its databases, roles, grants and settings, in one query.

use sqlx::types::Json;
use sqlx::{PgConnection, Row};
use uuid::Uuid;

use crate::desired::catalogue::Catalogue;
use crate::desired::names;

/// A server as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inventory {
    /// Databases and roles.
    pub catalogue: Catalogue,
    /// PostgreSQL's version, as `17.11`.
    pub version: String,
    /// The cluster's own identity, the same after a failover and another for a server set up anew.
    pub system_identifier: String,
    /// A standby, or a primary that refuses writes.
    pub read_only: bool,
    /// Connections that it has for roles that are no superusers.
    pub connections: i64,
}

/// Everything on the server.
///
/// # Errors
/// The query failed.
pub async fn all(connection: &mut PgConnection) -> Result<Inventory, sqlx::Error> {
    let row = sqlx::query(SERVER).fetch_one(&mut *connection).await?;
    let version: String = row.try_get("version")?;
    Ok(Inventory {
        catalogue: catalogue(connection, None).await?,
        version: version.split(' ').next().unwrap_or_default().to_owned(),
        system_identifier: row.try_get("system_identifier")?,
        read_only: row.try_get("read_only")?,
        connections: row.try_get("connections")?,
    })
}

/// The cluster's own identity.
///
/// # Errors
/// The query failed.
pub async fn system_identifier(connection: &mut PgConnection) -> Result<String, sqlx::Error> {
    sqlx::query(SERVER).fetch_one(connection).await?.try_get("system_identifier")
}

/// Sessions in a database, whoever has them.
///
/// # Errors
/// The query failed.
pub async fn sessions(connection: &mut PgConnection, database: &str) -> Result<i64, sqlx::Error> {
    let query = sqlx::query_scalar("SELECT count(*) FROM pg_stat_activity WHERE datname = $1");
    query.bind(database).fetch_one(connection).await
}

/// What belongs to one tenant, see [`Catalogue::of_tenant`].
///
/// # Errors
/// The query failed.
pub async fn of_tenant(connection: &mut PgConnection, uuid: Uuid) -> Result<Catalogue, sqlx::Error> {
    catalogue(connection, Some(uuid)).await
}

/// What a restore has to do with: the tenant's database, the one beside it, the one that was replaced, and the login.
///
/// # Errors
/// The query failed.
pub async fn of_restore(connection: &mut PgConnection, restore: Uuid, tenant: Uuid) -> Result<Catalogue, sqlx::Error> {
    let databases = vec![names::database(tenant), names::beside(restore), names::replaced(restore)];
    named(connection, Some(databases), Some(names::beside(restore))).await
}

async fn catalogue(connection: &mut PgConnection, uuid: Option<Uuid>) -> Result<Catalogue, sqlx::Error> {
    let databases = uuid.map(|uuid| vec![names::database(uuid), names::quarantined(uuid)]);
    named(connection, databases, uuid.map(names::database)).await
}

/// `databases`: names; `roles`: prefix of their names. None: all.
async fn named(
    connection: &mut PgConnection,
    databases: Option<Vec<String>>,
    roles: Option<String>,
) -> Result<Catalogue, sqlx::Error> {
    let row = sqlx::query(CATALOGUE).bind(databases).bind(roles).bind(names::PROVISIONER).fetch_one(connection).await?;
    let Json(catalogue) = row.try_get::<Json<Catalogue>, _>("catalogue")?;
    Ok(catalogue)
}

const SERVER: &str = "
SELECT current_setting('server_version') AS version,
       (SELECT system_identifier::text FROM pg_control_system()) AS system_identifier,
       current_setting('max_connections')::bigint - current_setting('superuser_reserved_connections')::bigint
         - coalesce(current_setting('reserved_connections', true)::bigint, 0) AS connections,
       pg_is_in_recovery() OR current_setting('transaction_read_only')::bool AS read_only";

/// $1: names of databases, or NULL for all; $2: prefix of roles, or NULL for all; $3: the provisioner, who administers
/// every role that it made and is left out. Rights on databases and granted memberships keep a role from being dropped too,
/// but those we can take back; before PostgreSQL 16 also what others granted.
const CATALOGUE: &str = "
WITH database AS (
  SELECT d.oid, d.datname, d.datdba, d.datallowconn, d.datconnlimit, d.datacl
    FROM pg_database d WHERE $1::text[] IS NULL OR d.datname = ANY ($1)
), role AS (
  SELECT r.* FROM pg_roles r
   WHERE r.rolname <> $3 AND r.rolname NOT LIKE 'pg\\_%'
     AND ($2::text IS NULL OR starts_with(r.rolname, $2)
          OR EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid
                      WHERE m.member = r.oid AND starts_with(g.rolname, $2)))
), grants AS (
  SELECT oid, jsonb_object_agg(grantee, privileges) AS grants FROM (
    SELECT d.oid, CASE WHEN a.grantee = 0 THEN '' ELSE coalesce(r.rolname::text, a.grantee::text) END AS grantee,
           jsonb_agg(DISTINCT a.privilege_type) AS privileges
      FROM database d
     CROSS JOIN LATERAL aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
      LEFT JOIN pg_roles r ON r.oid = a.grantee
     WHERE a.grantee <> d.datdba GROUP BY 1, 2) g GROUP BY oid
), database_settings AS (
  SELECT setdatabase AS oid, jsonb_object_agg(split_part(s, '=', 1), substr(s, strpos(s, '=') + 1)) AS settings
    FROM pg_db_role_setting CROSS JOIN LATERAL unnest(setconfig) s WHERE setrole = 0 GROUP BY 1
), role_settings AS (
  SELECT p.setrole AS oid, jsonb_agg(jsonb_build_object('database', coalesce(d.datname::text, ''),
         'name', split_part(s, '=', 1), 'value', substr(s, strpos(s, '=') + 1))) AS settings
    FROM pg_db_role_setting p CROSS JOIN LATERAL unnest(p.setconfig) s
    LEFT JOIN pg_database d ON d.oid = p.setdatabase WHERE p.setrole <> 0 GROUP BY 1
), memberships AS (
  SELECT m.member AS oid, jsonb_agg(DISTINCT g.rolname::text) AS member_of,
         coalesce(jsonb_agg(DISTINCT g.rolname::text) FILTER (WHERE m.admin_option), '[]') AS admin_of,
         coalesce(jsonb_agg(DISTINCT g.rolname::text) FILTER (WHERE pg_get_userbyid(m.grantor) <> $3
           AND current_setting('server_version_num')::int >= 160000), '[]') AS granted_by_others
    FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid GROUP BY 1
)
SELECT jsonb_build_object(
  'databases', coalesce((SELECT jsonb_object_agg(d.datname, jsonb_build_object(
      'owner', pg_get_userbyid(d.datdba), 'allow_connections', d.datallowconn, 'connection_limit', d.datconnlimit,
      'comment', shobj_description(d.oid, 'pg_database'),
      'grants', coalesce(g.grants, '{}'), 'settings', coalesce(s.settings, '{}')))
    FROM database d LEFT JOIN grants g USING (oid) LEFT JOIN database_settings s USING (oid)), '{}'),
  'roles', coalesce((SELECT jsonb_object_agg(r.rolname, jsonb_build_object(
      'login', r.rolcanlogin, 'special', r.rolcreatedb OR r.rolcreaterole OR NOT r.rolinherit
        OR coalesce(r.rolvaliduntil <> 'infinity', false),
      'privileged', r.rolsuper OR r.rolreplication OR r.rolbypassrls, 'connection_limit', r.rolconnlimit,
      'member_of', coalesce(m.member_of, '[]'), 'admin_of', coalesce(m.admin_of, '[]'),
      'granted_by_others', coalesce(m.granted_by_others, '[]'),
      'holds', EXISTS (SELECT FROM pg_shdepend h WHERE h.refclassid = 'pg_authid'::regclass AND h.refobjid = r.oid
        AND (h.dbid <> 0 OR h.classid NOT IN ('pg_database'::regclass, 'pg_auth_members'::regclass))),
      'settings', coalesce(s.settings, '[]'), 'comment', shobj_description(r.oid, 'pg_authid')))
    FROM role r LEFT JOIN memberships m USING (oid) LEFT JOIN role_settings s USING (oid)), '{}')) AS catalogue";
