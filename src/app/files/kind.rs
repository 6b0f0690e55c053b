//! What a file is, by its first bytes. Its name and what the browser called it are whatever the sender wanted.

use image::ImageFormat;

/// How many bytes are looked at.
pub const HEAD: usize = 1024;

/// A kind of file. Everything that is not listed is [`FileKind::Other`], and served as bytes that no browser shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    Jpeg,
    Png,
    Gif,
    Webp,
    Pdf,
    Zip,
    Text,
    Other,
}

impl FileKind {
    const ALL: [Self; 8] =
        [Self::Jpeg, Self::Png, Self::Gif, Self::Webp, Self::Pdf, Self::Zip, Self::Text, Self::Other];

    /// By the first bytes.
    pub fn of(head: &[u8]) -> Self {
        match head {
            [0xff, 0xd8, 0xff, ..] => Self::Jpeg,
            [0x89, b'P', b'N', b'G', b'\r', b'\n', 0x1a, b'\n', ..] => Self::Png,
            [b'G', b'I', b'F', b'8', b'7' | b'9', b'a', ..] => Self::Gif,
            [b'R', b'I', b'F', b'F', _, _, _, _, b'W', b'E', b'B', b'P', ..] => Self::Webp,
            [b'%', b'P', b'D', b'F', b'-', ..] => Self::Pdf,
            [b'P', b'K', 3, 4, ..] => Self::Zip,
            _ if is_text(head) => Self::Text,
            _ => Self::Other,
        }
    }

    /// As the table `attachments` has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Jpeg => "jpeg",
            Self::Png => "png",
            Self::Gif => "gif",
            Self::Webp => "webp",
            Self::Pdf => "pdf",
            Self::Zip => "zip",
            Self::Text => "text",
            Self::Other => "other",
        }
    }

    /// The kind of that name.
    pub fn parse(name: &str) -> Self {
        Self::ALL.into_iter().find(|kind| kind.as_str() == name).unwrap_or(Self::Other)
    }

    /// What it is served as. Nothing in this list can run in a browser.
    pub fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
            Self::Gif => "image/gif",
            Self::Webp => "image/webp",
            Self::Pdf => "application/pdf",
            Self::Zip => "application/zip",
            Self::Text => "text/plain; charset=utf-8",
            Self::Other => "application/octet-stream",
        }
    }

    /// How it is decoded, where a preview can be made.
    pub fn picture(self) -> Option<ImageFormat> {
        match self {
            Self::Jpeg => Some(ImageFormat::Jpeg),
            Self::Png => Some(ImageFormat::Png),
            Self::Gif => Some(ImageFormat::Gif),
            Self::Webp => Some(ImageFormat::WebP),
            _ => None,
        }
    }
}

fn is_text(head: &[u8]) -> bool {
    let text = match std::str::from_utf8(head) {
        Ok(text) => text,
        // The head may end in the middle of a character.
        Err(error) if error.error_len().is_none() => std::str::from_utf8(&head[..error.valid_up_to()]).unwrap_or("\0"),
        Err(_) => return false,
    };
    !text.is_empty() && !text.chars().any(|character| character.is_control() && !"\t\r\n".contains(character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_follows_from_the_content_alone() {
        let rows: [(&[u8], FileKind); 12] = [
            (b"\xff\xd8\xff\xe0\x00\x10JFIF", FileKind::Jpeg),
            (b"\x89PNG\r\n\x1a\n\0\0", FileKind::Png),
            (b"GIF89a\x01\0", FileKind::Gif),
            (b"RIFF\0\0\0\0WEBPVP8 ", FileKind::Webp),
            (b"%PDF-1.7", FileKind::Pdf),
            (b"PK\x03\x04", FileKind::Zip),
            (b"<!doctype html><script>alert(1)</script>", FileKind::Text),
            (b"<svg xmlns=\"http://www.w3.org/2000/svg\" onload=\"alert(1)\"/>", FileKind::Text),
            ("Öl\r\n".as_bytes(), FileKind::Text),
            (&"Öl".as_bytes()[..1], FileKind::Other),
            (b"MZ\x90\0", FileKind::Other),
            (b"", FileKind::Other),
        ];
        for (head, expected) in rows {
            assert_eq!(FileKind::of(head), expected, "{head:?}");
            assert_eq!(FileKind::parse(expected.as_str()), expected);
        }
        let mut cut = "Ö".repeat(600).into_bytes();
        cut.truncate(HEAD - 1);
        assert_eq!(FileKind::of(&cut), FileKind::Text, "cut in the middle of a character");
    }
}
