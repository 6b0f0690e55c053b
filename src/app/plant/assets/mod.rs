//! Assets: the machines, rooms and vehicles that are looked after.

pub mod api;
mod form;
pub mod pages;
pub mod store;

use serde::Serialize;

use super::day::{Day, Moment};
use super::show::Badge;

/// As the table has them and as people read them; the first is what a new one is.
pub const STATUSES: [(&str, &str); 4] =
    [("operational", "Operational"), ("degraded", "Degraded"), ("down", "Down"), ("retired", "Retired")];
/// As the table has them and as people read them; the first is what a new one is.
pub const CRITICALITIES: [(&str, &str); 4] =
    [("normal", "Normal"), ("low", "Low"), ("high", "High"), ("critical", "Critical")];

/// A status as it is shown.
pub fn status_badge(status: &str) -> Badge {
    let (tone, word) = match status {
        "operational" => ("good", "Operational"),
        "degraded" => ("warn", "Degraded"),
        "down" => ("bad", "Down"),
        _ => ("soft", "Retired"),
    };
    Badge { tone, word }
}

/// A criticality as it is shown.
pub fn criticality_word(criticality: &str) -> &'static str {
    CRITICALITIES.iter().find(|(name, _)| *name == criticality).map_or("Normal", |(_, word)| word)
}

/// One asset in a list.
#[derive(Debug, Clone)]
pub struct Listed {
    pub id: i64,
    pub name: String,
    pub tag: Option<String>,
    pub category: Option<String>,
    pub location: Option<String>,
    pub status: String,
    pub criticality: String,
    /// Routines that are active.
    pub routines: i64,
    /// Executions whose day is over.
    pub overdue: i64,
    /// Rows of the whole list.
    pub total: i64,
}

impl Listed {
    pub fn badge(&self) -> Badge {
        status_badge(&self.status)
    }

    fn criticality(&self) -> &'static str {
        criticality_word(&self.criticality)
    }
}

/// One asset with all that is known of it.
#[derive(Debug, Clone, Serialize)]
pub struct Asset {
    pub id: i64,
    pub name: String,
    pub tag: Option<String>,
    pub category: Option<String>,
    pub location: Option<String>,
    pub manufacturer: Option<String>,
    pub model: Option<String>,
    pub serial_number: Option<String>,
    pub status: String,
    pub criticality: String,
    pub commissioned_on: Option<Day>,
    pub notes: Option<String>,
    pub created_at: Moment,
    /// What an edit must name, so that it does not undo somebody else's.
    pub updated_at: Moment,
}

impl Asset {
    pub fn badge(&self) -> Badge {
        status_badge(&self.status)
    }

    fn is_retired(&self) -> bool {
        self.status == "retired"
    }

    fn criticality(&self) -> &'static str {
        criticality_word(&self.criticality)
    }
}
