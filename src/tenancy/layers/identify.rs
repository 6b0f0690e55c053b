//! `IdentifyTenant`: from the request's host to a tenant, the central domain, or 404.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::api::routing::RoutingEntry;
use crate::tenancy::{Refusal, Tenancy};

/// Whose host the request asked for; in the request's extensions for the layers further in.
#[derive(Clone, Debug)]
pub enum Site {
    /// A tenant's.
    Tenant {
        /// The tenant, as routing says now.
        entry: Arc<RoutingEntry>,
        /// The canonical host.
        host: Arc<str>,
    },
    /// The base domain, or its `www.`.
    Central,
    /// The admin host.
    Admin,
}

/// The layer.
pub async fn identify_tenant(State(tenancy): State<Tenancy>, mut request: Request, next: Next) -> Response {
    let client = tenancy.hosts().client_of(&request);
    request.extensions_mut().insert(client);
    let site = match site_of(&tenancy, &request) {
        Ok(site) => site,
        Err(refusal) => {
            tracing::debug!(?refusal, "request for no tenant");
            return refusal.into_response();
        }
    };
    request.extensions_mut().insert(site);
    next.run(request).await
}

fn site_of(tenancy: &Tenancy, request: &Request) -> Result<Site, Refusal> {
    let host = tenancy.hosts().host_of(request).map_err(Refusal::BadHost)?;
    // Central hosts come before routing, and by the whole name: a customer's `admin.acme.example` is a tenant's host
    // like any other, and no entry in routing, by mistake or by malice, can take over the admin host.
    if let Some(site) = tenancy.central().site(&host) {
        return Ok(site);
    }
    let (host, entry) = tenancy.routing().find_host(&host).ok_or(Refusal::UnknownHost)?;
    Ok(Site::Tenant { entry, host })
}

/// The hosts that are never a tenant's.
#[derive(Debug, Clone)]
pub struct CentralHosts {
    base: Box<str>,
    www: Box<str>,
    admin: Option<Box<str>>,
}

impl CentralHosts {
    /// # Errors
    /// A domain that is no host name.
    pub fn new(base_domain: &str, admin_host: Option<&str>) -> Result<Self, String> {
        let canonical = |name: &str| match crate::tenancy::host::canonical(name) {
            Ok(host) => Ok(host.into_owned().into_boxed_str()),
            Err(error) => Err(format!("`{name}`: {error}")),
        };
        let base = canonical(base_domain)?;
        Ok(Self { www: format!("www.{base}").into(), base, admin: admin_host.map(canonical).transpose()? })
    }

    fn site(&self, host: &str) -> Option<Site> {
        if self.admin.as_deref() == Some(host) {
            Some(Site::Admin)
        } else if *self.base == *host || *self.www == *host {
            Some(Site::Central)
        } else {
            None
        }
    }
}
