//! The database servers that the operator knows, each with its connections and its catalogue as last seen.
//!
//! | file | what |
//! |---|---|
//! | `connection` | how a server is reached |
//! | `fence` | one leader at a time on each server |
//! | `server` | one server: what was seen of it, and statements on it |

mod connection;
mod fence;
mod server;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use kube::runtime::reflector::{ObjectRef, Store};

pub use connection::Connection;
pub use fence::TakeError;
pub use server::Server;

use crate::api::server::DatabaseServerSpec;
use crate::api::{DatabaseServer, Plan};
use crate::apply::gate::Gate;
use crate::desired::facts::{PoolerAddress, ServerFacts};
use crate::observe::ledger::Ledger;

/// Every server by name.
#[derive(Default)]
pub struct Servers {
    by_name: Mutex<BTreeMap<String, Arc<Server>>>,
    /// Objects whose server was never reached, and why.
    unreached: Mutex<BTreeMap<String, (DatabaseServerSpec, String)>>,
    /// What the Tenants were last woken for, see [`Servers::has_news`].
    told: Mutex<BTreeMap<String, ServerFacts>>,
    /// System identifier of a PostgreSQL to the object that stands for it.
    held: Mutex<HashMap<String, String>>,
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
    pub fn facts(&self, ledger: &Ledger, plans: &Store<Plan>) -> Vec<ServerFacts> {
        let on = |server: &str| (ledger.tenants_on(server), promised(server, ledger, plans));
        let known = |server: &Arc<Server>| {
            let (tenants, promised) = on(&server.name);
            server.facts(tenants, promised)
        };
        let mut facts = self.lock().values().map(known).collect::<Vec<_>>();
        let unreached = self.unreached.lock().unwrap_or_else(PoisonError::into_inner);
        for (name, (spec, why)) in unreached.iter() {
            if !facts.iter().any(|known| known.name == *name) {
                facts.push(unknown(name, spec, why, ledger.tenants_on(name)));
            }
        }
        facts
    }

    /// Whether a server is another for tenants than when this was asked last: only then they have to look again. How many
    /// there are on it does not count, else each would wake all.
    pub fn has_news(&self, name: &str) -> bool {
        let now = self.get(name).map(|server| server.facts(0, 0)).or_else(|| {
            let unreached = self.unreached.lock().unwrap_or_else(PoisonError::into_inner);
            unreached.get(name).map(|(spec, why)| unknown(name, spec, why, 0))
        });
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match &now {
            Some(now) => told.insert(name.to_owned(), now.clone()),
            None => told.remove(name),
        };
        before != now
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

    /// The server of an object, when it is known under this connection.
    pub fn known(&self, name: &str, connection: &Connection, spec: &DatabaseServerSpec) -> Option<Arc<Server>> {
        let known = self.get(name).filter(|known| known.connection() == *connection)?;
        known.set_spec(spec.clone());
        Some(known)
    }

    /// Takes the server of an object over: from here on, whoever led before this process can do nothing on it any more.
    /// `is_free`: whether the server with this system identifier is nobody else's; Err names the other object.
    ///
    /// # Errors
    /// The server did not answer, or another object stands for it.
    pub async fn put(
        &self,
        object: &DatabaseServer,
        connection: Connection,
        epoch: u64,
        gate: &Gate,
        is_free: impl Fn(&str) -> Result<(), String>,
    ) -> Result<Arc<Server>, TakeError> {
        let name = object.name_any();
        let claim = |identifier: &str| {
            is_free(identifier)?;
            // Two objects that are both new: what is stored says nothing yet.
            let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            let holder = held.entry(identifier.to_owned()).or_insert_with(|| name.clone());
            if *holder == name { Ok(()) } else { Err(holder.clone()) }
        };
        let epoch = fence::take_over(&connection, epoch, claim).await?;
        let server = Arc::new(Server::new(&name, object.spec.clone(), connection, epoch, gate.clone()));
        // Nothing was seen of it yet under this connection: whoever is on it has to look again.
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
        self.lock().insert(name, Arc::clone(&server));
        Ok(server)
    }

    /// Forgets the servers whose objects are gone.
    pub fn keep_only(&self, names: &HashSet<String>) {
        self.lock().retain(|name, _| names.contains(name));
        self.unreached.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| names.contains(name));
        self.told.lock().unwrap_or_else(PoisonError::into_inner).retain(|name, _| names.contains(name));
        self.held.lock().unwrap_or_else(PoisonError::into_inner).retain(|_, name| names.contains(name));
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Server>>> {
        self.by_name.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections that the plans of a server's tenants promise them in sum.
pub fn promised(server: &str, ledger: &Ledger, plans: &Store<Plan>) -> i64 {
    let promise =
        |plan: &str| plans.get(&ObjectRef::new(plan)).map_or(0, |plan| plan.spec.database.max_connections.into());
    ledger.promised_on(server, promise)
}

/// A server that was never reached.
fn unknown(name: &str, spec: &DatabaseServerSpec, why: &str, tenants: usize) -> ServerFacts {
    ServerFacts {
        name: name.to_owned(),
        spec: spec.clone(),
        tenants,
        promised: 0,
        budget: None,
        open: Err(why.to_owned()),
        schema: None,
        pooler: PoolerAddress::default(),
    }
}
