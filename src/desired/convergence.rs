//! The property everything stands on: from any state that any prefix of effects leaves behind, planning again from the
//! top reaches the state that an undisturbed run reaches, and then plans nothing more.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use uuid::Uuid;

use crate::api::backup::{BackupReport, BackupRestored};
use crate::api::condition::Reason;
use crate::api::plan::{PlanSpec, WorkerMode};
use crate::api::pooler::{PoolerEntry, PoolerUser};
use crate::api::routing::{RoutingEntry, WorkerPool};
use crate::api::server::DatabaseServerSpec;
use crate::api::tenant::{
    BackupStatus, BeforeDeleteStatus, Credentials, DeletionPolicy, Tenant, TenantSpec, TenantState, TenantStatus,
};
use crate::api::{ANNOTATION_ROTATE, FINALIZER, NameRef};

use super::backup::Heard;
use super::catalogue::Catalogue;
use super::effect::{DatabaseSeen, Effect, Health};
use super::facts::{
    Attempt, DeploymentFact, Facts, LastJob, LedgerFact, LedgerRow, LedgerState, MarkedData, PoolerAddress, Published,
    Reach, Refusal, SecretFact, Seen, ServerFacts, WorkersFacts,
};
use super::scram::Credential;
use super::sql::Statement;
use super::tenant::{self, Outlook};
use super::{database, drill, names, rotation, status};

const UUID: Uuid = Uuid::from_u128(0x1234);
const OVERLAP: SignedDuration = SignedDuration::from_secs(60);
const SCHEMA: &str = "0001_aaaaaaaa";

/// Verifiers take milliseconds to make and the tests plan thousands of times.
fn credential(password: &str) -> Credential {
    static MADE: Mutex<BTreeMap<String, Credential>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().expect("no test panics while it makes a credential");
    made.entry(password.to_owned()).or_insert_with(|| Credential::new(password.to_owned())).clone()
}

/// Everything outside the operator, in memory.
/// What is seen of a new Tenant of that name, for the tests of single parts.
pub(super) fn facts_of(name: &str) -> Facts {
    let mut facts = World::new(1).facts();
    facts.tenant.metadata.name = Some(name.into());
    facts
}

#[derive(Clone, Debug, PartialEq)]
struct World {
    object: Option<Tenant>,
    row: Option<LedgerRow>,
    catalogue: Catalogue,
    pooler: Option<PoolerEntry>,
    routing: Option<RoutingEntry>,
    binding: Option<String>,
    welcome: Option<String>,
    reachable: bool,
    /// Of poolers and apps.
    reach: Reach,
    /// Lost when the operator restarts, unless the routing entry has it.
    minted: u8,
    /// Seconds.
    clock: i64,
    /// Somebody asks for it.
    wanted: bool,
    /// A restored database takes the place of its own.
    restoring: bool,
    plan: PlanSpec,
    sessions: i64,
    attempt: Attempt,
    /// Its own workers.
    own: WorkersFacts,
    /// What the server has promised to this tenant and others, and may promise.
    promised: (i64, i64),
    /// What the Jobs of its backups told; None: there are no backups.
    heard: Option<Heard>,
    last_job: LastJob,
}

impl World {
    fn new(warm: usize) -> Self {
        let mut catalogue = Catalogue::default();
        for number in 0..warm {
            catalogue.execute(&Statement::CreateDatabase {
                name: names::warm(SCHEMA, &number.to_string()),
                template: names::template(SCHEMA),
            });
        }
        let mut world = Self {
            object: None,
            row: None,
            catalogue,
            pooler: None,
            routing: None,
            binding: None,
            welcome: None,
            reachable: true,
            reach: Reach::All,
            minted: 1,
            clock: 0,
            wanted: false,
            restoring: false,
            plan: PlanSpec { active: true, ..PlanSpec::default() },
            sessions: 0,
            attempt: Attempt::Unknown,
            own: WorkersFacts {
                template: Some(Arc::new(serde_json::json!({ "spec": { "containers": [{}] } }))),
                ..WorkersFacts::default()
            },
            promised: (25, 100),
            heard: None,
            last_job: LastJob::Absent,
        };
        world.apply_object(Uuid::from_u128(77), None);
        world
    }

    fn apply_object(&mut self, uid: Uuid, adopt: Option<Uuid>) {
        let spec = TenantSpec {
            display_name: "Acme GmbH".into(),
            plan_ref: NameRef { name: "pro".into() },
            uuid: adopt.map(|uuid| uuid.to_string()),
            ..TenantSpec::default()
        };
        let mut object = Tenant::new("acme", spec);
        object.metadata.namespace = Some("customers".into());
        object.metadata.uid = Some(uid.to_string());
        object.metadata.generation = Some(1);
        self.object = Some(object);
    }

    fn delete(&mut self, policy: DeletionPolicy) {
        if let Some(object) = &mut self.object {
            object.spec.deletion_policy = policy;
            object.metadata.deletion_timestamp = Some(Time(Timestamp::UNIX_EPOCH));
            if object.metadata.finalizers.iter().flatten().count() == 0 {
                self.object = None;
            }
        }
    }

