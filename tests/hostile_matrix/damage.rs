//! What an administrator, or a mistake, did to a tenant's database and roles, and the operator puts right.

use maintenance_os::desired::database::Standing;
use sqlx::Connection;

use super::fleet::{Fleet, execute};
use super::judge::attempt;

/// As a superuser, on the first tenant. `{own}` and `{other}` are databases and groups, `{login}` and `{victim}` logins.
const DAMAGE: &[(&str, &str)] = &[
    ("everybody may connect", "GRANT CONNECT ON DATABASE {own} TO PUBLIC"),
    ("the other tenant has every right on the database", "GRANT ALL ON DATABASE {own} TO {victim}"),
    ("the group may make schemas", "GRANT CREATE ON DATABASE {own} TO {own}"),
    ("the backup cannot connect", "REVOKE CONNECT ON DATABASE {own} FROM maintenance_os_backup"),
    ("the login makes databases", "ALTER ROLE {login} CREATEDB"),
    ("the login makes roles", "ALTER ROLE {login} CREATEROLE"),
    ("the login may not log in", "ALTER ROLE {login} NOLOGIN"),
    ("the login has a limit of its own", "ALTER ROLE {login} CONNECTION LIMIT 0"),
    ("the login expired", "ALTER ROLE {login} VALID UNTIL '2020-01-01'"),
    ("the login inherits nothing", "ALTER ROLE {login} NOINHERIT"),
    ("the login has settings", "ALTER ROLE {login} SET search_path = evil"),
    ("the login has settings in the other's database", "ALTER ROLE {login} IN DATABASE {other} SET work_mem = '1GB'"),
    ("the login is gone", "DROP ROLE {login}"),
    ("the group logs in", "ALTER ROLE {own} LOGIN"),
    ("the login left the group", "REVOKE {own} FROM {login} GRANTED BY maintenance_os_provisioner"),
    ("the login left the app", "REVOKE maintenance_os_app FROM {login} GRANTED BY maintenance_os_provisioner"),
    ("the login is a member of the other tenant", "GRANT {other} TO {login}"),
    ("the login is the other tenant's login", "GRANT {victim} TO {login}"),
    ("the login administers the other tenant", "GRANT {other} TO {login} WITH ADMIN OPTION"),
    ("the login administers its own group", "GRANT {own} TO {login} WITH ADMIN OPTION"),
    ("the login reads every table", "GRANT pg_read_all_data TO {login}"),
    ("the login runs programs", "GRANT pg_execute_server_program TO {login}"),
    ("the group is a member of the other tenant", "GRANT {other} TO {own}"),
    ("the group owns the tables", "GRANT maintenance_os_schema TO {own}"),
    ("the migrator is a member of the group", "GRANT {own} TO maintenance_os_migrator"),
    ("the limit is lifted", "ALTER DATABASE {own} CONNECTION LIMIT -1"),
    ("the database is closed", "ALTER DATABASE {own} ALLOW_CONNECTIONS false"),
    ("the database has a search path", "ALTER DATABASE {own} SET search_path = evil"),
    ("the database has no time limit", "ALTER DATABASE {own} RESET statement_timeout"),
];

/// Not ours to put right: nothing is changed, and the message says what there is.
const FOREIGN: &[(&str, &str, &str)] = &[
    ("the mark is gone", "COMMENT ON DATABASE {own} IS NULL", "carries no mark of ours"),
    ("the database belongs to somebody else", "ALTER DATABASE {own} OWNER TO postgres", "belongs to role postgres"),
    ("the login is a superuser", "ALTER ROLE {login} SUPERUSER", "SUPERUSER, REPLICATION or BYPASSRLS"),
    ("the group passes by row security", "ALTER ROLE {own} BYPASSRLS", "SUPERUSER, REPLICATION or BYPASSRLS"),
];

fn fill(fleet: &Fleet, statements: &str) -> String {
    let (own, other) = fleet.pair(0);
    let quoted = |name: String| format!("\"{name}\"");
    statements
        .replace("{own}", &quoted(own.name()))
        .replace("{other}", &quoted(other.name()))
        .replace("{login}", &quoted(own.login()))
        .replace("{victim}", &quoted(other.login()))
}

