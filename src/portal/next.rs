//! Where somebody goes after signing in: a path of ours, never another site. Pure.

/// `to?next=path`.
pub fn link(to: &str, path: &str) -> String {
    let query = serde_urlencoded::to_string([("next", path)]).unwrap_or_default();
    format!("{to}?{query}")
}

/// The path if it is one of ours, else the overview.
pub fn path(text: &str) -> &str {
    // `//host` and `/\host` are other sites to a browser, which also drops tabs and line ends before it looks.
    let ours = text.starts_with('/')
        && !text.starts_with("//")
        && text.bytes().all(|byte| byte.is_ascii_graphic() && !matches!(byte, b'\\' | b'"' | b'<' | b'>'));
    if ours && text.len() <= 1000 { text } else { "/" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_of_our_own_are_gone_to() {
        for own in ["/", "/tenants?page=2", "/tenants/customers/acme/delete"] {
            assert_eq!(path(own), own);
        }
        for other in [
            "",
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "/\t/evil.example",
            "\\/evil.example",
            "javascript:alert(1)",
            " /x",
            "/x\r\nSet-Cookie: a=b",
            "evil",
            "/\u{e4}",
        ] {
            assert_eq!(path(other), "/", "{other:?}");
        }
        assert_eq!(link("/sign-in", "/tenants?a=b&c=d"), "/sign-in?next=%2Ftenants%3Fa%3Db%26c%3Dd");
    }
}
