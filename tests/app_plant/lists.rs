//! Lists, the dashboard, a site that is full and one that is read-only.

use super::*;

#[tokio::test]
async fn lists_are_complete_and_without_duplicates() {
    with_site(|_| (), async |site| {
        site.sql(
            "INSERT INTO assets (name, location, criticality)
             SELECT 'Pump ' || n % 7, 'Hall ' || n % 3, (ARRAY['low', 'normal', 'high', 'critical'])[1 + n % 4] FROM generate_series(1, 130) n;
             INSERT INTO routines (asset_id, name, interval_count, interval_unit, next_due_on)
             SELECT id, 'Look', 1, 'day', current_date + (id % 2)::int FROM assets;",
        )
        .await;
        for list in ["/assets?sort=criticality&", "/assets?", "/routines?q=look&", "/executions?view=open&"] {
            let kind = list[1..].split('?').next().unwrap();
            let (mut seen, mut count) = (BTreeSet::new(), 0);
            for page in 1..=3 {
                let html = site.page(VIEWER, &format!("{list}page={page}")).await;
                let rows = html.matches("role=\"rowheader\"><a href=\"/").count();
                count += rows;
                seen.extend(html.split(&format!("rowheader\"><a href=\"/{kind}/")).skip(1).map(|rest| rest.split('"').next().unwrap().to_owned()));
                assert_eq!(html.contains("rel=\"next\""), page < 3, "{list} {page}");
                assert_eq!(rows, if page < 3 { 50 } else { 30 }, "{list} {page}");
            }
            assert_eq!((seen.len(), count), (130, 130), "{list}");
        }
        for list in ["/api/assets", "/api/routines", "/api/executions", "/api/activities"] {
            let (mut seen, mut cursor, mut pages) = (BTreeSet::new(), String::new(), 0);
            loop {
                let page = site.read(&format!("{list}?limit=40{cursor}")).await;
                pages += 1;
                for item in page["items"].as_array().unwrap() {
                    assert!(seen.insert(id(item)), "{list}: twice");
                }
                let Some(next) = page["next"].as_str() else { break };
                cursor = format!("&cursor={next}");
            }
            assert_eq!((seen.len(), pages), (130, 4), "{list}");
        }
        let found = site.page(VIEWER, "/assets?q=pump+3&location=Hall+1&criticality=high").await;
        let expected = site.number("SELECT count(*) FROM assets WHERE name = 'Pump 3' AND location = 'Hall 1' AND criticality = 'high'").await;
        assert!(expected > 0 && i64::try_from(found.matches("rowheader").count()).unwrap() == expected, "{found}");
        for odd in ["/assets?q=%00%25_&sort=odd&status=odd&page=-1", "/assets?page=99999999999999999999", "/executions?view=odd"] {
            assert_eq!(site.get(VIEWER, odd).await.status, StatusCode::OK, "{odd}");
        }
        for wrong in ["/api/assets?limit=0", "/api/assets?cursor=x", "/api/assets?colour=red", "/api/executions?due_before=soon"] {
            assert_eq!(site.get(VIEWER, wrong).await.status, StatusCode::BAD_REQUEST, "{wrong}");
        }
    })
    .await;
}

#[tokio::test]
async fn the_dashboard_counts_and_an_empty_site_can_be_filled_once() {
    with_site(|_| (), async |site| {
        let empty = site.page(ADMIN, "/").await;
        keep("dashboard-empty", &empty);
        assert!(empty.contains("Begin with what you look after") && empty.contains("/sample-data"), "{empty}");
        assert!(!site.page(MANAGER, "/").await.contains("/sample-data"));
        let filled = site.post(ADMIN, "/sample-data", &[]).await;
        assert_eq!(filled.status, StatusCode::SEE_OTHER, "{}", filled.body);
        assert_eq!(site.post(ADMIN, "/sample-data", &[]).await.status, StatusCode::CONFLICT);
        let dashboard = site.read("/api/dashboard").await;
        assert_eq!((dashboard["assets"].as_i64(), dashboard["active_routines"].as_i64()), (Some(40), Some(25)));
        let pending = site.number("SELECT count(*) FROM routine_executions WHERE status = 'pending'").await;
        assert_eq!(dashboard["pending_executions"].as_i64(), Some(pending));
        assert_eq!(dashboard["overdue_executions"].as_i64(), Some(6), "{dashboard}");
        assert_eq!(dashboard["recent_activities"].as_array().unwrap().len(), 10);
        let next = dashboard["next_executions"].as_array().unwrap();
        let due: Vec<_> = next.iter().map(|work| work["due_on"].as_str().unwrap()).collect();
        assert!(due.is_sorted() && due[0] < today().to_string().as_str(), "the longest overdue first: {due:?}");
        let done = site.number("SELECT count(*) FROM routine_executions WHERE status = 'completed'").await;
        assert!(done > 100, "{done}");
        let odd = "SELECT count(*) FROM routine_executions e JOIN routines r ON r.id = e.routine_id WHERE e.status = 'completed' AND e.due_on >= r.next_due_on";
        assert_eq!(site.number(odd).await, 0, "what is due next comes after what was done");
        assert!(site.page(MANAGER, "/settings").await.contains("40, without limit"));
        look_around(site).await;
    })
    .await;
}

