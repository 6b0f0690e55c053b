//! Which host a request is for.
//!
//! Everything else in this library trusts the answer of this file, so it is strict: a request that names its host in
//! two ways that differ is refused, never interpreted. What comes out is in the one form that routing is written in:
//! lower case, without port, without trailing dot.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use axum::extract::ConnectInfo;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue};
use http::{Request, Version};
use ipnet::IpNet;

use super::client::{self, ClientAddress};

/// Longest host name that DNS allows, without the trailing dot.
const MAX_HOST: usize = 253;
/// Longest label between two dots.
const MAX_LABEL: usize = 63;
/// What proxies that rewrite `Host` put the customer's host into.
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// Why a request's host is refused. The text is shown to whoever sent it, so it names nothing but their own request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// No `Host` header, and no authority in the target.
    #[error("the request names no host")]
    Missing,
    /// More than one `Host`, or more than one forwarded host: which one counts would be a guess.
    #[error("the request names more than one host")]
    Several,
    /// Longer than any name in DNS.
    #[error("the host is longer than {MAX_HOST} characters")]
    TooLong,
    /// Not a host name with an optional port.
    #[error("the host is not a valid host name")]
    Malformed,
    /// `GET http://a/` with `Host: b`, or HTTP/2's `:authority` beside another `Host`.
    #[error("the request's target and its host header differ")]
    TargetDiffers,
}

/// Finds a request's host; holds the peers whose forwarded headers are believed.
#[derive(Debug, Clone, Default)]
pub struct HostResolver {
    /// Proxies in front of the app. Empty means that nobody's forwarded header is believed, which is the safe default:
    /// a header that anybody may send must not choose the tenant.
    trusted: Vec<IpNet>,
}

impl HostResolver {
    /// Reads addresses (`10.0.0.7`) and networks (`10.0.0.0/8`).
    ///
    /// # Errors
    /// The text that is neither, by value.
    pub fn new(trusted_proxies: &[String]) -> Result<Self, String> {
        let parse = |text: &String| {
            let text = text.trim();
            text.parse::<IpNet>().or_else(|_| text.parse::<IpAddr>().map(IpNet::from)).map_err(|_| text.to_owned())
        };
        Ok(Self { trusted: trusted_proxies.iter().map(parse).collect::<Result<_, _>>()? })
    }

    /// The canonical host of a request. Borrows from the request when the client already sent the canonical form, which
    /// is nearly always, so that the look-up after it allocates nothing.
    ///
    /// # Errors
    /// The request does not name exactly one well-formed host.
    pub fn host_of<'r, B>(&self, request: &'r Request<B>) -> Result<Cow<'r, str>, HostError> {
        let named = named_host(request)?;
        if self.trusts(peer(request))
            && let Some(forwarded) = single(request.headers(), &FORWARDED_HOST)?
        {
            return canonical(text(forwarded)?);
        }
        Ok(named)
    }

    /// Who sent the request, for limits and for logs: the peer, or, where that is a trusted proxy, the last address in
    /// `X-Forwarded-For` that is none. What stands further left, anybody may have written.
    pub fn client_of<B>(&self, request: &Request<B>) -> ClientAddress {
        client::address(peer(request), request.headers(), |address| self.trusts(Some(address)))
    }

    /// Whether this peer's forwarded headers are believed.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        peer.is_some_and(|peer| self.trusted.iter().any(|network| network.contains(&peer)))
    }
}

/// The host that the client itself named. Checked even when a proxy's header wins in the end, so that a request that
/// contradicts itself is refused on every path.
fn named_host<B>(request: &Request<B>) -> Result<Cow<'_, str>, HostError> {
    let header = single(request.headers(), &HOST)?.map(text).transpose()?.map(canonical).transpose()?;
    let target = request.uri().authority().map(|authority| canonical(authority.as_str())).transpose()?;
    match (header, target) {
        (Some(header), Some(target)) if header != target => Err(HostError::TargetDiffers),
        (Some(header), _) => Ok(header),
        // HTTP/2 and later carry the host in `:authority` alone; HTTP/1.1 must send `Host` (RFC 9112, section 3.2).
        (None, Some(target)) if request.version() >= Version::HTTP_2 => Ok(target),
        (None, _) => Err(HostError::Missing),
    }
}

/// The address of the other end of the connection, in the form that networks are compared in: an IPv4 peer on an IPv6
/// socket is still that IPv4 address.
fn peer<B>(request: &Request<B>) -> Option<IpAddr> {
    request.extensions().get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(address)| address.ip().to_canonical())
}

