//! A tenant's database and logins on its server.
//!
//! From      `Plan.spec.database`, `Tenant.spec.state`, the ledger's word on whether a database was ever made
//! Makes     database `tenant_<uuid>`, its group role, its login; all by statements in `postgres`
//! Ready     when the catalogue shows what is wanted
//! Teardown  released (Retain: logins go, data and mark stay) or quarantined (Delete: closed, renamed, dropped later)
//!
//! One comparison makes and repairs: a claim renames a warm database and then repairs what it finds there.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use uuid::Uuid;

use super::catalogue::{Catalogue, Database, Role};
use super::names::{self, Slot};
use super::retire::{self, Renewal};
use super::scram;
use super::sql::{Batch, Statement};

/// What a tenant is to have on its server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The tenant.
    pub uuid: Uuid,
    /// The Kubernetes object that has it now.
    pub object_uid: Uuid,
    /// The leadership term that makes the database.
    pub epoch: u64,
    /// Connection limit of the database.
    pub connection_limit: i32,
    /// Longest statement.
    pub statement_timeout: Duration,
    /// Whether the login may log in.
    pub login: bool,
    /// Whether transactions are read-only unless the app says otherwise.
    pub read_only: bool,
    /// Which login is in use.
    pub slot: Slot,
    /// Its SCRAM verifier.
    pub verifier: String,
    /// The other login stays as it is, because somebody may still use it.
    pub kept: Option<Slot>,
}

impl Wanted {
    /// The name that the active login has.
    pub fn login_name(&self) -> String {
        names::login(self.uuid, self.slot)
    }
}

/// How the server stands to what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Nothing to do.
    InPlace,
    /// To be run as one transaction.
    Differs(Batch),
    /// No database of that name, and none in quarantine.
    Absent,
    /// Closed off under its quarantine name.
    Quarantined,
    /// Something of that name is not ours, or beyond our rights; what.
    Foreign(String),
}

/// The mark on a database: who it belongs to. No customer data: every login can read it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The tenant.
    pub uuid: Uuid,
    /// The Kubernetes object that has it.
    pub object_uid: Uuid,
    /// The leadership term in which it was written.
    pub epoch: u64,
    /// Schema (`<version>_<checksum>`) of the tables in it.
    pub schema: String,
    /// The TenantRestore that brought the data here, if one did: what was remembered of the tenant before counts no more.
    pub restore: Option<Uuid>,
}

impl Mark {
    /// Its text on the server.
    pub fn text(&self) -> String {
        let restore = self.restore.map(|restore| format!(" restore={restore}")).unwrap_or_default();
        format!(
            "maintenance-os/1 tenant={} object={} epoch={} schema={}{restore}",
            self.uuid, self.object_uid, self.epoch, self.schema
        )
    }

    /// The mark in a comment; None: not one of ours.
    pub fn parse(comment: &str) -> Option<Self> {
        let mut words = comment.strip_prefix("maintenance-os/1 ")?.split(' ');
        let mut value = |key: &str| words.next()?.strip_prefix(key)?.strip_prefix('=');
        let mark = Self {
            uuid: value("tenant")?.parse().ok()?,
            object_uid: value("object")?.parse().ok()?,
            epoch: value("epoch")?.parse().ok()?,
            schema: value("schema")?.to_owned(),
            restore: None,
        };
        let restore = match words.next() {
            Some(word) => Some(word.strip_prefix("restore=")?.parse().ok()?),
            None => None,
        };
        words.next().is_none().then_some(Self { restore, ..mark })
    }
}

/// Compares the server with what is wanted.
pub fn standing(wanted: &Wanted, catalogue: &Catalogue) -> Standing {
    let name = names::database(wanted.uuid);
    let Some(database) = catalogue.databases.get(&name) else {
        let quarantined = catalogue.databases.contains_key(&names::quarantined(wanted.uuid));
        return if quarantined { Standing::Quarantined } else { Standing::Absent };
    };
    if let Some(reason) = foreign(wanted, database, catalogue) {
        return Standing::Foreign(reason);
    }
    let statements = repair(wanted, catalogue, "");
    if statements.is_empty() { Standing::InPlace } else { Standing::Differs(Batch::transaction(statements)) }
}

/// One transaction that makes the warm database `warm`, a clone of the template of `schema`, the tenant's, complete with
/// roles and rights. The catalogue has to show the warm database, else its grants would not be known.
pub fn claim(wanted: &Wanted, catalogue: &Catalogue, warm: &str, schema: &str) -> Batch {
    rename_and_repair(wanted, catalogue, warm, schema)
}

