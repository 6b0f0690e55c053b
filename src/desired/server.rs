//! What a database server is to have for all tenants: roles, the template, the warm pool.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::api::DatabaseServer;
use crate::api::server::Capacity;

use super::catalogue::Catalogue;
use super::scram;
use super::sql::{Batch, Statement, identifier, literal};
use super::{database, names};

/// One step of the app's schema.
#[derive(Clone, Copy, Debug)]
pub struct Migration<'a> {
    /// Four digits.
    pub version: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its statements.
    pub sql: &'a str,
}

/// The other object that stands for the PostgreSQL of this system identifier already; the older one, where both say so.
pub fn holder<'a>(object: &DatabaseServer, identifier: &str, all: &'a [DatabaseServer]) -> Option<&'a str> {
    let is_noted = |server: &DatabaseServer| {
        server.status.as_ref().and_then(|status| status.system_identifier.as_deref()) == Some(identifier)
    };
    let age = |server: &DatabaseServer| {
        (server.metadata.creation_timestamp.as_ref().map(|time| time.0), server.metadata.name.clone())
    };
    let others = all.iter().filter(|other| other.metadata.name != object.metadata.name && is_noted(other));
    let holder = others.min_by_key(|other| age(other))?;
    let is_ours = is_noted(object) && age(object) < age(holder);
    holder.metadata.name.as_deref().filter(|_| !is_ours)
}

/// Connections that no tenant gets: the operator's own eight, two dumps, and those with which a schema rollout and people who
/// look after the server come in.
const RESERVE: i64 = 15;

/// How many connections the plans of a server's tenants may promise in sum. `connections`: what the server has for roles
/// that are no superusers.
pub fn budget(capacity: &Capacity, connections: i64) -> i64 {
    let real = i64::from(capacity.max_connections).min(connections - RESERVE).max(0);
    real.saturating_mul(capacity.connection_overcommit.max(1).into())
}

/// The roles that every tenant's rights hang on; None: they are all there.
pub fn roles(catalogue: &Catalogue, migrator: &str, backup: &str) -> Option<Batch> {
    let mut statements = Vec::new();
    for name in [names::SCHEMA_ROLE, names::APP_ROLE, names::TENANTS_ROLE] {
        if !catalogue.roles.contains_key(name) {
            statements.push(Statement::CreateRole {
                name: name.into(),
                login: false,
                verifier: None,
                member_of: vec![],
            });
        }
    }
    for (name, verifier, member_of) in
        [(names::MIGRATOR, migrator, vec![names::SCHEMA_ROLE.to_owned()]), (names::BACKUP, backup, vec![])]
    {
        let note = scram::fingerprint(verifier);
        let Some(role) = catalogue.roles.get(name) else {
            statements.push(Statement::CreateRole {
                name: name.into(),
                login: true,
                verifier: Some(verifier.into()),
                member_of,
            });
            statements.push(Statement::CommentRole { name: name.into(), comment: note });
            continue;
        };
        if role.comment.as_deref() != Some(&note) {
            statements.push(Statement::RolePassword { name: name.into(), verifier: verifier.into() });
            statements.push(Statement::CommentRole { name: name.into(), comment: note });
        }
        if !role.login {
            statements.push(Statement::RoleLogin { name: name.into(), login: true });
        }
        if role.special {
            statements.push(Statement::RolePlain { name: name.into() });
        }
        let wanted: BTreeSet<String> = member_of.into_iter().collect();
        statements.extend(
            wanted.difference(&role.member_of).map(|of| Statement::GrantRole { role: of.clone(), to: name.into() }),
        );
        statements.extend(
            role.member_of.difference(&wanted).map(|of| Statement::RevokeRole { role: of.clone(), from: name.into() }),
        );
    }
    (!statements.is_empty()).then(|| Batch::transaction(statements))
}

/// Advisory lock that every connection of the operator holds shared, and a new leader exclusively while it takes over.
const FENCE: i64 = 0x6d6f_735f_6665_6e63;

