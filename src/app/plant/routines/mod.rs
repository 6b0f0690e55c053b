//! Routines: what is to be done to an asset again and again.

pub mod api;
pub mod edit;
mod form;
pub mod pages;
pub mod store;

use serde::Serialize;

use super::day::{Day, Moment};
use super::schedule;
use super::show::Badge;

/// One routine with the names of what it refers to.
#[derive(Debug, Clone, Serialize)]
pub struct Routine {
    pub id: i64,
    pub name: String,
    pub asset_id: i64,
    pub asset_name: String,
    pub asset_status: String,
    pub instructions: Option<String>,
    pub interval_count: i32,
    pub interval_unit: String,
    pub estimated_minutes: Option<i32>,
    pub active: bool,
    pub next_due_on: Option<Day>,
    pub assigned_to: Option<i64>,
    pub assignee_name: Option<String>,
    pub created_at: Moment,
    /// What an edit must name, so that it does not undo somebody else's.
    pub updated_at: Moment,
    /// Rows of the whole list.
    #[serde(skip)]
    pub total: i64,
}

impl Routine {
    pub fn badge(&self) -> Badge {
        if self.active { Badge { tone: "good", word: "Active" } } else { Badge { tone: "soft", word: "Paused" } }
    }

    /// `every 3 months`
    pub fn interval(&self) -> String {
        schedule::in_words(self.interval_count, &self.interval_unit)
    }

    fn is_overdue(&self) -> bool {
        self.active && self.next_due_on.is_some_and(|day| day < Day::today())
    }
}
