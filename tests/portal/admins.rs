//! Administrators of different rights, and what they do to each other.

use maintenance_os::portal::Right;

use crate::house::{House, PASSWORD, all, only};

#[tokio::test]
async fn two_administrators_of_different_rights_may_each_do_their_own() {
    let house = House::new().await;
    house.tenant("acme", serde_json::json!({})).await;
    let mut looker = house.signed_in("look@example.com", only(&[Right::View])).await;
    let mut keeper = house.signed_in("keep@example.com", only(&[Right::ManageTenants])).await;
    let path = house.path("acme");
    looker.get(&path).await.is(200).says("acme GmbH").does_not_say("/suspend").does_not_say("/admins");
    for form in ["plan", "suspend", "delete"] {
        looker.get(&format!("{path}/{form}")).await.is(403);
    }
    looker.get("/").await;
    let refused =
        looker.post(&format!("{path}/suspend"), &[("uid", "x"), ("generation", "1"), ("reason", "because")]).await;
    refused.is(403).says("Manage tenants");
    let entry = house.last("request.refused").await;
    assert_eq!(
        (entry.actor.as_str(), entry.resource_id.as_deref()),
        ("look@example.com", Some(format!("{path}/suspend").as_str()))
    );
    keeper.fill_seen(&format!("{path}/suspend"), &[("reason", "unpaid bills")]).await.is(303);
    // Who manages tenants manages nobody else.
    for path in ["/admins", "/admins/new"] {
        keeper.get(path).await.is(403);
    }
    keeper.get("/").await;
    keeper.post("/admins/new", &[("email", "evil@example.com"), ("manageAdmins", "true")]).await.is(403);
    keeper.post("/plans/pro", &[("uid", "x"), ("generation", "1"), ("active", "false")]).await.is(403);
    assert_eq!(house.db.number("SELECT count(*) FROM system_admins").await, 2);
}

#[tokio::test]
async fn somebody_is_invited_signs_in_is_given_rights_reset_and_removed() {
    let house = House::new().await;
    let mut chief = house.signed_in("chief@example.com", all()).await;
    // Fields that the form does not have change nothing.
    let more = [
        ("email", "New@Example.com"),
        ("view", "true"),
        ("id", "1"),
        ("password", "mine"),
        ("permissions", "{\"manageAdmins\":true}"),
        ("must_change_password", "false"),
        ("two_factor_secret", "x"),
    ];
    let made = chief.fill("/admins/new", &more).await.is(200).says("shown only now");
    let (_, rest) = made.body.split_once("<p class=\"secret\">").unwrap();
    let once = rest.split('<').next().unwrap().to_owned();
    chief.fill("/admins/new", &more).await.is(422).says("already");
    assert_eq!(
        house.db.texts("SELECT permissions::text FROM system_admins WHERE email = 'New@Example.com'").await,
        ["{\"view\": true}"]
    );
    let mut new = house.browser.elsewhere("192.0.2.50");
    new.fill("/sign-in", &[("email", "new@example.com"), ("password", "mine")]).await.is(401);
    new.fill("/sign-in", &[("email", "new@example.com"), ("password", &once)]).await.is(303);
    new.fill("/sign-in/password", &[("password", PASSWORD), ("again", PASSWORD)]).await.is(303);
    let id: i32 = sqlx::query_scalar("SELECT id FROM system_admins WHERE email = 'New@Example.com'")
        .fetch_one(&house.db.pool)
        .await
        .unwrap();
    let page = format!("/admins/{id}");
    chief.fill(&page, &[("manageTenants", "true")]).await.is(303);
    assert_eq!(
        house
            .db
            .number(
                "SELECT count(*) FROM system_admins WHERE permissions = '{\"view\": true, \"manageTenants\": true}'"
            )
            .await,
        1
    );
    let entry = house.last("admin.rights_changed").await;
    assert_eq!(entry.changes.unwrap()["before"], serde_json::json!({"view": true}));
    // Reset: the session ends, password and second factor are gone.
    chief.get(&page).await.is(200);
    chief.post(&format!("{page}/reset"), &[]).await.is(200).says("shown only now");
    new.get("/sign-in/second-factor").await.is(303);
    new.fill("/sign-in", &[("email", "new@example.com"), ("password", PASSWORD)]).await.is(401);
    chief.get(&page).await.is(200);
    chief.post(&format!("{page}/remove"), &[]).await.is(303);
    assert_eq!(house.db.number("SELECT count(*) FROM system_admins").await, 1);
    chief.get(&page).await.is(404);
    let actions = house.actions().await;
    for action in ["admin.invited", "admin.invite.refused", "admin.reset", "admin.removed"] {
        assert!(actions.contains(&action.to_owned()), "{action}: {actions:?}");
    }
    assert!(
        !house
            .trail()
            .await
            .iter()
            .any(|row| row.changes.as_ref().is_some_and(|changes| changes.to_string().contains(&once)))
    );
}