/// What a new leader runs first on a server, in order, on a connection of its own: ends the sessions that an earlier one
/// may still have, and keeps new ones of it waiting.
pub fn fence() -> [String; 2] {
    [
        "SELECT pg_catalog.pg_terminate_backend(pid) FROM pg_catalog.pg_stat_activity WHERE usename = current_user AND pid <> pg_backend_pid()".into(),
        format!("SELECT pg_catalog.pg_advisory_lock({FENCE})"),
    ]
}

/// Reads the term that holds the server (0: none yet): a note on a role, which outlives every session and which nobody
/// but the provisioner and administrators can write. A setting of the provisioner's own would need a superuser.
pub fn fence_epoch() -> String {
    format!(
        "SELECT coalesce(max(substring(pg_catalog.shobj_description(oid, 'pg_authid') FROM '^maintenance-os/1 epoch=([0-9]+)$')::bigint), 0) FROM pg_catalog.pg_roles WHERE rolname = {}",
        literal(names::TENANTS_ROLE)
    )
}

/// Sets the term that holds the server; the first one makes the role that it is noted on.
pub fn set_fence(epoch: i64, catalogue: &Catalogue) -> Batch {
    let name = names::TENANTS_ROLE.to_owned();
    let mut statements = Vec::new();
    if !catalogue.roles.contains_key(&name) {
        statements.push(Statement::CreateRole { name: name.clone(), login: false, verifier: None, member_of: vec![] });
    }
    statements.push(Statement::CommentRole { name, comment: format!("maintenance-os/1 epoch={epoch}") });
    Batch::transaction(statements)
}

/// What every connection of the operator runs first; it waits while a new leader takes over.
pub fn join_fence() -> String {
    format!("SELECT pg_catalog.pg_advisory_lock_shared({FENCE})")
}

