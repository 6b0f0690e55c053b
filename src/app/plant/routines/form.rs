//! A routine as people type it and as programs send it, and the one that may be stored.

use serde::Deserialize;

use super::Routine;
use crate::app::plant::day::{Day, Moment};
use crate::app::plant::people::{self, Person};
use crate::app::plant::schedule::Unit;
use crate::app::plant::show::{Choice, Difference, Field, Kind};
use crate::app::plant::typed::Errors;

/// What is typed. Kept as it is, so that a form that is refused shows it again.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RoutineForm {
    pub asset_id: String,
    pub name: String,
    pub instructions: String,
    pub interval_count: String,
    pub interval_unit: String,
    pub next_due_on: String,
    pub estimated_minutes: String,
    pub assigned_to: String,
    /// Of the version that is edited.
    pub updated_at: String,
}

/// What a program sends. Unknown members are refused: a misspelt one would be lost without a word.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RoutineDocument {
    asset_id: i64,
    name: String,
    instructions: Option<String>,
    interval_count: i32,
    interval_unit: String,
    next_due_on: String,
    estimated_minutes: Option<i32>,
    assigned_to: Option<i64>,
    updated_at: Option<String>,
}

impl From<RoutineDocument> for RoutineForm {
    fn from(document: RoutineDocument) -> Self {
        Self {
            asset_id: document.asset_id.to_string(),
            name: document.name,
            instructions: document.instructions.unwrap_or_default(),
            interval_count: document.interval_count.to_string(),
            interval_unit: document.interval_unit,
            next_due_on: document.next_due_on,
            estimated_minutes: document.estimated_minutes.map(|minutes| minutes.to_string()).unwrap_or_default(),
            assigned_to: document.assigned_to.map(|user| user.to_string()).unwrap_or_default(),
            updated_at: document.updated_at.unwrap_or_default(),
        }
    }
}

impl From<&Routine> for RoutineForm {
    fn from(routine: &Routine) -> Self {
        Self {
            asset_id: routine.asset_id.to_string(),
            name: routine.name.clone(),
            instructions: routine.instructions.clone().unwrap_or_default(),
            interval_count: routine.interval_count.to_string(),
            interval_unit: routine.interval_unit.clone(),
            next_due_on: routine.next_due_on.map(|day| day.to_string()).unwrap_or_default(),
            estimated_minutes: routine.estimated_minutes.map(|minutes| minutes.to_string()).unwrap_or_default(),
            assigned_to: routine.assigned_to.map(|user| user.to_string()).unwrap_or_default(),
            updated_at: routine.updated_at.to_string(),
        }
    }
}

/// A routine that may be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRoutine {
    pub asset_id: i64,
    pub name: String,
    pub instructions: Option<String>,
    pub interval_count: i32,
    pub interval_unit: Unit,
    pub next_due_on: Day,
    pub estimated_minutes: Option<i32>,
    pub assigned_to: Option<i64>,
}

impl RoutineForm {
    /// The form of a new routine.
    pub fn blank(asset: Option<i64>) -> Self {
        Self {
            asset_id: asset.map(|asset| asset.to_string()).unwrap_or_default(),
            interval_count: "1".into(),
            interval_unit: "month".into(),
            next_due_on: Day::today().to_string(),
            ..Self::default()
        }
    }

    /// What may be stored of it.
    ///
    /// # Errors
    /// What to change, field by field.
    pub fn check(&self) -> Result<NewRoutine, Errors> {
        let mut errors = Errors::default();
        let asset_id = self.asset_id.trim().parse().ok();
        if asset_id.is_none() {
            errors.add("asset_id", "Choose the asset that it is done to.");
        }
        let name = errors.required("name", &self.name, 255);
        let instructions = errors.text("instructions", &self.instructions, 20_000);
        let interval_count = errors.number("interval_count", &self.interval_count, 1, 1000);
        if self.interval_count.trim().is_empty() {
            errors.add("interval_count", "This is missing.");
        }
        let unit = errors.choice("interval_unit", &self.interval_unit, &Unit::ALL);
        let next_due_on = errors.day("next_due_on", &self.next_due_on);
        if self.next_due_on.trim().is_empty() {
            errors.add("next_due_on", "This is missing.");
        }
        let estimated_minutes = errors.number("estimated_minutes", &self.estimated_minutes, 1, 100_000);
        let assigned_to = self.assigned_to.trim();
        let assigned_to = (!assigned_to.is_empty()).then(|| assigned_to.parse::<i64>());
        if matches!(assigned_to, Some(Err(_))) {
            errors.add("assigned_to", "Choose somebody from the list.");
        }
        let (Some(asset_id), Some(interval_count), Some(next_due_on), true) =
            (asset_id, interval_count, next_due_on, errors.is_empty())
        else {
            return Err(errors);
        };
        Ok(NewRoutine {
            asset_id,
            name,
            instructions,
            interval_count,
            interval_unit: Unit::parse(unit).unwrap_or(Unit::Month),
            next_due_on,
            estimated_minutes,
            assigned_to: assigned_to.and_then(Result::ok),
        })
    }

