//! Roles that cannot be put right by granting and revoking: how they go, and when a new one has to take their place.
//!
//! Two facts of PostgreSQL decide here. Since version 16 only a membership's own grantor revokes it: what an administrator
//! granted, the provisioner is told in a mere warning, stays. But dropping a role ends all its memberships, whoever granted
//! them, and the provisioner may drop what it made. And a role that owns something in a database is not dropped: a tenant
//! needs no right at all to make a large object or to set default privileges, and we never enter its database.

use uuid::Uuid;

use super::catalogue::{Catalogue, Role};
use super::names::{self, Slot};
use super::sql::Statement;

/// What has to happen before a tenant's roles can be compared with what is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// Nothing.
    None,
    /// A login is first kept out, or its sessions would go on as a role that is gone. To be run alone.
    KeepOut(Vec<Statement>),
    /// These roles go; the comparison makes them anew, in the same transaction.
    Drop(Vec<Statement>),
}

/// Which of a tenant's roles have memberships, or give memberships to others, that we cannot revoke.
pub fn renewal(uuid: Uuid, active: &str, catalogue: &Catalogue) -> Renewal {
    let stained = stained(uuid, active, catalogue);
    let keep_out: Vec<_> =
        stained.iter().filter(|name| catalogue.roles[*name].login).flat_map(|name| keep_out(name)).collect();
    if !keep_out.is_empty() {
        return Renewal::KeepOut(keep_out);
    }
    if stained.is_empty() {
        return Renewal::None;
    }
    // The group first: what its member granted with an administrator's permission would keep the member from being dropped.
    Renewal::Drop(stained.iter().flat_map(|name| drop_role(uuid, name, catalogue)).collect())
}

/// A role that would have to be made anew and cannot be dropped; what an administrator has to do.
pub fn beyond_us(uuid: Uuid, active: &str, catalogue: &Catalogue) -> Option<String> {
    let held = stained(uuid, active, catalogue).into_iter().find(|name| catalogue.roles[name].holds)?;
    Some(format!(
        "role {held} has, or gives, memberships that an administrator granted, and objects in a database keep it from being made anew: an administrator must revoke them (SELECT roleid::regrole, member::regrole, grantor::regrole FROM pg_auth_members WHERE '\"{held}\"'::regrole IN (roleid, member))"
    ))
}

/// How a login goes. Dropped; or, when an object keeps it, left without the right to log in and without memberships until
/// its database is dropped. Empty: it is as good as gone.
pub fn retire(uuid: Uuid, name: &str, catalogue: &Catalogue) -> Vec<Statement> {
    let Some(role) = catalogue.roles.get(name) else { return Vec::new() };
    let mut statements = if role.login || !role.holds { keep_out(name).to_vec() } else { Vec::new() };
    if role.holds {
        let ours = role.member_of.difference(&role.granted_by_others);
        statements.extend(ours.map(|of| Statement::RevokeRole { role: of.clone(), from: name.to_owned() }));
    } else {
        statements.extend(drop_role(uuid, name, catalogue));
    }
    statements
}

fn keep_out(name: &str) -> [Statement; 2] {
    [Statement::RoleLogin { name: name.to_owned(), login: false }, Statement::EndSessionsOf { name: name.to_owned() }]
}

/// A role that has a right on a database is not dropped.
fn drop_role(uuid: Uuid, name: &str, catalogue: &Catalogue) -> Vec<Statement> {
    let databases = [names::database(uuid), names::quarantined(uuid)].into_iter();
    let granted = databases
        .filter(|database| catalogue.databases.get(database).is_some_and(|facts| facts.grants.contains_key(name)));
    let mut statements: Vec<_> =
        granted.map(|database| Statement::RevokeDatabase { name: database, from: name.to_owned() }).collect();
    statements.push(Statement::DropRole { name: name.to_owned() });
    statements
}

