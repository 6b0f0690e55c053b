//! What goes wrong is told, leaves nothing half, and leaves what was there.

use std::time::Duration;

use maintenance_os::backup::bucket::Bucket;
use maintenance_os::backup::manifest::TenantFacts;
use maintenance_os::backup::take::Taker;
use maintenance_os::backup::{take_all, verify};
use maintenance_os::desired::names;
use maintenance_os::tenancy::storage::S3Settings;
use uuid::Uuid;

use crate::house::{House, KEEP, id, s3, variable};

/// The error, after nothing has changed in the bucket.
async fn refused(house: &House, what: &str, taker: Taker) -> String {
    let acme = house.tenant(0);
    let before = house.objects(acme.uuid).await;
    let error = taker.take(&acme).await.expect_err(what);
    assert_eq!(house.objects(acme.uuid).await, before, "{what}: {error:#}");
    format!("{error:#}")
}

#[tokio::test(flavor = "multi_thread")]
async fn each_fault_is_named_and_the_last_good_backup_stays() {
    let mut house = House::new().await;
    house.rows_in(0, "INSERT INTO assets (name) SELECT 'pump ' || n FROM generate_series(1, 20000) n").await;
    let acme = house.tenant(0);
    let first = house.taker().take(&acme).await.unwrap();

    let gone = Bucket::new(&S3Settings { bucket: "no-such-bucket".into(), ..s3() }).unwrap();
    let error = refused(&house, "the bucket is gone", Taker { bucket: gone, ..house.taker() }).await;
    assert!(error.contains("NoSuchBucket"), "{error}");

    let other = S3Settings {
        access_key_id: variable("MOS_TEST_S3_OTHER_KEY"),
        secret_access_key: variable("MOS_TEST_S3_OTHER_SECRET"),
        ..s3()
    };
    let stranger = Bucket::new(&other).unwrap();
    let error = refused(&house, "another account", Taker { bucket: stranger.clone(), ..house.taker() }).await;
    assert!(error.contains("AccessDenied") || error.contains("403"), "{error}");
    assert!(verify::find(&stranger, acme.uuid, Some(id(&first))).await.is_err(), "another account reads a backup");

    let away = S3Settings { url: Some("http://127.0.0.1:9".into()), ..s3() };
    let error = refused(&house, "no S3", Taker { bucket: Bucket::new(&away).unwrap(), ..house.taker() }).await;
    assert!(error.contains("in bucket files"), "{error}");

    let mut switched = house.taker();
    switched.server.system_identifier = Some("1".into());
    let error = refused(&house, "another server under the name", switched).await;
    assert!(error.contains("another PostgreSQL answers"), "{error}");

    let mut wrong = house.taker();
    wrong.login.password = "wrong".into();
    let error = refused(&house, "a wrong password", wrong).await;
    assert!(error.contains("connecting to database") && !error.contains("wrong"), "{error}");

    for (what, script) in [
        ("it dies in the middle", "{pg_dump} | head -c 100000; kill -9 $$"),
        ("it says that it failed after all of it", "{pg_dump}; echo 'connection lost' >&2; exit 1"),
        ("it writes nothing", "exit 1"),
    ] {
        let (_directory, programs) = house.programs_with(script);
        let error = refused(&house, what, Taker { programs, ..house.taker() }).await;
        assert!(error.contains("pg_dump failed"), "{what}: {error}");
    }

    // A table that the role may not read is no table that is left out.
    let database = names::database(acme.uuid);
    let mut watcher = house.fleet.instance.superuser(&database).await;
    crate::fleet::execute(&mut watcher, "REVOKE SELECT ON assets FROM maintenance_os_backup").await;
    let error = refused(&house, "a table that cannot be read", house.taker()).await;
    assert!(error.contains("assets"), "{error}");
    crate::fleet::execute(&mut watcher, "GRANT SELECT ON assets TO maintenance_os_backup").await;

    house.fleet.damage(&format!("COMMENT ON DATABASE \"{database}\" IS 'somebody else'")).await;
    let error = refused(&house, "no mark", house.taker()).await;
    assert!(error.contains("carries no mark of ours"), "{error}");

    assert_eq!(house.good(acme.uuid).await, std::slice::from_ref(&first.id));
    verify::checksum(&house.bucket, acme.uuid, id(&first), &first).await.unwrap();
}