    /// The version that was edited.
    pub fn version(&self) -> Option<Moment> {
        Moment::parse(&self.updated_at)
    }

    /// The fields of the page. Without `assets` the asset is settled.
    pub fn fields(&self, assets: Option<Vec<Choice>>, people: &[Person], errors: &Errors) -> Vec<Field> {
        let asset = assets.map_or(Kind::Hidden, Kind::List);
        let people = people::choices(people, "Nobody in particular", &self.assigned_to);
        vec![
            Field::new("asset_id", "Asset", asset, &self.asset_id, errors).required(),
            Field::new("name", "What is to be done", Kind::Line, &self.name, errors)
                .required()
                .hint("As in “Grease the drive-end bearings”."),
            Field::new("interval_count", "Every", Kind::Number(1, 1000), &self.interval_count, errors).required(),
            Field::new("interval_unit", "Unit", Kind::List(Choice::of(&Unit::ALL, &self.interval_unit)), "", errors)
                .required(),
            Field::new("next_due_on", "Due next", Kind::Day, &self.next_due_on, errors).required().hint(
                "Later dates are counted from this one. A routine of the 31st is due at the end of shorter months.",
            ),
            Field::new("assigned_to", "Assigned to", Kind::List(people), &self.assigned_to, errors),
            Field::new(
                "estimated_minutes",
                "Minutes it takes",
                Kind::Number(1, 100_000),
                &self.estimated_minutes,
                errors,
            ),
            Field::new("instructions", "Instructions", Kind::Text, &self.instructions, errors)
                .max(20_000)
                .hint("Steps, tools, safety. They are printed on the work order."),
            Field::new("updated_at", "", Kind::Hidden, &self.updated_at, errors),
        ]
    }

    /// What differs between the stored version and this one.
    pub fn differences(&self, stored: &Routine, people: &[Person]) -> Vec<Difference> {
        let theirs = Self::from(stored);
        let name = |id: &str| {
            let person = people.iter().find(|person| person.id.to_string() == id);
            person.map_or_else(|| id.to_owned(), |person| person.name.clone())
        };
        let pairs = [
            ("What is to be done", theirs.name, self.name.clone()),
            ("Every", theirs.interval_count, self.interval_count.clone()),
            ("Unit", theirs.interval_unit, self.interval_unit.clone()),
            ("Due next", theirs.next_due_on, self.next_due_on.clone()),
            ("Assigned to", name(&theirs.assigned_to), name(&self.assigned_to)),
            ("Minutes it takes", theirs.estimated_minutes, self.estimated_minutes.clone()),
            ("Instructions", theirs.instructions, self.instructions.replace("\r\n", "\n")),
        ];
        let rows = pairs.into_iter().map(|(label, theirs, yours)| (label, theirs, yours.trim().to_owned()));
        rows.filter(|(_, theirs, yours)| theirs != yours)
            .map(|(label, theirs, yours)| Difference { label, theirs, yours })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_routine_needs_an_asset_a_name_an_interval_and_a_date() {
        let errors = RoutineForm::default().check().unwrap_err();
        for field in ["asset_id", "name", "interval_count", "next_due_on"] {
            assert!(errors.of(field).is_some(), "{field}: {errors:?}");
        }
        let form = RoutineForm { name: "Grease".into(), ..RoutineForm::blank(Some(7)) };
        let routine = form.check().unwrap();
        assert_eq!((routine.asset_id, routine.interval_count, routine.interval_unit), (7, 1, Unit::Month));
        assert_eq!((routine.next_due_on, routine.assigned_to), (Day::today(), None));
    }

    #[test]
    fn numbers_out_of_range_are_refused_at_their_fields() {
        let form = RoutineForm {
            name: "Grease".into(),
            interval_count: "0".into(),
            interval_unit: "fortnight".into(),
            estimated_minutes: "1e9".into(),
            assigned_to: "me".into(),
            next_due_on: "2026-02-30".into(),
            ..RoutineForm::blank(Some(7))
        };
        let errors = form.check().unwrap_err();
        for field in ["interval_count", "interval_unit", "estimated_minutes", "assigned_to", "next_due_on"] {
            assert!(errors.of(field).is_some(), "{field}: {errors:?}");
        }
    }
}
