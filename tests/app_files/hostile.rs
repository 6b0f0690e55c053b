//! Bodies, names, paths and pictures that nobody sends by mistake: a 4xx that names the problem, and nothing is stored.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use futures::{StreamExt, stream};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use maintenance_os::app::FileSettings;
use maintenance_os::signing::SigningKeys;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::site::{KEY, Place, Site, assert_settled, before, form, form_of, photo, used};
use crate::tenants::{eventually, with_tenants};

const PATH: &str = "/assets/1/attachments";
const MIB: usize = 1 << 20;

fn small() -> FileSettings {
    FileSettings {
        max_upload: 2 << 20,
        pause: Duration::from_millis(300),
        upload: Duration::from_secs(2),
        ..FileSettings::default()
    }
}

/// A tenant with a small app on disk; afterwards nothing may be left of what was refused.
async fn refusing(settings: FileSettings, test: impl AsyncFnOnce(&Site, &maintenance_os::api::routing::RoutingEntry)) {
    with_tenants(1, async |server, tenants| {
        let place = Place::disk();
        let site = Site::new(server, &tenants, &place.settings, settings).await;
        test(&site, &tenants[0]).await;
        eventually("nothing is left", async || {
            place.files(&tenants[0]).is_empty() && used(server, &tenants[0]).await == 0
        })
        .await;
        assert_settled(server, &tenants[0]).await;
        assert_eq!(server.number(&tenants[0].database.name, "SELECT count(*) FROM attachments").await, 0);
        assert_eq!(server.number(&tenants[0].database.name, "SELECT count(*) FROM activities").await, 0);
    })
    .await;
}

/// Endless megabytes, and how many were asked for.
fn counted(count: &Arc<AtomicUsize>) -> impl futures::Stream<Item = std::io::Result<Bytes>> + Send + use<> {
    let count = count.clone();
    stream::iter(0..1024).map(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        Ok(Bytes::from(vec![0; MIB]))
    })
}

#[tokio::test]
async fn a_gibibyte_is_refused_without_being_read() {
    refusing(small(), async |site, acme| {
        let asked = Arc::new(AtomicUsize::new(0));
        let announced = site
            .upload_request(acme, "technician", PATH)
            .header("content-length", 1024 * MIB)
            .body(Body::from_stream(counted(&asked)))
            .unwrap();
        let answer = site.send(announced).await;
        assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(answer.text().contains("larger than 2 MiB"), "{}", answer.text());
        assert_eq!(asked.load(Ordering::Relaxed), 0);

        for path in [PATH, "/imports"] {
            asked.store(0, Ordering::Relaxed);
            let lazily = site
                .upload_request(acme, "manager", path)
                .body(form_of(&site.csrf(acme, "manager"), "a.bin", counted(&asked)))
                .unwrap();
            let answer = site.send(lazily).await;
            assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE, "{}", answer.text());
            assert!(asked.load(Ordering::Relaxed) <= 4, "{asked:?} MiB were read");
        }
    })
    .await;
}

#[tokio::test]
async fn a_body_that_stops_or_drips_times_out() {
    refusing(small(), async |site, acme| {
        let part = || Ok(Bytes::from_static(b"some"));
        let stops = stream::iter([part()]).chain(stream::pending());
        let answer = site
            .send(
                site.upload_request(acme, "technician", PATH)
                    .body(form_of(&site.csrf(acme, "technician"), "a.bin", stops))
                    .unwrap(),
            )
            .await;
        assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT, "{}", answer.text());
        let tick = tokio::time::interval(Duration::from_millis(100));
        let drips = stream::unfold(tick, move |mut tick| async move {
            tick.tick().await;
            Some((part(), tick))
        });
        let answer = site
            .send(
                site.upload_request(acme, "technician", PATH)
                    .body(form_of(&site.csrf(acme, "technician"), "a.bin", drips))
                    .unwrap(),
            )
            .await;
        assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT, "{}", answer.text());
        let never = Body::from_stream(stream::pending::<std::io::Result<Bytes>>());
        let answer = site.send(site.upload_request(acme, "technician", PATH).body(never).unwrap()).await;
        assert_eq!(answer.status, StatusCode::REQUEST_TIMEOUT, "{}", answer.text());
    })
    .await;
}

#[tokio::test]
async fn an_upload_whose_line_is_cut_leaves_nothing_on_disk() {
    cut_off(Place::disk()).await;
}

#[tokio::test]
async fn an_upload_whose_line_is_cut_leaves_nothing_in_a_bucket() {
    cut_off(Place::bucket()).await;
}

