//! Executions, which people call work: one time that a routine is due, and what became of it.
//!
//! ```text
//! pending ──start──▶ in progress ──complete──▶ completed
//!    └────────skip───────┴────────────skip───▶ skipped
//! ```
//!
//! Each step is one statement that names the status it starts from, so of two people at once one wins, and the other is
//! told who it was.

pub mod api;
mod lists;
pub mod pages;
pub mod store;

use serde::{Deserialize, Serialize};

use super::day::{Day, Moment};
use super::schedule;
use super::show::Badge;

/// What is looked at, as the address has it and as people read it.
pub const VIEWS: [(&str, &str); 6] = [
    ("mine", "My work"),
    ("today", "Due today"),
    ("overdue", "Overdue"),
    ("upcoming", "Upcoming"),
    ("open", "All open"),
    ("done", "Done"),
];

/// Which executions a list shows.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// One of [`VIEWS`].
    pub view: String,
    /// Whose, for `mine`.
    pub user: i64,
    /// Part of the routine's or the asset's name.
    pub search: String,
    pub asset: Option<i64>,
    pub routine: Option<i64>,
}

/// One execution in a list.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Work {
    pub id: i64,
    pub status: String,
    pub due_on: Day,
    pub routine_id: i64,
    pub routine_name: String,
    pub asset_id: i64,
    pub asset_name: String,
    pub asset_location: Option<String>,
    pub criticality: String,
    pub assigned_to: Option<i64>,
    pub assignee_name: Option<String>,
    pub performed_by: Option<i64>,
    pub performer_name: Option<String>,
    pub completed_at: Option<Moment>,
    pub notes: Option<String>,
    pub skip_reason: Option<String>,
    /// Rows of the whole list.
    #[serde(skip)]
    pub total: i64,
}

/// A status as it is shown: of what is pending, its date says more.
fn badge(status: &str, due_on: Day) -> Badge {
    let today = Day::today();
    let (tone, word) = match status {
        "pending" if due_on < today => ("bad", "Overdue"),
        "pending" if due_on == today => ("warn", "Due today"),
        "pending" => ("soft", "Planned"),
        "in_progress" => ("info", "In progress"),
        "completed" => ("good", "Completed"),
        _ => ("soft", "Skipped"),
    };
    Badge { tone, word }
}

impl Work {
    pub fn badge(&self) -> Badge {
        badge(&self.status, self.due_on)
    }

    pub fn is_critical(&self) -> bool {
        self.criticality == "critical"
    }
}

/// How many there are in each view.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub struct Counts {
    pub mine: i64,
    pub today: i64,
    pub overdue: i64,
    pub upcoming: i64,
    pub open: i64,
    /// The table's `pending`: planned and not started.
    pub pending: i64,
}

impl Counts {
    /// Of a view; done ones are not counted.
    fn of(&self, view: &str) -> Option<i64> {
        Some(match view {
            "mine" => self.mine,
            "today" => self.today,
            "overdue" => self.overdue,
            "upcoming" => self.upcoming,
            "open" => self.open,
            _ => return None,
        })
    }
}

/// One execution with all that somebody who does it needs to know.
#[derive(Debug, Clone, Serialize)]
pub struct Detail {
    pub id: i64,
    pub status: String,
    pub due_on: Day,
    pub started_at: Option<Moment>,
    pub completed_at: Option<Moment>,
    pub performed_by: Option<i64>,
    pub performer_name: Option<String>,
    pub notes: Option<String>,
    pub skip_reason: Option<String>,
    pub updated_at: Moment,
    pub routine_id: i64,
    pub routine_name: String,
    pub instructions: Option<String>,
    pub interval_count: i32,
    pub interval_unit: String,
    pub estimated_minutes: Option<i32>,
    pub assigned_to: Option<i64>,
    pub assignee_name: Option<String>,
    pub asset_id: i64,
    pub asset_name: String,
    pub asset_tag: Option<String>,
    pub asset_location: Option<String>,
    pub asset_status: String,
    pub asset_criticality: String,
    pub asset_manufacturer: Option<String>,
    pub asset_model: Option<String>,
    pub asset_serial_number: Option<String>,
}

impl Detail {
    pub fn badge(&self) -> Badge {
        badge(&self.status, self.due_on)
    }

    fn asset_badge(&self) -> Badge {
        super::assets::status_badge(&self.asset_status)
    }

    fn criticality(&self) -> &'static str {
        super::assets::criticality_word(&self.asset_criticality)
    }

    fn interval(&self) -> String {
        schedule::in_words(self.interval_count, &self.interval_unit)
    }

    fn is_open(&self) -> bool {
        matches!(self.status.as_str(), "pending" | "in_progress")
    }

    /// Why a step is not possible: who was faster, and when.
    fn standing(&self) -> String {
        let who = self.performer_name.as_deref().unwrap_or("Somebody");
        match (self.status.as_str(), self.started_at, self.completed_at) {
            ("in_progress", Some(at), _) => format!("{who} started this {}.", at.ago()),
            ("completed", _, Some(at)) => format!("{who} completed this {}.", at.ago()),
            ("skipped", _, Some(at)) => format!("{who} skipped this {}.", at.ago()),
            _ => "This has not been started yet.".into(),
        }
    }
}
