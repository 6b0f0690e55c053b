//! A PostgreSQL server's shared catalogue as far as we care, and what each statement does to it.
//!
//! The inventory query fills it; a statement that succeeded is executed on it too, so that the view stays true between
//! two inventories without asking again; and the convergence tests run against it alone.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use uuid::Uuid;

use super::names;
use super::sql::Statement;

/// Databases and roles of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Catalogue {
    /// By name.
    pub databases: BTreeMap<String, Database>,
    /// By name.
    pub roles: BTreeMap<String, Role>,
}

/// One database.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Database {
    /// Name of the owner.
    pub owner: String,
    /// `ALLOW_CONNECTIONS`.
    pub allow_connections: bool,
    /// -1: without limit.
    pub connection_limit: i32,
    /// `COMMENT ON DATABASE`: our mark, or somebody's text.
    pub comment: Option<String>,
    /// Grantee ("" is PUBLIC) to privileges (`CONNECT`, `CREATE`, `TEMPORARY`), without the owner's own.
    pub grants: BTreeMap<String, BTreeSet<String>>,
    /// `ALTER DATABASE … SET`.
    pub settings: BTreeMap<String, String>,
}

/// One role.
#[expect(clippy::struct_excessive_bools, reason = "attributes of a role are yes or no in PostgreSQL too")]
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct Role {
    /// May log in.
    pub login: bool,
    /// CREATEDB, CREATEROLE, NOINHERIT or an expiry: what a plain role has not and we can take away.
    pub special: bool,
    /// SUPERUSER, REPLICATION or BYPASSRLS, which only an administrator can take away.
    pub privileged: bool,
    /// -1: without limit.
    pub connection_limit: i32,
    /// Roles that it is a member of.
    pub member_of: BTreeSet<String>,
    /// Memberships it may pass on to others (`WITH ADMIN OPTION`).
    #[serde(default)]
    pub admin_of: BTreeSet<String>,
    /// Memberships that somebody else granted and that we therefore cannot revoke (PostgreSQL ≥ 16).
    #[serde(default)]
    pub granted_by_others: BTreeSet<String>,
    /// Something in a database belongs to it or is granted to it, so that it cannot be dropped.
    #[serde(default)]
    pub holds: bool,
    /// `ALTER ROLE … [IN DATABASE …] SET`: (database or "", name) to value.
    #[serde(default)]
    pub settings: Vec<RoleSetting>,
    /// `COMMENT ON ROLE`: which verifier it was given.
    pub comment: Option<String>,
}

/// One setting of a role.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RoleSetting {
    /// "" is every database.
    pub database: String,
    /// Name of the parameter.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Names whose values are not the same in both.
fn differing<'a, T: PartialEq>(
    one: &'a BTreeMap<String, T>,
    other: &'a BTreeMap<String, T>,
) -> impl Iterator<Item = &'a str> {
    let changed = one.iter().filter(|(name, value)| other.get(*name) != Some(value));
    let gone = other.iter().filter(|(name, _)| !one.contains_key(*name));
    changed.chain(gone).map(|(name, _)| name.as_str())
}

impl Catalogue {
    /// What belongs to one tenant: its database under either name, its roles, and whoever is a member of them. Walks all
    /// roles; where it is asked for one tenant after the other, see [`Self::part`].
    #[must_use]
    pub fn of_tenant(&self, uuid: Uuid) -> Self {
        self.part(uuid, &self.outsiders())
    }

    /// Names of roles that are a member of a tenant's role without being that tenant's own. No statement of ours makes
    /// one, so that they stay known until the next inventory.
    pub fn outsiders(&self) -> BTreeSet<String> {
        let outside = |name: &str, role: &Role| {
            let groups = role.member_of.iter().filter_map(|of| names::tenant_of(of)).map(names::database);
            groups.into_iter().any(|group| !name.starts_with(&group))
        };
        let roles = self.roles.iter().filter(|(name, role)| *name != names::PROVISIONER && outside(name, role));
        roles.map(|(name, _)| name.clone()).collect()
    }

    /// [`Self::of_tenant`] where `outsiders` are known, in the time that its own roles and the outsiders take.
    #[must_use]
    pub fn part(&self, uuid: Uuid, outsiders: &BTreeSet<String>) -> Self {
        let group = names::database(uuid);
        let own = self.roles.range(group.clone()..).take_while(|(name, _)| name.starts_with(&group));
        let member = |role: &Role| role.member_of.iter().any(|of| of.starts_with(&group));
        let others =
            outsiders.iter().filter_map(|name| self.roles.get_key_value(name)).filter(|(_, role)| member(role));
        Self {
            databases: [group.clone(), names::quarantined(uuid)]
                .into_iter()
                .filter_map(|name| self.databases.get(&name).map(|database| (name, database.clone())))
                .collect(),
            roles: own.chain(others).map(|(name, role)| (name.clone(), role.clone())).collect(),
        }
    }

