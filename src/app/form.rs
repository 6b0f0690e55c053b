//! Forms that are proved to come from one of our own pages.

use axum::extract::{FromRequest, RawForm, Request};
use serde::de::DeserializeOwned;
use subtle::ConstantTimeEq;

use super::problem::Problem;
use super::shell::CsrfToken;

/// A form whose field `csrf` is the session's secret. The other fields are `T`'s.
pub struct CheckedForm<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for CheckedForm<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let token = request.extensions().get::<CsrfToken>().cloned();
        let RawForm(body) = RawForm::from_request(request, state).await.map_err(Problem::from)?;
        let given = form_field(&body, "csrf");
        let is_ours = token.zip(given).is_some_and(|(token, given)| token.0.as_bytes().ct_eq(given.as_bytes()).into());
        if !is_ours {
            return Err(Problem::CrossSite);
        }
        serde_urlencoded::from_bytes(&body).map(Self).map_err(|error| Problem::Invalid(format!("The form: {error}.")))
    }
}

fn form_field(body: &[u8], name: &str) -> Option<String> {
    let fields: Vec<(String, String)> = serde_urlencoded::from_bytes(body).ok()?;
    fields.into_iter().find(|(key, _)| key == name).map(|(_, value)| value)
}