/// One transaction that brings a quarantined database back.
pub fn recall(wanted: &Wanted, catalogue: &Catalogue) -> Batch {
    let from = names::quarantined(wanted.uuid);
    rename_and_repair(wanted, catalogue, &from, "")
}

fn rename_and_repair(wanted: &Wanted, catalogue: &Catalogue, from: &str, schema: &str) -> Batch {
    let mut after = catalogue.clone();
    let rename = Statement::RenameDatabase { from: from.to_owned(), to: names::database(wanted.uuid) };
    after.execute(&rename);
    let mut statements = vec![rename];
    statements.extend(repair(wanted, &after, schema));
    Batch::transaction(statements)
}

/// What Retain does on the server: the logins go (see [`retire`]), the data and its mark stay. Empty: nothing left to do.
pub fn release(uuid: Uuid, catalogue: &Catalogue) -> Vec<Statement> {
    logins_of(uuid, catalogue).flat_map(|name| retire::retire(uuid, &name, catalogue)).collect()
}

/// What Delete does on the server at first: closed, sessions ended, renamed. Empty: nothing left to do.
///
/// Two batches: a session is gone some milliseconds after it was ended, and the rename needs a database without any;
/// closing the database has to be committed before, so that none comes back.
pub fn quarantine(uuid: Uuid, catalogue: &Catalogue) -> Vec<Batch> {
    let mut batches = Vec::new();
    let name = names::database(uuid);
    let ours =
        catalogue.databases.get(&name).is_some_and(|database| mark_of(database).is_some_and(|mark| mark.uuid == uuid));
    if ours {
        let close = vec![Statement::AllowConnections { name: name.clone(), allow: false }];
        batches.push(Batch::transaction(close));
        batches.push(Batch::transaction(vec![Statement::EndSessions { name: name.clone() }]));
    }
    let released = release(uuid, catalogue);
    if !released.is_empty() {
        batches.push(Batch::transaction(released));
    }
    if ours {
        batches.push(Batch::transaction(vec![Statement::RenameDatabase { from: name, to: names::quarantined(uuid) }]));
    }
    batches
}

/// What ends a quarantine: the database goes, then its roles. Refused (None) unless the mark is the tenant's.
pub fn destroy(uuid: Uuid, catalogue: &Catalogue) -> Option<Vec<Batch>> {
    let mut batches = Vec::new();
    let name = names::quarantined(uuid);
    if let Some(database) = catalogue.databases.get(&name) {
        if mark_of(database).is_none_or(|mark| mark.uuid != uuid) {
            return None;
        }
        batches.push(Batch::alone(Statement::DropDatabase { name }));
    }
    // Also the logins: with the database went what may have kept them.
    let roles = logins_of(uuid, catalogue).chain([names::database(uuid)]);
    let drops: Vec<_> =
        roles.filter(|name| catalogue.roles.contains_key(name)).map(|name| Statement::DropRole { name }).collect();
    if !drops.is_empty() {
        batches.push(Batch::transaction(drops));
    }
    Some(batches)
}

/// The mark on a database.
pub fn mark_of(database: &Database) -> Option<Mark> {
    database.comment.as_deref().and_then(Mark::parse)
}

fn logins_of(uuid: Uuid, catalogue: &Catalogue) -> impl Iterator<Item = String> {
    Slot::BOTH.map(|slot| names::login(uuid, slot)).into_iter().filter(|name| catalogue.roles.contains_key(name))
}

fn foreign(wanted: &Wanted, database: &Database, catalogue: &Catalogue) -> Option<String> {
    let uuid = wanted.uuid;
    let name = names::database(uuid);
    match mark_of(database) {
        None => return Some(format!("database {name} carries no mark of ours")),
        Some(mark) if mark.uuid != uuid => return Some(format!("database {name} is marked as tenant {}", mark.uuid)),
        Some(_) => {}
    }
    if database.owner != names::PROVISIONER {
        return Some(format!("database {name} belongs to role {} and not to {}", database.owner, names::PROVISIONER));
    }
    let privileged = catalogue.roles.iter().find(|(role, facts)| role.starts_with(&name) && facts.privileged);
    if let Some((role, _)) = privileged {
        return Some(format!(
            "role {role} was made SUPERUSER, REPLICATION or BYPASSRLS: an administrator must take that away"
        ));
    }
    retire::beyond_us(wanted.uuid, &wanted.login_name(), catalogue)
}

