//! A real browser, in which a person's way through the pages is walked.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::json;
use thirtyfour::common::capabilities::chrome::ChromeCapabilities;
use thirtyfour::prelude::*;
use thirtyfour::{ChromiumLikeCapabilities, TypingData};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};

use crate::wait::{Missed, wait, within};
use crate::world::World;

/// Longest wait for a page, in seconds; this machine may be busy with much else.
const PAGE: u64 = 20;

/// A screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Screen {
    /// 1280 × 900.
    Desktop,
    /// 390 × 844, with a finger instead of a mouse.
    Phone,
}

/// A browser with a profile of its own, that resolves the hosts of tenants to the entry. It ends with this value.
pub struct Browser {
    driver: WebDriver,
    screen: Screen,
    /// Words that no page may show: names of other tenants.
    never: Vec<String>,
    /// Where pictures go, and the beginning of their names.
    pictures: PathBuf,
    prefix: String,
    pictured: usize,
    /// The last one, so that it is dropped when the driver is of no more use.
    _processes: Processes,
}

/// chromedriver and what it started.
struct Processes {
    chromedriver: Child,
    profile: PathBuf,
}

impl Browser {
    /// A browser whose pictures begin with `prefix`, and in which no page may show one of the words `never`.
    ///
    /// # Panics
    /// Chromium or its driver is not installed (`e2e/cluster/packages.sh browser`) or does not start.
    pub async fn open(world: &World, screen: Screen, prefix: &str, never: &[&str]) -> Self {
        let profile = std::env::temp_dir().join(format!("maintenance-os-browser-{}", uuid::Uuid::new_v4()));
        let (chromedriver, address) = start_driver(&profile).await;
        let processes = Processes { chromedriver, profile };
        // The world's entry is `http://address:port`, to which every tenant's host resolves.
        let entry = world.entry.trim_start_matches("http://");
        let capabilities =
            capabilities(entry, screen, &processes.profile).expect("capabilities as Chromium takes them");
        let driver = WebDriver::new(address, capabilities).await.expect("Chromium starts");
        driver.set_page_load_timeout(Duration::from_secs(PAGE)).await.expect("setting a time-out");
        let pictures = pictures();
        tokio::fs::create_dir_all(&pictures).await.expect("a folder for pictures");
        let never = never.iter().map(|word| (*word).to_owned()).collect();
        Self { driver, screen, never, pictures, prefix: prefix.to_owned(), pictured: 0, _processes: processes }
    }

    /// Ends it in good order.
    pub async fn close(self) {
        self.driver.clone().quit().await.expect("Chromium ends");
    }

    /// Opens an address.
    pub async fn go(&self, address: &str) {
        self.driver.goto(address).await.unwrap_or_else(|error| panic!("opening {address}: {error}"));
        self.check().await;
    }

    /// Path of the page that is shown.
    pub async fn path(&self) -> String {
        self.driver.current_url().await.expect("an address").path().to_owned()
    }

    /// The page as HTML.
    pub async fn source(&self) -> String {
        self.driver.source().await.expect("a page")
    }

    /// The words on the page, as a person sees them.
    pub async fn text(&self) -> String {
        match self.driver.find(By::Tag("body")).await {
            Ok(body) => body.text().await.unwrap_or_default(),
            Err(_) => String::new(),
        }
    }

    /// Waits until the page shows some words.
    pub async fn sees(&self, words: &str) {
        within(PAGE, &format!("the page shows “{words}”"), async || {
            let text = self.text().await;
            if text.contains(words) { Ok(()) } else { Err(format!("{} at {}", text, self.path().await)) }
        })
        .await;
        self.check().await;
    }

    /// Fills in a field by its name.
    pub async fn fill(&self, name: &str, value: &str) {
        let field = self.find(By::Css(format!("[name='{name}']"))).await;
        if field.tag_name().await.is_ok_and(|tag| tag == "select") {
            let option = By::Css(format!("[name='{name}'] option[value='{value}']"));
            self.find(option).await.click().await.expect("choosing");
            return;
        }
        field.clear().await.unwrap_or_else(|error| panic!("emptying {name}: {error}"));
        field.send_keys(value).await.unwrap_or_else(|error| panic!("filling in {name}: {error}"));
    }