    fn restart(&mut self) {
        self.minted += 1;
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.clock).expect("a small number")
    }

    fn spec(&mut self) -> &mut TenantSpec {
        &mut self.object.as_mut().expect("there").spec
    }

    fn ask_to_rotate(&mut self, value: &str) {
        let metadata = &mut self.object.as_mut().expect("there").metadata;
        metadata.annotations.get_or_insert_default().insert(ANNOTATION_ROTATE.into(), value.into());
    }

    /// What the app is told works at the pooler and on the server.
    fn assert_served(&self, when: &str) {
        let access = &self.routing.as_ref().expect("routed").database;
        let verifier = credential(&access.password).verifier;
        let user = PoolerUser { name: access.username.clone(), verifier: verifier.clone() };
        assert!(self.pooler.as_ref().expect("pooled").users.contains(&user), "{when}: the pooler does not know it");
        for user in &self.pooler.as_ref().expect("pooled").users {
            let login =
                self.catalogue.roles.get(&user.name).unwrap_or_else(|| panic!("{when}: no login {}", user.name));
            assert_eq!(login.comment, Some(super::scram::fingerprint(&user.verifier)), "{when}: {}", user.name);
            assert!(login.login, "{when}: {} may not log in", user.name);
        }
    }

    fn slot(&self) -> names::Slot {
        names::slot_of(&self.routing.as_ref().expect("routed").database.username).expect("a login of ours")
    }

    fn password(&self) -> String {
        self.routing
            .as_ref()
            .map_or_else(|| format!("password-{}", self.minted), |entry| entry.database.password.clone())
    }

    fn facts(&self) -> Facts {
        let object = self.object.clone().expect("only planned for an object that is there");
        let uid = object.metadata.uid.as_deref().and_then(|uid| uid.parse::<Uuid>().ok());
        let row = self.row.clone().filter(|row| row.object_uid == uid);
        let mut catalogue = self.catalogue.of_tenant(UUID);
        let warm = self.catalogue.databases.keys().find(|name| names::is_warm_of(name, SCHEMA)).cloned();
        if let Some(name) = &warm {
            catalogue.databases.insert(name.clone(), self.catalogue.databases[name].clone());
        }
        let pooler =
            PoolerAddress { host: "pooler-pg-1".into(), port: 6432, sslmode: "verify-full".into(), ca: "pem".into() };
        let server = ServerFacts {
            name: "pg-1".into(),
            spec: DatabaseServerSpec::default(),
            tenants: 0,
            promised: self.promised.0,
            budget: Some(self.promised.1),
            open: Ok(()),
            schema: Some(SCHEMA.into()),
            // An operator that began while the server was down has not put its pooler up.
            pooler: if self.reachable { pooler } else { PoolerAddress::default() },
        };
        Facts {
            now: self.now(),
            backup: self.heard.clone(),
            last_job: self.last_job.clone(),
            next: self
                .routing
                .as_ref()
                .filter(|entry| rotation::is_due(&object, entry, self.now()))
                .map(|_| credential(&format!("next-{}", self.minted))),
            overlap: OVERLAP,
            restoring: self.restoring,
            awake_until: self.wanted.then(|| self.now() + SignedDuration::from_mins(30)),
            sessions: Some(self.sessions),
            attempt: self.attempt.clone(),
            epoch: 1,
            base_domain: "example.com".into(),
            admin_host: None,
            domains: std::collections::BTreeMap::new(),
            domain_grace: SignedDuration::from_hours(168),
            namespace_served: true,
            plan_name: "pro".into(),
            plan: Some(self.plan.clone()),
            ledger: Seen::Known(self.ledger(row)),
            marked: self.marked(uid),
            servers: vec![server],
            catalogue: if self.reachable { Seen::Known(catalogue) } else { Seen::Unreachable("no route".into()) },
            warm,
            credential: credential(&self.password()),
            tenant: object,
            workers: self.own.clone(),
            pooler: Published { entry: self.pooler.clone(), reach: self.reach.clone() },
            routing: Published { entry: self.routing.clone(), reach: self.reach.clone() },
            binding: Seen::Known(self.binding.clone().map(|hash| SecretFact { ours: true, hash: Some(hash) })),
            welcome: Seen::Known(self.welcome.clone().map(|hash| SecretFact { ours: true, hash: Some(hash) })),
        }
    }

    fn execute(&mut self, effect: &Effect) {
        let object = self.object.as_mut().expect("effects are for an object that is there");
        match effect {
            Effect::AddFinalizer => object.metadata.finalizers = Some(vec![FINALIZER.into()]),
            Effect::RemoveFinalizer => {
                self.object = None;
                self.binding = None;
                self.welcome = None;
            }
            Effect::Register { server } => self.register(server.as_deref()),
            Effect::Place { server } => self.row_mut().server = Some(server.clone()),
            Effect::Sql { batch, .. } => {
                assert!(self.reachable, "statements were planned for a server that does not answer");
                batch.statements().iter().for_each(|statement| self.catalogue.execute(statement));
            }
            Effect::Clone { .. } => {
                let name = names::warm(SCHEMA, &format!("c{}", self.catalogue.databases.len()));
                self.catalogue.execute(&Statement::CreateDatabase { name, template: names::template(SCHEMA) });
            }
            Effect::MarkProvisioned { schema } => {
                let row = self.row_mut();
                row.state = LedgerState::Provisioned;
                row.schema = Some(schema.clone());
            }
            Effect::PublishPooler { entry, .. } => self.pooler = Some(entry.clone()),
            Effect::WithdrawPooler { .. } => self.pooler = None,
            Effect::PublishRouting { entry } => self.routing = Some((**entry).clone()),
            Effect::WithdrawRouting => self.routing = None,
            Effect::WriteBinding { hash, .. } => self.binding = Some(hash.clone()),
            Effect::WriteWelcome { hash, .. } => self.welcome = Some(hash.clone()),
            Effect::ApplyWorkers { objects, hash } => self.apply_workers(&objects.deployment, hash),
            Effect::DeleteWorkers { .. } => {
                let pool = self.routing.as_ref().map(|entry| entry.queue.pool);
                assert_ne!(pool, Some(WorkerPool::Dedicated), "jobs are still left to workers that go");
                self.own.deployment = None;
            }
            Effect::LastBackup { job } => {
                assert!(
                    !self.catalogue.roles.values().any(|role| role.login),
                    "the last backup is not of the last data"
                );
                assert_eq!(self.last_job, LastJob::Absent, "two Jobs for one delete");
                assert!(job.contains(&UUID.to_string()));
                self.last_job = LastJob::Running;
            }
            Effect::Release { database } => self.release(*database),
            Effect::Quarantine { .. } => {
                let asks = object.spec.deletion_policy == DeletionPolicy::BackupThenDelete;
                assert!(!asks || drill::last(&self.facts()).is_some(), "destroyed without a last backup");
                self.row_mut().state = LedgerState::Quarantined;
            }
        }
    }

    /// The Job of the last backup ends well, and its pod is heard.
    fn back_up(&mut self) {
        assert_eq!(self.last_job, LastJob::Running, "there is no Job");
        let object_uid = drill::object_uid(&self.facts()).expect("every object has one");
        let restored = BackupRestored { name: "20260101T000000Z-last".into(), milliseconds: 1200 };
        let report =
            BackupReport { tenant: UUID, rehearsal: true, restored: Some(restored), ..BackupReport::default() };
        self.heard.get_or_insert_default().take_last(&drill::last_name(UUID, object_uid), report);
    }

    /// Runs to its end, whatever Jobs there are.
    fn run_with_jobs(&mut self) {
        self.run(usize::MAX);
        if self.object.is_some() && self.last_job == LastJob::Running {
            self.back_up();
            self.run(usize::MAX);
        }
    }

    fn apply_workers(&mut self, deployment: &serde_json::Value, hash: &str) {
        let asleep = deployment["spec"]["replicas"] == 0;
        let before = self.own.deployment.take();
        let (replicas, available) = before.map_or((1, 0), |before| (before.replicas.max(1), before.available));
        self.own.deployment = Some(DeploymentFact {
            hash: Some(hash.to_owned()),
            replicas: if asleep { 0 } else { replicas },
            available: if asleep { 0 } else { available },
            since: self.now(),
        });
    }

    /// So many of its own workers are available from now on.
    fn set_available(&mut self, count: i32) {
        let since = self.now();
        let there = self.own.deployment.as_mut().expect("it has workers of its own");
        (there.available, there.since) = (count, since);
    }

    fn pool(&self) -> WorkerPool {
        self.routing.as_ref().expect("routed").queue.pool
    }

    /// Writes the status, and returns value and reason of a condition.
    fn say(&mut self, kind: &str) -> (String, String) {
        let status = status::status(&self.facts(), &tenant::plan(&self.facts()), None);
        let found = status.conditions.iter().find(|condition| condition.type_ == kind).expect("written").clone();
        self.object.as_mut().expect("there").status = Some(status);
        (found.status, found.reason)
    }

    fn ledger(&self, row: Option<LedgerRow>) -> LedgerFact {
        let known = self.object.as_ref().and_then(|object| object.status.as_ref()?.uuid.clone());
        match (row, known) {
            (Some(row), _) => LedgerFact::Row(row),
            (None, None) => LedgerFact::Unregistered,
            (None, Some(_)) => LedgerFact::Refused(Refusal::LedgerLost { uuid: UUID }),
        }
    }

    fn marked(&self, uid: Option<Uuid>) -> Option<MarkedData> {
        let mark = database::mark_of(self.catalogue.databases.get(&names::database(UUID))?)?;
        let ours = Some(mark.object_uid) == uid && self.row.is_none() && self.reachable;
        ours.then(|| MarkedData { server: "pg-1".into(), schema: mark.schema })
    }

    fn register(&mut self, server: Option<&str>) {
        let object = self.object.as_ref().expect("checked by the caller");
        let uid = object.metadata.uid.as_deref().and_then(|uid| uid.parse().ok());
        let marked = self.marked(uid).filter(|_| object.status.is_some());
        match (&mut self.row, marked) {
            (None, Some(marked)) => {
                self.row = Some(LedgerRow {
                    uuid: UUID,
                    object_uid: uid,
                    state: LedgerState::Provisioned,
                    server: Some(marked.server),
                    slug: "acme".into(),
                    plan: Some("pro".into()),
                    schema: Some(marked.schema),
                    subscription: crate::api::routing::Subscription::default(),
                    subscription_since: None,
                    current: true,
                });
            }
            (None, None) => {
                self.row = Some(LedgerRow {
                    uuid: UUID,
                    object_uid: uid,
                    state: LedgerState::Registered,
                    server: server.map(str::to_owned),
                    slug: "acme".into(),
                    plan: Some("pro".into()),
                    schema: None,
                    subscription: crate::api::routing::Subscription::default(),
                    subscription_since: None,
                    current: true,
                });
            }
            (Some(row), _)
                if matches!(row.state, LedgerState::Retained | LedgerState::Quarantined)
                    && object.spec.uuid == Some(row.uuid.to_string()) =>
            {
                row.object_uid = uid;
                row.state = LedgerState::Provisioned;
            }
            (Some(row), _) => row.current = true,
        }
    }

    fn release(&mut self, database: DatabaseSeen) {
        let row = self.row_mut();
        let never_made =
            row.state == LedgerState::Registered && (row.server.is_none() || database == DatabaseSeen::Absent);
        if never_made {
            self.row = None;
        } else {
            self.row_mut().state = LedgerState::Retained;
        }
    }

    fn row_mut(&mut self) -> &mut LedgerRow {
        self.row.as_mut().expect("planned only with a row")
    }

    /// Plans and executes until nothing is planned; stops after `most` effects. Returns how many were executed.
    fn run(&mut self, most: usize) -> usize {
        let mut count = 0;
        for _pass in 0..100 {
            let Some(_) = self.object else { return count };
            let Outlook { effects, .. } = tenant::plan(&self.facts());
            if effects.is_empty() {
                return count;
            }
            for effect in effects {
                if count == most {
                    return count;
                }
                self.execute(&effect);
                count += 1;
            }
        }
        panic!("no end of effects: {:?}", tenant::plan(&self.facts()).effects);
    }

    /// The state without what differs between any two runs: passwords and what derives from them.
    fn digest(&self) -> Self {
        let mut world = self.clone();
        world.minted = 0;
        world.binding = world.binding.map(|_| String::new());
        if let Some(entry) = &mut world.routing {
            entry.database.password = String::new();
        }
        for user in world.pooler.iter_mut().flat_map(|entry| &mut entry.users) {
            user.verifier = String::new();
        }
        for role in world.catalogue.roles.values_mut().filter(|role| role.login) {
            role.comment = None;
        }
        world.catalogue.databases.retain(|name, _| !names::is_warm(name));
        world
    }

    fn assert_consistent(&self) {
        let facts = self.facts();
        let outlook = tenant::plan(&facts);
        assert_eq!(outlook.effects, vec![], "not at rest");
        let status = status::status(&facts, &outlook, None);
        assert!(
            status.conditions.iter().any(|condition| condition.type_ == "Ready" && condition.status == "True"),
            "{:?}",
            status.conditions
        );
        let password = &self.routing.as_ref().expect("routed").database.password;
        let verifier = credential(password).verifier;
        assert_eq!(
            self.pooler.as_ref().expect("pooled").users[0].verifier,
            verifier,
            "the pooler has another password than the app"
        );
        let login = &self.catalogue.roles[&names::login(UUID, self.slot())];
        assert_eq!(
            login.comment,
            Some(super::scram::fingerprint(&verifier)),
            "the server has another password than the app"
        );
    }
}

