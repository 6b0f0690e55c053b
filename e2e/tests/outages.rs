//! What the app needs goes away, one after the other: the page says so, the rest goes on, and all comes back by itself.

use maintenance_os_e2e::{Answer, Outage, Person, World, promise, within};
use serde_json::json;

/// Longest until the app has noticed, and until it is served again after what it needs has been started.
const NOTICED: u64 = 20;
const BACK: u64 = 60;

/// A tenant with an asset that has a file.
struct Site {
    admin: Person,
    attachments: String,
    file: String,
}

const CONTENT: &[u8] = b"Grease: NLGI 2, 12 g each.\n";

async fn site(world: &World) -> Site {
    let name = World::name("outage");
    world.ready(&name, json!({})).await;
    let admin = world.admin(&name).await;
    let added = admin.api_post(world, "/api/assets", &json!({ "name": "Pump 7" })).await;
    assert_eq!(added.status, 201, "{}", added.body);
    let attachments = format!("/assets/{}/attachments", added.json()["id"]);
    let attached = admin.attach(world, &attachments, "grease.txt", CONTENT).await;
    assert_eq!(attached.status, 303, "{}", attached.body);
    let page = admin.page(world, &attachments).await;
    let start = page.body.find("/attachments/").and_then(|_| page.body.find("href=\"/attachments/")).expect("a file");
    let file = page.body[start + 6..].split('"').next().unwrap_or_default().to_owned();
    Site { admin, attachments, file }
}

impl Site {
    /// The page of assets, as a person sees it.
    async fn page(&self, world: &World) -> Answer {
        self.admin.page(world, "/assets").await
    }

    /// The file, over its signed link.
    async fn file(&self, world: &World) -> Answer {
        let link = self.admin.page(world, &self.file).await;
        match &link.location {
            Some(location) if link.status == 303 => self.admin.page(world, location).await,
            _ => link,
        }
    }

    /// Everything works.
    async fn is_well(&self, world: &World, seconds: u64) {
        within(seconds, "everything works", async || {
            let answers = [self.page(world).await, self.file(world).await, self.admin.api(world, "/api/tenant").await];
            let statuses = answers.each_ref().map(|answer| answer.status);
            if statuses == [200; 3] { Ok(()) } else { Err(format!("page, file, program: {statuses:?}: {answers:?}")) }
        })
        .await;
        assert!(self.page(world).await.body.contains("Pump 7"));
        assert_eq!(self.file(world).await.body.as_bytes(), CONTENT);
    }
}

/// Waits until an answer is 503 and says this.
async fn says(what: &str, ask: impl AsyncFn() -> Answer) {
    within(NOTICED, &format!("the answer says “{what}”"), async || {
        let answer = ask().await;
        if answer.status == 503 && answer.body.contains(what) { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

#[tokio::test]
async fn without_redis_nobody_can_work_in_pages_and_programs_go_on() {
    promise(async |world| {
        let site = site(world).await;
        let restarts = world.app_restarts().await;
        world.begin_outage(Outage::Redis).await;
        says("Sign-in is not available right now", async || site.page(world).await).await;
        // Tokens need no session; what is cached is made anew, and limits are counted by each process.
        for _ in 0..5 {
            let answer = site.admin.api(world, "/api/assets").await;
            assert_eq!(answer.status, 200, "{}", answer.body);
        }
        world.others_are_served().await;
        world.end_outage(Outage::Redis).await;
        // Also the session is still there.
        site.is_well(world, BACK).await;
        assert_eq!(world.app_restarts().await, restarts, "no pod was restarted for it");
    })
    .await;
}

#[tokio::test]
async fn without_s3_only_files_are_away() {
    promise(async |world| {
        let site = site(world).await;
        let restarts = world.app_restarts().await;
        world.begin_outage(Outage::S3).await;
        says("Files cannot be reached right now", async || site.file(world).await).await;
        assert_eq!(site.page(world).await.status, 200);
        let list = site.admin.page(world, &site.attachments).await;
        assert!(list.status == 200 && list.body.contains("grease.txt"), "{list:?}");
        says("Files cannot be reached right now", async || {
            site.admin.attach(world, &site.attachments, "lost.txt", CONTENT).await
        })
        .await;
        world.others_are_served().await;
        world.end_outage(Outage::S3).await;
        site.is_well(world, BACK).await;
        let list = site.admin.page(world, &site.attachments).await;
        assert!(!list.body.contains("lost.txt"), "what was refused is not listed: {}", list.body);
        let again = site.admin.attach(world, &site.attachments, "again.txt", CONTENT).await;
        assert_eq!(again.status, 303, "{}", again.body);
        assert_eq!(world.app_restarts().await, restarts, "no pod was restarted for it");
    })
    .await;
}

#[tokio::test]
async fn without_the_pooler_or_the_database_pages_say_so_and_nothing_is_lost() {
    promise(async |world| {
        let site = site(world).await;
        let restarts = world.app_restarts().await;
        for outage in [Outage::Pooler, Outage::Postgres] {
            world.begin_outage(outage).await;
            says("Your data cannot be reached right now", async || site.page(world).await).await;
            says("Your data cannot be reached right now", async || site.admin.api(world, "/api/assets").await).await;
            assert_eq!(world.get("nobody", "/").await.status, 404, "hosts are still told apart");
            world.end_outage(outage).await;
            site.is_well(world, BACK).await;
        }
        within(BACK, "the others are served", async || {
            for slug in ["acme", "globex"] {
                let answer = world.try_get(slug, "/api/tenant").await?;
                if answer.status != 200 {
                    return Err(format!("{slug}: {answer:?}"));
                }
            }
            Ok(())
        })
        .await;
        assert_eq!(world.app_restarts().await, restarts, "no pod was restarted for it");
    })
    .await;
}

#[tokio::test]
async fn the_apps_account_of_s3_cannot_read_backups() {
    promise(async |world| {
        let keys = world.secret("maintenance-os", "s3").await.expect("the app's Secret");
        let server = world.address("platform", "s3").await;
        let ask = async |path: &str| {
            let arguments = ["-sS", "-m", "10", "-o", "/dev/null", "-w", "%{http_code}", "-K", "-"];
            let mut child = tokio::process::Command::new("curl")
                .args(arguments)
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .expect("curl");
            let settings = format!(
                "url = \"http://{server}:7070/{path}\"\nuser = \"{}:{}\"\naws-sigv4 = \"aws:amz:eu-central-1:s3\"\nheader = \"x-amz-content-sha256: UNSIGNED-PAYLOAD\"\n",
                keys["AWS_ACCESS_KEY_ID"], keys["AWS_SECRET_ACCESS_KEY"]
            );
            let mut input = child.stdin.take().expect("an input");
            tokio::io::AsyncWriteExt::write_all(&mut input, settings.as_bytes()).await.expect("curl reads");
            drop(input);
            let output = child.wait_with_output().await.expect("curl ends");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert_eq!(ask("maintenance-os").await, "200", "its own bucket");
        assert_eq!(ask("maintenance-os-backups").await, "403");
        assert_eq!(ask("maintenance-os-backups/tenants/a/backup").await, "403");
    })
    .await;
}
