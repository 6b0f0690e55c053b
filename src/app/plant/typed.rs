//! What somebody typed, checked field by field, so that a form can say at each field what to change.

use super::day::Day;
use crate::app::problem::Problem;

/// What is wrong, by field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Errors(Vec<(&'static str, String)>);

impl Errors {
    /// One error.
    pub fn one(field: &'static str, text: impl Into<String>) -> Self {
        Self(vec![(field, text.into())])
    }

    /// Notes what to change in `field`.
    pub fn add(&mut self, field: &'static str, text: impl Into<String>) {
        self.0.push((field, text.into()));
    }

    /// What to change in `field`.
    pub fn of(&self, field: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == field).map(|(_, text)| text.as_str())
    }

    /// Whether `field` is the first with an error: the one that gets the focus.
    pub fn is_first(&self, field: &str) -> bool {
        self.0.first().is_some_and(|(name, _)| *name == field)
    }

    /// Nothing is wrong.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All of it in one line, for programs.
    pub fn in_one_line(&self) -> String {
        self.0.iter().map(|(field, text)| format!("{field}: {text}")).collect::<Vec<_>>().join(" ")
    }

    /// `value` when nothing is wrong.
    ///
    /// # Errors
    /// What is wrong.
    pub fn or<T>(self, value: T) -> Result<T, Self> {
        if self.is_empty() { Ok(value) } else { Err(self) }
    }

    /// One line of text; `None` when it is empty.
    pub fn line(&mut self, field: &'static str, text: &str, max: usize) -> Option<String> {
        let text = text.trim();
        if text.chars().any(char::is_control) {
            self.add(field, "This contains a line break or another control character. Remove it.");
        }
        self.within(field, text, max)
    }

    /// One line of text that must be there.
    pub fn required(&mut self, field: &'static str, text: &str, max: usize) -> String {
        if text.trim().is_empty() {
            self.add(field, "This is missing.");
        }
        self.line(field, text, max).unwrap_or_default()
    }

    /// Text of several lines; `None` when it is empty.
    pub fn text(&mut self, field: &'static str, text: &str, max: usize) -> Option<String> {
        // Browsers send CRLF, programs mostly LF; stored is LF.
        let text = text.replace("\r\n", "\n");
        let text = text.trim();
        if text.chars().any(|character| character.is_control() && !matches!(character, '\n' | '\t')) {
            self.add(field, "This contains a control character. Remove it.");
        }
        self.within(field, text, max)
    }

    fn within(&mut self, field: &'static str, text: &str, max: usize) -> Option<String> {
        let length = text.chars().count();
        if length > max {
            self.add(field, format!("This has {length} characters. Shorten it to {max}."));
        }
        (!text.is_empty()).then(|| text.to_owned())
    }

    /// One of `choices`, the table's names for them; an empty text is the first.
    pub fn choice(
        &mut self,
        field: &'static str,
        text: &str,
        choices: &[(&'static str, &'static str)],
    ) -> &'static str {
        let text = if text.is_empty() { choices[0].0 } else { text };
        if let Some((name, _)) = choices.iter().find(|(name, _)| *name == text) {
            return name;
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        self.add(field, format!("Choose one of {}.", names.join(", ")));
        choices[0].0
    }

    /// A day between 1900 and 2200; `None` when it is empty.
    pub fn day(&mut self, field: &'static str, text: &str) -> Option<Day> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let day = Day::parse(text).filter(|day| (1900..2200).contains(&day.civil().year()));
        if day.is_none() {
            self.add(field, "This is no date between 1900 and 2199. Write it as 2026-11-25.");
        }
        day
    }

    /// A whole number in a range; `None` when it is empty.
    pub fn number(&mut self, field: &'static str, text: &str, min: i32, max: i32) -> Option<i32> {
        let text = text.trim();
        if text.is_empty() {
            return None;
        }
        let number = text.parse::<i32>().ok().filter(|number| (min..=max).contains(number));
        if number.is_none() {
            self.add(field, format!("Write a whole number from {min} to {max}."));
        }
        number
    }
}

/// For programs, which have no fields to show it at.
impl From<Errors> for Problem {
    fn from(errors: Errors) -> Self {
        Self::Invalid(errors.in_one_line())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_trimmed_and_counted_as_people_count() {
        let mut errors = Errors::default();
        assert_eq!(errors.required("name", "  Pump 7  ", 255), "Pump 7");
        assert_eq!(errors.line("location", "  ", 255), None);
        assert_eq!(errors.required("name", &"ü".repeat(255), 255).chars().count(), 255, "characters, not bytes");
        assert!(errors.is_empty(), "{errors:?}");
        let rows = [
            ("   ".to_owned(), "missing"),
            ("ü".repeat(256), "256 characters"),
            ("Pump\u{0}".to_owned(), "control character"),
            ("Pump\n7".to_owned(), "control character"),
            ("Pump\u{85}7".to_owned(), "control character"),
        ];
        for (text, expected) in rows {
            let mut errors = Errors::default();
            errors.required("name", &text, 255);
            assert!(errors.of("name").unwrap().contains(expected), "{text:?}: {errors:?}");
            assert!(errors.is_first("name") && errors.or(()).is_err());
        }
    }

    #[test]
    fn texts_of_several_lines_keep_them_and_nothing_else() {
        let mut errors = Errors::default();
        assert_eq!(errors.text("notes", " a\r\n\tb \r\n", 10).as_deref(), Some("a\n\tb"));
        assert!(errors.is_empty());
        errors.text("notes", "a\u{7}", 10);
        assert!(errors.of("notes").unwrap().contains("control character"));
    }

    #[test]
    fn choices_days_and_numbers_say_what_they_take() {
        let mut errors = Errors::default();
        let choices = [("normal", "Normal"), ("high", "High")];
        assert_eq!(errors.choice("criticality", "", &choices), "normal");
        assert_eq!(errors.choice("criticality", "high", &choices), "high");
        assert_eq!(errors.day("on", "2026-11-25").unwrap().to_string(), "2026-11-25");
        assert_eq!(
            (errors.day("on", " "), errors.number("n", "", 1, 9), errors.number("n", "9", 1, 9)),
            (None, None, Some(9))
        );
        assert!(errors.is_empty(), "{errors:?}");
        errors.choice("criticality", "odd", &choices);
        errors.day("on", "0001-01-01");
        errors.number("n", "10", 1, 9);
        errors.number("m", "1.5", 1, 9);
        for field in ["criticality", "on", "n", "m"] {
            assert!(errors.of(field).is_some(), "{field}");
        }
        assert!(
            errors.in_one_line().starts_with("criticality: Choose one of normal, high."),
            "{}",
            errors.in_one_line()
        );
    }
}
