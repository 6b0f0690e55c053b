//! Work: planned once, done by one, never lost.

use super::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_who_start_complete_or_skip_at_once_one_wins_and_the_others_see_who() {
    with_site(|_| (), async |site| {
        let asset = site.asset("Pump").await;
        let routine = site.routine(asset, "Grease", 1, "day", today()).await;
        let work = id(&site.open(routine).await.unwrap());
        let site = &*site;
        let starts = (0..8).map(|number| async move {
            site.step(if number % 2 == 0 { TINA } else { TOM }, work, "start", &Value::Null).await
        });
        let answers = futures::future::join_all(starts).await;
        let won: Vec<_> = answers.iter().filter(|(status, _)| *status == StatusCode::OK).collect();
        assert_eq!(won.len(), 1, "{answers:?}");
        let winner = won[0].1["performer_name"].as_str().unwrap();
        for (status, problem) in answers.iter().filter(|(status, _)| *status != StatusCode::OK) {
            assert_eq!(*status, StatusCode::CONFLICT);
            assert_eq!(problem["detail"], format!("{winner} started this just now."));
        }
        let late = site.post(TOM, &format!("/executions/{work}/start"), &[]).await;
        assert_eq!(late.status, StatusCode::CONFLICT);
        assert!(late.body.contains("Somebody was faster") && late.body.contains(winner), "{}", late.body);

        let ends = (0..8).map(|number| async move {
            let (step, document) = if number % 2 == 0 { ("complete", json!({ "notes": "Done." })) } else { ("skip", json!({ "reason": "No." })) };
            site.step(TINA, work, step, &document).await.0
        });
        let ends = futures::future::join_all(ends).await;
        assert_eq!(ends.iter().filter(|status| **status == StatusCode::OK).count(), 1, "{ends:?}");
        let ended = "SELECT count(*) FROM activities WHERE kind IN ('routine_execution.completed', 'routine_execution.skipped')";
        assert_eq!(site.number(ended).await, 1);
        let next = site.open(routine).await.unwrap();
        assert_eq!(next["due_on"], today().tomorrow().unwrap().to_string(), "one step, one interval");
        let (status, problem) = site.step(TINA, id(&next), "complete", &json!({})).await;
        assert_eq!((status, problem["detail"].as_str()), (StatusCode::CONFLICT, Some("This has not been started yet.")));
    })
    .await;
}

#[tokio::test]
async fn completing_follows_the_calendar_and_a_missed_date_is_never_lost() {
    with_site(
        |_| (),
        async |site| {
            let asset = site.asset("Boiler").await;
            let routine = site.routine(asset, "Test the valve", 1, "month", "2025-12-31".parse().unwrap()).await;
            for expected in ["2025-12-31", "2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30"] {
                let work = site.open(routine).await.unwrap();
                assert_eq!(work["due_on"], expected);
                assert_eq!(site.step(TINA, id(&work), "start", &Value::Null).await.0, StatusCode::OK);
                let document = json!({ "notes": "In order.", "asset_status": "degraded" });
                assert_eq!(site.step(TINA, id(&work), "complete", &document).await.0, StatusCode::OK);
            }
            assert_eq!(site.read(&format!("/api/assets/{asset}")).await["status"], "degraded");
            let history = site.page(VIEWER, &format!("/assets/{asset}")).await;
            assert_eq!(history.matches("In order.").count(), 5, "{history}");

            let daily = site.routine(asset, "Look at it", 1, "day", today().saturating_sub(10.days())).await;
            let work = site.open(daily).await.unwrap();
            let refused = site.post(TINA, &format!("/executions/{}/skip", id(&work)), &[("reason", " ")]).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST);
            assert!(refused.body.contains("id=\"reason-error\""), "{}", refused.body);
            let (status, _) =
                site.step(TINA, id(&work), "skip", &json!({ "reason": "Holidays.", "missed": true })).await;
            assert_eq!(status, StatusCode::OK);
            let skipped =
                format!("SELECT count(*) FROM routine_executions WHERE routine_id = {daily} AND status = 'skipped'");
            assert_eq!(site.number(&skipped).await, 10, "each date is on record");
            assert_eq!(site.open(daily).await.unwrap()["due_on"], today().to_string());
        },
    )
    .await;
}

