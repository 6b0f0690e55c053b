//! A byte that is changed anywhere is found.

use maintenance_os::backup::keys::Part;
use maintenance_os::backup::verify;

use crate::house::{House, id};

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_flipped_bits_are_found_a_hundred_times() {
    let mut house = House::new().await;
    house.rows_in(0, "INSERT INTO assets (name) SELECT 'pump ' || n FROM generate_series(1, 2000) n").await;
    let acme = house.tenant(0);
    let manifest = house.taker().take(&acme).await.unwrap();
    let id = id(&manifest);
    let check = async || {
        let (id, manifest) = verify::find(&house.bucket, acme.uuid, Some(id)).await?;
        verify::checksum(&house.bucket, acme.uuid, id, &manifest).await
    };
    check().await.unwrap();
    let mut found = 0;
    for part in [Part::Dump, Part::Manifest] {
        let file = house.file(acme.uuid, id, part);
        let good = std::fs::read(&file).unwrap();
        for step in 0..50 {
            let mut bad = good.clone();
            let place = (good.len() - 1) * step / 49;
            bad[place] ^= 1 << (step % 8);
            std::fs::write(&file, &bad).unwrap();
            found += usize::from(check().await.is_err());
        }
        std::fs::write(&file, &good).unwrap();
        check().await.unwrap();
    }
    assert_eq!(found, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_off_or_gone_is_no_backup_and_is_not_counted() {
    let house = House::new().await;
    let acme = house.tenant(0);
    let [whole, cut, empty, bare, headless] = [(); 5].map(|()| house.taker());
    let mut ids = Vec::new();
    for taker in [whole, cut, empty, bare, headless] {
        ids.push(id(&taker.take(&acme).await.unwrap()));
    }
    let dump = |index: usize| house.file(acme.uuid, ids[index], Part::Dump);
    let length = std::fs::metadata(dump(1)).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(dump(1)).unwrap().set_len(length - 1).unwrap();
    std::fs::write(dump(2), "").unwrap();
    std::fs::remove_file(dump(3)).unwrap();
    std::fs::remove_file(house.file(acme.uuid, ids[4], Part::Manifest)).unwrap();
    assert_eq!(house.good(acme.uuid).await, [ids[0].to_string()]);
    for (index, word) in [(1, "bytes and its manifest says"), (2, "0 bytes"), (3, "gone"), (4, "no manifest")] {
        let why = house.why_bad(acme.uuid, ids[index]).await;
        assert!(why.contains(word), "{why}");
    }
    // Retention that keeps one keeps the whole one, although younger ones lie there.
    let keep = maintenance_os::backup::retention::Keep { daily: 1, weekly: 0, monthly: 0 };
    maintenance_os::backup::shelf::prune(&house.bucket, acme.uuid, keep, ids[4]).await.unwrap();
    assert_eq!(house.good(acme.uuid).await, [ids[0].to_string()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_just_taken_stays_and_a_clock_that_ran_ahead_removes_nothing() {
    let house = House::new().await;
    let acme = house.tenant(0);
    let taker = house.taker();
    let mut ids = [id(&taker.take(&acme).await.unwrap()), id(&taker.take(&acme).await.unwrap())];
    // Of one second, chance decides which is the older.
    ids.sort();
    let [older, newer] = ids;
    let none = maintenance_os::backup::retention::Keep { daily: 0, weekly: 0, monthly: 0 };
    // The older one ended last, as of two Jobs that overlap.
    maintenance_os::backup::shelf::prune(&house.bucket, acme.uuid, none, older).await.unwrap();
    assert_eq!(house.good(acme.uuid).await, [older.to_string(), newer.to_string()]);
    let shelf = maintenance_os::backup::shelf::Shelf::read(&house.bucket, acme.uuid).await.unwrap();
    let before_both = older.began - jiff::SignedDuration::from_hours(48);
    assert!(shelf.surplus(none, before_both, newer).is_empty(), "both are of a clock that runs ahead");
    let newest = |now| shelf.newest(now).map(|(id, _)| id);
    assert_eq!(newest(before_both), Some(newer), "there is no other");
    assert_eq!(newest(newer.began), Some(newer));
    assert_eq!(shelf.surplus(none, newer.began, newer), [older].into());
}
