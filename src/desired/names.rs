//! Names on servers and in the cluster. Everything derives from the uuid (decision D4): nothing chosen by a customer
//! ever reaches SQL, and a name never changes.

use uuid::Uuid;

/// The operator's role: makes databases and roles, enters only `postgres` and the template being built.
pub const PROVISIONER: &str = "maintenance_os_provisioner";
/// Owns the tables of every tenant; nobody logs in as it.
pub const SCHEMA_ROLE: &str = "maintenance_os_schema";
/// Holds the grants that tenants' logins have on tables.
pub const APP_ROLE: &str = "maintenance_os_app";
/// Every tenant's group role is a member; named in `pg_hba.conf`.
pub const TENANTS_ROLE: &str = "maintenance_os_tenants";
/// Runs migrations.
pub const MIGRATOR: &str = "maintenance_os_migrator";
/// Reads everything for backups.
pub const BACKUP: &str = "maintenance_os_backup";
/// The template while it is being built.
pub const TEMPLATE_BUILD: &str = "maintenance_os_template_build";
const TEMPLATE_PREFIX: &str = "maintenance_os_template_";
/// Databases of the warm pool begin with it.
pub const WARM_PREFIX: &str = "maintenance_os_warm_";
const WORKERS_PREFIX: &str = "worker-";
const BESIDE_PREFIX: &str = "maintenance_os_restore_";
const REPLACED_PREFIX: &str = "maintenance_os_replaced_";
const BARE_PREFIX: &str = "maintenance_os_bare_";
const CLONING_PREFIX: &str = "maintenance_os_cloning_";

/// Which of a tenant's two logins is in use; rotation goes from one to the other.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Slot {
    /// `…_a`
    #[default]
    A,
    /// `…_b`
    B,
}

impl Slot {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The one that is not in use.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    const fn letter(self) -> char {
        match self {
            Self::A => 'a',
            Self::B => 'b',
        }
    }
}

/// `tenant_<uuid>`: database and group role.
pub fn database(uuid: Uuid) -> String {
    format!("tenant_{uuid}")
}

/// `maintenance_os_restore_<uid of the TenantRestore>`: a database that a backup is restored into beside the live one, and the
/// login that fills it.
pub fn beside(restore: Uuid) -> String {
    format!("{BESIDE_PREFIX}{restore}")
}

/// `maintenance_os_replaced_<uid of the TenantRestore>`: the database whose place a restored one has taken.
pub fn replaced(restore: Uuid) -> String {
    format!("{REPLACED_PREFIX}{restore}")
}

/// The TenantRestore that made a database or a login of this name beside a live one.
pub fn restore_beside(name: &str) -> Option<Uuid> {
    Uuid::parse_str(name.strip_prefix(BESIDE_PREFIX)?).ok()
}

/// The TenantRestore that put another database in the place of the one of this name.
pub fn restore_replaced(name: &str) -> Option<Uuid> {
    Uuid::parse_str(name.strip_prefix(REPLACED_PREFIX)?).ok()
}

/// The template without tables, of a preparation that has this checksum: what backups are restored into.
pub fn bare(checksum: &str) -> String {
    format!("{BARE_PREFIX}{checksum}")
}

/// Whether `database` is a template without tables.
pub fn is_bare(database: &str) -> bool {
    database.starts_with(BARE_PREFIX)
}

/// Job and Secret of a TenantRestore.
pub fn restore(uid: Uuid) -> String {
    format!("restore-{uid}")
}

/// Job of a TenantBackup.
pub fn backup_now(uid: Uuid) -> String {
    format!("backup-now-{uid}")
}

/// `tenant_<uuid>_a` or `_b`.
pub fn login(uuid: Uuid, slot: Slot) -> String {
    format!("tenant_{uuid}_{}", slot.letter())
}

/// The slot that a login's name ends in.
pub fn slot_of(login: &str) -> Option<Slot> {
    Slot::BOTH.into_iter().find(|slot| login.ends_with(&format!("_{}", slot.letter())))
}

/// `quarantine_<uuid>`: a database that is waiting to be dropped.
pub fn quarantined(uuid: Uuid) -> String {
    format!("quarantine_{uuid}")
}

