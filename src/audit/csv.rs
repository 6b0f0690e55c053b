//! Entries of the trail as CSV.

use crate::central::TrailRow;

/// The first line.
pub const HEADER: &str =
    "id,at,actor,action,resource_type,resource_id,tenant,slug,ip_address,user_agent,correlation_id,changes\n";

/// One entry as one line.
pub fn line(row: &TrailRow) -> String {
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let uuid = |value: Option<uuid::Uuid>| value.map(|uuid| uuid.to_string()).unwrap_or_default();
    let fields = [
        row.id.to_string(),
        row.at.to_string(),
        row.actor.clone(),
        row.action.clone(),
        text(&row.resource_type),
        text(&row.resource_id),
        uuid(row.tenant),
        text(&row.slug),
        text(&row.ip_address),
        text(&row.user_agent),
        uuid(row.correlation_id),
        row.changes.as_ref().map(ToString::to_string).unwrap_or_default(),
    ];
    let mut writer = csv::Writer::from_writer(Vec::new());
    writer.write_record(fields.iter().map(|field| harmless(field))).expect("writing to memory cannot fail");
    String::from_utf8(writer.into_inner().expect("writing to memory cannot fail")).expect("texts are UTF-8")
}

/// A spreadsheet computes what begins like a formula, and a formula can send the sheet elsewhere. An apostrophe makes it a
/// text again.
fn harmless(field: &str) -> String {
    if field.starts_with(['=', '+', '-', '@', '\t', '\r']) { format!("'{field}") } else { field.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_quoted_where_it_must_be_and_never_a_formula() {
        let row = TrailRow {
            id: 7,
            at: "2026-01-01T00:00:00Z".parse().unwrap(),
            tenant: None,
            slug: None,
            actor: "=cmd|'/c calc'!A1".into(),
            action: "tenant.created".into(),
            resource_type: None,
            resource_id: Some("a,\"b\"\nc".into()),
            changes: Some(serde_json::json!({"a": 1})),
            ip_address: None,
            user_agent: Some("-1".into()),
            correlation_id: None,
        };
        assert_eq!(
            line(&row),
            "7,2026-01-01T00:00:00Z,'=cmd|'/c calc'!A1,tenant.created,,\"a,\"\"b\"\"\nc\",,,,'-1,,\"{\"\"a\"\":1}\"\n"
        );
        assert_eq!(HEADER.split(',').count(), 12);
    }
}