/// Opens every page of a site that is full. With `MOS_TEST_PAGES` they are kept in that directory, to be looked at.
async fn look_around(site: &Site<'_>) {
    let one = async |path: &str, from: &str| {
        let page = site.page(ADMIN, path).await;
        page.split(from).nth(1).and_then(|rest| rest.split('"').next()).map(ToOwned::to_owned).unwrap()
    };
    let overdue = one("/executions?view=overdue", "href=\"/executions/").await;
    let today = one("/executions?view=today", "href=\"/executions/").await;
    let done = one("/executions?view=done", "href=\"/executions/").await;
    assert_eq!(site.post(TINA, &format!("/executions/{today}/start"), &[]).await.status, StatusCode::SEE_OTHER);
    let pages = [
        ("dashboard", "/?done=sample".to_owned()),
        ("assets", "/assets".into()),
        ("assets-nothing", "/assets?q=zeppelin".into()),
        ("asset", "/assets/1".into()),
        ("asset-new", "/assets/new".into()),
        ("asset-edit", "/assets/1/edit".into()),
        ("routines", "/routines".into()),
        ("routine", "/routines/1".into()),
        ("routine-edit", "/routines/1/edit".into()),
        ("work", "/executions".into()),
        ("work-mine", "/executions?view=mine".into()),
        ("work-done", "/executions?view=done".into()),
        ("execution", format!("/executions/{overdue}")),
        ("execution-started", format!("/executions/{today}")),
        ("execution-done", format!("/executions/{done}")),
        ("work-order", format!("/executions/{overdue}/print")),
        ("activities", "/activities".into()),
        ("settings", "/settings".into()),
    ];
    for (name, path) in pages {
        keep(name, &site.page(ADMIN, &path).await);
    }
    let version = site.read("/api/assets/1").await["updated_at"].as_str().unwrap().to_owned();
    let fields = |name: &'static str| [("name", name), ("location", "Hall 9"), ("updated_at", version.as_str())];
    site.post(MANAGER, "/assets/1", &fields("Raw water pump A")).await;
    keep("asset-conflict", &site.post(ADMIN, "/assets/1", &fields("Raw water pump B")).await.body);
    keep(
        "asset-refused",
        &site.post(ADMIN, "/assets", &[("name", ""), ("tag", "P-101"), ("commissioned_on", "odd")]).await.body,
    );
    keep("problem-404", &site.get(ADMIN, "/nowhere").await.body);
    keep("problem-403", &site.get(VIEWER, "/settings").await.body);
}

fn keep(name: &str, page: &str) {
    if let Ok(directory) = std::env::var("MOS_TEST_PAGES") {
        std::fs::write(format!("{directory}/{name}.html"), page).unwrap();
    }
}

#[tokio::test]
async fn sample_data_keeps_to_the_plan() {
    with_site(
        |tenant| tenant.plan.limits.assets = Some(39),
        async |site| {
            let refused = site.post(ADMIN, "/sample-data", &[]).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN);
            assert!(refused.body.contains("39 assets") && refused.body.contains("/settings"), "{}", refused.body);
            assert_eq!(site.number("SELECT count(*) FROM assets").await, 0);
        },
    )
    .await;
}

#[tokio::test]
async fn a_read_only_tenant_can_be_looked_at_and_nothing_is_planned() {
    with_site(|_| (), async |site| {
        let asset = site.asset("Pump").await;
        site.sql(&format!(
            "INSERT INTO routines (asset_id, name, interval_count, interval_unit, next_due_on) VALUES ({asset}, 'Grease', 1, 'day', current_date)"
        ))
        .await;
        site.tenant.state = TenantState::ReadOnly;
        let (app, tenant) = (&mut site.app, site.tenant.clone());
        app.route(std::slice::from_ref(&tenant));
        tenants::eventually("it is read-only", async || {
            app.tenancy.routing().find(&tenant.primary_host).is_some_and(|entry| entry.state == TenantState::ReadOnly)
        })
        .await;
        for path in ["/", "/assets", &format!("/assets/{asset}"), "/routines", "/executions", "/activities", "/settings"] {
            let page = site.page(ADMIN, path).await;
            assert!(page.contains("Read-only for now"), "{path}: {page}");
            assert!(!page.contains("/new\"") && !page.contains("/edit\""), "{path} offers what is not possible: {page}");
        }
        assert_eq!(site.number("SELECT count(*) FROM routine_executions").await, 0);
        assert_eq!(site.post(MANAGER, "/assets", &[("name", "x")]).await.status, StatusCode::SERVICE_UNAVAILABLE);
    })
    .await;
}

#[tokio::test]
async fn the_dashboard_is_kept_and_a_change_shows_at_once() {
    with_site(
        |_| (),
        async |site| {
            site.asset("Pump").await;
            assert_eq!(site.read("/api/dashboard").await["assets"], 1);
            site.sql("INSERT INTO assets (name) VALUES ('Behind the app')").await;
            assert_eq!(site.read("/api/dashboard").await["assets"], 1, "kept");
            let third = site.asset("Compressor").await;
            assert_eq!(site.read("/api/dashboard").await["assets"], 3, "made anew by the change");
            let routine = site.routine(third, "Grease", 1, "month", today()).await;
            assert_eq!(site.read("/api/dashboard").await["active_routines"], 1);
            assert_eq!(
                site.post(MANAGER, &format!("/routines/{routine}/pause"), &[]).await.status,
                StatusCode::SEE_OTHER
            );
            assert_eq!(site.read("/api/dashboard").await["active_routines"], 0);
        },
    )
    .await;
}
