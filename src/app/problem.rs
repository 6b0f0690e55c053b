//! What went wrong, as visitors see it and as the log does.

use axum::extract::rejection::{FormRejection, JsonRejection, RawFormRejection};
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL, HeaderValue, RETRY_AFTER, SET_COOKIE, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};

use super::accounts::{PasswordError, Role};
use crate::signing::Rejected;
use crate::tenancy::Refusal;
use crate::tenancy::pool::PoolError;
use crate::tenancy::repository::Missing;
use crate::tenancy::storage::StorageError;

/// Why a handler has nothing better to answer.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// What was sent makes no sense; the text says what to change.
    #[error("{0}")]
    Invalid(String),
    /// The body is larger than anything that is asked for here.
    #[error("the body is too large")]
    TooLarge,
    /// The file is larger than this many bytes.
    #[error("the file is larger than {0} bytes")]
    FileTooLarge(u64),
    /// What was sent came too slowly.
    #[error("the request came too slowly")]
    TooSlow,
    /// More people send files than there is memory for.
    #[error("too many files are being sent at the same time")]
    Busy,
    /// A signed link does not open this.
    #[error(transparent)]
    Link(Rejected),
    /// Files were not stored, read or removed.
    #[error("the tenant's files are not available")]
    Files(#[from] StorageError),
    /// The body is of another type than the one that is asked for.
    #[error("{0}")]
    MediaType(String),
    /// No such page.
    #[error("not found")]
    NotFound,
    /// The page is there, but not for this method.
    #[error("method not allowed")]
    MethodNotAllowed,
    /// It is in another state than the one that was asked about, mostly because somebody else was faster.
    #[error("{0}")]
    Conflict(String),
    /// Another site's page sent this.
    #[error("sent from another site")]
    CrossSite,
    /// The form was not made for who sends it: it is old, or the browser keeps no cookies.
    #[error("the form is not of this session")]
    StaleForm,
    /// Nobody is signed in.
    #[error("nobody is signed in")]
    SignInFirst,
    /// Nobody can say who is signed in.
    #[error("sessions are not available")]
    SignInUnavailable,
    /// More people sign in than there is memory for.
    #[error("passwords are not compared right now")]
    Passwords(#[from] PasswordError),
    /// Somebody is, whose address is not known to be theirs.
    #[error("the e-mail address is not confirmed")]
    Unverified,
    /// Somebody is, but may not do this.
    #[error("this takes the role {}", .0.as_str())]
    Forbidden(Role),
    /// The plan allows no more.
    #[error("the plan's limit of {max} {limit} is reached")]
    LimitReached {
        /// The limit's name in the plan.
        limit: &'static str,
        /// How many it allows.
        max: i32,
        /// The plan.
        plan: String,
    },
    /// There is no connection to the tenant's database.
    #[error("the tenant's database is not available")]
    NoConnection(#[from] PoolError),
    /// The tenant's database did not do it.
    #[error("the tenant's database refused")]
    Database(#[from] sqlx::Error),
    /// A row that is not there, in this tenant's database.
    #[error(transparent)]
    Missing(#[from] Missing),
    /// A fault of ours.
    #[error("{0}")]
    Internal(String),
}

/// A problem as it is shown; travels in the response's extensions to [`super::render`].
#[derive(Debug, Clone)]
pub struct Shown {
    pub title: &'static str,
    pub detail: String,
    /// The plan's limit that is reached, and how much it allows.
    pub limit: Option<(&'static str, i32)>,
}

impl From<Refusal> for Shown {
    fn from(refusal: Refusal) -> Self {
        Self { title: refusal.title(), detail: refusal.detail(), limit: None }
    }
}

impl Problem {
    fn status(&self) -> StatusCode {
        match self {
            Self::Invalid(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge | Self::FileTooLarge(_) => StatusCode::PAYLOAD_TOO_LARGE,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Link(Rejected::Expired) => StatusCode::GONE,
            Self::Files(error) if error.is_away() => StatusCode::SERVICE_UNAVAILABLE,
            Self::MediaType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::NotFound | Self::Missing(_) => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::SignInFirst => StatusCode::UNAUTHORIZED,
            Self::CrossSite
            | Self::StaleForm
            | Self::Unverified
            | Self::Forbidden(_)
            | Self::LimitReached { .. }
            | Self::Link(Rejected::Forged) => StatusCode::FORBIDDEN,
            Self::NoConnection(_) | Self::Busy | Self::SignInUnavailable | Self::Passwords(_) => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::Database(error) if is_outage(error) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Database(_) | Self::Files(_) | Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn shown(&self, status: StatusCode) -> Shown {
        let (title, detail) = match self {
            Self::Invalid(what) | Self::MediaType(what) => ("That did not work", what.clone()),
            Self::Conflict(what) => ("Not any more", what.clone()),
            Self::TooLarge => ("Too large", "What was sent is larger than 64 KiB.".into()),
            Self::FileTooLarge(max) => {
                ("Too large", format!("The file is larger than {} MiB. Nothing was stored.", max >> 20))
            }
            Self::TooSlow => (
                "That took too long",
                "What was sent came too slowly, and nothing was stored. Try again where the connection is better.".into(),
            ),
            Self::Busy => (
                "Many files are being sent right now",
                "Nothing of yours was stored. Try again in a moment.".into(),
            ),
            Self::Link(Rejected::Expired) => {
                ("This link has expired", "Go back to the page it was on, load it again and use the new one.".into())
            }
            Self::Link(Rejected::Forged) => {
                ("This link is not valid", "Go back to the page it was on, load it again and use the new one.".into())
            }
            Self::Files(error) if error.is_away() => (
                "Files cannot be reached right now",
                "Everything else works. If you were sending a file, nothing of it was stored. Try again in a moment."
                    .into(),
            ),
            Self::NotFound | Self::Missing(_) => {
                ("Page not found", "There is no such page here. It may have moved, or the address has a slip.".into())
            }
            Self::MethodNotAllowed => ("Method not allowed", "This address does not take this kind of request.".into()),
            Self::CrossSite => (
                "Sent from another site",
                "Nothing was changed, because the request did not come from this site's own pages.".into(),
            ),
            Self::StaleForm => (
                "This form is not valid any more",
                "Nothing was changed. Open the page again and send it once more. Your browser must accept cookies of this \
                 site."
                    .into(),
            ),
            Self::SignInUnavailable | Self::Passwords(_) => (
                "Sign-in is not available right now",
                "Nobody can sign in or work here at the moment. You are not signed out: try again in a minute.".into(),
            ),
            Self::Unverified => (
                "Confirm your e-mail address first",
                "Sign in with a browser and follow what it says.".into(),
            ),
            Self::SignInFirst => ("Sign in first", "This is for people who are signed in.".into()),
            Self::Forbidden(role) => {
                ("Not for your role", format!("This takes the role “{}”. Ask an administrator.", role.as_str()))
            }
            Self::LimitReached { limit, max, plan } => (
                "Your plan's limit is reached",
                match *limit {
                    "storageGiB" => format!(
                        "The plan “{plan}” includes {max} GiB for files, and there is no room left for this one. \
                         Nothing was added."
                    ),
                    limit => {
                        format!(
                            "The plan “{plan}” includes {max} {limit}, and all of them are in use. Nothing was added."
                        )
                    }
                },
            ),
            _ if status == StatusCode::SERVICE_UNAVAILABLE => (
                "Your data cannot be reached right now",
                "The database of this site does not answer. If you were saving something, look whether it arrived \
                 before you send it again. Try again in a moment."
                    .into(),
            ),
            _ => ("Something went wrong", "The fault is ours and was noted. Try again later.".into()),
        };
        let limit = if let Self::LimitReached { limit, max, .. } = self { Some((*limit, *max)) } else { None };
        Shown { title, detail, limit }
    }
}

/// Whether the database is away, as opposed to having refused this one statement.
fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::Protocol(_) => true,
        // Connection lost, no such database, login refused, out of connections, shut down or statement ended by force.
        sqlx::Error::Database(error) => error.code().is_some_and(|code| {
            ["08", "3D", "28", "53", "57"].iter().any(|class| code.starts_with(class)) || code == "25006"
        }),
        _ => false,
    }
}

impl From<FormRejection> for Problem {
    fn from(rejection: FormRejection) -> Self {
        Self::from_rejection(rejection.status(), rejection.body_text())
    }
}

impl From<RawFormRejection> for Problem {
    fn from(rejection: RawFormRejection) -> Self {
        Self::from_rejection(rejection.status(), rejection.body_text())
    }
}

impl From<JsonRejection> for Problem {
    fn from(rejection: JsonRejection) -> Self {
        Self::from_rejection(rejection.status(), rejection.body_text())
    }
}

impl Problem {
    fn from_rejection(status: StatusCode, text: String) -> Self {
        match status {
            StatusCode::PAYLOAD_TOO_LARGE => Self::TooLarge,
            StatusCode::UNSUPPORTED_MEDIA_TYPE => Self::MediaType(text),
            _ => Self::Invalid(text),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = self.status();
        if status.is_server_error() {
            // Here and nowhere else. The request's span says whose request it was.
            tracing::error!(target: "tenant", error = chain(&self), "request failed");
        }
        let mut headers = HeaderMap::new();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        let shown = self.shown(status);
        let mut response = (status, headers, shown.title).into_response();
        response.extensions_mut().insert(shown);
        response
    }
}

/// An error and everything below it, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Headers that say something beside the body, and therefore survive its replacement.
pub const KEPT_HEADERS: [http::HeaderName; 5] = [CACHE_CONTROL, RETRY_AFTER, ALLOW, WWW_AUTHENTICATE, SET_COOKIE];
