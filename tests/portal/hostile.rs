//! What others try.

use maintenance_os::portal::Right;
use serde_json::json;

use crate::browser::{HOST, SESSION};
use crate::house::{House, PASSWORD, all, only};

#[tokio::test]
async fn only_the_portals_own_host_is_answered_for() {
    let house = House::new().await;
    let signed_in = house.signed_in("jo@example.com", all()).await;
    for host in [
        "acme.example.com",
        "example.com",
        "admin.example.com.evil.example",
        "xadmin.example.com",
        "10.0.0.1",
        "",
        "admin.example.com, x",
    ] {
        let mut browser = signed_in.clone();
        browser.host = host.into();
        let answer = browser.get("/").await.is(421);
        assert!(!answer.body.contains("jo@") && !answer.body.contains("Admin"), "{}", answer.body);
        browser.host = "acme.example.com".into();
        browser.post("/sign-in", &[("email", "a")]).await.is(421);
    }
    for host in ["ADMIN.example.com", "admin.example.com:443", "admin.example.com."] {
        let mut browser = signed_in.clone();
        browser.host = host.into();
        browser.get("/").await.is(200);
    }
}

#[tokio::test]
async fn every_answer_forbids_what_a_page_does_not_need() {
    let house = House::new().await;
    let mut browser = house.signed_in("jo@example.com", all()).await;
    for path in ["/", "/tenants", "/nothing", "/sign-in", "/log.csv"] {
        let answer = browser.get(path).await;
        let header = |name: &str| answer.headers.get(name).map_or("", |value| value.to_str().unwrap());
        let policy = header("content-security-policy");
        assert!(
            policy.contains("default-src 'none'")
                && policy.contains("frame-ancestors 'none'")
                && !policy.contains("unsafe"),
            "{path}: {policy}"
        );
        assert_eq!(
            (header("x-content-type-options"), header("cache-control"), header("x-frame-options")),
            ("nosniff", "no-store", "DENY"),
            "{path}"
        );
        assert!(
            !answer.body.contains("<script") && !answer.body.contains("style=") && !answer.body.contains("<style"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn a_write_needs_our_own_page_and_its_secret() {
    let house = House::new().await;
    house.tenant("acme", json!({})).await;
    let mut browser = house.signed_in("jo@example.com", only(&[Right::ManageTenants])).await;
    let suspend = format!("{}/suspend", house.path("acme"));
    let page = browser.get(&suspend).await.is(200);
    let (uid, generation) = (page.field("uid"), page.field("generation"));
    let form = [("uid", uid.as_str()), ("generation", generation.as_str()), ("reason", "because")];
    for headers in [
        vec![("origin", "https://evil.example".to_owned())],
        vec![("origin", "null".to_owned())],
        vec![("origin", format!("https://acme.{}", "example.com"))],
        vec![("sec-fetch-site", "cross-site".to_owned())],
        vec![("sec-fetch-site", "same-site".to_owned())],
    ] {
        let mut forged = browser.clone();
        forged.headers = headers;
        forged.post(&suspend, &form).await.is(403).says("another site");
    }
    for secret in ["", "x", &"A".repeat(43)] {
        let mut forged = browser.clone();
        forged.csrf = secret.into();
        forged.post(&suspend, &form).await.is(403).says("expired");
    }
    // The secret of somebody else's form.
    let mut other = house.signed_in("mo@example.com", all()).await;
    other.get(&suspend).await.is(200);
    let mut forged = browser.clone();
    forged.csrf = other.csrf.clone();
    forged.post(&suspend, &form).await.is(403);
    // What a page of another site can send without being asked: a text, a document.
    for kind in ["text/plain", "application/json", "multipart/form-data; boundary=x"] {
        let mut forged = browser.clone();
        forged.headers = vec![("content-type", kind.into())];
        forged.post(&suspend, &form).await.is(422);
    }
    // A form is not sent by following a link.
    browser.get(&format!("{suspend}?uid={uid}&generation={generation}&reason=because")).await.is(200);
    assert_eq!(house.now("acme").await.spec.state, maintenance_os::api::tenant::TenantState::Active);
    assert!(house.actions().await.iter().filter(|action| *action == "request.refused").count() >= 10);
    browser.get(&suspend).await;
    browser.post(&suspend, &form).await.is(303);
    // Signing in needs it too, and so does signing out.
    let mut nobody = house.browser.clone();
    nobody.post("/sign-in", &[("email", "jo@example.com"), ("password", PASSWORD)]).await.is(403);
    browser.csrf = "x".into();
    browser.post("/sign-out", &[]).await.is(403);
    browser.get("/").await.is(200);
}

#[tokio::test]
async fn a_tenants_name_is_text_wherever_it_is_shown() {
    let house = House::new().await;
    let name = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>";
    house
        .tenant("acme", json!({"spec": {"displayName": name, "metadata": {"crm": "</pre><script>alert(2)</script>"}}}))
        .await;
    house
        .status(
            "acme",
            json!({"primaryHost": "\"><script>alert(3)</script>", "conditions": [{"type": "Ready", "status": "False",
        "reason": "Conflict", "message": "<b>\"bold\"</b>", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
        )
        .await;
    crate::cluster::until("the portal knows its status", async || {
        let tenant = house.directory.tenant(&house.namespace, "acme").unwrap();
        tenant.status.as_ref().map(drop).ok_or_else(|| "not yet".to_owned())
    })
    .await;
    let mut browser = house.signed_in("jo@example.com", all()).await;
    let path = house.path("acme");
    browser.fill_seen(&format!("{path}/suspend"), &[("reason", "<script>alert(4)</script>")]).await.is(303);
    for page in ["/", "/tenants?q=script", &path, &format!("{path}/plan"), &format!("{path}/delete"), "/log"] {
        let answer = browser.get(page).await.is(200);
        assert!(
            !answer.body.contains("<script") && !answer.body.contains("<img") && !answer.body.contains("<b>\""),
            "{page}:\n{}",
            answer.body
        );
    }
    for query in ["/tenants?q=%22%3E%3Cscript%3E", "/log?actor=%22%3E%3Cscript%3E", "/sign-in?next=%22%3E%3Cscript%3E"]
    {
        let mut stranger = browser.clone();
        if query.starts_with("/sign-in") {
            stranger.cookies.clear();
        }
        stranger.get(query).await.is(200).does_not_say("<script");
    }
}

#[tokio::test]
async fn after_signing_in_nobody_is_led_to_another_site() {
    let house = House::new().await;
    house.add("jo@example.com", all()).await;
    for next in ["https://evil.example", "//evil.example", "/\\evil.example", "javascript:alert(1)", "/\t/evil.example"]
    {
        let mut browser = house.browser.elsewhere("192.0.2.77");
        let query = serde_urlencoded::to_string([("next", next)]).unwrap();
        browser.get(&format!("/sign-in?{query}")).await.is(200).does_not_say("evil.example\"");
        let asked = browser
            .post("/sign-in", &[("email", "jo@example.com"), ("password", PASSWORD), ("next", next)])
            .await
            .is(303);
        assert!(asked.location().starts_with("/sign-in/code?next=%2F"), "{}", asked.location());
        browser.get(&format!("/sign-in/code?{query}")).await.is(200);
        let done = browser.post("/sign-in/code", &[("code", &house.code()), ("next", next)]).await.is(303);
        assert_eq!(done.location(), "/");
        house.clock.advance(30);
    }
}

#[tokio::test]
async fn a_tenants_cookie_is_worth_nothing_here() {
    let house = House::new().await;
    let signed_in = house.signed_in("jo@example.com", all()).await;
    let token = signed_in.cookies[SESSION].clone();
    let mut browser = house.browser.clone();
    // Of the app, of this portal without TLS, and ours under the app's name.
    let tenant = "7b0f3c525d0e4b9e9a550d1a2c7f1e11.AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for (name, value) in [
        ("mo_session", tenant),
        (SESSION, tenant),
        ("mo_admin", token.as_str()),
        ("mo_session", token.as_str()),
        ("__Secure-mo_admin", token.as_str()),
    ] {
        browser.cookies.clear();
        browser.cookies.insert(name.into(), value.into());
        assert!(browser.get("/tenants").await.is(303).location().starts_with("/sign-in"), "{name}");
    }
    // Two of the same name: one of them is somebody else's doing.
    browser.cookies.clear();
    browser.headers =
        vec![("cookie", format!("{SESSION}={token}")), ("cookie", format!("{SESSION}={}", "A".repeat(43)))];
    browser.get("/tenants").await.is(303);
    assert_eq!(browser.host, HOST);
}

#[tokio::test]
async fn no_filter_reaches_sql() {
    let house = House::new().await;
    let mut browser = house.signed_in("jo@example.com", only(&[Right::View])).await;
    let before = house.trail().await.len();
    for hostile in [
        "' OR true --",
        "'; DROP TABLE audit_logs; --",
        "%",
        "\\'",
        "$1",
        "1e309",
        "\u{0}",
        "\u{202e}",
        "9999999999999999999999",
    ] {
        for field in ["tenant", "actor", "action", "resource", "request", "since", "until", "before", "after"] {
            let query = serde_urlencoded::to_string([(field, hostile)]).unwrap();
            browser.get(&format!("/log?{query}")).await.is(200);
            let csv = browser.get(&format!("/log.csv?{query}")).await;
            assert!(matches!(csv.status.as_u16(), 200 | 422), "{field} {hostile:?}");
        }
        for field in ["q", "status", "plan", "sort", "page"] {
            let query = serde_urlencoded::to_string([(field, hostile)]).unwrap();
            browser.get(&format!("/tenants?{query}")).await.is(200);
        }
        let mut nobody = house.browser.elsewhere("198.51.100.9");
        let status = nobody.fill("/sign-in", &[("email", hostile), ("password", hostile)]).await.status.as_u16();
        assert!(matches!(status, 401 | 422 | 429), "{hostile:?}: {status}");
    }
    for path in ["/admins/1'", "/admins/9999999999999", "/tenants/a/..%2f..", "/tenants/%00/x", "/plans/%27"] {
        let status = browser.get(path).await.status.as_u16();
        assert!(matches!(status, 400 | 403 | 404 | 422), "{path}: {status}");
    }
    assert!(house.trail().await.len() >= before);
}

#[tokio::test]
async fn the_log_goes_page_by_page_and_as_csv() {
    let house = House::new().await;
    let mut browser = house.signed_in("jo@example.com", only(&[Right::View])).await;
    house
        .db
        .execute("INSERT INTO audit_logs (actor, action) SELECT '=cmd', 'did.' || n FROM generate_series(1, 120) n")
        .await;
    let (mut path, mut seen) = ("/log?actor=%3Dcmd".to_owned(), Vec::new());
    for _ in 0..3 {
        let page = browser.get(&path).await.is(200);
        seen.extend(page.body.split("rowheader\">").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned()));
        let Some((_, rest)) = page.body.split_once("rel=\"next\" href=\"") else { break };
        path = rest.split('"').next().unwrap().replace("&#38;", "&");
    }
    let expected: Vec<_> = (1..=120).rev().map(|n| format!("did.{n}")).collect();
    assert_eq!(seen, expected);
    let csv = browser.get("/log.csv?actor=%3Dcmd").await.is(200);
    assert_eq!(csv.body.lines().count(), 121);
    assert!(csv.body.contains(",'=cmd,did.120,"), "{}", &csv.body[..300]);
    browser.get("/log?since=tomorrow").await.is(200).says("Write days as");
}