/// The statements that lead from the catalogue to what is wanted; the database is there and opened last.
///
/// `schema` is what a new mark says; a database that has a mark keeps the schema that stands there.
fn repair(wanted: &Wanted, catalogue: &Catalogue, schema: &str) -> Vec<Statement> {
    let name = names::database(wanted.uuid);
    let mut statements = match retire::renewal(wanted.uuid, &wanted.login_name(), catalogue) {
        Renewal::None => Vec::new(),
        Renewal::KeepOut(statements) => return statements,
        Renewal::Drop(statements) => statements,
    };
    let mut after = catalogue.clone();
    for statement in &statements {
        after.execute(statement);
    }
    let (catalogue, empty) = (&after, Database::default());
    let database = catalogue.databases.get(&name).unwrap_or(&empty);
    repair_mark(wanted, database, schema, &mut statements);
    repair_role(&name, None, [names::TENANTS_ROLE.to_owned()].into(), catalogue, &mut statements);
    repair_logins(wanted, catalogue, &mut statements);
    repair_members(wanted.uuid, catalogue, &mut statements);
    repair_grants(&name, database, &mut statements);
    repair_settings(wanted, database, &mut statements);
    if !database.allow_connections {
        statements.push(Statement::AllowConnections { name, allow: true });
    }
    statements
}

fn repair_mark(wanted: &Wanted, database: &Database, schema: &str, statements: &mut Vec<Statement>) {
    let before = mark_of(database);
    // The epoch is that of the term which wrote the mark: a new term is no reason to write it again.
    if before.as_ref().is_some_and(|mark| mark.uuid == wanted.uuid && mark.object_uid == wanted.object_uid) {
        return;
    }
    let restore = before.as_ref().and_then(|mark| mark.restore);
    let schema = before.map_or_else(|| schema.to_owned(), |mark| mark.schema);
    let mark = Mark { uuid: wanted.uuid, object_uid: wanted.object_uid, epoch: wanted.epoch, schema, restore };
    statements.push(Statement::CommentDatabase { name: names::database(wanted.uuid), comment: mark.text() });
}

fn repair_logins(wanted: &Wanted, catalogue: &Catalogue, statements: &mut Vec<Statement>) {
    let active = wanted.login_name();
    let memberships = BTreeSet::from([names::database(wanted.uuid), names::APP_ROLE.to_owned()]);
    let note = scram::fingerprint(&wanted.verifier);
    repair_role(&active, Some(&wanted.verifier), memberships, catalogue, statements);
    let before = catalogue.roles.get(&active);
    if before.is_none_or(|role| role.comment.as_deref() != Some(&note)) {
        if before.is_some() {
            statements.push(Statement::RolePassword { name: active.clone(), verifier: wanted.verifier.clone() });
        }
        statements.push(Statement::CommentRole { name: active.clone(), comment: note });
    }
    // A new login may log in already when it is made.
    if before.is_none_or(|role| role.login) != wanted.login {
        statements.push(Statement::RoleLogin { name: active.clone(), login: wanted.login });
        if !wanted.login {
            statements.push(Statement::EndSessionsOf { name: active.clone() });
        }
    }
    let kept = wanted.kept.map(|slot| names::login(wanted.uuid, slot));
    let unused = logins_of(wanted.uuid, catalogue).filter(|name| *name != active && Some(name) != kept.as_ref());
    statements.extend(unused.flat_map(|name| retire::retire(wanted.uuid, &name, catalogue)));
}

/// Makes a role or takes away what it has too much. `verifier` Some: a login.
fn repair_role(
    name: &str,
    verifier: Option<&str>,
    member_of: BTreeSet<String>,
    catalogue: &Catalogue,
    statements: &mut Vec<Statement>,
) {
    let Some(role) = catalogue.roles.get(name) else {
        statements.push(Statement::CreateRole {
            name: name.to_owned(),
            login: verifier.is_some(),
            verifier: verifier.map(str::to_owned),
            member_of: member_of.into_iter().collect(),
        });
        return;
    };
    if role.special || role.connection_limit != -1 {
        statements.push(Statement::RolePlain { name: name.to_owned() });
    }
    if verifier.is_none() && role.login {
        statements.push(Statement::RoleLogin { name: name.to_owned(), login: false });
    }
    for extra in role.member_of.difference(&member_of).chain(role.admin_of.intersection(&member_of)) {
        statements.push(Statement::RevokeRole { role: extra.clone(), from: name.to_owned() });
    }
    for missing in
        member_of.iter().filter(|wanted| !role.member_of.contains(*wanted) || role.admin_of.contains(*wanted))
    {
        statements.push(Statement::GrantRole { role: missing.clone(), to: name.to_owned() });
    }
    let databases: BTreeSet<_> = role.settings.iter().map(|setting| setting.database.clone()).collect();
    statements.extend(databases.into_iter().map(|database| Statement::ResetRole { name: name.to_owned(), database }));
}

