//! PgBouncer in front of the fleet, with the files that the agent writes.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use maintenance_os::api::plan::PlanDatabase;
use maintenance_os::api::pooler::{PoolerEntry, PoolerSettings, PoolerSlice};
use maintenance_os::api::server::{self, PoolMode, SslMode};
use maintenance_os::api::slices::{SCHEMA, pooler_settings, pooler_slice, slice_of};
use maintenance_os::desired::pooler;
use maintenance_os::desired::rotation::Logins;
use maintenance_os::desired::scram::Credential;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use tempfile::TempDir;

use super::fleet::{Fleet, Tenant};
use super::instance::{DEADLINE, free_port, rootfs};
use super::judge::attempt;

const SERVER: &str = "pg-hostile";
/// The user of the agent and of PgBouncer, as in the pod.
const USER: u32 = 65532;

pub struct Pooler {
    agent: Child,
    pgbouncer: Option<Child>,
    pub port: u16,
    metrics: u16,
    directory: TempDir,
}

impl Pooler {
    pub async fn start(fleet: &Fleet) -> Self {
        // Short: a Unix socket's path ends at 107 characters.
        let directory = tempfile::Builder::new().prefix("mos-").tempdir_in("/tmp").unwrap();
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        for name in ["slices", "run"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        std::os::unix::fs::chown(directory.path().join("run"), Some(USER), Some(USER)).unwrap();
        let (port, metrics) = (free_port(), free_port());
        write_slices(directory.path(), fleet);
        let agent = agent(directory.path(), port, metrics);
        // Made first, so that its end is seen to whatever happens.
        let mut pooler = Self { agent, pgbouncer: None, port, metrics, directory };
        let run = pooler.directory.path().join("run");
        until("the agent has written its files", async || run.join("pgbouncer.ini").exists()).await;
        pooler.pgbouncer = Some(pgbouncer(&run));
        for tenant in &fleet.tenants {
            let options = || pooler.options(&tenant.login(), &tenant.password, &tenant.name());
            until("PgBouncer serves both tenants", async || attempt(options(), "SELECT 1").await.is_ok()).await;
        }
        pooler
    }

    pub fn options(&self, login: &str, password: &str, database: &str) -> PgConnectOptions {
        PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username(login)
            .password(password)
            .database(database)
            .ssl_mode(PgSslMode::Disable)
    }

    /// One of the files that PgBouncer reads.
    pub fn file(&self, name: &str) -> String {
        fs::read_to_string(self.directory.path().join("run").join(name)).unwrap()
    }

    /// Slices that the agent has refused so far.
    pub async fn refused_slices(&self) -> u32 {
        maintenance_os::telemetry::install_crypto_provider();
        let url = format!("http://127.0.0.1:{}/metrics", self.metrics);
        let text = reqwest::get(url).await.unwrap().text().await.unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("maintenance_os_pooler_refused_slices_total "));
        line.unwrap().parse().unwrap()
    }

    /// Puts an entry into a slice beside those of the fleet, as an operator that was deceived would.
    pub fn write(&self, entry: PoolerEntry) {
        let slice = PoolerSlice { schema: SCHEMA, generation: 2, epoch: 1, entries: vec![entry] };
        let name = (0..32)
            .map(|number| pooler_slice(SERVER, number))
            .find(|name| !slice_file(self.directory.path(), name).exists());
        put(self.directory.path(), &name.unwrap(), &serde_json::to_vec(&slice).unwrap());
    }
}

impl Drop for Pooler {
    fn drop(&mut self) {
        for child in [Some(&mut self.agent), self.pgbouncer.as_mut()].into_iter().flatten() {
            let _ = child.kill();
            let _ = child.wait();
        }
        // The mount went with PgBouncer's namespace; what is left is where it was.
        let inside = rootfs().join(self.directory.path().join("run").strip_prefix("/").unwrap());
        let _ = fs::remove_dir(&inside);
        let _ = inside.parent().map(fs::remove_dir);
    }
}

pub async fn until(what: &str, mut ask: impl AsyncFnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !ask().await {
        assert!(Instant::now() < deadline, "not within {} s: {what}", DEADLINE.as_secs());
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

fn agent(directory: &Path, port: u16, metrics: u16) -> Child {
    // The build directory may be closed to other users.
    let program = directory.join("maintenance-os");
    fs::copy(env!("CARGO_BIN_EXE_maintenance-os"), &program).unwrap();
    let address = |port: u16| format!("127.0.0.1:{port}");
    let path = |name: &str| directory.join(name).display().to_string();
    Command::new(program)
        .arg("pooler-agent")
        .args(["--server", SERVER, "--slices-directory", &path("slices"), "--directory", &path("run")])
        .args(["--listen", &address(port), "--health-addr", &address(free_port())])
        .args(["--metrics-addr", &address(metrics), "--ack-addr", &address(free_port())])
        .uid(USER)
        .gid(USER)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

fn pgbouncer(run: &Path) -> Child {
    let script = r#"mkdir -p "$1$2" && mount --bind "$2" "$1$2" &&
        exec chroot --userspec="$3:$3" "$1" pgbouncer "$2/pgbouncer.ini""#;
    Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-euc", script, "sh"])
        .args([&rootfs(), run])
        .arg(USER.to_string())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// The entry as the operator makes it.
pub fn entry(tenant: &Tenant) -> PoolerEntry {
    let (plan, pooler) = (PlanDatabase::default(), server::Pooler::default());
    let credential = Credential { verifier: tenant.wanted.verifier.clone(), ..Credential::default() };
    let logins = Logins { active: tenant.wanted.slot, credential, ..Logins::default() };
    pooler::entry(tenant.uuid(), &plan, &pooler, &logins, false)
}

fn write_slices(directory: &Path, fleet: &Fleet) {
    let settings = PoolerSettings {
        schema: SCHEMA,
        generation: 1,
        epoch: 1,
        host: "127.0.0.1".into(),
        port: fleet.instance.port,
        ssl_mode: SslMode::VerifyFull,
        ca: fleet.instance.ca(),
        pool_mode: PoolMode::Transaction,
        max_client_conn: 100,
        default_pool_size: 5,
        reserve_pool_size: 1,
        reserve_pool_timeout: 3,
        server_lifetime: 3600,
        client_certificate: String::new(),
        client_key: String::new(),
    };
    put(directory, &pooler_settings(SERVER), &serde_json::to_vec(&settings).unwrap());
    let mut slices = BTreeMap::<String, Vec<PoolerEntry>>::new();
    for tenant in &fleet.tenants {
        slices.entry(pooler_slice(SERVER, slice_of(tenant.uuid()))).or_default().push(entry(tenant));
    }
    for (name, mut entries) in slices {
        entries.sort_by_key(|entry| entry.uuid);
        let slice = PoolerSlice { schema: SCHEMA, generation: 1, epoch: 1, entries };
        put(directory, &name, &serde_json::to_vec(&slice).unwrap());
    }
}

fn slice_file(directory: &Path, name: &str) -> PathBuf {
    directory.join("slices").join(format!("{name}.json"))
}

fn put(directory: &Path, name: &str, content: &[u8]) {
    let temporary = directory.join("slices/temporary");
    fs::write(&temporary, content).unwrap();
    fs::rename(temporary, slice_file(directory, name)).unwrap();
}