fn created(warm: usize) -> World {
    let mut world = World::new(warm);
    world.run(usize::MAX);
    world
}

#[test]
fn a_create_that_stops_after_any_effect_ends_where_an_undisturbed_one_does() {
    for warm in [0, 1] {
        let undisturbed = created(warm);
        undisturbed.assert_consistent();
        let total = World::new(warm).run(usize::MAX);
        assert!(
            total >= 7,
            "a create has at least finalizer, row with server, claim, note, pooler, binding, routing; planned {total}"
        );
        for first in 0..total {
            for second in 0..=total {
                let mut world = World::new(warm);
                world.run(first);
                world.restart();
                world.run(second);
                world.restart();
                world.run(usize::MAX);
                world.assert_consistent();
                assert_eq!(world.digest(), undisturbed.digest(), "stopped after {first} and {second} effects");
            }
        }
    }
}

#[test]
fn a_delete_at_any_point_of_a_create_and_stopped_anywhere_keeps_the_data_or_quarantines_it() {
    let total = World::new(1).run(usize::MAX);
    for policy in [DeletionPolicy::Retain, DeletionPolicy::BackupThenDelete, DeletionPolicy::Delete] {
        for made in 0..=total {
            let mut start = World::new(1);
            start.run(made);
            start.restart();
            let had_database = start.catalogue.databases.contains_key(&names::database(UUID));
            start.heard = Some(Heard::default());
            start.delete(policy);
            let steps = start.clone().run(usize::MAX);
            for stop in 0..=steps {
                let mut world = start.clone();
                world.run(stop);
                world.restart();
                world.run_with_jobs();
                assert_eq!(
                    world.object, None,
                    "{policy:?} after {made}, stopped after {stop}: the object is still there"
                );
                assert_eq!((&world.routing, &world.pooler), (&None, &None));
                assert!(!world.catalogue.roles.values().any(|role| role.login), "a login is left");
                let kept = world.catalogue.databases.contains_key(&names::database(UUID));
                let quarantined = world.catalogue.databases.contains_key(&names::quarantined(UUID));
                let expected = if policy.destroys() { (false, had_database) } else { (had_database, false) };
                assert_eq!((kept, quarantined), expected, "{policy:?} after {made}, stopped after {stop}");
                assert_eq!(world.row.is_some(), had_database, "a row without data, or data without a row");
            }
        }
    }
}

