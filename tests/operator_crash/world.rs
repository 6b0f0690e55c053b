//! Everything outside the operator: the API server, PostgreSQL, the central database, and readers that acknowledge.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::ByteString;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use maintenance_os::api::routing::RoutingSlice;
use maintenance_os::api::slices::{self, SLICE_KEY};
use maintenance_os::api::tenant::{DeletionPolicy, Tenant};
use maintenance_os::api::{DatabaseServer, Plan};
use maintenance_os::settings::OperatorSettings;
use maintenance_os::slices::{Acknowledgements, Health, Source, changes};
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

const DEADLINE: Duration = Duration::from_secs(40);
const NAME: &str = "acme";
const SERVER: &str = "pg-crash";
/// A second object for the same server; first in the alphabet.
const OTHER: &str = "a-pg-crash";

/// One test's world. Tests of this file run one after the other, since an operator sees every Tenant of the cluster.
pub struct World {
    pub config: Config,
    pub client: Client,
    pub namespace: String,
    central: String,
    /// Arguments of the operators that are started from now on, beside the usual ones.
    pub arguments: Vec<String>,
    _turn: tokio::sync::OwnedMutexGuard<()>,
}

fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `make test-code`"))
}

fn server(name: &str) -> Value {
    json!({ "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "DatabaseServer", "metadata": { "name": name },
        "spec": { "connectionSecretRef": { "name": SERVER }, "warmPool": { "size": 1 }, "capacity": { "connectionOvercommit": 100 }, "pooler": { "replicas": 1 } } })
}

fn provisioners_password() -> String {
    let url = variable("MOS_TEST_OPERATOR_PROVISIONER_URL");
    let (_, login) = url.split_once("://").unwrap().1.split_once('@').unwrap().0.split_once(':').unwrap();
    login.to_owned()
}