/// The S3 server, but that it refuses every part of an upload from the second on. The address.
async fn refuses_the_second_part() -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let upstream = variable("MOS_TEST_S3_URL").trim_start_matches("http://").trim_end_matches('/').to_owned();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let forbidden = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let mut server = tokio::net::TcpStream::connect(&upstream).await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = server.split();
                let (mut reader, mut writer) = client.split();
                let until_the_second = async {
                    let mut chunk = vec![0; 65536];
                    while let Ok(length @ 1..) = reader.read(&mut chunk).await {
                        let head = String::from_utf8_lossy(&chunk[..length.min(1024)]).into_owned();
                        if head.starts_with("PUT") && head.contains("partNumber=") && !head.contains("partNumber=1&") {
                            return;
                        }
                        to.write_all(&chunk[..length]).await.unwrap();
                    }
                };
                tokio::select! {
                    () = until_the_second => {}
                    _ = tokio::io::copy(&mut from, &mut writer) => return,
                }
                let _ = writer.write_all(forbidden).await;
                // To its end: a connection that is cut off would be tried again.
                let _ = tokio::io::copy(&mut reader, &mut tokio::io::sink()).await;
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_that_fails_in_the_middle_ends_the_dump_and_holds_nothing_in_the_database() {
    let house = House::new().await;
    let bucket = Bucket::new(&S3Settings { url: Some(refuses_the_second_part().await), ..s3() }).unwrap();
    // More than all parts that may be under way, and whoever writes it waits for a reader for ever.
    let (_directory, programs) = house.programs_with("exec cat /dev/zero");
    let taken = refused(&house, "the second part is refused", Taker { bucket, programs, ..house.taker() });
    let error = tokio::time::timeout(Duration::from_secs(60), taken).await.expect("it ends by itself");
    assert!(error.contains("403") || error.to_lowercase().contains("forbidden"), "{error}");
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'maintenance-os backup'";
    crate::house::eventually("its snapshot is given back", async || {
        let mut watcher = house.fleet.instance.superuser("postgres").await;
        sqlx::query_scalar::<_, i64>(sessions).fetch_one(&mut watcher).await.unwrap() == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_is_stopped_keeps_nothing_and_two_at_once_do_not_meet() {
    let house = House::new().await;
    let acme = house.tenant(0);
    let (_directory, programs) = house.programs_with("{pg_dump} | head -c 1000; exec sleep 600");
    let taker = Taker { programs, ..house.taker() };
    let stop = taker.stop.clone();
    let (taken, ()) = tokio::join!(taker.take(&acme), async {
        // It has begun when its snapshot is held.
        crate::house::eventually("pg_dump runs", async || {
            let sessions = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'maintenance-os backup'";
            let mut watcher = house.fleet.instance.superuser("postgres").await;
            sqlx::query_scalar::<_, i64>(sessions).fetch_one(&mut watcher).await.unwrap() > 0
        })
        .await;
        stop.cancel();
    });
    assert!(format!("{:#}", taken.unwrap_err()).contains("it was stopped"));
    assert_eq!(house.objects(acme.uuid).await, Vec::<String>::new());

    let [left, right] = [house.taker(), house.taker()];
    let (one, two) = tokio::join!(left.take(&acme), right.take(&acme));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_ne!(one.id, two.id);
    for manifest in [&one, &two] {
        verify::checksum(&house.bucket, acme.uuid, id(manifest), manifest).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_failure_hides_no_other_backup() {
    let house = House::new().await;
    let nobody = TenantFacts { uuid: Uuid::new_v4(), name: "nobody".into() };
    let tenants = [nobody.clone(), house.tenant(0), nobody, house.tenant(1)];
    let waited = tokio::time::timeout(Duration::from_secs(60), take_all(&house.taker(), &tenants, KEEP)).await.unwrap();
    let good = waited.iter().filter(|outcome| outcome.taken.is_ok()).map(|outcome| outcome.tenant.name.as_str());
    let mut good: Vec<_> = good.collect();
    good.sort_unstable();
    assert_eq!((waited.len(), good), (4, vec!["acme", "globex"]));
}
