//! What every page has around its content: the tenant's name, who is signed in, the navigation, the secret of its forms.
//! (The seed's shared page properties.)

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::accounts::{CurrentUser, Role};
use super::problem::Problem;
use super::render::STYLE;
use crate::api::tenant::TenantState;
use crate::tenancy::TenantContext;

/// The session's secret against forged forms, in the extensions of every request that has a session.
#[derive(Clone, Debug)]
pub struct CsrfToken(pub Arc<str>);

/// For `templates/layout.html`; handlers take it as an argument and hand it to their page.
pub struct Shell {
    /// The style sheet, which stands inside the page.
    pub style: &'static str,
    /// The tenant's shown name.
    pub tenant: String,
    /// Who is signed in.
    pub user: Option<CurrentUser>,
    /// Path of the page, for the navigation.
    pub path: String,
    /// Nothing can be changed right now.
    pub read_only: bool,
    /// Empty where nobody has a session.
    csrf: String,
}

impl Shell {
    /// The value of the hidden field `csrf` of every form.
    pub fn csrf(&self) -> &str {
        &self.csrf
    }

    /// Whether the visitor is signed in with at least that role, by its name in lower case.
    pub fn may(&self, role: &str) -> bool {
        let role = Role::parse(role);
        self.user.as_ref().zip(role).is_some_and(|(user, role)| user.role >= role)
    }

    /// Whether the page lies below `path`.
    pub fn is_at(&self, path: &str) -> bool {
        self.path == path || self.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Shell {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let tenant = parts.extensions.get::<TenantContext>();
        let tenant = tenant.ok_or_else(|| Problem::Internal("a page is served outside the tenancy layers".into()))?;
        Ok(Self {
            style: STYLE,
            tenant: tenant.entry().display_name.clone(),
            user: parts.extensions.get::<CurrentUser>().cloned(),
            path: parts.uri.path().to_owned(),
            read_only: tenant.entry().state == TenantState::ReadOnly,
            csrf: parts.extensions.get::<CsrfToken>().map(|token| token.0.to_string()).unwrap_or_default(),
        })
    }
}
