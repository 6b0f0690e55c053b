//! What the layers ask of this app: its users.

use axum::response::{IntoResponse, Redirect, Response};
use http::request::Parts;
use http::{Extensions, Method};
use sqlx::postgres::PgConnection;

use super::next::sign_in_path;
use super::store::users::Found;
use super::store::{tokens, users};
use crate::api::tenant::TenantState;
use crate::app::mail::Mailer;
use crate::app::problem::Problem;
use crate::app::shell::CsrfToken;
use crate::tenancy::TenantContext;
use crate::tenancy::layers::auth::{Guard, Refused};
use crate::tenancy::session::Holder;

/// Where somebody is led whose address is not known to be theirs yet.
pub const UNVERIFIED: &str = "/unverified";

/// The app's users, for the layers `auth` and `verified`.
#[derive(Clone)]
pub struct Users {
    /// Without a way to send mail, nobody can show that an address is theirs, and nobody is asked to.
    pub mailer: Mailer,
}

impl Guard for Users {
    type User = Found;
    type Error = Problem;

    async fn by_session(&self, tenant: &TenantContext, holder: &Holder) -> Result<Option<Found>, Problem> {
        let Ok(id) = holder.user.parse::<i64>() else { return Ok(None) };
        let found =
            tenant.database().run(async |db: &mut PgConnection| Ok::<_, Problem>(users::find(db, id).await?)).await?;
        let is_same = |found: &Found| {
            // After a restore the number may be somebody else's, above all in another tenant's data.
            let person = holder.person.as_deref().unwrap_or_default();
            holder.incarnation == tenant.entry().incarnation || person.eq_ignore_ascii_case(&found.user.email)
        };
        Ok(found.filter(|found| found.generation == holder.generation && is_same(found)))
    }

    async fn by_token(&self, tenant: &TenantContext, token: &str) -> Result<Option<Found>, Problem> {
        let read_only = tenant.entry().state == TenantState::ReadOnly;
        tenant
            .database()
            .run(async |db: &mut PgConnection| {
                let Some(used) = tokens::find(db, token).await? else { return Ok(None) };
                if !read_only {
                    tokens::note_use(db, &used).await?;
                }
                Ok(Some(used.found))
            })
            .await
    }

    fn is_verified(&self, user: &Found) -> bool {
        user.verified || !self.mailer.is_configured()
    }

    fn admit(&self, user: &Found, form_secret: Option<String>, extensions: &mut Extensions) {
        extensions.insert(user.user.clone());
        if let Some(secret) = form_secret {
            extensions.insert(CsrfToken(secret.into()));
        }
    }

    fn refuse(&self, why: Refused, request: &Parts) -> Response {
        let is_api = self.is_api(request.uri.path());
        match why {
            Refused::Unavailable => Problem::SignInUnavailable.into_response(),
            Refused::SignInFirst if is_api => Problem::SignInFirst.into_response(),
            // What somebody was about to look at comes next; what was about to be done must be done again.
            Refused::SignInFirst => {
                let wanted = (request.method == Method::GET).then_some(&request.uri);
                Redirect::to(&sign_in_path(wanted)).into_response()
            }
            Refused::Unverified if is_api => Problem::Unverified.into_response(),
            Refused::Unverified => Redirect::to(UNVERIFIED).into_response(),
        }
    }
}
