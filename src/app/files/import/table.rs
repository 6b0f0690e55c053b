//! What a table of assets looks like: its columns, and what may stand in them. Pure.

use std::collections::HashMap;

use csv::StringRecord;

/// Headings that are named as ignored; a file that has more of them is told enough.
const IGNORED: usize = 50;

/// One column that is understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Column {
    /// `assets.id`: finds the asset, is never changed.
    Id,
    Name,
    Tag,
    Category,
    Location,
    Manufacturer,
    Model,
    SerialNumber,
    Status,
    Criticality,
    CommissionedOn,
    Notes,
}

/// Number of columns that are stored: all but the id.
pub const STORED: usize = 11;

impl Column {
    const ALL: [Self; STORED + 1] = [
        Self::Id,
        Self::Name,
        Self::Tag,
        Self::Category,
        Self::Location,
        Self::Manufacturer,
        Self::Model,
        Self::SerialNumber,
        Self::Status,
        Self::Criticality,
        Self::CommissionedOn,
        Self::Notes,
    ];

    /// As people see it, in messages and at the head of an export.
    pub fn title(self) -> &'static str {
        match self {
            Self::Id => "ID",
            Self::Name => "Name",
            Self::Tag => "Tag",
            Self::Category => "Category",
            Self::Location => "Location",
            Self::Manufacturer => "Manufacturer",
            Self::Model => "Model",
            Self::SerialNumber => "Serial number",
            Self::Status => "Status",
            Self::Criticality => "Criticality",
            Self::CommissionedOn => "Commissioned on",
            Self::Notes => "Notes",
        }
    }

    /// Other headings that mean it, without spaces, hyphens and capitals.
    fn synonyms(self) -> &'static [&'static str] {
        match self {
            Self::Id => &["assetid"],
            Self::Name => &["asset", "assetname", "machine", "title"],
            Self::Tag => &["assettag", "label", "number", "assetnumber", "inventorynumber"],
            Self::Category => &["type", "kind", "group"],
            Self::Location => &["place", "site", "room", "area"],
            Self::Manufacturer => &["maker", "make", "vendor", "brand"],
            Self::Model => &["modelnumber"],
            Self::SerialNumber => &["serial", "serialno", "sn"],
            Self::Status => &["state"],
            Self::Criticality => &["priority", "importance"],
            Self::CommissionedOn => {
                &["commissioned", "commissioningdate", "installed", "installedon", "inservicesince"]
            }
            Self::Notes => &["note", "comment", "comments", "remarks", "description"],
        }
    }

    /// Longest content in characters; the table's CHECKs say the same.
    fn max(self) -> usize {
        match self {
            Self::Tag => 64,
            Self::Category => 100,
            Self::Notes => 10_000,
            _ => 255,
        }
    }

    /// Its place in [`Row::values`].
    pub fn index(self) -> usize {
        self as usize - 1
    }

    fn of(heading: &str) -> Option<Self> {
        let plain: String = heading.chars().filter(|c| c.is_alphanumeric()).flat_map(char::to_lowercase).collect();
        let means = |column: &Self| {
            let title: String = column.title().chars().filter(|c| *c != ' ').flat_map(char::to_lowercase).collect();
            title == plain || column.synonyms().contains(&plain.as_str())
        };
        Self::ALL.into_iter().find(means)
    }
}

/// What stands where.
#[derive(Debug, Clone)]
pub struct Header {
    /// One for each cell of a row.
    columns: Vec<Option<Column>>,
    /// Headings that mean nothing here.
    pub ignored: Vec<String>,
}

impl Header {
    /// Reads the first row.
    ///
    /// # Errors
    /// What to change.
    pub fn read(headings: &StringRecord) -> Result<Self, String> {
        let columns: Vec<_> = headings.iter().map(Column::of).collect();
        let mut seen = HashMap::new();
        for (heading, column) in headings.iter().zip(&columns) {
            if let Some(column) = column
                && let Some(first) = seen.insert(*column, heading)
            {
                return Err(format!(
                    "Both “{}” and “{}” mean the column “{}”. Remove one of them.",
                    shown(first),
                    shown(heading),
                    column.title()
                ));
            }
        }
        if !seen.contains_key(&Column::Name) {
            let found: Vec<_> = headings.iter().take(12).map(shown).collect();
            return Err(format!(
                "The first line must hold the headings, and one of them must be “Name”. It holds: {}.",
                found.join(", ")
            ));
        }
        let known_elsewhere = ["createdat", "updatedat", "createdby"];
        let ignored = headings.iter().zip(&columns).filter(|(_, column)| column.is_none()).map(|(text, _)| shown(text));
        let ignored = ignored
            .filter(|text| !text.is_empty() && !known_elsewhere.contains(&text.as_str()))
            .take(IGNORED)
            .collect();
        Ok(Self { columns, ignored })
    }

