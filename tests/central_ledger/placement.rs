//! Tenant → server.

use crate::support::{Database, Object, in_the_past};
use futures::future::join_all;
use maintenance_os::central::{CentralError, DatabaseFact, LedgerState, Placement};
use uuid::Uuid;

fn placed(server: &str) -> Placement {
    Placement::Placed { server: server.into() }
}

async fn registered(db: &Database, count: usize) -> Vec<Uuid> {
    let mut uuids = Vec::new();
    for number in 0..count {
        uuids.push(db.register(&Object::new(&format!("t{number}"))).await.unwrap().row.uuid);
    }
    uuids
}

#[tokio::test]
async fn the_ledgers_word_wins_over_another_server() {
    let db = Database::new().await;
    let uuid = registered(&db, 1).await[0];
    assert_eq!(db.central.place(uuid, "pg-1", 1).await.unwrap(), placed("pg-1"));
    let before = db.row(uuid).await;
    assert_eq!(db.central.place(uuid, "pg-2", 1000).await.unwrap(), placed("pg-1"));
    assert_eq!(db.central.place(uuid, "pg-1", 0).await.unwrap(), placed("pg-1"), "also when it is full by now");
    assert_eq!(db.row(uuid).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_placements_at_once_never_exceed_the_capacity() {
    let db = Database::new().await;
    let uuids = registered(&db, 20).await;
    for round in 0..5 {
        // Every connection is open before the race, or the first placements would be over before the others begin.
        join_all((0..8).map(|_| db.central.ping())).await;
        let server = format!("pg-{round}");
        let results = join_all(uuids.iter().map(|uuid| db.central.place(*uuid, &server, 3))).await;
        let results: Vec<_> = results.into_iter().map(Result::unwrap).collect();
        let full = results.iter().filter(|result| **result == Placement::Full { tenants: 3 }).count();
        assert_eq!(results.iter().filter(|result| **result == placed(&server)).count(), 3);
        assert_eq!(full, 20 - 3 * (round + 1), "the others lie on the servers of earlier rounds");
        assert_eq!(db.number(&format!("SELECT count(*) FROM tenants WHERE server = '{server}'")).await, 3);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_that_are_minted_and_placed_at_once_never_exceed_the_capacity_and_the_rest_stand_without_a_server() {
    let db = Database::new().await;
    join_all((0..8).map(|_| db.central.ping())).await;
    // Room for three beyond the margin that placements at once leave one another.
    let capacity = 64 + 3;
    let objects: Vec<_> = (0..100).map(|number| Object::new(&format!("t{number}")).place("pg-1", capacity)).collect();
    let rows: Vec<_> = join_all(objects.iter().map(|object| db.register(object))).await;
    let (there, waiting): (Vec<_>, Vec<_>) =
        rows.into_iter().map(|registered| registered.unwrap().row).partition(|row| row.server.is_some());
    assert!((3..=67).contains(&there.len()), "{} were placed", there.len());
    let results = join_all(waiting.iter().map(|row| db.central.place(row.uuid, "pg-1", capacity))).await;
    let later = results.into_iter().map(Result::unwrap).filter(|result| *result == placed("pg-1")).count();
    assert_eq!(there.len() + later, 67, "the last places are given away one by one");
    assert_eq!(db.number("SELECT count(*) FROM tenants WHERE server = 'pg-1'").await, 67);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ways_of_placing_at_once_never_exceed_the_capacity() {
    let db = Database::new().await;
    let uuids = registered(&db, 40).await;
    join_all((0..8).map(|_| db.central.ping())).await;
    let objects: Vec<_> = (0..40).map(|number| Object::new(&format!("new{number}")).place("pg-1", 70)).collect();
    let new = join_all(objects.iter().map(|object| db.register(object)));
    let old = join_all(uuids.iter().map(|uuid| db.central.place(*uuid, "pg-1", 20)));
    let (_, results) = tokio::join!(new, old);
    let by_count = results.into_iter().map(Result::unwrap).filter(|result| *result == placed("pg-1")).count();
    assert!(by_count <= 20, "{by_count} were placed one by one");
    assert!(db.number("SELECT count(*) FROM tenants WHERE server = 'pg-1'").await <= 70);
}

#[tokio::test]
async fn where_a_tenant_lies_is_decided_when_it_is_minted_and_not_when_it_is_brought_up_to_date() {
    let db = Database::new().await;
    let object = Object::new("acme");
    let uuid = db.register(&object).await.unwrap().row.uuid;
    let mut renamed = object.clone().place("pg-1", 10);
    renamed.display_name = "Acme AG".into();
    assert_eq!(db.register(&renamed).await.unwrap().row.server, None);
    assert_eq!(db.row(uuid).await.server, None);
    let unknown_plan = Object { plan: Some("nope"), ..Object::new("other").place("pg-1", 10) };
    assert!(db.register(&unknown_plan).await.is_err());
    assert_eq!(db.number("SELECT count(*) FROM tenants").await, 1, "nothing is minted for a plan that is not known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_operators_that_place_one_tenant_on_two_servers_agree_afterwards() {
    let db = Database::new().await;
    for uuid in registered(&db, 10).await {
        let (one, two) = tokio::join!(db.central.place(uuid, "pg-1", 100), db.central.place(uuid, "pg-2", 100));
        assert_eq!(one.unwrap(), two.unwrap());
    }
}

#[tokio::test]
async fn kept_data_takes_room_and_dropped_data_does_not() {
    let db = Database::new().await;
    let (kept, gone) = (Object::new("kept"), Object::new("gone"));
    let (kept_uuid, gone_uuid) = (db.provisioned(&kept).await, db.provisioned(&gone).await);
    let uuid = registered(&db, 1).await[0];
    db.central.release(kept_uuid, kept.uid, DatabaseFact::Present).await.unwrap();
    db.central.quarantine(gone_uuid, gone.uid, in_the_past(), false).await.unwrap();
    assert_eq!(db.central.place(uuid, "pg-1", 2).await.unwrap(), Placement::Full { tenants: 2 });
    assert!(db.central.begin_drop(gone_uuid).await.unwrap());
    assert_eq!(db.central.place(uuid, "pg-1", 2).await.unwrap(), Placement::Full { tenants: 2 });
    db.central.mark_dropped(gone_uuid).await.unwrap();
    assert_eq!(db.central.place(uuid, "pg-1", 2).await.unwrap(), placed("pg-1"));
}

#[tokio::test]
async fn a_database_is_noted_once_and_its_schema_version_when_it_changes() {
    let db = Database::new().await;
    let object = Object::new("acme");
    let uuid = db.provisioned(&object).await;
    let before = db.versions().await;
    db.central.mark_provisioned(uuid, "0001").await.unwrap();
    assert_eq!(db.versions().await.len(), before.len());
    assert_eq!(db.number("SELECT count(*) FROM audit_logs WHERE action = 'tenant.provisioned'").await, 1);
    db.central.mark_provisioned(uuid, "0002").await.unwrap();
    assert_eq!(db.row(uuid).await.schema_version.as_deref(), Some("0002"));
    assert_eq!(db.row(uuid).await.ledger_state, LedgerState::Provisioned);
    db.central.mark_seeded(uuid).await.unwrap();
    db.central.mark_seeded(uuid).await.unwrap();
    assert!(db.row(uuid).await.seeded);
}

#[tokio::test]
async fn a_row_that_nobody_holds_is_not_there_or_has_no_server_cannot_be_provisioned() {
    let db = Database::new().await;
    let missing = Uuid::new_v4();
    for error in [
        db.central.mark_provisioned(missing, "0001").await.unwrap_err(),
        db.central.place(missing, "pg-1", 10).await.unwrap_err(),
        db.central.mark_seeded(missing).await.unwrap_err(),
        db.central.mark_dropped(missing).await.unwrap_err(),
    ] {
        assert!(matches!(error, CentralError::Refused { uuid, state: None, .. } if uuid == missing), "{error}");
    }
    let uuid = registered(&db, 1).await[0];
    let error = db.central.mark_provisioned(uuid, "0001").await.unwrap_err();
    assert!(matches!(error, CentralError::Refused { state: Some(LedgerState::Registered), .. }));
    let object = Object::new("acme");
    let kept = db.provisioned(&object).await;
    db.central.release(kept, object.uid, DatabaseFact::Present).await.unwrap();
    let error = db.central.mark_provisioned(kept, "0002").await.unwrap_err();
    assert!(matches!(error, CentralError::Refused { state: Some(LedgerState::Retained), .. }));
    assert!(error.to_string().contains("the ledger has tenant"), "{error}");
}
