//! A restore whose operator is stopped dead before and after its writes ends where an undisturbed one does. Real API server,
//! PostgreSQL and S3 server; the kubelet is the test, which runs what the Job's pod would run and writes what the pod told.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Pod, Secret, ServiceAccount};
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use maintenance_os::api::server::SslMode;
use maintenance_os::api::tenant_restore::{RestorePhase, TenantRestoreStatus};
use maintenance_os::api::{TenantBackup, TenantRestore};
use maintenance_os::apply::gate::{Gate, Side};
use maintenance_os::backup::Outcome;
use maintenance_os::backup::bucket::Bucket;
use maintenance_os::backup::manifest::TenantFacts;
use maintenance_os::backup::programs::Programs;
use maintenance_os::backup::restore::{Restorer, Wanted};
use maintenance_os::backup::server::{Login, Server};
use maintenance_os::backup::take::Taker;
use maintenance_os::desired::names;
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::operator::Operator;
use crate::s3::{bucket as s3, variable};
use crate::world::{World, until};
use crate::{Point, run};

const SERVER: &str = "pg-crash";

/// PostgreSQL's programs, of the root file system that the servers run from.
fn programs() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let rootfs = PathBuf::from(variable("MOS_TEST_ROOTFS"));
    let libraries = rootfs.join("usr/lib/x86_64-linux-gnu");
    for program in ["pg_dump", "pg_restore"] {
        let path = directory.path().join(program);
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(path).unwrap();
        writeln!(
            file,
            "#!/bin/sh\n{libraries}/ld-linux-x86-64.so.2 --library-path {libraries} {rootfs}/usr/lib/postgresql/17/bin/{program} \"$@\"",
            libraries = libraries.display(),
            rootfs = rootfs.display(),
        )
        .unwrap();
    }
    directory
}

/// What runs the pods of Jobs.
struct Kubelet {
    client: Client,
    namespace: String,
    programs: PathBuf,
}

impl Kubelet {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    fn server() -> Server {
        let options: PgConnectOptions = variable("MOS_TEST_OPERATOR_PROVISIONER_URL").parse().unwrap();
        Server {
            name: SERVER.into(),
            host: options.get_host().into(),
            port: options.get_port(),
            ca: Some(Path::new(&variable("MOS_TEST_OPERATOR_POSTGRES_CA")).into()),
            ssl_mode: SslMode::VerifyFull,
            system_identifier: None,
        }
    }

    async fn secret(&self, name: &str, key: &str) -> String {
        let secret = self.api::<Secret>().get(name).await.unwrap();
        String::from_utf8(secret.data.unwrap()[key].0.clone()).unwrap()
    }

    async fn reader(&self) -> Login {
        let password = self.secret(&names::server_roles(SERVER), "backup").await;
        Login { username: names::BACKUP.into(), password }
    }

