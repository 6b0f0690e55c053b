//! The database servers that the operator knows, each with its connections and its catalogue as last seen.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection as _, Executor, PgConnection};
use tokio::sync::RwLock;
use uuid::Uuid;

use crate::api::DatabaseServer;
use crate::api::server::{DatabaseServerSpec, SslMode};
use crate::apply::gate::Gate;
use crate::apply::{self, ApplyError};
use crate::desired::catalogue::Catalogue;
use crate::desired::facts::{PoolerAddress, Seen, ServerFacts};
use crate::desired::sql::Batch;
use crate::desired::{self, names};
use crate::error::chain;
use crate::observe::inventory::{self, Inventory};
use crate::observe::ledger::Ledger;

/// Connections to one server at a time; clones and claims wait for one another beyond that.
const POOL_SIZE: u32 = 8;

/// Every server by name.
#[derive(Default)]
pub struct Servers {
    servers: Mutex<BTreeMap<String, Arc<Server>>>,
    /// Objects whose server was never reached, and why.
    unreached: Mutex<BTreeMap<String, (DatabaseServerSpec, String)>>,
}

impl Servers {
    /// The server of that name.
    pub fn get(&self, name: &str) -> Option<Arc<Server>> {
        self.lock().get(name).cloned()
    }

    /// Every server.
    pub fn all(&self) -> Vec<Arc<Server>> {
        self.lock().values().cloned().collect()
    }

    /// Every server as far as tenants are concerned, also those that were never reached.
    pub fn facts(&self, ledger: &Ledger) -> Vec<ServerFacts> {
        let unreached = self.unreached.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut facts: Vec<_> = self.all().iter().map(|server| server.facts(ledger.tenants_on(&server.name))).collect();
        let known: HashSet<_> = facts.iter().map(|server| server.name.clone()).collect();
        facts.extend(unreached.into_iter().filter(|(name, _)| !known.contains(name)).map(|(name, (spec, why))| {
            ServerFacts {
                tenants: ledger.tenants_on(&name),
                name,
                spec,
                open: Err(why),
                schema: None,
                pooler: PoolerAddress::default(),
            }
        }));
        facts
    }

    /// Notes an object whose server cannot be reached.
    pub fn note_unreached(&self, name: &str, spec: &DatabaseServerSpec, why: &str) {
        self.unreached
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(name.to_owned(), (spec.clone(), why.to_owned()));
    }

    /// Why a server that has no connection cannot be reached; None: there is no such object.
    pub fn unreached(&self, name: &str) -> Option<String> {
        self.unreached.lock().unwrap_or_else(PoisonError::into_inner).get(name).map(|(_, why)| why.clone())
    }

    /// The server of an object; a new one when it is not known or its connection has changed.
    ///
    /// A new one is fenced first: whoever led before this process can do nothing on it any more.
    ///
    /// # Errors
    /// The server did not answer.
    pub async fn put(
        &self,
        object: &DatabaseServer,
        name: &str,
        connection: Connection,
        epoch: u64,
        gate: &Gate,
    ) -> Result<Arc<Server>, sqlx::Error> {
        if let Some(known) = self.get(name).filter(|known| known.connection == connection) {
            known.lock().spec = object.spec.clone();
            return Ok(known);
        }
        let epoch = fence(&connection, epoch).await?;
        let server = Arc::new(Server::new(name, object.spec.clone(), connection, epoch, gate.clone()));
        self.lock().insert(name.to_owned(), Arc::clone(&server));
        Ok(server)
    }

