//! What a request asks for: an id in the path, filters in the query.

use axum::extract::{FromRequestParts, Path};
use http::request::Parts;
use serde::de::DeserializeOwned;

use crate::app::problem::Problem;

/// The id in the path. What is no id is simply not there.
#[derive(Debug, Clone, Copy)]
pub struct Id(pub i64);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let Path(id) = Path::<i64>::from_request_parts(parts, state).await.map_err(|_| Problem::NotFound)?;
        Ok(Self(id))
    }
}

/// The query.
pub struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Asked<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let query = parts.uri.query().unwrap_or_default();
        let asked = serde_urlencoded::from_str(query);
        asked.map(Self).map_err(|error| Problem::Invalid(format!("The address: {error}.")))
    }
}

/// A form that is only a button.
#[derive(serde::Deserialize)]
pub struct Nothing {}

/// A text to look for or to compare with, in a form that PostgreSQL takes: it has no zero byte in texts.
pub fn plain(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(255).collect::<String>().trim().to_owned()
}

/// A query without the page and without empty filters, ready for another `name=value`.
pub fn base(path: &str, filters: &[(&str, &str)]) -> String {
    let filters: Vec<_> = filters.iter().filter(|(_, value)| !value.is_empty()).collect();
    let query = serde_urlencoded::to_string(&filters).unwrap_or_default();
    if query.is_empty() { format!("{path}?") } else { format!("{path}?{query}&") }
}

/// How a program walks through a list: `?cursor=` is the `next` of the answer before.
#[derive(Debug, Clone, Copy)]
pub struct Walk {
    /// Rows with a higher id.
    pub after: i64,
    /// At most so many; one more is read to know whether there are more.
    pub limit: i64,
}

impl Walk {
    /// # Errors
    /// A cursor that we did not give out, or a limit out of range.
    pub fn new(cursor: Option<&str>, limit: Option<i64>) -> Result<Self, Problem> {
        let after = cursor.unwrap_or("0").parse().map_err(|_| Problem::Invalid("`cursor` is none of ours.".into()))?;
        let limit = limit.unwrap_or(100);
        if !(1..=500).contains(&limit) {
            return Err(Problem::Invalid("`limit` is a number from 1 to 500.".into()));
        }
        Ok(Self { after, limit })
    }

    /// The answer's document, of rows that were asked for with `limit + 1`.
    pub fn answer<T: serde::Serialize>(self, mut rows: Vec<T>, id: impl Fn(&T) -> i64) -> serde_json::Value {
        let limit = usize::try_from(self.limit).unwrap_or(usize::MAX);
        let more = rows.len() > limit;
        rows.truncate(limit);
        let next = rows.last().filter(|_| more).map(|row| id(row).to_string());
        serde_json::json!({ "items": rows, "next": next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_come_back_in_links_without_the_empty_ones() {
        assert_eq!(base("/assets", &[("q", ""), ("status", "")]), "/assets?");
        assert_eq!(base("/assets", &[("q", "a&b=ü"), ("status", "down")]), "/assets?q=a%26b%3D%C3%BC&status=down&");
    }

    #[test]
    fn what_is_looked_for_has_no_control_characters() {
        assert_eq!(plain(" Pump\u{0}\n7 "), "Pump7");
        assert_eq!(plain(&"ü".repeat(300)).chars().count(), 255);
    }

    #[test]
    fn a_walk_ends_where_nothing_is_left() {
        let walk = Walk::new(None, Some(2)).unwrap();
        assert_eq!(walk.answer(vec![5, 6, 7], |id| *id), serde_json::json!({ "items": [5, 6], "next": "6" }));
        assert_eq!(walk.answer(vec![7, 8], |id| *id), serde_json::json!({ "items": [7, 8], "next": null }));
        for (cursor, limit) in [(Some("x"), None), (None, Some(0)), (None, Some(501))] {
            assert!(Walk::new(cursor, limit).is_err());
        }
    }
}
