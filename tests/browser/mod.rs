//! A browser, as far as accounts notice: it keeps cookies, sends the forms it was shown, and sits somewhere.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use http::{Method, Request};
use maintenance_os::api::routing::RoutingEntry;

use crate::tenants::{Answer, App, answer, form};

#[derive(Clone)]
pub struct Browser {
    router: Router,
    pub host: String,
    /// Where it sits.
    pub address: String,
    pub cookies: BTreeMap<String, String>,
    /// The secret in the form that was shown last.
    pub csrf: String,
}

impl Browser {
    pub fn at(app: &App, tenant: &RoutingEntry) -> Self {
        Self {
            router: app.router.clone(),
            host: tenant.primary_host.clone(),
            address: "192.0.2.1".into(),
            cookies: BTreeMap::new(),
            csrf: String::new(),
        }
    }

    pub async fn get(&mut self, path: &str) -> Answer {
        self.send(Method::GET, path, Body::empty()).await
    }

    /// Sends a form with the secret that was shown last.
    pub async fn post(&mut self, path: &str, fields: &[(&str, &str)]) -> Answer {
        let csrf = self.csrf.clone();
        let fields: Vec<_> = fields.iter().copied().chain([("csrf", csrf.as_str())]).collect();
        self.send(Method::POST, path, Body::from(form(&fields))).await
    }

    /// Opens a page and sends the form on it.
    pub async fn fill(&mut self, page: &str, path: &str, fields: &[(&str, &str)]) -> Answer {
        self.get(page).await;
        self.post(path, fields).await
    }

    pub async fn sign_in(&mut self, email: &str, password: &str) -> Answer {
        self.fill("/sign-in", "/sign-in", &[("email", email), ("password", password)]).await
    }

    async fn send(&mut self, method: Method, path: &str, body: Body) -> Answer {
        let cookies: Vec<_> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut request = Request::builder().method(method.clone()).uri(path).header("host", &self.host);
        if !cookies.is_empty() {
            request = request.header("cookie", cookies.join("; "));
        }
        if method == Method::POST {
            request = request
                .header("origin", format!("https://{}", self.host))
                .header("content-type", "application/x-www-form-urlencoded");
        }
        let mut request = request.body(body).unwrap();
        let peer = SocketAddr::new(self.address.parse().unwrap(), 40000);
        request.extensions_mut().insert(ConnectInfo(peer));
        let answer = answer(&self.router, request).await;
        for cookie in answer.headers.get_all("set-cookie") {
            let text = cookie.to_str().unwrap();
            let (name, rest) = text.split_once('=').unwrap();
            let value = rest.split(';').next().unwrap();
            if text.contains("Max-Age=0;") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.into(), value.into());
            }
        }
        if let Some((_, rest)) = answer.body.split_once("name=\"csrf\" value=\"") {
            self.csrf = rest.split('"').next().unwrap().into();
        }
        answer
    }

    /// The session's cookie.
    pub fn session(&self) -> Option<&String> {
        self.cookies.get("mo_session")
    }
}
