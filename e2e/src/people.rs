//! People who are signed in at a tenant's host, and the tokens of their programs.

use std::collections::BTreeMap;

use http::header::{AUTHORIZATION, COOKIE, LOCATION, SET_COOKIE};
use reqwest::multipart::{Form as Multipart, Part};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;

use crate::hosts::Answer;
use crate::wait::within;
use crate::world::{CUSTOMERS, World};

/// The cookie of a session.
const SESSION: &str = "mo_session";

/// A tenant's first administrator, as tests are it.
#[derive(Clone, Debug)]
pub struct Person {
    /// Where.
    pub slug: String,
    /// Address that it signs in with.
    pub email: String,
    /// Its password.
    pub password: String,
    /// Its session: the cookies of its browser.
    pub cookies: BTreeMap<String, String>,
    /// Its token for programs.
    pub token: String,
}

/// A form of a page: where it leads, and what the page itself has filled in.
struct Form {
    action: String,
    hidden: Vec<(String, String)>,
}

impl World {
    /// The link that opens a tenant's first page, once.
    pub async fn welcome_link(&self, tenant: &str) -> String {
        within(20, &format!("the welcome Secret of {tenant}"), async || {
            let keys = self.secret(CUSTOMERS, &format!("{tenant}-welcome")).await.ok_or("there is none")?;
            keys.get("link").cloned().ok_or_else(|| "it has no key link".to_owned())
        })
        .await
    }

    /// The administrator of a tenant that a test made: the first time it opens the welcome link and makes a token.
    pub async fn admin(&self, slug: &str) -> Person {
        self.admin_of(slug, slug).await
    }

    /// As [`World::admin`], where the slug is not the Tenant's name.
    pub async fn admin_of(&self, tenant: &str, slug: &str) -> Person {
        let mut people = self.people.lock().await;
        if let Some(person) = people.get(slug) {
            return person.clone();
        }
        let person = self.first_admin(tenant, slug).await;
        people.insert(slug.to_owned(), person.clone());
        person
    }

    async fn first_admin(&self, tenant: &str, slug: &str) -> Person {
        let link = self.welcome_link(tenant).await;
        let path = link.find("/welcome").map(|start| &link[start..]).expect("a link to /welcome");
        let mut person = Person {
            slug: slug.to_owned(),
            email: format!("admin@{slug}.example"),
            password: uuid::Uuid::new_v4().to_string(),
            cookies: BTreeMap::new(),
            token: String::new(),
        };
        let (email, password) = (person.email.clone(), person.password.clone());
        let fields = [("name", "Ada Admin"), ("email", &email), ("password", &password), ("again", &password)];
        let answer = person.submit(self, path, "password", &fields).await;
        assert_eq!(answer.status, 303, "{slug}: the welcome link makes the first user: {}", answer.body);
        assert!(person.cookies.contains_key(SESSION), "{slug}: who opened the link is signed in");
        let answer = person.submit(self, "/tokens", "days", &[("name", "tests"), ("days", "30")]).await;
        let start = answer.body.find("mos_").unwrap_or_else(|| panic!("{slug}: no token in {}", answer.body));
        let is_token = |character: char| character.is_ascii_alphanumeric() || "_-".contains(character);
        person.token = answer.body[start..].chars().take_while(|character| is_token(*character)).collect();
        person
    }
}

impl Person {
    /// Signs in anew, as in another browser.
    pub async fn sign_in(&mut self, world: &World) -> Answer {
        self.cookies.clear();
        let (email, password) = (self.email.clone(), self.password.clone());
        self.submit(world, "/sign-in", "password", &[("email", &email), ("password", &password)]).await
    }

    /// A page, as its browser gets it.
    pub async fn page(&self, world: &World, path: &str) -> Answer {
        answer(self.send(world, Method::GET, path).await).await
    }

