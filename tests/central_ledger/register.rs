//! Object → uuid: create, find again, conflicts, two at once.

use crate::support::{Database, Object};
use maintenance_os::api::tenant::TenantState;
use maintenance_os::central::{DatabaseFact, Holder, LedgerState, Outcome, RegisterError};
use uuid::Uuid;

fn live(name: &str) -> Holder {
    Holder::Live { namespace: "customers".into(), name: name.into() }
}

#[tokio::test]
async fn a_new_object_gets_a_uuid_once_and_the_row_has_what_it_says() {
    let db = Database::new().await;
    let mut object = Object::new("acme").host("b.example", true).host("a.example", false);
    object.trial_ends_at = Some("2026-12-31T23:59:59.123456789Z".parse().unwrap());
    object.metadata.insert("crmId".into(), "4711".into());
    let first = db.register(&object).await.unwrap();
    assert_eq!(first.outcome, Outcome::Created);
    let row = &first.row;
    assert_eq!((row.namespace.as_str(), row.name.as_str(), row.slug.as_str()), ("customers", "acme", "acme"));
    assert_eq!((row.object_uid, row.plan.as_deref()), (Some(object.uid), Some("pro")));
    assert_eq!((row.ledger_state, row.epoch, row.server.as_deref()), (LedgerState::Registered, 1, None));
    assert_eq!(row.metadata, object.metadata);
    let hosts: Vec<_> = row.hosts.iter().map(|host| (host.host.as_str(), host.primary, host.verified)).collect();
    assert_eq!(hosts, [("a.example", false, false), ("b.example", true, false)]);
    assert_eq!(db.row(row.uuid).await, first.row);
    assert_eq!(db.actions().await, ["tenant.registered"]);
    let again = db.register(&object.clone().known(row.uuid)).await.unwrap();
    assert_eq!((again.outcome, again.row), (Outcome::Unchanged, first.row));
}

#[tokio::test]
async fn registering_the_same_again_writes_nothing() {
    let db = Database::new().await;
    let mut object = Object::new("acme").host("a.example", true);
    object.trial_ends_at = Some("9999-12-30T22:00:00.999999999Z".parse().unwrap());
    db.register(&object).await.unwrap();
    let locks = "SELECT xmax::text FROM tenants UNION ALL SELECT xmax::text FROM domains";
    let before = (db.versions().await, db.texts(locks).await);
    for _ in 0..3 {
        let again = db.register(&object).await.unwrap();
        assert_eq!(again.outcome, Outcome::Unchanged, "{:?}", again.row);
    }
    assert_eq!((db.versions().await, db.texts(locks).await), before);
}

#[tokio::test]
async fn every_change_of_the_object_reaches_the_row() {
    let db = Database::new().await;
    let mut object = Object::new("acme");
    let uuid = db.register(&object).await.unwrap().row.uuid;
    let changes: [fn(&mut Object); 7] = [
        |object| object.display_name = "Acme AG".into(),
        |object| object.plan = Some("free"),
        |object| object.plan = None,
        |object| object.state = TenantState::Suspended,
        |object| object.trial_ends_at = Some("2026-12-31T23:59:59Z".parse().unwrap()),
        |object| object.trial_ends_at = None,
        |object| drop(object.metadata.insert("crmId".into(), "4711".into())),
    ];
    for change in changes {
        change(&mut object);
        let registered = db.register(&object).await.unwrap();
        assert_eq!((registered.outcome, registered.row.uuid), (Outcome::Updated, uuid));
        assert_eq!(db.register(&object).await.unwrap().outcome, Outcome::Unchanged);
    }
    assert_eq!(db.number("SELECT count(*) FROM audit_logs WHERE action = 'tenant.updated'").await, 7);
}

#[tokio::test]
async fn every_state_is_stored_and_read_back() {
    let db = Database::new().await;
    let mut object = Object::new("acme");
    for state in [TenantState::ReadOnly, TenantState::Suspended, TenantState::Hibernated, TenantState::Active] {
        object.state = state;
        assert_eq!(db.register(&object).await.unwrap().row.state, state);
    }
}

#[tokio::test]
async fn hosts_come_go_and_change_their_primary_and_keep_their_verification() {
    let db = Database::new().await;
    let object = Object::new("acme").host("a.example", true).host("b.example", false);
    let uuid = db.register(&object).await.unwrap().row.uuid;
    db.prove(uuid, "b.example").await;
    let mut changed = object.clone();
    changed.hosts = vec![("c.example".into(), false), ("b.example".into(), true)];
    let row = db.register(&changed).await.unwrap().row;
    let hosts: Vec<_> = row.hosts.iter().map(|host| (host.host.as_str(), host.primary, host.verified)).collect();
    assert_eq!(hosts, [("b.example", true, true), ("c.example", false, false)]);
    changed.hosts.clear();
    assert_eq!(db.register(&changed).await.unwrap().row.hosts, []);
}

