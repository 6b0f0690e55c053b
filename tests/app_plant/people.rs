//! Who may do what, and what becomes of what they type.

use super::*;

#[tokio::test]
async fn each_role_may_do_what_it_is_for_and_nothing_above_it() {
    with_site(
        |_| (),
        async |site| {
            let asset = site.asset("Pump").await;
            let routine = site.routine(asset, "Grease", 1, "month", today()).await;
            let work = id(&site.open(routine).await.unwrap());
            let document = json!({});
            let rows = [
                (TINA, "/assets", "/api/assets"),
                (TINA, &format!("/assets/{asset}"), ""),
                (TINA, &format!("/assets/{asset}/retire"), &format!("/api/assets/{asset}/retire")),
                (TINA, &format!("/assets/{asset}/restore"), &format!("/api/assets/{asset}/restore")),
                (TINA, "/routines", ""),
                (TINA, &format!("/routines/{routine}"), ""),
                (TINA, &format!("/routines/{routine}/pause"), &format!("/api/routines/{routine}/pause")),
                (TINA, &format!("/routines/{routine}/resume"), &format!("/api/routines/{routine}/resume")),
                (VIEWER, "/executions/generate", "/api/executions/generate"),
                (VIEWER, &format!("/executions/{work}/start"), &format!("/api/executions/{work}/start")),
                (VIEWER, &format!("/executions/{work}/complete"), &format!("/api/executions/{work}/complete")),
                (VIEWER, &format!("/executions/{work}/skip"), ""),
                (MANAGER, "/sample-data", ""),
            ];
            for (user, page, api) in rows {
                let refused = site.post(user, page, &[("name", "x"), ("reason", "x")]).await;
                assert_eq!(refused.status, StatusCode::FORBIDDEN, "{page}: {}", refused.body);
                assert!(refused.body.contains("Not for your role"), "{page}: {}", refused.body);
                if !api.is_empty() {
                    let body = if api == "/api/assets" { json!({ "name": "x" }) } else { document.clone() };
                    assert_eq!(site.api(user, Method::POST, api, &body).await.0, StatusCode::FORBIDDEN, "{api}");
                }
            }
            for (user, path) in
                [(TINA, "/assets/new"), (TINA, "/routines/new"), (TINA, "/settings"), (TINA, "/api/settings")]
            {
                assert_eq!(site.get(user, path).await.status, StatusCode::FORBIDDEN, "{path}");
            }
            assert_eq!(
                site.number("SELECT count(*) FROM activities").await,
                3,
                "added twice and planned once, no more"
            );
            for path in ["/", "/assets", "/routines", "/executions", "/activities"] {
                let page = site.page(VIEWER, path).await;
                assert!(!page.contains("method=\"post\" action=\"/assets"), "{path}: {page}");
                assert!(!page.contains("/new\""), "{path} offers a viewer what it may not do: {page}");
            }
            assert!(!site.page(VIEWER, &format!("/executions/{work}")).await.contains("/start"));
            let nobody =
                http::Request::get("/assets").header("host", &site.tenant.primary_host).body(Body::empty()).unwrap();
            let answer = answer(&site.app.router, nobody).await;
            assert_ne!(answer.status, StatusCode::OK, "{}", answer.body);
            assert!(!answer.body.contains("Pump"), "{}", answer.body);
        },
    )
    .await;
}

#[tokio::test]
async fn of_two_people_who_edit_the_same_thing_the_second_sees_both_versions() {
    with_site(
        |_| (),
        async |site| {
            let asset = site.asset("Pump").await;
            let version = site.read(&format!("/api/assets/{asset}")).await["updated_at"].as_str().unwrap().to_owned();
            let path = format!("/assets/{asset}");
            let edit = |name: &'static str, version: String| async move { (name, version) };
            let (_, version) = edit("", version).await;
            let first = site.post(MANAGER, &path, &[("name", "Pump of Max"), ("updated_at", &version)]).await;
            assert_eq!(first.status, StatusCode::SEE_OTHER, "{}", first.body);
            let second = site
                .post(ADMIN, &path, &[("name", "Pump of Ada"), ("location", "Hall 9"), ("updated_at", &version)])
                .await;
            assert_eq!(second.status, StatusCode::CONFLICT);
            for part in ["Max Manager changed this", "Pump of Max", "Pump of Ada", "Hall 9"] {
                assert!(second.body.contains(part), "{part}: {}", second.body);
            }
            assert_eq!(
                site.read(&format!("/api/assets/{asset}")).await["name"],
                "Pump of Max",
                "nothing was overwritten"
            );
            // The page carries the version that was seen: sending it again is a decision, and it holds.
            let now = site.read(&format!("/api/assets/{asset}")).await["updated_at"].as_str().unwrap().to_owned();
            assert!(second.body.contains(&now.replace('+', "&#43;")), "{now}: {}", second.body);
            let third = site.post(ADMIN, &path, &[("name", "Pump of Ada"), ("updated_at", &now)]).await;
            assert_eq!(third.status, StatusCode::SEE_OTHER, "{}", third.body);
            let stale = json!({ "name": "Pump", "updated_at": version });
            let (status, problem) = site.api(MANAGER, Method::PUT, &format!("/api/assets/{asset}"), &stale).await;
            assert_eq!(status, StatusCode::CONFLICT, "{problem}");

            let routine = site.routine(asset, "Grease", 1, "month", today()).await;
            let version =
                site.read(&format!("/api/routines/{routine}")).await["updated_at"].as_str().unwrap().to_owned();
            let (asset, due, path) = (asset.to_string(), today().to_string(), format!("/routines/{routine}"));
            let fields = |name: &'static str| {
                [
                    ("asset_id", asset.as_str()),
                    ("name", name),
                    ("interval_count", "1"),
                    ("interval_unit", "month"),
                    ("next_due_on", &due),
                    ("updated_at", &version),
                ]
            };
            assert_eq!(site.post(MANAGER, &path, &fields("Grease twice")).await.status, StatusCode::SEE_OTHER);
            let second = site.post(ADMIN, &path, &fields("Grease thrice")).await;
            assert_eq!(second.status, StatusCode::CONFLICT);
            assert!(second.body.contains("Grease twice") && second.body.contains("Grease thrice"), "{}", second.body);
        },
    )
    .await;
}

