//! What people type into the forms of accounts, checked.

use lettre::Address;

/// Longest name, in characters; the table's CHECK says the same.
const MAX_NAME: usize = 255;
/// Longest address.
const MAX_EMAIL: usize = 254;

/// What is wrong in a form, and in which field. Empty where nothing is.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct FormError {
    /// The field's name.
    pub field: &'static str,
    /// What to change.
    pub text: String,
}

impl FormError {
    /// An error of one field.
    pub fn at(field: &'static str, text: impl Into<String>) -> Self {
        Self { field, text: text.into() }
    }

    /// Whether it is that field's.
    pub fn is_at(&self, field: &str) -> bool {
        self.field == field
    }
}

/// A name that may be stored.
///
/// # Errors
/// What to change.
pub fn name(text: &str) -> Result<String, FormError> {
    line("name", "The name", text, MAX_NAME)
}

/// One line of text that may be stored.
///
/// # Errors
/// What to change.
pub fn line(field: &'static str, what: &str, text: &str, max: usize) -> Result<String, FormError> {
    let text = text.trim();
    let length = text.chars().count();
    if text.is_empty() {
        return Err(FormError::at(field, format!("{what} is missing.")));
    }
    if text.chars().any(char::is_control) {
        return Err(FormError::at(
            field,
            format!("{what} contains a line break or another control character. Remove it."),
        ));
    }
    if length > max {
        return Err(FormError::at(field, format!("{what} has {length} characters. Shorten it to {max}.")));
    }
    Ok(text.to_owned())
}

/// An address that mail can be sent to and that may be stored.
///
/// # Errors
/// What to change.
pub fn email(text: &str) -> Result<String, FormError> {
    let text = text.trim();
    if text.is_empty() {
        return Err(FormError::at("email", "The e-mail address is missing."));
    }
    let is_plain =
        text.len() <= MAX_EMAIL && text.is_ascii() && !text.bytes().any(|byte| byte.is_ascii_control() || byte == b' ');
    let is_address = text.parse::<Address>().is_ok_and(|address| address.domain().contains('.'));
    if !is_plain || !is_address {
        return Err(FormError::at("email", "That is not an e-mail address. It looks like name@company.example."));
    }
    Ok(text.to_owned())
}

/// A new password, typed twice.
///
/// # Errors
/// What to change.
pub fn password(password: &str, again: &str, email: &str, name: &str) -> Result<(), FormError> {
    super::passwords::check(password, email, name).map_err(|text| FormError::at("password", text))?;
    if password != again {
        return Err(FormError::at("again", "The two passwords differ. Type the same one twice."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_one_that_mail_can_be_sent_to() {
        for good in ["jo@acme.example", " Jo.Miller+pumps@mail.acme.example ", "o'neil@acme.example"] {
            assert_eq!(email(good).unwrap(), good.trim());
        }
        let long = format!("{}@acme.example", "a".repeat(250));
        let bad = [
            "",
            "jo",
            "jo@",
            "@acme.example",
            "jo@acme",
            "jo@acme.example\r\nBcc: a@b.example",
            "jo @acme.example",
            "jo@acme.example\u{0}",
            "a@b.example,c@d.example",
            "Jo <jo@acme.example>",
            "jö@acme.example",
            &long,
        ];
        for bad in bad {
            assert_eq!(email(bad).unwrap_err().field, "email", "{bad:?}");
        }
    }

    #[test]
    fn a_name_is_counted_as_people_count_and_has_no_control_characters() {
        assert_eq!(name(" Jo ").unwrap(), "Jo");
        assert!(name(&"ü".repeat(255)).is_ok());
        for bad in ["", "  ", &"ü".repeat(256), "Jo\nBcc: x", "Jo\u{0}", "Jo\u{85}", "\u{7f}"] {
            assert_eq!(name(bad).unwrap_err().field, "name", "{bad:?}");
        }
    }
}
