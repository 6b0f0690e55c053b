//! Two tenants on a server, a bucket, and what looks after them.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use maintenance_os::api::server::SslMode;
use maintenance_os::backup::bucket::Bucket;
use maintenance_os::backup::keys::{self, BackupId, Part};
use maintenance_os::backup::manifest::{Manifest, TenantFacts};
use maintenance_os::backup::programs::Programs;
use maintenance_os::backup::retention::Keep;
use maintenance_os::backup::server::{Login, Server};
use maintenance_os::backup::shelf::{Entry, Shelf};
use maintenance_os::backup::take::Taker;
use maintenance_os::backup::verify::Drill;
use maintenance_os::desired::names;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::fleet::Fleet;
use crate::instance::rootfs;
pub use crate::s3::{bucket as s3, variable};

pub const KEEP: Keep = Keep { daily: 7, weekly: 4, monthly: 12 };

pub struct House {
    pub fleet: Fleet,
    pub bucket: Bucket,
    directory: TempDir,
}

impl House {
    pub async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for program in ["pg_dump", "pg_restore"] {
            script(&directory.path().join(program), &run(program));
        }
        let house = Self { fleet: Fleet::start().await, bucket: Bucket::new(&s3()).unwrap(), directory };
        std::fs::write(house.ca(), house.fleet.instance.ca()).unwrap();
        house
    }

    pub fn ca(&self) -> PathBuf {
        self.directory.path().join("ca.crt")
    }

    pub fn tenant(&self, index: usize) -> TenantFacts {
        TenantFacts { uuid: self.fleet.tenants[index].uuid(), name: ["acme", "globex"][index].into() }
    }

    pub fn server(&self) -> Server {
        Server {
            name: "pg-eu-1".into(),
            host: "127.0.0.1".into(),
            port: self.fleet.instance.port,
            ca: Some(self.ca()),
            ssl_mode: SslMode::VerifyFull,
            system_identifier: None,
        }
    }

    pub fn taker(&self) -> Taker {
        Taker {
            server: self.server(),
            login: Login { username: names::BACKUP.into(), password: "of the backup".into() },
            central: None,
            last: false,
            bucket: self.bucket.clone(),
            programs: Programs(self.directory.path().into()),
            stop: CancellationToken::new(),
        }
    }

    pub fn drill(&self) -> Drill {
        Drill {
            server: self.server(),
            provisioner: Login {
                username: names::PROVISIONER.into(),
                password: self.fleet.instance.password("provisioner"),
            },
            programs: Programs(self.directory.path().into()),
            stop: CancellationToken::new(),
        }
    }

    /// Where the server and the bucket are, as flags of `backup rehearse` and `last`.
    pub fn arguments(&self) -> Vec<String> {
        let s3 = s3();
        let flags = [
            ("--host", "127.0.0.1".to_owned()),
            ("--port", self.fleet.instance.port.to_string()),
            ("--ca", self.ca().to_str().unwrap().to_owned()),
            ("--programs", self.directory.path().to_str().unwrap().to_owned()),
            ("--provisioner-password", self.fleet.instance.password("provisioner")),
            ("--s3-access-key-id", s3.access_key_id),
            ("--s3-secret-access-key", s3.secret_access_key),
            ("--s3-region", s3.region),
            ("--s3-bucket", s3.bucket),
            ("--s3-url", s3.url.unwrap_or_default()),
            ("--s3-custom-endpoint", "true".to_owned()),
            ("--s3-allow-http", "true".to_owned()),
        ];
        flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).collect()
    }

    /// Programs of which `pg_dump` is this script; `{pg_dump}` stands for the real one with its arguments.
    #[allow(clippy::unused_self, reason = "reads as the house's")]
    pub fn programs_with(&self, dump: &str) -> (TempDir, Programs) {
        let directory = tempfile::tempdir().unwrap();
        script(&directory.path().join("pg_dump"), &dump.replace("{pg_dump}", &run("pg_dump")));
        let programs = Programs(directory.path().into());
        (directory, programs)
    }

    /// Removes backups of the central database. They lie in one place, so that one test alone may make them.
    #[allow(clippy::unused_self, reason = "reads as the house's")]
    pub fn without_central(&self) {
        let _ = std::fs::remove_dir_all(root().join(keys::folder(keys::CENTRAL)));
    }

    /// An object, as the S3 server has it on its disk.
    #[allow(clippy::unused_self, reason = "reads as the house's")]
    pub fn file(&self, tenant: Uuid, id: BackupId, part: Part) -> PathBuf {
        root().join(keys::key(tenant, id, part))
    }

    /// Names of what counts as backups, oldest first.
    pub async fn good(&self, tenant: Uuid) -> Vec<String> {
        let shelf = Shelf::read(&self.bucket, tenant).await.unwrap();
        shelf.good().map(|(id, _)| id.to_string()).collect()
    }

    /// Every object of a tenant.
    pub async fn objects(&self, tenant: Uuid) -> Vec<String> {
        let listed = self.bucket.list(tenant).await.unwrap();
        listed.iter().map(|object| keys::key(tenant, object.id, object.part)).collect()
    }

    pub async fn why_bad(&self, tenant: Uuid, id: BackupId) -> String {
        match Shelf::read(&self.bucket, tenant).await.unwrap().entries.remove(&id) {
            Some(Entry::Bad(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    pub async fn rows_in(&mut self, index: usize, statement: &str) {
        let tenant = &self.fleet.tenants[index];
        let mut session = self.fleet.session(tenant).await;
        crate::fleet::execute(&mut session, statement).await;
    }
}

impl Drop for House {
    fn drop(&mut self) {
        for tenant in &self.fleet.tenants {
            let _ = std::fs::remove_dir_all(root().join(keys::folder(tenant.uuid())));
        }
    }
}

fn root() -> PathBuf {
    PathBuf::from(variable("MOS_TEST_S3_DATA")).join(variable("MOS_TEST_S3_BUCKET"))
}

/// The program of the root file system, with this machine's files.
fn run(program: &str) -> String {
    let libraries = rootfs().join("usr/lib/x86_64-linux-gnu");
    format!(
        "{libraries}/ld-linux-x86-64.so.2 --library-path {libraries} {rootfs}/usr/lib/postgresql/17/bin/{program} \"$@\"",
        libraries = libraries.display(),
        rootfs = rootfs().display()
    )
}

fn script(path: &Path, text: &str) {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(path).unwrap();
    writeln!(file, "#!/bin/sh\n{text}").unwrap();
}

pub fn id(manifest: &Manifest) -> BackupId {
    manifest.id.parse().unwrap()
}

/// Waits until it is so.
pub async fn eventually(what: &str, mut is_so: impl AsyncFnMut() -> bool) {
    let waiting = async {
        while !is_so().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(crate::instance::DEADLINE, waiting).await.is_ok(), "not in time: {what}");
}