fn single<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Result<Option<&'h HeaderValue>, HostError> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (_, Some(_)) => Err(HostError::Several),
        (value, None) => Ok(value),
    }
}

fn text(value: &HeaderValue) -> Result<&str, HostError> {
    let text = value.to_str().map_err(|_| HostError::Malformed)?;
    // A list in one header is the same as several headers.
    if text.contains(',') { Err(HostError::Several) } else { Ok(text) }
}

/// The canonical form of a host as it stands in a header, or why there is none.
///
/// # Errors
/// The text is no host name with an optional port.
pub fn canonical(raw: &str) -> Result<Cow<'_, str>, HostError> {
    let name = without_port(raw)?;
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.is_empty() {
        return Err(HostError::Missing);
    }
    if name.len() > MAX_HOST {
        return Err(HostError::TooLong);
    }
    if !name.starts_with('[') && !name.split('.').all(is_label) {
        return Err(HostError::Malformed);
    }
    if name.bytes().any(|byte| byte.is_ascii_uppercase()) {
        return Ok(Cow::Owned(name.to_ascii_lowercase()));
    }
    Ok(Cow::Borrowed(name))
}

fn without_port(raw: &str) -> Result<&str, HostError> {
    let (name, rest) = if raw.starts_with('[') {
        // An IPv6 address. It is never a tenant's host, but it is a valid one, and so "not found" and not "bad request".
        let end = raw.find(']').ok_or(HostError::Malformed)? + 1;
        if !raw[1..end - 1].bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b':' | b'.')) {
            return Err(HostError::Malformed);
        }
        raw.split_at(end)
    } else {
        raw.split_at(raw.find(':').unwrap_or(raw.len()))
    };
    match rest.strip_prefix(':') {
        None if rest.is_empty() => Ok(name),
        // `u16::from_str` would take a plus sign.
        Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok() => Ok(name),
        _ => Err(HostError::Malformed),
    }
}

