//! Tables in and out.

use std::fmt::Write;
use std::time::Instant;

use http::StatusCode;
use maintenance_os::api::routing::RoutingEntry;
use maintenance_os::app::FileSettings;

use crate::site::{Place, Site, assert_settled, used};
use crate::tenants::{Server, with_tenants};

/// Sends a table and returns the page of what it would do, and its address.
async fn check(site: &Site, acme: &RoutingEntry, table: &[u8]) -> (String, String) {
    let answer = site.upload(acme, "manager", "/imports", "machines.csv", table).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
    let address = answer.header("location").to_owned();
    let page = site.get(acme, "manager", &address).await;
    assert_eq!(page.status, StatusCode::OK);
    (page.text(), address)
}

/// New, changed, unchanged, broken.
fn counts(page: &str) -> [u64; 4] {
    let cells = page.split("class=\"figure\">").skip(1).take(4);
    let numbers: Vec<u64> = cells.map(|cell| cell.split('<').next().unwrap().parse().unwrap()).collect();
    numbers.try_into().unwrap()
}

async fn assets(server: &Server, acme: &RoutingEntry) -> i64 {
    server.number(&acme.database.name, "SELECT count(*) FROM assets").await
}

fn peak_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

#[tokio::test]
async fn a_file_is_checked_then_imported_and_its_broken_rows_come_back_as_a_table() {
    with_tenants(1, async |server, tenants| {
        let place = Place::disk();
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let acme = &tenants[0];
        let table = "\u{feff}Tag;NAME;Serial no.;Status;Colour;Notes\r\n\
            P-1;Pump;=1+1;;red;\"one\r\ntwo; \"\"three\"\"\"\r\n\
            P-2;;;;;\r\n\
            P-3;Fan;;on fire;;\r\n\
            P-1;Pump again;;;;\r\n\
            ;Pump 7;;down;;\r\n";
        let (page, address) = check(&site, acme, table.as_bytes()).await;
        assert_eq!(counts(&page), [1, 1, 0, 3], "{page}");
        for expected in
            ["Colour", "The name is missing", "Write one of: operational", "Line 2 has the same", "Import 2 assets"]
        {
            assert!(page.contains(expected), "{expected}: {page}");
        }
        assert!(
            page.contains(
                "<th scope=\"row\" role=\"rowheader\">4</th><td role=\"cell\" data-label=\"Column\">Name</td>"
            ),
            "line and column: {page}"
        );
        assert_eq!(assets(server, acme).await, 1, "nothing is stored by looking");

        let report = site.get(acme, "manager", &format!("{address}/refused.csv")).await;
        assert_eq!((report.status, report.header("content-type")), (StatusCode::OK, "text/csv; charset=utf-8"));
        let report = report.text();
        let lines: Vec<&str> = report.trim_start_matches('\u{feff}').lines().collect();
        assert_eq!(lines[0], "Tag,NAME,Serial no.,Status,Colour,Notes,Line,What to change");
        assert_eq!(lines[1], "P-2,,,,,,4,Name: The name is missing. Write one.");
        assert_eq!(lines.len(), 4, "{report}");

        let denied = site.press(acme, "technician", &format!("{address}/apply")).await;
        assert_eq!(denied.status, StatusCode::FORBIDDEN);
        let applied = site.press(acme, "manager", &format!("{address}/apply")).await;
        assert_eq!(applied.status, StatusCode::SEE_OTHER, "{}", applied.text());
        let stored = "SELECT count(*) FROM assets WHERE tag = 'P-1' AND name = 'Pump' AND serial_number = '=1+1' \
                      AND status = 'operational' AND notes = E'one\\ntwo; \"three\"' AND created_by = 4";
        assert_eq!(server.number(&acme.database.name, stored).await, 1);
        let changed = "SELECT count(*) FROM assets WHERE id = 1 AND status = 'down'";
        assert_eq!(server.number(&acme.database.name, changed).await, 1);
        assert_eq!(assets(server, acme).await, 2);
        let again = site.press(acme, "manager", &format!("{address}/apply")).await;
        assert_eq!(again.status, StatusCode::BAD_REQUEST);
        assert!(again.text().contains("imported already"), "{}", again.text());
        let activity = "SELECT count(*) FROM activities WHERE kind = 'asset.imported' AND user_id = 4";
        assert_eq!(server.number(&acme.database.name, activity).await, 1);

        // Out again, and in again: nothing changes.
        let export = site.get(acme, "manager", "/exports/assets.csv").await;
        assert!(export.text().contains(",'=1+1,"), "{}", export.text());
        let (page, _) = check(&site, acme, &export.bytes).await;
        assert_eq!(counts(&page), [0, 0, 2, 0], "{page}");
        assert!(page.contains("nothing to import"));
    })
    .await;
}

#[tokio::test]
async fn files_that_are_no_tables_are_refused_on_the_page_and_leave_nothing() {
    with_tenants(1, async |server, tenants| {
        let place = Place::disk();
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let acme = &tenants[0];
        let many = format!("Name\n{}", "Pump\n".repeat(100_001));
        let rows: [(&[u8], &str); 5] = [
            (b"", "empty"),
            (b"PK\x03\x04\0\0\0", "CSV UTF-8"),
            (b"\xff\xfeN\0a\0", "CSV UTF-8"),
            (b"Tag;Place\n1;2\n", "one of them must be"),
            (many.as_bytes(), "more than 100000 rows"),
        ];
        for (table, expected) in rows {
            let answer = site.upload(acme, "manager", "/imports", "machines.csv", table).await;
            assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{expected}: {}", answer.text());
            assert!(answer.text().contains(expected) && answer.text().contains("aria-invalid"), "{}", answer.text());
        }
        assert!(place.files(acme).is_empty());
        assert_eq!(used(server, acme).await, 0);
        assert_settled(server, acme).await;
    })
    .await;
}

