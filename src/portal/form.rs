//! Forms. A handler gets the fields that it names, and whatever else is sent goes nowhere.

use axum::body::to_bytes;
use axum::extract::{FromRequest, Request};
use serde::de::DeserializeOwned;

use super::problem::Problem;
use super::state::Portal;

/// Longest form; the gate has let no longer one pass.
const LONGEST: usize = 64 * 1024;

/// The fields of a form that was sent. The gate has checked that it is one of ours.
pub struct Sent<T>(pub T);

impl<T: DeserializeOwned> FromRequest<Portal> for Sent<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &Portal) -> Result<Self, Problem> {
        let body = to_bytes(request.into_body(), LONGEST).await.map_err(|_| Problem::Malformed)?;
        serde_urlencoded::from_bytes(&body).map(Self).map_err(|_| Problem::Malformed)
    }
}
