//! What was backed up comes back.

use maintenance_os::backup::keys::{BackupId, Part};
use maintenance_os::backup::retention::Keep;
use maintenance_os::backup::{take_all, verify};
use maintenance_os::desired::{names, scram, scratch};
use sqlx::{AssertSqlSafe, ConnectOptions, Executor};

use crate::house::{House, eventually, id};

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_restores_to_the_rows_of_one_moment_while_people_write() {
    let mut house = House::new().await;
    house.rows_in(0, "INSERT INTO assets (name) SELECT 'pump ' || n FROM generate_series(1, 5000) n").await;
    let acme = house.tenant(0);
    let taker = house.taker();
    let mut writer = house.fleet.session(&house.fleet.tenants[0]).await;
    let writing = async {
        for number in 0.. {
            let insert = format!("INSERT INTO assets (name) VALUES ('while it is dumped {number}')");
            writer.execute(AssertSqlSafe(insert)).await.unwrap();
        }
    };
    let manifest = tokio::select! {
        taken = taker.take(&acme) => taken.unwrap(),
        () = writing => unreachable!(),
    };
    assert!(manifest.rows["public.assets"] >= 5001, "{:?}", manifest.rows);
    assert_eq!(manifest.server.database, names::database(acme.uuid));
    assert!(manifest.tools.pg_dump.contains("pg_dump (PostgreSQL) 17"), "{:?}", manifest.tools);
    assert!(manifest.started_at <= manifest.ended_at);

    let (found, read) = verify::find(&house.bucket, acme.uuid, None).await.unwrap();
    assert_eq!(found, id(&manifest));
    assert_eq!(read, manifest);
    verify::checksum(&house.bucket, acme.uuid, found, &read).await.unwrap();
    house.drill().restore(&house.bucket, acme.uuid, found, &read).await.unwrap();

    // Nothing is left of it, and it would have been noticed if a row were missing.
    let left = "SELECT count(*) FROM (SELECT datname FROM pg_database UNION ALL SELECT rolname FROM pg_roles) n WHERE datname LIKE 'maintenance_os_scratch%'";
    let left: i64 = sqlx::query_scalar(left).fetch_one(&mut house.fleet.superuser).await.unwrap();
    assert_eq!(left, 0);
    let mut other = read.clone();
    *other.rows.get_mut("public.assets").unwrap() += 1;
    let error = house.drill().restore(&house.bucket, acme.uuid, found, &other).await.unwrap_err();
    assert!(format!("{error:#}").contains("table public.assets has"), "{error:#}");
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM pg_database WHERE datname LIKE 'maintenance_os_scratch%'")
        .fetch_one(&mut house.fleet.superuser)
        .await
        .unwrap();
    assert_eq!(left, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn suspended_tenants_and_hostile_settings_are_backed_up_too_and_old_backups_go() {
    let mut house = House::new().await;
    let (acme, globex) = (house.tenant(0), house.tenant(1));
    let database = names::database(acme.uuid);
    for setting in [
        "statement_timeout = '1ms'",
        "default_transaction_read_only = on",
        "search_path = 'evil'",
        "row_security = on",
        "lock_timeout = '1ms'",
    ] {
        house.fleet.damage(&format!("ALTER DATABASE \"{database}\" SET {setting}")).await;
    }
    let login = house.fleet.tenants[1].login();
    house.fleet.damage(&format!("ALTER ROLE \"{login}\" NOLOGIN")).await;
    let keep = Keep { daily: 1, weekly: 0, monthly: 0 };
    let first = take_all(&house.taker(), &[acme.clone(), globex.clone()], keep).await;
    assert!(first.iter().all(|outcome| outcome.taken.is_ok()));
    assert_eq!(house.objects(acme.uuid).await.len(), 2);
    // A second of the same day takes the place of the first.
    let began = house.good(acme.uuid).await[0].parse::<BackupId>().unwrap().began;
    // Within one second, chance says which is the newer one.
    eventually("another second", async || jiff::Timestamp::now().as_second() > began.as_second()).await;
    let again = take_all(&house.taker(), std::slice::from_ref(&acme), keep).await;
    assert_eq!(house.good(acme.uuid).await, std::slice::from_ref(&again[0].taken.as_ref().unwrap().id));
    assert_eq!(house.good(globex.uuid).await.len(), 1, "the other tenant's backups are its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_restores_can_do_nothing_outside_the_scratch_database() {
    let mut house = House::new().await;
    let name = scratch::name(1, "0123456789ab");
    let password = scram::password([7; 32]);
    for batch in scratch::create(&name, &scram::verifier(&password), names::PROVISIONER) {
        house.fleet.run(&batch).await;
    }
    let options = |database: &str| house.fleet.instance.options(&name, &password, database);
    let mut inside = options(&name).connect().await.unwrap();
    inside.execute("CREATE TABLE public.restored (id int)").await.unwrap();
    for statement in [
        "CREATE DATABASE other",
        "CREATE ROLE other",
        "SET ROLE maintenance_os_provisioner",
        "SET ROLE maintenance_os_schema",
        "COPY public.restored TO PROGRAM 'id'",
        "SELECT pg_read_file('/etc/passwd')",
    ] {
        assert!(inside.execute(statement).await.is_err(), "{statement}");
    }
    drop(inside);
    let tenants = [0, 1].map(|index| names::database(house.tenant(index).uuid));
    for database in tenants.iter().map(String::as_str).chain(["postgres", "maintenance_os_central"]) {
        assert!(options(database).connect().await.is_err(), "it gets into {database}");
    }
    // A drill removes what was left behind.
    let acme = house.tenant(0);
    let manifest = house.taker().take(&acme).await.unwrap();
    house.drill().restore(&house.bucket, acme.uuid, id(&manifest), &manifest).await.unwrap();
    assert!(house.fleet.catalogue().await.databases.keys().all(|database| scratch::made(database).is_none()));
    assert!(house.fleet.catalogue().await.roles.keys().all(|role| scratch::made(role).is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn one_tenants_backup_is_never_anothers() {
    let house = House::new().await;
    let (acme, globex) = (house.tenant(0), house.tenant(1));
    let manifest = house.taker().take(&acme).await.unwrap();
    let own = house.taker().take(&globex).await.unwrap();
    for part in [Part::Dump, Part::Manifest] {
        let bytes = house.bucket.get(&maintenance_os::backup::keys::key(acme.uuid, id(&manifest), part)).await.unwrap();
        let stolen = maintenance_os::backup::keys::key(globex.uuid, id(&manifest), part);
        house.bucket.put(&stolen, bytes.to_vec()).await.unwrap();
    }
    let why = house.why_bad(globex.uuid, id(&manifest)).await;
    assert!(why.contains(&format!("it is the backup of tenant {}", acme.uuid)), "{why}");
    assert!(verify::find(&house.bucket, globex.uuid, Some(id(&manifest))).await.is_err());
    assert_eq!(verify::find(&house.bucket, globex.uuid, None).await.unwrap().0, id(&own));
}
