//! What answers where. Everything passes the gate; who may is said by each handler's [`super::rights::Allowed`].

use axum::Router;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};

use super::problem::Problem;
use super::state::Portal;
use super::{admins, change, create, first, gate, list, log, one, overview, plans, servers, sign_in, style};

/// The portal.
pub fn router(portal: Portal) -> Router {
    Router::new()
        .route(style::path(), get(style::sheet))
        .route("/", get(overview::overview))
        .merge(signing_in())
        .merge(tenants())
        .route("/plans", get(plans::plans))
        .route("/plans/{name}", get(plans::plan).post(plans::sell))
        .route("/servers", get(servers::servers))
        .route("/log", get(log::log))
        .route("/log.csv", get(log::csv))
        .route("/admins", get(admins::admins))
        .route("/admins/new", get(admins::ask_invite).post(admins::invite))
        .route("/admins/{id}", get(admins::admin).post(admins::set_rights))
        .route("/admins/{id}/reset", post(admins::reset))
        .route("/admins/{id}/remove", post(admins::remove))
        .fallback(async || Problem::NotFound)
        .method_not_allowed_fallback(async || Problem::NotFound)
        .layer(from_fn_with_state(portal.clone(), gate::enter))
        .with_state(portal)
}

fn signing_in() -> Router<Portal> {
    Router::new()
        .route("/sign-in", get(sign_in::show).post(sign_in::password))
        .route("/sign-in/code", get(sign_in::ask_code).post(sign_in::code))
        .route("/sign-in/password", get(first::ask_password).post(first::password))
        .route("/sign-in/second-factor", get(first::ask_second_factor).post(first::second_factor))
        .route("/sign-out", post(sign_in::sign_out))
        .route("/prove", get(sign_in::ask_proof).post(sign_in::prove))
        .route("/account", get(first::account))
        .route("/account/password", get(first::ask_new_password).post(first::new_password))
        .route("/account/codes", get(first::ask_new_codes).post(first::new_codes))
}

fn tenants() -> Router<Portal> {
    let one = "/tenants/{namespace}/{name}";
    Router::new()
        .route("/tenants", get(list::tenants))
        .route("/tenants/new", get(create::ask).post(create::create))
        .route(one, get(one::tenant))
        .route(&format!("{one}/plan"), get(change::ask_plan).post(change::plan))
        .route(&format!("{one}/suspend"), get(change::ask_suspend).post(change::suspend))
        .route(&format!("{one}/resume"), get(change::ask_resume).post(change::resume))
        .route(&format!("{one}/delete"), get(change::ask_delete).post(change::delete))
}
