//! The schema of a tenant's database, as plain SQL files that are applied in order.
//!
//! They are run once in a template database, and by a schema rollout in the databases that are there already, as the role
//! that owns the tables. A file leaves the app of the release before it working (expand, fill, and contract a release later).
//! One whose first line is `-- no transaction` runs its statements, parted by lines `-- next`, one by one; each may run again. They hold no `GRANT` and no role's
//! name: who may use the tables is decided by whoever runs them, with default privileges. A file that was ever released
//! is never edited; its checksum is recorded where it was applied.

/// One step of the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Migration {
    /// Four digits, ascending: `0001`.
    pub version: &'static str,
    /// What it brings.
    pub name: &'static str,
    /// The statements.
    pub sql: &'static str,
}

/// The oldest schema that this app's queries work with: that of the release before.
pub const OLDEST: &str = "0004";

/// Every migration, in order.
pub fn migrations() -> &'static [Migration] {
    &MIGRATIONS
}

static MIGRATIONS: [Migration; 6] = [
    Migration { version: "0001", name: "maintenance", sql: include_str!("migrations/0001_maintenance.sql") },
    Migration { version: "0002", name: "accounts", sql: include_str!("migrations/0002_accounts.sql") },
    Migration { version: "0003", name: "files", sql: include_str!("migrations/0003_files.sql") },
    Migration { version: "0004", name: "plant", sql: include_str!("migrations/0004_plant.sql") },
    Migration { version: "0005", name: "asset_search", sql: include_str!("migrations/0005_asset_search.sql") },
    Migration {
        version: "0006",
        name: "asset_search_fill",
        sql: include_str!("migrations/0006_asset_search_fill.sql"),
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_and_the_list_agree() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/app/migrations");
        let mut files: Vec<(String, String)> = std::fs::read_dir(directory)
            .unwrap()
            .map(|file| {
                let path = file.unwrap().path();
                (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read_to_string(&path).unwrap())
            })
            .collect();
        files.sort();
        let listed: Vec<(String, String)> = migrations()
            .iter()
            .map(|migration| (format!("{}_{}.sql", migration.version, migration.name), migration.sql.to_owned()))
            .collect();
        assert_eq!(files, listed);
    }

    #[test]
    fn versions_are_four_digits_and_ascend_without_gaps() {
        for (index, migration) in migrations().iter().enumerate() {
            assert_eq!(migration.version, format!("{:04}", index + 1));
        }
    }

    #[test]
    fn no_migration_names_a_role_or_grants_anything() {
        for migration in migrations() {
            let sql = migration.sql.to_lowercase();
            for word in ["grant ", "revoke ", "maintenance_os_", "owner to", "set role", "create extension"] {
                assert!(!sql.contains(word), "{} contains `{word}`", migration.version);
            }
        }
    }
}