#[tokio::test]
async fn an_import_beyond_the_plans_limit_or_against_a_taken_tag_stores_nothing() {
    with_tenants(1, async |server, mut tenants| {
        tenants[0].plan.limits.assets = Some(3);
        let place = Place::disk();
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let acme = &tenants[0];
        let (_, three) = check(&site, acme, b"Name,Tag\nA,1\nB,2\nC,3\n").await;
        let answer = site.press(acme, "manager", &format!("{three}/apply")).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN);
        assert!(answer.text().contains("3 assets"), "{}", answer.text());
        assert_eq!(assets(server, acme).await, 1);
        let applied = "SELECT count(*) FROM imports WHERE applied_at IS NOT NULL";
        assert_eq!(server.number(&acme.database.name, applied).await, 0, "it can be tried again");
        let (_, two) = check(&site, acme, b"Name,Tag\nA,1\nB,2\n").await;
        assert_eq!(site.press(acme, "manager", &format!("{two}/apply")).await.status, StatusCode::SEE_OTHER);
        assert_eq!(assets(server, acme).await, 3);
        // Two that exchange their tags: refused when it is checked.
        let (page, _) = check(&site, acme, b"ID,Name,Tag\n2,A,2\n3,B,1\n").await;
        assert_eq!(counts(&page), [0, 0, 0, 2], "{page}");
    })
    .await;
}

#[tokio::test]
async fn another_tenants_import_does_not_exist_here() {
    with_tenants(2, async |server, tenants| {
        let place = Place::disk();
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let (_, address) = check(&site, &tenants[0], b"Name\nSecret press\n").await;
        for path in [address.clone(), format!("{address}/refused.csv")] {
            assert_eq!(site.get(&tenants[1], "admin", &path).await.status, StatusCode::NOT_FOUND, "{path}");
        }
        let answer = site.press(&tenants[1], "admin", &format!("{address}/apply")).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert_eq!(assets(server, &tenants[1]).await, 1);
    })
    .await;
}

#[tokio::test]
async fn routines_and_executions_are_exported_and_formulas_are_text() {
    with_tenants(1, async |server, tenants| {
        let place = Place::disk();
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let acme = &tenants[0];
        server
            .sql(&acme.database.name, "UPDATE routines SET name = '@SUM(A1)', instructions = E'-2\\nthen; \"oil\"'")
            .await;
        let routines = site.get(acme, "manager", "/exports/routines.csv").await.text();
        let expected = "1,1,Pump 7,'@SUM(A1),1,month,,yes,2026-12-01,,\"'-2\nthen; \"\"oil\"\"\"\r\n";
        assert!(routines.ends_with(expected), "{routines}");
        let executions = site.get(acme, "manager", "/exports/executions.csv").await.text();
        assert!(executions.ends_with("1,1,'@SUM(A1),Pump 7,pending,2026-12-01,,,,,\r\n"), "{executions}");
        assert_eq!(site.get(acme, "manager", "/exports/users.csv").await.status, StatusCode::NOT_FOUND);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_rows_with_broken_ones_among_them_go_in_and_out_in_bounded_memory() {
    with_tenants(1, async |server, tenants| {
        let place = Place::disk();
        let site = Site::new(server, &tenants, &place.settings, FileSettings::default()).await;
        let acme = &tenants[0];
        let mut table = String::from("Tag,Name,Location,Status,Notes\n");
        for number in 0..100_000 {
            match number % 1000 {
                13 => table.push_str("too,few\n"),
                113 => writeln!(table, "T-{number},,Hall,down,").unwrap(),
                513 => writeln!(table, "T-0,Twice,Hall,down,").unwrap(),
                _ => writeln!(table, "T-{number},Machine {number},Hall {},down,\"says\n\"\"{number}\"\"\"", number % 9)
                    .unwrap(),
            }
        }
        let before = peak_mib();
        let start = Instant::now();
        let (page, address) = check(&site, acme, table.as_bytes()).await;
        let checked = start.elapsed();
        assert_eq!(counts(&page), [99_700, 0, 0, 300], "{}", &page[..2000]);
        assert!(page.contains("And 200 more"), "the faults on the page are capped");
        let start = Instant::now();
        let answer = site.press(acme, "manager", &format!("{address}/apply")).await;
        let applied = start.elapsed();
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
        assert_eq!(assets(server, acme).await, 99_701);
        let report = site.get(acme, "manager", &format!("{address}/refused.csv")).await.text();
        assert_eq!(report.lines().count(), 301);
        let start = Instant::now();
        let export = site.get(acme, "manager", "/exports/assets.csv").await;
        let exported = start.elapsed();
        let start = Instant::now();
        let (page, _) = check(&site, acme, &export.bytes).await;
        let again = start.elapsed();
        assert_eq!(counts(&page), [0, 0, 99_701, 0], "{}", &page[..2000]);
        let grown = peak_mib() - before;
        eprintln!(
            "100,000 rows, {} kB: checked in {checked:?}, applied in {applied:?}, exported in {exported:?}, \
             checked again in {again:?}; peak memory {grown} MiB above {before}",
            table.len() / 1000
        );
        // The file itself, the form around it and the export are in this test's memory, 20 MB of them.
        assert!(grown < 120, "{grown} MiB");
    })
    .await;
}
