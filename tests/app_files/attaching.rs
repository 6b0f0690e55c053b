//! Attaching, listing, fetching, removing; and what other tenants see of it.

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use maintenance_os::app::FileSettings;
use maintenance_os::signing::SigningKeys;

use crate::site::{KEY, Place, Site, assert_settled, photo, used};
use crate::tenants::{eventually, with_tenants};

#[tokio::test]
async fn a_photo_is_attached_shown_fetched_and_removed_on_disk() {
    a_photos_life(Place::disk()).await;
}

#[tokio::test]
async fn a_photo_is_attached_shown_fetched_and_removed_in_a_bucket() {
    a_photos_life(Place::bucket()).await;
}

async fn a_photos_life(place: Place) {
    with_tenants(1, async |server, tenants| {
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let acme = &tenants[0];
        let photo = photo(900, 600);
        let id = site.attach(acme, server, "Öl %22am%22 Lager.jpg", &photo).await;
        assert_eq!(place.files(acme).len(), 2, "the photo and its preview");
        assert_settled(server, acme).await;

        let page = site.get(acme, "technician", "/assets/1/attachments").await;
        assert_eq!(page.status, StatusCode::OK);
        let text = page.text();
        assert!(text.contains("Öl %22am%22 Lager.jpg") && text.contains("by technician"), "{text}");
        let preview = text.split("<img src=\"").nth(1).unwrap().split('"').next().unwrap().replace("&#38;", "&");
        let preview = site.get(acme, "viewer", &preview).await;
        assert_eq!((preview.status, preview.header("content-type")), (StatusCode::OK, "image/jpeg"));
        assert!(preview.header("content-disposition").starts_with("inline;"));
        assert_eq!(preview.header("content-security-policy"), "default-src 'none'; sandbox");
        let small = image::load_from_memory(&preview.bytes).unwrap();
        assert_eq!((small.width(), small.height()), (320, 213));

        let link = site.link(acme, id).await;
        // Whoever has the link needs no session.
        let file = site.get(acme, "", &link).await;
        assert_eq!(file.status, StatusCode::OK, "{}", file.text());
        assert_eq!(file.bytes, photo);
        assert_eq!(file.header("content-type"), "image/jpeg");
        assert_eq!(file.header("content-length"), photo.len().to_string());
        assert_eq!(file.header("x-content-type-options"), "nosniff");
        assert_eq!(
            file.header("content-disposition"),
            "attachment; filename=\"_l _22am_22 Lager.jpg\"; filename*=UTF-8''%C3%96l%20%2522am%2522%20Lager.jpg"
        );
        let sums =
            "SELECT count(*) FROM stored_files f JOIN attachments a ON a.path = f.path WHERE f.sha256 IS NOT NULL";
        assert_eq!(server.number(&acme.database.name, sums).await, 1);

        let removal = format!("/attachments/{id}/delete");
        assert_eq!(site.press(acme, "viewer", &removal).await.status, StatusCode::FORBIDDEN);
        assert_eq!(site.press(acme, "colleague", &removal).await.status, StatusCode::FORBIDDEN);
        let removed = site.press(acme, "technician", &removal).await;
        assert_eq!(removed.status, StatusCode::SEE_OTHER, "{}", removed.text());
        assert_eq!(removed.header("location"), "/assets/1/attachments");
        assert_eq!(site.get(acme, "", &link).await.status, StatusCode::NOT_FOUND, "at once");
        eventually("its objects and bytes are gone", async || {
            place.files(acme).is_empty() && used(server, acme).await == 0
        })
        .await;
        let activities =
            "SELECT count(*) FROM activities WHERE user_id = 2 AND kind LIKE 'attachment.%' AND subject_id = 1";
        assert_eq!(server.number(&acme.database.name, activities).await, 2);
    })
    .await;
}

