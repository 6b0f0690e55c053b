//! An asset as people type it and as programs send it, and the one that may be stored.

use serde::Deserialize;

use super::{Asset, CRITICALITIES, STATUSES, criticality_word, status_badge};
use crate::app::plant::day::{Day, Moment};
use crate::app::plant::show::{Choice, Difference, Field, Kind};
use crate::app::plant::typed::Errors;

/// What is typed. Kept as it is, so that a form that is refused shows it again.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct AssetForm {
    pub name: String,
    pub tag: String,
    pub category: String,
    pub location: String,
    pub manufacturer: String,
    pub model: String,
    pub serial_number: String,
    pub status: String,
    pub criticality: String,
    pub commissioned_on: String,
    pub notes: String,
    /// Of the version that is edited.
    pub updated_at: String,
}

/// What a program sends. Unknown members are refused: a misspelt one would be lost without a word.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssetDocument {
    name: String,
    tag: Option<String>,
    category: Option<String>,
    location: Option<String>,
    manufacturer: Option<String>,
    model: Option<String>,
    serial_number: Option<String>,
    status: Option<String>,
    criticality: Option<String>,
    commissioned_on: Option<String>,
    notes: Option<String>,
    updated_at: Option<String>,
}

impl From<AssetDocument> for AssetForm {
    fn from(document: AssetDocument) -> Self {
        Self {
            name: document.name,
            tag: document.tag.unwrap_or_default(),
            category: document.category.unwrap_or_default(),
            location: document.location.unwrap_or_default(),
            manufacturer: document.manufacturer.unwrap_or_default(),
            model: document.model.unwrap_or_default(),
            serial_number: document.serial_number.unwrap_or_default(),
            status: document.status.unwrap_or_default(),
            criticality: document.criticality.unwrap_or_default(),
            commissioned_on: document.commissioned_on.unwrap_or_default(),
            notes: document.notes.unwrap_or_default(),
            updated_at: document.updated_at.unwrap_or_default(),
        }
    }
}

impl From<&Asset> for AssetForm {
    fn from(asset: &Asset) -> Self {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        Self {
            name: asset.name.clone(),
            tag: text(&asset.tag),
            category: text(&asset.category),
            location: text(&asset.location),
            manufacturer: text(&asset.manufacturer),
            model: text(&asset.model),
            serial_number: text(&asset.serial_number),
            status: asset.status.clone(),
            criticality: asset.criticality.clone(),
            commissioned_on: asset.commissioned_on.map(|day| day.to_string()).unwrap_or_default(),
            notes: text(&asset.notes),
            updated_at: asset.updated_at.to_string(),
        }
    }
}

/// An asset that may be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewAsset {
    pub name: String,
    pub tag: Option<String>,
    pub category: Option<String>,
    pub location: Option<String>,
    pub manufacturer: Option<String>,
    pub model: Option<String>,
    pub serial_number: Option<String>,
    pub status: &'static str,
    pub criticality: &'static str,
    pub commissioned_on: Option<Day>,
    pub notes: Option<String>,
}

impl AssetForm {
    /// What may be stored of it.
    ///
    /// # Errors
    /// What to change, field by field.
    pub fn check(&self) -> Result<NewAsset, Errors> {
        let mut errors = Errors::default();
        let asset = NewAsset {
            name: errors.required("name", &self.name, 255),
            tag: errors.line("tag", &self.tag, 64),
            category: errors.line("category", &self.category, 100),
            location: errors.line("location", &self.location, 255),
            manufacturer: errors.line("manufacturer", &self.manufacturer, 255),
            model: errors.line("model", &self.model, 255),
            serial_number: errors.line("serial_number", &self.serial_number, 255),
            // Retired is no status that is typed: retiring also puts the routines to rest.
            status: errors.choice("status", &self.status, &STATUSES[..3]),
            criticality: errors.choice("criticality", &self.criticality, &CRITICALITIES),
            commissioned_on: errors.day("commissioned_on", &self.commissioned_on),
            notes: errors.text("notes", &self.notes, 10_000),
        };
        errors.or(asset)
    }

