//! Where an object lies below its tenant's prefix: types that cannot hold a path trick.
//!
//! A path has exactly two parts, an area and a name. A name is a uuid that was made here, with an extension of at most
//! eight lower-case letters and digits. There is no constructor from a visitor's text but [`ObjectPath::from_str`], and
//! what that accepts is exactly what [`std::fmt::Display`] writes: no `..`, no slash, no `%`, no control character, no
//! upper case, nothing empty, nothing long.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Longest extension, in characters.
const MAX_EXTENSION: usize = 8;

/// What an object is for; the folders of a tenant's storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Area {
    /// What people attach, and its previews.
    Attachments,
    /// What is made for people to fetch.
    Exports,
    /// What people send to be taken in.
    Imports,
    /// What may be removed at any time.
    Temp,
}

impl Area {
    const ALL: [Self; 4] = [Self::Attachments, Self::Exports, Self::Imports, Self::Temp];

    /// The folder's name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Attachments => "attachments",
            Self::Exports => "exports",
            Self::Imports => "imports",
            Self::Temp => "temp",
        }
    }
}

/// A text that is no path of an object. It is not repeated: it may hold anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is not the path of a stored object")]
pub struct BadName;

/// The last part of a name, without the dot: one to eight of `a`–`z` and `0`–`9`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Extension(Box<str>);

impl Extension {
    /// # Errors
    /// Another text.
    pub fn new(text: &str) -> Result<Self, BadName> {
        let good = (1..=MAX_EXTENSION).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        if good { Ok(Self(text.into())) } else { Err(BadName) }
    }
}

/// An object's name: chosen here, never by a visitor.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectName {
    /// Makes it unique, so that no object ever replaces another.
    id: Uuid,
    /// For people who look into the storage; nothing is decided by it.
    extension: Option<Extension>,
}

impl ObjectName {
    /// A new name that nobody has.
    pub fn new(extension: Option<Extension>) -> Self {
        Self { id: Uuid::new_v4(), extension }
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.id.hyphenated())?;
        self.extension.as_ref().map_or(Ok(()), |extension| write!(formatter, ".{}", extension.0))
    }
}

impl FromStr for ObjectName {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let (id, extension) = match text.split_once('.') {
            Some((id, extension)) => (id, Some(Extension::new(extension)?)),
            None => (text, None),
        };
        let name = Self { id: Uuid::try_parse(id).map_err(|_| BadName)?, extension };
        // Uuids have several spellings (upper case, braces, no hyphens); one object has one name.
        if name.to_string() == text { Ok(name) } else { Err(BadName) }
    }
}

/// Where an object lies below its tenant's prefix: `attachments/{uuid}.pdf`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ObjectPath {
    area: Area,
    name: ObjectName,
}

impl ObjectPath {
    /// A path in `area` that nobody has.
    pub fn new(area: Area, extension: Option<Extension>) -> Self {
        Self { area, name: ObjectName::new(extension) }
    }

    /// What it is for.
    pub fn area(&self) -> Area {
        self.area
    }
}

impl fmt::Display for ObjectPath {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.area.as_str(), self.name)
    }
}

impl FromStr for ObjectPath {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        let (area, name) = text.split_once('/').ok_or(BadName)?;
        let area = Area::ALL.into_iter().find(|known| known.as_str() == area).ok_or(BadName)?;
        Ok(Self { area, name: name.parse()? })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_is_read_as_it_is_written() {
        for area in Area::ALL {
            for extension in [None, Some("pdf"), Some("7z"), Some("a1b2c3d4")] {
                let path = ObjectPath::new(area, extension.map(|text| Extension::new(text).unwrap()));
                assert_eq!(path.to_string().parse(), Ok(path));
            }
        }
    }

    #[test]
    fn path_tricks_are_no_paths() {
        let id = "6f2c1f5e-8a6b-4a6e-9d0c-0a1b2c3d4e5f";
        assert!(format!("attachments/{id}.pdf").parse::<ObjectPath>().is_ok());
        let tricks = [
            String::new(),
            id.to_owned(),
            "attachments/".to_owned(),
            format!("/attachments/{id}"),
            format!("attachments//{id}"),
            format!("attachments/../attachments/{id}"),
            format!("attachments/./{id}"),
            format!("../attachments/{id}"),
            format!("attachments/{id}/"),
            format!("attachments\\{id}"),
            format!("attachments/{id}/../{id}"),
            format!("attachments/%2e%2e/{id}"),
            format!("attachments%2f{id}"),
            format!("attachments/{id}."),
            format!("attachments/{id}..pdf"),
            format!("attachments/{id}.p/f"),
            format!("attachments/{id}.PDF"),
            format!("attachments/{id}.pdf\0"),
            format!("attachments/{id}.pdf\n"),
            format!("attachments/{id}.pdf#1"),
            format!("attachments/{id}.{}", "a".repeat(9)),
            format!("attachments/{}", id.to_uppercase()),
            format!("attachments/{}", id.replace('-', "")),
            format!("attachments/{{{id}}}"),
            format!("attachments/urn:uuid:{id}"),
            format!("Attachments/{id}"),
            format!("tenants/{id}"),
            format!("attachments/{id}{}", "a".repeat(4000)),
        ];
        for trick in tricks {
            assert_eq!(trick.parse::<ObjectPath>(), Err(BadName), "{trick:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_is_accepted_is_harmless(text in "(attachments|exports|imports|temp|[a-z.%/\\\\]{0,12})/[0-9a-f-]{0,36}[./%a-z0-9\u{0}]{0,12}") {
            if let Ok(path) = text.parse::<ObjectPath>() {
                prop_assert_eq!(path.to_string(), text.clone());
                prop_assert!(text.len() < 64 && text.matches('/').count() == 1 && !text.contains(".."));
            }
        }
    }
}