#[test]
fn nothing_is_destroyed_before_the_last_backup_is_known_to_restore() {
    let mut world = created(1);
    world.delete(DeletionPolicy::BackupThenDelete);
    world.run(usize::MAX);
    let blocked = |world: &mut World| {
        let outlook = tenant::plan(&world.facts());
        assert_eq!(outlook.effects, [], "nothing is done");
        let Some(Health::Blocked(Reason::DeletionBlocked, why)) = outlook.trouble().cloned() else {
            panic!("{:?}", outlook.trouble());
        };
        why
    };
    assert!(blocked(&mut world).contains("not switched on"));
    world.heard = Some(Heard::default());
    world.run(usize::MAX);
    assert_eq!(world.last_job, LastJob::Running);
    // A backup of before, a rehearsal of it, and the Job of an object of before do not count.
    let report = BackupReport {
        tenant: UUID,
        rehearsal: true,
        restored: Some(BackupRestored::default()),
        ..BackupReport::default()
    };
    let heard = world.heard.as_mut().expect("set above");
    heard.take(report.clone());
    let before = drill::last_name(UUID, Uuid::from_u128(76));
    heard.take_last(&before, report);
    // Somebody's copy of another object.
    let copied = BeforeDeleteStatus { job: before, ..BeforeDeleteStatus::default() };
    let backup = BackupStatus { before_delete: Some(copied), ..BackupStatus::default() };
    let status = TenantStatus { uuid: Some(UUID.to_string()), backup: Some(backup), ..TenantStatus::default() };
    world.object.as_mut().expect("there").status = Some(status);
    assert_eq!(world.run(usize::MAX), 0);
    world.last_job = LastJob::Failed("DeadlineExceeded".into());
    let failed = BackupReport { tenant: UUID, error: Some("the bucket is away".into()), ..BackupReport::default() };
    world.heard.as_mut().expect("set above").take(failed);
    let why = blocked(&mut world);
    assert!(why.contains("the bucket is away") && why.contains("Retain"), "{why}");
    // Kubernetes has removed it.
    world.last_job = LastJob::Absent;
    assert_eq!(world.run(usize::MAX), 1);
    // Told, written into the status, and forgotten by an operator that begins anew.
    let mut forgetful = world.clone();
    forgetful.back_up();
    forgetful.say("Ready");
    forgetful.heard = Some(Heard::default());
    for mut world in [world, forgetful] {
        world.run_with_jobs();
        assert_eq!(world.object, None);
        assert!(world.catalogue.databases.contains_key(&names::quarantined(UUID)));
    }
}

#[test]
fn kept_and_quarantined_data_come_back_to_a_tenant_with_its_uuid() {
    for policy in [DeletionPolicy::Retain, DeletionPolicy::Delete] {
        let mut world = created(1);
        world.delete(policy);
        world.run(usize::MAX);
        world.restart();
        world.apply_object(Uuid::from_u128(78), Some(UUID));
        let steps = world.clone().run(usize::MAX);
        for stop in 0..=steps {
            let mut world = world.clone();
            world.run(stop);
            world.restart();
            world.run(usize::MAX);
            world.assert_consistent();
            let mark = database::mark_of(&world.catalogue.databases[&names::database(UUID)]).expect("marked");
            assert_eq!(mark.object_uid, Uuid::from_u128(78), "the mark names the object that has the data now");
        }
    }
}

#[test]
fn a_database_that_vanished_is_never_made_anew() {
    let mut world = created(3);
    world.catalogue.databases.remove(&names::database(UUID));
    assert_eq!(world.run(usize::MAX), 0);
    let outlook = tenant::plan(&world.facts());
    let status = status::status(&world.facts(), &outlook, None);
    assert!(status.conditions.iter().any(|condition| condition.type_ == "Ready"
        && condition.status == "False"
        && condition.reason == "DataMissing"));
}

#[test]
fn a_row_that_the_ledger_lost_is_written_again_from_the_mark_and_from_nothing_else() {
    let mut world = created(1);
    let before = world.digest();
    let known = |world: &mut World| {
        let status = TenantStatus { uuid: Some(UUID.to_string()), ..TenantStatus::default() };
        world.object.as_mut().expect("there").status = Some(status);
    };
    known(&mut world);
    world.row = None;
    let mut elsewhere = world.clone();
    world.run(usize::MAX);
    world.assert_consistent();
    world.object.as_mut().expect("there").status = None;
    assert_eq!(world.digest(), before);
    // The mark names another object, or the server is not seen: held, and nothing is done.
    elsewhere.reachable = false;
    assert_eq!(elsewhere.run(usize::MAX), 0);
    elsewhere.reachable = true;
    elsewhere.object.as_mut().expect("there").metadata.uid = Some(Uuid::from_u128(99).to_string());
    assert_eq!(elsewhere.run(usize::MAX), 0);
    elsewhere.delete(DeletionPolicy::Delete);
    assert_eq!(elsewhere.run(usize::MAX), 0, "what is not known to be ours is not destroyed either");
}

#[test]
fn a_delete_is_held_while_the_row_cannot_be_written_again_and_not_where_there_never_was_one() {
    let mut world = created(1);
    world.delete(DeletionPolicy::Delete);
    let mut facts = world.facts();
    let taken = Refusal::SlugTaken { slug: "acme".into(), holder: "customers/other".into() };
    facts.ledger = Seen::Known(LedgerFact::Refused(taken));
    assert_eq!(tenant::plan(&facts).effects, [Effect::RemoveFinalizer], "it was refused at its birth");
    facts.tenant.status = Some(TenantStatus { uuid: Some(UUID.to_string()), ..TenantStatus::default() });
    let outlook = tenant::plan(&facts);
    assert_eq!(outlook.effects, []);
    assert!(matches!(outlook.trouble(), Some(Health::Blocked(Reason::SlugConflict, _))), "{:?}", outlook.trouble());
}

