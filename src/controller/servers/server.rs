//! One server: its connections, what was last seen of it, and statements on it.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgPool, PgPoolOptions};
use tokio::sync::{RwLock, Semaphore, SemaphorePermit};
use uuid::Uuid;

use super::{Connection, fence};
use crate::api::server::{DatabaseServerSpec, RotatedStatus};
use crate::apply::gate::Gate;
use crate::apply::{self, ApplyError};
use crate::desired::catalogue::Catalogue;
use crate::desired::facts::{PoolerAddress, Seen, ServerFacts};
use crate::desired::sql::Batch;
use crate::desired::{names, server};
use crate::error::chain;
use crate::observe::inventory::{self, Inventory};

/// Connections to one server at a time; clones and claims wait for one another beyond that.
const POOL_SIZE: u32 = 8;
/// Clones in flight on one server, whoever asked for them: more share its two or so processors and its disk without being
/// done sooner, and would leave no connection for claims.
const CLONES_AT_A_TIME: usize = 2;

/// One server.
pub struct Server {
    /// Its name.
    pub name: String,
    /// The term in which this process holds the server, see [`fence::take_over`].
    pub term: i64,
    /// The provisioner in `postgres`.
    pub pool: PgPool,
    /// What every write passes.
    writes: Gate,
    /// Held shared while statements run and exclusively while the inventory is read, so that an inventory can never miss
    /// what a statement did just before.
    gate: RwLock<()>,
    clones: Semaphore,
    state: Mutex<State>,
}

struct State {
    connection: Connection,
    /// What of the object's requests to renew credentials was carried out.
    rotated: Option<RotatedStatus>,
    spec: DatabaseServerSpec,
    seen: Option<Inventory>,
    /// [`Catalogue::outsiders`] of it.
    outsiders: BTreeSet<String>,
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
    /// Tenants whose part of the catalogue the last inventory found other than it was thought to be.
    drifted: BTreeSet<Uuid>,
    /// When a warm database was claimed last.
    claimed: Option<Instant>,
}

/// What an inventory says of the server as a whole.
pub struct Identity {
    /// PostgreSQL's version, as `17.11`.
    pub version: String,
    /// The cluster's own identity.
    pub system_identifier: String,
    /// It refuses writes.
    pub read_only: bool,
}

impl Server {
    /// A server that was not asked yet; connections are made when they are needed, in the term `epoch`.
    pub fn new(name: &str, spec: DatabaseServerSpec, connection: Connection, epoch: i64, gate: Gate) -> Self {
        let options = connection.options("postgres", &connection.username, &connection.password);
        let pool = PgPoolOptions::new()
            .max_connections(POOL_SIZE)
            .acquire_timeout(Duration::from_secs(5))
            .idle_timeout(Duration::from_secs(300))
            .after_connect(move |session, _| Box::pin(async move { fence::join(session, epoch).await }))
            .connect_lazy_with(options);
        let state = State {
            connection,
            rotated: None,
            spec,
            seen: None,
            outsiders: BTreeSet::new(),
            problem: Some("it was not asked yet".into()),
            closed: None,
            schema: None,
            pooler: PoolerAddress::default(),
            reserved: HashMap::new(),
            doubtful: HashSet::new(),
            drifted: BTreeSet::new(),
            claimed: None,
        };
        Self {
            name: name.to_owned(),
            term: epoch,
            pool,
            writes: gate,
            gate: RwLock::new(()),
            clones: Semaphore::new(CLONES_AT_A_TIME),
            state: Mutex::new(state),
        }
    }

    /// How it is reached.
    pub fn connection(&self) -> Connection {
        self.lock().connection.clone()
    }

    /// The provisioner has another password from now on. Sessions that are open stay.
    pub fn set_password(&self, password: &str) {
        let mut state = self.lock();
        password.clone_into(&mut state.connection.password);
        let connection = &state.connection;
        self.pool.set_connect_options(connection.options("postgres", &connection.username, &connection.password));
    }

    /// What of the object's requests to renew credentials was carried out.
    pub fn rotated(&self) -> Option<RotatedStatus> {
        self.lock().rotated.clone()
    }

    /// Notes what of the object's requests to renew credentials was carried out.
    pub fn set_rotated(&self, rotated: Option<RotatedStatus>) {
        self.lock().rotated = rotated;
    }

    /// Notes that the object says something else now.
    pub fn set_spec(&self, spec: DatabaseServerSpec) {
        self.lock().spec = spec;
    }

