//! From which address a request comes.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::{ConnectInfo, FromRequestParts};
use http::header::{HeaderMap, HeaderName};
use http::request::Parts;

use super::host::HostResolver;

/// The addresses that a request passed, each added by the proxy that it reached next.
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address; in the request's extensions, put there by the first layer. None where the request did not come
/// over a connection, as in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ClientAddress(pub Option<IpAddr>);

impl<S: Sync> FromRequestParts<S> for ClientAddress {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.get::<Self>().copied().unwrap_or_default())
    }
}

/// Goes from the peer outwards for as long as the one who says so is trusted.
pub(super) fn address(peer: Option<IpAddr>, headers: &HeaderMap, trusted: impl Fn(IpAddr) -> bool) -> ClientAddress {
    let Some(mut client) = peer else { return ClientAddress(None) };
    let lines = headers.get_all(&FORWARDED_FOR);
    // Several headers are one list, in their order.
    let hops = lines.iter().filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(','));
    let hops: Vec<&str> = hops.map(str::trim).collect();
    for hop in hops.iter().rev() {
        if !trusted(client) {
            break;
        }
        // What a trusted proxy wrote and we do not understand ends the way: the last one that we know is the answer.
        let Some(address) = parse(hop) else { break };
        client = address;
    }
    ClientAddress(Some(client))
}

/// `192.0.2.1`, `192.0.2.1:4711`, `2001:db8::1`, `[2001:db8::1]:4711`: proxies differ.
fn parse(hop: &str) -> Option<IpAddr> {
    let bare = || hop.trim_start_matches('[').trim_end_matches(']').parse().ok();
    let address = hop.parse::<SocketAddr>().map(|address| address.ip()).ok().or_else(bare)?;
    Some(address.to_canonical())
}

/// As [`ClientAddress`], where a handler has the request's parts: for limits on guessing.
pub fn address_of(request: &Parts, hosts: &HostResolver) -> Option<IpAddr> {
    let peer = request.extensions.get::<ConnectInfo<SocketAddr>>().map(|ConnectInfo(peer)| peer.ip().to_canonical());
    address(peer, &request.headers, |address| hosts.trusts(Some(address))).0
}

/// The address as limits count it: of IPv6 the network of 64 bits, because whoever has one has all of it.
pub fn network_of(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn client(peer: &str, lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
        }
        let trusted = |address: IpAddr| address.to_string().starts_with("10.");
        address(Some(peer.parse().unwrap()), &headers, trusted).0.unwrap().to_string()
    }

    #[test]
    fn a_forwarded_address_counts_as_far_as_those_who_say_so_are_trusted() {
        let rows: [(&str, &[&str], &str); 12] = [
            ("203.0.113.9", &[], "203.0.113.9"),
            ("203.0.113.9", &["192.0.2.1"], "203.0.113.9"),
            ("10.0.0.1", &[], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6, 192.0.2.1"], "192.0.2.1"),
            ("10.0.0.1", &["6.6.6.6", "192.0.2.1, 10.0.0.2"], "192.0.2.1"),
            ("10.0.0.1", &["192.0.2.1:4711"], "192.0.2.1"),
            ("10.0.0.1", &["2001:db8::1"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]:4711"], "2001:db8::1"),
            ("10.0.0.1", &["[2001:db8::1]"], "2001:db8::1"),
            ("10.0.0.1", &["192.0.2.1, unknown"], "10.0.0.1"),
            ("10.0.0.1", &["192.0.2.1, unknown, 10.0.0.2"], "10.0.0.2"),
        ];
        for (peer, lines, expected) in rows {
            assert_eq!(client(peer, lines), expected, "{peer} says {lines:?}");
        }
    }

    #[test]
    fn of_ipv6_the_network_counts() {
        let network = |text: &str| network_of(text.parse().unwrap()).to_string();
        assert_eq!(network("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(network("192.0.2.1"), "192.0.2.1");
    }
}