/// Nobody but the tenant's own logins is a member of its group; its logins have no members.
fn repair_members(uuid: Uuid, catalogue: &Catalogue, statements: &mut Vec<Statement>) {
    let group = names::database(uuid);
    let logins = Slot::BOTH.map(|slot| names::login(uuid, slot));
    let strangers = |(name, role): (&String, &Role)| -> Vec<Statement> {
        role.member_of
            .iter()
            .filter(|of| (**of == group && !logins.contains(name)) || logins.contains(of))
            .map(|of| Statement::RevokeRole { role: of.clone(), from: name.clone() })
            .collect()
    };
    // Roles of ours are put right by `repair_role`; the provisioner administers every role that it made.
    let others = catalogue.roles.iter().filter(|(name, _)| **name != names::PROVISIONER && !name.starts_with(&group));
    statements.extend(others.flat_map(strangers));
}

fn repair_grants(name: &str, database: &Database, statements: &mut Vec<Statement>) {
    let wanted: BTreeMap<&str, Vec<&'static str>> =
        [(name, vec!["CONNECT", "TEMPORARY"]), (names::MIGRATOR, vec!["CONNECT"]), (names::BACKUP, vec!["CONNECT"])]
            .into();
    for (grantee, granted) in &database.grants {
        let allowed = wanted.get(grantee.as_str());
        if granted.iter().any(|privilege| !allowed.is_some_and(|allowed| allowed.contains(&privilege.as_str()))) {
            statements.push(Statement::RevokeDatabase { name: name.to_owned(), from: grantee.clone() });
        }
    }
    for (grantee, privileges) in wanted {
        let exactly: BTreeSet<String> = privileges.iter().map(|&privilege| privilege.to_owned()).collect();
        if database.grants.get(grantee) != Some(&exactly) {
            statements.push(Statement::GrantDatabase { name: name.to_owned(), privileges, to: grantee.to_owned() });
        }
    }
}

