//! The table of attacks with a tenant's own login. Numbers as in the hostile matrix of the design; T lines are this layout's own.

use super::fleet::Tenant;
use super::judge::Expected::{self, Denied, NoLogin, Nothing, Own};

/// Where the attacker logs in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum At {
    OwnDatabase,
    OthersDatabase,
    Named(&'static str),
}

pub struct Attack {
    pub id: &'static str,
    pub attempt: &'static str,
    pub at: At,
    /// Statements, apart by `;; `. `{own}` and `{other}` are databases and groups, `{login}` and `{victim}` logins, `{pid}` is a
    /// session of the victim's.
    sql: &'static str,
    pub expected: Expected,
}

impl Attack {
    pub fn database(&self, attacker: &Tenant, victim: &Tenant) -> String {
        match self.at {
            At::OwnDatabase => attacker.name(),
            At::OthersDatabase => victim.name(),
            At::Named(name) => name.to_owned(),
        }
    }

    pub fn sql(&self, attacker: &Tenant, victim: &Tenant, pid: i32) -> String {
        let quoted = |name: String| format!("\"{name}\"");
        self.sql
            .replace("{own}", &quoted(attacker.name()))
            .replace("{other}", &quoted(victim.name()))
            .replace("{login}", &quoted(attacker.login()))
            .replace("{victim}", &quoted(victim.login()))
            .replace("{pid}", &pid.to_string())
    }
}

const fn own(id: &'static str, attempt: &'static str, sql: &'static str, expected: Expected) -> Attack {
    Attack { id, attempt, at: At::OwnDatabase, sql, expected }
}

const fn at(id: &'static str, attempt: &'static str, at: At, sql: &'static str) -> Attack {
    Attack { id, attempt, at, sql, expected: NoLogin }
}

const RIGHTS: &str = "42501";

