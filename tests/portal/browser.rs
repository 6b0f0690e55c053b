//! A browser, as far as the portal notices: it keeps cookies, sends the forms it was shown, and sits somewhere.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::ConnectInfo;
use http::{HeaderMap, Method, Request, StatusCode};
use tower::ServiceExt;

pub const HOST: &str = "admin.example.com";
pub const SESSION: &str = "__Host-mo_admin";

#[derive(Clone)]
pub struct Browser {
    router: Router,
    pub host: String,
    /// Where it sits.
    pub address: String,
    pub cookies: BTreeMap<String, String>,
    /// The secret in the form that was shown last.
    pub csrf: String,
    /// Headers of the next requests beside the usual ones.
    pub headers: Vec<(&'static str, String)>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    #[track_caller]
    pub fn is(self, status: u16) -> Self {
        assert_eq!(self.status.as_u16(), status, "{:?}\n{}", self.headers, self.body);
        self
    }

    pub fn location(&self) -> &str {
        self.headers.get("location").map_or("", |location| location.to_str().unwrap())
    }

    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.body.contains(text), "it does not say {text:?}:\n{}", self.body);
        self
    }

    #[track_caller]
    pub fn does_not_say(self, text: &str) -> Self {
        assert!(!self.body.contains(text), "it says {text:?}:\n{}", self.body);
        self
    }

    /// The value of a hidden field.
    #[track_caller]
    pub fn field(&self, name: &str) -> String {
        let start = format!("name=\"{name}\" value=\"");
        let (_, rest) = self.body.split_once(&start).unwrap_or_else(|| panic!("no field {name}:\n{}", self.body));
        rest.split('"').next().unwrap().to_owned()
    }
}

impl Browser {
    pub fn new(router: Router) -> Self {
        Self {
            router,
            host: HOST.into(),
            address: "192.0.2.1".into(),
            cookies: BTreeMap::new(),
            csrf: String::new(),
            headers: Vec::new(),
        }
    }

    /// Another one, elsewhere.
    pub fn elsewhere(&self, address: &str) -> Self {
        Self { address: address.into(), ..Self::new(self.router.clone()) }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, Body::empty()).await
    }

    /// Sends a form with the secret that was shown last.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let csrf = self.csrf.clone();
        let fields: Vec<_> = fields.iter().copied().chain([("csrf", csrf.as_str())]).collect();
        self.send(Method::POST, path, Body::from(serde_urlencoded::to_string(&fields).unwrap())).await
    }

    /// Opens a page and sends the form on it to the same path.
    pub async fn fill(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.get(path).await;
        self.post(path, fields).await
    }

    /// As [`Self::fill`], with what was seen of the object.
    pub async fn fill_seen(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let page = self.get(path).await.is(200);
        let (uid, generation) = (page.field("uid"), page.field("generation"));
        let seen = [("uid", uid.as_str()), ("generation", generation.as_str())];
        self.post(path, &[fields, &seen].concat()).await
    }

    async fn send(&mut self, method: Method, path: &str, body: Body) -> Answer {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = Request::builder().method(method.clone()).uri(path).header("host", &self.host);
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        let given = |name: &str| self.headers.iter().any(|(other, _)| *other == name);
        if method == Method::POST && !given("origin") {
            request = request.header("origin", format!("https://{}", self.host));
        }
        if method == Method::POST && !given("content-type") {
            request = request.header("content-type", "application/x-www-form-urlencoded");
        }
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        let mut request = request.body(body).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(self.address.parse().unwrap(), 40000)));
        let response = self.router.clone().oneshot(request).await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        let body = to_bytes(response.into_body(), 64 << 20).await.unwrap();
        let answer = Answer { status, headers, body: String::from_utf8(body.into()).unwrap() };
        for cookie in answer.headers.get_all("set-cookie") {
            let text = cookie.to_str().unwrap();
            let (name, rest) = text.split_once('=').unwrap();
            if text.contains("Max-Age=0;") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.into(), rest.split(';').next().unwrap().into());
            }
        }
        if let Some((_, rest)) = answer.body.split_once("name=\"csrf\" value=\"") {
            self.csrf = rest.split('"').next().unwrap().into();
        }
        answer
    }
}