    /// Warm databases that have this schema.
    pub fn warm<'a>(&'a self, schema: &'a str) -> impl Iterator<Item = &'a str> {
        let warm = self.databases.range(names::WARM_PREFIX.to_owned()..);
        let warm = warm.map(|(name, _)| name.as_str()).take_while(|name| name.starts_with(names::WARM_PREFIX));
        warm.filter(move |name| names::is_warm_of(name, schema))
    }

    /// Tenants whose part is not the same in another view: whose databases or roles differ, or the roles of whose members.
    pub fn differing(&self, other: &Self) -> BTreeSet<Uuid> {
        let databases = differing(&self.databases, &other.databases).filter_map(names::tenant_of);
        let roles = differing(&self.roles, &other.roles).flat_map(|name| {
            let members = [&self.roles, &other.roles].into_iter().filter_map(|roles| roles.get(name));
            let of = members.flat_map(|role| &role.member_of).map(String::as_str);
            of.chain([name]).filter_map(names::tenant_of).collect::<Vec<_>>()
        });
        databases.chain(roles).collect()
    }

    /// Databases that PUBLIC may connect to and that accept connections: what makes a server not isolated.
    pub fn open_to_public(&self) -> Vec<&str> {
        self.databases
            .iter()
            .filter(|(_, database)| {
                database.allow_connections && database.grants.get("").is_some_and(|granted| granted.contains("CONNECT"))
            })
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// Does to this view what PostgreSQL did when `statement` succeeded.
    pub fn execute(&mut self, statement: &Statement) {
        match statement {
            Statement::CreateDatabase { name, .. } | Statement::CreateEmptyDatabase { name } => {
                let public = ["CONNECT", "TEMPORARY"].map(str::to_owned).into();
                let database = Database {
                    owner: names::PROVISIONER.into(),
                    allow_connections: matches!(statement, Statement::CreateEmptyDatabase { .. }),
                    connection_limit: -1,
                    grants: [(String::new(), public)].into(),
                    ..Database::default()
                };
                self.databases.entry(name.clone()).or_insert(database);
            }
            Statement::RenameDatabase { from, to } => {
                if let Some(database) = self.databases.remove(from) {
                    self.databases.insert(to.clone(), database);
                }
            }
            Statement::DropDatabase { name } => drop(self.databases.remove(name)),
            Statement::CreateRole { name, login, member_of, .. } => {
                let role = Role {
                    login: *login,
                    connection_limit: -1,
                    member_of: member_of.iter().cloned().collect(),
                    ..Role::default()
                };
                self.roles.insert(name.clone(), role);
            }
            Statement::DropRole { name } => {
                self.roles.remove(name);
                for role in self.roles.values_mut() {
                    role.member_of.remove(name);
                    role.admin_of.remove(name);
                    role.granted_by_others.remove(name);
                }
            }
            Statement::EndSessions { .. } | Statement::EndSessionsOf { .. } => {}
            other => self.alter(other),
        }
    }

    fn alter(&mut self, statement: &Statement) {
        if let Some(database) = statement.database().and_then(|name| self.databases.get_mut(name)) {
            match statement {
                Statement::CommentDatabase { comment, .. } => database.comment = Some(comment.clone()),
                Statement::AllowConnections { allow, .. } => database.allow_connections = *allow,
                Statement::DatabaseOwner { owner, .. } => database.owner.clone_from(owner),
                Statement::ConnectionLimit { limit, .. } => database.connection_limit = *limit,
                Statement::DatabaseSetting { key, value: Some(value), .. } => {
                    drop(database.settings.insert(key.clone(), value.clone()));
                }
                Statement::DatabaseSetting { key, value: None, .. } => drop(database.settings.remove(key)),
                Statement::GrantDatabase { privileges, to, .. } => {
                    database
                        .grants
                        .entry(to.clone())
                        .or_default()
                        .extend(privileges.iter().map(|&privilege| privilege.to_owned()));
                }
                Statement::RevokeDatabase { from, .. } => drop(database.grants.remove(from)),
                _ => {}
            }
        }
        if let Some(role) = statement.role().and_then(|name| self.roles.get_mut(name)) {
            match statement {
                Statement::RoleLogin { login, .. } => role.login = *login,
                Statement::RolePlain { .. } => {
                    role.special = false;
                    role.connection_limit = -1;
                }
                Statement::CommentRole { comment, .. } => role.comment = Some(comment.clone()),
                Statement::GrantRole { role: granted, .. } => drop(role.member_of.insert(granted.clone())),
                // What somebody else granted stays, and PostgreSQL only warns.
                Statement::RevokeRole { role: revoked, .. } if role.granted_by_others.contains(revoked) => {}
                Statement::RevokeRole { role: revoked, .. } => {
                    role.member_of.remove(revoked);
                    role.admin_of.remove(revoked);
                }
                Statement::RoleSetting { key, value, .. } => {
                    role.settings.retain(|setting| !(setting.database.is_empty() && setting.name == *key));
                    role.settings.push(RoleSetting {
                        database: String::new(),
                        name: key.clone(),
                        value: value.clone(),
                    });
                }
                Statement::ResetRole { database, .. } => role.settings.retain(|setting| setting.database != *database),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desired::names::Slot;

    #[test]
    fn a_difference_is_put_down_to_the_tenants_that_it_concerns() {
        let [one, two] = [1, 2].map(Uuid::from_u128);
        let role = |member_of: &[String]| Role { member_of: member_of.iter().cloned().collect(), ..Role::default() };
        let mut before = Catalogue::default();
        for uuid in [one, two] {
            before.databases.insert(names::database(uuid), Database::default());
            before.roles.insert(names::database(uuid), role(&[]));
            before.roles.insert(names::login(uuid, Slot::A), role(&[names::database(uuid)]));
        }
        before.roles.insert("postgres".into(), role(&[]));
        let differing = |change: fn(&mut Catalogue)| {
            let mut now = before.clone();
            change(&mut now);
            assert_eq!(now.differing(&before), before.differing(&now));
            now.differing(&before)
        };
        assert_eq!(differing(|_| {}), [].into());
        assert_eq!(differing(|now| drop(now.databases.remove(&names::database(Uuid::from_u128(1))))), [one].into());
        assert_eq!(
            differing(|now| now.roles.get_mut(&names::login(Uuid::from_u128(2), Slot::A)).expect("there").login = true),
            [two].into()
        );
        assert_eq!(
            differing(|now| {
                let stranger = Role { member_of: [names::database(Uuid::from_u128(1))].into(), ..Role::default() };
                now.roles.insert("stranger".into(), stranger);
            }),
            [one].into(),
            "a stranger in a tenant's group"
        );
        assert_eq!(differing(|now| drop(now.roles.remove("postgres"))), [].into());
        assert_eq!(
            differing(|now| {
                let database = now.databases.remove(&names::database(Uuid::from_u128(2))).expect("there");
                now.databases.insert(names::quarantined(Uuid::from_u128(2)), database);
            }),
            [two].into()
        );
    }

    #[test]
    fn a_tenants_part_is_its_own_and_whoever_is_a_member_of_it() {
        let [one, two] = [0xab, 2].map(Uuid::from_u128);
        let role = |member_of: &[String]| Role { member_of: member_of.iter().cloned().collect(), ..Role::default() };
        let mut catalogue = Catalogue::default();
        for uuid in [one, two] {
            catalogue.databases.insert(names::database(uuid), Database::default());
            catalogue.roles.insert(names::database(uuid), role(&[names::TENANTS_ROLE.into()]));
            catalogue.roles.insert(names::login(uuid, Slot::A), role(&[names::database(uuid)]));
        }
        catalogue.databases.insert(names::quarantined(one), Database::default());
        catalogue.roles.insert(names::PROVISIONER.into(), role(&[names::database(one)]));
        catalogue.roles.insert("a_stranger".into(), role(&[names::login(one, Slot::A)]));
        catalogue.roles.insert("z_friend_of_both".into(), role(&[names::database(one), names::database(two)]));
        catalogue.roles.insert(names::login(two, Slot::B), role(&[names::database(two), names::database(one)]));
        let in_capitals = names::database(one).to_uppercase().replacen("TENANT", "tenant", 1);
        catalogue.roles.insert(in_capitals.clone(), role(&[names::database(one)]));
        catalogue.roles.insert("nobody".into(), role(&[]));

        let part = catalogue.part(one, &catalogue.outsiders());
        assert_eq!(part.databases.into_keys().collect::<Vec<_>>(), [names::quarantined(one), names::database(one)]);
        let mut expected = vec![
            names::database(one),
            names::login(one, Slot::A),
            in_capitals,
            "a_stranger".into(),
            "z_friend_of_both".into(),
            names::login(two, Slot::B),
        ];
        expected.sort();
        assert_eq!(part.roles.into_keys().collect::<Vec<_>>(), expected);
        assert_eq!(catalogue.of_tenant(two).roles.len(), 4, "its group, two logins and the friend of both");
    }
}
