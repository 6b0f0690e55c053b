//! Release, quarantine, drop, and the breaker.

use crate::support::{Database, Object, in_the_future, in_the_past};
use futures::future::join_all;
use maintenance_os::central::{CentralError, DatabaseFact, LedgerState, Outcome, Quarantine, Release};
use uuid::Uuid;

#[tokio::test]
async fn a_released_tenant_keeps_its_data_and_frees_what_it_only_claimed_and_a_repeated_release_says_the_same() {
    let db = Database::new().await;
    let object = Object::new("acme").host("a.example", true);
    let uuid = db.provisioned(&object).await;
    for fact in [DatabaseFact::Unknown, DatabaseFact::Present, DatabaseFact::Absent] {
        assert_eq!(db.central.release(uuid, object.uid, fact).await.unwrap(), Release::Kept);
    }
    let row = db.row(uuid).await;
    assert_eq!((row.ledger_state, row.object_uid, row.server.as_deref()), (LedgerState::Retained, None, Some("pg-1")));
    db.register(&Object::new("other").host("a.example", true)).await.unwrap();
    assert_eq!(db.actions().await, ["tenant.registered", "tenant.provisioned", "tenant.retained", "tenant.registered"]);
}

#[tokio::test]
async fn a_provisioned_tenant_is_never_forgotten_even_if_its_database_is_not_seen() {
    let db = Database::new().await;
    let object = Object::new("acme");
    let uuid = db.provisioned(&object).await;
    assert_eq!(db.central.release(uuid, object.uid, DatabaseFact::Absent).await.unwrap(), Release::Kept);
}

#[tokio::test]
async fn a_tenant_without_a_database_is_forgotten_and_its_slug_is_free() {
    let db = Database::new().await;
    let object = Object::new("acme");
    let uuid = db.register(&object).await.unwrap().row.uuid;
    for _ in 0..2 {
        assert_eq!(db.central.release(uuid, object.uid, DatabaseFact::Unknown).await.unwrap(), Release::Forgotten);
    }
    assert_eq!(db.central.row(uuid).await.unwrap(), None);
    assert_eq!(db.register(&Object::new("acme")).await.unwrap().outcome, Outcome::Created);
}

#[tokio::test]
async fn a_placed_tenant_is_forgotten_only_if_the_server_was_read_and_has_no_database() {
    let db = Database::new().await;
    for (fact, release) in [
        (DatabaseFact::Absent, Release::Forgotten),
        (DatabaseFact::Unknown, Release::Kept),
        (DatabaseFact::Present, Release::Kept),
    ] {
        let object = Object::new(&format!("{fact:?}").to_lowercase());
        let uuid = db.register(&object).await.unwrap().row.uuid;
        db.central.place(uuid, "pg-1", 10).await.unwrap();
        assert_eq!(db.central.release(uuid, object.uid, fact).await.unwrap(), release);
    }
}

#[tokio::test]
async fn only_the_holder_can_release_or_quarantine() {
    let db = Database::new().await;
    let object = Object::new("acme");
    let uuid = db.provisioned(&object).await;
    let before = db.versions().await;
    let stranger = Uuid::new_v4();
    assert_eq!(db.central.release(uuid, stranger, DatabaseFact::Present).await.unwrap(), Release::NotHolder);
    assert_eq!(db.central.quarantine(uuid, stranger, in_the_past(), true).await.unwrap(), Quarantine::NotHolder);
    assert_eq!(db.central.release(stranger, object.uid, DatabaseFact::Present).await.unwrap(), Release::NotHolder);
    assert_eq!(db.texts("SELECT ledger_state FROM tenants").await, ["Provisioned"]);
    assert_eq!(db.versions().await.len(), before.len());
}

#[tokio::test]
async fn the_earlier_holder_cannot_release_what_another_has_taken_over() {
    let db = Database::new().await;
    let old = Object::new("acme");
    let uuid = db.provisioned(&old).await;
    db.central.release(uuid, old.uid, DatabaseFact::Present).await.unwrap();
    db.register(&Object::new("acme").adopt(uuid)).await.unwrap();
    db.central.release(uuid, old.uid, DatabaseFact::Present).await.unwrap();
    db.central.quarantine(uuid, old.uid, in_the_past(), true).await.unwrap();
    assert_eq!(db.row(uuid).await.ledger_state, LedgerState::Provisioned);
}

