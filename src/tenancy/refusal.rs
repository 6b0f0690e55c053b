//! Why a request does not reach a tenant's handlers.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, HeaderValue, REFRESH, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

use super::host::HostError;
use super::layers::subscription::Lapse;

/// A request that the layers answer themselves.
///
/// As a response it is a short plain text, good enough for an app without pages. It also travels in the response's
/// extensions: an app that has pages looks there and renders its own, so that this library knows no HTML.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request does not name one well-formed host.
    BadHost(HostError),
    /// No tenant is served at this host. The answer is the same whether it never existed, was deleted or is not
    /// verified yet: who asks is not told which.
    UnknownHost,
    /// A tenant's page was asked for at the central domain or the admin host.
    Central,
    /// The tenant is suspended. The page is neutral: visitors of the host are not told who owes what.
    Suspended,
    /// The tenant is asleep.
    Hibernated,
    /// Its data is being replaced by a restored backup, which takes seconds.
    Restoring,
    /// A write to a tenant that is read-only.
    ReadOnly,
    /// The tenant's tables are older than this app can work with: they are being brought up.
    Updating,
    /// The trial or the subscription has ended.
    NoSubscription(Lapse),
    /// More requests than the plan has, or more attempts than anybody needs.
    TooMany {
        /// Seconds after which it may be tried again, at least one.
        retry_after: u64,
    },
}

impl Refusal {
    /// Too many, until that much time has passed. Rounded up: whoever waits as told is not refused again.
    pub fn too_many(retry_after: Duration) -> Self {
        let seconds = retry_after.as_secs() + u64::from(retry_after.subsec_nanos() > 0);
        Self::TooMany { retry_after: seconds.max(1) }
    }

    /// The status it is answered with.
    pub fn status(self) -> StatusCode {
        match self {
            Self::BadHost(_) => StatusCode::BAD_REQUEST,
            Self::UnknownHost | Self::Central => StatusCode::NOT_FOUND,
            Self::Suspended | Self::Hibernated | Self::Restoring | Self::ReadOnly | Self::Updating => {
                StatusCode::SERVICE_UNAVAILABLE
            }
            Self::NoSubscription(_) => StatusCode::PAYMENT_REQUIRED,
            Self::TooMany { .. } => StatusCode::TOO_MANY_REQUESTS,
        }
    }

    /// One line that says what is the matter.
    pub fn title(self) -> &'static str {
        match self {
            Self::BadHost(_) => "Bad request",
            Self::UnknownHost => "Tenant not found",
            Self::Central => "Not found",
            Self::Suspended => "This site is not available",
            Self::Hibernated => "Waking up",
            Self::Restoring => "Back in a moment",
            Self::ReadOnly => "Read-only for now",
            Self::Updating => "Being updated",
            Self::NoSubscription(Lapse::TrialEnded) => "The trial has ended",
            Self::NoSubscription(_) => "The subscription has ended",
            Self::TooMany { .. } => "Too many requests",
        }
    }

    /// What to make of it, for the person who sees it.
    pub fn detail(self) -> String {
        match self {
            Self::BadHost(error) => format!("{error}."),
            Self::UnknownHost => "Nothing is served at this address. Check its spelling.".into(),
            Self::Central => "There is no such page at this address.".into(),
            Self::Suspended => "If you work here, ask your administrator.".into(),
            Self::Hibernated => "It was asleep because nobody used it, and will be here in a few seconds.".into(),
            Self::Restoring => "This site is being put right, and will be here again in a few seconds.".into(),
            Self::ReadOnly => {
                "You can look at everything, but nothing can be changed right now. Try again later.".into()
            }
            Self::Updating => {
                "This site is being brought to a new version. Everything that was entered is kept. Try again in a minute.".into()
            }
            Self::NoSubscription(lapse) => {
                let why = match lapse {
                    Lapse::TrialEnded => "The time to try it out is over.",
                    Lapse::Cancelled => "It was cancelled, and the time that was paid for is over.",
                    Lapse::Ended => "The time that it was made for is over.",
                    Lapse::Unpaid => "The last invoice was not paid.",
                    Lapse::Paused => "It is paused.",
                };
                format!("{why} Everything that was entered is kept. An administrator can go on in the settings.")
            }
            Self::TooMany { retry_after: 1 } => "Try again in a second.".into(),
            Self::TooMany { retry_after } => format!("Try again in {retry_after} seconds."),
        }
    }

    /// Headers that belong to the answer, whoever renders its body.
    pub fn headers(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        // A state ends; an answer that a cache remembers does not.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        match self {
            // A browser asks again by itself.
            Self::Hibernated | Self::Restoring => {
                headers.insert(RETRY_AFTER, HeaderValue::from_static("2"));
                headers.insert(REFRESH, HeaderValue::from_static("2"));
            }
            Self::Updating => drop(headers.insert(RETRY_AFTER, HeaderValue::from_static("60"))),
            Self::TooMany { retry_after } => drop(headers.insert(RETRY_AFTER, HeaderValue::from(retry_after))),
            _ => {}
        }
        headers
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = format!("{}\n{}\n", self.title(), self.detail());
        let mut response = (self.status(), self.headers(), body).into_response();
        response.extensions_mut().insert(self);
        response
    }
}