    /// Picks today in a date field by its name.
    pub async fn fill_today(&self, name: &str) {
        // Which keys a date field wants depends on the browser's language.
        let field = self.find(By::Css(format!("[name='{name}']"))).await;
        let set = "arguments[0].value = new Date().toISOString().slice(0, 10)";
        let arguments = vec![field.to_json().expect("an element")];
        self.driver.execute(set, arguments).await.unwrap_or_else(|error| panic!("filling in {name}: {error}"));
    }

    /// Chooses a file of this machine in a field by its name.
    pub async fn choose_file(&self, name: &str, file: &Path) {
        let field = self.find(By::Css(format!("[name='{name}']"))).await;
        let path = file.to_str().expect("a path of plain letters");
        field.send_keys(path).await.unwrap_or_else(|error| panic!("choosing a file in {name}: {error}"));
    }

    /// Presses the first button, or follows the first link, with these words, and waits for the page that comes.
    pub async fn press(&self, words: &str) {
        let with = |tag: &str| format!("//{tag}[contains(normalize-space(.), '{words}')]");
        let by = By::XPath([with("a"), with("button"), with("summary")].join(" | "));
        let element = within(PAGE, &format!("“{words}” can be pressed"), async || {
            for element in self.driver.find_all(by.clone()).await.map_err(|error| error.to_string())? {
                if element.is_displayed().await.unwrap_or_default() {
                    return Ok(element);
                }
            }
            Err(format!("no such button or link at {}: {}", self.path().await, self.text().await))
        })
        .await;
        self.click(&element, words).await;
    }

    /// Presses the button that sends the form with the field of this name.
    pub async fn send(&self, name: &str) {
        let button = self.find(By::XPath(format!("//*[@name='{name}']/ancestor::form//button[@type='submit']"))).await;
        self.click(&button, &format!("the button of {name}")).await;
    }

    async fn click(&self, element: &WebElement, what: &str) {
        // To the middle: the edges may lie under a bar that stays where it is.
        let arguments = vec![element.to_json().expect("an element")];
        let scroll = self.driver.execute("arguments[0].scrollIntoView({ block: 'center' })", arguments);
        scroll.await.unwrap_or_else(|error| panic!("scrolling to “{what}”: {error}"));
        if let Err(error) = element.click().await {
            panic!("pressing “{what}” at {}: {error}", self.path().await);
        }
        self.check().await;
    }

    /// Types into whatever has the focus.
    pub async fn keys(&self, keys: impl Into<TypingData>) {
        let focused = self.driver.active_element().await.expect("something has the focus");
        focused.send_keys(keys).await.expect("typing");
    }

    /// Goes on with the tab key until the field of this name has the focus.
    ///
    /// # Panics
    /// It cannot be reached.
    pub async fn tab_to(&self, name: &str) {
        for _ in 0..40 {
            let focused = self.driver.active_element().await.expect("something has the focus");
            if focused.attr("name").await.ok().flatten().as_deref() == Some(name) {
                return;
            }
            self.keys(Key::Tab).await;
        }
        panic!("the field {name} cannot be reached by the tab key at {}: {}", self.path().await, self.source().await);
    }

    /// Keeps a picture of what the screen shows; the file.
    pub async fn picture(&mut self, what: &str) -> PathBuf {
        self.check().await;
        self.pictured += 1;
        let screen = format!("{:?}", self.screen).to_lowercase();
        let file = self.pictures.join(format!("{}-{screen}-{:02}-{what}.png", self.prefix, self.pictured));
        self.driver.screenshot(&file).await.expect("a picture");
        file
    }

    /// The page is no wider than the screen: nobody should have to push it about.
    pub async fn fits(&self) {
        let wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        let over: i64 = self.driver.execute(wide, vec![]).await.and_then(|seen| seen.convert()).expect("widths");
        assert!(over <= 0, "the page {} is {over} pixels wider than the screen", self.path().await);
    }

