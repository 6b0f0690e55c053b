//! What a row means for the assets as they are: new, changed, unchanged, or not possible.
//!
//! An asset is found by its id where the file has one, else by its tag, else, among those without a tag, by name and
//! location together.

use std::collections::HashMap;

use csv::StringRecord;
use sqlx::postgres::PgConnection;

use super::read::Line;
use super::table::{Column, Fault, Header, Row, STORED};
use crate::app::accounts::CurrentUser;
use crate::app::plant::put_away;
use crate::app::problem::Problem;

/// What is stored when nothing is said.
const STATUS: &str = "operational";
const CRITICALITY: &str = "normal";

/// All stored columns, by [`Column::index`].
pub type Values = [Option<String>; STORED];

/// A row and what becomes of it.
pub struct Decided {
    /// Where it begins in the file.
    pub number: u64,
    /// As it stands in the file.
    pub record: StringRecord,
    /// What becomes of it.
    pub decision: Decision,
}

/// What becomes of a row.
pub enum Decision {
    /// An asset that is not there yet.
    New(Values),
    /// This asset, from now on with these values.
    Changed(i64, Values),
    /// Nothing.
    Unchanged,
    /// It cannot be stored.
    Broken(Vec<Fault>),
}

struct Known {
    id: i64,
    values: Values,
}

/// The assets that a batch may mean: by id, by tag, by name and location.
#[derive(Default)]
struct Assets {
    known: HashMap<i64, Known>,
    tags: HashMap<String, i64>,
    /// Those without a tag.
    names: HashMap<(String, Option<String>), Vec<i64>>,
}

/// Decides a batch; changes nothing.
///
/// # Errors
/// The database refuses.
pub async fn decide(db: &mut PgConnection, header: &Header, lines: Vec<Line>) -> Result<Vec<Decided>, Problem> {
    let assets = find(db, &lines).await?;
    let decided = lines.into_iter().map(|line| Decided {
        number: line.number,
        record: line.record,
        decision: match line.row {
            Ok(row) => decide_one(&assets, header, row).unwrap_or_else(|fault| Decision::Broken(vec![fault])),
            Err(faults) => Decision::Broken(faults),
        },
    });
    Ok(decided.collect())
}

fn decide_one(assets: &Assets, header: &Header, row: Row) -> Result<Decision, Fault> {
    let owner = row.value(Column::Tag).and_then(|tag| assets.tags.get(tag)).copied();
    let id = match (row.id, row.value(Column::Tag)) {
        (Some(id), _) => {
            if !assets.known.contains_key(&id) {
                let what = "There is no asset with this ID. Leave it empty for a new one.";
                return Err(Fault::at(row.line, Column::Id, what));
            }
            if owner.is_some_and(|owner| owner != id) {
                let what = "Another asset has this tag already. Write another one.";
                return Err(Fault::at(row.line, Column::Tag, what));
            }
            Some(id)
        }
        (None, Some(_)) => owner,
        (None, None) => {
            let text = |column: Column| row.value(column).map(str::to_owned);
            let key = (text(Column::Name).unwrap_or_default(), text(Column::Location));
            match assets.names.get(&key).map(Vec::as_slice) {
                None | Some([]) => None,
                Some([id]) => Some(*id),
                Some(_) => {
                    let what =
                        "Several assets without a tag have this name and location. Write the ID of the one you mean.";
                    return Err(Fault::at(row.line, Column::Name, what));
                }
            }
        }
    };
    let Some(known) = id.and_then(|id| assets.known.get(&id)) else {
        let mut values = row.values;
        values[Column::Status.index()].get_or_insert_with(|| STATUS.to_owned());
        values[Column::Criticality.index()].get_or_insert_with(|| CRITICALITY.to_owned());
        return Ok(Decision::New(values));
    };
    let values = merged(&known.values, header, row.values);
    Ok(if values == known.values { Decision::Unchanged } else { Decision::Changed(known.id, values) })
}

/// A column that the file has replaces what is stored, also by nothing; one that it has not is left alone. What may not
/// be nothing stays.
fn merged(known: &Values, header: &Header, mut values: Values) -> Values {
    let columns = [
        Column::Name,
        Column::Tag,
        Column::Category,
        Column::Location,
        Column::Manufacturer,
        Column::Model,
        Column::SerialNumber,
        Column::Status,
        Column::Criticality,
        Column::CommissionedOn,
        Column::Notes,
    ];
    for column in columns {
        let value = &mut values[column.index()];
        let never_empty = matches!(column, Column::Status | Column::Criticality);
        if !header.has(column) || never_empty && value.is_none() {
            value.clone_from(&known[column.index()]);
        }
    }
    values
}

