//! Over a catalogue in memory: wherever the operator is stopped, and whatever people do meanwhile, the live database is either
//! what it was or what was restored, with what it was beside it.

use std::collections::BTreeMap;

use super::*;
use crate::api::tenant_restore::{TenantRestoreSpec, TenantRestoreStatus};
use crate::desired::catalogue::Role;
use crate::desired::database::Mark;
use crate::desired::sql::Statement;

const TENANT: Uuid = Uuid::from_u128(1);
const OBJECT: Uuid = Uuid::from_u128(2);
const RESTORE: Uuid = Uuid::from_u128(3);
const LIVE_SCHEMA: &str = "0006_live";

/// Everything outside the operator.
#[derive(Clone, Debug)]
struct World {
    object: TenantRestore,
    catalogue: Catalogue,
    /// What is in each database, which goes with a rename.
    contents: BTreeMap<String, &'static str>,
    password: Option<String>,
    job: JobFact,
    jobs_made: usize,
    /// What the backup's schema is.
    schema: &'static str,
    /// The Tenant's entries are out.
    held: bool,
    noted: Vec<ReplacedMark>,
    is_gone: bool,
}

impl World {
    fn new(schema: &'static str) -> Self {
        let mut object = TenantRestore::new("back", TenantRestoreSpec::default());
        object.metadata.namespace = Some("customers".into());
        object.metadata.uid = Some(RESTORE.to_string());
        let mut world = Self {
            object,
            catalogue: Catalogue::default(),
            contents: BTreeMap::new(),
            password: None,
            job: JobFact::Absent,
            jobs_made: 0,
            schema,
            held: false,
            noted: Vec::new(),
            is_gone: false,
        };
        let live = names::database(TENANT);
        let mark = Mark { uuid: TENANT, object_uid: OBJECT, epoch: 1, schema: LIVE_SCHEMA.into(), restore: None };
        for statement in [
            Statement::CreateDatabase { name: live.clone(), template: "t".into() },
            Statement::RevokeDatabase { name: live.clone(), from: String::new() },
            Statement::CommentDatabase { name: live.clone(), comment: mark.text() },
            Statement::GrantDatabase { name: live.clone(), privileges: vec!["CONNECT"], to: live.clone() },
            Statement::AllowConnections { name: live.clone(), allow: true },
        ] {
            world.statement(&statement);
        }
        world.contents.insert(live, "live");
        world
    }

    fn statement(&mut self, statement: &Statement) {
        match statement {
            Statement::RenameDatabase { from, to } => {
                assert!(!self.catalogue.databases.contains_key(to), "{to} is there already");
                assert!(!self.catalogue.databases[from].allow_connections, "{from} is open while it is renamed");
                if let Some(content) = self.contents.remove(from) {
                    self.contents.insert(to.clone(), content);
                }
            }
            Statement::DropDatabase { name } => {
                assert_ne!(self.contents.remove(name), Some("live"), "the live data is dropped: {name}");
            }
            Statement::AllowConnections { name, allow: true } => {
                let grants = &self.catalogue.databases[name].grants;
                assert!(!grants.contains_key(""), "{name} is opened to PUBLIC");
            }
            Statement::DropRole { name } => {
                let granted = |(_, database): (_, &Database)| database.grants.contains_key(name);
                assert!(!self.catalogue.databases.iter().any(granted), "{name} has a right on a database");
            }
            _ => {}
        }
        self.catalogue.execute(statement);
    }

    fn facts(&self) -> Facts {
        let target = Target {
            uuid: TENANT,
            object_uid: OBJECT,
            server: "pg-1".into(),
            quarantine: SignedDuration::from_hours(168),
        };
        Facts {
            object: self.object.clone(),
            now: Timestamp::UNIX_EPOCH,
            epoch: 7,
            whose: if self.is_gone { Whose::Nobody("it is gone".into()) } else { Whose::Known(target) },
            first: None,
            catalogue: Seen::Known(self.catalogue.clone()),
            bare: Some("bare".into()),
            password: self.password.clone(),
            job: self.job.clone(),
            closed: self.held,
            migration_failed: None,
        }
    }

    fn run(&mut self, batch: &Batch) {
        batch.statements().iter().for_each(|statement| self.statement(statement));
    }