#[test]
fn a_tenant_is_served_although_its_welcome_secret_is_somebody_elses() {
    let mut world = created(1);
    let mut facts = world.facts();
    facts.welcome = Seen::Known(Some(SecretFact { ours: false, hash: None }));
    facts.tenant.spec.display_name = "Acme Pumps".into();
    let outlook = tenant::plan(&facts);
    assert!(matches!(outlook.effects[..], [Effect::PublishRouting { .. }]), "{:?}", outlook.effects);
    world.welcome = None;
    facts = world.facts();
    facts.tenant.spec.display_name = "Acme Pumps".into();
    let effects = tenant::plan(&facts).effects;
    assert!(matches!(effects[..], [Effect::PublishRouting { .. }, Effect::WriteWelcome { .. }]), "{effects:?}");
}

#[test]
fn a_tenant_is_let_go_while_its_server_is_down_and_keeps_its_row() {
    let mut world = created(1);
    world.reachable = false;
    world.delete(DeletionPolicy::Retain);
    world.run(usize::MAX);
    assert_eq!(world.object, None);
    assert_eq!(world.row.as_ref().map(|row| row.state), Some(LedgerState::Retained));
    let mut world = created(1);
    world.reachable = false;
    world.delete(DeletionPolicy::Delete);
    world.run(usize::MAX);
    assert!(world.object.is_some(), "a destructive delete waits for its server");
}

#[test]
fn a_tenant_whose_database_a_restore_replaces_is_closed_left_alone_and_served_the_restored_one() {
    for state in [TenantState::Active, TenantState::Hibernated, TenantState::Suspended] {
        let mut world = created(1);
        world.spec().state = state;
        world.run(usize::MAX);
        world.restoring = true;
        // Also what is half done on the server is the restore's.
        let live = names::database(UUID);
        world.catalogue.execute(&Statement::AllowConnections { name: live.clone(), allow: false });
        let catalogue = world.catalogue.clone();
        let steps = world.clone().run(usize::MAX);
        for stop in 0..=steps {
            let mut world = world.clone();
            world.run(stop);
            world.restart();
            world.run(usize::MAX);
            assert_eq!(world.catalogue, catalogue, "{state:?}: the database is touched");
            assert_eq!(world.pooler, None);
            let shown = world.routing.as_ref().expect("its page is routed").state;
            assert!(matches!(shown, TenantState::Hibernated | TenantState::Suspended), "{shown:?}");
            let (ready, serving) = (world.say("Ready"), world.say("Serving"));
            assert_eq!(ready, ("False".into(), "Restoring".into()), "{state:?}");
            assert_eq!(serving.0, "False", "{state:?}");
        }
        world.run(usize::MAX);
        let restore = Uuid::from_u128(5);
        let swap = super::restore::statements::Swap {
            restore,
            tenant: UUID,
            object_uid: Uuid::from_u128(77),
            epoch: 2,
            schema: SCHEMA.into(),
            drop_after: world.now(),
        };
        let beside = names::beside(restore);
        world.catalogue.execute(&Statement::CreateDatabase { name: beside.clone(), template: "bare".into() });
        world.catalogue.execute(&Statement::RevokeDatabase { name: beside, from: String::new() });
        let batch = super::restore::statements::swap(&swap, &world.catalogue.clone());
        batch.statements().iter().for_each(|statement| world.catalogue.execute(statement));
        world.restoring = false;
        world.spec().state = TenantState::Active;
        let steps = world.clone().run(usize::MAX);
        for stop in 0..=steps {
            let mut world = world.clone();
            world.run(stop);
            world.restart();
            world.run(usize::MAX);
            world.assert_consistent();
            assert_eq!(world.routing.as_ref().expect("routed").incarnation, Some(restore));
            assert!(world.catalogue.databases[&live].allow_connections);
            world.delete(DeletionPolicy::Delete);
            world.run(usize::MAX);
            assert!(world.catalogue.databases.contains_key(&names::replaced(restore)), "it is kept on its own");
        }
    }
}

#[test]
fn a_suspended_tenant_has_no_login_and_no_pooler_entry_and_comes_back() {
    let mut world = created(1);
    let before = world.digest();
    world.object.as_mut().expect("there").spec.state = TenantState::Suspended;
    world.run(usize::MAX);
    assert_eq!(world.pooler, None);
    assert!(!world.catalogue.roles[&names::login(UUID, names::Slot::A)].login);
    assert_eq!(world.routing.as_ref().expect("the neutral page is routed").state, TenantState::Suspended);
    world.object.as_mut().expect("there").spec.state = TenantState::Active;
    world.run(usize::MAX);
    world.assert_consistent();
    assert_eq!(world.digest(), before);
}

#[test]
fn customers_are_served_as_before_while_the_server_is_down_and_the_operator_begins_anew() {
    let mut world = created(1);
    let before = world.digest();
    world.reachable = false;
    world.restart();
    assert_eq!(world.run(usize::MAX), 0, "something was changed without seeing the server");
    world.object.as_mut().expect("there").spec.state = TenantState::ReadOnly;
    world.run(usize::MAX);
    let entry = world.routing.clone().expect("still routed");
    assert_eq!((entry.state, entry.database.host.as_str()), (TenantState::ReadOnly, "pooler-pg-1"));
    world.object.as_mut().expect("there").spec.state = TenantState::Active;
    world.reachable = true;
    world.run(usize::MAX);
    world.assert_consistent();
    assert_eq!(world.digest(), before);
}

#[test]
fn readers_that_are_scaled_away_change_serving_and_not_ready() {
    let condition = |status: &crate::api::tenant::TenantStatus, kind: &str| {
        let found = status.conditions.iter().find(|condition| condition.type_ == kind).expect("written");
        (found.status.clone(), found.reason.clone())
    };
    let mut world = created(1);
    let ready = status::status(&world.facts(), &tenant::plan(&world.facts()), None);
    assert_eq!(condition(&ready, "Serving").0, "True");
    world.object.as_mut().expect("there").status = Some(ready);
    world.reach = Reach::NoReaders;
    let alone = status::status(&world.facts(), &tenant::plan(&world.facts()), None);
    assert_eq!(condition(&alone, "Ready").0, "True");
    assert_eq!(condition(&alone, "Serving"), ("False".to_owned(), "NoReaders".to_owned()));
    let mut new = World::new(1);
    new.reach = Reach::NoReaders;
    new.run(usize::MAX);
    let never = status::status(&new.facts(), &tenant::plan(&new.facts()), None);
    assert_eq!(condition(&never, "Ready"), ("False".to_owned(), "NoReaders".to_owned()));
}

