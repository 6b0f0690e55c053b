//! The cluster as the benchmarks see it.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, TryFutureExt, TryStreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Pod, Secret, Service};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, Client, ResourceExt};
use maintenance_os::api::rollout::RolloutPhase;
use maintenance_os::api::{DatabaseServer, Plan, SchemaRollout, Tenant};
use serde_json::json;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};

use crate::{Outcome, raw};

const NAMESPACE: &str = "customers";
const OPERATOR: &str = "maintenance-os";
const SERVER: &str = "pg-demo-1";
const ENTRY: &str = "http://10.97.0.1:30080";
const DEADLINE: Duration = Duration::from_secs(300);
/// Plan of the Tenants whose Plan changes.
const PLAN: &str = "bench";
/// Clock ticks per second, as /proc counts processor time on every Linux that matters.
const TICKS: u64 = 100;

/// How long a burst took.
#[derive(Default)]
pub struct Burst {
    /// From before the first was created until all were Ready and their hosts had answered.
    pub since_asked: Duration,
    /// From the first stored until all were Ready.
    pub ready: Duration,
    /// From the first stored until all were Ready and their hosts had answered.
    pub served: Duration,
}

/// The cluster.
pub struct Cluster {
    client: Client,
    http: reqwest::Client,
    /// The provisioner in `postgres`.
    pub pool: PgPool,
}

impl Cluster {
    /// The cluster in KUBECONFIG.
    pub async fn open() -> Outcome<Self> {
        let client = Client::try_default().await?;
        let secret = Api::<Secret>::namespaced(client.clone(), OPERATOR).get(SERVER).await?;
        let value = |key: &str| {
            secret
                .data
                .as_ref()
                .and_then(|data| data.get(key))
                .map(|value| String::from_utf8_lossy(&value.0).into_owned())
                .unwrap_or_default()
        };
        let service = Api::<Service>::namespaced(client.clone(), "databases").get(SERVER).await?;
        let address = service.spec.and_then(|spec| spec.cluster_ip).ok_or("the server's Service has no address")?;
        let options = PgConnectOptions::new()
            .host(&address)
            .port(5432)
            .username(&value("username"))
            .password(&value("password"))
            .database("postgres")
            .ssl_mode(PgSslMode::Require);
        // As many connections as the operator has.
        let pool = PgPoolOptions::new().max_connections(8).connect_with(options).await?;
        Ok(Self { client, http: reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build()?, pool })
    }

    /// Secrets beside the Tenants.
    pub fn secrets(&self) -> Api<Secret> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    fn tenants(&self) -> Api<Tenant> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    fn servers(&self) -> Api<DatabaseServer> {
        Api::all(self.client.clone())
    }

    /// Creates a Tenant of a benchmark.
    pub async fn create(&self, name: &str) -> Outcome<()> {
        let tenant = json!({ "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Tenant", "metadata": { "name": name, "labels": { "bench": "tenant" } },
            "spec": { "displayName": "Bench", "planRef": { "name": "pro" }, "deletionPolicy": "Delete", "quarantine": "1s" } });
        self.tenants().create(&PostParams::default(), &serde_json::from_value(tenant)?).await?;
        Ok(())
    }

    /// Asks the host of a Tenant for a page that reads from its own database.
    pub async fn visit(&self, name: &str) -> Outcome<()> {
        let host = format!("{name}.maintenance-os.com");
        let answer = self.http.get(format!("{ENTRY}/api/tenant")).header("host", &host).send().await?;
        let (status, body) = (answer.status(), answer.text().await?);
        if status.is_success() { Ok(()) } else { Err(format!("{status}: {body}").into()) }
    }

