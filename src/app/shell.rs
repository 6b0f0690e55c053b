//! What every page has around its content: the tenant's name, who is signed in, the navigation, the secret of its forms.
//! (The seed's shared page properties.)

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::accounts::{CurrentUser, Role};
use super::problem::Problem;
use super::render::STYLE;
use crate::api::subscription::{Standing, standing};
use crate::api::tenant::TenantState;
use crate::tenancy::{Refusal, TenantContext};

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
    /// What has lapsed, in a short sentence, and until when everything is served all the same.
    pub grace: Option<(&'static str, String)>,
    /// What the page before has done, where it led here.
    pub notice: Option<&'static str>,
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

    /// Whether the visitor may change, right now, what that role may change. Pages offer nothing else.
    pub fn can(&self, role: &str) -> bool {
        !self.read_only && self.may(role)
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
            grace: match standing(&tenant.entry().subscription, tenant.clock().now()) {
                Standing::Grace(lapse, until) => {
                    let until = until.strftime("%Y-%m-%d %H:%M UTC").to_string();
                    Some((Refusal::NoSubscription(lapse).title(), until))
                }
                Standing::Valid | Standing::Lapsed(_) => None,
            },
            notice: parts.uri.query().and_then(notice),
            csrf: parts.extensions.get::<CsrfToken>().map(|token| token.0.to_string()).unwrap_or_default(),
        })
    }
}

/// What `?done=…` says; forms that succeed lead to a page with it. Only these words are known, so that a link cannot put
/// somebody else's text on a page.
fn notice(query: &str) -> Option<&'static str> {
    let word = query.split('&').find_map(|pair| pair.strip_prefix("done="))?;
    Some(match word {
        "added" => "Added.",
        "saved" => "Saved.",
        "unchanged" => "Nothing was changed.",
        "retired" => "Retired. Its routines are paused; its history stays.",
        "restored" => "Back in use. Resume its routines where they are needed.",
        "paused" => "Paused. Nothing becomes due until it is resumed.",
        "resumed" => "Resumed.",
        "started" => "Started. The work is yours.",
        "completed" => "Completed. Well done.",
        "skipped" => "Skipped.",
        "planned" => "What is due is on the list.",
        "choose" => "Open the asset that the routine is for, and add the routine there.",
        "sample" => "Filled with sample data. Look around.",
        "removed" => "Removed.",
        "sent" => "Sent.",
        "discarded" => "Discarded. It is not tried again.",
        "retried" => "Tried again. It takes a moment.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_words_become_a_notice() {
        assert_eq!(notice("page=2&done=saved"), Some("Saved."));
        assert_eq!(notice("done=Send+money"), None);
        assert_eq!(notice("undone=saved"), None);
    }
}
