//! Who is signed in, and what that takes: on a real PostgreSQL and a real Redis.

#![allow(clippy::unwrap_used, reason = "a failed test may say so at once")]

mod browser;
mod tenants;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use browser::Browser;
use http::{Method, StatusCode};
use jiff::Timestamp;
use maintenance_os::api::routing::RoutingEntry;
use maintenance_os::api::tenant::TenantState;
use maintenance_os::api::welcome::{PURPOSE, VERSION, Welcome};
use maintenance_os::app::{MailSettings, Mailer};
use maintenance_os::signing::SigningKeys;
use maintenance_os::tenancy::pool::PoolSettings;
use maintenance_os::tenancy::session::Holder;
use maintenance_os::tenancy::{TenancySettings, TenantContext, layers};
use serde_json::json;
use tempfile::TempDir;
use tenants::{App, Client, answer, eventually, settings, with_tenants};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

const PASSWORD: &str = "correct horse battery";
const OTHER: &str = "quite another password";
const KEY: &str = "0000000000000000000000000000000000000000000000000000000000000001";

fn keys() -> SigningKeys {
    SigningKeys::parse(KEY).unwrap()
}

/// An app that writes its mail into a directory.
async fn app_with_mail(tenants: &[RoutingEntry]) -> (App, TempDir) {
    let directory = TempDir::new().unwrap();
    let mailer = Mailer::new(&MailSettings {
        smtp_url: None,
        directory: Some(directory.path().into()),
        from: Some("noreply@maintenance.example".into()),
        public_url: "https://{host}".into(),
    })
    .unwrap();
    let settings = TenancySettings { pool: PoolSettings::new(20), signing: Some(keys()), ..settings() };
    (App::with(tenants, settings, |product| product.with_mailer(mailer)).await, directory)
}

async fn app(tenants: &[RoutingEntry]) -> App {
    let settings = TenancySettings { pool: PoolSettings::new(20), signing: Some(keys()), ..settings() };
    App::with(tenants, settings, |product| product).await
}

fn welcome(tenant: Uuid, version: u32, expires: i64) -> String {
    let payload = serde_json::to_string(&Welcome { version, nonce: Uuid::new_v4() }).unwrap();
    let expires = Timestamp::from_second(Timestamp::now().as_second() + expires).unwrap();
    keys().sign(tenant, PURPOSE, &payload, expires)
}

/// Makes the first user of a tenant by the welcome link.
async fn first_user(app: &App, tenant: &RoutingEntry) -> Browser {
    let token = welcome(tenant.uuid, VERSION, 60);
    let mut browser = Browser::at(app, tenant);
    let page = browser.get(&format!("/welcome?token={token}")).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.body);
    let made = browser.post("/welcome", &first(&token)).await;
    assert_eq!(made.status, StatusCode::SEE_OTHER, "{}", made.body);
    browser
}

fn first(token: &str) -> [(&str, &str); 5] {
    [("token", token), ("name", "Jo"), ("email", "Jo@Acme.example"), ("password", PASSWORD), ("again", PASSWORD)]
}

/// The mails that were written, oldest first is not known; each with its soft line breaks undone.
fn mails(directory: &TempDir) -> Vec<String> {
    let files = std::fs::read_dir(directory.path()).unwrap().map(|file| file.unwrap().path());
    let files = files.filter(|path| path.extension().is_some_and(|ending| ending == "eml"));
    files.map(|path| std::fs::read_to_string(path).unwrap().replace("=\r\n", "").replace("=3D", "=")).collect()
}

/// The path of the link in the only mail whose text contains `word`; the mail is thrown away.
async fn link(directory: &TempDir, host: &str, word: &str) -> String {
    eventually("a mail is written", async || mails(directory).iter().any(|mail| mail.contains(word))).await;
    let mail = mails(directory).into_iter().find(|mail| mail.contains(word)).unwrap();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    let link = mail.lines().find(|line| line.starts_with("https://")).unwrap_or_else(|| panic!("no link: {mail}"));
    link.trim().strip_prefix(&format!("https://{host}")).unwrap_or_else(|| panic!("not at {host}: {link}")).to_owned()
}

#[tokio::test]
async fn the_welcome_link_makes_one_first_user_of_its_own_tenant_and_no_more() {
    with_tenants(2, async |server, tenants| {
        let app = app(&tenants).await;
        let acme = &tenants[0];
        let mut browser = Browser::at(&app, acme);
        let bad = [
            welcome(tenants[1].uuid, VERSION, 60),
            welcome(acme.uuid, VERSION, -1),
            welcome(acme.uuid, VERSION + 1, 60),
            keys().sign(acme.uuid, "download", "{}", Timestamp::MAX),
            "nonsense".into(),
            String::new(),
        ];
        for token in bad {
            let page = browser.get(&format!("/welcome?token={token}")).await;
            assert_eq!(page.status, StatusCode::GONE, "{token}");
            assert!(page.body.contains("This link is not valid") && !page.body.contains("<form"), "{}", page.body);
            let made = browser.fill("/sign-in", "/welcome", &first(&token)).await;
            assert_eq!(made.status, StatusCode::GONE, "{token}");
        }
        let token = welcome(acme.uuid, VERSION, 60);
        // Opening it, as programs that look into mails do, does not use it up; nor does a form with a mistake.
        for _ in 0..2 {
            assert_eq!(browser.get(&format!("/welcome?token={token}")).await.status, StatusCode::OK);
        }
        let mut fields = first(&token);
        fields[4].1 = OTHER;
        let page = browser.post("/welcome", &fields).await;
        assert_eq!(page.status, StatusCode::BAD_REQUEST);
        assert!(page.body.contains("id=\"again-error\"") && page.body.contains("Jo@Acme.example"), "{}", page.body);
        assert!(!page.body.contains(PASSWORD), "a password is never sent back");

        let mut others = [browser.clone(), browser.clone(), browser.clone()];
        let posts = others.iter_mut().map(|browser| {
            let token = &token;
            async move { browser.post("/welcome", &first(token)).await.status }
        });
        let mut statuses = futures::future::join_all(posts).await;
        statuses.sort();
        assert_eq!(statuses, [StatusCode::SEE_OTHER, StatusCode::GONE, StatusCode::GONE]);
        assert_eq!(server.number(&acme.database.name, "SELECT count(*) FROM users").await, 1);
        let winner = others.iter_mut().find(|browser| browser.session().is_some()).unwrap();
        assert_eq!(winner.get("/users").await.status, StatusCode::OK, "signed in, as administrator");
        assert_eq!(browser.get(&format!("/welcome?token={token}")).await.status, StatusCode::GONE);
        let another = welcome(acme.uuid, VERSION, 60);
        assert_eq!(browser.get(&format!("/welcome?token={another}")).await.status, StatusCode::GONE);
    })
    .await;
}

