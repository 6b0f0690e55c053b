//! Files: attachments, CSV import and export.

use axum::Router;

use super::product::Product;

/// Pages for those who are signed in.
pub fn signed_in() -> Router<Product> {
    Router::new()
}
