//! Whose a host is: claims, proofs, and what becomes of both when a Tenant goes.

use crate::support::{Database, GRACE, Object, in_the_future, in_the_past};
use maintenance_os::central::{DatabaseFact, HostRow, LedgerState, Proof, Quarantine};
use uuid::Uuid;

impl Database {
    async fn hosts(&self, uuid: Uuid) -> Vec<HostRow> {
        self.row(uuid).await.hosts
    }

    /// Lets time pass for a host.
    async fn age(&self, host: &str, days: u32) {
        let shift = format!("interval '{days} days'");
        self.execute(&format!(
            "UPDATE domains SET proved_at = proved_at - {shift}, lost_since = lost_since - {shift} WHERE domain = '{host}'"
        ))
        .await;
    }

    async fn miss(&self, uuid: Uuid, host: &str) -> bool {
        self.central.miss_host(uuid, host, GRACE).await.unwrap()
    }
}

#[tokio::test]
async fn whoever_proves_a_host_takes_it_from_whoever_only_claimed_it_and_from_nobody_else() {
    let db = Database::new().await;
    let squatter = db.register(&Object::new("squatter").host("a.example", true)).await.unwrap().row.uuid;
    let owner = db.register(&Object::new("owner").host("a.example", true)).await.unwrap().row.uuid;
    assert_eq!(db.hosts(owner).await, []);
    assert_eq!(db.proof(owner, "a.example").await, Proof::Taken { from: Some(squatter) });
    assert_eq!((db.hosts(squatter).await.len(), db.hosts(owner).await[0].verified), (0, true));
    assert_eq!(db.proof(squatter, "a.example").await, Proof::Held { by: owner });
    assert_eq!(db.proof(owner, "a.example").await, Proof::Taken { from: None });
    let proved =
        "SELECT tenant_slug || ' ' || (changes ->> 'host') FROM audit_logs WHERE action = 'tenant.host_proved'";
    assert_eq!(db.texts(proved).await, ["owner a.example"], "a proof that is seen again is nothing new");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_hundred_races_for_a_host_each_has_exactly_one_owner() {
    let db = Database::new().await;
    let one = db.register(&Object::new("one")).await.unwrap().row.uuid;
    let two = db.register(&Object::new("two")).await.unwrap().row.uuid;
    for race in 0..200 {
        let host = format!("race{race}.example");
        let (first, second) = tokio::join!(db.proof(one, &host), db.proof(two, &host));
        match (first, second) {
            (Proof::Taken { .. }, Proof::Held { by }) => assert_eq!(by, one),
            (Proof::Held { by }, Proof::Taken { .. }) => assert_eq!(by, two),
            other => panic!("race {race}: {other:?}"),
        }
    }
    assert_eq!(db.hosts(one).await.len() + db.hosts(two).await.len(), 200);
}

#[tokio::test]
async fn a_missing_proof_counts_for_a_while_and_then_the_host_is_free_for_whoever_proves_it() {
    let db = Database::new().await;
    let acme = db.register(&Object::new("acme").host("a.example", true)).await.unwrap().row.uuid;
    let other = db.register(&Object::new("other")).await.unwrap().row.uuid;
    db.prove(acme, "a.example").await;
    assert!(db.miss(acme, "a.example").await);
    assert!(!db.miss(acme, "a.example").await, "what is known to be missing is not written again");
    assert!(db.hosts(acme).await[0].verified && db.hosts(acme).await[0].lost_since.is_some());
    assert_eq!(db.proof(other, "a.example").await, Proof::Held { by: acme });
    db.prove(acme, "a.example").await;
    assert_eq!(db.hosts(acme).await[0].lost_since, None, "it came back in time");
    assert!(db.miss(acme, "a.example").await);
    db.age("a.example", 8).await;
    assert!(db.miss(acme, "a.example").await);
    assert!(!db.hosts(acme).await[0].verified);
    assert!(!db.miss(acme, "a.example").await);
    assert_eq!(db.proof(other, "a.example").await, Proof::Taken { from: Some(acme) });
    let actions = "SELECT action FROM audit_logs WHERE action LIKE 'tenant.host%' ORDER BY id";
    let expected =
        ["tenant.host_proved", "tenant.host_proof_missing", "tenant.host_proof_missing", "tenant.host_unproved"];
    assert_eq!(db.texts(actions).await[..4], expected);
}

#[tokio::test]
async fn a_proved_host_of_a_deleted_tenant_stays_reserved_through_its_quarantine() {
    let db = Database::new().await;
    let object = Object::new("acme").host("a.example", true).host("claimed.example", false);
    let acme = db.provisioned(&object).await;
    db.prove(acme, "a.example").await;
    let quarantined = db.central.quarantine(acme, object.uid, in_the_future(), true).await.unwrap();
    assert_eq!(quarantined, Quarantine::Quarantined);
    db.age("a.example", 30).await;
    let other = db.register(&Object::new("other").host("a.example", true)).await.unwrap().row.uuid;
    assert_eq!(db.proof(other, "a.example").await, Proof::Held { by: acme });
    assert_eq!(db.proof(other, "claimed.example").await, Proof::Taken { from: None });
    assert_eq!(db.proof(acme, "a.example").await, Proof::NotLive, "nobody proves anything for kept data");
    let back = db.register(&Object::new("acme").host("a.example", true).adopt(acme)).await.unwrap().row;
    assert!(back.hosts[0].verified, "an undelete brings the host back at once");
}

#[tokio::test]
async fn dropped_data_frees_its_hosts_and_retained_data_those_that_nobody_proved_for_a_while() {
    let db = Database::new().await;
    let object = Object::new("gone").host("gone.example", true);
    let gone = db.provisioned(&object).await;
    db.prove(gone, "gone.example").await;
    db.central.quarantine(gone, object.uid, in_the_past(), true).await.unwrap();
    assert!(db.central.begin_drop(gone).await.unwrap());
    let kept_object = Object::new("kept").host("kept.example", true);
    let kept = db.provisioned(&kept_object).await;
    db.prove(kept, "kept.example").await;
    db.central.release(kept, kept_object.uid, DatabaseFact::Present).await.unwrap();
    let other = db.register(&Object::new("other")).await.unwrap().row.uuid;
    assert_eq!(db.proof(other, "gone.example").await, Proof::Taken { from: None });
    assert_eq!(db.proof(other, "kept.example").await, Proof::Held { by: kept });
    db.age("kept.example", 8).await;
    assert_eq!(db.proof(other, "kept.example").await, Proof::Taken { from: Some(kept) });
    assert_eq!(db.row(kept).await.ledger_state, LedgerState::Retained);
}

#[tokio::test]
async fn a_host_that_is_taken_over_does_not_become_primary_by_itself_and_a_given_up_one_is_free() {
    let db = Database::new().await;
    let squatter = db.register(&Object::new("squatter").host("a.example", true)).await.unwrap().row.uuid;
    let owner = Object::new("owner").host("b.example", true).host("a.example", false);
    let uuid = db.register(&owner).await.unwrap().row.uuid;
    db.prove(uuid, "a.example").await;
    let primary: Vec<_> = db.hosts(uuid).await.into_iter().map(|host| (host.host, host.primary)).collect();
    assert_eq!(primary, [("a.example".to_owned(), false), ("b.example".to_owned(), true)]);
    db.central.drop_host(squatter, "a.example").await.unwrap();
    assert_eq!(db.hosts(uuid).await.len(), 2, "nobody gives up what is another's");
    db.central.drop_host(uuid, "a.example").await.unwrap();
    assert_eq!(db.proof(squatter, "a.example").await, Proof::Taken { from: None });
}
