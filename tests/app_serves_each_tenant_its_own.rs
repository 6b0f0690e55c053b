//! Each tenant's host answers from that tenant's own database, and from no other, whatever happens around it.

#![allow(clippy::unwrap_used, reason = "a failed test may say so at once")]

mod tenants;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::{Request, StatusCode};
use maintenance_os::api::routing::RoutingEntry;
use maintenance_os::api::tenant::TenantState;
use maintenance_os::tenancy::pool::{PoolError, PoolSettings};
use maintenance_os::tenancy::{TenantContext, layers};
use rand::Rng;
use sqlx::Executor;
use sqlx::postgres::PgConnection;
use tenants::{App, DEADLINE, answer, eventually, with_tenants};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// Few enough that connections are handed from request to request and taken from tenant to tenant all the time.
fn pool() -> PoolSettings {
    PoolSettings { max_per_tenant: 6, ..PoolSettings::new(8) }
}

#[tokio::test]
async fn each_host_answers_from_its_own_database() {
    with_tenants(2, async |_, tenants| {
        let app = App::serving(&tenants, pool()).await;
        let [acme, other] = &tenants[..] else { unreachable!() };
        assert_eq!((app.assets(acme).await, app.assets(other).await), (0, 0));

        let added = app.add_by_form(acme, "Compressor <b>7</b>").await;
        assert_eq!(added.status, StatusCode::SEE_OTHER, "{}", added.body);
        assert_eq!(added.headers["location"], "/assets/1?done=added");
        assert_eq!(app.add_by_json(acme, "Press brake").await.status, StatusCode::CREATED);
        assert_eq!((app.assets(acme).await, app.assets(other).await), (2, 0));

        let page = app.get(acme, "/assets").await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        assert!(page.body.contains(&acme.display_name) && page.body.contains("Press brake"), "{}", page.body);
        assert!(page.body.contains("Compressor &#60;b&#62;7"), "what people type is shown as text: {}", page.body);
        let page = app.get(other, "/assets").await;
        assert!(page.body.contains(&other.display_name) && page.body.contains("No assets yet"), "{}", page.body);
        assert!(!page.body.contains(&acme.display_name), "{}", page.body);
    })
    .await;
}