#[tokio::test]
async fn after_a_restore_a_session_is_its_own_persons_or_over() {
    with_tenants(1, async |server, mut tenants| {
        let mut app = app(&tenants).await;
        let mut browser = first_user(&app, &tenants[0]).await;
        assert_eq!(browser.get("/profile").await.status, StatusCode::OK);
        let change_address = async |address: &str| {
            let change = format!("UPDATE users SET email = '{address}'");
            server.sql(&tenants[0].database.name, &change).await;
        };
        // Whoever changes their address stays signed in; in other data the same number with another address is another person.
        change_address("jo.married@acme.example").await;
        assert_eq!(browser.get("/profile").await.status, StatusCode::OK);
        change_address("jo@acme.example").await;
        let restored = Uuid::new_v4();
        let mut entries = tenants.clone();
        entries[0].incarnation = Some(restored);
        app.route(&entries);
        eventually("it is served with other data", async || {
            app.tenancy.routing().tenant(entries[0].uuid).is_some_and(|entry| entry.incarnation == Some(restored))
        })
        .await;
        assert_eq!(browser.get("/profile").await.status, StatusCode::OK, "the same person stays signed in");
        change_address("eve@other.example").await;
        assert_eq!(
            browser.get("/profile").await.status,
            StatusCode::SEE_OTHER,
            "somebody else's session is not theirs"
        );
        tenants.clear();
    })
    .await;
}

#[tokio::test]
async fn signing_in_begins_a_session_under_a_new_id_and_signing_out_ends_it() {
    with_tenants(1, async |_, tenants| {
        let app = app(&tenants).await;
        let browser = first_user(&app, &tenants[0]).await;
        let first = browser.session().unwrap().clone();
        let mut stranger = Browser::at(&app, &tenants[0]);
        let answer = stranger.get("/sign-in").await;
        assert!(stranger.session().is_none() && stranger.cookies.len() == 1, "{:?}", answer.headers);
        let cookie = answer.headers["set-cookie"].to_str().unwrap();
        assert!(cookie.starts_with("__Host-mo_form=") && cookie.contains("; Secure") && !cookie.contains("Domain"));
        assert!(stranger.get("/api/tenant").await.headers.get("set-cookie").is_none());

        for (email, password) in
            [("jo@acme.example", OTHER), ("nobody@acme.example", PASSWORD), ("", ""), ("jo@acme.example", "")]
        {
            let refused = stranger.sign_in(email, password).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{email}");
            assert!(refused.body.contains("The e-mail address or the password is not right."), "{}", refused.body);
            assert!(stranger.session().is_none());
        }
        // A session that somebody else planted is not taken over: one that never was, and a real one.
        let planted = format!("{}.{}", tenants[0].uuid.simple(), "A".repeat(43));
        for planted in [planted, first.clone()] {
            let mut victim = Browser::at(&app, &tenants[0]);
            victim.cookies.insert("mo_session".into(), planted.clone());
            victim.get("/sign-in").await;
            victim.get("/profile").await;
            let done = victim.post("/sign-in", &[("email", "JO@acme.example"), ("password", PASSWORD)]).await;
            assert_eq!(done.status, StatusCode::SEE_OTHER, "{}", done.body);
            assert_ne!(victim.session(), Some(&planted));
            assert_eq!(victim.get("/profile").await.status, StatusCode::OK);
            victim.cookies.insert("mo_session".into(), planted);
            assert_eq!(victim.get("/profile").await.status, StatusCode::SEE_OTHER, "what was planted is worth nothing");
        }
        let done = stranger.sign_in("jo@acme.example", PASSWORD).await;
        let cookie = done.headers.get_all("set-cookie").iter().map(|value| value.to_str().unwrap());
        let cookie = cookie.filter(|value| value.starts_with("mo_session=")).collect::<Vec<_>>();
        assert!(cookie.len() == 1 && cookie[0].ends_with("; HttpOnly; SameSite=Lax; Secure"), "{cookie:?}");
        stranger.get("/profile").await;
        let kept = stranger.clone();
        assert_eq!(stranger.post("/sign-out", &[]).await.headers["location"], "/sign-in");
        assert!(stranger.session().is_none());
        let mut kept = kept;
        let answer = kept.get("/profile").await;
        assert_eq!(
            (answer.status, &answer.headers["location"]),
            (StatusCode::SEE_OTHER, &"/sign-in?next=%2Fprofile".parse().unwrap())
        );
    })
    .await;
}