    /// Opens a page, fills in the form that has the field `marker`, and sends it.
    pub async fn submit(&mut self, world: &World, path: &str, marker: &str, fields: &[(&str, &str)]) -> Answer {
        let page = self.send(world, Method::GET, path).await;
        self.keep_cookies(&page);
        let page = answer(page).await;
        let form = form_with(&page.body, marker).unwrap_or_else(|| panic!("no form with {marker} at {path}: {page:?}"));
        let mut all = form.hidden;
        all.extend(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let action = if form.action.is_empty() { path } else { &form.action };
        let body: Vec<_> = all.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value))).collect();
        let request = self.request(world, Method::POST, action);
        let request = request.header("content-type", "application/x-www-form-urlencoded").body(body.join("&"));
        let response = request.send().await.unwrap_or_else(|error| panic!("sending a form to {action}: {error:?}"));
        self.keep_cookies(&response);
        answer(response).await
    }

    /// Presses the button of the form of a page that leads to `action`.
    pub async fn press(&mut self, world: &World, path: &str, action: &str) -> Answer {
        self.submit(world, path, &format!("action={action}"), &[]).await
    }

    /// Sends a file with the form of a page that takes one.
    pub async fn attach(&self, world: &World, path: &str, file: &str, content: &[u8]) -> Answer {
        let page = self.page(world, path).await;
        let form = form_with(&page.body, "file").unwrap_or_else(|| panic!("no form for files at {path}: {page:?}"));
        let part = Part::bytes(content.to_vec()).file_name(file.to_owned());
        let fields = form.hidden.into_iter().fold(Multipart::new(), |all, (name, value)| all.text(name, value));
        let request = self.request(world, Method::POST, &form.action).multipart(fields.part("file", part));
        answer(request.send().await.unwrap_or_else(|error| panic!("sending a file to {path}: {error:?}"))).await
    }

    /// What its program gets.
    ///
    /// # Errors
    /// No answer.
    pub async fn try_api(&self, world: &World, path: &str) -> Result<Answer, String> {
        let request = world.http.get(format!("{}{path}", world.entry)).header("host", World::host(&self.slug));
        let response = request.header(AUTHORIZATION, format!("Bearer {}", self.token)).send().await;
        Ok(answer(response.map_err(|error| format!("{error:?}"))?).await)
    }

    /// As [`Person::try_api`]; there must be an answer.
    pub async fn api(&self, world: &World, path: &str) -> Answer {
        self.try_api(world, path).await.unwrap_or_else(|error| panic!("asking {}{path}: {error}", self.slug))
    }

    /// Sends a document.
    pub async fn api_post(&self, world: &World, path: &str, document: &Value) -> Answer {
        let request = world.http.post(format!("{}{path}", world.entry)).header("host", World::host(&self.slug));
        let request = request.header(AUTHORIZATION, format!("Bearer {}", self.token)).json(document);
        answer(request.send().await.unwrap_or_else(|error| panic!("sending to {}{path}: {error:?}", self.slug))).await
    }

    async fn send(&self, world: &World, method: Method, path: &str) -> Response {
        let request = self.request(world, method, path);
        request.send().await.unwrap_or_else(|error| panic!("asking {}{path}: {error:?}", self.slug))
    }

    fn request(&self, world: &World, method: Method, path: &str) -> RequestBuilder {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let request = world.http.request(method, format!("{}{path}", world.entry));
        request.header("host", World::host(&self.slug)).header(COOKIE, cookies.join("; "))
    }

    fn keep_cookies(&mut self, response: &Response) {
        for cookie in response.headers().get_all(SET_COOKIE).iter().filter_map(|value| value.to_str().ok()) {
            let pair = cookie.split(';').next().unwrap_or_default();
            if let Some((name, value)) = pair.split_once('=') {
                if value.is_empty() {
                    self.cookies.remove(name);
                } else {
                    self.cookies.insert(name.to_owned(), value.to_owned());
                }
            }
        }
    }
}

async fn answer(response: Response) -> Answer {
    let status = response.status().as_u16();
    let location = response.headers().get(LOCATION).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let body = response.text().await.unwrap_or_else(|error| panic!("reading an answer: {error:?}"));
    Answer { status, location, body }
}

/// The form of the page that has a field of this name, or leads where `action=…` says.
fn form_with(page: &str, field: &str) -> Option<Form> {
    let forms = page.split("<form").skip(1).map(|rest| rest.split("</form>").next().unwrap_or_default());
    let wanted = match field.strip_prefix("action=") {
        Some(action) => format!("action=\"{action}\""),
        None => format!("name=\"{field}\""),
    };
    let form = forms.into_iter().find(|form| form.contains(&wanted))?;
    let head = form.split('>').next().unwrap_or_default();
    let inputs = form.split("<input").skip(1).map(|rest| rest.split('>').next().unwrap_or_default());
    let hidden = inputs
        .filter(|input| attribute(input, "type").as_deref() == Some("hidden"))
        .filter_map(|input| Some((attribute(input, "name")?, attribute(input, "value").unwrap_or_default())))
        .collect();
    Some(Form { action: attribute(head, "action").unwrap_or_default(), hidden })
}

fn attribute(tag: &str, name: &str) -> Option<String> {
    let start = tag.find(&format!(" {name}=\""))? + name.len() + 3;
    let value = tag[start..].split('"').next()?;
    Some(value.replace("&#38;", "&").replace("&amp;", "&").replace("&#39;", "'").replace("&#34;", "\""))
}

/// A value as a form sends it.
fn escaped(text: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_found_by_its_field_with_what_the_page_filled_in() {
        let page = r#"<form action="/a"><input name="x"></form><form method="post" action="/b?c=1&amp;d=2">
            <input type="hidden" name="csrf" value="s&#38;t"><input name="y" value="old"></form>"#;
        let form = form_with(page, "y").expect("a form");
        assert_eq!(form.action, "/b?c=1&d=2");
        assert_eq!(form.hidden, [("csrf".to_owned(), "s&t".to_owned())]);
        assert!(form_with(page, "z").is_none());
        assert_eq!(escaped("a b+ä"), "a%20b%2B%C3%A4");
    }
}
