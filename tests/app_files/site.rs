//! An app with somebody of each role signed in, and what the tests ask of it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use futures::{Stream, StreamExt, stream};
use http::{HeaderMap, StatusCode};
use maintenance_os::api::routing::RoutingEntry;
use maintenance_os::app::{FileSettings, Product};
use maintenance_os::signing::SigningKeys;
use maintenance_os::tenancy::pool::PoolSettings;
use maintenance_os::tenancy::redis::RedisSettings;
use maintenance_os::tenancy::storage::StorageSettings;
use maintenance_os::tenancy::{Tenancy, TenancySettings};
use tower::ServiceExt;

use uuid::Uuid;

pub use crate::s3::{bucket, variable};
use crate::tenants::{App, Client, DEADLINE, Server, eventually, redis, settings};

pub const KEY: &str = "0000000000000000000000000000000000000000000000000000000000000001";
const BOUNDARY: &str = "----boundary";

/// Those of every tenant here, with their roles; their ids are their places.
const PEOPLE: [(&str, &str); 5] = [
    ("viewer", "viewer"),
    ("technician", "technician"),
    ("colleague", "technician"),
    ("manager", "manager"),
    ("admin", "admin"),
];

/// Where files are kept in a test, and how it looks there.
pub struct Place {
    pub settings: StorageSettings,
    /// The directory, or the one that the S3 server writes to.
    pub root: PathBuf,
    _directory: Option<tempfile::TempDir>,
}

impl Place {
    pub fn disk() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        Self { settings: StorageSettings::Local { directory: root.clone() }, root, _directory: Some(directory) }
    }

    pub fn bucket() -> Self {
        let root = PathBuf::from(variable("MOS_TEST_S3_DATA")).join(variable("MOS_TEST_S3_BUCKET"));
        Self { settings: StorageSettings::S3(bucket()), root, _directory: None }
    }

    /// Where parts that are under way do not lie below the tenant's prefix.
    pub fn is_bucket(&self) -> bool {
        matches!(self.settings, StorageSettings::S3(_))
    }

    /// Every file of this tenant, whole or half.
    pub fn files(&self, tenant: &RoutingEntry) -> Vec<PathBuf> {
        fn walk(folder: &Path, found: &mut Vec<PathBuf>) {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => walk(&entry.path(), found),
                    _ => found.push(entry.path()),
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.root.join(format!("tenants/{}", tenant.uuid)), &mut found);
        found
    }
}

pub struct Site {
    /// Routing goes on for as long as it lives.
    app: App,
    pub router: Router,
    /// Who is signed in, by tenant and name.
    clients: HashMap<(Uuid, &'static str), Client>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub bytes: Bytes,
}

impl Answer {
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name}: {:?}", self.headers)).to_str().unwrap()
    }
}

impl Site {
    pub async fn new(server: &Server, tenants: &[RoutingEntry], place: &StorageSettings, files: FileSettings) -> Self {
        Self::fill(server, tenants).await;
        Self::again(tenants, place, files).await
    }

    async fn fill(server: &Server, tenants: &[RoutingEntry]) {
        for tenant in tenants {
            let people = PEOPLE.iter().map(|(name, role)| {
                format!("INSERT INTO users (email, name, role, email_verified_at) VALUES ('{name}@acme.example', '{name}', '{role}', now());")
            });
            let asset = "INSERT INTO assets (name) VALUES ('Pump 7');
                INSERT INTO routines (asset_id, name, interval_count, interval_unit, next_due_on)
                VALUES (1, 'Grease', 1, 'month', '2026-12-01');
                INSERT INTO routine_executions (routine_id, due_on) VALUES (1, '2026-12-01');";
            server.sql(&tenant.database.name, &(people.collect::<String>() + asset)).await;
        }
    }

    /// The same, and the app leaves to workers what can be done later: queues lie in that database of Redis, so that no
    /// other test's worker sees them.
    pub async fn with_workers(
        server: &Server,
        tenants: &[RoutingEntry],
        place: &StorageSettings,
        database: i64,
    ) -> Self {
        Self::fill(server, tenants).await;
        let redis = RedisSettings { databases: [database, 1, 2], ..redis() };
        Self::of(tenants, place, redis, Product::with_workers).await
    }

    /// What all of it shares.
    pub fn product(&self) -> &Product {
        &self.app.product
    }

    pub fn tenancy(&self) -> &Tenancy {
        &self.app.tenancy
    }

    /// Replaces routing by these tenants.
    pub async fn route(&mut self, tenants: &[RoutingEntry]) {
        self.app.route(tenants);
        for tenant in tenants {
            let routing = self.app.tenancy.routing();
            eventually("routing is followed", async || routing.tenant(tenant.uuid).is_some_and(|now| *now == *tenant))
                .await;
        }
    }

    /// Another app for tenants that are there already.
    pub async fn again(tenants: &[RoutingEntry], place: &StorageSettings, files: FileSettings) -> Self {
        Self::of(tenants, place, redis(), |product| product.with_files(files)).await
    }

    async fn of(
        tenants: &[RoutingEntry],
        place: &StorageSettings,
        redis: RedisSettings,
        change: impl FnOnce(Product) -> Product,
    ) -> Self {
        let settings = TenancySettings {
            pool: PoolSettings { work: DEADLINE * 4, wait: DEADLINE, ..PoolSettings::new(12) },
            signing: Some(SigningKeys::parse(KEY).unwrap()),
            storage: Some(place.clone()),
            redis: Some(redis),
            ..settings()
        };
        let app = App::with(tenants, settings, change).await;
        let mut clients = HashMap::new();
        for tenant in tenants {
            for (index, (name, _)) in PEOPLE.into_iter().enumerate() {
                let id = i64::try_from(index).unwrap() + 1;
                clients.insert((tenant.uuid, name), app.session(tenant, id, String::new()).await);
            }
        }
        Self { router: app.router.clone(), app, clients }
    }

