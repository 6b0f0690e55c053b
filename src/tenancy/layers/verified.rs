//! `verified`: has the user shown that the address is theirs?

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;

use super::auth::{Auth, Guard, Refused, SignedIn};

/// The layer; inside [`super::auth::require_user`], which says who it is. Without that one it lets nobody through.
pub async fn require_verified<G: Guard>(State(auth): State<Auth<G>>, request: Request, next: Next) -> Response {
    let user = request.extensions().get::<SignedIn<G::User>>();
    let why = match user {
        Some(SignedIn(user)) if auth.guard.is_verified(user) => return next.run(request).await,
        Some(_) => Refused::Unverified,
        None => Refused::SignInFirst,
    };
    auth.guard.refuse(why, &request.into_parts().0)
}
