//! Storage that is away, refuses or fails: a page that says so, nothing stored half, and it comes back by itself.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use axum::Router;
use http::StatusCode;
use maintenance_os::app::FileSettings;
use maintenance_os::tenancy::storage::{S3Settings, StorageSettings};
use tokio::net::{TcpListener, TcpStream};

use crate::site::{Place, Site, assert_settled, bucket, used, variable};
use crate::tenants::{DEADLINE, eventually, with_tenants};

const PATH: &str = "/assets/1/attachments";
const SAYS_SO: &str = "Files cannot be reached right now";

/// An S3 server of this test's own, which it may stop.
struct Server {
    port: u16,
    directory: tempfile::TempDir,
    process: Option<Child>,
}

impl Server {
    async fn start() -> Self {
        let port = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port();
        let mut server = Self { port, directory: tempfile::tempdir().unwrap(), process: None };
        std::fs::create_dir_all(server.directory.path().join("data/files")).unwrap();
        server.resume().await;
        server
    }

    async fn resume(&mut self) {
        let folder = |name: &str| self.directory.path().join(name);
        std::fs::create_dir_all(folder("iam")).unwrap();
        let process = Command::new(Path::new(&variable("MOS_TEST_S3_SERVER")))
            .args(["--port", &format!("127.0.0.1:{}", self.port), "--quiet", "--iam-dir"])
            .arg(folder("iam"))
            .arg("posix")
            .arg(folder("data"))
            .env("ROOT_ACCESS_KEY", "root")
            .env("ROOT_SECRET_KEY", "a-secret-of-this-test")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.process = Some(process);
        let port = self.port;
        eventually("the S3 server listens", async || TcpStream::connect(("127.0.0.1", port)).await.is_ok()).await;
    }

    fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    fn settings(&self) -> StorageSettings {
        StorageSettings::S3(S3Settings {
            access_key_id: "root".into(),
            secret_access_key: "a-secret-of-this-test".into(),
            region: "us-east-1".into(),
            url: Some(format!("http://127.0.0.1:{}", self.port)),
            bucket: "files".into(),
            custom_endpoint: true,
            allow_http: true,
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

#[tokio::test]
async fn a_server_that_stops_is_told_and_comes_back_by_itself() {
    with_tenants(1, async |database, tenants| {
        let mut s3 = Server::start().await;
        let site = Site::new(database, &tenants, &s3.settings(), FileSettings::default()).await;
        let acme = &tenants[0];
        let id = site.attach(acme, database, "a.txt", b"here").await;
        let link = site.link(acme, id).await;
        s3.stop();

        for path in [PATH, "/imports"] {
            let answer = site.upload(acme, "manager", path, "b.csv", b"Name\nPump\n").await;
            assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{path}: {}", answer.text());
            assert!(answer.text().contains(SAYS_SO), "{path}: {}", answer.text());
            assert_eq!(answer.header("retry-after"), "5");
        }
        let answer = site.get(acme, "", &link).await;
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
        assert!(answer.text().contains(SAYS_SO));
        assert!(!answer.text().contains("127.0.0.1"), "a page names no server: {}", answer.text());
        // Everything else goes on.
        assert_eq!(site.get(acme, "viewer", PATH).await.status, StatusCode::OK);
        assert_eq!(site.get(acme, "manager", "/exports/assets.csv").await.status, StatusCode::OK);

        // What cannot be given back while storage is away is still counted.
        assert_eq!(
            database.number(&acme.database.name, "SELECT count(*) FROM stored_files WHERE state <> 'stored'").await,
            2
        );
        s3.resume().await;
        let answer = site.get(acme, "", &link).await;
        assert_eq!((answer.status, &answer.bytes[..]), (StatusCode::OK, &b"here"[..]));
        site.attach(acme, database, "b.txt", b"again").await;
        // What was not given back by now, a sweep an hour later takes.
        let old = "ALTER TABLE stored_files DISABLE TRIGGER stored_files_touch; \
                   UPDATE stored_files SET updated_at = now() - interval '2 hours' WHERE state = 'uploading'";
        database.sql(&acme.database.name, old).await;
        let site = Site::again(&tenants, &s3.settings(), FileSettings::default()).await;
        site.attach(acme, database, "c.txt", b"swept").await;
        eventually("what died is gone", async || used(database, acme).await == 14).await;
        assert_settled(database, acme).await;
    })
    .await;
}

#[tokio::test]
async fn an_account_that_may_not_enter_the_bucket_stores_and_reads_nothing() {
    with_tenants(1, async |database, tenants| {
        let other = S3Settings {
            access_key_id: variable("MOS_TEST_S3_OTHER_KEY"),
            secret_access_key: variable("MOS_TEST_S3_OTHER_SECRET"),
            ..bucket()
        };
        let wrong = S3Settings { secret_access_key: "wrong".into(), ..bucket() };
        let right = Site::new(database, &tenants, &StorageSettings::S3(bucket()), FileSettings::default()).await;
        let id = right.attach(&tenants[0], database, "a.txt", b"here").await;
        let nowhere = S3Settings { bucket: "nowhere".into(), ..bucket() };
        for settings in [other, wrong, nowhere] {
            let site = Site::again(&tenants, &StorageSettings::S3(settings), FileSettings::default()).await;
            refused(&site, &tenants[0], id).await;
        }
        assert_eq!(Place::bucket().files(&tenants[0]).len(), 1);
    })
    .await;
}

#[tokio::test]
async fn a_server_that_fails_stores_and_reads_nothing() {
    with_tenants(1, async |database, tenants| {
        let place = Place::disk();
        let right = Site::new(database, &tenants, &place.settings, FileSettings::default()).await;
        let id = right.attach(&tenants[0], database, "a.txt", b"here").await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let failing = Router::new().fallback(async || StatusCode::INTERNAL_SERVER_ERROR);
        let serving = tokio::spawn(axum::serve(listener, failing).into_future());
        let settings = StorageSettings::S3(S3Settings { url: Some(url), ..bucket() });
        let site = Site::again(&tenants, &settings, FileSettings::default()).await;
        refused(&site, &tenants[0], id).await;
        serving.abort();
    })
    .await;
}

#[tokio::test]
async fn a_server_that_never_answers_is_given_up() {
    with_tenants(1, async |database, tenants| {
        let place = Place::disk();
        let right = Site::new(database, &tenants, &place.settings, FileSettings::default()).await;
        let id = right.attach(&tenants[0], database, "a.txt", b"here").await;
        // It takes connections, and that is all.
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let settings = StorageSettings::S3(S3Settings { url: Some(url), ..bucket() });
        let site = Site::again(&tenants, &settings, FileSettings::default()).await;
        let link = site.link(&tenants[0], id).await;
        let asked = async {
            let answers = [site.get(&tenants[0], "", &link), site.get(&tenants[0], "manager", "/exports/assets.csv")];
            (
                futures::future::join_all(answers).await,
                site.upload(&tenants[0], "technician", PATH, "b.txt", b"b").await,
            )
        };
        let (answers, upload) = tokio::time::timeout(DEADLINE + DEADLINE, asked).await.expect("nobody waits for ever");
        assert_eq!((answers[0].status, answers[1].status), (StatusCode::SERVICE_UNAVAILABLE, StatusCode::OK));
        assert_eq!(upload.status, StatusCode::SERVICE_UNAVAILABLE);
        assert!(upload.text().contains(SAYS_SO), "{}", upload.text());
    })
    .await;
}

async fn refused(site: &Site, acme: &maintenance_os::api::routing::RoutingEntry, id: i64) {
    let large = vec![1; 10 << 20];
    let answers = [
        site.upload(acme, "technician", PATH, "b.txt", b"b").await,
        site.upload(acme, "technician", PATH, "large.bin", &large).await,
        site.get(acme, "", &site.link(acme, id).await).await,
    ];
    for answer in answers {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text());
        assert!(answer.text().contains(SAYS_SO), "{}", answer.text());
    }
    let page = site.get(acme, "viewer", PATH).await.text();
    assert!(!page.contains("b.txt") && !page.contains("large.bin"), "{page}");
}