    /// As far as tenants are concerned. `tenants`: how many the ledger places on it.
    /// `promised`: connections that the plans of those promise them.
    pub fn facts(&self, tenants: usize, promised: i64) -> ServerFacts {
        let state = self.lock();
        let budget = state.seen.as_ref().map(|seen| server::budget(&state.spec.capacity, seen.connections));
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
            promised,
            budget,
            open,
            schema: state.schema.clone(),
            pooler: state.pooler.clone(),
        }
    }

    /// Whether it can be used by those who are on it: it answers, and is as it should be.
    pub fn is_open(&self) -> bool {
        let state = self.lock();
        state.problem.is_none() && state.closed.is_none() && state.schema.is_some()
    }

    /// Reads the whole inventory.
    ///
    /// # Errors
    /// The server did not answer; what was seen before is not shown any more.
    pub async fn take_inventory(&self) -> Result<Identity, sqlx::Error> {
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
                state.doubtful.clear();
                let identity = identity(&seen);
                state.outsiders = seen.catalogue.outsiders();
                if let Some(before) = state.seen.replace(seen) {
                    let now = state.seen.as_ref().map(|seen| seen.catalogue.differing(&before.catalogue));
                    state.drifted.extend(now.into_iter().flatten());
                }
                Ok(identity)
            }
            Err(error) => {
                state.problem = Some(chain(&error));
                Err(error)
            }
        }
    }

    /// Tenants for whom inventories found another catalogue than was thought, since this was asked last.
    pub fn take_drifted(&self) -> BTreeSet<Uuid> {
        std::mem::take(&mut self.lock().drifted)
    }

    /// Notes why the server cannot be used.
    pub fn set_problem(&self, problem: String) {
        self.lock().problem = Some(problem);
    }

    /// Whether it can be used, as far as is known.
    pub fn is_usable(&self) -> bool {
        self.lock().problem.is_none()
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

    /// Asks the catalogue as last seen, in place: it holds every tenant of the server. None: the server was not asked yet.
    pub fn look<T>(&self, ask: impl FnOnce(&Catalogue) -> T) -> Option<T> {
        self.lock().seen.as_ref().map(|seen| ask(&seen.catalogue))
    }

    /// What was last seen of the server as a whole.
    pub fn identity(&self) -> Option<Identity> {
        self.lock().seen.as_ref().map(identity)
    }

    /// A turn to clone a database.
    pub async fn turn_to_clone(&self) -> SemaphorePermit<'_> {
        self.clones.acquire().await.expect("the semaphore is never closed")
    }

    /// Whether a warm database was claimed within this time.
    pub fn was_claimed_within(&self, time: Duration) -> bool {
        self.lock().claimed.is_some_and(|at| at.elapsed() < time)
    }

    /// Warm databases of the current schema that nobody is claiming.
    pub fn warm(&self) -> usize {
        let state = self.lock();
        let Some(schema) = &state.schema else { return 0 };
        let reserved: HashSet<_> = state.reserved.values().map(String::as_str).collect();
        let warm = state.seen.iter().flat_map(|seen| seen.catalogue.warm(schema));
        warm.filter(|&name| !reserved.contains(name)).count()
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
        let mut catalogue = seen.catalogue.part(uuid, &state.outsiders);
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

    /// Sessions in a database, whoever has them.
    ///
    /// # Errors
    /// The server did not answer.
    pub async fn sessions(&self, database: &str) -> Result<i64, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        inventory::sessions(&mut connection, database).await
    }

    /// What a restore has to do with on this server, asked now.
    ///
    /// # Errors
    /// The server did not answer.
    pub async fn of_restore(&self, restore: Uuid, tenant: Uuid) -> Result<Catalogue, sqlx::Error> {
        let mut connection = self.pool.acquire().await?;
        inventory::of_restore(&mut connection, restore, tenant).await
    }

    /// What is known of a tenant's part of the catalogue is asked again before it is relied on.
    pub fn doubt(&self, uuid: Uuid) {
        self.lock().doubtful.insert(uuid);
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
            state.outsiders = seen.catalogue.outsiders();
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
                if tenant.and_then(|uuid| state.reserved.remove(&uuid)).is_some() {
                    state.claimed = Some(Instant::now());
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

fn identity(seen: &Inventory) -> Identity {
    Identity {
        version: seen.version.clone(),
        system_identifier: seen.system_identifier.clone(),
        read_only: seen.read_only,
    }
}

impl State {
    fn reserve(&mut self, uuid: Uuid) -> Option<String> {
        let schema = self.schema.as_ref()?;
        let catalogue = &self.seen.as_ref()?.catalogue;
        if let Some(name) = self.reserved.get(&uuid).filter(|name| catalogue.databases.contains_key(*name)) {
            return Some(name.clone());
        }
        let taken: HashSet<_> = self.reserved.values().map(String::as_str).collect();
        let free = catalogue.warm(schema).find(|&name| !taken.contains(name))?.to_owned();
        self.reserved.insert(uuid, free.clone());
        Some(free)
    }
}
