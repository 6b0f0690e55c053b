//! What goes wrong, as a page that says what to do next.

use askama::Template;
use axum::response::{Html, IntoResponse, Redirect, Response};
use http::StatusCode;
use http::header::RETRY_AFTER;

use super::cluster::ClusterError;
use super::next;
use super::rights::Right;
use super::style;
use crate::central::CentralError;
use crate::error::chain;
use crate::passwords::PasswordError;

/// Why a request is not answered with what was asked for.
#[derive(Debug)]
pub enum Problem {
    /// There is no such page or object.
    NotFound,
    /// Nobody is signed in; afterwards they go here.
    SignIn(String),
    /// The password was right and the rest of signing in is missing.
    Unfinished,
    /// Who it is has to be shown anew; afterwards they go here.
    ProveAgain(String),
    /// The right is missing.
    Forbidden(Right),
    /// Another site's page sent it.
    CrossSite,
    /// The form was not made for who sends it.
    StaleForm,
    /// What was sent is no form of ours.
    Malformed,
    /// Too many attempts; seconds until the next.
    TooMany(i64),
    /// The central database does not answer.
    CentralAway,
    /// The Kubernetes API does not answer.
    ClusterAway(String),
    /// Somebody changed it meanwhile. What, and where it is looked at again.
    Conflict(String, String),
    /// It breaks a rule; where it is looked at again.
    Refused(String, String),
    /// Our own fault.
    Internal(String),
}

/// In the extensions of an answer that refuses: why, for the audit trail.
#[derive(Clone, Debug)]
pub struct Refused(pub String);

#[derive(Template)]
#[template(path = "portal/problem.html")]
struct Page<'a> {
    style: &'static str,
    status: u16,
    title: &'a str,
    detail: &'a str,
    links: &'a [(String, &'static str)],
}

struct Told {
    status: StatusCode,
    title: &'static str,
    detail: String,
    links: Vec<(String, &'static str)>,
}

fn told(status: StatusCode, title: &'static str, detail: impl Into<String>) -> Told {
    Told { status, title, detail: detail.into(), links: vec![("/".into(), "Overview")] }
}

impl Told {
    fn link(mut self, to: &str, label: &'static str) -> Self {
        self.links.insert(0, (to.to_owned(), label));
        self
    }
}

impl Problem {
    fn told(&self) -> Told {
        match self {
            Self::NotFound => told(
                StatusCode::NOT_FOUND,
                "There is no such page",
                "The link is wrong, or what it led to was removed. The audit log says by whom.",
            )
            .link("/tenants", "Tenants"),
            Self::SignIn(_) | Self::Unfinished => {
                told(StatusCode::UNAUTHORIZED, "You are not signed in", "Nothing was changed. Sign in and do it again.")
                    .link("/sign-in", "Sign in")
            }
            Self::ProveAgain(_) => told(
                StatusCode::FORBIDDEN,
                "Show that it is you",
                "This needs your password again. Nothing was changed.",
            ),
            Self::Forbidden(right) => told(
                StatusCode::FORBIDDEN,
                "You have no right to do this",
                format!(
                    "It needs the right “{}”. Ask an administrator with the right “{}” for it. Nothing was changed.",
                    right.title(),
                    Right::ManageAdmins.title()
                ),
            ),
            Self::CrossSite => told(
                StatusCode::FORBIDDEN,
                "This came from another site",
                "Nothing was changed. If you meant it, open the page here and send it once more.",
            ),
            Self::StaleForm => told(
                StatusCode::FORBIDDEN,
                "This form has expired",
                "Nothing was changed. Open the page again and send it once more. Your browser must accept cookies of this \
                 site.",
            ),
            Self::Malformed => told(
                StatusCode::UNPROCESSABLE_ENTITY,
                "This is not what the form sends",
                "Nothing was changed. Open the page again and fill the form in there.",
            ),
            Self::TooMany(seconds) => told(
                StatusCode::TOO_MANY_REQUESTS,
                "Too many attempts",
                format!("Wait {} and try again. Others are not held up by it.", super::show::seconds(*seconds)),
            )
            .link("/sign-in", "Sign in"),
            Self::CentralAway => told(
                StatusCode::SERVICE_UNAVAILABLE,
                "The central database does not answer",
                "Nothing can be changed, and nobody can sign in, until it does: what is done here is written to the audit \
                 trail first. Tenants are served as before. See whether its server runs, and the conditions of the operator.",
            ),
            Self::ClusterAway(why) => told(
                StatusCode::SERVICE_UNAVAILABLE,
                "The Kubernetes API does not answer",
                format!("Whether anything was changed is not known: look again before you repeat it. ({why})"),
            ),
            Self::Conflict(what, again) => {
                told(StatusCode::CONFLICT, "Somebody else was faster", format!("{what} Nothing was changed."))
                    .link(again, "Look again")
            }
            Self::Refused(why, again) => told(
                StatusCode::UNPROCESSABLE_ENTITY,
                "The cluster refuses this",
                format!("{why} Nothing was changed."),
            )
            .link(again, "Back"),
            Self::Internal(_) => told(
                StatusCode::INTERNAL_SERVER_ERROR,
                "Something went wrong here",
                "It was logged. Try again; if it stays, look into the portal's log.",
            ),
        }
    }