#[rustfmt::skip] // A line an attack.
pub const ATTACKS: &[Attack] = &[
    at("P01", "enter the other tenant's database", At::OthersDatabase, "SELECT * FROM assets"),
    at("P02", "enter postgres", At::Named("postgres"), "SELECT 1"),
    at("P03", "enter template1", At::Named("template1"), "SELECT 1"),
    at("P04", "create in template1", At::Named("template1"), "CREATE TABLE mine ()"),
    at("P05", "create in postgres", At::Named("postgres"), "CREATE TABLE mine ()"),
    at("P06", "enter template0", At::Named("template0"), "SELECT 1"),
    own("P08", "list the databases", "SELECT datname FROM pg_database", Nothing),
    own("P09", "list the roles", "SELECT rolname, rolpassword FROM pg_roles", Nothing),
    own("P10", "read verifiers in pg_authid", "SELECT rolname, rolpassword FROM pg_authid", Denied(RIGHTS)),
    own("P11", "read verifiers in pg_shadow", "SELECT * FROM pg_shadow", Denied(RIGHTS)),
    own("P12", "read the statements of other sessions", "SELECT usename, query FROM pg_stat_activity", Nothing),
    own("P13", "read the other database's counters", "SELECT * FROM pg_stat_database", Nothing),
    own("P14", "measure the other database", "SELECT pg_database_size('{other}')", Denied("3D000")),
    own("P14b", "measure the other database by its number", "SELECT pg_database_size(oid) FROM pg_database WHERE quote_ident(datname) = '{other}'", Denied(RIGHTS)),
    own("P15", "read others' locks", "SELECT * FROM pg_locks", Nothing),
    own("P16", "read others' settings", "SELECT * FROM pg_db_role_setting", Nothing),
    own("P17", "read the comments on databases and roles", "SELECT description FROM pg_shdescription", Nothing),
    own("P18", "end the other tenant's session", "SELECT pg_terminate_backend({pid})", Denied(RIGHTS)),
    own("P19", "cancel the other tenant's statement", "SELECT pg_cancel_backend({pid})", Denied(RIGHTS)),
    own("P20", "take on the other tenant's roles", "SET ROLE {victim};; SET ROLE {other}", Denied(RIGHTS)),
    own("P20b", "take on the roles of the platform", "SET ROLE maintenance_os_schema;; SET ROLE maintenance_os_backup;; SET ROLE maintenance_os_migrator;; SET ROLE maintenance_os_provisioner", Denied(RIGHTS)),
    own("P21", "become the other tenant", "SET SESSION AUTHORIZATION {victim}", Denied(RIGHTS)),
    own("P22", "join the other tenant", "GRANT {victim} TO {login};; GRANT {other} TO {login}", Denied(RIGHTS)),
    own("P22b", "join the platform", "GRANT pg_read_all_data TO {login};; GRANT maintenance_os_schema TO {login}", Denied(RIGHTS)),
    own("P22c", "let the other tenant in", "GRANT {own} TO {victim};; GRANT maintenance_os_app TO {victim}", Denied(RIGHTS)),
    own("P23", "change the other tenant's password", "ALTER ROLE {victim} PASSWORD 'x'", Denied(RIGHTS)),
    own("P23b", "change the other tenant's settings", "ALTER ROLE {victim} SET search_path = evil;; ALTER ROLE {victim} IN DATABASE {own} SET work_mem = '1MB'", Denied(RIGHTS)),
    own("P24", "become a superuser", "ALTER ROLE {login} SUPERUSER", Denied(RIGHTS)),
    own("P25", "become a maker of databases and roles", "ALTER ROLE {login} CREATEDB;; ALTER ROLE {login} CREATEROLE", Denied(RIGHTS)),
    own("P25b", "become one that replicates or passes by row security", "ALTER ROLE {login} REPLICATION;; ALTER ROLE {login} BYPASSRLS", Denied(RIGHTS)),
    own("P26", "lift the login's own limit", "ALTER ROLE {login} CONNECTION LIMIT -1", Denied(RIGHTS)),
    own("P27", "change the login's own password and settings", "ALTER ROLE {login} SET statement_timeout = 0;; ALTER ROLE {login} IN DATABASE {other} SET search_path = evil", Own),
    own("P28", "rename the login", "ALTER ROLE {login} RENAME TO mallory", Denied("0A000")),
    own("P29", "make a role", "CREATE ROLE mallory", Denied(RIGHTS)),
    own("P30", "make a database", "CREATE DATABASE mallory", Denied(RIGHTS)),
    own("P31", "copy the other tenant's database", "CREATE DATABASE mallory TEMPLATE {other}", Denied(RIGHTS)),
    own("P32", "drop the other tenant's database", "DROP DATABASE {other};; DROP DATABASE {other} WITH (FORCE)", Denied(RIGHTS)),
    own("P33", "rename or close the other tenant's database", "ALTER DATABASE {other} RENAME TO mallory;; ALTER DATABASE {other} ALLOW_CONNECTIONS false;; ALTER DATABASE {other} OWNER TO {login}", Denied(RIGHTS)),
    own("P34", "lift the own database's limit", "ALTER DATABASE {own} CONNECTION LIMIT -1", Denied(RIGHTS)),
    own("P35", "lay a search path for the operator", "ALTER DATABASE {own} SET search_path = public, pg_catalog;; COMMENT ON DATABASE {own} IS 'mine'", Denied(RIGHTS)),
    own("P36", "open the own database to everybody", "GRANT CONNECT ON DATABASE {own} TO PUBLIC;; GRANT ALL ON DATABASE {own} TO {victim}", Nothing),
    own("P37", "make a schema or a table", "CREATE SCHEMA mine;; CREATE TABLE public.mine ();; CREATE FUNCTION public.f() RETURNS int LANGUAGE sql RETURN 1", Denied(RIGHTS)),
    own("P38", "run a program", "COPY assets TO PROGRAM 'cat > /tmp/maintenance-os-hostile';; COPY assets FROM PROGRAM 'touch /tmp/maintenance-os-hostile'", Denied(RIGHTS)),
    own("P39", "copy from and to files", "COPY assets (name) FROM '/etc/passwd';; COPY assets TO '/tmp/maintenance-os-hostile'", Denied(RIGHTS)),
    own("P40", "read a file", "SELECT pg_read_file('/etc/passwd');; SELECT pg_read_binary_file('PG_VERSION');; SELECT * FROM pg_stat_file('PG_VERSION')", Denied(RIGHTS)),
    own("P41", "list a directory", "SELECT pg_ls_dir('.');; SELECT * FROM pg_ls_waldir();; SELECT * FROM pg_ls_logdir()", Denied(RIGHTS)),
    own("P42", "import a file as a large object", "SELECT lo_import('/etc/passwd')", Denied(RIGHTS)),
    own("P43", "export a large object to a file", "SELECT lo_export(0, '/tmp/maintenance-os-hostile')", Denied(RIGHTS)),
    own("P44", "read the pages of all large objects", "SELECT * FROM pg_largeobject", Denied(RIGHTS)),
    own("P45", "install dblink", "CREATE EXTENSION dblink", Denied(RIGHTS)),
    own("P46", "install postgres_fdw", "CREATE EXTENSION postgres_fdw", Denied(RIGHTS)),
    own("P47", "install file_fdw", "CREATE EXTENSION file_fdw", Denied(RIGHTS)),
    own("P49", "install refint", "CREATE EXTENSION refint", Denied(RIGHTS)),
    own("P50", "install a trusted extension", "CREATE EXTENSION pgcrypto", Denied(RIGHTS)),
    own("P51", "make a function of a shared library", "CREATE FUNCTION pg_temp.system(cstring) RETURNS int LANGUAGE c AS '/lib/x86_64-linux-gnu/libc.so.6', 'system'", Denied(RIGHTS)),
    own("P52", "make an event trigger", "CREATE EVENT TRIGGER t ON ddl_command_end EXECUTE FUNCTION suppress_redundant_updates_trigger()", Denied(RIGHTS)),
    own("P53", "subscribe to another server", "CREATE SUBSCRIPTION s CONNECTION 'dbname=postgres' PUBLICATION p WITH (connect = false)", Denied(RIGHTS)),
    own("P54", "publish all tables", "CREATE PUBLICATION p FOR ALL TABLES", Denied(RIGHTS)),
    own("P55", "hold back the log by a replication slot", "SELECT pg_create_physical_replication_slot('s', true)", Denied(RIGHTS)),
    own("P56", "change the server's configuration", "ALTER SYSTEM SET log_statement = 'all'", Denied(RIGHTS)),
    own("P57", "reload the configuration", "SELECT pg_reload_conf();; SELECT pg_rotate_logfile()", Denied(RIGHTS)),
    own("P58", "show where pg_hba lies", "SHOW hba_file;; SHOW data_directory", Denied(RIGHTS)),
    own("P59", "read pg_hba", "SELECT * FROM pg_hba_file_rules;; SELECT * FROM pg_file_settings", Denied(RIGHTS)),
    own("P60", "reset the counters", "SELECT pg_stat_reset();; SELECT pg_stat_reset_shared('bgwriter')", Denied(RIGHTS)),
    own("P61", "load a library", "LOAD '/usr/lib/postgresql/17/lib/auto_explain.so'", Denied(RIGHTS)),
    own("P62", "raise work_mem", "SET work_mem = '64MB'", Nothing),
    own("P63", "switch the statement's time limit off", "SET statement_timeout = 0", Nothing),
    own("P64", "lift the limit on temporary files", "SET temp_file_limit = -1", Denied(RIGHTS)),
    own("P65", "pass by triggers", "SET session_replication_role = replica;; ALTER TABLE assets DISABLE TRIGGER ALL", Denied(RIGHTS)),
    own("P66", "write to the log of transactions", "SELECT pg_logical_emit_message(false, 'x', 'y')", Nothing),
    own("P67", "notify", "NOTIFY c, 'x'", Nothing),
    own("P68", "take an advisory lock that the other tenant has too", "SELECT pg_try_advisory_lock(4711)", Nothing),
    own("P69", "look into the memory of sessions", "SELECT pg_log_backend_memory_contexts({pid});; SELECT * FROM pg_backend_memory_contexts", Denied(RIGHTS)),
    at("P70", "drop the own database from postgres", At::Named("postgres"), "DROP DATABASE {own}"),
    own("P70b", "drop or rename the own database", "DROP DATABASE {own} WITH (FORCE);; ALTER DATABASE {own} RENAME TO mallory", Denied(RIGHTS)),
    at("P71", "read the other database's catalogue", At::OthersDatabase, "SELECT relname FROM pg_class"),
    at("P72", "read the other tenant's functions", At::OthersDatabase, "SELECT prosrc FROM pg_proc"),
    at("P73", "run the other tenant's functions", At::OthersDatabase, "SELECT public.touch_updated_at()"),
    at("P74", "read the other tenant's counters", At::OthersDatabase, "SELECT * FROM pg_stat_user_tables"),
    at("P75", "fill the other tenant's quota", At::OthersDatabase, "CREATE TEMP TABLE t AS SELECT generate_series(1, 100000)"),
    at("T01", "enter the central database", At::Named("maintenance_os_central"), "SELECT 1"),
    own("T02", "change the schema", "DROP TABLE assets;; ALTER TABLE assets ADD x int;; CREATE INDEX ON assets (notes)", Denied(RIGHTS)),
    own("T02b", "empty a table at once", "TRUNCATE assets CASCADE", Denied(RIGHTS)),
    own("T03", "forge the record of migrations", "UPDATE maintenance_os_migrations SET checksum = 'x';; DELETE FROM maintenance_os_migrations", Denied(RIGHTS)),
    own("T04", "put a trigger or a policy on a table", "CREATE TRIGGER t BEFORE INSERT ON assets FOR EACH ROW EXECUTE FUNCTION public.touch_updated_at();; CREATE RULE r AS ON SELECT TO assets DO ALSO NOTHING", Denied(RIGHTS)),
    own("T05", "give others rights on a table", "GRANT SELECT ON assets TO {victim}", Nothing),
    own("T06", "drop the own login", "DROP ROLE {login};; DROP ROLE {own}", Denied(RIGHTS)),
    own("T07", "leave objects behind that keep the login from being dropped", "SELECT lo_create(0);; ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC", Own),
    own("T08", "take on the group and leave objects as it", "SET ROLE {own};; SELECT lo_create(0);; ALTER ROLE {own} SET search_path = evil", Own),
    own("T09", "take on the app's role and change it", "SET ROLE maintenance_os_app;; SELECT lo_create(0);; ALTER ROLE maintenance_os_app SET search_path = evil", Own),
    own("T10", "take all that belongs to the platform's roles", "REASSIGN OWNED BY maintenance_os_schema TO {login};; DROP OWNED BY {victim}", Denied(RIGHTS)),
    own("T11", "make temporary tables and functions", "CREATE TEMP TABLE t (x int);; CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql RETURN 1", Own),
    own("T12", "lay aside a prepared transaction", "BEGIN; PREPARE TRANSACTION 'left'", Denied("55000")),
];