    /// Whether every picture of the page could be shown.
    pub async fn pictures_load(&self) {
        let broken = "return [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).map(i => i.src)";
        let loaded = wait(PAGE, async || -> Result<(), Missed> {
            let seen = self.driver.execute(broken, vec![]).await.map_err(|error| error.to_string())?;
            let broken: Vec<String> = seen.convert().map_err(|error| error.to_string())?;
            if broken.is_empty() { Ok(()) } else { Err(format!("{broken:?}")) }
        });
        loaded.await.unwrap_or_else(|missed| panic!("pictures that do not load: {missed}"));
    }

    async fn find(&self, by: By) -> WebElement {
        within(PAGE, &format!("{by:?} is there"), async || match self.driver.find(by.clone()).await {
            Ok(element) => Ok(element),
            Err(_) => Err(format!("{}: {}", self.path().await, self.text().await)),
        })
        .await
    }

    /// Nothing of other tenants, wherever we are.
    async fn check(&self) {
        let source = self.source().await;
        let seen: Vec<_> = self.never.iter().filter(|word| source.contains(word.as_str())).collect();
        assert!(seen.is_empty(), "the page {} shows {seen:?}: {source}", self.path().await);
    }
}

impl Drop for Processes {
    /// chromedriver would leave its browser behind when it is killed: what runs with our profile goes with it.
    fn drop(&mut self) {
        let _ = self.chromedriver.start_kill();
        let profile = self.profile.to_string_lossy().into_owned();
        for process in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&command).contains(&profile) {
                let number = process.file_name();
                let _ = std::process::Command::new("kill").arg("-KILL").arg(number).stderr(Stdio::null()).status();
            }
        }
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

/// Starts chromedriver on a free port; its address.
async fn start_driver(profile: &Path) -> (Child, String) {
    let mut chromedriver = Command::new("chromedriver")
        .arg("--port=0")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .env("TMPDIR", profile.parent().unwrap_or(profile))
        .kill_on_drop(true)
        .spawn()
        .expect("chromedriver: run e2e/cluster/packages.sh browser");
    let mut lines = BufReader::new(chromedriver.stdout.take().expect("an output")).lines();
    let port = within(PAGE, "chromedriver says its port", async || {
        let line = lines.next_line().await.map_err(|error| error.to_string())?.ok_or("it ended")?;
        let port = line.trim_end_matches('.').rsplit_once("successfully on port ").map(|(_, port)| port.to_owned());
        port.ok_or(line)
    })
    .await;
    // Whatever else it says must not fill the pipe.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    (chromedriver, format!("http://127.0.0.1:{port}"))
}

fn capabilities(entry: &str, screen: Screen, profile: &Path) -> WebDriverResult<ChromeCapabilities> {
    let mut chrome = DesiredCapabilities::chrome();
    let (width, height) = if screen == Screen::Phone { (390, 844) } else { (1280, 900) };
    for flag in [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--disable-dev-shm-usage",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        &format!("--user-data-dir={}", profile.display()),
        &format!("--window-size={width},{height}"),
        &format!("--host-resolver-rules=MAP *.maintenance-os.com {entry}"),
    ] {
        chrome.add_arg(flag)?;
    }
    if screen == Screen::Phone {
        let metrics = json!({ "width": width, "height": height, "pixelRatio": 2.0, "touch": true });
        chrome.add_experimental_option("mobileEmulation", json!({ "deviceMetrics": metrics }))?;
    }
    Ok(chrome)
}

/// Kept after the test, to be looked at.
fn pictures() -> PathBuf {
    let cache = std::env::var("MOS_CACHE").map(PathBuf::from);
    let cache = cache
        .unwrap_or_else(|_| PathBuf::from(std::env::var("HOME").unwrap_or_default()).join(".cache/maintenance-os"));
    cache.join("test-output/screenshots")
}