#[tokio::test]
async fn nothing_of_one_tenants_accounts_is_worth_anything_at_another() {
    with_tenants(2, async |server, tenants| {
        let (app, directory) = app_with_mail(&tenants).await;
        let [acme, other] = &tenants[..] else { unreachable!() };
        let (acme_admin, other_admin) = (app.client(acme, "admin").await, app.client(other, "admin").await);

        // The cookie: not accepted, removed from the browser, and ended where it belongs, since somebody has it.
        let carried = Client { host: other.primary_host.clone(), ..acme_admin.clone() };
        let refused = app.get_as(&carried, "/profile").await;
        assert_eq!(refused.status, StatusCode::SEE_OTHER);
        assert!(refused.headers["set-cookie"].to_str().unwrap().contains("Max-Age=0"), "{:?}", refused.headers);
        assert_eq!(app.get_as(&acme_admin, "/profile").await.status, StatusCode::SEE_OTHER);
        assert_eq!(app.get_as(&other_admin, "/profile").await.status, StatusCode::OK);

        // The token.
        assert_eq!(app.get_as(&carried, "/api/me").await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(app.get_as(&acme_admin, "/api/me").await.status, StatusCode::OK);

        // The secret of a form: another tenant's, another session's, none.
        let acme_admin = app.session(acme, acme_admin.user, acme_admin.token).await;
        let second = app.session(acme, acme_admin.user, acme_admin.token.clone()).await;
        for csrf in [&other_admin.csrf, &second.csrf, ""] {
            let forged = Client { csrf: csrf.to_owned(), ..acme_admin.clone() };
            let refused = app.post_as(&forged, "/profile/name", &[("name", "Forged")]).await;
            assert_eq!(refused.status, StatusCode::FORBIDDEN, "{csrf}");
        }
        let mut visitor = Browser::at(&app, acme);
        visitor.get("/sign-in").await;
        visitor.host.clone_from(&other.primary_host);
        let refused = visitor.post("/sign-in", &[("email", "a@b.example"), ("password", PASSWORD)]).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{}", refused.body);
        let names = "SELECT count(*) FROM users WHERE name = 'Forged'";
        assert_eq!(server.number(&acme.database.name, names).await, 0);

        // The link.
        Browser::at(&app, acme).fill("/forgot-password", "/forgot-password", &[("email", "admin@test.example")]).await;
        let path = link(&directory, &acme.primary_host, "new password").await;
        let mut visitor = Browser::at(&app, other);
        assert_eq!(visitor.get(&path).await.status, StatusCode::GONE);
        let token = path.split_once("token=").unwrap().1;
        let fields = [("token", token), ("password", PASSWORD), ("again", PASSWORD)];
        assert_eq!(visitor.fill("/sign-in", "/reset-password", &fields).await.status, StatusCode::GONE);
        assert_eq!(Browser::at(&app, acme).get(&path).await.status, StatusCode::OK);
    })
    .await;
}

#[tokio::test]
async fn a_new_password_by_mail_takes_the_mail_once_and_ends_every_session_and_token() {
    with_tenants(1, async |server, mut tenants| {
        let second = format!("second-{}", tenants[0].primary_host);
        tenants[0].hosts.push(second.clone());
        let (app, directory) = app_with_mail(&tenants).await;
        let acme = &tenants[0];
        let mut before = first_user(&app, acme).await;
        before.fill("/tokens", "/tokens", &[("name", "Nightly import"), ("days", "30")]).await;
        let tokens = async || {
            server.number(&acme.database.name, "SELECT count(*) FROM api_tokens WHERE revoked_at IS NULL").await
        };

        // Asked for at a host that is not the canonical one. Whether there is such an account makes no difference.
        let mut visitor = Browser::at(&app, acme);
        visitor.host = second;
        let unknown = visitor.fill("/forgot-password", "/forgot-password", &[("email", "nobody@acme.example")]).await;
        let known = visitor.fill("/forgot-password", "/forgot-password", &[("email", "jo@acme.example")]).await;
        assert_eq!((unknown.status, &unknown.headers["location"]), (known.status, &known.headers["location"]));
        assert_eq!(unknown.body, known.body);
        let path = link(&directory, &acme.primary_host, "new password").await;
        assert!(mails(&directory).is_empty(), "nobody else gets mail");
        for injected in ["jo@acme.example\r\nBcc: evil@evil.example", "jo@acme.example,evil@evil.example"] {
            let refused = visitor.fill("/forgot-password", "/forgot-password", &[("email", injected)]).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        }

        let mut visitor = Browser::at(&app, acme);
        assert_eq!(visitor.get(&path).await.status, StatusCode::OK);
        let token = path.split_once("token=").unwrap().1;
        let weak = [("token", token), ("password", "short"), ("again", "short")];
        let refused = visitor.post("/reset-password", &weak).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.body.contains("id=\"password-error\""), "{}", refused.body);
        assert_eq!(before.get("/profile").await.status, StatusCode::OK, "nothing has happened so far");
        assert_eq!(tokens().await, 1);
        let fields = [("token", token), ("password", OTHER), ("again", OTHER)];
        let mut twice = [visitor.clone(), visitor.clone()];
        let posts = twice.iter_mut().map(|browser| browser.post("/reset-password", &fields));
        let mut statuses: Vec<_> = futures::future::join_all(posts).await.iter().map(|answer| answer.status).collect();
        statuses.sort();
        assert_eq!(statuses, [StatusCode::SEE_OTHER, StatusCode::GONE], "the link is good once");

        assert_eq!(before.get("/profile").await.status, StatusCode::SEE_OTHER, "the old session has ended");
        assert_eq!(tokens().await, 0, "and the tokens with it");
        let winner = twice.iter_mut().find(|browser| browser.session().is_some()).unwrap();
        assert_eq!(winner.get("/profile").await.status, StatusCode::OK, "whoever chose the password is signed in");
        assert_eq!(before.sign_in("jo@acme.example", PASSWORD).await.status, StatusCode::BAD_REQUEST);
        assert_eq!(before.sign_in("jo@acme.example", OTHER).await.status, StatusCode::SEE_OTHER);

        // An hour later.
        visitor.fill("/forgot-password", "/forgot-password", &[("email", "jo@acme.example")]).await;
        let path = link(&directory, &acme.primary_host, "new password").await;
        let age = "UPDATE account_links SET expires_at = expires_at - interval '1 hour'";
        server.sql(&acme.database.name, age).await;
        assert_eq!(visitor.get(&path).await.status, StatusCode::GONE);
    })
    .await;
}

