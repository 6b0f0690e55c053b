//! Forms that are proved to come from one of our own pages.

use std::time::Duration;

use axum::extract::{FromRequest, RawForm, Request};
use serde::de::DeserializeOwned;
use subtle::ConstantTimeEq;

use super::problem::Problem;
use super::shell::CsrfToken;

/// Longest that a form may take to arrive. Forms are small; who takes longer holds memory and gives nothing.
const PATIENCE: Duration = Duration::from_secs(15);

/// A form whose field `csrf` is the secret of the session's forms, or of the visitor's. The other fields are `T`'s.
pub struct CheckedForm<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for CheckedForm<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let token = request.extensions().get::<CsrfToken>().cloned();
        let body = tokio::time::timeout(PATIENCE, RawForm::from_request(request, state)).await;
        let RawForm(body) = body.map_err(|_| Problem::TooSlow)?.map_err(Problem::from)?;
        if !is_ours(token.as_ref(), &body) {
            return Err(Problem::StaleForm);
        }
        serde_urlencoded::from_bytes(&body).map(Self).map_err(|error| Problem::Invalid(format!("The form: {error}.")))
    }
}

/// Without a secret nothing is ours, and neither is a form that names the field twice.
fn is_ours(token: Option<&CsrfToken>, body: &[u8]) -> bool {
    let Ok(fields) = serde_urlencoded::from_bytes::<Vec<(String, String)>>(body) else { return false };
    let mut given = fields.iter().filter(|(key, _)| key == "csrf").map(|(_, value)| value);
    let (Some(token), Some(given), None) = (token, given.next(), given.next()) else { return false };
    !token.0.is_empty() && token.0.as_bytes().ct_eq(given.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_is_ours_when_it_holds_the_secret_once() {
        let token = CsrfToken("abc".into());
        let rows: [(&str, bool); 8] = [
            ("csrf=abc&name=x", true),
            ("name=x&csrf=abc", true),
            ("csrf=abd&name=x", false),
            ("csrf=ab", false),
            ("csrf=", false),
            ("name=x", false),
            ("csrf=abc&csrf=abc", false),
            ("", false),
        ];
        for (body, expected) in rows {
            assert_eq!(is_ours(Some(&token), body.as_bytes()), expected, "{body}");
            assert!(!is_ours(None, body.as_bytes()), "{body}");
        }
        assert!(!is_ours(Some(&CsrfToken("".into())), b"csrf="), "no secret is not the empty one");
    }
}
