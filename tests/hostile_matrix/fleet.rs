//! Two tenants with data, made by the statements that the operator runs.

use std::collections::BTreeMap;
use std::time::Duration;

use maintenance_os::app;
use maintenance_os::desired::catalogue::Catalogue;
use maintenance_os::desired::database::{self, Standing, Wanted};
use maintenance_os::desired::names::{self, Slot};
use maintenance_os::desired::scram;
use maintenance_os::desired::server::{self, Migration};
use maintenance_os::desired::sql::Batch;
use maintenance_os::observe::inventory;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, PgConnection};
use uuid::Uuid;

use super::instance::Instance;

pub const MIGRATOR_PASSWORD: &str = "of the migrator";

/// One tenant.
pub struct Tenant {
    pub wanted: Wanted,
    pub password: String,
    /// A row of its data that nobody else may see.
    pub secret: String,
}

impl Tenant {
    fn new(name: &str, seed: u8) -> Self {
        let password = scram::password([seed; 32]);
        let wanted = Wanted {
            uuid: Uuid::new_v4(),
            object_uid: Uuid::new_v4(),
            epoch: 1,
            connection_limit: 20 + i32::from(seed),
            statement_timeout: Duration::from_secs(30),
            login: true,
            read_only: false,
            slot: Slot::A,
            verifier: scram::verifier(&password),
            kept: None,
        };
        Self { wanted, password, secret: format!("known to {name} only") }
    }

    pub fn uuid(&self) -> Uuid {
        self.wanted.uuid
    }

    /// Its database and its group.
    pub fn name(&self) -> String {
        names::database(self.uuid())
    }

    pub fn login(&self) -> String {
        self.wanted.login_name()
    }
}

/// The server and who is on it.
pub struct Fleet {
    pub instance: Instance,
    /// The operator's role, where the operator has it: in `postgres`.
    pub provisioner: PgConnection,
    pub superuser: PgConnection,
    /// A superuser in each database that is looked at.
    pub watchers: BTreeMap<String, PgConnection>,
    pub tenants: [Tenant; 2],
}

pub async fn execute(connection: &mut PgConnection, text: &str) {
    let done = connection.execute(sqlx::raw_sql(AssertSqlSafe(text))).await;
    done.unwrap_or_else(|error| panic!("{error}, in: {text}"));
}

impl Fleet {
    pub async fn start() -> Self {
        let instance = Instance::start();
        let mut superuser = instance.superuser("postgres").await;
        execute(&mut superuser, "ALTER SYSTEM SET log_connections = on").await;
        execute(&mut superuser, "SELECT pg_reload_conf()").await;
        let provisioner = Self::as_provisioner(&instance, "postgres").await;
        let tenants = [Tenant::new("acme", 1), Tenant::new("globex", 2)];
        let mut fleet = Self { instance, provisioner, superuser, watchers: BTreeMap::new(), tenants };
        let schema = fleet.template().await;
        for index in 0..2 {
            fleet.claim(index, &schema).await;
        }
        fleet
    }

    /// As the operator connects: with a search path that nobody else can fill.
    async fn as_provisioner(instance: &Instance, database: &str) -> PgConnection {
        let options = instance.options(names::PROVISIONER, &instance.password("provisioner"), database);
        options.options([("search_path", "pg_catalog,pg_temp")]).connect().await.unwrap()
    }

    async fn template(&mut self) -> String {
        let (migrator, backup) = (scram::verifier(MIGRATOR_PASSWORD), scram::verifier("of the backup"));
        let roles = server::roles(&self.catalogue().await, &migrator, &backup).expect("a new server has no roles");
        self.run(&roles).await;
        for batch in server::begin_template(&self.catalogue().await) {
            self.run(&batch).await;
        }
        let mut provisioner = Self::as_provisioner(&self.instance, names::TEMPLATE_BUILD).await;
        execute(&mut provisioner, &server::prepare_template()).await;
        provisioner.close().await.unwrap();
        let options = self.instance.options(names::MIGRATOR, MIGRATOR_PASSWORD, names::TEMPLATE_BUILD);
        let mut migrator = options.options([("search_path", "public,pg_temp")]).connect().await.unwrap();
        execute(&mut migrator, &server::grant_defaults()).await;
        let migrations: Vec<_> = app::migrations()
            .iter()
            .map(|migration| Migration { version: migration.version, name: migration.name, sql: migration.sql })
            .collect();
        for migration in &migrations {
            for step in maintenance_os::desired::migration::steps(migration) {
                execute(&mut migrator, &step.text).await;
            }
        }
        migrator.close().await.unwrap();
        let schema = server::schema(&migrations);
        self.run(&server::finish_template(&schema)).await;
        schema
    }

    async fn claim(&mut self, index: usize, schema: &str) {
        let id = index.to_string();
        for batch in server::clone_template(schema, 1, &id) {
            self.run(&batch).await;
        }
        let catalogue = self.catalogue().await;
        let warm = catalogue.databases.keys().find(|name| names::is_warm_of(name, schema)).unwrap();
        let batch = database::claim(&self.tenants[index].wanted, &catalogue, warm, schema);
        self.run(&batch).await;
        let tenant = &self.tenants[index];
        let mut session = self.session(tenant).await;
        execute(&mut session, &format!("INSERT INTO assets (name) VALUES ('{}')", tenant.secret)).await;
        session.close().await.unwrap();
    }

    pub fn pair(&self, attacker: usize) -> (&Tenant, &Tenant) {
        (&self.tenants[attacker], &self.tenants[1 - attacker])
    }

    /// A tenant in its own database, directly.
    pub async fn session(&self, tenant: &Tenant) -> PgConnection {
        self.instance.options(&tenant.login(), &tenant.password, &tenant.name()).connect().await.unwrap()
    }

    pub async fn damage(&mut self, text: &str) {
        execute(&mut self.superuser, text).await;
    }

    /// Runs a batch as the operator does: as the provisioner, in `postgres`, in one message.
    pub async fn run(&mut self, batch: &Batch) {
        execute(&mut self.provisioner, &batch.text()).await;
    }

    /// What the operator sees.
    pub async fn catalogue(&mut self) -> Catalogue {
        inventory::all(&mut self.provisioner).await.unwrap().catalogue
    }

    pub async fn standing(&mut self, index: usize) -> Standing {
        let uuid = self.tenants[index].uuid();
        let part = inventory::of_tenant(&mut self.provisioner, uuid).await.unwrap();
        let whole = self.catalogue().await.of_tenant(uuid);
        assert_eq!(part, whole, "the tenant's part of the inventory and the tenant's inventory differ");
        database::standing(&self.tenants[index].wanted, &part)
    }

    /// What the operator does with one resync after the other until nothing is left to do.
    pub async fn repair(&mut self, what: &str) {
        for round in 0.. {
            let mut planned = Vec::new();
            for index in 0..2 {
                match self.standing(index).await {
                    Standing::InPlace => {}
                    Standing::Differs(batch) => {
                        planned.push(batch.summary());
                        self.run(&batch).await;
                    }
                    other => panic!("{what}: {other:?}"),
                }
            }
            if planned.is_empty() {
                return;
            }
            assert!(round < 3, "{what}: it goes on for ever: {planned:?}");
        }
    }
}
