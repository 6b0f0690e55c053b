//! The ledger as last seen: read whole at start and at every resync, and kept up to date by our own writes.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use kube::ResourceExt;
use uuid::Uuid;

use crate::api::Tenant;
use crate::api::routing::Subscription;
use crate::central::{self, Central, CentralError, PlanRow, TenantRow};
use crate::desired::facts::{Claim, LedgerFact, LedgerRow, LedgerState, Refusal, Seen};

/// The ledger as last seen.
#[derive(Debug, Default)]
pub struct Ledger {
    state: Mutex<State>,
    refreshing: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct State {
    /// Why it was never read, or could not be read again.
    problem: Option<String>,
    loaded: bool,
    rows: Rows,
    /// Uid of an object to the generation that its row was last brought up to.
    generations: HashMap<Uuid, i64>,
    /// Plans as they are known to stand in the central database.
    plans: HashMap<String, PlanRow>,
    /// What was kept (Some) or forgotten (None) while the ledger is being read whole: newer than what is read.
    meanwhile: Option<HashMap<Uuid, Option<TenantRow>>>,
}

impl State {
    fn keep(&mut self, row: TenantRow) {
        if let Some(meanwhile) = &mut self.meanwhile {
            meanwhile.insert(row.uuid, Some(row.clone()));
        }
        self.rows.insert(row);
    }
}

/// Rows by uuid, with what every visit of a Tenant asks of all of them.
#[derive(Debug, Default)]
struct Rows {
    by_uuid: HashMap<Uuid, TenantRow>,
    /// Uid of the object that holds a row to the row's uuid.
    by_object: HashMap<Uuid, Uuid>,
    /// Server to the rows whose data lies there.
    on_server: HashMap<String, OnServer>,
    /// Host to the row that has it.
    by_host: HashMap<String, Uuid>,
}

/// Rows whose data lies on one server.
#[derive(Debug, Default)]
struct OnServer {
    rows: usize,
    /// Plan to the number of those that a Tenant object holds.
    live: HashMap<String, usize>,
}

impl Rows {
    fn insert(&mut self, row: TenantRow) {
        self.remove(row.uuid);
        if let Some(object) = row.object_uid {
            self.by_object.insert(object, row.uuid);
        }
        if let Some(server) = holding(&row) {
            let on = self.on_server.entry(server.to_owned()).or_default();
            on.rows += 1;
            if let Some(plan) = live(&row) {
                *on.live.entry(plan.to_owned()).or_default() += 1;
            }
        }
        for host in &row.hosts {
            self.by_host.insert(host.host.clone(), row.uuid);
        }
        self.by_uuid.insert(row.uuid, row);
    }

    fn remove(&mut self, uuid: Uuid) {
        let Some(row) = self.by_uuid.remove(&uuid) else { return };
        // Another row may have the object by now.
        if let Some(object) = row.object_uid.filter(|object| self.by_object.get(object) == Some(&uuid)) {
            self.by_object.remove(&object);
        }
        for host in &row.hosts {
            if self.by_host.get(&host.host) == Some(&uuid) {
                self.by_host.remove(&host.host);
            }
        }
        if let Some(on) = holding(&row).and_then(|server| self.on_server.get_mut(server)) {
            on.rows -= 1;
            if let Some(count) = live(&row).and_then(|plan| on.live.get_mut(plan)) {
                *count -= 1;
            }
        }
    }

