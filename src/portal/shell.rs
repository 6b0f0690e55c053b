//! What every page has around its content: who is signed in, the navigation, what is out of order.

use axum::extract::FromRequestParts;
use http::request::Parts;

use super::problem::Problem;
use super::rights::{Right, Rights};
use super::state::Portal;
use super::style;
use super::visitor::{Caller, Visitor};

/// For `templates/portal/layout.html`; handlers take it as an argument and hand it to their page.
pub struct Shell {
    /// Where the style sheet is.
    pub style: &'static str,
    /// Who is signed in.
    pub email: Option<String>,
    /// What they may do.
    pub rights: Rights,
    /// Path of the page, for the navigation.
    pub path: String,
    /// The central database does not answer.
    pub central_away: bool,
    /// Since when the Kubernetes API has not answered.
    pub cluster_away: Option<String>,
    /// What the page before has done, where it led here.
    pub notice: Option<&'static str>,
    csrf: String,
}

impl Shell {
    /// The value of the hidden field `csrf` of every form.
    pub fn csrf(&self) -> &str {
        &self.csrf
    }

    /// Whether the visitor has the right, by its name, and can use it now. Pages offer nothing else.
    pub fn may(&self, key: &str) -> bool {
        let right = Right::ALL.into_iter().find(|right| right.key() == key);
        right.is_some_and(|right| self.rights.has(right)) && (key == "view" || !self.central_away)
    }

    /// Whether the page lies below `path`.
    pub fn is_at(&self, path: &str) -> bool {
        self.path == path || self.path.strip_prefix(path).is_some_and(|rest| rest.starts_with('/'))
    }
}

impl FromRequestParts<Portal> for Shell {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, portal: &Portal) -> Result<Self, Problem> {
        let caller = parts.extensions.get::<Caller>();
        let caller = caller.ok_or_else(|| Problem::Internal("a page is served outside the gate".into()))?;
        let admin = match parts.extensions.get::<Visitor>() {
            Some(Visitor::Full(admin)) => Some(admin),
            _ => None,
        };
        Ok(Self {
            style: style::path(),
            email: admin.map(|admin| admin.email.clone()),
            rights: admin.map(|admin| admin.rights).unwrap_or_default(),
            path: parts.uri.path().to_owned(),
            central_away: admin.is_some_and(|admin| admin.remembered),
            cluster_away: portal.directory().broken_since().map(super::show::time),
            notice: parts.uri.query().and_then(notice),
            csrf: caller.csrf.clone(),
        })
    }
}

/// What `?done=…` says. Only these words are known, so that a link cannot put somebody else's text on a page.
fn notice(query: &str) -> Option<&'static str> {
    let word = query.split('&').find_map(|pair| pair.strip_prefix("done="))?;
    Some(match word {
        "created" => "Created. The operator is making its database now; this page shows how far it is.",
        "plan" => "The plan was changed. The operator is carrying it out.",
        "suspended" => "Suspended. Its customers see a neutral page within a few seconds.",
        "resumed" => "Resumed. Its customers are served again within a few seconds.",
        "deleted" => "The delete was asked for. The tenant is listed until the operator has carried it out.",
        "sold" => "The plan is sold again.",
        "unsold" => "The plan is not sold any more. Who has it keeps it.",
        "rights" => "The rights were changed.",
        "removed" => "The administrator was removed.",
        "unchanged" => "Nothing was changed.",
        "password" => "Your password was changed, and your other sessions have ended.",
        "signed-out" => "You are signed out.",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_words_become_a_notice() {
        assert!(notice("page=2&done=created").is_some());
        assert_eq!(notice("done=Send+money"), None);
        assert_eq!(notice("undone=created"), None);
    }
}
