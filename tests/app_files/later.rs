//! What is left to workers: imports, and what people see of them.

use maintenance_os::api::plan::PlanLimits;
use maintenance_os::api::routing::RoutingEntry;
use maintenance_os::app::jobs;
use maintenance_os::tenancy::queue::balance::Balance;
use maintenance_os::tenancy::queue::{Worker, WorkerSettings};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use http::StatusCode;

use crate::site::{Place, Site, assert_settled};
use crate::tenants::{Server, eventually, with_tenants};

struct Running {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    /// A worker beside the app, with the app's own product.
    fn start(site: &Site) -> Self {
        let balance = Balance { min_processes: 2, max_processes: 2, ..Balance::default() };
        let settings = WorkerSettings { balance, memory: None, ..WorkerSettings::default() };
        let product = site.product().clone();
        let worker = Worker::new(site.tenancy(), jobs(), product, settings).unwrap();
        let stop = CancellationToken::new();
        Self { task: tokio::spawn(worker.run(stop.clone())), stop }
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn check(site: &Site, acme: &RoutingEntry, table: &str) -> String {
    let answer = site.upload(acme, "manager", "/imports", "machines.csv", table.as_bytes()).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text());
    answer.header("location").to_owned()
}

async fn assets(server: &Server, acme: &RoutingEntry) -> i64 {
    server.number(&acme.database.name, "SELECT count(*) FROM assets").await
}

#[tokio::test]
async fn an_import_is_left_to_a_worker_and_its_page_says_how_it_goes() {
    with_tenants(1, async |server, tenants| {
        let place = Place::disk();
        let site = Site::with_workers(server, &tenants, &place.settings, 10).await;
        let acme = &tenants[0];
        let address = check(&site, acme, "Name\nPump\nFan\n").await;
        let pressed = site.press(acme, "manager", &format!("{address}/apply")).await;
        assert_eq!((pressed.status, pressed.header("location")), (StatusCode::SEE_OTHER, &*address));
        // Pressed twice it is queued once.
        site.press(acme, "manager", &format!("{address}/apply")).await;
        let page = site.get(acme, "manager", &address).await.text();
        assert!(page.contains("Waiting for its turn") && page.contains("http-equiv=\"refresh\""), "{page}");
        assert!(!page.contains("<button type=\"submit\">Import"), "{page}");
        let list = site.get(acme, "manager", "/jobs").await.text();
        assert!(list.contains("Import of a table"), "{list}");
        assert_eq!(assets(server, acme).await, 1, "no worker, nothing done");

        let worker = Running::start(&site);
        eventually("it is imported", async || {
            site.get(acme, "manager", &address).await.text().contains("Go to the assets")
        })
        .await;
        assert_eq!(assets(server, acme).await, 3);
        let by = "SELECT count(*) FROM assets WHERE created_by = 4";
        assert_eq!(server.number(&acme.database.name, by).await, 2, "by who pressed the button");
        let once = "SELECT count(*) FROM activities WHERE kind = 'asset.imported'";
        assert_eq!(server.number(&acme.database.name, once).await, 1);
        eventually("the list is empty", async || {
            site.get(acme, "manager", "/jobs").await.text().contains("Nothing to do")
        })
        .await;
        assert_eq!(site.get(acme, "technician", "/jobs").await.status, StatusCode::FORBIDDEN);
        worker.stop().await;
        assert_settled(server, acme).await;
    })
    .await;
}

#[tokio::test]
async fn an_import_that_cannot_be_done_says_why_and_can_be_tried_again() {
    with_tenants(1, async |server, tenants| {
        let place = Place::disk();
        let limited = |assets| {
            let mut tenant = tenants[0].clone();
            tenant.plan.limits = PlanLimits { assets: Some(assets), ..PlanLimits::default() };
            tenant
        };
        let acme = limited(2);
        let mut site = Site::with_workers(server, std::slice::from_ref(&acme), &place.settings, 11).await;
        let worker = Running::start(&site);
        let address = check(&site, &acme, "Name\nPump\nFan\n").await;
        site.press(&acme, "manager", &format!("{address}/apply")).await;
        eventually("the page says why", async || {
            site.get(&acme, "manager", &address).await.text().contains("The plan&#39;s limit of 2 assets is reached.")
        })
        .await;
        let page = site.get(&acme, "manager", &address).await.text();
        assert!(page.contains("<button type=\"submit\">Import 2 assets"), "and offers it again: {page}");
        assert_eq!(assets(server, &acme).await, 1, "nothing is stored half");
        let list = site.get(&acme, "manager", "/jobs").await.text();
        assert!(list.contains("Try all again") && list.contains("limit of 2 assets"), "{list}");
        let denied = site.press(&acme, "technician", "/jobs/retry").await;
        assert_eq!(denied.status, StatusCode::FORBIDDEN);

        let denied = site.press(&acme, "technician", "/jobs/discard").await;
        assert_eq!(denied.status, StatusCode::FORBIDDEN);

        // A larger plan, and the button on the page of jobs.
        site.route(&[limited(10)]).await;
        let retried = site.press(&acme, "manager", "/jobs/retry").await;
        assert_eq!(retried.header("location"), "/jobs?done=retried");
        eventually("it is imported", async || assets(server, &acme).await == 3).await;
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_import_of_somebody_who_may_not_any_more_is_not_done() {
    with_tenants(1, async |server, tenants| {
        let place = Place::disk();
        let site = Site::with_workers(server, &tenants, &place.settings, 12).await;
        let acme = &tenants[0];
        let address = check(&site, acme, "Name\nPump\n").await;
        site.press(acme, "manager", &format!("{address}/apply")).await;
        server.sql(&acme.database.name, "UPDATE users SET role = 'viewer' WHERE name = 'manager'").await;
        let worker = Running::start(&site);
        eventually("it is given up", async || {
            site.get(acme, "admin", "/jobs").await.text().contains("This takes the role manager.")
        })
        .await;
        assert_eq!(assets(server, acme).await, 1);
        worker.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_failed_import_that_is_discarded_is_forgotten_and_can_be_begun_anew() {
    with_tenants(1, async |server, tenants| {
        let place = Place::disk();
        let mut acme = tenants[0].clone();
        acme.plan.limits = PlanLimits { assets: Some(2), ..PlanLimits::default() };
        let mut site = Site::with_workers(server, std::slice::from_ref(&acme), &place.settings, 15).await;
        let worker = Running::start(&site);
        let address = check(&site, &acme, "Name\nPump\nFan\n").await;
        site.press(&acme, "manager", &format!("{address}/apply")).await;
        eventually("it failed", async || site.get(&acme, "manager", "/jobs").await.text().contains("Try all again"))
            .await;
        let list = site.get(&acme, "manager", "/jobs").await.text();
        assert!(list.contains("Discard it") && list.contains("Discard all of them"), "each asks first: {list}");
        let discarded = site.press(&acme, "manager", "/jobs/discard").await;
        assert_eq!(discarded.header("location"), "/jobs?done=discarded");
        assert!(site.get(&acme, "manager", "/jobs").await.text().contains("Nothing to do"));
        let again = site.press(&acme, "manager", "/jobs/discard").await;
        assert_eq!(again.header("location"), "/jobs?done=unchanged");
        let page = site.get(&acme, "manager", &address).await.text();
        assert!(page.contains("<button type=\"submit\">Import 2 assets"), "{page}");
        acme.plan.limits.assets = Some(10);
        site.route(std::slice::from_ref(&acme)).await;
        site.press(&acme, "manager", &format!("{address}/apply")).await;
        eventually("it is imported", async || assets(server, &acme).await == 3).await;
        worker.stop().await;
    })
    .await;
}
