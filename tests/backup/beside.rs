//! Restored beside the live database and put in its place: the statements that the operator runs and the program that the Job
//! runs, on a real server.

use std::collections::BTreeMap;

use jiff::Timestamp;
use maintenance_os::backup::restore::{Restorer, Wanted};
use maintenance_os::backup::server::Login;
use maintenance_os::desired::database::Mark;
use maintenance_os::desired::restore::statements::{self, Swap};
use maintenance_os::desired::sql::{Batch, Statement};
use maintenance_os::desired::{names, scram, server};
use maintenance_os::observe::inventory;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, Executor, Row};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::fleet::{MIGRATOR_PASSWORD, execute};
use crate::house::{House, id};

const PASSWORD: [u8; 32] = [9; 32];

/// Builds the template without tables, as the operator does when it visits a server.
async fn bare(house: &mut House) {
    let fleet = &mut house.fleet;
    for batch in server::begin_template(&fleet.catalogue().await) {
        fleet.run(&batch).await;
    }
    let password = fleet.instance.password("provisioner");
    let mut provisioner =
        fleet.instance.options(names::PROVISIONER, &password, names::TEMPLATE_BUILD).connect().await.unwrap();
    execute(&mut provisioner, &server::prepare_template()).await;
    provisioner.close().await.unwrap();
    let migrator = fleet.instance.options(names::MIGRATOR, MIGRATOR_PASSWORD, names::TEMPLATE_BUILD);
    let mut migrator = migrator.connect().await.unwrap();
    execute(&mut migrator, &server::bare_defaults()).await;
    migrator.close().await.unwrap();
    for batch in server::finish_bare(&fleet.catalogue().await) {
        fleet.run(&batch).await;
    }
}

/// The database beside and its login, as the operator makes them.
async fn prepare(house: &mut House, restore: Uuid, tenant: Uuid) {
    if !house.fleet.catalogue().await.databases.contains_key(&server::bare()) {
        bare(house).await;
    }
    house.fleet.run(&statements::create(restore, &server::bare())).await;
    house.fleet.run(&statements::claim(restore, tenant)).await;
    let catalogue = house.fleet.catalogue().await;
    house.fleet.run(&statements::let_in(restore, &scram::password(PASSWORD), &catalogue).unwrap()).await;
    let catalogue = house.fleet.catalogue().await;
    assert_eq!(statements::let_in(restore, &scram::password(PASSWORD), &catalogue), None, "nothing is left to do");
    let part = inventory::of_restore(&mut house.fleet.provisioner, restore, tenant).await.unwrap();
    assert_eq!(part.databases.len(), 2, "the live one and the one beside: {part:?}");
    assert_eq!(part.roles.keys().collect::<Vec<_>>(), [&names::beside(restore)]);
}

fn restorer(house: &House, restore: Uuid) -> Restorer {
    let taker = house.taker();
    Restorer {
        server: taker.server,
        login: Login { username: names::beside(restore), password: scram::password(PASSWORD) },
        reader: taker.login,
        bucket: taker.bucket,
        programs: house.drill().programs,
        stop: CancellationToken::new(),
    }
}

/// Owners, rights and default privileges of everything in a database.
async fn rights(house: &House, database: &str) -> Vec<String> {
    let mut session = house.fleet.instance.superuser(database).await;
    let query = "
        SELECT format('%s %s owner %s acl %s', c.relkind, c.relname, c.relowner::regrole,
               (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(c.relacl) a))
          FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public'
        UNION ALL SELECT format('function %s owner %s acl %s', proname, proowner::regrole, proacl)
          FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'public'
        UNION ALL SELECT format('schema %s owner %s acl %s', nspname, nspowner::regrole,
               (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(nspacl) a))
          FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'
        UNION ALL SELECT format('default %s %s acl %s', defaclrole::regrole, defaclobjtype,
               (SELECT string_agg(a::text, ',' ORDER BY a::text) FROM unnest(defaclacl) a)) FROM pg_default_acl
        ORDER BY 1";
    let rows = sqlx::query(query).fetch_all(&mut session).await.unwrap();
    session.close().await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect()
}

async fn databases(house: &mut House) -> BTreeMap<String, Option<String>> {
    let catalogue = house.fleet.catalogue().await;
    catalogue.databases.into_iter().map(|(name, database)| (name, database.comment)).collect()
}