    /// Number of cells of a row.
    pub fn width(&self) -> usize {
        self.columns.len()
    }

    /// Whether the file has this column.
    pub fn has(&self, column: Column) -> bool {
        self.columns.contains(&Some(column))
    }
}

/// A text from the file, short and harmless enough to be repeated.
fn shown(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(40).collect()
}

/// What is wrong with one cell.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Fault {
    /// Line in the file on which the row begins; the headings are on line 1.
    pub line: u64,
    /// Title of the column; empty where it is the row as a whole.
    pub column: String,
    /// What to change.
    pub what: String,
}

impl Fault {
    /// At one column.
    pub fn at(line: u64, column: Column, what: impl Into<String>) -> Self {
        Self { line, column: column.title().to_owned(), what: what.into() }
    }

    /// At the row as a whole.
    pub fn of_row(line: u64, what: impl Into<String>) -> Self {
        Self { line, column: String::new(), what: what.into() }
    }
}

/// A row that can be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Line in the file.
    pub line: u64,
    /// The asset that it says it is.
    pub id: Option<i64>,
    /// By [`Column::index`]; `None` is nothing, or a column that the file does not have.
    pub values: [Option<String>; STORED],
}

impl Row {
    /// What stands in a column.
    pub fn value(&self, column: Column) -> Option<&str> {
        self.values[column.index()].as_deref()
    }
}

/// Checks one row.
///
/// # Errors
/// Everything that is wrong with it, so that nobody has to come back for the next fault.
pub fn row(header: &Header, line: u64, record: &StringRecord) -> Result<Row, Vec<Fault>> {
    if record.len() != header.width() {
        let what = format!(
            "The line has {} cells and the headings are {}. Look for a missing or superfluous separator or quote.",
            record.len(),
            header.width()
        );
        return Err(vec![Fault::of_row(line, what)]);
    }
    let mut found = Row { line, id: None, values: Default::default() };
    let mut faults = Vec::new();
    for (cell, column) in record.iter().zip(&header.columns) {
        let Some(column) = *column else { continue };
        match value(column, cell) {
            Ok(None) => {}
            Ok(Some(text)) if column == Column::Id => match text.parse() {
                Ok(id) => found.id = Some(id),
                Err(_) => faults.push(Fault::at(line, column, "This is not a number. Leave it empty for a new asset.")),
            },
            Ok(Some(text)) => found.values[column.index()] = Some(text),
            Err(what) => faults.push(Fault::at(line, column, what)),
        }
    }
    if found.value(Column::Name).is_none() && !faults.iter().any(|fault| fault.column == Column::Name.title()) {
        faults.push(Fault::at(line, Column::Name, "The name is missing. Write one."));
    }
    if faults.is_empty() { Ok(found) } else { Err(faults) }
}

/// What a cell means: `None` for nothing.
fn value(column: Column, cell: &str) -> Result<Option<String>, String> {
    let text = without_guard(cell.trim());
    if text.is_empty() {
        return Ok(None);
    }
    let allowed = |character: char| column == Column::Notes && matches!(character, '\n' | '\r' | '\t');
    if text.chars().any(|character| character.is_control() && !allowed(character)) {
        return Err("It contains a line break or another control character. Remove it.".into());
    }
    let length = text.chars().count();
    if length > column.max() {
        return Err(format!("It has {length} characters. Shorten it to {}.", column.max()));
    }
    match column {
        Column::Status => one_of(text, &["operational", "degraded", "down", "retired"]),
        Column::Criticality => one_of(text, &["low", "normal", "high", "critical"]),
        Column::CommissionedOn => date(text),
        Column::Notes => Ok(text.replace("\r\n", "\n")),
        _ => Ok(text.to_owned()),
    }
    .map(Some)
}