/// Name of the schema that the migrations make: `<highest version>_<checksum of all>`.
pub fn schema(migrations: &[Migration<'_>]) -> String {
    let mut digest = Sha256::new();
    for migration in migrations {
        digest.update(checksum(migration));
    }
    let hex: String = digest.finalize()[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}_{hex}", migrations.last().map_or("0000", |migration| migration.version))
}

/// SHA-256 of a migration's version, name and statements, in hex.
pub fn checksum(migration: &Migration<'_>) -> String {
    let mut digest = Sha256::new();
    for part in [migration.version, migration.name, migration.sql] {
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Begins a template from nothing; what an earlier attempt left behind goes first.
pub fn begin_template(catalogue: &Catalogue) -> Vec<Batch> {
    let name = names::TEMPLATE_BUILD.to_owned();
    let mut batches = Vec::new();
    if catalogue.databases.contains_key(&name) {
        batches.push(Batch::transaction(vec![Statement::AllowConnections { name: name.clone(), allow: false }]));
        batches.push(Batch::transaction(vec![Statement::EndSessions { name: name.clone() }]));
        batches.push(Batch::alone(Statement::DropDatabase { name: name.clone() }));
    }
    batches.push(Batch::alone(Statement::CreateEmptyDatabase { name: name.clone() }));
    batches.push(Batch::transaction(vec![
        Statement::RevokeDatabase { name: name.clone(), from: String::new() },
        Statement::GrantDatabase { name, privileges: vec!["CONNECT"], to: names::MIGRATOR.into() },
    ]));
    batches
}

/// What the provisioner says inside the template: the schema role may make tables. A right to CREATE on the database
/// would not give that.
pub fn prepare_template() -> String {
    format!(
        "REVOKE ALL ON SCHEMA public FROM PUBLIC;\nGRANT USAGE, CREATE ON SCHEMA public TO {};\nGRANT USAGE ON SCHEMA public TO {}, {}",
        identifier(names::SCHEMA_ROLE),
        identifier(names::APP_ROLE),
        identifier(names::BACKUP)
    )
}

/// What the migrator says first inside the template: tables that are made now and later are usable by the app's role and
/// readable by the backup's.
pub fn grant_defaults() -> String {
    let (schema, app, backup) =
        (identifier(names::SCHEMA_ROLE), identifier(names::APP_ROLE), identifier(names::BACKUP));
    format!(
        "SET ROLE {schema};
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {backup};
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON SEQUENCES TO {backup};
CREATE TABLE public.maintenance_os_migrations (
  version text PRIMARY KEY, name text NOT NULL, checksum text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
GRANT SELECT ON public.maintenance_os_migrations TO {app};
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app};
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {app}"
    )
}

/// What the migrator says in the template without tables: those that are restored are usable by the app's role and readable by
/// the backup's, as in the other template.
pub fn bare_defaults() -> String {
    let (schema, app, backup) =
        (identifier(names::SCHEMA_ROLE), identifier(names::APP_ROLE), identifier(names::BACKUP));
    format!(
        "SET ROLE {schema};
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON TABLES TO {backup};
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT ON SEQUENCES TO {backup};
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {app};
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE, SELECT ON SEQUENCES TO {app}"
    )
}

/// Name of the template without tables: backups are restored into clones of it. It derives from what is said in it.
pub fn bare() -> String {
    let hash = Sha256::digest(format!("{}\n{}", prepare_template(), bare_defaults()));
    names::bare(&hash[..4].iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

/// Makes the finished template without tables known and closes it; those that said something else go.
pub fn finish_bare(catalogue: &Catalogue) -> Vec<Batch> {
    let name = bare();
    let current = name.clone();
    let others = catalogue.databases.iter().filter(move |(other, database)| {
        names::is_bare(other)
            && **other != current
            && database.owner == names::PROVISIONER
            && !database.allow_connections
    });
    let mut batches = vec![Batch::transaction(vec![
        Statement::RenameDatabase { from: names::TEMPLATE_BUILD.into(), to: name.clone() },
        Statement::AllowConnections { name, allow: false },
    ])];
    batches.extend(others.map(|(other, _)| Batch::alone(Statement::DropDatabase { name: other.clone() })));
    batches
}

/// What is said in a restored database, as the role that owns its tables: which migrations were applied is nobody's to write
/// but the migrator's. Every other table has the rights that the default privileges gave it.
pub fn restored_grants() -> String {
    let app = identifier(names::APP_ROLE);
    format!(
        "REVOKE ALL ON public.maintenance_os_migrations FROM {app};
GRANT SELECT ON public.maintenance_os_migrations TO {app}"
    )
}

/// Makes the finished template known under its schema's name and closes it.
pub fn finish_template(schema: &str) -> Batch {
    let name = names::template(schema);
    Batch::transaction(vec![
        Statement::RenameDatabase { from: names::TEMPLATE_BUILD.into(), to: name.clone() },
        Statement::AllowConnections { name, allow: false },
    ])
}

/// One more warm database. It has another name until it is closed to PUBLIC (grants on databases are not cloned), so that
/// no claim can meet it half made.
pub fn clone_template(schema: &str, term: i64, id: &str) -> [Batch; 2] {
    let (cloning, warm) = (names::cloning(term, id), names::warm(schema, id));
    [
        Batch::alone(Statement::CreateDatabase { name: cloning.clone(), template: names::template(schema) }),
        Batch::transaction(vec![
            Statement::RevokeDatabase { name: cloning.clone(), from: String::new() },
            Statement::RenameDatabase { from: cloning, to: warm },
        ]),
    ]
}

/// Clones that an operator which has ended left half made, and warm databases of schemas that no new tenant gets any more.
pub fn outdated(catalogue: &Catalogue, schema: &str, term: i64) -> Vec<Batch> {
    let is_outdated = |name: &str| {
        (names::is_warm(name) && !names::is_warm_of(name, schema)) || names::is_abandoned_clone(name, term)
    };
    let outdated = catalogue.databases.iter().filter(|(name, database)| {
        is_outdated(name) && database.owner == names::PROVISIONER && !database.allow_connections
    });
    outdated.map(|(name, _)| Batch::alone(Statement::DropDatabase { name: name.clone() })).collect()
}

/// What is still to be done on the server for data whose object is gone.
pub fn leftovers(uuid: Uuid, quarantined: bool, catalogue: &Catalogue) -> Vec<Batch> {
    let part = catalogue.of_tenant(uuid);
    if quarantined {
        return database::quarantine(uuid, &part);
    }
    let statements = database::release(uuid, &part);
    if statements.is_empty() { Vec::new() } else { vec![Batch::transaction(statements)] }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Migration<'static> = Migration { version: "0001", name: "first", sql: "CREATE TABLE a (id int);\n" };

    #[test]
    fn a_schema_is_named_after_its_version_and_everything_in_it() {
        let changed = Migration { sql: "CREATE TABLE a (id bigint);\n", ..FIRST };
        let second = Migration { version: "0002", ..FIRST };
        assert!(schema(&[FIRST]).starts_with("0001_"));
        assert_ne!(schema(&[FIRST]), schema(&[changed]));
        assert!(schema(&[FIRST, second]).starts_with("0002_"));
        assert_eq!(names::schema_version(&schema(&[FIRST, second])), "0002");
    }

    #[test]
    fn one_object_stands_for_a_server_whichever_is_looked_at_first() {
        let object = |name: &str, created: i64, identifier: Option<&str>| {
            let mut object = DatabaseServer::new(name, crate::api::server::DatabaseServerSpec::default());
            let created = jiff::Timestamp::new(created, 0).expect("in range");
            object.metadata.creation_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(created));
            object.status = identifier.map(|identifier| crate::api::server::DatabaseServerStatus {
                system_identifier: Some(identifier.to_owned()),
                ..crate::api::server::DatabaseServerStatus::default()
            });
            object
        };
        let (old, new, other) = (object("old", 1, Some("7")), object("new", 2, None), object("other", 0, Some("8")));
        let all = [old.clone(), new.clone(), other.clone()];
        assert_eq!(holder(&old, "7", &all), None);
        assert_eq!(holder(&new, "7", &all), Some("old"), "an object that is new takes nobody's server");
        assert_eq!(holder(&new, "9", &all), None);
        assert_eq!(holder(&other, "7", &all), Some("old"), "nor does one whose connection was changed");
        let both = [old.clone(), object("new", 2, Some("7"))];
        assert_eq!(holder(&both[0], "7", &both), None);
        assert_eq!(holder(&both[1], "7", &both), Some("old"));
        let first_seen = [object("old", 1, None), object("new", 2, Some("7"))];
        assert_eq!(holder(&first_seen[0], "7", &first_seen), Some("new"), "who has it keeps it");
    }

    #[test]
    fn the_roles_are_made_once() {
        let mut catalogue = Catalogue::default();
        let batch = roles(&catalogue, "verifier-m", "verifier-b").expect("nothing is there yet");
        batch.statements().iter().for_each(|statement| catalogue.execute(statement));
        assert_eq!(roles(&catalogue, "verifier-m", "verifier-b"), None);
        assert!(roles(&catalogue, "another", "verifier-b").expect("the password changed").text().contains("another"));
        catalogue.roles.get_mut(names::MIGRATOR).expect("made").special = true;
        assert!(roles(&catalogue, "verifier-m", "verifier-b").is_some());
    }

    #[test]
    fn a_template_that_was_left_unfinished_is_begun_anew() {
        let mut catalogue = Catalogue::default();
        for _attempt in 0..2 {
            for batch in begin_template(&catalogue.clone()) {
                batch.statements().iter().for_each(|statement| catalogue.execute(statement));
            }
            assert!(catalogue.databases.contains_key(names::TEMPLATE_BUILD));
            assert!(catalogue.open_to_public().is_empty());
        }
        finish_template("0001_aa").statements().iter().for_each(|statement| catalogue.execute(statement));
        assert!(!catalogue.databases[&names::template("0001_aa")].allow_connections);
    }
}
