//! What every server of pages needs and no tenant: whose host a request names, where it comes from, cookies, and whether
//! the page that sent it is our own.

pub mod client;
pub mod cookie;
pub mod host;
pub mod origin;

/// The one style sheet of the family.
pub const STYLE: &str = include_str!("style.css");