/// Letters, digits, hyphens, and the underscore that some customers' names have. Names in other scripts arrive as
/// punycode (`xn--…`), which is exactly this.
fn is_label(label: &str) -> bool {
    (1..=MAX_LABEL).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(target: &str, headers: &[(&str, &str)], peer: &str) -> Request<()> {
        let mut builder = Request::builder().uri(target);
        for (name, value) in headers {
            builder = builder.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let mut request = builder.body(()).unwrap();
        request.extensions_mut().insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 40000)));
        request
    }

    fn host(target: &str, headers: &[(&str, &str)], peer: &str) -> Result<String, HostError> {
        let resolver = HostResolver::new(&["10.1.0.0/16".to_owned(), " 192.0.2.7".to_owned()]).unwrap();
        resolver.host_of(&request(target, headers, peer)).map(Cow::into_owned)
    }

    #[test]
    fn a_host_header_is_brought_into_canonical_form_or_refused() {
        let long = format!("{}.example", "a".repeat(8192));
        let at_the_limit = format!("{}.{}.{}.{}", "a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(61));
        let over_the_limit = format!("{at_the_limit}d");
        let rows: &[(&str, Result<&str, HostError>)] = &[
            ("acme.example", Ok("acme.example")),
            ("ACME.Example", Ok("acme.example")),
            ("acme.example:443", Ok("acme.example")),
            ("acme.example:65535", Ok("acme.example")),
            ("acme.example.", Ok("acme.example")),
            ("acme.example.:8443", Ok("acme.example")),
            ("xn--bcher-kva.example", Ok("xn--bcher-kva.example")),
            ("10.0.0.1:9000", Ok("10.0.0.1")),
            ("[::1]:9000", Ok("[::1]")),
            ("[2001:DB8::1]", Ok("[2001:db8::1]")),
            (&at_the_limit, Ok(&at_the_limit)),
            (&over_the_limit, Err(HostError::TooLong)),
            (&long, Err(HostError::TooLong)),
            ("", Err(HostError::Missing)),
            (".", Err(HostError::Missing)),
            (":443", Err(HostError::Missing)),
            ("acme.example..", Err(HostError::Malformed)),
            ("acme..example", Err(HostError::Malformed)),
            (".acme.example", Err(HostError::Malformed)),
            ("acme.example:", Err(HostError::Malformed)),
            ("acme.example:+80", Err(HostError::Malformed)),
            ("acme.example:65536", Err(HostError::Malformed)),
            ("acme.example:80:80", Err(HostError::Malformed)),
            ("acme.example:http", Err(HostError::Malformed)),
            ("user@acme.example", Err(HostError::Malformed)),
            ("acme.example/other", Err(HostError::Malformed)),
            ("acme.example#other", Err(HostError::Malformed)),
            ("acme example", Err(HostError::Malformed)),
            ("acme%2eexample", Err(HostError::Malformed)),
            ("[::1", Err(HostError::Malformed)),
            ("[::1]x", Err(HostError::Malformed)),
            ("[acme.example]", Err(HostError::Malformed)),
            ("bücher.example", Err(HostError::Malformed)),
            ("acme.example, other.example", Err(HostError::Several)),
        ];
        for (raw, expected) in rows {
            let found = host("/", &[("host", raw)], "203.0.113.9");
            assert_eq!(found.as_deref().map_err(|error| *error), *expected, "Host: {raw}");
        }
    }

    #[test]
    fn a_request_that_contradicts_itself_is_refused() {
        let two = [("host", "acme.example"), ("host", "other.example")];
        assert_eq!(host("/", &two, "203.0.113.9"), Err(HostError::Several));
        let twice_the_same = [("host", "acme.example"), ("host", "acme.example")];
        assert_eq!(host("/", &twice_the_same, "203.0.113.9"), Err(HostError::Several));
        let acme = [("host", "acme.example")];
        assert_eq!(host("http://other.example/", &acme, "203.0.113.9"), Err(HostError::TargetDiffers));
        assert_eq!(host("http://ACME.example:80/", &acme, "203.0.113.9").as_deref(), Ok("acme.example"));
        assert_eq!(
            host("http://acme.example:81/", &acme, "203.0.113.9").as_deref(),
            Ok("acme.example"),
            "a port is no host"
        );
        assert_eq!(host("http://user@acme.example/", &acme, "203.0.113.9"), Err(HostError::Malformed));
        let forwarded = [("host", "acme.example"), ("x-forwarded-host", "other.example")];
        assert_eq!(host("http://third.example/", &forwarded, "10.1.2.3"), Err(HostError::TargetDiffers));
        assert_eq!(host("/", &[], "203.0.113.9"), Err(HostError::Missing));
        assert_eq!(host("http://acme.example/", &[], "203.0.113.9"), Err(HostError::Missing));
    }

    #[test]
    fn over_http_2_the_authority_is_the_host() {
        let mut request = request("http://acme.example/", &[], "203.0.113.9");
        *request.version_mut() = Version::HTTP_2;
        assert_eq!(HostResolver::default().host_of(&request).unwrap(), "acme.example");
        request.headers_mut().insert(HOST, HeaderValue::from_static("other.example"));
        assert_eq!(HostResolver::default().host_of(&request), Err(HostError::TargetDiffers));
    }

    #[test]
    fn a_forwarded_host_counts_only_from_a_trusted_proxy() {
        let headers = [("host", "proxy.internal"), ("x-forwarded-host", "Acme.example:443")];
        assert_eq!(host("/", &headers, "203.0.113.9").as_deref(), Ok("proxy.internal"));
        assert_eq!(host("/", &headers, "10.1.2.3").as_deref(), Ok("acme.example"));
        assert_eq!(host("/", &headers, "::ffff:10.1.2.3").as_deref(), Ok("acme.example"));
        assert_eq!(host("/", &headers, "192.0.2.7").as_deref(), Ok("acme.example"));
        assert_eq!(host("/", &headers, "192.0.2.8").as_deref(), Ok("proxy.internal"));
    }

    #[test]
    fn an_ambiguous_forwarded_host_is_refused_even_from_a_trusted_proxy() {
        let list = [("host", "proxy.internal"), ("x-forwarded-host", "acme.example, other.example")];
        assert_eq!(host("/", &list, "10.1.2.3"), Err(HostError::Several));
        let two =
            [("host", "proxy.internal"), ("x-forwarded-host", "acme.example"), ("x-forwarded-host", "other.example")];
        assert_eq!(host("/", &two, "10.1.2.3"), Err(HostError::Several));
        let two_hosts = [("host", "a.example"), ("host", "b.example"), ("x-forwarded-host", "acme.example")];
        assert_eq!(host("/", &two_hosts, "10.1.2.3"), Err(HostError::Several));
    }

    #[test]
    fn a_trusted_proxy_that_is_no_address_is_named() {
        assert_eq!(HostResolver::new(&["10.0.0.0/8".into(), "ingress".into()]).unwrap_err(), "ingress");
    }
}
