//! Small parts of pages: fields of forms, badges, the foot of a list. Each has its template, so that labels, hints and
//! errors are tied to their fields in one place.

use askama::Template;

use super::typed::Errors;

/// A status: its word, and the colour and shape that go with it.
#[derive(Template, Debug, Clone, Copy, PartialEq, Eq)]
#[template(source = "<span class=\"badge {{ tone }}\">{{ word }}</span>", ext = "html")]
pub struct Badge {
    /// `good`, `warn`, `bad`, `info` or `soft`.
    pub tone: &'static str,
    pub word: &'static str,
}

/// A choice in a list.
#[derive(Debug, Clone)]
pub struct Choice {
    pub value: String,
    pub text: String,
    pub chosen: bool,
}

impl Choice {
    /// Choices of the table's names and people's words for them.
    pub fn of(choices: &[(&'static str, &'static str)], chosen: &str) -> Vec<Self> {
        let choice = |(value, text): &(&str, &str)| Self {
            value: (*value).into(),
            text: (*text).into(),
            chosen: *value == chosen,
        };
        choices.iter().map(choice).collect()
    }

    /// Texts that stand for themselves, after one for "any of them".
    pub fn texts(any: &str, texts: &[String], chosen: &str) -> Vec<Self> {
        let first = Self { value: String::new(), text: any.into(), chosen: chosen.is_empty() };
        let rest = texts.iter().map(|text| Self { value: text.clone(), text: text.clone(), chosen: text == chosen });
        std::iter::once(first).chain(rest).collect()
    }
}

/// What a field takes.
#[derive(Debug, Clone)]
pub enum Kind {
    /// One line.
    Line,
    /// Several lines.
    Text,
    /// A date.
    Day,
    /// A whole number in a range.
    Number(i32, i32),
    /// One of a list.
    List(Vec<Choice>),
    /// Carried along unseen.
    Hidden,
}

/// A field of a form with its label, hint and error.
#[derive(Template, Debug, Clone)]
#[template(path = "plant/field.html")]
pub struct Field {
    name: &'static str,
    label: &'static str,
    kind: Kind,
    value: String,
    hint: &'static str,
    required: bool,
    max: usize,
    /// Values that are in use already.
    known: Vec<String>,
    error: Option<String>,
    focus: bool,
}

impl Field {
    /// A field that may be left empty.
    pub fn new(name: &'static str, label: &'static str, kind: Kind, value: &str, errors: &Errors) -> Self {
        Self {
            name,
            label,
            kind,
            value: value.into(),
            hint: "",
            required: false,
            max: 255,
            known: vec![],
            error: errors.of(name).map(Into::into),
            focus: errors.is_first(name),
        }
    }

    /// It must be filled in.
    pub fn required(mut self) -> Self {
        self.required = true;
        self
    }

    /// What helps to fill it in.
    pub fn hint(mut self, hint: &'static str) -> Self {
        self.hint = hint;
        self
    }

    /// Longest text, in characters.
    pub fn max(mut self, max: usize) -> Self {
        self.max = max;
        self
    }

    /// Suggestions.
    pub fn known(mut self, known: &[String]) -> Self {
        self.known = known.to_vec();
        self
    }

    fn described_by(&self) -> String {
        let error = self.error.is_some().then(|| format!("{}-error", self.name));
        let hint = (!self.hint.is_empty()).then(|| format!("{}-hint", self.name));
        [error, hint].into_iter().flatten().collect::<Vec<_>>().join(" ")
    }
}

/// The foot of a list: where one is in it, and the way on.
#[derive(Template, Debug, Clone)]
#[template(path = "plant/pages.html")]
pub struct Pages {
    /// From 1.
    pub number: i64,
    pub size: i64,
    /// Rows on all pages.
    pub total: i64,
    /// What is listed, in the plural.
    pub what: &'static str,
    /// Path and query without the page, ending in `?` or `&`.
    pub base: String,
}

impl Pages {
    fn last(&self) -> i64 {
        ((self.total + self.size - 1) / self.size).max(1)
    }

    fn first_row(&self) -> i64 {
        (self.number - 1) * self.size + 1
    }

    fn last_row(&self) -> i64 {
        (self.number * self.size).min(self.total)
    }
}

/// A page that is nothing but a form.
#[derive(Template)]
#[template(path = "plant/form.html")]
pub struct FormPage {
    pub shell: crate::app::shell::Shell,
    pub title: String,
    /// Where one is: path and text of the pages above.
    pub crumbs: Vec<(String, String)>,
    pub action: String,
    pub fields: Vec<Field>,
    pub submit: &'static str,
    pub cancel: String,
    /// Something that concerns no single field.
    pub error: Option<String>,
    /// What somebody else has saved meanwhile.
    pub conflict: Option<Conflict>,
}

/// Two people changed the same thing.
pub struct Conflict {
    /// Who was faster, where it is known.
    pub who: String,
    pub when: String,
    /// What differs.
    pub rows: Vec<Difference>,
}

/// One field that two people see differently.
pub struct Difference {
    pub label: &'static str,
    pub theirs: String,
    pub yours: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_tied_to_its_label_hint_and_error_and_escapes_what_was_typed() {
        let errors = Errors::one("name", "“<b>” is odd.");
        let field = Field::new("name", "Name", Kind::Line, "\"><script>", &errors).required().hint("As on the label.");
        let html = field.render().unwrap();
        for part in [
            "for=\"name\"",
            "id=\"name\"",
            "aria-describedby=\"name-error name-hint\"",
            "aria-invalid=\"true\"",
            " autofocus",
            " required",
        ] {
            assert!(html.contains(part), "{part}: {html}");
        }
        assert!(!html.contains("<script>") && !html.contains("<b>"), "{html}");
    }

    #[test]
    fn the_foot_of_a_list_says_where_one_is() {
        let pages = |number, total| Pages { number, size: 50, total, what: "assets", base: "/assets?q=a&".into() };
        let html = pages(2, 120).render().unwrap();
        assert!(html.contains("51–100 of 120 assets"), "{html}");
        assert!(html.contains("?q=a&#38;page=1") && html.contains("?q=a&#38;page=3"), "{html}");
        let last = pages(3, 120).render().unwrap();
        assert!(last.contains("101–120 of 120") && !last.contains("page=4"), "{last}");
        assert_eq!((pages(1, 0).last(), pages(1, 50).last(), pages(1, 51).last()), (1, 1, 2));
    }
}
