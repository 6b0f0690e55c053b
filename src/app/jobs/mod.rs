//! What the product leaves to workers, and what people see of it.
//!
//! | to see … | read |
//! |---|---|
//! | storing what a checked file says | `import` |
//! | sending a mail | `letter` |
//! | making what is due | `plan` |
//! | the page of jobs | `pages` |
//!
//! Whether something is left to workers is decided where it begins ([`Product::leaves_to_workers`]): without workers, or while
//! Redis is away, the request does it itself.

mod import;
mod letter;
mod pages;
mod plan;

use axum::Router;
use axum::routing::{get, post};

pub use self::import::ApplyImport;
pub use self::letter::SendLetter;
pub use self::plan::PlanRoutines;

use super::problem::Problem;
use super::product::Product;
use crate::error::chain;
use crate::tenancy::queue::{JobError, Registry};

/// Every kind of job of the product.
pub fn registry() -> Registry<Product> {
    Registry::default().with::<ApplyImport>().with::<SendLetter>().with::<PlanRoutines>()
}

/// Pages for those who are signed in.
pub fn signed_in() -> Router<Product> {
    Router::new()
        .route("/jobs", get(pages::list))
        .route("/jobs/retry", post(pages::retry))
        .route("/jobs/discard", post(pages::discard))
}

/// What a problem means for a job: what people sent, what the plan allows and what somebody may do stays as it is; the rest
/// may work the next time.
fn job_error(problem: &Problem) -> JobError {
    match problem {
        Problem::Invalid(text) | Problem::Conflict(text) => JobError::Hopeless(text.clone()),
        Problem::NotFound
        | Problem::Missing(_)
        | Problem::Forbidden(_)
        | Problem::LimitReached { .. }
        | Problem::TooLarge
        | Problem::FileTooLarge(_) => JobError::Hopeless(sentence(problem)),
        _ => JobError::Again(chain(problem)),
    }
}

/// With a capital and a full stop, as pages say it.
fn sentence(problem: &Problem) -> String {
    let text = problem.to_string();
    let mut letters = text.chars();
    letters.next().map(|first| format!("{}{}.", first.to_uppercase(), letters.as_str())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_can_change_is_not_tried_again_and_the_rest_is() {
        let limit = Problem::LimitReached { limit: "assets", max: 5, plan: "starter".into() };
        assert_eq!(
            job_error(&limit),
            JobError::Hopeless("The plan's limit of 5 assets is reached.".into()),
            "as the page shows it"
        );
        assert_eq!(job_error(&Problem::Invalid("No table.".into())), JobError::Hopeless("No table.".into()));
        assert_eq!(job_error(&Problem::Busy), JobError::Again("too many files are being sent at the same time".into()));
    }
}