fn swap_of(house: &House, restore: Uuid, schema: &str) -> Swap {
    let wanted = &house.fleet.tenants[0].wanted;
    Swap {
        restore,
        tenant: wanted.uuid,
        object_uid: wanted.object_uid,
        epoch: 2,
        schema: schema.to_owned(),
        drop_after: "2030-01-01T00:00:00Z".parse::<Timestamp>().unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_database_is_as_the_tenants_own_and_takes_its_place() {
    let mut house = House::new().await;
    house.rows_in(0, "INSERT INTO assets (name) SELECT 'pump ' || n FROM generate_series(1, 500) n").await;
    let acme = house.tenant(0);
    let manifest = house.taker().take(&acme).await.unwrap();
    house.rows_in(0, "DELETE FROM assets").await;

    let restore = Uuid::new_v4();
    prepare(&mut house, restore, acme.uuid).await;
    let wanted = Wanted { restore, tenant: acme.uuid, source: acme.uuid, backup: None };
    let report = restorer(&house, restore).report(&wanted).await;
    let restored = report.restored.unwrap_or_else(|| panic!("{:?}", report.error));
    assert_eq!((&restored.backup, &restored.sha256), (&manifest.id, &manifest.dump.sha256));
    assert_eq!(restored.tables[0].table, "public.assets", "the table that differs most comes first");
    assert_eq!((restored.tables[0].backup, restored.tables[0].live), (Some(501), Some(0)));
    assert_eq!(restored.schema, manifest.server.schema_version);

    // Owners, rights and default privileges are those of a tenant's database.
    let live = names::database(acme.uuid);
    assert_eq!(rights(&house, &names::beside(restore)).await, rights(&house, &live).await);

    // A second run finds what the first one did.
    let again = restorer(&house, restore).report(&wanted).await.error.unwrap();
    assert!(again.contains("is not empty"), "{again}");

    house.fleet.run(&statements::seal(restore, acme.uuid, &restored.schema)).await;
    let catalogue = house.fleet.catalogue().await;
    house.fleet.run(&Batch::transaction(statements::drop_login(restore, &catalogue))).await;

    // Somebody is in the live database when it is closed.
    let mut customer = house.fleet.session(&house.fleet.tenants[0]).await;
    let swap = swap_of(&house, restore, &restored.schema);
    let catalogue = house.fleet.catalogue().await;
    for batch in statements::close(&swap, &catalogue) {
        house.fleet.run(&batch).await;
    }
    let catalogue = house.fleet.catalogue().await;
    house.fleet.run(&statements::swap(&swap, &catalogue)).await;
    assert!(customer.execute("SELECT 1").await.is_err(), "the session goes on in the database that was replaced");

    // The Tenant's next visit does the rest.
    house.fleet.repair("after the swap").await;
    let mut session = house.fleet.session(&house.fleet.tenants[0]).await;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM assets").fetch_one(&mut session).await.unwrap();
    assert_eq!(count, 501);
    execute(&mut session, "INSERT INTO assets (name) VALUES ('after')").await;
    let denied = session.execute("DELETE FROM maintenance_os_migrations").await.unwrap_err().to_string();
    assert!(denied.contains("permission denied"), "{denied}");
    session.close().await.unwrap();
    let marks = databases(&mut house).await;
    let mark = Mark::parse(marks[&live].as_deref().unwrap()).unwrap();
    assert_eq!((mark.uuid, mark.restore), (acme.uuid, Some(restore)));

    // What was there before is there, closed, until its time has passed.
    let replaced = names::replaced(restore);
    let mark = marks[&replaced].clone().unwrap();
    assert!(mark.contains("drop-after=2030-01-01T00:00:00Z"), "{mark}");
    house.fleet.damage(&format!("ALTER DATABASE \"{replaced}\" ALLOW_CONNECTIONS true")).await;
    let mut before = house.fleet.instance.superuser(&replaced).await;
    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM assets").fetch_one(&mut before).await.unwrap();
    assert_eq!(count, 0);
    before.close().await.unwrap();
    let login = &house.fleet.tenants[0];
    let into = house.fleet.instance.options(&login.login(), &login.password, &replaced).connect().await;
    assert!(into.is_err(), "the tenant's login gets into what was replaced");
    let catalogue = house.fleet.catalogue().await;
    let before = "2029-12-31T23:59:59Z".parse().unwrap();
    assert_eq!(statements::drop_replaced(restore, acme.uuid, before, &catalogue), None);
    for batch in statements::drop_replaced(restore, acme.uuid, swap.drop_after, &catalogue).unwrap() {
        house.fleet.run(&batch).await;
    }
    assert!(!databases(&mut house).await.contains_key(&replaced));
    assert_eq!(
        house.taker().take(&acme).await.unwrap().rows["public.assets"],
        502,
        "the next backup is of the new one"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_swap_that_cannot_be_whole_is_none() {
    let mut house = House::new().await;
    let acme = house.tenant(0);
    let restore = Uuid::new_v4();
    prepare(&mut house, restore, acme.uuid).await;
    let before = databases(&mut house).await;
    // Somebody is still in the database beside: the second rename fails, and the first one with it.
    let login =
        house.fleet.instance.options(&names::beside(restore), &scram::password(PASSWORD), &names::beside(restore));
    let inside = login.connect().await.unwrap();
    let live = names::database(acme.uuid);
    let end = [
        Statement::AllowConnections { name: live.clone(), allow: false },
        Statement::EndSessions { name: live.clone() },
    ];
    for statement in end {
        house.fleet.run(&Batch::transaction(vec![statement])).await;
    }
    let catalogue = house.fleet.catalogue().await;
    let batch = statements::swap(&swap_of(&house, restore, "0001_aaaaaaaa"), &catalogue);
    let refused = house.fleet.provisioner.execute(sqlx::raw_sql(AssertSqlSafe(batch.text()))).await;
    assert!(refused.unwrap_err().to_string().contains("being accessed by other users"));
    assert_eq!(databases(&mut house).await, before);
    inside.close().await.unwrap();
    // Given up, nothing is left of it, and the tenant is as it was.
    let catalogue = house.fleet.catalogue().await;
    for batch in statements::remove(restore, &catalogue) {
        house.fleet.run(&batch).await;
    }
    house.fleet.repair("after it was given up").await;
    let left: Vec<_> = databases(&mut house).await.into_keys().filter(|name| name.contains("restore")).collect();
    assert_eq!(left, Vec::<String>::new());
    assert!(!house.fleet.catalogue().await.roles.contains_key(&names::beside(restore)));
    house.fleet.session(&house.fleet.tenants[0]).await.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_restores_reaches_one_database_and_a_damaged_backup_restores_nothing() {
    let mut house = House::new().await;
    let (acme, globex) = (house.tenant(0), house.tenant(1));
    let manifest = house.taker().take(&acme).await.unwrap();
    let restore = Uuid::new_v4();
    prepare(&mut house, restore, acme.uuid).await;
    let options =
        |database: &str| house.fleet.instance.options(&names::beside(restore), &scram::password(PASSWORD), database);
    let others = [names::database(acme.uuid), names::database(globex.uuid), server::bare(), "postgres".into()];
    for database in others.iter().map(String::as_str).chain(["maintenance_os_central", names::SCHEMA_ROLE]) {
        assert!(options(database).connect().await.is_err(), "it gets into {database}");
    }
    let mut inside = options(&names::beside(restore)).connect().await.unwrap();
    for statement in
        ["CREATE DATABASE other", "CREATE ROLE other", "SET ROLE maintenance_os_provisioner", "CREATE SCHEMA other"]
    {
        assert!(inside.execute(statement).await.is_err(), "{statement}");
    }
    inside.close().await.unwrap();

    let wanted = Wanted { restore, tenant: acme.uuid, source: acme.uuid, backup: Some(id(&manifest)) };
    let nobody = Wanted { source: Uuid::new_v4(), backup: None, ..wanted };
    let error = restorer(&house, restore).report(&nobody).await.error.unwrap();
    assert!(error.contains("has no backup"), "{error}");

    // One byte of the dump is another one.
    let file = house.file(acme.uuid, id(&manifest), maintenance_os::backup::keys::Part::Dump);
    let mut bytes = std::fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let report = restorer(&house, restore).report(&wanted).await;
    assert_eq!(report.restored, None);
    assert!(report.error.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_was_lost_comes_back_and_another_tenants_data_can_be_cloned() {
    let mut house = House::new().await;
    let (acme, globex) = (house.tenant(0), house.tenant(1));
    let manifest = house.taker().take(&globex).await.unwrap();
    let live = names::database(acme.uuid);
    house.fleet.damage(&format!("DROP DATABASE \"{live}\" WITH (FORCE)")).await;
    let restore = Uuid::new_v4();
    bare(&mut house).await;
    house.fleet.run(&statements::create(restore, &server::bare())).await;
    house.fleet.run(&statements::claim(restore, acme.uuid)).await;
    let catalogue = house.fleet.catalogue().await;
    house.fleet.run(&statements::let_in(restore, &scram::password(PASSWORD), &catalogue).unwrap()).await;
    let wanted = Wanted { restore, tenant: acme.uuid, source: globex.uuid, backup: None };
    let restored = restorer(&house, restore).restore(&wanted).await.unwrap();
    assert_eq!((restored.backup, restored.live_rows), (manifest.id, None));
    house.fleet.run(&statements::seal(restore, acme.uuid, &restored.schema)).await;
    let catalogue = house.fleet.catalogue().await;
    house.fleet.run(&Batch::transaction(statements::drop_login(restore, &catalogue))).await;
    let swap = swap_of(&house, restore, &restored.schema);
    let catalogue = house.fleet.catalogue().await;
    for batch in statements::close(&swap, &catalogue).into_iter().chain([statements::swap(&swap, &catalogue)]) {
        house.fleet.run(&batch).await;
    }
    house.fleet.repair("after the swap").await;
    let mut session = house.fleet.session(&house.fleet.tenants[0]).await;
    let name: String = sqlx::query_scalar("SELECT name FROM assets").fetch_one(&mut session).await.unwrap();
    assert_eq!(name, house.fleet.tenants[1].secret, "the other tenant's row");
    session.close().await.unwrap();
}