#[tokio::test]
async fn files_of_several_parts_arrive_whole_in_a_bucket() {
    with_tenants(1, async |server, tenants| {
        let place = Place::bucket();
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let content: Vec<u8> =
            (0..20_000_000_u32).map(|number| number.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
        let id = site.attach(&tenants[0], server, "scan.bin", &content).await;
        let file = site.get(&tenants[0], "", &site.link(&tenants[0], id).await).await;
        assert_eq!((file.status, file.header("content-type")), (StatusCode::OK, "application/octet-stream"));
        assert!(file.bytes == content);
    })
    .await;
}

#[tokio::test]
async fn another_tenants_link_id_and_object_do_not_exist_here() {
    with_tenants(2, async |server, tenants| {
        let place = Place::disk();
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let [acme, other] = &tenants[..] else { unreachable!() };
        let id = site.attach(acme, server, "plan.txt", b"secret plan").await;
        let link = site.link(acme, id).await;

        let answer = site.get(other, "admin", &link).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}", answer.text());
        assert_eq!(site.get(other, "admin", &format!("/attachments/{id}")).await.status, StatusCode::NOT_FOUND);
        assert_eq!(
            site.press(other, "admin", &format!("/attachments/{id}/delete")).await.status,
            StatusCode::NOT_FOUND
        );
        // Even signed for the other tenant, the object is in neither its database nor its prefix.
        let path = link.strip_prefix("/files/").unwrap().split('?').next().unwrap();
        let keys = SigningKeys::parse(KEY).unwrap();
        let soon = Timestamp::now() + SignedDuration::from_mins(1);
        let signed = keys.sign(other.uuid, "download", path, soon);
        let answer = site.get(other, "admin", &format!("/files/{path}?token={signed}")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert!(!answer.text().contains("plan"), "{}", answer.text());
        assert_eq!(site.get(acme, "", &link).await.status, StatusCode::OK);
    })
    .await;
}

#[tokio::test]
async fn a_link_that_expired_was_changed_or_made_for_something_else_opens_nothing() {
    with_tenants(1, async |server, tenants| {
        let place = Place::disk();
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let acme = &tenants[0];
        let first = site.attach(acme, server, "one.txt", b"one").await;
        let second = site.attach(acme, server, "two.txt", b"two").await;
        let (first, second) = (site.link(acme, first).await, site.link(acme, second).await);
        let (path, token) = first.split_once("?token=").unwrap();
        let keys = SigningKeys::parse(KEY).unwrap();
        let object = path.strip_prefix("/files/").unwrap();
        let signed = |purpose: &str, object: &str, seconds: i64| {
            let until = Timestamp::now() + SignedDuration::from_secs(seconds);
            format!("{path}?token={}", keys.sign(acme.uuid, purpose, object, until))
        };
        assert_eq!(site.get(acme, "", &signed("download", object, 60)).await.status, StatusCode::OK);
        let expired = site.get(acme, "", &signed("download", object, -1)).await;
        assert_eq!(expired.status, StatusCode::GONE);
        assert!(expired.text().contains("expired"), "{}", expired.text());
        let forged = [
            path.to_owned(),
            format!("{path}?token="),
            format!("{path}?token={}", second.split_once("?token=").unwrap().1),
            format!("{}?token={token}", second.split('?').next().unwrap()),
            format!("{path}?token={token}x"),
            signed("welcome", object, 60),
            signed("download", &object.replace("attachments/", "exports/"), 60),
        ];
        for link in forged {
            let answer = site.get(acme, "admin", &link).await;
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{link}: {}", answer.text());
        }
        // With links that are valid for no time at all, as when the clock has gone on.
        let settings = FileSettings { link: SignedDuration::ZERO, ..FileSettings::default() };
        let site = Site::again(&tenants, &place.settings, settings).await;
        let link = site.link(acme, 1).await;
        assert_eq!(site.get(acme, "", &link).await.status, StatusCode::GONE);
    })
    .await;
}

#[tokio::test]
async fn who_may_attach_and_where() {
    with_tenants(1, async |server, tenants| {
        let place = Place::disk();
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let acme = &tenants[0];
        let rows = [
            ("", "/assets/1/attachments", StatusCode::SEE_OTHER),
            ("viewer", "/assets/1/attachments", StatusCode::FORBIDDEN),
            ("technician", "/assets/99/attachments", StatusCode::NOT_FOUND),
            ("technician", "/executions/99/attachments", StatusCode::NOT_FOUND),
            ("technician", "/executions/1/attachments", StatusCode::SEE_OTHER),
            ("technician", "/imports", StatusCode::FORBIDDEN),
        ];
        for (who, path, expected) in rows {
            let answer = site.upload(acme, who, path, "a.txt", b"Name\nPump\n").await;
            assert_eq!(answer.status, expected, "{who} {path}: {}", answer.text());
        }
        let page = site.get(acme, "viewer", "/executions/1/attachments").await.text();
        assert!(page.contains("a.txt") && page.contains("Grease"), "{page}");
        assert!(!page.contains("type=\"file\"") && !page.contains("Remove a.txt"), "a viewer only looks: {page}");
        assert!(
            site.get(acme, "technician", "/executions/1/attachments")
                .await
                .text()
                .contains(&site.csrf(acme, "technician"))
        );
        for path in ["/exports/assets.csv", "/imports"] {
            assert_eq!(site.get(acme, "technician", path).await.status, StatusCode::FORBIDDEN, "{path}");
        }
        assert_settled(server, acme).await;
    })
    .await;
}

#[tokio::test]
async fn what_goes_with_its_asset_and_what_died_half_way_is_swept() {
    with_tenants(1, async |server, tenants| {
        let place = Place::disk();
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let acme = &tenants[0];
        let name = &acme.database.name;
        server.sql(name, "INSERT INTO assets (name) VALUES ('Fan')").await;
        let answer = site.upload(acme, "technician", "/assets/2/attachments", "fan.jpg", &photo(400, 400)).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER);
        assert_eq!(place.files(acme).len(), 2);
        server.sql(name, "DELETE FROM assets WHERE id = 2").await;
        // An upload whose process was killed two hours ago, and one that is under way elsewhere.
        let (dead, alive) = ("temp/11111111-1111-4111-8111-111111111111", "temp/22222222-2222-4222-8222-222222222222");
        let rows = format!(
            "INSERT INTO stored_files (path, bytes, updated_at) VALUES
             ('{dead}', 500, now() - interval '2 hours'), ('{alive}', 700, now())"
        );
        server.sql(name, &rows).await;
        let folder = place.root.join(format!("tenants/{}/temp", acme.uuid));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(place.root.join(format!("tenants/{}/{dead}#1", acme.uuid)), "half").unwrap();
        // A process that has not swept this tenant yet does so at the next upload.
        let site = Site::again(&tenants, &place.settings, FileSettings::default()).await;
        site.attach(acme, server, "b.txt", b"b").await;
        eventually("only what is alive is left", async || {
            place.files(acme).len() == 1 && used(server, acme).await == 701
        })
        .await;
        let alive = format!("SELECT count(*) FROM stored_files WHERE path = '{alive}'");
        assert_eq!(server.number(name, &alive).await, 1);
    })
    .await;
}