fn repair_settings(wanted: &Wanted, database: &Database, statements: &mut Vec<Statement>) {
    let name = names::database(wanted.uuid);
    if database.connection_limit != wanted.connection_limit {
        statements.push(Statement::ConnectionLimit { name: name.clone(), limit: wanted.connection_limit });
    }
    let mut settings =
        BTreeMap::from([("statement_timeout".to_owned(), wanted.statement_timeout.as_millis().to_string())]);
    if wanted.read_only {
        settings.insert("default_transaction_read_only".into(), "on".into());
    }
    for key in database.settings.keys().filter(|key| !settings.contains_key(*key)) {
        statements.push(Statement::DatabaseSetting { name: name.clone(), key: key.clone(), value: None });
    }
    for (key, value) in settings {
        if database.settings.get(&key) != Some(&value) {
            statements.push(Statement::DatabaseSetting { name: name.clone(), key, value: Some(value) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::catalogue::RoleSetting;
    use super::*;

    fn wanted(number: u128) -> Wanted {
        Wanted {
            uuid: Uuid::from_u128(number),
            object_uid: Uuid::from_u128(number + 1000),
            epoch: 3,
            connection_limit: 25,
            statement_timeout: Duration::from_secs(30),
            login: true,
            read_only: false,
            slot: Slot::A,
            verifier: scram::verifier(&format!("password-{number}")),
            kept: None,
        }
    }

    fn run(catalogue: &mut Catalogue, batch: &Batch) {
        for statement in batch.statements() {
            catalogue.execute(statement);
        }
    }

    fn claimed(wanted: &Wanted) -> Catalogue {
        let mut catalogue = Catalogue::default();
        catalogue.execute(&Statement::CreateDatabase { name: "warm".into(), template: "template".into() });
        let batch = claim(wanted, &catalogue, "warm", "0001_aaaaaaaa");
        run(&mut catalogue, &batch);
        catalogue
    }

    #[test]
    fn a_claim_leaves_nothing_to_repair() {
        let wanted = wanted(1);
        let catalogue = claimed(&wanted);
        assert_eq!(standing(&wanted, &catalogue), Standing::InPlace);
        assert!(catalogue.open_to_public().is_empty());
    }

    type Damage = fn(&mut Catalogue);
    fn login(catalogue: &mut Catalogue) -> &mut Role {
        catalogue.roles.get_mut(&names::login(Uuid::from_u128(1), Slot::A)).expect("claimed")
    }
    fn database(catalogue: &mut Catalogue) -> &mut Database {
        catalogue.databases.get_mut(&names::database(Uuid::from_u128(1))).expect("claimed")
    }

    #[test]
    fn what_somebody_widened_is_taken_back() {
        let (own, other) = (wanted(1), wanted(2));
        let damages: [(&str, Damage); 8] = [
            ("PUBLIC may connect", |c| {
                database(c).grants.insert(String::new(), ["CONNECT".to_owned()].into());
            }),
            ("the login may create databases", |c| login(c).special = true),
            ("a member of another tenant", |c| {
                login(c).member_of.insert(names::database(Uuid::from_u128(2)));
            }),
            ("a stranger in the group", |c| {
                let stranger = Role {
                    connection_limit: -1,
                    member_of: [names::database(Uuid::from_u128(1))].into(),
                    ..Role::default()
                };
                c.roles.insert("mallory".into(), stranger);
            }),
            ("the group may be passed on", |c| {
                login(c).admin_of.insert(names::database(Uuid::from_u128(1)));
            }),
            ("a setting of its own", |c| {
                let setting = RoleSetting { database: String::new(), name: "search_path".into(), value: "evil".into() };
                login(c).settings.push(setting);
            }),
            ("a login that is gone", |c| {
                c.roles.remove(&names::login(Uuid::from_u128(1), Slot::A));
            }),
            ("a limit lifted", |c| database(c).connection_limit = -1),
        ];
        for (what, damage) in damages {
            let mut catalogue = claimed(&own);
            catalogue.databases.extend(claimed(&other).databases);
            catalogue.roles.extend(claimed(&other).roles);
            damage(&mut catalogue);
            let Standing::Differs(batch) = standing(&own, &catalogue.of_tenant(own.uuid)) else {
                panic!("{what}: not noticed")
            };
            run(&mut catalogue, &batch);
            assert_eq!(
                standing(&own, &catalogue.of_tenant(own.uuid)),
                Standing::InPlace,
                "{what}: not put right by {}",
                batch.summary()
            );
            assert_eq!(
                standing(&other, &catalogue.of_tenant(other.uuid)),
                Standing::InPlace,
                "{what}: the other tenant was touched"
            );
        }
    }

    #[test]
    fn a_database_with_no_mark_or_anothers_is_foreign() {
        let wanted = wanted(1);
        for comment in [
            None,
            Some("mine".to_owned()),
            Some(
                Mark {
                    uuid: Uuid::from_u128(9),
                    object_uid: Uuid::nil(),
                    epoch: 0,
                    schema: String::new(),
                    restore: None,
                }
                .text(),
            ),
        ] {
            let mut catalogue = claimed(&wanted);
            catalogue.databases.get_mut(&names::database(wanted.uuid)).expect("claimed").comment = comment;
            assert!(matches!(standing(&wanted, &catalogue), Standing::Foreign(_)));
            assert!(quarantine(wanted.uuid, &catalogue).iter().all(|batch| !batch.text().contains("RENAME")));
        }
    }

    #[test]
    fn a_quarantined_database_comes_back_whole_and_a_foreign_one_is_never_destroyed() {
        let wanted = wanted(1);
        let mut catalogue = claimed(&wanted);
        for batch in quarantine(wanted.uuid, &catalogue.clone()) {
            run(&mut catalogue, &batch);
        }
        assert_eq!(standing(&wanted, &catalogue), Standing::Quarantined);
        assert!(destroy(wanted.uuid, &catalogue).is_some());
        let mut other = catalogue.clone();
        other.databases.get_mut(&names::quarantined(wanted.uuid)).expect("quarantined").comment = None;
        assert_eq!(destroy(wanted.uuid, &other), None);
        let batch = recall(&wanted, &catalogue);
        run(&mut catalogue, &batch);
        assert_eq!(standing(&wanted, &catalogue), Standing::InPlace);
    }

    #[test]
    fn a_mark_is_read_back() {
        let mark = Mark {
            uuid: Uuid::from_u128(1),
            object_uid: Uuid::from_u128(2),
            epoch: 7,
            schema: "0001_ab".into(),
            restore: None,
        };
        assert_eq!(Mark::parse(&mark.text()), Some(mark.clone()));
        assert_eq!(Mark::parse(&format!("{} and more", mark.text())), None);
    }
}
