//! Signing in: the first time, ever after, and what does not get in.

use maintenance_os::central::Central;
use maintenance_os::portal::{Rights, SealingKeys};

use crate::browser::{Browser, SESSION};
use crate::house::{House, KEYS, PASSWORD, all, code};
use crate::ledger::{Database, ca, url_of};

async fn first(house: &House) -> Browser {
    let portal = house.portal.clone();
    maintenance_os::portal::make_first_admin(portal, "first@example.com".into(), "one-time-password".into()).await;
    house.browser.clone()
}

/// The secret on the page that shows it.
fn shown_secret(body: &str) -> Vec<u8> {
    let (_, rest) = body.split_once("class=\"secret\">").unwrap();
    let letters: String = rest.split('<').next().unwrap().chars().filter(|c| !c.is_whitespace()).collect();
    totp_rs::Secret::try_from_base32(letters).unwrap().as_bytes().to_vec()
}

#[tokio::test]
async fn the_first_administrator_sets_password_and_second_factor_before_anything_else() {
    let house = House::new().await;
    let mut browser = first(&house).await;
    browser.get("/tenants?status=attention").await.is(303);
    let signed = browser
        .fill("/sign-in", &[("email", "FIRST@example.com"), ("password", "one-time-password"), ("next", "/tenants")])
        .await
        .is(303);
    assert!(signed.location().starts_with("/sign-in/password"), "{}", signed.location());
    // Nothing else is served yet, whatever path is tried.
    for path in ["/", "/tenants", "/account", "/log.csv", "/admins", "/prove"] {
        let away = browser.get(path).await.is(303);
        assert!(away.location().starts_with("/sign-in"), "{path}: {}", away.location());
    }
    assert_eq!(browser.get("/sign-in/second-factor").await.is(303).location(), "/sign-in/password");
    for (password, again, why) in [
        ("short", "short", "12 characters"),
        ("a longer password", "another longer one", "not the same"),
        ("one-time-password", "one-time-password", "the one you have"),
    ] {
        browser.fill("/sign-in/password", &[("password", password), ("again", again)]).await.is(422).says(why);
    }
    browser.fill("/sign-in/password", &[("password", PASSWORD), ("again", PASSWORD)]).await.is(303);
    let page = browser.get("/sign-in/second-factor").await.is(200).says("<svg");
    let secret = shown_secret(&page.body);
    assert_eq!(shown_secret(&browser.get("/sign-in/second-factor").await.body), secret, "a page that is opened again");
    browser.post("/sign-in/second-factor", &[("code", "000000")]).await.is(422).says("not the one");
    let right = code(&secret, house.portal.now().as_second());
    let done = browser.post("/sign-in/second-factor", &[("code", &right)]).await.is(200).says("Recovery codes");
    let recovery: Vec<_> =
        done.body.split("<li>").skip(1).map(|rest| rest.split('<').next().unwrap().to_owned()).collect();
    assert_eq!(recovery.len(), 10);
    browser.get("/").await.is(200).says("Overview").says("first@example.com");

    // A code that was shown is not accepted again, not even in another browser; a recovery code is, once.
    let mut other = house.browser.elsewhere("192.0.2.9");
    let begin = [("email", "first@example.com"), ("password", PASSWORD)];
    other.fill("/sign-in", &begin).await.is(303);
    other.fill("/sign-in/code", &[("code", &right)]).await.is(401).says("used before");
    other.fill("/sign-in/code", &[("code", &recovery[0].to_uppercase())]).await.is(303);
    other.get("/").await.is(200);
    let mut third = house.browser.elsewhere("192.0.2.10");
    third.fill("/sign-in", &begin).await.is(303);
    third.fill("/sign-in/code", &[("code", &recovery[0])]).await.is(401);
    house.clock.advance(30);
    let next = code(&secret, house.portal.now().as_second());
    third.fill("/sign-in/code", &[("code", &next)]).await.is(303);
    // There is somebody, so what the portal was started with makes nobody.
    maintenance_os::portal::make_first_admin(house.portal.clone(), "second@example.com".into(), "x".into()).await;
    assert_eq!(house.db.number("SELECT count(*) FROM system_admins").await, 1);
    let actions = house.actions().await;
    for action in [
        "admin.first",
        "admin.password_set",
        "admin.second_factor_set",
        "admin.signed_in",
        "admin.second_factor_failed",
    ] {
        assert!(actions.contains(&action.to_owned()), "{action}: {actions:?}");
    }
}