    /// Waits until the host of a Tenant answers from its own database.
    async fn wait_served(&self, name: &str) -> Outcome<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if self.visit(name).await.is_ok() {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(format!("{name} is not served in time").into());
            }
            tokio::time::sleep(Duration::from_millis(3)).await;
        }
    }

    /// Names of Tenants of the benchmark as they become Ready. By a watch, which is told and does not ask.
    async fn ready(&self) -> Outcome<impl futures::Stream<Item = Outcome<String>> + Send + use<>> {
        let labels = "bench=tenant";
        let version = self.tenants().list_metadata(&ListParams::default().labels(labels).limit(1)).await?;
        let version = version.metadata.resource_version.unwrap_or_default();
        let parameters = WatchParams::default().labels(labels).timeout(290);
        let events = self.tenants().watch(&parameters, &version).await?;
        Ok(events.filter_map(|event| async {
            match event {
                Ok(WatchEvent::Added(tenant) | WatchEvent::Modified(tenant)) => {
                    ready(&tenant).then(|| Ok(tenant.name_any()))
                }
                Ok(_) => None,
                Err(error) => Some(Err(error.into())),
            }
        }))
    }

    /// Creates many at once and waits until all are Ready and their hosts answer.
    pub async fn create_and_wait(&self, names: &[String]) -> Outcome<Burst> {
        let Some((first, others)) = names.split_first() else { return Ok(Burst::default()) };
        let mut news = std::pin::pin!(self.ready().await?);
        let asked = Instant::now();
        self.create(first).await?;
        let stored = Instant::now();
        let mut creating = std::pin::pin!(
            futures::stream::iter(others)
                .map(|name| self.create(name))
                .buffer_unordered(16)
                .try_collect::<Vec<_>>()
                .map_ok(drop)
                .fuse()
        );
        let (mut missing, mut serving) = (names.iter().cloned().collect::<BTreeSet<_>>(), FuturesUnordered::new());
        let deadline = tokio::time::sleep(DEADLINE);
        let mut deadline = std::pin::pin!(deadline);
        let mut burst = Burst::default();
        while !missing.is_empty() || !serving.is_empty() {
            tokio::select! {
                created = &mut creating => created?,
                Some(name) = news.next() => {
                    let name = name?;
                    if missing.remove(&name) {
                        burst.ready = stored.elapsed();
                        serving.push(async move { self.wait_served(&name).await });
                    }
                }
                Some(served) = serving.next() => served?,
                () = &mut deadline => {
                    return Err(format!("{} Tenants are not ready in time, as {:?}", missing.len(), missing.first()).into());
                }
            }
        }
        burst.served = stored.elapsed();
        burst.since_asked = asked.elapsed();
        Ok(burst)
    }

    /// Names of so many Tenants of the benchmark, made where there are fewer.
    pub async fn some_tenants(&self, count: usize) -> Outcome<Vec<String>> {
        let labels = ListParams::default().labels("bench=tenant");
        let mut names: Vec<_> =
            self.tenants().list_metadata(&labels).await?.iter().map(ResourceExt::name_any).collect();
        let missing: Vec<_> = (names.len()..count).map(|number| format!("bench-some-{number}")).collect();
        self.create_and_wait(&missing).await?;
        names.extend(missing);
        names.truncate(count);
        Ok(names)
    }

    /// Has a Tenant's password renewed and waits until its binding says so.
    pub async fn rotate(&self, name: &str, request: &str) -> Outcome<()> {
        let secret = format!("{name}-db");
        let password = async || -> Outcome<Vec<u8>> {
            let data = self.secrets().get(&secret).await?.data.unwrap_or_default();
            Ok(data.get("password").ok_or("a binding without a password")?.0.clone())
        };
        let before = password().await?;
        let patch = json!({ "metadata": { "annotations": { "tenancy.maintenance-os.com/rotate": request } } });
        self.tenants().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        let deadline = Instant::now() + DEADLINE;
        while password().await? == before {
            if Instant::now() > deadline {
                return Err(format!("the password of {name} is not renewed in time").into());
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        Ok(())
    }

    /// So many Tenants that have a Plan of their own, which [`Cluster::set_plan_size`] changes.
    pub async fn tenants_of_a_plan(&self, count: usize) -> Outcome<Vec<String>> {
        let plan = json!({ "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Plan", "metadata": { "name": PLAN },
            "spec": { "displayName": "Bench", "price": "1.00", "limits": { "requestsPerMinute": 6000 } } });
        let apply = PatchParams::apply("bench").force();
        Api::<Plan>::all(self.client.clone()).patch(PLAN, &apply, &Patch::Apply(plan)).await?;
        let names: Vec<_> = (0..count).map(|number| format!("bench-life-{number}")).collect();
        let missing: Vec<_> = {
            let there = self.tenants().list_metadata(&ListParams::default().labels("bench=tenant")).await?;
            let there: BTreeSet<_> = there.iter().map(ResourceExt::name_any).collect();
            names.iter().filter(|name| !there.contains(*name)).cloned().collect()
        };
        self.create_and_wait(&missing).await?;
        for name in &names {
            let patch = json!({ "spec": { "planRef": { "name": PLAN } } });
            self.tenants().patch(name, &PatchParams::default(), &Patch::Merge(patch)).await?;
        }
        Ok(names)
    }

    /// Changes what that Plan lets its Tenants open.
    pub async fn set_plan_size(&self, connections: i32) -> Outcome<()> {
        let patch = json!({ "spec": { "database": { "maxConnections": connections } } });
        Api::<Plan>::all(self.client.clone()).patch(PLAN, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    /// Tenants that there are.
    pub async fn count(&self) -> Outcome<usize> {
        Ok(self.tenants().list_metadata(&ListParams::default()).await?.items.len())
    }

    /// Sets the size of the warm pool.
    pub async fn set_pool(&self, size: usize) -> Outcome<()> {
        let patch = json!({ "spec": { "warmPool": { "size": size }, "capacity": { "maxTenants": 5000 } } });
        self.servers().patch(SERVER, &PatchParams::default(), &Patch::Merge(patch)).await?;
        Ok(())
    }

    async fn warm(&self) -> Outcome<Vec<String>> {
        Ok(sqlx::query_scalar("SELECT datname::text FROM pg_database WHERE datname LIKE 'maintenance\\_os\\_warm%'")
            .fetch_all(&self.pool)
            .await?)
    }

    /// Waits until so many databases are warm.
    pub async fn fill_pool(&self, size: usize) -> Outcome<()> {
        self.set_pool(size).await?;
        let deadline = Instant::now() + DEADLINE;
        while self.warm().await?.len() < size {
            if Instant::now() > deadline {
                return Err("the warm pool does not fill".into());
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        Ok(())
    }

    /// No warm databases: the pool's size is 0, and a Tenant each takes what is left.
    pub async fn empty_pool(&self) -> Outcome<()> {
        self.set_pool(0).await?;
        self.settle().await?;
        let left = self.warm().await?.len();
        let names: Vec<_> = (0..left).map(|number| format!("bench-drain-{number}")).collect();
        self.create_and_wait(&names).await?;
        Ok(())
    }

    /// A database for the raw driver, cloned beforehand.
    pub async fn raw_database(&self, id: &str) -> Outcome<String> {
        let name = format!("bench_raw_{id}");
        let batch =
            maintenance_os::desired::sql::Batch::alone(maintenance_os::desired::sql::Statement::CreateDatabase {
                name: name.clone(),
                template: self.template().await?,
            });
        raw::run(self, &batch).await?;
        Ok(name)
    }

    /// The template that is there.
    pub async fn template(&self) -> Outcome<String> {
        let templates: Vec<String> = sqlx::query_scalar(
            "SELECT datname::text FROM pg_database WHERE datname LIKE 'maintenance\\_os\\_template\\_0%' ORDER BY 1 DESC",
        )
        .fetch_all(&self.pool)
        .await?;
        templates.into_iter().next().ok_or_else(|| "there is no template".into())
    }

    /// Every tenant's database.
    pub async fn tenant_databases(&self) -> Outcome<Vec<String>> {
        let query = "SELECT datname::text FROM pg_database WHERE datname LIKE 'tenant\\_%' ORDER BY 1";
        Ok(sqlx::query_scalar(query).fetch_all(&self.pool).await?)
    }

    /// The migrator at the server.
    pub async fn migrator(&self) -> Outcome<PgConnectOptions> {
        let secret = Api::<Secret>::namespaced(self.client.clone(), OPERATOR).get(&format!("{SERVER}-roles")).await?;
        let password =
            secret.data.as_ref().and_then(|data| data.get("migrator")).ok_or("no password of the migrator")?;
        let options = (*self.pool.connect_options()).clone();
        Ok(options
            .username("maintenance_os_migrator")
            .password(&String::from_utf8_lossy(&password.0))
            .options([("search_path", "public,pg_temp")]))
    }

    /// Waits until so many Tenants say that they have this schema.
    pub async fn wait_for_schema(&self, version: &str, count: usize) -> Outcome<()> {
        let deadline = Instant::now() + DEADLINE * 3;
        loop {
            let tenants = self.tenants().list(&ListParams::default()).await?;
            let has = |tenant: &&Tenant| {
                let database = tenant.status.as_ref().and_then(|status| status.database.as_ref());
                database.and_then(|database| database.schema_version.as_deref()) == Some(version)
            };
            if tenants.iter().filter(has).count() >= count {
                return self.settle().await;
            }
            if Instant::now() > deadline {
                return Err(format!("the Tenants do not have schema {version} in time").into());
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    }

    /// Runs a schema rollout, eight databases at a time; how long until it is complete.
    pub async fn roll_out(&self, name: &str, longest: Duration) -> Outcome<Duration> {
        let rollouts: Api<SchemaRollout> = Api::all(self.client.clone());
        let _ = rollouts.delete(name, &DeleteParams::default()).await;
        let rollout = json!({ "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "SchemaRollout",
            "metadata": { "name": name }, "spec": { "maxParallel": 8 } });
        let begun = Instant::now();
        rollouts.create(&PostParams::default(), &serde_json::from_value(rollout)?).await?;
        loop {
            let status = rollouts.get(name).await?.status.unwrap_or_default();
            match status.phase {
                RolloutPhase::Complete => break,
                RolloutPhase::Held | RolloutPhase::Failed => {
                    return Err(format!("{name}: {:?}", status.failures).into());
                }
                _ if begun.elapsed() > longest => return Err(format!("{name} does not end: {status:?}").into()),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
        let took = begun.elapsed();
        rollouts.delete(name, &DeleteParams::default()).await?;
        Ok(took)
    }

    /// Writes to Tenants, Secrets, Plans and DatabaseServers that the API server has seen, whatever came of them.
    pub async fn writes(&self) -> Outcome<u64> {
        let text = self.client.request_text(http::Request::get("/metrics").body(Vec::new())?).await?;
        let ours =
            ["tenants", "secrets", "plans", "databaseservers"].map(|resource| format!("resource=\"{resource}\""));
        let verbs = ["POST", "PUT", "PATCH", "APPLY", "DELETE"].map(|verb| format!("verb=\"{verb}\""));
        let counted = text.lines().filter(|line| line.starts_with("apiserver_request_total{"));
        let counted = counted
            .filter(|line| ours.iter().any(|word| line.contains(word)) && verbs.iter().any(|word| line.contains(word)));
        Ok(counted.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum::<f64>() as u64)
    }

    /// Waits until nothing has been written for a while.
    pub async fn settle(&self) -> Outcome<()> {
        let deadline = Instant::now() + DEADLINE;
        let mut before = self.writes().await?;
        loop {
            tokio::time::sleep(Duration::from_secs(10)).await;
            let now = self.writes().await?;
            if now == before {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err("the cluster does not come to rest".into());
            }
            before = now;
        }
    }

    /// The operator's process on this machine: the pods of this cluster run here.
    fn operator_process() -> Outcome<u64> {
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            let command = std::fs::read_to_string(format!("/proc/{name}/cmdline")).unwrap_or_default();
            if command.starts_with("/usr/local/bin/maintenance-os\0operator") {
                return Ok(name.parse()?);
            }
        }
        Err("no operator runs on this machine".into())
    }

    /// Processor time that the operator has used.
    pub fn operator_cpu() -> Outcome<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", Self::operator_process()?))?;
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks: u64 = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
        Ok(Duration::from_millis(ticks * 1000 / TICKS))
    }

    /// Resident memory of the operator in bytes.
    pub fn operator_memory() -> Outcome<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", Self::operator_process()?))?;
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).ok_or("no VmRSS")?;
        Ok(line.split_whitespace().nth(1).ok_or("no VmRSS")?.parse::<u64>()? * 1024)
    }

    /// Deletes the operator's pods; how long until another one leads.
    pub async fn restart_operator(&self) -> Outcome<Duration> {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), OPERATOR);
        let holder = async || -> Outcome<Option<String>> {
            Ok(leases.get("maintenance-os-operator").await?.spec.and_then(|spec| spec.holder_identity))
        };
        let before = holder().await?;
        let begun = Instant::now();
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), OPERATOR);
        pods.delete(before.as_deref().ok_or("nobody leads")?, &DeleteParams::default()).await?;
        let deadline = Instant::now() + DEADLINE;
        loop {
            let now = holder().await?;
            if now.as_ref().is_some_and(|now| !now.is_empty() && Some(now) != before.as_ref()) {
                break;
            }
            if Instant::now() > deadline {
                return Err("no other operator leads".into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let took = begun.elapsed();
        self.settle().await?;
        Ok(took)
    }

    /// Takes everything that a benchmark made away.
    pub async fn remove_all(&self) -> Outcome<()> {
        let names: Vec<_> = self
            .tenants()
            .list_metadata(&ListParams::default().labels("bench=tenant"))
            .await?
            .iter()
            .map(ResourceExt::name_any)
            .collect();
        for name in &names {
            // More than ten destructive deletes within ten minutes are held unless each is confirmed.
            let confirm =
                json!({ "metadata": { "annotations": { "tenancy.maintenance-os.com/confirm-delete": name } } });
            self.tenants().patch(name, &PatchParams::default(), &Patch::Merge(confirm)).await?;
            self.tenants().delete(name, &DeleteParams::default()).await?;
        }
        let deadline = Instant::now() + DEADLINE;
        while !self.tenants().list_metadata(&ListParams::default().labels("bench=tenant")).await?.items.is_empty() {
            if Instant::now() > deadline {
                return Err("the Tenants of the benchmark do not go".into());
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        self.secrets().delete_collection(&DeleteParams::default(), &ListParams::default().labels("bench=raw")).await?;
        self.remove_raw().await
    }

    async fn remove_raw(&self) -> Outcome<()> {
        let like = "SELECT datname::text FROM pg_database d WHERE datname LIKE 'bench\\_raw%' OR shobj_description(oid, 'pg_database') LIKE '% schema=raw'";
        let databases: Vec<String> = sqlx::query_scalar(like).fetch_all(&self.pool).await?;
        for database in databases {
            sqlx::query(sqlx::AssertSqlSafe(format!("DROP DATABASE \"{database}\""))).execute(&self.pool).await?;
            if database.starts_with("tenant_") {
                for role in [format!("{database}_a"), database] {
                    sqlx::query(sqlx::AssertSqlSafe(format!("DROP ROLE IF EXISTS \"{role}\"")))
                        .execute(&self.pool)
                        .await?;
                }
            }
        }
        Ok(())
    }
}

fn ready(tenant: &Tenant) -> bool {
    let conditions = tenant.status.iter().flat_map(|status| &status.conditions);
    conditions.filter(|condition| condition.type_ == "Ready").any(|condition| condition.status == "True")
}
