//! How failures of the central database are told apart.

use crate::support::{Database, Object, ca, server_url, url_of};
use maintenance_os::central::{Central, CentralError, RegisterError};

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable_and_the_handle_is_made_all_the_same() {
    let central = Central::connect("postgres://u:p@127.0.0.1:1/x", Some(&ca())).await.unwrap();
    assert!(matches!(central.rows().await, Err(CentralError::Unreachable { .. })));
    assert!(matches!(central.migrate().await, Err(CentralError::Unreachable { .. })));
    let refused = central.register(&Object::new("acme").registration()).await;
    assert!(matches!(refused, Err(RegisterError::Central(CentralError::Unreachable { .. }))), "{refused:?}");
}

#[tokio::test]
async fn a_wrong_password_is_denied() {
    let url = server_url();
    let (_, host) = url.rsplit_once('@').unwrap();
    let central = Central::connect(&format!("postgres://postgres:wrong@{host}"), Some(&ca())).await.unwrap();
    let error = central.ping().await.unwrap_err();
    assert!(matches!(error, CentralError::Denied { .. }), "{error:?}");
    assert!(!format!("{error} {error:?}").contains("wrong@"));
}

#[tokio::test]
async fn a_role_without_rights_is_denied() {
    let db = Database::new().await;
    let url = format!("{}?options[role]=pg_monitor", url_of(&db.name));
    let central = Central::connect(&url, Some(&ca())).await.unwrap();
    assert!(matches!(central.rows().await, Err(CentralError::Denied { .. })));
}

#[tokio::test]
async fn a_database_without_the_tables_is_a_refused_statement() {
    let db = Database::empty().await;
    assert!(matches!(db.central.rows().await, Err(CentralError::Query { .. })));
}

#[tokio::test]
async fn a_server_that_cannot_prove_its_name_is_not_spoken_to() {
    let central = Central::connect(&url_of("postgres"), None).await.unwrap();
    let error = central.ping().await.unwrap_err();
    assert!(matches!(error, CentralError::Unreachable { .. }), "{error:?}");
}

#[tokio::test]
async fn the_search_path_is_pinned_whatever_the_role_or_the_database_says() {
    let db = Database::new().await;
    db.execute(&format!(
        "CREATE SCHEMA evil; CREATE TABLE evil.tenants (id int); ALTER DATABASE {} SET search_path = evil, public",
        db.name
    ))
    .await;
    let central = Central::connect(&url_of(&db.name), Some(&ca())).await.unwrap();
    assert_eq!(central.rows().await.unwrap(), []);
}

#[tokio::test]
async fn an_unreadable_ca_file_and_a_bad_url_are_said_at_once() {
    let missing = Central::connect(&server_url(), Some(std::path::Path::new("/nowhere/ca.crt"))).await.unwrap_err();
    assert!(missing.to_string().contains("/nowhere/ca.crt"), "{missing}");
    assert!(matches!(Central::connect("not a url", None).await, Err(CentralError::Url { .. })));
}

#[tokio::test]
async fn a_server_that_went_away_and_came_back_is_used_again() {
    let db = Database::new().await;
    db.central.ping().await.unwrap();
    db.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()").await;
    db.central.ping().await.unwrap();
    db.register(&Object::new("acme")).await.unwrap();
}
