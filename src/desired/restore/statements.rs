//! What a restore runs on a server, in batches that each are one transaction.

use jiff::Timestamp;
use uuid::Uuid;

use super::marks::{BesideMark, ReplacedMark};
use crate::desired::catalogue::{Catalogue, Role};
use crate::desired::database::Mark;
use crate::desired::sql::{Batch, Statement};
use crate::desired::{names, scram};

/// The login that fills a database beside needs one connection, and whoever looks at it one more.
const CONNECTIONS: i32 = 5;

/// Makes the database, closed to everybody, from the template without tables: with its owner, its schema's rights and its
/// default privileges.
pub fn create(restore: Uuid, bare: &str) -> Batch {
    Batch::alone(Statement::CreateDatabase { name: names::beside(restore), template: bare.to_owned() })
}

/// Says what it is for.
pub fn claim(restore: Uuid, tenant: Uuid) -> Batch {
    let name = names::beside(restore);
    Batch::transaction(vec![
        Statement::RevokeDatabase { name: name.clone(), from: String::new() },
        Statement::ConnectionLimit { name: name.clone(), limit: CONNECTIONS },
        Statement::CommentDatabase { name, comment: BesideMark { restore, tenant, schema: None }.text() },
    ])
}

/// Lets the login in that fills it, and nobody else. It enters the database of its own name only (`samerole` in
/// `pg_hba.conf`), and makes there what belongs to the role that owns every tenant's tables. None: it is so.
pub fn let_in(restore: Uuid, password: &str, catalogue: &Catalogue) -> Option<Batch> {
    let name = names::beside(restore);
    let verifier = scram::verifier(password);
    let note = scram::fingerprint(&verifier);
    let database = catalogue.databases.get(&name)?;
    let role = catalogue.roles.get(&name);
    let wanted = [names::SCHEMA_ROLE, names::TENANTS_ROLE].map(str::to_owned);
    let is_right = |role: &Role| {
        role.login && role.comment.as_deref() == Some(&note) && wanted.iter().all(|of| role.member_of.contains(of))
    };
    let may_connect = database.grants.get(&name).is_some_and(|granted| granted.contains("CONNECT"));
    if role.is_some_and(is_right) && may_connect && database.allow_connections {
        return None;
    }
    let mut statements = Vec::new();
    if role.is_some() {
        statements.extend(drop_login(restore, catalogue));
    }
    statements.extend([
        Statement::CreateRole { name: name.clone(), login: true, verifier: Some(verifier), member_of: wanted.into() },
        Statement::CommentRole { name: name.clone(), comment: note },
        Statement::GrantDatabase { name: name.clone(), privileges: vec!["CONNECT"], to: name.clone() },
        Statement::AllowConnections { name, allow: true },
    ]);
    Some(Batch::transaction(statements))
}

/// It was filled and compared: closed to everybody, with what is in it.
pub fn seal(restore: Uuid, tenant: Uuid, schema: &str) -> Batch {
    let name = names::beside(restore);
    let mark = BesideMark { restore, tenant, schema: Some(schema.to_owned()) };
    Batch::transaction(vec![
        Statement::AllowConnections { name: name.clone(), allow: false },
        Statement::CommentDatabase { name, comment: mark.text() },
    ])
}

/// Lets the migrator in.
pub fn open_to_migrator(restore: Uuid) -> Batch {
    let name = names::beside(restore);
    Batch::transaction(vec![
        Statement::GrantDatabase { name: name.clone(), privileges: vec!["CONNECT"], to: names::MIGRATOR.into() },
        Statement::AllowConnections { name, allow: true },
    ])
}

/// The login that filled it goes. Empty: it is gone.
pub fn drop_login(restore: Uuid, catalogue: &Catalogue) -> Vec<Statement> {
    let name = names::beside(restore);
    if !catalogue.roles.contains_key(&name) {
        return Vec::new();
    }
    let mut statements = vec![
        Statement::RoleLogin { name: name.clone(), login: false },
        Statement::EndSessionsOf { name: name.clone() },
    ];
    if catalogue.databases.get(&name).is_some_and(|database| database.grants.contains_key(&name)) {
        statements.push(Statement::RevokeDatabase { name: name.clone(), from: name.clone() });
    }
    statements.push(Statement::DropRole { name });
    statements
}