#[tokio::test]
async fn quarantined_data_is_dropped_when_its_time_has_come_and_then_its_slug_is_free() {
    let db = Database::new().await;
    let object = Object::new("acme").host("a.example", true);
    let uuid = db.provisioned(&object).await;
    for drop_after in [in_the_future(), in_the_past()] {
        let result = db.central.quarantine(uuid, object.uid, drop_after, false).await.unwrap();
        assert_eq!(result, Quarantine::Quarantined);
        assert_eq!(db.row(uuid).await.drop_after, Some(in_the_future()), "the first call's stands");
    }
    assert_eq!(db.central.due_drops().await.unwrap(), []);
    assert!(!db.central.begin_drop(uuid).await.unwrap());
    assert!(matches!(
        db.central.mark_dropped(uuid).await,
        Err(CentralError::Refused { state: Some(LedgerState::Quarantined), .. })
    ));
    db.execute("UPDATE tenants SET drop_after = now() - interval '1 second'").await;
    assert_eq!(db.central.due_drops().await.unwrap()[0].uuid, uuid);
    for _ in 0..2 {
        assert!(db.central.begin_drop(uuid).await.unwrap(), "also after an operator died before the drop");
        assert_eq!(db.central.due_drops().await.unwrap()[0].ledger_state, LedgerState::Dropped);
    }
    for _ in 0..2 {
        db.central.mark_dropped(uuid).await.unwrap();
    }
    assert_eq!(db.central.dropped_lately().await.unwrap(), [uuid], "whoever leads next says it to the workers");
    db.execute("UPDATE tenants SET dropped_at = now() - interval '31 days'").await;
    assert!(db.central.dropped_lately().await.unwrap().is_empty());
    assert!(!db.central.begin_drop(uuid).await.unwrap());
    assert_eq!(db.central.due_drops().await.unwrap(), []);
    assert_eq!(db.central.rows().await.unwrap(), []);
    assert_eq!(db.row(uuid).await.ledger_state, LedgerState::Dropped);
    assert_eq!(db.register(&Object::new("acme")).await.unwrap().outcome, Outcome::Created);
    let actions = db.actions().await;
    let about_the_end = ["tenant.quarantined", "tenant.drop_started", "tenant.dropped", "tenant.registered"];
    assert_eq!(actions[2..], about_the_end);
}

#[tokio::test]
async fn quarantining_a_tenant_that_was_never_placed_forgets_it() {
    let db = Database::new().await;
    let object = Object::new("acme");
    let uuid = db.register(&object).await.unwrap().row.uuid;
    for _ in 0..2 {
        let result = db.central.quarantine(uuid, object.uid, in_the_future(), false).await.unwrap();
        assert_eq!(result, Quarantine::Forgotten);
    }
}

async fn provisioned(db: &Database, count: usize) -> Vec<(Uuid, Object)> {
    let mut tenants = Vec::new();
    for number in 0..count {
        let object = Object::new(&format!("t{number}"));
        tenants.push((db.provisioned(&object).await, object));
    }
    tenants
}

#[tokio::test]
async fn the_breaker_lets_ten_deletes_through_and_holds_the_next_until_it_is_confirmed() {
    let db = Database::new().await;
    let tenants = provisioned(&db, 13).await;
    for (uuid, object) in &tenants[..10] {
        let result = db.central.quarantine(*uuid, object.uid, in_the_future(), false).await.unwrap();
        assert_eq!(result, Quarantine::Quarantined);
    }
    let (uuid, object) = &tenants[10];
    let blocked = Quarantine::Blocked { count: 10, limit: 10 };
    assert_eq!(db.central.quarantine(*uuid, object.uid, in_the_future(), false).await.unwrap(), blocked);
    assert_eq!(db.row(*uuid).await.ledger_state, LedgerState::Provisioned);
    let (first, held) = &tenants[0];
    let again = db.central.quarantine(*first, held.uid, in_the_future(), false).await.unwrap();
    assert_eq!(again, Quarantine::Quarantined, "a repeated call is not another delete");
    assert_eq!(db.central.quarantine(*uuid, object.uid, in_the_future(), true).await.unwrap(), Quarantine::Quarantined);
    let (uuid, object) = &tenants[11];
    let blocked = Quarantine::Blocked { count: 11, limit: 10 };
    assert_eq!(db.central.quarantine(*uuid, object.uid, in_the_future(), false).await.unwrap(), blocked);
    assert_eq!(
        db.central.release(*uuid, object.uid, DatabaseFact::Present).await.unwrap(),
        Release::Kept,
        "that destroys nothing"
    );
    db.execute("UPDATE releases SET released_at = released_at - interval '10 minutes'").await;
    let (uuid, object) = &tenants[12];
    assert_eq!(
        db.central.quarantine(*uuid, object.uid, in_the_future(), false).await.unwrap(),
        Quarantine::Quarantined
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_breaker_counts_right_when_all_deletes_come_at_once() {
    let db = Database::new().await;
    let tenants = provisioned(&db, 16).await;
    let results =
        join_all(tenants.iter().map(|(uuid, object)| db.central.quarantine(*uuid, object.uid, in_the_future(), false)))
            .await;
    let passed = results.into_iter().filter(|result| matches!(result, Ok(Quarantine::Quarantined))).count();
    assert_eq!(passed, 10);
}

#[tokio::test]
async fn in_a_large_fleet_the_breaker_allows_five_percent() {
    let db = Database::new().await;
    let tenants = provisioned(&db, 17).await;
    db.execute(
        "INSERT INTO tenants (name, namespace, object_name, object_uid, slug)
         SELECT 'x', 'customers', 'x' || n, gen_random_uuid(), 'x' || n FROM generate_series(1, 283) n",
    )
    .await;
    let mut passed = 0;
    for (uuid, object) in &tenants {
        match db.central.quarantine(*uuid, object.uid, in_the_future(), false).await.unwrap() {
            Quarantine::Quarantined => passed += 1,
            other => assert_eq!(other, Quarantine::Blocked { count: 15, limit: 15 }),
        }
    }
    assert_eq!(passed, 15);
}
