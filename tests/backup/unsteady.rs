//! A bucket that has bad moments, and Jobs that are killed.

use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use maintenance_os::backup::bucket::Bucket;
use maintenance_os::backup::keys::Part;
use maintenance_os::backup::take::Taker;
use maintenance_os::backup::verify;
use maintenance_os::tenancy::storage::S3Settings;
use tokio::process::Command;

use crate::house::{House, id, s3, variable};

/// What becomes of a request.
#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Answered,
    /// 503, and the server never sees it.
    Refused,
    /// Done, and then told that it was not.
    DoneAndDenied,
    /// Answered with half of what there is.
    Halved,
}

type Rule = Box<dyn FnMut(&Method, &str) -> Fate + Send>;

#[derive(Clone)]
struct Proxy {
    rule: Arc<Mutex<Rule>>,
    upstream: String,
}

/// A bucket behind a proxy that does with each request, by its method and path with query, what `rule` says.
async fn behind(rule: impl FnMut(&Method, &str) -> Fate + Send + 'static) -> Bucket {
    let proxy = Proxy { rule: Arc::new(Mutex::new(Box::new(rule))), upstream: variable("MOS_TEST_S3_URL") };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(pass).with_state(proxy)).await });
    Bucket::new(&S3Settings { url: Some(url), ..s3() }).unwrap()
}

async fn pass(State(proxy): State<Proxy>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let path = head.uri.path_and_query().unwrap().to_string();
    let body: Bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    let fate = (proxy.rule.lock().unwrap())(&head.method, &path);
    if fate == Fate::Refused {
        return (StatusCode::SERVICE_UNAVAILABLE, "slow down").into_response();
    }
    let url = format!("{}{path}", proxy.upstream.trim_end_matches('/'));
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let answer = client.request(head.method, url).headers(head.headers).body(body).send().await.unwrap();
    let (status, mut headers) = (answer.status(), answer.headers().clone());
    let mut bytes = answer.bytes().await.unwrap();
    match fate {
        Fate::DoneAndDenied => return (StatusCode::INTERNAL_SERVER_ERROR, "internal error").into_response(),
        Fate::Halved => {
            bytes.truncate(bytes.len() / 2);
            headers.remove("content-length");
        }
        Fate::Answered | Fate::Refused => {}
    }
    headers.remove("transfer-encoding");
    (status, headers, Body::from(bytes)).into_response()
}

/// Whether this is the request that puts an upload together.
fn completes(method: &Method, path: &str) -> bool {
    *method == Method::POST && path.contains("uploadId=")
}

fn reads_dump(method: &Method, path: &str) -> bool {
    *method == Method::GET && path.contains(".dump")
}

fn writes_manifest(method: &Method, path: &str) -> bool {
    *method == Method::PUT && path.contains(".json")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_refuses_now_and_then_is_asked_again() {
    let house = House::new().await;
    let acme = house.tenant(0);
    let mut count = 0;
    // Every other request of any kind.
    let bucket = behind(move |_, _| {
        count += 1;
        if count % 2 == 1 { Fate::Refused } else { Fate::Answered }
    })
    .await;
    let manifest = Taker { bucket, ..house.taker() }.take(&acme).await.unwrap();
    verify::checksum(&house.bucket, acme.uuid, id(&manifest), &manifest).await.unwrap();
    assert_eq!(house.good(acme.uuid).await, [manifest.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_bucket_did_and_denied_is_a_backup_or_nothing() {
    let house = House::new().await;
    let acme = house.tenant(0);
    let first = house.taker().take(&acme).await.unwrap();
    let before = house.objects(acme.uuid).await;

    // Once: the manifest is written again.
    let mut denied = false;
    let bucket = behind(move |method, path| {
        let now = writes_manifest(method, path) && !std::mem::replace(&mut denied, writes_manifest(method, path));
        if now { Fate::DoneAndDenied } else { Fate::Answered }
    })
    .await;
    let second = Taker { bucket, ..house.taker() }.take(&acme).await.unwrap();
    assert_eq!(house.good(acme.uuid).await.len(), 2);
    house.bucket.remove(acme.uuid, &[id(&second)].into()).await.unwrap();

    for (what, rule, named) in [
        // The client gives the upload up, which is not there any more, and says that.
        ("putting the dump together", completes as fn(&Method, &str) -> bool, "completing"),
        ("writing the manifest", writes_manifest, "500"),
    ] {
        let bucket =
            behind(move |method, path| if rule(method, path) { Fate::DoneAndDenied } else { Fate::Answered }).await;
        let error = Taker { bucket, ..house.taker() }.take(&acme).await.expect_err(what);
        assert!(format!("{error:#}").contains(named), "{what}: {error:#}");
        assert_eq!(house.objects(acme.uuid).await, before, "{what}: something is half kept");
    }
    let bucket = behind(|method, path| if reads_dump(method, path) { Fate::Halved } else { Fate::Answered }).await;
    let error = Taker { bucket, ..house.taker() }.take(&acme).await.expect_err("half of it is read back");
    assert!(format!("{error:#}").contains("gives back something else"), "{error:#}");
    assert_eq!(house.objects(acme.uuid).await, before);
    assert_eq!(house.good(acme.uuid).await, [first.id]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_killed_at_any_moment_leaves_the_backups_that_were_there() {
    let mut house = House::new().await;
    house
        .rows_in(0, "INSERT INTO assets (name) SELECT repeat('pump ', 40) || n FROM generate_series(1, 30000) n")
        .await;
    let acme = house.tenant(0);
    let first = house.taker().take(&acme).await.unwrap();
    let mut killed = 0;
    for attempt in 1..=8 {
        let mut words = vec!["backup".to_owned(), "run".to_owned(), "--tenant".to_owned(), acme.uuid.to_string()];
        words.extend(["--password".to_owned(), "of the backup".to_owned(), "--keep-all".to_owned()]);
        let mut place = house.arguments();
        // The reader is no provisioner.
        let secret = place.iter().position(|word| word == "--provisioner-password").unwrap();
        place.drain(secret..secret + 2);
        let mut job = Command::new(env!("CARGO_BIN_EXE_maintenance-os"))
            .args(words)
            .args(place)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        if tokio::time::timeout(Duration::from_millis(attempt * 60), job.wait()).await.is_err() {
            job.kill().await.unwrap();
            killed += 1;
        }
        let good = house.good(acme.uuid).await;
        assert!(good.contains(&first.id), "killed after {} ms: {good:?}", attempt * 60);
        for name in good {
            let (id, manifest) = verify::find(&house.bucket, acme.uuid, Some(name.parse().unwrap())).await.unwrap();
            verify::checksum(&house.bucket, acme.uuid, id, &manifest).await.unwrap();
        }
    }
    assert!(killed >= 3, "only {killed} of 8 were killed before their end");
    let last = house.taker().take(&acme).await.unwrap();
    house.drill().restore(&house.bucket, acme.uuid, id(&last), &last).await.unwrap();
    assert!(house.file(acme.uuid, id(&last), Part::Manifest).exists());
}