#[tokio::test]
async fn a_routine_moves_its_planned_work_along_and_never_back_before_what_is_done() {
    with_site(|_| (), async |site| {
        let asset = site.asset("Pump").await;
        let routine = site.routine(asset, "Grease", 1, "week", today()).await;
        let put = async |due: Date, every: i32| {
            let version = site.read(&format!("/api/routines/{routine}")).await["updated_at"].clone();
            let document = json!({ "asset_id": asset, "name": "Grease", "interval_count": every, "interval_unit": "week",
                "next_due_on": due.to_string(), "assigned_to": TINA, "updated_at": version });
            site.api(MANAGER, Method::PUT, &format!("/api/routines/{routine}"), &document).await
        };
        let later = today().saturating_add(3.days());
        let (status, stored) = put(later, 2).await;
        assert_eq!((status, stored["assignee_name"].as_str()), (StatusCode::OK, Some("Tina Technician")), "{stored}");
        let work = site.open(routine).await.unwrap();
        assert_eq!(work["due_on"], later.to_string());
        assert!(site.page(TINA, "/executions?view=mine").await.contains("Grease"));
        assert!(site.page(TOM, "/executions?view=mine").await.contains("Nothing is yours right now"));

        site.step(TINA, id(&work), "start", &Value::Null).await;
        let (status, problem) = put(today(), 2).await;
        assert_eq!(status, StatusCode::CONFLICT, "{problem}");
        site.step(TINA, id(&work), "complete", &json!({})).await;
        let (status, problem) = put(later, 2).await;
        assert_eq!(status, StatusCode::CONFLICT, "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("is done already"), "{problem}");
        assert_eq!(site.read(&format!("/api/routines/{routine}")).await["next_due_on"], later.saturating_add(14.days()).to_string());

        assert_eq!(site.post(MANAGER, &format!("/routines/{routine}/pause"), &[]).await.status, StatusCode::SEE_OTHER);
        site.sql(&format!("UPDATE routines SET next_due_on = '2026-01-01', starts_on = '2025-12-04' WHERE id = {routine}")).await;
        assert_eq!(site.post(TINA, "/executions/generate", &[]).await.status, StatusCode::SEE_OTHER);
        assert!(site.open(routine).await.is_none(), "nothing is due while it is paused");
        assert_eq!(site.post(MANAGER, &format!("/routines/{routine}/resume"), &[]).await.status, StatusCode::SEE_OTHER);
        let next: Date = site.read(&format!("/api/routines/{routine}")).await["next_due_on"].as_str().unwrap().parse().unwrap();
        assert!(next > later, "what passed during the pause is not made up for: {next}");
        let (status, problem) = site.api(MANAGER, Method::PUT, &format!("/api/routines/{routine}"), &json!({ "asset_id": asset + 1, "name": "Grease",
            "interval_count": 1, "interval_unit": "week", "next_due_on": next.to_string(),
            "updated_at": site.read(&format!("/api/routines/{routine}")).await["updated_at"] })).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{problem}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn work_is_planned_once_however_many_look_at_it() {
    with_site(
        |_| (),
        async |site| {
            site.sql(
                "INSERT INTO assets (name) SELECT 'Asset ' || n FROM generate_series(1, 20) n;
             INSERT INTO routines (asset_id, name, interval_count, interval_unit, next_due_on)
             SELECT id, 'Look at it', 1, 'day', current_date - 1 + (id % 3)::int FROM assets;
             INSERT INTO routines (asset_id, name, interval_count, interval_unit, next_due_on)
             SELECT id, 'Far away', 1, 'year', current_date + 60 FROM assets;",
            )
            .await;
            let site = &*site;
            let looks = (0..12).map(|number| async move {
                match number % 3 {
                    0 => site.get(VIEWER, "/executions").await.status,
                    1 => site.get(VIEWER, "/api/executions").await.status,
                    _ => site.get(VIEWER, "/").await.status,
                }
            });
            let statuses = futures::future::join_all(looks).await;
            assert!(statuses.iter().all(|status| *status == StatusCode::OK), "{statuses:?}");
            assert_eq!(site.number("SELECT count(*) FROM routine_executions").await, 20);
            assert_eq!(
                site.number("SELECT count(*) FROM activities WHERE kind = 'routine_execution.planned'").await,
                20
            );
            assert_eq!(site.api(TINA, Method::POST, "/api/executions/generate", &Value::Null).await.1["planned"], 0);
        },
    )
    .await;
}