#[tokio::test]
async fn what_people_type_is_text_on_every_page() {
    with_site(|_| (), async |site| {
        let evil = "<script>alert('x')</script>\"&";
        let asset = json!({ "name": evil, "tag": evil, "category": evil, "location": evil, "manufacturer": evil, "model": evil, "serial_number": evil, "notes": evil });
        let (_, asset) = site.api(MANAGER, Method::POST, "/api/assets", &asset).await;
        let routine = json!({ "asset_id": asset["id"], "name": evil, "instructions": evil, "interval_count": 1, "interval_unit": "day", "next_due_on": today().to_string(), "assigned_to": TINA });
        let (_, routine) = site.api(MANAGER, Method::POST, "/api/routines", &routine).await;
        let work = id(&site.open(id(&routine)).await.unwrap());
        site.step(TINA, work, "start", &Value::Null).await;
        let open = site.page(TINA, &format!("/executions/{work}")).await;
        site.step(TINA, work, "complete", &json!({ "notes": evil })).await;
        let next = id(&site.open(id(&routine)).await.unwrap());
        site.step(TINA, next, "skip", &json!({ "reason": evil })).await;
        let (asset, routine) = (id(&asset), id(&routine));
        let search = "q=%3Cscript%3Ealert%28%27x%27%29%3C%2Fscript%3E%22%26";
        let mut pages = vec![open];
        for path in [
            "/", "/assets", "/assets/new", "/routines", "/routines/new", "/executions", "/executions?view=done", "/activities",
            &format!("/assets?{search}"), &format!("/routines?{search}"), &format!("/executions?{search}"), "/assets?q=%3Cscript%3Enone",
            &format!("/assets/{asset}"), &format!("/assets/{asset}/edit"), &format!("/routines/{routine}"), &format!("/routines/{routine}/edit"),
            &format!("/executions/{work}"), &format!("/executions/{next}"), &format!("/executions/{work}/print"),
        ] {
            pages.push(site.page(ADMIN, path).await);
        }
        let refused = site.post(MANAGER, "/assets", &[("name", ""), ("tag", evil), ("status", evil), ("commissioned_on", evil)]).await;
        pages.push(refused.body);
        for page in pages {
            assert!(page.contains("script"), "{page}");
            assert!(!page.contains("<script") && !page.contains("x')</"), "{page}");
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_is_not_found_and_a_forged_form_does_nothing() {
    with_site(
        |_| (),
        async |site| {
            for path in [
                "/assets/7",
                "/assets/x",
                "/assets/7/edit",
                "/routines/7",
                "/routines/99999999999999999999",
                "/executions/7",
                "/executions/7/print",
                "/api/assets/7",
                "/api/executions/x",
            ] {
                assert_eq!(site.get(ADMIN, path).await.status, StatusCode::NOT_FOUND, "{path}");
            }
            assert_eq!(site.post(TINA, "/executions/7/start", &[]).await.status, StatusCode::NOT_FOUND);
            let forged = site
                .send(
                    MANAGER,
                    Method::POST,
                    "/assets",
                    "application/x-www-form-urlencoded",
                    "csrf=guess&name=Pump".into(),
                )
                .await;
            assert_eq!(forged.status, StatusCode::FORBIDDEN);
            let unknown = json!({ "name": "Pump", "colour": "red" });
            assert_eq!(site.api(MANAGER, Method::POST, "/api/assets", &unknown).await.0, StatusCode::BAD_REQUEST);
            assert_eq!(site.number("SELECT count(*) FROM assets").await, 0);
        },
    )
    .await;
}

#[tokio::test]
async fn during_the_grace_every_page_says_until_when_and_afterwards_there_is_only_what_mends_it() {
    let unpaid = |until: &str| Subscription {
        status: "unpaid".into(),
        grace_until: Some(until.into()),
        ..Subscription::default()
    };
    with_site(
        |tenant| tenant.subscription = unpaid("2999-01-02T03:04:05Z"),
        async |site| {
            let says = "The subscription has ended. Everything works as before until 2999-01-02 03:04 UTC";
            for (user, path) in [(VIEWER, "/assets"), (TINA, "/"), (MANAGER, "/settings")] {
                assert!(site.page(user, path).await.contains(says), "{path}");
            }
            let stranger = site.app.get(&site.tenant, "/sign-in").await;
            assert!(!stranger.body.contains("The subscription"), "a stranger does not learn that somebody owes money");
            let mut tenant = site.tenant.clone();
            tenant.subscription = unpaid("2020-01-01T00:00:00Z");
            site.app.route(&[tenant]);
            eventually("the grace is over", async || {
                site.get(VIEWER, "/assets").await.status == StatusCode::PAYMENT_REQUIRED
            })
            .await;
            assert!(!site.page(MANAGER, "/settings").await.contains("as before"));
        },
    )
    .await;
}
