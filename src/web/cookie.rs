//! Cookies as headers. No more of RFC 6265 than we send ourselves.

use std::time::Duration;

use http::HeaderMap;
use http::header::{COOKIE, HeaderValue};

/// The session's cookie.
pub const SESSION: &str = "mo_session";

/// The only value of the cookie `name`. Two of the same name are none: one of them is somebody else's doing, and which
/// one would be a guess.
pub fn value<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let mut values = headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|header| header.to_str().ok())
        .flat_map(|header| header.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .filter(|(key, _)| *key == name)
        .map(|(_, value)| value);
    match (values.next(), values.next()) {
        (Some(value), None) => Some(value),
        _ => None,
    }
}

/// Whether a cookie `name` came along, in whatever form.
pub fn is_present(headers: &HeaderMap, name: &str) -> bool {
    let pairs = headers.get_all(COOKIE).iter().filter_map(|header| header.to_str().ok()).flat_map(|all| all.split(';'));
    pairs.filter_map(|pair| pair.trim().split_once('=')).any(|(key, _)| key == name)
}

/// Sets a cookie for this host alone (there is no `Domain`), out of reach of scripts and of other sites' forms.
///
/// # Panics
/// Name or value have characters that cookies cannot have; ours are letters, digits and `-_.`.
pub fn set(name: &str, value: &str, age: Duration, secure: bool) -> HeaderValue {
    written(name, value, age, "Lax", secure)
}

/// As [`set`], and not sent either when a link of another site is followed.
///
/// # Panics
/// As [`set`].
pub fn set_strict(name: &str, value: &str, age: Duration, secure: bool) -> HeaderValue {
    written(name, value, age, "Strict", secure)
}

fn written(name: &str, value: &str, age: Duration, same_site: &str, secure: bool) -> HeaderValue {
    let secure = if secure { "; Secure" } else { "" };
    let text = format!("{name}={value}; Path=/; Max-Age={}; HttpOnly; SameSite={same_site}{secure}", age.as_secs());
    HeaderValue::from_str(&text).expect("our cookies are visible ASCII")
}

/// Makes the browser forget a cookie.
pub fn clear(name: &str, secure: bool) -> HeaderValue {
    set(name, "", Duration::ZERO, secure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_by_its_whole_name_and_only_when_there_is_one() {
        let rows: [(&[&'static str], Option<&str>); 8] = [
            (&["mo_session=a"], Some("a")),
            (&["x=1; mo_session=a.b-c_d; y=2"], Some("a.b-c_d")),
            (&["x=1", "mo_session=a"], Some("a")),
            (&["mo_session="], Some("")),
            (&["xmo_session=a; mo_session2=b"], None),
            (&["mo_session=a; mo_session=b"], None),
            (&["mo_session=a", "mo_session=a"], None),
            (&[], None),
        ];
        for (headers, expected) in rows {
            let mut map = HeaderMap::new();
            for header in headers {
                map.append(COOKIE, HeaderValue::from_static(header));
            }
            assert_eq!(value(&map, SESSION), expected, "{headers:?}");
        }
    }

    #[test]
    fn a_cookie_is_this_hosts_alone_and_secure_unless_there_is_no_tls() {
        let set = |secure| set(SESSION, "a", Duration::from_mins(1), secure).to_str().unwrap().to_owned();
        assert_eq!(set(true), "mo_session=a; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure");
        assert_eq!(set(false), "mo_session=a; Path=/; Max-Age=60; HttpOnly; SameSite=Lax");
        assert!(clear(SESSION, true).to_str().unwrap().starts_with("mo_session=; Path=/; Max-Age=0;"));
    }
}