/// The group and the active login, as far as they are there and stained. A login that is not in use goes anyway.
fn stained(uuid: Uuid, active: &str, catalogue: &Catalogue) -> Vec<String> {
    let group = names::database(uuid);
    let logins = Slot::BOTH.map(|slot| names::login(uuid, slot));
    let gives = |name: &str| {
        catalogue
            .roles
            .iter()
            .any(|(member, role)| role.granted_by_others.contains(name) && !(name == group && logins.contains(member)))
    };
    let has = |role: &Role, wanted: &[&str]| {
        role.granted_by_others.iter().any(|of| !wanted.contains(&of.as_str()) || role.admin_of.contains(of))
    };
    [(group.as_str(), vec![names::TENANTS_ROLE]), (active, vec![group.as_str(), names::APP_ROLE])]
        .into_iter()
        .filter(|(name, wanted)| catalogue.roles.get(*name).is_some_and(|role| has(role, wanted) || gives(name)))
        .map(|(name, _)| name.to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::database::{self, Standing, Wanted};
    use super::super::sql::Batch;
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
            verifier: format!("verifier-{number}"),
            kept: None,
        }
    }

    fn run(catalogue: &mut Catalogue, batch: &Batch) {
        batch.statements().iter().for_each(|statement| catalogue.execute(statement));
    }

    fn tenants() -> Catalogue {
        let mut catalogue = Catalogue::default();
        for (number, warm) in [(1, "warm-1"), (2, "warm-2")] {
            catalogue.execute(&Statement::CreateDatabase { name: warm.into(), template: "template".into() });
            let batch = database::claim(&wanted(number), &catalogue, warm, "0001_aaaaaaaa");
            run(&mut catalogue, &batch);
        }
        catalogue
    }

    fn login(number: u128) -> String {
        wanted(number).login_name()
    }

    /// An administrator makes `member` a member of `role`.
    fn grant(catalogue: &mut Catalogue, role: &str, member: &str) {
        let member = catalogue.roles.entry(member.to_owned()).or_default();
        member.member_of.insert(role.to_owned());
        member.granted_by_others.insert(role.to_owned());
    }

    #[test]
    fn what_an_administrator_granted_is_taken_back_by_making_the_role_anew() {
        let (group, other) = (names::database(wanted(1).uuid), names::database(wanted(2).uuid));
        for (role, member) in [
            (other.clone(), login(1)),
            (other.clone(), group.clone()),
            (login(2), login(1)),
            (group.clone(), "mallory".into()),
            (group.clone(), login(2)),
            ("pg_read_server_files".into(), login(1)),
        ] {
            let mut catalogue = tenants();
            grant(&mut catalogue, &role, &member);
            for round in 0.. {
                assert!(round < 4, "{member} in {role}: it goes on for ever");
                let mut done = true;
                for number in [1, 2] {
                    let wanted = wanted(number);
                    match database::standing(&wanted, &catalogue.of_tenant(wanted.uuid)) {
                        Standing::InPlace => {}
                        Standing::Differs(batch) => {
                            done = false;
                            run(&mut catalogue, &batch);
                        }
                        other => panic!("{member} in {role}: {other:?}"),
                    }
                }
                if done {
                    break;
                }
            }
            let left = catalogue.roles.values().filter(|facts| !facts.granted_by_others.is_empty()).count();
            assert_eq!(left, 0, "{member} is still in {role}");
        }
    }

    #[test]
    fn a_login_is_kept_out_before_it_is_made_anew_so_that_no_session_goes_on_without_its_role() {
        let mut catalogue = tenants();
        grant(&mut catalogue, &names::database(wanted(2).uuid), &login(1));
        let Renewal::KeepOut(statements) = renewal(wanted(1).uuid, &login(1), &catalogue) else {
            panic!("not kept out")
        };
        for statement in &statements {
            catalogue.execute(statement);
        }
        let drops = vec![Statement::DropRole { name: login(1) }];
        assert_eq!(renewal(wanted(1).uuid, &login(1), &catalogue), Renewal::Drop(drops));
    }

    #[test]
    fn a_role_that_cannot_be_made_anew_is_an_administrators_to_put_right() {
        let mut catalogue = tenants();
        grant(&mut catalogue, &names::database(wanted(2).uuid), &login(1));
        catalogue.roles.get_mut(&login(1)).expect("claimed").holds = true;
        let Standing::Foreign(what) = database::standing(&wanted(1), &catalogue) else { panic!("not noticed") };
        assert!(what.contains(&login(1)) && what.contains("pg_auth_members"), "{what}");
    }

    #[test]
    fn a_login_that_something_holds_is_released_all_the_same_and_goes_with_its_database() {
        let (mut catalogue, wanted) = (tenants(), wanted(1));
        catalogue.roles.get_mut(&login(1)).expect("claimed").holds = true;
        let released = Batch::transaction(database::release(wanted.uuid, &catalogue));
        run(&mut catalogue, &released);
        let left = &catalogue.roles[&login(1)];
        assert!(!left.login && left.member_of.is_empty(), "{left:?}");
        assert_eq!(database::release(wanted.uuid, &catalogue), vec![], "nothing is left to do");

        let Standing::Differs(batch) = database::standing(&wanted, &catalogue) else { panic!("not brought back") };
        run(&mut catalogue, &batch);
        assert_eq!(database::standing(&wanted, &catalogue), Standing::InPlace);

        for batch in database::quarantine(wanted.uuid, &catalogue.clone()) {
            run(&mut catalogue, &batch);
        }
        for batch in database::destroy(wanted.uuid, &catalogue.clone()).expect("the mark is ours") {
            run(&mut catalogue, &batch);
        }
        assert_eq!(catalogue.of_tenant(wanted.uuid), Catalogue::default());
    }

    #[test]
    fn the_unused_login_goes_after_a_rotation_even_when_something_holds_it() {
        let mut catalogue = tenants();
        catalogue.roles.get_mut(&login(1)).expect("claimed").holds = true;
        let rotated = Wanted { slot: Slot::B, verifier: "another".into(), ..wanted(1) };
        let Standing::Differs(batch) = database::standing(&rotated, &catalogue) else { panic!("not rotated") };
        run(&mut catalogue, &batch);
        assert_eq!(database::standing(&rotated, &catalogue), Standing::InPlace);
        assert!(!catalogue.roles[&login(1)].login);
    }
}
