//! Whether a write comes from our own page.
//!
//! Browsers say where a request comes from, in `Sec-Fetch-Site` or, older ones, in `Origin`. Programs say neither and
//! pass: nobody's cookie rides along with theirs.

use http::HeaderMap;
use http::header::{HeaderValue, ORIGIN};

use super::host;

/// True unless a header says that another site's page is behind the request. Both headers must agree where both are
/// present, and each only once.
pub fn is_same_origin(headers: &HeaderMap, host: &str) -> bool {
    // `none`: typed or bookmarked, so no site's page is behind it.
    let site = |value: &HeaderValue| matches!(value.as_bytes(), b"same-origin" | b"none");
    let origin = |value: &HeaderValue| value.to_str().is_ok_and(|origin| is_origin_of(origin, host));
    headers.get_all("sec-fetch-site").iter().all(site) && headers.get_all(ORIGIN).iter().all(origin)
}

/// The scheme is left open, because the proxy in front ends TLS. `null`, which sandboxed frames send, is nobody's.
fn is_origin_of(origin: &str, host: &str) -> bool {
    let name = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
    name.is_some_and(|name| host::canonical(name).is_ok_and(|canonical| canonical == host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_sites_own_pages_and_programs_may_write() {
        let rows: [(&[(&'static str, &'static str)], bool); 10] = [
            (&[], true),
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://acme.example")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("origin", "http://acme.example:8080")], true),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("origin", "https://other.example")], false),
            (&[("origin", "https://acme.example.other.example")], false),
            (&[("origin", "null")], false),
            (&[("sec-fetch-site", "same-origin"), ("origin", "https://other.example")], false),
        ];
        for (headers, expected) in rows {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                map.append(*name, HeaderValue::from_static(value));
            }
            assert_eq!(is_same_origin(&map, "acme.example"), expected, "{headers:?}");
        }
    }
}