#[tokio::test]
async fn nothing_but_hashes_and_ciphertext_is_kept() {
    let house = House::new().await;
    let browser = house.signed_in("jo@example.com", all()).await;
    let token = &browser.cookies[SESSION];
    let kept = house.db.texts("SELECT row_to_json(s)::text FROM admin_sessions s UNION ALL SELECT row_to_json(a)::text FROM system_admins a UNION ALL SELECT row_to_json(l)::text FROM audit_logs l").await.join("\n");
    assert!(!kept.contains(token) && !kept.contains(PASSWORD), "{kept}");
    assert!(kept.contains("$argon2id$v=19$m=19456,t=2,p=1$"));
    let cookie = house.browser.clone().fill("/sign-in", &[("email", "jo@example.com"), ("password", PASSWORD)]).await;
    let cookie = cookie
        .headers
        .get_all("set-cookie")
        .iter()
        .map(|c| c.to_str().unwrap())
        .find(|c| c.starts_with(SESSION))
        .unwrap()
        .to_owned();
    for part in ["Secure", "HttpOnly", "SameSite=Strict", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains("Domain"), "{cookie}");
}

#[tokio::test]
async fn a_session_gets_a_new_token_at_every_step_and_one_that_was_planted_is_never_signed_in() {
    let house = House::new().await;
    house.add("jo@example.com", all()).await;
    let mut browser = house.browser.clone();
    let planted = "A".repeat(43);
    browser.cookies.insert(SESSION.into(), planted.clone());
    browser.fill("/sign-in", &[("email", "jo@example.com"), ("password", PASSWORD)]).await.is(303);
    let half = browser.cookies[SESSION].clone();
    browser.fill("/sign-in/code", &[("code", &house.code())]).await.is(303);
    let full = browser.cookies[SESSION].clone();
    assert!(planted != half && half != full);
    for old in [planted, half] {
        let mut attacker = house.browser.clone();
        attacker.cookies.insert(SESSION.into(), old);
        assert!(attacker.get("/tenants").await.is(303).location().starts_with("/sign-in"));
    }
    // Signed out, the token is worth nothing, wherever it was copied to.
    let mut copy = browser.clone();
    copy.get("/tenants").await.is(200);
    browser.get("/").await;
    browser.post("/sign-out", &[]).await.is(303);
    assert!(!browser.cookies.contains_key(SESSION));
    copy.get("/tenants").await.is(303);
}

#[tokio::test]
async fn a_session_ends_without_use_and_at_its_age() {
    let house = House::new().await;
    let mut browser = house.signed_in("jo@example.com", all()).await;
    house.db.execute("UPDATE admin_sessions SET seen_at = now() - interval '29 minutes'").await;
    browser.get("/tenants").await.is(200);
    house.db.execute("UPDATE admin_sessions SET seen_at = now() - interval '31 minutes'").await;
    browser.get("/tenants").await.is(303);
    house
        .db
        .execute("UPDATE admin_sessions SET seen_at = now(), created_at = now() - interval '11 hours 59 minutes'")
        .await;
    browser.get("/tenants").await.is(200);
    house.db.execute("UPDATE admin_sessions SET created_at = now() - interval '12 hours 1 minute'").await;
    browser.get("/tenants").await.is(303);
}

#[tokio::test]
async fn guessing_is_stopped_without_locking_the_owner_out() {
    let house = House::new().await;
    let mut owner = house.signed_in("jo@example.com", all()).await;
    owner.get("/").await;
    owner.post("/sign-out", &[]).await.is(303);
    let mut guesser = house.browser.elsewhere("198.51.100.7");
    let guess = [("email", "jo@example.com"), ("password", "a wrong password")];
    for _ in 0..6 {
        guesser.fill("/sign-in", &guess).await.is(401).says("Address or password is wrong");
    }
    let stopped = guesser.fill("/sign-in", &guess).await.is(429);
    assert!(stopped.headers.contains_key("retry-after"));
    // Not even the right one gets in from there now, so that the answer tells nothing.
    guesser.fill("/sign-in", &[("email", "jo@example.com"), ("password", PASSWORD)]).await.is(429);
    // Another account from the same place, and the same account from another.
    guesser.fill("/sign-in", &[("email", "mo@example.com"), ("password", "x")]).await.is(401);
    let mut elsewhere = house.browser.elsewhere("203.0.113.5");
    elsewhere.fill("/sign-in", &[("email", "jo@example.com"), ("password", PASSWORD)]).await.is(303);
    // Guesses from everywhere use up the account's own count; where it has signed in from before, that does not hold.
    for place in 0..20 {
        let mut guesser = house.browser.elsewhere(&format!("198.51.100.{}", 20 + place));
        for _ in 0..6 {
            guesser.fill("/sign-in", &guess).await;
        }
    }
    let mut stranger = house.browser.elsewhere("203.0.113.77");
    stranger.fill("/sign-in", &guess).await.is(429);
    house.sign_in(&mut owner, "jo@example.com").await;
    owner.get("/").await.is(200);
    // A place that a proxy of nobody's trust claims is not believed.
    let mut liar = house.browser.elsewhere("198.51.100.7");
    liar.headers.push(("x-forwarded-for", "192.0.2.1".into()));
    liar.fill("/sign-in", &guess).await.is(429);
}