/// Asks until there is an answer.
pub async fn until(what: &str, mut ask: impl AsyncFnMut() -> Result<(), String>) {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match ask().await {
            Ok(()) => return,
            Err(why) => assert!(Instant::now() < deadline, "not within {} s: {what}: {why}", DEADLINE.as_secs()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl World {
    pub async fn new(namespace: &str) -> Self {
        static TURN: std::sync::OnceLock<std::sync::Arc<tokio::sync::Mutex<()>>> = std::sync::OnceLock::new();
        let turn = std::sync::Arc::clone(TURN.get_or_init(std::sync::Arc::default)).lock_owned().await;
        maintenance_os::telemetry::install_crypto_provider();
        if std::env::var("RUST_LOG").is_ok() {
            maintenance_os::telemetry::init();
        }
        let kubeconfig = Kubeconfig::read_from(variable("MOS_TEST_OPERATOR_KUBECONFIG")).unwrap();
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
        let client = Client::try_from(config.clone()).unwrap();
        let central = variable("MOS_TEST_OPERATOR_CENTRAL_URL");
        let world = Self {
            config,
            client,
            namespace: format!("crash-{namespace}"),
            central,
            arguments: Vec::new(),
            _turn: turn,
        };
        world.install().await;
        world.read_slices("maintenance-os-app", slices::routing_slices()).await;
        world.read_slices(&format!("pooler-{SERVER}"), slices::pooler_slices(SERVER)).await;
        world
    }

    /// Definitions, namespace, Plan, server; what an earlier run left behind goes first.
    async fn install(&self) {
        let definitions: Api<CustomResourceDefinition> = Api::all(self.client.clone());
        for (name, yaml) in maintenance_os::generate::crd_files().unwrap() {
            let definition: CustomResourceDefinition = serde_saphyr::from_str(&yaml).unwrap();
            let apply = PatchParams::apply("test").force();
            let name = name.trim_end_matches(".yaml");
            definitions.patch(name, &apply, &Patch::Apply(&definition)).await.unwrap();
            until("the definition is served", async || {
                let found = definitions.get(name).await.unwrap().status.and_then(|status| status.conditions);
                let established = found
                    .iter()
                    .flatten()
                    .any(|condition| condition.type_ == "Established" && condition.status == "True");
                established.then_some(()).ok_or_else(|| "not yet".into())
            })
            .await;
        }
        self.apply_global::<Namespace>(
            &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": self.namespace } }),
            &self.namespace,
        )
        .await;
        self.remove().await;
        let group = "tenancy.maintenance-os.com/v1alpha1";
        let plan = json!({ "apiVersion": group, "kind": "Plan", "metadata": { "name": "pro" }, "spec": { "displayName": "Professional", "price": "49.00" } });
        self.apply_global::<Plan>(&plan, "pro").await;
        self.give_the_provisioner_its_password_back().await;
        let options: PgConnectOptions = variable("MOS_TEST_OPERATOR_PROVISIONER_URL").parse().unwrap();
        let password = provisioners_password();
        let ca = std::fs::read_to_string(variable("MOS_TEST_OPERATOR_POSTGRES_CA")).unwrap();
        let data = [
            ("host", options.get_host().to_owned()),
            ("port", options.get_port().to_string()),
            ("username", options.get_username().to_owned()),
            ("password", password),
            ("ca.crt", ca),
        ];
        let secret = Secret {
            data: Some(data.map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes()))).into()),
            ..Secret::default()
        };
        let secret =
            json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": SERVER }, "data": secret.data });
        Api::<Secret>::namespaced(self.client.clone(), &self.namespace)
            .patch(SERVER, &PatchParams::apply("test").force(), &Patch::Apply(secret))
            .await
            .unwrap();
        self.apply_global::<DatabaseServer>(&server(SERVER), SERVER).await;
        // What another test asked for.
        self.annotate_server(None).await;
    }

    /// A second DatabaseServer with the connection of the first.
    pub async fn add_another_object_for_the_server(&self) {
        self.apply_global::<DatabaseServer>(&server(OTHER), OTHER).await;
    }

    pub async fn remove_other_object(&self) {
        let servers: Api<DatabaseServer> = Api::all(self.client.clone());
        servers.delete(OTHER, &DeleteParams::default()).await.unwrap();
    }

    pub async fn wait_for_conflict(&self) {
        let servers: Api<DatabaseServer> = Api::all(self.client.clone());
        until("the second object is a Conflict, and the first is not", async || {
            let mut reasons = Vec::new();
            for name in [SERVER, OTHER] {
                let status = servers.get(name).await.unwrap().status.unwrap_or_default();
                let ready = status.conditions.into_iter().find(|condition| condition.type_ == "Ready");
                reasons.push(ready.map_or_else(String::new, |ready| ready.reason));
            }
            (reasons == ["Active", "Conflict"]).then_some(()).ok_or_else(|| format!("{reasons:?}"))
        })
        .await;
    }

    /// The term that holds the server; 0: none did yet.
    pub async fn term(&self) -> u64 {
        let text = maintenance_os::desired::server::fence_epoch();
        self.query(&format!("SELECT coalesce(({text})::text, '0')")).await.concat().parse().unwrap()
    }

    /// Waits until an operator that was started after `term` was read holds the server.
    pub async fn wait_for_term_after(&self, term: u64) {
        until("the operator holds the server", async || {
            let now = self.term().await;
            (now > term).then_some(()).ok_or_else(|| format!("term {now}"))
        })
        .await;
    }

    pub async fn apply_global<K>(&self, object: &Value, name: &str)
    where
        K: kube::Resource<Scope = k8s_openapi::ClusterResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        Api::<K>::all(self.client.clone())
            .patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object))
            .await
            .unwrap();
    }

    /// A reader of slices like the app and the poolers have it: it acknowledges what it has read.
    async fn read_slices(&self, service: &str, names: Vec<String>) {
        let acknowledgements = Acknowledgements::new();
        let listener = tokio::net::TcpListener::bind("0.0.0.0:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = acknowledgements.router();
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        let source = Source::Cluster { client: self.client.clone(), namespace: self.namespace.clone() };
        let news = changes(source, names.clone(), Health::new(names.len()));
        tokio::spawn(news.for_each(move |change| {
            if let Some(document) = change.content.and_then(|content| serde_json::from_slice::<Value>(&content).ok()) {
                acknowledgements.serve(&change.slice, document["generation"].as_u64().unwrap());
            }
            std::future::ready(())
        }));
        // An EndpointSlice may not name a loopback address.
        let probe = UdpSocket::bind("0.0.0.0:0").unwrap();
        probe.connect("192.0.2.1:9").expect("this test needs a network address besides loopback");
        let slice = json!({ "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": { "name": service, "labels": { "kubernetes.io/service-name": service } }, "addressType": "IPv4",
            "ports": [{ "name": "ack", "port": port, "protocol": "TCP" }],
            "endpoints": [{ "addresses": [probe.local_addr().unwrap().ip().to_string()], "conditions": { "ready": true } }] });
        Api::<EndpointSlice>::namespaced(self.client.clone(), &self.namespace)
            .patch(service, &PatchParams::apply("test").force(), &Patch::Apply(slice))
            .await
            .unwrap();
    }

    pub fn settings(&self) -> OperatorSettings {
        let arguments = [
            "maintenance-os",
            "operator",
            "--namespace",
            &self.namespace,
            "--central-url",
            &self.central,
            "--central-ca",
            &variable("MOS_TEST_OPERATOR_POSTGRES_CA"),
            "--tenant-namespaces",
            &self.namespace,
        ];
        let arguments = arguments.into_iter().chain(self.arguments.iter().map(String::as_str));
        let resync = !self.arguments.iter().any(|argument| argument == "--resync");
        let arguments = arguments.chain(["--resync", "2s"].into_iter().filter(|_| resync));
        match <maintenance_os::settings::Cli as clap::Parser>::try_parse_from(arguments).unwrap().role {
            maintenance_os::settings::Role::Operator(settings) => *settings,
            other => panic!("parsed as {other:?}"),
        }
    }

    pub fn tenants(&self) -> Api<Tenant> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    pub async fn delete_lease(&self) {
        let leases: Api<Lease> = Api::namespaced(self.client.clone(), &self.namespace);
        leases.delete_collection(&DeleteParams::default(), &ListParams::default()).await.unwrap();
    }

    pub async fn wait_for_server(&self) {
        let servers: Api<DatabaseServer> = Api::all(self.client.clone());
        until("the server is ready and its pool warm", async || {
            let status = servers.get(SERVER).await.unwrap().status.unwrap_or_default();
            let ready =
                status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
            let spare = self
                .query("SELECT datname::text FROM pg_database WHERE datname ~ '^maintenance_os_(warm|cloning)'")
                .await;
            // One warm database more than asked for stays when a crash lost the answer to a clone that was on its way.
            let filled = (1..=2).contains(&spare.len()) && spare.iter().all(|name| name.contains("_warm_"));
            (ready && filled).then_some(()).ok_or_else(|| format!("{status:?}, spare: {spare:?}"))
        })
        .await;
    }

    pub async fn create(&self, adopt: Option<String>) {
        self.create_with("pro", adopt).await;
    }

    pub async fn create_with(&self, plan: &str, adopt: Option<String>) {
        let tenant = json!({ "apiVersion": "tenancy.maintenance-os.com/v1alpha1", "kind": "Tenant", "metadata": { "name": NAME },
            "spec": { "displayName": "Acme GmbH", "planRef": { "name": plan }, "uuid": adopt } });
        self.tenants().create(&PostParams::default(), &serde_json::from_value(tenant).unwrap()).await.unwrap();
    }

    /// A Tenant that is ready; its uuid.
    pub async fn create_undisturbed(&self) -> String {
        let operator = crate::operator::Operator::start(self, maintenance_os::apply::gate::Gate::default()).await;
        self.wait_for_server().await;
        self.create(None).await;
        self.wait_until_ready().await;
        operator.kill();
        self.tenants().get(NAME).await.unwrap().status.unwrap().uuid.unwrap()
    }

    pub async fn delete(&self, policy: DeletionPolicy) {
        let patch = json!({ "spec": { "deletionPolicy": policy } });
        self.tenants().patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        self.tenants().delete(NAME, &DeleteParams::default()).await.unwrap();
    }

    pub async fn wait_until_ready(&self) {
        until("the Tenant is ready", async || {
            let status = self.tenants().get(NAME).await.unwrap().status.unwrap_or_default();
            let ready =
                status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True");
            ready.then_some(()).ok_or_else(|| format!("{status:?}"))
        })
        .await;
    }

    pub async fn wait_until_gone(&self) {
        until("the Tenant is gone", async || {
            let found = self.tenants().get_opt(NAME).await.unwrap();
            found.map_or(Ok(()), |tenant| Err(format!("{:?} {:?}", tenant.metadata.finalizers, tenant.status)))
        })
        .await;
        // What the cluster's garbage collector does, which does not run here.
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        for secret in ["db", "welcome"] {
            let _ = secrets.delete(&format!("{NAME}-{secret}"), &DeleteParams::default()).await;
        }
    }

    pub async fn superuser(&self) -> PgConnection {
        variable("MOS_TEST_OPERATOR_POSTGRES_URL").parse::<PgConnectOptions>().unwrap().connect().await.unwrap()
    }

    pub async fn query(&self, text: &str) -> Vec<String> {
        let mut session = self.superuser().await;
        let rows =
            sqlx::query_scalar::<_, String>(AssertSqlSafe(text.to_owned())).fetch_all(&mut session).await.unwrap();
        session.close().await.unwrap();
        rows
    }

    pub async fn ledger(&self, text: &str) -> Vec<String> {
        let ca = std::fs::read(variable("MOS_TEST_OPERATOR_POSTGRES_CA")).unwrap();
        let options: PgConnectOptions = self.central.parse().unwrap();
        let mut session = options.ssl_mode(PgSslMode::VerifyFull).ssl_root_cert_from_pem(ca).connect().await.unwrap();
        let rows =
            sqlx::query_scalar::<_, String>(AssertSqlSafe(text.to_owned())).fetch_all(&mut session).await.unwrap();
        session.close().await.unwrap();
        rows
    }

    /// Everything that there is of tenants, without what differs from run to run.
    pub async fn digest(&self) -> Vec<String> {
        let uuid = self.ledger("SELECT id::text FROM tenants ORDER BY created_at DESC LIMIT 1").await.concat();
        let mut lines = self
            .query(
                "SELECT format('database %s limit %s open %s acl %s', datname, datconnlimit, datallowconn,
                   (SELECT string_agg(format('%s=%s', coalesce(r.rolname, 'PUBLIC'), a.privilege_type), ',' ORDER BY r.rolname, a.privilege_type) FROM aclexplode(datacl) a LEFT JOIN pg_roles r ON r.oid = a.grantee))
                   FROM pg_database WHERE datname ~ '^(tenant|quarantine)_'
                 UNION ALL SELECT format('role %s login %s in %s', rolname, rolcanlogin, (SELECT string_agg(g.rolname, ',' ORDER BY g.rolname) FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid WHERE m.member = r.oid))
                   FROM pg_roles r WHERE rolname LIKE 'tenant\\_%' ORDER BY 1",
            )
            .await;
        lines.extend(
            self.ledger("SELECT format('row %s %s %s %s', id, ledger_state, slug, server) FROM tenants ORDER BY 1")
                .await,
        );
        let secrets =
            Api::<Secret>::namespaced(self.client.clone(), &self.namespace).list(&ListParams::default()).await.unwrap();
        for secret in secrets {
            let name = secret.metadata.name.clone().unwrap();
            let data: BTreeMap<String, ByteString> = secret.data.clone().unwrap_or_default();
            let content = data.get(SLICE_KEY).and_then(|content| serde_json::from_slice::<Value>(&content.0).ok());
            for entry in content
                .iter()
                .flat_map(|content| [&content["tenants"], &content["entries"]])
                .filter_map(Value::as_array)
                .flatten()
            {
                lines.push(format!(
                    "entry {} {} {}",
                    if name.starts_with("routing") { "routing" } else { "pooler" },
                    entry["uuid"],
                    entry["hosts"]
                ));
            }
            if name.ends_with("-db") || name.ends_with("-welcome") {
                lines.push(format!("secret {name} {:?}", data.keys().collect::<Vec<_>>()));
            }
        }
        lines.sort();
        lines.into_iter().map(|line| line.replace(&uuid, "UUID")).collect()
    }

    /// The central database, as everything but the operator has it.
    pub async fn central(&self) -> maintenance_os::central::Central {
        let ca = variable("MOS_TEST_OPERATOR_POSTGRES_CA");
        maintenance_os::central::Central::connect(&self.central, Some(ca.as_ref())).await.unwrap()
    }

    /// Changes a subscription while the operator cannot listen.
    pub async fn change_subscription_unheard(&self, status: &str) {
        let central: PgConnectOptions = self.central.parse().unwrap();
        let ca = std::fs::read(variable("MOS_TEST_OPERATOR_POSTGRES_CA")).unwrap();
        let options = central.clone().ssl_mode(PgSslMode::VerifyFull).ssl_root_cert_from_pem(ca);
        let (mut session, mut ledger) = (self.superuser().await, options.connect().await.unwrap());
        let login = format!("ALTER ROLE \"{}\"", central.get_username());
        sqlx::query(AssertSqlSafe(format!("{login} NOLOGIN"))).execute(&mut session).await.unwrap();
        let listening = "SELECT pg_terminate_backend(pid)::text FROM pg_stat_activity WHERE application_name = 'maintenance-os-listens'";
        let ended = self.query(listening).await.len();
        let still = "SELECT pid::text FROM pg_stat_activity WHERE application_name = 'maintenance-os-listens'";
        until("the connection has gone", async || {
            self.query(still).await.is_empty().then_some(()).ok_or_else(|| "not yet".into())
        })
        .await;
        let change = "UPDATE subscriptions SET status = $1, status_since = now()";
        let changed = sqlx::query(change).bind(status).execute(&mut ledger).await.unwrap().rows_affected();
        sqlx::query(AssertSqlSafe(format!("{login} LOGIN"))).execute(&mut session).await.unwrap();
        session.close().await.unwrap();
        ledger.close().await.unwrap();
        assert_eq!((ended, changed), (1, 1), "somebody listened, and one row was changed");
    }

    /// The routing entry of the one tenant.
    pub async fn entry(&self) -> Option<maintenance_os::api::routing::RoutingEntry> {
        let slices = ListParams::default().labels("tenancy.maintenance-os.com/slice=routing");
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.namespace).list(&slices).await.unwrap();
        let slices = secrets
            .into_iter()
            .map(|secret| serde_json::from_slice::<RoutingSlice>(&secret.data.unwrap()[SLICE_KEY].0).unwrap());
        slices.flat_map(|slice| slice.tenants).next()
    }

    /// The hosts that the routing slices name, each with the slug of its tenant.
    pub async fn hosts(&self) -> BTreeMap<String, String> {
        let slices = ListParams::default().labels("tenancy.maintenance-os.com/slice=routing");
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.namespace).list(&slices).await.unwrap();
        let slices = secrets
            .into_iter()
            .map(|secret| serde_json::from_slice::<RoutingSlice>(&secret.data.unwrap()[SLICE_KEY].0).unwrap());
        let hosts = |entry: maintenance_os::api::routing::RoutingEntry| {
            entry.hosts.into_iter().map(|host| (host, entry.slug.clone())).collect::<Vec<_>>()
        };
        let all: Vec<_> = slices.flat_map(|slice| slice.tenants).flat_map(hosts).collect();
        let one_each: BTreeMap<_, _> = all.iter().cloned().collect();
        assert_eq!(one_each.len(), all.len(), "a host stands in two entries: {all:?}");
        one_each
    }

    /// The password in the routing slice opens the database on the server itself.
    pub async fn assert_login_works(&self) {
        self.assert_login_works_with(0).await;
    }

    /// As [`World::assert_login_works`], with so many assets in it.
    pub async fn assert_login_works_with(&self, assets: i64) {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.namespace)
            .list(&ListParams::default().labels("tenancy.maintenance-os.com/slice=routing"))
            .await
            .unwrap();
        let slices = secrets
            .into_iter()
            .map(|secret| serde_json::from_slice::<RoutingSlice>(&secret.data.unwrap()[SLICE_KEY].0).unwrap());
        let access = slices.flat_map(|slice| slice.tenants).next().expect("one tenant is routed").database;
        let server: PgConnectOptions = variable("MOS_TEST_OPERATOR_POSTGRES_URL").parse().unwrap();
        let options =
            PgConnectOptions::new().host(server.get_host()).port(server.get_port()).ssl_mode(PgSslMode::Require);
        let mut session = options
            .username(&access.username)
            .password(&access.password)
            .database(&access.name)
            .connect()
            .await
            .unwrap();
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM assets").fetch_one(&mut session).await.unwrap();
        assert_eq!(count, assets);
        session.close().await.unwrap();
    }

    /// Takes every trace of tenants away, as no operator would: the next case begins from nothing.
    pub async fn remove(&self) {
        let nothing = json!({ "metadata": { "finalizers": null } });
        for name in
            self.tenants().list_metadata(&ListParams::default()).await.unwrap().items.iter().map(ResourceExt::name_any)
        {
            self.tenants().patch(&name, &PatchParams::default(), &Patch::Merge(&nothing)).await.unwrap();
            let _ = self.tenants().delete(&name, &DeleteParams::default()).await;
        }
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let slices = ListParams::default().labels("tenancy.maintenance-os.com/slice in (routing, pooler)");
        secrets.delete_collection(&DeleteParams::default(), &slices).await.unwrap();
        for secret in ["db", "welcome"] {
            let _ = secrets.delete(&format!("{NAME}-{secret}"), &DeleteParams::default()).await;
        }
        let tables = "SELECT relname::text FROM pg_class WHERE relname = 'tenants' AND relkind = 'r'";
        if !self.ledger(tables).await.is_empty() {
            // The breaker would take one case after the other for a catastrophe.
            for table in ["releases", "tenants"] {
                self.ledger(&format!("WITH gone AS (DELETE FROM {table} RETURNING 1) SELECT count(*)::text FROM gone"))
                    .await;
            }
        }
        let mut session = self.superuser().await;
        for database in
            self.query("SELECT datname::text FROM pg_database WHERE datname ~ '^(tenant|quarantine)_'").await
        {
            sqlx::query(AssertSqlSafe(format!("DROP DATABASE \"{database}\" WITH (FORCE)")))
                .execute(&mut session)
                .await
                .unwrap();
        }
        for role in self
            .query("SELECT rolname::text FROM pg_roles WHERE rolname LIKE 'tenant\\_%' ORDER BY length(rolname) DESC")
            .await
        {
            sqlx::query(AssertSqlSafe(format!("DROP ROLE \"{role}\""))).execute(&mut session).await.unwrap();
        }
        session.close().await.unwrap();
    }

    /// Has the operator's own passwords and the pooler's certificate renewed.
    pub async fn ask_to_rotate(&self, round: usize) {
        self.annotate_server(Some(&round.to_string())).await;
    }

    async fn annotate_server(&self, request: Option<&str>) {
        let group = "tenancy.maintenance-os.com";
        let patch = json!({ "metadata": { "annotations": { format!("{group}/rotate"): request, format!("{group}/rotate-provisioner"): request } } });
        let servers: Api<DatabaseServer> = Api::all(self.client.clone());
        servers.patch(SERVER, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    pub async fn wait_until_rotated(&self, round: usize) {
        let servers: Api<DatabaseServer> = Api::all(self.client.clone());
        until("the object says that it was done", async || {
            let status = servers.get(SERVER).await.unwrap().status.unwrap_or_default();
            let rotated = status.rotated.clone().unwrap_or_default();
            let done = [rotated.credentials, rotated.provisioner].iter().all(|done| *done == Some(round.to_string()));
            done.then_some(()).ok_or_else(|| format!("{status:?}"))
        })
        .await;
    }

    /// Passwords of provisioner, migrator and backup as the Secrets say, and the pooler's certificate.
    pub async fn operators_passwords(&self) -> [String; 4] {
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let value = async |secret: String, key: &str| {
            let data = secrets.get(&secret).await.unwrap().data.unwrap();
            String::from_utf8(data[key].0.clone()).unwrap()
        };
        [
            value(SERVER.to_owned(), "password").await,
            value(format!("{SERVER}-roles"), "migrator").await,
            value(format!("{SERVER}-roles"), "backup").await,
            value(format!("pooler-{SERVER}-tls"), "tls.crt").await,
        ]
    }

    /// Each is another than before, the new ones let in and the old ones do not. Returns the new ones.
    pub async fn assert_all_are_new(&self, before: &[String; 4]) -> [String; 4] {
        let now = self.operators_passwords().await;
        for (old, new) in before.iter().zip(&now) {
            assert_ne!(old, new);
        }
        let server: PgConnectOptions = variable("MOS_TEST_OPERATOR_PROVISIONER_URL").parse().unwrap();
        let roles = [server.get_username(), "maintenance_os_migrator", "maintenance_os_backup"];
        for ((role, old), new) in roles.iter().zip(before).zip(&now) {
            let with = |password: &str| server.clone().username(role).password(password).database("postgres");
            // Not every role may enter this database, but it is told so only with the right password.
            let refused = async |password: &str| match with(password).connect().await {
                Ok(session) => session.close().await.map(|()| None).unwrap(),
                Err(error) => {
                    error.as_database_error().and_then(|error| error.code().map(std::borrow::Cow::into_owned))
                }
            };
            assert_ne!(refused(new).await.as_deref(), Some("28P01"), "{role} is let in with its new password");
            assert_eq!(refused(old).await.as_deref(), Some("28P01"), "{role} is not let in with its old password");
        }
        now
    }

    /// As the other tests expect it; also after a run that failed.
    pub async fn give_the_provisioner_its_password_back(&self) {
        let options: PgConnectOptions = variable("MOS_TEST_OPERATOR_PROVISIONER_URL").parse().unwrap();
        let (role, password) = (options.get_username().to_owned(), provisioners_password());
        let mut session = self.superuser().await;
        let alter = format!("ALTER ROLE \"{role}\" PASSWORD '{password}'");
        sqlx::query(AssertSqlSafe(alter)).execute(&mut session).await.unwrap();
        session.close().await.unwrap();
    }
}
