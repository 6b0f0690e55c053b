//! Judges an attack by what it changed and what it saw, and only then by how it was answered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use maintenance_os::desired::catalogue::Catalogue;
use maintenance_os::desired::names;
use maintenance_os::observe::inventory;
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, ValueRef};

use super::fleet::{Fleet, Tenant};
use super::instance::{DEADLINE, rootfs};

/// What an attack is to come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// No session at all.
    NoLogin,
    /// Refused with this SQLSTATE; nothing changes.
    Denied(&'static str),
    /// It may succeed; nothing changes that outlives the session.
    Nothing,
    /// It succeeds and changes what is the tenant's own: its password and settings, objects in its own database.
    Own,
}

/// A file that attacks try to write.
pub const FILE: &str = "/tmp/maintenance-os-hostile";

/// Everything that an attack could change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    catalogue: Catalogue,
    /// Verifier by role, and memberships with their grantors.
    secrets: BTreeMap<String, String>,
    memberships: Vec<String>,
    /// Digest of everything in a database, by name.
    contents: BTreeMap<String, String>,
    server: String,
    file_exists: bool,
}

const CONTENTS: &str = "SELECT md5(concat(
  (SELECT string_agg(concat_ws(' ', oid, relname, relowner, relacl, relrowsecurity, relhastriggers), ',' ORDER BY oid) FROM pg_class
    WHERE relnamespace::regnamespace::text NOT LIKE 'pg_t%'),
  (SELECT string_agg(concat_ws(' ', oid, proname, proowner, proacl, prosrc), ',' ORDER BY oid) FROM pg_proc
    WHERE pronamespace::regnamespace::text NOT LIKE 'pg_t%'),
  (SELECT string_agg(concat_ws(' ', oid, nspname, nspacl), ',' ORDER BY oid) FROM pg_namespace WHERE nspname NOT LIKE 'pg_t%'),
  (SELECT string_agg(t::text, ',' ORDER BY oid) FROM pg_trigger t),
  (SELECT string_agg(extname, ',' ORDER BY oid) FROM pg_extension),
  (SELECT string_agg(l::text, ',' ORDER BY oid) FROM pg_largeobject_metadata l),
  (SELECT string_agg(d::text, ',' ORDER BY oid) FROM pg_default_acl d),
  (SELECT string_agg(e::text, ',' ORDER BY oid) FROM pg_event_trigger e),
  (SELECT string_agg(p::text, ',' ORDER BY oid) FROM pg_publication p)))";

const SERVER: &str = "SELECT concat(
  (SELECT string_agg(concat_ws(' ', name, setting), ',' ORDER BY name) FROM pg_file_settings),
  (SELECT string_agg(slot_name, ',') FROM pg_replication_slots), (SELECT string_agg(subname, ',') FROM pg_subscription),
  (SELECT string_agg(spcname, ',') FROM pg_tablespace))";

async fn text(connection: &mut PgConnection, query: &'static str) -> String {
    sqlx::query_scalar::<_, Option<String>>(query).fetch_one(connection).await.unwrap().unwrap_or_default()
}

pub async fn state(fleet: &mut Fleet) -> State {
    let mut contents = BTreeMap::new();
    for database in [fleet.tenants[0].name(), fleet.tenants[1].name(), "postgres".into(), "template1".into()] {
        if !fleet.watchers.contains_key(&database) {
            let connection = fleet.instance.superuser(&database).await;
            fleet.watchers.insert(database.clone(), connection);
        }
        let connection = fleet.watchers.get_mut(&database).unwrap();
        let mut digest = text(connection, CONTENTS).await;
        if names::tenant_of(&database).is_some() {
            for table in ["assets", "users", "maintenance_os_migrations"] {
                let rows = format!("SELECT string_agg(t::text, ',' ORDER BY t::text) FROM public.{table} t");
                let rows: Option<String> =
                    sqlx::query_scalar(AssertSqlSafe(rows)).fetch_one(&mut *connection).await.unwrap();
                digest.extend([" ", table, ": ", &rows.unwrap_or_default()]);
            }
        }
        contents.insert(database, digest);
    }
    let superuser = &mut fleet.superuser;
    let verifiers =
        "SELECT rolname::text, coalesce(rolpassword, '') || coalesce(rolvaliduntil::text, '') FROM pg_authid";
    let memberships = "SELECT concat_ws(' ', roleid::regrole, member::regrole, grantor::regrole, admin_option, set_option) FROM pg_auth_members ORDER BY 1";
    State {
        catalogue: inventory::all(superuser).await.unwrap().catalogue,
        secrets: sqlx::query_as::<_, (String, String)>(verifiers)
            .fetch_all(&mut *superuser)
            .await
            .unwrap()
            .into_iter()
            .collect(),
        memberships: sqlx::query_scalar(memberships).fetch_all(&mut *superuser).await.unwrap(),
        contents,
        server: text(superuser, SERVER).await,
        file_exists: Path::new(FILE).exists() || rootfs().join(&FILE[1..]).exists(),
    }
}

