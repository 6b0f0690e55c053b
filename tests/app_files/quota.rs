//! The plan's room for files holds, whoever uploads at the same time.

use http::StatusCode;
use maintenance_os::app::FileSettings;
use sqlx::Executor;

use crate::site::{Place, Site, assert_settled, photo, used};
use crate::tenants::{eventually, with_tenants};

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn uploads_at_the_same_time_share_the_room_that_is_left() {
    with_tenants(1, async |server, mut tenants| {
        tenants[0].plan.limits.storage_gib = Some(1);
        let place = Place::disk();
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let acme = &tenants[0];
        let name = &acme.database.name;
        // Room for three files of a million bytes and a half one.
        let taken = (1_i64 << 30) - 3_500_000;
        let rest = format!(
            "INSERT INTO stored_files (path, state, bytes, sha256)
             VALUES ('exports/11111111-1111-4111-8111-111111111111', 'stored', {taken}, decode(repeat('00', 32), 'hex'))"
        );
        server.sql(name, &rest).await;
        let mut closed = server.hold(name, "SELECT 1 FROM storage_usage FOR UPDATE").await;
        let content = vec![7; 1_000_000];
        let uploads = (0..8).map(|_| site.upload(acme, "technician", "/assets/1/attachments", "a.bin", &content));
        let open = async {
            let waiting =
                format!("SELECT count(*) FROM pg_stat_activity WHERE datname = '{name}' AND wait_event_type = 'Lock'");
            eventually("some wait", async || server.number("postgres", &waiting).await >= 4).await;
            closed.execute("COMMIT").await.unwrap();
        };
        let (answers, ()) = futures::join!(futures::future::join_all(uploads), open);
        let count = |status| answers.iter().filter(|answer| answer.status == status).count();
        assert_eq!((count(StatusCode::SEE_OTHER), count(StatusCode::FORBIDDEN)), (3, 5));
        let refused = answers.iter().find(|answer| answer.status == StatusCode::FORBIDDEN).unwrap().text();
        assert!(refused.contains("1 GiB for files") && refused.contains("pro"), "{refused}");
        assert_eq!(used(server, acme).await, taken + 3_000_000);
        assert_eq!(place.files(acme).len(), 3);
        assert_settled(server, acme).await;
        let page = site.get(acme, "manager", "/assets/1/attachments").await.text();
        assert!(page.contains("of 1 GiB"), "{page}");
    })
    .await;
}

#[tokio::test]
async fn a_picture_fits_where_its_preview_does_not() {
    with_tenants(1, async |server, mut tenants| {
        tenants[0].plan.limits.storage_gib = Some(1);
        let place = Place::disk();
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let acme = &tenants[0];
        let photo = photo(640, 480);
        // The form around the file is reserved with it: 600 bytes of it are left for a preview, which takes more.
        let taken = (1_i64 << 30) - i64::try_from(photo.len()).unwrap() - 600;
        let rest = format!(
            "INSERT INTO stored_files (path, state, bytes, sha256)
             VALUES ('exports/11111111-1111-4111-8111-111111111111', 'stored', {taken}, decode(repeat('00', 32), 'hex'))"
        );
        server.sql(&acme.database.name, &rest).await;
        site.attach(acme, server, "a.jpg", &photo).await;
        assert_eq!(place.files(acme).len(), 1);
        assert_settled(server, acme).await;
    })
    .await;
}

#[tokio::test]
async fn a_plan_without_room_takes_nothing_and_reads_nothing() {
    with_tenants(1, async |server, mut tenants| {
        tenants[0].plan.limits.storage_gib = Some(0);
        let place = Place::disk();
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        for path in ["/assets/1/attachments", "/imports"] {
            let answer = site.upload(&tenants[0], "manager", path, "a.csv", b"Name\nPump\n").await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text());
        }
        assert!(place.files(&tenants[0]).is_empty());
        assert_settled(server, &tenants[0]).await;
    })
    .await;
}