#[tokio::test]
async fn nobody_changes_themselves_and_somebody_is_always_left() {
    let house = House::new().await;
    let mut chief = house.signed_in("chief@example.com", all()).await;
    let me: i32 = sqlx::query_scalar("SELECT id FROM system_admins").fetch_one(&house.db.pool).await.unwrap();
    chief.get("/admins/new").await.is(200);
    for (path, fields) in [
        (format!("/admins/{me}"), vec![("view", "true")]),
        (format!("/admins/{me}/remove"), vec![]),
        (format!("/admins/{me}/reset"), vec![]),
    ] {
        chief.post(&path, &fields).await.is(409).says("Somebody else has to do this");
    }
    // Two who take the right from each other at once: one of them keeps it.
    let mut other = house.signed_in("other@example.com", all()).await;
    let them: i32 = sqlx::query_scalar("SELECT id FROM system_admins WHERE email = 'other@example.com'")
        .fetch_one(&house.db.pool)
        .await
        .unwrap();
    chief.get("/admins/new").await.is(200);
    other.get("/admins/new").await.is(200);
    let (theirs, mine) = (format!("/admins/{them}"), format!("/admins/{me}"));
    let (_one, _two) = futures::join!(chief.post(&theirs, &[("view", "true")]), other.post(&mine, &[("view", "true")]));
    let left = house.db.number("SELECT count(*) FROM system_admins WHERE permissions -> 'manageAdmins' = 'true'").await;
    assert!(left >= 1, "nobody is left");
}

#[tokio::test]
async fn what_changes_who_may_do_what_is_asked_for_anew_after_five_minutes() {
    let house = House::new().await;
    let mut chief = house.signed_in("chief@example.com", all()).await;
    chief.get("/admins/new").await.is(200);
    house.clock.advance(301);
    let away = chief.get("/admins/new").await.is(303);
    assert_eq!(away.location(), "/prove?next=%2Fadmins%2Fnew");
    // The form that was open before is not accepted either.
    let refused = chief.post("/admins/new", &[("email", "new@example.com")]).await.is(303);
    assert!(refused.location().starts_with("/prove"), "{}", refused.location());
    assert_eq!(house.db.number("SELECT count(*) FROM system_admins").await, 1);
    let path = house.path("acme");
    house.tenant("acme", serde_json::json!({})).await;
    assert!(chief.get(&format!("{path}/delete")).await.is(303).location().starts_with("/prove"));
    chief.get("/prove?next=/admins/new").await.is(200);
    chief.post("/prove", &[("password", "wrong"), ("code", &house.code()), ("next", "/admins/new")]).await.is(401);
    chief.post("/prove", &[("password", PASSWORD), ("code", "000000"), ("next", "/admins/new")]).await.is(401);
    let before = chief.cookies.clone();
    // What was shown counts from the database's clock, which the test cannot move.
    house.clock.advance(-301);
    house.db.execute("UPDATE admin_sessions SET proved_at = now() - interval '6 minutes'").await;
    chief.get("/admins/new").await.is(303);
    chief.get("/prove?next=/admins/new").await.is(200);
    house.clock.advance(30);
    let shown =
        chief.post("/prove", &[("password", PASSWORD), ("code", &house.code()), ("next", "/admins/new")]).await.is(303);
    assert_eq!(shown.location(), "/admins/new");
    assert_ne!(chief.cookies, before, "under a new token");
    chief.get("/admins/new").await.is(200);
}
