//! The person (or program) that a request comes from.

use axum::extract::FromRequestParts;
use http::request::Parts;
use serde::{Deserialize, Serialize};

use crate::app::problem::Problem;

/// What somebody may do; each role may do all that the ones below it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Looks.
    Viewer,
    /// Does the work: starts, completes and skips executions, attaches files.
    Technician,
    /// Plans the work: assets, routines, imports.
    Manager,
    /// Users, settings, tokens.
    Admin,
}

impl Role {
    /// As the table `users` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Technician => "technician",
            Self::Manager => "manager",
            Self::Admin => "admin",
        }
    }

    /// As people read it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Viewer => "Viewer",
            Self::Technician => "Technician",
            Self::Manager => "Manager",
            Self::Admin => "Administrator",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Viewer, Self::Technician, Self::Manager, Self::Admin].into_iter().find(|role| role.as_str() == name)
    }
}

/// Who is signed in. The layer in front of signed-in pages puts it into the request's extensions; there is no other way
/// to get one, so a handler that takes it cannot be reached by a visitor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentUser {
    /// `users.id`
    pub id: i64,
    /// Shown name.
    pub name: String,
    /// Address.
    pub email: String,
    /// What it may do.
    pub role: Role,
}

impl CurrentUser {
    /// Refuses whoever has less than `role`.
    ///
    /// # Errors
    /// [`Problem::Forbidden`], saying which role it takes.
    pub fn require(&self, role: Role) -> Result<(), Problem> {
        if self.role >= role { Ok(()) } else { Err(Problem::Forbidden(role)) }
    }
}

impl<S: Sync> FromRequestParts<S> for CurrentUser {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parts.extensions.get::<Self>().cloned().ok_or(Problem::SignInFirst)
    }
}