#[test]
fn a_rotation_that_stops_anywhere_never_leaves_a_published_password_that_does_not_work() {
    let mut start = created(1);
    start.clock = 3600;
    start.ask_to_rotate("now");
    let before = start.routing.clone().expect("routed").database;
    let steps = start.clone().run(usize::MAX);
    assert!(steps >= 4, "login, pooler, binding, routing; planned {steps}");
    for stop in 0..=steps {
        let mut world = start.clone();
        for step in 0..stop {
            world.run(1);
            world.assert_served(&format!("after effect {step} of {stop}"));
        }
        world.restart();
        while world.run(1) == 1 {
            world.assert_served(&format!("stopped after {stop}"));
        }
        world.assert_consistent();
        let after = world.routing.clone().expect("routed").database;
        assert_eq!(world.slot(), names::Slot::B);
        assert_ne!(before.password, after.password);
        assert_eq!(after.rotation.as_deref(), Some("now"));
        // Whoever has read the old one from the binding may use it for a while.
        assert_eq!(world.pooler.as_ref().expect("pooled").users.len(), 2);
        world.clock += OVERLAP.as_secs();
        while world.run(1) == 1 {
            world.assert_served("while the old login goes");
        }
        assert!(!world.catalogue.roles.contains_key(&before.username), "the old login is still there");
        assert_eq!(world.pooler.as_ref().expect("pooled").users.len(), 1);
        world.assert_consistent();
    }
}

#[test]
fn a_second_rotation_waits_until_the_login_that_it_needs_has_gone() {
    let mut world = created(1);
    world.ask_to_rotate("first");
    world.run(usize::MAX);
    world.ask_to_rotate("second");
    assert_eq!(world.run(usize::MAX), 0, "the first one's old login is still in use");
    world.clock += OVERLAP.as_secs();
    world.run(usize::MAX);
    world.assert_served("after the second");
    let access = &world.routing.as_ref().expect("routed").database;
    assert_eq!((world.slot(), access.rotation.as_deref()), (names::Slot::A, Some("second")));
}

#[test]
fn a_password_is_renewed_by_its_age_and_the_time_is_known_before() {
    let mut world = created(1);
    world.spec().credentials = Some(Credentials { rotate_every: Some("1h".into()) });
    assert_eq!(world.run(usize::MAX), 0);
    assert_eq!(status::next_change(&world.facts()), Timestamp::from_second(3600).ok());
    world.clock = 3599;
    assert_eq!(world.run(usize::MAX), 0);
    world.clock = 3600;
    world.run(usize::MAX);
    assert_eq!(world.slot(), names::Slot::B);
    assert_eq!(status::next_change(&world.facts()), Timestamp::from_second(3600 + 60).ok());
}

#[test]
fn no_rotation_begins_while_the_server_does_not_answer_and_other_changes_go_on() {
    let mut world = created(1);
    let before = world.routing.clone().expect("routed").database;
    world.ask_to_rotate("now");
    world.reachable = false;
    world.spec().display_name = "Acme Pumps".into();
    world.run(usize::MAX);
    let entry = world.routing.clone().expect("routed");
    assert_eq!((entry.display_name.as_str(), &entry.database), ("Acme Pumps", &before));
    world.reachable = true;
    world.run(usize::MAX);
    world.assert_served("after the server came back");
    assert_eq!(world.slot(), names::Slot::B);
}

#[test]
fn a_suspension_in_the_middle_of_a_rotation_takes_both_logins_away() {
    let mut start = created(1);
    start.ask_to_rotate("now");
    for stop in 0..=start.clone().run(usize::MAX) {
        let mut world = start.clone();
        world.run(stop);
        world.spec().state = TenantState::Suspended;
        world.run(usize::MAX);
        assert_eq!(world.pooler, None);
        assert!(!world.catalogue.roles.values().any(|role| role.login), "after {stop}: a login is left");
        world.spec().state = TenantState::Active;
        world.clock += OVERLAP.as_secs();
        world.run(usize::MAX);
        world.assert_served(&format!("resumed, suspended after {stop}"));
    }
}

#[test]
fn a_hibernated_tenant_has_no_pooler_entry_and_wakes_at_the_pooler_before_it_is_routed() {
    let mut world = created(1);
    let before = world.digest();
    world.spec().state = TenantState::Hibernated;
    world.run(1);
    assert!(world.pooler.is_some(), "requests on their way keep their connections until the waiting page is served");
    world.run(usize::MAX);
    let entry = world.routing.clone().expect("the waiting page is routed");
    assert_eq!((&world.pooler, entry.state, entry.sleeps), (&None, TenantState::Hibernated, true));
    assert!(world.catalogue.roles[&names::login(UUID, names::Slot::A)].login, "its logins stay");
    let condition = |world: &World, kind: &str| {
        let status = status::status(&world.facts(), &tenant::plan(&world.facts()), None);
        let found = status.conditions.iter().find(|condition| condition.type_ == kind).expect("written");
        (found.status.clone(), found.reason.clone())
    };
    assert_eq!(condition(&world, "Ready"), ("True".to_owned(), "Hibernated".to_owned()));
    assert_eq!(condition(&world, "Serving").0, "False");

    world.wanted = true;
    while world.run(1) == 1 {
        let awake = world.routing.as_ref().expect("routed").state == TenantState::Active;
        assert!(!awake || world.pooler.is_some(), "routed before the pooler serves it");
    }
    world.assert_served("awake");
    assert_eq!(world.routing.as_ref().expect("routed").state, TenantState::Active);
    assert_eq!(condition(&world, "Serving").0, "True");

    world.wanted = false;
    world.run(usize::MAX);
    assert_eq!(world.pooler, None);
    world.spec().state = TenantState::Active;
    world.run(usize::MAX);
    world.assert_consistent();
    assert_eq!(world.digest(), before);
}

#[test]
fn a_trial_ends_at_its_instant_and_the_tenant_stays_ready() {
    let mut world = created(1);
    world.clock = 1000;
    world.spec().trial_ends_at = Some(Time(Timestamp::from_second(2000).expect("a small number")));
    world.run(usize::MAX);
    let condition = |world: &World, kind: &str| {
        let status = status::status(&world.facts(), &tenant::plan(&world.facts()), None);
        let found = status.conditions.iter().find(|condition| condition.type_ == kind).expect("written");
        (found.status.clone(), found.reason.clone())
    };
    assert_eq!(status::next_change(&world.facts()), Timestamp::from_second(2000).ok());
    assert_eq!(condition(&world, "SubscriptionActive").0, "True");
    world.clock = 2000;
    assert_eq!(world.run(usize::MAX), 0, "nothing has to be written for it");
    let expired = |status: &str| (status.to_owned(), "TrialExpired".to_owned());
    assert_eq!(condition(&world, "Ready"), expired("True"));
    assert_eq!(condition(&world, "Serving"), expired("False"));
    assert_eq!(condition(&world, "SubscriptionActive"), expired("False"));
}

fn conditions(world: &World) -> impl Fn(&str) -> (String, String, String) + use<> {
    let conditions = status::status(&world.facts(), &tenant::plan(&world.facts()), None).conditions;
    move |kind| {
        let found = conditions.iter().find(|condition| condition.type_ == kind).expect("written");
        (found.status.clone(), found.reason.clone(), found.message.clone())
    }
}

fn with_grace(period: &str) -> World {
    let mut world = created(1);
    world.clock = 1000;
    world.plan.billing = Some(crate::api::plan::PlanBilling { grace_period: Some(period.into()) });
    world.run(usize::MAX);
    world
}

