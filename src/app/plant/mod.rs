//! The maintenance itself: dashboard, assets, routines, executions, activities.

use axum::Router;

use super::product::Product;

/// Pages for those who are signed in.
pub fn signed_in() -> Router<Product> {
    Router::new()
}
