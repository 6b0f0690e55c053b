//! Databases whose place a restored one has taken.

use crate::support::{Database, Object, in_the_future, in_the_past};
use maintenance_os::central::Replaced;
use uuid::Uuid;

#[tokio::test]
async fn a_replaced_database_is_listed_once_due_when_its_time_has_passed_and_dropped_once() {
    let db = Database::new().await;
    let tenant = db.provisioned(&Object::new("acme")).await;
    let replaced = |server: &str, drop_after| {
        let restore = Uuid::new_v4();
        let database = format!("maintenance_os_replaced_{restore}");
        Replaced { restore, tenant, server: server.into(), database, schema: "0004_ab".into(), drop_after }
    };
    let (due, other, later) =
        (replaced("pg-1", in_the_past()), replaced("pg-2", in_the_past()), replaced("pg-1", in_the_future()));
    for one in [&due, &other, &later] {
        db.central.note_replaced(one).await.unwrap();
        let before = db.versions().await;
        // What a person changed stands, and an answer that was lost makes no second entry.
        db.central.note_replaced(&Replaced { drop_after: in_the_past(), ..one.clone() }).await.unwrap();
        assert_eq!(db.versions().await, before);
    }
    assert_eq!(db.central.due_replaced("pg-1").await.unwrap(), [(due.restore, tenant)]);
    for _ in 0..2 {
        db.central.mark_replaced_dropped(due.restore).await.unwrap();
    }
    assert_eq!(db.central.due_replaced("pg-1").await.unwrap(), []);
    let told = db.actions().await;
    assert_eq!(told.iter().filter(|action| *action == "tenant.restored").count(), 3);
    assert_eq!(told.iter().filter(|action| *action == "tenant.replaced_database_dropped").count(), 1);
}