#[tokio::test]
async fn a_plan_that_the_ledger_does_not_have_is_said_and_nothing_is_written() {
    let db = Database::new().await;
    let mut object = Object::new("acme");
    object.plan = Some("gold");
    let error = db.register(&object).await.unwrap_err();
    assert!(matches!(error, RegisterError::PlanUnknown(plan) if plan == "gold"));
    assert_eq!(db.number("SELECT count(*) FROM tenants").await, 0);
}

#[tokio::test]
async fn a_slug_of_another_live_tenant_is_refused() {
    let db = Database::new().await;
    db.register(&Object::new("acme")).await.unwrap();
    let error = db.register(&Object::new("other").slug("acme")).await.unwrap_err();
    assert!(
        matches!(&error, RegisterError::SlugConflict { slug, holder } if slug == "acme" && *holder == live("acme")),
        "{error}"
    );
    assert_eq!(error.to_string(), "the slug acme belongs to the Tenant customers/acme");
    assert_eq!(db.number("SELECT count(*) FROM tenants").await, 1);
}

#[tokio::test]
async fn a_host_that_another_tenant_has_keeps_nobody_from_being_registered() {
    let db = Database::new().await;
    let acme = db.register(&Object::new("acme").host("a.example", true)).await.unwrap().row;
    let other = Object::new("other").host("b.example", true).host("a.example", false);
    let row = db.register(&other).await.unwrap().row;
    let hosts: Vec<_> = row.hosts.iter().map(|host| host.host.as_str()).collect();
    assert_eq!(hosts, ["b.example"]);
    assert_eq!(db.row(acme.uuid).await.hosts, acme.hosts);
    let before = db.versions().await;
    db.register(&other.known(row.uuid)).await.unwrap();
    assert_eq!(db.versions().await, before, "asking again writes nothing");
}

#[tokio::test]
async fn a_known_uuid_without_a_row_is_a_lost_ledger_and_never_a_new_tenant() {
    let db = Database::new().await;
    let lost = Uuid::new_v4();
    for object in [Object::new("acme").known(lost), Object::new("acme").known(lost).adopt(lost)] {
        let error = db.register(&object).await.unwrap_err();
        assert!(matches!(error, RegisterError::LedgerLost(uuid) if uuid == lost), "{error}");
    }
    assert_eq!(db.number("SELECT count(*) FROM tenants").await, 0);
}

#[tokio::test]
async fn a_lost_row_is_written_again_for_the_object_that_the_mark_names() {
    let db = Database::new().await;
    let lost = Uuid::new_v4();
    let object = Object::new("acme").host("acme.example", true).known(lost).marked("pg-2", "0003_abc");
    let rebuilt = db.register(&object).await.unwrap();
    assert_eq!(rebuilt.outcome, Outcome::Rebuilt);
    let row = rebuilt.row;
    assert_eq!((row.uuid, row.object_uid, row.slug.as_str()), (lost, Some(object.uid), "acme"));
    assert_eq!((row.ledger_state, row.server.as_deref()), (LedgerState::Provisioned, Some("pg-2")));
    assert_eq!((row.schema_version.as_deref(), row.hosts.len()), (Some("0003_abc"), 1));
    assert_eq!(db.actions().await.last().unwrap(), "tenant.rebuilt");
    assert_eq!(db.register(&object).await.unwrap().outcome, Outcome::Unchanged);
}

#[tokio::test]
async fn a_lost_row_is_not_written_again_over_somebody_elses_slug_uuid_or_release() {
    let db = Database::new().await;
    let acme = db.provisioned(&Object::new("acme")).await;
    let slug = Object::new("again").slug("acme").known(Uuid::new_v4()).marked("pg-1", "0001");
    let error = db.register(&slug).await.unwrap_err();
    assert!(matches!(&error, RegisterError::SlugConflict { holder, .. } if *holder == live("acme")), "{error}");
    let uuid = Object::new("other").known(acme).marked("pg-1", "0001");
    let error = db.register(&uuid).await.unwrap_err();
    assert!(matches!(&error, RegisterError::AlreadyClaimed { uuid, .. } if *uuid == acme), "{error}");
    // Another uuid is asked for than the one that was given: a mark proves nothing for it.
    let asked = Object::new("third").known(Uuid::new_v4()).adopt(Uuid::new_v4()).marked("pg-1", "0001");
    assert!(matches!(db.register(&asked).await.unwrap_err(), RegisterError::UnknownData(_)));
    let gone = Object::new("gone");
    let given_up = db.register(&gone).await.unwrap().row.uuid;
    db.central.release(given_up, gone.uid, DatabaseFact::Absent).await.unwrap();
    let error = db.register(&gone.known(given_up).marked("pg-1", "0001")).await.unwrap_err();
    assert!(matches!(error, RegisterError::Released(uuid) if uuid == given_up), "{error}");
}

#[tokio::test]
async fn a_known_uuid_that_another_has_gives_no_right_to_it() {
    let db = Database::new().await;
    let acme = db.provisioned(&Object::new("acme")).await;
    let error = db.register(&Object::new("other").known(acme)).await.unwrap_err();
    assert!(
        matches!(&error, RegisterError::AlreadyClaimed { uuid, holder } if *uuid == acme && *holder == live("acme")),
        "{error}"
    );
    let object = db.row(acme).await.object_uid.unwrap();
    db.central.release(acme, object, DatabaseFact::Present).await.unwrap();
    let kept = Holder::Kept { uuid: acme, state: LedgerState::Retained };
    let error = db.register(&Object::new("acme").known(acme)).await.unwrap_err();
    assert!(matches!(&error, RegisterError::SlugConflict { holder, .. } if *holder == kept), "{error}");
    assert_eq!(db.row(acme).await.ledger_state, LedgerState::Retained);
}

