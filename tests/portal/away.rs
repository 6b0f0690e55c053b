//! The central database is down, or the API is.

use std::time::Duration;

use maintenance_os::central::Central;
use serde_json::json;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::house::{House, KEYS, PASSWORD, all};
use crate::ledger::{Database, ca, url_of};

/// The way to the central database, which can be cut.
struct Wire {
    port: u16,
    cut: CancellationToken,
}

impl Wire {
    async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (own, cut) = (listener.local_addr().unwrap().port(), CancellationToken::new());
        let ended = cut.clone();
        tokio::spawn(async move {
            loop {
                let accepted =
                    tokio::select! { accepted = listener.accept() => accepted, () = ended.cancelled() => return };
                let (mut near, ended) = (accepted.unwrap().0, ended.clone());
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
                    tokio::select! { _ = copy_bidirectional(&mut near, &mut far) => {}, () = ended.cancelled() => {} }
                });
            }
        });
        Self { port: own, cut }
    }
}

#[tokio::test]
async fn without_the_central_database_one_can_look_and_change_nothing() {
    let db = Database::new().await;
    let port = db.pool.connect_options().get_port();
    let wire = Wire::to(port).await;
    let url = url_of(&db.name).replace(&format!(":{port}/"), &format!(":{}/", wire.port));
    let central = Central::connect(&url, Some(&ca())).await.unwrap();
    let house = House::with(db, central, KEYS).await;
    house.tenant("acme", json!({})).await;
    let mut browser = house.signed_in("jo@example.com", all()).await;
    let path = house.path("acme");
    let page = browser.get(&format!("{path}/suspend")).await.is(200);
    wire.cut.cancel();
    for page in ["/", "/tenants", "/plans", "/servers", &path] {
        let shown = browser.get(page).await.is(200).says("nothing can be changed");
        shown.does_not_say(&format!("{path}/suspend"));
    }
    browser.get("/").await.says("Central database").says("Out of order");
    for page in ["/log", "/log.csv", "/admins", "/account"] {
        browser.get(page).await.is(503).says("The central database does not answer");
    }
    let form = [("uid", page.field("uid")), ("generation", page.field("generation")), ("reason", "because".into())];
    let form: Vec<_> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    browser.post(&format!("{path}/suspend"), &form).await.is(503);
    assert_eq!(house.now("acme").await.spec.state, maintenance_os::api::tenant::TenantState::Active);
    // Who was not signed in stays outside.
    let mut stranger = house.browser.elsewhere("192.0.2.9");
    stranger.get("/sign-in").await.is(200);
    stranger.post("/sign-in", &[("email", "jo@example.com"), ("password", PASSWORD)]).await.is(503);
    let mut forged = browser.clone();
    forged.cookies.insert(crate::browser::SESSION.into(), "A".repeat(43));
    forged.get("/tenants").await.is(503);
    // And not for ever.
    house.clock.advance(16 * 60);
    browser.get("/tenants").await.is(503);
}

#[tokio::test]
async fn without_the_kubernetes_api_what_was_known_is_shown() {
    let house = House::new().await;
    house.tenant("acme", json!({})).await;
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let mut config = kube::Config::new(format!("http://{nowhere}").parse().unwrap());
    config.connect_timeout = Some(Duration::from_secs(1));
    let cluster = maintenance_os::portal::cluster::Cluster::new(kube::Client::try_from(config).unwrap());
    let error = cluster.tenant(&house.namespace, "acme").await.unwrap_err();
    assert!(matches!(error, maintenance_os::portal::cluster::ClusterError::Away(_)), "{error}");
}
