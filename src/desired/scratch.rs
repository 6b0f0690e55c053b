//! Databases that a backup is restored into to see whether it restores.
//!
//! A dump is a program that whoever wrote to the tenant's database had a hand in. It runs as a role that lives as long as the
//! scratch database, owns it and nothing else, and that `pg_hba.conf` lets into the database of its own name only, as it does
//! with tenants' logins.

use uuid::Uuid;

use super::names;
use super::sql::{Batch, Statement};

const PREFIX: &str = "maintenance_os_scratch_";

/// Name of the database and of its role: when it was made, in seconds since 1970, and something that makes it unique.
pub fn name(made: i64, id: &str) -> String {
    format!("{PREFIX}{made}_{id}")
}

/// Makes a name unique, and says whose backup is restored there.
pub fn id(tenant: Uuid, random: Uuid) -> String {
    format!("{}{}", of(tenant), &random.simple().to_string()[..6])
}

fn of(tenant: Uuid) -> String {
    tenant.simple().to_string()[20..].to_owned()
}

/// Whether a backup of this tenant was restored there.
pub fn is_of(name: &str, tenant: Uuid) -> bool {
    let id = name.strip_prefix(PREFIX).and_then(|rest| rest.split_once('_')).map(|(_, id)| id);
    id.is_some_and(|id| id.starts_with(&of(tenant)))
}

/// When it was made; None: it is no scratch database.
pub fn made(name: &str) -> Option<i64> {
    name.strip_prefix(PREFIX)?.split('_').next()?.parse().ok()
}

/// Makes the database and its role. Nobody gets in before PUBLIC is out.
pub fn create(name: &str, verifier: &str, provisioner: &str) -> Vec<Batch> {
    let owned = |name: &str| name.to_owned();
    vec![
        Batch::transaction(vec![
            Statement::CreateRole {
                name: owned(name),
                login: true,
                verifier: Some(owned(verifier)),
                member_of: vec![owned(names::TENANTS_ROLE)],
            },
            // Only a member may give a database away.
            Statement::GrantRole { role: owned(name), to: owned(provisioner) },
        ]),
        Batch::alone(Statement::CreateDatabase { name: owned(name), template: "template0".into() }),
        Batch::transaction(vec![
            Statement::RevokeDatabase { name: owned(name), from: String::new() },
            Statement::DatabaseOwner { name: owned(name), owner: owned(name) },
            Statement::ConnectionLimit { name: owned(name), limit: 5 },
            Statement::AllowConnections { name: owned(name), allow: true },
        ]),
    ]
}

/// Removes both, whatever of them is there.
pub fn remove(name: &str, has_database: bool, has_role: bool) -> Vec<Batch> {
    let mut batches = Vec::new();
    if has_database {
        batches.push(Batch::transaction(vec![Statement::AllowConnections { name: name.to_owned(), allow: false }]));
        batches.push(Batch::transaction(vec![Statement::EndSessions { name: name.to_owned() }]));
        batches.push(Batch::alone(Statement::DropDatabase { name: name.to_owned() }));
    }
    if has_role {
        batches.push(Batch::transaction(vec![Statement::DropRole { name: name.to_owned() }]));
    }
    batches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_when_it_was_made_and_is_no_tenants() {
        let name = name(1_795_000_000, "0123456789ab");
        assert_eq!(made(&name), Some(1_795_000_000));
        assert_eq!(names::tenant_of(&name), None);
        assert!(name.len() <= 63);
        let (acme, globex) = (Uuid::from_u128(7), Uuid::from_u128(8));
        let of_acme = super::name(1_795_000_000, &id(acme, Uuid::from_u128(u128::MAX)));
        assert!(of_acme.len() <= 63 && is_of(&of_acme, acme) && !is_of(&of_acme, globex) && made(&of_acme).is_some());
        assert_eq!(made("tenant_00000000-0000-0000-0000-000000000007"), None);
        assert_eq!(made("maintenance_os_warm_0001_aaaaaaaa"), None);
    }

    #[test]
    fn the_database_is_opened_when_public_is_out() {
        let batches = create("maintenance_os_scratch_1_a", "verifier", names::PROVISIONER);
        let text: Vec<_> = batches.iter().map(Batch::text).collect();
        assert!(text[1].ends_with("ALLOW_CONNECTIONS false"), "{text:?}");
        let (revoke, allow) = (text[2].find("FROM PUBLIC").unwrap(), text[2].find("ALLOW_CONNECTIONS true").unwrap());
        assert!(revoke < allow);
    }
}