#[tokio::test]
async fn a_new_object_of_the_same_name_never_gets_the_old_data() {
    let db = Database::new().await;
    let old = Object::new("acme").host("a.example", true);
    let uuid = db.provisioned(&old).await;
    let new = Object::new("acme").host("a.example", true);
    for _ in 0..2 {
        let error = db.register(&new).await.unwrap_err();
        let kept = Holder::Kept { uuid, state: LedgerState::Retained };
        assert!(matches!(&error, RegisterError::SlugConflict { holder, .. } if *holder == kept), "{error}");
    }
    let row = db.row(uuid).await;
    assert_eq!((row.ledger_state, row.object_uid, row.hosts.len()), (LedgerState::Retained, None, 0));
    assert_eq!(db.actions().await, ["tenant.registered", "tenant.provisioned", "tenant.superseded"]);
    let error = db.register(&old).await.unwrap_err();
    assert!(matches!(error, RegisterError::Released(tenant) if tenant == uuid), "a stale cache: {error}");
    // It may ask for it.
    let asked = Object { uid: new.uid, ..new.clone() }.adopt(uuid);
    assert_eq!(db.register(&asked).await.unwrap().row.uuid, uuid);
}

#[tokio::test]
async fn a_new_object_of_the_same_name_is_new_when_the_old_one_had_no_data_yet() {
    let db = Database::new().await;
    let old = db.register(&Object::new("acme")).await.unwrap().row.uuid;
    let new = db.register(&Object::new("acme")).await.unwrap();
    assert_eq!(new.outcome, Outcome::Created);
    assert_ne!(new.row.uuid, old);
    assert_eq!(db.central.row(old).await.unwrap(), None);
}

#[tokio::test]
async fn a_new_object_of_the_same_name_meets_a_database_that_may_have_been_made() {
    let db = Database::new().await;
    let old = db.register(&Object::new("acme")).await.unwrap().row.uuid;
    db.central.place(old, "pg-1", 10).await.unwrap();
    let error = db.register(&Object::new("acme")).await.unwrap_err();
    assert!(matches!(error, RegisterError::SlugConflict { holder: Holder::Kept { uuid, .. }, .. } if uuid == old));
}

#[tokio::test]
async fn an_object_that_was_released_is_not_registered_again() {
    let db = Database::new().await;
    let object = Object::new("acme");
    let uuid = db.register(&object).await.unwrap().row.uuid;
    db.central.release(uuid, object.uid, DatabaseFact::Absent).await.unwrap();
    let error = db.register(&object).await.unwrap_err();
    assert!(matches!(error, RegisterError::Released(tenant) if tenant == uuid), "{error}");
    assert_eq!(db.number("SELECT count(*) FROM tenants").await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_operators_registering_the_same_object_get_the_same_uuid() {
    let db = Database::new().await;
    for round in 0..20 {
        let object = Object::new(&format!("acme-{round}")).host(&format!("a{round}.example"), true);
        let (one, two) = tokio::join!(db.register(&object), db.register(&object));
        let (one, two) = (one.unwrap(), two.unwrap());
        assert_eq!(one.row, two.row);
        assert_eq!([one.outcome, two.outcome].iter().filter(|outcome| **outcome == Outcome::Created).count(), 1);
    }
    assert_eq!(db.number("SELECT count(*) FROM tenants").await, 20);
    assert_eq!(db.number("SELECT count(*) FROM audit_logs").await, 20);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_objects_with_one_slug_exactly_one_wins() {
    let db = Database::new().await;
    for round in 0..20 {
        let slug = format!("slug-{round}");
        let (one, two) =
            (Object::new(&format!("one-{round}")).slug(&slug), Object::new(&format!("two-{round}")).slug(&slug));
        let results = <[_; 2]>::from(tokio::join!(db.register(&one), db.register(&two)));
        assert_eq!(results.iter().filter(|result| result.is_ok()).count(), 1);
        assert!(
            results
                .iter()
                .any(|result| matches!(result, Err(RegisterError::SlugConflict { holder: Holder::Live { .. }, .. })))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_objects_with_the_same_hosts_in_two_orders_each_host_has_one_holder() {
    let db = Database::new().await;
    for round in 0..20 {
        let (a, b) = (format!("a{round}.example"), format!("b{round}.example"));
        let one = Object::new(&format!("one-{round}")).host(&a, true).host(&b, false);
        let two = Object::new(&format!("two-{round}")).host(&b, true).host(&a, false);
        let (one, two) = tokio::join!(db.register(&one), db.register(&two));
        let hosts = one.unwrap().row.hosts.len() + two.unwrap().row.hosts.len();
        assert_eq!(hosts, 2);
    }
}
