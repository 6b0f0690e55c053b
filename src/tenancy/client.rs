//! Which address a request comes from, for limits on guessing.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use axum::extract::ConnectInfo;
use http::request::Parts;

use super::host::HostResolver;

/// The address of whoever sent a request: the peer, or, where the peer is a trusted proxy, the last address in
/// `X-Forwarded-For` that is not a trusted proxy itself. What stands before that one, anybody may have written.
/// `None` where the server does not know its peers, as in tests.
pub fn address_of(request: &Parts, hosts: &HostResolver) -> Option<IpAddr> {
    let ConnectInfo(peer) = request.extensions.get::<ConnectInfo<SocketAddr>>()?;
    let peer = peer.ip().to_canonical();
    if !hosts.trusts(Some(peer)) {
        return Some(peer);
    }
    let all = request.headers.get_all("x-forwarded-for").iter().filter_map(|header| header.to_str().ok());
    let addresses: Vec<&str> = all.flat_map(|header| header.split(',')).map(str::trim).collect();
    let mut nearest = peer;
    for text in addresses.into_iter().rev() {
        // Proxies may append a port. What is no address at all ends the chain: whoever wrote it is the one to count.
        let parsed = text.parse::<SocketAddr>().map(|address| address.ip()).or_else(|_| text.parse::<IpAddr>());
        let Ok(address) = parsed else { break };
        nearest = address.to_canonical();
        if !hosts.trusts(Some(nearest)) {
            break;
        }
    }
    Some(nearest)
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
    use super::*;

    fn address(peer: &str, forwarded: &[&str]) -> String {
        let hosts = HostResolver::new(&["10.0.0.0/8".to_owned()]).unwrap();
        let mut request = http::Request::builder();
        for value in forwarded {
            request = request.header("x-forwarded-for", *value);
        }
        let (mut parts, ()) = request.body(()).unwrap().into_parts();
        parts.extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 4000)));
        network_of(address_of(&parts, &hosts).unwrap()).to_string()
    }

    #[test]
    fn only_what_trusted_proxies_wrote_is_believed() {
        let rows: [(&str, &[&str], &str); 8] = [
            ("192.0.2.1", &[], "192.0.2.1"),
            ("192.0.2.1", &["198.51.100.1"], "192.0.2.1"),
            ("10.0.0.1", &["198.51.100.1"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, 198.51.100.1, 10.0.0.2"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1", "198.51.100.1:5000"], "198.51.100.1"),
            ("10.0.0.1", &["1.1.1.1, nonsense"], "10.0.0.1"),
            ("::ffff:10.0.0.1", &["2001:db8:1:2:3:4:5:6"], "2001:db8:1:2::"),
            ("10.0.0.1", &[], "10.0.0.1"),
        ];
        for (peer, forwarded, expected) in rows {
            assert_eq!(address(peer, forwarded), expected, "{peer} {forwarded:?}");
        }
    }
}