    fn execute(&mut self, effect: &Effect) {
        match effect {
            Effect::Sql(batch) => self.run(batch),
            Effect::Swap(batch) => {
                assert!(self.object.spec.approve && !self.object.spec.abort, "swapped without approval");
                self.run(batch);
            }
            Effect::WriteSecret => self.password = Some("secret".into()),
            Effect::CreateJob => {
                if self.job == JobFact::Absent {
                    self.jobs_made += 1;
                    self.job = JobFact::Running;
                }
            }
            Effect::RemoveObjects => (self.password, self.job) = (None, JobFact::Absent),
            Effect::Migrate(version) => {
                assert!(self.catalogue.databases[&names::beside(RESTORE)].allow_connections);
                assert_eq!(version, "0006");
                self.run(&statements::seal(RESTORE, TENANT, LIVE_SCHEMA));
            }
            Effect::Note(mark) => {
                if !self.noted.contains(mark) {
                    self.noted.push(mark.clone());
                }
            }
        }
    }

    /// As the Job ends.
    fn fill(&mut self) {
        let name = names::beside(RESTORE);
        let role: &Role = &self.catalogue.roles[&name];
        assert!(role.login && self.catalogue.databases[&name].allow_connections, "the Job cannot get in");
        self.contents.insert(name, "restored");
        let restored = Restored { backup: "b".into(), schema: self.schema.into(), rows: 5, ..Restored::default() };
        let report = RestoreReport { restore: RESTORE, restored: Some(restored), ..RestoreReport::default() };
        self.job = JobFact::Ended(Some(report));
    }

    fn say(&mut self, outlook: &Outlook) {
        let status = self.object.status.get_or_insert_with(TenantRestoreStatus::default);
        status.phase = outlook.phase;
        if let Some(restored) = &outlook.restored {
            status.rows = Some(restored.rows);
        }
    }

    fn phase(&self) -> RestorePhase {
        self.object.status.as_ref().map(|status| status.phase).unwrap_or_default()
    }

    /// Steps of an operator that is stopped after `most` writes; the status is one. Returns how many there were.
    fn work(&mut self, most: usize) -> usize {
        let mut count = 0;
        for _ in 0..60 {
            if self.phase().is_over() {
                for batch in statements::remove(RESTORE, &self.catalogue.clone()) {
                    if count == most {
                        return count;
                    }
                    self.run(&batch);
                    count += 1;
                }
                (self.password, self.job, self.held) = (None, JobFact::Absent, false);
                return count;
            }
            let outlook = plan(&self.facts());
            self.held = outlook.holds;
            for effect in &outlook.effects {
                if count == most {
                    return count;
                }
                self.execute(effect);
                count += 1;
                if self.job == JobFact::Running {
                    self.fill();
                }
            }
            if count == most {
                return count;
            }
            let before = self.object.status.clone();
            self.say(&outlook);
            count += usize::from(before != self.object.status);
            let rests = outlook.effects.is_empty() && before == self.object.status && !outlook.holds;
            if rests && !self.phase().is_over() {
                return count;
            }
        }
        panic!("no end of it: {:?}", plan(&self.facts()));
    }

    fn live(&self) -> &str {
        self.contents[&names::database(TENANT)]
    }

    /// Nothing of it is left but what it swapped.
    fn assert_clean(&self) {
        assert!(!self.catalogue.databases.contains_key(&names::beside(RESTORE)), "{:?}", self.contents);
        assert!(self.catalogue.roles.is_empty(), "{:?}", self.catalogue.roles);
        assert_eq!((self.password.clone(), self.job.clone()), (None, JobFact::Absent));
        assert!(self.jobs_made <= 1, "{} Jobs", self.jobs_made);
    }

    fn assert_swapped(&self) {
        assert_eq!((self.phase(), self.live()), (RestorePhase::Done, "restored"));
        let replaced = names::replaced(RESTORE);
        assert_eq!(self.contents[&replaced], "live");
        assert!(!self.catalogue.databases[&replaced].allow_connections);
        assert!(self.catalogue.databases[&replaced].grants.is_empty());
        let mark = mark_of(&self.catalogue.databases[&names::database(TENANT)]).unwrap();
        assert_eq!((mark.uuid, mark.object_uid, mark.restore), (TENANT, OBJECT, Some(RESTORE)));
        assert!(mark.schema.as_str() >= LIVE_SCHEMA, "{mark:?}");
        assert_eq!(self.noted.len(), 1);
        assert_eq!(self.noted[0].drop_after, Timestamp::UNIX_EPOCH + SignedDuration::from_hours(168));
        self.assert_clean();
    }
}

