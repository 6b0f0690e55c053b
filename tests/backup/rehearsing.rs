//! What the Jobs of drills and of last backups do, and what they tell.

use std::sync::Mutex;

use clap::Parser;
use maintenance_os::api::backup::BackupReport;
use maintenance_os::backup::keys::Part;
use maintenance_os::backup::manifest::TenantFacts;
use maintenance_os::backup::retention::Keep;
use maintenance_os::backup::{Wanted, take_all, take_each};
use maintenance_os::desired::{names, scram, scratch};
use maintenance_os::settings::{Cli, Role};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::house::{House, eventually, id};

/// Runs `backup` as a Job does, and returns how it ended and what it told.
async fn run(house: &House, command: &[&str], tenant: Uuid) -> (anyhow::Result<()>, Vec<BackupReport>) {
    let report = tempfile::NamedTempFile::new().unwrap();
    let told = report.path().to_str().unwrap().to_owned();
    let place = house.arguments();
    let rest = ["--tenant".to_owned(), tenant.to_string(), "--report".to_owned(), told];
    let words = ["maintenance-os", "backup"].iter().chain(command).map(|word| (*word).to_owned());
    let arguments = Cli::try_parse_from(words.chain(place).chain(rest)).unwrap_or_else(|error| panic!("{error}"));
    let Role::Backup(settings) = arguments.role else { panic!("another role") };
    let ended = maintenance_os::backup::run(*settings, CancellationToken::new()).await;
    (ended, serde_json::from_slice(&std::fs::read(report.path()).unwrap()).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_restores_the_newest_backup_and_tells_its_name_and_what_fails_is_told_too() {
    let mut house = House::new().await;
    let acme = house.tenant(0);
    let (ended, told) = run(&house, &["rehearse"], acme.uuid).await;
    assert!(format!("{:#}", ended.unwrap_err()).contains("has no backup"));
    assert!(told[0].rehearsal && told[0].error.as_deref().is_some_and(|why| why.contains("has no backup")), "{told:?}");

    house.rows_in(0, "INSERT INTO assets (name) VALUES ('pump')").await;
    let manifest = house.taker().take(&acme).await.unwrap();
    let (ended, told) = run(&house, &["rehearse"], acme.uuid).await;
    ended.unwrap();
    let [BackupReport { rehearsal: true, restored: Some(restored), error: None, taken: None, tenant, .. }] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((restored.name.as_str(), *tenant), (manifest.id.as_str(), acme.uuid));
    assert!(restored.milliseconds > 0);

    // One byte in the middle, which the manifest does not know of.
    let file = house.file(acme.uuid, id(&manifest), Part::Dump);
    let mut bytes = std::fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let (ended, told) = run(&house, &["rehearse"], acme.uuid).await;
    assert!(ended.is_err());
    assert!(told[0].rehearsal && told[0].restored.is_none() && told[0].error.is_some(), "{told:?}");
    assert!(house.fleet.catalogue().await.databases.keys().all(|name| scratch::made(name).is_none()));
}

/// Names of backups are ordered by the second; within one, by chance.
async fn another_second() {
    let second = jiff::Timestamp::now().as_second();
    eventually("another second", async || jiff::Timestamp::now().as_second() > second).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_backup_is_taken_and_restored_in_one_go_and_older_ones_stay() {
    let house = House::new().await;
    let globex = house.tenant(1);
    let before = house.taker().take(&globex).await.unwrap();
    another_second().await;
    let command = ["last", "--name", "customers/globex", "--password", "of the backup"];
    let (ended, told) = run(&house, &command, globex.uuid).await;
    ended.unwrap();
    let [BackupReport { taken: Some(taken), rehearsal: false, .. }, BackupReport { restored: Some(restored), .. }] =
        &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!(taken.name, restored.name, "it is the one that was taken that was restored");
    assert_eq!(house.good(globex.uuid).await, [before.id, taken.name.clone()]);
    // A backup of the same night that keeps one only: it keeps the last one before the delete as well.
    let one = Keep { daily: 1, weekly: 0, monthly: 0 };
    another_second().await;
    let later = take_all(&house.taker(), std::slice::from_ref(&globex), one).await.remove(0).taken.unwrap();
    assert_eq!(house.good(globex.uuid).await, [taken.name.clone(), later.id]);
    // Whoever cannot take one restores none either.
    let command = ["last", "--password", "another"];
    let (ended, told) = run(&house, &command, globex.uuid).await;
    assert!(ended.is_err());
    assert!(told.len() == 1 && told[0].error.is_some() && !told[0].rehearsal, "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_backups_one_that_fails_is_tried_again_hides_no_other_and_keeps_what_nobody_counted() {
    let house = House::new().await;
    let (acme, globex) = (house.tenant(0), house.tenant(1));
    let before = house.taker().take(&acme).await.unwrap();
    let gone = TenantFacts { uuid: Uuid::new_v4(), name: "customers/gone".into() };
    let one = Some(Keep { daily: 1, weekly: 0, monthly: 0 });
    let wanted = [(&gone, one), (&acme, None), (&globex, one)];
    let wanted = wanted.map(|(tenant, keep)| Wanted { tenant: tenant.clone(), keep });
    let told = Mutex::new(Vec::new());
    let outcomes = take_each(&house.taker(), &wanted, &|outcome| {
        told.lock().unwrap().push((outcome.tenant.uuid, outcome.taken.is_ok()));
    })
    .await;
    let taken = |tenant: &TenantFacts| {
        let of: Vec<_> = outcomes.iter().filter(|outcome| outcome.tenant == *tenant).collect();
        assert_eq!(of.len(), 1, "one word for each");
        of[0].taken.is_ok()
    };
    assert!(taken(&acme) && taken(&globex) && !taken(&gone));
    let told = told.into_inner().unwrap();
    assert_eq!(told.iter().filter(|told| **told == (gone.uuid, false)).count(), 2, "{told:?}");
    assert_eq!(told.len(), 4, "{told:?}");
    assert_eq!(house.good(acme.uuid).await.len(), 2, "of a tenant whose plan is not there nothing is removed");
    assert!(house.good(acme.uuid).await.contains(&before.id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rehearsal_that_is_stopped_leaves_nothing_and_one_that_was_killed_is_cleared_by_the_next() {
    let mut house = House::new().await;
    let acme = house.tenant(0);
    let manifest = house.taker().take(&acme).await.unwrap();
    let stopped = house.drill();
    stopped.stop.cancel();
    let error = stopped.restore(&house.bucket, acme.uuid, id(&manifest), &manifest).await.unwrap_err();
    assert!(format!("{error:#}").contains("it was stopped"), "{error:#}");
    let left = async |house: &mut House| {
        let catalogue = house.fleet.catalogue().await;
        catalogue.databases.keys().filter(|name| scratch::made(name).is_some()).cloned().collect::<Vec<_>>()
    };
    assert_eq!(left(&mut house).await, Vec::<String>::new());
    // An hour ago; one of another tenant may still be at work, and so may one that somebody is in.
    let ago = jiff::Timestamp::now().as_second() - 3600;
    let of = |tenant: Uuid, random: u128| scratch::name(ago, &scratch::id(tenant, Uuid::from_u128(random << 120)));
    let names = [of(acme.uuid, 1), of(house.tenant(1).uuid, 2), of(acme.uuid, 3)];
    for name in &names {
        for batch in scratch::create(name, &scram::verifier("p"), names::PROVISIONER) {
            house.fleet.run(&batch).await;
        }
    }
    let inside = house.fleet.instance.superuser(&names[2]).await;
    house.drill().restore(&house.bucket, acme.uuid, id(&manifest), &manifest).await.unwrap();
    let mut expected = vec![names[1].clone(), names[2].clone()];
    expected.sort();
    assert_eq!(left(&mut house).await, expected);
    drop(inside);
}
