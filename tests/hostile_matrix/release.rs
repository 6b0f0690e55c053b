//! A tenant cannot keep its login, or hold up its own deletion, by what it leaves in its database.

use maintenance_os::desired::catalogue::Catalogue;
use maintenance_os::desired::database::{self, Standing};
use maintenance_os::desired::names;
use maintenance_os::desired::names::Slot;
use maintenance_os::desired::scram;
use maintenance_os::desired::sql::{Batch, Statement};
use sqlx::Connection;

use super::fleet::{Fleet, execute};
use super::judge::attempt;

/// What needs no right at all and keeps a role from being dropped.
async fn hold_on(fleet: &Fleet) {
    let (own, _) = fleet.pair(0);
    let mut session = fleet.session(own).await;
    for statement in [
        "SELECT lo_create(0)".to_owned(),
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC".to_owned(),
        format!("SET ROLE \"{}\"", own.name()),
        "SELECT lo_create(0)".to_owned(),
    ] {
        execute(&mut session, &statement).await;
    }
    session.close().await.unwrap();
}

async fn is_shut_out(fleet: &Fleet, what: &str) {
    let (own, _) = fleet.pair(0);
    let options = fleet.instance.options(&own.login(), &own.password, &own.name());
    assert!(attempt(options, "SELECT 1").await.is_err(), "{what}: the login still works");
}

async fn release(fleet: &mut Fleet) {
    let uuid = fleet.tenants[0].uuid();
    for round in 0.. {
        let statements = database::release(uuid, &fleet.catalogue().await.of_tenant(uuid));
        if statements.is_empty() {
            return;
        }
        assert!(round < 2, "it goes on for ever: {statements:?}");
        fleet.run(&Batch::transaction(statements)).await;
    }
}

#[tokio::test]
async fn a_login_that_its_own_objects_hold_is_released_and_had_back() {
    let mut fleet = Fleet::start().await;
    hold_on(&fleet).await;
    let session = fleet.session(&fleet.tenants[0]).await;
    release(&mut fleet).await;
    is_shut_out(&fleet, "after the release").await;
    drop(session);
    assert_eq!(fleet.standing(1).await, Standing::InPlace);

    fleet.repair("had back").await;
    let mut session = fleet.session(&fleet.tenants[0]).await;
    let name: String = sqlx::query_scalar("SELECT name FROM assets").fetch_one(&mut session).await.unwrap();
    assert_eq!(name, fleet.tenants[0].secret, "the data is as it was");
    session.close().await.unwrap();
}

#[tokio::test]
async fn a_login_without_objects_is_dropped_when_it_is_released() {
    let mut fleet = Fleet::start().await;
    release(&mut fleet).await;
    is_shut_out(&fleet, "after the release").await;
    assert!(!fleet.catalogue().await.roles.contains_key(&fleet.tenants[0].login()));
}

#[tokio::test]
async fn rotation_shuts_the_old_login_out_although_objects_hold_it() {
    let mut fleet = Fleet::start().await;
    hold_on(&fleet).await;
    let password = scram::password([9; 32]);
    let tenant = &mut fleet.tenants[0];
    let old = (tenant.login(), std::mem::replace(&mut tenant.password, password.clone()));
    tenant.wanted.slot = Slot::B;
    tenant.wanted.verifier = scram::verifier(&password);
    fleet.repair("rotation").await;
    fleet.session(&fleet.tenants[0]).await.close().await.unwrap();
    let options = fleet.instance.options(&old.0, &old.1, &fleet.tenants[0].name());
    assert!(attempt(options, "SELECT 1").await.is_err(), "the old login still works");
}

#[tokio::test]
async fn a_quarantine_begins_and_ends_although_objects_hold_every_role() {
    let mut fleet = Fleet::start().await;
    hold_on(&fleet).await;
    let uuid = fleet.tenants[0].uuid();
    let session = fleet.session(&fleet.tenants[0]).await;
    for batch in database::quarantine(uuid, &fleet.catalogue().await) {
        fleet.run(&batch).await;
    }
    drop(session);
    is_shut_out(&fleet, "in quarantine").await;
    let catalogue = fleet.catalogue().await;
    assert!(catalogue.databases.contains_key(&names::quarantined(uuid)));
    assert_eq!(database::quarantine(uuid, &catalogue), vec![], "nothing is left to do");
    for batch in database::destroy(uuid, &catalogue).expect("the mark is ours") {
        fleet.run(&batch).await;
    }
    assert_eq!(fleet.catalogue().await.of_tenant(uuid), Catalogue::default(), "something is left");
    assert_eq!(fleet.standing(1).await, Standing::InPlace, "the other tenant was touched");
}

#[tokio::test]
async fn an_object_made_after_the_inventory_only_delays_the_release() {
    let mut fleet = Fleet::start().await;
    let uuid = fleet.tenants[0].uuid();
    let planned = database::release(uuid, &fleet.catalogue().await.of_tenant(uuid));
    assert!(planned.iter().any(|statement| matches!(statement, Statement::DropRole { .. })));
    hold_on(&fleet).await;
    let text = Batch::transaction(planned).text();
    let refused = sqlx::Executor::execute(&mut fleet.provisioner, sqlx::raw_sql(sqlx::AssertSqlSafe(text))).await;
    assert!(refused.unwrap_err().to_string().contains("objects depend on it"), "the plan was of an older state");
    release(&mut fleet).await;
    is_shut_out(&fleet, "after another look").await;
}