#[test]
fn after_a_trial_the_tenant_is_served_as_before_until_the_grace_has_passed() {
    let mut world = with_grace("1h");
    world.spec().trial_ends_at = Some(Time(Timestamp::from_second(2000).expect("a small number")));
    world.run(usize::MAX);
    let published = world.routing.as_ref().expect("routed").subscription.clone();
    assert_eq!(
        published.grace_until.as_deref(),
        Some("1970-01-01T01:33:20Z"),
        "known before, so that the app needs nobody"
    );
    assert_eq!(status::next_change(&world.facts()), Timestamp::from_second(2000).ok());
    world.clock = 2000;
    assert_eq!(world.run(usize::MAX), 0, "nothing has to be written for it");
    let said = conditions(&world);
    let (value, reason, message) = said("SubscriptionActive");
    assert_eq!((value.as_str(), reason.as_str()), ("False", "TrialExpired"));
    assert!(message.contains("as before until 1970-01-01T01:33:20Z"), "{message}");
    assert_eq!((said("Serving").0.as_str(), said("Ready").0.as_str()), ("True", "True"));
    assert!(said("Ready").2.contains("until 1970-01-01T01:33:20Z"), "{}", said("Ready").2);
    assert_eq!(status::next_change(&world.facts()), Timestamp::from_second(5600).ok());
    world.clock = 5600;
    assert_eq!(world.run(usize::MAX), 0, "nor for the end of the grace");
    let said = conditions(&world);
    assert_eq!((said("Serving").0.as_str(), said("Serving").1.as_str()), ("False", "TrialExpired"));
    assert_eq!(said("Ready").0, "True");
}

#[test]
fn a_status_that_lapses_by_itself_has_its_grace_from_when_it_is_there() {
    let mut world = with_grace("1h");
    for (since, expected) in [(Some(500), Some("1970-01-01T01:08:20Z")), (None, None)] {
        let row = world.row.as_mut().expect("registered");
        row.subscription.status = "unpaid".into();
        row.subscription_since = since.map(|since| Timestamp::from_second(since).expect("a small number"));
        world.run(usize::MAX);
        let published = world.routing.as_ref().expect("routed").subscription.clone();
        assert_eq!(published.grace_until.as_deref(), expected);
        assert_eq!(conditions(&world)("Serving").0 == "True", expected.is_some());
        assert_eq!(conditions(&world)("SubscriptionActive").0, "False");
    }
    world.row.as_mut().expect("registered").subscription.status = "active".into();
    world.run(usize::MAX);
    assert_eq!(
        world.routing.as_ref().expect("routed").subscription.grace_until,
        None,
        "nothing has lapsed or is to lapse"
    );
    world.plan.billing = None;
    world.row.as_mut().expect("registered").subscription.status = "unpaid".into();
    world.run(usize::MAX);
    assert_eq!(conditions(&world)("Serving").0, "False", "without a grace period there is none");
}

#[test]
fn a_subscriptions_own_trial_counts_in_place_of_the_objects() {
    let mut world = created(1);
    world.clock = 1000;
    let at = |second: i64| Timestamp::from_second(second).expect("a small number");
    world.spec().trial_ends_at = Some(Time(at(900)));
    world.run(usize::MAX);
    assert_eq!(conditions(&world)("SubscriptionActive").0, "False");
    let trial = |world: &mut World, ends: Option<i64>| {
        let row = world.row.as_mut().expect("registered");
        row.subscription.status = "trialing".into();
        row.subscription.trial_ends_at = ends.map(|end| at(end).to_string());
        world.run(usize::MAX);
        world.routing.as_ref().expect("routed").subscription.trial_ends_at.clone()
    };
    assert_eq!(trial(&mut world, None), None, "Stripe says what comes after it");
    assert_eq!(conditions(&world)("SubscriptionActive").0, "True");
    assert_eq!(trial(&mut world, Some(2000)), Some(at(2000).to_string()));
    assert_eq!(trial(&mut world, Some(800)), Some(at(900).to_string()), "the longer one");
    assert_eq!(conditions(&world)("SubscriptionActive").0, "False");
}

#[test]
fn a_smaller_plan_shrinks_the_pooler_first_and_the_database_once_its_sessions_fit() {
    let limit = |world: &World| world.catalogue.databases[&names::database(UUID)].connection_limit;
    let mut world = created(1);
    world.plan.database.max_connections = 12;
    world.plan.database.pool_size = 4;
    world.sessions = 20;
    world.run(1);
    assert_eq!((world.pooler.as_ref().expect("pooled").max_db_connections, limit(&world)), (4, 25));
    world.run(usize::MAX);
    assert_eq!(limit(&world), 25, "sessions are open that would not be let in again");
    world.assert_consistent();
    world.sessions = 9;
    world.run(usize::MAX);
    assert_eq!(limit(&world), 12);
    world.plan.database.max_connections = 40;
    world.run(1);
    assert_eq!(
        (world.pooler.as_ref().expect("pooled").max_db_connections, limit(&world)),
        (4, 40),
        "a larger one the other way round"
    );
    world.run(usize::MAX);
    world.assert_consistent();
}

#[test]
fn a_larger_plan_gets_its_connections_only_where_the_server_has_them_left() {
    let limit = |world: &World| world.catalogue.databases[&names::database(UUID)].connection_limit;
    let mut world = created(1);
    world.plan.database.max_connections = 40;
    world.plan.features = vec!["api".into()];
    world.promised = (115, 100);
    world.run(usize::MAX);
    assert_eq!((limit(&world), world.pooler.as_ref().expect("pooled").max_db_connections), (25, 11));
    assert_eq!(world.routing.as_ref().expect("routed").plan.features, ["api"], "the rest of the plan is in force");
    let outlook = tenant::plan(&world.facts());
    let Some(Health::Blocked(Reason::CapacityExceeded, why)) = outlook.trouble() else { panic!("{outlook:?}") };
    assert!(why.contains("promised 75 of the 100") && why.contains("asks for 40 more"), "{why}");
    world.ask_to_rotate("now");
    world.run(usize::MAX);
    world.assert_served("rotated although its plan is held");
    assert_eq!(world.slot(), names::Slot::B);
    world.catalogue.databases.get_mut(&names::database(UUID)).expect("there").connection_limit = -1;
    world.promised = (100, 100);
    world.run(usize::MAX);
    assert_eq!(limit(&world), 40);
    // Over the budget, but nothing is asked for that was not granted: what somebody lowered on the server is put right.
    world.promised = (115, 100);
    world.catalogue.databases.get_mut(&names::database(UUID)).expect("there").connection_limit = 5;
    world.run(usize::MAX);
    assert_eq!(limit(&world), 40);
}

fn dedicated() -> World {
    let mut world = World::new(1);
    world.plan.workers.mode = WorkerMode::Dedicated;
    world
}

