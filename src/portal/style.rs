//! The style sheet: a file of its own, under a name that changes with it, so that browsers keep it.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use sha2::{Digest, Sha256};

use crate::web::STYLE;

/// What only the portal's pages have.
const OWN: &str = include_str!("templates/portal/style.css");

static SHEET: LazyLock<(String, String)> = LazyLock::new(|| {
    let sheet = format!("{STYLE}{OWN}");
    let hash = BASE64_URL_SAFE_NO_PAD.encode(&Sha256::digest(&sheet)[..12]);
    (format!("/style-{hash}.css"), sheet)
});

/// Where it is.
pub fn path() -> &'static str {
    &SHEET.0
}

/// The sheet.
pub async fn sheet() -> Response {
    let headers = [(CONTENT_TYPE, "text/css; charset=utf-8"), (CACHE_CONTROL, "public, max-age=31536000, immutable")];
    (headers, SHEET.1.as_str()).into_response()
}