impl State {
    /// Without what a tenant may change of itself. A tenant may take on the roles that its login is a member of, and change
    /// the settings and the password of those too; nobody logs in as them, and settings of a group have no effect.
    fn without_own(mut self, tenant: &Tenant) -> Self {
        let own = tenant.name();
        self.contents.remove(&own);
        self.catalogue.roles.retain(|name, _| !name.starts_with(&own));
        self.secrets.retain(|name, _| !name.starts_with(&own));
        for shared in [names::APP_ROLE, names::TENANTS_ROLE] {
            self.catalogue.roles.get_mut(shared).unwrap().settings.clear();
            self.catalogue.roles.get_mut(shared).unwrap().holds = true;
            self.secrets.remove(shared);
        }
        self
    }
}

/// How an attack was answered: what was seen, or the SQLSTATE (empty: no session) and the message.
pub type Answer = Result<String, (String, String)>;

fn rows(rows: &[PgRow]) -> String {
    let cells = rows.iter().flat_map(|row| (0..row.len()).map(|index| row.try_get_raw(index).unwrap()));
    cells.filter(|cell| !cell.is_null()).map(|cell| cell.as_str().unwrap_or("(binary)").to_owned() + "\n").collect()
}

/// Runs the statements in one session, one message each, so that what comes after a refused one is tried too. A refusal is
/// one only when all of them are refused alike.
pub async fn attempt(options: PgConnectOptions, statements: &str) -> Answer {
    let refused = |error: sqlx::Error, session: bool| {
        let code = error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned));
        (if session { code.unwrap_or_else(|| "?".into()) } else { String::new() }, error.to_string())
    };
    let work = async {
        let mut connection = options.connect().await.map_err(|error| refused(error, false))?;
        let (mut seen, mut done, mut problems) = (String::new(), 0, Vec::new());
        for statement in statements.split(";; ") {
            match sqlx::raw_sql(AssertSqlSafe(statement)).fetch_all(&mut connection).await {
                Ok(answer) => {
                    seen += &rows(&answer);
                    done += 1;
                }
                Err(error) => problems.push(refused(error, true)),
            }
        }
        let _ = connection.close().await;
        let Some(first) = problems.first().cloned() else { return Ok(seen) };
        let alike = done == 0 && problems.iter().all(|(code, _)| *code == first.0);
        if alike { Err(first) } else { Err(("mixed".into(), format!("{done} done {seen}; refused: {problems:?}"))) }
    };
    tokio::time::timeout(DEADLINE, work).await.expect("an attack hangs")
}

/// Lines that differ.
fn changes(before: &State, after: &State) -> String {
    let (before, after) = (format!("{before:#?}"), format!("{after:#?}"));
    let only_in = |one: &str, other: &str, sign: char| -> String {
        let other: BTreeSet<_> = other.lines().collect();
        one.lines().filter(|line| !other.contains(line)).map(|line| format!("{sign}{line}\n")).collect()
    };
    only_in(&before, &after, '-') + &only_in(&after, &before, '+')
}

/// What is wrong with how the attack came out.
pub fn judge(
    expected: Expected,
    attacker: &Tenant,
    victim: &Tenant,
    answer: &Answer,
    before: &State,
    after: &State,
) -> Result<(), String> {
    if expected == Expected::Own {
        let changes = changes(&before.clone().without_own(attacker), &after.clone().without_own(attacker));
        if !changes.is_empty() {
            return Err(format!("it changed what is not the attacker's own:\n{changes}"));
        }
    } else if before != after {
        return Err(format!("it had an effect:\n{}", changes(before, after)));
    }
    let told = match answer {
        Ok(seen) => seen,
        Err((_, message)) => message,
    };
    for secret in [&victim.secret, &victim.password, &victim.wanted.verifier] {
        if told.contains(secret) {
            return Err(format!("it was shown {secret:?}: {told}"));
        }
    }
    match (expected, answer) {
        (Expected::NoLogin, Err((code, _))) if code.is_empty() => Ok(()),
        (Expected::Denied(wanted), Err((code, _))) if code == wanted => Ok(()),
        (Expected::Nothing | Expected::Own, Ok(_)) => Ok(()),
        _ => Err(format!("it is to be {expected:?} and was answered {answer:?}")),
    }
}

/// What went wrong, over all lines.
#[derive(Default)]
pub struct Verdict(Vec<String>);

impl Verdict {
    pub fn note(&mut self, line: &str, judged: Result<(), String>) {
        self.0.extend(judged.err().map(|why| format!("{line}: {why}")));
    }

    pub fn give(self) {
        assert!(self.0.is_empty(), "{}", self.0.join("\n\n"));
    }
}
