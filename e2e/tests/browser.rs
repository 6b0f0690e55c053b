//! A person's day in a real browser, at two tenants, on a desk and on a phone: everything works, nothing of the other
//! tenant is ever seen. The pictures stay in `test-output/screenshots` of the cache, to be looked at.

use maintenance_os_e2e::{Browser, Screen, World, promise};
use serde_json::json;
use thirtyfour::Key;

/// A tenant, and who works there.
struct Plant {
    /// Name of the Tenant, and slug.
    name: String,
    display: &'static str,
    /// Beginning of the pictures' names.
    short: &'static str,
    email: String,
    password: String,
    /// Something that only this tenant has.
    asset: &'static str,
}

impl Plant {
    fn new(short: &'static str, display: &'static str, asset: &'static str) -> Self {
        let name = World::name(short);
        let email = format!("chief@{short}.example");
        Self { name, display, short, email, password: format!("correct horse of {short}"), asset }
    }

    /// What no page of another tenant may show.
    fn words(&self) -> [&str; 4] {
        [&self.name, self.display, &self.email, self.asset]
    }
}

#[tokio::test]
async fn a_days_work_at_two_tenants_on_a_desk_and_on_a_phone() {
    promise(async |world| {
        let plants = [
            Plant::new("nord", "Nordwind Kelterei GmbH", "Press Gertrude"),
            Plant::new("sued", "Suedhang Sawmills Ltd", "Saw Leopold"),
        ];
        for plant in &plants {
            world.ready(&plant.name, json!({ "displayName": plant.display })).await;
        }
        for screen in [Screen::Desktop, Screen::Phone] {
            for (plant, other) in [(&plants[0], &plants[1]), (&plants[1], &plants[0])] {
                let mut browser = Browser::open(world, screen, plant.short, &other.words()).await;
                if screen == Screen::Desktop {
                    open_welcome_link(world, &mut browser, plant).await;
                } else {
                    sign_in(world, &mut browser, plant).await;
                }
                work(&mut browser, plant, screen).await;
                sign_out(world, &mut browser, plant).await;
                browser.close().await;
            }
        }
    })
    .await;
}

/// The first user, who fills the empty site.
async fn open_welcome_link(world: &World, browser: &mut Browser, plant: &Plant) {
    let link = world.welcome_link(&plant.name).await;
    browser.go(&link).await;
    browser.sees("You are the first one here").await;
    browser.sees(plant.display).await;
    browser.fits().await;
    browser.picture("welcome").await;
    browser.fill("name", "Greta Chief").await;
    browser.fill("email", &plant.email).await;
    browser.fill("password", &plant.password).await;
    browser.fill("again", &plant.password).await;
    browser.send("again").await;
    browser.sees("Begin with what you look after").await;
    browser.picture("empty").await;
    browser.press("Fill with sample data").await;
    browser.sees("Next work").await;
    // The link was good for one.
    browser.go(&link).await;
    browser.sees("ask that person for an invitation").await;
    browser.go(&address(world, plant, "/")).await;
}

/// With the keyboard alone.
async fn sign_in(world: &World, browser: &mut Browser, plant: &Plant) {
    browser.go(&address(world, plant, "/assets")).await;
    browser.sees("Sign in").await;
    browser.fits().await;
    browser.picture("sign-in").await;
    browser.tab_to("email").await;
    browser.keys(plant.email.as_str()).await;
    browser.tab_to("password").await;
    browser.keys("not the password").await;
    browser.keys(Key::Enter).await;
    browser.sees("is not right").await;
    browser.picture("refused").await;
    browser.tab_to("password").await;
    browser.keys(plant.password.as_str()).await;
    browser.keys(Key::Enter).await;
    // Where one wanted to go.
    browser.sees("What you look after").await;
    assert_eq!(browser.path().await, "/assets");
    browser.go(&address(world, plant, "/")).await;
}

/// From an asset to a finished piece of work with a picture.
async fn work(browser: &mut Browser, plant: &Plant, screen: Screen) {
    let routine = format!("Grease the bearings, {screen:?}");
    browser.sees("Next work").await;
    browser.fits().await;
    let picture = browser.picture("dashboard").await;
    browser.press("Assets").await;
    browser.sees("What you look after").await;
    browser.fits().await;
    browser.picture("assets").await;
    browser.press("Add asset").await;
    browser.sees("Add an asset").await;
    browser.fits().await;
    browser.fill("name", plant.asset).await;
    browser.fill("location", "Hall 3").await;
    browser.send("name").await;
    browser.sees("Hall 3").await;
    browser.fits().await;
    browser.picture("asset").await;
    browser.press("Add routine").await;
    browser.sees("Add a routine").await;
    browser.fits().await;
    browser.fill("name", &routine).await;
    browser.fill("interval_count", "2").await;
    browser.fill_today("next_due_on").await;
    browser.picture("new-routine").await;
    browser.send("interval_count").await;
    browser.sees("Open work").await;
    browser.picture("routine").await;
    browser.press(&routine).await;
    browser.sees("Ready when you are").await;
    browser.press("Start").await;
    browser.sees("In progress").await;
    browser.fits().await;
    browser.picture("execution").await;
    browser.fill("notes", "Two strokes each. Seal looks dry.").await;
    browser.send("notes").await;
    browser.sees("Completed").await;
    browser.choose_file("file", &picture).await;
    browser.send("file").await;
    browser.sees(&picture.file_name().expect("a file").to_string_lossy()).await;
    browser.pictures_load().await;
    browser.fits().await;
    browser.picture("attachment").await;
    browser.press("Dashboard").await;
    browser.sees("Recent activities").await;
    browser.sees("Greta Chief").await;
    browser.picture("afterwards").await;
}

async fn sign_out(world: &World, browser: &mut Browser, plant: &Plant) {
    browser.press("Account of").await;
    browser.press("Sign out").await;
    browser.sees("Sign in").await;
    browser.picture("signed-out").await;
    browser.go(&address(world, plant, "/assets")).await;
    assert_eq!(browser.path().await, "/sign-in", "who has signed out is out");
    let text = browser.text().await;
    assert!(!text.contains(plant.asset), "{text}");
}

/// An address of the tenant as its links have it.
fn address(world: &World, plant: &Plant, path: &str) -> String {
    let port = world.entry.rsplit_once(':').map_or("80", |(_, port)| port);
    format!("http://{}:{port}{path}", World::host(&plant.name))
}