#[test]
fn it_waits_for_approval_and_the_live_database_is_untouched_until_then() {
    for schema in ["0004_old", LIVE_SCHEMA, "0009_new"] {
        let mut world = World::new(schema);
        let before = world.catalogue.databases[&names::database(TENANT)].clone();
        world.work(usize::MAX);
        assert_eq!((world.phase(), world.live()), (RestorePhase::AwaitingApproval, "live"));
        assert_eq!(world.catalogue.databases[&names::database(TENANT)], before);
        assert!(world.catalogue.roles.is_empty(), "the login is not needed any more");
        assert_eq!(world.contents[&names::beside(RESTORE)], "restored");
        world.object.spec.approve = true;
        world.work(usize::MAX);
        world.assert_swapped();
    }
}

#[test]
fn an_operator_that_is_stopped_after_any_write_is_followed_by_one_that_ends_it() {
    for schema in ["0004_old", LIVE_SCHEMA] {
        let mut world = World::new(schema);
        world.object.spec.approve = true;
        let all = world.clone().work(usize::MAX);
        assert!(all >= 14, "{all} writes");
        for most in 0..=all {
            let mut world = world.clone();
            world.work(most);
            world.held = false;
            world.work(usize::MAX);
            world.assert_swapped();
        }
    }
}

#[test]
fn whatever_ends_it_before_the_swap_leaves_the_live_database_and_nothing_else() {
    let mut world = World::new("0004_old");
    world.object.spec.approve = true;
    let all = world.clone().work(usize::MAX);
    for most in 0..=all {
        for (end, expected) in [
            ((|world| world.object.spec.abort = true) as fn(&mut World), RestorePhase::Aborted),
            (|world| world.is_gone = true, RestorePhase::Failed),
        ] {
            let mut world = world.clone();
            world.work(most);
            let swapped = world.live() == "restored";
            if swapped && expected == RestorePhase::Failed {
                // A Tenant that goes after that takes what it has with it.
                continue;
            }
            end(&mut world);
            world.work(usize::MAX);
            if swapped {
                world.assert_swapped();
            } else {
                assert_eq!((world.phase(), world.live()), (expected, "live"), "after {most} writes");
                world.assert_clean();
                assert!(!world.held);
            }
        }
    }
}

#[test]
fn a_job_that_failed_or_vanished_ends_it() {
    for job in [
        JobFact::Absent,
        JobFact::Ended(None),
        JobFact::Ended(Some(RestoreReport { error: Some("it is damaged".into()), ..RestoreReport::default() })),
    ] {
        let mut world = World::new(LIVE_SCHEMA);
        world.object.spec.approve = true;
        while world.jobs_made == 0 {
            let outlook = plan(&world.facts());
            outlook.effects.iter().for_each(|effect| world.execute(effect));
            world.say(&outlook);
        }
        let outlook = plan(&world.facts());
        world.say(&outlook);
        assert_eq!(world.phase(), RestorePhase::Restoring);
        world.job = job;
        world.work(usize::MAX);
        assert_eq!((world.phase(), world.live()), (RestorePhase::Failed, "live"));
        world.assert_clean();
    }
}

#[test]
fn a_database_that_was_lost_is_brought_back() {
    let mut world = World::new(LIVE_SCHEMA);
    world.catalogue.databases.clear();
    world.contents.clear();
    world.object.spec.approve = true;
    world.work(usize::MAX);
    assert_eq!((world.phase(), world.live()), (RestorePhase::Done, "restored"));
    world.assert_clean();
}