/// Removes the database beside and its login, whatever of them is there. A database of that name that says it is something
/// else stays.
pub fn remove(restore: Uuid, catalogue: &Catalogue) -> Vec<Batch> {
    let name = names::beside(restore);
    let mut batches = Vec::new();
    let ours = |comment: Option<&str>| {
        comment.is_none_or(|comment| BesideMark::parse(comment).is_some_and(|mark| mark.restore == restore))
    };
    if catalogue.databases.get(&name).is_some_and(|database| ours(database.comment.as_deref())) {
        batches.push(Batch::transaction(vec![Statement::AllowConnections { name: name.clone(), allow: false }]));
        batches.push(Batch::transaction(vec![Statement::EndSessions { name: name.clone() }]));
        batches.push(Batch::alone(Statement::DropDatabase { name: name.clone() }));
    }
    if catalogue.roles.contains_key(&name) {
        // With the database went what it had a right on.
        batches.push(Batch::transaction(vec![
            Statement::RoleLogin { name: name.clone(), login: false },
            Statement::EndSessionsOf { name: name.clone() },
            Statement::DropRole { name },
        ]));
    }
    batches
}

/// Who gets the restored data, and how long what was there before is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The TenantRestore.
    pub restore: Uuid,
    /// The tenant.
    pub tenant: Uuid,
    /// The Tenant object.
    pub object_uid: Uuid,
    /// The leadership term.
    pub epoch: u64,
    /// Schema of the restored tables.
    pub schema: String,
    /// When what was there before may be dropped.
    pub drop_after: Timestamp,
}

/// Closes both databases: a rename needs ones without sessions, and a session is gone some milliseconds after it was ended.
/// That they are closed has to be committed before, so that none comes back.
pub fn close(swap: &Swap, catalogue: &Catalogue) -> Vec<Batch> {
    let names = [names::database(swap.tenant), names::beside(swap.restore)];
    let there: Vec<_> = names.into_iter().filter(|name| catalogue.databases.contains_key(name)).collect();
    let close = |name: &String| Statement::AllowConnections { name: name.clone(), allow: false };
    let end = |name: &String| Statement::EndSessions { name: name.clone() };
    vec![Batch::transaction(there.iter().map(close).collect()), Batch::transaction(there.iter().map(end).collect())]
}

/// The restored database takes the place of the live one: all of it, with its marks, or nothing. The rights on it, its limits
/// and its settings are the Tenant's next visit's, as after a claim.
pub fn swap(swap: &Swap, catalogue: &Catalogue) -> Batch {
    let (live, beside, replaced) =
        (names::database(swap.tenant), names::beside(swap.restore), names::replaced(swap.restore));
    let mut statements = Vec::new();
    if let Some(database) = catalogue.databases.get(&live) {
        let schema = database.comment.as_deref().and_then(Mark::parse).map(|mark| mark.schema).unwrap_or_default();
        let mark = ReplacedMark { restore: swap.restore, tenant: swap.tenant, schema, drop_after: swap.drop_after };
        statements.push(Statement::RenameDatabase { from: live.clone(), to: replaced.clone() });
        statements.push(Statement::CommentDatabase { name: replaced.clone(), comment: mark.text() });
        // A role that has a right on a database is not dropped, and the tenant may be gone before this one is.
        let grantees = database.grants.keys();
        statements.extend(
            grantees.map(|grantee| Statement::RevokeDatabase { name: replaced.clone(), from: grantee.clone() }),
        );
    }
    let mark = Mark {
        uuid: swap.tenant,
        object_uid: swap.object_uid,
        epoch: swap.epoch,
        schema: swap.schema.clone(),
        restore: Some(swap.restore),
    };
    statements.push(Statement::RenameDatabase { from: beside, to: live.clone() });
    statements.push(Statement::CommentDatabase { name: live, comment: mark.text() });
    Batch::transaction(statements)
}

/// Drops a database whose place another one has taken, when its mark says that its time has passed. None: it is to stay.
pub fn drop_replaced(restore: Uuid, tenant: Uuid, now: Timestamp, catalogue: &Catalogue) -> Option<Vec<Batch>> {
    let name = names::replaced(restore);
    let Some(database) = catalogue.databases.get(&name) else { return Some(Vec::new()) };
    let mark = database.comment.as_deref().and_then(ReplacedMark::parse)?;
    if mark.restore != restore || mark.tenant != tenant || mark.drop_after > now {
        return None;
    }
    Some(vec![
        Batch::transaction(vec![Statement::AllowConnections { name: name.clone(), allow: false }]),
        Batch::transaction(vec![Statement::EndSessions { name: name.clone() }]),
        Batch::alone(Statement::DropDatabase { name }),
    ])
}