async fn find(db: &mut PgConnection, lines: &[Line]) -> Result<Assets, sqlx::Error> {
    let rows = || lines.iter().filter_map(|line| line.row.as_ref().ok());
    let ids: Vec<i64> = rows().filter_map(|row| row.id).collect();
    let tags: Vec<String> = rows().filter_map(|row| row.value(Column::Tag)).map(str::to_owned).collect();
    let untagged = rows().filter(|row| row.id.is_none() && row.value(Column::Tag).is_none());
    let names: Vec<String> = untagged.filter_map(|row| row.value(Column::Name)).map(str::to_owned).collect();
    // Joins, because the plan for arrays of any length would compare each asset with each element.
    let found = sqlx::query!(
        r#"SELECT id, name, tag, category, location, manufacturer, model, serial_number, status, criticality,
                  commissioned_on::text AS commissioned_on, notes
           FROM assets WHERE id IN (
               SELECT unnest($1::bigint[])
               UNION SELECT a.id FROM unnest($2::text[]) AS t (tag) JOIN assets a ON a.tag = t.tag
               UNION SELECT a.id FROM unnest($3::text[]) AS n (name) JOIN assets a ON a.name = n.name WHERE a.tag IS NULL)"#,
        &ids,
        &tags,
        &names
    );
    let mut assets = Assets::default();
    for row in found.fetch_all(db).await? {
        match &row.tag {
            Some(tag) => _ = assets.tags.insert(tag.clone(), row.id),
            None => assets.names.entry((row.name.clone(), row.location.clone())).or_default().push(row.id),
        }
        let values = [
            Some(row.name),
            row.tag,
            row.category,
            row.location,
            row.manufacturer,
            row.model,
            row.serial_number,
            Some(row.status),
            Some(row.criticality),
            row.commissioned_on,
            row.notes,
        ];
        assets.known.insert(row.id, Known { id: row.id, values });
    }
    Ok(assets)
}

/// Stores what a batch decided.
///
/// # Errors
/// The database refuses; the caller's transaction is over then.
pub async fn store(db: &mut PgConnection, user: &CurrentUser, decided: &[Decided]) -> Result<(), Problem> {
    let mut ids = Vec::new();
    let (mut new, mut changed) = (Columns::default(), Columns::default());
    for one in decided {
        match &one.decision {
            Decision::New(values) => new.push(values),
            Decision::Changed(id, values) => {
                ids.push(*id);
                changed.push(values);
            }
            Decision::Unchanged | Decision::Broken(_) => {}
        }
    }
    let stored = async {
        insert(db, user, &new).await?;
        // Routines before their assets, as everywhere.
        sqlx::query!("SELECT id FROM routines WHERE asset_id = ANY($1) ORDER BY id FOR NO KEY UPDATE", &ids)
            .fetch_all(&mut *db)
            .await?;
        update(db, &ids, &changed).await?;
        rest(db, user, &ids).await
    };
    stored.await.map_err(|error| match error.as_database_error().filter(|error| error.is_unique_violation()) {
        // Somebody took a tag while the file was being stored, or two rows exchange theirs.
        Some(_) => {
            Problem::Invalid("A tag is taken by another asset. Nothing was imported: check the file again.".into())
        }
        None => error.into(),
    })
}

/// Values turned by a quarter: one array for each column.
#[derive(Default)]
struct Columns([Vec<Option<String>>; STORED]);

impl Columns {
    fn push(&mut self, values: &Values) {
        for (column, value) in self.0.iter_mut().zip(values) {
            column.push(value.clone());
        }
    }
}