#[tokio::test]
async fn somebody_who_is_invited_joins_by_the_link_and_works_with_the_role_that_was_given() {
    with_tenants(1, async |server, mut tenants| {
        tenants[0].display_name = "Müller & Söhne, \"Pumpen\" <GmbH>".into();
        let (app, directory) = app_with_mail(&tenants).await;
        let acme = &tenants[0];
        let mut admin = first_user(&app, acme).await;
        let taken = [("name", "Jo"), ("email", "JO@ACME.example"), ("role", "viewer")];
        let refused = admin.fill("/users", "/users", &taken).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST);
        assert!(refused.body.contains("id=\"email-error\""), "{}", refused.body);
        for (field, value) in
            [("name", "Kim\u{0}"), ("name", "Kim\nBcc: x@y.example"), ("email", "kim"), ("role", "owner")]
        {
            let mut fields = [("name", "Kim"), ("email", "kim@acme.example"), ("role", "technician")];
            fields.iter_mut().find(|(name, _)| *name == field).unwrap().1 = value;
            let refused = admin.post("/users", &fields).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{field}: {value:?}");
            assert!(refused.body.contains(&format!("id=\"{field}-error\"")), "{}", refused.body);
        }
        assert_eq!(server.number(&acme.database.name, "SELECT count(*) FROM users").await, 1);
        assert!(mails(&directory).is_empty());

        let fields = [("name", "Kim"), ("email", "kim@acme.example"), ("role", "technician")];
        assert_eq!(admin.post("/users", &fields).await.headers["location"], "/users?done=sent");
        let path = link(&directory, &acme.primary_host, "made an account").await;
        let mut kim = Browser::at(&app, acme);
        assert_eq!(
            kim.sign_in("kim@acme.example", "").await.status,
            StatusCode::BAD_REQUEST,
            "there is no password yet"
        );
        let page = kim.get(&path).await;
        assert!(page.status == StatusCode::OK && page.body.contains("kim@acme.example"), "{}", page.body);
        let token = path.split_once("token=").unwrap().1;
        let fields = [("token", token), ("name", "Kim Lee"), ("password", PASSWORD), ("again", PASSWORD)];
        assert_eq!(kim.post("/invitation", &fields).await.status, StatusCode::SEE_OTHER);
        assert!(kim.get("/profile").await.body.contains("Kim Lee"));
        assert_eq!(kim.get("/users").await.status, StatusCode::FORBIDDEN);
        assert_eq!(kim.get(&path).await.status, StatusCode::GONE);

        // The role holds for the next request; being shut out does, too.
        let id = server.number(&acme.database.name, "SELECT id FROM users WHERE email = 'kim@acme.example'").await;
        admin.get("/users").await;
        admin.post(&format!("/users/{id}/role"), &[("role", "admin")]).await;
        assert_eq!(kim.get("/users").await.status, StatusCode::OK);
        let held = format!(
            "INSERT INTO api_tokens (user_id, name, prefix, token_sha256) VALUES ({id}, 'x', 'x', sha256('x'));
             INSERT INTO account_links (user_id, purpose, token_sha256, email, mailed, expires_at)
             VALUES ({id}, 'verify', sha256('y'), 'kim@other.example', true, now() + interval '1 day')"
        );
        server.sql(&acme.database.name, &held).await;
        admin.post(&format!("/users/{id}/disable"), &[]).await;
        assert_eq!(kim.get("/users").await.status, StatusCode::SEE_OTHER);
        assert_eq!(kim.sign_in("kim@acme.example", PASSWORD).await.status, StatusCode::BAD_REQUEST);
        admin.post(&format!("/users/{id}/enable"), &[]).await;
        // What they held before does not come back with them.
        let left = format!(
            "SELECT (SELECT count(*) FROM api_tokens WHERE user_id = {id} AND revoked_at IS NULL)
                  + (SELECT count(*) FROM account_links WHERE user_id = {id} AND used_at IS NULL)"
        );
        assert_eq!(server.number(&acme.database.name, &left).await, 0);
        assert_eq!(kim.sign_in("kim@acme.example", PASSWORD).await.status, StatusCode::SEE_OTHER);
    })
    .await;
}

#[tokio::test]
async fn an_invitation_that_cannot_be_mailed_is_handed_over_and_proves_no_address() {
    with_tenants(1, async |server, tenants| {
        let (app, directory) = app_with_mail(&tenants).await;
        let acme = &tenants[0];
        let mut admin = first_user(&app, acme).await;
        std::fs::remove_dir(directory.path()).unwrap();
        let fields = [("name", "Kim"), ("email", "kim@acme.example"), ("role", "manager")];
        let page = admin.fill("/users", "/users", &fields).await;
        assert!(page.status == StatusCode::OK && page.body.contains("could not be mailed"), "{}", page.body);
        std::fs::create_dir(directory.path()).unwrap();
        let start = format!("https://{}", acme.primary_host);
        let path = page.body.split_once(&start).unwrap().1.split('"').next().unwrap().replace("&#61;", "=");
        let mut kim = Browser::at(&app, acme);
        let token = path.split_once("token=").unwrap().1.to_owned();
        let fields = [("token", token.as_str()), ("name", "Kim"), ("password", PASSWORD), ("again", PASSWORD)];
        assert_eq!(kim.fill(&path, "/invitation", &fields).await.status, StatusCode::SEE_OTHER);
        for path in ["/profile", "/"] {
            assert_eq!(kim.get(path).await.headers["location"], "/unverified", "{path}");
        }
        assert_eq!(kim.fill("/unverified", "/unverified", &[]).await.status, StatusCode::OK);
        let path = link(&directory, &acme.primary_host, "This address was given").await;
        let token = path.split_once("token=").unwrap().1;
        assert_eq!(kim.fill(&path, "/verify-email", &[("token", token)]).await.status, StatusCode::SEE_OTHER);
        assert_eq!(kim.get("/profile").await.status, StatusCode::OK);
        let verified = "SELECT count(*) FROM users WHERE email_verified_at IS NOT NULL";
        assert_eq!(server.number(&acme.database.name, verified).await, 2);
    })
    .await;
}