async fn cut_off(place: Place) {
    with_tenants(1, async |server, tenants| {
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let acme = &tenants[0];
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(axum::serve(listener, site.router.clone()).into_future());
        let mut line = TcpStream::connect(address).await.unwrap();
        let begin = before(&site.csrf(acme, "technician"), "a.bin");
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: {}\r\ncookie: {}\r\n\
             content-type: multipart/form-data; boundary=----boundary\r\ncontent-length: 20000000\r\n\r\n",
            acme.primary_host,
            site.cookie(acme, "technician")
        );
        line.write_all(head.as_bytes()).await.unwrap();
        line.write_all(&begin).await.unwrap();
        // More than one part of a multipart upload.
        line.write_all(&vec![7; 18 * MIB]).await.unwrap();
        line.flush().await.unwrap();
        eventually("the upload is under way", async || used(server, acme).await == 20_000_000).await;
        eventually("a part of it is there", async || !place.files(acme).is_empty() || place.is_bucket()).await;
        drop(line);
        eventually("nothing is left", async || used(server, acme).await == 0 && place.files(acme).is_empty()).await;
        assert_settled(server, acme).await;
        serving.abort();
    })
    .await;
}

#[tokio::test]
async fn a_form_of_another_site_is_refused_before_its_file_is_read() {
    refusing(small(), async |site, acme| {
        let asked = Arc::new(AtomicUsize::new(0));
        let first = |bytes: Vec<u8>| stream::iter([Ok(Bytes::from(bytes))]);
        let without = String::from_utf8(before("", "a.bin")).unwrap();
        let without = without.split_once("------boundary\r\n").unwrap().1;
        let without = without.split_once("------boundary\r\n").unwrap().1;
        let rows = [
            before("another", "a.bin"),
            before("", "a.bin"),
            before(&"x".repeat(5000), "a.bin"),
            format!("------boundary\r\n{without}").into_bytes(),
        ];
        for head in rows {
            let body = Body::from_stream(first(head.clone()).chain(counted(&asked)));
            let answer = site.send(site.upload_request(acme, "technician", PATH).body(body).unwrap()).await;
            let head = String::from_utf8_lossy(&head[..head.len().min(300)]).into_owned();
            assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}, after {head}", answer.text());
            // One piece ahead is what the form's parser reads.
            assert!(asked.swap(0, Ordering::Relaxed) <= 1, "{head}");
        }
        let cross = site.upload_request(acme, "technician", PATH).header("sec-fetch-site", "cross-site");
        let answer =
            site.send(cross.body(Body::from(form(&site.csrf(acme, "technician"), "a.bin", b"x"))).unwrap()).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
    })
    .await;
}

#[tokio::test]
async fn names_with_control_characters_and_forms_without_a_file_are_refused_on_the_page() {
    refusing(small(), async |site, acme| {
        let long = "a".repeat(300);
        let rows: [(&str, &[u8], &str); 6] = [
            ("a\u{7}b.txt", b"x", "control character"),
            ("a\u{85}b.txt", b"x", "control character"),
            ("fdp.\u{202e}exe", b"x", "direction"),
            (&long, b"x", "300 characters"),
            ("", b"", "Choose a file"),
            ("empty.txt", b"", "empty"),
        ];
        for (name, content, expected) in rows {
            let answer = site.upload(acme, "technician", PATH, name, content).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{name:?}: {}", answer.text());
            assert!(answer.text().contains(expected), "{name:?}: {}", answer.text());
            assert!(answer.text().contains("aria-invalid") && answer.text().contains("type=\"file\""), "{name:?}");
        }
        let broken = site.upload_request(acme, "technician", PATH).body(Body::from("no form")).unwrap();
        assert_eq!(site.send(broken).await.status, StatusCode::BAD_REQUEST);
        let other = site.request("POST", acme, "technician", PATH).body(Body::from("csrf=x")).unwrap();
        assert_eq!(site.send(other).await.status, StatusCode::BAD_REQUEST);
        let cut = [before(&site.csrf(acme, "technician"), "a.txt"), b"half".to_vec()].concat();
        let answer = site.send(site.upload_request(acme, "technician", PATH).body(Body::from(cut)).unwrap()).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text());
    })
    .await;
}