#[tokio::test]
async fn what_a_form_got_wrong_is_said_on_the_same_page_and_nothing_is_stored() {
    with_tenants(1, async |_, tenants| {
        let app = App::serving(&tenants, pool()).await;
        let too_long = "a".repeat(256);
        for (name, expected) in [("", "missing"), ("a\0b", "control character"), (&too_long, "256 characters")] {
            let answer = app.add_by_form(&tenants[0], name).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name}");
            assert!(answer.body.contains(expected), "{name}: {}", answer.body);
            assert!(answer.body.contains("<form"), "{name}: {}", answer.body);
        }
        assert_eq!(app.assets(&tenants[0]).await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_document_that_makes_no_sense_is_refused_and_nothing_is_stored() {
    with_tenants(1, async |_, tenants| {
        let app = App::serving(&tenants, pool()).await;
        let client = app.client(&tenants[0], "admin").await;
        let json = "application/json";
        let rows = [
            (415, "text/plain", "{}"),
            (400, json, "{\"name\":"),
            // What does not fit the document is invalid as well: one status for both keeps it simple.
            (400, json, "{\"nmae\":\"Pump\"}"),
            (400, json, "{\"name\":\"a\\u0000\"}"),
        ];
        for (status, kind, body) in rows {
            let request = client.request(http::Method::POST, "/api/assets").header("content-type", kind);
            let refused = answer(&app.router, request.body(Body::from(body)).unwrap()).await;
            assert_eq!(refused.status.as_u16(), status, "{kind} {body}: {}", refused.body);
            assert_eq!(refused.headers["content-type"], "application/problem+json");
        }
        assert_eq!(app.assets(&tenants[0]).await, 0);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_plans_limit_holds_even_for_requests_at_the_same_time() {
    with_tenants(1, async |server, mut tenants| {
        tenants[0].plan.limits.assets = Some(3);
        let app = App::serving(&tenants, pool()).await;
        let name = &tenants[0].database.name;
        // Nobody can insert until all that may run at the same time have counted, or wait for their turn to count.
        let mut closed = server.hold(name, "LOCK TABLE assets IN SHARE MODE").await;
        let adding = (0..12).map(|number| {
            let (app, tenants) = (&app, &tenants);
            async move { app.add_by_json(&tenants[0], &format!("Pump {number}")).await.status }
        });
        let waiting =
            format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event_type = 'Lock'");
        let open = async {
            eventually("six requests wait", async || server.number("postgres", &waiting).await == 6).await;
            closed.execute("COMMIT").await.unwrap();
        };
        let (statuses, ()) = futures::join!(futures::future::join_all(adding), open);
        assert_eq!(statuses.iter().filter(|status| **status == StatusCode::CREATED).count(), 3, "{statuses:?}");
        let refused = app.add_by_json(&tenants[0], "One more").await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN);
        let document: serde_json::Value = serde_json::from_str(&refused.body).unwrap();
        assert_eq!((document["limit"].as_str(), document["max"].as_i64()), (Some("assets"), Some(3)));
        let page = app.add_by_form(&tenants[0], "One more").await;
        assert_eq!(page.status, StatusCode::FORBIDDEN);
        assert!(page.body.contains("3 assets"), "{}", page.body);
        assert_eq!(app.assets(&tenants[0]).await, 3);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_answer_ever_carries_another_tenants_marker_though_requests_are_cancelled() {
    with_tenants(3, async |server, tenants| {
        let tenants = Arc::new(tenants);
        let cancelled = Arc::new(AtomicUsize::new(0));
        // First so few connections that they go from tenant to tenant all the time, then enough to be used again.
        for max in [4, 12] {
            let settings = PoolSettings { max_per_tenant: 4, wait: DEADLINE, ..PoolSettings::new(max) };
            let app = Arc::new(App::serving(&tenants, settings).await);
            for tenant in tenants.iter() {
                app.add_by_json(tenant, &format!("Marker {}", tenant.uuid.simple())).await;
            }
            let requests = (0..200)
                .map(|number| tokio::spawn(one_of_many(number, max, app.clone(), tenants.clone(), cancelled.clone())));
            for request in futures::future::join_all(requests).await {
                request.unwrap_or_else(|error| panic!("with {max} connections: {error}"));
            }
        }
        assert!(cancelled.load(Ordering::Relaxed) > 0, "some requests were cut off");
        for tenant in tenants.iter() {
            let name = &tenant.database.name;
            let foreign = format!("SELECT count(*) FROM assets WHERE name NOT LIKE '%{}'", tenant.uuid.simple());
            assert_eq!(server.number(name, &foreign).await, 0, "nothing was stored at another tenant");
            let halves = "SELECT count(*) FROM assets a FULL JOIN activities b ON b.subject_id = a.id \
                          WHERE a.id IS NULL OR b.id IS NULL";
            assert_eq!(server.number(name, halves).await, 0, "nothing was stored half");
        }
    })
    .await;
}

/// One request of a kind that follows from its number; one in ten is cut off at some moment.
async fn one_of_many(
    number: usize,
    max: usize,
    app: Arc<App>,
    tenants: Arc<Vec<RoutingEntry>>,
    cancelled: Arc<AtomicUsize>,
) {
    let tenant = &tenants[number % tenants.len()];
    let name = format!("Asset {}", tenant.uuid.simple());
    let request = async {
        match number % 4 {
            0 => app.get(tenant, "/").await,
            1 => app.get(tenant, "/api/tenant").await,
            2 => app.add_by_json(tenant, &name).await,
            _ => app.add_by_form(tenant, &name).await,
        }
    };
    let cut_off = Duration::from_micros(rand::rng().random_range(1..2_000_000));
    let patience = if number % 10 == 7 { cut_off } else { DEADLINE };
    let Ok(answer) = tokio::time::timeout(patience, request).await else {
        assert_ne!(patience, DEADLINE, "request {number} was not answered in time");
        cancelled.fetch_add(1, Ordering::Relaxed);
        return;
    };
    assert!(answer.status.is_success() || answer.status == StatusCode::SEE_OTHER, "{}", answer.body);
    for other in tenants.iter().filter(|other| other.uuid != tenant.uuid) {
        assert!(!answer.body.contains(&other.uuid.simple().to_string()), "{}", answer.body);
        assert!(!answer.body.contains(&other.uuid.to_string()), "{}", answer.body);
    }
    assert!(app.tenancy.pools().open() <= max, "the bound over all tenants holds");
}

#[tokio::test]
async fn a_pooler_entry_that_leads_to_another_tenants_database_is_noticed_and_nothing_is_read() {
    with_tenants(2, async |server, mut tenants| {
        let address = misleading_pooler(server, &tenants[0].database.name, &tenants[1].database.name).await;
        let app = App::serving(&tenants, pool()).await;
        app.add_by_json(&tenants[1], "Secret press").await;
        // The administrator, in clear, because a tenant's own login would be refused by the server already.
        let url = std::env::var("MOS_TEST_POSTGRES_URL").unwrap();
        let password = url.split(['@', ':']).nth(2).unwrap();
        let access = &mut tenants[0].database;
        (access.host, access.port) = (address.ip().to_string(), address.port());
        (access.username, access.password, access.sslmode) = ("postgres".into(), password.into(), "disable".into());
        let app = App::serving(&tenants, pool()).await;
        for path in ["/", "/api/tenant"] {
            let answer = app.get(&tenants[0], path).await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {}", answer.body);
            assert!(!answer.body.contains("Secret press"), "{path}: {}", answer.body);
        }
        assert_eq!(app.add_by_json(&tenants[0], "Lost").await.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(app.assets(&tenants[1]).await, 1, "the other tenant is untouched");
    })
    .await;
}

/// Does what a wrong line in a pooler's configuration does: whoever asks for `asked` gets `given`.
async fn misleading_pooler(server: &tenants::Server, asked: &str, given: &str) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let postgres = (server.administrator.get_host().to_owned(), server.administrator.get_port());
    let (asked, given) = (asked.to_owned(), given.to_owned());
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let length = client.read_u32().await.unwrap();
            let mut startup = vec![0; length as usize - 4];
            client.read_exact(&mut startup).await.unwrap();
            let startup = String::from_utf8_lossy(&startup).replace(&asked, &given).into_bytes();
            let mut server = TcpStream::connect((postgres.0.as_str(), postgres.1)).await.unwrap();
            server.write_u32(length).await.unwrap();
            server.write_all(&startup).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut client, &mut server).await });
        }
    });
    address
}

#[tokio::test]
async fn the_servers_own_rules_keep_a_login_out_of_another_tenants_database() {
    with_tenants(2, async |_, mut tenants| {
        let app = App::serving(&tenants, pool()).await;
        assert_eq!(app.assets(&tenants[0]).await, 0);
        // Tenant 1's identity and database, with tenant 0's login: what a mixed-up entry would look like.
        tenants[1].database.username = tenants[0].database.username.clone();
        tenants[1].database.password = tenants[0].database.password.clone();
        let app = App::serving(&tenants, pool()).await;
        assert_eq!(app.get(&tenants[1], "/").await.status, StatusCode::SERVICE_UNAVAILABLE);
    })
    .await;
}

#[tokio::test]
async fn a_change_of_routing_applies_without_a_restart() {
    with_tenants(2, async |server, tenants| {
        // Nothing is closed here merely because it was idle.
        let settings = PoolSettings { idle: Duration::from_hours(1), ..pool() };
        let mut app = App::serving(&tenants[..1], settings).await;
        let (mut acme, newcomer) = (tenants[0].clone(), tenants[1].clone());
        assert_eq!(app.get(&newcomer, "/").await.status, StatusCode::NOT_FOUND);
        app.add_by_json(&acme, "Pump").await;

        app.route(&[acme.clone(), newcomer.clone()]);
        eventually("the newcomer is served", async || app.get(&newcomer, "/").await.status == StatusCode::OK).await;

        // Rotation: the other login, with another password.
        acme.database.username = format!("tenant_{}_b", acme.uuid);
        acme.database.password += "-b";
        app.route(&[acme.clone(), newcomer.clone()]);
        let sessions = |login: &str| {
            format!("SELECT count(*) FROM pg_stat_activity WHERE usename = 'tenant_{}_{login}'", acme.uuid)
        };
        eventually("the new login is used, and the old one's sessions are closed", async || {
            assert_eq!(app.assets(&acme).await, 1);
            server.number("postgres", &sessions("a")).await == 0 && server.number("postgres", &sessions("b")).await > 0
        })
        .await;

        acme.state = TenantState::Suspended;
        app.route(&[acme.clone(), newcomer.clone()]);
        eventually("it is suspended", async || app.get(&acme, "/").await.status == StatusCode::SERVICE_UNAVAILABLE)
            .await;
        assert_eq!(app.get(&newcomer, "/").await.status, StatusCode::OK);

        app.route(std::slice::from_ref(&newcomer));
        eventually("it is gone", async || app.get(&acme, "/").await.status == StatusCode::NOT_FOUND).await;
        eventually("its sessions are closed", async || server.number("postgres", &sessions("b")).await == 0).await;
        assert_eq!(app.get(&newcomer, "/").await.status, StatusCode::OK);
    })
    .await;
}

/// Another app than ours on the same library, whose handlers misbehave.
fn misbehaving(app: &App) -> Router {
    async fn pid(db: &mut PgConnection) -> Result<i32, PoolError> {
        Ok(sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(db).await.unwrap())
    }
    let routes = Router::new()
        .route("/pid", get(async |tenant: TenantContext| tenant.database().run(pid).await.unwrap().to_string()))
        .route(
            "/sleep",
            get(async |tenant: TenantContext| {
                let sleep = async |db: &mut PgConnection| {
                    db.execute("SELECT pg_sleep(60)").await.unwrap();
                    Ok::<_, PoolError>(())
                };
                tenant.database().run(sleep).await.unwrap();
            }),
        )
        .route(
            "/begin",
            get(async |tenant: TenantContext| {
                let begin = async |db: &mut PgConnection| {
                    db.execute("BEGIN").await.unwrap();
                    db.execute("INSERT INTO assets (name) VALUES ('left behind')").await.unwrap();
                    Ok::<_, PoolError>(())
                };
                tenant.database().run(begin).await.unwrap();
            }),
        );
    layers::tenant(routes, &app.tenancy)
}

#[tokio::test]
async fn only_a_connection_whose_work_ran_to_its_end_is_used_again() {
    with_tenants(1, async |server, tenants| {
        let app = App::serving(&tenants, pool()).await;
        let router = misbehaving(&app);
        let request = |path: &str| Request::get(path).header("host", &tenants[0].primary_host).body(Body::empty()).unwrap();
        let first = answer(&router, request("/pid")).await.body;
        assert_eq!(answer(&router, request("/pid")).await.body, first, "a clean connection is used again");

        // The client hangs up once the query runs.
        let name = &tenants[0].database.name;
        let sleeping = format!(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND query LIKE '%pg_sleep(60)%' AND state = 'active'"
        );
        tokio::select! {
            _ = answer(&router, request("/sleep")) => panic!("nobody waits a minute"),
            () = eventually("the query runs", async || server.number("postgres", &sleeping).await == 1) => {}
        }
        assert_eq!(app.tenancy.pools().open(), 0, "the connection of the cancelled request is gone");
        let second = answer(&router, request("/pid")).await.body;
        assert_ne!(second, first);

        answer(&router, request("/begin")).await;
        let third = answer(&router, request("/pid")).await.body;
        assert_ne!(third, second, "a connection with an open transaction is not used again");
        assert_eq!(app.assets(&tenants[0]).await, 0, "and what it left behind is rolled back");
    })
    .await;
}

#[tokio::test]
async fn idle_connections_are_closed_and_a_server_that_closed_them_first_is_not_noticed() {
    with_tenants(1, async |server, tenants| {
        let settings = PoolSettings { idle: Duration::from_millis(200), ..pool() };
        let app = App::serving(&tenants, settings).await;
        app.assets(&tenants[0]).await;
        let sessions = format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{}'", tenants[0].database.name);
        eventually("the session ends", async || server.number("postgres", &sessions).await == 0).await;
        assert_eq!(app.tenancy.pools().open(), 0);

        let app = App::serving(&tenants, pool()).await;
        app.assets(&tenants[0]).await;
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
            tenants[0].database.name
        );
        server.sql("postgres", &end).await;
        eventually("it is ended", async || server.number("postgres", &sessions).await == 0).await;
        assert_eq!(app.assets(&tenants[0]).await, 0, "as after a restart of the pooler");
    })
    .await;
}

#[tokio::test]
async fn a_database_that_is_away_is_said_so_and_comes_back_by_itself() {
    with_tenants(2, async |server, tenants| {
        let app = App::serving(&tenants, pool()).await;
        assert_eq!(app.assets(&tenants[0]).await, 0);
        let name = &tenants[0].database.name;
        let close = format!(
            "ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS false;
             SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'"
        );
        server.sql("postgres", &close).await;
        let page = app.get(&tenants[0], "/").await;
        assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(page.body.contains("cannot be reached"), "{}", page.body);
        assert!(!page.body.contains(name) && !page.body.contains("127.0.0.1"), "{}", page.body);
        assert_eq!(app.assets(&tenants[1]).await, 0, "the other tenant is served");
        server.sql("postgres", &format!("ALTER DATABASE \"{name}\" ALLOW_CONNECTIONS true")).await;
        assert_eq!(app.get(&tenants[0], "/").await.status, StatusCode::OK);
    })
    .await;
}
