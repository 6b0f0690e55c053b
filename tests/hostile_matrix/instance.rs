//! A PostgreSQL server with nothing else on it, and its log.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{ConnectOptions, PgConnection};

/// For everything that is not done at once.
pub const DEADLINE: Duration = Duration::from_secs(60);

pub fn rootfs() -> PathBuf {
    let name = "MOS_TEST_ROOTFS";
    let path = std::env::var(name).unwrap_or_else(|_| {
        panic!("{name} is not set: run `make test-code`, or `e2e/cluster/postgres-local.sh start` and source the file it names")
    });
    path.into()
}

pub fn free_port() -> u16 {
    // Below the ports that the kernel gives to outgoing connections, which could take one before the server binds it, and
    // in a block of this process's own, since tests run in several.
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let block = 18_000 + u16::try_from(std::process::id() % 700).unwrap() * 20;
    let ports = std::iter::repeat_with(|| block + NEXT.fetch_add(1, Ordering::Relaxed) % 20).take(20);
    ports.into_iter().find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("one of twenty ports is free")
}

/// Ends with its value.
pub struct Instance {
    name: String,
    pub port: u16,
    cache: PathBuf,
}

impl Instance {
    pub fn start() -> Self {
        let cache = rootfs().parent().unwrap().to_owned();
        let port = free_port();
        let instance = Self { name: format!("hostile-{port}"), port, cache };
        instance.script("start");
        instance
    }

    fn script(&self, verb: &str) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("e2e/cluster/postgres-local.sh");
        let done = Command::new(script)
            .arg(verb)
            .env("MOS_CACHE", &self.cache)
            .env("MOS_POSTGRES_NAME", &self.name)
            .env("MOS_POSTGRES_PORT", self.port.to_string())
            .output()
            .unwrap();
        assert!(done.status.success(), "{verb}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn directory(&self) -> PathBuf {
        self.cache.join(&self.name)
    }

    /// PostgreSQL's log.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(self.directory().join("data/log")).unwrap()).into_owned()
    }

    pub fn ca(&self) -> String {
        std::fs::read_to_string(self.directory().join("tls/ca.crt")).unwrap()
    }

    pub fn password(&self, role: &str) -> String {
        std::fs::read_to_string(self.directory().join(format!("{role}.password"))).unwrap().trim().to_owned()
    }

    pub fn options(&self, user: &str, password: &str, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username(user)
            .password(password)
            .database(database)
            .ssl_mode(PgSslMode::VerifyFull)
            .ssl_root_cert_from_pem(self.ca().into_bytes())
    }

    pub async fn superuser(&self, database: &str) -> PgConnection {
        self.options("postgres", &self.password("postgres"), database).connect().await.unwrap()
    }

    /// libpq's own client, for what the driver does not send.
    pub fn psql(connection: &str, password: &str, sql: &str) -> Result<String, String> {
        let done = Command::new("chroot")
            .arg(rootfs())
            .args(["/usr/lib/postgresql/17/bin/psql", "-XAt", connection, "-c", sql])
            .env("PGPASSWORD", password)
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if done.status.success() { Ok(text(&done.stdout)) } else { Err(text(&done.stderr)) }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.script("stop"))).is_err() {
            eprintln!("{} still runs", self.name);
            return;
        }
        let _ = std::fs::remove_dir_all(self.directory());
        let _ = std::fs::remove_file(self.cache.join(format!(".{}.lock", self.name)));
        let _ = std::fs::remove_file(self.cache.join(format!("log/{}.log", self.name)));
    }
}
