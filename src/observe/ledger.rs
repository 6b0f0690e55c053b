//! The ledger as last seen: read whole at start and at every resync, and kept up to date by our own writes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use uuid::Uuid;

use crate::api::Tenant;
use crate::api::routing::Subscription;
use crate::central::{self, Central, CentralError, TenantRow};
use crate::desired::facts::{LedgerFact, LedgerRow, LedgerState, Refusal, Seen};

/// The ledger as last seen.
#[derive(Debug, Default)]
pub struct Ledger {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Why it was never read, or could not be read again.
    problem: Option<String>,
    loaded: bool,
    rows: HashMap<Uuid, TenantRow>,
    /// Uid of an object to the generation that its row was last brought up to.
    generations: HashMap<Uuid, i64>,
    /// What was kept (Some) or forgotten (None) while the ledger is being read whole: newer than what is read.
    meanwhile: Option<HashMap<Uuid, Option<TenantRow>>>,
}

impl Ledger {
    /// Reads the whole ledger.
    ///
    /// # Errors
    /// The central database did not answer; what was seen before stays.
    pub async fn refresh(&self, central: &Central) -> Result<(), CentralError> {
        self.lock().meanwhile = Some(HashMap::new());
        let rows = central.rows().await;
        let mut state = self.lock();
        let meanwhile = state.meanwhile.take().unwrap_or_default();
        match rows {
            Ok(rows) => {
                state.rows = merged(rows, meanwhile);
                state.loaded = true;
                state.problem = None;
                Ok(())
            }
            Err(error) => {
                state.problem = Some(crate::error::chain(&error));
                Err(error)
            }
        }
    }

    /// Keeps a row that was just written or read.
    pub fn keep(&self, row: TenantRow) {
        let mut state = self.lock();
        if let Some(meanwhile) = &mut state.meanwhile {
            meanwhile.insert(row.uuid, Some(row.clone()));
        }
        state.rows.insert(row.uuid, row);
    }

    /// Forgets a row that is gone.
    pub fn forget(&self, uuid: Uuid) {
        let mut state = self.lock();
        if let Some(meanwhile) = &mut state.meanwhile {
            meanwhile.insert(uuid, None);
        }
        state.rows.remove(&uuid);
    }

    /// Notes that the row of an object says what this generation of it says.
    pub fn note_generation(&self, object: Uuid, generation: i64) {
        self.lock().generations.insert(object, generation);
    }

    /// Every row.
    pub fn rows(&self) -> Vec<TenantRow> {
        self.lock().rows.values().cloned().collect()
    }

    /// Rows whose data lies on a server: kept and quarantined data counts, since it can come back at any time.
    pub fn tenants_on(&self, server: &str) -> usize {
        let holds = |row: &&TenantRow| {
            row.server.as_deref() == Some(server) && row.ledger_state != central::LedgerState::Dropped
        };
        self.lock().rows.values().filter(holds).count()
    }

    /// What the ledger says of a Tenant object.
    pub fn fact(&self, tenant: &Tenant) -> Seen<LedgerFact> {
        let state = self.lock();
        if !state.loaded {
            return Seen::Unreachable(state.problem.clone().unwrap_or_else(|| "it was not read yet".into()));
        }
        let uid = uid(tenant);
        if let Some(row) = state.rows.values().find(|row| row.object_uid == Some(uid)) {
            let current = state.generations.get(&uid) == tenant.metadata.generation.as_ref();
            return Seen::Known(LedgerFact::Row(fact(row, current)));
        }
        let known =
            tenant.status.as_ref().and_then(|status| status.uuid.as_deref()).and_then(|uuid| uuid.parse::<Uuid>().ok());
        let Some(uuid) = known else { return Seen::Known(LedgerFact::Unregistered) };
        match state.rows.get(&uuid) {
            None => Seen::Known(LedgerFact::Refused(Refusal::LedgerLost { uuid })),
            // The quarantine has begun and its statements may not all have been run.
            Some(row) if is_being_quarantined(tenant, row) => {
                Seen::Known(LedgerFact::Row(LedgerRow { object_uid: Some(uid), ..fact(row, true) }))
            }
            Some(_) => Seen::Known(LedgerFact::Unregistered),
        }
    }

    /// As [`Ledger::fact`]. A row that is gone because this very object gave it up is not lost: a Tenant that never had a
    /// database leaves none behind.
    pub async fn settled_fact(&self, central: &Central, tenant: &Tenant) -> Seen<LedgerFact> {
        let fact = self.fact(tenant);
        let lost = matches!(&fact, Seen::Known(LedgerFact::Refused(Refusal::LedgerLost { .. })));
        if !lost || tenant.metadata.deletion_timestamp.is_none() {
            return fact;
        }
        match central.is_released(uid(tenant)).await {
            Ok(true) => Seen::Known(LedgerFact::Unregistered),
            Ok(false) => fact,
            Err(error) => Seen::Unreachable(crate::error::chain(&error)),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Rows that were read, with what this process wrote while they were.
fn merged(read: Vec<TenantRow>, meanwhile: HashMap<Uuid, Option<TenantRow>>) -> HashMap<Uuid, TenantRow> {
    let mut rows: HashMap<_, _> = read.into_iter().map(|row| (row.uuid, row)).collect();
    for (uuid, row) in meanwhile {
        match row {
            Some(row) => drop(rows.insert(uuid, row)),
            None => drop(rows.remove(&uuid)),
        }
    }
    rows
}

fn is_being_quarantined(tenant: &Tenant, row: &TenantRow) -> bool {
    tenant.metadata.deletion_timestamp.is_some()
        && row.ledger_state == central::LedgerState::Quarantined
        && row.object_uid.is_none()
        && Some(&row.namespace) == tenant.metadata.namespace.as_ref()
        && row.name == tenant.name_any()
}

/// The uid of a Tenant object.
pub fn uid(tenant: &Tenant) -> Uuid {
    tenant.metadata.uid.as_deref().and_then(|uid| uid.parse().ok()).unwrap_or_default()
}

fn fact(row: &TenantRow, current: bool) -> LedgerRow {
    let subscription = row.subscription.as_ref().map_or_else(
        || Subscription { status: "none".into(), ..Subscription::default() },
        |subscription| Subscription {
            status: subscription.status.clone(),
            current_period_end: Some(subscription.current_period_end.to_string()),
            trial_ends_at: None,
        },
    );
    LedgerRow {
        uuid: row.uuid,
        object_uid: row.object_uid,
        state: state(row.ledger_state),
        server: row.server.clone(),
        slug: row.slug.clone(),
        schema: row.schema_version.clone(),
        subscription,
        current,
    }
}

const fn state(state: central::LedgerState) -> LedgerState {
    match state {
        central::LedgerState::Registered => LedgerState::Registered,
        central::LedgerState::Provisioned => LedgerState::Provisioned,
        central::LedgerState::Retained => LedgerState::Retained,
        central::LedgerState::Quarantined => LedgerState::Quarantined,
        central::LedgerState::Dropped => LedgerState::Dropped,
    }
}