    /// A problem of the cluster with an object that is looked at under `again`.
    pub fn of_cluster(error: ClusterError, again: &str) -> Self {
        match error {
            ClusterError::Gone => Self::NotFound,
            ClusterError::Conflict => {
                Self::Conflict("It was changed after you opened the page.".into(), again.to_owned())
            }
            ClusterError::Exists => Self::Refused("There is one of that name already.".into(), again.to_owned()),
            ClusterError::Refused(why) => Self::Refused(format!("{why}."), again.to_owned()),
            ClusterError::Away(why) => Self::ClusterAway(why),
        }
    }
}

impl From<CentralError> for Problem {
    fn from(error: CentralError) -> Self {
        match error {
            CentralError::Unreachable { .. } | CentralError::Denied { .. } => {
                tracing::warn!(error = chain(&error), "the central database does not answer");
                Self::CentralAway
            }
            // A text with a zero byte is no fault of ours; PostgreSQL has no such texts.
            CentralError::Query { ref source, .. } if is_impossible_text(source) => Self::Malformed,
            error => Self::Internal(chain(&error)),
        }
    }
}

fn is_impossible_text(error: &(dyn std::error::Error + 'static)) -> bool {
    ["invalid byte sequence", "unsupported Unicode escape"].iter().any(|known| chain(error).contains(known))
}

impl From<PasswordError> for Problem {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy => Self::TooMany(10),
            PasswordError::Lost(_) => Self::Internal(chain(&error)),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        if let Self::Internal(why) = &self {
            tracing::error!(error = why, "a request failed");
        }
        // Only where somebody looks at a page: `next` is a path of a page that was asked for, or of the form it was sent from.
        let refused = Refused(format!("{self:?}"));
        let mut response = match &self {
            Self::SignIn(path) => Redirect::to(&next::link("/sign-in", path)).into_response(),
            Self::ProveAgain(path) => Redirect::to(&next::link("/prove", path)).into_response(),
            Self::Unfinished => Redirect::to("/sign-in/code").into_response(),
            _ => page(&self.told()),
        };
        if let Self::TooMany(seconds) = self {
            response.headers_mut().insert(RETRY_AFTER, seconds.max(1).into());
        }
        response.extensions_mut().insert(refused);
        response
    }
}

fn page(told: &Told) -> Response {
    let page = Page {
        style: style::path(),
        status: told.status.as_u16(),
        title: told.title,
        detail: &told.detail,
        links: &told.links,
    };
    match page.render() {
        Ok(html) => (told.status, Html(html)).into_response(),
        Err(_) => (told.status, told.title).into_response(),
    }
}

/// A rendered template.
///
/// # Errors
/// It cannot be rendered.
pub fn html(template: &impl Template) -> Result<Response, Problem> {
    template
        .render()
        .map(|html| Html(html).into_response())
        .map_err(|error| Problem::Internal(format!("rendering a page: {error}")))
}