#[tokio::test]
async fn second_factors_are_not_guessed_either_and_what_was_not_there_answers_the_same() {
    let house = House::new().await;
    house.add("jo@example.com", all()).await;
    let mut thief = house.browser.elsewhere("198.51.100.7");
    thief.fill("/sign-in", &[("email", "jo@example.com"), ("password", PASSWORD)]).await.is(303);
    for guess in ["000000", "111111", "222222", "333333", "abcd-efgh", ""] {
        thief.fill("/sign-in/code", &[("code", guess)]).await.is(401);
    }
    thief.fill("/sign-in/code", &[("code", &house.code())]).await.is(429);
    let wrong = house
        .browser
        .elsewhere("203.0.113.1")
        .fill("/sign-in", &[("email", "jo@example.com"), ("password", "wrong")])
        .await;
    let nobody = house
        .browser
        .elsewhere("203.0.113.2")
        .fill("/sign-in", &[("email", "no@example.com"), ("password", "wrong")])
        .await;
    let plain = |body: &str, email: &str| {
        body.replace(email, "x")
            .split("name=\"csrf\"")
            .map(|part| part.split_once('>').map_or(part, |(_, rest)| rest).to_owned())
            .collect::<String>()
    };
    assert_eq!(wrong.status, nobody.status);
    assert_eq!(plain(&wrong.body, "jo@example.com"), plain(&nobody.body, "no@example.com"));
}

#[tokio::test]
async fn a_password_that_is_kept_weakly_is_kept_better_after_signing_in() {
    let house = House::new().await;
    house.add("jo@example.com", all()).await;
    let weak = {
        use argon2::password_hash::PasswordHasher;
        let params = argon2::Params::new(8 * 1024, 1, 1, None).unwrap();
        let weak: argon2::password_hash::phc::PasswordHash =
            argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params)
                .hash_password(PASSWORD.as_bytes())
                .unwrap();
        weak.to_string()
    };
    sqlx::query("UPDATE system_admins SET password = $1").bind(&weak).execute(&house.db.pool).await.unwrap();
    house.browser.clone().fill("/sign-in", &[("email", "jo@example.com"), ("password", PASSWORD)]).await.is(303);
    let kept = house.db.texts("SELECT password FROM system_admins").await.remove(0);
    assert!(kept != weak && kept.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{kept}");
}

#[tokio::test]
async fn a_second_factor_moves_to_the_first_key_when_it_is_used() {
    let db = Database::new().await;
    let central = Central::connect(&url_of(&db.name), Some(&ca())).await.unwrap();
    let new = "k2:00000000000000000000000000000000000000000000000000000000000000bb";
    let house = House::with(db, central, &format!("{new},{KEYS}")).await;
    let id = house.add("jo@example.com", all()).await;
    let sealed = "SELECT two_factor_secret FROM system_admins";
    assert!(house.db.texts(sealed).await[0].starts_with("k1:"));
    house.sign_in(&mut house.browser.clone(), "jo@example.com").await;
    let kept = house.db.texts(sealed).await.remove(0);
    assert!(SealingKeys::parse(new).unwrap().open(&format!("admin {id}"), &kept).is_ok(), "{kept}");
}

#[tokio::test]
async fn somebody_without_rights_sees_whom_to_ask_and_nothing_else() {
    let house = House::new().await;
    let mut browser = house.signed_in("jo@example.com", Rights::default()).await;
    browser
        .get("/")
        .await
        .is(200)
        .says("You have no rights yet")
        .says("Manage administrators")
        .does_not_say("href=\"/tenants\"");
    for path in ["/tenants", "/plans", "/servers", "/log", "/log.csv", "/admins", "/tenants/new"] {
        browser.get(path).await.is(403).says("Ask an administrator");
    }
}