#[tokio::test]
async fn guessing_is_limited_and_locks_nobody_else_out() {
    with_tenants(1, async |_, tenants| {
        let app = app(&tenants).await;
        let acme = &tenants[0];
        let mut known = first_user(&app, acme).await;
        known.get("/profile").await;
        known.post("/sign-out", &[]).await;
        assert_eq!(known.sign_in("jo@acme.example", PASSWORD).await.status, StatusCode::SEE_OTHER);

        let mut guesser = Browser::at(&app, acme);
        guesser.address = "198.51.100.7".into();
        for _ in 0..6 {
            assert_eq!(guesser.sign_in("jo@acme.example", OTHER).await.status, StatusCode::BAD_REQUEST);
        }
        let refused = guesser.sign_in(" JO@acme.example", PASSWORD).await;
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS, "even with the right one");
        assert!(refused.headers["retry-after"].to_str().unwrap().parse::<u64>().unwrap() <= 900);
        // An account that is not there is limited just the same.
        for _ in 0..6 {
            assert_eq!(guesser.sign_in("nobody@acme.example", OTHER).await.status, StatusCode::BAD_REQUEST);
        }
        assert_eq!(guesser.sign_in("nobody@acme.example", OTHER).await.status, StatusCode::TOO_MANY_REQUESTS);
        // From elsewhere the account can be used.
        let mut elsewhere = Browser::at(&app, acme);
        elsewhere.address = "203.0.113.9".into();
        assert_eq!(elsewhere.sign_in("jo@acme.example", PASSWORD).await.status, StatusCode::SEE_OTHER);

        // Guessing from everywhere at once ends for everybody but the browsers that are known.
        let mut refused = 0;
        for place in 0..20 {
            let mut guesser = Browser::at(&app, acme);
            guesser.address = format!("198.51.100.{}", 100 + place);
            guesser.get("/sign-in").await;
            for _ in 0..6 {
                let answer = guesser.post("/sign-in", &[("email", "jo@acme.example"), ("password", OTHER)]).await;
                refused += usize::from(answer.status == StatusCode::TOO_MANY_REQUESTS);
            }
        }
        assert!((10..=30).contains(&refused), "{refused}");
        known.get("/profile").await;
        known.post("/sign-out", &[]).await;
        known.address = "203.0.113.77".into();
        assert_eq!(known.sign_in("jo@acme.example", PASSWORD).await.status, StatusCode::SEE_OTHER);
        for _ in 0..6 {
            known.cookies.remove("mo_session");
            assert_eq!(known.sign_in("jo@acme.example", OTHER).await.status, StatusCode::BAD_REQUEST);
        }
        assert_eq!(
            known.sign_in("jo@acme.example", OTHER).await.status,
            StatusCode::TOO_MANY_REQUESTS,
            "known, but no more"
        );
    })
    .await;
}