    /// Forgets the servers whose objects are gone.
    pub fn keep_only(&self, names: &HashSet<String>) {
        self.lock().retain(|name, _| names.contains(name));
        self.unreached.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| names.contains(name));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Server>>> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes a server over for this term of leadership. The term that is written is higher than any before it, also when the
/// Lease was deleted and counts anew.
async fn fence(connection: &Connection, epoch: u64) -> Result<i64, sqlx::Error> {
    let work = async {
        let mut session = connection.options("postgres", &connection.username, &connection.password).connect().await?;
        for text in desired::server::fence() {
            session.execute(sqlx::raw_sql(AssertSqlSafe(text))).await?;
        }
        let before = stored_epoch(&mut session).await?;
        let catalogue = inventory::all(&mut session).await?.catalogue;
        let epoch = i64::try_from(epoch).unwrap_or(i64::MAX - 1).max(before + 1);
        session.execute(sqlx::raw_sql(AssertSqlSafe(desired::server::set_fence(epoch, &catalogue).text()))).await?;
        session.close().await?;
        Ok(epoch)
    };
    tokio::time::timeout(Duration::from_secs(15), work).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}

async fn stored_epoch(session: &mut PgConnection) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(AssertSqlSafe(desired::server::fence_epoch())).fetch_one(session).await
}

/// What every connection does first: it waits while another leader takes over, and is refused when one has.
async fn join_fence(session: &mut PgConnection, epoch: i64) -> Result<(), sqlx::Error> {
    session.execute(sqlx::raw_sql(AssertSqlSafe(desired::server::join_fence()))).await?;
    let now = stored_epoch(session).await?;
    if now == epoch {
        Ok(())
    } else {
        Err(sqlx::Error::Protocol(format!("another operator has taken the server over (term {now}, ours is {epoch})")))
    }
}

/// How a server is reached, from its connection Secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    /// Host, as its certificate names it.
    pub host: String,
    /// Port.
    pub port: u16,
    /// The provisioner.
    pub username: String,
    /// Its password.
    pub password: String,
    /// PEM of the certificate authority.
    pub ca: String,
    /// How it is encrypted.
    pub ssl_mode: SslMode,
}

impl Connection {
    /// Options of a connection to one of the server's databases as one of its roles. The search path is pinned, so that
    /// nothing in a database can stand in for PostgreSQL's own functions (rule R5).
    pub fn options(&self, database: &str, username: &str, password: &str) -> PgConnectOptions {
        let mode = match self.ssl_mode {
            SslMode::VerifyFull => PgSslMode::VerifyFull,
            SslMode::VerifyCa => PgSslMode::VerifyCa,
            SslMode::Require => PgSslMode::Require,
            SslMode::Prefer => PgSslMode::Prefer,
        };
        let options = PgConnectOptions::new_without_pgpass()
            .host(&self.host)
            .port(self.port)
            .username(username)
            .password(password)
            .database(database)
            .ssl_mode(mode)
            .application_name("maintenance-os")
            .options([("search_path", "pg_catalog,pg_temp"), ("lock_timeout", "10s")]);
        if self.ca.is_empty() { options } else { options.ssl_root_cert_from_pem(self.ca.clone().into_bytes()) }
    }
}

/// One server.
pub struct Server {
    /// Its name.
    pub name: String,
    /// How it is reached.
    pub connection: Connection,
    /// The term in which this process holds the server, see [`fence`].
    pub term: i64,
    /// The provisioner in `postgres`.
    pub pool: PgPool,
    /// What every write passes.
    writes: Gate,
    /// Held shared while statements run and exclusively while the inventory is read, so that an inventory can never miss
    /// what a statement did just before.
    gate: RwLock<()>,
    state: Mutex<State>,
}

struct State {
    spec: DatabaseServerSpec,
    seen: Option<Inventory>,
    /// Why the server does not answer, or not as it should.
    problem: Option<String>,
    /// Why no tenants are placed although it answers.
    closed: Option<String>,
    /// Schema of the template that is there.
    schema: Option<String>,
    pooler: PoolerAddress,
    /// Warm databases that are being claimed, and for whom.
    reserved: HashMap<Uuid, String>,
    /// Tenants whose part of the catalogue is in doubt because a statement failed.
    doubtful: HashSet<Uuid>,
}

