//! Kept data and who gets it.

use crate::support::{Database, Object, in_the_future, in_the_past};
use maintenance_os::central::{DatabaseFact, Holder, LedgerState, Outcome, Quarantine, RegisterError, Release};
use uuid::Uuid;

async fn retained(db: &Database, name: &str) -> Uuid {
    let object = Object::new(name).host(&format!("{name}.example"), true);
    let uuid = db.provisioned(&object).await;
    assert_eq!(db.central.release(uuid, object.uid, DatabaseFact::Present).await.unwrap(), Release::Kept);
    uuid
}

async fn quarantined(db: &Database, name: &str, drop_after: jiff::Timestamp) -> Uuid {
    let object = Object::new(name);
    let uuid = db.provisioned(&object).await;
    let result = db.central.quarantine(uuid, object.uid, drop_after, false).await.unwrap();
    assert_eq!(result, Quarantine::Quarantined);
    uuid
}

#[tokio::test]
async fn retained_data_is_taken_over_by_the_object_that_names_it() {
    let db = Database::new().await;
    let uuid = retained(&db, "acme").await;
    let object = Object::new("acme-again").slug("acme").host("acme.example", true).adopt(uuid);
    let adopted = db.register(&object).await.unwrap();
    assert_eq!(adopted.outcome, Outcome::Adopted { quarantined: false });
    let row = adopted.row;
    assert_eq!((row.uuid, row.object_uid, row.name.as_str()), (uuid, Some(object.uid), "acme-again"));
    assert_eq!((row.ledger_state, row.server.as_deref(), row.epoch), (LedgerState::Provisioned, Some("pg-1"), 2));
    assert_eq!((row.schema_version.as_deref(), row.hosts.len()), (Some("0001"), 1));
    let before = db.versions().await;
    assert_eq!(db.register(&object).await.unwrap().outcome, Outcome::Unchanged);
    assert_eq!(db.register(&object.clone().known(uuid)).await.unwrap().outcome, Outcome::Unchanged);
    assert_eq!(db.versions().await, before);
    assert_eq!(db.actions().await.last().unwrap(), "tenant.adopted");
}

#[tokio::test]
async fn quarantined_data_is_taken_over_and_said_to_be_in_quarantine() {
    let db = Database::new().await;
    let uuid = quarantined(&db, "acme", in_the_past()).await;
    let adopted = db.register(&Object::new("acme").adopt(uuid)).await.unwrap();
    assert_eq!(adopted.outcome, Outcome::Adopted { quarantined: true });
    assert_eq!(adopted.row.drop_after, None);
    assert_eq!(db.central.due_drops().await.unwrap(), []);
    assert!(!db.central.begin_drop(uuid).await.unwrap());
}

#[tokio::test]
async fn the_slug_belongs_to_the_kept_data() {
    let db = Database::new().await;
    for (name, uuid, state) in [
        ("kept", retained(&db, "kept").await, LedgerState::Retained),
        ("closed", quarantined(&db, "closed", in_the_future()).await, LedgerState::Quarantined),
    ] {
        let error = db.register(&Object::new(name)).await.unwrap_err();
        assert!(
            matches!(&error, RegisterError::SlugConflict { holder, .. } if *holder == Holder::Kept { uuid, state }),
            "{error}"
        );
    }
}

#[tokio::test]
async fn data_may_be_taken_over_under_another_slug_if_that_is_free_and_then_the_old_one_is() {
    let db = Database::new().await;
    let uuid = retained(&db, "acme").await;
    db.register(&Object::new("taken")).await.unwrap();
    let error = db.register(&Object::new("new").slug("taken").adopt(uuid)).await.unwrap_err();
    assert!(matches!(error, RegisterError::SlugConflict { holder: Holder::Live { .. }, .. }), "{error}");
    assert_eq!(db.row(uuid).await.ledger_state, LedgerState::Retained);
    assert_eq!(db.register(&Object::new("new").adopt(uuid)).await.unwrap().row.slug, "new");
    db.register(&Object::new("acme")).await.unwrap();
}

#[tokio::test]
async fn data_of_a_live_tenant_unknown_data_and_dropped_data_are_refused() {
    let db = Database::new().await;
    let live = db.provisioned(&Object::new("acme")).await;
    let error = db.register(&Object::new("thief").adopt(live)).await.unwrap_err();
    assert!(
        matches!(&error, RegisterError::AlreadyClaimed { uuid, holder: Holder::Live { name, .. } } if *uuid == live && name == "acme")
    );
    let unknown = Uuid::new_v4();
    let error = db.register(&Object::new("thief").adopt(unknown)).await.unwrap_err();
    assert!(matches!(error, RegisterError::UnknownData(uuid) if uuid == unknown));
    let dropped = quarantined(&db, "gone", in_the_past()).await;
    assert!(db.central.begin_drop(dropped).await.unwrap());
    let error = db.register(&Object::new("thief").adopt(dropped)).await.unwrap_err();
    assert!(matches!(error, RegisterError::Dropped(uuid) if uuid == dropped));
    assert_eq!(db.number("SELECT count(*) FROM tenants WHERE object_name = 'thief'").await, 0);
}

#[tokio::test]
async fn an_object_keeps_what_it_was_registered_with() {
    let db = Database::new().await;
    let other = retained(&db, "other").await;
    let object = Object::new("acme");
    let uuid = db.provisioned(&object).await;
    let error = db.register(&object.adopt(other)).await.unwrap_err();
    assert!(matches!(error, RegisterError::OtherData { recorded, asked } if recorded == uuid && asked == other));
}

#[tokio::test]
async fn adopted_data_comes_with_the_hosts_that_it_proved_and_loses_those_that_are_not_asked_for() {
    let db = Database::new().await;
    let object = Object::new("acme").host("a.example", true).host("b.example", false);
    let uuid = db.provisioned(&object).await;
    db.prove(uuid, "a.example").await;
    db.prove(uuid, "b.example").await;
    db.central.release(uuid, object.uid, DatabaseFact::Present).await.unwrap();
    let row = db.register(&Object::new("acme").host("a.example", true).adopt(uuid)).await.unwrap().row;
    let hosts: Vec<_> = row.hosts.iter().map(|host| (host.host.as_str(), host.primary, host.verified)).collect();
    assert_eq!(hosts, [("a.example", true, true)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_objects_that_name_the_same_data_exactly_one_gets_it() {
    let db = Database::new().await;
    for round in 0..10 {
        let uuid = retained(&db, &format!("acme-{round}")).await;
        let (one, two) =
            (Object::new(&format!("one-{round}")).adopt(uuid), Object::new(&format!("two-{round}")).adopt(uuid));
        let results = <[_; 2]>::from(tokio::join!(db.register(&one), db.register(&two)));
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert!(results.iter().any(|result| matches!(result, Err(RegisterError::AlreadyClaimed { .. }))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn either_the_drop_or_the_adoption_wins_and_never_both() {
    let db = Database::new().await;
    for round in 0..10 {
        let uuid = quarantined(&db, &format!("acme-{round}"), in_the_past()).await;
        let object = Object::new(&format!("again-{round}")).adopt(uuid);
        let (dropped, adopted) = tokio::join!(db.central.begin_drop(uuid), db.register(&object));
        assert_ne!(dropped.unwrap(), adopted.is_ok());
    }
}