/// Each tenant serves its own data and is refused the other's.
async fn is_in_order(fleet: &Fleet, what: &str) {
    for attacker in [0, 1] {
        let (own, other) = fleet.pair(attacker);
        let mut session = fleet.session(own).await;
        let names: Vec<String> = sqlx::query_scalar("SELECT name FROM assets").fetch_all(&mut session).await.unwrap();
        assert_eq!(names, [own.secret.as_str()], "{what}");
        execute(&mut session, "UPDATE assets SET notes = 'still writable'").await;
        session.close().await.unwrap();
        let options = fleet.instance.options(&own.login(), &own.password, &other.name());
        assert!(attempt(options, "SELECT 1").await.is_err(), "{what}: a tenant enters the other's database");
    }
}

#[tokio::test]
async fn whatever_was_widened_narrowed_or_dropped_is_put_right() {
    let mut fleet = Fleet::start().await;
    let before = fleet.catalogue().await;
    for (what, statement) in DAMAGE {
        fleet.damage(&fill(&fleet, statement)).await;
        assert_ne!(fleet.catalogue().await, before, "{what}: the inventory does not show it");
        fleet.repair(what).await;
        assert_eq!(fleet.catalogue().await, before, "{what}: put right, but not as it was");
        is_in_order(&fleet, what).await;
    }
}

#[tokio::test]
async fn several_damages_at_once_are_put_right_too() {
    let mut fleet = Fleet::start().await;
    let before = fleet.catalogue().await;
    let dropped = ["the login is gone", "the login left the group", "the login left the app"];
    for (_, statement) in DAMAGE.iter().filter(|(what, _)| !dropped.contains(what)) {
        fleet.damage(&fill(&fleet, statement)).await;
    }
    fleet.repair("everything at once").await;
    assert_eq!(fleet.catalogue().await, before);
    is_in_order(&fleet, "everything at once").await;
}

/// P76, the second wall: a grant by mistake opens nothing while it stands.
#[tokio::test]
async fn a_database_that_is_open_to_everybody_by_mistake_still_refuses_other_tenants() {
    let mut fleet = Fleet::start().await;
    fleet.damage(&fill(&fleet, "GRANT CONNECT ON DATABASE {other} TO PUBLIC")).await;
    is_in_order(&fleet, "before it is put right").await;
    assert_eq!(fleet.catalogue().await.open_to_public(), [fleet.tenants[1].name()], "a server that is not isolated");
    fleet.repair("open to everybody").await;
    assert!(fleet.catalogue().await.open_to_public().is_empty());
}

#[tokio::test]
async fn what_is_not_ours_is_left_alone_and_named() {
    for (what, statement, says) in FOREIGN {
        let mut fleet = Fleet::start().await;
        fleet.damage(&fill(&fleet, statement)).await;
        let Standing::Foreign(told) = fleet.standing(0).await else { panic!("{what}: not noticed") };
        assert!(told.contains(says), "{what}: {told}");
        assert_eq!(fleet.standing(1).await, Standing::InPlace, "{what}: the other tenant is concerned");
    }
}

#[tokio::test]
async fn an_administrators_grant_to_a_login_that_cannot_be_dropped_is_named_with_what_shows_it() {
    let mut fleet = Fleet::start().await;
    let mut session = fleet.session(&fleet.tenants[0]).await;
    execute(&mut session, "SELECT lo_create(0)").await;
    session.close().await.unwrap();
    fleet.damage(&fill(&fleet, "GRANT {other} TO {login}")).await;
    let Standing::Foreign(told) = fleet.standing(0).await else { panic!("not noticed") };
    let query =
        told.split_once("(SELECT").map(|(_, rest)| format!("SELECT{}", rest.trim_end_matches(')'))).unwrap() + ")";
    let found: Vec<String> = sqlx::query_scalar(sqlx::AssertSqlSafe(format!("SELECT grantor::text FROM ({query}) q")))
        .fetch_all(&mut fleet.superuser)
        .await
        .unwrap_or_else(|error| panic!("the message's query does not run: {error}: {query}"));
    assert!(found.contains(&"postgres".to_owned()), "{found:?}");
    // The other tenant is protected nevertheless: its group is made anew without the intruder.
    let Standing::Differs(batch) = fleet.standing(1).await else {
        panic!("the other tenant does not notice its new member")
    };
    fleet.run(&batch).await;
    assert_eq!(fleet.standing(1).await, Standing::InPlace);
    assert_eq!(fleet.standing(0).await, Standing::InPlace);
    is_in_order(&fleet, "after the other tenant's repair").await;
}