    /// Runs the pod of every Job that has none.
    async fn run(self: Arc<Self>) {
        loop {
            let ours = ListParams::default().labels("app.kubernetes.io/managed-by=maintenance-os");
            for job in self.api::<Job>().list(&ours).await.unwrap() {
                if self.api::<Pod>().get_opt(&job.name_any()).await.unwrap().is_none() {
                    self.run_pod(&job).await;
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn run_pod(&self, job: &Job) {
        let template = json!(job.spec.as_ref().unwrap().template);
        let container = &template["spec"]["containers"][0];
        let arguments: Vec<_> =
            container["args"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        let told = match arguments[1] {
            "restore" => json!(self.restore(&arguments).await),
            "run" => self.back_up(&arguments).await,
            other => panic!("{other}"),
        };
        let mut pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": job.name_any(), "labels": template["metadata"]["labels"] }, "spec": template["spec"] });
        pod["spec"]["nodeName"] = json!("nowhere");
        let pod: Pod = serde_json::from_value(pod).unwrap();
        self.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap();
        let now = "2026-01-01T00:00:00Z";
        let ended = json!({ "exitCode": 0, "reason": "Completed", "message": told.to_string(), "startedAt": now, "finishedAt": now });
        let status = json!({ "status": { "phase": "Succeeded", "containerStatuses": [{
            "name": container["name"], "image": "i", "imageID": "i", "ready": false, "restartCount": 0, "state": { "terminated": ended } }] } });
        let patched =
            self.api::<Pod>().patch_status(&job.name_any(), &PatchParams::default(), &Patch::Merge(status)).await;
        patched.unwrap();
    }

    async fn restore(&self, arguments: &[&str]) -> Value {
        let value = |key: &str| arguments.iter().find_map(|text| text.strip_prefix(key)).map(str::to_owned);
        let uuid = |key: &str| value(key).unwrap().parse::<Uuid>().unwrap();
        let restore = uuid("--restore=");
        let password = self.secret(&names::restore(restore), "password").await;
        let restorer = Restorer {
            server: Self::server(),
            login: Login { username: names::beside(restore), password },
            reader: self.reader().await,
            bucket: Bucket::new(&s3()).unwrap(),
            programs: Programs(self.programs.clone()),
            stop: CancellationToken::new(),
        };
        let wanted = Wanted {
            restore,
            tenant: uuid("--tenant="),
            source: uuid("--source="),
            backup: value("--id=").map(|id| id.parse().unwrap()),
        };
        json!(restorer.report(&wanted).await)
    }

    async fn taker(&self) -> Taker {
        Taker {
            server: Self::server(),
            login: self.reader().await,
            bucket: Bucket::new(&s3()).unwrap(),
            programs: Programs(self.programs.clone()),
            central: None,
            last: false,
            stop: CancellationToken::new(),
        }
    }

    async fn back_up(&self, arguments: &[&str]) -> Value {
        let at = arguments.iter().position(|text| *text == "--tenant").unwrap();
        let tenant = TenantFacts { uuid: arguments[at + 1].parse().unwrap(), name: "acme".into() };
        let taken = self.taker().await.take(&tenant).await;
        json!([Outcome { tenant, taken }.report()])
    }
}

/// A world with one tenant that has a backup of one asset, `from the backup`.
struct House {
    world: World,
    uuid: Uuid,
    kubelet: tokio::task::JoinHandle<()>,
    _programs: TempDir,
}

impl House {
    async fn new(name: &str) -> Self {
        let mut world = World::new(name).await;
        let s3 = s3();
        for (flag, value) in [
            ("--backup-bucket", s3.bucket.clone()),
            ("--backup-region", s3.region.clone()),
            ("--backup-endpoint", s3.url.clone().unwrap()),
        ] {
            world.arguments.extend([flag.to_owned(), value]);
        }
        clean(&world).await;
        let account =
            json!({ "apiVersion": "v1", "kind": "ServiceAccount", "metadata": { "name": "maintenance-os-backup" } });
        let accounts: Api<ServiceAccount> = Api::namespaced(world.client.clone(), &world.namespace);
        let apply = PatchParams::apply("test").force();
        accounts.patch("maintenance-os-backup", &apply, &Patch::Apply(account)).await.unwrap();
        let uuid: Uuid = world.create_undisturbed().await.parse().unwrap();
        let programs = programs();
        let kubelet = Arc::new(Kubelet {
            client: world.client.clone(),
            namespace: world.namespace.clone(),
            programs: programs.path().into(),
        });
        let house = Self { world, uuid, kubelet: tokio::spawn(Arc::clone(&kubelet).run()), _programs: programs };
        house.set_assets("from the backup").await;
        let tenant = TenantFacts { uuid, name: "acme".into() };
        kubelet.taker().await.take(&tenant).await.unwrap();
        house
    }

    fn restores(&self) -> Api<TenantRestore> {
        Api::namespaced(self.world.client.clone(), &self.world.namespace)
    }

    async fn database(&self, name: &str) -> sqlx::PgConnection {
        let options: PgConnectOptions = variable("MOS_TEST_OPERATOR_POSTGRES_URL").parse().unwrap();
        options.database(name).connect().await.unwrap()
    }

    /// The tenant has this one asset and no other.
    async fn set_assets(&self, name: &str) {
        let mut session = self.database(&names::database(self.uuid)).await;
        for statement in ["DELETE FROM assets".to_owned(), format!("INSERT INTO assets (name) VALUES ('{name}')")] {
            sqlx::query(AssertSqlSafe(statement)).execute(&mut session).await.unwrap();
        }
        session.close().await.unwrap();
    }

    async fn assets(&self, database: &str) -> Vec<String> {
        let mut session = self.database(database).await;
        let names = sqlx::query_scalar("SELECT name FROM assets").fetch_all(&mut session).await.unwrap();
        session.close().await.unwrap();
        names
    }

    async fn create(&self, name: &str, spec: Value) {
        let mut spec = spec;
        spec["tenantRef"] = json!({ "name": "acme" });
        let object = json!({ "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "TenantRestore", "metadata": { "name": name }, "spec": spec });
        self.restores().create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }

    async fn patch(&self, name: &str, spec: Value) {
        let patch = Patch::Merge(json!({ "spec": spec }));
        self.restores().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    async fn becomes(&self, name: &str, phase: RestorePhase) -> TenantRestoreStatus {
        until(&format!("restore {name} is {}", phase.as_str()), async || {
            let status = self.restores().get(name).await.unwrap().status.unwrap_or_default();
            (status.phase == phase).then_some(()).ok_or_else(|| format!("{status:?}"))
        })
        .await;
        self.restores().get(name).await.unwrap().status.unwrap()
    }

    /// The Tenant says that it serves, of the data that this restore brought, and nothing is under way any more.
    async fn serves(&self, restore: Option<Uuid>) {
        until("the tenant serves what was restored", async || {
            let hosts = self.world.hosts().await;
            let entry = self.entry().await;
            let served = entry["state"] == "Active"
                && entry["incarnation"].as_str() == restore.map(|uid| uid.to_string()).as_deref();
            (served && hosts.len() == 1).then_some(()).ok_or_else(|| entry.to_string())
        })
        .await;
        self.world.wait_until_ready().await;
        // Databases and logins beside go when it is over.
        until("nothing is left beside", async || {
            let left = self.world.query("SELECT datname::text FROM pg_database WHERE datname ~ '^maintenance_os_restore' UNION ALL SELECT rolname::text FROM pg_roles WHERE rolname ~ '^maintenance_os_restore'").await;
            left.is_empty().then_some(()).ok_or_else(|| left.join(", "))
        })
        .await;
        let labelled = ListParams::default().labels("tenancy.maintenance-os.com/restore");
        until("Job and Secret are gone", async || {
            let jobs =
                Api::<Job>::namespaced(self.world.client.clone(), &self.world.namespace).list(&labelled).await.unwrap();
            let secrets = Api::<Secret>::namespaced(self.world.client.clone(), &self.world.namespace)
                .list(&labelled)
                .await
                .unwrap();
            let left = jobs.items.len() + secrets.items.len();
            (left == 0).then_some(()).ok_or_else(|| format!("{left} are left"))
        })
        .await;
    }

    async fn entry(&self) -> Value {
        let slices = ListParams::default().labels("tenancy.maintenance-os.com/slice=routing");
        let secrets =
            Api::<Secret>::namespaced(self.world.client.clone(), &self.world.namespace).list(&slices).await.unwrap();
        let slice = |secret: Secret| serde_json::from_slice::<Value>(&secret.data.unwrap()["slice.json"].0).unwrap();
        let mut entries = secrets.into_iter().map(slice).flat_map(|slice| slice["tenants"].as_array().unwrap().clone());
        entries.next().unwrap_or_default()
    }

    async fn uid(&self, name: &str) -> Uuid {
        self.restores().get(name).await.unwrap().metadata.uid.unwrap().parse().unwrap()
    }

    /// The restored data is live, what was there before is kept and listed.
    async fn assert_swapped(&self, name: &str, before: &str) {
        let restore = self.uid(name).await;
        self.serves(Some(restore)).await;
        assert_eq!(self.assets(&names::database(self.uuid)).await, ["from the backup"]);
        let replaced = names::replaced(restore);
        let mut session = self.world.superuser().await;
        let open = format!("ALTER DATABASE \"{replaced}\" ALLOW_CONNECTIONS true");
        sqlx::query(AssertSqlSafe(open)).execute(&mut session).await.unwrap();
        assert_eq!(self.assets(&replaced).await, [before], "what was live is kept");
        let listed = self
            .world
            .ledger(&format!("SELECT database_name::text FROM replaced_databases WHERE restore_uid = '{restore}' AND dropped_at IS NULL AND drop_after > now() + interval '6 days'"))
            .await;
        assert_eq!(listed, std::slice::from_ref(&replaced));
        let status = self.restores().get(name).await.unwrap().status.unwrap();
        assert_eq!(status.replaced.unwrap().database, replaced);
        let rows = self.world.ledger("SELECT ledger_state::text FROM tenants").await;
        assert_eq!(rows, ["Provisioned"]);
        // As no operator would: the next case begins from nothing.
        let drop = format!("DROP DATABASE \"{replaced}\" WITH (FORCE)");
        sqlx::query(AssertSqlSafe(drop)).execute(&mut session).await.unwrap();
        session.close().await.unwrap();
        self.restores().delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// A restore whose result nobody wants after all.
    async fn go_back_as_the_docs_say(&self) {
        self.set_assets("before the mistake").await;
        self.create("mistake", json!({ "approve": true })).await;
        self.becomes("mistake", RestorePhase::Done).await;
        let restore = self.uid("mistake").await;
        self.serves(Some(restore)).await;
        self.set_state("Suspended").await;
        let (live, replaced) = (names::database(self.uuid), names::replaced(restore));
        let comment = async |name: &str| {
            let query =
                format!("SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = '{name}'");
            self.world.query(&query).await.concat()
        };
        let schema = comment(&replaced).await.split(' ').find(|word| word.starts_with("schema=")).unwrap().to_owned();
        let words = comment(&live).await;
        let words: Vec<_> = words.split(' ').take(4).map(str::to_owned).chain([schema]).collect();
        let mut session = self.world.superuser().await;
        let statements = format!(
            "BEGIN; ALTER DATABASE \"{live}\" RENAME TO \"given_up_{uuid}\"; ALTER DATABASE \"{replaced}\" RENAME TO \"{live}\";
             COMMENT ON DATABASE \"given_up_{uuid}\" IS NULL; COMMENT ON DATABASE \"{live}\" IS '{mark}'; COMMIT",
            uuid = self.uuid,
            mark = words.join(" "),
        );
        sqlx::raw_sql(AssertSqlSafe(statements)).execute(&mut session).await.unwrap();
        self.set_state("Active").await;
        self.serves(None).await;
        assert_eq!(self.assets(&live).await, ["before the mistake"]);
        self.world.assert_login_works_with(1).await;
        let drop = format!("DROP DATABASE \"given_up_{}\" WITH (FORCE)", self.uuid);
        sqlx::query(AssertSqlSafe(drop)).execute(&mut session).await.unwrap();
        session.close().await.unwrap();
        self.restores().delete("mistake", &DeleteParams::default()).await.unwrap();
    }

    async fn set_state(&self, state: &str) {
        let patch = Patch::Merge(json!({ "spec": { "state": state } }));
        let changed = self.world.tenants().patch("acme", &PatchParams::default(), &patch).await.unwrap();
        until(&format!("the Tenant is {state}"), async || {
            let status = self.world.tenants().get("acme").await.unwrap().status.unwrap_or_default();
            let is_seen = status.observed_generation == changed.metadata.generation;
            let ready = status.conditions.into_iter().find(|condition| condition.type_ == "Ready").unwrap();
            (is_seen && ready.status == "True" && ready.reason == state)
                .then_some(())
                .ok_or_else(|| format!("{ready:?}"))
        })
        .await;
    }

    async fn end(self) {
        clean(&self.world).await;
        self.world.remove().await;
        self.kubelet.abort();
    }
}

/// What an earlier run left, and what the garbage collector would take.
async fn clean(world: &World) {
    let (now, all) = (DeleteParams::default().grace_period(0), ListParams::default());
    let client = &world.client;
    Api::<TenantRestore>::namespaced(client.clone(), &world.namespace).delete_collection(&now, &all).await.unwrap();
    Api::<TenantBackup>::namespaced(client.clone(), &world.namespace).delete_collection(&now, &all).await.unwrap();
    Api::<Job>::namespaced(client.clone(), &world.namespace)
        .delete_collection(&DeleteParams::background(), &all)
        .await
        .unwrap();
    Api::<Pod>::namespaced(client.clone(), &world.namespace).delete_collection(&now, &all).await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &world.namespace);
    let labelled = ListParams::default().labels("tenancy.maintenance-os.com/restore");
    secrets.delete_collection(&now, &labelled).await.unwrap();
    let mut session = world.superuser().await;
    for name in
        world.query("SELECT datname::text FROM pg_database WHERE datname ~ '^maintenance_os_(restore|replaced)'").await
    {
        sqlx::query(AssertSqlSafe(format!("DROP DATABASE \"{name}\" WITH (FORCE)")))
            .execute(&mut session)
            .await
            .unwrap();
    }
    for name in world.query("SELECT rolname::text FROM pg_roles WHERE rolname ~ '^maintenance_os_restore'").await {
        sqlx::query(AssertSqlSafe(format!("DROP ROLE \"{name}\""))).execute(&mut session).await.unwrap();
    }
    session.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_waits_for_approval_and_swaps() {
    let house = House::new("restore").await;
    house.set_assets("lost at ten").await;
    let operator = Operator::start(&house.world, Gate::default()).await;
    house.create("back", json!({})).await;
    let status = house.becomes("back", RestorePhase::AwaitingApproval).await;
    assert_eq!((status.rows.unwrap() > 0, status.tables.is_empty()), (true, false), "{status:?}");
    assert_eq!(house.assets(&names::database(house.uuid)).await, ["lost at ten"], "the live database is untouched");
    house.world.assert_login_works_with(1).await;
    // Another one for the same tenant waits, and says for which.
    house.create("second", json!({ "approve": true })).await;
    until("the second waits", async || {
        let status = house.restores().get("second").await.unwrap().status.unwrap_or_default();
        let message = status.conditions.first().map(|condition| condition.message.clone()).unwrap_or_default();
        message.contains("waits for TenantRestore back").then_some(()).ok_or(message)
    })
    .await;
    house.restores().delete("second", &DeleteParams::default()).await.unwrap();
    house.patch("back", json!({ "approve": true })).await;
    house.becomes("back", RestorePhase::Done).await;
    house.assert_swapped("back", "lost at ten").await;
    house.go_back_as_the_docs_say().await;
    house.world.assert_login_works_with(1).await;

    // A backup that a person asks for is one Job, whose word is in the status.
    let backups: Api<TenantBackup> = Api::namespaced(house.world.client.clone(), &house.world.namespace);
    let object = json!({ "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "TenantBackup", "metadata": { "name": "now" }, "spec": { "tenantRef": { "name": "acme" } } });
    backups.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    until("the backup is taken", async || {
        let status = backups.get("now").await.unwrap().status.unwrap_or_default();
        let done = status.backup.is_some() && status.size.is_some() && status.ended_at.is_some();
        done.then_some(()).ok_or_else(|| format!("{status:?}"))
    })
    .await;
    let jobs: Api<Job> = Api::namespaced(house.world.client.clone(), &house.world.namespace);
    assert_eq!(jobs.list(&ListParams::default()).await.unwrap().items.len(), 1);
    backups.delete("now", &DeleteParams::default()).await.unwrap();
    until("its Job goes with it", async || {
        let left = jobs.list(&ListParams::default()).await.unwrap().items.len();
        (left == 0).then_some(()).ok_or_else(|| left.to_string())
    })
    .await;
    operator.kill();
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_that_is_aborted_or_deleted_leaves_the_tenant_as_it_was() {
    let house = House::new("abort").await;
    house.set_assets("live").await;
    let operator = Operator::start(&house.world, Gate::default()).await;
    for end in ["abort", "delete"] {
        house.create("back", json!({})).await;
        house.becomes("back", RestorePhase::AwaitingApproval).await;
        if end == "abort" {
            house.patch("back", json!({ "abort": true })).await;
            house.becomes("back", RestorePhase::Aborted).await;
        }
        house.restores().delete("back", &DeleteParams::default()).await.unwrap();
        house.serves(None).await;
        assert_eq!(house.assets(&names::database(house.uuid)).await, ["live"], "{end}");
    }
    // Another tenant's backup is refused.
    house.create("other", json!({ "sourceTenant": Uuid::new_v4().to_string() })).await;
    house.becomes("other", RestorePhase::Failed).await;
    // With the right to clone, too, where that tenant is none of this namespace.
    house.create("clone", json!({ "sourceTenant": Uuid::new_v4().to_string(), "clone": true })).await;
    let status = house.becomes("clone", RestorePhase::Failed).await;
    assert!(status.conditions[0].message.contains("is or was in namespace"), "{:?}", status.conditions);
    // A backup that is not there ends it too.
    house.create("none", json!({ "backup": format!("20200101T000000Z-{}", Uuid::new_v4().simple()) })).await;
    let status = house.becomes("none", RestorePhase::Failed).await;
    assert!(status.conditions[0].message.contains("20200101T000000Z"), "{:?}", status.conditions);
    house.serves(None).await;
    operator.kill();
    house.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restore_whose_operator_is_stopped_before_or_after_any_write_is_ended_by_the_next_one() {
    let house = House::new("restore").await;
    let world = &house.world;
    let round = std::cell::Cell::new(0);
    let name = || format!("round-{}", round.get());
    let begin = async |_: &World| {
        house.set_assets("live").await;
        house.create(&name(), json!({ "approve": true })).await;
    };
    let done = async |_: &World| {
        house.becomes(&name(), RestorePhase::Done).await;
        let restore = house.uid(&name()).await;
        house.serves(Some(restore)).await;
    };
    let count = run(world, None, begin, done).await;
    assert!(count >= 20, "a restore is at least twenty writes, this one was {count}");
    house.assert_swapped(&name(), "live").await;
    // Each of the writes that close the tenant, swap and open it again on both sides; of those before, which make what may go
    // at any time, every second one.
    let is_told =
        |point: &Point| point.number > count / 2 || point.number.is_multiple_of(2) == (point.side == Side::After);
    let points = (1..=count).flat_map(|number| [Side::Before, Side::After].map(|side| Point { number, side }));
    for point in points.filter(is_told) {
        round.set(round.get() + 1);
        eprintln!("{}: {point:?} of {count}", name());
        run(world, Some(point), begin, done).await;
        house.assert_swapped(&name(), "live").await;
        let pods: Api<Pod> = Api::namespaced(world.client.clone(), &world.namespace);
        pods.delete_collection(&DeleteParams::default().grace_period(0), &ListParams::default()).await.unwrap();
    }
    house.end().await;
}