async fn insert(db: &mut PgConnection, user: &CurrentUser, new: &Columns) -> Result<(), sqlx::Error> {
    let [name, tag, category, location, manufacturer, model, serial, status, criticality, commissioned, notes] = &new.0;
    if name.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "INSERT INTO assets (name, tag, category, location, manufacturer, model, serial_number, status, criticality, \
                             commissioned_on, notes, created_by) \
         SELECT v.name, v.tag, v.category, v.location, v.manufacturer, v.model, v.serial, v.status, v.criticality, \
                v.commissioned::date, v.notes, $12 \
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], \
                     $9::text[], $10::text[], $11::text[]) \
              AS v (name, tag, category, location, manufacturer, model, serial, status, criticality, commissioned, notes)",
        name as _,
        tag as _,
        category as _,
        location as _,
        manufacturer as _,
        model as _,
        serial as _,
        status as _,
        criticality as _,
        commissioned as _,
        notes as _,
        user.id
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What retiring an asset does on its page, it does here too: its routines are paused, and what was planned is skipped.
async fn rest(db: &mut PgConnection, user: &CurrentUser, ids: &[i64]) -> Result<(), sqlx::Error> {
    let resting = sqlx::query_scalar!(
        "UPDATE routines r SET active = false FROM assets a
         WHERE a.id = r.asset_id AND a.status = 'retired' AND a.id = ANY($1) AND r.active RETURNING r.id",
        ids
    );
    for routine in resting.fetch_all(&mut *db).await? {
        put_away(db, user.id, routine, "The asset was retired.").await?;
    }
    Ok(())
}

async fn update(db: &mut PgConnection, ids: &[i64], changed: &Columns) -> Result<(), sqlx::Error> {
    let [name, tag, category, location, manufacturer, model, serial, status, criticality, commissioned, notes] =
        &changed.0;
    if ids.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "UPDATE assets a SET name = v.name, tag = v.tag, category = v.category, location = v.location, \
                manufacturer = v.manufacturer, model = v.model, serial_number = v.serial, status = v.status, \
                criticality = v.criticality, commissioned_on = v.commissioned::date, notes = v.notes \
         FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], \
                     $9::text[], $10::text[], $11::text[], $12::bigint[]) \
              AS v (name, tag, category, location, manufacturer, model, serial, status, criticality, commissioned, notes, id) \
         WHERE a.id = v.id",
        name as _,
        tag as _,
        category as _,
        location as _,
        manufacturer as _,
        model as _,
        serial as _,
        status as _,
        criticality as _,
        commissioned as _,
        notes as _,
        ids
    )
    .execute(db)
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::files::import::table;

    fn assets() -> Assets {
        let mut assets = Assets::default();
        let rows = [
            (1, "Pump", Some("P-1"), None),
            (2, "Fan", None, Some("Roof")),
            (3, "Door", None, None),
            (4, "Door", None, None),
        ];
        for (id, name, tag, location) in rows {
            let mut values = Values::default();
            let text = |text: &str| Some(text.to_owned());
            values[Column::Name.index()] = text(name);
            values[Column::Tag.index()] = tag.and_then(text);
            values[Column::Location.index()] = location.and_then(text);
            values[Column::Status.index()] = text("down");
            values[Column::Criticality.index()] = text("normal");
            values[Column::Notes.index()] = text("kept");
            match tag {
                Some(tag) => _ = assets.tags.insert(tag.to_owned(), id),
                None => assets.names.entry((name.to_owned(), location.and_then(text))).or_default().push(id),
            }
            assets.known.insert(id, Known { id, values });
        }
        assets
    }

    fn decided(headings: &[&str], cells: &[&str]) -> String {
        let header = Header::read(&StringRecord::from(headings.to_vec())).unwrap();
        let row = table::row(&header, 2, &StringRecord::from(cells.to_vec())).unwrap();
        match decide_one(&assets(), &header, row) {
            Ok(Decision::New(values)) => format!("new {}", values[Column::Status.index()].as_deref().unwrap()),
            Ok(Decision::Changed(id, values)) => format!("changed {id}, notes {:?}", values[Column::Notes.index()]),
            Ok(Decision::Unchanged) => "unchanged".into(),
            Ok(Decision::Broken(_)) => unreachable!(),
            Err(fault) => format!("{}: {}", fault.column, fault.what),
        }
    }

    #[test]
    fn an_asset_is_found_by_id_then_tag_then_name_and_location() {
        let all = ["ID", "Name", "Tag", "Location"];
        assert_eq!(decided(&all, &["1", "Pump", "P-1", ""]), "unchanged");
        assert_eq!(decided(&all, &["", "Pump", "P-1", ""]), "unchanged");
        assert_eq!(decided(&all, &["", "Pump two", "P-1", ""]), "changed 1, notes Some(\"kept\")");
        assert_eq!(decided(&all, &["2", "Fan", "F-1", "Roof"]), "changed 2, notes Some(\"kept\")");
        assert_eq!(decided(&all, &["", "Fan", "", "Roof"]), "unchanged");
        assert_eq!(decided(&all, &["", "Fan", "", "Cellar"]), "new operational");
        assert_eq!(decided(&all, &["", "Pump", "", ""]), "new operational", "one with a tag is another one");
        assert!(decided(&all, &["", "Door", "", ""]).starts_with("Name: Several"));
        assert!(decided(&all, &["99", "Pump", "", ""]).starts_with("ID: There is no"));
        assert!(decided(&all, &["2", "Fan", "P-1", "Roof"]).starts_with("Tag: Another"));
    }

    #[test]
    fn a_column_of_the_file_replaces_and_one_that_it_has_not_is_left_alone() {
        assert_eq!(decided(&["Tag", "Name", "Notes"], &["P-1", "Pump", ""]), "changed 1, notes None");
        assert_eq!(decided(&["Tag", "Name", "Status"], &["P-1", "Pump", ""]), "unchanged", "a status is never nothing");
        assert_eq!(
            decided(&["Tag", "Name", "Status"], &["P-1", "Pump", "operational"]),
            "changed 1, notes Some(\"kept\")"
        );
    }
}