fn word(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

#[test]
fn the_shared_pool_does_the_jobs_until_workers_of_the_tenants_own_are_there() {
    let mut world = dedicated();
    world.run(usize::MAX);
    assert!(world.own.deployment.is_some() && world.routing.is_some());
    assert_eq!(world.pool(), WorkerPool::Shared);
    assert_eq!(world.say("WorkersReady"), word("False", "Provisioning"));
    assert_eq!(
        (world.say("Ready").0, world.say("Serving").0),
        ("False".into(), "True".into()),
        "asked for, not in place"
    );
    world.set_available(1);
    world.run(usize::MAX);
    assert_eq!(world.pool(), WorkerPool::Dedicated);
    assert_eq!((world.say("WorkersReady"), world.say("Ready").0), (word("True", "Active"), "True".into()));
    // What they are made from changes.
    world.own.template = Some(Arc::new(serde_json::json!({ "spec": { "containers": [{ "image": "new" }] } })));
    assert_eq!(world.run(usize::MAX), 1);
    world.plan.workers.max_processes = 3;
    assert_eq!(world.run(usize::MAX), 2, "the Deployment and the routing entry");
}

#[test]
fn own_workers_that_are_missed_leave_the_jobs_to_the_shared_pool_and_the_tenant_ready() {
    let mut world = dedicated();
    world.run(usize::MAX);
    world.set_available(1);
    world.run(usize::MAX);
    assert_eq!(world.say("Ready").0, "True");
    world.clock = 100;
    world.set_available(0);
    assert_eq!(world.run(usize::MAX), 0, "a pod that starts anew is waited for");
    assert_eq!((world.say("WorkersReady"), world.say("Ready").0), (word("False", "NoWorkers"), "True".into()));
    assert_eq!(status::next_change(&world.facts()), Timestamp::from_second(160).ok());
    world.clock = 160;
    world.run(usize::MAX);
    assert_eq!(world.pool(), WorkerPool::Shared);
    assert_eq!((world.say("WorkersReady"), world.say("Ready").0), (word("False", "NoWorkers"), "True".into()));
    assert_eq!(status::next_change(&world.facts()), None);
    world.set_available(2);
    world.run(usize::MAX);
    assert_eq!((world.pool(), world.say("WorkersReady")), (WorkerPool::Dedicated, word("True", "Active")));
    // Scaled to none, because there is nothing to do: nobody is missed, and nobody waits for a minute.
    world.own.deployment.as_mut().expect("there").replicas = 0;
    world.set_available(0);
    world.run(usize::MAX);
    assert_eq!((world.pool(), world.say("WorkersReady")), (WorkerPool::Shared, word("True", "Active")));
}

#[test]
fn a_tenant_that_sleeps_or_is_suspended_has_no_pods_and_is_ready_while_they_start_again() {
    for (state, reason) in [(TenantState::Suspended, "Suspended"), (TenantState::Hibernated, "Hibernated")] {
        let mut world = dedicated();
        world.run(usize::MAX);
        world.set_available(1);
        world.run(usize::MAX);
        world.say("Ready");
        world.spec().state = state;
        world.run(usize::MAX);
        assert_eq!(world.own.deployment.as_ref().map(|there| there.replicas), Some(0));
        assert_eq!((world.pool(), world.say("WorkersReady")), (WorkerPool::Shared, word("True", reason)));
        world.spec().state = TenantState::Active;
        world.run(usize::MAX);
        assert_eq!(world.own.deployment.as_ref().map(|there| there.replicas), Some(1));
        assert_eq!((world.say("WorkersReady"), world.say("Ready").0), (word("False", "NoWorkers"), "True".into()));
        world.set_available(1);
        world.run(usize::MAX);
        assert_eq!(world.pool(), WorkerPool::Dedicated);
    }
}

#[test]
fn own_workers_go_after_every_reader_knows_that_the_shared_pool_serves_the_tenant_wherever_that_stops() {
    let mut start = dedicated();
    start.run(usize::MAX);
    start.set_available(1);
    start.run(usize::MAX);
    let shared = created(1).digest();
    start.plan.workers.mode = WorkerMode::Shared;
    let first = tenant::plan(&start.facts()).effects;
    assert!(matches!(first[..], [Effect::PublishRouting { .. }]), "who reads it is waited for in between: {first:?}");
    let steps = start.clone().run(usize::MAX);
    assert_eq!(steps, 2, "the routing entry, and then the Deployment");
    for stop in 0..=steps {
        let mut world = start.clone();
        world.run(stop);
        world.restart();
        // The assertion is where the effect is executed.
        world.run(usize::MAX);
        assert_eq!(world.say("WorkersReady"), word("True", "Active"));
        world.object.as_mut().expect("there").status = None;
        assert_eq!(world.digest(), shared, "after {stop}");
    }
    let mut behind = start.clone();
    behind.run(1);
    behind.reach = Reach::Behind { readers: vec!["app-1".into()], waited: std::time::Duration::ZERO };
    assert_eq!(behind.run(usize::MAX), 0, "app-1 still sends jobs to them");
    assert!(behind.own.deployment.is_some());
}

#[test]
fn a_delete_takes_own_workers_away_before_the_pooler_and_a_pool_that_is_not_there_is_no_trouble() {
    let mut world = dedicated();
    world.run(usize::MAX);
    world.set_available(1);
    world.run(usize::MAX);
    world.delete(DeletionPolicy::Retain);
    let mut seen = false;
    while world.run(1) == 1 {
        let gone = world.own.deployment.is_none();
        assert!(gone || world.pooler.is_some(), "workers without a database");
        seen |= gone && world.pooler.is_some();
    }
    assert!(seen && world.object.is_none());
    let mut without = dedicated();
    without.own.template = None;
    without.run(usize::MAX);
    assert_eq!((without.own.deployment.is_none(), without.say("Ready").0), (true, "True".into()));
}

#[test]
fn a_host_that_is_lost_is_withdrawn_although_the_plan_or_the_server_is_missing() {
    let mut world = World::new(1);
    world.run(usize::MAX);
    let entry = world.routing.as_mut().expect("routed");
    entry.hosts.push("gone.acme.test".into());
    entry.primary_host = "gone.acme.test".into();
    let (mut planless, mut serverless) = (world.facts(), world.facts());
    planless.plan = None;
    serverless.servers.clear();
    for facts in [planless, serverless] {
        let outlook = tenant::plan(&facts);
        let [Effect::PublishRouting { entry }] = outlook.effects.as_slice() else { panic!("{:?}", outlook.effects) };
        assert_eq!(entry.hosts, ["acme.example.com"]);
        assert_eq!(entry.primary_host, "acme.example.com");
        let mut after = facts.clone();
        after.routing.entry = Some((**entry).clone());
        assert_eq!(tenant::plan(&after).effects, [], "and then everything stays as it was");
    }
}