impl Server {
    fn new(name: &str, spec: DatabaseServerSpec, connection: Connection, epoch: i64, gate: Gate) -> Self {
        let options = connection.options("postgres", &connection.username, &connection.password);
        let pool = PgPoolOptions::new()
            .max_connections(POOL_SIZE)
            .acquire_timeout(Duration::from_secs(5))
            .idle_timeout(Duration::from_secs(300))
            .after_connect(move |session, _| Box::pin(async move { join_fence(session, epoch).await }))
            .connect_lazy_with(options);
        let state = State {
            spec,
            seen: None,
            problem: Some("it was not asked yet".into()),
            closed: None,
            schema: None,
            pooler: PoolerAddress::default(),
            reserved: HashMap::new(),
            doubtful: HashSet::new(),
        };
        Self {
            name: name.to_owned(),
            connection,
            term: epoch,
            pool,
            writes: gate,
            gate: RwLock::new(()),
            state: Mutex::new(state),
        }
    }

    /// Its spec.
    pub fn spec(&self) -> DatabaseServerSpec {
        self.lock().spec.clone()
    }

    /// As far as tenants are concerned. `tenants`: how many the ledger places on it.
    pub fn facts(&self, tenants: usize) -> ServerFacts {
        let state = self.lock();
        let open = match (&state.problem, &state.closed, &state.schema) {
            (Some(problem), _, _) => Err(problem.clone()),
            (None, Some(closed), _) => Err(closed.clone()),
            (None, None, None) => Err("its template is being built".into()),
            (None, None, Some(_)) => Ok(()),
        };
        ServerFacts {
            name: self.name.clone(),
            spec: state.spec.clone(),
            tenants,
            open,
            schema: state.schema.clone(),
            pooler: state.pooler.clone(),
        }
    }

    /// Reads the whole inventory.
    ///
    /// # Errors
    /// The server did not answer; what was seen before is not shown any more.
    pub async fn take_inventory(&self) -> Result<Inventory, sqlx::Error> {
        let _alone = self.gate.write().await;
        let work = async {
            let mut connection = self.pool.acquire().await?;
            inventory::all(&mut connection).await
        };
        let seen = tokio::time::timeout(Duration::from_secs(30), work).await.unwrap_or(Err(sqlx::Error::PoolTimedOut));
        let mut state = self.lock();
        match seen {
            Ok(seen) => {
                state.problem = seen.read_only.then(|| "it refuses writes (read-only or a standby)".into());
                state.seen = Some(seen.clone());
                state.doubtful.clear();
                Ok(seen)
            }
            Err(error) => {
                state.problem = Some(chain(&error));
                Err(error)
            }
        }
    }

    /// Notes why the server cannot be used.
    pub fn set_problem(&self, problem: String) {
        self.lock().problem = Some(problem);
    }

    /// Notes why no tenants are placed on it, or that they are.
    pub fn set_closed(&self, closed: Option<String>) {
        self.lock().closed = closed;
    }

    /// Notes which template is there.
    pub fn set_schema(&self, schema: Option<String>) {
        self.lock().schema = schema;
    }

    /// Notes how the app reaches the pooler.
    pub fn set_pooler(&self, pooler: PoolerAddress) {
        self.lock().pooler = pooler;
    }

    /// The catalogue as last seen.
    pub fn catalogue(&self) -> Option<Catalogue> {
        self.lock().seen.as_ref().map(|seen| seen.catalogue.clone())
    }

    /// PostgreSQL's version and the server's own identity, once seen.
    pub fn identity(&self) -> Option<(String, String)> {
        self.lock().seen.as_ref().map(|seen| (seen.version.clone(), seen.system_identifier.clone()))
    }

    /// Warm databases of the current schema that nobody is claiming.
    pub fn warm(&self) -> usize {
        let state = self.lock();
        let Some(schema) = &state.schema else { return 0 };
        let databases = state.seen.iter().flat_map(|seen| seen.catalogue.databases.keys());
        databases
            .filter(|name| {
                names::is_warm_of(name, schema) && !state.reserved.values().any(|reserved| reserved == *name)
            })
            .count()
    }

