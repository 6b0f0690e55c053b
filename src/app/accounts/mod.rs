//! Who may work here: sign-in, users and their roles, tokens for programs.

mod current;

use axum::Router;

pub use self::current::{CurrentUser, Role};

use super::product::Product;

/// Pages for visitors who are not signed in.
pub fn public() -> Router<Product> {
    Router::new()
}

/// Pages for those who are.
pub fn signed_in() -> Router<Product> {
    Router::new()
}
