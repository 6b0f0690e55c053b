//! What visitors of a tenant's host see.

use serde_json::{Value, json};

use crate::wait::within;
use crate::world::World;

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Where it leads.
    pub location: Option<String>,
    /// Body.
    pub body: String,
}

impl Answer {
    /// The body as JSON; null when it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }

    /// The number of assets that it tells.
    pub fn assets(&self) -> Option<i64> {
        self.json()["assets"].as_i64()
    }
}

impl World {
    /// Host of a slug.
    pub fn host(slug: &str) -> String {
        format!("{slug}.maintenance-os.com")
    }

    /// GETs a path of a slug's host.
    ///
    /// # Errors
    /// No answer.
    pub async fn try_get(&self, slug: &str, path: &str) -> Result<Answer, String> {
        let request = self.http.get(format!("{}{path}", self.entry)).header("host", Self::host(slug));
        let response = request.send().await.map_err(|error| format!("{error:?}"))?;
        let status = response.status().as_u16();
        let location = response.headers().get("location").and_then(|value| value.to_str().ok()).map(str::to_owned);
        let body = response.text().await.map_err(|error| format!("{error:?}"))?;
        Ok(Answer { status, location, body })
    }

    /// GETs a path of a slug's host.
    pub async fn get(&self, slug: &str, path: &str) -> Answer {
        self.try_get(slug, path).await.unwrap_or_else(|error| panic!("asking {slug}{path}: {error}"))
    }

    /// Adds an asset, as the tenant's administrator.
    pub async fn add_asset(&self, slug: &str, name: &str) {
        let added = self.admin(slug).await.api_post(self, "/api/assets", &json!({ "name": name })).await;
        assert_eq!(added.status, 201, "adding an asset to {slug}: {}", added.body);
    }

    /// How many assets the tenant of a slug has, as its administrator reads it at its host; it must answer now.
    pub async fn assets(&self, slug: &str) -> i64 {
        let answer = self.about(slug).await;
        answer.assets().unwrap_or_else(|| panic!("a number of assets of {slug}: {}", answer.body))
    }

    /// Which tenant its administrator finds at the host of a slug.
    pub async fn uuid(&self, slug: &str) -> String {
        let answer = self.about(slug).await;
        answer.json()["uuid"].as_str().unwrap_or_else(|| panic!("a uuid of {slug}: {}", answer.body)).to_owned()
    }

    /// What the tenant's administrator is told of it.
    pub async fn about(&self, slug: &str) -> Answer {
        let answer = self.admin(slug).await.api(self, "/api/tenant").await;
        assert_eq!(answer.status, 200, "{slug} answers: {}", answer.body);
        answer
    }

    /// Waits until the host of a slug answers with this status.
    pub async fn answers(&self, seconds: u64, slug: &str, status: u16) -> Answer {
        within(seconds, &format!("host of {slug} answers {status}"), async || {
            let answer = self.try_get(slug, "/api/tenant").await?;
            if answer.status == status { Ok(answer) } else { Err(format!("{}: {}", answer.status, answer.body)) }
        })
        .await
    }
}