#[tokio::test]
async fn each_route_is_open_to_the_roles_that_it_is_for() {
    // Method, path, and what a stranger, a viewer, a technician, a manager and an administrator get.
    const SEE: u16 = 303;
    let rows: &[(&str, &str, [u16; 5])] = &[
        ("GET", "/sign-in", [200, SEE, SEE, SEE, SEE]),
        ("GET", "/forgot-password", [200, 200, 200, 200, 200]),
        ("GET", "/reset-password", [410, 410, 410, 410, 410]),
        ("GET", "/invitation", [410, 410, 410, 410, 410]),
        ("GET", "/verify-email", [410, 410, 410, 410, 410]),
        ("GET", "/welcome", [410, 410, 410, 410, 410]),
        ("GET", "/unverified", [SEE, 200, 200, 200, 200]),
        ("POST", "/unverified", [SEE, 503, 503, 503, 503]),
        ("GET", "/profile", [SEE, 200, 200, 200, 200]),
        ("POST", "/profile/name", [SEE, 400, 400, 400, 400]),
        ("POST", "/profile/email", [SEE, 400, 400, 400, 400]),
        ("POST", "/profile/password", [SEE, 400, 400, 400, 400]),
        ("GET", "/tokens", [SEE, 200, 200, 200, 200]),
        ("POST", "/tokens", [SEE, 400, 400, 400, 400]),
        ("POST", "/tokens/999/revoke", [SEE, 404, 404, 404, 404]),
        ("GET", "/users", [SEE, 403, 403, 403, 200]),
        ("POST", "/users", [SEE, 403, 403, 403, 400]),
        ("GET", "/users/999", [SEE, 403, 403, 403, 404]),
        ("GET", "/users/x", [SEE, 403, 403, 403, 404]),
        ("POST", "/users/999/role", [SEE, 403, 403, 403, 404]),
        ("POST", "/users/999/disable", [SEE, 403, 403, 403, 404]),
        ("POST", "/users/999/enable", [SEE, 403, 403, 403, 404]),
        ("POST", "/users/999/invite", [SEE, 403, 403, 403, 404]),
        ("GET", "/api/tenant", [200, 200, 200, 200, 200]),
        ("GET", "/api/me", [401, 200, 200, 200, 200]),
        ("GET", "/api/users", [401, 403, 403, 403, 200]),
        ("POST", "/sign-out", [SEE, SEE, SEE, SEE, SEE]),
    ];
    with_tenants(1, async |_, tenants| {
        let app = app(&tenants).await;
        let nobody = Client {
            host: tenants[0].primary_host.clone(),
            user: 0,
            cookie: "x=y".into(),
            csrf: String::new(),
            token: String::new(),
        };
        let mut clients = vec![nobody];
        for role in ["viewer", "technician", "manager", "admin"] {
            clients.push(app.client(&tenants[0], role).await);
        }
        for (method, path, expected) in rows {
            for (client, expected) in clients.iter().zip(expected) {
                let got = match (*method, client.user) {
                    ("GET", 0) => Browser::at(&app, &tenants[0]).get(path).await,
                    ("GET", _) => app.get_as(client, path).await,
                    (_, _) => app.post_as(client, path, &[]).await,
                };
                let who = client.user;
                assert_eq!(got.status.as_u16(), *expected, "{method} {path} by user {who}: {}", got.body);
            }
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn the_plans_limit_of_users_and_the_last_administrator_hold_for_requests_at_the_same_time() {
    with_tenants(1, async |server, mut tenants| {
        tenants[0].plan.limits.users = Some(4);
        let app = app(&tenants).await;
        let acme = &tenants[0];
        let name = &acme.database.name;
        let admin = app.client(acme, "admin").await;
        let inviting = (0..8).map(|number| {
            let (app, admin) = (&app, &admin);
            async move {
                let email = format!("user{number}@acme.example");
                let fields = [("name", "Kim"), ("email", email.as_str()), ("role", "admin")];
                app.post_as(admin, "/users", &fields).await.status
            }
        });
        let statuses = futures::future::join_all(inviting).await;
        assert_eq!(statuses.iter().filter(|status| **status == StatusCode::OK).count(), 3, "{statuses:?}");
        assert_eq!(server.number(name, "SELECT count(*) FROM users").await, 4);
        // Whoever is disabled does not count, and counts again when enabled.
        let kim = server.number(name, "SELECT min(id) FROM users WHERE email LIKE 'user%'").await;
        app.post_as(&admin, &format!("/users/{kim}/disable"), &[]).await;
        let fields = [("name", "Kim"), ("email", "last@acme.example"), ("role", "viewer")];
        assert_eq!(app.post_as(&admin, "/users", &fields).await.status, StatusCode::OK);
        let refused = app.post_as(&admin, &format!("/users/{kim}/enable"), &[]).await;
        assert!(refused.status == StatusCode::FORBIDDEN && refused.body.contains("4 users"), "{}", refused.body);

        // The other administrators have never set a password, so this one is the last.
        server.sql(name, "UPDATE users SET password_hash = 'x' WHERE email = 'admin@test.example'").await;
        let own = format!("/users/{}", admin.user);
        for (path, fields) in [("role", &[("role", "manager")][..]), ("disable", &[])] {
            let refused = app.post_as(&admin, &format!("{own}/{path}"), fields).await;
            assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{path}");
            assert!(refused.body.contains("the last administrator"), "{}", refused.body);
        }
        // Two administrators who demote each other at the same time: one stays.
        server.sql(name, "UPDATE users SET password_hash = 'x' WHERE email = 'user7@acme.example' OR role = 'admin'").await;
        server.sql(name, "UPDATE users SET role = 'viewer' WHERE role = 'admin' AND email NOT IN (SELECT email FROM users WHERE role = 'admin' AND disabled_at IS NULL ORDER BY id LIMIT 2)").await;
        let second = server.number(name, "SELECT max(id) FROM users WHERE role = 'admin'").await;
        let second = app.session(acme, second, String::new()).await;
        let demote = async |by: &Client, whom: i64| {
            app.post_as(by, &format!("/users/{whom}/role"), &[("role", "viewer")]).await.status
        };
        futures::join!(demote(&admin, second.user), demote(&second, admin.user));
        assert_eq!(server.number(name, "SELECT count(*) FROM users WHERE role = 'admin'").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_suspended_tenants_sessions_end_and_stay_ended() {
    with_tenants(2, async |_, mut tenants| {
        let mut app = app(&tenants).await;
        let (ended, kept) = (app.client(&tenants[0], "admin").await, app.client(&tenants[1], "admin").await);
        let uuid = tenants[0].uuid;
        let id = maintenance_os::tenancy::session::SessionId::parse(ended.cookie.strip_prefix("mo_session=").unwrap())
            .unwrap();
        assert!(app.tenancy.sessions().find(&id).await.unwrap().is_some());
        tenants[0].state = TenantState::Suspended;
        let start = Instant::now();
        app.route(&tenants);
        eventually("the session ends", async || app.tenancy.sessions().find(&id).await.unwrap().is_none()).await;
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert_eq!(app.get_as(&ended, "/profile").await.status, StatusCode::SERVICE_UNAVAILABLE);

        tenants[0].state = TenantState::Active;
        app.route(&tenants);
        eventually("it is served", async || app.get_as(&ended, "/sign-in").await.status == StatusCode::OK).await;
        assert_eq!(app.get_as(&ended, "/profile").await.status, StatusCode::SEE_OTHER, "the old session stays ended");
        let holder = Holder { user: ended.user.to_string(), generation: 0, ..Holder::default() };
        let new = app.tenancy.sessions().begin(uuid, holder).await.unwrap();
        assert!(app.tenancy.sessions().find(&new).await.unwrap().is_some(), "new ones can begin");
        assert!(app.tenancy.sessions().find(&id).await.unwrap().is_none(), "and bring none back");
        assert_eq!(app.get_as(&kept, "/profile").await.status, StatusCode::OK, "others are not touched");

        app.route(&tenants[1..]);
        eventually("it is gone", async || app.tenancy.sessions().find(&new).await.unwrap().is_none()).await;
    })
    .await;
}

#[tokio::test]
async fn a_sign_in_that_is_under_way_when_its_tenant_is_suspended_begins_no_session() {
    with_tenants(1, async |_, mut tenants| {
        let mut app = app(&tenants).await;
        let (entered, gate) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Semaphore::new(0)));
        let sign_in = {
            let (tenancy, entered, gate) = (app.tenancy.clone(), entered.clone(), gate.clone());
            async move |tenant: TenantContext| {
                entered.notify_one();
                let _permit = gate.acquire().await.unwrap();
                let holder = Holder { user: "1".into(), generation: 0, ..Holder::default() };
                format!("{:?}", tenancy.begin_session(&tenant, holder).await.err())
            }
        };
        let router = layers::tenant(axum::Router::new().route("/slow", axum::routing::get(sign_in)), &app.tenancy);
        let host = tenants[0].primary_host.clone();
        let request = http::Request::get("/slow").header("host", &host).body(axum::body::Body::empty()).unwrap();
        let suspend = async {
            entered.notified().await;
            tenants[0].state = TenantState::Suspended;
            app.route(&tenants);
            eventually("it is suspended", async || {
                app.tenancy.routing().find(&host).unwrap().state == TenantState::Suspended
            })
            .await;
            gate.add_permits(1);
        };
        let (answer, ()) = futures::join!(answer(&router, request), suspend);
        assert_eq!(answer.body, "Some(NotServed)");
    })
    .await;
}

#[tokio::test]
async fn sessions_end_when_they_are_idle_or_old() {
    with_tenants(1, async |_, tenants| {
        let mut short = TenancySettings { pool: PoolSettings::new(8), ..settings() };
        short.sessions.idle = Duration::from_secs(2);
        short.sessions.lifetime = Duration::from_secs(6);
        let app = App::with(&tenants, short, |product| product).await;
        let (used, idle) = (app.client(&tenants[0], "admin").await, app.client(&tenants[0], "viewer").await);
        let start = Instant::now();
        eventually("its time is over", async || app.get_as(&used, "/profile").await.status == StatusCode::SEE_OTHER)
            .await;
        let age = start.elapsed();
        assert!(age > Duration::from_secs(4) && age < Duration::from_secs(8), "used all the time, it lived {age:?}");
        assert_eq!(app.get_as(&idle, "/profile").await.status, StatusCode::SEE_OTHER);
    })
    .await;
}

#[tokio::test]
async fn a_sign_in_leads_back_to_the_page_that_was_wanted_and_never_to_another_site() {
    with_tenants(1, async |_, tenants| {
        let app = app(&tenants).await;
        let mut browser = first_user(&app, &tenants[0]).await;
        browser.cookies.clear();
        let wanted = browser.get("/users?page=2").await;
        assert_eq!(wanted.headers["location"], "/sign-in?next=%2Fusers%3Fpage%3D2");
        let page = browser.get("/sign-in?next=%2Fusers%3Fpage%3D2").await;
        assert!(page.body.contains("value=\"/users?page=2\""), "{}", page.body);
        for next in
            ["//evil.example", "https://evil.example", "/\\evil.example", "/\t/evil.example", "javascript:x", "\\\\e"]
        {
            let page = browser.get(&format!("/sign-in?{}", tenants::form(&[("next", next)]))).await;
            assert!(!page.body.contains("evil"), "{}", page.body);
            let fields = [("email", "jo@acme.example"), ("password", PASSWORD), ("next", next)];
            let done = browser.post("/sign-in", &fields).await;
            assert_eq!(
                (done.status, &done.headers["location"]),
                (StatusCode::SEE_OTHER, &"/".parse().unwrap()),
                "{next:?}"
            );
            browser.cookies.clear();
        }
        // Signed in already, the page leads on in the same way.
        browser.sign_in("jo@acme.example", PASSWORD).await;
        assert_eq!(browser.get("/sign-in?next=//evil.example").await.headers["location"], "/");
        assert_eq!(browser.get("/sign-in?next=/users").await.headers["location"], "/users");
        assert_eq!(browser.get("//evil.example/x").await.status, StatusCode::NOT_FOUND);
    })
    .await;
}

#[tokio::test]
async fn a_token_is_shown_once_and_works_until_it_is_revoked_or_over_or_its_user_is_shut_out() {
    with_tenants(1, async |server, tenants| {
        let app = app(&tenants).await;
        let acme = &tenants[0];
        let name = &acme.database.name;
        let mut browser = first_user(&app, acme).await;
        let page = browser.fill("/tokens", "/tokens", &[("name", "Nightly import"), ("days", "30")]).await;
        assert_eq!(page.status, StatusCode::OK, "{}", page.body);
        let token = page.body.split_once("value=\"mos_").unwrap().1.split('"').next().unwrap();
        let token = format!("mos_{token}");
        let page = browser.get("/tokens").await;
        assert!(!page.body.contains(&token) && page.body.contains(&token[..10]), "{}", page.body);
        let me = Client { host: acme.primary_host.clone(), user: 1, cookie: String::new(), csrf: String::new(), token };
        let works = async || app.get_as(&me, "/api/me").await.status == StatusCode::OK;
        assert!(works().await);
        let document: serde_json::Value = serde_json::from_str(&app.get_as(&me, "/api/me").await.body).unwrap();
        assert_eq!((document["email"].as_str(), document["role"].as_str()), (Some("Jo@Acme.example"), Some("admin")));
        assert_eq!(server.number(name, "SELECT count(*) FROM api_tokens WHERE last_used_at IS NOT NULL").await, 1);
        // No form's secret, no cookie.
        let added = app.json_as(&me, Method::POST, "/api/assets", &json!({ "name": "Pump" })).await;
        assert_eq!(added.status, StatusCode::CREATED, "{}", added.body);
        let page = answer(
            &app.router,
            me.request(Method::GET, "/profile")
                .header("authorization", format!("Bearer {}", me.token))
                .body(axum::body::Body::empty())
                .unwrap(),
        )
        .await;
        assert_eq!(page.status, StatusCode::SEE_OTHER, "a token opens no page");

        for (statement, back) in [
            ("UPDATE api_tokens SET expires_at = now()", "UPDATE api_tokens SET expires_at = NULL"),
            ("UPDATE users SET disabled_at = now()", "UPDATE users SET disabled_at = NULL"),
        ] {
            server.sql(name, statement).await;
            let refused = app.get_as(&me, "/api/me").await;
            assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
            assert_eq!(refused.headers["www-authenticate"], "Bearer");
            assert_eq!(refused.headers["content-type"], "application/problem+json");
            assert_eq!(
                app.get_as(&me, "/api/tenant").await.status,
                StatusCode::UNAUTHORIZED,
                "not taken for a stranger"
            );
            server.sql(name, back).await;
            assert!(works().await);
        }
        let id = server.number(name, "SELECT id FROM api_tokens").await;
        // Somebody else's token is not there.
        let other = app.client(acme, "manager").await;
        assert_eq!(app.post_as(&other, &format!("/tokens/{id}/revoke"), &[]).await.status, StatusCode::NOT_FOUND);
        assert!(works().await);
        browser.post(&format!("/tokens/{id}/revoke"), &[]).await;
        assert!(!works().await);
    })
    .await;
}

#[tokio::test]
async fn a_stranger_hears_whose_host_it_is_and_a_cookie_writes_nothing_at_the_interface() {
    with_tenants(1, async |_, tenants| {
        let app = app(&tenants).await;
        let acme = &tenants[0];
        let stranger = Browser::at(&app, acme).get("/api/tenant").await;
        let document: serde_json::Value = serde_json::from_str(&stranger.body).unwrap();
        assert_eq!(document, json!({ "tenant": acme.display_name, "slug": acme.slug }));
        let admin = app.client(acme, "admin").await;
        let document: serde_json::Value = serde_json::from_str(&app.get_as(&admin, "/api/tenant").await.body).unwrap();
        assert_eq!(
            (document["uuid"].as_str(), document["assets"].as_i64()),
            (Some(acme.uuid.to_string().as_str()), Some(0))
        );
        let with_cookie = |method, path| {
            http::Request::builder()
                .method(method)
                .uri(path)
                .header("host", &acme.primary_host)
                .header("cookie", &admin.cookie)
        };
        let read = with_cookie(Method::GET, "/api/me").body(axum::body::Body::empty()).unwrap();
        assert_eq!(answer(&app.router, read).await.status, StatusCode::OK);
        let write = with_cookie(Method::POST, "/api/assets").header("content-type", "application/json");
        let write = write.body(axum::body::Body::from("{\"name\":\"Pump\"}")).unwrap();
        assert_eq!(answer(&app.router, write).await.status, StatusCode::UNAUTHORIZED);
    })
    .await;
}

#[tokio::test]
async fn one_can_sign_in_to_look_at_a_tenant_that_is_read_only() {
    with_tenants(1, async |server, mut tenants| {
        let mut app = app(&tenants).await;
        let mut browser = first_user(&app, &tenants[0]).await;
        tenants[0].state = TenantState::ReadOnly;
        app.route(&tenants);
        let name = &tenants[0].database.name;
        server.sql("postgres", &format!("ALTER ROLE \"{name}_a\" SET default_transaction_read_only = on")).await;
        let host = &tenants[0].primary_host;
        let is_read_only = async || app.tenancy.routing().find(host).unwrap().state == TenantState::ReadOnly;
        eventually("it is read-only", is_read_only).await;
        browser.get("/profile").await;
        assert_eq!(browser.post("/profile/name", &[("name", "Kim")]).await.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(browser.post("/sign-out", &[]).await.status, StatusCode::SEE_OTHER);
        assert_eq!(browser.sign_in("jo@acme.example", PASSWORD).await.status, StatusCode::SEE_OTHER);
        assert_eq!(browser.get("/profile").await.status, StatusCode::OK);
    })
    .await;
}

#[tokio::test]
async fn ones_own_password_name_and_address_are_changed_by_whoever_knows_the_password() {
    with_tenants(1, async |_, tenants| {
        let (app, directory) = app_with_mail(&tenants).await;
        let acme = &tenants[0];
        let mut browser = first_user(&app, acme).await;
        let mut second = Browser::at(&app, acme);
        second.sign_in("jo@acme.example", PASSWORD).await;
        let change = |current| [("current", current), ("password", OTHER), ("again", OTHER)];
        let refused = browser.fill("/profile", "/profile/password", &change(OTHER)).await;
        assert!(
            refused.status == StatusCode::BAD_REQUEST && refused.body.contains("id=\"current-error\""),
            "{}",
            refused.body
        );
        let before = browser.session().cloned();
        assert_eq!(browser.post("/profile/password", &change(PASSWORD)).await.status, StatusCode::SEE_OTHER);
        assert_ne!(browser.session(), before.as_ref());
        assert_eq!(browser.get("/profile").await.status, StatusCode::OK);
        assert_eq!(second.get("/profile").await.status, StatusCode::SEE_OTHER, "signed out everywhere else");

        assert_eq!(browser.post("/profile/name", &[("name", "Jo <b>Lee</b>")]).await.status, StatusCode::SEE_OTHER);
        assert!(browser.get("/profile").await.body.contains("Jo &#60;b&#62;Lee"), "shown as text");
        let fields = [("email", "lee@acme.example"), ("current_for_email", OTHER)];
        let asked = browser.post("/profile/email", &fields).await;
        assert_eq!(asked.headers["location"], "/profile?done=sent");
        assert!(browser.get("/profile").await.body.contains("Jo@Acme.example"), "it changes when the mail has arrived");
        let path = link(&directory, &acme.primary_host, "This address was given").await;
        let token = path.split_once("token=").unwrap().1;
        assert_eq!(
            browser.fill(&path, "/verify-email", &[("token", token)]).await.headers["location"],
            "/profile?done=saved"
        );
        assert!(browser.get("/profile").await.body.contains("lee@acme.example"));
        eventually("the old address hears of it", async || {
            mails(&directory).iter().any(|mail| mail.contains("Jo@Acme.example"))
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn while_redis_is_away_nobody_is_signed_out_and_it_comes_back_by_itself() {
    with_tenants(1, async |_, tenants| {
        let line = Line::to_redis().await;
        let mut redis = tenants::redis();
        redis.nodes = vec![("127.0.0.1".into(), line.port)];
        let settings = TenancySettings { pool: PoolSettings::new(8), redis: Some(redis), ..settings() };
        let app = App::with(&tenants, settings, |product| product).await;
        let acme = &tenants[0];
        let admin = app.client(acme, "admin").await;
        assert_eq!(app.get_as(&admin, "/profile").await.status, StatusCode::OK);
        line.cut();
        for _ in 0..3 {
            let page = app.get_as(&admin, "/profile").await;
            assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
            assert!(page.body.contains("Sign-in is not available right now"), "{}", page.body);
            assert!(page.headers.get("set-cookie").is_none() && page.headers.contains_key("retry-after"));
        }
        let mut visitor = Browser::at(&app, acme);
        assert_eq!(visitor.get("/sign-in").await.status, StatusCode::OK);
        let refused = visitor.post("/sign-in", &[("email", "a@b.example"), ("password", PASSWORD)]).await;
        assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(app.get_as(&admin, "/api/me").await.status, StatusCode::OK, "tokens need no Redis");
        line.mend();
        eventually("the same session works again", async || {
            app.get_as(&admin, "/profile").await.status == StatusCode::OK
        })
        .await;
    })
    .await;
}

/// The line to Redis, which can be cut.
struct Line {
    port: u16,
    is_cut: Arc<AtomicBool>,
    changed: Arc<tokio::sync::Notify>,
}

impl Line {
    async fn to_redis() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (is_cut, changed) = (Arc::new(AtomicBool::new(false)), Arc::new(tokio::sync::Notify::new()));
        let line = Self { port, is_cut: is_cut.clone(), changed: changed.clone() };
        let redis = tenants::redis();
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                if is_cut.load(Ordering::SeqCst) {
                    continue;
                }
                let changed = changed.clone();
                let address = redis.nodes[0].clone();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(address).await.unwrap();
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        () = changed.notified() => {}
                    }
                });
            }
        });
        line
    }

    fn cut(&self) {
        self.is_cut.store(true, Ordering::SeqCst);
        self.changed.notify_waiters();
    }

    fn mend(&self) {
        self.is_cut.store(false, Ordering::SeqCst);
    }
}