    /// The version that was edited.
    pub fn version(&self) -> Option<Moment> {
        Moment::parse(&self.updated_at)
    }

    /// The fields of the page.
    pub fn fields(&self, known: &Known, errors: &Errors) -> Vec<Field> {
        let line = |name, label, value: &str| Field::new(name, label, Kind::Line, value, errors);
        let list = |name, label, choices, value: &str| {
            Field::new(name, label, Kind::List(Choice::of(choices, value)), value, errors).required()
        };
        vec![
            line("name", "Name", &self.name).required(),
            line("tag", "Tag", &self.tag).max(64).hint("The number on the machine’s label. Each is used once."),
            line("category", "Category", &self.category).max(100).known(&known.categories),
            line("location", "Location", &self.location).known(&known.locations),
            list("status", "Status", &STATUSES[..3], &self.status),
            list("criticality", "Criticality", &CRITICALITIES, &self.criticality)
                .hint("How much stands still without it."),
            line("manufacturer", "Manufacturer", &self.manufacturer).known(&known.manufacturers),
            line("model", "Model", &self.model),
            line("serial_number", "Serial number", &self.serial_number),
            Field::new("commissioned_on", "In use since", Kind::Day, &self.commissioned_on, errors),
            Field::new("notes", "Notes", Kind::Text, &self.notes, errors).max(10_000),
            Field::new("updated_at", "", Kind::Hidden, &self.updated_at, errors),
        ]
    }

    /// What differs between the stored version and this one.
    pub fn differences(&self, stored: &Asset) -> Vec<Difference> {
        let theirs = Self::from(stored);
        // Not chosen is the first, as when it is stored.
        let status = |name: &str| status_badge(if name.is_empty() { STATUSES[0].0 } else { name }).word.to_owned();
        let criticality = |name: &str| criticality_word(name).to_owned();
        let pairs = [
            ("Name", theirs.name, self.name.clone()),
            ("Tag", theirs.tag, self.tag.clone()),
            ("Category", theirs.category, self.category.clone()),
            ("Location", theirs.location, self.location.clone()),
            ("Status", status(&theirs.status), status(&self.status)),
            ("Criticality", criticality(&theirs.criticality), criticality(&self.criticality)),
            ("Manufacturer", theirs.manufacturer, self.manufacturer.clone()),
            ("Model", theirs.model, self.model.clone()),
            ("Serial number", theirs.serial_number, self.serial_number.clone()),
            ("In use since", theirs.commissioned_on, self.commissioned_on.clone()),
            ("Notes", theirs.notes, self.notes.replace("\r\n", "\n")),
        ];
        let rows = pairs.into_iter().map(|(label, theirs, yours)| (label, theirs, yours.trim().to_owned()));
        rows.filter(|(_, theirs, yours)| theirs != yours)
            .map(|(label, theirs, yours)| Difference { label, theirs, yours })
            .collect()
    }
}

/// What is in use already, for suggestions and filters.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub categories: Vec<String>,
    pub locations: Vec<String>,
    pub manufacturers: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_is_needed_and_the_rest_has_defaults() {
        let form = AssetForm { name: " Pump 7 ".into(), location: "  ".into(), ..AssetForm::default() };
        let asset = form.check().unwrap();
        assert_eq!((asset.name.as_str(), asset.location.as_deref()), ("Pump 7", None));
        assert_eq!((asset.status, asset.criticality), ("operational", "normal"));
    }

    #[test]
    fn every_field_says_what_is_wrong_with_it() {
        let long = "x".repeat(300);
        let form = AssetForm {
            name: String::new(),
            tag: long.clone(),
            category: long,
            location: "Hall\t3".into(),
            status: "retired".into(),
            criticality: "odd".into(),
            commissioned_on: "yesterday".into(),
            ..AssetForm::default()
        };
        let errors = form.check().unwrap_err();
        for field in ["name", "tag", "category", "location", "status", "criticality", "commissioned_on"] {
            assert!(errors.of(field).is_some(), "{field}: {errors:?}");
        }
        assert!(errors.is_first("name"));
    }
}