/// The tenant that a database or a role of this name belongs to.
pub fn tenant_of(name: &str) -> Option<Uuid> {
    let text = name.strip_prefix("tenant_").or_else(|| name.strip_prefix("quarantine_"))?;
    Uuid::parse_str(text.get(..36)?).ok()
}

/// The template of a schema: `maintenance_os_template_<version>_<checksum>`.
pub fn template(schema: &str) -> String {
    format!("{TEMPLATE_PREFIX}{schema}")
}

/// A database kept ready: `maintenance_os_warm_<schema>_<id>`.
pub fn warm(schema: &str, id: &str) -> String {
    format!("{WARM_PREFIX}{schema}_{id}")
}

/// A database while it is being cloned and closed: `maintenance_os_cloning_<term>_<id>`. Nobody claims it yet.
pub fn cloning(term: i64, id: &str) -> String {
    format!("{CLONING_PREFIX}{term}_{id}")
}

/// Whether `database` was being cloned in another term than this one, which has ended.
pub fn is_abandoned_clone(database: &str, term: i64) -> bool {
    database.strip_prefix(CLONING_PREFIX).is_some_and(|rest| !rest.starts_with(&format!("{term}_")))
}

/// Whether `database` is a warm one of `schema`.
pub fn is_warm_of(database: &str, schema: &str) -> bool {
    database
        .strip_prefix(WARM_PREFIX)
        .and_then(|rest| rest.strip_prefix(schema))
        .is_some_and(|rest| rest.starts_with('_'))
}

/// Whether `database` is a warm one of any schema.
pub fn is_warm(database: &str) -> bool {
    database.starts_with(WARM_PREFIX)
}

/// Version of the newest migration in a schema's name (`0003_1f2e3d4c` → `0003`): what people see.
pub fn schema_version(schema: &str) -> &str {
    schema.split('_').next().unwrap_or(schema)
}

/// `tenant-<uuid>`.
pub fn queue(uuid: Uuid) -> String {
    format!("tenant-{uuid}")
}

/// `tenants/<uuid>/`.
pub fn storage_prefix(uuid: Uuid) -> String {
    format!("tenants/{uuid}/")
}

/// Secret with the first user's link, beside the Tenant.
pub fn welcome(tenant: &str) -> String {
    format!("{tenant}-welcome")
}

/// Secret with the connection, beside the Tenant.
pub fn binding(tenant: &str) -> String {
    format!("{tenant}-db")
}

/// Deployment, Service and accounts of a server's pooler.
pub fn pooler(server: &str) -> String {
    format!("pooler-{server}")
}

/// Deployment, Service and autoscaler of a tenant's own workers.
pub fn workers(uuid: Uuid) -> String {
    format!("{WORKERS_PREFIX}{uuid}")
}

/// Whether something of this name is of a tenant's own workers.
pub fn is_of_workers(name: &str) -> bool {
    name.strip_prefix(WORKERS_PREFIX).is_some_and(|rest| Uuid::parse_str(rest).is_ok())
}

/// Secret with the passwords of migrator and backup, made by the operator.
pub fn server_roles(server: &str) -> String {
    format!("{server}-roles")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_login_fits_into_postgresqls_63_bytes() {
        assert_eq!(login(Uuid::max(), Slot::B).len(), 45);
        assert!(beside(Uuid::max()).len() <= 63 && replaced(Uuid::max()).len() <= 63);
    }

    #[test]
    fn a_warm_database_belongs_to_exactly_its_schema() {
        let name = warm("0001_aaaaaaaa", "17");
        assert!(is_warm_of(&name, "0001_aaaaaaaa"));
        assert!(!is_warm_of(&name, "0001_aaaaaaa"));
        assert!(!is_warm_of(&template("0001_aaaaaaaa"), "0001_aaaaaaaa"));
    }

    #[test]
    fn a_uuid_is_read_back_from_names_of_ours_only() {
        let uuid = Uuid::from_u128(7);
        for name in [database(uuid), quarantined(uuid), login(uuid, Slot::A)] {
            assert_eq!(tenant_of(&name), Some(uuid));
        }
        assert_eq!(tenant_of("tenant_acme"), None);
        assert_eq!(tenant_of("tenant_00000000000000000000000000000007"), None);
        assert_eq!(slot_of(&login(uuid, Slot::B)), Some(Slot::B));
    }
}