#[tokio::test]
async fn a_path_in_a_name_is_cut_off_and_no_address_leads_out_of_the_tenants_files() {
    with_tenants(1, async |server, tenants| {
        let place = Place::disk();
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let acme = &tenants[0];
        std::fs::write(place.root.join("secret.txt"), "secret").unwrap();
        let id = site.attach(acme, server, "../../../secret.txt", b"mine").await;
        let link = site.link(acme, id).await;
        let file = site.get(acme, "", &link).await;
        assert_eq!(file.bytes, "mine");
        assert!(file.header("content-disposition").starts_with("attachment; filename=\"secret.txt\""));
        assert!(place.files(acme)[0].to_str().unwrap().contains("/attachments/"));
        let keys = SigningKeys::parse(KEY).unwrap();
        let tricks = [
            "attachments/..%2f..%2f..%2fsecret.txt",
            "attachments/%2e%2e",
            "..%2f..%2fsecret.txt/x",
            "%2e%2e/%2e%2e/secret.txt",
            "attachments/..%5c..%5csecret.txt",
            "attachments/secret.txt%00",
            "attachments//secret.txt",
            "temp/../../secret.txt",
            "%2Fetc/passwd",
        ];
        for trick in tricks {
            // Signed by ourselves, as if somebody had found a way to have anything signed.
            let plain = trick.replace("%2f", "/").replace("%2e", ".").replace("%5c", "\\").replace("%00", "\0");
            let token = keys.sign(acme.uuid, "download", &plain, Timestamp::now() + SignedDuration::from_mins(1));
            let answer = site.get(acme, "admin", &format!("/files/{trick}?token={token}")).await;
            assert_eq!(answer.status, StatusCode::NOT_FOUND, "{trick}: {}", answer.text());
        }
    })
    .await;
}

#[tokio::test]
async fn a_picture_that_would_fill_the_memory_is_refused_by_its_size() {
    refusing(FileSettings::default(), async |site, acme| {
        // A wide black picture in a small file.
        let mut bomb = Vec::new();
        let encoder = image::codecs::png::PngEncoder::new(&mut bomb);
        let black = vec![0; 30_000 * 1_400];
        image::ImageEncoder::write_image(encoder, &black, 30_000, 1_400, image::ExtendedColorType::L8).unwrap();
        drop(black);
        assert!(bomb.len() < MIB, "{}", bomb.len());
        let answer = site.upload(acme, "technician", PATH, "bomb.png", &bomb).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST);
        assert!(answer.text().contains("30000 × 1400 pixels"), "{}", answer.text());
        // A JPEG whose header was changed to 65,000 × 65,000.
        let mut jpeg = photo(16, 16);
        let frame = jpeg.windows(2).position(|marker| marker == [0xff, 0xc0]).unwrap();
        jpeg[frame + 5..frame + 9].copy_from_slice(&[0xfd, 0xe8, 0xfd, 0xe8]);
        let answer = site.upload(acme, "technician", PATH, "bomb.jpg", &jpeg).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{}", answer.text());
        assert!(answer.text().contains("65000 × 65000 pixels"), "{}", answer.text());
    })
    .await;
}

#[tokio::test]
async fn what_a_browser_could_run_is_served_so_that_it_cannot() {
    with_tenants(1, async |server, tenants| {
        let place = Place::disk();
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let acme = &tenants[0];
        let rows: [(&str, &[u8], &str); 4] = [
            ("a.html", b"<!doctype html><script>alert(1)</script>", "text/plain; charset=utf-8"),
            ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>", "text/plain; charset=utf-8"),
            ("a.jpg", b"MZ\x90\0\x03", "application/octet-stream"),
            ("broken.jpg", b"\xff\xd8\xff\xe0broken", "image/jpeg"),
        ];
        for (name, content, expected) in rows {
            let id = site.attach(acme, server, name, content).await;
            let file = site.get(acme, "", &site.link(acme, id).await).await;
            assert_eq!(file.header("content-type"), expected, "{name}");
            assert!(file.header("content-disposition").starts_with("attachment;"), "{name}");
            assert!(file.header("content-security-policy").contains("sandbox"), "{name}");
            assert_eq!(file.header("x-content-type-options"), "nosniff");
        }
        assert_eq!(place.files(acme).len(), 4, "no previews of these");
        let page = site.get(acme, "viewer", PATH).await;
        assert!(!page.text().contains("<img"), "{}", page.text());
        assert!(page.header("content-security-policy").contains("img-src 'self'"));
    })
    .await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_or_leaves_does_not_disturb_others() {
    with_tenants(1, async |server, tenants| {
        let place = Place::disk();
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let acme = &tenants[0];
        let id = site.attach(acme, server, "large.bin", &vec![1; 20 * MIB]).await;
        let link = site.link(acme, id).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(axum::serve(listener, site.router.clone()).into_future());
        let mut lines = Vec::new();
        for _ in 0..20 {
            let mut line = TcpStream::connect(address).await.unwrap();
            let head = format!("GET {link} HTTP/1.1\r\nhost: {}\r\n\r\n", acme.primary_host);
            line.write_all(head.as_bytes()).await.unwrap();
            let mut first = [0; 12];
            line.read_exact(&mut first).await.unwrap();
            assert_eq!(&first, b"HTTP/1.1 200");
            lines.push(line);
        }
        // Twenty open downloads hold no connection to the database: there are only twelve.
        assert_eq!(site.get(acme, "viewer", PATH).await.status, StatusCode::OK);
        drop(lines);
        serving.abort();
    })
    .await;
}
