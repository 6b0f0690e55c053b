//! The database servers: how full they are, and what is ready to be claimed.

use askama::Template;
use axum::extract::State;
use axum::response::Response;
use kube::ResourceExt;

use super::look;
use super::problem::{Problem, html};
use super::rights::{Allowed, View};
use super::shell::Shell;
use super::state::Portal;
use crate::api::DatabaseServer;

struct Bar {
    what: &'static str,
    text: String,
    value: i64,
    max: i64,
    full: bool,
}

struct Server {
    name: String,
    word: String,
    class: &'static str,
    message: String,
    version: String,
    schema: String,
    bars: Vec<Bar>,
}

#[derive(Template)]
#[template(path = "portal/servers.html")]
struct ServersPage {
    shell: Shell,
    servers: Vec<Server>,
}

/// All of them.
pub async fn servers(
    State(portal): State<Portal>,
    Allowed(..): Allowed<View>,
    shell: Shell,
) -> Result<Response, Problem> {
    let servers = portal.directory().servers().iter().map(|found| server(found)).collect();
    html(&ServersPage { shell, servers })
}

fn server(found: &DatabaseServer) -> Server {
    let status = look::server(found);
    let own = found.status.clone().unwrap_or_default();
    let mut bars = vec![
        bar("Tenants", own.tenants.unwrap_or_default().into(), found.spec.capacity.max_tenants.into(), true),
        bar("Warm databases", own.warm.unwrap_or_default().into(), found.spec.warm_pool.size.into(), false),
    ];
    if let Some(connections) = own.connections {
        bars.push(bar("Connections promised", connections.promised, connections.budget, true));
    }
    Server {
        name: found.name_any(),
        word: status.word.to_owned(),
        class: status.level.class(),
        message: status.message.to_owned(),
        version: own.version.unwrap_or_else(|| "–".into()),
        schema: own.schema_version.unwrap_or_else(|| "–".into()),
        bars,
    }
}

/// `fills`: nothing more fits when it is full; else that is how it should be.
fn bar(what: &'static str, value: i64, max: i64, fills: bool) -> Bar {
    Bar {
        what,
        text: format!("{value} of {max}"),
        value: value.clamp(0, max.max(0)),
        max: max.max(1),
        full: fills && value * 10 >= max * 9,
    }
}
