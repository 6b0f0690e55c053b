//! The name of a file as people see it. It never becomes a path: see [`crate::tenancy::storage::ObjectName`].

use crate::tenancy::storage::Extension;

/// Longest name, in characters.
const MAX: usize = 255;

/// A name that can be shown, stored and put into a header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShownName(String);

impl ShownName {
    /// From what a browser or program sent. A path before the name, which some send, is left out.
    ///
    /// # Errors
    /// What to change, for the person who chose the file.
    pub fn new(sent: &str) -> Result<Self, String> {
        let name = sent.rsplit(['/', '\\']).next().unwrap_or_default().trim();
        if sent.chars().any(char::is_control) {
            return Err("The file's name contains a control character. Rename the file and try again.".into());
        }
        // Characters that turn the reading direction can make `gpj.exe` look like `exe.jpg`.
        if name.chars().any(|character| matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')) {
            return Err("The file's name contains a character that changes the direction of text. Rename it.".into());
        }
        let length = name.chars().count();
        if length > MAX {
            return Err(format!("The file's name has {length} characters. Shorten it to {MAX}."));
        }
        if name.is_empty() || name == "." || name == ".." {
            return Err("Choose a file that has a name.".into());
        }
        Ok(Self(name.to_owned()))
    }

    /// As it is shown.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its extension, where it is of the plain kind.
    pub fn extension(&self) -> Option<Extension> {
        let (_, extension) = self.0.rsplit_once('.')?;
        Extension::new(&extension.to_ascii_lowercase()).ok()
    }
}

/// `Content-Disposition` as in RFC 6266: a plain name for old programs and the exact one as in RFC 8187.
pub fn content_disposition(kind: &str, name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|character| match character {
            '"' | '\\' | '%' => '_',
            ' '..='~' => character,
            _ => '_',
        })
        .collect();
    format!("{kind}; filename=\"{plain}\"; filename*=UTF-8''{}", percent_encoded(name))
}

fn percent_encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        // `attr-char` of RFC 8187.
        if byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_as_they_are_and_paths_are_cut_off() {
        assert_eq!(ShownName::new("Pumpe 7 – Öl.pdf").unwrap().as_str(), "Pumpe 7 – Öl.pdf");
        assert_eq!(ShownName::new("C:\\fakepath\\a.txt").unwrap().as_str(), "a.txt");
        assert_eq!(ShownName::new("../../etc/passwd").unwrap().as_str(), "passwd");
        assert!(ShownName::new(&"ü".repeat(255)).is_ok());
        for bad in ["", "  ", "a/", "..", "a\0b", "a\r\nb", "a\u{7f}", "a\u{85}", "fdp.\u{202e}exe", &"a".repeat(256)] {
            assert!(ShownName::new(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn only_a_plain_extension_is_kept() {
        let extension = |name: &str| ShownName::new(name).unwrap().extension();
        assert_eq!(extension("a.PDF"), Some(Extension::new("pdf").unwrap()));
        assert_eq!(extension("a.tar.gz"), Some(Extension::new("gz").unwrap()));
        for name in ["a", "a.", "a.verylongone", "a.ü", "a.p f"] {
            assert_eq!(extension(name), None, "{name}");
        }
    }

    #[test]
    fn no_name_breaks_out_of_its_header() {
        assert_eq!(
            content_disposition("attachment", "Öl \"7\".pdf"),
            "attachment; filename=\"_l _7_.pdf\"; filename*=UTF-8''%C3%96l%20%227%22.pdf"
        );
        let header = content_disposition("attachment", "a\r\nSet-Cookie: x\\\";,%0d");
        assert!(header.is_ascii() && !header.contains(['\r', '\n', '\\']), "{header}");
        assert_eq!(header.matches('"').count(), 2, "{header}");
    }
}