    /// The tenant's part of the catalogue; with `reserve`, a warm database that is kept for it and shown in it too.
    pub async fn view(&self, uuid: Uuid, reserve: bool) -> (Seen<Catalogue>, Option<String>) {
        if let Err(error) = self.clear_doubt(uuid).await {
            return (Seen::Unreachable(chain(&error)), None);
        }
        let mut state = self.lock();
        if let Some(problem) = &state.problem {
            return (Seen::Unreachable(problem.clone()), None);
        }
        let Some(seen) = &state.seen else { return (Seen::Unreachable("it was not asked yet".into()), None) };
        let mut catalogue = seen.catalogue.of_tenant(uuid);
        if !reserve || catalogue.databases.contains_key(&names::database(uuid)) {
            state.reserved.remove(&uuid);
            return (Seen::Known(catalogue), None);
        }
        let warm = state.reserve(uuid);
        if let Some((name, seen)) = warm.as_ref().and_then(|name| Some((name, state.seen.as_ref()?)))
            && let Some(database) = seen.catalogue.databases.get(name)
        {
            catalogue.databases.insert(name.clone(), database.clone());
        }
        (Seen::Known(catalogue), warm)
    }

    /// Asks the server for the tenant's part of the catalogue when a statement of it failed before.
    async fn clear_doubt(&self, uuid: Uuid) -> Result<(), sqlx::Error> {
        if !self.lock().doubtful.contains(&uuid) {
            return Ok(());
        }
        let _alone = self.gate.write().await;
        let mut connection = self.pool.acquire().await?;
        let part = inventory::of_tenant(&mut connection, uuid).await?;
        let mut state = self.lock();
        if let Some(seen) = &mut state.seen {
            let old = seen.catalogue.of_tenant(uuid);
            seen.catalogue.databases.retain(|name, _| !old.databases.contains_key(name));
            seen.catalogue.roles.retain(|name, _| !old.roles.contains_key(name));
            seen.catalogue.databases.extend(part.databases);
            seen.catalogue.roles.extend(part.roles);
        }
        // A warm database that was reserved may have been renamed: it is not offered again before the next inventory.
        if let Some(name) = state.reserved.remove(&uuid)
            && let Some(seen) = &mut state.seen
        {
            seen.catalogue.databases.remove(&name);
        }
        state.doubtful.remove(&uuid);
        Ok(())
    }

    /// Runs a batch and does to the catalogue in memory what it did on the server. `tenant`: whose part is in doubt when
    /// it fails.
    ///
    /// # Errors
    /// The server refused it or did not answer.
    pub async fn run(&self, batch: &Batch, tenant: Option<Uuid>) -> Result<(), ApplyError> {
        let _shared = self.gate.read().await;
        let result = self.writes.pass(&batch.summary(), apply::sql::run(&self.pool, &self.name, batch)).await;
        let mut state = self.lock();
        match &result {
            Ok(()) => {
                if let Some(seen) = &mut state.seen {
                    batch.statements().iter().for_each(|statement| seen.catalogue.execute(statement));
                }
                if let Some(uuid) = tenant {
                    state.reserved.remove(&uuid);
                }
            }
            Err(_) => state.doubtful.extend(tenant),
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn reserve(&mut self, uuid: Uuid) -> Option<String> {
        let schema = self.schema.as_ref()?;
        let databases = &self.seen.as_ref()?.catalogue.databases;
        if let Some(name) = self.reserved.get(&uuid).filter(|name| databases.contains_key(*name)) {
            return Some(name.clone());
        }
        let taken: HashSet<_> = self.reserved.values().collect();
        let free = databases.keys().find(|name| names::is_warm_of(name, schema) && !taken.contains(name))?.clone();
        self.reserved.insert(uuid, free.clone());
        Some(free)
    }
}