    /// The secret of somebody's forms; empty for a stranger.
    pub fn csrf(&self, tenant: &RoutingEntry, who: &'static str) -> String {
        self.clients.get(&(tenant.uuid, who)).map(|client| client.csrf.clone()).unwrap_or_default()
    }

    pub fn cookie(&self, tenant: &RoutingEntry, who: &'static str) -> String {
        self.clients.get(&(tenant.uuid, who)).map(|client| client.cookie.clone()).unwrap_or_default()
    }

    pub fn request(
        &self,
        method: &str,
        tenant: &RoutingEntry,
        who: &'static str,
        path: &str,
    ) -> http::request::Builder {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &tenant.primary_host)
            .header("origin", format!("https://{}", tenant.primary_host));
        match self.cookie(tenant, who) {
            stranger if stranger.is_empty() => request,
            cookie => request.header("cookie", cookie),
        }
    }

    pub fn upload_request(&self, tenant: &RoutingEntry, who: &'static str, path: &str) -> http::request::Builder {
        let kind = format!("multipart/form-data; boundary={BOUNDARY}");
        self.request("POST", tenant, who, path).header("content-type", kind)
    }

    pub async fn send(&self, request: Request) -> Answer {
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let bytes = axum::body::to_bytes(body, 64 << 20).await.unwrap();
        Answer { status: parts.status, headers: parts.headers, bytes }
    }

    pub async fn get(&self, tenant: &RoutingEntry, who: &'static str, path: &str) -> Answer {
        self.send(self.request("GET", tenant, who, path).body(Body::empty()).unwrap()).await
    }

    /// A form without a file.
    pub async fn press(&self, tenant: &RoutingEntry, who: &'static str, path: &str) -> Answer {
        let csrf = self.csrf(tenant, who);
        let request = self
            .request("POST", tenant, who, path)
            .header("content-type", "application/x-www-form-urlencoded")
            .body(Body::from(format!("csrf={csrf}")));
        self.send(request.unwrap()).await
    }

    pub async fn upload(
        &self,
        tenant: &RoutingEntry,
        who: &'static str,
        path: &str,
        name: &str,
        content: &[u8],
    ) -> Answer {
        let body = form(&self.csrf(tenant, who), name, content);
        let request = self.upload_request(tenant, who, path).header("content-length", body.len());
        self.send(request.body(Body::from(body)).unwrap()).await
    }

    /// Attaches to the asset, and returns the attachment's id.
    pub async fn attach(&self, tenant: &RoutingEntry, server: &Server, name: &str, content: &[u8]) -> i64 {
        let answer = self.upload(tenant, "technician", "/assets/1/attachments", name, content).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
        server.number(&tenant.database.name, "SELECT max(id) FROM attachments").await
    }

    /// Where the link of an attachment leads.
    pub async fn link(&self, tenant: &RoutingEntry, id: i64) -> String {
        let answer = self.get(tenant, "viewer", &format!("/attachments/{id}")).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
        answer.header("location").to_owned()
    }
}

/// What comes before the file.
pub fn before(csrf: &str, name: &str) -> Vec<u8> {
    format!(
        "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"csrf\"\r\n\r\n{csrf}\r\n--{BOUNDARY}\r\n\
         content-disposition: form-data; name=\"file\"; filename=\"{name}\"\r\n\
         content-type: application/octet-stream\r\n\r\n"
    )
    .into_bytes()
}

pub fn after() -> Vec<u8> {
    format!("\r\n--{BOUNDARY}--\r\n").into_bytes()
}

pub fn form(csrf: &str, name: &str, content: &[u8]) -> Vec<u8> {
    [&before(csrf, name), content, &after()].concat()
}

/// A form whose file comes as `parts` do.
pub fn form_of(csrf: &str, name: &str, parts: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static) -> Body {
    let ok = |bytes: Vec<u8>| stream::iter([Ok(Bytes::from(bytes))]);
    Body::from_stream(ok(before(csrf, name)).chain(parts).chain(ok(after())))
}

/// Bytes that the database has counted.
pub async fn used(server: &Server, tenant: &RoutingEntry) -> i64 {
    server.number(&tenant.database.name, "SELECT bytes FROM storage_usage").await
}

/// What is counted is what is recorded, and nothing is under way.
pub async fn assert_settled(server: &Server, tenant: &RoutingEntry) {
    let name = &tenant.database.name;
    let sum = "SELECT coalesce(sum(bytes), 0)::bigint FROM stored_files WHERE state = 'stored'";
    assert_eq!(server.number(name, sum).await, used(server, tenant).await);
    assert_eq!(server.number(name, "SELECT count(*) FROM stored_files WHERE state <> 'stored'").await, 0);
}

/// A picture that is no bomb.
pub fn photo(width: u32, height: u32) -> Vec<u8> {
    let picture =
        image::RgbImage::from_fn(width, height, |x, y| image::Rgb([x.to_le_bytes()[0], y.to_le_bytes()[0], 90]));
    let mut bytes = std::io::Cursor::new(Vec::new());
    picture.write_to(&mut bytes, image::ImageFormat::Jpeg).unwrap();
    bytes.into_inner()
}
