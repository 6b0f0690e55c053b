//! Where a sign-in leads: back to the page that was wanted, and never to another site.

use http::Uri;

/// Longest path that is carried along.
const MAX: usize = 1024;

/// The address of the sign-in page, with what is wanted afterwards.
pub fn sign_in_path(wanted: Option<&Uri>) -> String {
    let wanted = wanted.and_then(Uri::path_and_query).and_then(|wanted| local(wanted.as_str()));
    match wanted.filter(|wanted| *wanted != "/") {
        Some(wanted) => {
            let query = serde_urlencoded::to_string([("next", wanted)]).expect("a pair of texts can be encoded");
            format!("/sign-in?{query}")
        }
        None => "/sign-in".into(),
    }
}

/// `next` if it is a path on this host. Browsers read `//host` and `/\host` as another host, and skip tabs and line
/// breaks before they look.
pub fn local(next: &str) -> Option<&str> {
    let rest = next.strip_prefix('/')?;
    let is_plain = next.len() <= MAX && next.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\');
    let is_elsewhere = rest.starts_with('/');
    // Back to the sign-in page would be a circle.
    let is_circle = rest.starts_with("sign-");
    (is_plain && !is_elsewhere && !is_circle).then_some(next)
}

/// Where to go after a sign-in.
pub fn destination(next: &str) -> &str {
    local(next).unwrap_or("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_path_on_this_host_comes_next() {
        for good in ["/", "/assets", "/assets/7?tab=files&x=%2F%2F", "/a//b", "/@host", "/.//host"] {
            assert_eq!(local(good), Some(good));
        }
        let long = format!("/{}", "a".repeat(MAX));
        let bad = [
            "",
            "assets",
            "//evil.example",
            "///evil.example",
            "/\\evil.example",
            "\\/evil.example",
            "https://evil.example",
            "https:evil.example",
            "/\t/evil.example",
            "/\n/evil.example",
            "/ /evil",
            "javascript:alert(1)",
            "/sign-in",
            "/sign-out",
            "/a\\b",
            "/ä",
            "/a\u{0}",
            &long,
        ];
        for bad in bad {
            assert_eq!(local(bad), None, "{bad:?}");
            assert_eq!(destination(bad), "/", "{bad:?}");
        }
    }

    #[test]
    fn what_was_wanted_is_carried_along_as_one_value() {
        let path = |wanted: &str| sign_in_path(Some(&wanted.parse().unwrap()));
        assert_eq!(path("/assets?page=2&next=/x"), "/sign-in?next=%2Fassets%3Fpage%3D2%26next%3D%2Fx");
        assert_eq!(path("/"), "/sign-in");
        assert_eq!(path("//evil.example/"), "/sign-in");
        assert_eq!(sign_in_path(None), "/sign-in");
    }
}