    fn of_object(&self, object: Uuid) -> Option<&TenantRow> {
        self.by_uuid.get(self.by_object.get(&object)?)
    }
}

impl FromIterator<TenantRow> for Rows {
    fn from_iter<T: IntoIterator<Item = TenantRow>>(rows: T) -> Self {
        let mut all = Self::default();
        rows.into_iter().for_each(|row| all.insert(row));
        all
    }
}

/// The server on which a row's data lies: kept and quarantined data counts, since it can come back at any time.
fn holding(row: &TenantRow) -> Option<&str> {
    row.server.as_deref().filter(|_| row.ledger_state != central::LedgerState::Dropped)
}

/// The plan of a row that a Tenant object holds.
fn live(row: &TenantRow) -> Option<&str> {
    row.plan.as_deref().filter(|_| row.object_uid.is_some())
}

impl Ledger {
    /// Reads the whole ledger.
    ///
    /// # Errors
    /// The central database did not answer; what was seen before stays.
    pub async fn refresh(&self, central: &Central) -> Result<(), CentralError> {
        // One at a time: each keeps what is written while it reads, in one place.
        let _turn = self.refreshing.lock().await;
        self.lock().meanwhile = Some(HashMap::new());
        let rows = central.rows().await;
        let mut state = self.lock();
        let meanwhile = state.meanwhile.take().unwrap_or_default();
        match rows {
            Ok(rows) => {
                state.rows = merged(rows, meanwhile);
                // They are looked at again too.
                state.plans.clear();
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
        self.lock().keep(row);
    }

    /// Does to a row what a write that succeeded did to it, so that it need not be read again. False: the row is not known.
    pub fn amend(&self, uuid: Uuid, change: impl FnOnce(&mut TenantRow)) -> bool {
        let mut state = self.lock();
        let Some(mut row) = state.rows.by_uuid.get(&uuid).cloned() else { return false };
        change(&mut row);
        state.keep(row);
        true
    }

    /// The object that holds a row: its namespace and name.
    pub fn holder_of(&self, uuid: Uuid) -> Option<(String, String)> {
        let state = self.lock();
        let row = state.rows.by_uuid.get(&uuid).filter(|row| row.object_uid.is_some())?;
        Some((row.namespace.clone(), row.name.clone()))
    }

    /// The server that the ledger names for a Tenant object; None: no row, or not placed yet.
    pub fn server_of(&self, object: Uuid) -> Option<String> {
        self.lock().rows.of_object(object)?.server.clone()
    }

    /// The server that the ledger names for a tenant.
    pub fn server_of_tenant(&self, uuid: Uuid) -> Option<String> {
        self.lock().rows.by_uuid.get(&uuid)?.server.clone()
    }

    /// The namespace that a tenant is in, or was last.
    pub fn namespace_of(&self, uuid: Uuid) -> Option<String> {
        Some(self.lock().rows.by_uuid.get(&uuid)?.namespace.clone())
    }

    /// The plan that the ledger has for a Tenant object; None: no row, or none.
    pub fn plan_of(&self, object: Uuid) -> Option<String> {
        self.lock().rows.of_object(object)?.plan.clone()
    }

    /// Whose a host is, as a tenant sees it.
    pub fn claim(&self, tenant: Uuid, host: &str) -> Claim {
        self.claim_and_proof(tenant, host).0
    }

    /// As [`Ledger::claim`], with when the proof of a host of the tenant's own was last seen.
    pub fn claim_and_proof(&self, tenant: Uuid, host: &str) -> (Claim, Option<jiff::Timestamp>) {
        let state = self.lock();
        let holder = state.rows.by_host.get(host).and_then(|holder| state.rows.by_uuid.get(holder));
        let found = holder.and_then(|row| row.hosts.iter().find(|known| known.host == host).map(|known| (row, known)));
        match found {
            None => (Claim::Nobody, None),
            Some((row, known)) if row.uuid == tenant => {
                (Claim::Ours { verified: known.verified, lost_since: known.lost_since }, known.proved_at)
            }
            Some((_, known)) => (Claim::Others { proved: known.verified }, None),
        }
    }

    /// Forgets a row that is gone.
    pub fn forget(&self, uuid: Uuid) {
        let mut state = self.lock();
        if let Some(meanwhile) = &mut state.meanwhile {
            meanwhile.insert(uuid, None);
        }
        state.rows.remove(uuid);
    }

    /// Notes that the row of an object says what this generation of it says.
    pub fn note_generation(&self, object: Uuid, generation: i64) {
        self.lock().generations.insert(object, generation);
    }

    /// Whether a Plan is known to stand in the central database like this.
    pub fn has_plan(&self, plan: &PlanRow) -> bool {
        self.lock().plans.get(&plan.slug) == Some(plan)
    }

    /// Notes how a Plan stands in the central database.
    pub fn note_plan(&self, plan: PlanRow) {
        self.lock().plans.insert(plan.slug.clone(), plan);
    }

    /// Forgets what was known of a Plan.
    pub fn forget_plan(&self, name: &str) {
        self.lock().plans.remove(name);
    }

    /// Every row.
    pub fn rows(&self) -> Vec<TenantRow> {
        self.lock().rows.by_uuid.values().cloned().collect()
    }

    /// Whether a row that was read a while ago still has nobody, or the same, and is in the same state.
    pub fn is_as_it_was(&self, row: &TenantRow) -> bool {
        let state = self.lock();
        let now = state.rows.by_uuid.get(&row.uuid);
        now.is_some_and(|now| (now.object_uid, now.ledger_state) == (row.object_uid, row.ledger_state))
    }

    /// Rows whose data lies on a server.
    pub fn tenants_on(&self, server: &str) -> usize {
        self.lock().rows.on_server.get(server).map(|on| on.rows).unwrap_or_default()
    }

    /// What the tenants on a server may open in sum, by what each plan promises.
    pub fn promised_on(&self, server: &str, promise: impl Fn(&str) -> i64) -> i64 {
        let state = self.lock();
        let plans = state.rows.on_server.get(server).into_iter().flat_map(|on| &on.live);
        plans.map(|(plan, count)| promise(plan).saturating_mul(i64::try_from(*count).unwrap_or(i64::MAX))).sum()
    }

    /// What the ledger says of a Tenant object.
    pub fn fact(&self, tenant: &Tenant) -> Seen<LedgerFact> {
        let state = self.lock();
        if !state.loaded {
            return Seen::Unreachable(state.problem.clone().unwrap_or_else(|| "it was not read yet".into()));
        }
        let uid = uid(tenant);
        if let Some(row) = state.rows.of_object(uid) {
            let current = state.generations.get(&uid) == tenant.metadata.generation.as_ref();
            return Seen::Known(LedgerFact::Row(fact(row, current)));
        }
        let known =
            tenant.status.as_ref().and_then(|status| status.uuid.as_deref()).and_then(|uuid| uuid.parse::<Uuid>().ok());
        let Some(uuid) = known else { return Seen::Known(LedgerFact::Unregistered) };
        match state.rows.by_uuid.get(&uuid) {
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
fn merged(read: Vec<TenantRow>, meanwhile: HashMap<Uuid, Option<TenantRow>>) -> Rows {
    let mut rows: Rows = read.into_iter().collect();
    for (uuid, row) in meanwhile {
        match row {
            Some(row) => rows.insert(row),
            None => rows.remove(uuid),
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
        |subscription| {
            let ends_at = subscription.ends_at.map(|end| end.to_string());
            Subscription {
                status: subscription.status.clone(),
                current_period_end: Some(subscription.current_period_end.to_string()),
                // A trial of Stripe's that is not to end with it ends by Stripe's word alone, which says what came after it.
                trial_ends_at: ends_at.clone().filter(|_| subscription.status == "trialing"),
                ends_at,
                grace_until: None,
            }
        },
    );
    LedgerRow {
        uuid: row.uuid,
        object_uid: row.object_uid,
        state: state(row.ledger_state),
        server: row.server.clone(),
        slug: row.slug.clone(),
        plan: row.plan.clone(),
        schema: row.schema_version.clone(),
        subscription,
        subscription_since: row.subscription.as_ref().and_then(|subscription| subscription.since),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::central::LedgerState::{Dropped, Provisioned, Registered, Retained};

    fn row(uuid: u128, object: Option<u128>, server: Option<&str>, ledger_state: central::LedgerState) -> TenantRow {
        TenantRow {
            uuid: Uuid::from_u128(uuid),
            namespace: "customers".into(),
            name: "acme".into(),
            object_uid: object.map(Uuid::from_u128),
            slug: "acme".into(),
            display_name: "Acme".into(),
            plan: None,
            state: crate::api::tenant::TenantState::Active,
            trial_ends_at: None,
            metadata: std::collections::BTreeMap::new(),
            ledger_state,
            server: server.map(str::to_owned),
            epoch: 1,
            drop_after: None,
            schema_version: None,
            seeded: false,
            hosts: Vec::new(),
            subscription: None,
            created_at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    /// What the indexes say is what a walk over all rows says.
    fn assert_consistent(ledger: &Ledger) {
        let state = ledger.lock();
        let rows: Vec<_> = state.rows.by_uuid.values().collect();
        let holders: HashMap<_, _> = rows.iter().filter_map(|row| Some((row.object_uid?, row.uuid))).collect();
        assert_eq!(state.rows.by_object, holders);
        for (server, on) in &state.rows.on_server {
            let there: Vec<_> = rows.iter().filter(|row| holding(row) == Some(server)).collect();
            assert_eq!(there.len(), on.rows, "{server}");
            for (plan, count) in &on.live {
                assert_eq!(there.iter().filter(|row| live(row) == Some(plan)).count(), *count, "{plan} on {server}");
            }
        }
    }

    #[test]
    fn the_indexes_follow_a_row_through_its_life() {
        let ledger = Ledger::default();
        let uuid = Uuid::from_u128(1);
        for (row, on_server) in [
            (row(1, Some(10), None, Registered), 0),
            (row(1, Some(10), Some("a"), Registered), 1),
            (row(1, Some(10), Some("a"), Provisioned), 1),
            (row(1, None, Some("a"), Retained), 1),
            (row(1, Some(11), Some("a"), Provisioned), 1),
            (row(1, None, Some("a"), Dropped), 0),
        ] {
            ledger.keep(row);
            assert_consistent(&ledger);
            assert_eq!(ledger.tenants_on("a"), on_server);
        }
        ledger.keep(row(2, Some(12), Some("a"), Provisioned));
        assert!(ledger.amend(uuid, |row| row.server = Some("b".into())));
        ledger.forget(uuid);
        assert_consistent(&ledger);
        assert_eq!(ledger.tenants_on("a"), 1);
        assert_eq!(ledger.server_of(Uuid::from_u128(12)).as_deref(), Some("a"));
        assert!(!ledger.amend(uuid, |_| {}), "a row that is not known is not amended");
    }

    #[test]
    fn what_was_written_while_the_ledger_was_read_is_newer_than_what_was_read() {
        let read = vec![row(1, Some(10), Some("a"), Registered), row(2, Some(11), Some("a"), Registered)];
        let meanwhile = HashMap::from([
            (Uuid::from_u128(1), None),
            (Uuid::from_u128(2), Some(row(2, Some(11), Some("b"), Registered))),
        ]);
        let rows = merged(read, meanwhile);
        assert_eq!(rows.by_object, HashMap::from([(Uuid::from_u128(11), Uuid::from_u128(2))]));
        assert_eq!(rows.on_server.get("b").map(|on| on.rows), Some(1));
        assert_eq!(rows.on_server.get("a").map(|on| on.rows), Some(0));
    }
}