/// Our own export puts an apostrophe before what a spreadsheet would compute; see `export`.
fn without_guard(text: &str) -> &str {
    match text.strip_prefix('\'') {
        Some(rest) if rest.starts_with(['=', '+', '-', '@']) => rest,
        _ => text,
    }
}

fn one_of(text: &str, known: &[&str]) -> Result<String, String> {
    let found = known.iter().find(|known| known.eq_ignore_ascii_case(text));
    found.map(|known| (*known).to_owned()).ok_or_else(|| format!("Write one of: {}.", known.join(", ")))
}

/// `2026-03-31` or `31.3.2026`. A date with slashes means one day in Europe and another one in America.
fn date(text: &str) -> Result<String, String> {
    let parse = || {
        if let Ok(date) = text.parse::<jiff::civil::Date>() {
            return Some(date);
        }
        let mut parts = text.split('.').map(str::trim);
        let (day, month, year) = (parts.next()?, parts.next()?, parts.next()?);
        if parts.next().is_some() || year.len() != 4 {
            return None;
        }
        jiff::civil::Date::new(year.parse().ok()?, month.parse().ok()?, day.parse().ok()?).ok()
    };
    let date = parse().filter(|date| (1800..=2200).contains(&date.year()));
    date.map(|date| date.to_string()).ok_or_else(|| "Write the date as 2026-03-31.".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(headings: &[&str]) -> Result<Header, String> {
        Header::read(&StringRecord::from(headings.to_vec()))
    }

    fn read(headings: &[&str], cells: &[&str]) -> Result<Row, Vec<Fault>> {
        row(&header(headings).unwrap(), 7, &StringRecord::from(cells.to_vec()))
    }

    #[test]
    fn headings_are_understood_however_they_are_written() {
        let found = header(&["ASSET-TAG", " name ", "Serial_No.", "commissioned on", "Colour", "created_at"]).unwrap();
        assert!(found.has(Column::Tag) && found.has(Column::SerialNumber) && found.has(Column::CommissionedOn));
        assert_eq!(found.ignored, ["Colour", "created_at"]);
        assert!(header(&["Tag", "Location"]).unwrap_err().contains("Tag, Location"));
        assert!(header(&["Name", "Asset name"]).unwrap_err().contains("Both “Name” and “Asset name”"));
    }

    #[test]
    fn a_good_row_is_read_and_an_empty_cell_is_nothing() {
        let headings = ["Id", "Name", "Tag", "Status", "Commissioned", "Notes"];
        let found = read(&headings, &["12", " Pump ", "", "DOWN", "31.3.2026", "one\r\ntwo"]).unwrap();
        assert_eq!((found.line, found.id), (7, Some(12)));
        assert_eq!(found.value(Column::Name), Some("Pump"));
        assert_eq!(found.value(Column::Tag), None);
        assert_eq!(found.value(Column::Status), Some("down"));
        assert_eq!(found.value(Column::CommissionedOn), Some("2026-03-31"));
        assert_eq!(found.value(Column::Notes), Some("one\ntwo"));
        let guarded = read(&["Name"], &["'=cmd"]).unwrap();
        assert_eq!(guarded.value(Column::Name), Some("=cmd"), "as our own export writes it");
    }

    #[test]
    fn every_fault_of_a_row_is_named_with_its_column() {
        let long = "a".repeat(65);
        let headings = ["Id", "Name", "Tag", "Status", "Commissioned", "Location"];
        let faults = read(&headings, &["x", " ", &long, "broken", "3/4/2026", "Hall\t3"]).unwrap_err();
        let told: Vec<_> = faults.iter().map(|fault| (fault.column.as_str(), fault.what.as_str())).collect();
        assert_eq!(
            told,
            [
                ("ID", "This is not a number. Leave it empty for a new asset."),
                ("Tag", "It has 65 characters. Shorten it to 64."),
                ("Status", "Write one of: operational, degraded, down, retired."),
                ("Commissioned on", "Write the date as 2026-03-31."),
                ("Location", "It contains a line break or another control character. Remove it."),
                ("Name", "The name is missing. Write one."),
            ]
        );
        let faults = read(&["Name", "Tag"], &["Pump", "7", "8"]).unwrap_err();
        assert!(faults[0].what.contains("3 cells and the headings are 2"), "{faults:?}");
    }
}
