//! The central database: lost, and had back from its backup and from the servers' marks.

use std::collections::BTreeMap;
use std::process::Stdio;

use clap::Parser;
use maintenance_os::api::tenant::TenantState;
use maintenance_os::backup::keys::{self, Part};
use maintenance_os::backup::programs::{self, Programs};
use maintenance_os::backup::server::Login;
use maintenance_os::backup::verify;
use maintenance_os::central::{Central, DATABASE, Marked, Registration};
use maintenance_os::desired::names;
use maintenance_os::settings::{Cli, Role};
use tokio::io::AsyncWriteExt;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::house::{House, id};

fn registration<'a>(name: &'a str, uid: Uuid, metadata: &'a BTreeMap<String, String>) -> Registration<'a> {
    Registration {
        namespace: "customers",
        name,
        object_uid: uid,
        slug: name,
        display_name: name,
        plan: None,
        state: TenantState::Active,
        trial_ends_at: None,
        metadata,
        adopt: None,
        known: None,
        hosts: Vec::new(),
        place: None,
        marked: None,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_central_database_that_is_lost_comes_back_and_what_is_newer_from_the_marks() {
    let mut house = House::new().await;
    house.without_central();
    let password = house.fleet.instance.password("central");
    let url = format!(
        "postgres://{DATABASE}:{password}@127.0.0.1:{}/{DATABASE}?sslmode=verify-full",
        house.fleet.instance.port
    );
    let (ca, metadata) = (house.ca(), BTreeMap::new());
    let central = Central::connect(&url, Some(&ca)).await.unwrap();
    central.migrate().await.unwrap();
    let [old, new] = [Uuid::new_v4(), Uuid::new_v4()];
    let known = central.register(&registration("old", old, &metadata)).await.unwrap().row;

    let place = house.arguments().into_iter().skip_while(|word| word != "--programs");
    let words: Vec<_> = place.collect();
    let (programs, bucket) = (&words[..2], &words[4..]);
    let command = ["maintenance-os", "backup", "central", "--central-url", &url, "--central-ca", ca.to_str().unwrap()];
    let words = command.map(str::to_owned).into_iter().chain(programs.to_vec()).chain(bucket.to_vec());
    let Role::Backup(settings) = Cli::try_parse_from(words).unwrap().role else { panic!("another role") };
    maintenance_os::backup::run(*settings, CancellationToken::new()).await.unwrap();

    // One that the backup does not know of; its database says whose it is.
    let lost = central.register(&registration("new", new, &metadata)).await.unwrap().row.uuid;
    drop(central);
    house.fleet.damage(&format!("DROP DATABASE {DATABASE} WITH (FORCE)")).await;
    house.fleet.damage(&format!("CREATE DATABASE {DATABASE} OWNER {DATABASE} TEMPLATE template0")).await;

    let (found, manifest) = verify::find(&house.bucket, keys::CENTRAL, None).await.unwrap();
    assert_eq!(found, id(&manifest));
    assert!(manifest.dump.key.starts_with("backups/central/"), "{}", manifest.dump.key);
    assert_eq!(manifest.rows["public.tenants"], 1);
    let took = house.drill().restore(&house.bucket, keys::CENTRAL, found, &manifest).await.unwrap();
    assert!(took.as_nanos() > 0);
    restore(&house, &password, &house.bucket.get(&keys::key(keys::CENTRAL, found, Part::Dump)).await.unwrap()).await;

    let central = Central::connect(&url, Some(&ca)).await.unwrap();
    central.migrate().await.unwrap();
    assert_eq!(central.row(known.uuid).await.unwrap(), Some(known));
    let marked = Some(Marked { server: "pg-eu-1", schema: "0001" });
    let again = Registration { known: Some(lost), marked, ..registration("new", new, &metadata) };
    let again = central.register(&again).await.unwrap().row;
    assert_eq!((again.uuid, again.server.as_deref()), (lost, Some("pg-eu-1")));
    // A database that is no central one is not taken for it.
    let taker =
        maintenance_os::backup::take::Taker { central: Some(names::database(house.tenant(0).uuid)), ..house.taker() };
    let subject = maintenance_os::backup::manifest::TenantFacts { uuid: keys::CENTRAL, name: "central".into() };
    let error = format!("{:#}", taker.take(&subject).await.unwrap_err());
    assert!(error.contains("central database"), "{error}");
    house.without_central();
}

/// As the runbook says it.
async fn restore(house: &House, password: &str, dump: &[u8]) {
    let login = Login { username: DATABASE.into(), password: password.to_owned() };
    let arguments = ["--no-owner", "--no-privileges", "--exit-on-error", "--dbname", DATABASE].map(str::to_owned);
    let environment = house.server().environment(&login, DATABASE);
    let Programs(directory) = house.drill().programs;
    let mut child = Programs(directory).start("pg_restore", &arguments, environment, Stdio::piped()).unwrap();
    let (mut input, errors) = (child.stdin.take().unwrap(), child.stderr.take());
    let feed = async {
        let _ = input.write_all(dump).await;
        let _ = input.shutdown().await;
        drop(input);
    };
    let ((), complaint) = tokio::join!(feed, programs::complaint(errors));
    programs::ended("pg_restore", &mut child, &complaint).await.unwrap();
}