#[test]
fn what_is_not_ours_is_not_touched() {
    let mut world = World::new(LIVE_SCHEMA);
    world.catalogue.databases.get_mut(&names::database(TENANT)).unwrap().comment = Some("somebody's".into());
    let before = world.catalogue.clone();
    world.work(usize::MAX);
    assert_eq!((world.phase(), &world.catalogue), (RestorePhase::Failed, &before));

    let mut world = World::new(LIVE_SCHEMA);
    let beside = Database { comment: Some("somebody's".into()), ..Database::default() };
    world.catalogue.databases.insert(names::beside(RESTORE), beside.clone());
    world.work(usize::MAX);
    assert_eq!(world.phase(), RestorePhase::Failed);
    assert_eq!(world.catalogue.databases[&names::beside(RESTORE)], beside);
}

#[test]
fn another_tenants_backup_is_refused_unless_cloning_is_asked_for() {
    let mut world = World::new(LIVE_SCHEMA);
    world.object.spec.source_tenant = Some(Uuid::from_u128(9).to_string());
    let outlook = plan(&world.facts());
    assert_eq!((outlook.phase, outlook.reason), (RestorePhase::Failed, Reason::InvalidSpec));
    world.object.spec.clone = true;
    world.work(usize::MAX);
    assert_eq!(world.phase(), RestorePhase::AwaitingApproval);
    // Its own is its own.
    let mut world = World::new(LIVE_SCHEMA);
    world.object.spec.source_tenant = Some(TENANT.to_string());
    world.work(usize::MAX);
    assert_eq!(world.phase(), RestorePhase::AwaitingApproval);
}

#[test]
fn one_at_a_time() {
    let world = World::new(LIVE_SCHEMA);
    let outlook = plan(&Facts { first: Some("earlier".into()), ..world.facts() });
    assert_eq!((outlook.phase, outlook.effects.len()), (RestorePhase::Pending, 0));
    assert!(outlook.message.contains("waits for TenantRestore earlier"));
}

#[test]
fn a_server_that_is_away_is_no_reason_to_begin_or_to_end_anything() {
    let mut world = World::new(LIVE_SCHEMA);
    world.object.spec.approve = true;
    for phase in [RestorePhase::Pending, RestorePhase::Restoring, RestorePhase::Swapping] {
        for abort in [false, true] {
            world.object.spec.abort = abort;
            world.object.status = Some(TenantRestoreStatus { phase, ..TenantRestoreStatus::default() });
            let outlook = plan(&Facts { catalogue: Seen::Unreachable("no route".into()), ..world.facts() });
            assert_eq!((outlook.phase, outlook.effects.len()), (phase, 0));
            assert_eq!(outlook.holds, phase == RestorePhase::Swapping, "whether it was swapped is not known");
        }
    }
}

#[test]
fn a_migration_that_fails_ends_it_with_what_the_server_said() {
    let mut world = World::new("0004_old");
    let sealed = statements::seal(RESTORE, TENANT, "0004_old");
    world.statement(&Statement::CreateDatabase { name: names::beside(RESTORE), template: "bare".into() });
    world.run(&sealed);
    let outlook = plan(&Facts { migration_failed: Some("line 3: no".into()), ..world.facts() });
    assert_eq!((outlook.phase, outlook.reason), (RestorePhase::Failed, Reason::MigrationFailed));
    assert!(outlook.message.contains("line 3: no"), "{}", outlook.message);
}

#[test]
fn a_replaced_database_is_dropped_when_its_mark_says_so_and_not_before() {
    let mut world = World::new(LIVE_SCHEMA);
    world.object.spec.approve = true;
    world.work(usize::MAX);
    let name = names::replaced(RESTORE);
    let drop = |hours| {
        let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(hours);
        statements::drop_replaced(RESTORE, TENANT, now, &world.catalogue)
    };
    assert_eq!(drop(167), None);
    let batches = drop(168).unwrap();
    assert!(matches!(batches[2].statements(), [Statement::DropDatabase { name: dropped }] if *dropped == name));
    assert_eq!(marks::replaced(&world.catalogue).len(), 1);
    // Somebody gave it another name, or another text: it stays.
    let now = Timestamp::UNIX_EPOCH + SignedDuration::from_hours(999);
    let mut other = world.catalogue.clone();
    other.databases.get_mut(&name).unwrap().comment = Some("keep".into());
    assert_eq!(statements::drop_replaced(RESTORE, TENANT, now, &other), None);
    assert_eq!(statements::drop_replaced(RESTORE, Uuid::from_u128(99), now, &world.catalogue), None);
}
